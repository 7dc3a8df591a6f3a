"""One refresh of one grant, from the write-ahead to the saved answer. Decides nothing about when or for whom.

The order is invariant 5: the attempt is stored, then the request is sent, then the sealed answer is stored,
and only then does anyone get to see it. Runs in a task that nobody cancels once the request is sent
(:mod:`proxy.tokens` owns it).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from proxy import lifecycle, pairs
from proxy.errors import StoreUnavailable
from proxy.facts import (
    Emit,
    RefreshStarted,
    StoreFailed,
    TaskCrashed,
    innermost_place,
)
from proxy.model import Clock, Grant, Outcome, Secret
from proxy.oauth import TokenFailure, TokenPair
from proxy.store import Store, TenantGone
from proxy.vault import Vault

_LOOK_S = 0.1
"""Pause between looks at what another process's refresh has come to."""
_SAVE_RETRY_S = 1.0
"""Pause between attempts to save what Pleo has already issued: short, since callers wait for it."""


class RefreshesTokens(Protocol):
    """The part of :class:`proxy.provider.Provider` that is needed here."""

    async def refresh(self, refresh: Secret) -> TokenPair | TokenFailure:
        """Ask for a new pair."""


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


@dataclass(frozen=True, slots=True)
class Refresher:
    """Carries out refreshes, one call each."""

    store: Store
    vault: Vault
    provider: RefreshesTokens
    lifetimes: pairs.Lifetimes
    emit: Emit
    clock: Clock
    pause: Callable[[float], Awaitable[None]]
    lease_s: float
    """How long a process may take for one refresh, saving included, before another may try: longer than the
    provider's time-out."""

    async def refresh(self, before: Grant, refresh: Secret, reason: str) -> Refreshing:
        """Refresh ``before``, whose opened refresh token is ``refresh``.

        If another process is at it, its result is waited for and returned, its failure too; and if the stored
        grant is no longer this one, nothing is sent and the stored one is returned.

        :raises StoreUnavailable: the attempt could not be stored, so nothing was sent (invariant 9).
        """
        while True:
            started = self.clock()
            begun, is_ours = await self._begin(before, started)
            if is_ours:
                return await self._send(before, refresh, reason, started)
            if begun is None or not lifecycle.is_same_pair(begun, before):
                return Refreshing(begun)
            concluded = await self._result_of_another(before)
            if concluded is not None:
                return concluded

    async def _begin(self, before: Grant, at: float) -> tuple[Grant | None, bool]:
        is_ours = False

        def begin(grant: Grant | None) -> Grant | None:
            nonlocal is_ours
            after = lifecycle.begin_refresh(grant, before=before, at=at, lease_s=self.lease_s)
            is_ours = after is not grant
            return after

        return await self._edit(before.tenant, begin), is_ours

    async def _result_of_another(self, before: Grant) -> Refreshing | None:
        """What came of the refresh that another process began; ``None`` if it took too long to tell."""
        while True:
            await self.pause(_LOOK_S)
            stored = await self.store.grant(before.tenant)
            if stored is None or not lifecycle.is_same_pair(stored, before):
                return Refreshing(stored)
            if stored.attempted_at is None:
                outcome = stored.last_outcome or Outcome.UNKNOWN
                failure = TokenFailure(outcome, "told_by_another_process")
                return Refreshing(stored, failure=failure, told=True)
            if not lifecycle.is_leased(stored, at=self.clock(), lease_s=self.lease_s):
                return None

    async def _send(self, before: Grant, refresh: Secret, reason: str, started: float) -> Refreshing:
        chain = self.vault.chain_id(refresh)
        self.emit(RefreshStarted(before.tenant, before.generation, reason, chain))
        answer = await self._ask(refresh)
        if isinstance(answer, TokenPair):
            return await self._save(before, refresh, answer, started)
        stored = await self._edit_until_saved(
            before.tenant,
            lambda grant: lifecycle.not_granted(grant, before=before, outcome=answer.outcome),
        )
        lost = answer.outcome is Outcome.REFUSED and lifecycle.answer_was_lost(before)
        return Refreshing(stored, failure=answer, answer_was_lost=lost)

    async def _ask(self, refresh: Secret) -> TokenPair | TokenFailure:
        try:
            return await self.provider.refresh(refresh)
        except Exception as error:  # noqa: BLE001 - a defect too leaves open whether the token was used
            self.emit(TaskCrashed("refresh", type(error).__name__, innermost_place(error)))
            return TokenFailure(Outcome.UNKNOWN, "internal_error")

    async def _save(self, before: Grant, refresh: Secret, pair: TokenPair, started: float) -> Refreshing:
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
        stored = await self._edit_until_saved(
            before.tenant,
            lambda grant: lifecycle.granted(grant, sealed, before=before),
        )
        # Another pair is stored where somebody connected the tenant anew meanwhile; that grant counts.
        is_ours = stored is not None and stored.access == sealed.access
        return Refreshing(stored, pair=pair if is_ours else None)

    async def _edit_until_saved(
        self, tenant: str, edit: Callable[[Grant | None], Grant | None]
    ) -> Grant | None:
        # Pleo has ended the old pair already: giving up here would lose the grant.
        while True:
            try:
                return await self._edit(tenant, edit)
            except StoreUnavailable as error:
                self.emit(StoreFailed("save_grant", error.detail))
            await self.pause(_SAVE_RETRY_S)

    async def _edit(self, tenant: str, edit: Callable[[Grant | None], Grant | None]) -> Grant | None:
        try:
            return await self.store.edit_grant(tenant, edit)
        except TenantGone:
            return None
