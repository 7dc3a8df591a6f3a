"""The connection to Pleo's authorisation server, and the one question asked of the API after a consent.

Sends what :mod:`proxy.oauth` composes and returns what it makes of the answer; foreign exceptions are turned
into outcomes here and nowhere else. Follows no redirect, keeps no connection open between requests, logs
nothing.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import aiohttp

from proxy import oauth
from proxy.model import Origin, Outcome, Secret
from proxy.oauth import GrantedAccess, TokenFailure, TokenPair

_ANSWER_BYTES = 256 * 1024
_INTROSPECT_TRIES = 3
_INTROSPECT_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Registration:
    """Our registration as an OAuth client of Pleo."""

    client_id: str
    client_secret: Secret
    client_auth: Literal["basic", "post"]
    token_url: str
    redirect_uri: str


class Provider:
    """Token requests and introspection.

    :param timeout_s: bound on one token request from connecting to the end of the answer.
    """

    def __init__(
        self,
        registration: Registration,
        *,
        api: Origin,
        ssl_context: ssl.SSLContext,
        connect_s: float,
        timeout_s: float,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registration = registration
        self._introspect_url = f"{api}/v1/introspect"
        self._pause = pause
        self._session = aiohttp.ClientSession(
            # A kept connection that the server has closed would make a refresh "sent, no answer": its
            # outcome unknown and the chain of refresh tokens in danger. A new connection each time cannot.
            connector=aiohttp.TCPConnector(force_close=True, ssl=ssl_context),
            # "connect" covers all that comes before the first byte, a name that does not resolve in time too:
            # nothing was sent then, and the outcome must say so.
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "pleo-proxy", "Accept": "application/json"},
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._session.close()

    async def refresh(self, refresh: Secret) -> TokenPair | TokenFailure:
        """Ask for a new pair. The refresh token counts as used from the moment this is called."""
        return await self._token_request(oauth.refresh_form(refresh))

    async def exchange(self, code: Secret, verifier: Secret) -> TokenPair | TokenFailure:
        """Turn an authorisation code into a token pair."""
        form = oauth.code_form(code=code, verifier=verifier, redirect_uri=self._registration.redirect_uri)
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

    async def _introspect(self, access: Secret) -> GrantedAccess | None:
        bearer = {"Authorization": f"Bearer {access.reveal()}"}
        try:
            async with self._session.get(
                self._introspect_url, headers=bearer, allow_redirects=False
            ) as answer:
                body = await _bounded_body(answer)
                return oauth.read_granted_access(body) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def _token_request(self, form: list[tuple[str, str]]) -> TokenPair | TokenFailure:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        ours = self._registration
        if ours.client_auth == "basic":
            # Never in both places (RFC 6749 section 2.3): Pleo refuses a request that authenticates twice.
            headers["Authorization"] = oauth.basic_credentials(ours.client_id, ours.client_secret)
        else:
            form = [
                *form,
                ("client_id", ours.client_id),
                ("client_secret", ours.client_secret.reveal()),
            ]
        try:
            async with self._session.post(
                ours.token_url, data=oauth.encode_form(form), headers=headers, allow_redirects=False
            ) as answer:
                body = await _bounded_body(answer)
                return oauth.read_token_answer(
                    answer.status, body, retry_after=answer.headers.get("Retry-After")
                )
        except aiohttp.ClientConnectorError as error:
            return TokenFailure(Outcome.NOT_SENT, _connect_failure(error))
        except aiohttp.ConnectionTimeoutError:
            return TokenFailure(Outcome.NOT_SENT, "connect_timeout")
        except TimeoutError:
            return TokenFailure(Outcome.UNKNOWN, "timeout")
        except aiohttp.ClientError:
            return TokenFailure(Outcome.UNKNOWN, "connection_lost")


async def _bounded_body(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body, or its first 256 KiB: no token answer is longer, and a flood must not fill memory."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _ANSWER_BYTES:
            break
    return bytes(body)


def _connect_failure(error: aiohttp.ClientConnectorError) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "name_not_resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "tls_failed"
        case _:
            return "connect_failed"
