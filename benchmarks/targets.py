"""What is to be reached, and whether it was. Pure.

The targets were set before the program was written, from measurements of the same peers and of prototypes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.footprint import Footprint
from benchmarks.ratios import TIMES, Figure, Spread, differences, ratios, spread
from benchmarks.rounds import Outcome
from benchmarks.scenarios import DIRECT, MEMORY, OURS, TENANTS, WORKERS
from benchmarks.tenants import ManyTenants
from benchmarks.workers import TwoWorkers

NOT_MEASURED = "not measured in this run"


@dataclass(frozen=True)
class Results:
    """All that was measured in one run; what was left out or is missing is absent."""

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    """By scenario."""
    footprint: Footprint | None = None
    tenants: ManyTenants | None = None
    workers: TwoWorkers | None = None
    """Gains by round, or why there are none."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Peers that are not installed, with the remedy."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Scenarios that could not be measured, with what happened."""

    def absent(self, scenario: str) -> Mapping[str, str]:
        """Peers without figures in a scenario, and why."""
        outcome = self.outcomes.get(scenario)
        return {**self.missing, **(outcome.failed if outcome else {})}


@dataclass(frozen=True)
class Target:
    """One line of what is to be reached."""

    work: str
    figure: str
    bound: float
    unit: str = TIMES
    at_least: bool = False


@dataclass(frozen=True)
class Finding:
    """A target with what was measured: a value for each round, or the reason why there is none."""

    target: Target
    values: Sequence[float] = ()
    absent: str = NOT_MEASURED

    @property
    def spread(self) -> Spread | None:
        """Median and range, where there is anything."""
        return spread(self.values) if self.values else None

    @property
    def verdict(self) -> str:
        """``ok`` or ``short`` by the median, whatever the range; else why there is no verdict."""
        found = self.spread
        if found is None:
            return self.absent
        target = self.target
        reached = found.median >= target.bound if target.at_least else found.median <= target.bound
        return "ok" if reached else "short"


@dataclass(frozen=True)
class _Ratio:
    scenario: str
    peer: str
    figure: Figure
    target: Target


def _cpu(scenario: str, work: str, peer: str, title: str, bound: float) -> _Ratio:
    return _Ratio(scenario, peer, lambda m: m.cpu_us, Target(work, f"CPU ÷ {title}", bound))


_GET, _GO = "GET 1 KB, 64 connections", "Go ReverseProxy, bare"
_RATIOS = (
    _cpu("get", _GET, "nginx", "nginx with a JSON log", 2.25),
    _cpu("get", _GET, "envoy", "Envoy with credential_injector, RBAC, JSON log", 0.75),
    _cpu("get", _GET, "go", _GO, 0.5),
    _cpu("get", _GET, "naive", "aiohttp as most write it", 0.27),
    _Ratio("get", "go", lambda m: m.p99_ms, Target(_GET, "p99 ÷ Go", 1.0)),
    _cpu("tls", "the same over TLS to the upstream", "nginx", "nginx", 2.5),
    _cpu("tls", "the same over TLS to the upstream", "go", "Go", 0.6),
    _cpu("post", "POST 1 KB, 64 connections", "go", "Go", 0.75),
    _cpu("many", "GET 1 KB, 512 connections", "go", "Go", 0.65),
    _cpu("large", "1 MiB answers", "go", "Go", 1.3),
    _cpu("upload", "10 MiB uploads", "go", "Go", 1.2),
)
_ADDED = Target("GET 1 KB, 1 connection", "p50 added to the upstream's", 0.25, "ms")


def findings(results: Results) -> list[Finding]:
    """Every target with its figures."""
    return [*_ratio_findings(results), _added_latency(results), *_memory(results), *_scale(results)]


def _ratio_findings(results: Results) -> Iterator[Finding]:
    for wanted in _RATIOS:
        outcome = results.outcomes.get(wanted.scenario)
        absent = results.absent(wanted.scenario)
        if wanted.scenario in results.broken:
            yield Finding(wanted.target, absent=results.broken[wanted.scenario])
        elif outcome is not None and wanted.peer in outcome.series:
            series = outcome.series
            yield Finding(wanted.target, ratios(series[OURS], series[wanted.peer], wanted.figure))
        elif outcome is not None and wanted.peer in absent:
            yield Finding(wanted.target, absent=f"{wanted.peer}: {absent[wanted.peer]}")
        else:
            yield Finding(wanted.target)


def _added_latency(results: Results) -> Finding:
    outcome = results.outcomes.get("latency")
    if outcome is None:
        return Finding(_ADDED, absent=results.broken.get("latency", NOT_MEASURED))
    series = outcome.series
    return Finding(_ADDED, differences(series[OURS], series[DIRECT], lambda m: m.p50_ms))


def _memory(results: Results) -> Iterator[Finding]:
    found, why = results.footprint, results.broken.get(MEMORY, NOT_MEASURED)
    figures = [
        ("idle", 60, found and found.idle_mb),
        ("512 connections", 80, found and found.connections_mb),
        (f"64 {TIMES} 10 MiB both ways", 200, found and found.bodies_mb),
    ]
    for figure, bound, value in figures:
        yield Finding(Target("memory", figure, bound, "MB"), [value] if value else (), why)


def _scale(results: Results) -> Iterator[Finding]:
    gain = Target("two workers", "requests/s ÷ one worker", 1.8, at_least=True)
    two, why = results.workers, results.broken.get(WORKERS, NOT_MEASURED)
    yield Finding(gain, two.gains if two else (), (two.obstacle if two else "") or why)
    # What 1.8 times as much on twice the cores comes down to.
    cost = Target("two workers", "CPU of a request ÷ with one", 1.11)
    yield Finding(cost, two.costs if two else (), why)
    many, why = results.tenants, results.broken.get(TENANTS, NOT_MEASURED)
    # A difference of less than a fifth is below what this method can tell.
    same = Target("10,000 tenants", "CPU of a request ÷ with 1 tenant", 1.2)
    yield Finding(same, many.ratios if many else (), why)
    figures = [
        ("start-up", 3.0, "s", many and many.start_s),
        ("memory a tenant, never called", 5.0, "KB", many and many.idle_kb),
        ("memory a tenant, each called", 5.0, "KB", many and many.called_kb),
    ]
    for figure, bound, unit, value in figures:
        yield Finding(Target("10,000 tenants", figure, bound, unit), [value] if value else (), why)
