"""Where no token or secret can be led: by DNS that lies, by redirects, by servers that pretend to be Pleo."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy import wiring
from proxy.addresses import Destination
from proxy.config import Settings
from proxy.errors import UpstreamUnreachable
from proxy.facts import AddressRefused, Fact
from proxy.headers import lines
from proxy.model import HttpProxy, Origin, Outcome, Secret
from proxy.oauth import TokenFailure, TokenPair
from proxy.outbound import ForbiddenAddressError, Sockets
from proxy.provider import Provider, Registration
from proxy.upstream import Upstream
from tests.authority import Authority
from tests.playbook import caller, stage
from tests.test_provider import PAIR, Server, http
from tests.test_upstream import HOST, LOOPBACK, Stage, get, on_both_loops, warmed_up, warmed_up_without_reuse

PUBLIC = "93.184.216.34"
LEADS_ASTRAY = {
    "loopback": "127.0.0.1",
    "loopback-v6": "::1",
    "mapped-loopback": "::ffff:127.0.0.1",
    "any": "0.0.0.0",
    "private": "10.1.2.3",
    "shared": "100.64.0.1",
    "metadata": "169.254.169.254",
    "mapped-metadata": "::ffff:169.254.169.254",
    "metadata-v6": "fd00:ec2::254",
    "zone": "fe80::1%lo",
    "nat64": "64:ff9b::7f00:1",
    "6to4": "2002:7f00:1::1",
    "broadcast": "255.255.255.255",
}


class Network:
    """DNS that somebody else answers for, and the internet: all that is connected to is this machine.

    :param answers: addresses by look-up; the last of them is given for ever.
    """

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self._loop = asyncio.get_running_loop()
        self._resolve, self._connect = self._loop.getaddrinfo, self._loop.sock_connect
        self.lookups = 0
        self.connected: list[str] = []
        """Addresses to which a connection was asked for."""

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        if not str(host).endswith(".test"):
            return await self._resolve(host, port, type=socket.SOCK_STREAM)
        self.lookups += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in answer
        ]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.connected.append(address[0])
        host = "127.0.0.1" if sock.family == socket.AF_INET else "::ffff:127.0.0.1"
        await self._connect(sock, (host, address[1]))

    @contextmanager
    def in_force(self) -> Iterator[Network]:
        with pytest.MonkeyPatch.context() as patch:
            if isinstance(self._loop, uvloop.Loop):
                loop = self._loop
                stand_in = type("Loop", (), {"__getattr__": lambda _, name: getattr(loop, name)})()
                patch.setattr("proxy.upstream.dialing.asyncio.get_running_loop", lambda: stand_in)
                stand_in.getaddrinfo, stand_in.sock_connect = self.getaddrinfo, self.sock_connect
            else:
                patch.setattr(self._loop, "getaddrinfo", self.getaddrinfo)
                patch.setattr(self._loop, "sock_connect", self.sock_connect)
            yield self


@asynccontextmanager
async def provider_at(
    origin: Origin,
    *,
    api: Origin | None = None,
    facts: list[Fact] | None = None,
    context: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[Provider]:
    """A provider whose token endpoint, and API unless said otherwise, is at ``origin``."""

    async def no_pause(_: float) -> None:
        pass

    provider = Provider(
        Registration("id", Secret("the-secret"), "basic", f"{origin}/token", "https://proxy.example/cb"),
        api=api or origin,
        ssl_context=context or ssl.create_default_context(),
        connect_s=5.0,
        timeout_s=10.0,
        emit=lambda fact: None if facts is None else facts.append(fact),
        pause=no_pause,
        **options,
    )
    try:
        yield provider
    finally:
        await provider.close()


# --- DNS that lies


@pytest.mark.parametrize("address", LEADS_ASTRAY.values(), ids=LEADS_ASTRAY)
@on_both_loops
async def test_no_token_goes_where_dns_must_not_lead(address: str) -> None:
    """The API's name leads to an inner address: nobody is connected to, and the log says which one."""
    async with Stage() as stage:
        with Network([address]).in_force() as network:
            for _ in range(2):
                with pytest.raises(UpstreamUnreachable) as caught:
                    await stage.engine(host="api.test").send(b"GET", b"/", lines(HOST), None)
        assert caught.value.detail == (
            f"http://api.test:{stage.port}: the name leads to addresses that are not allowed"
        )
        assert address not in caught.value.detail
        assert (network.connected, stage.accepted) == ([], [])
        assert stage.facts[0] == AddressRefused("api.test", address)


