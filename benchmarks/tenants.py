"""Ten thousand tenants against one: start-up, memory, and the cost of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import accounting, load, ours, upstream
from benchmarks.load import Request
from benchmarks.processes import drop_logs
from benchmarks.rounds import Bench, order

MANY = 10_000
_CONNECTIONS = 64


@dataclass(frozen=True)
class ManyTenants:
    """What ten thousand connected tenants cost."""

    start_s: float
    """From starting the process until it accepted connections."""
    start_one_s: float
    idle_kb: float
    """Memory of a tenant that nobody called yet, in KiB."""
    called_kb: float
    """The same after each was called: its metrics exist then."""
    ratios: Sequence[float]
    """CPU time of a request, spread over all, ÷ that with one tenant; by round."""


def measure(bench: Bench, *, rounds: int, seconds: int) -> ManyTenants:
    """Two of ours at once, started for this, each request to the next tenant."""
    folders = [bench.new_folder(name) for name in ("one", "many")]
    endpoint, cores = bench.upstream.plain, bench.proxy_cores
    bench.say(f"tenants  storing {MANY} grants")
    with (
        ours.serving(folders[0], endpoint, cores, names=_names(1)) as one,
        ours.serving(folders[1], endpoint, cores, names=_names(MANY)) as many,
    ):
        before = [accounting.memory_mb(each.pid) for each in (one, many)]
        for serving, count in ((one, 1), (many, MANY)):
            cost_us(bench, serving, count, seconds=max(seconds, 3))
        after = [accounting.memory_mb(each.pid) for each in (one, many)]
        series: dict[str, list[float]] = {"one": [], "many": []}
        for number in range(rounds):
            for name in order(["one", "many"], number):
                serving, count = (one, 1) if name == "one" else (many, MANY)
                series[name].append(cost_us(bench, serving, count, seconds=seconds))
            bench.say(
                f"tenants round {number + 1}/{rounds}  {series['one'][-1]:.1f} / {series['many'][-1]:.1f} µs"
            )
    return ManyTenants(
        start_s=many.started_s,
        start_one_s=one.started_s,
        idle_kb=(before[1] - before[0]) * 1024 / MANY,
        called_kb=(after[1] - after[0]) * 1024 / MANY,
        ratios=[costly / cheap for costly, cheap in zip(series["many"], series["one"], strict=True)],
    )


def _names(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


def cost_us(bench: Bench, serving: ours.Serving, tenants: int, *, seconds: int) -> float:
    """CPU time of a request in µs, each to the next of so many tenants."""
    before = accounting.cpu_times(serving.pid)
    loaded = load.run(
        serving.url,
        Request("/t{}" + upstream.SMALL, tenants=tenants),
        connections=_CONNECTIONS,
        seconds=seconds,
        cores=bench.load_cores,
        folder=bench.folder,
    )
    drop_logs(bench.folder)
    return accounting.spent(before, accounting.cpu_times(serving.pid)) / 1000 / loaded.requests
