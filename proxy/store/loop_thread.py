"""An event loop on a thread of its own, for a database driver that needs one.

What runs there goes on whatever becomes of who asked, is not held up by the loop that serves callers, and can
be waited for where no loop runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs from the start until :meth:`stop`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a program which ends without closing its store does end.
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin ``work`` on the thread, after all that was submitted before it has begun."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """End the loop and the thread; what has not ended by then is dropped. Called once, from anywhere."""
        self._loop.call_soon_threadsafe(self._loop.stop)
