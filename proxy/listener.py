"""The accepting side: connections of callers, one request after the other, with limits and a bounded drain.

A connection finds where a head ends (:mod:`proxy.heads`) and what follows it (:mod:`proxy.framing`), hands
the request to the exchange, and learns from it whether another may come. It is a protocol of its own, since
aiohttp's server takes a third of what a whole request may cost here (``docs/performance.md``).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from proxy import framing, heads
from proxy.arrival import Arrival
from proxy.entrance import Entrance
from proxy.errors import HeadTooLarge, Overloaded, Refusal, TargetRefused, TargetTooLong
from proxy.exchange import Exchange
from proxy.framing import CHUNKED, Chunks, Counted
from proxy.intake import HIGH_WATER, CallerBody, CallerRequest
from proxy.model import Origin

_SWEEP_S = 1.0
_LINGER_S = 1.0
"""How long the rest of a refused request is read and dropped: closing at once could destroy the answer
(RFC 9112 section 9.6), and nobody is owed more."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_LINE_SLACK = 1024
"""Bytes that a request line may have beside the longest target, so that a target a little too long is refused
by name."""


@dataclass(frozen=True, slots=True)
class AcceptLimits:
    """What a connection may do (the ``[limits]`` settings): bytes, counts, seconds."""

    target_bytes: int
    head_bytes: int
    headers: int
    connections: int
    head_s: float
    idle_s: float


