"""Facts become log lines and metrics; a sink that fails costs nobody a request."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.facts import (
    GrantNeedsReauth,
    LinkOpened,
    NotifyFailed,
    NotifyHeldBack,
    NotifySent,
    Refreshed,
    RefreshFailed,
    RequestCrashed,
    RequestFinished,
    TaskCrashed,
)
from proxy.model import Outcome
from proxy.telemetry import families, fan_out
from proxy.telemetry.logs import LogSink
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.tally import Tally, read

FINISHED = RequestFinished(
    request_id="r-1",
    tenant="acme",
    method="GET",
    path="/acme/v2/employees",
    status=200,
    outcome="answered",
    upstream_status=200,
    duration_ms=12.5,
    upstream_ms=10.0,
    retried=True,
    generation=3,
    bytes_in=0,
    bytes_out=17,
    caller="10.0.0.1",
)


def samples(metrics: Metrics) -> dict[str, float]:
    """All samples of a scrape by their name with labels."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_a_fact_is_one_json_object_on_one_line() -> None:
    """The line begins with timestamp, level and event, and holds the fact's fields by name."""
    stream = io.BytesIO()
    LogSink(stream, log_format="json", level="info")(FINISHED)
    (text,) = stream.getvalue().splitlines()
    line = json.loads(text)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None
    assert (line["level"], line["event"]) == ("info", "request.finished")
    assert {key: line[key] for key in FINISHED.__slots__} == {
        key: getattr(FINISHED, key) for key in FINISHED.__slots__
    }


def test_a_fact_is_readable_on_a_console() -> None:
    """The console format shows level, event and fields on one line, without colours in a file."""
    stream = io.BytesIO()
    LogSink(stream, log_format="console", level="info")(GrantNeedsReauth("acme", 3, "invalid_grant"))
    (line,) = stream.getvalue().decode().splitlines()
    assert "grant.needs_reauth" in line
    assert "error" in line
    assert "tenant=acme" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(("level", "lines"), [("info", 2), ("warning", 1), ("error", 1)])
def test_less_important_lines_are_left_out(level: Literal["info", "warning", "error"], lines: int) -> None:
    """log.level leaves out what is less important than it says."""
    stream = io.BytesIO()
    sink = LogSink(stream, log_format="json", level=level)
    sink(LinkOpened("acme", "AAAA-AAAA"))
    sink(GrantNeedsReauth("acme", 3, "invalid_grant"))
    assert len(stream.getvalue().splitlines()) == lines


def test_a_log_that_cannot_be_written_costs_no_request() -> None:
    """A closed or full log is counted and never raised."""

    class Full(io.BytesIO):
        def write(self, _data: object) -> int:
            raise OSError(28, "No space left on device")

    full = LogSink(Full(), log_format="json", level="info")
    closed_stream = io.BytesIO()
    closed = LogSink(closed_stream, log_format="json", level="info")
    closed_stream.close()
    emit = fan_out(full, closed)
    emit(FINISHED)
    emit(FINISHED)
    assert (full.lost, closed.lost) == (2, 2)


def test_requests_are_counted_by_tenant_and_outcome() -> None:
    """Counter, histogram and retry counter follow request.finished; no tenant is the empty label."""
    metrics = Metrics()
    metrics(FINISHED)
    metrics(FINISHED)
    found = samples(metrics)
    assert found["pleo_proxy_requests_total{outcome=answered,status_class=2xx,tenant=acme}"] == 2
    assert found["pleo_proxy_request_duration_seconds_count{tenant=acme}"] == 2
    assert found["pleo_proxy_request_duration_seconds_sum{tenant=acme}"] == pytest.approx(0.025)
    assert found["pleo_proxy_upstream_duration_seconds_sum{}"] == pytest.approx(0.02)
    assert found["pleo_proxy_requests_retried_total{}"] == 2


def test_notifications_are_counted_by_channel_and_by_what_became_of_them() -> None:
    """Each ends once: delivered, given up after its last try, or dropped untried; failed tries are apart."""
    metrics = Metrics()
    before = samples(metrics)
    metrics(NotifyFailed("mail", "needs_reauth", "1", "timeout", 1, 5.0))
    metrics(NotifyFailed("mail", "needs_reauth", "1", "timeout", 2, 30.0))
    metrics(NotifySent("mail", "needs_reauth", "1", 3))
    metrics(NotifyFailed("webhook", "needs_reauth", "2", "status_500", 7, None))
    metrics(NotifyFailed("webhook", "needs_reauth", "3", "too_many", 0, None))
    metrics(NotifyHeldBack("store_lost", None))
    after = samples(metrics)
    counted = {key.removeprefix("pleo_proxy_"): value - before[key] for key, value in after.items()}
    assert {key: value for key, value in counted.items() if key.startswith("notif") and value} == {
        "notification_failed_tries_total{channel=mail}": 2,
        "notification_failed_tries_total{channel=webhook}": 1,
        "notifications_total{channel=mail,outcome=delivered}": 1,
        "notifications_total{channel=webhook,outcome=given_up}": 1,
        "notifications_total{channel=webhook,outcome=dropped}": 1,
        "notifications_held_back_total{}": 1,
    }
    assert before["pleo_proxy_notifications_total{channel=command,outcome=delivered}"] == 0


