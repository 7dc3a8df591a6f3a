"""What happened, as values: the layers below report facts, :mod:`proxy.telemetry` shows and counts them.

Imports no more than the nouns, does no I/O, reads no clock. Instants are seconds since the epoch (UTC); spans
of time end in ``_s`` or ``_ms``, sizes are bytes. Some have modules of their
own, and are had from the package as all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from proxy.facts.fact import Emit as Emit
from proxy.facts.fact import Fact as Fact
from proxy.facts.fact import Level as Level
from proxy.facts.operators import AdminLockedOut as AdminLockedOut
from proxy.facts.operators import AdminLoggedIn as AdminLoggedIn
from proxy.facts.operators import AdminLoggedOut as AdminLoggedOut
from proxy.facts.operators import AdminLoginFailed as AdminLoginFailed
from proxy.facts.operators import ConfigReloadAsked as ConfigReloadAsked
from proxy.facts.operators import LinkCreated as LinkCreated
from proxy.facts.operators import LinkOpened as LinkOpened
from proxy.facts.operators import LinkRefused as LinkRefused
from proxy.facts.process import ConfigReloaded as ConfigReloaded
from proxy.facts.process import ConfigReloadFailed as ConfigReloadFailed
from proxy.facts.process import ProxyDraining as ProxyDraining
from proxy.facts.process import ProxyStarted as ProxyStarted
from proxy.facts.process import ProxyStopped as ProxyStopped
from proxy.facts.process import WorkerDied as WorkerDied
from proxy.facts.process import WorkerStarted as WorkerStarted
from proxy.facts.requests import RequestFinished as RequestFinished
from proxy.facts.requests import RequestTraced as RequestTraced
from proxy.facts.requests import Send as Send
from proxy.facts.requests import TracesLost as TracesLost
from proxy.facts.requests import TracesTaken as TracesTaken
from proxy.model import Outcome


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
    """``expiring``, ``expired``, ``rejected`` (a 401), ``keep_alive``, ``asked`` (by an operator), or
    ``restored`` (the first refresh of a grant from a backup)."""
    chain: str
    """Short keyed hash of the refresh token used, by which a chain of rotations can be followed."""


@dataclass(slots=True)
class Refreshed(Fact):
    """A new pair is saved and in use."""

    event: ClassVar[str] = "token.refreshed"
    tenant: str
    generation: int
    reason: str
    """As in :class:`RefreshStarted`."""
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
    reason: str
    """As in :class:`RefreshStarted`."""
    outcome: Outcome
    error: str
    """The provider's ``error`` code if it is a known one, else what kind of failure it was."""
    duration_ms: float
    retry_in_s: float | None


@dataclass(slots=True)
class ClientSecretFellBack(Fact):
    """Pleo did not take the OAuth client's secret that was tried first, and took the other one."""

    event: ClassVar[str] = "client.secret_fell_back"
    level: ClassVar[Level] = "warning"
    setting: str
    """The one that works: ``pleo.client_secret_previous``, or ``pleo.client_secret`` once that one fails."""


@dataclass(slots=True)
class GrantConnected(Fact):
    """A person consented and the pair is stored."""

    event: ClassVar[str] = "grant.connected"
    tenant: str
    generation: int
    company: str
    scopes: tuple[str, ...]
    reference: str
    """Of the link, as the authoriser's page and the tenant's page show it."""


@dataclass(slots=True)
class ConsentFailed(Fact):
    """A consent flow ended without a grant; nothing that was connected before has changed."""

    event: ClassVar[str] = "grant.consent_failed"
    level: ClassVar[Level] = "warning"
    tenant: str | None
    reason: str
    error: str | None
    """Pleo's error code where there was a known one, or the kind of failure."""
    reference: str
    """As the authoriser's page shows it: of the link, or of this failure where no link is known."""


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
    """The provider's error code, ``lost_answer`` where an earlier answer never arrived, or ``stale_backup``
    where the grant was restored from a backup that Pleo's newer tokens had outrun."""