class Connection(asyncio.Protocol):
    """One caller's connection; the :class:`~proxy.intake.Line` of its requests."""

    __slots__ = (
        "_body",
        "_drained",
        "_dropping",
        "_entrance",
        "_full_since",
        "_limits",
        "_loop",
        "_paused",
        "_seen",
        "_server",
        "_since",
        "_task",
        "_transport",
        "_under_way",
        "_unread",
        "_waiter",
        "arrival",
        "unwelcome",
    )

    def __init__(self, server: CallerServer, entrance: Entrance) -> None:
        self._server = server
        self._entrance = entrance
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None]
        self.arrival: Arrival
        self.unwelcome: Refusal | None = None
        self._unread = b""
        self._seen = 0
        """Of the unread bytes, how many are known to be no whole head."""
        self._waiter: asyncio.Future[CallerRequest] | None = None
        self._under_way = False
        self._body: CallerBody | None = None
        """That the next bytes belong to."""
        self._since = 0.0
        """When the last request ended, or the head that is not whole yet began (event loop time)."""
        self._dropping = False
        """What still comes is of no request that could be answered."""
        self._paused = False
        self._drained: asyncio.Future[None] | None = None
        """What was written waits for the caller to take it."""
        self._full_since = 0.0

    # --- the next request

    async def _serve(self) -> None:
        """Answer one request after the other, until one of them is the last."""
        exchange = self._server.exchange
        persists = True
        while persists:
            try:
                request = self._next_request() or await self._arrival()
            except Refusal as refusal:
                self._dropping = True
                request = CallerRequest(heads.UNREADABLE, self, None, persists=False)
                exchange.refuse_unreadable(request, refusal)
                break
            self._under_way = True
            persists = await exchange(request)
            self._under_way = False
            if self._drained is not None:
                await self._drained  # a caller that takes no answers gets no more of them
            self._since = self._loop.time()
            self._limits = self._server.limits
        self._end()

    async def _arrival(self) -> CallerRequest:
        self._waiter = self._loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _next_request(self) -> CallerRequest | None:
        """The next request, as soon as its head is whole.

        :raises Refusal: what has come is no head, and nothing after it can be relied on
        """
        data = self._unread
        if self._paused and len(data) <= HIGH_WATER:
            self.resume_reading()
        if data.startswith(b"\r"):
            self._unread = data = _without_empty_lines(data)
        if data in (b"", b"\r"):
            return None
        end = data.find(b"\r\n\r\n", max(self._seen - 3, 0))
        if end < 0:
            self._look_at_beginning(data)
            return None
        self._unread = data[end + 4 :]
        self._seen = 0
        head = heads.read(
            data[: end + 2], head_bytes=self._limits.head_bytes, most_fields=self._limits.headers
        )
        length, persists, expects_continue = framing.of(head.fields, head.http_1_1)
        body = self._body_of(length, asks=expects_continue) if length else None
        return CallerRequest(head, self, body, persists=persists)

    def _look_at_beginning(self, data: bytes) -> None:
        """Refuse at once what can become no head, however much more comes."""
        if not self._seen:
            self._since = self._loop.time()
        if not heads.can_become_a_head(data, seen=self._seen):
            raise TargetRefused("the request is not well-formed HTTP/1.1 (RFC 9112)")
        limits = self._limits
        most = limits.target_bytes + _LINE_SLACK
        if len(data) > most and b"\r\n" not in data[:most]:
            raise TargetTooLong(f"the target is longer than limits.target_bytes ({limits.target_bytes})")
        if len(data) > most + limits.head_bytes:
            raise HeadTooLarge(f"the head is longer than limits.head_bytes ({limits.head_bytes})")
        self._seen = len(data)
        self.resume_reading()

    def _body_of(self, length: int, *, asks: bool) -> CallerBody:
        chunked = length == CHUNKED
        body = CallerBody(
            Chunks(section_bytes=self._limits.head_bytes) if chunked else Counted(length),
            self,
            length=None if chunked else length,
            idle_s=self._limits.idle_s,
            ask=self._say_continue if asks else None,
        )
        if self._unread:
            self._unread = body.feed(self._unread)
        if not body.has_arrived:
            self._body = body
        return body

    def _feed(self, body: CallerBody, data: bytes) -> bytes:
        """Give a body under way what came; returns what is behind its end."""
        try:
            rest = body.feed(data)
        except TargetRefused:  # whoever reads the body hears of it
            self._dropping = True
            return b""
        if body.has_arrived:
            self._body = None
        return rest

    def _say_continue(self) -> None:
        self._transport.write(_CONTINUE)

    # --- the end

    def _end(self) -> None:
        """Close behind the last answer, which is not to be lost on its way."""
        if self._transport.is_closing():
            return
        if self._body is None and not self._dropping and not self._unread:
            self._transport.close()
            return
        self._dropping = True
        self._body = None
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(_LINGER_S, self._transport.abort)

    def expire(self, now: float) -> None:
        """End what takes too long; called about once a second."""
        if self._drained is not None and now - self._full_since > self._limits.idle_s:
            self._transport.abort()  # a caller that does not take what there is for it
            return
        if self._under_way:
            return
        if self._unread and not self._dropping:
            if now - self._since > self._limits.head_s:
                self._transport.abort()
        elif now - self._since > (_SWEEP_S if self.unwelcome else self._limits.idle_s):
            if self._transport.is_closing():
                self._transport.abort()  # a caller that does not take the last bytes
            else:
                self._transport.close()

    def bound_by(self, limits: AcceptLimits) -> None:
        """Take these, unless a request is under way, which has its own to its end."""
        if not self._under_way:
            self._limits = limits

    def close_if_idle(self) -> None:
        """Close unless a request is under way."""
        if not self._under_way and not self._dropping:
            self._transport.close()

    def cut(self) -> asyncio.Task[None]:
        """End the connection whatever is under way; the task is done when nothing of it is left."""
        self._transport.abort()
        self._task.cancel()
        return self._task

    # --- the line of a request

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the caller has left")
        self._transport.write(data)

    async def drained(self) -> None:
        if self._drained is not None:
            await self._drained

    def reset(self) -> None:
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def own_address(self) -> str:
        name = self._transport.get_extra_info("sockname")
        return Origin(self.arrival.scheme, name[0], name[1]).authority if isinstance(name, tuple) else ""

    def pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self.arrival, self.unwelcome = self._entrance.arrival(transport)
        self._since = self._loop.time()
        connections = self._server.connections
        connections.add(self)
        if len(connections) > self._limits.connections:
            self.unwelcome = Overloaded("limits.connections is reached", retry_after_s=5)
        self._task = self._loop.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if self._dropping:
            return
        if self._body is not None:
            data = self._feed(self._body, data)
            if not data:
                return
        self._unread = self._unread + data if self._unread else data
        if self._waiter is None:
            # Pipelined requests wait for their turn, at their sender.
            if len(self._unread) > HIGH_WATER:
                self.pause_reading()
        elif not self._waiter.done():
            self._answer_waiter(self._waiter)

    def _answer_waiter(self, waiter: asyncio.Future[CallerRequest]) -> None:
        try:
            request = self._next_request()
        except Refusal as refusal:
            waiter.set_exception(refusal)
        else:
            if request is not None:
                waiter.set_result(request)

    def eof_received(self) -> None:
        """A caller that sends no more has left: nothing tells one that only closed its half (RFC 9112
        section 9.6 lets a server close), and an upstream request must not outlive its caller."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its text is shown to nobody
        self._server.connections.discard(self)
        if self._body is not None:
            self._body.fail(ConnectionResetError("the caller has left"))
        self.resume_writing()
        # A caller that leaves cancels its exchange, and with it the upstream request.
        self._task.cancel()

    def pause_writing(self) -> None:
        if self._drained is None:
            self._drained = self._loop.create_future()
            self._full_since = self._loop.time()

    def resume_writing(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None


def _without_empty_lines(data: bytes) -> bytes:
    """RFC 9112 section 2.2: empty lines before a request are ignored."""
    start = 0
    while data.startswith(b"\r\n", start):
        start += 2
    return data[start:]


class CallerServer:
    """Makes a :class:`Connection` for each caller and sweeps the slow ones."""

    def __init__(self, exchange: Exchange, limits: AcceptLimits) -> None:
        self.exchange = exchange
        self.limits = limits
        self.connections: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    def behind(self, entrance: Entrance) -> Callable[[], Connection]:
        """What makes the protocols of connections that come in there."""
        if self._sweeping is None:
            self._sweep()
        return partial(Connection, self, entrance)

    def change(self, limits: AcceptLimits) -> None:
        """Bound by these the next request of each connection, and what is not a request yet."""
        self.limits = limits
        for connection in self.connections:
            connection.bound_by(limits)

    def stop_sweeping(self) -> None:
        """For the end: no timer is left behind."""
        if self._sweeping is not None:
            self._sweeping.cancel()

    def close_idle(self) -> None:
        """Close the connections on which nothing is under way."""
        for connection in list(self.connections):
            connection.close_if_idle()

    async def cut_all(self) -> None:
        """End all connections, whatever is under way, and wait until nothing of them is left."""
        await asyncio.gather(
            *(connection.cut() for connection in list(self.connections)), return_exceptions=True
        )

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        # First, so that a defect in one of them does not let all others wait for ever.
        self._sweeping = loop.call_later(_SWEEP_S, self._sweep)
        for connection in list(self.connections):
            connection.expire(loop.time())