def test_the_first_defect_is_an_increase() -> None:
    """Defects count from 0 on, met by requests and by tasks, so that an alert sees the first."""
    metrics = Metrics()
    before = samples(metrics)
    metrics(RequestCrashed("r-1", "RuntimeError", "proxy/x.py:1"))
    metrics(TaskCrashed("watch", "RuntimeError", "proxy/x.py:1"))
    metrics(TaskCrashed("watch", "RuntimeError", "proxy/x.py:1"))
    after = samples(metrics)
    for met_by, count in (("request", 1), ("task", 2)):
        name = f"pleo_proxy_defects_total{{met_by={met_by}}}"
        assert (before[name], after[name]) == (0, count)


def test_answers_of_pleo_are_counted_by_class_and_throttling_by_status() -> None:
    """Every class is there from the start; a request without an answer of Pleo counts in none."""
    metrics = Metrics()
    for status in (200, 204, 302, 429, 429, 404, 503, 500, 600):
        metrics(replace(FINISHED, upstream_status=status))
    metrics(replace(FINISHED, upstream_status=None, outcome="upstream-unreachable", status=502))
    found = samples(metrics)
    counted = {key: value for key, value in found.items() if key.startswith("pleo_proxy_upstream_responses")}
    assert counted == {
        "pleo_proxy_upstream_responses_total{status_class=2xx}": 2,
        "pleo_proxy_upstream_responses_total{status_class=3xx}": 1,
        "pleo_proxy_upstream_responses_total{status_class=4xx}": 3,
        "pleo_proxy_upstream_responses_total{status_class=5xx}": 2,
        "pleo_proxy_upstream_responses_total{status_class=other}": 1,
    }
    assert found["pleo_proxy_upstream_throttled_total{status=429}"] == 2
    assert found["pleo_proxy_upstream_throttled_total{status=503}"] == 1
    assert samples(Metrics())["pleo_proxy_upstream_throttled_total{status=503}"] == 0


def test_refreshes_are_counted_by_outcome() -> None:
    """Each outcome has a series from the start, so that a rate over it is never absent."""
    metrics = Metrics()
    metrics(Refreshed("acme", 2, "expiring", 900.0, 30.0, 1, "abc"))
    metrics(RefreshFailed("acme", 2, "rejected", Outcome.UNAVAILABLE, "http_503", 30.0, 1.0))
    found = samples(metrics)
    assert {key: value for key, value in found.items() if key.startswith("pleo_proxy_refreshes")} == {
        f"pleo_proxy_refreshes_total{{outcome={outcome},reason={reason}}}": float(
            (outcome, reason) in {("granted", "expiring"), ("unavailable", "rejected")}
        )
        for outcome in Outcome
        for reason in ("expiring", "expired", "rejected", "keep_alive", "asked", "restored")
    }


def test_gauges_are_read_at_the_scrape() -> None:
    """Grants by state and what is under way are as of now, with the build's version beside them."""
    metrics = Metrics()
    read: dict[tuple[str, ...], float] = {
        (families.GRANTS, "connected"): 1.0,
        (families.UNDER_WAY, "requests"): 4.0,
    }
    metrics.watch(lambda: read)
    assert samples(metrics)["pleo_proxy_grants{state=connected}"] == 1
    read[families.GRANTS, "connected"] = 5.0
    found = samples(metrics)
    assert found["pleo_proxy_grants{state=connected}"] == 5
    assert found["pleo_proxy_under_way{kind=requests}"] == 4
    assert any(name.startswith("pleo_proxy_build_info") for name in found)


def test_what_never_ends_has_no_gauge() -> None:
    """Without a token in use there is no time until one expires, rather than a number that means nothing."""
    metrics = Metrics()
    read: dict[tuple[str, ...], float] = {(families.ACCESS_LEFT,): math.inf}
    metrics.watch(lambda: read)
    assert "pleo_proxy_access_token_left_seconds{}" not in samples(metrics)
    read[families.ACCESS_LEFT,] = -3.0
    assert samples(metrics)["pleo_proxy_access_token_left_seconds{}"] == -3


