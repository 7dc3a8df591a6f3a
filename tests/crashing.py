"""``python -m tests.crashing POINT SIGNAL COMMAND…``: the program, cut at one point of its first refresh.

The program has no such switch; a function of it is wrapped before it starts, and sends it the signal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from proxy.cli import main
from proxy.provider import Provider
from proxy.refresher import Refresher
from proxy.store import Journal
from proxy.tokens import Tokens

Function = Callable[..., Any]


def before(function: Function, hit: Callable[[], None]) -> Function:
    """``hit``, then the function."""

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        hit()
        return await function(*args, **kwargs)

    return wrapped


def after(function: Function, hit: Callable[[], None]) -> Function:
    """The function, then ``hit``."""

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        result: Awaitable[Any] = await function(*args, **kwargs)
        hit()
        return result

    return wrapped


def after_call(function: Function, hit: Callable[[], None]) -> Function:
    """The same for a function that awaits nothing."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        hit()
        return result

    return wrapped


POINTS: dict[str, tuple[type, str, Callable[[Function, Callable[[], None]], Function]]] = {
    "before-the-attempt": (Refresher, "_begin", before),
    "attempt-stored": (Refresher, "_begin", after),
    "answer-received": (Provider, "refresh", after),
    "journal-written": (Journal, "append", after),
    "store-committed": (Refresher, "_edit_until_saved", after),
    "published": (Tokens, "_conclude", after_call),
}
"""Where a refresh can be cut: the class, the function, and on which side of it."""


def run(point: str, number: int, arguments: list[str]) -> None:
    """The program with ``arguments``, cut at ``point``."""
    owner, name, wrap = POINTS[point]
    hits = iter([True])

    def hit() -> None:
        if next(hits, False):
            os.kill(os.getpid(), number)

    setattr(owner, name, wrap(getattr(owner, name), hit))
    sys.argv = ["pleo-proxy", *arguments]
    main()


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
