"""The store in a PostgreSQL database: the statements, and the one thread on which all of them run.

Several instances on several machines may share it. What is read for a change is locked before: a tenant's row
stands for its grant too, which may not exist yet, and one lock stands for all tenants and routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import astuple
from typing import Any, Concatenate, ParamSpec, TypeVar

from proxy.config.store_url import StoreUrl
from proxy.errors import StoreUnavailable
from proxy.model import (
    Flow,
    Grant,
    Link,
    Sealed,
    Tenant,
)
from proxy.store import postgres_consents as consents
from proxy.store import postgres_tenants as tenancy
from proxy.store import rows
from proxy.store.interface import LINK_KEPT_S, Content, Snapshot, StoreNotEmpty
from proxy.store.loop_thread import LoopThread
from proxy.store.postgres_connection import (
    FAILURES,
    Connection,
    Connections,
    fault_of,
    is_defect,
    reading,
    writing,
)
from proxy.store.postgres_sessions import PostgresSessions
from proxy.store.postgres_trail import PostgresTrail, put_marks, put_notes, read_marks, read_notes
from proxy.store.trail import Notes

P = ParamSpec("P")
T = TypeVar("T")


class PostgresStore:
    """See :class:`proxy.store.Store`. Made by :meth:`open`; to be closed by who opened it."""

    def __init__(self, thread: LoopThread, connections: Connections) -> None:
        self._thread = thread
        self._connections = connections
        self._under_way: set[asyncio.Task[Any]] = set()
        """What runs on the thread; looked at there only."""
        self._closing = False
        self.sessions = PostgresSessions(self._run)
        self.trail = PostgresTrail(self._run)

    @classmethod
    def open(cls, url: StoreUrl, *, create: bool = True) -> PostgresStore:
        """Open or create the store; blocks until it is ready, at most half a minute.

        :raises StoreMissingError: the database is empty, and ``create`` is not set.
        :raises StoreError: in one line, with the URL less its password, what is wrong, and the remedy.
        """
        thread = LoopThread("store")
        try:
            return cls(thread, thread.submit(Connections.open(url, create=create)).result())
        except BaseException:
            thread.stop()
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
        return await self._run(Connections.changed)

    async def ping(self) -> None:
        await self._run(_ping)

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        done = self._thread.submit(self._close())
        done.add_done_callback(lambda _: self._thread.stop())
        await asyncio.shield(asyncio.wrap_future(done))

    async def _close(self) -> None:
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._connections.close()

    async def _run(
        self, job: Callable[Concatenate[Connections, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``job`` on the store's thread, to its end even if who waits for it is cancelled."""
        if self._closing:
            raise StoreUnavailable("The store is closed")

        async def guarded() -> T:
            task = asyncio.current_task()
            assert task is not None
            self._under_way.add(task)
            try:
                return await job(self._connections, *args, **kwargs)
            except FAILURES as error:
                if is_defect(error):
                    raise
                raise StoreUnavailable(f"The store failed: {fault_of(error)[0]}") from None
            finally:
                self._under_way.discard(task)

        # Without the shield, cancelling who waits would cancel the job.
        future = asyncio.wrap_future(self._thread.submit(guarded()))
        # Who waited may have left: the loop then need not complain that nobody looked at a failure.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(future)


async def _grants(db: Connections) -> dict[str, Grant]:
    async with db.connection() as conn:
        return await _read_grants(conn)


async def _read_grants(conn: Connection) -> dict[str, Grant]:
    found = await tenancy.fetch(conn, "SELECT * FROM grants ORDER BY tenant")
    return {row["tenant"]: rows.grant_of(row) for row in found}


async def _grant(db: Connections, tenant: str) -> Grant | None:
    async with db.connection() as conn:
        return await _read_grant(conn, tenant)


async def _read_grant(conn: Connection, tenant: str) -> Grant | None:
    row = await tenancy.fetch_row(conn, "SELECT * FROM grants WHERE tenant = $1", tenant)
    return rows.grant_of(row) if row else None


async def _edit_grant(
    db: Connections, tenant: str, edit: Callable[[Grant | None], Grant | None], notes: Notes
) -> Grant | None:
    async with writing(db) as conn:
        await tenancy.hold_tenant(conn, tenant)
        # A statement of its own: joined to the one that waits for the lock, it would show the grant as it was
        # before the wait.
        before = await _read_grant(conn, tenant)
        after = edit(before)
        if after != before:
            await _write_grant(conn, tenant, after)
            await put_notes(conn, notes())
            await db.tell(conn)
    return after


async def _connect(
    db: Connections,
    tenant: str,
    edit: Callable[[Tenant, Grant | None], tuple[Tenant, Grant]],
    link: str,
    at: float,
) -> tuple[Tenant, Grant]:
    async with writing(db) as conn:
        await tenancy.lock_tenants(conn)
        row = await tenancy.hold_tenant(conn, tenant)
        await consents.use_link(conn, link, at)
        routes = await tenancy.fetch(
            conn, "SELECT * FROM routes WHERE tenant = $1 ORDER BY kind, position", tenant
        )
        tenant_before, grant_before = rows.tenant_of(row, routes), await _read_grant(conn, tenant)
        tenant_after, grant_after = edit(tenant_before, grant_before)
        await tenancy.write_tenants(conn, {tenant: tenant_before}, rows.named({tenant: tenant_after}))
        await _write_grant(conn, tenant, grant_after)
        await db.tell(conn)
    return tenant_after, grant_after


