"""Tenants and their routes in PostgreSQL. Runs on its store's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby

import asyncpg

from proxy.model import Tenant
from proxy.store import rows
from proxy.store.interface import TenantGone
from proxy.store.postgres_connection import TENANTS_LOCK, Connection, Connections, reading, writing
from proxy.store.postgres_trail import put_notes
from proxy.store.trail import Notes


async def all_tenants(db: Connections) -> dict[str, Tenant]:
    """All tenants, as of one moment."""
    async with reading(db) as conn:
        return await read_tenants(conn)


async def read_tenants(conn: Connection) -> dict[str, Tenant]:
    """All tenants, within a transaction or not."""
    all_routes = await fetch(conn, "SELECT * FROM routes ORDER BY tenant, kind, position")
    routes = {name: list(group) for name, group in groupby(all_routes, key=lambda row: str(row["tenant"]))}
    return {
        row["name"]: rows.tenant_of(row, routes.get(row["name"], ()))
        for row in await fetch(conn, "SELECT * FROM tenants ORDER BY name")
    }


async def lock_tenants(conn: Connection) -> None:
    """Until the end of the transaction nobody else adds, removes or edits tenants and routes.

    Locks of rows would not do: two edits could each add a tenant that the other does not see. Whatever
    changes many rows takes this lock too, since two that meet rows in another order wait for each other.
    """
    await conn.execute("SELECT pg_advisory_xact_lock($1)", TENANTS_LOCK)


async def edit_tenants(
    db: Connections, edit: Callable[[Mapping[str, Tenant]], Mapping[str, Tenant]], notes: Notes
) -> dict[str, Tenant]:
    """See :meth:`proxy.store.Store.edit_tenants`."""
    async with writing(db) as conn:
        await lock_tenants(conn)
        before = await read_tenants(conn)
        after = rows.named(edit(dict(before)))
        if after != before:
            await write_tenants(conn, before, after)
            await put_notes(conn, notes())
            await db.tell(conn)
    return after


async def write_tenants(conn: Connection, before: Mapping[str, Tenant], after: Mapping[str, Tenant]) -> None:
    """Write the difference; what goes goes first, so that a route may move from one tenant to another."""
    await conn.execute("DELETE FROM tenants WHERE name = ANY($1)", sorted(before.keys() - after.keys()))
    changed = [tenant for name, tenant in after.items() if before.get(name) != tenant]
    await conn.execute("DELETE FROM routes WHERE tenant = ANY($1)", [tenant.name for tenant in changed])
    for tenant in changed:
        row = rows.row_of_tenant(tenant)
        await conn.execute(
            "INSERT INTO tenants (name, company, enabled, policy, trial) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (name) DO UPDATE SET company = EXCLUDED.company, enabled = EXCLUDED.enabled,"
            " policy = EXCLUDED.policy, trial = EXCLUDED.trial",
            row["name"],
            row["company"],
            bool(row["enabled"]),
            row["policy"],
            row["trial"],
        )
        for route in rows.routes_of(tenant):
            await _add_route(conn, tenant.name, *route)


async def _add_route(conn: Connection, tenant: str, kind: str, value: str, position: int) -> None:
    try:
        await conn.execute(
            "INSERT INTO routes (tenant, kind, value, position) VALUES ($1, $2, $3, $4)",
            tenant,
            kind,
            value,
            position,
        )
    except asyncpg.UniqueViolationError:
        raise rows.claimed_twice(tenant, kind, value) from None


async def hold_tenant(conn: Connection, tenant: str) -> rows.Row:
    """The tenant's row, and with it its grant, for this transaction alone."""
    row = await fetch_row(conn, "SELECT * FROM tenants WHERE name = $1 FOR UPDATE", tenant)
    if row is None:
        raise TenantGone(tenant)
    return row


async def keep_tenant(conn: Connection, tenant: str) -> None:
    """The tenant is there, and stays there until the end of the transaction."""
    if await fetch_row(conn, "SELECT name FROM tenants WHERE name = $1 FOR KEY SHARE", tenant) is None:
        raise TenantGone(tenant)


async def fetch(conn: Connection, statement: str, *values: object) -> list[rows.Row]:
    """All rows."""
    return [dict(row) for row in await conn.fetch(statement, *values)]


async def fetch_row(conn: Connection, statement: str, *values: object) -> rows.Row | None:
    """The first row, if any."""
    row = await conn.fetchrow(statement, *values)
    return dict(row) if row is not None else None
