"""The task that looks at how things stand, and has told what :mod:`proxy.notices` finds worth telling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from proxy.facts import Emit, NotifyHeldBack, TaskCrashed
from proxy.notices import Kind, Record, Rules, Survey, Trouble, Watch
from proxy.notifications import memory
from proxy.notifications.channels import Channel
from proxy.notifications.courier import PAUSES_S, Courier
from proxy.notifications.messages import Message, messages_of
from proxy.places import innermost_place

_LOOK_S = 1.0
"""Pause between two looks: a second is nothing to a person, and a look costs a millisecond for thousands."""


class Herald:
    """Looks and tells, from :meth:`begin` to :meth:`close`.

    :param survey: how things stand now.
    :param folder: where it is kept what was told.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        survey: Callable[[], Survey],
        rules: Rules,
        emit: Emit,
        *,
        public_url: str,
        folder: Path,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._survey = survey
        self._emit = emit
        self._public_url = public_url
        self._folder = folder
        self._told: dict[Trouble, Record] = memory.read(folder)
        """What arrived on some channel: only that is told after a restart."""
        self._watch = Watch(rules, {trouble: replace(record) for trouble, record in self._told.items()})
        self._pauses_s = pauses_s
        self._courier = Courier(channels, emit, self._delivered, pauses_s)
        self._leaving: set[asyncio.Task[None]] = set()
        """Former couriers, each with its last try."""
        self._task: asyncio.Task[None] | None = None
        self._look_if_anybody_listens(channels)

    def change(self, rules: Rules, channels: Sequence[Channel] | None) -> None:
        """Go by other rules, and tell on other channels; ``None`` for the same. What waits is tried once."""
        self._watch.rules = rules
        if channels is None:
            return
        leaving = asyncio.create_task(self._courier.close(), name="notify leaving")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        self._courier = Courier(channels, self._emit, self._delivered, self._pauses_s)
        self._look_if_anybody_listens(channels)

    def _look_if_anybody_listens(self, channels: Sequence[Channel]) -> None:
        # Without a channel there is nobody to tell, and nothing to look for.
        if self._task is not None and not channels:
            self._task.cancel()
            self._task = None
        elif self._task is None and channels:
            self._task = asyncio.create_task(self._run(), name="notify")

    async def close(self) -> None:
        """Look no more, and try once what waits; bounded."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(self._courier.close(), *self._leaving)

    async def _run(self) -> None:
        while True:
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - it must go on whatever one look met
                self._emit(TaskCrashed("notify", type(error).__name__, innermost_place(error)))
            await asyncio.sleep(_LOOK_S)

    def _look(self) -> None:
        survey = self._survey()
        notices = self._watch.look(survey)
        for trouble in self._watch.held_back:
            self._emit(NotifyHeldBack(trouble.kind.value, trouble.tenant))
        for message in messages_of(notices, at=survey.at, public_url=self._public_url):
            self._courier.send(message)

    def _delivered(self, message: Message) -> None:
        records = self._watch.records
        for notice in message.notices:
            if notice.kind is Kind.RECOVERED or notice.trouble not in records:
                self._told.pop(notice.trouble, None)
            else:
                next_at = records[notice.trouble].next_at
                self._told[notice.trouble] = Record(notice.since, next_at, told=True)
        self._told = {trouble: record for trouble, record in self._told.items() if trouble in records}
        memory.write(self._folder, self._told)
