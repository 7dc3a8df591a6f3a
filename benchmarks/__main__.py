"""``python -m benchmarks``: parses, measures, prints."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click

from benchmarks import footprint, installing, machine, plot, report, rounds, tenants, upstream, workers
from benchmarks.ours import TITLE
from benchmarks.peers import PEERS
from benchmarks.processes import ROOT, BenchmarkError
from benchmarks.ratios import ratios, spread
from benchmarks.rounds import Bench
from benchmarks.scenarios import NAMES, OURS, QUICK, SCENARIOS
from benchmarks.targets import Results

PAGE, PLOT = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.svg"
_MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - only a fresh directory in it is used


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    scenarios: tuple[str, ...]
    peers: tuple[str, ...]
    rounds: int
    seconds: int


def _words(known: tuple[str, ...], given: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in given.split(",") if word.strip())
    unknown = [word for word in words if word not in known]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: not among {', '.join(known)}")
    return words


@click.command()
@click.option("--quick", is_flag=True, help="Two minutes: GET 1 KB at 64 connections against the main peers.")
@click.option("--peers", metavar="NAMES", help=f"Only these, with commas: {', '.join(PEERS)}. Default: all.")
@click.option(
    "--scenarios", metavar="NAMES", help=f"Only these, with commas: {', '.join(NAMES)}. Default: all."
)
@click.option("--rounds", "count", type=click.IntRange(1, 50), default=5, show_default=True, help="Rounds.")
@click.option("--seconds", type=click.IntRange(1, 60), help="Of one measurement. Default: 4; with --quick 3.")
@click.option("--install", is_flag=True, help="First install into .bench the peers that come as packages.")
@click.option("--write", is_flag=True, help=f"Write the result to docs/{PAGE.name} and docs/{PLOT.name} too.")
def main(
    *,
    quick: bool,
    peers: str | None,
    scenarios: str | None,
    count: int,
    seconds: int | None,
    install: bool,
    write: bool,
) -> None:
    """Measure what a request costs here and in other proxies, and print a table.

    Needs Linux, two cores, nginx and wrk. Upstream and load generator run on the first core, the proxy under
    test on the second.
    """
    default_scenarios, default_peers = QUICK if quick else (NAMES, tuple(PEERS))
    plan = Plan(
        _words(NAMES, scenarios) if scenarios else default_scenarios,
        _words(tuple(PEERS), peers) if peers else default_peers,
        count,
        seconds or (3 if quick else 4),
    )
    # So that all that was started is ended, also when a pipeline gives up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if lacking := machine.lacking():
        raise click.ClickException(lacking)
    try:
        if install:
            installing.install_missing(plan.peers, _say)
        _run(plan, write=write)
    except BenchmarkError as error:
        raise click.ClickException(str(error)) from None


def _say(line: str) -> None:
    click.echo(line, err=True)


def _run(plan: Plan, *, write: bool) -> None:
    missing = {name: f"missing: {PEERS[name].remedy}" for name in plan.peers if PEERS[name].find() is None}
    for name, remedy in missing.items():
        _say(f"{PEERS[name].title} is left out; {remedy}")
    there = tuple(name for name in plan.peers if name not in missing)
    described = machine.describe(there)
    with _bench() as bench:
        results = replace(_measured(bench, plan, there), missing=missing)
    text = report.render(results, described, rounds=plan.rounds, seconds=plan.seconds, whole=write)
    click.echo(text)
    if write:
        report.write(PAGE, text)
        if drawing := drawn(results):
            PLOT.write_text(drawing, "utf-8")


@contextlib.contextmanager
def _bench() -> Iterator[Bench]:
    load_cores, proxy_cores = machine.cores()
    # In memory where that is possible: a disk would be measured else, where logs are written.
    parent = _MEMORY_DISK if _MEMORY_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(
        prefix="pleo-proxy-bench-", dir=parent, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name) / "upstream"
        folder.mkdir()
        with upstream.serving(folder, load_cores) as server:
            yield Bench(Path(name), server, load_cores, proxy_cores, _say)


def _measured(bench: Bench, plan: Plan, peers: tuple[str, ...]) -> Results:
    """One part after the other; a part that fails leaves the others their figures."""
    results, broken = Results(), dict[str, str]()
    for name in plan.scenarios:
        try:
            results = _with_part(results, name, bench, plan, peers)
        except BenchmarkError as error:
            broken[name] = f"failed: {error}"
            _say(f"{name} {broken[name]}")
    return replace(results, broken=broken)


def _with_part(results: Results, name: str, bench: Bench, plan: Plan, peers: tuple[str, ...]) -> Results:
    match name:
        case "memory":
            return replace(results, footprint=footprint.measure(bench, seconds=max(plan.seconds, 5)))
        case "tenants":
            found = tenants.measure(bench, rounds=plan.rounds, seconds=plan.seconds)
            return replace(results, tenants=found)
        case "workers":
            two = workers.measure(bench, rounds=plan.rounds, seconds=plan.seconds)
            return replace(results, workers=two)
        case _:
            scenario = next(each for each in SCENARIOS if each.name == name)
            outcome = rounds.measure(bench, scenario, peers, rounds=plan.rounds, seconds=plan.seconds)
            return replace(results, outcomes={**results.outcomes, name: outcome})


def drawn(results: Results) -> str | None:
    """The plot of GET against nginx, or ``None`` where one of the two was not measured."""
    outcome = results.outcomes.get("get")
    series = outcome.series if outcome else {}
    if "nginx" not in series:
        return None
    rows = [
        plot.Row(
            TITLE if name == OURS else PEERS[name].title,
            spread(ratios(measured, series["nginx"], lambda m: m.cpu_us)),
            ours=name == OURS,
        )
        for name, measured in series.items()
    ]
    rows.sort(key=lambda row: row.ratio.median)
    title = "CPU time of a request: GET, 1 KB answer, 64 connections"
    return plot.render(title, "as a multiple of nginx in the same round: median and range, logarithmic", rows)


if __name__ == "__main__":
    main()
