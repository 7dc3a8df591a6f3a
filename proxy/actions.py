"""What operators do to a tenant and its grant: one home for the command line, the JSON API and the pages.

Each is one edit of the store, with its note for the audit trail in the same transaction. Nothing here takes
up in memory what it changed: a proxy that runs follows its store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from time import monotonic

from proxy import lifecycle, listing
from proxy.audit import Recorder, TenantEdit
from proxy.errors import OperatorError, TenantError
from proxy.model import Grant, GrantState, Outcome, Tenant
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


async def switch(store: Store, recorder: Recorder, name: str, *, enabled: bool) -> None:
    """Let callers use a tenant, or refuse them; its grant is kept.

    :raises TenantGone: there is no such tenant.
    """

    def edit(stored: Mapping[str, Tenant]) -> Mapping[str, Tenant]:
        if name not in stored:
            raise TenantGone(name)
        return {**stored, name: replace(stored[name], enabled=enabled)}

    recorded = TenantEdit(edit, recorder)
    await store.edit_tenants(recorded, recorded.notes)


async def revoke(store: Store, recorder: Recorder, tenant: str) -> None:
    """Erase a tenant's tokens here; connecting it again needs a new consent.

    :raises TenantGone: there is no such tenant.
    :raises TenantError: it was never connected.
    """
    grant = await store.edit_grant(tenant, lifecycle.revoked, lambda: [recorder("grant.revoked", tenant)])
    if grant is None:
        raise TenantError(f"tenant {tenant!r} was never connected, so there is nothing to revoke")


async def ask_for_refresh(store: Store, recorder: Recorder, tenant: str) -> Grant:
    """Ask whoever serves to refresh a tenant's tokens now; returns the grant with the question.

    :raises TenantGone: there is no such tenant.
    :raises TenantError: it has no tokens.
    """
    asked = await store.edit_grant(
        tenant,
        lambda grant: lifecycle.ask_for_refresh(grant, recorder.clock()),
        lambda: [recorder("grant.refresh_asked", tenant)],
    )
    if asked is None or asked.refresh is None:
        raise TenantError(
            f"tenant {tenant!r} has no tokens to refresh (state {listing.state(asked).value}); "
            f"to connect it: pleo-proxy connect {tenant}"
        )
    return asked


async def refreshed(store: Store, before: Grant) -> None:
    """Wait until the refresh that was asked for has brought a new pair.

    :param before: as :func:`ask_for_refresh` returned it.
    :raises OperatorError: it failed, nobody serves, or it takes too long.
    """
    tenant, began = before.tenant, monotonic()
    while True:
        await asyncio.sleep(_LOOK_S)
        waited_s = monotonic() - began
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
