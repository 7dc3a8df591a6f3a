"""The pool of connections to the upstream's origin, and the decision whether a request is sent again.

All connections go to one origin, fixed when the pool is made, so a token cannot reach another one.
Redirects are not followed; nothing of a request or an answer is looked at beyond what its framing needs.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from math import ceil, inf
from time import monotonic

from proxy.addresses import Destination, Network
from proxy.errors import Refusal, UpstreamTimeout, UpstreamUnreachable
from proxy.facts import CircuitClosed, CircuitOpened, Emit
from proxy.model import HttpProxy, Origin
from proxy.outbound import Sockets
from proxy.upstream.answer import Answer
from proxy.upstream.breaker import ORDINARY, Breaker
from proxy.upstream.connection import ClosedEarly, Connection, Limits, Silent
from proxy.upstream.dialing import Dialer, Outage
from proxy.upstream.upload import Body

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 section 9.2.2."""

SMALL_BODY = 64 * 1024
"""Up to this many bytes, a body of known length is read before a connection is taken: it then goes out in
one write with its head, needs no task, can always be sent again, and a slow caller holds no connection.
As much as a transport accepts before it asks to pause."""

SWEEP_S = 1.0
MAX_AGE_S = 300.0
"""A connection is not used for longer, so that a change of the upstream's addresses is followed: an address
that DNS no longer gives may go on answering for a while, and then be another server's. Five minutes are the
life of many such records, and one more handshake in five minutes costs nothing."""
MAX_AGE_JITTER = 0.1
"""So that connections that were opened together do not all end together."""


def _sweep_s(limits: Limits) -> float:
    return min(SWEEP_S, limits.idle_s / 4, limits.total_s / 4)


