"""What callers cost a real process: memory under many large bodies, slow peers, peers that leave, idle ones.

``WIRE_BODIES`` is how many 10 MiB bodies are under way at one time, ``WIRE_IDLE`` how many idle callers are
connected. The figures are logged (``--log-cli-level=INFO`` shows them).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

from tests.harness import until
from tests.wire.messages import Reader
from tests.wire.processes import Plenty, Served, allow_open_files, half_an_answer, served
from tests.wire.theatre import answers, converse, on_uvloop

BODIES = int(os.environ.get("WIRE_BODIES", "16"))
IDLE = int(os.environ.get("WIRE_IDLE", "2000"))
MIB = 1024 * 1024
SIZE = 10 * MIB
TARGET_MB = 200
"""Peak resident memory with 64 bodies of 10 MiB under way."""
BODIES_OF_TARGET = 64
ONCE_MB = 24
"""What of it is not a matter of how many bodies there are: code and caches that the first request fills."""
log = logging.getLogger("tests.wire")


@asynccontextmanager
async def scene(folder: Path, **limits: int | float) -> AsyncIterator[tuple[Served, Plenty]]:
    """A serve process before plenty."""
    plenty = await Plenty().start()
    try:
        async with served(folder, plenty.url, limits) as serve:
            yield serve, plenty
            serve.check()
    finally:
        await plenty.stop()


def asked(path: str, size: int | None = None, version: str = "1.1") -> bytes:
    """The head of a request of acme."""
    length = "" if size is None else f"Content-Length: {size}\r\n"
    return (
        f"{'GET' if size is None else 'POST'} /acme/{path} HTTP/{version}\r\nHost: 127.0.0.1\r\n{length}\r\n"
    ).encode()


async def up_and_down(address: tuple[str, int]) -> int:
    """Send a body of 10 MiB, get one of 10 MiB; returns the bytes got."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(asked(f"both/{SIZE}", SIZE))
        for _ in range(SIZE // 65536):
            writer.write(bytes(65536))
            await writer.drain()
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        await reader.readuntil(b"\r\n\r\n")
        got = 0
        while got < SIZE:
            piece = await reader.read(262144)
            assert piece, "broken off"
            got += len(piece)
        return got
    finally:
        writer.close()


def test_large_bodies_stay_within_the_target(tmp_path: Path) -> None:
    """Bodies of 10 MiB, many at once up and down, cost no more than the target's share for as many."""

    async def play() -> None:
        async with scene(tmp_path) as (serve, plenty):
            before = serve.memory()
            began = monotonic()
            got = await asyncio.gather(*(up_and_down(serve.address) for _ in range(BODIES)))
            peak = serve.memory("VmHWM")
            log.info(
                "%d x 10 MiB up and down: peak %.0f MB (idle %.0f MB), %.1f s",
                BODIES, peak, before, monotonic() - began,
            )  # fmt: skip
            assert got == [SIZE] * BODIES
            assert plenty.taken == SIZE * BODIES
            once = before + ONCE_MB
            assert peak <= once + (TARGET_MB - once) * min(1.0, BODIES / BODIES_OF_TARGET)

    on_uvloop(play)


async def settled(plenty: Plenty) -> None:
    """Wait until the upstream could hand over no more for a while."""
    ends = monotonic() + 20
    last, since = -1, monotonic()
    while monotonic() - since < 0.4:
        assert monotonic() < ends, "it never came to rest"
        if plenty.given != last:
            last, since = plenty.given, monotonic()
        await asyncio.sleep(0.02)


def test_slow_readers_cost_no_memory(tmp_path: Path) -> None:
    """Callers that ask for much and read nothing stop the upstream instead of filling the proxy."""
    readers = 32

    async def play() -> None:
        async with scene(tmp_path) as (serve, plenty):
            before = serve.memory()
            writers = []
            for _ in range(readers):
                reader, writer = await asyncio.open_connection(*serve.address, limit=1024)
                writer.write(asked(f"give/{64 * MIB}"))
                writers.append((reader, writer))
            await until(lambda: plenty.busy == readers)
            await settled(plenty)
            grown = serve.memory() - before
            log.info(
                "%d slow readers: %.1f MB more, %.1f MB left the upstream", readers, grown, plenty.given / 1e6
            )
            # An answer may keep what a read brought beyond the upstream's high-water mark, and as much again
            # on its way to the caller; a proxy that buffers would hold all 64 MiB.
            assert grown < readers * 1.5 + 8
            for _, writer in writers:
                writer.transport.abort()
            await until(lambda: not plenty.busy)

    on_uvloop(play)


def test_callers_that_never_read_are_cut(tmp_path: Path) -> None:
    """Within limits.idle_s without taking anything they are gone, and with them what they asked for."""
    readers = 8

    async def play() -> None:
        async with scene(tmp_path, idle_s=1) as (serve, plenty):
            writers = []
            for _ in range(readers):
                _, writer = await asyncio.open_connection(*serve.address, limit=1024)
                writer.write(asked(f"give/{64 * MIB}"))
                writers.append(writer)
            await until(lambda: plenty.busy == readers)
            await until(lambda: not plenty.busy)
            heard = await converse(serve.address, [asked("take")], answers(1))
            assert heard.statuses == [200]
            for writer in writers:
                writer.transport.abort()

    on_uvloop(play)


def test_slow_senders_cost_no_memory(tmp_path: Path) -> None:
    """Callers in the middle of a body that does not go on cost next to nothing, and hold up nobody."""
    senders = 200

    async def play() -> None:
        async with scene(tmp_path) as (serve, plenty):
            before = serve.memory()
            writers = []
            for _ in range(senders):
                _, writer = await asyncio.open_connection(*serve.address)
                writer.write(asked("take", SIZE) + b"x")
                writers.append(writer)
            for _ in range(20):
                for writer in writers:
                    writer.write(b"y")
                await asyncio.sleep(0.005)
            heard = await converse(serve.address, [asked("take")], answers(1))
            assert heard.statuses == [200]
            grown = serve.memory() - before
            log.info("%d slow senders: %.1f MB more", senders, grown)
            assert grown < senders * 0.1 + 8
            for writer in writers:
                writer.transport.abort()
            await until(lambda: not plenty.busy)

    on_uvloop(play)


LEAVES = {
    "while waiting for an answer": (asked("wait"), b""),
    "in the middle of its body": (asked("take", SIZE), bytes(300_000)),
    "in the middle of the answer": (asked(f"give/{64 * MIB}"), b""),
}


def test_a_caller_that_leaves_ends_the_upstream_request(tmp_path: Path) -> None:
    """Within a second of the caller, however and whenever it goes, the upstream's connection is closed."""

    async def leave(serve: Served, plenty: Plenty, sent: tuple[bytes, bytes], *, is_reset: bool) -> float:
        head, body = sent
        before = plenty.taken
        _, writer = await asyncio.open_connection(*serve.address)
        writer.write(head + body)
        await until(lambda: plenty.busy == 1 and plenty.taken - before == len(body))
        left = monotonic()
        writer.transport.abort() if is_reset else writer.close()
        await until(lambda: plenty.busy == 0)
        return monotonic() - left

    async def play() -> None:
        async with scene(tmp_path) as (serve, plenty):
            took = {
                (when, is_reset): await leave(serve, plenty, sent, is_reset=is_reset)
                for when, sent in LEAVES.items()
                for is_reset in (False, True)
            }
            assert max(took.values()) < 1, took

    on_uvloop(play)


async def hears_the_break(
    address: tuple[str, int], framing: str, version: str, begun: asyncio.Barrier
) -> str:
    """What a caller whose answer had begun takes for whole; empty if it sees that it is not."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(asked(framing, version=version))
    parser = Reader("answer")
    while parser.begun is None or not parser.begun.body:
        parser.feed(await reader.read(65536))
    await begun.wait()
    try:
        async with asyncio.timeout(1):
            while data := await reader.read(65536):
                parser.feed(data)
            parser.end()
    except ConnectionError:
        pass
    writer.close()
    return f"{framing} {version}: {parser.done}" if parser.done else ""


def test_killing_the_upstream_breaks_the_callers_connection(tmp_path: Path) -> None:
    """Callers of an upstream process that dies in mid-answer see that their answers are not whole."""

    async def play() -> None:
        ways = [(framing, version) for framing in ("length", "chunks") for version in ("1.0", "1.1")]
        begun = asyncio.Barrier(len(ways) + 1)
        async with (
            half_an_answer(tmp_path / "upstream") as (upstream, url),
            served(tmp_path, url) as serve,
        ):
            hearing = asyncio.gather(*(hears_the_break(serve.address, *way, begun) for way in ways))
            async with asyncio.timeout(10):
                await begun.wait()
            upstream.kill()
            assert await hearing == [""] * len(ways)
            serve.check()

    on_uvloop(play)


async def idle_caller(address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A caller that got one answer and stays connected."""
    reader, writer = await asyncio.open_connection(*address)
    await one_more(reader, writer)
    return reader, writer


async def one_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A request over a connection that is kept."""
    writer.write(asked("take"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
    await reader.readexactly(2)


def test_idle_callers_and_load_at_once(tmp_path: Path) -> None:
    """Thousands of idle keep-alive callers beside busy ones: no error, and none of them is cut."""
    callers = min(IDLE, allow_open_files(IDLE + 500) - 500)

    async def play() -> None:
        async with scene(tmp_path, connections=callers + 100) as (serve, _):
            before = serve.memory()
            idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
            while len(idle) < callers:
                count = min(200, callers - len(idle))
                idle += await asyncio.gather(*(idle_caller(serve.address) for _ in range(count)))
            with_idle = serve.memory()

            async def load() -> None:
                reader, writer = await idle_caller(serve.address)
                for _ in range(max(25, callers // 40)):
                    await one_more(reader, writer)
                writer.close()

            began = monotonic()
            await asyncio.gather(*(load() for _ in range(16)))
            took = monotonic() - began
            log.info(
                "%d idle callers: %.1f MB more than %.0f MB; %d requests beside them in %.1f s, peak %.0f MB",
                callers, with_idle - before, before, 16 * max(25, callers // 40), took, serve.memory("VmHWM"),
            )  # fmt: skip
            # Each is still served.
            await asyncio.gather(*(one_more(*each) for each in idle[:: max(1, callers // 200)]))
            assert with_idle - before < callers * 0.02 + 20
            for _, writer in idle:
                writer.transport.abort()

    on_uvloop(play)
