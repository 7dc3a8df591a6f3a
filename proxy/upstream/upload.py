"""The body of one request on its way up: held back until it is wanted, sent piece by piece, or given up.

Knows the framing of requests (RFC 9112 section 6) and nothing of answers; :mod:`proxy.upstream.connection`
tells it what the answer means for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

CONTINUE_S = 1.0
"""How long a body is held back for ``100 Continue``. RFC 9110 section 10.1.1 forbids to wait without end,
since a server may know nothing of the expectation; a second is what curl waits."""


class Body(Protocol):
    """A request body that can be asked for its bytes, several times if it is replayable."""

    @property
    def length(self) -> int | None:
        """The ``Content-Length`` in bytes; ``None`` for a body that is sent chunked."""

    @property
    def replayable(self) -> bool:
        """A further :meth:`chunks` would give the whole body again."""

    @property
    def at_hand(self) -> bytes | None:
        """The whole body where it is in memory, else ``None``."""

    @property
    def trailers(self) -> bytes:
        """Field lines to send behind a body in chunks, known when it has ended."""

    def chunks(self) -> AsyncIterator[bytes]:
        """A fresh iterator over the body from its beginning."""


class Upload:
    """Sends one head and its body; ``on_failure`` hears what the body raised, ``None`` if cancelled."""

    __slots__ = (
        "_body",
        "_given_up",
        "_loop",
        "_on_failure",
        "_task",
        "_timer",
        "_transport",
        "_unsent",
        "_writable",
        "active_at",
        "complete",
        "waits_for_caller",
        "written",
    )

    def __init__(
        self,
        head: bytes,
        body: Body,
        transport: asyncio.Transport,
        on_failure: Callable[[BaseException | None], None],
    ) -> None:
        self.complete = False
        """All of the request was sent."""
        self.written = False
        """Bytes went out that a server might act upon. A head whose body is held back is no request yet."""
        self.waits_for_caller = False
        self.active_at = 0.0
        """Event loop time of the last progress."""
        self._body = body
        self._transport = transport
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._unsent = head  # while it waits for the first piece of the body
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None
        self._given_up = False

    def start(self) -> None:
        """Send head and body."""
        self._task = self._loop.create_task(self._send())
        self._task.add_done_callback(self._ended)
        # Runs after the task's first step: a piece of the body that is there at once goes out in one write
        # with the head, and one that is not keeps the head from nothing.
        self._loop.call_soon(self._flush_head)

    def hold(self) -> None:
        """Send the head alone; the body is not touched before :meth:`go_on`, or :data:`CONTINUE_S`."""
        self._transport.write(self._unsent)
        self._unsent = b""
        self._timer = self._loop.call_later(CONTINUE_S, self.go_on)

    def go_on(self) -> None:
        """Send the body that was held back; without effect on one that was not, or was given up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.start()

    def drop(self) -> None:
        """The answer came first: a body that is still held back is never asked for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def give_up(self) -> None:
        """End a request that is not complete; it stays visibly so."""
        self.drop()
        self._unsent = b""
        self._given_up = True
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until nothing reads from the body any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def pause(self) -> None:
        """The transport has enough for now."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume(self) -> None:
        """The transport takes more."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    async def _send(self) -> None:
        """Send the body with the framing that its length asks for.

        :raises ValueError: the body is not as long as it said
        """
        length = self._body.length
        sent = 0
        pieces = self._body.chunks()
        try:
            self.waits_for_caller = True
            async for piece in pieces:
                self.waits_for_caller = False
                sent += len(piece)
                if length is None:
                    if piece:  # an empty chunk would end the body
                        self._write(b"%x\r\n" % len(piece), piece, b"\r\n")
                elif sent <= length:
                    self._write(piece)
                    if sent == length:
                        break
                else:
                    raise ValueError(f"the request body is longer than its length of {length} bytes")
                if self._writable is not None:
                    await self._writable
                self.active_at = self._loop.time()
                self.waits_for_caller = True
        finally:
            self.waits_for_caller = False
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        if length is None:
            self._write(b"0\r\n%b\r\n" % self._body.trailers)
        elif sent < length:
            raise ValueError(f"the request body ended after {sent} of its {length} bytes")
        self.complete = True

    def _write(self, *pieces: bytes) -> None:
        if self._unsent:
            pieces = (self._unsent, *pieces)
            self._unsent = b""
        self.written = True
        self._transport.writelines(pieces)

    def _flush_head(self) -> None:
        if self._unsent:
            self._write()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if not self.complete and not self._given_up:
            self._on_failure(error)
