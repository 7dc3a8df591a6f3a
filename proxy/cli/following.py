"""Where the lines of ``tail`` come from: files, pipes and standard input, read as they grow.

May use the system's files and ``loglines``. Must never block on one source while another has lines, never
change a file, and never hold more of one than a line.
"""

from __future__ import annotations

import heapq
import os
import select
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import UsageError
from proxy.loglines import Dated, Line, parsed

STDIN = 0
_CHUNK = 1 << 16
_LONGEST = 1 << 20
"""Bytes; what has no end after so many is cut into lines, since memory has an end too."""
_LAST_LINES = 10
"""How many old lines a file that is followed begins with, as tail(1) has it."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A line, and where and when it was written."""

    instant: str
    source: str
    line: Line


class Source:
    """One log: a file, a pipe under a name, or standard input."""

    def __init__(self, path: Path | None, name: str, *, follow: bool) -> None:
        """``path`` is ``None`` for standard input.

        :raises UsageError: it cannot be read.
        """
        self.name = name
        self._path = path
        self._descriptor = STDIN if path is None else _opened(path)
        self._follows = follow and path is not None and _is_regular(self._descriptor)
        self._rest = b""
        self._dated = Dated()
        self.ended = False

    @property
    def waits_on(self) -> int | None:
        """A descriptor that tells when there is more; a file has none, it is looked at now and then."""
        return None if self.ended or _is_regular(self._descriptor) else self._descriptor

    def close(self) -> None:
        """Leave the file; standard input stays."""
        if self._descriptor != STDIN:
            os.close(self._descriptor)

    def skip_old(self) -> None:
        """Begin with the last few lines of a file that is followed."""
        if not self._follows:
            return
        begin = max(0, os.fstat(self._descriptor).st_size - _CHUNK)
        skipped = _up_to_last(os.pread(self._descriptor, _CHUNK, begin), _LAST_LINES)
        os.lseek(self._descriptor, begin + skipped, os.SEEK_SET)

    def arrived(self) -> Iterator[Arrived]:
        """The whole lines that are there now, and the last one of a source that has ended."""
        for raw in self._lines():
            if raw.strip():
                line = parsed(raw)
                yield Arrived(self._dated.instant(line), self.name, line)

    def _lines(self) -> Iterator[bytes]:
        while chunk := self._read():
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from whole
            if len(self._rest) > _LONGEST:
                yield self._rest
                self._rest = b""
        if self.ended and self._rest:
            yield self._rest
            self._rest = b""

    def _read(self) -> bytes:
        if self.ended or not _is_ready(self._descriptor):
            return b""
        if chunk := os.read(self._descriptor, _CHUNK):
            return chunk
        if not self._follows:
            self.ended = True
        elif self._turned():
            # What the old file ended with is a line, though nobody ended it.
            return (b"\n" if self._rest else b"") + os.read(self._descriptor, _CHUNK)
        return b""

    def _turned(self) -> bool:
        """Whether the file was rotated, by a new one under its name or by emptying it; goes to its begin."""
        held = os.fstat(self._descriptor)
        if held.st_size < os.lseek(self._descriptor, 0, os.SEEK_CUR):
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            return True
        assert self._path is not None, "only files are followed"
        try:
            named = self._path.stat()
        except OSError:
            return False  # between two files; the old one may still get lines
        if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino):
            return False
        if os.fstat(self._descriptor).st_size > os.lseek(self._descriptor, 0, os.SEEK_CUR):
            return False  # the old one got its last lines after we looked; they come first
        try:
            new = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False  # not ours to read yet; it is looked at again
        os.close(self._descriptor)
        self._descriptor = new
        return True


def arrived(sources: Sequence[Source]) -> Iterator[Arrived]:
    """What has come from all sources by now, in the order of time."""
    return heapq.merge(*(source.arrived() for source in sources), key=lambda each: each.instant)


def wait(sources: Sequence[Source], output: int | None, timeout_s: float) -> bool:
    """Wait for more, at most so long; false if the reader of ``output`` has gone."""
    poll = select.poll()
    for source in sources:
        if (descriptor := source.waits_on) is not None:
            poll.register(descriptor, select.POLLIN)
    if output is not None:
        poll.register(output, 0)  # errors and hang-ups are told in any case
    return all(descriptor != output for descriptor, _ in poll.poll(timeout_s * 1000))


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            f"log {path}: {os.strerror(error.errno or 0)}; name a file that this user can read"
        ) from None


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _is_ready(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _up_to_last(data: bytes, count: int) -> int:
    """Where the last ``count`` lines begin; one that is not ended counts."""
    at = len(data.removesuffix(b"\n"))
    for _ in range(count):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return 0
    return at + 1
