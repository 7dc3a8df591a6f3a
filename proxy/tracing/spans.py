"""Facts as OpenTelemetry's spans, by its semantic conventions for HTTP, and spans as OTLP in protobuf.

The one module that needs the extra ``otel``. Opens no connection, reads no clock, and reads one variable of
the environment: ``OTEL_RESOURCE_ATTRIBUTES``, by which an operator says where a process runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from proxy import __version__
from proxy.addresses import is_ip_literal
from proxy.facts import Fact, Refreshed, RefreshFailed, RequestFinished, RequestTraced, Send
from proxy.model import Origin

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
"""Known to the conventions; others would make names of spans without end."""
_LEFT = 499
"""No status was sent (:class:`~proxy.facts.RequestFinished`)."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000

_MOST_REFRESHES = 10_000
"""Tenants whose last refresh is remembered."""

Attributes = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class _Refresh:
    """The last refresh of a tenant, for requests that waited for it to point at."""

    context: SpanContext
    ended_ns: int
    generation: int | None
    """Of the token that it brought, if it brought one."""


class Spans:
    """Makes spans of facts, in the order in which these were told."""

    def __init__(
        self, service: str, instance: str, *, api: Origin, provider: Origin, bits: Callable[[int], int]
    ) -> None:
        """With whose spans these are.

        :param instance: of all processes that make spans another one for each.
        :param bits: random bits, so many as are asked for, as a number.
        """
        ours = {
            "service.name": service,
            "service.version": __version__,
            "service.instance.id": instance,
        }
        self._resource = OTELResourceDetector().detect().merge(Resource(ours))
        self._scope = InstrumentationScope("pleo-proxy", __version__)
        self._api, self._provider, self._bits = api, provider, bits
        self._refreshes: dict[str, _Refresh] = {}

    def encode(self, told: Sequence[tuple[Fact, float]]) -> bytes:
        """Spans of facts, each with when it was told, as an ``ExportTraceServiceRequest``."""
        spans: list[ReadableSpan] = []
        for fact, at in told:
            if isinstance(fact, RequestTraced):
                spans += self._of_request(fact)
            elif isinstance(fact, Refreshed | RefreshFailed):
                spans.append(self._of_refresh(fact, round(at * _NS_PER_S)))
        return bytes(encode_spans(spans).SerializeToString())

    def _of_request(self, traced: RequestTraced) -> list[ReadableSpan]:
        """The request's own span and one for each time that it was sent."""
        request = traced.request
        began_ns = round(traced.began_at * _NS_PER_S)
        ended_ns = began_ns + round(request.duration_ms * _NS_PER_MS)
        ours = _context(request.trace_id, traced.span_id)
        parent = (
            None if traced.parent_id is None else _context(request.trace_id, traced.parent_id, remote=True)
        )
        refresh = self._refresh_waited_for(request, began_ns)
        server = self._span(
            _name(request),
            ours,
            SpanKind.SERVER,
            (began_ns, ended_ns),
            _of_server(traced),
            parent=parent,
            links=() if refresh is None else (Link(refresh.context),),
            error=_server_error(request),
        )
        return [
            server,
            *(self._of_send(traced, number, began_ns, ours) for number in range(len(traced.sends))),
        ]

    def _of_send(
        self, traced: RequestTraced, number: int, began_ns: int, parent: SpanContext
    ) -> ReadableSpan:
        request, send = traced.request, traced.sends[number]
        start_ns = began_ns + round(send.after_ms * _NS_PER_MS)
        attributes: dict[str, str | int | bool] = {
            **_method(request),
            **_server(self._api),
            "url.full": f"{self._api}{send.path}",
        }
        if send.status is not None:
            attributes["http.response.status_code"] = send.status
        if number:
            attributes["http.request.resend_count"] = number
        return self._span(
            _name(request),
            _context(request.trace_id, send.span_id),
            SpanKind.CLIENT,
            (start_ns, start_ns + round(send.duration_ms * _NS_PER_MS)),
            attributes,
            parent=parent,
            error=_send_error(request, send, is_last=number == len(traced.sends) - 1),
        )

    def _of_refresh(self, fact: Refreshed | RefreshFailed, ended_ns: int) -> ReadableSpan:
        """A trace of its own, since many requests may wait for it and none may."""
        failed = fact if isinstance(fact, RefreshFailed) else None
        context = SpanContext(self._bits(128) or 1, self._bits(64) or 1, False, _SAMPLED)
        if len(self._refreshes) >= _MOST_REFRESHES:
            self._refreshes.clear()
        generation = fact.generation if failed is None else None
        self._refreshes[fact.tenant] = _Refresh(context, ended_ns, generation)
        return self._span(
            "token refresh",
            context,
            SpanKind.CLIENT,
            (ended_ns - round(fact.duration_ms * _NS_PER_MS), ended_ns),
            {
                "http.request.method": "POST",
                **_server(self._provider),
                "pleo_proxy.tenant": fact.tenant,
                "pleo_proxy.generation": fact.generation,
                "pleo_proxy.refresh.reason": fact.reason,
                "pleo_proxy.refresh.outcome": "granted" if failed is None else failed.outcome.value,
            },
            error=None if failed is None else failed.outcome.value,
        )

    def _refresh_waited_for(self, request: RequestFinished, began_ns: int) -> _Refresh | None:
        """The refresh that ended while the request was there, and whose token or failure it met."""
        refresh = self._refreshes.get(request.tenant or "")
        if refresh is None or refresh.ended_ns < began_ns:
            return None
        brought_none = refresh.generation is None and request.outcome != "answered"
        return refresh if brought_none or refresh.generation == request.generation is not None else None

    def _span(
        self,
        name: str,
        context: SpanContext,
        kind: SpanKind,
        spell_ns: tuple[int, int],
        attributes: Attributes,
        *,
        error: str | None,
        parent: SpanContext | None = None,
        links: Sequence[Link] = (),
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes if error is None else {**attributes, "error.type": error},
            links=links,
            kind=kind,
            status=Status(StatusCode.UNSET if error is None else StatusCode.ERROR),
            start_time=spell_ns[0],
            end_time=spell_ns[1],
            instrumentation_scope=self._scope,
        )


