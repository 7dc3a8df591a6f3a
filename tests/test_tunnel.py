"""An HTTP proxy on the way to Pleo: what it is told, what goes through it, and how it can fail."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.errors import UpstreamUnreachable
from proxy.headers import lines
from proxy.model import HttpProxy, Origin, Outcome, Secret
from proxy.oauth import TokenFailure, TokenPair
from proxy.provider import Provider, Registration
from proxy.upstream import Headers
from tests.authority import Authority
from tests.playbook import caller, http, stage, upstream
from tests.test_upstream import OK, Peer, Stage, get, on_both_loops, read, warmed_up

CREDENTIALS = Secret("pröxy:pass:word")
BASIC = b"Basic " + b64encode("pröxy:pass:word".encode())
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
TOKEN: Headers = [(b"Host", b"localhost"), (b"Authorization", b"Bearer the-token")]


class Tunnels:
    """An HTTP proxy whose answers to CONNECT are given; what it is sent, and what it passes on, is kept."""

    def __init__(self, answer: bytes = ESTABLISHED) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.passed = b""
        """What went through the tunnels towards the origin."""
        self.ends = True
        """Close where no tunnel was opened."""
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @asynccontextmanager
    async def running(self, port_of_origin: int) -> AsyncIterator[HttpProxy]:
        self._origin_port = port_of_origin
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield HttpProxy("127.0.0.1", server.sockets[0].getsockname()[1], CREDENTIALS)
        finally:
            server.close()
            for writer in self._open.values():
                writer.transport.abort()
            await asyncio.gather(*self._open)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            if self.answer.endswith(ESTABLISHED):
                await self._pass_on(reader, writer)
            elif not self.ends:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            await ended(writer)
            del self._open[task]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._origin_port)

        async def copy(source: asyncio.StreamReader, sink: Callable[[bytes], None]) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink(data)

        def towards_the_origin(data: bytes) -> None:
            self.passed += data
            back.write(data)

        ways = [
            asyncio.create_task(copy(reader, towards_the_origin)),
            asyncio.create_task(copy(there, writer.write)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await ended(back)


async def ended(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until nothing of the connection is left."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.found(tmp_path_factory.mktemp("tls"))


def connect_request(host: bytes, port: int, credentials: bytes = BASIC) -> bytes:
    target = b"%b:%d" % (host, port)
    return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: %b\r\n\r\n" % (
        target,
        target,
        credentials,
    )


# --- the upstream engine


@on_both_loops
async def test_tls_goes_through_a_tunnel_that_sees_nothing(authority: Authority) -> None:
    """The proxy learns host and port; token, request and answer pass it encrypted, checked for the origin."""
    async with Stage(tls=authority.server) as stage:
        tunnels = Tunnels()
        async with tunnels.running(stage.port) as http_proxy:
            engine = stage.engine(
                scheme="https", host="localhost", trust=authority.client, http_proxy=http_proxy
            )
            sending = asyncio.create_task(engine.send(b"GET", b"/secret-path", lines(TOKEN), None))
            peer = await stage.peer()
            head = await peer.head()
            assert b"Authorization: Bearer the-token\r\n" in head
            assert b"Proxy-Authorization" not in head
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
            assert await read(await sending) == b"x" * 300_000
            assert engine.stats["connections_idle"] == 1
            await engine.close()
    assert tunnels.requests == [connect_request(b"localhost", stage.port)]
    assert tunnels.passed[0] == 22  # a TLS handshake, from the first byte on
    for secret in (b"the-token", b"secret-path", b"GET", b"300000"):
        assert secret not in tunnels.passed


@on_both_loops
async def test_the_certificate_is_the_origins(authority: Authority) -> None:
    """What the tunnel leads to must prove to be the origin, however it was reached."""
    async with Stage(tls=authority.server) as stage:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's failed handshake
        tunnels = Tunnels()
        async with tunnels.running(stage.port) as http_proxy:
            engine = stage.engine(
                scheme="https", host="pleo.example", trust=authority.client, http_proxy=http_proxy
            )
            with pytest.raises(UpstreamUnreachable, match="certificate not accepted"):
                await engine.send(b"GET", b"/", lines(TOKEN), None)
            assert not stage.accepted
            assert b"the-token" not in tunnels.passed


@on_both_loops
async def test_plain_http_goes_through_a_tunnel_too() -> None:
    """An origin on loopback is reached in the same way; its name is resolved at the proxy."""
    async with Stage() as stage:
        tunnels = Tunnels(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ESTABLISHED)
        async with tunnels.running(stage.port) as http_proxy:
            engine = stage.engine(host="api.invalid", http_proxy=http_proxy)
            await warmed_up(stage, engine)
            await engine.close()
    assert tunnels.requests == [connect_request(b"api.invalid", stage.port)]
    assert b"Proxy-Authorization" not in tunnels.passed


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
@on_both_loops
async def test_authority_form_and_no_credentials(host: str) -> None:
    """The target is host and port in any case; without credentials none are sent."""
    async with Stage() as stage:
        tunnels = Tunnels()
        async with tunnels.running(stage.port) as http_proxy:
            engine = stage.engine(host=host, http_proxy=HttpProxy("localhost", http_proxy.port))
            await warmed_up(stage, engine)
            await engine.close()
    shown = b"[::1]" if ":" in host else host.encode()
    target = b"%b:%d" % (shown, stage.port)
    assert tunnels.requests == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target)]


REFUSALS = {
    "authentication": (b"HTTP/1.1 407 Secret Words\r\nProxy-Authenticate: Basic\r\n\r\n", "answered 407"),
    "forbidden": (b"HTTP/1.0 403 No\r\nContent-Length: 6\r\n\r\n<html>", "answered 403"),
    "bad-gateway": (b"HTTP/1.1 502\r\n\r\n", "answered 502"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", "answered 302"),
    "no-http": (b"SSH-2.0-OpenSSH\r\n\r\n", "sent an answer that is not HTTP/1.1"),
    "endless-head": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 30_000, "sent a head of more than 16384 bytes"),
    "more-than-a-head": (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "sent more than its answer"),
}


@pytest.mark.parametrize(("answer", "kind"), REFUSALS.values(), ids=REFUSALS)
@on_both_loops
async def test_a_tunnel_that_is_refused(answer: bytes, kind: str) -> None:
    """Whatever the proxy says instead of 2xx is named by its kind, without a word of its text."""
    async with Stage() as stage:
        tunnels = Tunnels(answer)
        async with tunnels.running(stage.port) as http_proxy:
            engine = stage.engine(host="api.example", http_proxy=http_proxy)
            with pytest.raises(UpstreamUnreachable) as caught:
                await engine.send(b"GET", b"/", lines(TOKEN), None)
        assert caught.value.detail == f"http://api.example:{stage.port}: the HTTP proxy {kind}"
        assert not stage.accepted


@on_both_loops
async def test_a_proxy_that_is_silent_or_leaves() -> None:
    """Waiting for the tunnel is part of connecting, and bounded with it."""
    async with Stage() as stage:
        for ends, kind in ((False, "no connection in time"), (True, "connection closed while it was set up")):
            tunnels = Tunnels(b"HTTP/1.1 200")
            tunnels.ends = ends
            async with tunnels.running(stage.port) as http_proxy:
                engine = stage.engine(host="api.example", connect_s=0.2, http_proxy=http_proxy)
                with pytest.raises(UpstreamUnreachable) as caught:
                    await engine.send(b"GET", b"/", lines(TOKEN), None)
            assert caught.value.detail.endswith(f": {kind} (through the HTTP proxy)")


@on_both_loops
async def test_a_proxy_that_is_not_there() -> None:
    """A refused connection is the proxy's, and said to be."""
    async with Stage() as stage, Tunnels().running(stage.port) as http_proxy:
        gone = http_proxy
    async with Stage() as stage:
        with pytest.raises(UpstreamUnreachable, match=r"connection refused \(through the HTTP proxy\)"):
            await get(stage.engine(http_proxy=gone))
        assert not stage.accepted


