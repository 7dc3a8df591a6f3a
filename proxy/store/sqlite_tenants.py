"""Tenants and their routes in SQLite. Runs on its store's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from itertools import groupby

from sqlite_utils import Database

from proxy.model import Tenant
from proxy.store import rows
from proxy.store.connection import reading, writing
from proxy.store.interface import TenantGone
from proxy.store.sqlite_trail import put_notes
from proxy.store.trail import Notes


def all_tenants(db: Database) -> dict[str, Tenant]:
    """All tenants, as of one moment."""
    with reading(db):
        return read_tenants(db)


def read_tenants(db: Database) -> dict[str, Tenant]:
    """All tenants, within a transaction or not."""
    all_routes = db.query("SELECT * FROM routes ORDER BY tenant, kind, position")
    routes = {name: list(group) for name, group in groupby(all_routes, key=lambda row: str(row["tenant"]))}
    return {
        row["name"]: rows.tenant_of(row, routes.get(row["name"], ()))
        for row in db.query("SELECT * FROM tenants ORDER BY name")
    }


def edit_tenants(
    db: Database, edit: Callable[[Mapping[str, Tenant]], Mapping[str, Tenant]], notes: Notes
) -> dict[str, Tenant]:
    """See :meth:`proxy.store.Store.edit_tenants`."""
    with writing(db):
        before = read_tenants(db)
        after = rows.named(edit(dict(before)))
        if after != before:
            write_tenants(db, before, after)
            put_notes(db, notes())
    return after


def write_tenants(db: Database, before: Mapping[str, Tenant], after: Mapping[str, Tenant]) -> None:
    """Write the difference; what goes goes first, so that a route may move from one tenant to another."""
    for name in before.keys() - after.keys():
        db.execute("DELETE FROM tenants WHERE name = ?", [name])
    changed = [tenant for name, tenant in after.items() if before.get(name) != tenant]
    for tenant in changed:
        db.execute("DELETE FROM routes WHERE tenant = ?", [tenant.name])
    for tenant in changed:
        # Not INSERT OR REPLACE: it deletes the old row, and the grant with it.
        db.execute(
            "INSERT INTO tenants (name, company, enabled, policy, trial)"
            " VALUES (:name, :company, :enabled, :policy, :trial) ON CONFLICT (name) DO UPDATE"
            " SET company = :company, enabled = :enabled, policy = :policy, trial = :trial",
            rows.row_of_tenant(tenant),
        )
        for route in rows.routes_of(tenant):
            _add_route(db, tenant.name, *route)


def _add_route(db: Database, tenant: str, kind: str, value: str, position: int) -> None:
    try:
        db.execute(
            "INSERT INTO routes (tenant, kind, value, position) VALUES (?, ?, ?, ?)",
            [tenant, kind, value, position],
        )
    except sqlite3.IntegrityError as error:
        raise rows.claimed_twice(tenant, kind, value) from error


def require_tenant(db: Database, tenant: str) -> rows.Row:
    """The tenant's row.

    :raises TenantGone: there is none.
    """
    row = fetch_row(db, "SELECT * FROM tenants WHERE name = ?", tenant)
    if row is None:
        raise TenantGone(tenant)
    return row


def fetch_row(db: Database, statement: str, *values: str | float) -> rows.Row | None:
    """The first row, if any; all are fetched, since a statement left half-way would keep its locks."""
    return next(iter(list(db.query(statement, values))), None)
