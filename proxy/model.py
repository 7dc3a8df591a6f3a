"""The nouns of the proxy as frozen values, and the facts that its layers report.

Imports nothing of the project, does no I/O, reads no clock. Instants are seconds since the epoch (UTC) as
``float``; spans of time are seconds and end in ``_s``, or milliseconds and end in ``_ms``; sizes are bytes.
"""

from __future__ import annotations

import hmac
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import ClassVar, Literal, NewType, NoReturn

Clock = Callable[[], float]
"""Seconds since the epoch; handed in, so that tests own time."""

Sealed = NewType("Sealed", str)
"""A secret as :mod:`proxy.vault` sealed it: safe to store, useless without the key ring and its place."""


class Secret:
    """A token, code, verifier, client secret or key that never shows itself.

    ``repr``, ``str`` and ``format`` give a fixed text; pickling is refused. Only the injector
    (:mod:`proxy.headers`), the provider and the vault call :meth:`reveal`.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself. Each call is a place to review."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")


class Preset(StrEnum):
    """Which part of Pleo's API the callers of a tenant may use (:mod:`proxy.policy` holds the rules)."""

    READ_ONLY = "read-only"
    EXPORTS = "exports"
    ACCOUNTING = "accounting"
    FULL = "full"


class GrantState(StrEnum):
    """What a grant is good for, as listings, metrics and logs show it."""

    NONE = "none"
    """Nobody has consented yet."""
    CONNECTED = "connected"
    REFRESHING = "refreshing"
    """A refresh was sent, or was about to be, and no answer has been saved."""
    UNVERIFIED = "unverified"
    NEEDS_REAUTH = "needs_reauth"
    """Pleo refused the refresh token for good; a person must consent again."""
    REVOKED = "revoked"
    """Ended by a request that revoked it (``DELETE /v1/installations/me``) or by the operator."""


class Outcome(StrEnum):
    """What came of one refresh: log field, metric label and health of the tenant at once."""

    GRANTED = "granted"
    REFUSED = "refused"
    """Terminal (RFC 6749 section 5.2 ``invalid_grant`` and Pleo's spellings of it)."""
    CLIENT_REJECTED = "client_rejected"
    """Our registration was refused: the operator's fault, no grant is touched."""
    NOT_SENT = "not_sent"
    """Resolving, connecting or TLS failed, so the refresh token was not used."""
    UNAVAILABLE = "unavailable"
    """Pleo answered 5xx or 429."""
    UNKNOWN = "unknown"
    """Sent, but no usable answer came: Pleo may or may not have rotated the tokens."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a server (RFC 6454); a token goes to exactly one of them."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of ``Host`` (RFC 9110 section 7.2): the port only where it is not the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """A proxy on the way to Pleo, which is asked for tunnels and sees nothing of what goes through them."""

    host: str
    port: int
    credentials: Secret | None = None
    """``user:password``."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A named slot for one Pleo company and the routes by which its callers are recognised.

    The path prefix ``/name`` and the header ``X-Pleo-Tenant: name`` follow from the name.
    """

    name: str
    company: str | None = None
    """The company's UUID in lower case; ``None`` until the first consent settles it."""
    enabled: bool = True
    preset: Preset = Preset.FULL
    hosts: tuple[str, ...] = ()
    """Host names in lower case, without port."""
    networks: tuple[str, ...] = ()
    """Caller networks in CIDR notation, canonical."""
    legacy_keys: tuple[str, ...] = ()
    """SHA-256 hex digests of legacy API keys; the keys themselves are not kept."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a person consented to, as it is stored: its tokens sealed, its times in plain view."""

    tenant: str
    state: GrantState
    generation: int
    """+1 with every new token pair, across reconnections too; binds the sealed values."""
    company: str | None = None
    scopes: tuple[str, ...] = ()
    access: Sealed | None = None
    refresh: Sealed | None = None
    issued_at: float | None = None
    access_expires_at: float | None = None
    refresh_expires_at: float | None = None
    """Known or assumed end of the refresh token (Pleo: at least 60 days, and may end sooner)."""
    last_refreshed_at: float | None = None
    last_outcome: Outcome | None = None
    attempted_at: float | None = None
    """When a refresh was started whose answer is not saved yet (write-ahead); else ``None``."""
    answer_lost: bool = False
    """An earlier refresh was sent and never answered, so Pleo may have rotated the tokens unseen."""