@on_both_loops
async def test_a_cancelled_tunnel_leaves_nothing_open() -> None:
    """A caller that leaves while the proxy thinks closes the connection to it."""
    async with Stage() as stage:
        engine = stage.engine(host="api.example", http_proxy=HttpProxy("127.0.0.1", stage.port))
        sending = get(engine)
        peer = await stage.peer()
        assert (await peer.head()).startswith(b"CONNECT api.example:")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await peer.rest() == b""


# --- the token endpoint

PAIR = b'{"access_token":"a","refresh_token":"r","expires_in":900}'
GRANTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(PAIR),
    PAIR,
)


@asynccontextmanager
async def provider_through(
    http_proxy: HttpProxy, token_url: str, context: ssl.SSLContext, connect_s: float = 5
) -> AsyncIterator[Provider]:
    provider = Provider(
        Registration("id", Secret("client-secret"), "basic", token_url, "https://proxy.example/cb"),
        api=Origin("https", "localhost", 1),
        ssl_context=context,
        connect_s=connect_s,
        timeout_s=10,
        emit=lambda _: None,
        http_proxy=http_proxy,
    )
    try:
        yield provider
    finally:
        await provider.close()


async def test_a_refresh_goes_through_a_tunnel_that_sees_nothing(authority: Authority) -> None:
    """Client secret and refresh token pass the proxy encrypted; the credentials for it stay with it."""
    async with Stage(tls=authority.server) as stage:
        tunnels = Tunnels()
        url = f"https://localhost:{stage.port}/token"
        async with (
            tunnels.running(stage.port) as http_proxy,
            provider_through(http_proxy, url, authority.client) as provider,
        ):
            refreshing = asyncio.create_task(provider.refresh(Secret("the-refresh-token")))
            peer = await stage.peer()
            head = await peer.head()
            assert b"proxy-authorization" not in head.lower()
            peer.send(GRANTED)
            assert await refreshing == TokenPair(Secret("a"), Secret("r"), 900.0)
    (request,) = tunnels.requests
    assert request.startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % stage.port)
    assert b"Proxy-Authorization: " + BASIC + b"\r\n" in request
    for secret in (b"the-refresh-token", b"client-secret", b"POST"):
        assert secret not in tunnels.passed + request


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "proxy_refused", id="authentication"),
        pytest.param(b"HTTP/1.1 502 No\r\n\r\n", "proxy_refused", id="bad-gateway"),
        pytest.param(b"", "connect_failed", id="leaves"),
        pytest.param(b"SSH-2.0\r\n\r\n", "connect_failed", id="no-http"),
    ],
)
async def test_a_refresh_without_a_tunnel_was_not_sent(
    authority: Authority, answer: bytes, error: str
) -> None:
    """Whatever goes wrong before the tunnel is there leaves the refresh token unused."""
    async with (
        Tunnels(answer).running(0) as http_proxy,
        provider_through(http_proxy, "https://localhost:1/token", authority.client) as provider,
    ):
        assert await provider.refresh(Secret("r")) == TokenFailure(Outcome.NOT_SENT, error)


