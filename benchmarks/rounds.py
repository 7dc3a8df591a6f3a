"""Measuring proxies against each other on a machine that is never quiet.

All proxies of a scenario run at once, on one core; the load goes to one after the other, in rounds, each
round in the opposite order of the one before. What changes slowly then meets all alike, and figures are
compared within a round only.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import accounting, load, ours, upstream
from benchmarks.load import Loaded
from benchmarks.peers import CREDENTIAL, PEERS, Site
from benchmarks.processes import BenchmarkError, drop_logs, free_port, running, wait_until_listening
from benchmarks.scenarios import DIRECT, OURS, Scenario
from benchmarks.upstream import Upstream

Say = Callable[[str], None]
"""Where progress is shown."""


@dataclass(frozen=True)
class Bench:
    """The surroundings of every measurement."""

    folder: Path
    upstream: Upstream
    load_cores: tuple[int, ...]
    """Of upstream and load generator."""
    proxy_cores: tuple[int, ...]
    """Of the proxy, alone."""
    say: Say

    def new_folder(self, name: str) -> Path:
        """A fresh one for a process."""
        number = sum(1 for _ in self.folder.iterdir())
        made = self.folder / f"{number}-{name}"
        made.mkdir()
        return made


@dataclass(frozen=True)
class Subject:
    """What a load is sent to."""

    name: str
    base_url: str
    """With the tenant's prefix, where it has one."""
    pid: int | None
    """Of the proxy; ``None`` for the upstream itself, whose cost is nobody's."""


@dataclass(frozen=True)
class Measurement:
    """One subject in one round."""

    cpu_us: float
    """CPU time of the process tree for a completed request; 0 for the upstream itself."""
    per_second: float
    p50_ms: float
    p99_ms: float
    memory_mb: float
    """The most that was resident."""


Series = Mapping[str, Sequence[Measurement]]
"""By subject, a measurement for each round, in the order of the rounds."""


def order(names: Sequence[str], number: int) -> list[str]:
    """The order of one round, counted from 0: there, back, there …"""
    return list(names) if number % 2 == 0 else list(reversed(names))


def measure(bench: Bench, scenario: Scenario, peers: Sequence[str], *, rounds: int, seconds: int) -> Series:
    """Run the scenario for ours and those ``peers`` that it wants and that are there."""
    wanted = [OURS, *(name for name in scenario.peers if name in peers or name == DIRECT)]
    series: dict[str, list[Measurement]] = {name: [] for name in wanted}
    with subjects(bench, wanted, tls=scenario.tls) as found:
        for subject in found.values():
            check_credential(subject)
            _loaded(bench, subject, scenario, 1)
        for number in range(rounds):
            for name in order(wanted, number):
                measured = measure_once(bench, found[name], scenario, seconds)
                series[name].append(measured)
                bench.say(
                    f"{scenario.name} round {number + 1}/{rounds}  {name:<10}{measured.cpu_us:>9.1f} µs"
                    f"{measured.per_second:>9.0f}/s  p50 {measured.p50_ms:.2f}  p99 {measured.p99_ms:.2f} ms"
                )
    return series


def measure_once(bench: Bench, subject: Subject, scenario: Scenario, seconds: int) -> Measurement:
    """One measurement."""
    if subject.pid is None:
        loaded = _loaded(bench, subject, scenario, seconds)
        return Measurement(0.0, loaded.per_second, loaded.p50_ms, loaded.p99_ms, 0.0)
    accounting.forget_peak(subject.pid)
    before = accounting.cpu_times(subject.pid)
    loaded = _loaded(bench, subject, scenario, seconds)
    used = accounting.spent(before, accounting.cpu_times(subject.pid))
    return Measurement(
        cpu_us=used / 1000 / loaded.requests,
        per_second=loaded.per_second,
        p50_ms=loaded.p50_ms,
        p99_ms=loaded.p99_ms,
        memory_mb=accounting.peak_memory_mb(subject.pid),
    )


def _loaded(bench: Bench, subject: Subject, scenario: Scenario, seconds: int) -> Loaded:
    try:
        return load.run(
            subject.base_url,
            scenario.request,
            connections=scenario.connections,
            seconds=seconds,
            cores=bench.load_cores,
            folder=bench.folder,
        )
    except BenchmarkError as error:
        raise BenchmarkError(f"{scenario.name}, {subject.name}: {error}") from None
    finally:
        drop_logs(bench.folder)


@contextmanager
def subjects(bench: Bench, names: Sequence[str], *, tls: bool = False) -> Iterator[dict[str, Subject]]:
    """The named subjects, running."""
    with ExitStack() as stack:
        yield {name: _start(bench, name, stack, tls=tls) for name in names}


def _start(bench: Bench, name: str, stack: ExitStack, *, tls: bool) -> Subject:
    endpoint = bench.upstream.tls if tls else bench.upstream.plain
    if name == DIRECT:
        return Subject(name, endpoint.url, None)
    folder = bench.new_folder(name)
    if name == OURS:
        serving = stack.enter_context(ours.serving(folder, endpoint, bench.proxy_cores))
        return Subject(name, f"{serving.url}/{ours.TENANT}", serving.pid)
    peer = PEERS[name]
    program = peer.find()
    if program is None:
        raise BenchmarkError(f"{peer.title} is missing: {peer.remedy}")
    site = Site(program, folder, free_port(), endpoint)
    process = stack.enter_context(running(peer.command(site), cores=bench.proxy_cores, folder=folder))
    wait_until_listening(site.port, process, folder)
    return Subject(name, f"http://127.0.0.1:{site.port}", process.pid)


def check_credential(subject: Subject) -> None:
    """See that the proxy does what it is there for.

    :raises BenchmarkError: the upstream did not get the credential.
    """
    if subject.pid is None:
        return
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(subject.base_url + upstream.ECHOES, timeout=10) as answer:
            arrived = answer.read().decode()
    except OSError as error:
        raise BenchmarkError(f"{subject.name} does not answer: {error}") from None
    if arrived != CREDENTIAL:
        raise BenchmarkError(f"{subject.name} sends {arrived or 'no credential'!r} to the upstream")
