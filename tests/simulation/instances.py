"""Instances of the real refreshing, on simulated parts, with callers; they can crash and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from proxy import lifecycle, pairs, recovery
from proxy.errors import Refusal, StoreUnavailable
from proxy.facts import Fact
from proxy.held import AccessToken
from proxy.lifecycle import Windows
from proxy.model import Grant, GrantState, Secret
from proxy.oauth import TokenPair
from proxy.refresher import Refresher
from proxy.store import Journal, Store
from proxy.tokens import RefreshRules, Tokens
from proxy.vault import Vault
from tests.simulation.parts import (
    LIFETIME_S,
    Died,
    Family,
    Life,
    SimulatedJournal,
    SimulatedPleo,
    SimulatedStore,
    Violation,
    World,
)

TIMEOUT_S = 9.0
LEASE_S = 12.0
TAKEOVER_S = 30.0
LIFETIMES = pairs.Lifetimes(LIFETIME_S, 60 * 86400)
RULES = RefreshRules(Windows(0.8, 0.1, 30, 0.05, 0.5), 5.0, 60.0, 1.0, 8.0, 30.0)


@dataclass
class Variant:
    """The proxy as it is, or with a seeded bug."""

    lease_s: float = LEASE_S
    takeover_s: float = TAKEOVER_S
    refresher: type[Refresher] = Refresher
    tokens: type[Tokens] = Tokens
    journal: type[SimulatedJournal] = SimulatedJournal


@dataclass
class Instance:
    """One process: several runs of it, one after the other, on one disk."""

    name: str
    world: World
    vault: Vault
    variant: Variant
    life: Life = field(init=False)
    store: SimulatedStore = field(init=False)
    journal: SimulatedJournal = field(init=False)
    pleo: SimulatedPleo = field(init=False)
    tokens: Tokens | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    facts: list[Fact] = field(default_factory=list)

    def clock(self) -> float:
        """The wall clock of this machine."""
        return asyncio.get_running_loop().time() + self.life.skew_s

    async def start(self, skew_s: float) -> None:
        """A run: recover, load, and go on until :meth:`crash`."""
        self.life = Life(self.name, skew_s=skew_s)
        self.store = SimulatedStore(self.world, self.life)
        self.journal = journal = self.variant.journal(self.world, self.life)
        self.pleo = SimulatedPleo(self.world, self.life, TIMEOUT_S, self._check_attempt)
        store = cast("Store", self.store)
        refresher = self.variant.refresher(
            store,
            journal,
            self.vault,
            self.pleo,
            LIFETIMES,
            self.facts.append,
            self.clock,
            asyncio.sleep,
            self.name,
            lease_s=self.variant.lease_s,
            takeover_s=self.variant.takeover_s,
        )
        tokens = self.variant.tokens(
            store, self.vault, refresher, RULES, self.facts.append, self.clock, draw=self.world.random.random
        )
        while True:
            try:
                await recovery.replay(cast("Journal", journal), store, self.facts.append)
                await recovery.settle_attempts(store, lambda holder: holder == self.name)
                await tokens.load()
                break
            except StoreUnavailable:  # a supervisor starts it again
                await asyncio.sleep(2)
        self.tokens = tokens
        self.spawn(self._watch(tokens))

    def spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        """A task that ends with this run."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def crash(self) -> None:
        """``kill -9``: nothing of this run takes another step that anyone could see."""
        self.life.alive = False
        self.pleo.died(self.journal.promised)
        tokens, self.tokens = self.tokens, None
        mine = {*self.tasks, *(tokens._tasks if tokens is not None else ())}
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)

    async def _watch(self, tokens: Tokens) -> None:
        while True:
            await asyncio.sleep(2)
            try:
                if await self.store.changed():
                    await tokens.load()
                await self.store.ping()
                await tokens.refresh_due()
            except StoreUnavailable:
                tokens.refresher.note_outage()

    def _check_attempt(self, tenant: str, life: Life) -> None:
        grant = self.world.grants[tenant]
        if grant.attempted_at is None and grant.state is not GrantState.NEEDS_REAUTH:
            raise Violation(f"{life.name} sent a refresh of {tenant} that is not noted in the store")

    async def call(self, tenant: str) -> str:
        """One request of a caller, with one repeat after a 401; returns how it ended."""
        tokens = self.tokens
        if tokens is None:
            return "refused"
        try:
            token = await tokens.current(tenant)
            if self._upstream_takes(tenant, token):
                return "answered"
            newer = await tokens.replace(tenant, token)
            return "answered" if newer is not None and self._upstream_takes(tenant, newer) else "401"
        except Refusal:
            return "refused"

    def _upstream_takes(self, tenant: str, token: AccessToken) -> bool:
        value = token.value.reveal()
        if value.split("-")[1] != tenant:
            raise Violation(f"{tenant} was answered with {value}")
        stored = self.world.grants.get(tenant)
        if stored is not None and stored.generation < token.generation:
            raise Violation(f"generation {token.generation} of {tenant} was used before it was saved")
        assert self.tokens is not None
        live = self.tokens.held.live.get(tenant)
        if live is not None and live.access is token and live.plan.expires_at <= self.clock():
            raise Violation(f"an expired token of {tenant} was used")
        family = self.world.families[tenant]
        return not family.dead and value == family.access


def consent(world: World, vault: Vault, tenant: str, now: float) -> None:
    """A person connects the tenant: a family of its own, and a grant of the next generation."""
    before = world.grants.get(tenant)
    generation = lifecycle.next_generation(before)
    family = world.families[tenant] = Family(tenant, generation)
    sealed = pairs.seal_pair(
        vault,
        TokenPair(Secret(family.access), Secret(family.refresh), LIFETIME_S),
        tenant=tenant,
        generation=generation,
        now=now,
        lifetimes=LIFETIMES,
    )
    grant = lifecycle.connected(sealed, tenant=tenant, company="c", scopes=(), generation=generation)
    world.grants[tenant] = grant
    world.version += 1


def is_whole(grant: Grant | None) -> bool:
    """The grant can be used without a person."""
    return grant is not None and grant.refresh is not None


__all__ = ["Died", "Instance", "Variant", "consent", "is_whole"]

Reaction = Callable[[], None]
