"""The store in a SQLite file: the statements, and the one thread on which all of them run.

A SQLite call blocks, so none is made on the event loop. One thread also means one connection and no two
transactions of this process at once; between processes ``BEGIN IMMEDIATE`` keeps the order.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlite_utils import Database

from proxy.errors import StoreUnavailable
from proxy.model import (
    Flow,
    Grant,
    Link,
    Sealed,
    Tenant,
)
from proxy.store import rows
from proxy.store import sqlite_consents as consents
from proxy.store import sqlite_tenants as tenancy
from proxy.store.connection import connect, fault_of, reading, writing
from proxy.store.interface import LINK_KEPT_S, Content, Snapshot, StoreNotEmpty
from proxy.store.sqlite_sessions import SqliteSessions
from proxy.store.sqlite_trail import SqliteTrail, put_marks, put_notes, read_marks, read_notes
from proxy.store.trail import NO_MARKS, Notes

P = ParamSpec("P")
T = TypeVar("T")


class SqliteStore:
    """See :class:`proxy.store.Store`. Made by :meth:`open`; to be closed by who opened it."""

    def __init__(self, path: Path, thread: ThreadPoolExecutor, db: Database) -> None:
        self._path = path
        self._thread = thread
        self._db = db
        self._file = _identity(path)
        self._seen = _data_version(db)
        self._closing = False
        self.sessions = SqliteSessions(self._run)
        self.trail = SqliteTrail(self._run)

    @classmethod
    def open(cls, path: Path) -> SqliteStore:
        """Open or create the store; blocks until it is ready, at most a few seconds.

        :raises StoreError: in one line, with the path, what is wrong, and the remedy.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            # On the thread from the start: a connection belongs to the thread that made it.
            return thread.submit(lambda: cls(path, thread, connect(path))).result()
        except BaseException:
            thread.shutdown(wait=False)
            raise

    async def tenants(self) -> dict[str, Tenant]:
        return await self._run(tenancy.all_tenants)

    async def edit_tenants(
        self, edit: Callable[[Mapping[str, Tenant]], Mapping[str, Tenant]], notes: Notes = tuple
    ) -> dict[str, Tenant]:
        return await self._run(tenancy.edit_tenants, edit, notes)

    async def grants(self) -> dict[str, Grant]:
        return await self._run(_grants)

    async def grant(self, tenant: str) -> Grant | None:
        return await self._run(_grant, tenant)

    async def edit_grant(
        self, tenant: str, edit: Callable[[Grant | None], Grant | None], notes: Notes = tuple
    ) -> Grant | None:
        return await self._run(_edit_grant, tenant, edit, notes)

    async def connect(
        self,
        tenant: str,
        edit: Callable[[Tenant, Grant | None], tuple[Tenant, Grant]],
        *,
        link: str,
        at: float,
    ) -> tuple[Tenant, Grant]:
        return await self._run(_connect, tenant, edit, link, at)

    async def content(self) -> Content:
        return await self._run(_content)

    async def edit_content(self, edit: Callable[[Content], Content], notes: Notes = tuple) -> Content:
        return await self._run(_edit_content, edit, notes)

    async def add_link(self, link: Link, notes: Notes = tuple) -> None:
        await self._run(consents.add_link, link, notes)

    async def link(self, id: str) -> Link | None:  # noqa: A002 - the field's name
        return await self._run(consents.read_link, id)

    async def links(self, tenant: str) -> list[Link]:
        return await self._run(consents.read_links, tenant)

    async def add_flow(self, flow: Flow) -> None:
        await self._run(consents.add_flow, flow)

    async def take_flow(self, id: str, browser: str, at: float) -> Flow | None:  # noqa: A002 - the field's name
        return await self._run(consents.take_flow, id, browser, at)

    async def edit_flows(self, edit: Callable[[Flow], Flow]) -> list[Flow]:
        return await self._run(consents.edit_flows, edit)

    async def sweep(self, at: float) -> None:
        await self._run(_sweep, at)

    async def key_check(self) -> Sealed | None:
        return await self._run(_key_check)

    async def set_key_check(self, sealed: Sealed, *, replacing: Sealed | None = None) -> None:
        await self._run(_set_key_check, sealed, replacing)

    async def snapshot(self) -> Snapshot:
        return await self._run(_snapshot)

    async def fill(self, snapshot: Snapshot) -> None:
        await self._run(_fill, snapshot)

    async def changed(self) -> bool:
        return await self._run(self._look)

    async def ping(self) -> None:
        await self._run(_ping, self._path, self._file)

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        done = self._submit(lambda: _close(self._db))
        self._thread.shutdown(wait=False)  # takes no more jobs, and ends after those it has
        await asyncio.shield(done)

    def _look(self, db: Database) -> bool:
        before, self._seen = self._seen, _data_version(db)
        return self._seen != before

    async def _run(self, job: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``job`` on the store's thread, to its end even if who waits for it is cancelled."""
        if self._closing:
            raise StoreUnavailable("The store is closed")

        def guarded() -> T:
            try:
                return job(self._db, *args, **kwargs)
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                raise  # a defect of the program; calling it an outage would hide it
            except sqlite3.Error as error:
                raise StoreUnavailable(f"The store failed: {fault_of(error)[0]}") from error

        # Without the shield, cancelling would drop a job that has not begun, and the outcome of one that has.
        return await asyncio.shield(self._submit(guarded))

    def _submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        future = asyncio.get_running_loop().run_in_executor(self._thread, job)
        # Who waited may have left: the loop then need not complain that nobody looked at a failure.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future


def _grants(db: Database) -> dict[str, Grant]:
    return {row["tenant"]: rows.grant_of(row) for row in db.query("SELECT * FROM grants ORDER BY tenant")}


def _grant(db: Database, tenant: str) -> Grant | None:
    row = tenancy.fetch_row(db, "SELECT * FROM grants WHERE tenant = ?", tenant)
    return rows.grant_of(row) if row else None


def _edit_grant(
    db: Database, tenant: str, edit: Callable[[Grant | None], Grant | None], notes: Notes
) -> Grant | None:
    with writing(db):
        tenancy.require_tenant(db, tenant)
        before = _grant(db, tenant)
        after = edit(before)
        if after != before:
            _write_grant(db, tenant, before, after)
            put_notes(db, notes())
    return after


def _connect(
    db: Database,
    tenant: str,
    edit: Callable[[Tenant, Grant | None], tuple[Tenant, Grant]],
    link: str,
    at: float,
) -> tuple[Tenant, Grant]:
    with writing(db):
        row = tenancy.require_tenant(db, tenant)
        consents.use_link(db, link, at)
        routes = db.query("SELECT * FROM routes WHERE tenant = ? ORDER BY kind, position", [tenant])
        tenant_before, grant_before = rows.tenant_of(row, routes), _grant(db, tenant)
        tenant_after, grant_after = edit(tenant_before, grant_before)
        tenancy.write_tenants(db, {tenant: tenant_before}, rows.named({tenant: tenant_after}))
        _write_grant(db, tenant, grant_before, grant_after)
    return tenant_after, grant_after


def _content(db: Database) -> Content:
    with reading(db):
        return _read_content(db)


def _read_content(db: Database) -> Content:
    return Content(tenancy.read_tenants(db), _grants(db), _key_check(db))


def _edit_content(db: Database, edit: Callable[[Content], Content], notes: Notes) -> Content:
    with writing(db):
        before = _read_content(db)
        after = edit(before)
        tenancy.write_tenants(db, before.tenants, rows.named(after.tenants))
        for tenant in before.grants.keys() | after.grants.keys():
            # The grant of a tenant that is gone went with it.
            _write_grant(db, tenant, before.grants.get(tenant), after.grants.get(tenant))
        if after.key_check is not None and after.key_check != before.key_check:
            _put_key_check(db, after.key_check)
        put_notes(db, notes())
        return _read_content(db)


_PUT_GRANT = "INSERT OR REPLACE INTO grants ({}) VALUES ({})".format(  # noqa: S608 - names of ours
    ", ".join(rows.GRANT_COLUMNS), ", ".join(f":{column}" for column in rows.GRANT_COLUMNS)
)


def _write_grant(db: Database, tenant: str, before: Grant | None, after: Grant | None) -> None:
    if after == before:
        return
    if after is None:
        db.execute("DELETE FROM grants WHERE tenant = ?", [tenant])
        return
    if after.tenant != tenant:
        raise ValueError(f"the grant of tenant {after.tenant} cannot be stored for tenant {tenant}")
    db.execute(_PUT_GRANT, rows.row_of_grant(after))


def _sweep(db: Database, at: float) -> None:
    with writing(db):
        db.execute("DELETE FROM flows WHERE expires_at <= ?", [at])
        db.execute("DELETE FROM links WHERE expires_at <= ?", [at - LINK_KEPT_S])
    _truncate_log(db)


def _key_check(db: Database) -> Sealed | None:
    row = tenancy.fetch_row(db, "SELECT value FROM meta WHERE key = 'key_check'")
    return Sealed(row["value"]) if row else None


def _set_key_check(db: Database, sealed: Sealed, replacing: Sealed | None) -> None:
    with writing(db):
        if _key_check(db) == replacing:
            _put_key_check(db, sealed)


def _put_key_check(db: Database, sealed: Sealed) -> None:
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('key_check', ?)", [sealed])


def _snapshot(db: Database) -> Snapshot:
    with reading(db):
        links = tuple(map(rows.link_of, db.query("SELECT * FROM links ORDER BY id")))
        flows = tuple(map(rows.flow_of, db.query("SELECT * FROM flows ORDER BY id")))
        return Snapshot(_read_content(db), links, flows, read_marks(db), read_notes(db))


def _fill(db: Database, snapshot: Snapshot) -> None:
    content = snapshot.content
    with writing(db):
        if tenancy.read_tenants(db) or _key_check(db) is not None or read_marks(db) != NO_MARKS:
            raise StoreNotEmpty
        tenancy.write_tenants(db, {}, rows.named(content.tenants))
        for tenant, grant in content.grants.items():
            _write_grant(db, tenant, None, grant)
        for link in snapshot.links:
            db.execute(consents.PUT_LINK, asdict(link))
        for flow in snapshot.flows:
            db.execute(consents.PUT_FLOW, asdict(flow))
        put_marks(db, snapshot.marks)
        put_notes(db, snapshot.notes)
        if content.key_check is not None:
            _put_key_check(db, content.key_check)


def _ping(db: Database, path: Path, file: tuple[int, int]) -> None:
    """Take the write lock and give it back, which fails where a commit would, save on a full disk."""
    try:
        moved = _identity(path) != file
    except OSError:
        moved = True
    if moved:  # what is written now would go to a file that nobody finds again
        raise StoreUnavailable("The store failed: its file was removed or replaced; restart the proxy")
    with writing(db):
        _key_check(db)


def _close(db: Database) -> None:
    try:
        with suppress(sqlite3.Error):  # what is committed is safe in the log, and the next run empties it
            _truncate_log(db)
    finally:
        db.close()


def _truncate_log(db: Database) -> None:
    """Move the write-ahead log into the database and empty it: it still holds secrets that were replaced.

    Where another process goes on reading, this gives up after a while; the next call will do it.
    """
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _data_version(db: Database) -> int:
    """Differs from before if another connection has committed (https://sqlite.org/pragma.html)."""
    return int(db.execute("PRAGMA data_version").fetchall()[0][0])


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
