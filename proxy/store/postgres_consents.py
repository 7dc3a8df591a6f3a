"""Connect links and flows in PostgreSQL. Runs on its store's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

from proxy.model import Flow, Link
from proxy.store import rows
from proxy.store.interface import LinkSpent
from proxy.store.postgres_connection import Connection, Connections, writing
from proxy.store.postgres_tenants import fetch, fetch_row, keep_tenant, lock_tenants
from proxy.store.postgres_trail import put_notes
from proxy.store.trail import Notes

PUT_LINK = "INSERT INTO links (id, tenant, created_at, expires_at, used_at) VALUES ($1, $2, $3, $4, $5)"
PUT_FLOW = (
    "INSERT INTO flows (id, link, tenant, browser, verifier, created_at, expires_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7)"
)


async def add_link(db: Connections, link: Link, notes: Notes) -> None:
    """See :meth:`proxy.store.Store.add_link`."""
    async with writing(db) as conn:
        await keep_tenant(conn, link.tenant)
        await conn.execute(PUT_LINK, *astuple(link))
        await put_notes(conn, notes())
        await db.tell(conn)


async def read_link(db: Connections, link: str) -> Link | None:
    """The link of this id."""
    async with db.connection() as conn:
        row = await fetch_row(conn, "SELECT * FROM links WHERE id = $1", link)
    return rows.link_of(row) if row else None


async def read_links(db: Connections, tenant: str) -> list[Link]:
    """See :meth:`proxy.store.Store.links`."""
    statement = "SELECT * FROM links WHERE tenant = $1 ORDER BY created_at DESC, id"
    async with db.connection() as conn:
        return [rows.link_of(row) for row in await fetch(conn, statement, tenant)]


async def use_link(conn: Connection, link: str, at: float) -> None:
    """Mark a link as used.

    :raises LinkSpent: it is used, expired, or not there.
    """
    used = await conn.execute(
        "UPDATE links SET used_at = $2 WHERE id = $1 AND used_at IS NULL AND expires_at > $2", link, at
    )
    if used != "UPDATE 1":
        raise LinkSpent


async def add_flow(db: Connections, flow: Flow) -> None:
    """See :meth:`proxy.store.Store.add_flow`."""
    async with writing(db) as conn:
        await keep_tenant(conn, flow.tenant)
        await conn.execute(PUT_FLOW, *astuple(flow))
        await db.tell(conn)


async def take_flow(db: Connections, flow: str, browser: str, at: float) -> Flow | None:
    """See :meth:`proxy.store.Store.take_flow`."""
    statement = "DELETE FROM flows WHERE id = $1 AND browser = $2 AND expires_at > $3 RETURNING *"
    async with writing(db) as conn:
        row = await fetch_row(conn, statement, flow, browser, at)
        if row:
            await db.tell(conn)
    return rows.flow_of(row) if row else None


async def edit_flows(db: Connections, edit: Callable[[Flow], Flow]) -> list[Flow]:
    """See :meth:`proxy.store.Store.edit_flows`."""
    async with writing(db) as conn:
        await lock_tenants(conn)
        found = await fetch(conn, "SELECT * FROM flows ORDER BY id FOR UPDATE")
        before = [rows.flow_of(row) for row in found]
        after = [edit(flow) for flow in before]
        for flow in after:
            await conn.execute("UPDATE flows SET verifier = $1 WHERE id = $2", flow.verifier, flow.id)
        if after != before:
            await db.tell(conn)
    return after
