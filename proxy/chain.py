"""The chain of the audit trail: records that each carry a keyed hash over themselves and the one before.

Who has not the key can neither change a record, nor take one out, nor put one in, nor change their order,
without :class:`Verifier` naming the place. A :class:`Mark` says how far the chain reaches, so that a cut end
is found, and another from where it is kept, so that what was pruned on purpose is told from what is missing.

No I/O, no clock. Limits, said plainly: who has the key can write another chain; and a whole chain that was
put back to an older state, marks included, is in order by itself. Only a number and link that were noted
elsewhere (an *anchor*) show that.
"""

from __future__ import annotations

import hmac
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Literal

KEY_BYTES = 32
NO_LINK = bytes(32)
"""What stands before the first record."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that is to be remembered."""

    at: float
    event: str
    tenant: str | None
    actor: str
    """Who did it: ``os:NAME`` for who ran a command, ``proxy:INSTANCE/WORKER`` for the proxy itself."""
    details: str
    """A JSON object; see :func:`as_details`."""


@dataclass(frozen=True, slots=True)
class Note:
    """An entry that is stored and not yet in the chain, written by who need not have the chain's key."""

    entry: Entry
    key: str = ""
    """Id of the key of the ring with which ``tag`` was made; empty where none was at hand."""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """An entry in its place in the chain."""

    number: int
    """From 1, without gaps."""
    previous: bytes
    """The link of the record before."""
    entry: Entry
    link: bytes


