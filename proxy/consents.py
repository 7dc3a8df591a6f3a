"""How a consent can end, as values: what the authoriser's pages tell, and which fault it was. Pure.

An :class:`Ending` goes to the authoriser's browser and comes back, so it holds no secret. Whether it is ours
when it comes back is for :mod:`proxy.admin` to see to.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from proxy.errors import ConsentFault
from proxy.model import Link, Outcome
from proxy.oauth import TokenFailure

_REFERENCE_BYTES = 5
"""40 bits: eight letters, which can be told on the telephone, and no two alike among a million."""

_FAULTS = {fault.slug: fault for fault in ConsentFault}
_OF_CALLBACK = {
    "access_denied": ConsentFault.DENIED,
    "server_error": ConsentFault.PLEO_UNAVAILABLE,
    "temporarily_unavailable": ConsentFault.PLEO_UNAVAILABLE,
    "invalid_request": ConsentFault.NOT_SET_UP,
    "invalid_scope": ConsentFault.NOT_SET_UP,
    "unauthorized_client": ConsentFault.NOT_SET_UP,
    "unsupported_response_type": ConsentFault.NOT_SET_UP,
    "interaction_required": ConsentFault.CANCELLED,
    "login_required": ConsentFault.CANCELLED,
    "account_selection_required": ConsentFault.CANCELLED,
    "consent_required": ConsentFault.CANCELLED,
}
"""Errors of RFC 6749 section 4.1.2.1, and of OpenID Connect Core section 3.1.2.6, by whose fault they are."""
_OF_EXCHANGE = {
    Outcome.CLIENT_REJECTED: ConsentFault.NOT_SET_UP,
    Outcome.NOT_SENT: ConsentFault.PLEO_UNAVAILABLE,
    Outcome.UNAVAILABLE: ConsentFault.PLEO_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Invitation:
    """What somebody who opened a link that can be used is asked for."""

    reference: str
    tenant: str
    company: str | None
    """``None`` where the first consent settles it."""
    scopes: tuple[str, ...]
    expires_at: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended for somebody who opened a link."""

    reference: str
    fault: ConsentFault | None = None
    """``None``: the tenant is connected."""
    tenant: str | None = None
    company: str | None = None
    """The id of the company that was chosen at Pleo."""
    company_name: str | None = None
    expected: str | None = None
    """The tenant's company, where another was chosen."""
    granted: tuple[str, ...] = ()
    """Of the scopes that were asked for."""
    missing: tuple[str, ...] = ()
    at: float | None = None
    """When a link was used, or expired."""
    usable_until: float | None = None
    """Until when the link can be opened again; ``None`` where it cannot."""

    def as_bytes(self) -> bytes:
        """All of it as JSON."""
        fields = asdict(self)
        fields["fault"] = None if self.fault is None else self.fault.slug
        return json.dumps(fields, separators=(",", ":")).encode()


def ending_of(data: bytes) -> Ending:
    """The ending of which :meth:`Ending.as_bytes` made ``data``.

    :raises ValueError: another version of this program made it.
    """
    fields: dict[str, Any] = json.loads(data)
    try:
        fault = None if fields["fault"] is None else _FAULTS[fields["fault"]]
        scopes = {name: tuple(fields[name]) for name in ("granted", "missing")}
        return Ending(**{**fields, **scopes, "fault": fault})
    except (KeyError, TypeError):
        raise ValueError("not of this version") from None


def reference_of(link_id: str) -> str:
    """By which people and log lines name a link: the beginning of its id, which is a hash already."""
    return _spoken(bytes.fromhex(link_id)[:_REFERENCE_BYTES])


def new_reference() -> str:
    """A reference for what has no link."""
    return _spoken(secrets.token_bytes(_REFERENCE_BYTES))


def _spoken(raw: bytes) -> str:
    # RFC 4648 section 6: no letter of this alphabet is taken for a digit of it.
    text = base64.b32encode(raw).decode()
    return f"{text[:4]}-{text[4:]}"


def usable_until(link: Link | None, now: float) -> float | None:
    """Until when a link can be opened, if it still can."""
    if link is None or link.used_at is not None or now >= link.expires_at:
        return None
    return link.expires_at


def fault_of_callback(error: str) -> ConsentFault:
    """What the ``error`` of a callback means to the authoriser."""
    return _OF_CALLBACK.get(error, ConsentFault.PLEO_REFUSED)


def fault_of_exchange(failure: TokenFailure) -> ConsentFault:
    """What the failed exchange of a code means to the authoriser."""
    return _OF_EXCHANGE.get(failure.outcome, ConsentFault.PLEO_REFUSED)
