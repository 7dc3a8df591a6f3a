"""Schedules of crashes, outages, lost answers and skewed clocks: no grant is lost, and none doubled."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from proxy.held import AccessToken
from proxy.model import Grant, Sealed, Secret
from proxy.refresher import Refresher
from proxy.store import Issued
from proxy.tokens import Tokens
from proxy.vault import Place, Vault
from tests.simulation.instances import Instance, Variant, consent
from tests.simulation.loop import Stuck, run
from tests.simulation.parts import SimulatedJournal, Violation, World
from tests.simulation.schedule import Schedule

SCHEDULES = int(os.environ.get("SIMULATION_SCHEDULES", "2000"))
SEED = os.environ.get("SIMULATION_SEED")


@pytest.fixture(scope="module")
def vault() -> Vault:
    """The real one."""
    return Vault(Secret("k1:" + b64encode(bytes(32)).decode()))


def play(seed: int, vault: Vault, variant: Variant) -> None:
    """One schedule.

    :raises Violation: the text names the seed, and ``SIMULATION_SEED`` plays it again.
    """
    schedule = Schedule(seed, vault, variant)
    try:
        run(schedule.play())
    except Violation as violation:
        raise Violation(f"SIMULATION_SEED={seed}: {violation}") from None


def test_no_schedule_loses_or_doubles_a_grant(vault: Vault) -> None:
    """What Pleo issued is saved before it is used, by one process at a time, through whatever happens."""
    for seed in [int(SEED)] if SEED else range(SCHEDULES):
        play(seed, vault, Variant())


# --- seeded bugs, each of which some schedule must find


class _SavesAfterUse(Refresher):
    """Hands a pair out first and saves it when there is time."""

    async def _edit_until_saved(
        self, tenant: str, edit: Callable[[Grant | None], Grant | None]
    ) -> Grant | None:
        stored = await self.store.grant(tenant)
        later = asyncio.create_task(self._save_later(tenant, edit))
        _KEPT.add(later)
        return edit(stored)

    async def _save_later(self, tenant: str, edit: Callable[[Grant | None], Grant | None]) -> None:
        await asyncio.sleep(5)
        with suppress(Exception):
            await super()._edit_until_saved(tenant, edit)


_KEPT: set[asyncio.Task[None]] = set()


class _ForgetsOutages(Refresher):
    """Counts an outage of the store into the time that another's lease has to run out."""

    def note_outage(self) -> None:
        pass


class _NeverRenews(Refresher):
    """Lets its lease run out."""

    async def _renew(self, before: Grant) -> None:
        pass


class _ForgetfulJournal(SimulatedJournal):
    """Says that it has recorded what it has not."""

    async def append(self, issued: Issued) -> int:
        self.promised.add((issued.tenant, issued.generation + 1))
        return 0

    async def settle(self, number: int) -> None:
        pass


class _RefreshesOnTheCallersTask(Tokens):
    """Is cancelled with whoever asked first."""

    async def _refreshed(self, tenant: str) -> AccessToken:
        live = self._usable(tenant)
        if live.task is None and self.clock() >= self._may_start_at(live):
            live.task = asyncio.current_task()  # that is the bug
            await self._refresh(live, "expiring")
        return await super()._refreshed(tenant)


BUGS = {
    "save-after-use": Variant(refresher=_SavesAfterUse),
    "takes-over-at-once": Variant(takeover_s=0.0),
    "forgets-outages": Variant(refresher=_ForgetsOutages, takeover_s=10.0),
    "lease-too-short": Variant(refresher=_NeverRenews, lease_s=2.0, takeover_s=0.0),
    "no-journal": Variant(journal=_ForgetfulJournal),
    "refresh-on-the-callers-task": Variant(tokens=_RefreshesOnTheCallersTask),
}


@pytest.mark.parametrize("variant", BUGS.values(), ids=BUGS)
def test_a_seeded_bug_is_found(vault: Vault, variant: Variant) -> None:
    """The invariants are worth something: each of these breaks one in some schedule."""
    for seed in range(SCHEDULES):
        try:
            play(seed, vault, variant)
        except (Violation, Stuck):
            return
    pytest.fail(f"{SCHEDULES} schedules did not find it")


def test_tokens_in_anothers_place_do_not_open(vault: Vault) -> None:
    """Rows swapped between tenants serve nobody; without associated data each would serve the other."""

    async def swapped(ring: Vault) -> list[str]:
        world = World(Random(1))
        for tenant in ("a", "b"):
            consent(world, ring, tenant, asyncio.get_running_loop().time())
        a, b = world.grants["a"], world.grants["b"]
        world.grants = {
            "a": replace(a, access=b.access, refresh=b.refresh),
            "b": replace(b, access=a.access, refresh=a.refresh),
        }
        instance = Instance("i0", world, ring, Variant())
        await instance.start(0.0)
        ended = [await instance.call(tenant) for tenant in ("a", "b")]
        await instance.crash()
        return ended

    async def sealed() -> None:
        assert await swapped(vault) == ["refused", "refused"]

    run(sealed())

    class Unbound(Vault):
        """Leaves the place out of what it seals."""

        def seal(self, secret: Secret, place: Place) -> Sealed:
            return super().seal(secret, replace(place, tenant="", column=""))

        def open(self, sealed: Sealed, place: Place) -> Secret:
            return super().open(sealed, replace(place, tenant="", column=""))

    async def unbound() -> None:
        await swapped(Unbound(Secret("k1:" + b64encode(bytes(32)).decode())))

    with pytest.raises(Violation, match="a was answered with at-b"):
        run(unbound())
