"""The body that can be sent twice: any cut, any limits, any moment of cancellation."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BodyTooLarge, PolicyRefused, TargetRefused
from proxy.framing import Counted
from proxy.intake import CallerBody, Line
from proxy.replay import HeldBody, ReplayBody, Source
from proxy.upstream import Body

LARGE = 1 << 30


@dataclass
class Pieces:
    """A source that gives its pieces one by one; with ``wait`` only when the test lets it."""

    pieces: list[bytes]
    error: Exception | None = None
    wait: bool = False
    allowed: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    readers: int = 0

    async def readany(self) -> bytes:
        self.readers += 1
        try:
            assert self.readers == 1, "two readers at once"
            if self.wait:
                await self.allowed.acquire()
            if self.pieces:
                return self.pieces.pop(0)
            if self.error is not None:
                raise self.error
            return b""
        finally:
            self.readers -= 1


def replay(
    source: Source, *, length: int | None = None, memory: int = LARGE, disk: int = LARGE, limit: int = LARGE
) -> ReplayBody:
    return ReplayBody(source, length=length, memory_bytes=memory, disk_bytes=disk, body_bytes=limit)


async def whole(body: Body) -> bytes:
    return b"".join([piece async for piece in body.chunks()])


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something that no event tells has happened."""
    while not condition():  # noqa: ASYNC110 - what is waited for must not know that it is a test
        await asyncio.sleep(0)


def contents(count: int) -> Iterable[bytes]:
    return (bytes([65 + at]) * 10 for at in range(count))


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=50), max_size=20),
    memory=st.integers(0, 300),
    disk=st.integers(0, 300),
    taken=st.integers(0, 20),
    overtaken=st.booleans(),
)
def test_every_pass_gives_the_whole_body(
    pieces: list[bytes], memory: int, disk: int, taken: int, overtaken: bool
) -> None:
    """A pass that is ahead never depends on the limits; one from the beginning does while it can be had."""

    async def play() -> None:
        body = replay(Pieces(list(pieces)), memory=memory, disk=disk)
        first = aiter(body.chunks())
        begun = b"".join([await anext(first, b"") for _ in range(taken)])
        assert body.received == len(begun)
        if overtaken and body.replayable:
            assert await whole(body) == b"".join(pieces)
        if body.replayable or not overtaken:
            assert begun + b"".join([piece async for piece in first]) == b"".join(pieces)
            assert body.received == sum(map(len, pieces))
        assert body.replayable is (body.received <= max(memory, disk))
        if body.replayable:
            assert await whole(body) == b"".join(pieces)
        body.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("memory", "disk", "in_file"),
    [(40, 0, False), (20, 40, True), (0, 40, True)],
    ids=["memory", "spill", "disk"],
)
async def test_tee_moves_to_a_file_beyond_its_memory(memory: int, disk: int, in_file: bool) -> None:
    """The tee is in memory while it fits, then as a whole in a file without a name."""
    body = replay(Pieces(list(contents(4))), memory=memory, disk=disk)
    first = await whole(body)
    assert await whole(body) == first
    file = body._tee._file
    assert (file is not None) is in_file
    if file is not None:
        assert os.fstat(file.fileno()).st_nlink == 0
    body.close()
    assert file is None or file.closed


async def test_too_long_for_a_tee_is_sent_once() -> None:
    """Beyond both limits the first pass goes on, and a second is refused, not shortened."""
    body = replay(Pieces(list(contents(4))), memory=10, disk=30)
    assert len(await whole(body)) == 40
    assert not body.replayable
    assert body.lost_because == "the body is larger than limits.replay_disk (30 bytes)"
    with pytest.raises(RuntimeError):
        await whole(body)


