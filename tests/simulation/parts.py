"""The store, the journals and Pleo, simulated: what they keep outlives a crash, and each can fail.

Every operation takes a random time before and after it has its effect, so that a crash or an outage can fall
before it, between effect and answer, or after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from proxy.errors import StoreUnavailable
from proxy.model import Grant, Outcome, Secret
from proxy.oauth import TokenFailure, TokenPair
from proxy.store import Issued, JournalUnavailable

LIFETIME_S = 40.0
"""Of an access token."""

T = TypeVar("T")


class Died(BaseException):
    """The instance that did this is no more; nothing in the proxy catches it."""


class Violation(AssertionError):  # noqa: N818 - what happened
    """An invariant does not hold."""


@dataclass
class Life:
    """Whether one run of one instance goes on."""

    name: str
    alive: bool = True
    skew_s: float = 0.0
    cut_off: bool = False
    """From the store."""

    def check(self) -> None:
        """:raises Died: it does not."""
        if not self.alive:
            raise Died(self.name)


@dataclass
class World:
    """What is shared, and what goes wrong."""

    random: Random
    store_down: bool = False
    disk_full: bool = False
    lost_answers: float = 0.0
    """Probability that Pleo's answer does not arrive."""
    provider_down: float = 0.0
    late: float = 0.0
    """Probability that a commit succeeds and its answer does not arrive."""
    grants: dict[str, Grant] = field(default_factory=dict)
    journals: dict[str, dict[int, Issued]] = field(default_factory=dict)
    version: int = 0
    families: dict[str, Family] = field(default_factory=dict)
    excused: dict[str, int] = field(default_factory=dict)
    """By tenant, rotations whose answer an injected fault destroyed."""
    reuses: dict[str, int] = field(default_factory=dict)

    async def delay(self, most_s: float) -> None:
        """Some time passes, often none."""
        await asyncio.sleep(self.random.choice((0.0, 0.0, self.random.random() * most_s)))


@dataclass
class Family:
    """What Pleo knows of one consent."""

    tenant: str
    number: int = 1
    dead: bool = False
    under_way: int = 0

    @property
    def access(self) -> str:
        """The only access token that Pleo takes."""
        return f"at-{self.tenant}-{self.number}"

    @property
    def refresh(self) -> str:
        """The only refresh token that Pleo takes."""
        return f"rt-{self.tenant}-{self.number}"


@dataclass
class SimulatedStore:
    """The store as one instance sees it; implements what refreshing needs of :class:`proxy.store.Store`."""

    world: World
    life: Life
    seen: int = 0

    async def grants(self) -> dict[str, Grant]:
        return await self._do(lambda: dict(self.world.grants))

    async def grant(self, tenant: str) -> Grant | None:
        return await self._do(lambda: self.world.grants.get(tenant))

    async def edit_grant(self, tenant: str, edit: Callable[[Grant | None], Grant | None]) -> Grant | None:
        def apply() -> Grant | None:
            before = self.world.grants.get(tenant)
            after = edit(before)
            if after != before:
                self.world.version += 1
            if after is None:
                self.world.grants.pop(tenant, None)
            else:
                self.world.grants[tenant] = after
            return after

        return await self._do(apply, commits=True)

    async def changed(self) -> bool:
        def look() -> bool:
            before, self.seen = self.seen, self.world.version
            return before != self.seen

        return await self._do(look)

    async def ping(self) -> None:
        await self._do(lambda: None)

    async def _do(self, job: Callable[[], T], *, commits: bool = False) -> T:
        world = self.world
        await world.delay(0.2)
        self.life.check()
        self._check()
        result = job()
        await world.delay(0.2)
        self.life.check()
        if commits and world.random.random() < world.late:
            raise StoreUnavailable("the answer did not arrive")
        return result

    def _check(self) -> None:
        if self.world.store_down or self.life.cut_off:
            raise StoreUnavailable("down")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@dataclass
class SimulatedJournal:
    """The journal of one instance; its records are what is on the disk."""

    world: World
    life: Life
    number: int = 0
    promised: set[tuple[str, int]] = field(default_factory=set)
    """Tenants and generations of pairs that it said it had, in this run."""

    @property
    def outstanding(self) -> dict[int, Issued]:
        return dict(self.world.journals.setdefault(self.life.name, {}))

    async def append(self, issued: Issued) -> int:
        await self.world.delay(0.05)
        self.life.check()
        if self.world.disk_full:
            raise JournalUnavailable("No space left on device")
        records = self.world.journals.setdefault(self.life.name, {})
        self.number = number = max([self.number, *records], default=0) + 1
        records[number] = issued
        await self.world.delay(0.05)
        self.life.check()
        self.promised.add((issued.tenant, issued.generation + 1))
        return number

    async def settle(self, number: int) -> None:
        await self.world.delay(0.05)
        self.life.check()
        self.world.journals[self.life.name].pop(number, None)


@dataclass
class SimulatedPleo:
    """The token endpoint as one instance reaches it: one pair lives, and reuse kills the family."""

    world: World
    life: Life
    timeout_s: float
    check_attempt: Callable[[str, Life], None]
    """Asked when a request arrives: invariant 5 wants the attempt in the store by then."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """Rotations that happened for this instance and are safe nowhere yet, by tenant."""

    async def refresh(self, refresh: Secret) -> TokenPair | TokenFailure:
        world = self.world
        token = refresh.reveal()
        family = world.families[token.split("-")[1]]
        self.life.check()
        self.check_attempt(family.tenant, self.life)
        if world.random.random() < world.provider_down:
            await world.delay(1.0)
            self.life.check()
            kind = world.random.choice((Outcome.NOT_SENT, Outcome.UNAVAILABLE))
            return TokenFailure(kind, "injected")
        await world.delay(self.timeout_s * 0.4)
        answer = self._rotate(family, token)
        if isinstance(answer, TokenPair):
            self.in_flight[family.tenant] = family.number
        await world.delay(self.timeout_s * 0.4)
        lost = world.random.random() < world.lost_answers
        if not self.life.alive or lost:
            self._excuse(family.tenant)
            self.life.check()
            return TokenFailure(Outcome.UNKNOWN, "injected")
        return answer

    def _rotate(self, family: Family, token: str) -> TokenPair | TokenFailure:
        """What happens at Pleo, whatever becomes of who asked."""
        if family.dead or token != family.refresh:
            if not family.dead:
                self.world.reuses[family.tenant] = self.world.reuses.get(family.tenant, 0) + 1
            family.dead = True
            return TokenFailure(Outcome.REFUSED, "invalid_grant")
        family.number += 1
        return TokenPair(Secret(family.access), Secret(family.refresh), LIFETIME_S)

    def _excuse(self, tenant: str) -> None:
        if self.in_flight.pop(tenant, None) is not None:
            self.world.excused[tenant] = self.world.excused.get(tenant, 0) + 1

    def died(self, promised: set[tuple[str, int]]) -> None:
        """The instance died: what it had in memory alone is gone, through no fault of the proxy's.

        What its journal ``promised`` to have is not excused.
        """
        records = self.world.journals.get(self.life.name, {}).values()
        safe = {(issued.tenant, issued.generation + 1) for issued in records}
        for tenant, number in list(self.in_flight.items()):
            if self.world.grants[tenant].generation < number and (tenant, number) not in safe | promised:
                self._excuse(tenant)
        self.in_flight.clear()
