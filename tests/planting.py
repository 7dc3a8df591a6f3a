"""``python -m tests.planting WAY COMMAND…``: the program, broken by an error that holds a secret.

The program has no such switch; functions of it are wrapped before it starts.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from proxy import app
from proxy.cli import main
from proxy.provider import Provider
from proxy.tokens import Tokens
from proxy.upstream import Upstream

PLANTED = "PLANTED_SECRET"
"""The variable whose value the errors hold."""


class _Base(BaseException):
    """What no ``except Exception`` catches."""


class _Dying:
    """An object whose end fails."""

    def __del__(self) -> None:
        fail()


def secret() -> str:
    """What must not be seen."""
    return os.environ[PLANTED]


def fail(*_args: Any, **_options: Any) -> None:
    """A defect whose text holds a secret, caused by another that holds it too."""
    try:
        int(secret())
    except ValueError as error:
        raise RuntimeError(f"it was {secret()}") from error


async def fail_soon(*_args: Any, **_options: Any) -> None:
    """The same in a coroutine."""
    fail()


def fail_at_all(*_args: Any, **_options: Any) -> NoReturn:
    """The same as what is no ``Exception``."""
    raise _Base(secret())


def fail_apart(*_args: Any, **_options: Any) -> None:
    """The same where nobody waits for it: in a thread, at an object's end, in a task, a callback, a log."""
    logging.getLogger("a.library").error("failed with %s", secret())
    thread = threading.Thread(target=fail, args=(secret(),), name=secret())
    thread.start()
    thread.join()
    _Dying()
    gc.collect()
    loop = asyncio.get_running_loop()
    loop.call_soon(fail, secret())
    loop.create_task(fail_soon(secret()))  # noqa: RUF006 - nobody waits for it
    loop.call_soon(lambda *_held: time.sleep(0.3), secret())  # slow, which asyncio's debug mode tells


def abort(*_args: Any, **_options: Any) -> NoReturn:
    """An end by a fault, which faulthandler tells."""
    held = secret()
    os.kill(os.getpid(), 6)
    raise AssertionError(held)


WAYS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "start": (app, "open_vault", fail_soon),
    "start-base": (app, "open_vault", fail_at_all),
    "request": (Upstream, "send", fail_soon),
    "request-abort": (Upstream, "send", abort),
    "refresh": (Provider, "refresh", fail_soon),
    "watch": (Tokens, "refresh_due", fail_soon),
    "apart": (Tokens, "warn_of_ends", fail_apart),
}
"""How it breaks: the class or module, the function, and what it does instead."""


def run(way: str, arguments: list[str]) -> None:
    """The program with ``arguments``, broken in ``way``."""
    owner, name, instead = WAYS[way]
    setattr(owner, name, instead)
    sys.argv = ["pleo-proxy", *arguments]
    main()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
