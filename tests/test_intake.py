"""The body as it comes in: when its sender is asked for it, and when it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest

from proxy.errors import TargetRefused
from proxy.framing import Chunks, Counted, Decoder
from proxy.intake import HIGH_WATER, CallerBody, Line


@dataclass
class Timer:
    """A timer of the tests' clock."""

    due: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Clock:
    """Takes the place of the loop's clock, moved by the test."""

    now: float = 1000.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + delay, callback))
        return self.timers[-1]

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.due <= self.now]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.callback()


@dataclass
class Caller:
    """The connection that a body comes on."""

    clock: Clock = field(default_factory=Clock)
    asked: list[str] = field(default_factory=list)
    reading: list[str] = field(default_factory=list)

    def pause_reading(self) -> None:
        self.reading.append("paused")

    def resume_reading(self) -> None:
        self.reading.append("resumed")

    def body(self, decoder: Decoder, *, expects: bool = False) -> CallerBody:
        """A body that may be silent for ten seconds."""
        ask = partial(self.asked.append, "asked") if expects else None
        body = CallerBody(decoder, cast("Line", self), length=None, idle_s=10, ask=ask)
        body._loop = cast("Any", self.clock)
        return body


@pytest.fixture
async def caller() -> Caller:
    """A caller, while a loop runs."""
    return Caller()


async def waiting(body: CallerBody) -> asyncio.Task[bytes]:
    """A read that has begun to wait."""
    reading = asyncio.create_task(body.readany())
    await asyncio.sleep(0)
    assert not reading.done()
    return reading


async def test_a_silent_sender_is_given_up(caller: Caller) -> None:
    """A read that waits for idle_s raises the refusal, and so does every later one."""
    body = caller.body(Counted(5))
    reading = await waiting(body)
    caller.clock.advance(10)
    for read in (reading, body.readany()):
        with pytest.raises(TargetRefused, match="no byte for 10 s"):
            await read
    body.close()


async def test_each_byte_gives_the_sender_time(caller: Caller) -> None:
    """Only an unbroken silence counts, from the last byte on; one timer serves the whole body."""
    body, clock = caller.body(Counted(50)), caller.clock
    for _ in range(5):
        reading = await waiting(body)
        assert len(clock.timers) == 1
        clock.advance(8)
        body.feed(b"x")
        assert await reading == b"x"
    reading = await waiting(body)
    clock.advance(9.9)
    assert not reading.done()
    clock.advance(0.2)
    with pytest.raises(TargetRefused):
        await reading
    body.close()


async def test_the_size_of_a_chunk_is_a_sign_of_life_and_no_end(caller: Caller) -> None:
    """Framing without content keeps a reader waiting, with its time begun anew."""
    body = caller.body(Chunks(section_bytes=100))
    reading = await waiting(body)
    caller.clock.advance(8)
    body.feed(b"5\r\n")
    await asyncio.sleep(0)
    caller.clock.advance(8)
    assert not reading.done()
    body.feed(b"hello\r\n0\r\n\r\n")
    assert await reading == b"hello"
    assert await body.readany() == b""
    body.close()


async def test_time_in_which_nobody_reads_does_not_count(caller: Caller) -> None:
    """A slow upstream is not held against the sender."""
    body = caller.body(Counted(5))
    body.feed(b"x")
    assert await body.readany() == b"x"
    caller.clock.advance(100)
    reading = await waiting(body)
    caller.clock.advance(9)
    body.feed(b"y")
    assert await reading == b"y"
    body.close()


async def test_a_body_that_is_here_needs_no_timer(caller: Caller) -> None:
    """What arrived whole with its head costs no timer, and what has ended leaves none."""
    body = caller.body(Counted(1))
    assert body.feed(b"xGET / HTTP/1.1") == b"GET / HTTP/1.1"
    assert await body.readany() == b"x"
    assert await body.readany() == b""
    assert caller.clock.timers == []
    body.close()


async def test_close_leaves_no_timer(caller: Caller) -> None:
    """A request that ends while its body is waited for takes its timer with it."""
    body = caller.body(Counted(5))
    reading = await waiting(body)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    body.close()
    assert [timer.cancelled for timer in caller.clock.timers] == [True]


async def test_the_sender_is_asked_once_and_only_when_it_is_wanted(caller: Caller) -> None:
    """Who waits for 100 hears it at the first read, before anything is waited for."""
    body = caller.body(Counted(1), expects=True)
    assert (body.is_held_back, caller.asked) == (True, [])
    reading = await waiting(body)
    assert (body.is_held_back, caller.asked) == (False, ["asked"])
    body.feed(b"x")
    assert await reading == b"x"
    assert await body.readany() == b""
    assert caller.asked == ["asked"]
    body.close()


async def test_a_sender_is_held_while_nobody_reads(caller: Caller) -> None:
    """More than HIGH_WATER unread bytes stop it, once, and taking them lets it go on."""
    body = caller.body(Counted(10 * HIGH_WATER))
    body.feed(bytes(HIGH_WATER))
    assert caller.reading == []
    body.feed(b"x")
    assert caller.reading == ["paused"]
    assert len(await body.readany()) == HIGH_WATER + 1
    assert caller.reading == ["paused", "resumed"]
    body.close()


async def test_what_came_before_a_failure_is_read_before_it(caller: Caller) -> None:
    """Malformed framing is heard by who reads, behind the good beginning, and by who feeds."""
    body = caller.body(Chunks(section_bytes=100))
    body.feed(b"2\r\nhi\r\n")
    with pytest.raises(TargetRefused):
        body.feed(b"no size\r\n")
    assert await body.readany() == b"hi"
    with pytest.raises(TargetRefused):
        await body.readany()
    body.close()


async def test_a_sender_that_leaves_fails_the_body(caller: Caller) -> None:
    """A body that was cut short never looks whole."""
    body = caller.body(Counted(5))
    reading = await waiting(body)
    body.fail(ConnectionResetError("the caller has left"))
    with pytest.raises(ConnectionResetError):
        await reading
    body.close()


async def test_after_the_end_what_comes_is_dropped(caller: Caller) -> None:
    """The rest of a body whose request has ended holds no memory and no sender."""
    body = caller.body(Counted(10 * HIGH_WATER))
    body.feed(bytes(HIGH_WATER + 1))
    body.close()
    body.feed(bytes(HIGH_WATER + 1))
    assert caller.reading == ["paused", "resumed"]
    with pytest.raises(ConnectionResetError):
        await body.readany()
