"""Listings as plain data: the documented keys, no token in any of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from proxy import listing
from proxy.model import (
    Grant,
    GrantState,
    Outcome,
    Policy,
    Preset,
    Sealed,
    Tenant,
)

ACME = Tenant(
    "acme",
    company="c-1",
    policy=Policy(Preset.EXPORTS),
    hosts=("acme.example",),
    networks=("10.0.0.0/8",),
    legacy_keys=("0123456789abcdef" * 4,),
    certificates=("san:dns:erp.example",),
    shared_keys=("fedcba9876543210" * 4,),
)
GLOBEX = Tenant("globex", enabled=False)
GRANT = Grant(
    "acme",
    GrantState.REFRESHING,
    3,
    company="c-2",
    scopes=("x", "y"),
    access=Sealed("v1.k1.planted-a"),
    refresh=Sealed("v1.k1.planted-r"),
    issued_at=0.0,
    access_expires_at=1_000_000_000.9,
    refresh_expires_at=1_800_000_000.0,
    last_refreshed_at=0.0,
    last_outcome=Outcome.UNAVAILABLE,
)


def test_tenants_as_listed() -> None:
    """Name, company, whether enabled, state of the grant, routes and preset, in the order given."""
    assert listing.tenants([GLOBEX, ACME], {"acme": GRANT}) == [
        {
            "name": "globex",
            "company": None,
            "enabled": False,
            "state": "none",
            "routes": ["path: /globex", "header: X-Pleo-Tenant: globex"],
            "preset": "full",
        },
        {
            "name": "acme",
            "company": "c-1",
            "enabled": True,
            "state": "refreshing",
            "routes": [
                "path: /acme",
                "header: X-Pleo-Tenant: acme",
                "host: acme.example",
                "network: 10.0.0.0/8",
                "legacy-key: sha256 0123456789ab",
                "certificate: san:dns:erp.example",
                "shared-key: sha256 fedcba987654",
            ],
            "preset": "exports",
        },
    ]


def test_grants_as_listed() -> None:
    """One row for each tenant, instants in ISO 8601 and UTC, the grant's own company."""
    assert listing.grants([ACME, GLOBEX], {"acme": GRANT, "gone": GRANT}) == [
        {
            "tenant": "acme",
            "state": "refreshing",
            "generation": 3,
            "company": "c-2",
            "scopes": ["x", "y"],
            "access_expires_at": "2001-09-09T01:46:40+00:00",
            "refresh_expires_at": "2027-01-15T08:00:00+00:00",
            "last_refreshed_at": "1970-01-01T00:00:00+00:00",
            "last_outcome": "unavailable",
        },
        {
            "tenant": "globex",
            "state": "none",
            "generation": 0,
            "company": None,
            "scopes": [],
            "access_expires_at": None,
            "refresh_expires_at": None,
            "last_refreshed_at": None,
            "last_outcome": None,
        },
    ]


def test_a_tenant_is_down_while_its_callers_are_refused() -> None:
    """Disabled, without tokens, or with a token that has expired and no new one: since when, and why."""
    connected = replace(GRANT, state=GrantState.CONNECTED, last_outcome=Outcome.GRANTED)
    failing = replace(connected, last_outcome=Outcome.UNAVAILABLE)
    grants = {
        "needs": Grant("needs", GrantState.NEEDS_REAUTH, 3, last_outcome=Outcome.REFUSED),
        "revoked": Grant("revoked", GrantState.REVOKED, 3),
        "idle": connected,
        "failing": failing,
        "trying": replace(failing, access_expires_at=2_000_000_001.0),
        "off": connected,
        "untold": Grant("untold", GrantState.NEEDS_REAUTH, 1),
    }
    names = ["never", *grants]
    told: dict[str, list[listing.Told]] = {
        "never": [(1.0, "tenant.added", {}), (2.0, "tenant.changed", {"hosts": {}})],
        "needs": [
            (1.0, "grant.needs_reauth", {"reason": "lost_answer"}),
            (2.0, "grant.needs_reauth", {"reason": "invalid_grant"}),
            (3.0, "tenant.changed", {"hosts": {}}),
        ],
        "revoked": [(4.0, "grant.revoked", {})],
        "off": [(5.0, "tenant.changed", {"enabled": {}}), (6.0, "tenant.changed", {"hosts": {}})],
    }
    tenants = [Tenant(name, enabled=name != "off") for name in names]
    rows = listing.down(tenants, grants, told, 2_000_000_000.0)
    assert [(row["tenant"], row["state"], row["since_at"], row["why"]) for row in rows] == [
        ("never", "none", listing.instant(1.0), "nobody has consented yet"),
        ("needs", "needs_reauth", listing.instant(2.0), "invalid_grant"),
        ("revoked", "revoked", listing.instant(4.0), "its tokens were erased"),
        ("failing", "connected", listing.instant(1_000_000_000.0), "refreshes fail: unavailable"),
        ("off", "disabled", listing.instant(5.0), "an operator disabled it"),
        ("untold", "needs_reauth", None, "Pleo ended the authorisation"),
    ]


def test_a_tenant_without_grant_lists_its_own_company() -> None:
    """Before a consent the company is the one that the operator gave."""
    assert listing.grants([ACME], {})[0]["company"] == "c-1"


def test_a_grant_without_times_or_outcome_is_listed() -> None:
    """What is not known is null."""
    row = listing.grants([ACME], {"acme": Grant("acme", GrantState.REVOKED, 4)})[0]
    assert [key for key, value in row.items() if value is None] == [
        "company",
        "access_expires_at",
        "refresh_expires_at",
        "last_refreshed_at",
        "last_outcome",
    ]


def test_no_listing_holds_a_token_or_a_key() -> None:
    """Rows are plain JSON without tokens, sealed or not, and without a whole key's hash."""
    text = json.dumps([listing.tenants([ACME], {"acme": GRANT}), listing.grants([ACME], {"acme": GRANT})])
    assert "planted" not in text
    assert ACME.legacy_keys[0] not in text
    assert ACME.shared_keys[0] not in text


@pytest.mark.parametrize("state", GrantState)
def test_the_state_is_the_grants(state: GrantState) -> None:
    """A grant's state is shown as it is stored; only a missing grant is "none"."""
    assert listing.state(Grant("acme", state, 1)) is state
    assert listing.state(None) is GrantState.NONE


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "under a minute"),
        (59.9, "under a minute"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (3600, "1 hour"),
        (86399, "23 hours"),
        (86400, "1 day"),
        (58 * 86400 + 5, "58 days"),
    ],
)
def test_spans_are_told_in_one_unit(seconds: float, text: str) -> None:
    """Rounded down, so that nothing that ends is shown to end later."""
    assert listing.span(seconds) == text


@pytest.mark.parametrize(
    ("at", "text"), [(1000.0, "in under a minute"), (1120.5, "in 2 minutes"), (880.0, "2 minutes ago")]
)
def test_a_distance_has_a_side(at: float, text: str) -> None:
    """What is to come and what is over are told apart."""
    assert listing.distance(at, 1000.0) == text
