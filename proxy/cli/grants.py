"""``connect`` and ``grants list|show|refresh|revoke``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from proxy import actions, listing
from proxy.audit import Recorder, as_row
from proxy.authorize import LINK_LIFETIME_S, create_link
from proxy.chain import Note
from proxy.cli.completion import tenant_names
from proxy.cli.inputs import config_option, json_option, unknown_tenant, with_store
from proxy.cli.output import print_json, print_record, print_rows
from proxy.cli.recording import with_recorded_store
from proxy.config import Settings
from proxy.consents import reference_of
from proxy.model import Link
from proxy.store import Store, TenantGone

_RECORDS = 50
"""Of a tenant that is down, so many records are looked through for when that began."""


@click.command()
@click.argument("tenant", shell_complete=tenant_names)
@click.option(
    "--hours",
    type=click.FloatRange(min=0.01, max=24 * 30),
    default=LINK_LIFETIME_S / 3600,
    show_default=True,
    help="How long the link is good for.",
)
@json_option
@config_option
def connect(tenant: str, hours: float, config_path: Path | None, *, as_json: bool) -> None:
    """Print a one-time link; a person at TENANT's company opens it and approves.

    The link alone goes to standard output, so that it can be piped on.
    """

    async def work(store: Store, settings: Settings, recorder: Recorder) -> tuple[str, float]:
        def notes(link: Link) -> list[Note]:
            reference = reference_of(link.id)
            expires = listing.instant(link.expires_at)
            return [recorder("connect.link_created", tenant, expires_at=expires, reference=reference)]

        try:
            url, link = await create_link(
                store,
                tenant,
                public_url=settings.listen.public_url,
                now=time.time(),
                lifetime_s=hours * 3600,
                notes=notes,
            )
        except TenantGone:
            raise unknown_tenant(tenant, await store.tenants()) from None
        return url.reveal(), link.expires_at

    url, expires_at = with_recorded_store(config_path, work)
    expires = listing.instant(expires_at)
    if as_json:
        print_json({"tenant": tenant, "url": url, "expires_at": expires})
        return
    click.echo(url)
    click.echo(
        f"Works once, until {expires}. Whoever opens it connects {tenant}: send it with care.", err=True
    )


@click.group()
def grants() -> None:
    """Grants: what people at Pleo companies have consented to."""


@grants.command(name="list")
@click.option("--down", is_flag=True, help="Only tenants whose callers are refused, since when, and why.")
@json_option
@config_option
def list_(config_path: Path | None, *, down: bool, as_json: bool) -> None:
    """List the grant of every tenant.

    At a terminal instants are shown by how far away they are; elsewhere, and in --json, as they are.
    """
    if down:
        rows = with_store(config_path, _down)
        print_rows(rows, as_json=as_json, empty="No tenant is down: callers of all are served.")
        return
    rows = with_store(config_path, _rows)
    print_rows(
        rows,
        as_json=as_json,
        empty="No tenants yet. Add one: pleo-proxy tenants add NAME",
        lesser=("scopes", "generation", "company"),
    )


@grants.command()
@click.argument("tenant", shell_complete=tenant_names)
@json_option
@config_option
def show(tenant: str, config_path: Path | None, *, as_json: bool) -> None:
    """Show TENANT's grant."""
    rows = {row["tenant"]: row for row in with_store(config_path, _rows)}
    if tenant not in rows:
        raise unknown_tenant(tenant, rows)
    print_record(rows[tenant], as_json=as_json)


@grants.command()
@click.argument("tenant", shell_complete=tenant_names)
@json_option
@config_option
def refresh(tenant: str, config_path: Path | None, *, as_json: bool) -> None:
    """Have the running proxy refresh TENANT's tokens now, and wait for the outcome.

    The process that serves does it, since it holds the tokens; callers notice nothing. A refresh that is
    under way already counts.
    """

    async def work(store: Store, _settings: Settings, recorder: Recorder) -> list[listing.Row]:
        try:
            before = await actions.ask_for_refresh(store, recorder, tenant)
        except TenantGone:
            raise unknown_tenant(tenant, await store.tenants()) from None
        await actions.refreshed(store, before)
        return [row for row in await _rows(store, _settings) if row["tenant"] == tenant]

    print_rows(with_recorded_store(config_path, work), as_json=as_json, empty="")


@grants.command()
@click.argument("tenant", shell_complete=tenant_names)
@config_option
def revoke(tenant: str, config_path: Path | None) -> None:
    """Erase TENANT's tokens here; connecting it again needs a new consent.

    Pleo has no endpoint to revoke a single authorisation, so the tokens end there when they expire; a person
    at the company can end them at once in Pleo's settings.
    """

    async def work(store: Store, _settings: Settings, recorder: Recorder) -> None:
        try:
            await actions.revoke(store, recorder, tenant)
        except TenantGone:
            raise unknown_tenant(tenant, await store.tenants()) from None

    with_recorded_store(config_path, work)
    click.echo(f"Erased the tokens of {tenant}. To connect it again: pleo-proxy connect {tenant}")


async def _down(store: Store, _settings: Settings) -> list[listing.Row]:
    tenants, grants, now = await store.tenants(), await store.grants(), time.time()
    told = {}
    for row in listing.down(tenants.values(), grants, {}, now):
        records = map(as_row, await store.trail.newest(_RECORDS, row["tenant"], listing.DOWN_EVENTS))
        told[row["tenant"]] = [(each["at"], each["event"], each["details"]) for each in records]
    return listing.down(tenants.values(), grants, told, now)


async def _rows(store: Store, _settings: Settings) -> list[listing.Row]:
    return listing.grants((await store.tenants()).values(), await store.grants())
