"""Sessions of the operator's pages in PostgreSQL: the statements, run where the store's others run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import astuple
from typing import Any

from proxy.model import AdminSession
from proxy.store import rows
from proxy.store.postgres_connection import Connections

Run = Callable[..., Awaitable[Any]]
"""Runs a function of the connections and further arguments on the store's thread."""


class PostgresSessions:
    """See :class:`proxy.store.AdminSessions`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def add(self, session: AdminSession) -> None:
        await self._run(_execute, _ADD, *astuple(session))

    async def get(self, id: str) -> AdminSession | None:  # noqa: A002 - the field's name
        found: AdminSession | None = await self._run(_get, id)
        return found

    async def touch(self, id: str, at: float) -> None:  # noqa: A002 - the field's name
        statement = "UPDATE admin_sessions SET seen_at = greatest(seen_at, $2) WHERE id = $1"
        await self._run(_execute, statement, id, at)

    async def remove(self, id: str) -> bool:  # noqa: A002 - the field's name
        done = await self._run(_execute, "DELETE FROM admin_sessions WHERE id = $1", id)
        return bool(done == "DELETE 1")

    async def sweep(self, seen_before: float) -> None:
        await self._run(_execute, "DELETE FROM admin_sessions WHERE seen_at < $1", seen_before)


_ADD = (
    'INSERT INTO admin_sessions (id, role, "user", proof, created_at, seen_at)'
    " VALUES ($1, $2, $3, $4, $5, $6)"
)


async def _execute(db: Connections, statement: str, *values: str | float) -> str:
    """The server's word for what was done. A single statement is a transaction of its own."""
    async with db.connection() as conn:
        return str(await conn.execute(statement, *values))


async def _get(db: Connections, id_: str) -> AdminSession | None:
    async with db.connection() as conn:
        row = await conn.fetchrow("SELECT * FROM admin_sessions WHERE id = $1", id_)
    return rows.session_of(dict(row)) if row is not None else None
