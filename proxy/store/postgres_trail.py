"""The audit trail in PostgreSQL: see :mod:`proxy.store.trail`. Runs on its store's thread.

What is added here is not told to other instances: they hold nothing of it in memory. A note is, since who
has the chain's key is to put it into the chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from proxy.chain import Mark, Note, Record
from proxy.model import Sealed
from proxy.store import trail
from proxy.store.postgres_connection import Connection, Connections, reading, writing
from proxy.store.trail import NO_MARKS, Extension, Marks, Standing, Wanted

P = ParamSpec("P")
T = TypeVar("T")

_TRAIL_LOCK = 7_501_100_005
"""Held by who extends the trail: a row to lock instead could be gone."""


class Run(Protocol):
    """Runs a job on the store's thread."""

    async def __call__(
        self, job: Callable[Concatenate[Connections, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What the job returns."""


class PostgresTrail:
    """See :class:`proxy.store.Trail`. Its store's, and usable for as long as that is open."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def marks(self) -> Marks:
        return await self._run(_marks)

    async def begin(self, key: Sealed, head: str) -> Marks:
        return await self._run(_begin, key, head)

    async def extend(self, edit: Callable[[Standing], Extension | None]) -> None:
        await self._run(_extend, edit)

    async def prune(
        self, before: float, most: int, edit: Callable[[Standing, Sequence[Record]], Extension]
    ) -> int:
        return await self._run(_prune, before, most, edit)

    async def read(self, take: Callable[[Marks, Sequence[Record]], None]) -> Marks:
        return await self._run(_read, take)

    async def page(self, after: int) -> list[Record]:
        return await self._run(_page_after, after)

    async def newest(
        self,
        most: int,
        tenant: str | None,
        event: str | Collection[str] | None,
        *,
        since: float = 0.0,
        before: int = trail.NO_END,
    ) -> list[Record]:
        return await self._run(_newest, Wanted(most, tenant, trail.names_of(event), since, before))

    async def noted(self) -> int:
        return await self._run(_noted)

    async def reseal_key(self, anew: Callable[[Sealed], Sealed]) -> None:
        await self._run(_reseal_key, anew)

    async def copy_in(self, records: Sequence[Record]) -> None:
        await self._run(_copy_in, records)


_PUT_RECORD = (
    "INSERT INTO audit (number, at, event, tenant, actor, details, previous, link)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
)
_PUT_NOTE = (
    "INSERT INTO audit_notes (at, event, tenant, actor, details, key, tag)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7)"
)
_MARKS = (trail.KEY, trail.HEAD, trail.PRUNED)


async def put_notes(conn: Connection, notes: Iterable[Note]) -> None:
    """Store ``notes`` in the transaction that is under way."""
    for note in notes:
        await conn.execute(_PUT_NOTE, *trail.values_of_entry(note.entry), note.key, note.tag)


async def read_notes(conn: Connection) -> tuple[Note, ...]:
    """All notes, in the transaction that is under way."""
    return tuple(map(trail.note_of, await conn.fetch("SELECT * FROM audit_notes ORDER BY id")))


async def read_marks(conn: Connection) -> Marks:
    """Key and marks, in the transaction that is under way."""
    return trail.marks_of(await conn.fetch("SELECT * FROM meta WHERE key = ANY($1)", list(_MARKS)))


async def put_marks(conn: Connection, marks: Marks) -> None:
    """Store what ``marks`` has, in the transaction that is under way."""
    for key, value in zip(_MARKS, (marks.key, marks.head, marks.pruned), strict=True):
        if value is not None:
            await conn.execute(
                "INSERT INTO meta (key, value) VALUES ($1, $2)"
                " ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value",
                key,
                value,
            )


async def is_begun(conn: Connection) -> bool:
    """Whether there is anything of a trail but notes."""
    return await read_marks(conn) != NO_MARKS or await _last(conn) is not None


async def _lock(conn: Connection) -> None:
    await conn.execute("SELECT pg_advisory_xact_lock($1)", _TRAIL_LOCK)


async def _marks(db: Connections) -> Marks:
    async with db.connection() as conn:
        return await read_marks(conn)


async def _begin(db: Connections, key: Sealed, head: str) -> Marks:
    async with writing(db) as conn:
        await _lock(conn)
        if not await is_begun(conn):
            await put_marks(conn, Marks(key, head))
        return await read_marks(conn)


async def _standing(conn: Connection) -> tuple[Standing, list[int]]:
    """How far the trail has come, and the ids of the notes of which it tells."""
    rows = await conn.fetch("SELECT * FROM audit_notes ORDER BY id")
    notes = tuple(map(trail.note_of, rows))
    return Standing(await read_marks(conn), await _last(conn), notes), [row["id"] for row in rows]


async def _last(conn: Connection) -> Mark | None:
    row = await conn.fetchrow("SELECT number, link FROM audit ORDER BY number DESC LIMIT 1")
    return None if row is None else Mark(row["number"], bytes(row["link"]), 0.0)


async def _extend(db: Connections, edit: Callable[[Standing], Extension | None]) -> None:
    async with writing(db) as conn:
        await _lock(conn)
        standing, ids = await _standing(conn)
        extension = edit(standing)
        if extension is not None:
            # By their ids: more of them may have been committed since they were read.
            await conn.execute("DELETE FROM audit_notes WHERE id = ANY($1)", ids)
            await _write(conn, extension)


async def _write(conn: Connection, extension: Extension) -> None:
    await conn.executemany(_PUT_RECORD, [trail.values_of_record(record) for record in extension.records])
    await put_marks(conn, Marks(None, extension.head, extension.pruned))


async def _prune(
    db: Connections, before: float, most: int, edit: Callable[[Standing, Sequence[Record]], Extension]
) -> int:
    async with writing(db) as conn:
        await _lock(conn)
        found = await conn.fetch("SELECT * FROM audit ORDER BY number LIMIT $1", most)
        if records := trail.older(found, before):
            standing, _ = await _standing(conn)
            extension = edit(standing, records)
            await conn.execute("DELETE FROM audit WHERE number <= $1", records[-1].number)
            await _write(conn, extension)
    return len(records)


async def _read(db: Connections, take: Callable[[Marks, Sequence[Record]], None]) -> Marks:
    async with reading(db) as conn:
        marks, after = await read_marks(conn), 0
        while page := await _page(conn, after):
            take(marks, page)
            after = page[-1].number
    return marks


async def _page_after(db: Connections, after: int) -> list[Record]:
    async with db.connection() as conn:
        return await _page(conn, after)


async def _page(conn: Connection, after: int) -> list[Record]:
    statement = "SELECT * FROM audit WHERE number > $1 ORDER BY number LIMIT $2"
    rows = await conn.fetch(statement, after, trail.PAGE)
    return [trail.record_of(row) for row in rows]


_NEWEST = "SELECT * FROM audit WHERE number < $1 AND at >= $2 AND ($3::text[] IS NULL OR event = ANY($3))"
_OF_TENANT = " AND tenant = $5"
_IN_ORDER = " ORDER BY number DESC LIMIT $4"


async def _newest(db: Connections, wanted: Wanted) -> list[Record]:
    # Apart, so that of one tenant the index is used.
    of_tenant, named = ("", ()) if wanted.tenant is None else (_OF_TENANT, (wanted.tenant,))
    statement = _NEWEST + of_tenant + _IN_ORDER
    async with db.connection() as conn:
        rows = await conn.fetch(statement, wanted.before, wanted.since, wanted.events, wanted.most, *named)
    return [trail.record_of(row) for row in rows][::-1]


async def _noted(db: Connections) -> int:
    async with db.connection() as conn:
        return int(await conn.fetchval("SELECT count(*) FROM audit_notes"))


async def _reseal_key(db: Connections, anew: Callable[[Sealed], Sealed]) -> None:
    async with writing(db) as conn:
        await _lock(conn)
        key = (await read_marks(conn)).key
        if key is not None:
            await put_marks(conn, Marks(anew(key)))


async def _copy_in(db: Connections, records: Sequence[Record]) -> None:
    async with writing(db) as conn:
        await _lock(conn)
        await conn.executemany(_PUT_RECORD, [trail.values_of_record(record) for record in records])
