"""Traces of a running proxy as a real collector gets them, and what becomes of them where it does not."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest

from proxy import wiring
from proxy.errors import ConfigurationError
from proxy.facts import (
    Fact,
    LineWithheld,
    Refreshed,
    RefreshFailed,
    RequestFinished,
    RequestTraced,
    TaskCrashed,
    TracesLost,
    TracesTaken,
)
from proxy.model import Outcome, Secret
from proxy.sandbox import ApiFault, Sandbox
from proxy.telemetry.canary import Canary
from proxy.tracing import Collector, Exporter, RefusedError, exporter, parse_headers
from tests.authority import untrusted_server
from tests.command import Cli, serving, write_config
from tests.harness import Proxy, free_port, running_proxy, settings_for, until
from tests.otlp import Got, Receiver, collector, decoded

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
REQUEST = RequestFinished(
    "r-1", "acme", "GET", "/acme/v1/x", 200, "answered", 200, 5.0, 4.0, False, 1, 0, 2, "127.0.0.1", TRACE
)
TRACED = RequestTraced(REQUEST, SPAN, None, 1.8e9, "http", ())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not make up a batch is sent at once, and tries follow each other quickly."""
    monkeypatch.setattr(exporter, "EVERY_S", 0.05)
    monkeypatch.setattr(exporter, "PAUSES_S", (0.02, 0.02))


def to(receiver: Receiver, **settings: Any) -> dict[str, Any]:
    return {"endpoint": receiver.url, "sample_ratio": 1, **settings}


async def connected(proxy: Proxy, *names: str) -> None:
    for name in names:
        await proxy.add_tenant(name)
        await proxy.connect(name)


def one(spans: list[Got]) -> Got:
    (span,) = spans
    return span


# --- what is in a trace


async def test_a_request_is_a_span_and_so_is_its_sending(pleo: Sandbox, tmp_path: Path) -> None:
    """The server's span has what the log has, the client's is its child, and Pleo hears of the latter."""
    async with collector() as receiver:
        async with running_proxy(pleo, tmp_path, tracing=to(receiver, service_name="our-proxy")) as proxy:
            await connected(proxy, "acme")
            await proxy.get("/acme/v2/employees?company_name=private", headers={"X-Request-Id": "the-id"})
            await until(lambda: receiver.named("server"))
        server, client = (
            one(receiver.named("server")),
            one(receiver.named("client", **{"url.full": f"{pleo.api_url}/v2/employees"})),
        )
        line = proxy.lines("request.finished")[-1]
    assert server.name == client.name == "GET"
    assert server.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/acme/v2/employees",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "pleo_proxy.tenant": "acme",
        "pleo_proxy.request_id": "the-id",
        "pleo_proxy.outcome": "answered",
    }
    host, _, port = pleo.api_url.removeprefix("http://").partition(":")
    assert client.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": host,
        "server.port": int(port),
        "url.full": f"{pleo.api_url}/v2/employees",
    }
    assert (server.trace_id, server.parent_id) == (line["trace_id"], "")
    assert (client.trace_id, client.parent_id) == (server.trace_id, server.span_id)
    assert server.start_ns <= client.start_ns <= client.end_ns <= server.end_ns
    assert (server.end_ns - server.start_ns) / 1e6 == pytest.approx(line["duration_ms"], abs=0.01)
    assert abs(server.end_ns / 1e9 - pleo.now()) < 10
    assert (server.is_error, client.is_error, server.links) == (False, False, ())
    assert server.resource["service.name"] == "our-proxy"
    assert re.fullmatch(r"[0-9a-f]+/0", server.resource["service.instance.id"])


