"""The accepting side: aiohttp's low-level server with our limits, our refusals and a bounded drain.

Everything that reaches into aiohttp beyond its documented surface stands in this module, and
``tests/test_listener.py`` fails loudly where an upgrade changes it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from proxy.errors import HeadTooLarge, Refusal, TargetRefused, TargetTooLong
from proxy.exchange import Exchange

# aiohttp would log the text of malformed requests, which may hold anything; refusals are facts of our own.
_silent = logging.getLogger("proxy.listener.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False

_SWEEP_S = 1.0
_LINGER_S = 1.0
"""How long the rest of a refused body is read and dropped: closing at once could destroy the answer (RFC 9112
section 9.6), and nobody is owed more."""
_CHUNKS_END = b"\r\n0\r\n\r\n"
_CHUNKS_END_SIZE = len(_CHUNKS_END)
_TOO_MANY_FIELDS = "Too many headers received"


@dataclass(frozen=True, slots=True)
class AcceptLimits:
    """What a connection may do (the ``[limits]`` settings): bytes, counts, seconds."""

    target_bytes: int
    head_bytes: int
    headers: int
    connections: int
    head_s: float
    idle_s: float

    @property
    def line_bytes(self) -> int:
        """aiohttp's bound on the target: a little over ours, so that ours can name the value; and never the
        bound on a field, since the two faults are told apart by it."""
        return self.target_bytes + 1024 + (self.target_bytes + 1024 == self.head_bytes)


class Connection(RequestHandler):
    """One caller's connection."""

    __slots__ = ("_body", "_head_since", "_last_bytes", "_server", "ends_plainly", "over_limit")

    def __init__(self, server: CallerServer, limits: AcceptLimits) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_s,
            lingering_time=_LINGER_S,
            logger=_silent,
            access_log=None,  # type: ignore[arg-type] # documented as "None turns it off"
            max_line_size=limits.line_bytes,
            max_field_size=limits.head_bytes,
            max_headers=limits.headers,
            # A body is forwarded as it came: decoding it is not ours.
            auto_decompress=False,
        )
        self._server = server
        self._head_since: float | None = None
        self._last_bytes = b""
        self._body: StreamReader | None = None
        """Of the request that was taken up last."""
        self.ends_plainly = False
        """That body, if it was chunked, ended without trailers and with nothing behind it."""
        self.over_limit = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller connected; one too many is told so when it asks for something."""
        super().connection_made(transport)
        self.over_limit = len(self._server.connections) > self._server.limits.connections

    def data_received(self, data: bytes) -> None:
        """Bytes of a head or a body; the time for a head runs from its first byte."""
        if self._head_since is None and self._current_request is None:
            self._head_since = self._loop.time()
        self._last_bytes = (self._last_bytes + data[-_CHUNKS_END_SIZE:])[-_CHUNKS_END_SIZE:]
        body = self._body
        ended_before = body is None or body.is_eof()
        super().data_received(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            self._fail_body()
        elif not ended_before:
            self._look_at_end(body)

    def _fail_body(self) -> None:
        """Tell who reads a body that its framing turned out malformed: the parser only reports it as a next
        request, and the body would be waited for in vain."""
        body = self._messages[-2][1] if len(self._messages) > 1 else self._body
        if body is not None and not body.is_eof():
            body.set_exception(web.RequestPayloadError("malformed"))
            body.feed_eof()  # else aiohttp would wait for the rest of it after the answer

    def _look_at_end(self, body: StreamReader | None) -> None:
        self.ends_plainly = (
            body is not None and body.is_eof() and self._last_bytes == _CHUNKS_END and not self._messages
        )

    def head_complete(self, body: StreamReader | None = None) -> None:
        """A whole request head was taken up, and ``body`` is to follow."""
        self._head_since = None
        self._body = body
        self._look_at_end(body)

    def is_slow(self, now: float) -> bool:
        """Whether a head has been under way for longer than ``limits.head_s``."""
        return self._head_since is not None and now - self._head_since > self._server.limits.head_s

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Our answer to a request that aiohttp's parser refused."""
        self.head_complete()
        return self._server.exchange.refuse_malformed(request, _refusal_of(exc, message, self._server.limits))


class CallerRequest(web.BaseRequest):
    """One request, which also knows when its connection must not serve another."""

    @property
    def keep_alive(self) -> bool:
        """Whether another request may come on this connection.

        aiohttp's parser drops what follows a refused upgrade in the same segment, and it takes the last
        trailer field of a chunked body for the first header field of the next request: after either, what
        comes next could be another request than its sender meant (of another caller, behind a load balancer).
        """
        if not super().keep_alive or self._message.upgrade:
            return False
        return not self._message.chunked or cast("Connection", self._protocol).ends_plainly


class CallerServer(web.Server):
    """Makes a :class:`Connection` for each caller and sweeps the slow ones."""

    def __init__(self, exchange: Exchange, limits: AcceptLimits) -> None:
        # A caller that leaves cancels its exchange, and with it the upstream request.
        super().__init__(exchange, handler_cancellation=True, request_factory=self._request)
        self.exchange = exchange
        self.limits = limits
        self._sweeping: asyncio.TimerHandle | None = None

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        if self._sweeping is None:
            self._sweep()
        return Connection(self, self.limits)

    def stop_sweeping(self) -> None:
        """For the end: no timer is left behind."""
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _request(self, message, payload, protocol, writer, task):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        protocol.head_complete(payload)
        return CallerRequest(message, payload, protocol, writer, task, self._loop)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.is_slow(now):
                connection.force_close()
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)


def _refusal_of(exc: BaseException | None, message: str | None, limits: AcceptLimits) -> Refusal:
    if isinstance(exc, LineTooLong):
        if exc.args[1] == limits.line_bytes:
            return TargetTooLong(f"the target is longer than limits.target_bytes ({limits.target_bytes})")
        return HeadTooLarge(f"a header field is longer than limits.head_bytes ({limits.head_bytes})")
    if message == _TOO_MANY_FIELDS:
        return HeadTooLarge(f"there are more header fields than limits.headers ({limits.headers})")
    return TargetRefused("the request is not well-formed HTTP/1.1 (RFC 9112)")
