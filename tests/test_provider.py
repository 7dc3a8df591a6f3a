"""The token endpoint's client over real sockets: what is sent, where it goes, and what each answer means."""

from __future__ import annotations

import asyncio
import base64
import datetime
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote_plus

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from proxy.facts import ClientSecretFellBack, Fact
from proxy.model import Origin, Outcome, Secret
from proxy.oauth import GrantedAccess, TokenFailure, TokenPair
from proxy.provider import Provider, Registration
from proxy.sandbox import COMPANIES, DEFAULT_CLIENT, ApiFault, OAuthClient, Sandbox, TokenFault
from tests.harness import free_port

ODD_ID = "id:with space+plus/%41é"
ODD_SECRET = 'se&cret=:"%2B\u20ac \\'
REDIRECT_URI = "https://proxy.example/oauth/callback"
PAIR = {"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 900}
CODE_FORM = [
    ("grant_type", "authorization_code"),
    ("code", "the code&é"),
    ("redirect_uri", REDIRECT_URI),
    ("code_verifier", "v" * 64),
]
REFRESH_FORM = [("grant_type", "refresh_token"), ("refresh_token", "r+/=~")]


class Server:
    """A server that keeps every request as it came and answers with the bytes it was given."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.requests: list[tuple[list[str], bytes]] = []
        """Lines of the head, and the body."""
        self.connections = 0
        self.sent = 0
        self.play: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] = self._answer

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        self.scheme = "http" if tls is None else "https"
        async with server:
            yield self

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/oauth/token"

    @property
    def origin(self) -> Origin:
        return Origin("http", "127.0.0.1", self.port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.play(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the provider closed first, as it may
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves on one connection for as long as the peer asks, so that keeping it would show."""
        while True:
            await self.take(reader)
            writer.write(self._answers.pop(0))
            await writer.drain()

    async def take(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
        length = next((int(line[15:]) for line in head if line.lower().startswith("content-length:")), 0)
        self.requests.append((head, await reader.readexactly(length)))

    def header(self, name: str, index: int = 0) -> list[str]:
        fields = [line.partition(": ") for line in self.requests[index][0][1:]]
        return [value for field, _, value in fields if field.lower() == name.lower()]

    def form(self, index: int = 0) -> list[tuple[str, str]]:
        return parse_qsl(self.requests[index][1].decode("ascii"), keep_blank_values=True, strict_parsing=True)


def http(status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> bytes:
    """An answer that leaves its connection open."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Length": str(len(content)), **{k.replace("_", "-"): v for k, v in headers.items()}}
    lines = [f"HTTP/1.1 {status} Because", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + content


@asynccontextmanager
async def provider_for(
    token_url: str,
    *,
    api: Origin | None = None,
    client: tuple[str, str] = (ODD_ID, ODD_SECRET),
    client_auth: Literal["basic", "post"] = "basic",
    redirect_uri: str = REDIRECT_URI,
    connect_s: float = 5.0,
    timeout_s: float = 10.0,
    pauses: list[float] | None = None,
    previous: str | None = None,
    facts: list[Fact] | None = None,
) -> AsyncIterator[Provider]:
    async def pause(seconds: float) -> None:
        assert pauses is not None
        pauses.append(seconds)

    registration = Registration(
        client[0],
        Secret(client[1]),
        client_auth,
        token_url,
        redirect_uri,
        None if previous is None else Secret(previous),
    )
    provider = Provider(
        registration,
        api=api or Origin("http", "127.0.0.1", 9),
        ssl_context=ssl.create_default_context(),
        connect_s=connect_s,
        timeout_s=timeout_s,
        emit=lambda fact: None if facts is None else facts.append(fact),
        pause=pause,
    )
    try:
        yield provider
    finally:
        await provider.close()


def origin_of(url: str) -> Origin:
    parsed = URL(url)
    assert parsed.host is not None
    assert parsed.port is not None
    return Origin("http", parsed.host, parsed.port)


async def refresh(provider: Provider) -> TokenPair | TokenFailure:
    return await provider.refresh(Secret("r+/=~"))


# --- what is sent


@pytest.mark.parametrize("what", ["code", "refresh"])
@pytest.mark.parametrize("client_auth", ["basic", "post"])
async def test_the_client_authenticates_in_one_place_only(
    client_auth: Literal["basic", "post"], what: str
) -> None:
    """Basic puts the form-encoded id and secret into the header, post into the form; never both."""
    async with (
        Server(http(200, PAIR)).running() as server,
        provider_for(server.url, client_auth=client_auth) as provider,
    ):
        if what == "code":
            answer = await provider.exchange(Secret("the code&é"), Secret("v" * 64))
        else:
            answer = await refresh(provider)
    assert answer == TokenPair(Secret("new-access"), Secret("new-refresh"), 900.0)
    form = CODE_FORM if what == "code" else REFRESH_FORM
    if client_auth == "basic":
        assert server.form() == form
        [credentials] = server.header("Authorization")
        pair = base64.b64decode(credentials.removeprefix("Basic "), validate=True).decode("ascii")
        assert pair.count(":") == 1
        assert [unquote_plus(part) for part in pair.split(":")] == [ODD_ID, ODD_SECRET]
    else:
        assert server.form() == [*form, ("client_id", ODD_ID), ("client_secret", ODD_SECRET)]
        assert server.header("Authorization") == []


async def test_a_token_request_is_a_plain_form_post() -> None:
    """The head says what RFC 6749 asks for, and nothing of the machine or its software's versions."""
    async with Server(http(200, PAIR)).running() as server, provider_for(server.url) as provider:
        await refresh(provider)
    assert server.requests[0][0][0] == "POST /oauth/token HTTP/1.1"
    assert server.header("Content-Type") == ["application/x-www-form-urlencoded"]
    assert server.header("Accept") == ["application/json"]
    assert server.header("User-Agent") == ["pleo-proxy"]
    assert server.header("Cookie") == []


@pytest.mark.parametrize("client_auth", ["basic", "post"])
async def test_odd_credentials_are_understood_by_pleo(client_auth: Literal["basic", "post"]) -> None:
    """An id and a secret full of reserved characters authenticate; a pair refreshes into the next one."""
    client = OAuthClient(ODD_ID, ODD_SECRET, (REDIRECT_URI,), DEFAULT_CLIENT.scopes)
    async with Sandbox(client=client) as pleo:
        pleo.switches.client_auth = client_auth
        granted = pleo.grant("acme")
        async with provider_for(pleo.token_url, client_auth=client_auth) as provider:
            pair = await provider.refresh(Secret(granted.refresh_token))
    assert isinstance(pair, TokenPair)
    assert pair.access != Secret(granted.access_token)
    assert pleo.counters.refreshes_of(COMPANIES["acme"]) == 1


async def test_each_request_has_a_connection_of_its_own() -> None:
    """A kept connection could be dead when a refresh token is sent on it, so none is kept."""
    async with (
        Server(*[http(200, PAIR)] * 3).running() as server,
        provider_for(server.url, api=server.origin) as provider,
    ):
        for _ in range(3):
            assert isinstance(await refresh(provider), TokenPair)
    assert (server.connections, len(server.requests)) == (3, 3)


async def test_no_cookie_of_the_token_endpoint_is_kept() -> None:
    """What a balancer sets in one answer does not come back in the next request."""
    answer = http(200, PAIR, Set_Cookie="node=7; Path=/")
    async with Server(answer, answer).running() as server, provider_for(server.url) as provider:
        await refresh(provider)
        await refresh(provider)
    assert server.header("Cookie", 1) == []


# --- what the answers mean


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (http(400, {"error": "invalid_grant"}), TokenFailure(Outcome.REFUSED, "invalid_grant")),
        (http(401, {"error": "invalid_token"}), TokenFailure(Outcome.REFUSED, "invalid_token")),
        (
            http(403, {"error": "invalid_refresh_token"}),
            TokenFailure(Outcome.REFUSED, "invalid_refresh_token"),
        ),
        (http(401, {"error": "invalid_client"}), TokenFailure(Outcome.CLIENT_REJECTED, "invalid_client")),
        (
            http(400, {"error": "unauthorized_client"}),
            TokenFailure(Outcome.CLIENT_REJECTED, "unauthorized_client"),
        ),
        (http(500, {"error": "invalid_grant"}), TokenFailure(Outcome.UNAVAILABLE, "http_500")),
        (http(503, b"<h1>invalid_grant</h1>"), TokenFailure(Outcome.UNAVAILABLE, "http_503")),
        (http(503, Retry_After="7"), TokenFailure(Outcome.UNAVAILABLE, "http_503", 7.0)),
        (http(429, {}, Retry_After="120"), TokenFailure(Outcome.UNAVAILABLE, "http_429", 120.0)),
        (
            http(429, {}, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
            TokenFailure(Outcome.UNAVAILABLE, "http_429"),
        ),
        (
            http(400, b"<p>Your invalid_grant was refused</p>"),
            TokenFailure(Outcome.UNKNOWN, "http_400_without_known_error"),
        ),
        (
            http(400, {"error": "of-tomorrow", "error_description": "invalid_grant"}),
            TokenFailure(Outcome.UNKNOWN, "http_400_without_known_error"),
        ),
        (http(404), TokenFailure(Outcome.UNKNOWN, "http_404_without_known_error")),
        (http(200, b"<h1>Please sign in</h1>"), TokenFailure(Outcome.UNKNOWN, "unusable_answer")),
        (http(200, b'{"access_token": "'), TokenFailure(Outcome.UNKNOWN, "unusable_answer")),
        (http(200, {"access_token": "new\r\nline"}), TokenFailure(Outcome.UNKNOWN, "unusable_answer")),
        (http(204), TokenFailure(Outcome.UNKNOWN, "http_204_without_known_error")),
    ],
    ids=lambda value: value.error if isinstance(value, TokenFailure) else value[9:12].decode(),
)
async def test_an_answer_is_judged_by_its_status_and_error_field(
    answer: bytes, failure: TokenFailure
) -> None:
    """Only the ``error`` field refuses a grant or the client; no text of the provider is passed on."""
    async with Server(answer).running() as server, provider_for(server.url) as provider:
        assert await refresh(provider) == failure


@pytest.mark.parametrize(
    ("body", "pair"),
    [
        ({"access_token": "a"}, TokenPair(Secret("a"), None, None)),
        ({"access_token": "a", "expires_in": "60"}, TokenPair(Secret("a"), None, 60.0)),
        ({"access_token": "a", "expires_in": -1, "refresh_token": ""}, TokenPair(Secret("a"), None, None)),
    ],
)
async def test_what_an_answer_leaves_out_is_told_apart(body: dict[str, Any], pair: TokenPair) -> None:
    """A missing refresh token or lifetime is ``None``, for the caller to fill in and to report."""
    async with Server(http(200, body)).running() as server, provider_for(server.url) as provider:
        assert await refresh(provider) == pair


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_the_token_endpoint_is_not_followed(status: int) -> None:
    """Client secret and refresh token go to the configured endpoint and nowhere else."""
    async with Server(http(200, PAIR)).running() as elsewhere:
        redirect = http(status, Location=elsewhere.url)
        async with Server(redirect).running() as server, provider_for(server.url) as provider:
            failure = await refresh(provider)
    assert failure == TokenFailure(Outcome.UNKNOWN, f"http_{status}_without_known_error")
    assert elsewhere.connections == 0


# --- no answer


async def test_nothing_is_sent_where_nobody_listens() -> None:
    """A refused connection leaves the refresh token unused."""
    async with provider_for(f"http://127.0.0.1:{free_port()}/oauth/token") as provider:
        assert await refresh(provider) == TokenFailure(Outcome.NOT_SENT, "connect_failed")


async def test_nothing_is_sent_to_a_name_that_does_not_resolve() -> None:
    """An unknown name is told apart from a refused connection."""
    async with provider_for("http://nonexistent.invalid/oauth/token") as provider:
        assert await refresh(provider) == TokenFailure(Outcome.NOT_SENT, "name_not_resolved")


async def test_nothing_is_sent_while_a_name_takes_too_long_to_resolve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A resolver that hangs is cut off by the time for connecting, so the token is known to be unused."""
    never = asyncio.get_running_loop().create_future()

    async def hangs(*_args: object, **_options: object) -> Any:
        return await asyncio.shield(never)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hangs)
    async with provider_for("http://slow.example/oauth/token", connect_s=0.05, timeout_s=60) as provider:
        assert await refresh(provider) == TokenFailure(Outcome.NOT_SENT, "connect_timeout")


async def test_nothing_is_sent_in_a_tls_handshake_that_does_not_end() -> None:
    """A peer that accepts and is silent costs the time for connecting, and the token stays unused."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/oauth/token"
        async with provider_for(url, connect_s=0.05, timeout_s=60) as provider:
            assert await refresh(provider) == TokenFailure(Outcome.NOT_SENT, "connect_timeout")


async def test_nothing_is_sent_to_a_server_with_an_untrusted_certificate(tmp_path: Path) -> None:
    """TLS that cannot be verified ends before the first byte of the request."""
    async with (
        Server(http(200, PAIR)).running(untrusted(tmp_path)) as server,
        provider_for(server.url) as provider,
    ):
        assert await refresh(provider) == TokenFailure(Outcome.NOT_SENT, "tls_failed")
    assert server.requests == []


async def test_nothing_is_sent_to_a_server_that_speaks_no_tls() -> None:
    """A plain server behind an https address gets a handshake that fails, and nothing more."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(http(200, PAIR))

    server = Server()
    server.play = plain
    async with server.running(), provider_for(server.url.replace("http:", "https:")) as provider:
        failure = await refresh(provider)
    assert failure == TokenFailure(Outcome.NOT_SENT, "tls_failed")


@pytest.mark.parametrize("committed", [False, True], ids=["before", "after the rotation"])
async def test_a_dropped_connection_leaves_the_outcome_unknown(pleo: Sandbox, committed: bool) -> None:
    """From this side a drop before the rotation and one after it look the same, and are reported so."""
    granted = pleo.grant("acme")
    pleo.token_faults.append(TokenFault("drop", committed=committed))
    client = (DEFAULT_CLIENT.client_id, DEFAULT_CLIENT.client_secret)
    async with provider_for(pleo.token_url, client=client) as provider:
        failure = await provider.refresh(Secret(granted.refresh_token))
    assert failure == TokenFailure(Outcome.UNKNOWN, "connection_lost")
    assert pleo.counters.refreshes_of(COMPANIES["acme"]) == committed
    assert pleo.counters.token_requests == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + json.dumps(PAIR).encode(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone",
        b"220 mail.example ESMTP\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "bad chunk", "bad coding", "no HTTP"],
)
async def test_a_broken_answer_leaves_the_outcome_unknown(answer: bytes) -> None:
    """An answer that cannot be read to its end is never taken for one that can."""

    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take(reader)
        writer.write(answer)

    server = Server()
    server.play = breaks_off
    async with server.running(), provider_for(server.url) as provider:
        assert await refresh(provider) == TokenFailure(Outcome.UNKNOWN, "connection_lost")
    assert len(server.requests) == 1


async def test_an_answer_that_does_not_come_in_time_leaves_the_outcome_unknown(pleo: Sandbox) -> None:
    """Once the request is sent, a time-out says nothing about what became of the token."""
    granted = pleo.grant("acme")
    client = (DEFAULT_CLIENT.client_id, DEFAULT_CLIENT.client_secret)
    async with (
        pleo.hold_token_endpoint(committed=True),
        provider_for(pleo.token_url, client=client, timeout_s=1.0) as provider,
    ):
        failure = await provider.refresh(Secret(granted.refresh_token))
    assert failure == TokenFailure(Outcome.UNKNOWN, "timeout")
    assert pleo.counters.refreshes_of(COMPANIES["acme"]) == 1


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_an_answer_without_end_is_cut_off(coding: str) -> None:
    """Reading stops after 256 KiB, whatever the length announced and however well it compresses."""
    flood = 64 * 1024 * 1024
    block = b" " * 65536

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.take(reader)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n\r\n".encode())
        if coding == "gzip":
            writer.write(gzip.compress(b" " * flood))
            await writer.drain()
            await reader.read()
            return
        while server.sent < flood:
            writer.write(block)
            await writer.drain()
            server.sent += len(block)

    server = Server()
    server.play = floods
    async with server.running(), provider_for(server.url) as provider:
        assert await refresh(provider) == TokenFailure(Outcome.UNKNOWN, "unusable_answer")
    assert server.sent < flood / 2


# --- what was granted


async def test_company_and_scopes_are_asked_with_the_new_token(pleo: Sandbox) -> None:
    """One GET of /v1/introspect with the bearer tells what the token stands for."""
    granted = pleo.grant("globex", ("companies:read", "users:read"))
    async with provider_for(pleo.token_url, api=origin_of(pleo.api_url)) as provider:
        found = await provider.granted_access(Secret(granted.access_token))
    assert found == GrantedAccess(COMPANIES["globex"], ("companies:read", "users:read"))
    assert [(seen.method, seen.target) for seen in pleo.api_requests] == [("GET", "/v1/introspect")]


async def test_introspection_is_tried_three_times_with_growing_pauses(pleo: Sandbox) -> None:
    """Where Pleo does not tell, the answer is None, never a guess."""
    granted, pauses = pleo.grant("acme"), list[float]()
    pleo.api_faults.append(ApiFault("status", "/v1/introspect", times=None, status=503))
    async with provider_for(pleo.token_url, api=origin_of(pleo.api_url), pauses=pauses) as provider:
        assert await provider.granted_access(Secret(granted.access_token)) is None
    assert len(pleo.api_requests) == 3
    assert pauses == [0.5, 1.0]


@pytest.mark.parametrize(
    "fault",
    [ApiFault("status", status=500), ApiFault("status", status=429), ApiFault("drop"), ApiFault("redirect")],
    ids=["500", "429", "drop", "redirect"],
)
async def test_introspection_survives_a_passing_failure(pleo: Sandbox, fault: ApiFault) -> None:
    """One bad answer, or none, is followed by another question."""
    granted, pauses = pleo.grant("acme"), list[float]()
    pleo.api_faults.append(replace(fault))
    async with provider_for(pleo.token_url, api=origin_of(pleo.api_url), pauses=pauses) as provider:
        found = await provider.granted_access(Secret(granted.access_token))
    assert found is not None
    assert found.company == COMPANIES["acme"]
    assert len(pleo.api_requests) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"<h1>Hello</h1>",
        b"[]",
        b'{"data": null}',
        b'{"data": {"scope": "users:read"}}',
        b'{"data": {"subjectURN": "urn:pleo:user:0a0ac3e0-5b1d-4c1e-9f53-6d1f6f3a7c01", "scope": "a"}}',
    ],
)
async def test_an_introspection_that_names_no_company_grants_nothing(body: bytes) -> None:
    """A 200 counts only if it names the company in the form that Pleo documents."""
    async with (
        Server(*[http(200, body)] * 3).running() as server,
        provider_for(server.url, api=server.origin, pauses=[]) as provider,
    ):
        assert await provider.granted_access(Secret("token")) is None
    assert server.header("Authorization", 2) == ["Bearer token"]


OF_ACME = GrantedAccess(COMPANIES["acme"], ("companies:read",))


async def test_a_companys_name_is_asked_once_with_the_new_token(pleo: Sandbox) -> None:
    """One GET of the company's own address, where the token may read it."""
    granted = pleo.grant("acme", ("companies:read",))
    async with provider_for(pleo.token_url, api=origin_of(pleo.api_url)) as provider:
        name = await provider.company_name(Secret(granted.access_token), OF_ACME)
    assert name == "Acme ApS"
    asked = [(seen.method, seen.target) for seen in pleo.api_requests]
    assert asked == [("GET", f"/v1/companies/{COMPANIES['acme']}")]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"data": {"name": "Acme"}}),
        (302, {"data": {"name": "Acme"}}),
        (200, {"data": {"name": ""}}),
        (200, {"data": {"name": ["Acme"]}}),
        (200, {"data": "Acme"}),
        (200, {"name": "Acme"}),
        (200, b"Acme"),
    ],
)
async def test_what_is_no_companys_name_is_none(status: int, body: bytes | dict[str, Any]) -> None:
    """Only a 200 in the form that Pleo documents names a company."""
    async with (
        Server(http(status, body)).running() as server,
        provider_for(server.url, api=server.origin) as provider,
    ):
        assert await provider.company_name(Secret("token"), OF_ACME) is None


