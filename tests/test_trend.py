"""Requests of the last hour: percentiles, charts, and where their numbers come from."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from math import ceil, inf
from pathlib import Path
from time import perf_counter
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin import charts, words
from proxy.admin.answers import _templates
from proxy.facts import Fact, RequestFinished, TaskCrashed
from proxy.telemetry import fan_out
from proxy.telemetry import trend as module
from proxy.telemetry.families import BUCKETS_S, SECONDS
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.percentiles import percentile
from proxy.telemetry.tally import Follower, Tally
from proxy.telemetry.trend import Counted, Trend
from tests.harness import Proxy, until
from tests.operator_browser import ask, logged_in, shown_text
from tests.streams import BEARER

BOUNDS = (1.0, 2.0, 5.0, 10.0)

# --- percentiles


def counted(values: Iterable[float], bounds: tuple[float, ...] = BOUNDS) -> list[int]:
    """Values in buckets, as the metrics count them."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return counts


@given(st.lists(st.floats(0.001, 20), min_size=1), st.floats(0.001, 1))
def test_a_percentile_lies_in_the_bucket_of_the_exact_one(values: list[float], share: float) -> None:
    """The oracle is the sorted list: the smallest value that at least this share does not exceed."""
    exact = sorted(values)[min(len(values), max(1, ceil(share * len(values)))) - 1]
    found = percentile(BOUNDS, counted(values), share)
    assert found is not None
    if found == inf:
        assert exact > BOUNDS[-1]
        return
    place = bisect_left(BOUNDS, exact)
    lower = (0.0, *BOUNDS)[place]
    assert place < len(BOUNDS)
    assert lower - 1e-9 <= found <= BOUNDS[place] + 1e-9


@given(st.lists(st.integers(0, 1000), min_size=5, max_size=5), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_larger_share_takes_no_less(counts: list[int], one: float, other: float) -> None:
    """p99 is never below p50."""
    found = [percentile(BOUNDS, counts, share) for share in sorted((one, other))]
    assert found == [None, None] or found[0] <= found[1]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0, 0], 0.5, 0.5),
        ([0, 10, 0, 0, 0], 0.5, 1.5),
        ([5, 0, 5, 0, 0], 0.5, 1.0),
        ([5, 0, 5, 0, 0], 0.9, 4.4),
        ([99, 0, 0, 1, 0], 0.99, 1.0),
        ([98, 0, 0, 2, 0], 0.99, 7.5),
        ([0, 0, 0, 0, 3], 0.5, inf),
        ([1, 0, 0, 0, 3], 1.0, inf),
    ],
)
def test_percentiles_by_hand(counts: list[int], share: float, expected: float | None) -> None:
    """Values of a bucket are spread evenly over it, and an empty bucket has none."""
    assert percentile(BOUNDS, counts, share) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "—"),
        (0.0004, "under 1 ms"),
        (0.0186, "19 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1.0 s"),
        (2.34, "2.3 s"),
        (inf, "over 60 s"),
    ],
)
def test_how_long_it_took_is_told(seconds: float | None, text: str) -> None:
    """In the unit that fits."""
    assert words.took(seconds) == text


# --- charts


def drawn(chart: charts.Chart) -> ElementTree.Element:
    """The drawing as a browser reads it."""
    template = _templates.from_string('{% from "charts.html" import draw %}{{ draw(chart, "x") }}')
    return ElementTree.fromstring(template.render(chart=chart))


COUNTED = st.builds(
    lambda requests, part: Counted(requests, int(requests * part)),
    st.integers(0, 10**7),
    st.floats(0, 1),
)


@given(st.lists(COUNTED, max_size=80))
def test_a_chart_is_xml_and_true_to_scale(minutes: list[Counted]) -> None:
    """Every bar stands on the ground, inside the drawing, as high as its share of the highest."""
    svg = drawn(charts.of_minutes(minutes))
    shown = minutes[-60:]
    [width, height] = [float(each) for each in svg.attrib["viewBox"].split()[2:]]
    bars = [bar for bar in svg if bar.attrib["class"] == "all"]
    busy = [(60 - len(shown) + place, each) for place, each in enumerate(shown) if each.requests]
    assert [float(bar.attrib["x"]) for bar in bars] == [place * 4 for place, _ in busy]
    most = max((each.requests for each in shown), default=0)
    for bar, (_, each) in zip(bars, busy, strict=True):
        tall = float(bar.attrib["height"])
        assert tall == pytest.approx(max(1.5, height * each.requests / most), abs=0.01)
        assert float(bar.attrib["y"]) + tall == pytest.approx(height, abs=0.02)
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width
    failed = [bar for bar in svg if bar.attrib["class"] == "failed"]
    assert len(failed) == sum(bool(each.failed) for each in shown)
    assert all(float(bar.attrib["height"]) <= height for bar in failed)
    assert not any("style" in bar.attrib for bar in svg.iter())


