"""Memory of a fresh process: idle, with many connections, and with many large bodies both ways."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import accounting, load, ours, upstream
from benchmarks.load import Request
from benchmarks.processes import drop_logs
from benchmarks.rounds import Bench
from benchmarks.upstream import MIB


@dataclass(frozen=True)
class Footprint:
    """Resident memory of the process tree in MiB: idle, and the most under each load."""

    idle_mb: float
    connections_mb: float
    bodies_mb: float


def measure(bench: Bench, *, seconds: int) -> Footprint:
    """Ours, started for this."""
    with ours.serving(bench.new_folder("memory"), bench.upstream.plain, bench.proxy_cores) as serving:
        idle = accounting.memory_mb(serving.pid)
        connections = _peak(bench, serving, Request(upstream.SMALL), connections=512, seconds=seconds)
        both_ways = Request(upstream.ACCEPTS_AND_ANSWERS_MUCH, "POST", 10 * MIB)
        bodies = _peak(bench, serving, both_ways, connections=64, seconds=seconds)
    return Footprint(idle, connections, bodies)


def _peak(bench: Bench, serving: ours.Serving, request: Request, *, connections: int, seconds: int) -> float:
    accounting.forget_peak(serving.pid)
    load.run(
        f"{serving.url}/{ours.TENANT}",
        request,
        connections=connections,
        seconds=seconds,
        cores=bench.load_cores,
        folder=bench.folder,
    )
    drop_logs(bench.folder)
    peak = accounting.peak_memory_mb(serving.pid)
    bench.say(
        f"memory  {connections} connections, {request.method} {request.body_bytes} bytes: {peak:.0f} MB"
    )
    return peak
