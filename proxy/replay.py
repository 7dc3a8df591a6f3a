"""A request body that can be sent twice: teed while it streams, at no cost in latency.

The tee is in memory first, then in an unlinked temporary file, and is given up beyond that or when the
disk fails; the first pass through the body never depends on it. Knows nothing of HTTP: bytes come from a
:class:`Source` (:class:`proxy.intake.CallerBody` is one) and go to whoever iterates (:mod:`proxy.upstream`).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from typing import Protocol

from proxy.errors import BodyTooLarge, Refusal

PIECE = 64 * 1024
"""Bytes that a replay hands out at once."""


class Source(Protocol):
    """Where a body comes from."""

    async def readany(self) -> bytes:
        """What has arrived, waiting for the first byte of it; ``b""`` at the end."""


class Inspection(Protocol):
    """Looks into a body before anything of it is handed out; raises what whoever iterates is to get."""

    def wants(self, start: bytes) -> bool | None:
        """Whether a body that begins so is looked into; ``None`` if more of it is needed."""

    def whole(self, body: bytes) -> None:
        """All of it, if that is not much."""

    def piece(self, piece: bytes) -> None:
        """The next piece, in order, of one that is larger."""


class HeldBody:
    """The body of one request that arrived whole: it is in memory already, and needs no tee."""

    __slots__ = ("at_hand", "length", "received", "replayable", "trailers")

    lost_because = ""

    def __init__(self, content: bytes, *, length: int | None, trailers: bytes = b"") -> None:
        """``length`` is the announced one in bytes, if any; ``trailers`` are field lines behind it."""
        self.trailers = trailers
        self.at_hand: bytes = content
        self.length = length
        self.received = len(content)
        self.replayable = True

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in one piece, as often as it is wanted."""
        if self.at_hand:
            yield self.at_hand

    def close(self) -> None:
        """Drop the body."""
        self.replayable = False
        self.at_hand = b""


@dataclass(slots=True)
class Kept:
    """How much is kept of all bodies together; bytes."""

    memory_bytes: int = 0
    disk_bytes: int = 0
    given_up: int = 0
    """Bodies, since the start, that could not be kept."""


