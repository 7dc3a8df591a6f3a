"""From facts to records: what is recorded, folded, kept while the store is away, and counted if too much."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any, cast

import pytest

from proxy.audit import AuditError, Ledger
from proxy.chain import Entry, Mark
from proxy.errors import REFUSALS, StoreUnavailable
from proxy.facts import (
    AuditAnchored,
    AuditFailed,
    Fact,
    Refreshed,
    RequestAmbiguous,
    RequestFinished,
    TaskCrashed,
    TenantsLoaded,
)
from proxy.telemetry import audit as module
from proxy.telemetry.audit import AUDITED, DECISIONS, AuditSink
from tests.harness import until

REFRESHED = Refreshed("acme", 2, "expiring", 900, 1.5, 0, "00")


class Trail:
    """A ledger that keeps what it is given, or does not work."""

    actor = "proxy:test/0"

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.fault: Exception | None = None
        self.broken: str | None = None
        self.calls = 0

    async def append(self, entries: Sequence[Entry] = ()) -> Mark | None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        self.entries += entries
        return Mark(len(self.entries), bytes(32), 0.0) if entries else None

    async def prune(self, _before: float) -> int:
        if self.fault is not None:
            raise self.fault
        return 0

    def details(self) -> list[dict[str, Any]]:
        return [json.loads(entry.details) for entry in self.entries]


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sink(clock: Clock) -> AuditSink:
    return AuditSink(clock, keep_s=1000.0)


@asynccontextmanager
async def writing(sink: AuditSink, trail: Trail) -> AsyncIterator[list[Fact]]:
    """The sink writes to ``trail``, every millisecond, until the block ends; gives what it reported."""
    told: list[Fact] = []
    sink.begin(cast(Ledger, trail), told.append, prunes=False)  # it has all that is asked of one
    try:
        yield told
    finally:
        await sink.close()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WRITE_S", 0.001)


def refusal(outcome: str = "policy-refused", tenant: str | None = "acme", caller: str = "::1") -> Fact:
    """A caller was refused."""
    return RequestFinished("id", tenant, "POST", "/acme/v1/x", 403, outcome, caller=caller)


async def recorded(sink: AuditSink, *given: Fact) -> Trail:
    """The trail after these facts and a stop."""
    trail = Trail()
    async with writing(sink, trail):
        for fact in given:
            sink(fact)
    return trail


async def test_a_fact_is_a_record_with_its_fields(sink: AuditSink) -> None:
    """Its name, tenant and time, who reported it, and its fields but those of no use here."""
    trail = await recorded(sink, REFRESHED)
    (made,) = trail.entries
    assert (made.at, made.event, made.tenant, made.actor) == (
        1000.0,
        "token.refreshed",
        "acme",
        "proxy:test/0",
    )
    assert trail.details() == [
        {"generation": 2, "reason": "expiring", "expires_in_s": 900, "chain": "00", "remarks": []}
    ]


@pytest.mark.parametrize("kind", AUDITED, ids=lambda kind: kind.event)
async def test_every_audited_fact_can_be_recorded(sink: AuditSink, kind: type[Fact]) -> None:
    """Whatever its fields hold becomes JSON."""
    values: dict[str, Any] = {"tenant": "acme", "outcome": "policy-refused", "added": ("a",)}
    fact = kind(**{each.name: values.get(each.name, "x") for each in fields(kind)})
    (made,) = (await recorded(sink, fact)).entries
    assert made.event == kind.event


@pytest.mark.parametrize(
    "fact",
    [
        pytest.param(RequestFinished("id", outcome="answered"), id="answered"),
        pytest.param(refusal("caller_left"), id="left"),
        pytest.param(refusal("store-unavailable"), id="outage"),
        pytest.param(TenantsLoaded(1, (), (), ()), id="nothing-changed"),
        pytest.param(TaskCrashed("x", "y", "z"), id="not-audited"),
    ],
)
async def test_what_is_no_decision_is_not_recorded(sink: AuditSink, fact: Fact) -> None:
    """Answered requests, outages and defects are the log's."""
    assert (await recorded(sink, fact)).entries == []