def _context(trace_id: str | None, span_id: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id or "0", 16), int(span_id, 16), remote, _SAMPLED)


def _name(request: RequestFinished) -> str:
    """Of few words, as the conventions ask; no route is known here that a path could be named by."""
    return request.method if request.method in _METHODS else "HTTP"


def _method(request: RequestFinished) -> Attributes:
    if request.method in _METHODS:
        return {"http.request.method": request.method}
    return {"http.request.method": "_OTHER", "http.request.method_original": request.method}


def _server(origin: Origin) -> Attributes:
    return {"server.address": origin.host, "server.port": origin.port}


def _of_server(traced: RequestTraced) -> Attributes:
    request = traced.request
    attributes: dict[str, str | int | bool] = {
        **_method(request),
        "url.path": request.path,  # the log's: without the query, which may be private
        "url.scheme": traced.scheme,
        "pleo_proxy.request_id": request.request_id,
        "pleo_proxy.outcome": request.outcome,
    }
    if request.tenant is not None:
        attributes["pleo_proxy.tenant"] = request.tenant
    if request.status != _LEFT:
        attributes["http.response.status_code"] = request.status
    if is_ip_literal(request.caller):
        attributes["client.address"] = request.caller
    return attributes


def _server_error(request: RequestFinished) -> str | None:
    """A server's span is an error from 500 on, and where the answer broke off; 4xx is the caller's."""
    if request.outcome == "answered":
        return str(request.status) if request.status >= 500 else None
    is_ours = request.status >= 500 or request.outcome in ("upstream_broke_off", "cut_by_stop")
    return request.outcome if is_ours else None


def _send_error(request: RequestFinished, send: Send, *, is_last: bool) -> str | None:
    """A client's span is an error from 400 on, and where no whole answer came."""
    if send.status is None or (is_last and request.outcome == "upstream_broke_off"):
        return request.outcome
    return str(send.status) if send.status >= 400 else None
