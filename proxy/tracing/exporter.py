"""The queue of facts that become spans, and the task that has them sent.

Taking a fact costs a request next to nothing and never waits. Spans are made and encoded in a thread, in
batches. A collector that is down, slow or refuses costs spans, which are counted, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Protocol

import orjson

from proxy.errors import OperatorError
from proxy.facts import (
    Emit,
    Fact,
    LineWithheld,
    Refreshed,
    RefreshFailed,
    RequestTraced,
    TaskCrashed,
    TracesLost,
    TracesTaken,
)
from proxy.model import Clock
from proxy.places import innermost_place
from proxy.telemetry import fan_out
from proxy.tracing.collector import Collector, RefusedError

Told = tuple[Fact, float]
"""A fact and when it was told: the end of a refresh. A request tells of its time by itself."""

MOST_WAITING = 2048
"""Facts in memory, some 2 MB; beyond it new ones are dropped, as OpenTelemetry's SDKs do."""
BATCH = 100
"""Facts that are sent together: a thread that encodes more would hold up the event loop by milliseconds."""
EVERY_S = 5.0
"""What does not make up a batch is sent after so long (the SDKs' default)."""
PAUSES_S = (1.0, 5.0, 15.0, 30.0)
"""Between tries to send a batch, after which it is given up: a collector that is restarted misses nothing."""
LAST_S = 3.0
"""At a stop, for all that waits."""


class Encodes(Protocol):
    """The part of :class:`proxy.tracing.spans.Spans` that is needed here."""

    def encode(self, told: Sequence[Told]) -> bytes:
        """Spans of facts, in OTLP."""


def require_extra() -> None:
    """See that what spans need is installed.

    :raises OperatorError: it is not.
    """
    try:
        from proxy.tracing.spans import Spans  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise OperatorError(
            "tracing.endpoint: OpenTelemetry is not installed (the extra pleo-proxy[otel]); run "
            "`pip install --require-hashes -r requirements-extras.lock`"
        ) from None


def _spans_of(fact: Fact) -> int:
    return 1 + len(fact.sends) if isinstance(fact, RequestTraced) else 1


class Exporter:
    """Takes facts in; :meth:`begin` starts sending them, :meth:`close` sends what is left.

    :param finds: whether a text holds a secret; the canary's.
    """

    def __init__(self, collector: Collector, clock: Clock, finds: Callable[[bytes], bool]) -> None:
        self._collector = collector
        self._clock = clock
        self._finds = finds
        self._emit = fan_out()
        self._encoder: Encodes
        self._waiting: deque[Told] = deque()
        self._due = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing_since: float | None = None
        self._lost = 0
        self.exported = 0
        """Spans that the collector took, since the start."""
        self.dropped = 0
        """Those that it did not get."""

    def __call__(self, fact: Fact) -> None:
        """Take one fact."""
        if type(fact) not in (RequestTraced, Refreshed, RefreshFailed):
            return
        if self._finds(orjson.dumps(fact)):
            self._drop(_spans_of(fact))
            self._emit(LineWithheld(fact.event))
        elif len(self._waiting) >= MOST_WAITING:
            self._drop(_spans_of(fact))
        else:
            self._waiting.append((fact, self._clock()))
            if len(self._waiting) >= BATCH:
                self._due.set()

    @property
    def waiting(self) -> int:
        """Facts that are to be sent."""
        return len(self._waiting)

    def begin(self, encoder: Encodes, emit: Emit) -> None:
        """Start the task that sends.

        :param emit: told what befalls the sending itself.
        """
        self._encoder, self._emit = encoder, emit
        self._task = asyncio.create_task(self._run(), name="tracing")

    async def close(self) -> None:
        """Send what waits, once and within :data:`LAST_S`."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._stopping.set()
        self._due.set()
        await asyncio.wait({task}, timeout=LAST_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._drop(sum(_spans_of(fact) for fact, _ in self._waiting))
        self._waiting.clear()
        await self._collector.close()

    async def _run(self) -> None:
        while self._waiting or not self._stopping.is_set():
            if len(self._waiting) < BATCH:
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S):
                        await self._due.wait()
            self._due.clear()
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if batch:
                await self._export(batch)
            if self._stopping.is_set():
                self._due.set()

    async def _export(self, batch: Sequence[Told]) -> None:
        spans = sum(_spans_of(fact) for fact, _ in batch)
        try:
            body = await asyncio.to_thread(self._encoder.encode, batch)
            if await self._is_taken(body):
                self.exported += spans
                spans = 0
        except Exception as error:  # noqa: BLE001 - it must go on whatever one batch of it met
            self._emit(TaskCrashed("tracing", type(error).__name__, innermost_place(error)))
        finally:
            self._drop(spans)

    async def _is_taken(self, body: bytes) -> bool:
        for pause_s in (*PAUSES_S, None):
            try:
                await self._collector.take(body)
            except RefusedError as refused:
                self._failed(str(refused))
                if pause_s is None or refused.again_s is None or self._stopping.is_set():
                    return False
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(pause_s, min(refused.again_s, PAUSES_S[-1]))):
                        await self._stopping.wait()
            else:
                self._worked()
                return True
        return False

    def _drop(self, spans: int) -> None:
        self.dropped += spans
        if self._failing_since is not None:
            self._lost += spans

    def _failed(self, word: str) -> None:
        if self._failing_since is None:
            self._failing_since, self._lost = monotonic(), 0
            self._emit(TracesLost(word))

    def _worked(self) -> None:
        if self._failing_since is not None:
            down_s = round(monotonic() - self._failing_since, 3)
            self._failing_since = None
            self._emit(TracesTaken(down_s, self._lost))
