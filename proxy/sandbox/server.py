"""The sandbox as one object: three listeners over one state, with the controls that tests use.

Must never log: access logs are off, and no answer of the control listener holds a token.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from aiohttp import web

from .api_app import api_listener
from .auth_app import auth_listener
from .authority import Authority, TokenPair
from .connection import Listener, patient
from .control_app import control_listener
from .counters import Counters
from .faults import ApiFault, Switches, TokenFault
from .oauth_rules import OAuthClient
from .state import ApiGate, ApiRequest, Gate, State, TokenGate
from .world import World

DEFAULT_CLIENT = OAuthClient(
    client_id="sandbox-client",
    client_secret="sandbox-secret",  # noqa: S106 - the documented secret of a simulated client
    redirect_uris=("http://127.0.0.1:8081/oauth/callback", "http://localhost:8081/oauth/callback"),
    scopes=(
        "accounts:read",
        "accounts:write",
        "companies:read",
        "export-items:read",
        "export-jobs:read",
        "export-jobs:write",
        "tag-group:read",
        "tag-group:write",
        "tag-groups:read",
        "tag-groups:write",
        "tax-codes:read",
        "tax-codes:write",
        "test:test",
        "users:read",
        "vendors:read",
        "vendors:write",
    ),
)
"""The client that is registered unless another is given; its redirect URIs are those of a default proxy."""

_HEAD_LIMIT = 1 << 18
"""Bytes of a request line or field that the sandbox accepts: far more than what stands before it should."""


class Sandbox:
    """A simulated Pleo on real sockets.

    Ports of 0 are chosen by the system at the first start and kept after it, so that a stop and a start are
    an outage at the same address.
    """

    def __init__(
        self,
        *,
        client: OAuthClient | None = None,
        access_lifetime_s: float = 900,
        refresh_lifetime_s: float = 60 * 86400,
        clock: Callable[[], float] = time.time,
        switches: Switches | None = None,
        host: str = "127.0.0.1",
        auth_port: int = 0,
        api_port: int = 0,
        control_port: int = 0,
    ) -> None:
        self.switches = switches or Switches()
        self.counters = Counters()
        self.world = World(self.now)
        self._clock = clock
        self._offset_s = 0.0
        self.authority = Authority(
            client or DEFAULT_CLIENT,
            access_lifetime_s=access_lifetime_s,
            refresh_lifetime_s=refresh_lifetime_s,
            now=self.now,
            switches=self.switches,
            counters=self.counters,
        )
        self.state = State(
            self.authority, self.world, self.switches, self.counters, now=self.now, advance=self.advance
        )
        self._host = host
        self._ports = {"auth": auth_port, "api": api_port, "control": control_port}
        self._runners: list[web.ServerRunner] = []

    # Life

    async def start(self) -> None:
        """Opens the three listeners. The control listener is on loopback whatever ``host`` is."""
        self.state.closing.clear()
        try:
            await self._listen("auth", self._host, auth_listener(self.state))
            await self._listen("api", self._host, api_listener(self.state))
            await self._listen("control", "127.0.0.1", control_listener(self.state))
        except BaseException:
            await self.stop()
            raise
        self.state.issuer = self.auth_url

    async def _listen(self, name: str, host: str, listener: Listener) -> None:
        server = web.Server(
            patient(listener),
            access_log=None,
            auto_decompress=False,
            max_line_size=_HEAD_LIMIT,
            max_field_size=_HEAD_LIMIT,
            max_headers=2048,
        )
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, host, self._ports[name]).start()
        self._ports[name] = runner.addresses[0][1]

    async def stop(self) -> None:
        """Ends every held request and closes the listeners."""
        self.state.close()
        while self._runners:
            await self._runners.pop().cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        await self.stop()

    # Addresses

    def _url(self, name: str, host: str) -> str:
        if not self._ports[name]:
            raise RuntimeError("The sandbox has no address before its first start.")
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._ports[name]}"

    @property
    def auth_url(self) -> str:
        """Base URL of the authorisation server."""
        return self._url("auth", self._host)

    @property
    def api_url(self) -> str:
        """Base URL of the API."""
        return self._url("api", self._host)

    @property
    def control_url(self) -> str:
        """Base URL of the controls."""
        return self._url("control", "127.0.0.1")

    @property
    def authorize_url(self) -> str:
        """The authorise endpoint."""
        return f"{self.auth_url}/oauth/authorize"

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self.auth_url}/oauth/token"

    # Controls

    def now(self) -> float:
        """The sandbox's instant: its clock and all that it was advanced by."""
        return self._clock() + self._offset_s

    def advance(self, seconds: float) -> None:
        """Moves the sandbox's clock forward."""
        if seconds < 0:
            raise ValueError("The clock moves forward only.")
        self._offset_s += seconds

    def _company(self, company: str) -> str:
        company_id = self.world.company_id(company)
        if company_id is None:
            raise ValueError(f"There is no company {company!r}.")
        return company_id

    def revoke_access(self, company_id: str) -> None:
        """The current access tokens of a company (id or slug) die; its refresh tokens stay good."""
        self.authority.revoke_access(self._company(company_id))

    def revoke(self, company_id: str) -> None:
        """Every token of a company (id or slug) dies."""
        self.authority.revoke(self._company(company_id))

    def rotate_client_secret(self, new: str) -> None:
        """Gives the client another secret; all refresh tokens die with the old one."""
        self.authority.rotate_client_secret(new)

    def add_redirect_uri(self, uri: str) -> None:
        """Registers one more redirect URI."""
        self.authority.add_redirect_uri(uri)

    def grant(self, company: str, scopes: tuple[str, ...] | None = None) -> TokenPair:
        """A live pair without the consent flow; all of the client's scopes unless told otherwise."""
        company_id = self._company(company)
        self.world.install(company_id)
        granted = self.authority.client.scopes if scopes is None else scopes
        return self.authority.issue(company_id, granted)

    def hold_token_endpoint(self, *, committed: bool = False) -> Gate:
        """Holds requests to the token endpoint before they take effect, or ``committed``: after it."""
        gate = Gate()
        self.state.token_gates.append(TokenGate(committed, gate))
        return gate

    def hold_api(self, path: str = "", *, stage: Literal["before", "after"] = "before") -> Gate:
        """Holds API requests whose raw path matches, before or after the call is carried out."""
        gate = Gate()
        self.state.api_gates.append(ApiGate(re.compile(path), stage, gate))
        return gate

    @property
    def token_faults(self) -> deque[TokenFault]:
        """Faults of the token endpoint that are still to come; the first that fits strikes."""
        return self.state.token_faults

    @property
    def api_faults(self) -> deque[ApiFault]:
        """Faults of the API that are still to come; the first that fits strikes."""
        return self.state.api_faults

    @property
    def api_requests(self) -> deque[ApiRequest]:
        """What reached the API, oldest first, bounded."""
        return self.state.api_requests