async def test_a_callers_trace_goes_on_through_the_proxy(pleo: Sandbox, tmp_path: Path) -> None:
    """The caller's span is the parent of ours, ours that of Pleo's, and ``tracestate`` is as it came."""
    async with collector() as receiver:
        async with running_proxy(pleo, tmp_path, tracing=to(receiver, sample_ratio=0)) as proxy:
            await connected(proxy, "acme")
            await proxy.get("/acme/v2/employees", headers={"traceparent": SAMPLED, "tracestate": "a=1,b=2"})
            sent = pleo.api_requests[-1]
            await until(lambda: receiver.named("server"))
        server, client = (
            one(receiver.named("server")),
            one(receiver.named("client", **{"http.request.method": "GET"})),
        )
    assert (server.trace_id, server.parent_id) == (TRACE, SPAN)
    assert sent.header("traceparent") == [f"00-{TRACE}-{client.span_id}-01"]
    assert sent.header("tracestate") == ["a=1,b=2"]
    assert proxy.lines("request.finished")[-1]["trace_id"] == TRACE


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param({"traceparent": SAMPLED[:-1] + "0", "tracestate": "a=1"}, True, id="not-sampled"),
        pytest.param({"traceparent": "00-nonsense-01", "tracestate": "a=1"}, False, id="invalid"),
        pytest.param({"tracestate": "a=1"}, False, id="a-state-of-nothing"),
        pytest.param({}, False, id="none"),
    ],
)
async def test_what_is_not_recorded_is_told_to_pleo_as_such(
    pleo: Sandbox, tmp_path: Path, given: dict[str, str], kept: bool
) -> None:
    """A trace that its caller does not record goes on as it came; one that begins here says the same."""
    async with (
        collector() as receiver,
        running_proxy(pleo, tmp_path, tracing=to(receiver, sample_ratio=0)) as proxy,
    ):
        await connected(proxy, "acme")
        await proxy.get("/acme/v2/employees", headers=given)
        sent = pleo.api_requests[-1]
        trace_id = proxy.lines("request.finished")[-1]["trace_id"]
    (parent,) = sent.header("traceparent")
    if kept:
        assert (parent, sent.header("tracestate")) == (given["traceparent"], ["a=1"])
        assert trace_id == TRACE
    else:
        assert re.fullmatch(rf"00-{trace_id}-[0-9a-f]{{16}}-00", parent)
        assert trace_id != TRACE
        assert sent.header("tracestate") == []
    assert receiver.named("server") == []
    assert proxy.lines("request.traced") == []


async def test_a_repeat_after_a_401_is_a_second_span_and_the_refresh_is_linked(
    pleo: Sandbox, tmp_path: Path
) -> None:
    """Both times that the request was sent are there, each with what came, and the refresh between them."""
    async with collector() as receiver:
        async with running_proxy(pleo, tmp_path, tracing=to(receiver)) as proxy:
            await connected(proxy, "acme")
            pleo.revoke_access("acme")
            await proxy.get("/acme/v2/employees")
            await proxy.get("/acme/v2/employees")
            await until(lambda: len(receiver.named("server")) == 2)
        (first, second), refresh = (
            receiver.named("server"),
            one(receiver.named("client", **{"http.request.method": "POST"})),
        )
        sends = [span for span in receiver.named("client") if span.parent_id == first.span_id]
    assert [span.attributes["http.response.status_code"] for span in sends] == [401, 200]
    assert [span.attributes.get("http.request.resend_count") for span in sends] == [None, 1]
    assert [(span.is_error, span.attributes.get("error.type")) for span in sends] == [
        (True, "401"),
        (False, None),
    ]
    assert sends[0].end_ns <= sends[1].start_ns
    assert first.start_ns <= refresh.end_ns <= first.end_ns
    told = [request.header("traceparent")[0].split("-")[2] for request in list(pleo.api_requests)[-3:-1]]
    assert told == [span.span_id for span in sends]
    assert refresh.name == "token refresh"
    assert refresh.attributes == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": int(pleo.token_url.split(":")[2].partition("/")[0]),
        "pleo_proxy.tenant": "acme",
        "pleo_proxy.generation": 2,
        "pleo_proxy.refresh.reason": "rejected",
        "pleo_proxy.refresh.outcome": "granted",
    }
    assert (refresh.parent_id, refresh.is_error) == ("", False)
    assert first.links == ((refresh.trace_id, refresh.span_id),)
    assert second.links == (), "it did not wait for it"