def test_gauges_of_several_processes_make_one(tmp_path: Path) -> None:
    """What is under way adds up, of states the worst counts, and what follows the store is not doubled."""
    first, second = Metrics(tmp_path / "0"), Metrics(tmp_path / "1")
    first.add_up(lambda: [tmp_path / "0", tmp_path / "1"])
    ours: dict[tuple[str, ...], float] = {
        (families.GRANTS, "connected"): 2.0,
        (families.REPLAY, "disk"): 10.0,
        (families.STORE_UP,): 1.0,
        (families.ACCESS_LEFT,): math.inf,
    }
    first.watch(lambda: ours)
    first.note(ours)
    second.note({**ours, (families.STORE_UP,): 0.0, (families.ACCESS_LEFT,): 60.0})
    found = samples(first)
    assert found["pleo_proxy_grants{state=connected}"] == 2
    assert found["pleo_proxy_replay_bytes{place=disk}"] == 20
    assert found["pleo_proxy_store_up{}"] == 0
    assert found["pleo_proxy_access_token_left_seconds{}"] == 60
    first.close()
    second.close()


def test_what_parts_count_by_themselves_goes_on_in_a_successor(tmp_path: Path) -> None:
    """A total that begins at 0 again in a new process does not make the counter fall."""
    path = tmp_path / "0"
    first = Metrics(path)
    first.follow({families.CONNECTS: 3})
    first.follow({families.CONNECTS: 5})
    first.close()
    successor = Metrics(path)
    successor.follow({families.CONNECTS: 0})
    successor.follow({families.CONNECTS: 2})
    assert samples(successor)["pleo_proxy_upstream_connections_opened_total{}"] == 7
    successor.close()


def test_our_own_time_is_what_is_left_of_requests_that_were_sent_once() -> None:
    """Pleo's time is taken off; where it was asked twice, or not at all, the rest tells nothing of ours."""
    metrics = Metrics()
    metrics(replace(FINISHED, duration_ms=12.0, upstream_ms=10.0, retried=False))
    metrics(replace(FINISHED, duration_ms=12.0, upstream_ms=10.0, retried=True))
    metrics(replace(FINISHED, upstream_ms=None, retried=False))
    found = samples(metrics)
    assert found["pleo_proxy_own_duration_seconds_count{}"] == 1
    assert found["pleo_proxy_own_duration_seconds_sum{}"] == pytest.approx(0.002)
    assert found["pleo_proxy_own_duration_seconds_bucket{le=0.001}"] == 0
    assert found["pleo_proxy_own_duration_seconds_bucket{le=0.005}"] == 1


@pytest.mark.parametrize(
    ("status", "status_class"), [(200, "2xx"), (304, "3xx"), (499, "4xx"), (502, "5xx"), (777, "other")]
)
def test_requests_are_counted_by_the_class_of_what_callers_got(status: int, status_class: str) -> None:
    """The status is the caller's, so that a refusal of the proxy's own has a class as well."""
    metrics = Metrics()
    metrics(replace(FINISHED, status=status, upstream_status=None))
    name = f"pleo_proxy_requests_total{{outcome=answered,status_class={status_class},tenant=acme}}"
    assert samples(metrics)[name] == 1


def test_several_processes_metrics_add_up(tmp_path: Path) -> None:
    """A scrape sums the files of all workers, and a worker that is replaced goes on where it ended."""
    first, second = Metrics(tmp_path / "0"), Metrics(tmp_path / "1")
    first.add_up(lambda: [tmp_path / "0", tmp_path / "1"])
    first(FINISHED)
    second(FINISHED)
    second(replace(FINISHED, tenant="globex", outcome="caller_left"))
    name = "pleo_proxy_requests_total{outcome=answered,status_class=2xx,tenant=acme}"
    assert samples(first)[name] == 2
    second.close()
    replaced = Metrics(tmp_path / "1")
    replaced(FINISHED)
    found = samples(first)
    assert found[name] == 3
    assert found["pleo_proxy_requests_total{outcome=caller_left,status_class=2xx,tenant=globex}"] == 1
    assert found["pleo_proxy_request_duration_seconds_count{tenant=acme}"] == 3
    assert found["pleo_proxy_request_duration_seconds_bucket{le=0.025,tenant=acme}"] == 3
    assert found["pleo_proxy_request_duration_seconds_bucket{le=0.01,tenant=acme}"] == 0
    first.close()
    replaced.close()


@pytest.mark.parametrize("in_file", [False, True], ids=["in-memory", "in-a-file"])
def test_a_tally_grows_and_keeps_its_numbers(tmp_path: Path, in_file: bool) -> None:
    """Thousands of series fit, in memory and in a file that another process reads."""
    path = tmp_path / "tally" if in_file else None
    tally = Tally(path)
    for number in range(5000):
        tally.add(tally.index("series", str(number)), number)
    tally.add(tally.index("series", "7"), 0.5)
    found = dict(tally.items())
    assert len(found) == 5000
    assert (found["series", "7"], found["series", "4999"]) == (7.5, 4999)
    if path is not None:
        assert dict(read(path)) == found
    tally.close()
