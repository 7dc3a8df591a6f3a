"""Rows of the store as values and back. Pure; shared by every database that keeps a store.

What is read is checked: a word that this program does not know is an error that names its place, since
guessing what a grant's state means could send or erase a token. Columns are taken by name, so that a
process goes on beside a newer one that has added some.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

import orjson

from proxy.errors import StoreUnavailable, TenantError
from proxy.model import (
    AdminSession,
    Flow,
    Grant,
    GrantState,
    Link,
    Outcome,
    Policy,
    Preset,
    Role,
    Tenant,
    Unblocked,
)

Row = dict[str, Any]
"""Column names and what the database holds there."""

Route = tuple[str, str, int]
"""Kind, value, and position among the tenant's routes of that kind."""

_Word = TypeVar("_Word", bound=StrEnum)

_ROUTE_FIELDS = {
    "host": "hosts",
    "network": "networks",
    "legacy_key": "legacy_keys",
    "certificate": "certificates",
    "shared_key": "shared_keys",
}


def routes_of(tenant: Tenant) -> list[Route]:
    """The tenant's routes as rows of the table ``routes``, less its name."""
    return [
        (kind, value, position)
        for kind, field in _ROUTE_FIELDS.items()
        for position, value in enumerate(getattr(tenant, field))
    ]


def row_of_tenant(tenant: Tenant) -> Row:
    """The tenant without its routes."""
    return {
        "name": tenant.name,
        "company": tenant.company,
        "enabled": int(tenant.enabled),
        "policy": policy_text(tenant.policy),
        "trial": None if tenant.trial is None else policy_text(tenant.trial),
    }


def policy_text(policy: Policy) -> str:
    """A policy as JSON, without what is as by default."""
    plain = {name: value for name, value in asdict(policy).items() if value != _DEFAULTS[name]}
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()


@lru_cache(maxsize=1024)
def policy_of(text: str) -> Policy:
    """The policy of a text; policies that agree are one object, since most tenants have the same.

    :raises StoreUnavailable: something in it is not known.
    """
    try:
        given = orjson.loads(text)
        lists = {name: tuple(value) for name, value in given.items() if isinstance(_DEFAULTS[name], tuple)}
        preset = Preset(given.get("preset", _DEFAULTS["preset"]))
        unblock = tuple(Unblocked(word) for word in given.get("unblock", ()))
    except (ValueError, TypeError, AttributeError, KeyError):
        raise _unknown("a policy", text) from None
    return Policy(**(given | lists | {"preset": preset, "unblock": unblock}))


def tenant_of(row: Row, routes: Iterable[Row]) -> Tenant:
    """The tenant of a row of ``tenants`` and its rows of ``routes``, which come in their order.

    :raises StoreUnavailable: a word in them is not known.
    """
    name = row["name"]
    values: dict[str, list[str]] = {field: [] for field in _ROUTE_FIELDS.values()}
    for route in routes:
        kind = route["kind"]
        if kind not in _ROUTE_FIELDS:
            raise _unknown(f"a kind of route of tenant {name}", kind)
        values[_ROUTE_FIELDS[kind]].append(route["value"])
    return Tenant(
        name=name,
        company=row["company"],
        enabled=bool(row["enabled"]),
        policy=policy_of(row["policy"]),
        trial=None if row["trial"] is None else policy_of(row["trial"]),
        **{field: tuple(routes) for field, routes in values.items()},
    )


def claimed_twice(tenant: str, kind: str, value: str) -> TenantError:
    """The refusal of a route that another tenant has; a key is not shown, nor its hash."""
    what = f"a {kind.replace('_', ' ')}" if kind.endswith("_key") else f"{kind} {value}"
    return TenantError(f"tenant {tenant}: {what} is claimed twice: leave it to one tenant")


_DEFAULTS = asdict(Policy())

GRANT_COLUMNS = tuple(field.name for field in fields(Grant))
"""The columns of ``grants`` are the fields of a grant."""


def row_of_grant(grant: Grant) -> Row:
    """The grant as a row; scopes as RFC 6749 section 3.3 writes them, which never hold a space."""
    return asdict(grant) | {
        "state": grant.state.value,
        "scopes": " ".join(grant.scopes),
        "last_outcome": grant.last_outcome.value if grant.last_outcome else None,
    }


def grant_of(row: Row) -> Grant:
    """The grant of a row.

    :raises StoreUnavailable: its state or outcome is not known.
    """
    tenant, outcome = row["tenant"], row["last_outcome"]
    return Grant(
        tenant=tenant,
        state=_word(GrantState, row["state"], f"the state of {tenant}'s grant"),
        generation=row["generation"],
        company=row["company"],
        scopes=tuple(row["scopes"].split()),
        access=row["access"],
        refresh=row["refresh"],
        issued_at=row["issued_at"],
        access_expires_at=row["access_expires_at"],
        refresh_expires_at=row["refresh_expires_at"],
        last_refreshed_at=row["last_refreshed_at"],
        last_outcome=outcome and _word(Outcome, outcome, f"the last outcome of {tenant}'s grant"),
        attempted_at=row["attempted_at"],
        lease_owner=row["lease_owner"],
        lease_until=row["lease_until"],
        refresh_asked_at=row["refresh_asked_at"],
        answer_lost=bool(row["answer_lost"]),
    )


def link_of(row: Row) -> Link:
    """The link of a row."""
    return Link(
        id=row["id"],
        tenant=row["tenant"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
    )


def flow_of(row: Row) -> Flow:
    """The flow of a row."""
    return Flow(
        id=row["id"],
        link=row["link"],
        tenant=row["tenant"],
        browser=row["browser"],
        verifier=row["verifier"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


def session_of(row: Row) -> AdminSession:
    """The session of a row.

    :raises StoreUnavailable: its role is not known.
    """
    return AdminSession(
        id=row["id"],
        role=_word(Role, row["role"], "the role of a session"),
        user=row["user"],
        proof=row["proof"],
        created_at=row["created_at"],
        seen_at=row["seen_at"],
    )


def named(tenants: Mapping[str, Tenant]) -> dict[str, Tenant]:
    """``tenants`` in the order of their names, as every listing has them.

    :raises ValueError: one stands under another's name, which is a defect of who made the mapping.
    """
    for name, tenant in tenants.items():
        if tenant.name != name:
            raise ValueError(f"tenant {tenant.name} stands under the name {name}")
    return dict(sorted(tenants.items()))


def _word(words: type[_Word], value: str, what: str) -> _Word:
    try:
        return words(value)
    except ValueError:
        raise _unknown(what, value) from None


def _unknown(what: str, value: str) -> StoreUnavailable:
    return StoreUnavailable(f"{what} is {value[:40]!r} in the store, which this version does not know")
