"""What arrives through the proxy is what arrives without it, apart from the fields that are named here.

``WIRE_CASES`` is the number of cases of each kind; a case that differs names its seed, and ``WIRE_SEED``
plays that one again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import Random
from typing import cast

from tests.wire import generating
from tests.wire.messages import Field, Message
from tests.wire.recorder import End, Recorder, Reply
from tests.wire.theatre import Heard, Theatre, answers, converse, on_uvloop, theatre, until_end

LARGE = int(os.environ.get("WIRE_LARGE", "1"))
CASES = int(os.environ.get("WIRE_CASES", "2000"))
SEED = os.environ.get("WIRE_SEED")
HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
MEBIBYTE = 1024 * 1024


def seeds(kind: str, count: int = CASES) -> Iterable[str]:
    """The seeds of this run: all, or the one to play again."""
    return [SEED] if SEED is not None else (f"{kind}-{number}" for number in range(count))


def without(fields: list[Field], names: Iterable[bytes]) -> list[Field]:
    """Fields less those of some names, given in lower case."""
    gone = set(names)
    return [field for field in fields if field[0].lower() not in gone]


# --- requests


async def forwarded(
    recorder: Recorder, address: tuple[str, int], batch: list[generating.Asked], way: str, *, ends: bool
) -> list[Message]:
    """What the recorder gets of requests that are sent over one connection to ``address``, which ``ends``."""
    recorder.requests.clear()
    data = b"".join(asked.data for asked in batch)
    if way == "byte by byte" and len(data) < 1500:
        pieces = [data[at : at + 1] for at in range(len(data))]
    elif way == "in odd pieces":
        pieces = [data[at : at + 1447] for at in range(0, len(data), 1447)]
    else:
        pieces = [data]
    heard = await converse(
        address,
        pieces,
        until_end if ends else answers(len(batch)),
        heads=[asked.is_head for asked in batch],
    )
    assert heard.statuses == [200] * len(batch), heard
    return list(recorder.requests)


def expected_upstream(direct: Message, asked: generating.Asked, authority: bytes) -> tuple[object, ...]:
    """What the proxy must make of a request: only named fields change, and chunks may be cut anew."""
    kept = without(direct.fields, HOP_BY_HOP | asked.dropped | {b"host"})
    version = b"1.1" if asked.http_1_1 else b"1.0"
    return (
        direct.first[:2],
        [
            (b"Host", authority),
            *kept,
            (b"Via", version + b" pleo-proxy"),
            (b"Authorization", b"Bearer at-1"),
            *([(b"Transfer-Encoding", b"chunked")] if direct.chunked else []),
        ],
        direct.body,
        direct.trailers,
    )


async def compare_requests(scene: Theatre, direct: Recorder, seed: str, size: int | None = None) -> None:
    """Send a batch of requests, or one with a body of ``size`` bytes, both ways and compare what arrives."""
    random = Random(seed)
    count = random.choice((1, 1, 1, 2, 3, 6)) if size is None else 1
    closes = random.random() < 0.2
    way = random.choice(("whole", "whole", "byte by byte", "in odd pieces"))
    batch = [
        generating.request(random, number, size=size, closes=closes and number == count - 1)
        for number in range(count)
    ]
    plain = await forwarded(direct, direct.address, batch, way, ends=False)
    proxied = await forwarded(scene.recorder, scene.address, batch, way, ends=not batch[-1].keeps)
    assert len(plain) == len(proxied) == len(batch)
    for asked, one, other in zip(batch, plain, proxied, strict=True):
        expected = expected_upstream(one, asked, scene.recorder.authority)
        assert (other.first[:2], other.fields, other.body, other.trailers) == expected
    scene.check()


async def both_ways(
    folder: Path, play: Callable[[Theatre, Recorder, str], Awaitable[None]], all_seeds: Iterable[str]
) -> None:
    """Play each seed with a recorder of its own and with the proxy before another."""
    direct = await Recorder(bearer=None).start()
    try:
        async with theatre(folder) as scene:
            for seed in all_seeds:
                try:
                    await play(scene, direct, seed)
                except AssertionError as error:
                    raise AssertionError(f"WIRE_SEED={seed} differs") from error
    finally:
        await direct.stop()


def test_requests_arrive_as_they_were_sent(tmp_path: Path) -> None:
    """Method, target, fields and body of thousands of requests are the same with and without the proxy."""
    on_uvloop(lambda: both_ways(tmp_path, compare_requests, seeds("request")))


def test_large_requests_arrive_as_they_were_sent(tmp_path: Path) -> None:
    """Bodies at the largest size that is taken arrive byte for byte, with a length and in chunks."""

    async def play(scene: Theatre, direct: Recorder, seed: str) -> None:
        await compare_requests(scene, direct, seed, int(seed.split("-")[1]) * MEBIBYTE)

    large = [f"large-{size}-{number}" for number in range(LARGE) for size in (1, 8, 64)]
    on_uvloop(lambda: both_ways(tmp_path, play, large))


# --- answers


async def heard_from(address: tuple[str, int], request: bytes, *, is_head: bool) -> Heard:
    """What a caller of ``address`` gets for one request."""
    return await converse(address, [request], answers(1), heads=[is_head])


def check_answer(direct: Message, proxied: Message) -> None:
    """Only named fields differ: one hop's, cookies, request id, a Date if there is none, the framing."""
    assert proxied.status == direct.status
    # Where there is no reason phrase the usual one is filled in.
    assert proxied.first[2] == direct.first[2] or not direct.first[2]
    added = {b"X-Request-Id", b"Date", b"Transfer-Encoding", b"Content-Length", b"Connection"}
    assert proxied.fields[-1][0] in added
    gone = HOP_BY_HOP | {b"x-request-id", b"set-cookie"}
    if not direct.values(b"date"):
        assert len(proxied.values(b"date")) == 1
        gone |= {b"date"}
    if not direct.values(b"content-length"):
        gone |= {b"content-length"}
    assert without(proxied.fields, gone) == without(direct.fields, gone)
    assert len(proxied.values(b"x-request-id")) == 1
    assert proxied.body == direct.body
    assert not proxied.trailers or proxied.trailers == direct.trailers


