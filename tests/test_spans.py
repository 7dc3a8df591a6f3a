"""Facts as spans, as another implementation reads them: errors, what is left out, what is linked."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from proxy.facts import Fact, Refreshed, RefreshFailed, RequestFinished, RequestTraced, Send
from proxy.model import Origin, Outcome
from proxy.tracing import spans as spans_module
from proxy.tracing.spans import Spans
from tests.otlp import Got, decoded

API = Origin("https", "external.pleo.io", 443)
PROVIDER = Origin("https", "auth.pleo.io", 443)
AT = 1_800_000_000.0
REQUEST = RequestFinished(
    "r-1", "acme", "GET", "/acme/v1/x", 200, "answered", 200, 50.0, 4.0, False, 2, 0, 2, "10.0.0.1", "a" * 32
)
SEND = Send("c" * 16, "/v1/x", 1.0, 4.0, 200)
TRACED = RequestTraced(REQUEST, "b" * 16, None, AT, "http", (SEND,))
REFRESHED = Refreshed("acme", 2, "expired", 900.0, 30.0, 1, "00")
FAILED = RefreshFailed("acme", 1, "expired", Outcome.UNAVAILABLE, "status_503", 30.0, 1.0)


def made(*told: tuple[Fact, float], spans: Spans | None = None) -> list[Got]:
    spans = spans or Spans("ours", "i/0", api=API, provider=PROVIDER, bits=random.Random(1).getrandbits)
    return decoded(spans.encode(told))


def of(request: RequestFinished, *sends: Send) -> tuple[Got, list[Got]]:
    """The server's span and the others."""
    server, *others = made((replace(TRACED, request=request, sends=sends), AT + 1))
    return server, others


@pytest.mark.parametrize(
    ("status", "outcome", "error"),
    [
        (200, "answered", None),
        (404, "answered", None),
        (500, "answered", "500"),
        (429, "rate-limited", None),
        (502, "upstream-unreachable", "upstream-unreachable"),
        (200, "upstream_broke_off", "upstream_broke_off"),
        (200, "cut_by_stop", "cut_by_stop"),
        (499, "caller_left", None),
    ],
)
def test_what_is_an_error_of_ours_or_pleos(status: int, outcome: str, error: str | None) -> None:
    """From 500 on, and answers that broke off; what is a caller's doing is none."""
    server, _ = of(replace(REQUEST, status=status, outcome=outcome))
    assert (server.is_error, server.attributes.get("error.type")) == (error is not None, error)
    assert server.attributes.get("http.response.status_code") == (None if status == 499 else status)
    assert server.attributes["pleo_proxy.outcome"] == outcome


def test_what_is_an_error_of_a_sending() -> None:
    """From 400 on; no answer, and an answer that broke off, by the word of what came of the request."""
    broke = replace(REQUEST, outcome="upstream_broke_off")
    _, sends = of(broke, replace(SEND, status=401), SEND)
    assert [each.attributes.get("error.type") for each in sends] == ["401", "upstream_broke_off"]
    _, (silent,) = of(replace(REQUEST, status=504, outcome="upstream-timeout"), replace(SEND, status=None))
    assert (silent.is_error, silent.attributes["error.type"]) == (True, "upstream-timeout")
    _, (fine,) = of(REQUEST, replace(SEND, status=304))
    assert (fine.is_error, fine.attributes.get("error.type")) == (False, None)


def test_a_method_that_nobody_knows_makes_no_name() -> None:
    """Names are few, whatever callers send; the method as it came is beside."""
    server, (send,) = of(replace(REQUEST, method="BREW"), SEND)
    for span in (server, send):
        assert span.name == "HTTP"
        assert span.attributes["http.request.method"] == "_OTHER"
        assert span.attributes["http.request.method_original"] == "BREW"


@pytest.mark.parametrize("caller", ["uid:1001 pid:77", "unknown behind 10.0.0.1", ""])
def test_a_caller_without_an_address_has_none(caller: str) -> None:
    """What is no IP address is not shown as one."""
    server, _ = of(replace(REQUEST, caller=caller, tenant=None))
    assert "client.address" not in server.attributes
    assert "pleo_proxy.tenant" not in server.attributes


def test_a_span_is_as_long_as_what_it_tells_of() -> None:
    """A request begins at its instant, a sending so much later, a refresh ends when it was told."""
    server, send, refresh = made((TRACED, AT + 99), (REFRESHED, AT + 1))
    start = round(AT * 1e9)
    assert (server.start_ns, server.end_ns) == (start, start + 50_000_000)
    assert (send.start_ns, send.end_ns) == (start + 1_000_000, start + 5_000_000)
    assert (refresh.start_ns, refresh.end_ns) == (start + 970_000_000, start + 1_000_000_000)
    assert send.attributes["url.full"] == "https://external.pleo.io/v1/x"
    assert (refresh.attributes["server.address"], refresh.attributes["server.port"]) == ("auth.pleo.io", 443)


@pytest.mark.parametrize(
    ("refresh", "ended", "request_", "linked"),
    [
        pytest.param(REFRESHED, AT + 0.02, REQUEST, True, id="its-token-was-used"),
        pytest.param(REFRESHED, AT - 0.01, REQUEST, False, id="over-before"),
        pytest.param(REFRESHED, AT + 0.02, replace(REQUEST, generation=1), False, id="went-on-with-the-old"),
        pytest.param(REFRESHED, AT + 0.02, replace(REQUEST, tenant="globex"), False, id="anothers"),
        pytest.param(
            REFRESHED, AT + 0.02, replace(REQUEST, generation=None, status=403), False, id="without-a-token"
        ),
        pytest.param(
            FAILED,
            AT + 0.02,
            replace(REQUEST, generation=None, outcome="provider-unavailable", status=503),
            True,
            id="refused-for-its-failure",
        ),
        pytest.param(FAILED, AT + 0.02, replace(REQUEST, generation=1), False, id="served-all-the-same"),
    ],
)
def test_a_request_is_linked_to_the_refresh_that_it_waited_for(
    refresh: Fact, ended: float, request_: RequestFinished, linked: bool
) -> None:
    """And to no other: one that ended while it was there, and whose token or failure it met."""
    told, server, _ = made((refresh, ended), (replace(TRACED, request=request_), AT + 1))
    assert server.links == (((told.trace_id, told.span_id),) if linked else ())


def test_refreshes_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenants come and go; what is forgotten costs a link and nothing else."""
    monkeypatch.setattr(spans_module, "_MOST_REFRESHES", 2)
    spans = Spans("ours", "i/0", api=API, provider=PROVIDER, bits=random.Random(1).getrandbits)
    for number in range(7):
        made((replace(REFRESHED, tenant=f"t{number}"), AT), spans=spans)
        assert len(spans._refreshes) <= 2


def test_where_the_process_runs_is_told_by_the_operators_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """``OTEL_RESOURCE_ATTRIBUTES`` adds to what the proxy says of itself, and changes nothing of it."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=pleo-1,service.name=theirs")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
    server, _ = made((TRACED, AT + 1))
    assert server.resource["k8s.pod.name"] == "pleo-1"
    assert server.resource["service.name"] == "ours"
    assert server.resource["service.instance.id"] == "i/0"
