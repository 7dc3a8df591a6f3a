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
from proxy.model import Clock, Emit, Grant, Outcome, RefreshStarted, Secret, StoreFailed
from proxy.oauth import TokenFailure, TokenPair
from proxy.store import Store, TenantGone
from proxy.vault import Vault

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

    async def refresh(self, before: Grant, refresh: Secret, reason: str) -> Refreshing:
        """Refresh ``before``, whose opened refresh token is ``refresh``.

        If the stored grant is no longer this one, nothing is sent and the stored one is returned.

        :raises StoreUnavailable: the attempt could not be stored, so nothing was sent (invariant 9).
        """
        started = self.clock()
        begun = await self._edit(
            before.tenant,
            lambda grant: lifecycle.begin_refresh(grant, before=before, at=started),
        )
        if begun is None or begun.refresh != before.refresh:
            return Refreshing(begun)
        self.emit(
            RefreshStarted(before.tenant, before.generation, reason, chain=self.vault.chain_id(refresh))
        )
        answer = await self.provider.refresh(refresh)
        if isinstance(answer, TokenPair):
            return await self._save(before, refresh, answer, started)
        stored = await self._edit_until_saved(
            before.tenant,
            lambda grant: lifecycle.not_granted(grant, before=before, outcome=answer.outcome),
        )
        lost = answer.outcome is Outcome.REFUSED and lifecycle.answer_was_lost(before)
        return Refreshing(stored, failure=answer, answer_was_lost=lost)

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
