"""A changed configuration: read and checked as a whole, then put in force in every process, or nowhere.

Knows neither signals nor files nor processes: what loads and what puts in force is handed in. One reload at a
time; what is asked for meanwhile comes after it, and reads anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from proxy.config import Configuration, Reloaded, Report, reloaded, report
from proxy.config.reloading import failed
from proxy.errors import OperatorError
from proxy.facts import Emit, TaskCrashed
from proxy.model import Clock
from proxy.places import innermost_place

Load = Callable[[], Configuration]
"""Reads and checks all; raises :class:`OperatorError`. Called in a thread, since files may be slow."""
TakeUp = Callable[[Reloaded], Awaitable[Iterable[str]]]
"""Has every process hear what it came to, and tells which did not take it up; raises :class:`OperatorError`
where nothing could be put in force."""


class Reloader:
    """Holds the configuration in force, and replaces it."""

    def __init__(
        self, configuration: Configuration, load: Load, take_up: TakeUp, emit: Emit, clock: Clock
    ) -> None:
        self.configuration = configuration
        self._load = load
        self._take_up = take_up
        self._emit = emit
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> Report:
        """Read the configuration anew, and have it in force unless it has mistakes."""
        async with self._one_at_a_time:
            outcome = await self._read()
            try:
                unreached = await self._take_up(outcome)
            except OperatorError as error:
                outcome = failed(self.configuration, error, at=outcome.at)
                unreached = await self._take_up(outcome)
            self.configuration = outcome.configuration
            return report(outcome, unreached)

    async def _read(self) -> Reloaded:
        old, at = self.configuration, self._clock()
        try:
            return reloaded(old, await asyncio.to_thread(self._load), at=at)
        except OperatorError as error:
            return failed(old, error, at=at)
        except Exception as error:  # noqa: BLE001 - a defect here must not cost what is in force
            place = innermost_place(error)
            self._emit(TaskCrashed("reload", type(error).__name__, place))
            return failed(old, OperatorError(f"internal error at {place}; please report it"), at=at)
