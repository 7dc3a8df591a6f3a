"""Connections to the operator's listener: what is too slow, too large, too many."""

from __future__ import annotations

import asyncio
import gzip
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from proxy import listing
from proxy.admin import HeadLimits, Listener, connections, forms
from proxy.facts import AdminLoginFailed
from proxy.model import Tenant
from proxy.sandbox import Sandbox
from tests.harness import ADMIN_TOKEN, Proxy, running_proxy, until
from tests.operator_browser import OWN_PAGE, ask

PATIENCE_S = 0.4
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
async def hasty(pleo: Sandbox, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy that waits for nobody for long."""
    async with running_proxy(pleo, tmp_path, limits={"idle_s": PATIENCE_S}) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = proxy.app.admin_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()


async def say(proxy: Proxy, data: bytes) -> bytes:
    """Bytes on a new connection, and all that comes back until it is closed."""
    async with connected(proxy) as (reader, writer):
        writer.write(data)
        return await reader.read()


async def test_a_connection_that_says_nothing_is_closed(hasty: Proxy) -> None:
    """It is told nothing, since it asked nothing."""
    assert await say(hasty, b"") == b""


async def test_a_slow_head_is_cut(hasty: Proxy) -> None:
    """However steadily its bytes come: who takes longer than a head may take is cut."""
    async with connected(hasty) as (reader, writer):
        read = asyncio.create_task(reader.read())
        writer.write(HEAD)
        began = asyncio.get_running_loop().time()
        while not read.done():
            writer.write(b"X-Slow: 1\r\n")
            await asyncio.wait({read}, timeout=0.05)
        assert PATIENCE_S / 2 < asyncio.get_running_loop().time() - began < 5
        with suppress(ConnectionError):  # where bytes were on their way
            assert read.result() == b""


async def test_a_second_head_is_as_bounded_as_the_first(hasty: Proxy) -> None:
    """A connection that was answered once has no longer for its next request."""
    async with connected(hasty) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"}\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(HEAD)
        with suppress(ConnectionError):  # where the bytes were still on their way
            assert await reader.read() == b""


async def test_a_slow_form_is_cut(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form whose body does not come in time is refused, and counts as no try."""
    monkeypatch.setattr(forms, "_FORM_S", 0.2)
    lines = ["POST /login HTTP/1.1", "Host: localhost", "Sec-Fetch-Site: same-origin"]
    lines += ["Content-Type: application/x-www-form-urlencoded", "Content-Length: 100", "", "token="]
    async with connected(proxy) as (reader, writer):
        writer.write("\r\n".join(lines).encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    assert not any(isinstance(fact, AdminLoginFailed) for fact in proxy.facts)


async def test_an_answer_that_is_not_read_is_given_up(hasty: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for much and takes nothing holds no connection."""
    rows = listing.tenants([Tenant("acme")], {})
    monkeypatch.setattr(listing, "tenants", lambda *_: [{**rows[0], "routes": ["x" * 20_000_000]}])
    host, _, port = hasty.app.admin_address.rpartition(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, int(port)))
        head = HEAD.replace(b"/healthz", b"/api/v1/tenants")
        sock.send(head + f"Authorization: Bearer {ADMIN_TOKEN}\r\n\r\n".encode())
        poll = select.poll()
        poll.register(sock, 0)  # errors and a reset are told unasked
        await until(lambda: poll.poll(0))


async def test_the_last_bytes_of_an_answer_are_not_kept_for_ever() -> None:
    """An answer that is sent but for what the other side does not take ends with its connection, too."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 60_000)

    app = web.Application()
    app.router.add_get("/", answer)
    listener = await Listener.open(app, "127.0.0.1", 0, HeadLimits(8192, 100, PATIENCE_S))
    try:
        # Inherited by its connections, so that the system does not take the whole answer.
        listener._listening.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", listener.name[1]))
            sock.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            poll = select.poll()
            poll.register(sock, 0)
            await until(lambda: poll.poll(0))
    finally:
        await listener.close()


async def test_connections_over_the_limit_are_told_so(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """They get 503 at once, those that are there go on, and one that leaves makes room."""
    monkeypatch.setattr(connections, "CONNECTIONS", 2)
    await proxy.session.close()  # whose connections would count
    async with connected(proxy) as (first, to_first):
        to_first.write(HEAD + b"\r\n")
        assert (await first.readline()).startswith(b"HTTP/1.1 200 ")
        async with connected(proxy) as (second, to_second):
            to_second.write(HEAD + b"\r\n")
            assert (await second.readline()).startswith(b"HTTP/1.1 200 ")
            answer = await say(proxy, b"")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert answer.endswith(b"\r\n\r\nToo many connections\n")
            to_first.write(HEAD + b"\r\n")
            await first.readuntil(b"}\n")
            assert (await first.readuntil(b"}\n")).startswith(b"HTTP/1.1 200 ")
        # Waiting in line until the one that left is gone.
        answers = [await say(proxy, HEAD + b"Connection: close\r\n\r\n") for _ in range(20)]
        assert answers[-1].startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n", 431, id="target"),
        pytest.param(HEAD + b"X-Long: " + b"a" * 9000 + b"\r\n", 431, id="field"),
        pytest.param(HEAD + b"X: y\r\n" * 200, 400, id="fields"),
        pytest.param(HEAD + b"Host: localhost\r\n", 400, id="two-hosts"),
        pytest.param(HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400, id="cl.te"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n", 400, id="no-host"),
        pytest.param(b"GET /healthz HTTP/1.0\r\n", 200, id="no-host-in-1.0"),
    ],
)
async def test_heads_are_bounded_and_strict(proxy: Proxy, head: bytes, status: int) -> None:
    """What is too large or malformed is refused with a problem document, and the connection ends."""
    answer = await say(proxy, head + b"Connection: close\r\n\r\n")
    assert int(answer.split()[1]) == status
    if status != 200:
        assert b"\r\nContent-Type: application/problem+json\r\n" in answer
        assert b"aaaa" not in answer


async def test_a_packed_form_is_not_unpacked(proxy: Proxy) -> None:
    """A small body that would become a large one stays as small as it came."""
    packed = gzip.compress(f"token={ADMIN_TOKEN}".encode())
    headers = {
        **OWN_PAGE,
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Encoding": "gzip",
    }
    answer = await ask(proxy, "POST", "/login", headers=headers, data=packed)
    assert answer.status == 403
