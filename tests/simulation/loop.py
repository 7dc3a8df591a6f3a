"""An event loop whose time only passes when nobody has anything to do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Stuck(AssertionError):  # noqa: N818 - what happened
    """Everybody waits for somebody, and no time will change that."""


class _Selector:
    """Takes the place of the operating system: there are no files, and waiting is no wait."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("everybody waits, and no timer runs")
        self._loop.now += max(timeout, 0.0)
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """Deterministic: the same program takes the same steps at the same instants."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_800_000_000.0
        self._selector = _Selector(self)
        self._clock_resolution = 1e-5  # more than what a float of today keeps apart

    def time(self) -> float:
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` to its end, in virtual time."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
