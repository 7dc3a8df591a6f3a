"""Delivers messages on every channel: tries again with pauses, gives up at last, and never fills memory.

Channels do not wait for each other. A stop gives each one last try for what waits, within a bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from proxy.facts import Emit, NotifyFailed, NotifySent, TaskCrashed
from proxy.notifications.channels import Channel, DeliveryError
from proxy.notifications.messages import Message
from proxy.places import innermost_place

PAUSES_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
"""Between tries: a receiver that is restarted misses nothing, nor does one that is away for over an hour."""
MOST_WAITING = 100
"""Messages of one channel in memory; beyond that the oldest is given up."""
LAST_S = 5.0
"""At a stop, for all that waits."""


class _Lane:
    """One channel and what waits for it."""

    def __init__(
        self, channel: Channel, emit: Emit, delivered: Callable[[Message], None], pauses_s: Sequence[float]
    ) -> None:
        self._channel = channel
        self._emit = emit
        self._delivered = delivered
        self._pauses_s = pauses_s
        self._waiting: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"notify {channel.name}")

    def put(self, message: Message) -> None:
        """Have it delivered, after what waits already."""
        if len(self._waiting) >= MOST_WAITING:
            oldest = self._waiting.popleft()
            self._emit(NotifyFailed(self._channel.name, oldest.kind.value, oldest.id, "too_many", 0, None))
        self._waiting.append(message)
        self._arrived.set()

    async def close(self) -> None:
        """One more try for each message that waits, and no more than :data:`LAST_S` for all."""
        self._stopping.set()
        self._arrived.set()
        await asyncio.wait({self._task}, timeout=LAST_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting or not self._stopping.is_set():
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._deliver(self._waiting.popleft())

    async def _deliver(self, message: Message) -> None:
        for tries, pause_s in enumerate([*self._pauses_s, None], 1):
            is_last = pause_s is None or self._stopping.is_set()
            error = await self._try(message)
            if error is None:
                self._emit(NotifySent(self._channel.name, message.kind.value, message.id, tries))
                self._delivered(message)
                return
            self._emit(
                NotifyFailed(
                    self._channel.name,
                    message.kind.value,
                    message.id,
                    error,
                    tries,
                    None if is_last else pause_s,
                )
            )
            if is_last:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()

    async def _try(self, message: Message) -> str | None:
        try:
            await self._channel.deliver(message)
        except DeliveryError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - the channel must go on whatever one message met
            self._emit(TaskCrashed("notify", type(error).__name__, innermost_place(error)))
            return "internal_error"
        return None


class Courier:
    """All channels.

    :param delivered: called with a message that arrived, once for each channel.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        emit: Emit,
        delivered: Callable[[Message], None],
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._lanes = [_Lane(channel, emit, delivered, pauses_s) for channel in channels]

    def send(self, message: Message) -> None:
        """Have it delivered on each channel; returns at once."""
        for lane in self._lanes:
            lane.put(message)

    async def close(self) -> None:
        """Try once what waits, and end."""
        await asyncio.gather(*(lane.close() for lane in self._lanes))
