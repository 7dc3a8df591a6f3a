"""A collector of traces on loopback: an HTTP server that decodes what it gets as OTLP says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True)
class Got:
    """One span as the collector has it."""

    name: str
    kind: str
    """``server`` or ``client``."""
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    links: tuple[tuple[str, str], ...]
    is_error: bool
    resource: Mapping[str, Any]


@dataclass
class Receiver:
    """What the collector got, and what it answers."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    """For the next requests; 200 when there are no more."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of answers."""
    hangs: bool = False
    asked: list[Mapping[str, str]] = field(default_factory=list)
    """The header fields of each request."""
    bodies: list[bytes] = field(default_factory=list)
    """Of those that were taken."""
    released: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def spans(self) -> list[Got]:
        return [span for body in self.bodies for span in decoded(body)]

    def named(self, kind: str, **attributes: Any) -> list[Got]:
        """Spans of a kind that have these attributes."""
        return [
            span for span in self.spans if span.kind == kind and attributes.items() <= span.attributes.items()
        ]

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append(request.headers.copy())
        if self.hangs:
            await self.released.wait()
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.bodies.append(body)
        text = ExportTraceServiceResponse().SerializeToString()
        elsewhere = {"Location": self.url} if status == 307 else {}
        return web.Response(
            status=status,
            body=text,
            content_type="application/x-protobuf",
            headers={**self.headers, **elsewhere},
        )


def decoded(body: bytes) -> list[Got]:
    """The spans in what was posted."""
    message = ExportTraceServiceRequest()
    message.ParseFromString(body)
    return [
        Got(
            span.name,
            {2: "server", 3: "client"}[span.kind],
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            _values(span.attributes),
            tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
            span.status.code == 2,
            _values(group.resource.attributes),
        )
        for group in message.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    def value(each: KeyValue) -> Any:
        return getattr(each.value, each.value.WhichOneof("value") or "string_value")

    return {each.key: value(each) for each in attributes}


@asynccontextmanager
async def collector(port: int = 0) -> AsyncIterator[Receiver]:
    """An OTLP/HTTP receiver at ``/v1/traces``."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield receiver
    finally:
        receiver.released.set()
        await runner.cleanup()
