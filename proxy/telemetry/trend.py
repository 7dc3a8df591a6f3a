"""Requests of the last hour, minute by minute, and how long they took: for charts on the operator's pages.

Nothing is counted here. The metrics' numbers, of all processes, are read once a minute and what they have
grown by is noted, so requests pay nothing. For each tenant that was called at all it keeps one small array:
twelve times five minutes, and where its histogram stood half an hour and an hour ago.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.facts import Emit, TaskCrashed
from proxy.model import Clock
from proxy.places import innermost_place
from proxy.telemetry import families
from proxy.telemetry.metrics import NO_FAILURES
from proxy.telemetry.percentiles import percentile
from proxy.telemetry.tally import Key

MINUTE_S = 60.0
MINUTES = 60
"""In the series of all requests."""
STEP = 5
"""Minutes in a step of a tenant's series: a bar of a small chart."""
STEPS = MINUTES // STEP
WINDOW = 30
"""Minutes between two marks of the histograms: percentiles are of the last one to two of them."""
_AT_ONCE = 100
"""Tenants that are read before others get their turn: a millisecond of work."""

_BOUNDS = families.HISTOGRAMS[families.SECONDS][2]
_BUCKETS = len(_BOUNDS) + 1
_LAST = 2 * STEPS
"""Where a tenant's array has its totals as of the last step; before it, its steps."""
_MARKS = _LAST + 2
_LENGTH = _MARKS + 2 * _BUCKETS
_WRAP = 0xFFFFFFFF
"""Counts are kept modulo 2**32: differences come out right, and no array need be twice as large."""


class Numbers(Protocol):
    """Rows of numbers, of which more come, and numbers grow (:mod:`~proxy.telemetry.tally`)."""

    def rows_after(self, count: int) -> list[tuple[Key, int]]:
        """Keys and where their first number is, of all rows but the first ``count``."""

    def numbers(self) -> Sequence[float]:
        """All numbers as they are now."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Requests in one span of time."""

    requests: int
    failed: int


@dataclass(frozen=True, slots=True)
class Recent:
    """What a tenant's requests of late were like."""

    steps: tuple[Counted, ...]
    """Of :data:`STEP` minutes each, oldest first."""
    p50_s: float | None
    p99_s: float | None
    """``inf`` where it is beyond the last bucket, ``None`` where there was no request."""


class _Source:
    """One process's numbers, and where in them those of each tenant are."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._seen = 0
        self.histograms: dict[str, int] = {}
        self.failing: dict[str, list[int]] = defaultdict(list)
        self.values: Sequence[float] = ()

    def take_up(self) -> None:
        """Find the rows that have come, and read the numbers."""
        rows = self._numbers.rows_after(self._seen)
        self._seen += len(rows)
        for key, first in rows:
            if key[0] == families.SECONDS:
                self.histograms[key[1]] = first
            elif key[0] == families.REQUESTS and key[3] not in NO_FAILURES:
                self.failing[key[1]].append(first)
        self.renew()

    def renew(self) -> None:
        """Use no numbers from before others got their turn: rows that came may have moved them."""
        self.values = self._numbers.numbers()

    def add(self, tenant: str, buckets: list[int]) -> int:
        """Add the tenant's buckets to ``buckets``; returns how many requests failed."""
        first = self.histograms.get(tenant)
        if first is not None:
            for place, count in enumerate(self.values[first : first + _BUCKETS]):
                buckets[place] += int(count)
        return sum(int(self.values[place]) for place in self.failing.get(tenant, ()))


class Trend:
    """The last hour. Made when counting begins; :meth:`run` follows it until it is cancelled."""

    def __init__(self, sources: Iterable[Numbers], clock: Clock, emit: Emit) -> None:
        self._sources = [_Source(numbers) for numbers in sources]
        self._clock = clock
        self._emit = emit
        self._minutes: list[Counted] = []
        self._total = Counted(0, 0)
        self._tenants: dict[str, array[int]] = {}
        self._turn = 0
        self.sampled_at = clock()

    async def run(self) -> None:
        """Sample once a minute."""
        while True:
            await asyncio.sleep(MINUTE_S)
            try:
                await self.sample()
            except Exception as error:  # noqa: BLE001 - one minute is missing, and the charts go on
                self._emit(TaskCrashed("trend", type(error).__name__, innermost_place(error)))

    async def sample(self) -> None:
        """A minute is over."""
        self._turn += 1
        requests = failed = 0
        for place, tenant in enumerate(self._called()):
            if place % _AT_ONCE == 0:
                await asyncio.sleep(0)
                for source in self._sources:
                    source.renew()
            buckets, missed = self._read(tenant)
            requests, failed = requests + sum(buckets), failed + missed
            self._note(tenant, buckets, missed)
        before, self._total = self._total, Counted(requests, failed)
        self._minutes.append(Counted(requests - before.requests, failed - before.failed))
        del self._minutes[:-MINUTES]
        self.sampled_at = self._clock()

    def minutes(self) -> tuple[Counted, ...]:
        """All requests by the minute, oldest first; the minute that is not over is not there."""
        return tuple(self._minutes)

    def of(self, tenants: Iterable[str]) -> dict[str, Recent]:
        """Each of ``tenants`` that was called, as of now."""
        called = self._called()
        return {tenant: self._recent(tenant) for tenant in tenants if tenant in called}

    def _called(self) -> dict[str, None]:
        """Who was called in any process, in the order in which it was first."""
        for source in self._sources:
            source.take_up()
        return {tenant: None for source in self._sources for tenant in source.histograms}

    def _read(self, tenant: str) -> tuple[list[int], int]:
        buckets = [0] * _BUCKETS
        return buckets, sum(source.add(tenant, buckets) for source in self._sources)

    def _note(self, tenant: str, buckets: list[int], failed: int) -> None:
        kept = self._tenants.get(tenant)
        if kept is None:
            kept = self._tenants[tenant] = array("I", bytes(4 * _LENGTH))
        if self._turn % STEP == 0:
            totals = sum(buckets), failed
            for series, total in enumerate(totals):
                steps = kept[series * STEPS + 1 : (series + 1) * STEPS]
                steps.append((total - kept[_LAST + series]) & _WRAP)
                kept[series * STEPS : (series + 1) * STEPS] = steps
                kept[_LAST + series] = total & _WRAP
        if self._turn % WINDOW == 0:
            middle = _MARKS + _BUCKETS
            kept[_MARKS:middle] = kept[middle:]
            kept[middle:] = array("I", (count & _WRAP for count in buckets))

    def _recent(self, tenant: str) -> Recent:
        buckets, _ = self._read(tenant)
        kept = self._tenants.get(tenant) or array("I", bytes(4 * _LENGTH))
        of_late = [(now - kept[_MARKS + place]) & _WRAP for place, now in enumerate(buckets)]
        return Recent(
            tuple(map(Counted, kept[:STEPS], kept[STEPS:_LAST])),
            percentile(_BOUNDS, of_late, 0.5),
            percentile(_BOUNDS, of_late, 0.99),
        )