@pytest.mark.parametrize("fails", ["create", "write"])
async def test_full_disk_costs_only_the_replay(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """When the temporary file cannot be made or written, forwarding goes on."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*(("tempfile.TemporaryFile", fail) if fails == "create" else ("os.pwrite", fail)))
    body = replay(Pieces(list(contents(4))), memory=10)
    assert len(await whole(body)) == 40
    assert not body.replayable
    assert "disk failed" in body.lost_because


async def test_short_writes_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that takes a part of a write is given the rest."""
    pwrite = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    body = replay(Pieces(list(contents(4))), memory=15)
    assert await whole(body) == await whole(body) == b"".join(contents(4))
    body.close()


async def test_announced_length_over_the_limit_is_refused_unread() -> None:
    """A length beyond the limit is refused before a byte of the body is taken."""
    source = Pieces(list(contents(4)))
    body = replay(source, length=40, limit=39)
    with pytest.raises(BodyTooLarge, match=r"40 bytes; limits\.body_bytes is 39"):
        await whole(body)
    assert len(source.pieces) == 4


@pytest.mark.parametrize(("limit", "refused"), [(39, True), (40, False)], ids=["over", "at"])
async def test_body_over_the_limit_is_refused(limit: int, refused: bool) -> None:
    """A body without length is refused at the piece that exceeds the limit, naming limit and value."""
    body = replay(Pieces(list(contents(4))), limit=limit)
    if refused:
        with pytest.raises(BodyTooLarge, match=r"40 bytes; limits\.body_bytes is 39"):
            await whole(body)
    else:
        assert len(await whole(body)) == 40


@pytest.mark.parametrize("length", [0, 20])
async def test_source_is_not_asked_beyond_the_announced_length(length: int) -> None:
    """A body of known length ends without waiting for its source to say so."""
    source = Pieces([*contents(length // 10)], error=AssertionError("read beyond the end"))
    assert len(await whole(replay(source, length=length))) == length


async def test_error_of_the_source_comes_through() -> None:
    """A broken upload raises what the source raised."""
    error = TargetRefused("broken")
    with pytest.raises(TargetRefused) as caught:
        await whole(replay(Pieces([b"a"], error=error)))
    assert caught.value is error


async def test_cancelled_pass_loses_nothing() -> None:
    """A second pass that starts while the first is being cancelled gets every byte once."""
    source = Pieces(list(contents(3)), wait=True)
    body = replay(source)
    source.allowed.release()
    first = asyncio.create_task(whole(body))
    await until(lambda: body.received == 10)
    second = asyncio.create_task(whole(body))
    await asyncio.sleep(0)
    first.cancel()
    source.allowed.release()
    source.allowed.release()
    source.allowed.release()
    assert await second == b"".join(contents(3))
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_passes_at_the_same_time() -> None:
    """Two passes that overlap to the end both give the whole body, and never read the source together."""
    source = Pieces(list(contents(20)), wait=True)
    body = replay(source, memory=50)
    passes = [asyncio.create_task(whole(body)) for _ in range(2)]
    for _ in range(21):
        source.allowed.release()
        await asyncio.sleep(0)
    assert await asyncio.gather(*passes) == [b"".join(contents(20))] * 2
    body.close()


async def test_a_callers_body_is_a_source() -> None:
    """What a caller sends can be replayed, also if the first pass is cancelled while it waits."""
    source = CallerBody(Counted(6), cast("Line", None), length=6, idle_s=5, ask=None)
    body = replay(source)
    source.feed(b"abc")
    first = asyncio.create_task(whole(body))
    await until(lambda: body.received == 3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.feed(b"def")
    assert await whole(body) == b"abcdef"
    source.close()


async def test_a_body_that_arrived_whole_is_kept_as_it_is() -> None:
    """It can be read again and again until it is closed, and is then gone."""
    body = HeldBody(b"abc", length=3)
    for _ in range(2):
        assert [piece async for piece in body.chunks()] == [body.at_hand] == [b"abc"]
    assert (body.received, body.replayable, body.lost_because) == (3, True, "")
    body.close()
    assert (body.at_hand, body.replayable) == (b"", False)
    assert [piece async for piece in HeldBody(b"", length=None).chunks()] == []


# --- bodies that are looked into


@dataclass
class Looking:
    """Notes what it is shown, and refuses what holds ``BAD``."""

    wanted: bool | None = True
    wholes: list[bytes] = field(default_factory=list)
    shown: bytes = b""

    def wants(self, start: bytes) -> bool | None:
        return self.wanted if start else None

    def whole(self, body: bytes) -> None:
        self.wholes.append(body)
        self._judge(body)

    def piece(self, piece: bytes) -> None:
        self.shown += piece
        self._judge(piece)

    @staticmethod
    def _judge(piece: bytes) -> None:
        if b"BAD" in piece:
            raise PolicyRefused("it is bad")


def looked_into(source: Source, looking: Looking, *, memory: int = LARGE, disk: int = LARGE) -> ReplayBody:
    return ReplayBody(
        source, length=None, memory_bytes=memory, disk_bytes=disk, body_bytes=LARGE, inspection=looking
    )


@given(pieces=st.lists(st.binary(min_size=1, max_size=50), max_size=20), memory=st.integers(1, 300))
def test_nothing_is_handed_out_before_it_was_looked_into(pieces: list[bytes], memory: int) -> None:
    """A body that fits is looked into as a whole, a larger one in pieces, and all of it before it goes."""

    async def play() -> None:
        looking, body = Looking(), b"".join(pieces)
        replayed = looked_into(Pieces(list(pieces)), looking, memory=memory)
        handed = b""
        async for piece in replayed.chunks():
            handed += piece
            assert looking.wholes == [body] or looking.shown.startswith(handed)
        assert handed == body
        assert looking.wholes == ([] if looking.shown else [body])
        assert looking.shown in (b"", body)
        assert len(body) >= memory or not looking.shown
        assert await whole(replayed) == body
        assert looking.shown in (b"", body)
        replayed.close()

    asyncio.run(play())


@pytest.mark.parametrize("memory", [1, 25, 1000], ids=["in-pieces", "at-the-beginning", "as-a-whole"])
@pytest.mark.parametrize("at", [0, 2, 4])
async def test_what_was_refused_once_is_in_no_later_pass(memory: int, at: int) -> None:
    """The tee has it, and still no pass hands it out."""
    pieces = [b"x" * 10] * 5
    pieces[at] = b"BAD" * 3
    body = looked_into(Pieces(pieces), Looking(), memory=memory)
    for _ in range(3):
        with pytest.raises(PolicyRefused):
            await whole(body)
    body.close()


async def test_a_body_that_nobody_wants_to_look_into_waits_for_nothing() -> None:
    """Its first piece goes as soon as it is there, and nothing of it is shown."""
    source, looking = Pieces([b"BAD", b"x"], wait=True), Looking(wanted=False)
    body = looked_into(source, looking)
    passing = aiter(body.chunks())
    source.allowed.release()
    assert await anext(passing) == b"BAD"
    source.allowed.release()
    assert await anext(passing) == b"x"
    assert (looking.wholes, looking.shown) == ([], b"")
    body.close()


async def test_a_pass_that_is_cancelled_while_it_looks_loses_nothing() -> None:
    """The next one goes on where it was."""
    source, looking = Pieces([b"a", b"b"], wait=True), Looking()
    body = looked_into(source, looking)
    looks = asyncio.create_task(whole(body))
    source.allowed.release()
    await until(lambda: body.received == 1)
    looks.cancel()
    await asyncio.gather(looks, return_exceptions=True)
    for _ in range(2):
        source.allowed.release()
    assert await whole(body) == b"ab"
    assert looking.wholes == [b"ab"]
    body.close()


async def test_a_body_that_cannot_be_kept_is_not_sent_unseen() -> None:
    """Where the beginning is lost while it is looked into, the body is refused, not sent."""
    body = looked_into(Pieces([b"x" * 10, b"x" * 20]), Looking(), memory=11, disk=12)
    with pytest.raises(BodyTooLarge, match="cannot be looked into"):
        await whole(body)
