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
from benchmarks.processes import (
    BenchmarkError,
    drop_logs,
    free_port,
    last_lines,
    running,
    wait_until_listening,
)
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
    folder: Path
    """Where it says what troubles it."""


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

    def __str__(self) -> str:
        return (
            f"{self.cpu_us:>9.1f} µs {self.per_second:>7.0f}/s"
            f"  p50 {self.p50_ms:.2f}, p99 {self.p99_ms:.2f} ms  {self.memory_mb:.0f} MB"
        )


Series = Mapping[str, Sequence[Measurement]]
"""By subject, a measurement for each round, in the order of the rounds."""


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario."""

    series: Series
    failed: Mapping[str, str]
    """Peers that did not start or did not answer, with what happened; they are not in the series."""


def order(names: Sequence[str], number: int) -> list[str]:
    """The order of one round, counted from 0: there, back, there …"""
    return list(names) if number % 2 == 0 else list(reversed(names))


def measure(bench: Bench, scenario: Scenario, peers: Sequence[str], *, rounds: int, seconds: int) -> Outcome:
    """Run the scenario for ours and those ``peers`` that it wants.

    A peer that fails is left out from then on.

    :raises BenchmarkError: ours failed, or the upstream.
    """
    wanted = [OURS, *(name for name in scenario.peers if name in peers or name == DIRECT)]
    failed: dict[str, str] = {}
    series: dict[str, list[Measurement]] = {name: [] for name in wanted}
    with ExitStack() as stack:
        found: dict[str, Subject] = {}
        for name in wanted:
            with _leaving_out(name, failed, bench.say):
                found[name] = _start(bench, name, stack, tls=scenario.tls)
                check_credential(found[name])
                _loaded(bench, found[name], scenario, 1)  # to warm up
        for number in range(rounds):
            for name in order(wanted, number):
                if name not in failed:
                    with _leaving_out(name, failed, bench.say):
                        series[name].append(measure_once(bench, found[name], scenario, seconds))
                        bench.say(f"{scenario.name} {number + 1}/{rounds} {name:<10}{series[name][-1]}")
    return Outcome({name: each for name, each in series.items() if name not in failed}, failed)


@contextmanager
def _leaving_out(name: str, failed: dict[str, str], say: Say) -> Iterator[None]:
    """Note the failure of a peer and go on; what all are compared with must not fail."""
    try:
        yield
    except BenchmarkError as error:
        if name in (OURS, DIRECT):
            raise
        failed[name] = f"failed: {error}"
        say(f"{name} is left out: {error}")


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
        errors = subject.folder / "stderr"
        said = last_lines(errors) if errors.exists() else []
        raise BenchmarkError(" / ".join([f"{subject.name}: {error}", *said])) from None
    finally:
        drop_logs(bench.folder)


def _start(bench: Bench, name: str, stack: ExitStack, *, tls: bool) -> Subject:
    endpoint = bench.upstream.tls if tls else bench.upstream.plain
    if name == DIRECT:
        return Subject(name, endpoint.url, None, bench.folder)
    folder = bench.new_folder(name)
    if name == OURS:
        serving = stack.enter_context(ours.serving(folder, endpoint, bench.proxy_cores))
        return Subject(name, f"{serving.url}/{ours.TENANT}", serving.pid, folder)
    peer = PEERS[name]
    program = peer.find()
    if program is None:
        raise BenchmarkError(f"{peer.title} is missing: {peer.remedy}")
    site = Site(program, folder, free_port(), endpoint)
    process = stack.enter_context(running(peer.command(site), cores=bench.proxy_cores, folder=folder))
    wait_until_listening(site.port, process, folder)
    return Subject(name, f"http://127.0.0.1:{site.port}", process.pid, folder)


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