@dataclass(slots=True)
class GrantEndsSoon(Fact):
    """A grant's refresh token comes to its end, since refreshing it has not worked for weeks."""

    event: ClassVar[str] = "grant.ends_soon"
    level: ClassVar[Level] = "warning"
    tenant: str
    generation: int
    days_left: int
    """Whole days until the known or assumed end; then a person must consent again."""
    last_outcome: Outcome | None
    """Of the last refresh."""


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
class JournalFailed(Fact):
    """A new pair could not be recorded in the journal; the store is asked to keep it all the same."""

    event: ClassVar[str] = "journal.failed"
    level: ClassVar[Level] = "error"
    tenant: str
    error: str


@dataclass(slots=True)
class JournalReplayed(Fact):
    """A pair that a former run had received and not saved was found in the journal at the start."""

    event: ClassVar[str] = "journal.replayed"
    tenant: str
    generation: int
    """Of the pair."""
    taken: bool
    """The store has it now; else the tenant was connected anew, or removed, or it was saved already."""


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
class LineWithheld(Fact):
    """A line would have carried a secret, and was not written: a defect of the proxy."""

    event: ClassVar[str] = "log.line_withheld"
    level: ClassVar[Level] = "error"
    withheld: str
    """The event that the line was to tell of."""


@dataclass(slots=True)
class AuditAnchored(Fact):
    """How far the audit trail has come, for whoever keeps logs where the trail's database is not."""

    event: ClassVar[str] = "audit.anchored"
    number: int
    """Of the newest record that this process wrote."""
    link: str
    """Its link, in hex: ``pleo-proxy audit verify --anchor NUMBER:LINK`` holds the trail to it."""


@dataclass(slots=True)
class AuditFailed(Fact):
    """The audit trail cannot be extended or pruned, or its end was tampered with; ``problem`` says what."""

    event: ClassVar[str] = "audit.failed"
    level: ClassVar[Level] = "error"
    problem: str


@dataclass(slots=True)
class TenantsLoaded(Fact):
    """The tenants in force were read from the store, at start or after a change."""

    event: ClassVar[str] = "tenants.loaded"
    tenants: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(slots=True)
class HandshakeFailed(Fact):
    """A caller connected to a listener with TLS, and no connection came of it."""

    event: ClassVar[str] = "tls.handshake_failed"
    listener: str
    caller: str
    reason: str
    """OpenSSL's name of the fault, such as ``CERTIFICATE_VERIFY_FAILED``, or ``timeout``, or ``left``."""


@dataclass(slots=True)
class CertificateReloaded(Fact):
    """The files of a listener's certificate have changed, and new connections get the new one."""

    event: ClassVar[str] = "tls.certificate_reloaded"
    listener: str


@dataclass(slots=True)
class CertificateFailed(Fact):
    """The files of a listener's certificate have changed, and cannot be used; the old one stays in use."""

    event: ClassVar[str] = "tls.certificate_failed"
    level: ClassVar[Level] = "error"
    listener: str
    problem: str


@dataclass(slots=True)
class TenantMissing(Fact):
    """A setting names a tenant that the store does not have; what it is for is refused until it is added."""

    event: ClassVar[str] = "tenants.missing"
    level: ClassVar[Level] = "warning"
    setting: str
    tenant: str


@dataclass(slots=True)
class NotifySent(Fact):
    """A notification arrived where one of the channels leads."""

    event: ClassVar[str] = "notify.sent"
    channel: str
    kind: str
    message: str
    """Its id, the same on each channel."""
    tries: int


@dataclass(slots=True)
class NotifyFailed(Fact):
    """A notification did not arrive; ``error`` is the proxy's own word for why."""

    event: ClassVar[str] = "notify.failed"
    level: ClassVar[Level] = "warning"
    channel: str
    kind: str
    message: str
    error: str
    tries: int
    retry_in_s: float | None
    """``None``: it is given up."""


@dataclass(slots=True)
class NotifyHeldBack(Fact):
    """A trouble came back so soon after it was said to be over that it is not told again yet."""

    event: ClassVar[str] = "notify.held_back"
    kind: str
    tenant: str | None