def untrusted(directory: Path) -> ssl.SSLContext:
    """A server's side of TLS with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context


# --- two secrets, while one is being changed

INVALID_CLIENT = http(401, {"error": "invalid_client"})
GRANTED = http(200, PAIR)


def secrets_of(server: Server) -> list[str]:
    """The secret of each request, in the order in which they came."""
    found = []
    for head, _ in server.requests:
        value = next(line.split(" ")[2] for line in head if line.lower().startswith("authorization:"))
        found.append(unquote_plus(base64.b64decode(value).decode().partition(":")[2]))
    return found


async def test_the_previous_secret_is_tried_where_pleo_refuses_the_new_one() -> None:
    """It is asked once more at once; the one that worked is tried first from then on."""
    facts: list[Fact] = []
    async with (
        Server(INVALID_CLIENT, GRANTED, GRANTED, INVALID_CLIENT, GRANTED, GRANTED).running() as server,
        provider_for(server.url, client=("id", "new"), previous="old", facts=facts) as provider,
    ):
        for _ in range(4):
            assert isinstance(await refresh(provider), TokenPair)
    assert secrets_of(server) == ["new", "old", "old", "old", "new", "new"]
    assert facts == [
        ClientSecretFellBack("pleo.client_secret_previous"),
        ClientSecretFellBack("pleo.client_secret"),
    ]


async def test_both_secrets_must_fail_before_the_registration_is_rejected() -> None:
    """Then the outcome is the one that pauses all refreshes, and the new one is tried first again."""
    facts: list[Fact] = []
    async with (
        Server(INVALID_CLIENT, INVALID_CLIENT, GRANTED).running() as server,
        provider_for(server.url, client=("id", "new"), previous="old", facts=facts) as provider,
    ):
        failed = await refresh(provider)
        assert failed == TokenFailure(Outcome.CLIENT_REJECTED, "invalid_client")
        assert isinstance(await refresh(provider), TokenPair)
    assert secrets_of(server) == ["new", "old", "new"]
    assert facts == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(400, {"error": "invalid_grant"}), id="refused"),
        pytest.param(http(503, {}), id="unavailable"),
        pytest.param(http(400, {"error": "unauthorized_client"}), id="of-another-kind"),
    ],
)
async def test_the_previous_secret_is_not_tried_for_other_failures(answer: bytes) -> None:
    """A refresh token that was looked at is not sent again."""
    async with (
        Server(answer).running() as server,
        provider_for(server.url, client=("id", "new"), previous="old") as provider,
    ):
        assert isinstance(await refresh(provider), TokenFailure)
    assert secrets_of(server) == ["new"]


async def test_without_a_previous_secret_there_is_one_request() -> None:
    """``invalid_client`` is what it was."""
    async with (
        Server(INVALID_CLIENT).running() as server,
        provider_for(server.url, client=("id", "new")) as provider,
    ):
        assert await refresh(provider) == TokenFailure(Outcome.CLIENT_REJECTED, "invalid_client")