async def test_what_went_wrong_is_an_error_with_the_logs_word(pleo: Sandbox, tmp_path: Path) -> None:
    """A refusal for an outage, an answer that broke off and a failed refresh are errors; a 404 is none."""
    async with collector() as receiver:
        async with running_proxy(pleo, tmp_path, tracing=to(receiver)) as proxy:
            await connected(proxy, "acme", "globex")
            pleo.api_faults.append(ApiFault("drop", "^/v2/employees"))
            assert (await proxy.call("POST", "/acme/v2/employees")).status == 502
            pleo.api_faults.append(ApiFault("status", "^/v2/tags", status=500))
            assert (await proxy.get("/acme/v2/tags")).status == 500
            assert (await proxy.get("/nobody/v2/employees")).status == 404
            pleo.revoke("globex")
            assert (await proxy.get("/globex/v2/employees")).status == 503
            await until(lambda: len(receiver.named("server")) == 4)
        dropped, failed, unknown, dead = receiver.named("server")
        sends = {span.parent_id: span for span in receiver.named("client") if span.parent_id}
        refresh = one([span for span in receiver.named("client") if not span.parent_id])
    assert [
        (each.is_error, each.attributes.get("error.type")) for each in (dropped, failed, unknown, dead)
    ] == [
        (True, "upstream-unreachable"),
        (True, "500"),
        (False, None),
        (True, "needs-reauth"),
    ]
    assert sends[dropped.span_id].attributes["error.type"] == "upstream-unreachable"
    assert "http.response.status_code" not in sends[dropped.span_id].attributes
    assert sends[failed.span_id].attributes["error.type"] == "500"
    assert (unknown.attributes["pleo_proxy.outcome"], unknown.attributes.get("pleo_proxy.tenant")) == (
        "tenant-unknown",
        None,
    )
    assert (refresh.is_error, refresh.attributes["error.type"]) == (True, "refused")
    assert dead.links == ((refresh.trace_id, refresh.span_id),)


# --- what is not


async def test_no_span_holds_a_secret(pleo: Sandbox, tmp_path: Path) -> None:
    """Neither tokens nor what callers send in header fields, queries and bodies reach the collector."""
    secrets = ["a-legacy-key-of-the-caller", "a-cookie", "private-in-the-query", "private-in-the-body"]
    async with collector() as receiver:
        headers = "authorization=Bearer%20the-collectors-token,x-tenant=ours"
        async with running_proxy(pleo, tmp_path, tracing=to(receiver, headers=headers)) as proxy:
            await connected(proxy, "acme")
            pleo.revoke_access("acme")
            await proxy.call(
                "POST",
                f"/acme/v2/employees?q={secrets[2]}",
                headers={"Authorization": f"Bearer {secrets[0]}", "Cookie": secrets[1]},
                data=secrets[3],
            )
            await until(lambda: receiver.named("server"))
            live = proxy.app.tokens.held.live["acme"]
            secrets += [live.access.value.reveal(), live.refresh.reveal(), "the-collectors-token"]
        log = proxy.log.getvalue()
        asked = receiver.asked[0]
    assert (asked["Authorization"], asked["X-Tenant"]) == ("Bearer the-collectors-token", "ours")
    assert [each for each in secrets for body in [*receiver.bodies, log] if each.encode() in body] == []


async def test_a_span_that_would_carry_a_secret_is_withheld(pleo: Sandbox, tmp_path: Path) -> None:
    """The canary looks at what becomes spans as at lines of the log, and knows the collector's token."""
    async with collector() as receiver:
        # Encoded throughout, so that it is known by what it stands for alone.
        headers = "authorization=" + "".join(f"%{ord(each):02x}" for each in "Zq7Kd0aPtheCollectorsToken")
        async with running_proxy(pleo, tmp_path, tracing=to(receiver, headers=headers)) as proxy:
            await connected(proxy, "acme")
            token = proxy.app.tokens.held.live["acme"].access.value.reveal()
            for leak in (token, "Zq7Kd0aPtheCollectorsToken"):
                proxy.app._emit(replace(TRACED, request=replace(REQUEST, path=f"/{leak}")))
            await proxy.get("/acme/v2/employees")
            await until(lambda: receiver.named("server"))
            # Once from the log, which shows it at this level too, and once from what makes spans.
            proxy.withheld = [LineWithheld("request.traced")] * 4
        assert len(receiver.named("server")) == 1
    assert token.encode() not in b"".join(receiver.bodies)


# --- a collector that does not take them


class Rig:
    """An exporter, and what it reports."""

    def __init__(self, url: str, *, timeout_s: float = 5.0, encode: Any = None) -> None:
        self.facts: list[Fact] = []
        self.encode = encode or (lambda told: b"x" * len(told))
        self.exporter = Exporter(Collector(url, {}, timeout_s), lambda: 1.8e9, lambda _: False)
        self.exporter.begin(self, self.facts.append)

    def told(self, kind: type[Fact]) -> list[Fact]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 400, 307])