@pytest.mark.parametrize("address", LEADS_ASTRAY.values(), ids=LEADS_ASTRAY)
async def test_no_secret_goes_where_dns_must_not_lead(address: str) -> None:
    """Nor do refresh token, client secret and a new token for its introspection; nothing counts as sent."""
    facts: list[Fact] = []
    async with Server(http(200, PAIR)).running() as server:
        origin = Origin("http", "auth.test", server.port)
        with Network([address]).in_force() as network:
            async with provider_at(origin, facts=facts) as provider:
                failure = await provider.refresh(Secret("r"))
                exchanged = await provider.exchange(Secret("code"), Secret("v" * 43))
                granted = await provider.granted_access(Secret("a"))
    assert failure == exchanged == TokenFailure(Outcome.NOT_SENT, "address_not_allowed")
    assert granted is None
    assert (network.connected, server.connections) == ([], 0)
    # Once for each of the two servers, however often it was tried.
    assert facts == [AddressRefused("auth.test", address)] * 2


@on_both_loops
async def test_the_allowed_of_several_addresses_is_used() -> None:
    """An inner address among others is left out and reported, whatever its place."""
    async with Stage() as stage:
        for answer in (["10.0.0.1", PUBLIC, "::1"], [PUBLIC, "10.0.0.1"], ["::1", "10.0.0.1", PUBLIC]):
            with Network(answer).in_force() as network:
                await warmed_up(stage, stage.engine(host="api.test"))
            assert network.connected == [PUBLIC]
        assert AddressRefused("api.test", "10.0.0.1") in stage.facts
        assert AddressRefused("api.test", "::1") in stage.facts


async def test_the_allowed_of_several_addresses_is_used_for_tokens() -> None:
    """The token endpoint is reached at the one address that counts."""
    facts: list[Fact] = []
    async with Server(http(200, PAIR)).running() as server:
        with Network(["10.0.0.1", PUBLIC, "::1"]).in_force() as network:
            async with provider_at(Origin("http", "auth.test", server.port), facts=facts) as provider:
                assert isinstance(await provider.refresh(Secret("r")), TokenPair)
    assert network.connected == [PUBLIC]
    assert AddressRefused("auth.test", "10.0.0.1") in facts


@pytest.mark.parametrize("several", [["10.0.0.1", "10.0.0.2"], ["10.0.0.1", "::1", "fd00::1", "127.0.0.1"]])
async def test_several_inner_addresses_are_as_good_as_one(several: list[str]) -> None:
    """That all are refused is told as such, and each of them once."""
    facts: list[Fact] = []
    async with Server().running() as server:
        origin = Origin("http", "auth.test", server.port)
        with Network(several).in_force() as network:
            async with provider_at(origin, facts=facts) as provider:
                failure = await provider.refresh(Secret("r"))
            engine = Upstream(origin, ssl_context=None, connect_s=5, idle_s=5, total_s=5, emit=facts.append)
            with pytest.raises(UpstreamUnreachable, match="not allowed"):
                await engine.send(b"GET", b"/", lines(HOST), None)
            await engine.close()
    assert failure == TokenFailure(Outcome.NOT_SENT, "address_not_allowed")
    assert network.connected == []
    assert sorted(str(fact) for fact in facts) == sorted(
        str(AddressRefused("auth.test", address)) for address in several * 2
    )


@on_both_loops
async def test_what_was_judged_is_what_is_connected_to() -> None:
    """Rebinding: a name that turns inward between look-ups is asked once for each connection, and judged."""
    async with Stage() as stage:
        engine = stage.engine(host="api.test", max_age_s=0.0)
        with Network([PUBLIC], ["127.0.0.1"]).in_force() as network:
            await warmed_up_without_reuse(stage, engine)
            assert (network.lookups, network.connected) == (1, [PUBLIC])
            with pytest.raises(UpstreamUnreachable, match="not allowed"):
                await engine.send(b"GET", b"/", lines(HOST), None)
        assert (network.lookups, network.connected) == (2, [PUBLIC])
        assert len(stage.accepted) == 1


async def test_what_was_judged_is_what_secrets_are_sent_to() -> None:
    """The token endpoint's name is not asked a second time between judging and connecting."""
    async with Server(http(200, PAIR)).running() as server:
        origin = Origin("http", "auth.test", server.port)
        with Network([PUBLIC], ["127.0.0.1"]).in_force() as network:
            async with provider_at(origin) as provider:
                assert isinstance(await provider.refresh(Secret("r")), TokenPair)
                assert (network.lookups, network.connected) == (1, [PUBLIC])
            async with provider_at(origin) as provider:
                assert await provider.refresh(Secret("r")) == TokenFailure(
                    Outcome.NOT_SENT, "address_not_allowed"
                )
    assert (network.connected, server.connections) == ([PUBLIC], 1)


