"""Callers that are slow, that take nothing, or that send too much of everything.

The oracle: each of them is refused by name or cut within its limit, what it holds is freed, it costs a
bounded amount of memory, and another caller is served meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from time import monotonic

import pytest

from proxy.sandbox import Sandbox
from tests.harness import Proxy, running_proxy, until

LIMITS = {"head_s": 0.4, "idle_s": 0.5, "upstream_connect_s": 1.5, "upstream_total_s": 1.5}
HEAD = b"Host: 127.0.0.1\r\n"
MANY = 40
MOST_S = 8.0
"""How long a connection may outlive the limits above on a busy machine; the sweep comes once a second."""


@pytest.fixture
async def hasty(pleo: Sandbox, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy that waits for nothing longer than a second, with acme connected."""
    pleo.switches.rate_limit_per_minute = None
    async with running_proxy(pleo, tmp_path, limits=LIMITS) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        yield proxy


async def drips(proxy: Proxy, before: bytes, drop: bytes) -> float:
    """Send, then go on drop by drop until the proxy ends the connection; the seconds that it took."""
    reader, writer = await asyncio.open_connection(*proxy.address)
    began = monotonic()
    writer.write(before)
    reading = asyncio.create_task(reader.read())
    try:
        async with asyncio.timeout(MOST_S):
            while not reading.done():
                writer.write(drop)
                await asyncio.sleep(0.02)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.transport.abort()
    return monotonic() - began


SLOW = {
    "request-line": (b"G", b""),
    "target": (b"GET /acme/v1/", b"x"),
    "field-name": (b"GET /acme/v1/x HTTP/1.1\r\n" + HEAD, b"x"),
    "field-value": (b"GET /acme/v1/x HTTP/1.1\r\n" + HEAD + b"X: ", b"y"),
    "fields": (b"GET /acme/v1/x HTTP/1.1\r\n" + HEAD, b"X: y\r\n"),
    "empty-lines": (b"", b"\r\n"),
    "half-an-empty-line": (b"\r", b""),
    "body": (b"POST /acme/v1/sandbox/echo HTTP/1.1\r\nContent-Length: 9999\r\n" + HEAD + b"\r\n", b"x"),
    "silent-body": (b"POST /acme/v1/sandbox/echo HTTP/1.1\r\nContent-Length: 9999\r\n" + HEAD + b"\r\n", b""),
    "chunks": (
        b"POST /acme/v1/sandbox/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n",
        b"1\r\nx\r\n",
    ),
    "chunk-extension": (
        b"POST /acme/v1/sandbox/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n1;",
        b"x",
    ),
    "trailers": (
        b"POST /acme/v1/sandbox/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n0\r\n",
        b"X: y\r\n",
    ),
    "refused-body": (b"POST /nobody/v1/x HTTP/1.1\r\nContent-Length: 9999\r\n" + HEAD + b"\r\n", b"x"),
}


@pytest.mark.parametrize(("before", "drop"), SLOW.values(), ids=SLOW)
async def test_a_slow_sender_is_cut(hasty: Proxy, before: bytes, drop: bytes) -> None:
    """However a request is dragged out, its connection ends, and others are served all the while."""
    dripping = [asyncio.create_task(drips(hasty, before, drop)) for _ in range(MANY)]
    await until(lambda: len(hasty.app.server.connections) >= MANY)
    answer = await hasty.get("/acme/v2/employees?limit=1")
    assert answer.status == 200
    assert max(await asyncio.gather(*dripping)) < MOST_S
    await until(lambda: not hasty.app.exchange.under_way)