async def test_a_collector_that_refuses_is_told_of_once(status: int) -> None:
    """What may be sent again is; what may not is lost and counted; it is said once, and so is the end."""
    again = status in (429, 502, 503)
    async with collector() as receiver:
        receiver.statuses = [status, status]
        rig = Rig(receiver.url)
        for _ in range(4):
            rig.exporter(TRACED)
            count = len(receiver.asked)
            await until(lambda: len(receiver.asked) > count and not rig.exporter.waiting)  # noqa: B023
            await until(lambda: rig.exporter.exported + rig.exporter.dropped > 0)
        await until(lambda: rig.exporter.exported + rig.exporter.dropped == 4)
        await rig.exporter.close()
    assert (rig.exporter.exported, rig.exporter.dropped) == ((4, 0) if again else (2, 2))
    assert rig.told(TracesLost) == [TracesLost(f"status_{status}")]
    assert rig.told(TaskCrashed) == []
    (recovered,) = rig.told(TracesTaken)
    assert isinstance(recovered, TracesTaken)
    assert recovered.lost == (0 if again else 2)


async def test_a_collector_that_is_down_or_slow_costs_no_request(pleo: Sandbox, tmp_path: Path) -> None:
    """Requests are answered as ever while nobody takes spans, and a stop waits for a bounded time."""
    async with collector() as receiver:
        receiver.hangs = True
        async with running_proxy(pleo, tmp_path, tracing=to(receiver, timeout_s=0.2)) as proxy:
            await connected(proxy, "acme")
            answers = [await proxy.get("/acme/v2/employees?limit=1") for _ in range(20)]
            assert {answer.status for answer in answers} == {200}
            assert max(line["duration_ms"] for line in proxy.lines("request.finished")[-20:]) < 150
            failed = await proxy.next_fact(TracesLost) if not proxy.lines("tracing.failed") else None
            assert failed in (None, TracesLost("timeout"))
            began = monotonic()
        assert monotonic() - began < exporter.LAST_S + 3
    assert [line["error"] for line in proxy.lines("tracing.failed")] == ["timeout"]


async def test_nobody_listening_is_told_once_and_again_when_it_works() -> None:
    """A collector that comes up gets what still waits, and the log says for how long it was away."""
    port = free_port()
    rig = Rig(f"http://127.0.0.1:{port}/v1/traces")
    rig.exporter(TRACED)
    await until(lambda: rig.told(TracesLost))
    assert rig.told(TracesLost) == [TracesLost("unreachable")]
    async with collector(port) as receiver:
        await until(lambda: rig.exporter.dropped or rig.exporter.exported)
        rig.exporter(TRACED)
        await until(lambda: rig.told(TracesTaken))
        await rig.exporter.close()
        assert receiver.bodies
    assert rig.exporter.exported + rig.exporter.dropped == 2
    assert len(rig.facts) == 2


async def test_the_queue_is_bounded_and_what_does_not_fit_is_counted() -> None:
    """Beyond its bound new facts are dropped, and so is what no last try could send at the stop."""
    async with collector() as receiver:
        receiver.hangs = True
        rig = Rig(receiver.url, timeout_s=60)
        rig.exporter(TRACED)
        await until(lambda: receiver.asked)
        for _ in range(exporter.MOST_WAITING + 7):
            rig.exporter(TRACED)
        assert (rig.exporter.waiting, rig.exporter.dropped) == (exporter.MOST_WAITING, 7)
        exporter_close = asyncio.create_task(rig.exporter.close())
        await asyncio.wait_for(exporter_close, exporter.LAST_S + 5)
    assert rig.exporter.dropped == exporter.MOST_WAITING + 8
    assert rig.exporter.waiting == 0


