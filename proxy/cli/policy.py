"""``policy show|set|promote|discard``: what a tenant's callers may ask, tried out before it is enforced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from proxy import listing
from proxy import policy as rules
from proxy.audit import Recorder, TenantEdit
from proxy.cli.completion import tenant_names
from proxy.cli.inputs import config_option, json_option, unknown_tenant, with_store
from proxy.cli.output import print_record
from proxy.cli.recording import with_recorded_store
from proxy.config import Settings
from proxy.config.values import Rule, parse_size
from proxy.errors import TenantError
from proxy.model import Policy, Preset, Tenant, Unblocked
from proxy.store import Store

Tenants = Mapping[str, Tenant]
_CLEARED = Policy()
_CLEARABLE = {
    "allow": "allow",
    "deny": "deny",
    "unblock": "unblock",
    "callers": "callers",
    "rate": "requests_per_minute",
    "concurrency": "concurrency",
    "body-size": "body_bytes",
}


@click.group()
def policy() -> None:
    """What a tenant's callers may ask. A running proxy sees changes within a second."""


@policy.command()
@click.argument("tenant", shell_complete=tenant_names)
@json_option
@config_option
def show(tenant: str, config_path: Path | None, *, as_json: bool) -> None:
    """Show the policy of TENANT, and the one on trial."""

    async def work(store: Store, _settings: Settings) -> Tenant:
        return known(await store.tenants(), tenant)

    found = with_store(config_path, work)
    record: dict[str, Any] = {"tenant": tenant, **asdict(found.policy)}
    record["trial"] = None if found.trial is None else asdict(found.trial)
    if not as_json and found.trial is not None:
        record["trial"] = ", ".join(policy_changes(found.policy, found.trial)) or "the same"
    print_record(record, as_json=as_json)


@policy.command(name="set")
@click.argument("tenant", shell_complete=tenant_names)
@click.option(
    "--report",
    is_flag=True,
    help="Put it on trial: what it would refuse is logged and counted, and passes. A first trial begins as "
    "the policy in force.",
)
@click.option(
    "--preset", type=click.Choice([preset.value for preset in Preset]), help="What callers may ask."
)
@click.option(
    "--allow",
    multiple=True,
    metavar="RULE",
    help="In place of the preset: 'METHODS PATH', such as 'GET,POST /v1/vendors/**'. Repeatable.",
)
@click.option(
    "--deny", multiple=True, metavar="RULE", help="A rule that goes before all that allows. Repeatable."
)
@click.option(
    "--unblock",
    multiple=True,
    type=click.Choice([endpoint.value for endpoint in Unblocked]),
    help="Let through an endpoint that is blocked whatever else is allowed. Repeatable.",
)
@click.option(
    "--callers", multiple=True, metavar="CIDR", help="Let in callers of this network only. Repeatable."
)
@click.option(
    "--pin-company/--no-pin-company", default=None, help="Refuse what names another company.  [default: pin]"
)
@click.option("--rate", type=int, metavar="N", help="Requests a minute.")
@click.option("--concurrency", type=int, metavar="N", help="Requests under way at one time.")
@click.option("--body-size", metavar="SIZE", help="Bytes of a body, or text such as '64 KiB'.")
@click.option(
    "--clear", type=click.Choice(list(_CLEARABLE)), multiple=True, help="Empty a field. Repeatable."
)
@config_option
def set_(tenant: str, config_path: Path | None, *, report: bool, **options: Any) -> None:  # noqa: ANN401
    """Change the policy of TENANT: each option that is given replaces what was there."""
    given = _given(**options)
    if not given:
        raise click.UsageError("nothing to change; give at least one option")

    def change(found: Tenant, ceiling: int | None) -> Tenant:
        if report:
            return replace(
                found, trial=rules.checked(replace(found.trial or found.policy, **given), ceiling=ceiling)
            )
        return replace(found, policy=rules.checked(replace(found.policy, **given), ceiling=ceiling))

    _edit(config_path, tenant, change)
    if report:
        click.echo(f"On trial: see policy.would_refuse in the log. Next: pleo-proxy policy promote {tenant}")
    else:
        click.echo(f"Changed the policy of tenant {tenant}.")


@policy.command()
@click.argument("tenant", shell_complete=tenant_names)
@config_option
def promote(tenant: str, config_path: Path | None) -> None:
    """Enforce the policy of TENANT that is on trial."""

    def change(found: Tenant, _ceiling: int | None) -> Tenant:
        return replace(found, policy=_on_trial(found), trial=None)

    _edit(config_path, tenant, change)
    click.echo(f"The policy that tenant {tenant} had on trial is enforced.")


@policy.command()
@click.argument("tenant", shell_complete=tenant_names)
@config_option
def discard(tenant: str, config_path: Path | None) -> None:
    """End the trial of TENANT; the policy in force stays."""

    def change(found: Tenant, _ceiling: int | None) -> Tenant:
        _on_trial(found)
        return replace(found, trial=None)

    _edit(config_path, tenant, change)
    click.echo(f"The trial of tenant {tenant} has ended; its policy in force stays.")


def _edit(config_path: Path | None, name: str, change: Callable[[Tenant, int | None], Tenant]) -> None:
    async def work(store: Store, settings: Settings, recorder: Recorder) -> None:
        def edit(stored: Tenants) -> Tenants:
            return {**stored, name: change(known(stored, name), settings.rate_ceiling)}

        recorded = TenantEdit(edit, recorder)
        await store.edit_tenants(recorded, recorded.notes)

    with_recorded_store(config_path, work)


def _on_trial(tenant: Tenant) -> Policy:
    if tenant.trial is None:
        raise TenantError(
            f"tenant {tenant.name!r} has no policy on trial; begin with "
            f"`pleo-proxy policy set {tenant.name} --report …`"
        )
    return tenant.trial


def _given(
    *,
    preset: str | None,
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    unblock: tuple[str, ...],
    callers: tuple[str, ...],
    pin_company: bool | None,
    rate: int | None,
    concurrency: int | None,
    body_size: str | None,
    clear: tuple[str, ...],
) -> dict[str, Any]:
    """The policy's fields that were named on the command line."""
    named = {
        "preset": None if preset is None else Preset(preset),
        "allow": allow or None,
        "deny": deny or None,
        "unblock": tuple(Unblocked(word) for word in unblock) or None,
        "callers": callers or None,
        "pin_company": pin_company,
        "requests_per_minute": rate,
        "concurrency": concurrency,
        "body_bytes": None if body_size is None else _size(body_size),
    }
    cleared = {_CLEARABLE[field]: getattr(_CLEARED, _CLEARABLE[field]) for field in clear}
    return cleared | {name: value for name, value in named.items() if value is not None}


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except Rule as rule:
        raise click.BadParameter(f"{text!r}: {rule}", param_hint="--body-size") from None


def known(stored: Tenants, name: str) -> Tenant:
    """The tenant of this name.

    :raises OperatorError: there is none.
    """
    tenant = stored.get(name)
    if tenant is None:
        raise unknown_tenant(name, stored)
    return tenant


def policy_changes(old: Policy, new: Policy) -> list[str]:
    """What differs between two policies, a line for each field."""
    before, after = asdict(old), asdict(new)
    return [
        f"{name} {listing.shown(before[name])} -> {listing.shown(after[name])}"
        for name in before
        if before[name] != after[name]
    ]
