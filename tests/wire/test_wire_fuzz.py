"""Damaged bytes from callers and from the upstream, and header fields of any kind.

Whatever bytes a caller sends, the upstream only ever receives well-formed requests with exactly one
``Authorization``, ours, and the proxy neither crashes nor reports a crash. Whatever bytes the upstream sends,
the caller gets a faithful answer, a problem document, or a connection that is visibly broken.

Each fuzzer runs for ``WIRE_FUZZ_S`` seconds from the seed in ``WIRE_FUZZ_SEED``; what it finds names the seed
of the case, and ``WIRE_SEED`` plays that one again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import headers
from proxy.model import Origin, Secret
from tests.wire import generating
from tests.wire.attacks import ATTACKS
from tests.wire.messages import Malformed, Message, Reader
from tests.wire.mutating import mutated
from tests.wire.recorder import Recorder, Reply
from tests.wire.theatre import Heard, answers, converse, on_uvloop, theatre, until_end

SECONDS = float(os.environ.get("WIRE_FUZZ_S", "5"))
START = os.environ.get("WIRE_FUZZ_SEED", "1")
SEED = os.environ.get("WIRE_SEED")
AT_ONCE = 48
"""Cases under way at one time."""
HEARD_S = 0.08
"""How long a caller listens: many damaged requests are only unfinished, and nothing will come."""


def seeds(kind: str) -> Iterator[str]:
    """Seeds without end, or the one to play again."""
    if SEED is not None:
        yield SEED
        return
    for number in count():
        yield f"{kind}-{START}-{number}"


async def fuzz(
    kind: str, case: Callable[[str], Awaitable[None]], check: Callable[[], Awaitable[None]]
) -> int:
    """Play cases, some at a time, until time is up; returns how many there were."""
    ends = monotonic() + SECONDS
    played = 0
    every = seeds(kind)
    while monotonic() < ends and (batch := [seed for seed, _ in zip(every, range(AT_ONCE), strict=False)]):
        played += len(batch)
        outcomes = await asyncio.gather(*map(case, batch), return_exceptions=True)
        try:
            for outcome in outcomes:
                if outcome is not None:
                    raise outcome
            await check()
        except AssertionError as error:
            raise AssertionError(f"one of these finds it: WIRE_SEED={' '.join(batch)}") from error
    return played


# --- the accepting side

GOOD = [attack.data for attack in ATTACKS.values() if len(attack.data) < 20_000]


def damaged_request(random: Random) -> bytes:
    """One or two requests, damaged."""
    if random.random() < 0.5:
        data = random.choice(GOOD)
    else:
        size = random.choice((None, 0, 5, 100))
        data = generating.request(random, 0, size=size).data
    if random.random() < 0.3:
        data += random.choice(GOOD)
    return mutated(random, data)


def test_damaged_requests_reach_nobody_as_they_are(tmp_path: Path) -> None:
    """The upstream gets well-formed requests with our credential alone, and nothing crashes."""

    async def play() -> int:
        async with theatre(tmp_path) as scene:

            async def case(seed: str) -> None:
                random = Random(seed)
                data = damaged_request(random)
                cut = random.randrange(len(data) + 1)
                pieces = random.choice(([data], [data[:cut], data[cut:]]))
                await converse(scene.address, pieces, until_end, patience_s=HEARD_S)

            async def check() -> None:
                scene.check()
                heard = await converse(
                    scene.address, [b"GET /acme/v1/well HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"], answers(1)
                )
                assert [answer.body for answer in heard.answers] == [b"/v1/well"], heard
                scene.recorder.clear()

            return await fuzz("request", case, check)

    assert on_uvloop(play) >= 1


# --- the parser of the upstream's answers


def as_read(data: bytes, *, is_head: bool, closed: bool) -> Message | None:
    """The final answer that these bytes are, if they are a whole one."""
    reader = Reader("answer", lenient=True)
    reader.bodiless = [is_head]
    try:
        reader.feed(data)
        if closed:
            reader.end()
    except Malformed:
        pass
    return next((message for message in reader.done if message.status >= 200), None)


def is_problem(answer: Message) -> bool:
    """Whether it is the proxy's own answer."""
    return answer.values(b"content-type") == [b"application/problem+json"] and bool(
        answer.values(b"proxy-status")
    )


def damaged_answer(random: Random, *, is_head: bool) -> Reply:
    """An answer, damaged, after which the upstream's connection ends or stays."""
    answered = generating.answer(random, is_head=is_head)
    data = answered.reply.data[:20_000]
    return Reply(mutated(random, data), random.choice(("close", "close", "reset", "stay")))


def check_heard(heard: Heard, reply: Reply, *, is_head: bool) -> None:
    """A faithful answer, a problem document, or a connection that is visibly broken."""
    assert not heard.malformed, heard
    if not heard.answers:
        assert heard.ended, "an answer that neither ends nor breaks"
        return
    (answer,) = heard.answers
    if is_problem(answer):
        assert answer.status in (502, 503, 504)
        return
    given_ = as_read(reply.data, is_head=is_head, closed=reply.end == "close")
    assert given_ is not None, f"made whole of {reply}: {answer}"
    assert (answer.status, answer.body) == (given_.status, given_.body), f"{reply} became {answer}"