async def test_a_refresh_before_a_silent_proxy_was_not_sent(authority: Authority) -> None:
    """Waiting for the tunnel counts as connecting."""
    tunnels = Tunnels(b"")
    tunnels.ends = False
    async with (
        tunnels.running(0) as http_proxy,
        provider_through(
            http_proxy, "https://localhost:1/token", authority.client, connect_s=0.1
        ) as provider,
    ):
        assert await provider.refresh(Secret("r")) == TokenFailure(Outcome.NOT_SENT, "connect_timeout")


async def test_a_refresh_that_was_cut_after_the_tunnel_is_unknown(authority: Authority) -> None:
    """Once it was sent through the tunnel, a broken connection tells nothing of the tokens."""
    async with Stage(tls=authority.server) as stage:
        url = f"https://localhost:{stage.port}/token"
        async with (
            Tunnels().running(stage.port) as http_proxy,
            provider_through(http_proxy, url, authority.client) as provider,
        ):
            refreshing = asyncio.create_task(provider.refresh(Secret("r")))
            peer: Peer = await stage.peer()
            await peer.head()
            peer.close()
            assert await refreshing == TokenFailure(Outcome.UNKNOWN, "connection_lost")


async def test_the_certificate_of_the_token_endpoint_is_checked_in_the_tunnel(authority: Authority) -> None:
    """A tunnel to somebody else gets no refresh token."""
    async with Stage(tls=authority.server) as stage:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's failed handshake
        url = f"https://pleo.example:{stage.port}/token"
        async with (
            Tunnels().running(stage.port) as http_proxy,
            provider_through(http_proxy, url, authority.client) as provider,
        ):
            assert await provider.refresh(Secret("r")) == TokenFailure(Outcome.NOT_SENT, "tls_failed")


async def test_an_answer_is_passed_whole_through_the_engine(authority: Authority) -> None:
    """A connection through a tunnel is kept and used again, as any other."""
    async with Stage(tls=authority.server) as stage:
        tunnels = Tunnels()
        async with tunnels.running(stage.port) as http_proxy:
            engine = stage.engine(
                scheme="https", host="localhost", trust=authority.client, http_proxy=http_proxy
            )
            peer = await warmed_up(stage, engine)
            sending = get(engine)
            await peer.head()
            peer.send(OK)
            assert (await sending).take_all() == b"hi"
            await engine.close()
    assert len(tunnels.requests) == 1


# --- the whole proxy


async def test_a_callers_request_goes_through_the_configured_proxy(tmp_path: Path) -> None:
    """The settings lead through the proxy, with the credentials from where they are kept."""
    tunnels = Tunnels()
    async with tunnels.running(0) as http_proxy:
        settings = {
            "http_proxy": f"http://127.0.0.1:{http_proxy.port}",
            "http_proxy_credentials": CREDENTIALS.reveal(),
        }
        async with stage(tmp_path, pleo=settings) as theatre:
            host, _, port = theatre.upstream_host.partition(b":")
            tunnels._origin_port = int(port)
            await theatre.play(
                caller >> b"GET /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: r-1\r\n\r\n",
                upstream << b"GET /v1/x HTTP/1.1\r\nHost: %b\r\nX-Request-Id: r-1\r\nVia: 1.1 pleo-proxy\r\n"
                b"Authorization: Bearer at-1\r\n\r\n" % theatre.upstream_host,
                upstream >> http(b"200 OK", b"[]"),
                caller << b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: r-1\r\n\r\n[]",
            )
            assert tunnels.requests == [connect_request(host, int(port))]
