"""On what it was measured."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.load import wrk
from benchmarks.peers import PEERS
from benchmarks.processes import BenchmarkError


@dataclass(frozen=True)
class Machine:
    """What a figure depends on beside the programs."""

    processor: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    libraries: str
    date: str
    load_average: float
    """Of the minute before: what else ran."""
    versions: Mapping[str, str]
    """By peer."""


def cores() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The core of upstream and load generator, and that of the proxy.

    :raises BenchmarkError: there is only one.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchmarkError("this needs two cores: one for the load, one for the proxy under test")
    return (usable[0],), (usable[1],)


def describe(peers: Iterable[str]) -> Machine:
    """This machine, now."""
    names = ("aiohttp", "httptools", "uvloop", "orjson")
    return Machine(
        processor=_processor(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        libraries=", ".join(f"{name} {metadata.version(name)}" for name in names),
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        load_average=os.getloadavg()[0],
        versions={name: _version(name) for name in peers},
    )


def _processor(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str:
    peer = PEERS[name]
    program = peer.find()
    try:
        return peer.version(program) if program is not None else ""
    except (BenchmarkError, IndexError):
        return "unknown version"


def lacking() -> str | None:
    """What must be there and is not, in words that say what to do."""
    if not sys.platform.startswith("linux"):
        return "CPU time is read from /proc, which only Linux has"
    needed = {"nginx": PEERS["nginx"].find(), "wrk": wrk()}
    absent = [name for name, path in needed.items() if path is None]
    if absent:
        return f"{' and '.join(absent)} must be installed: apt-get install nginx haproxy wrk"
    return None