@on_both_loops
async def test_private_networks_that_are_set_are_admitted() -> None:
    """Where the operator has a server in a network of his own, its name may lead there and not elsewhere."""
    async with Stage() as stage:
        with Network(["127.0.0.1"], ["10.0.0.1"]).in_force() as network:
            engine = stage.engine(host="api.test", private_networks=LOOPBACK, max_age_s=0.0)
            await warmed_up_without_reuse(stage, engine)
            with pytest.raises(UpstreamUnreachable, match="not allowed"):
                await engine.send(b"GET", b"/", lines(HOST), None)
        assert network.connected == ["127.0.0.1"]


async def test_each_server_has_a_rule_of_its_own() -> None:
    """That the API is on this machine does not let the token endpoint's name lead here, nor the reverse."""
    async with Server().running() as server:
        here, named = (Origin("http", host, server.port) for host in ("127.0.0.1", "pleo.test"))
        with Network(["127.0.0.1"]).in_force() as network:
            async with provider_at(named, api=here) as provider:
                failure = await provider.refresh(Secret("r"))
            async with provider_at(here, api=named) as provider:
                assert await provider.granted_access(Secret("a")) is None
    assert failure == TokenFailure(Outcome.NOT_SENT, "address_not_allowed")
    assert (network.connected, server.connections) == ([], 0)


