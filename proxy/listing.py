"""The listings of tenants and grants as plain data, one form for the command line and the JSON API.

Pure. No listing holds a token, sealed or not; instants are ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, overload

from proxy.model import DAY_S, Grant, GrantState, Outcome, Tenant

Row = dict[str, Any]
_MINUTE_S, _HOUR_S = 60.0, 3600.0


def tenants(all_tenants: Iterable[Tenant], grants: Mapping[str, Grant]) -> list[Row]:
    """``name, company, enabled, state, routes, preset`` of each tenant."""
    return [
        {
            "name": tenant.name,
            "company": tenant.company,
            "enabled": tenant.enabled,
            "state": state(grants.get(tenant.name)).value,
            "routes": routes(tenant),
            "preset": tenant.policy.preset.value,
        }
        for tenant in all_tenants
    ]


def grants(all_tenants: Iterable[Tenant], by_tenant: Mapping[str, Grant]) -> list[Row]:
    """The grant of each tenant, also of those that have none."""
    return [_grant(tenant, by_tenant.get(tenant.name)) for tenant in all_tenants]


DOWN_EVENTS = frozenset({"grant.needs_reauth", "grant.revoked", "tenant.added", "tenant.changed"})
"""Events of the audit trail that tell since when a tenant is down, and why."""

_ENDED = {
    GrantState.NONE: ("tenant.added", "nobody has consented yet"),
    GrantState.NEEDS_REAUTH: ("grant.needs_reauth", "Pleo ended the authorisation"),
    GrantState.REVOKED: ("grant.revoked", "its tokens were erased"),
}
"""States in which there are no tokens, the event that led there, and why, where its record says no more."""

Told = tuple[float, str, Mapping[str, Any]]
"""Instant, event and details of a record of the audit trail."""


def down(
    all_tenants: Iterable[Tenant],
    by_tenant: Mapping[str, Grant],
    told: Mapping[str, Sequence[Told]],
    now: float,
) -> list[Row]:
    """``tenant, state, since_at, why`` of each tenant whose callers are refused.

    :param told: by tenant, records of :data:`DOWN_EVENTS`, the newest last.
    """
    rows = []
    for tenant in all_tenants:
        fault = _fault(tenant, by_tenant.get(tenant.name), told.get(tenant.name, ()), now)
        if fault is not None:
            word, since, why = fault
            rows.append({"tenant": tenant.name, "state": word, "since_at": instant(since), "why": why})
    return rows


def _fault(
    tenant: Tenant, grant: Grant | None, told: Sequence[Told], now: float
) -> tuple[str, float | None, str | None] | None:
    """Why callers of a tenant are refused: in a word, since when, and what led to it."""
    if not tenant.enabled:
        return "disabled", _last(told, "tenant.changed", "enabled")[0], "an operator disabled it"
    word = state(grant)
    if word in _ENDED:
        event, why = _ENDED[word]
        since, details = _last(told, event)
        return word.value, since, details.get("reason", why)
    if grant is None or grant.last_outcome in {None, Outcome.GRANTED}:
        return None
    expired_at = grant.access_expires_at
    if expired_at is None or expired_at > now:
        return None
    return grant.state.value, expired_at, f"refreshes fail: {shown(grant.last_outcome)}"


def _last(told: Sequence[Told], wanted: str, field: str = "") -> tuple[float | None, Mapping[str, Any]]:
    """When the newest record of an event was made, and its details; one that tells of ``field``, if named."""
    for at, event, details in reversed(told):
        if event == wanted and (not field or field in details):
            return at, details
    return None, {}


def state(grant: Grant | None) -> GrantState:
    """State of a tenant's grant; a tenant nobody consented for has ``none``."""
    return GrantState.NONE if grant is None else grant.state


def routes(tenant: Tenant) -> list[str]:
    """How callers of the tenant are recognised, as ``kind: value``."""
    return [
        f"path: /{tenant.name}",
        f"header: X-Pleo-Tenant: {tenant.name}",
        *(f"host: {host}" for host in tenant.hosts),
        *(f"network: {network}" for network in tenant.networks),
        # Enough of the hash to tell two keys apart, nothing of the key.
        *(f"legacy-key: sha256 {key[:12]}" for key in tenant.legacy_keys),
        *(f"certificate: {name}" for name in tenant.certificates),
        *(f"shared-key: sha256 {key[:12]}" for key in tenant.shared_keys),
    ]


@overload
def instant(at: float) -> str: ...
@overload
def instant(at: float | None) -> str | None: ...
def instant(at: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def span(seconds: float) -> str:
    """A span of time as people say it, in one unit, rounded down."""
    for length_s, unit in ((DAY_S, "day"), (_HOUR_S, "hour"), (_MINUTE_S, "minute")):
        if seconds >= length_s:
            count = int(seconds // length_s)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "under a minute"


def distance(at: float, now: float) -> str:
    """How far an instant is from now, and on which side of it."""
    return f"in {span(at - now)}" if at >= now else f"{span(now - at)} ago"


def shown(value: object) -> str:
    """A field of a tenant, policy or grant on one line."""
    if isinstance(value, tuple):
        return ", ".join(shown(one) for one in value) or "none"
    return str(value.value if isinstance(value, Enum) else "none" if value is None else value)


def _grant(tenant: Tenant, grant: Grant | None) -> Row:
    return {
        "tenant": tenant.name,
        "state": state(grant).value,
        "generation": 0 if grant is None else grant.generation,
        "company": tenant.company if grant is None else grant.company,
        "scopes": [] if grant is None else list(grant.scopes),
        "access_expires_at": None if grant is None else instant(grant.access_expires_at),
        "refresh_expires_at": None if grant is None else instant(grant.refresh_expires_at),
        "last_refreshed_at": None if grant is None else instant(grant.last_refreshed_at),
        "last_outcome": None if grant is None or grant.last_outcome is None else grant.last_outcome.value,
    }
