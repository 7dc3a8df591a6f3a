"""A caller's request as it comes in: its head, and a body that is asked for when it is first wanted.

The body is a :class:`~proxy.replay.Source`: fed by the connection, cut when it stays away, held at its sender
while nobody reads it. Knows nothing of where it goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from proxy.arrival import Arrival
from proxy.errors import Refusal, TargetRefused
from proxy.framing import Decoder
from proxy.headers import Field
from proxy.heads import Head

HIGH_WATER = 256 * 1024
"""Unread body bytes above which a caller is not read from; it goes on when they were taken."""


class Line(Protocol):
    """The connection that a request came on and its answer goes out on."""

    arrival: Arrival
    """Whose connection it is, as far as the socket tells."""
    unwelcome: Refusal | None
    """Why no request of this connection is served, if none is."""

    def write(self, data: bytes) -> None:
        """Send bytes.

        :raises ConnectionError: the caller has left
        """

    async def drained(self) -> None:
        """Wait while the caller is slower than what is written."""

    def reset(self) -> None:
        """End the connection with RST: where its end ends the body, a FIN would make the body look whole."""

    def own_address(self) -> str:
        """Where the caller connected to, as an authority."""

    def pause_reading(self) -> None:
        """Take nothing more from the caller for now."""

    def resume_reading(self) -> None:
        """Go on taking."""


class CallerBody:
    """What a caller sends after its head.

    :param idle_s: how long nothing may come while it is waited for; while nobody reads, no time is counted.
    :param ask: sends ``100 Continue`` to a caller that expects it (RFC 9110 section 10.1.1).
    """

    __slots__ = (
        "_ask",
        "_decoder",
        "_failure",
        "_idle_s",
        "_line",
        "_loop",
        "_pieces",
        "_size",
        "_timer",
        "_waiter",
        "_waits_since",
        "length",
    )

    def __init__(
        self,
        decoder: Decoder,
        line: Line,
        *,
        length: int | None,
        idle_s: float,
        ask: Callable[[], None] | None,
    ) -> None:
        self.length = length
        """Bytes announced, if any were."""
        self._decoder = decoder
        self._line = line
        self._idle_s = idle_s
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._size = 0
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waits_since = 0.0
        # One timer for the whole body, set again when it fires: a piece costs no more than reading the clock.
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_held_back(self) -> bool:
        """The caller waits to be asked, and nobody has wanted the body yet."""
        return self._ask is not None

    @property
    def has_arrived(self) -> bool:
        """All of it has come, so that the next byte is another request's."""
        return self._decoder.ended

    @property
    def unread(self) -> int:
        """Bytes that have arrived and were not read."""
        return self._size

    @property
    def trailers(self) -> Sequence[Field]:
        """Fields behind the body (RFC 9110 section 6.5), known once it has arrived."""
        return self._decoder.trailers

    async def readany(self) -> bytes:
        """What has arrived, waiting for the first byte of it; ``b""`` at the end.

        :raises TargetRefused: nothing came for ``idle_s``, or the framing is malformed
        :raises ConnectionError: the caller has left
        """
        if self._ask is not None:
            ask, self._ask = self._ask, None
            ask()
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self._decoder.ended:
                return b""
            await self._wait()
        return self.take()

    def close(self) -> None:
        """The request has ended: no timer is left behind, and what still comes is dropped."""
        self.take()
        if self._failure is None:
            self._failure = ConnectionResetError("the request has ended")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What follows is called by the connection.

    def feed(self, data: bytes) -> bytes:
        """Take what came; returns the bytes behind the end of the body.

        :raises TargetRefused: the framing is malformed, as whoever reads the body hears too
        """
        try:
            piece, rest = self._decoder.feed(data)
        except TargetRefused as refusal:
            self.fail(refusal)
            raise
        if piece and self._failure is None:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > HIGH_WATER:
                self._line.pause_reading()
        self._wake()
        return rest

    def fail(self, error: Exception) -> None:
        """Nothing more will come, and the body is not whole."""
        if self._failure is None:
            self._failure = error
        self._wake()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        self._waits_since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle_s, self._look)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """What has arrived, without waiting."""
        pieces = self._pieces
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._size > HIGH_WATER:
            self._line.resume_reading()
        self._size = 0
        return taken

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        self._timer = None
        if self._waiter is None:
            return  # the next wait sets it again
        left_s = self._waits_since + self._idle_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self.fail(
                TargetRefused(f"the body did not arrive: no byte for {self._idle_s:g} s (limits.idle_s)")
            )


class CallerRequest:
    """One request, whole but for its body."""

    __slots__ = ("body", "head", "line", "persists")

    def __init__(self, head: Head, line: Line, body: CallerBody | None, *, persists: bool) -> None:
        self.head = head
        self.line = line
        self.body = body
        """``None`` where nothing follows the head."""
        self.persists = persists
        """Another request may come on the connection (RFC 9112 section 9.3)."""

    @property
    def body_has_arrived(self) -> bool:
        """Nothing of this request is still to come."""
        return self.body is None or self.body.has_arrived
