"""Connect links and flows in SQLite. Runs on its store's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from sqlite_utils import Database

from proxy.model import Flow, Link
from proxy.store import rows
from proxy.store.connection import writing
from proxy.store.interface import LinkSpent
from proxy.store.sqlite_tenants import fetch_row, require_tenant
from proxy.store.sqlite_trail import put_notes
from proxy.store.trail import Notes

PUT_LINK = (
    "INSERT INTO links (id, tenant, created_at, expires_at, used_at)"
    " VALUES (:id, :tenant, :created_at, :expires_at, :used_at)"
)
PUT_FLOW = (
    "INSERT INTO flows (id, link, tenant, browser, verifier, created_at, expires_at)"
    " VALUES (:id, :link, :tenant, :browser, :verifier, :created_at, :expires_at)"
)


def add_link(db: Database, link: Link, notes: Notes) -> None:
    """See :meth:`proxy.store.Store.add_link`."""
    with writing(db):
        require_tenant(db, link.tenant)
        db.execute(PUT_LINK, asdict(link))
        put_notes(db, notes())


def read_link(db: Database, link: str) -> Link | None:
    """The link of this id."""
    row = fetch_row(db, "SELECT * FROM links WHERE id = ?", link)
    return rows.link_of(row) if row else None


def read_links(db: Database, tenant: str) -> list[Link]:
    """See :meth:`proxy.store.Store.links`."""
    statement = "SELECT * FROM links WHERE tenant = ? ORDER BY created_at DESC, id"
    return [rows.link_of(row) for row in db.query(statement, [tenant])]


def use_link(db: Database, link: str, at: float) -> None:
    """Mark a link as used.

    :raises LinkSpent: it is used, expired, or not there.
    """
    used = db.execute(
        "UPDATE links SET used_at = :at WHERE id = :id AND used_at IS NULL AND expires_at > :at",
        {"id": link, "at": at},
    )
    if used.rowcount != 1:
        raise LinkSpent


def add_flow(db: Database, flow: Flow) -> None:
    """See :meth:`proxy.store.Store.add_flow`."""
    with writing(db):
        require_tenant(db, flow.tenant)
        db.execute(PUT_FLOW, asdict(flow))


def take_flow(db: Database, flow: str, browser: str, at: float) -> Flow | None:
    """See :meth:`proxy.store.Store.take_flow`."""
    statement = "DELETE FROM flows WHERE id = ? AND browser = ? AND expires_at > ? RETURNING *"
    with writing(db):
        row = fetch_row(db, statement, flow, browser, at)
    return rows.flow_of(row) if row else None


def edit_flows(db: Database, edit: Callable[[Flow], Flow]) -> list[Flow]:
    """See :meth:`proxy.store.Store.edit_flows`."""
    with writing(db):
        before = [rows.flow_of(row) for row in db.query("SELECT * FROM flows ORDER BY id")]
        after = [edit(flow) for flow in before]
        for flow in after:
            db.execute("UPDATE flows SET verifier = ? WHERE id = ?", [flow.verifier, flow.id])
    return after
