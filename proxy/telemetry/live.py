"""The newest lines of the log, numbered, for who watches on a page or with curl.

Nothing here is on a request's way. The log keeps its last lines anyway (:attr:`LogSink.recent`); who watches
comes for them a few times a second, and has a number up to which it has seen them. So a slow reader costs no
memory and holds up nobody: what was too much is a gap in the numbers. Lines of other processes come through
:mod:`~proxy.telemetry.relay`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from proxy.facts import Fact
from proxy.loglines import Line, parsed
from proxy.telemetry import fan_out
from proxy.telemetry.logs import RECENT, LogSink

LOOK_S = 0.25
"""Pause between two looks of who watches."""
_UNWATCHED_S = 5.0
"""After the last look, nobody watches."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A line with its place among all lines that came."""

    number: int
    line: Line


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What came since a number, oldest first."""

    lines: tuple[Numbered, ...]
    upto: int
    """The number to ask with next."""
    left_out: int
    """Lines that came in between and are gone."""


class Others(Protocol):
    """The other processes, of which each has lines of its own."""

    def call_again(self) -> None:
        """Have them send what they have, unless they were told so just now."""

    async def gather(self) -> None:
        """Have them send what they have, and wait for those that answer soon."""


class Live:
    """The newest lines of a log, and of those of other processes.

    :param log: it must write JSON, and tell of requests, for its own lines to serve; else lines are made
        beside it, in JSON and from ``info`` on, by a sink that is among :attr:`sinks`.
    """

    def __init__(self, log: LogSink) -> None:
        self._is_beside = log.log_format != "json" or not log.tells("info")
        self._source = _beside(log) if self._is_beside else log
        # Where the log is for people it is slow anyway; where it tells little, it is to cost little.
        self._is_always_on = log.log_format == "console"
        self._handed_out = 0
        self._lines: deque[Numbered] = deque(maxlen=RECENT)
        self._newest = 0
        self._run = secrets.token_hex(4)
        self._unwatched: asyncio.TimerHandle | None = None
        self.others: Others | None = None
        """Set where there are other processes."""
        if self._is_beside and self._is_always_on:
            self._source.tell_from("info")

    @property
    def sinks(self) -> tuple[Callable[[Fact], None], ...]:
        """What must get each fact for this to work, beside the log."""
        return (self._source,) if self._is_beside else ()

    # --- for who watches

    def look(self) -> None:
        """Take up what came, and have more come."""
        self.wanted()
        self.take(*self.hand_out())
        if self.others is not None:
            self.others.call_again()

    async def look_everywhere(self) -> None:
        """As :meth:`look`, and wait a moment for what other processes have."""
        self.look()
        if self.others is not None:
            await self.others.gather()

    def since(self, number: int) -> Glimpse:
        """What came after a number and was taken up."""
        found = []
        for each in reversed(self._lines):
            if each.number <= number:
                break
            found.append(each)
        left_out = max(0, self._newest - number) - len(found)
        return Glimpse(tuple(reversed(found)), self._newest, left_out)

    def recent(self) -> Glimpse:
        """All that is kept, in the order of time."""
        kept = sorted(self._lines, key=lambda each: each.line.timestamp or "")
        return Glimpse(tuple(kept), self._newest, 0)

    def mark(self, number: int) -> str:
        """A number as text that tells this run from others."""
        return f"{self._run}-{number}"

    def number_of(self, mark: str | None) -> int:
        """The number to go on from: that of a mark, or the newest where there is none.

        Of a mark of another run nothing is known, so whoever has it has seen nothing of this one.
        """
        if mark is None:
            return self._newest
        run, _, text = mark.partition("-")
        is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(self._newest))
        if run == self._run and is_number:
            return min(int(text), self._newest)
        return self._lines[0].number - 1 if self._lines else self._newest

    # --- for where lines come from

    def wanted(self) -> None:
        """Somebody watches: for a while, there are lines of requests whatever the log tells."""
        if not self._is_beside or self._is_always_on:
            return
        self._source.tell_from("info")
        if self._unwatched is not None:
            self._unwatched.cancel()
        self._unwatched = asyncio.get_running_loop().call_later(_UNWATCHED_S, self._source.tell_from, None)

    def hand_out(self) -> tuple[list[bytes], int]:
        """This process's lines that nobody took before, and how many more there were."""
        source = self._source
        lines = list(source.recent)
        source.recent.clear()
        came, self._handed_out = source.left - self._handed_out, source.left
        return lines, came - len(lines)

    def take(self, lines: Iterable[bytes], left_out: int) -> None:
        """Number lines that came, after some that did not."""
        self._newest += left_out
        for raw in lines:
            self._newest += 1
            self._lines.append(Numbered(self._newest, parsed(raw.removesuffix(b"\n"))))

    def close(self) -> None:
        """Wait for nothing more."""
        if self._unwatched is not None:
            self._unwatched.cancel()


def _beside(log: LogSink) -> LogSink:
    sink = LogSink(None, log_format="json", level=None, worker=log.worker, canary=log.canary)
    sink.report = fan_out()  # the log has reported already that a line was withheld
    return sink