def test_refusals_that_were_decided_are_recorded() -> None:
    """Those that say something of the caller, by their status."""
    assert {
        "policy-refused",
        "browser-refused",
        "host-refused",
        "tenant-unknown",
        "rate-limited",
    } <= DECISIONS
    assert {each.name for each in REFUSALS} - DECISIONS >= {"store-unavailable", "internal-error"}


async def test_a_flood_of_refusals_is_one_record_a_minute(sink: AuditSink, clock: Clock) -> None:
    """Alike ones are counted; others, and those of the next minute, are records of their own."""
    trail = Trail()
    async with writing(sink, trail):
        for _ in range(5000):
            sink(refusal())
        sink(refusal("tenant-unknown", None))
        sink(refusal(caller="::2"))
        await asyncio.sleep(0.02)
        assert trail.entries == []
        clock.now += 60
        await until(lambda: len(trail.entries) == 3)
        sink(refusal())
    assert [details["count"] for details in trail.details()] == [5000, 1, 1, 1]
    assert [(entry.at, entry.tenant) for entry in trail.entries] == [
        (1000.0, "acme"),
        (1000.0, None),
        (1000.0, "acme"),
        (1060.0, "acme"),
    ]
    assert trail.details()[0] == {
        "outcome": "policy-refused",
        "caller": "::1",
        "count": 5000,
        "first_request_id": "id",
    }


async def test_a_flood_from_everywhere_costs_bounded_memory(sink: AuditSink) -> None:
    """Beyond a number of different refusals they are counted together by their reason."""
    for number in range(3000):
        sink(refusal(caller=f"::{number:x}"))
    assert len(sink._folds) == 1001
    trail = await recorded(sink)
    assert len(trail.entries) == 1001
    assert sum(details["count"] for details in trail.details()) == 3000
    assert {"outcome": "policy-refused", "caller": "others", "count": 2000, "first_request_id": "id"} in [
        *trail.details()
    ]


async def test_what_callers_choose_is_not_kept_beyond_a_number(sink: AuditSink) -> None:
    """Where no field is of few words, what is too various is one record."""
    for number in range(3000):
        sink(RequestAmbiguous("id", (f"prefix {number}",), f"::{number:x}"))
    assert len(sink._folds) == 1001


async def test_a_store_that_is_away_costs_no_record(sink: AuditSink) -> None:
    """They wait, in order; the outage is reported once, and the next one again."""
    trail = Trail()
    async with writing(sink, trail) as told:
        for outage in range(2):
            trail.fault, calls = StoreUnavailable("The store failed: it is locked"), trail.calls
            sink(Refreshed("acme", 3 * outage, "expiring", 1, 1, 0, ""))
            sink(Refreshed("acme", 3 * outage + 1, "expiring", 1, 1, 0, ""))
            await until(lambda: trail.calls > calls + 3)  # noqa: B023 - at once
            sink(Refreshed("acme", 3 * outage + 2, "expiring", 1, 1, 0, ""))
            trail.fault = None
            await until(lambda: len(trail.entries) == 3 * (outage + 1))  # noqa: B023 - at once
    assert [details["generation"] for details in trail.details()] == list(range(6))
    reported = [fact for fact in told if isinstance(fact, AuditFailed)]
    assert reported == [AuditFailed("The store failed: it is locked")] * 2


