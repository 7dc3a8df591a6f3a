"""One schedule made from a seed: what happens when, and what must hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from proxy.vault import Vault
from tests.simulation.instances import Instance, Variant, consent, is_whole
from tests.simulation.parts import LIFETIME_S, Violation, World

TROUBLE_S = 150.0
HEALING_S = 3 * LIFETIME_S


class Schedule:
    """The whole of one simulated run."""

    def __init__(self, seed: int, vault: Vault, variant: Variant) -> None:
        self.random = Random(seed)
        self.world = World(self.random)
        self.vault = vault
        self.ended: Counter[str] = Counter()
        self.tenants = [f"t{number}" for number in range(self.random.randint(1, 3))]
        self.instances = [
            Instance(f"i{number}", self.world, vault, variant) for number in range(self.random.randint(1, 3))
        ]
        self.callers: set[asyncio.Task[None]] = set()
        self.defects: list[BaseException] = []

    async def play(self) -> None:
        """:raises Violation: an invariant does not hold."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self._note(context.get("exception")))
        for tenant in self.tenants:
            consent(self.world, self.vault, tenant, loop.time())
        for instance in self.instances:
            await instance.start(self.random.uniform(-2, 2))
        until = loop.time() + TROUBLE_S
        kinds = self.random.sample(self._troubles(), self.random.randint(1, 4))
        while loop.time() < until:
            await asyncio.sleep(self.random.random() * 4)
            if self.random.random() < 0.25:
                await self.random.choice(kinds)()
            else:
                self._call()
            self._check()
        await self._heal()
        for _ in range(int(HEALING_S)):
            await asyncio.sleep(1)
            self._call()
            self._check()
        await self._check_end()
        for instance in self.instances:
            await instance.crash()
        await asyncio.gather(*self.callers, return_exceptions=True)

    def _troubles(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self._crash_one,
            self._lose_the_store,
            self._cut_one_off,
            self._lose_answers,
            self._fill_the_disk,
            self._trouble_pleo,
            self._move_a_clock,
            self._lose_commits,
        ]

    # --- what goes wrong

    async def _crash_one(self) -> None:
        instance = self.random.choice(self.instances)
        await instance.crash()
        await asyncio.sleep(self.random.choice((0.0, self.random.random() * 20)))
        await instance.start(self.random.uniform(-2, 2))

    async def _lose_the_store(self) -> None:
        self.world.store_down = True
        self._later(self.random.random() * 40, lambda: setattr(self.world, "store_down", False))

    async def _cut_one_off(self) -> None:
        life = self.random.choice(self.instances).life
        life.cut_off = True
        # Less than a lease: a pair that cannot be saved for longer than that is another's to lose.
        self._later(self.random.random() * 8, lambda: setattr(life, "cut_off", False))

    async def _lose_answers(self) -> None:
        self.world.lost_answers = 0.5
        self._later(10, lambda: setattr(self.world, "lost_answers", 0.0))

    async def _fill_the_disk(self) -> None:
        self.world.disk_full = True
        self._later(20, lambda: setattr(self.world, "disk_full", False))

    async def _trouble_pleo(self) -> None:
        self.world.provider_down = self.random.random()
        self._later(20, lambda: setattr(self.world, "provider_down", 0.0))

    async def _move_a_clock(self) -> None:
        self.random.choice(self.instances).life.skew_s += self.random.uniform(-1, 1)

    async def _lose_commits(self) -> None:
        self.world.late = 0.3
        self._later(10, lambda: setattr(self.world, "late", 0.0))

    def _later(self, delay_s: float, repair: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, repair)

    async def _heal(self) -> None:
        await asyncio.sleep(41)  # until every repair was made
        for instance in self.instances:
            if instance.tokens is None:
                await instance.start(0.0)
            instance.life.cut_off = False

    # --- callers

    def _call(self) -> None:
        instance, tenant = self.random.choice(self.instances), self.random.choice(self.tenants)
        patience = self.random.choice((0.05, 1.0, 60.0))

        async def call() -> None:
            try:
                async with asyncio.timeout(patience):
                    self.ended[await instance.call(tenant)] += 1
            except TimeoutError:
                self.ended["left"] += 1

        task = asyncio.get_running_loop().create_task(call())
        self.callers.add(task)
        task.add_done_callback(self._caller_ended)

    def _caller_ended(self, task: asyncio.Task[None]) -> None:
        self.callers.discard(task)
        if not task.cancelled():
            self._note(task.exception())

    def _note(self, error: BaseException | None) -> None:
        if isinstance(error, Violation):
            self.defects.append(error)

    # --- what must hold

    def _check(self) -> None:
        if self.defects:
            raise self.defects[0]
        for tenant, reuses in self.world.reuses.items():
            excused = self.world.excused.get(tenant, 0)
            if reuses > excused:
                raise Violation(f"{reuses} reuses for {tenant}, of which {excused} are an injected fault's")
        for tenant in self.tenants:
            family, grant = self.world.families[tenant], self.world.grants.get(tenant)
            if not is_whole(grant):
                if not self.world.excused.get(tenant):
                    raise Violation(f"the grant of {tenant} is lost without a fault that could excuse it")
                self._connect_again(tenant)
            elif family.dead and self.world.excused.get(tenant) == self.world.reuses.get(tenant):
                pass  # nobody has noticed yet

    def _connect_again(self, tenant: str) -> None:
        self.world.excused.pop(tenant, None)
        self.world.reuses.pop(tenant, None)
        consent(self.world, self.vault, tenant, asyncio.get_running_loop().time())

    async def _check_end(self) -> None:
        """All is well again: every instance serves every tenant."""
        for instance in self.instances:
            for tenant in self.tenants:
                for _ in range(30):
                    if await instance.call(tenant) == "answered":
                        break
                    self._check()
                    await asyncio.sleep(3)
                else:
                    raise Violation(f"{instance.name} does not serve {tenant} any more")
        for _ in range(30):  # a refresh may just be under way
            if not any(self.world.journals.values()):
                return
            await asyncio.sleep(1)
        raise Violation("a journal holds records though nothing is outstanding")
