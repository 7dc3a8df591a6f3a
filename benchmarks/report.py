"""The result as Markdown, and its place in the page. Pure but for reading and writing that page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.machine import Machine
from benchmarks.ours import REMARK, TITLE
from benchmarks.peers import PEERS
from benchmarks.ratios import TIMES, TO, Figure, Spread, differences, ratios, spread
from benchmarks.rounds import Measurement, Series
from benchmarks.scenarios import DIRECT, OURS, SCENARIOS, Scenario
from benchmarks.targets import NOT_MEASURED, Finding, Results, Target, findings

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def render(results: Results, machine: Machine, *, rounds: int, seconds: int, whole: bool) -> str:
    """Everything that stands between the markers of the page.

    :param whole: show also the targets that this run had nothing to do with.
    """
    found = [each for each in findings(results) if whole or each.verdict != NOT_MEASURED]
    parts = [
        _surroundings(machine, rounds, seconds),
        "### Against the targets\n\n" + targets_table(found),
        *(
            f"### {scenario.title}\n\n{scenario_table(scenario, results, machine)}"
            for scenario in SCENARIOS
            if scenario.name in results.outcomes
        ),
    ]
    return "\n\n".join(parts)


def _surroundings(machine: Machine, rounds: int, seconds: int) -> str:
    return (
        f"Measured on {machine.date}: {machine.processor}, {machine.cores} cores, "
        f"{machine.memory_gb:.0f} GB, {machine.kernel}, Python {machine.python}, {machine.libraries}. "
        f"{rounds} rounds of {seconds} s. Load average before it began: {machine.load_average:.1f}."
    )


def targets_table(found: Iterable[Finding]) -> str:
    """The targets, what was measured, and the verdicts."""
    rows = [
        (
            finding.target.work,
            finding.target.figure,
            _with_range(finding.spread, finding.target.unit),
            _bound(finding.target),
            f"**{finding.verdict}**" if finding.verdict == "short" else finding.verdict,
        )
        for finding in found
    ]
    return table(("work", "figure", "median (range)", "target", ""), rows)


def _bound(target: Target) -> str:
    return f"{'≥' if target.at_least else '≤'} {_quantity(target.bound, target.unit)}"


def scenario_table(scenario: Scenario, results: Results, machine: Machine) -> str:
    """All proxies of one scenario, the cheapest first; those that are missing at the end."""
    series, absent = results.outcomes[scenario.name].series, results.absent(scenario.name)
    rows = [_row(name, series, machine) for name in sorted(series, key=lambda name: _cost(series[name]))]
    rows += [(PEERS[name].title, absent[name], "", "", "", "") for name in scenario.peers if name in absent]
    return table(("proxy", "CPU µs a request", "ours ÷ this", "requests/s", "p50, p99 ms", "memory MB"), rows)


def _row(name: str, series: Series, machine: Machine) -> tuple[str, ...]:
    measured = series[name]
    latency = f"{_median(measured, 'p50_ms'):.2f}, {_median(measured, 'p99_ms'):.2f}"
    rate = f"{_median(measured, 'per_second'):,.0f}"
    if name == DIRECT:
        added = [spread(differences(series[OURS], measured, _figure(key))) for key in ("p50_ms", "p99_ms")]
        text = f"ours adds {added[0].median:.2f}, {added[1].median:.2f} ms"
        return ("none: the upstream itself", "", text, rate, latency, "")
    cost = spread([each.cpu_us for each in measured])
    ratio = (
        "" if name == OURS else _with_range(spread(ratios(series[OURS], measured, _figure("cpu_us"))), TIMES)
    )
    shown = f"{cost.median:,.0f} ({cost.low:,.0f}{TO}{cost.high:,.0f})"
    return (_title(name, machine), shown, ratio, rate, latency, f"{_median(measured, 'memory_mb'):.0f}")


def _title(name: str, machine: Machine) -> str:
    if name == OURS:
        return f"**{TITLE}**: {REMARK}"
    return f"{PEERS[name].title} {machine.versions.get(name, '')}: {PEERS[name].remark}"


def _cost(measured: Sequence[Measurement]) -> float:
    return _median(measured, "cpu_us")


def _median(measured: Sequence[Measurement], name: str) -> float:
    return spread([_figure(name)(each) for each in measured]).median


def _figure(name: str) -> Figure:
    def figure(measurement: Measurement) -> float:
        return float(getattr(measurement, name))

    return figure


def _with_range(found: Spread | None, unit: str) -> str:
    if found is None:
        return ""
    if found.low == found.high:
        return _quantity(found.median, unit)
    return f"{_quantity(found.median, unit)} ({_number(found.low)}{TO}{_number(found.high)})"


def _quantity(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    """Three digits, as far as the method can tell."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(_lines(head, rows))


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def replace_between(page: str, text: str) -> str:
    """The page with ``text`` between its markers; all else stays as it is.

    :raises ValueError: a marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def write(path: Path, text: str) -> None:
    """Put ``text`` into the page at ``path``."""
    path.write_text(replace_between(path.read_text("utf-8"), text), "utf-8")
