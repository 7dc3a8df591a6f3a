"""Two workers against one: how much more they carry, and what a request costs them.

How much more takes two cores for them, and others for upstream and load. What a request costs shows with
fewer: if it is the same, then two workers on two cores carry twice as much.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import accounting, load, ours, upstream
from benchmarks.load import Loaded, Request
from benchmarks.processes import drop_logs
from benchmarks.rounds import Bench, order

_NEEDED_CORES = 4
"""Two for the workers, one for the upstream, one for the load."""


@dataclass(frozen=True)
class TwoWorkers:
    """Two ÷ one, by round."""

    costs: Sequence[float]
    """CPU time of a request, all on one core."""
    gains: Sequence[float]
    """Requests a second, each on a core of its own; empty where there are too few."""
    obstacle: str = ""
    """Why there are no gains."""


def measure(bench: Bench, *, rounds: int, seconds: int) -> TwoWorkers:
    """One and two workers at once, started for this, loaded in turns."""
    costs = [two / one for one, two in _series(bench, bench.proxy_cores, bench.load_cores, rounds, seconds)]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < _NEEDED_CORES:
        why = f"not measured: needs {_NEEDED_CORES} cores, this machine has {len(cores)}"
        return TwoWorkers(costs, (), why)
    apart = _series(bench, cores[1:3], cores[3:4], rounds, seconds, per_second=True)
    return TwoWorkers(costs, [two / one for one, two in apart])


def _series(
    bench: Bench,
    cores: Sequence[int],
    load_cores: Sequence[int],
    rounds: int,
    seconds: int,
    *,
    per_second: bool = False,
) -> list[tuple[float, float]]:
    """A figure of one worker and of two, by round: CPU time of a request in µs, or requests a second."""
    folders = [bench.new_folder(f"workers-{count}") for count in (1, 2)]
    endpoint = bench.upstream.plain
    found = []
    with (
        ours.serving(folders[0], endpoint, cores[:1]) as one,
        ours.serving(folders[1], endpoint, cores, workers=2) as two,
    ):
        for number in range(rounds):
            figures = {}
            for name in order(["one", "two"], number):
                serving = one if name == "one" else two
                before = accounting.cpu_times(serving.pid)
                loaded = _loaded(bench, serving, load_cores, seconds)
                used = accounting.spent(before, accounting.cpu_times(serving.pid))
                figures[name] = loaded.per_second if per_second else used / 1000 / loaded.requests
            found.append((figures["one"], figures["two"]))
            bench.say(f"workers round {number + 1}/{rounds}  {figures['one']:.1f} / {figures['two']:.1f}")
    return found


def _loaded(bench: Bench, serving: ours.Serving, cores: Sequence[int], seconds: int) -> Loaded:
    try:
        return load.run(
            f"{serving.url}/{ours.TENANT}",
            Request(upstream.SMALL),
            connections=64,
            seconds=seconds,
            cores=tuple(cores),
            folder=bench.folder,
        )
    finally:
        drop_logs(bench.folder)