def test_a_chart_is_told_in_words() -> None:
    """For who does not see it, and for who wants the numbers."""
    minutes = [Counted(500, 499), *[Counted(10, 1)] * 59, Counted(40, 3)]
    svg = drawn(charts.of_minutes(minutes))
    assert svg.attrib["role"] == "img"
    text = "Requests of the last hour: 630, at most 40 in one minute; 62 failed"
    assert svg.attrib["aria-label"] == text
    steps = charts.of_steps([Counted(0, 0), Counted(7, 0)])
    assert steps.told == "Requests of the last hour: 7, at most 7 in 5 minutes; 0 failed"
    assert charts.of_minutes([]).told == "Requests of the last hour: 0, at most 0 in one minute; 0 failed"


# --- where the numbers come from


def request(tenant: str, took_s: float = 0.02, outcome: str = "answered") -> RequestFinished:
    """A request that ended."""
    fact = RequestFinished("r", tenant, status=200, outcome=outcome)
    fact.duration_ms = took_s * 1000
    return fact


async def minutes(trend: Trend, count: int) -> None:
    """So many minutes in which nothing comes."""
    for _ in range(count):
        await trend.sample()


async def test_an_hour_is_kept_by_the_minute_and_in_steps() -> None:
    """What is older is forgotten; a tenant's steps are of five minutes, with those that failed."""
    metrics = Metrics()
    trend = Trend(metrics.sources(), lambda: 0.0, fan_out())
    for _ in range(3):
        metrics(request("acme"))
    metrics(request("acme", outcome="needs-reauth"))
    metrics(request("globex", outcome="caller_left"))
    await trend.sample()
    assert trend.minutes() == (Counted(5, 1),)
    await minutes(trend, 3)
    metrics(request("acme"))
    assert trend.of(["acme"])["acme"].steps == (Counted(0, 0),) * 12
    await trend.sample()
    assert trend.minutes() == (Counted(5, 1), *[Counted(0, 0)] * 3, Counted(1, 0))
    found = trend.of(["acme", "globex", "initech"])
    assert found.keys() == {"acme", "globex"}
    assert found["acme"].steps == (*[Counted(0, 0)] * 11, Counted(5, 1))
    assert found["globex"].steps[-1] == Counted(1, 0)
    await minutes(trend, 55)
    assert found["acme"].steps[-1] == trend.of(["acme"])["acme"].steps[0] == Counted(5, 1)
    assert trend.minutes()[0] == Counted(5, 1)
    assert len(trend.minutes()) == 60
    await minutes(trend, 5)
    assert trend.of(["acme"])["acme"].steps == (Counted(0, 0),) * 12
    assert sum(each.requests for each in trend.minutes()) == 0


async def test_a_minute_that_cannot_be_read_is_told_and_the_next_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A defect costs the charts a minute, and not all that come."""
    monkeypatch.setattr(module, "MINUTE_S", 0.001)
    metrics, facts = Metrics(), list[Fact]()
    trend = Trend(metrics.sources(), lambda: 0.0, facts.append)
    sample, failing = trend.sample, iter([OSError()])

    async def failing_once() -> None:
        for error in failing:
            raise error
        await sample()

    monkeypatch.setattr(trend, "sample", failing_once)
    running = asyncio.create_task(trend.run())
    await until(trend.minutes)
    running.cancel()
    (crashed,) = facts
    assert isinstance(crashed, TaskCrashed)
    assert (crashed.task, crashed.error) == ("trend", "OSError")


async def test_percentiles_are_of_late() -> None:
    """Slow requests of this morning are not in them: they are of the last half hour to hour."""
    metrics = Metrics()
    trend = Trend(metrics.sources(), lambda: 0.0, fan_out())
    for _ in range(100):
        metrics(request("acme", 20.0))
    slow = trend.of(["acme"])["acme"]
    assert slow.p50_s == pytest.approx(20.0)
    await minutes(trend, 59)
    assert trend.of(["acme"])["acme"].p50_s == slow.p50_s
    await minutes(trend, 1)
    assert trend.of(["acme"])["acme"].p50_s is None
    for took_s in [0.02] * 98 + [0.3, 0.3]:
        metrics(request("acme", took_s))
    fast = trend.of(["acme"])["acme"]
    assert fast.p50_s is not None
    assert 0.01 < fast.p50_s <= 0.025
    assert fast.p99_s is not None
    assert 0.25 < fast.p99_s <= 0.5
    metrics(request("acme", 100.0))
    assert trend.of(["acme"])["acme"].p99_s == pytest.approx(fast.p99_s, rel=1)


async def test_counts_may_go_round() -> None:
    """After four thousand million requests of one tenant the differences are right still."""
    metrics = Metrics()
    trend = Trend(metrics.sources(), lambda: 0.0, fan_out())
    metrics(request("acme"))
    [tally] = metrics.sources()
    assert isinstance(tally, Tally)
    [first] = [first for key, first in tally.rows_after(0) if key == (SECONDS, "acme")]
    place = first + bisect_left(BUCKETS_S, 0.02)
    tally.set(place, 2.0**32 - 2)
    await minutes(trend, 60)
    for _ in range(5):
        metrics(request("acme"))
    await minutes(trend, 5)
    assert trend.of(["acme"])["acme"].steps[-1].requests == 5
    assert trend.minutes()[-5] == Counted(5, 0)
    await minutes(trend, 55)
    for _ in range(5):
        metrics(request("acme", 20.0))
    found = trend.of(["acme"])["acme"]
    assert found.p50_s == pytest.approx(20.0)


async def test_the_numbers_of_all_workers_are_added(tmp_path: Path) -> None:
    """Also those of a worker that comes later, or takes another's place."""
    paths = [tmp_path / str(number) for number in range(3)]
    ours = Metrics(paths[0])
    ours.add_up(lambda: paths)
    trend = Trend(ours.sources(), lambda: 0.0, fan_out())
    ours(request("acme"))
    await trend.sample()
    theirs = Metrics(paths[1])
    for _ in range(4):
        theirs(request("acme", outcome="overloaded"))
    theirs(request("globex"))
    await trend.sample()
    theirs.close()
    again = Metrics(paths[1])
    again(request("globex"))
    again(request("initech"))
    await minutes(trend, 3)
    assert trend.minutes() == (Counted(1, 0), Counted(5, 4), Counted(2, 0), Counted(0, 0), Counted(0, 0))
    found = trend.of(["acme", "globex", "initech"])
    assert [each.steps[-1] for each in found.values()] == [Counted(5, 4), Counted(2, 0), Counted(1, 0)]
    again.close()
    ours.close()


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), max_size=20))
def test_a_follower_sees_what_the_tally_has(steps: list[tuple[int, int]]) -> None:
    """However rows come, and whenever it looks."""
    import tempfile  # noqa: PLC0415 - hypothesis knows no folder for each example

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "numbers"
        tally, follower = Tally(path), Follower(path)
        for number, (width, looks) in enumerate(steps):
            first = tally.row(width, "x", str(number))
            tally.add(first, number)
            for _ in range(looks):
                follower.rows_after(0)
        assert follower.rows_after(0) == tally.rows_after(0)
        assert follower.rows_after(1) == tally.rows_after(1)
        used = sum(width for width, _ in steps)
        assert list(follower.numbers()) == list(tally.numbers())[:used]
        tally.close()