MarkKind = Literal["head", "pruned"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the chain that is kept apart from it: the newest record, or the newest that was pruned."""

    number: int
    link: bytes
    at: float
    """When the chain was extended to it, or pruned up to it."""


START = Mark(0, NO_LINK, 0.0)


def as_details(fields: Mapping[str, Any]) -> str:
    """Fields of an entry as text: JSON with sorted keys, the same for the same fields."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def entry_bytes(entry: Entry) -> bytes:
    """An entry as bytes; no two entries give the same."""
    tenant = b"" if entry.tenant is None else b"+" + entry.tenant.encode()
    parts = (entry.event.encode(), tenant, entry.actor.encode(), entry.details.encode())
    return struct.pack(">d", entry.at) + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class Chain:
    """Makes and knows the links of one key.

    :param key: :data:`KEY_BYTES` random bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the chain's key must have {KEY_BYTES} bytes")
        self._key = key
        self.key_id = self._hash(b"id")[:6].hex()
        """By which a chain of another key is told from a damaged one."""

    def extended(self, after: Mark, entries: Sequence[Entry]) -> list[Record]:
        """``entries`` as the records that follow ``after``."""
        records, number, previous = [], after.number, after.link
        for entry in entries:
            number += 1
            link = self._link(number, previous, entry)
            records.append(Record(number, previous, entry, link))
            previous = link
        return records

    def is_genuine(self, record: Record, number: int | None = None) -> bool:
        """Whether ``record`` was made with this key, for ``number`` if one is given."""
        made = self._link(number or record.number, record.previous, record.entry)
        return hmac.compare_digest(made, record.link)

    def first_break(self, after: Mark, records: Iterable[Record]) -> int | None:
        """The number of the first of ``records`` that does not follow the one before; ``None`` if all do."""
        number, link = after.number, after.link
        for record in records:
            follows = (record.number, record.previous) == (number + 1, link)
            if not follows or not self.is_genuine(record):
                return record.number
            number, link = record.number, record.link
        return None

    def marked(self, kind: MarkKind, mark: Mark) -> str:
        """``mark`` as text that nobody can make without the key."""
        fields = {"number": mark.number, "link": mark.link.hex(), "at": mark.at, "key": self.key_id}
        return json.dumps({**fields, "mac": self._mac(kind, mark)})

    def read_mark(self, kind: MarkKind, text: str) -> Mark | None:
        """The mark that :meth:`marked` wrote; ``None`` if it was changed or made with another key."""
        try:
            fields = json.loads(text)
            mark = Mark(int(fields["number"]), bytes.fromhex(fields["link"]), float(fields["at"]))
            mac = str(fields["mac"])
        except (ValueError, KeyError, TypeError):
            return None
        return mark if hmac.compare_digest(self._mac(kind, mark).encode(), mac.encode()) else None

    def _mac(self, kind: MarkKind, mark: Mark) -> str:
        place = struct.pack(">Qd", mark.number, mark.at) + mark.link
        return self._hash(kind.encode() + b"\0" + place).hex()

    def _link(self, number: int, previous: bytes, entry: Entry) -> bytes:
        # Each kind of text begins with its name, so that none can be taken for one of another kind.
        place = struct.pack(">qI", number, len(previous)) + previous
        return self._hash(b"record\0" + place + entry_bytes(entry))

    def _hash(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, sha256)


def key_id_of_mark(text: str) -> str | None:
    """The id of the key that a mark names; ``None`` where the text is no mark."""
    try:
        key_id = json.loads(text)["key"]
    except (ValueError, KeyError, TypeError):
        return None
    return key_id if isinstance(key_id, str) else None


class Problem(StrEnum):
    """What is wrong at a place of the chain."""

    CHANGED = "changed"
    """The record is not what was written, or was never written by a proxy."""
    MISSING = "missing"
    REORDERED = "reordered"
    """The record is genuine and stands in another's place, or stands twice."""
    FORKED = "forked"
    """The record is genuine and follows another one than stands before it: two histories were mixed."""
    CUT_OFF = "cut_off"
    """Records at the end are gone."""
    FOREIGN_KEY = "foreign_key"
    """The chain was made with another key than the store's."""
    MARK = "mark"
    """The mark of the newest record, or of what was pruned, is missing or changed."""
    ANCHOR = "anchor"
    """A record that was noted elsewhere is another now, or not there: the chain was put back."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, at the record with this number (0: with the chain as a whole)."""

    number: int
    problem: Problem
    detail: str


_MOST_HASHES = 1_000_000
"""So many are spent, a second or two, to tell where records that are not genuine belong."""
_MOST_FINDINGS = 1000
"""So many are kept; a trail that is all wrong must not fill the memory."""


@dataclass(slots=True)
class Verifier:
    """Reads a chain in its order and finds what is wrong with it.

    :param head: text of the mark of the newest record, as it is stored.
    :param pruned: text of the mark of the newest record that was pruned, if any was.
    :param anchors: links by number that were noted elsewhere.
    """

    chain: Chain
    head: str | None
    pruned: str | None = None
    anchors: Mapping[int, bytes] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    records: int = 0
    first: int | None = None
    unchecked: tuple[int, ...] = ()
    """Anchors of records that were pruned on purpose, so that nothing can be said of them."""
    _end: Mark | None = None
    _begin: Mark = START
    _number: int = 0
    """Of the last record that stands in its place."""
    _link: bytes | None = NO_LINK
    """Its link; ``None`` where that is not known."""
    _is_other_key: bool = False
    """Then no record could be told from a changed one, so none is looked at."""
    _hashes_left: int = _MOST_HASHES
    _seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        foreign = [text for text in (self.head, self.pruned) if text is not None and self._is_foreign(text)]
        if foreign:
            self._is_other_key = True
            self._find(0, Problem.FOREIGN_KEY, "the trail was made with another key than this store's")
        self._end = self._mark("head", self.head, "of the newest record")
        begin = self._mark("pruned", self.pruned, "of what was pruned") if self.pruned is not None else START
        # What stands before an unreadable mark is not known: the first record that comes is believed.
        self._begin = begin or START
        self._number, self._link = self._begin.number, self._begin.link
        if begin is None:
            self._number, self._link = -1, None

    def take(self, records: Iterable[Record]) -> None:
        """The next records in the order in which they stand."""
        for record in records:
            self.records += 1
            self.first = record.number if self.first is None else self.first
            if not self._is_other_key:
                self._take(record)

    def finish(self) -> list[Finding]:
        """All that was found, in the order in which it stands."""
        if self._end is not None and self._number < self._end.number:
            self._find(
                max(self._number, 0) + 1,
                Problem.CUT_OFF,
                f"records {max(self._number, 0) + 1} to {self._end.number} are gone from the end",
            )
        elif self._end is not None and self._number > self._end.number:
            self._find(
                self._end.number + 1, Problem.MARK, "is beyond the newest record that the trail knows of"
            )
        elif self._end is not None and self._link not in (None, self._end.link):
            self._find(self._number, Problem.FORKED, "is not the newest record that the trail knows of")
        if not self._is_other_key:
            self._check_anchors()
        return self.findings

    @property
    def end(self) -> Mark | None:
        """The newest record as its mark has it."""
        return self._end

    @property
    def begin(self) -> Mark:
        """From where on the trail is kept: the mark of what was pruned, or :data:`START`."""
        return self._begin

    def _take(self, record: Record) -> None:
        number = record.number
        if not self.chain.is_genuine(record):
            self._take_what_is_not_genuine(record)
            return
        if number <= self._number:
            self._find(number, Problem.REORDERED, "stands behind a later one, or stands twice")
            return
        self._note_gap(number)
        if self._link is not None and record.previous != self._link:
            self._find(number, Problem.FORKED, "follows another record than the one that stands before it")
        self._number, self._link = number, record.link
        anchor = self.anchors.get(number)
        if anchor is not None:
            self._seen.add(number)
            if anchor != record.link:
                self._find(number, Problem.ANCHOR, "is another than the one that was noted")

    def _take_what_is_not_genuine(self, record: Record) -> None:
        self._note_gap(record.number)
        true_number = self._found_elsewhere(record)
        if true_number is None:
            self._find(record.number, Problem.CHANGED, "was changed, or was not written by this proxy")
        else:
            self._find(record.number, Problem.REORDERED, f"is in truth record {true_number}")
        self._number, self._link = max(self._number, record.number), None

    def _note_gap(self, number: int) -> None:
        gap = range(self._number + 1, number)
        if self._number >= 0 and gap:
            what = "is missing" if len(gap) == 1 else f"to {gap[-1]} are missing"
            self._find(gap[0], Problem.MISSING, what)
            self._link = None

    def _found_elsewhere(self, record: Record) -> int | None:
        """The number under which the record is genuine, if it is under any."""
        if self._end is None:
            return None
        numbers = range(1, min(self._end.number, self._hashes_left) + 1)
        self._hashes_left -= len(numbers)
        return next((number for number in numbers if self.chain.is_genuine(record, number)), None)

    def _check_anchors(self) -> None:
        unchecked = []
        for number, link in sorted(self.anchors.items()):
            if number in self._seen:
                continue
            if number == self._begin.number and number:
                if link != self._begin.link:
                    self._find(number, Problem.ANCHOR, "is another than the one that was noted")
            elif number < self._begin.number:
                unchecked.append(number)
            else:
                self._find(number, Problem.ANCHOR, "was noted, and is not there")
        self.unchecked = tuple(unchecked)

    def _mark(self, kind: MarkKind, text: str | None, what: str) -> Mark | None:
        mark = None if text is None else self.chain.read_mark(kind, text)
        if mark is None and not self.findings:
            fault = "is missing" if text is None else "was changed"
            self._find(0, Problem.MARK, f"the mark {what} {fault}")
        return mark

    def _is_foreign(self, text: str) -> bool:
        return key_id_of_mark(text) not in (None, self.chain.key_id)

    def _find(self, number: int, problem: Problem, detail: str) -> None:
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(Finding(number, problem, detail))
