"""One refresh of one grant, from the write-ahead to the saved answer. Decides nothing about when or for whom.

The order is invariant 5: the attempt is stored, then the request is sent, then the sealed answer goes to the
journal and to the store, and only then does anyone get to see it. Runs in a task that nobody cancels once the
request is sent (:mod:`proxy.tokens` owns it).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from proxy import lifecycle, pairs
from proxy.errors import StoreUnavailable
from proxy.facts import (
    Emit,
    JournalFailed,
    RefreshStarted,
    StoreFailed,
    TaskCrashed,
)
from proxy.lifecycle import Lease, Takeover
from proxy.model import Clock, Grant, Outcome, Secret
from proxy.oauth import TokenFailure, TokenPair
from proxy.places import innermost_place
from proxy.store import Issued, JournalUnavailable, Store, TenantGone
from proxy.vault import Vault, is_same_value

_LOOK_S = 0.1
"""Pause between looks at what another process's refresh has come to."""
_SAVE_RETRY_S = 1.0
"""Pause between attempts to save what Pleo has already issued: short, since callers wait for it."""


class RefreshesTokens(Protocol):
    """The part of :class:`proxy.provider.Provider` that is needed here."""

    async def refresh(self, refresh: Secret) -> TokenPair | TokenFailure:
        """Ask for a new pair."""


class RecordsPairs(Protocol):
    """The part of :class:`proxy.store.Journal` that is needed here."""

    async def append(self, issued: Issued) -> int:
        """Record a pair, on the disk."""

    async def settle(self, number: int) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class Refreshing:
    """What came of it."""

    grant: Grant | None
    """The grant as it is stored now; ``None`` if its tenant is gone."""
    pair: TokenPair | None = None
    """The new pair, if this refresh brought the stored one."""
    failure: TokenFailure | None = None
    told: bool = False
    """The failure is another process's, which has reported it; nothing was sent from here."""
    answer_was_lost: bool = False
    """An earlier refresh may have rotated the tokens unseen, so a refusal is no revocation."""