@dataclass(frozen=True, slots=True)
class Link:
    """A one-time connect link, as stored: by the SHA-256 of its token."""

    id: str
    tenant: str
    created_at: float
    expires_at: float
    used_at: float | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """One authorisation under way in one browser (RFC 6749 section 4.1, RFC 7636)."""

    id: str
    """SHA-256 of ``state``: found by it, and the store never holds the state itself."""
    link: str
    tenant: str
    browser: str
    """SHA-256 of the cookie that binds the flow to the browser that opened the link."""
    verifier: Sealed
    created_at: float
    expires_at: float


Level = Literal["debug", "info", "warning", "error"]


@dataclass(slots=True)
class Fact:
    """Something that happened, past tense. Layers emit facts; :mod:`proxy.telemetry` shows them.

    Nobody changes a fact; it is not frozen, because making a frozen one costs each request microseconds.
    """

    event: ClassVar[str]
    level: ClassVar[Level] = "info"


Emit = Callable[[Fact], None]


@dataclass(slots=True)
class RequestFinished(Fact):
    """A caller's request ended, however it ended. ``path`` is without the query, which may be private."""

    event: ClassVar[str] = "request.finished"
    request_id: str
    tenant: str | None
    method: str
    path: str
    status: int
    """The status sent to the caller; 499 where the caller left before one was sent."""
    outcome: str
    """``answered``, ``caller_left``, ``upstream_broke_off``, ``cut_by_stop``, or the name of the refusal."""
    upstream_status: int | None
    duration_ms: float
    upstream_ms: float | None
    """From handing the first byte to the upstream to the head of the answer that was passed on."""
    retried: bool
    """The request was sent a second time after a 401."""
    generation: int | None
    """Generation of the token that the passed-on answer belongs to."""
    bytes_in: int
    bytes_out: int
    caller: str


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
class RequestCrashed(Fact):
    """A defect of the proxy met by a request; the caller got 500. ``error`` is the exception's type."""

    event: ClassVar[str] = "request.crashed"
    level: ClassVar[Level] = "error"
    request_id: str
    error: str
    where: str
    """Innermost file and line of the project; never the exception's text, which may hold anything."""


@dataclass(slots=True)
class TaskCrashed(Fact):
    """A defect of the proxy met by one of its own tasks. ``error`` is the exception's type."""

    event: ClassVar[str] = "task.crashed"
    level: ClassVar[Level] = "error"
    task: str
    error: str
    where: str


@dataclass(slots=True)
class RefreshStarted(Fact):
    """A refresh request is about to be sent."""

    event: ClassVar[str] = "token.refresh_started"
    tenant: str
    generation: int
    reason: str
    """``expiring``, ``expired``, ``rejected`` (a 401), or ``keep_alive``."""
    chain: str
    """Short keyed hash of the refresh token used, by which a chain of rotations can be followed."""


@dataclass(slots=True)
class Refreshed(Fact):
    """A new pair is saved and in use."""

    event: ClassVar[str] = "token.refreshed"
    tenant: str
    generation: int
    expires_in_s: float
    duration_ms: float
    waiters: int
    chain: str
    remarks: tuple[str, ...] = ()
    """What was missing from the answer: ``expires_in``, ``refresh_token``."""


@dataclass(slots=True)
class RefreshFailed(Fact):
    """A refresh brought no new pair; ``outcome`` says whose fault it was and what follows."""

    event: ClassVar[str] = "token.refresh_failed"
    level: ClassVar[Level] = "warning"
    tenant: str
    generation: int
    outcome: Outcome
    error: str
    """The provider's ``error`` code if it is a known one, else what kind of failure it was."""
    duration_ms: float
    retry_in_s: float | None


@dataclass(slots=True)
class GrantConnected(Fact):
    """A person consented and the pair is stored."""

    event: ClassVar[str] = "grant.connected"
    tenant: str
    generation: int
    company: str
    scopes: tuple[str, ...]


