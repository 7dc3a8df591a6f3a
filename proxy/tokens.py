"""The access token of each tenant: handed out while fresh, refreshed centrally, replaced after a 401.

``current(tenant)`` and ``replace(tenant, rejected)`` are all that the main path needs. While a token is
fresh, neither the store nor the vault is touched. Decisions are :mod:`proxy.lifecycle`'s; this module
remembers what they need: one refresh at a time for each grant, in a task of its own that no caller's leaving
cancels.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from proxy import lifecycle, pairs
from proxy.errors import NeedsReauth, ProviderUnavailable, Refusal, SealedValueRefused, StoreUnavailable
from proxy.facts import (
    Emit,
    GrantNeedsReauth,
    Refreshed,
    RefreshFailed,
    StoreFailed,
    TaskCrashed,
)
from proxy.held import AccessToken, Held, Live
from proxy.lifecycle import After401, Standing, Windows
from proxy.model import DAY_S, Clock, Grant, GrantState, Outcome
from proxy.oauth import TokenFailure
from proxy.places import innermost_place
from proxy.refresher import Refresher, Refreshing
from proxy.store import Store
from proxy.vault import Vault


@dataclass(frozen=True, slots=True)
class RefreshRules:
    """The ``[refresh]`` settings, times in seconds."""

    windows: Windows
    wait_s: float
    """How long a request waits for a refresh under way."""
    forced_hold_s: float
    backoff_s: float
    backoff_max_s: float
    client_rejected_pause_s: float
    warn_s: float = 14 * DAY_S
    """How long before the end of a refresh token an operator is warned."""


@dataclass(slots=True)
class Tokens:
    """All grants in memory."""

    store: Store
    vault: Vault
    refresher: Refresher
    rules: RefreshRules
    emit: Emit
    clock: Clock
    draw: Callable[[], float] = random.random
    held: Held = field(init=False)
    waiting: int = 0
    """Requests that wait for a refresh now."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _paused_until: float = 0.0
    """No refresh starts before: Pleo rejected our registration, which no grant can help."""

    def __post_init__(self) -> None:
        self.held = Held(self.store, self.vault, self.rules.windows, self.emit, self.clock, self.draw)

    # --- what is held

    async def load(self) -> None:
        """Take up what is stored, at start and whenever another process has changed something.

        :raises StoreUnavailable: the store does not answer; what is in memory stays as it is.
        """
        self._start_asked(await self.held.load())

    def take(self, grant: Grant) -> None:
        """Hold ``grant``, which is stored, in place of what was held for its tenant."""
        self.held.take(grant)

    def states(self) -> Mapping[str, int]:
        """How many grants are in each state."""
        return self.held.states()

    def warn_of_ends(self) -> None:
        """Say, once a day for each, which grants come to their end (invariant 8)."""
        self.held.warn_of_ends(self.rules.warn_s)

    def change(self, rules: RefreshRules) -> None:
        """Go on by these rules."""
        self.rules = rules
        self.held.change(rules.windows)

    def resume(self) -> None:
        """What Pleo rejected us for was changed, so that it is worth to ask again at once."""
        self._paused_until = 0.0

    async def note_revoked(self, tenant: str, generation: int) -> None:
        """Pleo has carried out what ends all tokens of ``tenant`` (``DELETE /v1/installations/me``).

        Where that cannot be stored, the next refresh finds it out.
        """

        def end(stored: Grant | None) -> Grant | None:
            return lifecycle.revoked(stored) if stored and stored.generation == generation else stored

        try:
            grant = await self.store.edit_grant(tenant, end)
        except StoreUnavailable as error:
            self.emit(StoreFailed("revoke", error.detail))
            return
        if grant is not None and grant.state is GrantState.REVOKED:
            self.held.take(grant)

    # --- obtaining

    async def current(self, tenant: str) -> AccessToken:
        """The token to use for ``tenant`` now.

        :raises NeedsReauth: there is no usable grant.
        :raises SealedValueRefused: the stored token does not open.
        :raises ProviderUnavailable: the token has expired and Pleo gives no new one.
        :raises StoreUnavailable: the token has expired, and no refresh starts without the store.
        """
        live = self.held.live.get(tenant)
        if live is not None and self.clock() < live.fresh_until:
            live.used = True
            return live.access
        return await self._refreshed(tenant)

    async def replace(self, tenant: str, rejected: AccessToken) -> AccessToken | None:
        """A newer token after Pleo answered 401 to ``rejected``; ``None`` means: pass the 401 through.

        Raises as :meth:`current`.
        """
        live = self._usable(tenant)
        # Invariants 2 and 3: compare generations; refresh only if the refused token is the newest.
        decision = lifecycle.after_401(
            held=live.access.generation,
            rejected=rejected.generation,
            forced_at=live.forced_at,
            now=self.clock(),
            hold_s=self.rules.forced_hold_s,
        )
        if decision is After401.USE_NEWER:
            return await self.current(tenant)
        if decision is After401.PASS_THROUGH:
            return None
        live.rejected = True
        live.fresh_until = 0.0
        return await self._refreshed(tenant)

    async def _refreshed(self, tenant: str) -> AccessToken:
        """The token where it is not simply fresh: start or join a refresh and wait for it, bounded."""
        live = self._usable(tenant)
        live.used = True
        now = self.clock()
        if live.task is None and now >= self._may_start_at(live):
            expired = live.standing(now) is Standing.EXPIRED
            self._start(live, "rejected" if live.rejected else "expired" if expired else "expiring")
        if live.task is not None:
            live.waiters += 1
            # Pleo kills the old token the moment it rotates, so requests wait even while it is still good;
            # if that takes longer than wait_s they go on with it, and a 401 is compared by generation.
            # asyncio.wait does not cancel what it waits for (invariant 4).
            self.waiting += 1
            try:
                await asyncio.wait({live.task}, timeout=self.rules.wait_s)
            finally:
                self.waiting -= 1
        return self._result(tenant)

    def _result(self, tenant: str) -> AccessToken:
        live, now = self._usable(tenant), self.clock()
        # Invariant 7: an expired token is never injected.
        if live.standing(now) is not Standing.EXPIRED:
            return live.access
        raise live.failed_with(
            f"the access token of tenant {tenant!r} is no longer valid and could not be replaced yet",
            tenant=tenant,
            retry_after_s=max(1, math.ceil(self._may_start_at(live) - now)),
        )

    def _usable(self, tenant: str) -> Live:
        live = self.held.live.get(tenant)
        if live is not None:
            return live
        raise unusable(tenant, self.held.without_tokens(tenant))

    def check(self, tenant: str) -> None:
        """Whether there are tokens of ``tenant``, without starting anything.

        :raises NeedsReauth: there is no usable grant.
        :raises SealedValueRefused: the stored token does not open.
        """
        self._usable(tenant)

    def _may_start_at(self, live: Live) -> float:
        return max(live.retry_at, self._paused_until)

    # --- refreshing

    async def refresh_due(self) -> None:
        """Start the refreshes that are due without a caller asking; to be called about once a second.

        :raises StoreUnavailable: a grant that is to be read again cannot be.
        """
        self._start_asked(await self.held.catch_up())
        now = self.clock()
        for live in list(self.held.live.values()):
            asked = live.grant.refresh_asked_at is not None
            reason = lifecycle.refresh_ahead(live.plan, now, used=live.used, asked=asked)
            if reason is not None and live.task is None and now >= self._may_start_at(live):
                self._start(live, reason)

    @property
    def refreshes_under_way(self) -> int:
        """How many refreshes are under way."""
        return len(self._tasks)

    async def close(self, timeout_s: float) -> int:
        """Wait for refreshes under way, so that what Pleo issued is saved; returns how many were given up."""
        self.refresher.stopping = True
        if not self._tasks:
            return 0
        _, pending = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return len(pending)

    def _start_asked(self, asked: Iterable[Live]) -> None:
        for live in asked:
            # An operator's word is not put off; a refresh that has begun since they asked answers it too.
            if live.task is None and self.held.live.get(live.grant.tenant) is live:
                self._start(live, "asked")

    def _start(self, live: Live, reason: str) -> None:
        if live.grant.state is GrantState.UNVERIFIED and reason != "asked":
            reason = "restored"
        live.fresh_until = 0.0
        live.waiters = 0
        live.task = asyncio.create_task(self._refresh(live, reason), name=f"refresh {live.grant.tenant}")
        self._tasks.add(live.task)
        live.task.add_done_callback(self._tasks.discard)

    async def _refresh(self, live: Live, reason: str) -> None:
        started = self.clock()
        try:
            done = await self.refresher.refresh(live.grant, live.refresh, reason)
        except StoreUnavailable as error:
            self.emit(StoreFailed("begin_refresh", error.detail))
            self._back_off(live, StoreUnavailable)
        except Exception as error:  # noqa: BLE001 - a defect must not leave waiters without an answer for good
            self.emit(TaskCrashed("refresh", type(error).__name__, innermost_place(error)))
            self._back_off(live, ProviderUnavailable)
        else:
            self._conclude(live, done, reason, duration_s=self.clock() - started)
        finally:
            live.task = None

    def _conclude(self, live: Live, done: Refreshing, reason: str, *, duration_s: float) -> None:
        tenant, generation = live.grant.tenant, live.grant.generation
        if done.failure is not None:
            retry_in_s = self._after_failure(live, done.failure)
            if not done.told:
                self.emit(
                    RefreshFailed(
                        tenant,
                        generation,
                        reason,
                        done.failure.outcome,
                        done.failure.error,
                        duration_ms=_ms(duration_s),
                        retry_in_s=retry_in_s,
                    )
                )
        if self.held.live.get(tenant) is not live:
            return  # somebody connected the tenant anew meanwhile, and that grant counts
        if done.grant is None:
            self.held.drop(tenant)
        elif done.grant.generation == generation and done.grant.access is not None:
            live.grant = done.grant  # the same tokens, after a failure that took nothing from them
            if not (live.rejected or done.grant.answer_lost):
                live.fresh_until = live.plan.advisory_at
        else:
            self.held.take(done.grant)
        if (
            done.grant is not None
            and done.grant.state is GrantState.NEEDS_REAUTH
            and done.failure is not None
        ):
            stale = live.grant.state is GrantState.UNVERIFIED
            lost = done.answer_was_lost
            why = "stale_backup" if stale else "lost_answer" if lost else done.failure.error
            self.emit(GrantNeedsReauth(tenant, generation, why))
        if done.pair is not None:
            fresh = self.held.live[tenant]
            fresh.forced_at = self.clock() if reason == "rejected" else None
            self.emit(
                Refreshed(
                    tenant,
                    fresh.grant.generation,
                    reason,
                    expires_in_s=fresh.plan.expires_at - (fresh.grant.issued_at or 0.0),
                    duration_ms=_ms(duration_s),
                    waiters=live.waiters,
                    chain=self.vault.chain_id(fresh.refresh),
                    remarks=pairs.missing_from(done.pair),
                )
            )

    def _after_failure(self, live: Live, failure: TokenFailure) -> float | None:
        if failure.outcome is Outcome.REFUSED:
            return None
        if failure.outcome is Outcome.CLIENT_REJECTED:
            # The operator's fault: no other tenant's refresh could fare better.
            live.failed_with = ProviderUnavailable
            self._paused_until = self.clock() + self.rules.client_rejected_pause_s
            return self.rules.client_rejected_pause_s
        return self._back_off(live, ProviderUnavailable, failure.retry_after_s)

    def _back_off(self, live: Live, refusal: type[Refusal], retry_after_s: float | None = None) -> float:
        live.failures += 1
        live.failed_with = refusal
        wait_s = lifecycle.backoff_s(
            live.failures,
            first_s=self.rules.backoff_s,
            most_s=self.rules.backoff_max_s,
            retry_after_s=retry_after_s,
        )
        live.retry_at = self.clock() + wait_s
        return wait_s


def unusable(tenant: str, grant: Grant | None) -> Refusal:
    """Why there is no token to use of a tenant whose grant has none that opens."""
    if grant is not None and (grant.access is not None or grant.refresh is not None):
        return SealedValueRefused(f"the stored tokens of tenant {tenant!r} do not open", tenant=tenant)
    state = GrantState.NONE if grant is None else grant.state
    return NeedsReauth(f"tenant {tenant!r} {_why_unusable(state)}", tenant=tenant)


def _why_unusable(state: GrantState) -> str:
    match state:
        case GrantState.NEEDS_REAUTH:
            return "needs a new consent: Pleo has ended its authorisation"
        case GrantState.REVOKED:
            return "needs a new consent: its authorisation was revoked"
        case _:
            return "was never connected"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
