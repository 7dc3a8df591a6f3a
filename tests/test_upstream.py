"""The engine towards the API: exchanges over real sockets, and every way to cut an answer into pieces."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Self

import pytest
import uvloop

from proxy.addresses import Network
from proxy.errors import BodyTooLarge, UpstreamTimeout, UpstreamUnreachable
from proxy.facts import CircuitClosed, CircuitOpened, Fact
from proxy.headers import lines
from proxy.model import HttpProxy, Origin
from proxy.upstream import Answer, Body, BrokenOff, Headers, Upstream
from proxy.upstream.connection import HIGH_WATER, ClosedEarly, Connection, Limits
from proxy.upstream.dialing import Dialer
from tests.authority import Authority

HOST: Headers = [(b"Host", b"api.example")]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LOOPBACK = (ip_network("127.0.0.0/8"),)
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


# --- the stage: an upstream whose part the test plays


def on_both_loops(play: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a play on asyncio's loop and on uvloop, whose transports differ in details."""

    @pytest.mark.parametrize(
        "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    def test(*, loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.wait_for(play(**arguments), 30))

    extra = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(play).parameters.values()
    test.__signature__ = inspect.Signature([*parameters, extra])  # type: ignore[attr-defined]
    test.__name__, test.__doc__ = play.__name__, play.__doc__
    return test


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something that no event tells has happened."""
    while not condition():  # noqa: ASYNC110 - what is waited for must not know that it is a test
        await asyncio.sleep(0.001)


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def receive(self, count: int) -> bytes:
        return await self._reader.readexactly(count)

    async def rest(self) -> bytes:
        """All that still comes until the connection ends, in good order or not."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self._reader.read(65536):
                received += piece
        return received

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Stage:
    """A listening upstream and the engines that talk to it; all closed at the end."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._tls = tls
        self._arrivals: asyncio.Queue[Peer] = asyncio.Queue()
        self._engines: list[Upstream] = []
        self.accepted: list[Peer] = []
        self.facts: list[Fact] = []
        self.now = 1000.0
        """The clock of the engine's circuit breaker."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._arrive, self._host, 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for engine in self._engines:
            await engine.close()
            assert engine.stats["connections_open"] == 0
        self._server.close()
        for peer in self.accepted:
            peer.writer.transport.abort()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()
        await self._server.wait_closed()

    def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.accepted.append(peer)
        self._arrivals.put_nowait(peer)

    async def peer(self) -> Peer:
        """The next connection that the engine opens."""
        return await self._arrivals.get()

    def engine(
        self,
        *,
        scheme: str = "http",
        host: str = "",
        trust: ssl.SSLContext | None = None,
        connect_s: float = 5.0,
        idle_s: float = 30.0,
        total_s: float = 60.0,
        head_bytes: int = 65536,
        pool_size: int = 512,
        keepalive_s: float = 55.0,
        max_age_s: float = 300.0,
        http_proxy: HttpProxy | None = None,
        private_networks: tuple[Network, ...] = (),
    ) -> Upstream:
        engine = Upstream(
            Origin("https" if scheme == "https" else "http", host or self._host, self.port),
            ssl_context=trust,
            connect_s=connect_s,
            idle_s=idle_s,
            total_s=total_s,
            emit=self.facts.append,
            clock=lambda: self.now,
            head_bytes=head_bytes,
            pool_size=pool_size,
            keepalive_s=keepalive_s,
            max_age_s=max_age_s,
            http_proxy=http_proxy,
            private_networks=private_networks,
        )
        self._engines.append(engine)
        return engine


def get(engine: Upstream, method: bytes = b"GET", body: Body | None = None) -> asyncio.Task[Answer]:
    """Start a request; the test goes on as the upstream."""
    headers = list(HOST)
    if body is not None and body.length is not None:
        headers.append((b"Content-Length", b"%d" % body.length))
    return asyncio.create_task(coroutine(engine.send(method, b"/v1/things", lines(headers), body)))


async def coroutine(awaitable: Awaitable[Answer]) -> Answer:
    return await awaitable


async def read(answer: Answer, received: list[bytes] | None = None) -> bytes:
    """The body to its end; what came before a break is left in ``received``."""
    pieces = [] if received is None else received
    async for piece in answer.chunks():
        pieces.append(piece)
    return b"".join(pieces)


async def warmed_up(stage: Stage, engine: Upstream) -> Peer:
    """One exchange is done and its connection back in the pool."""
    sending = get(engine)
    peer = await stage.peer()
    await peer.head()
    peer.send(OK)
    assert (await sending).take_all() == b"hi"
    assert engine.stats["connections_idle"] == 1
    return peer


@dataclass
class Given:
    """A body made of given pieces; it may end in an exception, or wait before a piece for an event."""

    pieces: Iterable[bytes]
    length: int | None
    replayable: bool = True
    error: Exception | None = None
    hold: asyncio.Event | None = None
    at_hand: bytes | None = None
    trailers: bytes = b""
    under_way: bool = False
    handed_out: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def chunks(self) -> AsyncIterator[bytes]:
        assert not self.under_way, "a pass began before the one before had ended"
        self.under_way = True
        try:
            for piece in self.pieces:
                self.handed_out += len(piece)
                yield piece
            if self.hold is not None:
                await self.hold.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.under_way = False
            self.ended.set()


def big(length: int) -> Given:
    """A body that is not read whole before it is sent."""
    return Given([b"x" * 50_000] * (length // 50_000), length)


# --- requests, byte for byte


@on_both_loops
async def test_request_head_is_sent_as_given() -> None:
    """Method, target, names, values, order and duplicates reach the upstream as the bytes handed in."""
    async with Stage() as stage:
        headers = [
            (b"hOST", b"api.example"),
            (b"X-Twice", b"1"),
            (b"X-Empty", b""),
            (b"x-twice", b"2"),
            (b"X-Latin", b"caf\xe9"),
        ]
        sending = asyncio.create_task(
            coroutine(stage.engine().send(b"PATCH", b"/v1/%7Ea?q=%2f", lines(headers), None))
        )
        peer = await stage.peer()
        assert await peer.head() == (
            b"PATCH /v1/%7Ea?q=%2f HTTP/1.1\r\n"
            b"hOST: api.example\r\nX-Twice: 1\r\nX-Empty: \r\nx-twice: 2\r\nX-Latin: caf\xe9\r\n\r\n"
        )
        peer.send(OK)
        assert (await sending).status == 200


@pytest.mark.parametrize(
    ("body", "framing", "wire"),
    [
        pytest.param(Given([], 0), b"Content-Length: 0\r\n", b"", id="empty"),
        pytest.param(Given([b"ab", b"c"], 3), b"Content-Length: 3\r\n", b"abc", id="small"),
        pytest.param(big(100_000), b"Content-Length: 100000\r\n", b"x" * 100_000, id="large"),
        pytest.param(
            Given([b"ab", b"", b"c" * 16], None),
            b"Transfer-Encoding: chunked\r\n",
            b"2\r\nab\r\n10\r\n" + b"c" * 16 + b"\r\n0\r\n\r\n",
            id="chunked",
        ),
        pytest.param(Given([], None), b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", id="chunked-empty"),
    ],
)
@on_both_loops
async def test_request_body_is_framed_by_its_length(body: Given, framing: bytes, wire: bytes) -> None:
    """A known length goes out as it is under its Content-Length, an unknown one in chunks."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine, b"POST", body)
        peer = await stage.peer()
        assert await peer.head() == b"POST /v1/things HTTP/1.1\r\nHost: api.example\r\n" + framing + b"\r\n"
        assert await peer.receive(len(wire)) == wire
        peer.send(OK)
        assert (await sending).take_all() == b"hi"
        assert engine.stats["connections_idle"] == 1


# --- answers, however they are cut into pieces


@dataclass
class Wire(asyncio.Transport):
    """A transport that records what the connection does with it."""

    sent: list[bytes] = field(default_factory=list)
    state: str = "open"
    calls: list[str] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.sent.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.state != "open"

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")


def connected(wire: Wire) -> tuple[Connection, list[Connection]]:
    """A connection without network, and the pool that it gives itself back to."""
    idle: list[Connection] = []
    connection = Connection(
        "http://api.example", Limits(5.0, 20.0, 1000), on_idle=idle.append, on_lost=lambda _: None
    )
    connection.connection_made(wire)
    return connection, idle


@dataclass(frozen=True)
class Example:
    """An answer on the wire, and what it means."""

    wire: bytes
    status: int
    headers: Headers
    body: bytes = b""
    reason: bytes = b"OK"
    trailers: Headers = field(default_factory=list)
    method: bytes = b"GET"
    reused: bool = True
    version: bytes = b"1.1"


ANSWERS = {
    "content-length": Example(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nset-cookie: b\r\nX-Empty:\r\nContent-Length: 5\r\n\r\nhello",
        200,
        [(b"Set-Cookie", b"a"), (b"set-cookie", b"b"), (b"X-Empty", b""), (b"Content-Length", b"5")],
        b"hello",
    ),
    "no-content-in-length": Example(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, [(b"Content-Length", b"0")]
    ),
    "odd-status-without-reason": Example(
        b"HTTP/1.1 599\r\nContent-Length: 0\r\n\r\n", 599, [(b"Content-Length", b"0")], reason=b""
    ),
    "chunked": Example(
        b"HTTP/1.1 200 Fine by me\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        200,
        [(b"Transfer-Encoding", b"chunked")],
        b"abc0123456789",
        reason=b"Fine by me",
    ),
    "chunked-with-trailers": Example(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\nDigest: x\r\nEmpty:\r\n\r\n",
        200,
        [(b"transfer-encoding", b"Chunked")],
        b"hi",
        trailers=[(b"Digest", b"x"), (b"Empty", b"")],
    ),
    "until-close": Example(
        b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nall the rest", 200, [(b"A", b"b")], b"all the rest", reused=False
    ),
    "until-close-http-1.0": Example(
        b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nrest", 200, [(b"A", b"b")], b"rest", reused=False, version=b"1.0"
    ),
    "http-1.0-keep-alive": Example(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        200,
        [(b"Connection", b"keep-alive"), (b"Content-Length", b"2")],
        b"hi",
        version=b"1.0",
    ),
    "connection-close": Example(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        200,
        [(b"Connection", b"close"), (b"Content-Length", b"2")],
        b"hi",
        reused=False,
    ),
    "204": Example(b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", 204, [(b"A", b"b")], reason=b"No Content"),
    "304-with-length": Example(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        304,
        [(b"Content-Length", b"7")],
        reason=b"Not Modified",
    ),
    "head-with-length": Example(
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
        200,
        [(b"Content-Length", b"7")],
        method=b"HEAD",
        reused=False,
    ),
    "head-chunked": Example(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        200,
        [(b"Transfer-Encoding", b"chunked")],
        method=b"HEAD",
        reused=False,
    ),
    "head-without-body": Example(
        b"HTTP/1.1 404 OK\r\nContent-Length: 0\r\n\r\n", 404, [(b"Content-Length", b"0")], method=b"HEAD"
    ),
    "interim-answers-first": Example(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        200,
        [(b"Content-Length", b"2")],
        b"hi",
    ),
    "upgrade-offered": Example(
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nhi",
        200,
        [(b"Upgrade", b"h2c"), (b"Connection", b"upgrade"), (b"Content-Length", b"2")],
        b"hi",
    ),
}


def pieces(wire: bytes, cut: int) -> list[bytes]:
    """Whole (0), in two pieces cut at a place, or byte by byte (-1)."""
    if cut < 0:
        return [wire[at : at + 1] for at in range(len(wire))]
    return [piece for piece in (wire[:cut], wire[cut:]) if piece]


async def deliver(example: Example, cut: int) -> None:
    wire = Wire()
    connection, idle = connected(wire)
    future = connection.begin(example.method, b"HEAD OF THE REQUEST", None)
    for piece in pieces(example.wire, cut):
        if not wire.is_closing():
            connection.data_received(piece)
    if not future.result().body_complete:
        connection.eof_received()
    answer = future.result()
    assert answer.body_complete
    assert await read(answer) == example.body
    assert (answer.status, answer.reason, answer.version) == (
        example.status,
        example.reason,
        example.version,
    )
    assert answer.headers == example.headers
    assert answer.trailers == example.trailers
    assert bool(idle) is example.reused
    assert (wire.state == "open") is example.reused
    connection.connection_lost(None)


@pytest.mark.parametrize("example", ANSWERS.values(), ids=ANSWERS)
async def test_answer_is_the_same_however_it_is_cut(example: Example) -> None:
    """Whole, byte by byte and cut in two at every place, an answer gives the same head, body and reuse."""
    for cut in range(-1, len(example.wire)):
        await deliver(example, cut)


@pytest.mark.parametrize("example", ANSWERS.values(), ids=ANSWERS)
@on_both_loops
async def test_answer_over_a_socket(example: Example) -> None:
    """The same answers over a real connection."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine, example.method)
        peer = await stage.peer()
        await peer.head()
        peer.send(example.wire)
        if not example.reused:
            peer.close()
        answer = await sending
        assert await read(answer) == example.body
        assert answer.body_complete
        assert (answer.status, answer.headers, answer.trailers) == (
            example.status,
            example.headers,
            example.trailers,
        )
        assert engine.stats["connections_idle"] == int(example.reused)


@on_both_loops
async def test_small_answer_is_whole_with_its_head() -> None:
    """An answer that arrives in one piece can be taken at once, and its connection is free by then."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine)
        peer = await stage.peer()
        await peer.head()
        peer.send(OK)
        answer = await sending
        assert answer.body_complete
        assert engine.stats["connections_idle"] == 1
        assert answer.take_all() == b"hi"
        answer.abort()  # without effect on a connection that is no longer its own
        assert engine.stats["connections_idle"] == 1


async def test_unfinished_answer_cannot_be_taken() -> None:
    """take_all() refuses to pass a part of a body for the whole."""
    connection, _ = connected(Wire())
    future = connection.begin(b"GET", b"", None)
    connection.data_received(OK[:-1])
    answer = await future
    assert not answer.body_complete
    assert answer.buffered == 1
    with pytest.raises(RuntimeError):
        answer.take_all()
    connection.connection_lost(None)


MALFORMED = {
    "not-http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "cl.te": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
    "negative-length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "whitespace-key": b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
    "nul-in-value": b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n",
    "status-too-small": b"HTTP/1.1 99 Odd\r\n\r\n",
    "upgrade-unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "upgrade-without-fields": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "head-too-large": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 2000 + b"\r\nContent-Length: 0\r\n\r\n",
    "head-too-large-in-progress": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 2000,
    "endless-interim-answers": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 50,
}


@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED)
@on_both_loops
async def test_malformed_answer_is_refused(wire: bytes) -> None:
    """What is not an HTTP/1.1 answer, or may mean two things, becomes a refusal and ends the connection."""
    async with Stage() as stage:
        engine = stage.engine(head_bytes=1000)
        sending = get(engine)
        peer = await stage.peer()
        await peer.head()
        peer.send(wire)
        with pytest.raises(UpstreamUnreachable) as caught:
            await sending
        assert str(stage.port) in caught.value.detail
        assert await peer.rest() == b""


async def test_large_body_does_not_count_as_head() -> None:
    """The limit on the head is not met by a body that arrives together with it."""
    connection, idle = connected(Wire())
    future = connection.begin(b"GET", b"", None)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000)
    assert future.result().take_all() == b"x" * 5000
    assert idle


async def test_head_and_framing_count_apart() -> None:
    """A head and a chunk extension that are together above the limit are each below it."""
    connection, idle = connected(Wire())
    future = connection.begin(b"GET", b"", None)
    connection.data_received(CHUNKED_HEAD[:-2] + b"A: " + b"a" * 900 + b"\r\n\r\n")
    connection.data_received(b"1;x=" + b"y" * 900)
    connection.data_received(b"\r\nx\r\n0\r\n\r\n")
    assert future.result().take_all() == b"x"
    assert idle


async def test_connection_reads_again_after_an_answer_that_was_not_read() -> None:
    """An answer that is complete while its reader is slow leaves a connection that works."""
    wire = Wire()
    connection, idle = connected(wire)
    connection.begin(b"GET", b"", None)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 800000\r\n\r\n" + b"x" * 700_000)
    connection.data_received(b"x" * 100_000)
    assert wire.calls == ["pause_reading", "resume_reading"]
    assert idle


@pytest.mark.parametrize(
    "wire",
    [b"1;x=" + b"y" * 2000, b"1\r\nx\r\n0\r\nA: " + b"y" * 2000],
    ids=["chunk-extension", "trailer"],
)
async def test_endless_framing_is_cut_off(wire: bytes) -> None:
    """Chunk extensions and trailers cannot grow beyond the limit for heads."""
    connection, idle = connected(Wire())
    future = connection.begin(b"GET", b"", None)
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(wire), 100):
        connection.data_received(wire[at : at + 100])
    with pytest.raises(BrokenOff):
        await read(future.result())
    assert not idle


BROKEN = {
    "short-of-length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", b"hel"),
    "no-last-chunk": (CHUNKED_HEAD + b"3\r\nhel\r\n", b"hel"),
    "inside-a-chunk": (CHUNKED_HEAD + b"5\r\nhel", b"hel"),
    "inside-the-trailers": (CHUNKED_HEAD + b"3\r\nhel\r\n0\r\nA: b\r\n", b"hel"),
    "bad-chunk-size": (CHUNKED_HEAD + b"3\r\nhel\r\nzz\r\nlo\r\n0\r\n\r\n", b"hel"),
    "chunk-longer-than-its-size": (CHUNKED_HEAD + b"3\r\nhello\r\n0\r\n\r\n", b"hel"),
    "unknown-coding": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhel", b"hel"),
}


@pytest.mark.parametrize(("wire", "arrived"), BROKEN.values(), ids=BROKEN)
@on_both_loops
async def test_broken_off_answer_is_never_shorter_and_valid(wire: bytes, arrived: bytes) -> None:
    """What arrived is passed on, then the reader learns that the rest will not come."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine)
        peer = await stage.peer()
        await peer.head()
        peer.send(wire)
        peer.close()
        answer = await sending
        received: list[bytes] = []
        with pytest.raises(BrokenOff):
            await read(answer, received)
        assert b"".join(received) == arrived
        assert not answer.body_complete
        assert engine.stats["connections_idle"] == 0


@on_both_loops
async def test_reset_breaks_off_an_answer_that_ends_with_the_connection() -> None:
    """An answer without framing is whole after an orderly end only."""
    async with Stage() as stage:
        sending = get(stage.engine())
        peer = await stage.peer()
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        answer = await sending
        pieces = aiter(answer.chunks())
        assert await anext(pieces) == b"hel"
        peer.reset()
        with pytest.raises(BrokenOff):
            await anext(pieces)


# --- connections, and when a request is sent again


@on_both_loops
async def test_connection_is_reused() -> None:
    """Ten requests after each other take one connection."""
    async with Stage() as stage:
        engine = stage.engine()
        peer = await warmed_up(stage, engine)
        for _ in range(9):
            sending = get(engine)
            await peer.head()
            peer.send(OK)
            assert (await sending).take_all() == b"hi"
        assert len(stage.accepted) == 1
        assert engine.stats == {
            "connections_open": 1,
            "connections_idle": 1,
            "connects_total": 1,
            "reuses_total": 9,
            "stale_retries_total": 0,
        }


@on_both_loops
async def test_concurrent_requests_take_a_connection_each() -> None:
    """Answers come on the connection of their request, and no more than pool_size connections are kept."""
    async with Stage() as stage:
        engine = stage.engine(pool_size=2)
        sending = [get(engine) for _ in range(3)]
        peers = [await stage.peer() for _ in range(3)]
        for peer in peers:
            await peer.head()
            peer.send(OK)
        for task in sending:
            assert (await task).take_all() == b"hi"
        await until(lambda: engine.stats["connections_open"] == 2)
        assert engine.stats["connections_idle"] == 2


@pytest.mark.parametrize(
    "extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"H", b"\0"], ids=["answer", "byte", "nul"]
)
@on_both_loops
async def test_connection_with_more_than_one_answer_is_not_reused(extra: bytes) -> None:
    """Bytes after an answer, which the next caller would get, end the connection."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine)
        peer = await stage.peer()
        await peer.head()
        peer.send(OK + extra)
        assert (await sending).take_all() == b"hi"
        assert engine.stats["connections_idle"] == 0
        assert await peer.rest() == b""


@pytest.mark.parametrize(
    "extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"H", b"\0"], ids=["answer", "byte", "nul"]
)
@on_both_loops
async def test_a_long_answer_with_more_behind_it_is_not_reused(extra: bytes) -> None:
    """The same where the end of the body comes in a later segment, which the parser does not see."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine)
        peer = await stage.peer()
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        answer = await sending
        peer.send(b"hello" + extra)
        assert b"".join([piece async for piece in answer.chunks()]) == b"hellohello"
        assert engine.stats["connections_idle"] == 0
        assert await peer.rest() == b""


@on_both_loops
async def test_idle_connection_that_speaks_is_dropped() -> None:
    """A server that says 408 to an idle connection is not taken to answer the next request."""
    async with Stage() as stage:
        engine = stage.engine()
        peer = await warmed_up(stage, engine)
        peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        assert await peer.rest() == b""
        await until(lambda: engine.stats["connections_open"] == 0)
        await warmed_up(stage, engine)


@pytest.mark.parametrize("method", [b"GET", b"POST"], ids=["get", "post"])
@on_both_loops
async def test_connection_closed_while_idle_is_seen(method: bytes) -> None:
    """A request of any method takes a new connection if the idle one has ended."""
    async with Stage() as stage:
        engine = stage.engine()
        (await warmed_up(stage, engine)).close()
        await until(lambda: engine.stats["connections_open"] == 0)
        sending = get(engine, method)
        peer = await stage.peer()
        await peer.head()
        peer.send(OK)
        assert (await sending).take_all() == b"hi"
        assert engine.stats["stale_retries_total"] == 0


@pytest.mark.parametrize(
    ("method", "body"),
    [
        pytest.param(b"GET", None, id="get"),
        pytest.param(b"PUT", Given([b"abc"], 3, replayable=False), id="small-put"),
        pytest.param(b"PUT", big(20_000_000), id="large-put"),
    ],
)
@on_both_loops
async def test_idempotent_request_is_repeated_on_a_fresh_connection(
    method: bytes, body: Given | None
) -> None:
    """A reused connection that ends before a byte of the answer costs one repetition."""
    async with Stage() as stage:
        engine = stage.engine()
        stale = await warmed_up(stage, engine)
        sending = get(engine, method, body)
        await stale.head()
        stale.reset()
        peer = await stage.peer()
        await peer.head()
        if body is not None and body.length is not None:
            assert len(await peer.receive(body.length)) == body.length
        peer.send(OK)
        assert (await sending).take_all() == b"hi"
        assert engine.stats["stale_retries_total"] == 1


@pytest.mark.parametrize(
    ("method", "body"),
    [
        pytest.param(b"POST", None, id="post"),
        pytest.param(b"PATCH", Given([b"abc"], 3), id="patch"),
        pytest.param(b"PUT", Given([b"x" * 70_000], 70_000, replayable=False), id="put-not-replayable"),
    ],
)
@on_both_loops
async def test_other_requests_are_not_repeated(method: bytes, body: Given | None) -> None:
    """What may have taken effect, or cannot be sent again, is refused instead."""
    async with Stage() as stage:
        engine = stage.engine()
        stale = await warmed_up(stage, engine)
        sending = get(engine, method, body)
        await stale.head()
        stale.reset()
        with pytest.raises(UpstreamUnreachable, match="closed the connection before it answered"):
            await sending
        assert len(stage.accepted) == 1


@on_both_loops
async def test_fresh_connection_is_not_tried_twice() -> None:
    """A GET that a fresh connection does not answer is refused: the upstream has a reason."""
    async with Stage() as stage:
        sending = get(stage.engine())
        peer = await stage.peer()
        await peer.head()
        peer.close()
        with pytest.raises(UpstreamUnreachable):
            await sending
        assert len(stage.accepted) == 1


@on_both_loops
async def test_answer_that_breaks_off_in_its_head_is_not_repeated() -> None:
    """From the first byte of an answer on a request counts as answered, on reused connections too."""
    async with Stage() as stage:
        engine = stage.engine()
        peer = await warmed_up(stage, engine)
        sending = get(engine)
        await peer.head()
        peer.send(b"HTTP/1.1 200")
        peer.close()
        with pytest.raises(UpstreamUnreachable, match="in the head"):
            await sending
        assert len(stage.accepted) == 1


@pytest.mark.parametrize("closing_before", [True, False], ids=["before", "while"])
async def test_request_that_was_not_written_may_be_repeated(closing_before: bool) -> None:
    """A connection that ends before anything was written says so, whatever the method."""
    wire = Wire()
    connection, _ = connected(wire)
    if closing_before:
        wire.close()
    future = connection.begin(b"POST", b"head", Given([b"x"], None))
    if not closing_before:
        connection.connection_lost(None)
    with pytest.raises(ClosedEarly) as caught:
        await future
    await connection.upload_ended()
    assert not caught.value.written
    assert not wire.sent


@on_both_loops
async def test_connection_that_is_closing_is_not_taken() -> None:
    """Between the decision to close and the end of the connection the pool does not hand it out."""
    async with Stage() as stage:
        engine = stage.engine()
        await warmed_up(stage, engine)
        sending = get(engine, b"POST")
        engine._idle[0].close()
        peer = await stage.peer()
        await peer.head()
        peer.send(OK)
        assert (await sending).take_all() == b"hi"
        assert engine.stats["stale_retries_total"] == 0


async def test_connection_that_is_lost_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that ends before its request can begin is refused, and not counted as open."""
    wire = Wire()
    connection, _ = connected(wire)

    async def lose(_: Dialer, __: object) -> Connection:
        wire.close()
        connection.connection_lost(None)
        return connection

    monkeypatch.setattr(Dialer, "dial", lose)
    async with Stage() as stage:
        engine = stage.engine()
        with pytest.raises(UpstreamUnreachable, match="closed the connection"):
            await engine.send(b"GET", b"/", lines(HOST), None)
        assert engine.stats["connections_open"] == 0


@pytest.mark.parametrize(
    ("keepalive_s", "hint"),
    [(0.0, b""), (60.0, b"Keep-Alive: max=5, Timeout=1\r\n")],
    ids=["own-limit", "limit-of-the-upstream"],
)
@on_both_loops
async def test_connection_is_not_kept_beyond_its_time(keepalive_s: float, hint: bytes) -> None:
    """Neither our own limit nor the one that the upstream announces is used up to the end."""
    async with Stage() as stage:
        engine = stage.engine(keepalive_s=keepalive_s)
        for _ in range(2):
            sending = get(engine)
            peer = await stage.peer()
            await peer.head()
            peer.send(b"HTTP/1.1 200 OK\r\n" + hint + b"Content-Length: 2\r\n\r\nhi")
            assert (await sending).take_all() == b"hi"
        assert engine.stats["reuses_total"] == 0


@on_both_loops
async def test_connection_is_not_used_beyond_its_age() -> None:
    """However busy it is, a connection ends in time, and never all of them at once."""
    async with Stage() as stage:
        engine = stage.engine(max_age_s=0.0)
        for _ in range(2):
            await warmed_up_without_reuse(stage, engine)
        engine = stage.engine(max_age_s=1000.0)
        sending = [get(engine) for _ in range(20)]
        for _ in sending:
            peer = await stage.peer()
            await peer.head()
            peer.send(OK)
        assert len(await asyncio.gather(*sending)) == 20
        now = asyncio.get_running_loop().time()
        left = [connection.ends_at - now for connection in engine._open]
        assert all(890 < left_s < 1100 for left_s in left)
        assert max(left) - min(left) > 20


async def warmed_up_without_reuse(stage: Stage, engine: Upstream) -> None:
    """One exchange is done, and its connection closed in good order."""
    sending = get(engine)
    peer = await stage.peer()
    await peer.head()
    peer.send(OK)
    assert (await sending).take_all() == b"hi"
    assert engine.stats["connections_idle"] == 0
    assert await peer.rest() == b""


@on_both_loops
async def test_new_addresses_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new connection asks for the name's addresses, so that a move of the upstream is followed."""
    loop = asyncio.get_running_loop()
    async with Stage() as before, Stage() as after:
        ports = [before.port, after.port]
        asked: list[str] = []

        async def resolve(host: str, *_: object, **__: object) -> list[tuple[Any, ...]]:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", ports.pop(0)))]

        patched = type("Loop", (), {"__getattr__": lambda _, name: getattr(loop, name)})()
        patched.getaddrinfo = resolve
        engine = before.engine(host="api.example", max_age_s=0.0, private_networks=LOOPBACK)
        with monkeypatch.context() as patch:
            patch.setattr("proxy.upstream.dialing.asyncio.get_running_loop", lambda: patched)
            await warmed_up_without_reuse(before, engine)
            await warmed_up_without_reuse(after, engine)
        assert asked == ["api.example", "api.example"]


@on_both_loops
async def test_idle_connections_are_swept() -> None:
    """Connections that nobody needs any more are closed without a request."""
    async with Stage() as stage:
        engine = stage.engine(keepalive_s=0.05, idle_s=0.2)
        peer = await warmed_up(stage, engine)
        assert await peer.rest() == b""
        await until(lambda: engine.stats["connections_open"] == 0)
        assert engine.stats["connections_idle"] == 0


@on_both_loops
async def test_close_ends_everything() -> None:
    """Closing drops idle connections, breaks off answers under way, and refuses further requests."""
    async with Stage() as stage:
        engine = stage.engine()
        idle = await warmed_up(stage, engine)
        sending, other = get(engine), get(engine, b"POST", Given([b"x"], None, hold=asyncio.Event()))
        await idle.head()
        busy = await stage.peer()
        await busy.head()
        idle.send(OK[:-1])
        answer = await sending
        await engine.close()
        with pytest.raises(BrokenOff):
            await read(answer)
        with pytest.raises(asyncio.CancelledError):
            await other
        with pytest.raises(UpstreamUnreachable, match="shutting down"):
            await engine.send(b"GET", b"/", lines(HOST), None)
        assert engine.stats["connections_open"] == 0


@on_both_loops
async def test_connection_that_was_being_opened_at_the_close_is_not_used() -> None:
    """A request that waits for its connection when the engine closes is refused, and nothing stays open."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine)
        await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(UpstreamUnreachable, match="shutting down"):
            await sending
        await until(lambda: engine.stats["connections_open"] == 0)


@on_both_loops
async def test_close_does_not_wait_for_a_silent_peer(authority: Authority) -> None:
    """A peer that does not finish TLS in good order delays the close by a sweep, not by its time-out."""
    async with Stage(tls=authority.server) as stage:
        engine = stage.engine(scheme="https", host="localhost", trust=authority.client, idle_s=0.2)
        peer = await warmed_up(stage, engine)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.wait_for(engine.close(), 5)
        assert engine.stats["connections_open"] == 0


# --- failures to connect


@on_both_loops
async def test_refused_connection() -> None:
    """A port that nobody listens on is named with the origin."""
    async with Stage() as stage:
        with socket.create_server(("127.0.0.1", 0)) as free:
            stage.port = free.getsockname()[1]
        with pytest.raises(UpstreamUnreachable) as caught:
            await stage.engine().send(b"GET", b"/", lines(HOST), None)
        assert caught.value.detail == f"http://127.0.0.1:{stage.port}: connection refused"


@on_both_loops
async def test_unresolved_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is told from a server that is down; the resolver's text is not shown."""

    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "secret text")

    async with Stage() as stage:
        loop = asyncio.get_running_loop()
        patched = type("Loop", (), {"__getattr__": lambda _, name: getattr(loop, name)})()
        patched.getaddrinfo = fail
        with monkeypatch.context() as patch:
            patch.setattr("proxy.upstream.dialing.asyncio.get_running_loop", lambda: patched)
            with pytest.raises(UpstreamUnreachable) as caught:
                await stage.engine(host="api.invalid").send(b"GET", b"/", lines(HOST), None)
        assert caught.value.detail == f"http://api.invalid:{stage.port}: name not resolved"


@on_both_loops
async def test_impossible_name() -> None:
    """A host name that DNS cannot carry is a name that does not resolve."""
    async with Stage() as stage:
        with pytest.raises(UpstreamUnreachable, match="name not resolved"):
            await stage.engine(host="a" * 64 + ".example").send(b"GET", b"/", lines(HOST), None)


@on_both_loops
async def test_connecting_is_bounded() -> None:
    """A server that accepts and then says nothing to the TLS handshake is given up after connect_s."""
    async with Stage() as stage:
        engine = stage.engine(scheme="https", connect_s=0.2)
        with pytest.raises(UpstreamUnreachable, match="no connection in time"):
            await engine.send(b"GET", b"/", lines(HOST), None)


@on_both_loops
async def test_plain_text_instead_of_tls() -> None:
    """A server that does not speak TLS is never spoken to without."""
    async with Stage() as stage:
        sending = get(stage.engine(scheme="https"))
        peer = await stage.peer()
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(UpstreamUnreachable, match="TLS handshake failed"):
            await sending


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.found(tmp_path_factory.mktemp("tls"))


@on_both_loops
async def test_tls_with_trusted_authority(authority: Authority) -> None:
    """With the CA trusted, exchanges go over TLS and the connection is kept, large answers included."""
    async with Stage(tls=authority.server) as stage:
        engine = stage.engine(scheme="https", host="localhost", trust=authority.client)
        peer = await warmed_up(stage, engine)
        sending = get(engine)
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        assert await read(await sending) == b"x" * 3_000_000
        assert engine.stats["connections_idle"] == 1


@on_both_loops
async def test_tls_answer_that_ends_with_the_connection(authority: Authority) -> None:
    """Over TLS, too, an answer without framing is whole when the connection ends."""
    async with Stage(tls=authority.server) as stage:
        sending = get(stage.engine(scheme="https", host="localhost", trust=authority.client))
        peer = await stage.peer()
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nall")
        peer.close()
        assert await read(await sending) == b"all"


@pytest.mark.parametrize(
    ("host", "trusted"),
    [("localhost", False), ("127.0.0.1", True)],
    ids=["unknown-authority", "other-name"],
)
@on_both_loops
async def test_tls_certificate_not_accepted(authority: Authority, host: str, trusted: bool) -> None:
    """An unknown CA or another name in the certificate ends the attempt before anything is sent."""
    async with Stage(tls=authority.server) as stage:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's failed handshake
        engine = stage.engine(scheme="https", host=host, trust=authority.client if trusted else None)
        with pytest.raises(UpstreamUnreachable, match="certificate not accepted"):
            await engine.send(b"GET", b"/", lines(HOST), None)
        assert not stage.accepted


@on_both_loops
async def test_ipv6_literal() -> None:
    """An origin given as IPv6 address is reached."""
    try:
        stage = await Stage("::1").__aenter__()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(stage)
        await warmed_up(stage, stage.engine())


@on_both_loops
async def test_small_segments_are_not_delayed() -> None:
    """TCP_NODELAY is set on the engine's sockets."""
    async with Stage() as stage:
        engine = stage.engine()
        await warmed_up(stage, engine)
        (connection,) = engine._open
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# --- time


@on_both_loops
async def test_silence_before_the_answer() -> None:
    """An upstream that says nothing for idle_s is given up, and its connection closed."""
    async with Stage() as stage:
        sending = get(stage.engine(idle_s=0.2))
        peer = await stage.peer()
        with pytest.raises(UpstreamTimeout, match=r"silent for 0\.2 s"):
            await sending
        assert (await peer.rest()).startswith(b"GET")


@on_both_loops
async def test_slow_answer_is_bounded_in_whole() -> None:
    """Interim answers that keep coming do not extend an exchange beyond total_s."""

    async def trickle(peer: Peer) -> None:
        while True:
            peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.02)

    async with Stage() as stage:
        sending = get(stage.engine(idle_s=0.2, total_s=0.5))
        trickling = asyncio.create_task(trickle(await stage.peer()))
        with pytest.raises(UpstreamTimeout, match=r"longer than 0\.5 s"):
            await sending
        trickling.cancel()


@on_both_loops
async def test_silence_in_the_body_breaks_off() -> None:
    """After the head, silence can only become a broken connection."""
    async with Stage() as stage:
        sending = get(stage.engine(idle_s=0.2))
        peer = await stage.peer()
        await peer.head()
        peer.send(OK[:-1])
        answer = await sending
        with pytest.raises(BrokenOff):
            await read(answer)
        assert await peer.rest() == b""


async def test_silence_counts_only_while_it_is_the_upstreams() -> None:
    """A slow reader of the answer and a slow sender of the request are not held against the upstream."""
    wire = Wire()
    connection, _ = connected(wire)
    future = connection.begin(b"GET", b"", None)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 800_000)
    assert wire.calls == ["pause_reading"]
    later = asyncio.get_running_loop().time() + 10  # idle_s is 5
    connection.expire(later)
    answer = await future
    assert len(await anext(aiter(answer.chunks()))) == 800_000
    assert wire.calls == ["pause_reading", "resume_reading"]
    connection.expire(later)
    with pytest.raises(BrokenOff):
        await read(answer)

    connection, _ = connected(Wire())
    body = Given([b"x"], None, hold=asyncio.Event())
    future = connection.begin(b"POST", b"", body)
    await until(lambda: body.handed_out == 1)
    connection.expire(later)
    assert not future.done()
    connection.expire(later + 20)  # total_s is 20
    with pytest.raises(UpstreamTimeout):
        await future
    await connection.upload_ended()


# --- an upstream that gives no answers


async def fail(stage: Stage, engine: Upstream, times: int) -> None:
    """Let requests fail on fresh connections."""
    for _ in range(times):
        sending = get(engine)
        (await stage.peer()).close()
        with pytest.raises(UpstreamUnreachable, match="closed the connection"):
            await sending


async def answer(stage: Stage, engine: Upstream, wire: bytes = OK) -> None:
    """Let a request be answered on a fresh connection, which then ends."""
    sending = get(engine)
    peer = await stage.peer()
    await peer.head()
    peer.send(wire)
    (await sending).abort()
    peer.close()
    await until(lambda: engine.stats["connections_open"] == 0)


async def refusal(engine: Upstream) -> UpstreamUnreachable:
    """The refusal of a request that opens no connection."""
    connects = engine.stats["connects_total"]
    with pytest.raises(UpstreamUnreachable, match="none is sent until it has been tried again") as caught:
        await engine.send(
            b"POST", b"/", lines(HOST), Given([], 5, error=AssertionError("the body was asked for"))
        )
    assert engine.stats["connects_total"] == connects
    return caught.value


@on_both_loops
async def test_circuit_opens_and_closes() -> None:
    """After five failures requests are refused at once, until one probe has shown that answers come again."""
    async with Stage() as stage:
        engine = stage.engine()
        await fail(stage, engine, 5)
        origin = f"http://127.0.0.1:{stage.port}"
        reason = f"{origin} closed the connection before it answered"
        assert stage.facts == [CircuitOpened(origin, 5, reason, 5.0)]
        assert (await refusal(engine)).retry_after_s == 5
        stage.now += 5
        probe = get(engine)
        peer = await stage.peer()
        await peer.head()
        assert (await refusal(engine)).retry_after_s == 1
        peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        assert (await probe).status == 503
        assert stage.facts[1:] == [CircuitClosed(origin, 5.0)]
        sending = get(engine)
        await peer.head()
        peer.send(OK)
        assert (await sending).take_all() == b"hi"


@on_both_loops
async def test_failed_probe_opens_the_circuit_for_longer() -> None:
    """As long as probes fail, the pauses between them double."""
    async with Stage() as stage:
        engine = stage.engine()
        await fail(stage, engine, 5)
        stage.now += 5
        await fail(stage, engine, 1)
        assert (await refusal(engine)).retry_after_s == 10
        assert [type(fact) for fact in stage.facts] == [CircuitOpened, CircuitOpened]
        stage.now += 10
        await answer(stage, engine)
        assert stage.facts[2:] == [CircuitClosed(f"http://127.0.0.1:{stage.port}", 15.0)]


@pytest.mark.parametrize("why", ["cancelled", "body", "slow-caller"])
@on_both_loops
async def test_probe_that_ends_for_reasons_of_its_own_is_replaced(why: str) -> None:
    """A probe that its caller gives up, or whose body fails, leaves the place to the next request."""
    async with Stage() as stage:
        engine = stage.engine(total_s=0.3 if why == "slow-caller" else 60)
        await fail(stage, engine, 5)
        stage.now += 5
        hold = asyncio.Event()
        probe = get(engine, b"POST", Given([b"x"], None, error=BodyTooLarge("too large"), hold=hold))
        await (await stage.peer()).head()
        await refusal(engine)
        if why == "cancelled":
            probe.cancel()
        elif why == "body":
            hold.set()
        with pytest.raises((asyncio.CancelledError, BodyTooLarge, UpstreamTimeout)):
            await probe
        await answer(stage, engine)
        assert isinstance(stage.facts[-1], CircuitClosed)


@on_both_loops
async def test_silence_counts_as_failure() -> None:
    """An upstream that accepts requests and answers none of them in time is left alone too."""
    async with Stage() as stage:
        engine = stage.engine(idle_s=0.05)
        for _ in range(5):
            with pytest.raises(UpstreamTimeout):
                await get(engine)
        await refusal(engine)


@on_both_loops
async def test_refused_connections_count_as_failures() -> None:
    """A port that nobody listens on is not knocked at by every request."""
    async with Stage() as stage:
        with socket.create_server(("127.0.0.1", 0)) as free:
            stage.port = free.getsockname()[1]
        engine = stage.engine()
        for _ in range(5):
            with pytest.raises(UpstreamUnreachable, match="connection refused"):
                await get(engine)
        await refusal(engine)


@on_both_loops
async def test_only_failures_in_a_row_count() -> None:
    """Any answer starts the count anew; bad answers, stale connections and callers' faults are no outage."""
    async with Stage() as stage:
        engine = stage.engine()
        await fail(stage, engine, 4)
        await answer(stage, engine, b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
        await fail(stage, engine, 4)
        with pytest.raises(BodyTooLarge):
            await get(engine, b"POST", Given([b"x" * 70_000], 70_001, error=BodyTooLarge("too large")))
        await stage.peer()
        for _ in range(2):
            sending = get(engine)
            peer = await stage.peer()
            await peer.head()
            peer.send(b"SSH-2.0\r\n\r\n")
            with pytest.raises(UpstreamUnreachable, match="not valid"):
                await sending
        assert stage.facts == []
        assert engine._breaker.failures == 4
        stale = await warmed_up(stage, engine)
        sending = get(engine, b"POST")
        await stale.head()
        stale.reset()
        with pytest.raises(UpstreamUnreachable):
            await sending
        assert engine._breaker.failures == 0


# --- uploads


@on_both_loops
async def test_answer_may_come_before_the_request_is_complete() -> None:
    """An early 401 is returned while the upload goes on, and giving it up ends the upload visibly."""
    async with Stage() as stage:
        body = Given([b"first"], None, hold=asyncio.Event())
        sending = get(stage.engine(), b"POST", body)
        peer = await stage.peer()
        await peer.head()
        peer.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n")
        answer = await sending
        assert answer.status == 401
        assert not body.ended.is_set()
        answer.abort()
        await body.ended.wait()
        assert await peer.rest() == b"5\r\nfirst\r\n"
        with pytest.raises(BrokenOff):
            await read(answer)


@on_both_loops
async def test_early_answer_that_is_complete_ends_the_upload() -> None:
    """A whole answer stays readable; its connection, with half a request on it, is not reused."""
    async with Stage() as stage:
        engine = stage.engine()
        body = Given([b"x" * 70_000], 100_000, hold=asyncio.Event())
        sending = get(engine, b"POST", body)
        peer = await stage.peer()
        await peer.head()
        peer.send(OK)
        answer = await sending
        assert engine.stats["connections_idle"] == 0
        assert answer.take_all() == b"hi"
        await body.ended.wait()
        assert len(await peer.rest()) <= 70_000
        await until(lambda: engine.stats["connections_open"] == 0)


@on_both_loops
async def test_upload_goes_on_after_an_early_head() -> None:
    """A request that is completed after the head of its answer leaves a reusable connection."""
    async with Stage() as stage:
        engine = stage.engine()
        body = Given([b"x"], None, hold=asyncio.Event())
        sending = get(engine, b"POST", body)
        peer = await stage.peer()
        await peer.head()
        peer.send(OK[:-2])
        answer = await sending
        assert body.hold is not None
        body.hold.set()
        assert await peer.receive(11) == b"1\r\nx\r\n0\r\n\r\n"
        peer.send(b"hi")
        assert await read(answer) == b"hi"
        assert engine.stats["connections_idle"] == 1


@pytest.mark.parametrize(
    ("length", "sent"), [(None, b"5\r\nfirst\r\n"), (100_000, b"first")], ids=["chunked", "content-length"]
)
@on_both_loops
async def test_error_of_the_body_comes_out_unchanged(length: int | None, sent: bytes) -> None:
    """What the body raises is raised by send(), and the upstream sees an incomplete request."""
    async with Stage() as stage:
        error = BodyTooLarge("too large")
        body = Given([b"first"], length, error=error, hold=asyncio.Event())
        sending = get(stage.engine(), b"POST", body)
        peer = await stage.peer()
        await peer.head()
        assert await peer.receive(len(sent)) == sent
        assert body.hold is not None
        body.hold.set()
        with pytest.raises(BodyTooLarge) as caught:
            await sending
        assert caught.value is error
        assert await peer.rest() == b""


@on_both_loops
async def test_error_of_a_small_body_opens_no_connection() -> None:
    """A small body is read before a connection is taken, so its failure costs the upstream nothing."""
    async with Stage() as stage:
        engine = stage.engine()
        with pytest.raises(BodyTooLarge):
            await engine.send(b"POST", b"/", lines(HOST), Given([b"a"], 2, error=BodyTooLarge("too large")))
        assert engine.stats["connects_total"] == 0


@on_both_loops
async def test_error_of_the_body_after_the_head_breaks_the_answer_off() -> None:
    """A caller that leaves in mid-upload takes a started answer with it."""
    async with Stage() as stage:
        body = Given([b"first"], None, error=ConnectionResetError(), hold=asyncio.Event())
        sending = get(stage.engine(), b"POST", body)
        peer = await stage.peer()
        await peer.head()
        peer.send(OK[:-1])
        answer = await sending
        assert body.hold is not None
        body.hold.set()
        with pytest.raises(BrokenOff):
            await read(answer)


@pytest.mark.parametrize(
    ("pieces", "length"),
    [([b"a"], 2), ([b"abc"], 2), ([b"a" * 60_000], 70_000), ([b"a" * 60_000] * 2, 70_000)],
    ids=["small-short", "small-long", "large-short", "large-long"],
)
@on_both_loops
async def test_body_of_another_length_is_an_error(pieces: list[bytes], length: int) -> None:
    """Bytes beyond or below the announced length never reach the upstream as a complete request."""
    async with Stage() as stage:
        engine = stage.engine()
        with pytest.raises(ValueError, match="request body"):
            await get(engine, b"POST", Given(pieces, length))
        for peer in stage.accepted:
            assert len(await peer.rest()) < length + 100
        assert engine.stats["connections_idle"] == 0


async def test_first_piece_goes_out_with_the_head() -> None:
    """A piece of the body that is there at once shares the first write with the head."""
    wire = Wire()
    connection, _ = connected(wire)
    future = connection.begin(b"POST", b"head|", Given([b"abc"], None))
    await until(lambda: len(wire.sent) == 2)
    assert wire.sent == [b"head|3\r\nabc\r\n", b"0\r\n\r\n"]
    connection.data_received(OK)
    assert (await future).take_all() == b"hi"


async def test_head_does_not_wait_for_a_slow_body() -> None:
    """Without a piece at hand the head goes out alone, so that an early refusal is possible."""
    wire = Wire()
    connection, _ = connected(wire)
    connection.begin(b"POST", b"head|", Given([], None, hold=asyncio.Event()))
    await until(lambda: bool(wire.sent))
    assert wire.sent == [b"head|"]
    connection.abort()
    await connection.upload_ended()


async def test_upload_waits_for_a_slow_upstream() -> None:
    """No piece is asked from the caller while the transport is above its high-water mark."""
    wire = Wire()
    connection, _ = connected(wire)
    body = big(10_000_000)
    connection.begin(b"POST", b"", body)
    connection.pause_writing()
    await until(lambda: bool(wire.sent))
    for _ in range(10):
        await asyncio.sleep(0)
    assert body.handed_out == 50_000
    connection.resume_writing()
    await connection.upload_ended()
    assert body.handed_out == 10_000_000
    connection.abort()


@on_both_loops
async def test_large_upload_arrives_whole() -> None:
    """Twenty megabytes arrive through a peer that reads slowly."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine, b"PUT", big(20_000_000))
        peer = await stage.peer()
        await peer.head()
        received = 0
        while received < 20_000_000:
            received += len(await peer.receive(100_000))
        peer.send(OK)
        assert (await sending).take_all() == b"hi"
        assert engine.stats["connections_idle"] == 1


# --- bodies that are held back


def hold_back(engine: Upstream, body: Body, method: bytes = b"POST") -> asyncio.Task[Answer]:
    """Start a request whose body waits for 100; the test goes on as the upstream."""
    headers = [*HOST, (b"Expect", b"100-continue")]
    if body.length is not None:
        headers.append((b"Content-Length", b"%d" % body.length))
    return asyncio.create_task(
        coroutine(engine.send(method, b"/v1/things", lines(headers), body, wait_for_continue=True))
    )


@pytest.mark.parametrize(
    ("length", "wire"), [(2, b"hi"), (None, b"2\r\nhi\r\n0\r\n\r\n")], ids=["content-length", "chunked"]
)
@on_both_loops
async def test_body_is_held_back_until_the_upstream_wants_it(length: int | None, wire: bytes) -> None:
    """Nothing of the body is asked for before 100 Continue; other interim answers do not count."""
    async with Stage() as stage:
        engine = stage.engine()
        body = Given([b"hi"], length)
        sending = hold_back(engine, body)
        peer = await stage.peer()
        await peer.head()
        peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        (connection,) = engine._open
        await until(lambda: connection._heard)
        assert not body.under_way
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.receive(len(wire)) == wire
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)  # a second one changes nothing
        assert (await sending).take_all() == b"hi"
        assert engine.stats["connections_idle"] == 1
        assert body.handed_out == len(b"hi")


@pytest.mark.parametrize("wire", [OK, OK[:-1]], ids=["whole", "head"])
@on_both_loops
async def test_final_answer_comes_before_the_body(wire: bytes) -> None:
    """A final answer in place of 100: the body is never read, and the connection not used again."""
    async with Stage() as stage:
        engine = stage.engine()
        body = Given([b"hi"], 2)
        sending = hold_back(engine, body)
        peer = await stage.peer()
        await peer.head()
        peer.send(wire)
        answer = await sending
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"[len(wire) :])
        assert await read(answer) == b"hi"
        assert await peer.rest() == b""
        assert engine.stats["connections_idle"] == 0
        assert not body.handed_out


@on_both_loops
async def test_wait_for_100_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that says nothing gets the body after a while."""
    monkeypatch.setattr("proxy.upstream.upload.CONTINUE_S", 0.05)
    async with Stage() as stage:
        engine = stage.engine()
        sending = hold_back(engine, Given([b"hi"], 2))
        peer = await stage.peer()
        await peer.head()
        assert await peer.receive(2) == b"hi"
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)  # too late, and harmless
        assert (await sending).take_all() == b"hi"
        assert engine.stats["connections_idle"] == 1


@on_both_loops
async def test_held_back_request_is_cancelled() -> None:
    """A caller that leaves while its body is held back leaves nothing behind."""
    async with Stage() as stage:
        engine = stage.engine()
        body = Given([b"hi"], 2)
        sending = hold_back(engine, body)
        peer = await stage.peer()
        await peer.head()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await peer.rest() == b""
        assert not body.handed_out


@on_both_loops
async def test_head_alone_is_repeated_whatever_the_method() -> None:
    """A stale connection costs a held-back POST nothing: without its body it cannot have taken effect."""
    async with Stage() as stage:
        engine = stage.engine()
        stale = await warmed_up(stage, engine)
        sending = hold_back(engine, Given([b"hi"], 2))
        await stale.head()
        stale.reset()
        peer = await stage.peer()
        await peer.head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.receive(2) == b"hi"
        peer.send(OK)
        assert (await sending).take_all() == b"hi"


# --- slow readers, and callers that leave


@on_both_loops
async def test_slow_reader_holds_the_upstream_back() -> None:
    """Fifty megabytes pass while no more than the high-water mark and one read are in memory."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine)
        peer = await stage.peer()
        await peer.head()
        size = 50 * 1024 * 1024
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)

        async def produce() -> None:
            for _ in range(size // 65536):
                peer.send(b"x" * 65536)
                await peer.writer.drain()

        producing = asyncio.create_task(produce())
        answer = await sending
        received = 0
        async for piece in answer.chunks():
            received += len(piece)
            for _ in range(5):  # turns of the loop in which the upstream could send more
                await asyncio.sleep(0)
                assert answer.buffered <= HIGH_WATER + 256 * 1024
        await producing
        assert received == size
        assert engine.stats["connections_idle"] == 1


@on_both_loops
async def test_cancelled_request_closes_its_connection() -> None:
    """A caller that leaves before the answer cancels the upstream request."""
    async with Stage() as stage:
        engine = stage.engine()
        body = Given([b"first"], None, hold=asyncio.Event())
        sending = get(engine, b"POST", body)
        peer = await stage.peer()
        await peer.head()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await body.ended.wait()
        assert b"0\r\n\r\n" not in await peer.rest()


@pytest.mark.parametrize(
    ("wire", "idle"), [(OK, 1), (OK[:-1], 0)], ids=["complete-answer", "unfinished-answer"]
)
async def test_cancellation_in_the_moment_of_the_answer(wire: bytes, idle: int) -> None:
    """Cancelled after the head came but before it was handed over: only an unfinished answer is cut off."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine)
        peer = await stage.peer()
        await peer.head()
        (connection,) = engine._open
        connection.data_received(wire)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert engine.stats["connections_idle"] == idle


@on_both_loops
async def test_aborted_answer_closes_its_connection() -> None:
    """Whoever gives up an answer gets no more of it, and the connection is not reused."""
    async with Stage() as stage:
        engine = stage.engine()
        sending = get(engine)
        peer = await stage.peer()
        await peer.head()
        peer.send(OK[:-1])
        answer = await sending
        answer.abort()
        assert await peer.rest() == b""
        await until(lambda: engine.stats["connections_open"] == 0)
