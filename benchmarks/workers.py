"""Two workers against one, where this version has workers and the machine has cores for them."""

from __future__ import annotations

import os

from benchmarks import load, ours, upstream
from benchmarks.load import Request
from benchmarks.processes import drop_logs
from benchmarks.rounds import Bench, order

_NEEDED_CORES = 4
"""Two for the workers, one for the upstream, one for the load."""


def obstacle() -> str | None:
    """Why this cannot be measured, or ``None``."""
    if not ours.accepts_workers(2):
        return "not available: this version runs one worker"
    cores = len(os.sched_getaffinity(0))
    if cores < _NEEDED_CORES:
        return f"not measured: needs {_NEEDED_CORES} cores, this machine has {cores}"
    return None


def measure(bench: Bench, *, rounds: int, seconds: int) -> list[float]:
    """Requests a second with two workers ÷ with one, by round."""
    cores = sorted(os.sched_getaffinity(0))
    endpoint = bench.upstream.plain
    folders = [bench.new_folder(f"workers-{count}") for count in (1, 2)]
    gains = []
    with (
        ours.serving(folders[0], endpoint, cores[1:2]) as one,
        ours.serving(folders[1], endpoint, cores[1:3], workers=2) as two,
    ):
        for number in range(rounds):
            rates = {}
            for name in order(["one", "two"], number):
                serving = one if name == "one" else two
                loaded = load.run(
                    f"{serving.url}/{ours.TENANT}",
                    Request(upstream.SMALL),
                    connections=64,
                    seconds=seconds,
                    cores=cores[3:4],
                    folder=bench.folder,
                )
                drop_logs(bench.folder)
                rates[name] = loaded.per_second
            gains.append(rates["two"] / rates["one"])
            bench.say(f"workers round {number + 1}/{rounds}  {rates['one']:.0f}/s  {rates['two']:.0f}/s")
    return gains