class Upstream:
    """Sends requests to one origin over kept-alive connections."""

    def __init__(
        self,
        origin: Origin,
        *,
        ssl_context: ssl.SSLContext | None,
        connect_s: float,
        idle_s: float,
        total_s: float,
        emit: Emit,
        head_bytes: int = 65536,
        pool_size: int = 512,
        keepalive_s: float = 55.0,
        max_age_s: float = MAX_AGE_S,
        http_proxy: HttpProxy | None = None,
        private_networks: tuple[Network, ...] = (),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Nothing is opened yet.

        ``ssl_context`` is for ``https`` origins, the system's trust if ``None``. ``connect_s`` bounds
        resolving, connecting and TLS; ``idle_s`` a silence of the upstream; ``total_s`` an exchange from its
        first byte to the last. ``pool_size`` is how many *idle* connections are kept, for ``keepalive_s``:
        less than the 60 s after which common load balancers close them, and not beyond ``max_age_s`` from
        when they were opened. The origin's name may lead to ``private_networks`` beside public addresses.
        ``clock`` is the circuit breaker's.
        """
        self._loop = asyncio.get_running_loop()
        self._origin = origin
        context = (ssl_context or ssl.create_default_context()) if origin.scheme == "https" else None
        self._dialer = Dialer(
            origin,
            ssl_context=context,
            connect_s=connect_s,
            http_proxy=http_proxy,
            sockets=Sockets(Destination(origin.host, private_networks), emit),
        )
        self._limits = Limits(idle_s, total_s, head_bytes)
        self._pool_size = pool_size
        self._keepalive_s = keepalive_s
        self._max_age_s = max_age_s
        self._sweep_s = _sweep_s(self._limits)
        self._sweep: asyncio.TimerHandle | None = None
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._closed = False
        self._all_lost: asyncio.Future[None] | None = None
        self._connects = 0
        self._reuses = 0
        self._stale_retries = 0
        self._breaker = Breaker(clock)
        self._emit = emit

    def change(self, *, connect_s: float, idle_s: float, total_s: float, head_bytes: int) -> None:
        """Bound from now on what begins by these; what is under way goes on with those of its begin."""
        self._dialer.connect_s = connect_s
        limits = Limits(idle_s, total_s, head_bytes)
        if limits == self._limits:
            return
        self._limits, self._sweep_s = limits, _sweep_s(limits)
        # A connection has its bounds for life, so none of those that are open gets another request.
        for connection in self._open:
            connection.ends_at = -inf
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    @property
    def stats(self) -> dict[str, int]:
        """Counts of connections, and of requests that were sent again on a fresh one."""
        return {
            "connections_open": len(self._open),
            "connections_idle": len(self._idle),
            "connects_total": self._connects,
            "reuses_total": self._reuses,
            "stale_retries_total": self._stale_retries,
        }

    async def send(
        self,
        method: bytes,
        target: bytes,
        lines: bytes,
        body: Body | None,
        wait_for_continue: bool = False,
    ) -> Answer:
        """Send one request; returns as soon as the head of its final answer has arrived.

        The header lines (see :func:`proxy.headers.lines`) are sent as they are; only ``Transfer-Encoding:
        chunked`` is added, for a body without length. Whoever gets the answer reads it to its end or calls
        :meth:`Answer.abort`.

        With ``wait_for_continue`` (for headers with ``Expect: 100-continue``) the body is not asked for
        before the upstream says 100 or a second has passed, and never if the final answer comes first.

        :raises UpstreamUnreachable: no connection, or it broke off before or in the head of the answer
        :raises UpstreamTimeout: no head of an answer within ``idle_s`` of silence or ``total_s``
        :raises ValueError: the body has not the length that it said
        :raises Exception: what the body's iterator raised while the upload went on
        """
        breaker = self._breaker
        if breaker.failures:
            self._refuse_if_open()
        head = b"%b %b HTTP/1.1\r\n%b" % (method, target, lines)
        if body is None:
            head += b"\r\n"
        elif body.length is None:
            head += b"Transfer-Encoding: chunked\r\n\r\n"
        elif body.length > SMALL_BODY or wait_for_continue:
            head += b"\r\n"
        else:
            head += b"\r\n"
            head += body.at_hand or await self._read_whole(body, body.length)
            body = None
        ticket = ORDINARY
        if breaker.failures:
            self._refuse_if_open()
            ticket = breaker.admit()
        try:
            answer = await self._deliver(method, head, body, wait_for_continue)
        except (Outage, Silent) as failure:
            self._no_answer(ticket, failure)
            raise
        except BaseException:
            breaker.withdrawn(ticket)
            raise
        if breaker.failures:
            self._answered()
        return answer

    async def _read_whole(self, body: Body, length: int) -> bytes:
        limit_s = self._limits.total_s
        try:
            # As long as it may take on its way: a caller that sends a byte now and then is not waited for.
            async with asyncio.timeout(limit_s):
                content = b"".join([piece async for piece in body.chunks()])
        except TimeoutError:
            raise UpstreamTimeout(f"the body of the request took longer than {limit_s:g} s") from None
        if len(content) != length:
            raise ValueError(f"the request body has {len(content)} bytes instead of {length}")
        return content

    async def close(self) -> None:
        """Close idle connections, abort those in use, and wait until all are gone."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        for connection in self._open.difference(self._idle):
            connection.abort()
        self._idle.clear()
        uploads = [connection.upload_ended() for connection in self._open]
        await asyncio.gather(*uploads)
        if self._open:
            self._all_lost = self._loop.create_future()
            await self._all_lost
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    async def _deliver(
        self, method: bytes, head: bytes, body: Body | None, wait: bool, *, on_fresh: bool = False
    ) -> Answer:
        """Send on a connection of the pool, else on a fresh one."""
        connection = None if on_fresh else self._checkout()
        if connection is None:
            connection = await self._connect()
            on_fresh = True
        else:
            self._reuses += 1
        future = connection.begin(method, head, body, wait_for_continue=wait)
        try:
            return await future
        except asyncio.CancelledError:
            connection.give_up(future)
            raise
        except ClosedEarly as closed:
            if on_fresh:
                raise Outage(self._closed_early()) from None
            # RFC 9110 section 9.2.2: a client does not repeat a request whose effect is not idempotent,
            # unless it knows that it was never applied.
            may_be_repeated = method in IDEMPOTENT or not closed.written
            if not (may_be_repeated and (body is None or body.replayable)):
                # Tells of an old connection and nothing of the upstream, so it is no outage.
                raise UpstreamUnreachable(self._closed_early()) from None
        await connection.upload_ended()
        self._stale_retries += 1
        return await self._deliver(method, head, body, wait, on_fresh=True)

    def _closed_early(self) -> str:
        return f"{self._origin} closed the connection before it answered"

    # --- the circuit breaker; asked only while the last request got no answer

    def _refuse_if_open(self) -> None:
        refused_s = self._breaker.refused_for()
        if refused_s > 0:
            raise UpstreamUnreachable(
                f"{self._origin} gave no answer to {self._breaker.failures} requests in a row, "
                "so none is sent until it has been tried again",
                retry_after_s=ceil(refused_s),
            )

    def _no_answer(self, ticket: int, failure: Refusal) -> None:
        open_s = self._breaker.failed(ticket)
        if open_s is not None:
            self._emit(
                CircuitOpened(str(self._origin), self._breaker.failures, failure.detail, retry_in_s=open_s)
            )

    def _answered(self) -> None:
        down_s = self._breaker.answered()
        if down_s is not None:
            self._emit(CircuitClosed(str(self._origin), round(down_s, 3)))

    # --- connections

    def _checkout(self) -> Connection | None:
        """The connection used last (LIFO), so that the pool shrinks to what the load needs."""
        idle = self._idle
        if not idle:
            return None
        now = self._loop.time()
        while idle:
            connection = idle.pop()
            if now < connection.idle_until and not connection.is_closing:
                return connection
            connection.close()
        return None

    def _became_idle(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= self._pool_size:
            connection.close()
            return
        keepalive_s = self._keepalive_s
        if connection.keep_alive_hint_s is not None:
            # A second early: the upstream counts from when it sent, and its close needs time to get here.
            keepalive_s = min(keepalive_s, connection.keep_alive_hint_s - 1.0)
        now = self._loop.time()
        connection.idle_until = min(now + keepalive_s, connection.ends_at)
        if now < connection.idle_until:
            self._idle.append(connection)
        else:
            connection.close()

    def _was_lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._open and self._all_lost is not None and not self._all_lost.done():
            self._all_lost.set_result(None)

    def _new_connection(self) -> Connection:
        return Connection(str(self._origin), self._limits, on_idle=self._became_idle, on_lost=self._was_lost)

    async def _connect(self) -> Connection:
        self._check_not_closed()
        connection = await self._dialer.dial(self._new_connection)
        age_s = self._max_age_s * random.uniform(1 - MAX_AGE_JITTER, 1 + MAX_AGE_JITTER)  # noqa: S311 - no secret
        connection.ends_at = self._loop.time() + age_s
        if connection.limits is not self._limits:
            connection.ends_at = -inf  # they were changed while it was made: it is for one request
        self._connects += 1
        if not connection.is_lost:
            self._open.add(connection)
        try:
            self._check_not_closed()  # again, since it took a while
        except UpstreamUnreachable:
            connection.abort()
            raise
        if self._sweep is None:
            self._schedule_sweep()
        return connection

    def _check_not_closed(self) -> None:
        if self._closed:
            raise UpstreamUnreachable("the proxy is shutting down")

    def _schedule_sweep(self) -> None:
        self._sweep = self._loop.call_later(self._sweep_s, self._sweep_connections)

    def _sweep_connections(self) -> None:
        """Enforce all deadlines in one pass; ends by itself when no connection is open."""
        now = self._loop.time()
        for connection in [idle for idle in self._idle if now >= idle.idle_until]:
            self._idle.remove(connection)
            connection.close()
        for connection in list(self._open):
            connection.expire(now)
        self._sweep = None
        if self._open:
            self._schedule_sweep()
