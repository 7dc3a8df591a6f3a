"""Sessions of the operator's pages in the SQLite file: the statements, run where the store's others run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from sqlite_utils import Database

from proxy.model import AdminSession
from proxy.store import rows
from proxy.store.connection import writing

Run = Callable[..., Awaitable[Any]]
"""Runs a function of a database and further arguments on the store's thread."""


class SqliteSessions:
    """See :class:`proxy.store.AdminSessions`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def add(self, session: AdminSession) -> None:
        await self._run(_add, session)

    async def get(self, id: str) -> AdminSession | None:  # noqa: A002 - the field's name
        found: AdminSession | None = await self._run(_get, id)
        return found

    async def touch(self, id: str, at: float) -> None:  # noqa: A002 - the field's name
        await self._run(_write, "UPDATE admin_sessions SET seen_at = max(seen_at, ?) WHERE id = ?", at, id)

    async def remove(self, id: str) -> bool:  # noqa: A002 - the field's name
        return bool(await self._run(_write, "DELETE FROM admin_sessions WHERE id = ?", id))

    async def sweep(self, seen_before: float) -> None:
        await self._run(_write, "DELETE FROM admin_sessions WHERE seen_at < ?", seen_before)


def _add(db: Database, session: AdminSession) -> None:
    with writing(db):
        db.execute(
            "INSERT INTO admin_sessions (id, role, user, proof, created_at, seen_at)"
            " VALUES (:id, :role, :user, :proof, :created_at, :seen_at)",
            asdict(session),
        )


def _get(db: Database, id_: str) -> AdminSession | None:
    found = [rows.session_of(row) for row in db.query("SELECT * FROM admin_sessions WHERE id = ?", [id_])]
    return found[0] if found else None


def _write(db: Database, statement: str, *values: str | float) -> int:
    """Rows that were changed."""
    with writing(db):
        return int(db.execute(statement, values).rowcount)
