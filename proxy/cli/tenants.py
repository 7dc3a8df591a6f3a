"""``tenants add|set|list|show|remove|enable|disable|apply``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from proxy import actions, listing
from proxy.audit import Recorder, TenantEdit
from proxy.cli.completion import tenant_names
from proxy.cli.inputs import config_option, json_option, unknown_tenant, with_store
from proxy.cli.output import print_record, print_rows, warn_of_arguments
from proxy.cli.policy import known, policy_changes
from proxy.cli.recording import with_recorded_store
from proxy.config import Settings, TenantEntry, load_tenants_file
from proxy.credentials import hash_shared_key
from proxy.errors import TenantError
from proxy.model import ROUTE_FIELDS, Grant, Preset, Secret, Tenant
from proxy.store import Store, TenantGone
from proxy.tenants import check_together, checked, hash_legacy_key

Tenants = Mapping[str, Tenant]
Command = TypeVar("Command", bound=Callable[..., Any])
_CLEARABLE = {"company": None} | {field.replace("_", "-"): () for field in ROUTE_FIELDS}


@click.group()
def tenants() -> None:
    """Tenants: one for each Pleo company. A running proxy sees changes within a second."""


def _tenant_options(command: Command) -> Command:
    options: tuple[Callable[[Any], Any], ...] = (
        click.option(
            "--preset",
            type=click.Choice([preset.value for preset in Preset]),
            help="What callers may ask of Pleo.  [default for a new tenant: full]",
        ),
        click.option(
            "--shared-key",
            "shared_keys",
            multiple=True,
            metavar="KEY",
            help="A key that every caller of this tenant must send as X-Pleo-Proxy-Key; stored as a hash. "
            "'-' reads it from standard input, which keeps it out of the shell's history. Repeatable.",
        ),
        click.option(
            "--certificate",
            "certificates",
            multiple=True,
            metavar="NAME",
            help="A name of a caller's TLS certificate, such as san:dns:erp.internal; it leads to this "
            "tenant, whose callers must all have one of its certificates then. Repeatable.",
        ),
        click.option(
            "--legacy-key",
            "legacy_keys",
            multiple=True,
            metavar="KEY",
            help="An old API key that callers send as HTTP Basic user; stored as a hash. "
            "'-' reads it from standard input, which keeps it out of the shell's history. Repeatable.",
        ),
        click.option(
            "--network",
            "networks",
            multiple=True,
            metavar="CIDR",
            help="A network from which all requests are this tenant's. Repeatable.",
        ),
        click.option(
            "--host",
            "hosts",
            multiple=True,
            metavar="NAME",
            help="A host name under which callers reach this tenant. Repeatable.",
        ),
        click.option(
            "--company",
            metavar="UUID",
            help="The company at Pleo; left out, the first consent settles it.",
        ),
    )
    for option in options:
        command = option(command)
    return command


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The tenant's fields that were named on the command line."""
    preset = options["preset"]
    fields = {
        **options,
        "legacy_keys": _hashed(options["legacy_keys"], hash_legacy_key, "--legacy-key"),
        "shared_keys": _hashed(options["shared_keys"], hash_shared_key, "--shared-key"),
        "preset": None if preset is None else Preset(preset),
    }
    return {name: value for name, value in fields.items() if value}


def _changed(tenant: Tenant, given: dict[str, Any]) -> Tenant:
    """The tenant with the fields that were named; the preset is part of its policy."""
    fields = dict(given)
    if (preset := fields.pop("preset", None)) is not None:
        fields["policy"] = replace(tenant.policy, preset=preset)
    return checked(replace(tenant, **fields))


def _hashed(given: Iterable[str], hash_key: Callable[[Secret], str], option: str) -> tuple[str, ...]:
    """Keys as they are stored; ``-`` stands for a line of standard input."""
    texts = [sys.stdin.readline().strip() if key == "-" else key for key in given]
    if not all(texts):
        raise TenantError(f"{option} is empty; give the key as the tool sends it")
    return tuple(hash_key(Secret(text)) for text in texts)


def _warn_of_keys(options: Mapping[str, Any]) -> None:
    for field, option in (("legacy_keys", "--legacy-key"), ("shared_keys", "--shared-key")):
        if set(options[field]) - {"-"}:
            warn_of_arguments(option, "give it as '-' and on standard input")


