"""The audit trail in a SQLite file: see :mod:`proxy.store.trail`. Runs on its store's thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlite_utils import Database

from proxy.chain import Mark, Note, Record
from proxy.model import Sealed
from proxy.store import trail
from proxy.store.connection import reading, writing
from proxy.store.trail import NO_MARKS, Extension, Marks, Standing, Wanted

P = ParamSpec("P")
T = TypeVar("T")


class Run(Protocol):
    """Runs a job on the store's thread."""

    async def __call__(
        self, job: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What the job returns."""


class SqliteTrail:
    """See :class:`proxy.store.Trail`. Its store's, and usable for as long as that is open."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def marks(self) -> Marks:
        return await self._run(read_marks)

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
        return await self._run(_page, after)

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
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT_NOTE = (
    "INSERT INTO audit_notes (at, event, tenant, actor, details, key, tag) VALUES (?, ?, ?, ?, ?, ?, ?)"
)


def put_notes(db: Database, notes: Iterable[Note]) -> None:
    """Store ``notes`` in the transaction that is under way."""
    for note in notes:
        db.execute(_PUT_NOTE, [*trail.values_of_entry(note.entry), note.key, note.tag])


def read_notes(db: Database) -> tuple[Note, ...]:
    """All notes, in the transaction that is under way."""
    return tuple(map(trail.note_of, db.query("SELECT * FROM audit_notes ORDER BY id")))


def read_marks(db: Database) -> Marks:
    """Key and marks, in the transaction that is under way."""
    return trail.marks_of(db.query("SELECT * FROM meta WHERE key IN (?, ?, ?)", _MARKS))


def put_marks(db: Database, marks: Marks) -> None:
    """Store what ``marks`` has, in the transaction that is under way."""
    for key, value in zip(_MARKS, (marks.key, marks.head, marks.pruned), strict=True):
        if value is not None:
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", [key, value])


def is_begun(db: Database) -> bool:
    """Whether there is anything of a trail but notes."""
    return read_marks(db) != NO_MARKS or _last(db) is not None


_MARKS = (trail.KEY, trail.HEAD, trail.PRUNED)


def _begin(db: Database, key: Sealed, head: str) -> Marks:
    with writing(db):
        if not is_begun(db):
            put_marks(db, Marks(key, head))
        return read_marks(db)


def _standing(db: Database) -> Standing:
    return Standing(read_marks(db), _last(db), read_notes(db))


def _last(db: Database) -> Mark | None:
    found = list(db.query("SELECT number, link FROM audit ORDER BY number DESC LIMIT 1"))
    return Mark(found[0]["number"], bytes(found[0]["link"]), 0.0) if found else None


def _extend(db: Database, edit: Callable[[Standing], Extension | None]) -> None:
    with writing(db):
        extension = edit(_standing(db))
        if extension is not None:
            db.execute("DELETE FROM audit_notes")
            _write(db, extension)


def _write(db: Database, extension: Extension) -> None:
    db.conn.executemany(_PUT_RECORD, map(trail.values_of_record, extension.records))
    put_marks(db, Marks(None, extension.head, extension.pruned))


def _prune(
    db: Database, before: float, most: int, edit: Callable[[Standing, Sequence[Record]], Extension]
) -> int:
    with writing(db):
        found = list(db.query("SELECT * FROM audit ORDER BY number LIMIT ?", [most]))
        if records := trail.older(found, before):
            extension = edit(_standing(db), records)
            db.execute("DELETE FROM audit WHERE number <= ?", [records[-1].number])
            _write(db, extension)
    return len(records)


def _read(db: Database, take: Callable[[Marks, Sequence[Record]], None]) -> Marks:
    with reading(db):
        marks, after = read_marks(db), 0
        while page := _page(db, after):
            take(marks, page)
            after = page[-1].number
    return marks


def _page(db: Database, after: int) -> list[Record]:
    statement = "SELECT * FROM audit WHERE number > ? ORDER BY number LIMIT ?"
    return [trail.record_of(row) for row in db.query(statement, [after, trail.PAGE])]


_NEWEST = (
    "SELECT * FROM audit WHERE number < :before AND at >= :since"
    " AND (:events IS NULL OR event IN (SELECT value FROM json_each(:events)))"
)
_OF_TENANT = " AND tenant = :tenant"
_IN_ORDER = " ORDER BY number DESC LIMIT :most"


def _newest(db: Database, wanted: Wanted) -> list[Record]:
    # Apart, so that of one tenant the index is used.
    statement = _NEWEST + (_OF_TENANT if wanted.tenant is not None else "") + _IN_ORDER
    names = None if wanted.events is None else json.dumps(wanted.events)
    found = db.query(statement, {**asdict(wanted), "events": names})
    return [trail.record_of(row) for row in found][::-1]


def _noted(db: Database) -> int:
    return int(db.execute("SELECT count(*) FROM audit_notes").fetchall()[0][0])


def _reseal_key(db: Database, anew: Callable[[Sealed], Sealed]) -> None:
    with writing(db):
        key = read_marks(db).key
        if key is not None:
            put_marks(db, Marks(anew(key)))


def _copy_in(db: Database, records: Sequence[Record]) -> None:
    with writing(db):
        db.conn.executemany(_PUT_RECORD, map(trail.values_of_record, records))