async def compare_answers(scene: Theatre, direct: Recorder, seed: str) -> None:
    """Have one answer given both ways and compare what the caller gets."""
    random = Random(seed)
    is_head = random.random() < 0.15
    version = random.choice((b"1.1", b"1.1", b"1.1", b"1.0"))
    answered = generating.answer(random, is_head=is_head)
    scene.recorder.reply = direct.reply = lambda _: answered.reply
    request = b"%b /v1/x HTTP/%b\r\nHost: 127.0.0.1\r\nX-Pleo-Tenant: acme\r\n\r\n" % (
        b"HEAD" if is_head else b"GET",
        version,
    )
    plain = await heard_from(direct.address, request, is_head=is_head)
    proxied = await heard_from(scene.address, request, is_head=is_head)
    assert not proxied.malformed, proxied
    if answered.is_whole:
        assert len(plain.answers) == len(proxied.answers) == 1, (plain, proxied)
        check_answer(plain.answers[0], proxied.answers[0])
    else:
        # Nobody can take it for whole: it lacks its end, and where the connection's end would be that, it is
        # an abnormal one.
        assert not plain.answers
        assert not proxied.answers, proxied
        assert proxied.ended
        assert proxied.partial is None or answered.content.startswith(proxied.partial.body)
    scene.check()


def test_answers_come_back_as_they_were_given(tmp_path: Path) -> None:
    """Status, fields and body of thousands of answers are the same with and without the proxy, broken ones
    stay visibly broken."""
    on_uvloop(lambda: both_ways(tmp_path, compare_answers, seeds("answer")))


def test_large_answers_come_back_as_they_were_given(tmp_path: Path) -> None:
    """Sixty-four mebibytes come back byte for byte, with a length, in chunks, and ended by the connection."""

    async def play(scene: Theatre, direct: Recorder, seed: str) -> None:
        random = Random(seed)
        content = random.randbytes(64 * MEBIBYTE)
        framing, framed, end = {
            "length": (b"Content-Length: %d" % len(content), content, "stay"),
            "chunks": (b"Transfer-Encoding: chunked", generating.in_chunks(random, content), "stay"),
            "end": (b"Connection: close", content, "close"),
        }[seed.split("-")[1]]
        reply = Reply(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (framing, framed), cast("End", end))
        scene.recorder.reply = lambda _: reply
        request = b"GET /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        heard = await heard_from(scene.address, request, is_head=False)
        assert [answer.body == content for answer in heard.answers] == [True]
        scene.check()

    on_uvloop(lambda: both_ways(tmp_path, play, ["large-length", "large-chunks", "large-end"]))
