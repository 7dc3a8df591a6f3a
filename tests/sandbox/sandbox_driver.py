"""A plain OAuth client and API caller for the sandbox's own tests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import orjson
from yarl import URL

from proxy.sandbox import Sandbox

VERIFIER = "correct-horse-battery-staple-0123456789-abcdef"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
REDIRECT_URI = "http://127.0.0.1:8081/oauth/callback"
SECRET = "sandbox-secret"
NO_CHANGES: Mapping[str, str | None] = MappingProxyType({})


class Clock:
    """A clock that only :attr:`now` moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    @property
    def returned(self) -> dict[str, str]:
        """The parameters that a redirect carries."""
        query = parse_qs(urlsplit(self.headers["Location"]).query)
        return {name: values[0] for name, values in query.items()}


class Driver:
    """Speaks to one sandbox."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.session = session

    async def send(
        self,
        method: str,
        url: str,
        *,
        data: object = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; redirects are not followed."""
        async with self.session.request(
            method, URL(url, encoded=True), data=data, json=json, headers=headers, allow_redirects=False
        ) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    def link(self, **changes: str | None) -> str:
        """An authorise link; a change to ``None`` leaves the parameter out."""
        params = {
            "response_type": "code",
            "client_id": "sandbox-client",
            "redirect_uri": REDIRECT_URI,
            "scope": "users:read companies:read",
            "state": "s&=1 ",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        } | changes
        kept = {name: value for name, value in params.items() if value is not None}
        return f"{self.sandbox.authorize_url}?{urlencode(kept)}"

    async def authorize(
        self, changes: Mapping[str, str | None] = NO_CHANGES, *, decision: str = "approve"
    ) -> Answer:
        """The authorise endpoint's answer to a request that skips the page."""
        return await self.send("GET", self.link(**changes), headers={"X-Sandbox-Consent": decision})

    async def code(self) -> str:
        """A fresh code."""
        return (await self.authorize()).returned["code"]

    async def token(self, form: dict[str, str], *, secret: str = SECRET) -> Answer:
        """The token endpoint's answer, with HTTP Basic."""
        return await self.send(
            "POST", self.sandbox.token_url, data=form, headers=basic("sandbox-client", secret)
        )

    async def exchange(self, code: str, **changes: str) -> Answer:
        """The answer to a code."""
        form = {"redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER, "code": code} | changes
        return await self.token({"grant_type": "authorization_code", **form})

    async def refresh(self, refresh_token: str) -> Answer:
        """The answer to a refresh."""
        return await self.token({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def call(self, method: str, path: str, token: str, *, json: object = None) -> Answer:
        """The API's answer to a bearer token."""
        headers = {"Authorization": f"Bearer {token}"}
        return await self.send(method, self.sandbox.api_url + path, headers=headers, json=json)

    async def control(self, method: str, path: str, *, json: object = None) -> Answer:
        """The controls' answer."""
        return await self.send(method, self.sandbox.control_url + path, json=json)


def basic(user: str, password: str) -> dict[str, str]:
    """The header of HTTP Basic."""
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}
