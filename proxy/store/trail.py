"""What a store does for the audit trail, whichever database keeps it, and the words for it.

The records and their marks are :mod:`proxy.chain`'s; a store keeps them, in an order that all processes
share, and could not make one. Every method is one transaction, as the rest of :mod:`proxy.store.interface`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

from proxy.chain import Entry, Mark, Note, Record
from proxy.model import Sealed

PAGE = 1000
"""Records that are read or copied at a time."""

NO_END = 2**53
"""More than the number of any record, and exact in JSON for all that read it (RFC 8259 section 6)."""
KEY, HEAD, PRUNED = "audit_key", "audit_head", "audit_pruned"
"""Rows of the table ``meta``."""

Notes = Callable[[], Iterable[Note]]
"""What is asked, in the transaction of a change and after it, for the notes that go with it."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What is kept beside the records."""

    key: Sealed | None = None
    """The chain's key; ``None`` before the first record."""
    head: str | None = None
    pruned: str | None = None


NO_MARKS = Marks()


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the trail has come, as of the transaction that is about to extend it."""

    marks: Marks
    last: Mark | None
    """Number and link of the last record that is there; the head differs if somebody changed either."""
    notes: tuple[Note, ...]
    """In the order in which they were stored."""


@dataclass(frozen=True, slots=True)
class Extension:
    """What a transaction adds to the trail."""

    records: Sequence[Record]
    head: str
    pruned: str | None = None
    """The new mark of what was pruned, where something was."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records :meth:`Trail.newest` is asked for."""

    most: int
    tenant: str | None
    events: list[str] | None
    """``None`` for all."""
    since: float
    before: int


class Trail(Protocol):
    """The audit trail of a store."""

    async def marks(self) -> Marks:
        """The key and the marks as they are stored."""

    async def begin(self, key: Sealed, head: str) -> Marks:
        """Store key and first mark, if there is neither key nor mark nor record; returns what holds."""

    async def extend(self, edit: Callable[[Standing], Extension | None]) -> None:
        """Add what ``edit`` makes of the notes and of what it knows; the notes are in the chain thereafter.

        No other writer, of any process, comes between reading and writing. ``None`` leaves all as it is.
        """

    async def prune(
        self, before: float, most: int, edit: Callable[[Standing, Sequence[Record]], Extension]
    ) -> int:
        """Remove the oldest records, up to the first that is not older than ``before``; returns how many.

        :param most: of them at one time.
        :param edit: given them; not called if there is none. One that raises has refused.
        """

    async def read(self, take: Callable[[Marks, Sequence[Record]], None]) -> Marks:
        """Hand all records to ``take``, page by page in order; returns the marks, as of the same moment."""

    async def page(self, after: int) -> list[Record]:
        """The next records after a number, :data:`PAGE` of them at the most."""

    async def newest(
        self,
        most: int,
        tenant: str | None,
        event: str | Collection[str] | None,
        *,
        since: float = 0.0,
        before: int = NO_END,
    ) -> list[Record]:
        """The newest records, the oldest of them first.

        :param tenant: only records of this tenant, if one is named.
        :param event: only records of this event, or of one of these.
        :param since: only records of this instant or later, in seconds since the epoch.
        :param before: only records before the one of this number.
        """

    async def noted(self) -> int:
        """How many notes are not in the chain yet."""

    async def reseal_key(self, anew: Callable[[Sealed], Sealed]) -> None:
        """Replace the chain's sealed key, if there is one, by what ``anew`` makes of it."""

    async def copy_in(self, records: Sequence[Record]) -> None:
        """Store records of another store as they are."""


def names_of(event: str | Collection[str] | None) -> list[str] | None:
    """The events that :meth:`Trail.newest` is asked for, as :attr:`Wanted.events`."""
    return [event] if isinstance(event, str) else None if event is None else sorted(event)


def values_of_record(record: Record) -> tuple[Any, ...]:
    """A record as the values of a row of ``audit``."""
    return (record.number, *values_of_entry(record.entry), record.previous, record.link)


def values_of_entry(entry: Entry) -> tuple[Any, ...]:
    """An entry as values of a row of ``audit`` or ``audit_notes``."""
    return (entry.at, entry.event, entry.tenant, entry.actor, entry.details)


def record_of(row: Any) -> Record:  # noqa: ANN401 - rows of two drivers
    """The record of a row of ``audit``."""
    return Record(row["number"], bytes(row["previous"]), entry_of(row), bytes(row["link"]))


def entry_of(row: Any) -> Entry:  # noqa: ANN401 - the same
    """The entry of a row."""
    return Entry(row["at"], row["event"], row["tenant"], row["actor"], row["details"])


def note_of(row: Any) -> Note:  # noqa: ANN401 - the same
    """The note of a row of ``audit_notes``."""
    return Note(entry_of(row), row["key"], row["tag"])


def marks_of(rows: Iterable[Any]) -> Marks:
    """Key and marks of rows of ``meta``."""
    found = {row["key"]: row["value"] for row in rows}
    key = found.get(KEY)
    return Marks(None if key is None else Sealed(key), found.get(HEAD), found.get(PRUNED))


def older(oldest: Iterable[Any], before: float) -> list[Record]:
    """Of rows in their order, those that are older than ``before``, as are all before them."""
    return [record_of(row) for row in takewhile(lambda row: row["at"] < before, oldest)]
