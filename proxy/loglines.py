"""Lines of the log as a reader sees them: read, picked, folded, and made harmless for a terminal.

Knows the form of a line (docs/logs.md) and nothing of files, clocks or colours. Must never raise for what a
line holds: a log has whatever a service manager, a crash or an attacker put between our own lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import orjson

LEVELS: Final = ("debug", "info", "warning", "error")
"""From the least important on."""
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
STATUS: Final = re.compile(r"[1-5](?:[0-9]{2}|xx)")
"""How a status is picked: ``401``, or all of a class, ``5xx``."""


def printable(text: str) -> str:
    """``text`` with all that a terminal might obey, or that turns the order of letters, as escapes."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log, as it came."""

    raw: bytes
    """Without its end."""
    fields: Mapping[str, Any] | None
    """``None`` where the line is no JSON object."""

    @property
    def timestamp(self) -> str | None:
        """ISO 8601, UTC, always with microseconds, so that text is compared; ``None`` where there is none."""
        when = self.text("timestamp")
        return when if _TIMESTAMP.fullmatch(when) else None

    def text(self, name: str) -> str:
        """A field as text for people, harmless; empty where there is none."""
        value = (self.fields or {}).get(name)
        if value is None:
            return ""
        if isinstance(value, str):
            return printable(value)
        try:
            return printable(orjson.dumps(value).decode())
        except orjson.JSONEncodeError:  # nested deeper than it writes, though not than it reads
            return "…"

    @property
    def plain(self) -> str:
        """The whole line, harmless."""
        return printable(self.raw.decode("utf-8", "backslashreplace"))

    @property
    def harmless_json(self) -> bytes:
        """The same object in JSON, with escapes for what a terminal might obey (RFC 8259 section 7)."""
        text = self.raw.decode("utf-8", "backslashreplace").translate(_JSON_BLANKS)
        return "".join(each if each.isprintable() else _json_escape(each) for each in text).encode()


_JSON_BLANKS: Final = {ord(each): " " for each in "\t\r\n"}
"""Between the parts of an object these are blanks; within its texts they cannot stand as they are."""


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def parsed(raw: bytes) -> Line:
    """What a line without its end says."""
    raw = raw.removesuffix(b"\r")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return Line(raw, None)
    return Line(raw, value if isinstance(value, dict) else None)


@dataclass(frozen=True, slots=True)
class Pick:
    """Which lines are wanted: of each field one of what is named, and all fields that name something."""

    tenants: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    """Names, or patterns such as ``token.*``."""
    statuses: tuple[str, ...] = ()
    """As :data:`STATUS`."""
    request_ids: tuple[str, ...] = ()
    level: str | None = None
    """The least of :data:`LEVELS`."""

    def takes(self, line: Line) -> bool:
        """Whether a line is wanted. A line that is no JSON object has no field to go by."""
        if line.fields is None:
            return self == Pick()
        return (
            (not self.tenants or line.text("tenant") in self.tenants)
            and (not self.events or any(fnmatchcase(line.text("event"), each) for each in self.events))
            and (not self.statuses or any(_is_of(line.text("status"), each) for each in self.statuses))
            and (not self.request_ids or line.text("request_id") in self.request_ids)
            and (self.level is None or line.text("level") in LEVELS[LEVELS.index(self.level) :])
        )


def _is_of(status: str, wanted: str) -> bool:
    return status == wanted or (wanted.endswith("xx") and len(status) == 3 and status[0] == wanted[0])


class Dated:
    """The instants of one log's lines; a line without one has that of the line before."""

    def __init__(self) -> None:
        self._last = ""

    def instant(self, line: Line) -> str:
        """When ``line`` was written, as far as is known; empty before the first that says so."""
        self._last = line.timestamp or self._last
        return self._last


class Counting:
    """How many lines say the same in some of their fields, and from when to when.

    A line that has none of the fields does not count. What is counted may be a caller's to choose, such as
    a path: beyond :attr:`MOST` kinds all others are one.
    """

    MOST: Final = 10_000
    _OTHERS: Final = "(others)"

    def __init__(self, fields: Sequence[str]) -> None:
        self.fields = tuple(dict.fromkeys(fields))
        self._kinds: dict[tuple[str, ...], list[Any]] = {}

    def add(self, line: Line) -> None:
        """Count a line."""
        if not any(name in (line.fields or {}) for name in self.fields):
            return
        key = tuple(line.text(name) for name in self.fields)
        if key not in self._kinds and len(self._kinds) >= self.MOST:
            key = tuple(self._OTHERS for _ in self.fields)
        kind = self._kinds.setdefault(key, [0, line.timestamp, None])
        kind[0] += 1
        kind[2] = line.timestamp

    def rows(self) -> list[dict[str, Any]]:
        """A row for each kind, the most frequent first: the fields, the count, the first and last instant."""
        kinds = sorted(self._kinds.items(), key=lambda kind: (-kind[1][0], kind[0]))
        return [
            {"count": count}
            | {name: text or None for name, text in zip(self.fields, key, strict=True)}
            | {"first_at": first, "last_at": last}
            for key, (count, first, last) in kinds
        ]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Lines that said the same as the one before them."""

    count: int
    last: Line


class Folding:
    """Counts lines like the one before: the same event, tenant, outcome and status, from the same source.

    The first of them is shown, the others are told as a number when something else comes.
    """

    def __init__(self) -> None:
        self._key: tuple[str, ...] | None = None
        self._count = 0
        self._last: Line | None = None

    def add(self, line: Line, source: str) -> Iterator[Line | Repeats]:
        """What is to be shown now that ``line`` has come."""
        key = _key_of(line, source)
        if key is not None and key == self._key:
            self._count += 1
            self._last = line
            return
        yield from self.told()
        self._key = key
        yield line

    def told(self) -> Iterator[Repeats]:
        """What was counted and not told yet."""
        if self._count and self._last is not None:
            yield Repeats(self._count, self._last)
        self._count = 0


def _key_of(line: Line, source: str) -> tuple[str, ...] | None:
    if line.fields is None:
        return None
    return (source, *(line.text(name) for name in ("event", "tenant", "outcome", "status")))
