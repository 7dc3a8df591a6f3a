"""What is to be reached, and whether it was. Pure.

The targets were set before the program was written, from measurements of the same peers and of prototypes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.footprint import Footprint
from benchmarks.ratios import Figure, Spread, differences, ratios, spread
from benchmarks.rounds import Series
from benchmarks.scenarios import DIRECT, OURS
from benchmarks.tenants import ManyTenants


@dataclass(frozen=True)
class Results:
    """All that was measured in one run; what was left out or is missing is absent."""

    series: Mapping[str, Series] = field(default_factory=dict)
    """By scenario."""
    footprint: Footprint | None = None
    tenants: ManyTenants | None = None
    workers: Sequence[float] | str | None = None
    """Gains by round, or why there are none."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Peers that are not installed, with the remedy."""


@dataclass(frozen=True)
class Target:
    """One line of what is to be reached."""

    work: str
    figure: str
    bound: float
    unit: str = "×"
    at_least: bool = False


@dataclass(frozen=True)
class Finding:
    """A target with what was measured: a value for each round, or the reason why there is none."""

    target: Target
    values: Sequence[float] = ()
    absent: str = "not measured in this run"

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
        series = results.series.get(wanted.scenario, {})
        if wanted.peer in results.missing:
            yield Finding(wanted.target, absent=f"{wanted.peer} is missing")
        elif OURS in series and wanted.peer in series:
            yield Finding(wanted.target, ratios(series[OURS], series[wanted.peer], wanted.figure))
        else:
            yield Finding(wanted.target)


def _added_latency(results: Results) -> Finding:
    series = results.series.get("latency", {})
    if OURS not in series or DIRECT not in series:
        return Finding(_ADDED)
    return Finding(_ADDED, differences(series[OURS], series[DIRECT], lambda m: m.p50_ms))


def _memory(results: Results) -> Iterator[Finding]:
    found = results.footprint
    yield Finding(Target("memory", "idle", 60, "MB"), [found.idle_mb] if found else ())
    yield Finding(Target("memory", "512 connections", 80, "MB"), [found.connections_mb] if found else ())
    yield Finding(Target("memory", "64 × 10 MiB both ways", 200, "MB"), [found.bodies_mb] if found else ())


def _scale(results: Results) -> Iterator[Finding]:
    gain = Target("two workers", "requests/s ÷ one worker", 1.8, at_least=True)
    if isinstance(results.workers, str):
        yield Finding(gain, absent=results.workers)
    else:
        yield Finding(gain, results.workers or ())
    many = results.tenants
    work = "10,000 tenants"
    # Under a fifth is within what this method can tell.
    yield Finding(Target(work, "CPU of a request ÷ with 1 tenant", 1.2), many.ratios if many else ())
    yield Finding(Target(work, "start-up", 3.0, "s"), [many.start_s] if many else ())
    yield Finding(Target(work, "memory a tenant, never called", 5.0, "KB"), [many.idle_kb] if many else ())
    yield Finding(Target(work, "memory a tenant, each called", 5.0, "KB"), [many.called_kb] if many else ())
