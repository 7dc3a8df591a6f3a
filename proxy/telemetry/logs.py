"""Facts as log lines: JSON objects for machines, coloured columns for a person at a terminal."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal

import orjson
import structlog

from proxy.facts import Fact, Level

_LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


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
        self._shown = {name for name, number in _LEVELS.items() if number >= _LEVELS[level]}
        if log_format == "json":
            self._write: Callable[[Fact], Any] = _JsonLines(structlog.BytesLogger(stream), worker)
        else:
            self._write = _ConsoleLines(stream, worker)

    def __call__(self, fact: Fact) -> None:
        """Write one line; a line that cannot be written is counted and dropped."""
        if fact.level not in self._shown:
            return
        try:
            self._write(fact)
        # ValueError: the stream was closed under us. TypeError: a text that is no Unicode.
        except (OSError, ValueError, TypeError):
            self.lost += 1


class _JsonLines:
    """Facts as JSON objects, with timestamp, level and event first."""

    def __init__(self, logger: structlog.BytesLogger, worker: int | None) -> None:
        self._logger = logger
        self._worker = b"" if worker is None else b'"worker":%d,' % worker
        self._after_time: dict[type[Fact], bytes] = {}
        self._second = 0
        self._up_to_second = b""

    def __call__(self, fact: Fact) -> None:
        kind = type(fact)
        after_time = self._after_time.get(kind)
        if after_time is None:
            after_time = b'Z","level":"%b","event":"%b",%b' % (
                fact.level.encode(),
                fact.event.encode(),
                self._worker,
            )
            self._after_time[kind] = after_time
        # A fact is rendered as the object that it is; what comes first takes the place of its brace.
        self._logger.msg(self._time() + after_time + orjson.dumps(fact)[1:])

    def _time(self) -> bytes:
        """Now as ISO 8601 in UTC with microseconds; all but those is rendered once a second."""
        second, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        if second != self._second:
            self._second = second
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._up_to_second = b'{"timestamp":"%b.' % text.encode()
        return b"%b%06d" % (self._up_to_second, microseconds)


class _ConsoleLines:
    """Facts as columns, in colours on a terminal."""

    def __init__(self, stream: BinaryIO, worker: int | None) -> None:
        self._log = structlog.wrap_logger(
            structlog.BytesLogger(stream),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
                structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False, pad_event_to=22),
                _encode,
            ],
            wrapper_class=structlog.BoundLogger,
        ).bind(**({} if worker is None else {"worker": worker}))

    def __call__(self, fact: Fact) -> None:
        getattr(self._log, fact.level)(fact.event, **fields_of(fact))


def fields_of(fact: Fact) -> dict[str, Any]:
    """The fact's fields in the order in which they are documented."""
    return {field.name: getattr(fact, field.name) for field in dataclasses.fields(fact)}


def _encode(_logger: object, _method: str, line: Any) -> bytes:  # noqa: ANN401 - what the renderer gives
    return str(line).encode()
