"""What operators and authorisers did at the operator's listener."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from proxy.facts.fact import Fact, Level
from proxy.model import Role


@dataclass(slots=True)
class LinkCreated(Fact):
    """A one-time connect link was made on the admin listener. The link itself is a secret."""

    event: ClassVar[str] = "connect.link_created"
    tenant: str
    expires_at: str
    """ISO 8601, UTC."""
    user: str
    """Who made it: the address that single sign-on gave, or the name of the token."""
    reference: str
    """Of the link, as the authoriser's page and the tenant's page show it."""


@dataclass(slots=True)
class LinkOpened(Fact):
    """Somebody read the page of a connect link and went on to Pleo."""

    event: ClassVar[str] = "connect.link_opened"
    tenant: str
    reference: str
    """Of the link, as the authoriser's page and the tenant's page show it."""


@dataclass(slots=True)
class LinkRefused(Fact):
    """A page told an authoriser why their link leads no further; no flow was begun."""

    event: ClassVar[str] = "connect.link_refused"
    tenant: str | None
    reason: str
    reference: str
    """As the page shows it."""


@dataclass(slots=True)
class AdminLoggedIn(Fact):
    """Somebody logged in to the operator's pages."""

    event: ClassVar[str] = "admin.login"
    user: str
    role: Role
    by: Literal["token", "sso"]
    peer: str
    """Address of the other end of the connection."""


@dataclass(slots=True)
class AdminLoginFailed(Fact):
    """A wrong token came to the operator's listener; what was sent is shown nowhere."""

    event: ClassVar[str] = "admin.login_failed"
    level: ClassVar[Level] = "warning"
    by: Literal["form", "bearer"]
    peer: str


@dataclass(slots=True)
class AdminLockedOut(Fact):
    """So many wrong tokens came that no more are looked at for a while."""

    event: ClassVar[str] = "admin.locked_out"
    level: ClassVar[Level] = "warning"
    peer: str
    """Where the last of them came from."""
    everywhere: bool
    """Not only from there: the wrong tokens of all addresses together were too many."""
    retry_in_s: float


@dataclass(slots=True)
class ConfigReloadAsked(Fact):
    """Somebody asked at the operator's listener to have the configuration read again."""

    event: ClassVar[str] = "config.reload_asked"
    user: str


@dataclass(slots=True)
class AdminLoggedOut(Fact):
    """Somebody ended their session on the operator's pages."""

    event: ClassVar[str] = "admin.logout"
    user: str
    role: Role
    peer: str
