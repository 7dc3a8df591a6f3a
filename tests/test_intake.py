"""The body as it comes in: when its sender is asked for it, and when it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from proxy.errors import TargetRefused
from proxy.intake import CallerBody


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

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.due <= self.now]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.callback()


@pytest.fixture
async def content() -> StreamReader:
    """What aiohttp makes of a request's body."""
    protocol = BaseProtocol(asyncio.get_running_loop())
    protocol.connection_made(asyncio.Transport())
    return StreamReader(protocol, 2**16, loop=asyncio.get_running_loop())


def body_of(content: StreamReader, clock: Clock, ask: Callable[[], None] | None = None) -> CallerBody:
    """A body that may be silent for ten seconds."""
    body = CallerBody(content, idle_s=10, ask=ask)
    body._loop = cast("Any", clock)
    return body


async def waiting(body: CallerBody) -> asyncio.Task[bytes]:
    """A read that has begun to wait."""
    reading = asyncio.create_task(body.readany())
    await asyncio.sleep(0)
    assert not reading.done()
    return reading


async def test_a_silent_sender_is_given_up(content: StreamReader) -> None:
    """A read that waits for idle_s raises the refusal, and so does every later one."""
    clock = Clock()
    body = body_of(content, clock)
    reading = await waiting(body)
    clock.advance(10)
    for read in (reading, body.readany()):
        with pytest.raises(TargetRefused, match="no byte for 10 s"):
            await read
    body.close()


async def test_each_byte_gives_the_sender_time(content: StreamReader) -> None:
    """Only an unbroken silence counts, from the last byte on; one timer serves the whole body."""
    clock = Clock()
    body = body_of(content, clock)
    for _ in range(5):
        reading = await waiting(body)
        assert len(clock.timers) == 1
        clock.advance(8)
        content.feed_data(b"x")
        assert await reading == b"x"
    reading = await waiting(body)
    clock.advance(9.9)
    assert not reading.done()
    clock.advance(0.2)
    with pytest.raises(TargetRefused):
        await reading
    body.close()


async def test_time_in_which_nobody_reads_does_not_count(content: StreamReader) -> None:
    """A slow upstream is not held against the sender."""
    clock = Clock()
    body = body_of(content, clock)
    content.feed_data(b"x")
    assert await body.readany() == b"x"
    clock.advance(100)
    reading = await waiting(body)
    clock.advance(9)
    content.feed_data(b"y")
    assert await reading == b"y"
    body.close()


async def test_a_body_that_is_here_needs_no_timer(content: StreamReader) -> None:
    """What arrived whole with its head costs no timer, and what has ended leaves none."""
    clock = Clock()
    body = body_of(content, clock)
    content.feed_data(b"x")
    content.feed_eof()
    assert await body.readany() == b"x"
    assert await body.readany() == b""
    assert clock.timers == []
    body.close()


async def test_close_leaves_no_timer(content: StreamReader) -> None:
    """A request that ends while its body is waited for takes its timer with it."""
    clock = Clock()
    body = body_of(content, clock)
    reading = await waiting(body)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    body.close()
    assert [timer.cancelled for timer in clock.timers] == [True]


async def test_the_sender_is_asked_once_and_only_when_it_is_wanted(content: StreamReader) -> None:
    """Who waits for 100 hears it at the first read, before anything is waited for."""
    asked: list[str] = []
    body = body_of(content, Clock(), lambda: asked.append("asked"))
    assert (body.is_held_back, asked) == (True, [])
    reading = await waiting(body)
    assert (body.is_held_back, asked) == (False, ["asked"])
    content.feed_data(b"x")
    assert await reading == b"x"
    content.feed_eof()
    assert await body.readany() == b""
    assert asked == ["asked"]
    body.close()
