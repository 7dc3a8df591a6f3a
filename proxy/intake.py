"""The body of a caller's request as it comes in: asked for when it is first wanted, cut when it stays away.

A :class:`~proxy.replay.Source` around aiohttp's stream. Knows nothing of where the body goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import StreamReader

from proxy.errors import TargetRefused


class CallerBody:
    """What a caller sends after its head.

    :param idle_s: how long nothing may come while it is waited for; while nobody reads, no time is counted.
    :param ask: sends ``100 Continue`` to a caller that expects it (RFC 9110 section 10.1.1).
    """

    __slots__ = ("_ask", "_content", "_idle_s", "_loop", "_timer", "_waits_since")

    def __init__(self, content: StreamReader, *, idle_s: float, ask: Callable[[], None] | None) -> None:
        self._content = content
        self._idle_s = idle_s
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._waits_since: float | None = None
        # One timer for the whole body, set again when it fires: a piece costs no more than reading the clock.
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_held_back(self) -> bool:
        """The caller waits to be asked, and nobody has wanted the body yet."""
        return self._ask is not None

    async def readany(self) -> bytes:
        """What has arrived, waiting for the first byte of it; ``b""`` at the end.

        :raises TargetRefused: nothing came for ``idle_s``
        """
        if self._ask is not None:
            ask, self._ask = self._ask, None
            ask()
        if self._content.is_eof():  # all of it is here, as it is of most bodies
            return await self._content.readany()
        self._waits_since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle_s, self._look)
        try:
            return await self._content.readany()
        finally:
            self._waits_since = None

    def close(self) -> None:
        """The request has ended: no timer is left behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._waits_since is None:
            return  # the next wait sets it again
        left_s = self._waits_since + self._idle_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            detail = f"the body did not arrive: no byte for {self._idle_s:g} s (limits.idle_s)"
            self._content.set_exception(TargetRefused(detail))
