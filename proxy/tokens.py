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
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from proxy import lifecycle, pairs
from proxy.errors import NeedsReauth, ProviderUnavailable, Refusal, SealedValueRefused, StoreUnavailable
from proxy.facts import (
    Emit,
    GrantEndsSoon,
    GrantNeedsReauth,
    GrantRevoked,
    Refreshed,
    RefreshFailed,
    SealedValueFailed,
    StoreFailed,
    TaskCrashed,
    innermost_place,
)
from proxy.lifecycle import After401, Schedule, Standing, Windows
from proxy.model import (
    Clock,
    Grant,
    GrantState,
    Outcome,
    Secret,
)
from proxy.oauth import TokenFailure
from proxy.refresher import Refresher, Refreshing
from proxy.store import Store
from proxy.vault import SealedValueError, Vault

DAY_S = 86400.0


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


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token to inject, and the generation by which a 401 is judged."""

    value: Secret
    generation: int


@dataclass(slots=True, eq=False)
class _Live:
    """A grant that has tokens."""

    grant: Grant
    access: AccessToken
    refresh: Secret
    plan: Schedule
    fresh_until: float
    """Until then the token is handed out unseen; 0 while a refresh is under way or the token is suspect."""
    used: bool = False
    """Handed out since it was issued: then it is refreshed ahead of its end, so that callers never wait."""
    rejected: bool = False
    """Pleo answered 401 to it, so it is as good as expired."""
    forced_at: float | None = None
    """When a refresh forced by a 401 brought this token."""
    task: asyncio.Task[None] | None = None
    waiters: int = 0
    warned_of: float = math.inf
    """Days left when the operator was last warned that these tokens end."""
    failures: int = 0
    retry_at: float = 0.0
    failed_with: type[Refusal] = ProviderUnavailable

    def standing(self, now: float) -> Standing:
        return Standing.EXPIRED if self.rejected else lifecycle.standing(self.plan, now)


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
    _live: dict[str, _Live] = field(default_factory=dict)
    _tokenless: dict[str, Grant] = field(default_factory=dict)
    """Grants without tokens, and those whose tokens do not open (they are still in the grant, sealed)."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _behind: set[str] = field(default_factory=set)
    """Tenants whose stored grant could not be taken up when it was read, and is to be read again."""
    _paused_until: float = 0.0
    """No refresh starts before: Pleo rejected our registration, which no grant can help."""

    # --- what is held

    async def load(self) -> None:
        """Read all grants from the store, at start and whenever another process has changed something.

        :raises StoreUnavailable: the store does not answer; what is in memory stays as it is.
        """
        live, tokenless = dict(self._live), dict(self._tokenless)
        stored = await self.store.grants()
        for tenant in live.keys() | tokenless.keys() | stored.keys():
            # What a refresh or a consent did to the grant while it was read is newer than what was read; and
            # what a refresh under way comes to may be older. Either is looked at again.
            held = live.get(tenant)
            if self._live.get(tenant) is not held or (held is not None and held.task is not None):
                self._behind.add(tenant)
            else:
                self._follow(tenant, stored.get(tenant))

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
            self.take(grant)

    def take(self, grant: Grant) -> None:
        """Hold ``grant``, which is stored, in place of what was held for its tenant."""
        before = self._live.get(grant.tenant)
        self._drop(grant.tenant)
        try:
            opened = pairs.open_pair(self.vault, grant)
        except SealedValueError as error:
            self.emit(SealedValueFailed(grant.tenant, "access, refresh", error.problem))
            opened = None
        if opened is None:
            self._tokenless[grant.tenant] = grant
        else:
            plan = self._plan(grant)
            access = AccessToken(opened.access, grant.generation)
            self._live[grant.tenant] = _Live(grant, access, opened.refresh, plan, plan.advisory_at)
        if grant.state is GrantState.REVOKED and before is not None:
            self.emit(GrantRevoked(grant.tenant, grant.generation))

    def states(self) -> Mapping[str, int]:
        """How many grants are in each state."""
        counts = Counter(grant.state for grant in self._tokenless.values())
        for live in self._live.values():
            counts[GrantState.REFRESHING if live.task is not None else live.grant.state] += 1
        return {state.value: counts[state] for state in GrantState}

    def _follow(self, tenant: str, stored: Grant | None) -> None:
        live = self._live.get(tenant)
        if stored is None:
            self._drop(tenant)
        elif live is not None and lifecycle.is_same_pair(stored, live.grant):
            asked = stored.refresh_asked_at not in (None, live.grant.refresh_asked_at)
            live.grant = stored  # what is known of these tokens, such as a 401, stays known
            if asked:
                self._start(live, "asked")  # an operator's word is not put off
        elif live is not None or stored != self._tokenless.get(tenant):
            self.take(stored)

    def _drop(self, tenant: str) -> None:
        self._live.pop(tenant, None)
        self._tokenless.pop(tenant, None)

    def _plan(self, grant: Grant) -> Schedule:
        if grant.state is GrantState.UNVERIFIED:
            return lifecycle.schedule_unverified(self.clock(), draw=self.draw())
        assert grant.issued_at is not None
        assert grant.access_expires_at is not None
        assert grant.refresh_expires_at is not None
        return lifecycle.schedule(
            self.rules.windows,
            issued_at=grant.issued_at,
            expires_at=grant.access_expires_at,
            refresh_expires_at=grant.refresh_expires_at,
            draw=self.draw(),
        )

    # --- obtaining

    async def current(self, tenant: str) -> AccessToken:
        """The token to use for ``tenant`` now.

        :raises NeedsReauth: there is no usable grant.
        :raises SealedValueRefused: the stored token does not open.
        :raises ProviderUnavailable: the token has expired and Pleo gives no new one.
        :raises StoreUnavailable: the token has expired, and no refresh starts without the store.
        """
        live = self._live.get(tenant)
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
            await asyncio.wait({live.task}, timeout=self.rules.wait_s)
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

    def _usable(self, tenant: str) -> _Live:
        live = self._live.get(tenant)
        if live is not None:
            return live
        grant = self._tokenless.get(tenant)
        if grant is not None and (grant.access is not None or grant.refresh is not None):
            raise SealedValueRefused(f"the stored tokens of tenant {tenant!r} do not open", tenant=tenant)
        state = GrantState.NONE if grant is None else grant.state
        raise NeedsReauth(f"tenant {tenant!r} {_why_unusable(state)}", tenant=tenant)

    def _may_start_at(self, live: _Live) -> float:
        return max(live.retry_at, self._paused_until)

    # --- refreshing

    async def refresh_due(self) -> None:
        """Start the refreshes that are due without a caller asking; to be called about once a second.

        :raises StoreUnavailable: a grant that is to be read again cannot be.
        """
        await self._catch_up()
        now = self.clock()
        for live in list(self._live.values()):
            asked = live.grant.refresh_asked_at is not None
            reason = lifecycle.refresh_ahead(live.plan, now, used=live.used, asked=asked)
            if reason is not None and live.task is None and now >= self._may_start_at(live):
                self._start(live, reason)

    async def _catch_up(self) -> None:
        for tenant in list(self._behind):
            held = self._live.get(tenant)
            if held is not None and held.task is not None:
                continue
            stored = await self.store.grant(tenant)
            if self._live.get(tenant) is held and (held is None or held.task is None):
                self._behind.discard(tenant)
                self._follow(tenant, stored)

    def seconds_left(self) -> float | None:
        """Until the first refresh token ends, known or assumed; ``None`` where there is none."""
        ends = [live.grant.refresh_expires_at for live in self._live.values()]
        known = [end for end in ends if end is not None]
        return min(known) - self.clock() if known else None

    def warn_of_ends(self) -> None:
        """Say, once a day for each, which grants come to their end (invariant 8)."""
        now = self.clock()
        for tenant, live in self._live.items():
            left_s = (live.grant.refresh_expires_at or math.inf) - now
            if left_s < self.rules.warn_s and (days := max(0, int(left_s // DAY_S))) < live.warned_of:
                live.warned_of = days
                self.emit(GrantEndsSoon(tenant, live.grant.generation, days, live.grant.last_outcome))

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

    def _start(self, live: _Live, reason: str) -> None:
        if live.grant.state is GrantState.UNVERIFIED and reason != "asked":
            reason = "restored"
        live.fresh_until = 0.0
        live.waiters = 0
        live.task = asyncio.create_task(self._refresh(live, reason), name=f"refresh {live.grant.tenant}")
        self._tasks.add(live.task)
        live.task.add_done_callback(self._tasks.discard)

    async def _refresh(self, live: _Live, reason: str) -> None:
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
            self._conclude(live, done, forced=reason == "rejected", duration_s=self.clock() - started)
        finally:
            live.task = None

    def _conclude(self, live: _Live, done: Refreshing, *, forced: bool, duration_s: float) -> None:
        tenant, generation = live.grant.tenant, live.grant.generation
        if done.failure is not None:
            retry_in_s = self._after_failure(live, done.failure)
            if not done.told:
                self.emit(
                    RefreshFailed(
                        tenant,
                        generation,
                        done.failure.outcome,
                        done.failure.error,
                        duration_ms=_ms(duration_s),
                        retry_in_s=retry_in_s,
                    )
                )
        if self._live.get(tenant) is not live:
            return  # somebody connected the tenant anew meanwhile, and that grant counts
        if done.grant is None:
            self._drop(tenant)
        elif done.grant.generation == generation and done.grant.access is not None:
            live.grant = done.grant  # the same tokens, after a failure that took nothing from them
            if not (live.rejected or done.grant.answer_lost):
                live.fresh_until = live.plan.advisory_at
        else:
            self.take(done.grant)
        if (
            done.grant is not None
            and done.grant.state is GrantState.NEEDS_REAUTH
            and done.failure is not None
        ):
            stale = live.grant.state is GrantState.UNVERIFIED
            lost = done.answer_was_lost
            reason = "stale_backup" if stale else "lost_answer" if lost else done.failure.error
            self.emit(GrantNeedsReauth(tenant, generation, reason))
        if done.pair is not None:
            fresh = self._live[tenant]
            fresh.forced_at = self.clock() if forced else None
            self.emit(
                Refreshed(
                    tenant,
                    fresh.grant.generation,
                    expires_in_s=fresh.plan.expires_at - (fresh.grant.issued_at or 0.0),
                    duration_ms=_ms(duration_s),
                    waiters=live.waiters,
                    chain=self.vault.chain_id(fresh.refresh),
                    remarks=pairs.missing_from(done.pair),
                )
            )

    def _after_failure(self, live: _Live, failure: TokenFailure) -> float | None:
        if failure.outcome is Outcome.REFUSED:
            return None
        if failure.outcome is Outcome.CLIENT_REJECTED:
            # The operator's fault: no other tenant's refresh could fare better.
            live.failed_with = ProviderUnavailable
            self._paused_until = self.clock() + self.rules.client_rejected_pause_s
            return self.rules.client_rejected_pause_s
        return self._back_off(live, ProviderUnavailable, failure.retry_after_s)

    def _back_off(self, live: _Live, refusal: type[Refusal], retry_after_s: float | None = None) -> float:
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