async def held_until_cut(proxy: Proxy, data: bytes) -> int:
    """Send, read nothing, and wait until the proxy gives up; the most bytes that it held for the caller."""
    _, writer = await asyncio.open_connection(*proxy.address, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's transports can
    known = set(proxy.app.server.connections)
    writer.write(data)
    await until(lambda: set(proxy.app.server.connections) - known or proxy.app.exchange.under_way)
    held, ends = 0, monotonic() + MOST_S
    while proxy.app.server.connections:
        assert monotonic() < ends, "a caller that takes nothing is kept"
        for connection in proxy.app.server.connections:
            held = max(held, connection._transport.get_write_buffer_size())
        await asyncio.sleep(0.01)
    writer.transport.abort()
    return held


def ask(size: int, times: int = 1) -> bytes:
    return b"GET /acme/v1/sandbox/bytes?size=%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % size * times


async def test_a_caller_that_never_reads_its_answer_is_cut(hasty: Proxy) -> None:
    """Within limits.idle_s without taking anything the connection ends, and the request at Pleo with it."""
    held = await held_until_cut(hasty, ask(64 * 1024 * 1024))
    assert held < 2 * 1024 * 1024
    await until(lambda: not hasty.app.exchange.under_way)
    await until(lambda: hasty.lines("request.finished"))
    assert hasty.lines("request.finished")[-1]["outcome"] == "caller_left"


async def test_pipelined_requests_without_a_reader_fill_no_memory(hasty: Proxy) -> None:
    """No request is begun while the answer to the last one waits for a caller that takes nothing."""
    before = len(hasty.pleo.api_requests)
    held = await held_until_cut(hasty, ask(100_000, times=500))
    assert held < 2 * 1024 * 1024
    assert len(hasty.pleo.api_requests) - before < 120


async def test_a_connection_over_the_limit_that_says_nothing_is_closed_soon(
    pleo: Sandbox, tmp_path: Path
) -> None:
    """Those that are within the limit may be silent for limits.idle_s; one too many has no such time."""
    async with running_proxy(pleo, tmp_path, limits={"connections": 2}) as proxy:
        within = [await asyncio.open_connection(*proxy.address) for _ in range(2)]
        await until(lambda: len(proxy.app.server.connections) == 2)
        began = monotonic()
        assert await proxy.raw(b"") == b""
        assert monotonic() - began < 5
        assert len(proxy.app.server.connections) == 2
        for _, writer in within:
            writer.close()


POST = b"POST /acme/v1/sandbox/echo HTTP/1.1\r\n" + HEAD
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024


def endless(piece: bytes, most: int = 40 * MIB) -> Iterable[bytes]:
    yield from (piece for _ in range(most // len(piece)))


LARGE = {
    "target": (b"GET /acme/", b"x" * 65536, 414, "target-too-long"),
    "method": (b"", b"G" * 65536, 400, "target-refused"),
    "field-value": (b"GET /acme/v1/x HTTP/1.1\r\n" + HEAD + b"X: ", b"y" * 65536, 431, "head-too-large"),
    "field-name": (b"GET /acme/v1/x HTTP/1.1\r\n" + HEAD, b"X" * 65536, 431, "head-too-large"),
    "fields": (b"GET /acme/v1/x HTTP/1.1\r\n" + HEAD, b"X: y\r\n" * 9000, 431, "head-too-large"),
    "announced-body": (POST + b"Content-Length: %d\r\n\r\n" % 10**12, b"x" * 65536, 413, "body-too-large"),
    "chunked-body": (CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n", 413, "body-too-large"),
    "one-chunk": (CHUNKED + b"ffffffffffff\r\n", b"x" * 65536, 413, "body-too-large"),
    "tiny-chunks": (CHUNKED, b"1\r\nx\r\n" * 10_000, 413, "body-too-large"),
    "chunk-size": (CHUNKED, b"0" * 65536, 400, "target-refused"),
    "chunk-extension": (CHUNKED + b"1;", b"x" * 65536, 400, "target-refused"),
    "trailer": (CHUNKED + b"0\r\nX: ", b"y" * 65536, 400, "target-refused"),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 9000, 400, "target-refused"),
}


@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE)
async def test_what_is_too_large_is_refused_by_name(
    pleo: Sandbox, tmp_path: Path, case: tuple[bytes, bytes, int, str]
) -> None:
    """A part of a request without end is refused at its limit, long before the sender has sent it all."""
    before, piece, status, name = case
    async with running_proxy(pleo, tmp_path, limits={"body_bytes": "1 MiB"}) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        reader, writer = await asyncio.open_connection(*proxy.address)
        reading = asyncio.create_task(reader.read())
        writer.write(before)
        sent = 0
        for data in endless(piece):
            if reading.done() or writer.is_closing():
                break
            writer.write(data)
            sent += len(data)
            try:
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0)
        (answer,) = await asyncio.gather(reading, return_exceptions=True)
        writer.transport.abort()
        await until(lambda: proxy.lines("request.finished"))
        line = proxy.lines("request.finished")[-1]
        assert (line["status"], line["outcome"]) == (status, name)
        # What a caller sends past the end may reset its connection before it has read.
        if not isinstance(answer, BaseException):
            assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert not [
            request for request in pleo.api_requests if request.status == 200 and "echo" in request.target
        ]
        assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