def test_damaged_answers_are_never_made_whole(tmp_path: Path) -> None:
    """The caller gets it faithfully, or a problem document, or a connection that is visibly broken."""

    async def play() -> int:
        replies: dict[bytes, Reply] = {}
        recorder = Recorder(reply=lambda request: replies[request.values(b"x-seed")[0]])
        async with theatre(tmp_path, recorder, idle_s=0.4) as scene:

            async def case(seed: str) -> None:
                random = Random(seed)
                is_head = random.random() < 0.15
                reply = replies[seed.encode()] = damaged_answer(random, is_head=is_head)
                request = b"%b /acme/v1/x HTTP/1.%d\r\nHost: 127.0.0.1\r\nX-Seed: %b\r\n\r\n" % (
                    b"HEAD" if is_head else b"GET",
                    random.choice((1, 1, 1, 0)),
                    seed.encode(),
                )
                heard = await converse(scene.address, [request], answers(1), heads=[is_head])
                try:
                    check_heard(heard, reply, is_head=is_head)
                except AssertionError as error:
                    raise AssertionError(f"WIRE_SEED={seed}: {error}") from error

            async def check() -> None:
                scene.check()

            return await fuzz("answer", case, check)

    assert on_uvloop(play) >= 1


# --- the header rules

TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
PROTECTED = [
    b"authorization", b"host", b"connection", b"transfer-encoding", b"content-length", b"via", b"cookie",
    b"te", b"upgrade", b"proxy-authorization", b"x-pleo-tenant", b"expect", b"trailer", b"forwarded",
]  # fmt: skip


@st.composite
def respelt(draw: st.DrawFn) -> bytes:
    """A protected name in any letter case, with underscores, or with a letter too many."""
    name = draw(st.sampled_from(PROTECTED)).decode()
    spelt = "".join(draw(st.sampled_from((char, char.upper(), char.replace("-", "_")))) for char in name)
    return (draw(st.sampled_from(("", "", "", "x", "_"))) + spelt).encode()


NAMES = respelt() | st.text(TCHAR, min_size=1, max_size=12).map(str.encode)
LISTS = st.lists(NAMES | st.sampled_from([b"", b" ", b"close", b"keep-alive", b"\t"]), max_size=5).map(
    b",".join
)
VALUES = st.binary(max_size=20).map(
    lambda value: value.translate(None, bytes(range(9)) + bytes(range(10, 32)) + b"\x7f")
)
FIELDS = st.lists(
    st.tuples(st.just(b"Connection") | respelt(), LISTS) | st.tuples(NAMES, VALUES), max_size=12
)
UPSTREAM = Origin("https", "external.pleo.io", 443)


@settings(max_examples=200)
@given(fields=FIELDS, chunked=st.booleans())
def test_no_fields_make_another_request(fields: headers.Headers, *, chunked: bool) -> None:
    """Whatever fields come, what goes up is one request with our Host, our credential and one framing."""
    # The framing of what came is settled before: there is at most one length, and none beside chunks.
    framing = {b"content-length", b"transfer-encoding"}
    fields = [field for field in fields if field[0].lower() not in framing]
    fields += [(b"Transfer-Encoding", b"chunked")] if chunked else [(b"Content-Length", b"5")]
    cleaned = headers.for_upstream(fields, host=UPSTREAM.authority.encode(), version=b"1.1")
    head = b"POST /v1/x HTTP/1.1\r\n" + headers.inject(headers.lines(cleaned), Secret("at-1"))
    head += b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"
    reader = Reader("request")
    reader.feed(head + (b"5\r\nhello\r\n0\r\n\r\n" if chunked else b"hello"))
    (request,) = reader.done
    assert not reader.rest
    assert request.body == b"hello"
    assert request.values(b"host") == [b"external.pleo.io"]
    plain = [(name.lower().replace(b"_", b"-"), value) for name, value in request.fields]
    assert [value for name, value in plain if name == b"authorization"] == [b"Bearer at-1"]
    assert [name for name, _ in plain].count(b"content-length") == (not chunked)
    gone = {b"connection", b"te", b"upgrade", b"trailer", b"cookie", b"x-pleo-tenant", b"proxy-authorization"}
    assert not [name for name, _ in plain if name in gone]


@given(FIELDS, st.sampled_from([b"\r\n", b"\n", b"\r\nAuthorization: Bearer mine"]), st.data())
def test_a_line_break_never_gets_into_a_head(
    fields: headers.Headers, broken: bytes, data: st.DataObject
) -> None:
    """Even if a line break got as far as here, no head would be composed of it."""
    place = data.draw(st.integers(0, len(fields)))
    with_break = [*fields[:place], (b"X-Bad", b"a" + broken + b"b"), *fields[place:]]
    with pytest.raises(ValueError, match="line break"):
        headers.lines(with_break)
