"""``completion``, and what the shell is offered for an argument: the tenants that there are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from proxy.cli.ending import NAME
from proxy.cli.inputs import load_settings
from proxy.store import open_store

_PATIENCE_S = 1.0
"""Who presses Tab does not wait longer for a database that is away."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what has SHELL complete commands, options and the names of tenants.

    For bash, ~/.bashrc gets the line: eval "$(pleo-proxy completion bash)"

    For zsh, ~/.zshrc gets the line: eval "$(pleo-proxy completion zsh)"

    For fish: pleo-proxy completion fish > ~/.config/fish/completions/pleo-proxy.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "the choices are click's"
    variable = f"_{NAME.replace('-', '_')}_COMPLETE".upper()
    script = kind(context.find_root().command, {}, NAME, variable)
    # Past BashComplete, which would start a bash with our environment to ask for its version.
    click.echo(ShellComplete.source(script))


def tenant_names(
    context: click.Context,
    param: click.Parameter,  # noqa: ARG001 - click's signature
    incomplete: str,
) -> list[CompletionItem]:
    """The tenants whose names begin as what was typed; none if the store does not tell at once."""
    try:
        names = asyncio.run(_names(context.params.get("config_path")))
    except Exception:  # noqa: BLE001 - in the middle of somebody's line there is no place for an error
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


async def _names(config_path: Path | None) -> list[str]:
    store = open_store(load_settings(config_path).store.url, create=False)
    try:
        return list(await asyncio.wait_for(store.tenants(), _PATIENCE_S))
    finally:
        await store.close()