async def test_what_memory_does_not_hold_is_counted(sink: AuditSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record tells how many are not there, once they can be written again."""
    monkeypatch.setattr(module, "_MOST_WAITING", 5)
    trail = Trail()
    trail.fault = StoreUnavailable()
    async with writing(sink, trail):
        for _ in range(12):
            sink(REFRESHED)
        await until(lambda: trail.calls > 2 and sink.waiting == 5)
        trail.fault = None
    assert [entry.event for entry in trail.entries] == ["token.refreshed"] * 5 + ["audit.dropped"]
    assert trail.details()[-1] == {"records": 7}
    assert (sink.dropped, sink.waiting) == (7, 0)


async def test_a_defect_does_not_end_the_recording(sink: AuditSink) -> None:
    """It is reported, what it stumbled over is counted, and the next record is written."""
    trail = Trail()
    async with writing(sink, trail) as told:
        trail.fault = ValueError("planted")
        sink(REFRESHED)
        await until(lambda: told)
        trail.fault = None
        sink(REFRESHED)
        await until(lambda: trail.entries)
    assert isinstance(told[0], TaskCrashed)
    assert (told[0].task, told[0].error) == ("audit", "ValueError")
    assert [entry.event for entry in trail.entries].count("audit.dropped") == 1


async def test_a_broken_trail_is_reported_and_written_to(sink: AuditSink) -> None:
    """What is wrong with its end is told, and so is a key that does not open."""
    trail = Trail()
    async with writing(sink, trail) as told:
        trail.broken = "all records are gone"
        sink(REFRESHED)
        await until(lambda: told)
        trail.fault = AuditError("the key is gone")
        sink(REFRESHED)
        await until(lambda: len(told) > 1)
        trail.fault = None
    assert told[:2] == [
        AuditFailed("all records are gone; see `pleo-proxy audit verify`"),
        AuditFailed("the key is gone"),
    ]
    assert len(trail.entries) == 2


async def test_the_newest_record_is_told_now_and_then(
    sink: AuditSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hour in which something was added, and at a stop; not twice the same."""
    trail = Trail()
    async with writing(sink, trail) as told:
        sink(REFRESHED)
        await until(lambda: trail.entries)
        await asyncio.sleep(0.02)
        assert told == []
        monkeypatch.setattr(module, "_ANCHOR_S", 0.0)
        await until(lambda: told)
        await asyncio.sleep(0.02)
        sink(REFRESHED)
    assert told == [AuditAnchored(1, "00" * 32), AuditAnchored(2, "00" * 32)]


async def test_notes_of_commands_are_looked_for_when_somebody_changed_the_store(sink: AuditSink) -> None:
    """At the start, and when told; else the store is left in peace."""
    trail = Trail()
    async with writing(sink, trail):
        await until(lambda: trail.calls == 1)
        await asyncio.sleep(0.02)
        assert trail.calls == 1
        sink.look()
        await until(lambda: trail.calls == 2)


async def test_notes_that_could_not_be_looked_for_are_looked_for_again(sink: AuditSink) -> None:
    """Also where there is nothing else to write."""
    trail = Trail()
    trail.fault = StoreUnavailable()
    async with writing(sink, trail):
        await until(lambda: trail.calls > 3)
        trail.fault, calls = None, trail.calls
        await until(lambda: trail.calls > calls)
        await asyncio.sleep(0.02)
        assert trail.calls <= calls + 2


async def test_a_large_backlog_is_written_in_batches(
    sink: AuditSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, in order, at a stop."""
    monkeypatch.setattr(module, "_BATCH", 10)
    trail = await recorded(
        sink, *(Refreshed("acme", number, "expiring", 1, 1, 0, "") for number in range(95))
    )
    assert [details["generation"] for details in trail.details()] == list(range(95))
    assert trail.calls >= 10


async def test_lists_of_every_tenant_are_cut(sink: AuditSink) -> None:
    """A first start with thousands of tenants makes no record of thousands of names."""
    names = tuple(f"t{number}" for number in range(10_000))
    trail = await recorded(sink, TenantsLoaded(10_000, names, (), ()))
    (details,) = trail.details()
    assert details["added"] == [*names[:20], "and 9980 more"]


def test_a_request_that_was_answered_costs_next_to_nothing(sink: AuditSink) -> None:
    """Nothing is kept of it, whatever comes."""
    for _ in range(100):
        sink(RequestFinished("id", "acme", outcome="answered"))
    assert not sink._folds
    assert not sink._waiting