class ReplayBody:
    """The body of one request; every :meth:`chunks` gives it from its beginning.

    Passes may overlap: the first may be in the middle of being cancelled when the second starts.
    """

    at_hand = None
    """It comes in pieces; see :class:`HeldBody`."""

    def __init__(
        self,
        source: Source,
        *,
        length: int | None,
        memory_bytes: int,
        disk_bytes: int,
        body_bytes: int,
        trailers: Callable[[], bytes] = bytes,
        inspection: Inspection | None = None,
        kept: Kept | None = None,
    ) -> None:
        """``length`` is the announced one in bytes, if any; ``trailers`` gives the field lines behind it.

        With ``inspection`` the beginning is held, up to ``memory_bytes``, until it has been looked into.

        The whole tee is held in memory up to ``memory_bytes``, else on disk up to ``disk_bytes``; the body
        itself may have ``body_bytes``. What is held is added to ``kept``.
        """
        self.length = length
        self.received = 0
        """Bytes read from the source so far."""
        self.replayable = True
        """What was received is still there, so that another pass gives the whole body."""
        self.lost_because = ""
        """Why it is not, where a limit or the disk is the reason."""
        self._source = source
        self._trailers = trailers
        self._body_bytes = body_bytes
        self._memory_bytes = memory_bytes
        self._inspection = inspection
        self._is_looked_into = inspection is None
        self._refusal: Refusal | None = None
        self._ended = length == 0
        # One pass at a time reads the source: the order of the tee is that of the reads.
        self._reading = asyncio.Lock()
        self._kept = kept or Kept()
        self._tee = _Tee(memory_bytes, disk_bytes, self._kept)

    @property
    def trailers(self) -> bytes:
        """Field lines behind the body, known once it has ended (RFC 9110 section 6.5)."""
        return self._trailers() if self._ended else b""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body from its beginning: what was teed, then what the source still gives.

        The iterator raises :exc:`~proxy.errors.BodyTooLarge` past ``body_bytes``, what the source raises,
        and :exc:`RuntimeError` if bytes are wanted that are no longer there (see :attr:`replayable`).
        """
        return _Pass(self)

    def close(self) -> None:
        """Drop the tee; a pass under way goes on if it needs nothing of it."""
        self.replayable = False
        self._tee.drop()

    async def piece_at(self, position: int) -> bytes:
        """Bytes of the body from ``position`` on, ``b""`` at its end."""
        if self._refusal is not None:
            raise self._refusal
        if not self._is_looked_into:
            async with self._reading:
                await self._look_into()
        if position == self.received and not self._ended:
            async with self._reading:
                if position == self.received and not self._ended:  # else another pass was faster
                    return await self._receive()
        if position == self.received:
            return b""
        if not self.replayable:
            raise RuntimeError("the beginning of the request body is no longer there")
        return self._tee.read(position)

    async def _look_into(self) -> None:
        """Take the body in until it is known whether it may go; a pass that is cancelled loses nothing."""
        if self._is_looked_into or self._inspection is None:  # another pass was faster
            return
        wanted: bool | None = None
        while not self._ended and self.received < self._memory_bytes and wanted is not False:
            await self._take_in()
            wanted = self._inspection.wants(self._tee.read(0))
        if wanted is False:
            self._inspection = None
        elif self._ended:
            self._inspect(self._inspection.whole, b"".join(self._tee.pieces()))
            self._inspection = None
        else:
            for piece in self._tee.pieces():
                self._inspect(self._inspection.piece, piece)
        self._is_looked_into = True

    def _inspect(self, look: Callable[[bytes], None], piece: bytes) -> None:
        try:
            look(piece)
        except Refusal as refusal:
            self._refusal = refusal  # what was refused once is in no later pass either
            raise

    async def _take_in(self) -> None:
        if await self._receive() and not self.replayable:
            raise BodyTooLarge(f"The body cannot be looked into before it is sent: {self.lost_because}.")

    async def _receive(self) -> bytes:
        if self.length is not None:
            self._check_size(self.length)
        piece = await self._source.readany()
        # No await from here to the return: a piece that has left the source is counted and teed.
        if not piece:
            self._ended = True
            return b""
        self.received += len(piece)
        self._check_size(self.received)
        self._ended = self.received == self.length  # saves a read that would only tell the end
        if self.replayable:
            self.lost_because = self._tee.append(piece)
            if self.lost_because:
                self._kept.given_up += 1
                self.close()
        if self._is_looked_into and self._inspection is not None:
            self._inspect(self._inspection.piece, piece)
        return piece

    def _check_size(self, size: int) -> None:
        if size > self._body_bytes:
            self.close()
            raise BodyTooLarge(
                f"The body has at least {size} bytes; limits.body_bytes is {self._body_bytes}."
            )


class _Pass:
    """One way through the body; cancelling it while it waits loses nothing."""

    __slots__ = ("_body", "_position")

    def __init__(self, body: ReplayBody) -> None:
        self._body = body
        self._position = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._body.piece_at(self._position)
        if not piece:
            raise StopAsyncIteration
        self._position += len(piece)
        return piece


class _Tee:
    """A copy of the bytes so far, in memory or in an unlinked file.

    The file is written on the event loop: into the page cache a piece takes less time than the way to
    another thread, and a disk that stalls is the operator's to see.
    """

    def __init__(self, memory_bytes: int, disk_bytes: int, kept: Kept) -> None:
        self._kept = kept
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self._memory = bytearray()
        self._file: FileIO | None = None
        self._size = 0
        self._on_disk = 0

    def append(self, piece: bytes) -> str:
        """Keep a piece; returns why it cannot be kept, nothing if it is."""
        size = self._size + len(piece)
        if size <= self._memory_bytes:
            self._memory += piece
            self._kept.memory_bytes += len(piece)
        elif size > self._disk_bytes:
            return f"the body is larger than limits.replay_disk ({self._disk_bytes} bytes)"
        else:
            try:
                self._append_to_file(piece)
            except OSError:
                return "the body could not be kept, since the proxy's disk failed"
        self._size = size
        return ""

    def read(self, position: int) -> bytes:
        """Up to :data:`PIECE` bytes from ``position`` on.

        :raises OSError: the disk failed
        """
        if self._file is not None:
            return os.pread(self._file.fileno(), min(PIECE, self._size - position), position)
        return bytes(memoryview(self._memory)[position : position + PIECE])

    def pieces(self) -> Iterator[bytes]:
        """All that was kept, in order.

        :raises OSError: the disk failed
        """
        position = 0
        while position < self._size:
            piece = self.read(position)
            yield piece
            position += len(piece)

    def drop(self) -> None:
        self._let_go_of_memory()
        if self._file is not None:
            self._kept.disk_bytes -= self._on_disk
            self._file.close()
            self._file = None

    def _let_go_of_memory(self) -> None:
        self._kept.memory_bytes -= len(self._memory)
        self._memory = bytearray()

    def _append_to_file(self, piece: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - drop() closes it
            self._write(bytes(self._memory), 0)
            self._let_go_of_memory()
        self._write(piece, self._size)

    def _write(self, data: bytes, offset: int) -> None:
        assert self._file is not None
        _write_at(self._file, data, offset)
        self._on_disk += len(data)
        self._kept.disk_bytes += len(data)


def _write_at(file: FileIO, data: bytes, offset: int) -> None:
    """All of ``data``: a write may be short, above all on a disk that is nearly full."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file.fileno(), rest, offset)
        rest = rest[written:]
        offset += written