@dataclass(slots=True)
class ConsentFailed(Fact):
    """A consent flow ended without a grant; nothing that was connected before has changed."""

    event: ClassVar[str] = "grant.consent_failed"
    level: ClassVar[Level] = "warning"
    tenant: str | None
    reason: str
    error: str | None
    """Pleo's error code where there was a known one, or the kind of failure."""


@dataclass(slots=True)
class ScopesMissing(Fact):
    """A person consented to less than was asked for; calls that need the rest will get 403 from Pleo."""

    event: ClassVar[str] = "grant.scopes_missing"
    level: ClassVar[Level] = "warning"
    tenant: str
    scopes: tuple[str, ...]


@dataclass(slots=True)
class GrantNeedsReauth(Fact):
    """The grant is dead; its tokens are erased; calls are refused until someone reconnects it."""

    event: ClassVar[str] = "grant.needs_reauth"
    level: ClassVar[Level] = "error"
    tenant: str
    generation: int
    reason: str
    """The provider's error code, or ``lost_answer`` where an earlier answer never arrived."""


@dataclass(slots=True)
class GrantRevoked(Fact):
    """A request that Pleo accepted revoked every token of the tenant."""

    event: ClassVar[str] = "grant.revoked"
    level: ClassVar[Level] = "warning"
    tenant: str
    generation: int


@dataclass(slots=True)
class SealedValueFailed(Fact):
    """A stored secret did not open: the wrong key ring, a moved row, or a damaged database."""

    event: ClassVar[str] = "vault.value_refused"
    level: ClassVar[Level] = "error"
    tenant: str
    column: str
    problem: str


@dataclass(slots=True)
class StoreFailed(Fact):
    """The store did not carry out an operation; ``error`` is the proxy's own word for the kind of failure."""

    event: ClassVar[str] = "store.failed"
    level: ClassVar[Level] = "error"
    operation: str
    error: str


@dataclass(slots=True)
class StoreRecovered(Fact):
    """The store works again after it failed."""

    event: ClassVar[str] = "store.recovered"
    down_s: float


@dataclass(slots=True)
class LinkCreated(Fact):
    """A one-time connect link was made on the admin listener. The link itself is a secret."""

    event: ClassVar[str] = "connect.link_created"
    tenant: str
    expires_at: float


@dataclass(slots=True)
class LinkOpened(Fact):
    """A browser opened a connect link and was sent on to Pleo."""

    event: ClassVar[str] = "connect.link_opened"
    tenant: str


@dataclass(slots=True)
class TenantsLoaded(Fact):
    """The tenants in force were read from the store, at start or after a change."""

    event: ClassVar[str] = "tenants.loaded"
    tenants: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(slots=True)
class ProxyStarted(Fact):
    """Both listeners accept connections."""

    event: ClassVar[str] = "proxy.started"
    version: str
    proxy: tuple[str, ...]
    admin: str
    upstream: str
    tenants: int


@dataclass(slots=True)
class WorkerStarted(Fact):
    """One of several worker processes serves."""

    event: ClassVar[str] = "worker.started"
    number: int
    pid: int


@dataclass(slots=True)
class WorkerDied(Fact):
    """A worker process ended unasked; its callers' connections are cut, and another takes its place."""

    event: ClassVar[str] = "worker.died"
    level: ClassVar[Level] = "error"
    number: int
    exit_code: int
    """Negative: the number of the signal that ended it."""
    restart_in_s: float


@dataclass(slots=True)
class ProxyDraining(Fact):
    """A stop was asked for: no new connections; what is under way is finished, bounded by ``drain_s``."""

    event: ClassVar[str] = "proxy.draining"
    requests: int
    refreshes: int
    drain_s: float


@dataclass(slots=True)
class ProxyStopped(Fact):
    """The last event of a run; ``requests_cut`` counts what the drain time did not suffice for."""

    event: ClassVar[str] = "proxy.stopped"
    requests_cut: int


_PACKAGE = str(PurePath(__file__).parent)


def innermost_place(error: BaseException) -> str:
    """``file:line`` in this package where an exception came from, for a log that must not show its text."""
    places = [
        (PurePath(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [f"{path.name}:{line}" for path, line in places if path.is_relative_to(_PACKAGE)]
    return own[-1] if own else "outside the package"
