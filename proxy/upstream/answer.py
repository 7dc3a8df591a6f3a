"""An answer of the upstream: its head as received, and its body as it arrives.

Never decodes, re-orders or lower-cases anything. :mod:`proxy.upstream.connection` fills it; whoever called
:meth:`proxy.upstream.Upstream.send` reads it or gives it up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

Headers = list[tuple[bytes, bytes]]
"""Field names and values as the bytes on the wire, in their order, duplicates included."""


class BrokenOff(Exception):  # noqa: N818 - an outcome of an exchange, named like the refusals
    """The answer had begun and will not become whole; after its first byte only aborting is left."""


class Feed(Protocol):
    """The connection that an unfinished answer still depends on."""

    def resume_reading(self) -> None:
        """The reader has taken what there was, so more may come."""

    def abort(self) -> None:
        """End the exchange, and the connection with it."""


class Answer:
    """Status line, header fields and body of one final answer (RFC 9110 section 6).

    It is also the iterator over its body, so that reading costs no further object. One reader at a time.
    """

    __slots__ = (
        "_error",
        "_feed",
        "_pieces",
        "_size",
        "_waiter",
        "_whole",
        "headers",
        "reason",
        "status",
        "trailers",
        "version",
    )

    def __init__(self, feed: Feed, status: int, reason: bytes, version: bytes, headers: Headers) -> None:
        self.status = status
        self.reason = reason
        self.version = version
        """Protocol version of the upstream, ``b"1.1"`` or ``b"1.0"``."""
        self.headers = headers
        self.trailers: Headers = []
        """Trailer fields (RFC 9112 section 7.1.2), known once the body has ended."""
        self._feed: Feed | None = feed
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: BrokenOff | None = None
        self._whole = False

    @property
    def body_complete(self) -> bool:
        """The whole answer has arrived: what is left of it can be had from :meth:`take_all` at once."""
        return self._whole

    @property
    def buffered(self) -> int:
        """Body bytes that have arrived and were not read yet."""
        return self._size

    def take_all(self) -> bytes:
        """What is left of the body.

        :raises RuntimeError: the body is not complete yet, so that a part would pass for the whole
        """
        if not self._whole:
            raise RuntimeError("take_all() on an answer that has not ended")
        return self._take()

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, freed of its framing.

        :raises BrokenOff: the upstream broke off, went silent or sent what is not HTTP; or it was aborted
        """
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            if self._feed is not None:
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            # What arrived before a break is passed on first: the caller sees as much as there was.
            if not self._pieces:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
        body = self._take()
        if self._feed is not None:
            self._feed.resume_reading()
        return body

    def abort(self) -> None:
        """Give up: unless the answer is complete, its connection is closed and its upload cancelled."""
        if self._feed is not None:
            self._feed.abort()

    # What follows is called by the connection.

    def feed(self, body: bytes) -> int:
        """Add a piece of the body; returns the bytes that wait to be read."""
        self._pieces.append(body)
        self._size += len(body)
        self._wake()
        return self._size

    def end(self) -> None:
        """The answer is whole; its connection may already serve another request."""
        self._whole = True
        self._feed = None
        self._wake()

    def break_off(self, error: BrokenOff) -> None:
        """Nothing more will come, and the answer is not whole."""
        self._error = error
        self._feed = None
        self._wake()

    def _take(self) -> bytes:
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        return body

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