@tenants.command()
@click.argument("name")
@_tenant_options
@config_option
def add(name: str, config_path: Path | None, **options: Any) -> None:  # noqa: ANN401 - from click
    """Add the tenant NAME."""
    given = _given(options)

    def edit(stored: Tenants) -> Tenants:
        if name in stored:
            raise TenantError(
                f"tenant {name!r} exists already; change it with `pleo-proxy tenants set {name}`"
            )
        return _together({**stored, name: _changed(Tenant(name), given)})

    _edit(config_path, edit)
    click.echo(f"Added tenant {name}. Next: pleo-proxy connect {name}")
    _warn_of_keys(options)


@tenants.command(name="set")
@click.argument("name", shell_complete=tenant_names)
@_tenant_options
@click.option(
    "--clear", type=click.Choice(list(_CLEARABLE)), multiple=True, help="Empty a field. Repeatable."
)
@config_option
def set_(
    name: str,
    config_path: Path | None,
    clear: tuple[str, ...],
    **options: Any,  # noqa: ANN401 - from click
) -> None:
    """Change the tenant NAME: each option that is given replaces what was there."""
    given = {**{field.replace("-", "_"): _CLEARABLE[field] for field in clear}, **_given(options)}
    if not given:
        raise click.UsageError("nothing to change; give at least one option")

    async def work(store: Store, _settings: Settings, recorder: Recorder) -> None:
        grants = await store.grants()

        def edit(stored: Tenants) -> Tenants:
            changed = _changed(known(stored, name), given)
            _check_company(changed, grants)
            return _together({**stored, name: changed})

        recorded = TenantEdit(edit, recorder)
        await store.edit_tenants(recorded, recorded.notes)

    with_recorded_store(config_path, work)
    click.echo(f"Changed tenant {name}.")
    _warn_of_keys(options)


@tenants.command(name="list")
@json_option
@config_option
def list_(config_path: Path | None, *, as_json: bool) -> None:
    """List all tenants."""

    async def work(store: Store, _settings: Settings) -> list[listing.Row]:
        return listing.tenants((await store.tenants()).values(), await store.grants())

    rows = with_store(config_path, work)
    print_rows(
        rows,
        as_json=as_json,
        empty="No tenants yet. Add one: pleo-proxy tenants add NAME",
        lesser=("routes", "preset"),
    )


@tenants.command()
@click.argument("name", shell_complete=tenant_names)
@json_option
@config_option
def show(name: str, config_path: Path | None, *, as_json: bool) -> None:
    """Show the tenant NAME."""

    async def work(store: Store, _settings: Settings) -> listing.Row:
        tenant = known(await store.tenants(), name)
        return listing.tenants([tenant], await store.grants())[0]

    print_record(with_store(config_path, work), as_json=as_json)


@tenants.command()
@click.argument("name", shell_complete=tenant_names)
@config_option
def remove(name: str, config_path: Path | None) -> None:
    """Remove the tenant NAME and erase its grant; connecting it again needs a new consent."""

    def edit(stored: Tenants) -> Tenants:
        gone = known(stored, name)
        return {other: tenant for other, tenant in stored.items() if tenant is not gone}

    _edit(config_path, edit)
    click.echo(f"Removed tenant {name} and erased its grant.")


@tenants.command()
@click.argument("name", shell_complete=tenant_names)
@config_option
def enable(name: str, config_path: Path | None) -> None:
    """Let callers use the tenant NAME again."""
    _switch(config_path, name, enabled=True)


@tenants.command()
@click.argument("name", shell_complete=tenant_names)
@config_option
def disable(name: str, config_path: Path | None) -> None:
    """Refuse callers of the tenant NAME; its grant is kept."""
    _switch(config_path, name, enabled=False)


def _switch(config_path: Path | None, name: str, *, enabled: bool) -> None:
    async def work(store: Store, _settings: Settings, recorder: Recorder) -> None:
        try:
            await actions.switch(store, recorder, name, enabled=enabled)
        except TenantGone:
            raise unknown_tenant(name, await store.tenants()) from None

    with_recorded_store(config_path, work)
    click.echo(f"{'Enabled' if enabled else 'Disabled'} tenant {name}.")


