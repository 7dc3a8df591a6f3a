"""Lines from the workers to the one that shows them: datagrams over Unix sockets, while somebody watches.

The worker with the operator's listener calls the others about once a second for as long as somebody watches
(:class:`Hub`); one that was called hands out its lines a few times a second, and stops by itself
(:class:`Spoke`). Nothing waits: what a full socket does not take is kept, as far as the log keeps lines, and
what is beyond is counted. The sockets are in a folder of the supervisor's, which nobody else can enter.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

from proxy.telemetry.live import LOOK_S, Live
from proxy.telemetry.logs import RECENT

CALL_S = 1.0
"""Pause between two calls."""
FORGET_S = 3.0
"""Without a call for so long, nobody watches."""
ANSWER_S = 0.3
"""How long a page waits for the lines of the others; on one machine it takes a millisecond."""
_MOST_BYTES = 64 * 1024
"""Of one datagram; the system takes some 200 KB in all."""


class Hub:
    """Takes in what the others have, for :class:`~proxy.telemetry.live.Live`. To be closed.

    :param count: how many workers there are; this is number 0.
    """

    def __init__(self, folder: Path, count: int, live: Live) -> None:
        self._socket = _bound(_place(folder, 0))
        self._others = {str(_place(folder, number)) for number in range(1, count)}
        self._live = live
        self._called_at = 0.0
        self._silent: set[str] = set()
        """Who has not answered the last call that is waited for."""
        self._all_answered = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)
        live.others = self

    def call_again(self) -> None:
        if monotonic() - self._called_at >= CALL_S:
            self._call()

    async def gather(self) -> None:
        self._silent = set(self._others)
        self._all_answered.clear()
        self._call()
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await self._all_answered.wait()

    def close(self) -> None:
        """Take no more."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _call(self) -> None:
        self._called_at = monotonic()
        for other in self._others:
            with suppress(OSError):  # it starts or stops just now; it is called again
                self._socket.sendto(b"", other)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                datagram, sender = self._socket.recvfrom(2 * _MOST_BYTES)
                left_out, _, lines = datagram.partition(b"\n")
                self._live.take(lines.splitlines(keepends=True), int(left_out))
                self._silent.discard(sender)
                if not self._silent:
                    self._all_answered.set()


class Spoke:
    """Hands out this worker's lines to the hub, while that calls. To be closed."""

    def __init__(self, folder: Path, number: int, live: Live) -> None:
        self._socket = _bound(_place(folder, number))
        self._hub = str(_place(folder, 0))
        self._live = live
        self._unsent: deque[bytes] = deque()
        self._left_out = 0
        self._called_at = 0.0
        self._next: asyncio.TimerHandle | None = None
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._called)

    def close(self) -> None:
        """Send no more."""
        if self._next is not None:
            self._next.cancel()
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _called(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
                self._called_at = monotonic()
        self._live.wanted()
        self._send(is_answer=True)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(LOOK_S, self._go_on)

    def _go_on(self) -> None:
        self._next = None
        if monotonic() - self._called_at < FORGET_S:
            self._send(is_answer=False)
            self._next = asyncio.get_running_loop().call_later(LOOK_S, self._go_on)

    def _send(self, *, is_answer: bool) -> None:
        lines, left_out = self._live.hand_out()
        self._unsent.extend(lines)
        too_many = max(0, len(self._unsent) - RECENT)
        for _ in range(too_many):
            self._unsent.popleft()
        self._left_out += left_out + too_many
        if not is_answer and not self._unsent and not self._left_out:
            return
        for lines in _portions(self._unsent):
            try:
                self._socket.sendto(b"%d\n%b" % (self._left_out, b"".join(lines)), self._hub)
                self._left_out = 0
            except OSError as error:
                if error.errno != errno.EMSGSIZE:  # full, or the hub starts anew: they wait for the next time
                    return
                self._left_out += len(lines)  # one that no datagram takes
            for _ in lines:
                self._unsent.popleft()


def _portions(lines: deque[bytes]) -> Iterator[list[bytes]]:
    """What one datagram takes, and what the next; at least one, which may be empty."""
    portion: list[bytes] = []
    size = 0
    for line in list(lines):
        if portion and size + len(line) > _MOST_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(line)
        size += len(line)
    yield portion


def _place(folder: Path, number: int) -> Path:
    return folder / f"live-{number}"


def _bound(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):  # of the worker whose place this one takes
        path.unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound.setblocking(False)
    bound.bind(str(path))
    path.chmod(0o600)
    return bound
