"""What arrives through the proxy is what arrives without it, apart from the fields that are named here.

``WIRE_CASES`` is the number of cases of each kind; a case that differs names its seed, and ``WIRE_SEED`` plays
that one again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from random import Random

from tests.wire import generating
from tests.wire.messages import Field, Message
from tests.wire.recorder import Recorder, Reply, accepted
from tests.wire.theatre import Heard, Theatre, answers, converse, on_uvloop, theatre, until_end

CASES = int(os.environ.get("WIRE_CASES", "2500"))
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
    recorder: Recorder, address: tuple[str, int], batch: list[generating.Asked], way: str
) -> list[Message]:
    """What the recorder gets of requests that are sent over one connection to ``address``."""
    recorder.requests.clear()
    data = b"".join(asked.data for asked in batch)
    if way == "byte by byte" and len(data) < 4000:
        pieces = [data[at : at + 1] for at in range(len(data))]
    elif way == "in odd pieces":
        pieces = [data[at : at + 1447] for at in range(0, len(data), 1447)]
    else:
        pieces = [data]
    heard = await converse(
        address,
        pieces,
        answers(len(batch)) if batch[-1].keeps else until_end,
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
    )


async def compare_requests(scene: Theatre, direct: Recorder, seed: str, largest: int = 200_000) -> None:
    """Send a batch of requests both ways and compare what arrives."""
    random = Random(seed)
    size = random.choice((1, 1, 1, 2, 3, 6)) if largest <= 200_000 else 1
    closes = random.random() < 0.2
    way = random.choice(("whole", "whole", "byte by byte", "in odd pieces"))
    batch: list[generating.Asked] = []
    for number in range(size):
        last = number == size - 1
        batch.append(generating.request(random, number, largest=largest, closes=closes and last))
    plain = await forwarded(direct, direct.address, batch, way)
    proxied = await forwarded(scene.recorder, scene.address, batch, way)
    assert len(plain) == len(proxied) == len(batch)
    for asked, one, other in zip(batch, plain, proxied, strict=True):
        expected = expected_upstream(one, asked, scene.recorder.authority)
        assert (other.first[:2], other.fields, other.body) == expected, f"WIRE_SEED={seed}"
    scene.check()