@dataclass(slots=True)
class Refresher:
    """Carries out refreshes, one call each."""

    store: Store
    journal: RecordsPairs
    vault: Vault
    provider: RefreshesTokens
    lifetimes: pairs.Lifetimes
    emit: Emit
    clock: Clock
    pause: Callable[[float], Awaitable[None]]
    owner: str
    """Of the leases that are taken here: another one for each process."""
    lease_s: float
    """How long a lease runs: longer than the provider's time-out, saving included. Renewed while one takes
    longer."""
    takeover_s: float
    """How long after another's lease has run out its owner is waited for."""
    steady_since: float = -math.inf
    """When the store was last seen not to work."""
    lease_waits: int = 0
    """How often another process's refresh was waited for."""
    stopping: bool = False
    """The process is about to end: what another is at is waited for no longer."""

    async def refresh(self, before: Grant, refresh: Secret, reason: str) -> Refreshing:
        """Refresh ``before``, whose opened refresh token is ``refresh``.

        If another process is at it, its result is waited for and returned, its failure too; and if the stored
        grant is no longer this one, nothing is sent and the stored one is returned.

        :raises StoreUnavailable: the attempt could not be stored, so nothing was sent (invariant 9).
        """
        try:
            while True:
                started = self.clock()
                begun, is_ours = await self._begin(before, started, if_asked=reason == "asked")
                if begun is not None and is_ours:
                    return await self._send(before, begun, refresh, reason, started)
                if begun is None or not lifecycle.is_same_pair(begun, before):
                    return Refreshing(begun)
                concluded = await self._result_of_another(before)
                if concluded is not None:
                    return concluded
        except StoreUnavailable:
            self.note_outage()
            raise

    def note_outage(self) -> None:
        """The store does not work: from its return on, others get time to save what they hold."""
        self.steady_since = self.clock()

    async def _begin(self, before: Grant, at: float, *, if_asked: bool) -> tuple[Grant | None, bool]:
        lease, takeover = Lease(self.owner, at + self.lease_s), self._takeover()
        is_ours = False

        def begin(grant: Grant | None) -> Grant | None:
            nonlocal is_ours
            after = lifecycle.begin_refresh(
                grant, before=before, at=at, lease=lease, takeover=takeover, if_asked=if_asked
            )
            is_ours = after is not grant
            return after

        return await self._edit(before.tenant, begin), is_ours

    def _takeover(self) -> Takeover:
        return Takeover(self.takeover_s, self.steady_since)

    async def _result_of_another(self, before: Grant) -> Refreshing | None:
        """What came of the refresh that another process began; ``None`` if it took too long to tell."""
        self.lease_waits += 1
        while True:
            await self.pause(_LOOK_S)
            stored = await self.store.grant(before.tenant)
            if stored is None or not lifecycle.is_same_pair(stored, before):
                return Refreshing(stored)
            if stored.attempted_at is None:
                outcome = stored.last_outcome or Outcome.UNKNOWN
                failure = TokenFailure(outcome, "told_by_another_process")
                return Refreshing(stored, failure=failure, told=True)
            if self.stopping:
                return Refreshing(stored, failure=TokenFailure(Outcome.NOT_SENT, "stopping"), told=True)
            if not lifecycle.is_reserved(
                stored, at=self.clock(), owner=self.owner, takeover=self._takeover()
            ):
                return None

    async def _send(
        self, before: Grant, begun: Grant, refresh: Secret, reason: str, started: float
    ) -> Refreshing:
        chain = self.vault.chain_id(refresh)
        self.emit(RefreshStarted(before.tenant, before.generation, reason, chain))
        answer = await self._ask_under_lease(before, refresh)
        if isinstance(answer, TokenPair):
            return await self._save(before, refresh, answer, started)
        stored = await self._edit_until_saved(
            before.tenant,
            lambda grant: lifecycle.not_granted(
                grant, before=before, outcome=answer.outcome, owner=self.owner
            ),
        )
        lost = answer.outcome is Outcome.REFUSED and begun.answer_lost
        return Refreshing(stored, failure=answer, answer_was_lost=lost)

    async def _ask_under_lease(self, before: Grant, refresh: Secret) -> TokenPair | TokenFailure:
        """Ask Pleo, and keep the lease for as long as that takes."""
        asking = asyncio.ensure_future(self._ask(refresh))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=self.lease_s / 3)
                if not asking.done():
                    await self._renew(before)
        finally:
            asking.cancel()  # does nothing to one that has answered
        return asking.result()

    async def _renew(self, before: Grant) -> None:
        lease = Lease(self.owner, self.clock() + self.lease_s)
        try:
            await self._edit(
                before.tenant, lambda grant: lifecycle.renewed(grant, before=before, lease=lease)
            )
        except StoreUnavailable as error:
            self.note_outage()
            self.emit(StoreFailed("renew_lease", error.detail))

    async def _ask(self, refresh: Secret) -> TokenPair | TokenFailure:
        try:
            return await self.provider.refresh(refresh)
        except Exception as error:  # noqa: BLE001 - a defect too leaves open whether the token was used
            self.emit(TaskCrashed("refresh", type(error).__name__, innermost_place(error)))
            return TokenFailure(Outcome.UNKNOWN, "internal_error")

    async def _save(self, before: Grant, refresh: Secret, pair: TokenPair, started: float) -> Refreshing:
        assert before.refresh is not None, "a grant without a refresh token is not refreshed"
        sealed = pairs.seal_pair(
            self.vault,
            pair,
            tenant=before.tenant,
            generation=before.generation + 1,
            # The lifetime counts from before the request, so that a slow answer never makes it longer.
            now=started,
            lifetimes=self.lifetimes,
            old_refresh=refresh,
        )
        issued = Issued(before.tenant, before.generation, before.refresh, sealed)
        number = await self._record(issued)
        stored = await self._edit_until_saved(
            before.tenant,
            lambda grant: lifecycle.granted(grant, sealed, before=before),
        )
        if number is not None:
            await self.journal.settle(number)
        # Another pair is stored where somebody connected the tenant anew meanwhile; that grant counts.
        is_ours = stored is not None and is_same_value(stored.access, sealed.access)
        return Refreshing(stored, pair=pair if is_ours else None)

    async def _record(self, issued: Issued) -> int | None:
        try:
            return await self.journal.append(issued)
        except JournalUnavailable as error:
            # The store may well take it: two places, so that one may fail.
            self.emit(JournalFailed(issued.tenant, str(error)))
            return None

    async def _edit_until_saved(
        self, tenant: str, edit: Callable[[Grant | None], Grant | None]
    ) -> Grant | None:
        # Pleo has ended the old pair already: giving up here would lose the grant.
        while True:
            try:
                return await self._edit(tenant, edit)
            except StoreUnavailable as error:
                self.note_outage()
                self.emit(StoreFailed("save_grant", error.detail))
            await self.pause(_SAVE_RETRY_S)

    async def _edit(self, tenant: str, edit: Callable[[Grant | None], Grant | None]) -> Grant | None:
        try:
            return await self.store.edit_grant(tenant, edit)
        except TenantGone:
            return None
