"""What the event loop would print of a defect, as a fact instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from proxy.facts import Emit, TaskCrashed
from proxy.places import innermost_place


def crash_reporter(emit: Emit) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """What asyncio would print of a defect, as a fact: its own words quote exceptions and arguments."""

    def report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        task, error = context.get("task") or context.get("future"), context.get("exception")
        name = task.get_name() if isinstance(task, asyncio.Task) else "event loop"
        where = innermost_place(error) if isinstance(error, BaseException) else "event loop"
        emit(TaskCrashed(name, type(error).__name__, where))

    return report