def test_a_socket_is_for_the_address_that_was_judged() -> None:
    """Addresses that the operator wrote are judged too, and each socket is of its address's family."""
    sockets = Sockets(Destination("127.0.0.1"), lambda _: None)
    with pytest.raises(ForbiddenAddressError):
        sockets((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.2", 80)))
    with sockets((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 80))) as made:
        assert (made.family, made.type, made.proto) == (socket.AF_INET, socket.SOCK_STREAM, 6)
    sockets = Sockets(Destination("::1"), lambda _: None)
    with sockets((socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", 80, 0, 0))) as made:
        assert made.family == socket.AF_INET6


def test_reports_are_bounded() -> None:
    """An address is reported once while it recurs; ever new ones fill no memory."""
    facts: list[Fact] = []
    sockets = Sockets(Destination("api.test"), facts.append)
    for number in [1, 1, 2, 1, *range(3, 250)]:
        with pytest.raises(ForbiddenAddressError):
            sockets((socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{number}", 80)))
    assert facts == [AddressRefused("api.test", f"10.0.0.{number}") for number in range(1, 250)]
    assert len(sockets._told) <= 100


async def test_an_http_proxy_may_be_anywhere() -> None:
    """The first hop is the operator's own: its name may lead inward. What it leads on to, it decides."""
    async with Stage() as stage, asyncio.timeout(10):
        with Network(["127.0.0.1"]).in_force() as network:
            through = HttpProxy("proxy.test", stage.port)
            sending = get(stage.engine(host="api.test", http_proxy=through))
            peer = await stage.peer()
            assert (await peer.head()).startswith(b"CONNECT api.test:")
            peer.close()
            with pytest.raises(UpstreamUnreachable):
                await sending
            origin = Origin("https", "auth.test", 443)
            async with provider_at(origin, http_proxy=through) as provider:
                refreshing = asyncio.create_task(provider.refresh(Secret("r")))
                peer = await stage.peer()
                assert (await peer.head()).startswith(b"CONNECT auth.test:443")
                peer.close()
                assert (await refreshing) == TokenFailure(Outcome.NOT_SENT, "connect_failed")
        assert network.connected == ["127.0.0.1"] * 2


async def test_a_caller_is_told_and_the_log_says_where_it_led(tmp_path: Path) -> None:
    """The whole proxy: 502 for the caller without the address, which is the operator's to know."""
    async with Server().running() as server:
        pleo = {"api_url": f"https://api.test:{server.port}"}
        async with stage(tmp_path, pleo=pleo) as theatre:
            with Network(["10.9.8.7"]).in_force() as network:
                request = b"GET /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
                await theatre.play(caller >> request)
                answer = await theatre.receive(caller)
            problem = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert problem["type"].endswith("/problems/upstream-unreachable")
            assert "not allowed" in problem["detail"]
            assert b"10.9.8.7" not in answer
            assert AddressRefused("api.test", "10.9.8.7") in theatre.facts
    assert network.connected == ["127.0.0.1"]  # the caller's
    assert server.connections == 0


@pytest.mark.parametrize("private_networks", [["127.0.0.0/8"], []], ids=["set", "not set"])
async def test_the_settings_lead_to_both(tmp_path: Path, private_networks: list[str]) -> None:
    """``pleo.private_networks`` counts for the API and the token endpoint, and nothing else opens them."""
    authority = Authority.found(tmp_path, name="pleo.test")
    async with Server(*[http(200, PAIR)] * 2).running(authority.server) as server:
        url = f"https://pleo.test:{server.port}"
        settings = Settings.model_validate(
            {
                "pleo": {
                    "environment": "custom",
                    "client_id": "id",
                    "client_secret": "secret",
                    "api_url": url,
                    "authorize_url": f"{url}/authorize",
                    "token_url": f"{url}/token",
                    "ca_file": str(tmp_path / "ca.pem"),
                    "private_networks": private_networks,
                }
            }
        )
        context = wiring.tls_context(settings.pleo.ca_file)
        facts: list[Fact] = []
        provider = wiring.provider(settings, {}, context, None, facts.append)
        engine = wiring.upstream(settings, context, None, facts.append)
        with Network(["127.0.0.1"]).in_force():
            refreshed = await provider.refresh(Secret("r"))
            try:
                answered = (await engine.send(b"GET", b"/", lines(HOST), None)).status
            except UpstreamUnreachable:
                answered = 0
        await provider.close()
        await engine.close()
    if private_networks:
        assert isinstance(refreshed, TokenPair)
        assert answered == 200
        assert facts == []
    else:
        assert refreshed == TokenFailure(Outcome.NOT_SENT, "address_not_allowed")
        assert answered == 0
        assert facts == [AddressRefused("pleo.test", "127.0.0.1")] * 2
        assert server.connections == 0


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    """Token endpoint, introspection and API: wherever a 3xx points, even at the same server, nothing goes."""
    async with Server().running() as elsewhere, Server().running() as server:
        for target in (f"http://127.0.0.1:{elsewhere.port}/x", "/moved", f"//127.0.0.1:{elsewhere.port}/"):
            server._answers = [http(status, Location=target)] * 5
            server.requests.clear()
            origin = Origin("http", "127.0.0.1", server.port)
            engine = Upstream(origin, ssl_context=None, connect_s=5, idle_s=5, total_s=5, emit=lambda _: None)
            async with provider_at(origin) as provider:
                failure = await provider.refresh(Secret("r"))
                assert await provider.granted_access(Secret("a")) is None
                answer = await engine.send(b"GET", b"/v1/x", lines(HOST), None)
            await engine.close()
            assert failure == TokenFailure(Outcome.UNKNOWN, f"http_{status}_without_known_error")
            assert answer.status == status
            asked = [head[0].split(" ")[1] for head, _ in server.requests]
            assert asked == ["/token", *["/v1/introspect"] * 3, "/v1/x"]
    assert elsewhere.connections == 0


# --- callers


LURES = {
    "host": (b"/acme/v1/x", b"Host: %b\r\n"),
    "absolute-form": (b"http://%b/acme/v1/x", b"Host: %b\r\n"),
    "absolute-form-alone": (b"http://%b/acme/v1/x", b"Host: 127.0.0.1\r\n"),
    "double-slash": (b"/acme//%b/v1/x", b"Host: 127.0.0.1\r\n"),
    "url-for-a-path": (b"/acme/http://%b/v1/x", b"Host: 127.0.0.1\r\n"),
    "at-sign": (b"/acme/@%b/v1/x", b"Host: 127.0.0.1\r\n"),
    "at-sign-at-once": (b"/acme@%b/v1/x", b"Host: 127.0.0.1\r\nX-Pleo-Tenant: acme\r\n"),
    "forwarded": (b"/acme/v1/x", b"Host: 127.0.0.1\r\nX-Forwarded-Host: %b\r\nForwarded: host=%b\r\n"),
    "rewritten": (
        b"/acme/v1/x",
        b"Host: 127.0.0.1\r\nX-Original-URL: http://%b/\r\nX-Rewrite-URL: http://%b/\r\nX-Host: %b\r\n",
    ),
}


@pytest.mark.parametrize(("target", "fields"), LURES.values(), ids=LURES)
async def test_no_caller_moves_the_token(tmp_path: Path, target: bytes, fields: bytes) -> None:
    """Whatever a request names, its token reaches the one origin that is set, under that origin's name."""
    async with Server().running() as elsewhere, stage(tmp_path) as theatre:
        lure = b"127.0.0.1:%d" % elsewhere.port
        request = b"GET " + target + b" HTTP/1.1\r\n" + fields + b"\r\n"
        await theatre.play(caller >> request.replace(b"%b", lure))
        arrived, _ = await asyncio.wait_for(theatre.upstream.arrived.get(), 5)
        head = arrived.split(b"\r\n")
        assert [line for line in head if line.lower().startswith(b"host:")] == [
            b"Host: " + theatre.upstream_host
        ]
        assert head[0].split(b" ")[1].startswith(b"/")
        assert b"Authorization: Bearer at-1" in head
    assert elsewhere.connections == 0


# --- servers that only pretend

Attempt = Callable[[Origin, ssl.SSLContext], Awaitable[object]]


async def by_request(origin: Origin, context: ssl.SSLContext) -> object:
    engine = Upstream(origin, ssl_context=context, connect_s=5, idle_s=5, total_s=5, emit=lambda _: None)
    try:
        return (await engine.send(b"GET", b"/", lines(HOST), None)).status
    except UpstreamUnreachable as refusal:
        return refusal.detail.rpartition(": ")[2]
    finally:
        await engine.close()


async def by_refresh(origin: Origin, context: ssl.SSLContext) -> object:
    async with provider_at(origin, context=context) as provider:
        answer = await provider.refresh(Secret("r"))
        return answer if isinstance(answer, TokenPair) else answer.error


async def by_introspection(origin: Origin, context: ssl.SSLContext) -> object:
    async with provider_at(origin, context=context) as provider:
        return await provider.granted_access(Secret("a"))


COMPANY = {"data": {"subjectURN": "urn:pleo:company:0a0ac3e0-5b1d-4c1e-9f53-6d1f6f3a7c01", "scope": "a:b"}}
ATTEMPTS = [
    pytest.param(by_request, "certificate not accepted", id="request"),
    pytest.param(by_refresh, "tls_failed", id="refresh"),
    pytest.param(by_introspection, None, id="introspection"),
]


@pytest.mark.parametrize(("attempt", "refused"), ATTEMPTS)
@pytest.mark.parametrize(
    "certificate",
    [
        pytest.param(None, id="good"),
        pytest.param({"untrusted": True}, id="untrusted"),
        pytest.param({"expires_in_days": -1}, id="expired"),
        pytest.param({"name": "external.pleo.io"}, id="other-name"),
        pytest.param({"common_name": "localhost"}, id="common-name-only"),
    ],
)
async def test_nothing_is_sent_under_a_certificate_that_is_not_the_servers(
    tmp_path: Path, certificate: dict[str, Any] | None, attempt: Attempt, refused: object
) -> None:
    """Neither request nor secret reaches a server that cannot prove its name; with a good one they do."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's failed handshakes
    options = dict(certificate or {})
    (tmp_path / "other").mkdir()
    untrusted = options.pop("untrusted", False)
    authority = Authority.found(tmp_path, **options)
    if untrusted:
        authority = Authority.found(tmp_path / "other")
    answer = http(200, {**PAIR, **COMPANY})
    async with Server(*[answer] * 3).running(authority.server) as server:
        context = wiring.tls_context(tmp_path / "ca.pem")
        got = await attempt(Origin("https", "localhost", server.port), context)
    if certificate is None:
        assert got != refused
        assert len(server.requests) == 1
    else:
        assert got == refused
        assert (server.connections, server.requests) == (0, [])


@pytest.mark.parametrize("attempt", [by_request, by_refresh, by_introspection])
@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
)
async def test_old_versions_of_tls_are_not_spoken(
    tmp_path: Path, version: ssl.TLSVersion, attempt: Attempt
) -> None:
    """RFC 9325 section 3.1.1: TLS 1.0 and 1.1 are refused, even where the library would speak them."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's failed handshakes
    authority = Authority.found(tmp_path)
    context = wiring.tls_context(tmp_path / "ca.pem")
    for end in (authority.server, context):
        end.set_ciphers("ALL:@SECLEVEL=0")  # so that the version alone decides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that the test wants what is old
        authority.server.minimum_version = authority.server.maximum_version = version
    async with Server(*[http(200, {**PAIR, **COMPANY})] * 3).running(authority.server) as server:
        await attempt(Origin("https", "localhost", server.port), context)
    assert len(server.requests) == (1 if version >= ssl.TLSVersion.TLSv1_2 else 0)
