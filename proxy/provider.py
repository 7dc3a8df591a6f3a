"""The connection to Pleo's authorisation server, and what is asked of the API after a consent.

Sends what :mod:`proxy.oauth` composes and returns what it makes of the answer; foreign exceptions are turned
into outcomes here and nowhere else. Follows no redirect, keeps no connection open between requests, and takes
its sockets from :mod:`proxy.outbound`. Of two secrets it remembers which one Pleo takes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal, TypedDict
from urllib.parse import urlsplit

import aiohttp

from proxy import oauth
from proxy.addresses import Destination, Network
from proxy.facts import ClientSecretFellBack, Emit
from proxy.headers import proxy_authorization
from proxy.model import HttpProxy, Origin, Outcome, Secret
from proxy.oauth import GrantedAccess, TokenFailure, TokenPair
from proxy.outbound import ForbiddenAddressError, Sockets

_ANSWER_BYTES = 256 * 1024
_INTROSPECT_TRIES = 3
_INTROSPECT_PAUSE_S = 0.5
_NAMES_COMPANIES = "companies:read"
_NAME_S = 3.0
"""A name is a courtesy, for which nobody at a browser is kept waiting."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Our registration as an OAuth client of Pleo."""

    client_id: str
    client_secret: Secret
    client_auth: Literal["basic", "post"]
    token_url: str
    redirect_uri: str
    client_secret_previous: Secret | None = None
    """Tried where Pleo does not take the other, while the secret is being changed."""


