"""CPU time and memory of a process tree, read from ``/proc``.

CPU time is the first figure of ``schedstat``: nanoseconds on a core, by thread, kernel work included. Unlike
``stat`` it is not sampled, so that a run of seconds is exact. A thread that ends between two looks takes its
time along; no proxy here ends threads under load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

PROC = Path("/proc")

Thread = tuple[int, int]
"""Process id and thread id."""
CpuTimes = Mapping[Thread, int]
"""Nanoseconds on a core since each thread began."""


def parent_of(stat: str) -> int:
    """The parent's id from ``/proc/PID/stat``; the command before it may hold spaces and parentheses."""
    return int(stat.rpartition(")")[2].split()[1])


def family(root: int, parents: Mapping[int, int]) -> frozenset[int]:
    """``root`` and all that descend from it, given the parent of each process."""
    found = {root}
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        found |= children
        grown = bool(children)
    return frozenset(found)


def process_tree(root: int) -> frozenset[int]:
    """The ids of ``root`` and all processes below it."""
    parents = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (stat := _read(folder / "stat")) is not None:
            parents[int(folder.name)] = parent_of(stat)
    return family(root, parents)


def cpu_times(root: int) -> CpuTimes:
    """The CPU time of every thread of the tree.

    :raises OSError: the kernel keeps no ``schedstat``.
    """
    times = {}
    for pid in process_tree(root):
        for task in _tasks(pid):
            if (text := _read(task / "schedstat")) is not None:
                times[pid, int(task.name)] = nanoseconds(text)
    if not times:
        raise OSError("/proc has no schedstat; this needs a Linux kernel with CONFIG_SCHED_INFO")
    return times


def nanoseconds(schedstat: str) -> int:
    """Time on a core from the text of a ``schedstat``."""
    return int(schedstat.split(maxsplit=1)[0])


def spent(before: CpuTimes, after: CpuTimes) -> int:
    """Nanoseconds between two looks; a thread that is new since then counts from zero."""
    return sum(time - before.get(thread, 0) for thread, time in after.items())


def memory_mb(root: int) -> float:
    """Resident memory of the tree now, in MiB; pages that processes share count for each."""
    return _status_sum(process_tree(root), "VmRSS")


def peak_memory_mb(root: int) -> float:
    """The largest resident memory of each process of the tree since :func:`forget_peak`, added up, in MiB."""
    return _status_sum(process_tree(root), "VmHWM")


def forget_peak(root: int) -> None:
    """Let the peak start again from what is resident now (proc(5), ``clear_refs``)."""
    for pid in process_tree(root):
        (PROC / str(pid) / "clear_refs").write_text("5")


def kilobytes(status: str, field: str) -> int:
    """A figure of ``/proc/PID/status``; 0 where the process has no memory any more."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    return 0


def _status_sum(pids: Iterable[int], field: str) -> float:
    texts = (_read(PROC / str(pid) / "status") for pid in pids)
    return sum(kilobytes(text, field) for text in texts if text is not None) / 1024


def _tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def _read(path: Path) -> str | None:
    """The file's text, or ``None`` where the process ended meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return None
