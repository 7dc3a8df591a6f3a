"""Several processes that serve the same ports: started, watched, replaced when one dies, drained at a stop.

The supervisor serves nothing itself. It holds the store's serve lock for all, makes what is made once (keys,
admin token), and owns the processes. Worker 0 answers the operator's port. Ports are shared with
SO_REUSEPORT; what the workers count adds up over files in a folder of the supervisor's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any

from proxy import listening
from proxy.config import Address, Settings, tcp_addresses
from proxy.facts import Emit, WorkerDied, WorkerStarted

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_STEADY_S = 10.0
"""A worker that lived this long did not die of its start, so its successor comes without delay."""
_STOP_MARGIN_S = 10.0
_FOR_THE_INTERPRETER = ("PATH", "PYTHON", "LD_", "LC_", "LANG")
"""What the names of such variables begin with."""

_ANSWER_S = 20.0
"""How long a worker may take to answer what is handed to it: it does nothing else meanwhile."""

Work = Callable[[int, Connection], None]
"""What a worker does, in a process of its own: importable by name. It sends ``True`` when it serves, and then
an answer to each thing that it is handed: ``None``, or why it did not take it up."""


class Supervisor:
    """Keeps ``count`` workers running until it is told to stop.

    :param stop_s: how long workers may take to drain before they are ended.
    """

    def __init__(self, count: int, work: Work, emit: Emit, *, stop_s: float) -> None:
        self._count = count
        self._work = work
        self._emit = emit
        self._stop_s = stop_s
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, BaseProcess] = {}
        self._lines: dict[int, _Line] = {}
        self._stopping = False

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None]) -> int:
        """Serve until ``stop`` is set; returns the exit code.

        :param on_ready: called once, when all workers serve. A worker that dies before is not replaced: what
            kept it from starting, it has said itself, and its exit code is returned.
        """
        ready = [asyncio.Event() for _ in range(self._count)]
        keepers = [asyncio.create_task(self._keep(index, ready[index])) for index in range(self._count)]
        served = asyncio.create_task(self._until_stopped(ready, stop, on_ready))
        try:
            tasks: list[asyncio.Task[Any]] = [served, *keepers]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next((keeper.result() for keeper in keepers if keeper.done()), 0)
        finally:
            served.cancel()
            await self._end()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(served, *keepers, return_exceptions=True)

    @staticmethod
    async def _until_stopped(
        ready: list[asyncio.Event], stop: asyncio.Event, on_ready: Callable[[], None]
    ) -> None:
        stopped = asyncio.create_task(stop.wait())
        started = asyncio.ensure_future(asyncio.gather(*(event.wait() for event in ready)))
        try:
            both: set[asyncio.Future[Any]] = {stopped, started}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                on_ready()
            await stopped
        finally:
            started.cancel()
            stopped.cancel()

    async def _keep(self, index: int, ready: asyncio.Event) -> int:
        """Run one worker after the other in one place; returns the exit code of one that never served."""
        delay_s, exit_code = _FIRST_DELAY_S, 1
        # Asked each time: a worker that started after a stop began would not be told of it.
        while not self._is_stopping():
            began = monotonic()
            exit_code = await self._run_one(index, ready)
            if self._is_stopping() or not ready.is_set():
                return exit_code or 1
            steady = monotonic() - began >= _STEADY_S
            delay_s = 0.0 if steady else min(max(delay_s * 2, _FIRST_DELAY_S), _LONGEST_DELAY_S)
            self._emit(WorkerDied(index, exit_code, restart_in_s=delay_s))
            await asyncio.sleep(delay_s)
        return exit_code

    def change(self, work: Work, *, stop_s: float) -> None:
        """Have workers that start from now on do this, and let all take so long to drain."""
        self._work, self._stop_s = work, stop_s

    async def hand_out(self, thing: object) -> list[str]:
        """Give all workers something; tells of those that did not take it up.

        One that does not serve yet gets it too, and is not waited for.
        """
        handed = [(number, line.hand(thing)) for number, line in sorted(self._lines.items())]
        waited = {answer for _, answer in handed if answer is not None}
        if waited:
            await asyncio.wait(waited, timeout=_ANSWER_S)
        answers = [(number, answer) for number, answer in handed if answer is not None]
        problems = ((number, _problem(answer)) for number, answer in answers)
        return [f"worker {number}: {problem}" for number, problem in problems if problem is not None]

    def _is_stopping(self) -> bool:
        return self._stopping

    async def _run_one(self, index: int, ready: asyncio.Event) -> int:
        loop = asyncio.get_running_loop()
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=self._work, args=(index, theirs), name=f"pleo-proxy worker {index}"
        )
        _start_tracker()
        # Inherited: until the worker has said what it does at a hangup, none reaches it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        theirs.close()
        self._processes[index] = process
        ended = loop.create_future()

        def serves() -> None:
            ready.set()
            self._emit(WorkerStarted(index, process.pid or 0))

        line = self._lines[index] = _Line(ours, serves)
        loop.add_reader(process.sentinel, lambda: None if ended.done() else ended.set_result(None))
        try:
            await ended
        finally:
            loop.remove_reader(process.sentinel)
            del self._lines[index]
            line.close()
        process.join()
        del self._processes[index]
        exit_code = process.exitcode or 0
        process.close()
        return exit_code

    async def _end(self) -> None:
        """SIGTERM to all, time to drain, SIGKILL to those that are left."""
        self._stopping = True
        for number, patience_s in ((signal.SIGTERM, self._stop_s), (signal.SIGKILL, 5.0)):
            for process in self._processes.values():
                if process.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, number)
            ends = monotonic() + patience_s
            while self._processes and monotonic() < ends:  # noqa: ASYNC110 - the keepers remove them
                await asyncio.sleep(0.02)


class _Line:
    """The supervisor's end of the pipe to one worker."""

    def __init__(self, connection: Connection, serves: Callable[[], None]) -> None:
        self._connection = connection
        self._serves: Callable[[], None] | None = serves
        """To be told once, when the worker serves."""
        self._answers: deque[asyncio.Future[str | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._read)

    def hand(self, thing: object) -> asyncio.Future[str | None] | None:
        """Give the worker something; its answer is waited for if it serves."""
        answer: asyncio.Future[str | None] = self._loop.create_future()
        try:
            self._connection.send(thing)
        except OSError:
            return None  # it is dying, and what takes its place begins with what is in force then
        self._answers.append(answer)
        return answer if self._serves is None else None

    def close(self) -> None:
        """Let go of the pipe: the worker has ended."""
        self._loop.remove_reader(self._connection.fileno())
        self._connection.close()
        for answer in self._answers:
            answer.cancel()

    def _read(self) -> None:
        try:
            told = self._connection.recv()
        except (EOFError, OSError):
            self._loop.remove_reader(self._connection.fileno())
            return
        if self._serves is not None:
            serves, self._serves = self._serves, None
            serves()
        elif self._answers:
            answer = self._answers.popleft()
            if not answer.done():
                answer.set_result(told)


def _problem(answer: asyncio.Future[str | None]) -> str | None:
    """Why a worker did not take up what it was handed."""
    if not answer.done():
        return f"no answer within {_ANSWER_S:g} s"
    return None if answer.cancelled() else answer.result()


def take_from(connection: Connection, take: Callable[[Any], Awaitable[str | None]]) -> asyncio.Task[None]:
    """In a worker: take what the supervisor hands out, one after the other, and answer; until cancelled.

    :param take: tells why something was not taken up, or ``None``.
    """
    loop = asyncio.get_running_loop()
    handed: asyncio.Queue[Any] = asyncio.Queue()

    def read() -> None:
        try:
            handed.put_nowait(connection.recv())
        except (EOFError, OSError):
            loop.remove_reader(connection.fileno())

    async def answer() -> None:
        try:
            while True:
                told = await take(await handed.get())
                with suppress(OSError):  # the supervisor is gone, which is told in another way
                    connection.send(told)
        finally:
            loop.remove_reader(connection.fileno())

    loop.add_reader(connection.fileno(), read)
    # libuv has made it non-blocking, and what is half there would be lost.
    os.set_blocking(connection.fileno(), True)
    return asyncio.create_task(answer(), name="take from supervisor")


def _start_tracker() -> None:
    """Start the process with which multiprocessing cleans up, if it does not run, without our secrets.

    It would get the whole environment, and needs nothing of it but what finds the interpreter. It is not the
    program, so it does not close itself to others.
    """
    kept = dict(os.environ)
    for name in kept:
        if not name.startswith(_FOR_THE_INTERPRETER):
            del os.environ[name]
    try:
        resource_tracker.ensure_running()
    finally:
        os.environ.update(kept)


def stop_s(settings: Settings) -> float:
    """How long a worker may take to stop: its requests, then its refreshes, and some more."""
    return settings.limits.drain_s + settings.refresh.timeout_s + _STOP_MARGIN_S


def check_ports(settings: Settings) -> None:
    """Refuse ports that someone listens on: workers share theirs, and would share them with a stranger too.

    Unix sockets are no ports: the supervisor listens on them, and every worker accepts from the same queue.

    :raises OperatorError: a port is in use, or cannot be listened on.
    """
    addresses: Iterable[tuple[str, Address]] = [
        *(("listen.proxy", address) for address in tcp_addresses(settings.listen.proxy)),
        ("listen.admin", settings.listen.admin),
    ]
    for item, address in addresses:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: connections of a former run that are still closing are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.host, address.port))
                probe.listen(1)
            except OSError as error:
                raise listening.cannot_listen(item, address, error) from None


def stop_with_parent(stop: asyncio.Event) -> None:
    """In a worker: set ``stop`` when the supervisor is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(parent.sentinel)
        stop.set()

    loop.add_reader(parent.sentinel, gone)
