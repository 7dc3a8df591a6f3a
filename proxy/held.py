"""Grants in memory: opened pairs with what is known of them, and grants that have none.

Follows the store, and neither starts a refresh nor decides about one. What happened to a grant here while it
was read is newer than what was read, so such a grant is read again.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from proxy import lifecycle, pairs
from proxy.errors import ProviderUnavailable, Refusal
from proxy.facts import Emit, GrantEndsSoon, GrantRevoked, SealedValueFailed
from proxy.lifecycle import Schedule, Standing, Windows
from proxy.model import DAY_S, Clock, Grant, GrantState, Secret
from proxy.store import Store
from proxy.vault import SealedValueError, Vault


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token to inject, and the generation by which a 401 is judged."""

    value: Secret
    generation: int


@dataclass(slots=True, eq=False)
class Live:
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
        """What the access token is good for."""
        return Standing.EXPIRED if self.rejected else lifecycle.standing(self.plan, now)


@dataclass(slots=True)
class Held:
    """What this process holds of the stored grants."""

    store: Store
    vault: Vault
    windows: Windows
    emit: Emit
    clock: Clock
    draw: Callable[[], float]
    live: dict[str, Live] = field(default_factory=dict)
    """Grants that have tokens, by tenant."""
    _tokenless: dict[str, Grant] = field(default_factory=dict)
    """Grants without tokens, and those whose tokens do not open (they are still in the grant, sealed)."""
    _behind: set[str] = field(default_factory=set)
    """Tenants whose stored grant could not be taken up when it was read, and is to be read again."""

    async def load(self) -> list[Live]:
        """Read all grants from the store; returns those whose refresh an operator has asked for meanwhile.

        :raises StoreUnavailable: the store does not answer; what is in memory stays as it is.
        """
        live, tokenless = dict(self.live), dict(self._tokenless)
        stored = await self.store.grants()
        asked: list[Live] = []
        for tenant in live.keys() | tokenless.keys() | stored.keys():
            # What a refresh or a consent did to the grant while it was read is newer than what was read; and
            # what a refresh under way comes to may be older. Either is looked at again.
            held = live.get(tenant)
            if self.live.get(tenant) is not held or (held is not None and held.task is not None):
                self._behind.add(tenant)
            else:
                asked += self._follow(tenant, stored.get(tenant))
        return asked

    def take(self, grant: Grant) -> None:
        """Hold ``grant``, which is stored, in place of what was held for its tenant."""
        before = self.live.get(grant.tenant)
        self.drop(grant.tenant)
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
            self.live[grant.tenant] = Live(grant, access, opened.refresh, plan, plan.advisory_at)
        if grant.state is GrantState.REVOKED and before is not None:
            self.emit(GrantRevoked(grant.tenant, grant.generation))

    def grants(self) -> Iterator[Grant]:
        """All grants, with and without tokens."""
        yield from self._tokenless.values()
        for live in self.live.values():
            yield live.grant

    def states(self) -> Mapping[str, int]:
        """How many grants are in each state."""
        counts = Counter(grant.state for grant in self._tokenless.values())
        for live in self.live.values():
            counts[GrantState.REFRESHING if live.task is not None else live.grant.state] += 1
        return {state.value: counts[state] for state in GrantState}

    def _follow(self, tenant: str, stored: Grant | None) -> list[Live]:
        live = self.live.get(tenant)
        if stored is None:
            self.drop(tenant)
        elif live is not None and lifecycle.is_same_pair(stored, live.grant):
            asked = stored.refresh_asked_at not in (None, live.grant.refresh_asked_at)
            live.grant = stored  # what is known of these tokens, such as a 401, stays known
            return [live] if asked else []
        elif live is not None or stored != self._tokenless.get(tenant):
            self.take(stored)
        return []

    def drop(self, tenant: str) -> None:
        """Hold nothing of this tenant."""
        self.live.pop(tenant, None)
        self._tokenless.pop(tenant, None)

    def _plan(self, grant: Grant) -> Schedule:
        if grant.state is GrantState.UNVERIFIED:
            return lifecycle.schedule_unverified(self.clock(), draw=self.draw())
        assert grant.issued_at is not None
        assert grant.access_expires_at is not None
        assert grant.refresh_expires_at is not None
        return lifecycle.schedule(
            self.windows,
            issued_at=grant.issued_at,
            expires_at=grant.access_expires_at,
            refresh_expires_at=grant.refresh_expires_at,
            draw=self.draw(),
        )

    def without_tokens(self, tenant: str) -> Grant | None:
        """The grant of a tenant of which no tokens are held."""
        return self._tokenless.get(tenant)

    async def catch_up(self) -> list[Live]:
        """Read again what could not be taken up; returns as :meth:`load`.

        :raises StoreUnavailable: a grant cannot be read.
        """
        asked: list[Live] = []
        for tenant in list(self._behind):
            held = self.live.get(tenant)
            if held is not None and held.task is not None:
                continue
            stored = await self.store.grant(tenant)
            if self.live.get(tenant) is held and (held is None or held.task is None):
                self._behind.discard(tenant)
                asked += self._follow(tenant, stored)
        return asked

    def usable(self) -> Mapping[str, bool]:
        """Whether there are tokens, by tenant, of all tenants for which somebody ever consented."""
        return dict.fromkeys(self._tokenless, False) | dict.fromkeys(self.live, True)

    def access_left_s(self) -> float:
        """Until the first access token that was handed out expires; infinite if none was."""
        # One that nobody uses may well be expired: it is refreshed when it is wanted.
        ends = [live.plan.expires_at for live in self.live.values() if live.used]
        return min(ends, default=math.inf) - self.clock()

    def refresh_left_s(self) -> Mapping[str, float]:
        """Until a refresh token ends, known or assumed, by tenant."""
        now = self.clock()
        return {
            tenant: live.grant.refresh_expires_at - now
            for tenant, live in self.live.items()
            if live.grant.refresh_expires_at is not None
        }

    def change(self, windows: Windows) -> None:
        """Plan with these, also for the tokens that are held; what a refresh is at is left to it."""
        if windows == self.windows:
            return
        self.windows = windows
        for live in self.live.values():
            if live.grant.state is GrantState.UNVERIFIED:
                continue  # its time was drawn, and is no window's
            live.plan = self._plan(live.grant)
            if live.fresh_until:
                live.fresh_until = live.plan.advisory_at

    def warn_of_ends(self, warn_s: float) -> None:
        """Say, once a day for each, which grants come to their end (invariant 8)."""
        now = self.clock()
        for tenant, live in self.live.items():
            left_s = (live.grant.refresh_expires_at or math.inf) - now
            if left_s < warn_s and (days := max(0, int(left_s // DAY_S))) < live.warned_of:
                live.warned_of = days
                self.emit(GrantEndsSoon(tenant, live.grant.generation, days, live.grant.last_outcome))
