"""Facts as log lines: JSON objects for machines, coloured columns for a person at a terminal."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, BinaryIO, Literal

import orjson

from proxy.facts import Emit, Fact, Level, LineWithheld, RequestFinished
from proxy.telemetry.canary import Canary

_LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_texts_of = attrgetter(
    *(
        field.name
        for field in dataclasses.fields(RequestFinished)
        if "str" in str(field.type) and field.name not in ("request_id", "trace_id")
    )
)
"""All of a request's line that is text, less the ids that are other ones each time."""
_ID_LENGTH = 32
"""Of an id of our own making (:mod:`proxy.exchange`)."""
_MOST_CLEAN = 4096
RECENT = 500
"""Lines that are kept for who watches: some 200 KB, and a busy second."""


class LogSink:
    """Writes each fact as one line, whole.

    Lines of requests that end in one turn of the event loop leave in one write, at its end; every other line
    leaves at once. To wait any longer would make lumps that hold up callers.
    """

    def __init__(
        self,
        stream: BinaryIO | None,
        *,
        log_format: Literal["json", "console"],
        level: Level | None,
        worker: int | None = None,
        canary: Canary | None = None,
    ) -> None:
        """Without ``stream``, lines are kept for who watches, and written nowhere.

        With ``worker``, each line tells which of several processes wrote it.

        With ``canary``, a line that would carry a secret is withheld, and :attr:`report` is told.
        """
        self.report: Emit = self
        """Gets :class:`~proxy.facts.LineWithheld`; for all sinks to have it, where they are put together."""
        self.lost = 0
        """Lines that could not be written (a full disk, a reader that went away)."""
        self.recent: deque[bytes] = deque(maxlen=RECENT)
        """The last lines that left, to be taken out by who watches (:mod:`~proxy.telemetry.live`)."""
        self.left = 0
        """How many lines ever left, so that who watches knows what was too many."""
        self.worker = worker
        self.log_format = log_format
        self._stream = stream
        self._line: Callable[[Fact], tuple[bytes, bytes]] = (
            _JsonLine(worker)
            if log_format == "json"
            else _ConsoleLine(worker, colors=stream is not None and stream.isatty())
        )
        self.tell_from(level)
        self.canary = canary or Canary()
        self._own_ids = self.canary.harmless.decode("ascii")
        self._changes = -1
        self._clean: set[object] = set()
        """Texts of requests in which the canary found nothing."""
        self._waiting: list[bytes] = []

    def tell_from(self, level: Level | None) -> None:
        """From now on tell facts of this level and above; ``None``: nothing."""
        least = logging.CRITICAL if level is None else _LEVELS[level]
        self._shown = {name for name, number in _LEVELS.items() if number >= least}

    def tells(self, level: Level) -> bool:
        """Whether facts of this level become lines."""
        return level in self._shown

    def __call__(self, fact: Fact) -> None:
        """Write one line; a line that cannot be written is counted and dropped."""
        if fact.level not in self._shown:
            return
        try:
            head, body = self._line(fact)
        except TypeError:  # a text that is no Unicode
            self.lost += 1
            return
        if self._carries_a_secret(fact, body):
            if type(fact) is not LineWithheld:
                self.report(LineWithheld(fact.event))
            return
        self._waiting.append(head + body)
        if not (type(fact) is RequestFinished and self._flushes_soon()):
            self.flush()

    def _carries_a_secret(self, fact: Fact, body: bytes) -> bool:
        """Whether the canary finds one; it need not look at a request like one whose line was clean.

        Tools repeat themselves, and numbers are no secrets; an id of our own making is no text of anybody's.
        """
        canary = self.canary
        if type(fact) is not RequestFinished:
            return canary.finds(body)
        if self._changes != canary.changes:
            self._changes = canary.changes
            self._clean.clear()
        request_id = fact.request_id
        if not (self._own_ids and request_id.startswith(self._own_ids) and len(request_id) == _ID_LENGTH):
            return canary.finds(body)
        if fact.trace_id is not None and canary.finds(fact.trace_id.encode()):
            return True
        texts = _texts_of(fact)
        if texts in self._clean:
            return False
        if canary.finds(body):
            return True
        if len(self._clean) >= _MOST_CLEAN:
            self._clean.clear()
        self._clean.add(texts)
        return False

    def flush(self) -> None:
        """Write the lines that wait."""
        lines = self._waiting
        if not lines:
            return
        self._waiting = []
        # All that those who watch cost a request, whether there are any or not.
        self.recent.extend(lines)
        self.left += len(lines)
        if self._stream is None:
            return
        try:
            self._stream.write(b"".join(lines))
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream was closed under us
            self.lost += len(lines)

    def _flushes_soon(self) -> bool:
        if len(self._waiting) > 1:
            return True
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:  # no loop runs
            return False
        return True


class _JsonLine:
    """Facts as JSON objects, with timestamp, level and event first."""

    def __init__(self, worker: int | None) -> None:
        self._worker = b"" if worker is None else b'"worker":%d,' % worker
        self._after_time: dict[type[Fact], bytes] = {}
        self._second = 0
        self._up_to_second = b""

    def __call__(self, fact: Fact) -> tuple[bytes, bytes]:
        """What says when and what it was, and all that it tells."""
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
        return self._time() + after_time, orjson.dumps(fact, option=orjson.OPT_APPEND_NEWLINE)[1:]

    def _time(self) -> bytes:
        """Now as ISO 8601 in UTC with microseconds; all but those is rendered once a second."""
        second, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        if second != self._second:
            self._second = second
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._up_to_second = b'{"timestamp":"%b.' % text.encode()
        return b"%b%06d" % (self._up_to_second, microseconds)


class _ConsoleLine:
    """Facts as columns, in colours on a terminal."""

    def __init__(self, worker: int | None, *, colors: bool) -> None:
        # Here, since it brings the drawing of tracebacks and 5 MB, which a log for machines does without.
        import structlog  # noqa: PLC0415

        self._log = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
                structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, pad_event_to=22),
            ],
            wrapper_class=structlog.BoundLogger,
        ).bind(**({} if worker is None else {"worker": worker}))

    def __call__(self, fact: Fact) -> tuple[bytes, bytes]:
        line: str = getattr(self._log, fact.level)(fact.event, **fields_of(fact))
        return b"", line.encode() + b"\n"


def fields_of(fact: Fact) -> dict[str, Any]:
    """The fact's fields in the order in which they are documented."""
    return {field.name: getattr(fact, field.name) for field in dataclasses.fields(fact)}
