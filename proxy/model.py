"""The nouns of the proxy as frozen values.

Imports nothing of the project, does no I/O, reads no clock. Instants are seconds since the epoch (UTC) as
``float``; spans of time are seconds and end in ``_s``, or milliseconds and end in ``_ms``; sizes are bytes.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NewType, NoReturn

DAY_S = 86400.0

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


class Unblocked(StrEnum):
    """An endpoint that is refused whatever else a policy allows, unless the policy names it here."""

    INSTALLATION = "installation"
    """``DELETE /v1/installations/me``, which ends every token of the tenant."""
    SUBSCRIPTION_SECRET = "subscription-secret"  # noqa: S105 - the name of an endpoint
    """``…/subscriptions/ID/secret``, by which webhooks of Pleo could be forged."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the callers of a tenant may ask of Pleo, from where, and how much (:mod:`proxy.policy`)."""

    preset: Preset = Preset.FULL
    allow: tuple[str, ...] = ()
    """Rules as ``METHODS PATH``; where there are any, they take the place of the preset's."""
    deny: tuple[str, ...] = ()
    """Rules of the same form, which go before all that allows."""
    unblock: tuple[Unblocked, ...] = ()
    callers: tuple[str, ...] = ()
    """Networks in CIDR notation from which callers are let in; from everywhere if there are none."""
    pin_company: bool = True
    """A request that names another company than the tenant's is refused (:mod:`proxy.pin`)."""
    requests_per_minute: int | None = None
    """``None`` here and below: as the settings say for all tenants."""
    concurrency: int | None = None
    """Requests under way at one time."""
    body_bytes: int | None = None


class Role(StrEnum):
    """What an operator of the proxy may do on the operator's listener."""

    VIEWER = "viewer"
    """Sees everything, changes nothing."""
    OPERATOR = "operator"
    """Changes things too."""

    def includes(self, other: Role) -> bool:
        """Whether who has this role may do what asks for ``other``."""
        return self is Role.OPERATOR or self is other


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


TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""What a tenant may be called: it is the first segment of a path."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A named slot for one Pleo company and the routes by which its callers are recognised.

    The path prefix ``/name`` and the header ``X-Pleo-Tenant: name`` follow from the name.
    """

    name: str
    company: str | None = None
    """The company's UUID in lower case; ``None`` until the first consent settles it."""
    enabled: bool = True
    policy: Policy = Policy()
    trial: Policy | None = None
    """A policy that is only tried: what it would refuse is reported and counted, and passes."""
    hosts: tuple[str, ...] = ()
    """Host names in lower case, without port."""
    networks: tuple[str, ...] = ()
    """Caller networks in CIDR notation, canonical."""
    legacy_keys: tuple[str, ...] = ()
    """SHA-256 hex digests of legacy API keys; the keys themselves are not kept."""
    certificates: tuple[str, ...] = ()
    """Names of callers' certificates (:mod:`proxy.certificates`), which lead to the tenant; each caller must
    have one of them."""
    shared_keys: tuple[str, ...] = ()
    """SHA-256 hex digests of shared keys, one of which each caller must send."""


ROUTE_FIELDS = ("hosts", "networks", "legacy_keys", "certificates", "shared_keys")
"""The fields of a tenant that say who its callers are."""


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
    lease_owner: str | None = None
    """The process that is at it, as ``INSTANCE/WORKER``."""
    lease_until: float | None = None
    """Until then nobody else may try; the owner moves it on for as long as it is at it."""
    refresh_asked_at: float | None = None
    """When an operator asked for a refresh that has not begun yet."""
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


@dataclass(frozen=True, slots=True)
class AdminSession:
    """Somebody who logged in to the operator's pages, as stored: without the id that the cookie holds."""

    id: str
    """SHA-256 of the cookie's value."""
    role: Role
    user: str
    """The address that single sign-on gave, or the name of the token: ``operator`` or ``viewer``."""
    proof: str
    """Keyed hash over what the user logged in with; the key is the cookie's value, which is not stored."""
    created_at: float
    seen_at: float
    """Within about a minute: not every request is worth a write."""