class Provider:
    """Token requests and introspection.

    :param timeout_s: bound on one token request from connecting to the end of the answer.
    :param private_networks: where the names of both servers may lead beside public addresses.
    """

    def __init__(
        self,
        registration: Registration,
        *,
        api: Origin,
        ssl_context: ssl.SSLContext,
        connect_s: float,
        timeout_s: float,
        emit: Emit,
        http_proxy: HttpProxy | None = None,
        private_networks: tuple[Network, ...] = (),
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._proof = _Proof.of(registration)
        self._redirect_uri = registration.redirect_uri
        self._emit = emit
        self._introspect_url = f"{api}/v1/introspect"
        self._company_url = f"{api}/v1/companies"
        self._pause = pause
        self._timeout = _timeout(connect_s=connect_s, timeout_s=timeout_s)
        self._through: _Through = {}
        if http_proxy is not None:
            host = f"[{http_proxy.host}]" if ":" in http_proxy.host else http_proxy.host
            self._through["proxy"] = f"http://{host}:{http_proxy.port}"
            if http_proxy.credentials is not None:
                credentials = proxy_authorization(http_proxy.credentials).decode("ascii")
                self._through["proxy_headers"] = {"Proxy-Authorization": credentials}

        def session(host: str) -> aiohttp.ClientSession:
            # The HTTP proxy is wherever the operator has it, and resolves the host's name itself.
            sockets = Sockets(Destination(host, private_networks), emit) if http_proxy is None else None
            return _session(sockets, ssl_context)

        # One for each host, so that where the name of one may lead says nothing of the other's.
        self._to_token_endpoint = session(urlsplit(registration.token_url).hostname or "")
        self._to_api = session(api.host)

    def change(self, registration: Registration, *, connect_s: float, timeout_s: float) -> None:
        """Prove from now on to be this client, of the same endpoint and redirect URI, and wait so long."""
        self._timeout = _timeout(connect_s=connect_s, timeout_s=timeout_s)
        if registration != self._proof.registration:
            self._proof = _Proof.of(registration)

    async def close(self) -> None:
        """Close what is open."""
        await self._to_token_endpoint.close()
        await self._to_api.close()

    async def refresh(self, refresh: Secret) -> TokenPair | TokenFailure:
        """Ask for a new pair. The refresh token counts as used from the moment this is called."""
        return await self._token_request(oauth.refresh_form(refresh))

    async def exchange(self, code: Secret, verifier: Secret) -> TokenPair | TokenFailure:
        """Turn an authorisation code into a token pair."""
        form = oauth.code_form(code=code, verifier=verifier, redirect_uri=self._redirect_uri)
        return await self._token_request(form)

    async def granted_access(self, access: Secret) -> GrantedAccess | None:
        """Company and scopes that a new token stands for; ``None`` if Pleo does not tell after some tries."""
        for attempt in range(_INTROSPECT_TRIES):
            if attempt:
                await self._pause(_INTROSPECT_PAUSE_S * attempt)
            found = await self._introspect(access)
            if found is not None:
                return found
        return None

    async def company_name(self, access: Secret, granted: GrantedAccess) -> str | None:
        """The name of the company that a new token is for; ``None`` if it is not known soon, or not to us."""
        if _NAMES_COMPANIES not in granted.scopes:
            return None
        try:
            async with self._to_api.get(
                f"{self._company_url}/{granted.company}",
                headers={"Authorization": f"Bearer {access.reveal()}"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_NAME_S),
                **self._through,
            ) as answer:
                body = await _bounded_body(answer)
                return oauth.read_company_name(body) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def _introspect(self, access: Secret) -> GrantedAccess | None:
        bearer = {"Authorization": f"Bearer {access.reveal()}"}
        try:
            async with self._to_api.get(
                self._introspect_url,
                headers=bearer,
                allow_redirects=False,
                timeout=self._timeout,
                **self._through,
            ) as answer:
                body = await _bounded_body(answer)
                return oauth.read_granted_access(body) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def _token_request(self, form: list[tuple[str, str]]) -> TokenPair | TokenFailure:
        """Ask with the secret that worked last, and once more with the other if Pleo does not take that one.

        RFC 6749 section 5.2: ``invalid_client`` means that the OAuth client did not prove itself, so neither
        code nor refresh token was looked at, and asking again uses none of them twice.
        """
        proof = self._proof
        answer = await self._ask_with(proof, form)
        if _is_unauthenticated(answer) and self._proof is not proof:
            # What to prove it with was changed while that was under way.
            answer = await self._ask_with(self._proof, form)
        return answer

    async def _ask_with(self, proof: _Proof, form: list[tuple[str, str]]) -> TokenPair | TokenFailure:
        (_, secret), *others = proof.secrets
        answer = await self._ask(proof.registration, form, secret)
        for setting, other in others:
            if not _is_unauthenticated(answer):
                break
            answer = await self._ask(proof.registration, form, other)
            # Of two requests that come here at once, one changes the order and says so.
            if _is_authenticated(answer) and proof.secrets[0][0] != setting:
                proof.secrets.reverse()
                self._emit(ClientSecretFellBack(setting))
        return answer

    async def _ask(
        self, ours: Registration, form: list[tuple[str, str]], secret: Secret
    ) -> TokenPair | TokenFailure:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if ours.client_auth == "basic":
            # Never in both places (RFC 6749 section 2.3): Pleo refuses a request that authenticates twice.
            headers["Authorization"] = oauth.basic_credentials(ours.client_id, secret)
        else:
            form = [
                *form,
                ("client_id", ours.client_id),
                ("client_secret", secret.reveal()),
            ]
        attempt = _Attempt()
        try:
            async with self._to_token_endpoint.post(
                ours.token_url,
                data=oauth.encode_form(form),
                headers=headers,
                allow_redirects=False,
                timeout=self._timeout,
                trace_request_ctx=attempt,
                **self._through,
            ) as answer:
                body = await _bounded_body(answer)
                return oauth.read_token_answer(
                    answer.status, body, retry_after=answer.headers.get("Retry-After")
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            return _failure(error, connected=attempt.connected)


def _is_unauthenticated(answer: TokenPair | TokenFailure) -> bool:
    return isinstance(answer, TokenFailure) and answer.error == "invalid_client"


def _is_authenticated(answer: TokenPair | TokenFailure) -> bool:
    """Whether Pleo took the secret, whatever it said of the rest; that it did not answer tells nothing."""
    return isinstance(answer, TokenPair) or answer.outcome is Outcome.REFUSED


@dataclass(frozen=True, slots=True)
class _Proof:
    """A registration, and its secrets by their settings, the one that worked last in front."""

    registration: Registration
    secrets: list[tuple[str, Secret]]

    @classmethod
    def of(cls, registration: Registration) -> _Proof:
        secrets = [("pleo.client_secret", registration.client_secret)]
        if registration.client_secret_previous is not None:
            secrets.append(("pleo.client_secret_previous", registration.client_secret_previous))
        return cls(registration, secrets)


def _timeout(*, connect_s: float, timeout_s: float) -> aiohttp.ClientTimeout:
    # "connect" covers all that comes before the first byte, a name that does not resolve in time too:
    # nothing was sent then, and the outcome must say so.
    return aiohttp.ClientTimeout(total=timeout_s, connect=connect_s)


def _session(sockets: Sockets | None, ssl_context: ssl.SSLContext) -> aiohttp.ClientSession:
    connected = aiohttp.TraceConfig()
    connected.on_connection_create_end.append(_note_connection)
    return aiohttp.ClientSession(
        trace_configs=[connected],
        # A kept connection that the server has closed would make a refresh "sent, no answer": its outcome
        # unknown and the chain of refresh tokens in danger. A new connection each time cannot.
        connector=aiohttp.TCPConnector(force_close=True, ssl=ssl_context, socket_factory=sockets),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "pleo-proxy", "Accept": "application/json"},
    )


class _Through(TypedDict, total=False):
    """The options of a request that goes through an HTTP proxy."""

    proxy: str
    proxy_headers: dict[str, str]


@dataclass(slots=True)
class _Attempt:
    """How far a request came; for what aiohttp's exceptions leave open."""

    connected: bool = False
    """The connection was there, tunnel and TLS included."""


async def _note_connection(_session: object, context: SimpleNamespace, _params: object) -> None:
    if isinstance(context.trace_request_ctx, _Attempt):
        context.trace_request_ctx.connected = True


async def _bounded_body(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body, or its first 256 KiB: no token answer is longer, and a flood must not fill memory."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _ANSWER_BYTES:
            break
    return bytes(body)


_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "name_not_resolved"),
    (aiohttp.ClientConnectorCertificateError, "tls_failed"),
    (aiohttp.ClientConnectorSSLError, "tls_failed"),
    (aiohttp.ClientHttpProxyError, "proxy_refused"),
    (aiohttp.ConnectionTimeoutError, "connect_timeout"),
    (TimeoutError, "timeout"),
)
"""What befell a request, the first that fits."""


def _failure(error: Exception, *, connected: bool) -> TokenFailure:
    """Without a connection nothing was sent: none is kept, so each request makes one."""
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ForbiddenAddressError):
        return TokenFailure(Outcome.NOT_SENT, "address_not_allowed")
    outcome = Outcome.UNKNOWN if connected else Outcome.NOT_SENT
    otherwise = "connection_lost" if connected else "connect_failed"
    return TokenFailure(
        outcome, next((text for kind, text in _FAILURES if isinstance(error, kind)), otherwise)
    )
