"""``connect`` and ``grants list|show|refresh|revoke``."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import click

from proxy import lifecycle, listing
from proxy.audit import Recorder
from proxy.authorize import LINK_LIFETIME_S, create_link
from proxy.cli.completion import tenant_names
from proxy.cli.inputs import config_option, json_option, unknown_tenant, with_store
from proxy.cli.output import print_json, print_record, print_rows
from proxy.cli.recording import with_recorded_store
from proxy.config import Settings
from proxy.errors import OperatorError, TenantError
from proxy.model import Grant, GrantState, Outcome
from proxy.store import Store, TenantGone

_LOOK_S = 0.2
"""Pause between looks at what has become of a question."""
_TAKEN_WITHIN_S = 10.0
"""Whoever serves sees a question within a second, and much later if the machine is busy."""
_ANSWERED_WITHIN_S = 45.0
"""Longer than a refresh may take, whatever Pleo does."""
_WHAT_NOW = {
    Outcome.REFUSED: "its tokens are erased; to connect it again: pleo-proxy connect {tenant}",
    Outcome.CLIENT_REJECTED: "Pleo does not accept the registration; correct pleo.client_id, "
    "pleo.client_secret or pleo.client_auth and restart",
    Outcome.NOT_SENT: "Pleo was not reached, and nothing is lost; check the network and ask again",
    Outcome.UNAVAILABLE: "Pleo is not available, and nothing is lost; ask again later",
    Outcome.UNKNOWN: "Pleo gave no usable answer; the next refresh will show whether the tokens still hold",
}
"""What follows from an outcome, for who asked."""


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
        expires_at = time.time() + hours * 3600
        note = recorder("connect.link_created", tenant, expires_at=expires_at)
        try:
            url, link = await create_link(
                store,
                tenant,
                public_url=settings.listen.public_url,
                now=time.time(),
                lifetime_s=hours * 3600,
                notes=lambda: [note],
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
@json_option
@config_option
def list_(config_path: Path | None, *, as_json: bool) -> None:
    """List the grant of every tenant."""
    rows = with_store(config_path, _rows)
    print_rows(rows, as_json=as_json, empty="No tenants yet. Add one: pleo-proxy tenants add NAME")


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
        before = await _ask(store, tenant, recorder)
        await _answered(store, tenant, before)
        return [row for row in await _rows(store, _settings) if row["tenant"] == tenant]

    print_rows(with_recorded_store(config_path, work), as_json=as_json, empty="")


async def _ask(store: Store, tenant: str, recorder: Recorder) -> Grant:
    """Note the question; returns the grant with it."""
    try:
        asked = await store.edit_grant(
            tenant,
            lambda grant: lifecycle.ask_for_refresh(grant, time.time()),
            lambda: [recorder("grant.refresh_asked", tenant)],
        )
    except TenantGone:
        raise unknown_tenant(tenant, await store.tenants()) from None
    if asked is None or asked.refresh is None:
        raise TenantError(
            f"tenant {tenant!r} has no tokens to refresh (state {listing.state(asked).value}); "
            f"to connect it: pleo-proxy connect {tenant}"
        )
    return asked


async def _answered(store: Store, tenant: str, before: Grant) -> None:
    """Wait until the refresh has brought a new pair.

    :raises OperatorError: it failed, nobody serves, or it takes too long.
    """
    began = time.monotonic()
    while True:
        await asyncio.sleep(_LOOK_S)
        waited_s = time.monotonic() - began
        grant = await store.grant(tenant)
        if grant is None:
            raise OperatorError(f"tenant {tenant!r} was removed meanwhile")
        if grant.generation > before.generation:
            return
        if grant.state in (GrantState.NEEDS_REAUTH, GrantState.REVOKED):
            raise _failed(grant)
        if grant.refresh_asked_at is None and grant.attempted_at is None:
            raise _failed(grant)
        if grant.refresh_asked_at is not None and waited_s > _TAKEN_WITHIN_S:
            await store.edit_grant(tenant, partial(lifecycle.withdraw_question, at=grant.refresh_asked_at))
            raise OperatorError(
                f"no running `pleo-proxy serve` took up the refresh of tenant {tenant!r}, so nothing was "
                "done; start one, and ask again"
            )
        if waited_s > _ANSWERED_WITHIN_S:
            raise OperatorError(
                f"the refresh of tenant {tenant!r} is still under way; see what comes of it: "
                f"pleo-proxy grants show {tenant}"
            )


def _failed(grant: Grant) -> OperatorError:
    if grant.state is GrantState.REVOKED:
        return OperatorError(f"the grant of tenant {grant.tenant!r} was revoked meanwhile")
    outcome = grant.last_outcome or Outcome.UNKNOWN
    follows = _WHAT_NOW.get(outcome, "nothing came of it; ask again").format(tenant=grant.tenant)
    return OperatorError(f"the refresh of tenant {grant.tenant!r} failed: {outcome.value}: {follows}")


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
            grant = await store.edit_grant(
                tenant, lifecycle.revoked, lambda: [recorder("grant.revoked", tenant)]
            )
        except TenantGone:
            raise unknown_tenant(tenant, await store.tenants()) from None
        if grant is None:
            raise TenantError(f"tenant {tenant!r} was never connected, so there is nothing to revoke")

    with_recorded_store(config_path, work)
    click.echo(f"Erased the tokens of {tenant}. To connect it again: pleo-proxy connect {tenant}")


async def _rows(store: Store, _settings: Settings) -> list[listing.Row]:
    return listing.grants((await store.tenants()).values(), await store.grants())