@tenants.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Print the difference and change nothing.")
@config_option
def apply(file: Path, config_path: Path | None, *, dry_run: bool) -> None:
    """Make the tenants match the [[tenant]] tables of FILE, and print the difference.

    Tenants that FILE does not name are removed. A company that a consent has settled stays where FILE names
    none.
    """
    entries = load_tenants_file(file, os.environ)

    async def work(store: Store, settings: Settings, recorder: Recorder) -> list[str]:
        grants = await store.grants()
        ceiling = settings.rate_ceiling

        def edit(stored: Tenants) -> Tenants:
            wanted = {entry.name: _from_entry(entry, stored.get(entry.name), ceiling) for entry in entries}
            for tenant in wanted.values():
                _check_company(tenant, grants)
            return _together(wanted)

        if dry_run:
            before = await store.tenants()
            return _difference(before, edit(before))
        recorded = TenantEdit(edit, recorder)
        after = await store.edit_tenants(recorded, recorded.notes)
        return _difference(recorded.before, after)

    lines = with_recorded_store(config_path, work)
    for line in lines:
        click.echo(line)
    if not lines:
        click.echo("Nothing to change.")
    elif dry_run:
        click.echo("Nothing was changed (--dry-run).")


def _edit(config_path: Path | None, edit: Callable[[Tenants], Tenants]) -> None:
    """Carry out an edit that needs to know nothing but the tenants."""

    async def work(store: Store, _settings: Settings, recorder: Recorder) -> None:
        recorded = TenantEdit(edit, recorder)
        await store.edit_tenants(recorded, recorded.notes)

    with_recorded_store(config_path, work)


def _from_entry(entry: TenantEntry, stored: Tenant | None, ceiling: int | None) -> Tenant:
    return checked(
        Tenant(
            entry.name,
            company=entry.company or (stored.company if stored is not None else None),
            enabled=entry.enabled,
            policy=entry.policy,
            trial=entry.trial,
            hosts=entry.hosts,
            networks=entry.networks,
            legacy_keys=tuple(hash_legacy_key(key) for key in entry.legacy_keys),
            certificates=entry.certificates,
            shared_keys=tuple(hash_shared_key(key) for key in entry.shared_keys),
        ),
        ceiling=ceiling,
    )


def _together(wanted: Tenants) -> Tenants:
    check_together(wanted)
    return wanted


def _check_company(tenant: Tenant, grants: Mapping[str, Grant]) -> None:
    grant = grants.get(tenant.name)
    if grant is not None and grant.access is not None and tenant.company not in (None, grant.company):
        raise TenantError(
            f"tenant {tenant.name!r} is connected to company {grant.company}, not {tenant.company}; "
            f"run `pleo-proxy grants revoke {tenant.name}` first"
        )


def _difference(before: Tenants, after: Tenants) -> list[str]:
    lines = [f"- {name}" for name in sorted(before.keys() - after.keys())]
    for name, tenant in sorted(after.items()):
        old = before.get(name)
        if old is None:
            lines.append(
                f"+ {name}: {', '.join(listing.routes(tenant))}; preset {tenant.policy.preset.value}"
            )
        elif old != tenant:
            lines += [f"~ {name}: {change}" for change in _changes(old, tenant)]
    return lines


def _changes(old: Tenant, new: Tenant) -> list[str]:
    changes = []
    for field in ("company", "enabled", "hosts", "networks", "certificates"):
        was, becomes = getattr(old, field), getattr(new, field)
        if was != becomes:
            changes.append(f"{field} {listing.shown(was)} -> {listing.shown(becomes)}")
    changes += policy_changes(old.policy, new.policy)
    if old.trial != new.trial:
        tried = (
            "none" if new.trial is None else ", ".join(policy_changes(new.policy, new.trial)) or "the same"
        )
        changes.append(f"trial: {tried}")
    for field in ("legacy_keys", "shared_keys"):
        was, becomes = getattr(old, field), getattr(new, field)
        if was != becomes:
            changes.append(f"{field} {len(was)} -> {len(becomes)}")
    return changes
