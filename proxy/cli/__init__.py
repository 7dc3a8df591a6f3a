"""The command line: parses, calls, prints. Decides nothing that a module below could decide.

Errors are one line on standard error that says what to do; exit codes are 0 done, 1 failed, 2 wrong usage or
configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from proxy import __version__, hardening
from proxy.cli.ending import NAME, exit_code_of, keep_texts_back


def _serve() -> tuple[click.Command, ...]:
    from proxy.cli import serve  # noqa: PLC0415 - see _LOADERS

    return serve.serve, serve.check


def _demo() -> tuple[click.Command, ...]:
    from proxy.cli import demo  # noqa: PLC0415 - see _LOADERS

    return (demo.demo,)


def _sandbox() -> tuple[click.Command, ...]:
    from proxy.cli import sandbox  # noqa: PLC0415 - see _LOADERS

    return (sandbox.sandbox,)


def _tenants() -> tuple[click.Command, ...]:
    from proxy.cli import tenants  # noqa: PLC0415 - see _LOADERS

    return (tenants.tenants,)


def _policy() -> tuple[click.Command, ...]:
    from proxy.cli import policy  # noqa: PLC0415 - see _LOADERS

    return (policy.policy,)


def _grants() -> tuple[click.Command, ...]:
    from proxy.cli import grants  # noqa: PLC0415 - see _LOADERS

    return grants.connect, grants.grants


def _settings() -> tuple[click.Command, ...]:
    from proxy.cli import settings  # noqa: PLC0415 - see _LOADERS

    return (settings.settings,)


def _explain() -> tuple[click.Command, ...]:
    from proxy.cli import explain  # noqa: PLC0415 - see _LOADERS

    return (explain.explain,)


def _keys() -> tuple[click.Command, ...]:
    from proxy.cli import keys  # noqa: PLC0415 - see _LOADERS

    return (keys.keys,)


def _audit() -> tuple[click.Command, ...]:
    from proxy.cli import audit  # noqa: PLC0415 - see _LOADERS

    return (audit.audit,)


def _notify() -> tuple[click.Command, ...]:
    from proxy.cli import notify  # noqa: PLC0415 - see _LOADERS

    return (notify.notify,)


def _backup() -> tuple[click.Command, ...]:
    from proxy.cli import backup  # noqa: PLC0415 - see _LOADERS

    return backup.backup, backup.restore


def _migrate_store() -> tuple[click.Command, ...]:
    from proxy.cli import migrate_store  # noqa: PLC0415 - see _LOADERS

    return (migrate_store.migrate_store,)


def _tail() -> tuple[click.Command, ...]:
    from proxy.cli import tail  # noqa: PLC0415 - see _LOADERS

    return (tail.tail,)


def _init() -> tuple[click.Command, ...]:
    from proxy.cli import init  # noqa: PLC0415 - see _LOADERS

    return (init.init,)


def _completion() -> tuple[click.Command, ...]:
    from proxy.cli import completion  # noqa: PLC0415 - see _LOADERS

    return (completion.completion,)


def _reload() -> tuple[click.Command, ...]:
    from proxy.cli import reloading  # noqa: PLC0415 - see _LOADERS

    return (reloading.reload,)


_LOADERS: dict[str, Callable[[], tuple[click.Command, ...]]] = {
    "serve": _serve,
    "check": _serve,
    "reload": _reload,
    "demo": _demo,
    "sandbox": _sandbox,
    "tenants": _tenants,
    "policy": _policy,
    "connect": _grants,
    "grants": _grants,
    "explain": _explain,
    "settings": _settings,
    "keys": _keys,
    "audit": _audit,
    "migrate-store": _migrate_store,
    "notify": _notify,
    "backup": _backup,
    "restore": _backup,
    "tail": _tail,
    "init": _init,
    "completion": _completion,
}
"""What brings in each command. Only the one that is asked for is loaded: a proxy that serves for months need
not hold the sandbox, and the tables for terminals, in memory."""


class _Commands(click.Group):
    """The commands, loaded as they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_LOADERS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        load = _LOADERS.get(cmd_name)
        return next((command for command in load() if command.name == cmd_name), None) if load else None


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name=NAME)
def cli() -> None:
    """Lets tools that cannot do OAuth use the Pleo API.

    They send plain HTTP requests to the proxy's base URL; it attaches the token of the tenant they speak for.

    Start with `pleo-proxy demo`, or with `pleo-proxy init`.
    """


def main() -> None:
    """Run the command line."""
    keep_texts_back()
    sys.exit(exit_code_of(_run))


def _run() -> object:
    hardening.close_to_others()
    return cli.main(prog_name=NAME, standalone_mode=False)