async def test_a_stop_sends_what_waits(
    pleo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had not made up a batch is with the collector when the proxy has stopped."""
    monkeypatch.setattr(exporter, "EVERY_S", 3600.0)
    async with collector() as receiver:
        async with running_proxy(pleo, tmp_path, tracing=to(receiver)) as proxy:
            await connected(proxy, "acme")
            await proxy.get("/acme/v2/employees")
            assert receiver.spans == []
        assert len(receiver.named("server")) == 1
    assert proxy.lines()[-1]["event"] == "proxy.stopped"


async def test_what_befalls_the_last_of_it_is_told_before_the_end(
    pleo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that is found to be down at the stop is in the log, whose last line is that of the stop."""
    monkeypatch.setattr(exporter, "EVERY_S", 3600.0)
    tracing = {"endpoint": f"http://127.0.0.1:{free_port()}/v1/traces", "sample_ratio": 1}
    async with running_proxy(pleo, tmp_path, tracing=tracing) as proxy:
        await connected(proxy, "acme")
        await proxy.get("/acme/v2/employees")
        assert proxy.lines("tracing.failed") == []
    assert [line["error"] for line in proxy.lines("tracing.failed")] == ["unreachable"]
    assert proxy.lines()[-1]["event"] == "proxy.stopped"


async def test_much_is_sent_in_batches_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full batch goes at once, and none is larger than its bound."""
    monkeypatch.setattr(exporter, "EVERY_S", 3600.0)
    async with collector() as receiver:
        rig = Rig(receiver.url)
        for _ in range(5):
            await asyncio.sleep(0)  # it waits for what is to come
        for _ in range(2 * exporter.BATCH):
            rig.exporter(TRACED)
        await until(lambda: rig.exporter.exported == 2 * exporter.BATCH)
        assert [len(body) for body in receiver.bodies] == [exporter.BATCH] * 2
        receiver.bodies.clear()
        await rig.exporter.close()


async def test_a_pause_that_the_collector_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry-After is a lower bound of the pause; the longest of the usual ones is the upper."""
    monkeypatch.setattr(exporter, "PAUSES_S", (0.0, 0.4))
    async with collector() as receiver:
        receiver.statuses, receiver.headers = [503], {"Retry-After": "9999"}
        rig = Rig(receiver.url)
        began = monotonic()
        rig.exporter(TRACED)
        await until(lambda: rig.exporter.exported)
        assert 0.4 <= monotonic() - began < 5
        await rig.exporter.close()


async def test_a_defect_costs_one_batch() -> None:
    """What cannot be encoded is lost and counted; the log says where it was; others go on."""
    failures = iter([RuntimeError("with a text that is shown nowhere")])

    def encode(told: Any) -> bytes:
        for failure in failures:
            raise failure
        return b"x"

    async with collector() as receiver:
        rig = Rig(receiver.url, encode=encode)
        rig.exporter(TRACED)
        await until(lambda: rig.exporter.dropped == 1)
        rig.exporter(TRACED)
        await until(lambda: rig.exporter.exported == 1)
        await rig.exporter.close()
    (crash,) = rig.told(TaskCrashed)
    assert isinstance(crash, TaskCrashed)
    assert (crash.task, crash.error) == ("tracing", "RuntimeError")


async def test_only_what_becomes_spans_is_taken() -> None:
    """Requests that are not recorded, and all other facts, cost the queue nothing."""
    rig = Rig("http://127.0.0.1:9/v1/traces")
    rig.exporter(REQUEST)
    rig.exporter(TracesLost("timeout"))
    assert rig.exporter.waiting == 0
    rig.exporter(Refreshed("acme", 2, "expiring", 900, 1, 0, "00"))
    rig.exporter(RefreshFailed("acme", 2, "expiring", Outcome.UNKNOWN, "timeout", 1, None))
    assert rig.exporter.waiting == 2
    await rig.exporter.close()


async def test_a_collector_whose_certificate_is_wrong_gets_nothing(tmp_path: Path) -> None:
    """Spans are not sent under a certificate that nobody trusts."""
    async with untrusted_server(tmp_path) as (port, seen):
        taker = Collector(f"https://localhost:{port}/v1/traces", {}, 5.0)
        with pytest.raises(RefusedError, match=r"^tls_failed$"):
            await taker.take(b"x")
        await taker.close()
    assert seen == []


# --- settings


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("api-key=abc", {"api-key": "abc"}),
        ("authorization=Basic%20YTpi,x-a = b ", {"authorization": "Basic YTpi", "x-a": "b"}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_headers_are_read_as_opentelemetry_writes_them(text: str, headers: dict[str, str]) -> None:
    """Pairs with commas between, values percent-encoded."""
    assert {name: value.reveal() for name, value in parse_headers(Secret(text)).items()} == headers


@pytest.mark.parametrize("text", ["", "abc", "a=", "=b", "a b=c", "a=b,", "a=%0d%0ax:y", "a=%C3%A9", "a=%20"])
def test_headers_that_are_none_are_refused(text: str) -> None:
    """What is no pair, or no value of a field (a line break above all), is a mistake."""
    with pytest.raises(ValueError, match="not name=value"):
        parse_headers(Secret(text))


async def test_wrong_headers_are_a_mistake_of_the_settings(pleo: Sandbox, tmp_path: Path) -> None:
    """The message names the setting and the form, and not what is there."""
    tracing = {"endpoint": "http://127.0.0.1:4318/v1/traces", "headers": "a-secret-that-is-no-pair"}
    settings = settings_for(pleo, tmp_path, tracing=tracing)
    with pytest.raises(ConfigurationError) as caught:
        wiring.exporter(settings, {}, lambda: 0.0, Canary())
    assert "tracing.headers: must be name=value,name=value" in str(caught.value)
    assert "a-secret" not in str(caught.value)


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry is not installed."""
    monkeypatch.delitem(sys.modules, "proxy.tracing.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)


@pytest.mark.usefixtures("without_the_extra")
@pytest.mark.parametrize("command", ["check", "serve"])
def test_without_the_extra_the_remedy_is_named(command: str, tmp_path: Path) -> None:
    """Settings that need what is not installed are one clear line, at a check and at a start."""
    config = write_config(tmp_path, tracing={"endpoint": "http://127.0.0.1:4318/v1/traces"})
    ran = Cli(config)(command)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "tracing.endpoint: OpenTelemetry is not installed" in ran.err
    assert "pip install --require-hashes -r requirements-extras.lock" in ran.err


@pytest.mark.usefixtures("without_the_extra")
def test_without_the_extra_all_else_works(tmp_path: Path) -> None:
    """Who makes no traces needs none of it."""
    assert Cli(write_config(tmp_path)).done("check").code == 0


async def test_off_nothing_is_loaded_and_nothing_started(tmp_path: Path) -> None:
    """Without settings a process that serves has neither OpenTelemetry in memory nor a task for it."""
    code = (
        "import sys, proxy.cli, proxy.app\n"
        "sys.exit(any(name.startswith(('opentelemetry', 'google.protobuf')) for name in sys.modules))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0


async def test_each_worker_sends_its_own(pleo: Sandbox, tmp_path: Path) -> None:
    """Of several workers each is an instance of its own to the collector, and a stop sends what waits."""
    async with collector() as receiver:
        config = write_config(
            tmp_path,
            pleo,
            listen={"proxy": f"127.0.0.1:{free_port()}", "workers": 2},
            tracing={"endpoint": receiver.url, "sample_ratio": 1},
        )
        async with serving(config) as served:
            await until(lambda: len(served.process.lines("worker.started")) == 2, 30)
            async with asyncio.timeout(30):
                while {line["worker"] for line in served.process.lines("request.finished")} != {0, 1}:
                    async with aiohttp.ClientSession(
                        connector=aiohttp.TCPConnector(force_close=True)
                    ) as session:
                        await asyncio.gather(
                            *(session.get(f"{served.base_url}/nobody/v1/x") for _ in range(10))
                        )
            await served.stop()
            finished = served.process.lines("request.finished")
        instances = {span.resource["service.instance.id"] for span in receiver.named("server")}
    assert len(receiver.named("server")) == len(finished)
    assert {line["trace_id"] for line in finished} == {span.trace_id for span in receiver.named("server")}
    assert {instance.partition("/")[2] for instance in instances} == {"0", "1"}


@pytest.mark.parametrize(
    ("settings", "environ", "name"),
    [
        ({}, {}, "pleo-proxy"),
        ({}, {"OTEL_SERVICE_NAME": "theirs"}, "theirs"),
        ({"service_name": "ours"}, {"OTEL_SERVICE_NAME": "theirs"}, "ours"),
    ],
)
async def test_the_services_name_is_the_settings_or_opentelemetrys(
    pleo: Sandbox, tmp_path: Path, settings: dict[str, str], environ: dict[str, str], name: str
) -> None:
    """A setting counts before the variable that all of OpenTelemetry's programs know."""
    tracing = {"endpoint": "http://127.0.0.1:4318/v1/traces", **settings}
    made = wiring.spans(settings_for(pleo, tmp_path, tracing=tracing), environ, "i/0")
    assert {span.resource["service.name"] for span in decoded(made.encode([(TRACED, 1.8e9)]))} == {name}
