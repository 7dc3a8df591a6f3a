"""The accepting side's limits, and the places where it leans on aiohttp's inner workings."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from time import monotonic

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

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
    now = asyncio.get_running_loop().time()
    assert not connection.is_slow(now + 3600)  # type: ignore[attr-defined] # it is one of ours
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


def test_aiohttp_still_has_what_the_listener_leans_on() -> None:
    """An upgrade of aiohttp that changes what proxy/listener.py and proxy/response.py use is seen here."""
    assert list(inspect.signature(RequestHandler.handle_error).parameters) == [
        "self",
        "request",
        "status",
        "exc",
        "message",
    ]
    accepted = inspect.signature(RequestHandler.__init__).parameters
    for name in ("keepalive_timeout", "lingering_time", "max_line_size", "max_field_size", "max_headers"):
        assert name in accepted
    assert accepted["auto_decompress"].default is True
    assert {"_current_request", "_messages"} <= set(RequestHandler.__slots__)
    assert "(_ErrInfo(status=400, exc=exc, message=exc.message), EMPTY_PAYLOAD)" in inspect.getsource(
        RequestHandler.data_received
    )
    assert LineTooLong(b"x", 7).args[1] == 7
    assert {"prepare", "write", "write_eof", "keep_alive", "prepared"} <= set(dir(web.StreamResponse))
    source = inspect.getsource(RequestHandler)
    assert "self._keepalive = bool(resp.keep_alive)" in source
    assert "await prepare_meth(request)" in source
    assert "await resp.write_eof()" in source
