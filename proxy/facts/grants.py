"""What became of tokens, grants and consents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from proxy.facts.fact import Fact, Level
from proxy.model import Outcome


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
