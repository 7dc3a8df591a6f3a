"""The accepting side: what its limits cut, and what it holds back."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from time import monotonic

import pytest

from proxy.intake import HIGH_WATER
from proxy.listener import Connection
from proxy.sandbox import Sandbox
from tests.harness import Proxy, running_proxy, until


async def test_a_slow_head_is_cut(pleo: Sandbox, tmp_path: Path) -> None:
    """A head that does not come to an end within limits.head_s costs the caller its connection."""
    async with running_proxy(pleo, tmp_path, limits={"head_s": 0.2}) as proxy:
        started = monotonic()
        answer = await proxy.raw(b"GET /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Never: ")
        assert answer == b""
        assert monotonic() - started < 3


async def test_an_idle_connection_is_closed(pleo: Sandbox, tmp_path: Path) -> None:
    """A connection on which nothing is asked for is closed after limits.idle_s."""
    async with running_proxy(pleo, tmp_path, limits={"idle_s": 0.2}) as proxy:
        assert await proxy.raw(b"") == b""


async def test_a_long_upload_is_not_taken_for_a_slow_head(proxy: Proxy) -> None:
    """The time for a head ends with the head: a body may take longer."""
    reader, writer = await asyncio.open_connection(*proxy.address)
    writer.write(b"POST /acme/v1/sandbox/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\nab")
    await until(lambda: proxy.app.exchange.under_way)
    (connection,) = proxy.app.server.connections
    connection.expire(asyncio.get_running_loop().time() + 3600)
    writer.write(b"cd")
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.close()


async def test_connections_over_the_limit_are_told_so(pleo: Sandbox, tmp_path: Path) -> None:
    """One connection too many gets 503 with Retry-After; those within the limit go on."""
    async with running_proxy(pleo, tmp_path, limits={"connections": 1}) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        reader, writer = await asyncio.open_connection(*proxy.address)
        request = b"GET /acme/v2/employees?limit=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        writer.write(request)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        refused = await proxy.raw(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"Retry-After: 5\r\n" in refused
        assert b"/problems/overloaded" in refused
        writer.close()


async def test_a_head_in_pieces_is_one_head(proxy: Proxy) -> None:
    """However a head is cut, down to single bytes, it is the same request."""
    reader, writer = await asyncio.open_connection(*proxy.address)
    for byte in b"\r\nGET /acme/v1/sandbox/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n":
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()


async def test_pipelined_requests_are_held_at_their_sender(proxy: Proxy) -> None:
    """A flood of requests on one connection waits in the network, not in memory, and is answered in order."""
    one = b"GET /acme/v1/sandbox/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Pad: %b\r\n\r\n" % (b"x" * 4000)
    reader, writer = await asyncio.open_connection(*proxy.address)
    count = 200
    writer.write(one * count)
    (connection,) = proxy.app.server.connections
    most = 0
    for _ in range(count):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        most = max(most, len(connection._unread))
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
    assert HIGH_WATER / 2 < most < 3 * HIGH_WATER
    writer.close()


async def test_a_caller_that_does_not_take_its_answer_is_cut(pleo: Sandbox, tmp_path: Path) -> None:
    """A connection that was to close, and whose last bytes nobody takes, is not kept for ever."""
    async with running_proxy(pleo, tmp_path, limits={"idle_s": 0.2}) as proxy:
        server = proxy.app.server
        _, writer = await asyncio.open_connection(*proxy.address)
        await until(lambda: server.connections)
        (connection,) = server.connections
        writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's transports can
        connection.write(bytes(20_000_000))
        await until(lambda: not server.connections)
        writer.close()


async def test_a_caller_that_pauses_for_a_while_is_not_cut(proxy: Proxy) -> None:
    """Only when nothing was taken for limits.idle_s, from when there was something to take, it is over."""
    _, writer = await asyncio.open_connection(*proxy.address)
    writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's transports can
    size = 64 * 1024 * 1024
    writer.write(b"GET /acme/v1/sandbox/bytes?size=%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % size)
    server = proxy.app.server
    await until(lambda: any(connection._drained is not None for connection in server.connections))
    (connection,) = server.connections
    now = asyncio.get_running_loop().time()
    connection.expire(now + 50)
    assert not connection._transport.is_closing()
    connection.expire(now + 70)
    assert connection._transport.is_closing()
    writer.close()


async def test_a_refusal_reaches_a_caller_that_goes_on_sending(pleo: Sandbox, tmp_path: Path) -> None:
    """What comes behind a refused head is read for a while: closing at once would destroy the answer."""
    async with running_proxy(pleo, tmp_path, limits={"body_bytes": 1000}) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        with socket.create_connection(proxy.address) as caller:
            head = b"POST /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999\r\n\r\n"
            caller.sendall(head + bytes(100_000))
            # Read only when the proxy has nothing more to do with the connection.
            await until(lambda: proxy.lines("request.finished"))
            await asyncio.to_thread(caller.sendall, bytes(100_000))
            await until(lambda: not proxy.app.server.connections)
            answer = b""
            while piece := caller.recv(65536):
                answer += piece
            assert caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "it was reset"
        assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_defect_in_a_sweep_does_not_end_all_sweeping(
    pleo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails for a connection once is reported, and the slow ones are cut all the same."""
    real, failed = Connection.expire, False

    def fails_once(connection: Connection, now: float) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise RuntimeError
        real(connection, now)

    monkeypatch.setattr(Connection, "expire", fails_once)
    async with running_proxy(pleo, tmp_path, limits={"idle_s": 0.2}) as proxy:
        assert await proxy.raw(b"") == b""
        assert [line["error"] for line in proxy.lines("task.crashed")] == ["RuntimeError"]