async def _content(db: Connections) -> Content:
    async with reading(db) as conn:
        return await _read_content(conn)


async def _read_content(conn: Connection) -> Content:
    return Content(await tenancy.read_tenants(conn), await _read_grants(conn), await _read_key_check(conn))


async def _edit_content(db: Connections, edit: Callable[[Content], Content], notes: Notes) -> Content:
    async with writing(db) as conn:
        await tenancy.lock_tenants(conn)
        # And each grant. In one order, though nobody else takes more than one of these locks.
        await conn.execute("SELECT FROM tenants ORDER BY name FOR UPDATE")
        before = await _read_content(conn)
        after = edit(before)
        await tenancy.write_tenants(conn, before.tenants, rows.named(after.tenants))
        for tenant in before.grants.keys() | after.grants.keys():
            # The grant of a tenant that is gone went with it.
            if before.grants.get(tenant) != after.grants.get(tenant):
                await _write_grant(conn, tenant, after.grants.get(tenant))
        if after.key_check is not None and after.key_check != before.key_check:
            await _put_key_check(conn, after.key_check)
        await put_notes(conn, notes())
        await db.tell(conn)
        return await _read_content(conn)


_PUT_GRANT = "INSERT INTO grants ({}) VALUES ({}) ON CONFLICT (tenant) DO UPDATE SET {}".format(  # noqa: S608 - names of ours
    ", ".join(rows.GRANT_COLUMNS),
    ", ".join(f"${number}" for number, _ in enumerate(rows.GRANT_COLUMNS, 1)),
    ", ".join(f"{column} = EXCLUDED.{column}" for column in rows.GRANT_COLUMNS),
)


async def _write_grant(conn: Connection, tenant: str, after: Grant | None) -> None:
    if after is None:
        await conn.execute("DELETE FROM grants WHERE tenant = $1", tenant)
        return
    if after.tenant != tenant:
        raise ValueError(f"the grant of tenant {after.tenant} cannot be stored for tenant {tenant}")
    row = rows.row_of_grant(after)
    await conn.execute(_PUT_GRANT, *(row[column] for column in rows.GRANT_COLUMNS))


async def _sweep(db: Connections, at: float) -> None:
    async with writing(db) as conn:
        await tenancy.lock_tenants(conn)
        flows = await conn.execute("DELETE FROM flows WHERE expires_at <= $1", at)
        links = await conn.execute("DELETE FROM links WHERE expires_at <= $1", at - LINK_KEPT_S)
        if (flows, links) != ("DELETE 0", "DELETE 0"):
            await db.tell(conn)


async def _key_check(db: Connections) -> Sealed | None:
    async with db.connection() as conn:
        return await _read_key_check(conn)


async def _read_key_check(conn: Connection) -> Sealed | None:
    value = await conn.fetchval("SELECT value FROM meta WHERE key = 'key_check'")
    return Sealed(value) if value is not None else None


async def _set_key_check(db: Connections, sealed: Sealed, replacing: Sealed | None) -> None:
    async with writing(db) as conn:
        await tenancy.lock_tenants(conn)
        if await _read_key_check(conn) == replacing:
            await _put_key_check(conn, sealed)
            await db.tell(conn)


async def _put_key_check(conn: Connection, sealed: Sealed) -> None:
    await conn.execute(
        "INSERT INTO meta (key, value) VALUES ('key_check', $1)"
        " ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value",
        sealed,
    )


async def _snapshot(db: Connections) -> Snapshot:
    async with reading(db) as conn:
        links = await tenancy.fetch(conn, "SELECT * FROM links ORDER BY id")
        flows = await tenancy.fetch(conn, "SELECT * FROM flows ORDER BY id")
        content, marks, notes = await _read_content(conn), await read_marks(conn), await read_notes(conn)
    return Snapshot(content, tuple(map(rows.link_of, links)), tuple(map(rows.flow_of, flows)), marks, notes)


async def _fill(db: Connections, snapshot: Snapshot) -> None:
    content = snapshot.content
    async with writing(db) as conn:
        await tenancy.lock_tenants(conn)
        if await conn.fetchval("SELECT EXISTS (SELECT FROM tenants) OR EXISTS (SELECT FROM meta)"):
            raise StoreNotEmpty
        await tenancy.write_tenants(conn, {}, rows.named(content.tenants))
        for tenant, grant in content.grants.items():
            await _write_grant(conn, tenant, grant)
        for link in snapshot.links:
            await conn.execute(consents.PUT_LINK, *astuple(link))
        for flow in snapshot.flows:
            await conn.execute(consents.PUT_FLOW, *astuple(flow))
        await put_marks(conn, snapshot.marks)
        await put_notes(conn, snapshot.notes)
        if content.key_check is not None:
            await _put_key_check(conn, content.key_check)
        await db.tell(conn)


async def _ping(db: Connections) -> None:
    """Fails where a commit would, save on a full disk."""
    async with db.connection() as conn:
        if await conn.fetchval("SELECT current_setting('transaction_read_only')") == "on":
            raise StoreUnavailable("The store failed: the server takes no writes; it may be a standby")
