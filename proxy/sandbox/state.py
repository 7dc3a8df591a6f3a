"""What the three listeners share: authority, world, switches, faults, gates and the record of requests.

Holds no sockets and reads no clock but the one it is given. Authorization values are recorded as fingerprints
only, never as they came.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from .authority import Authority, TokenState
from .counters import Counters
from .faults import ApiFault, Switches, TokenFault
from .world import World

RECORDED_REQUESTS = 10_000
"""How many API requests are remembered; the oldest are forgotten first."""


def fingerprint(authorization: str) -> str:
    """A short SHA-256 of a whole ``Authorization`` value, so that tests can compare without a token."""
    return hashlib.sha256(authorization.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(slots=True)
class ApiRequest:
    """A request as it reached the API. ``status`` is 0 while it is held and if it was dropped."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    """In order, names as sent; the value of ``Authorization`` is its :func:`fingerprint`."""
    body_length: int
    body_sha256: str
    token: TokenState = TokenState.MISSING
    company_id: str | None = None
    generation: int = 0
    status: int = 0

    def header(self, name: str) -> list[str]:
        """All values of a header field."""
        return [value for field_name, value in self.headers if field_name.lower() == name.lower()]


_PATIENCE_S = 60.0


class Gate:
    """Holds requests until a test lets them go; leaving its ``async with`` block releases it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._changed = asyncio.Condition()
        self._arrivals = 0

    async def passed(self) -> None:
        """Waits as a held request."""
        self._arrivals += 1
        async with self._changed:
            self._changed.notify_all()
        await self._open.wait()

    async def arrived(self, n: int = 1) -> None:
        """Waits until ``n`` requests in all have come to the gate.

        :raises TimeoutError: they did not within a minute; a test is to fail and not to hang.
        """
        async with asyncio.timeout(_PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: self._arrivals >= n)

    @property
    def arrivals(self) -> int:
        """Requests that have come to the gate so far."""
        return self._arrivals

    @property
    def released(self) -> bool:
        """Whether requests pass."""
        return self._open.is_set()

    def release(self) -> None:
        """Lets the held requests and all later ones pass."""
        self._open.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.release()


@dataclass(slots=True)
class TokenGate:
    """A gate on one side of the token's rotation."""

    committed: bool
    gate: Gate


@dataclass(slots=True)
class ApiGate:
    """A gate for the API requests whose raw path matches."""

    path: re.Pattern[str]
    stage: Literal["before", "after"]
    gate: Gate


@dataclass(slots=True)
class RateWindow:
    """A minute in which requests are counted."""

    started_at: float
    requests: int = 0


@dataclass(slots=True)
class State:
    """The simulated Pleo without its sockets."""

    authority: Authority
    world: World
    switches: Switches
    counters: Counters
    now: Callable[[], float]
    advance: Callable[[float], None]
    issuer: str = ""
    token_faults: deque[TokenFault] = field(default_factory=deque)
    api_faults: deque[ApiFault] = field(default_factory=deque)
    token_gates: list[TokenGate] = field(default_factory=list)
    api_gates: list[ApiGate] = field(default_factory=list)
    api_requests: deque[ApiRequest] = field(default_factory=lambda: deque(maxlen=RECORDED_REQUESTS))
    rate_windows: dict[str, RateWindow] = field(default_factory=dict)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, seconds: float) -> None:
        """Waits, but no longer than the sandbox runs."""
        try:
            async with asyncio.timeout(seconds):
                await self.closing.wait()
        except TimeoutError:
            return

    async def pass_token_gates(self, *, committed: bool) -> None:
        """Holds a token request at the gates of one side of the rotation."""
        for gate in [g for g in self.token_gates if g.committed is committed]:
            await gate.gate.passed()
        self.token_gates = [g for g in self.token_gates if not g.gate.released]

    async def pass_api_gates(self, path: str, stage: Literal["before", "after"]) -> None:
        """Holds an API request at the gates that are meant for its path."""
        for gate in [g for g in self.api_gates if g.stage == stage and g.path.search(path)]:
            await gate.gate.passed()
        self.api_gates = [g for g in self.api_gates if not g.gate.released]

    def close(self) -> None:
        """Ends every pause and hold, so that the listeners can stop."""
        self.closing.set()
        for gate in [g.gate for g in self.token_gates] + [g.gate for g in self.api_gates]:
            gate.release()
        self.token_gates.clear()
        self.api_gates.clear()
