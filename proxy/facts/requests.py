"""What became of requests on their way, and of their traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from proxy.facts.fact import Fact, Level


@dataclass(slots=True)
class RequestFinished(Fact):
    """A caller's request ended, however it ended. ``path`` is without the query, which may be private.

    Made when the request begins and filled as it goes on, so that each request makes one object of it.
    """

    event: ClassVar[str] = "request.finished"
    request_id: str
    tenant: str | None = None
    method: str = ""
    path: str = ""
    status: int = 499
    """The status sent to the caller; 499 where the caller left before one was sent (nginx's convention)."""
    outcome: str = "caller_left"
    """``answered``, ``caller_left``, ``upstream_broke_off``, ``cut_by_stop``, or the name of the refusal."""
    upstream_status: int | None = None
    duration_ms: float = 0.0
    upstream_ms: float | None = None
    """From handing the first byte to the upstream to the head of the answer that was passed on."""
    retried: bool = False
    """The request was sent a second time after a 401."""
    generation: int | None = None
    """Generation of the token that the passed-on answer belongs to."""
    bytes_in: int = 0
    bytes_out: int = 0
    caller: str = ""
    trace_id: str | None = None
    """Of the trace that the request is a part of (W3C Trace Context), the caller's or one that began here."""


@dataclass(slots=True)
class Send:
    """A request was sent to Pleo, the first time or again after a 401."""

    span_id: str
    path: str
    """As Pleo got it, without the query."""
    after_ms: float
    """Since the request began."""
    duration_ms: float = 0.0
    """Until the head of the answer came, or until the request ended without one."""
    status: int | None = None


@dataclass(slots=True)
class RequestTraced(Fact):
    """Where a request that has ended stands in its trace; told of those that are recorded and no others."""

    event: ClassVar[str] = "request.traced"
    level: ClassVar[Level] = "debug"
    request: RequestFinished
    span_id: str
    parent_id: str | None
    """The caller's span; ``None`` where the trace began here."""
    began_at: float
    scheme: str
    """By which the caller came."""
    sends: tuple[Send, ...]


@dataclass(slots=True)
class TracesLost(Fact):
    """Spans do not reach the collector; told once, until they do. ``error`` is the proxy's own word."""

    event: ClassVar[str] = "tracing.failed"
    level: ClassVar[Level] = "warning"
    error: str


@dataclass(slots=True)
class TracesTaken(Fact):
    """The collector takes spans again."""

    event: ClassVar[str] = "tracing.recovered"
    down_s: float
    lost: int
    """Spans that were given up meanwhile."""


@dataclass(slots=True)
class RequestAmbiguous(Fact):
    """Routes of different tenants claimed one request, which was refused. Keys are never among the claims."""

    event: ClassVar[str] = "request.ambiguous"
    level: ClassVar[Level] = "warning"
    request_id: str
    claims: tuple[str, ...]
    """Each kind of route with the tenant that it names, eight at the most."""
    caller: str


@dataclass(slots=True)
class PolicyWouldRefuse(Fact):
    """A request passed that the tenant's policy on trial would refuse."""

    event: ClassVar[str] = "policy.would_refuse"
    request_id: str
    tenant: str
    method: str
    path: str
    caller: str
    rule: str
    """The part of the policy: ``caller``, ``endpoint``, ``legacy``, ``company``, ``rate``, ``concurrency``,
    ``body``."""
    detail: str


@dataclass(slots=True)
class CircuitOpened(Fact):
    """Request after request to the upstream got no answer, so for a while none is sent."""

    event: ClassVar[str] = "upstream.circuit_opened"
    level: ClassVar[Level] = "warning"
    upstream: str
    failures: int
    """Requests in a row that got no answer."""
    reason: str
    """What befell the last of them, in the proxy's own words."""
    retry_in_s: float
    """When one request is sent to see how things are."""


@dataclass(slots=True)
class CircuitClosed(Fact):
    """The upstream answers again, and requests go to it."""

    event: ClassVar[str] = "upstream.circuit_closed"
    upstream: str
    down_s: float


@dataclass(slots=True)
class AddressRefused(Fact):
    """A name of Pleo's led to an address that tokens and secrets must not be sent to, so nothing was."""

    event: ClassVar[str] = "outbound.address_refused"
    level: ClassVar[Level] = "warning"
    host: str
    address: str


@dataclass(slots=True)
class RequestCrashed(Fact):
    """A defect of the proxy met by a request; the caller got 500. ``error`` is the exception's type."""

    event: ClassVar[str] = "request.crashed"
    level: ClassVar[Level] = "error"
    request_id: str
    error: str
    where: str
    """Innermost file and line of the project; never the exception's text, which may hold anything."""


@dataclass(slots=True)
class HandshakeFailed(Fact):
    """A caller connected to a listener with TLS, and no connection came of it."""

    event: ClassVar[str] = "tls.handshake_failed"
    listener: str
    caller: str
    reason: str
    """OpenSSL's name of the fault, such as ``CERTIFICATE_VERIFY_FAILED``, or ``timeout``, or ``left``."""