async def test_many_tenants_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand that were called: one small array each, and no turn of the loop is long."""
    metrics = Metrics()
    for number in range(10_000):
        metrics(request(f"tenant-{number}"))
    trend = Trend(metrics.sources(), lambda: 0.0, fan_out())
    turns: list[float] = []
    began = perf_counter()

    async def turn(_seconds: float) -> None:
        nonlocal began
        turns.append(perf_counter() - began)
        began = perf_counter()

    monkeypatch.setattr("proxy.telemetry.trend.asyncio.sleep", turn)
    await trend.sample()
    assert len(turns) == 100
    assert sorted(turns)[50] < 0.02
    kept: dict[str, array[Any]] = trend._tenants
    assert len(kept) == 10_000
    assert sum(each.__sizeof__() for each in kept.values()) / len(kept) < 400


# --- on the pages


async def test_the_overview_has_charts(proxy: Proxy) -> None:
    """Of all requests, and beside each tenant that was called, with percentiles."""
    operator = await logged_in(proxy)
    assert "begins here with the first whole minute" in shown_text(await operator.get("/"))
    for path in ("/acme/v2/employees", "/acme/v2/employees/../x", "/acme/v2/employees"):
        await proxy.get(path)
    await proxy.call("DELETE", "/acme/v1/installations/me")
    await minutes(proxy.app.trend, 5)
    page = await operator.get("/")
    text = shown_text(page)
    assert (
        "Requests of the last hour: 4, at most 4 in one minute; 2 failed (the lower part of a bar)." in text
    )
    assert page.body.count(b"<svg") == 2
    assert b'aria-label="Requests of the last hour: 3, at most 3 in 5 minutes; 1 failed"' in page.body
    assert " ms / " in text[text.index("acme connected") : text.index("globex connected")]
    assert "— —" in text[text.index("globex connected") :]
    shown = shown_text(await operator.get("/tenants/acme"))
    assert (
        "Requests of the last hour: 3, at most 3 in 5 minutes; 1 failed (the lower part of a bar). Of late"
        in shown
    )


async def test_the_api_has_the_numbers_of_the_charts(proxy: Proxy) -> None:
    """Tenants that were called, and minutes that are over."""
    for _ in range(3):
        await proxy.get("/acme/v2/employees")
    await minutes(proxy.app.trend, 5)
    shown = (await ask(proxy, "GET", "/api/v1/traffic", headers=BEARER)).json()
    assert shown["last_hour"] == [{"requests": 3, "failed": 0}] + [{"requests": 0, "failed": 0}] * 4
    [tenant] = shown["tenants"]
    assert (tenant["tenant"], tenant["requests"], tenant["failed"]) == ("acme", 3, 0)
    assert tenant["last_hour"][-1] == {"requests": 3, "failed": 0}
    assert len(tenant["last_hour"]) == 12
    assert 0 < tenant["p50_ms"] <= tenant["p99_ms"]
