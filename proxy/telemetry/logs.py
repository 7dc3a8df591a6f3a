"""Facts as log lines: JSON objects for machines, coloured columns for a person at a terminal."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, BinaryIO, Literal

import orjson
import structlog

from proxy.model import Fact, Level

_LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_fields: dict[type[Fact], tuple[tuple[str, ...], Callable[[Fact], tuple[Any, ...]]]] = {}


class LogSink:
    """Writes each fact as one line, whole and at once: a lump of buffered lines would hold up callers."""

    def __init__(
        self,
        stream: BinaryIO,
        *,
        log_format: Literal["json", "console"],
        level: Level,
        worker: int | None = None,
    ) -> None:
        """With ``worker``, each line tells which of several processes wrote it."""
        self.lost = 0
        """Lines that could not be written (a full disk, a reader that went away)."""
        self._log = structlog.wrap_logger(
            structlog.BytesLogger(stream),
            processors=[_JsonLine()] if log_format == "json" else _console(colors=stream.isatty()),
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            cache_logger_on_first_use=True,
        ).bind(**({} if worker is None else {"worker": worker}))
        self._write: dict[Level, Callable[..., Any]] = {
            "debug": self._log.debug,
            "info": self._log.info,
            "warning": self._log.warning,
            "error": self._log.error,
        }

    def __call__(self, fact: Fact) -> None:
        """Write one line; a line that cannot be written is counted and dropped."""
        try:
            self._write[fact.level](fact.event, **fields_of(fact))
        # ValueError: the stream was closed under us. TypeError: a text that is no Unicode.
        except (OSError, ValueError, TypeError):
            self.lost += 1


def fields_of(fact: Fact) -> dict[str, Any]:
    """The fact's fields in the order in which they are documented."""
    kind = type(fact)
    known = _fields.get(kind)
    if known is None:
        names = tuple(field.name for field in dataclasses.fields(fact))
        get: Callable[[Fact], tuple[Any, ...]] = attrgetter(
            *names, names[0]
        )  # the repeated name makes the result a tuple for one field too
        known = _fields[kind] = (names, get)
    return dict(zip(known[0], known[1](fact), strict=False))


class _JsonLine:
    """Renders an event as JSON, with timestamp, level and event first."""

    def __init__(self) -> None:
        self._second = 0
        self._second_text = ""

    def __call__(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> bytes:
        name = event.pop("event")
        return orjson.dumps({"timestamp": self._timestamp(), "level": method, "event": name, **event})

    def _timestamp(self) -> str:
        """Now as ISO 8601 in UTC with microseconds; all but those is rendered once a second."""
        microseconds = time.time_ns() // 1000
        second, rest = divmod(microseconds, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{rest:06d}Z"


def _console(*, colors: bool) -> list[Any]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, pad_event_to=22),
        _encode,
    ]


def _encode(_logger: object, _method: str, line: str) -> bytes:
    return line.encode()
