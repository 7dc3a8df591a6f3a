"""Seeded damage to valid messages: close enough to the grammar to get deep into a parser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

_PIECES = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"\x00",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b" ",
    b"\t",
    b":",
    b": ",
    b";",
    b",",
    b"0",
    b"0\r\n\r\n",
    b"-1",
    b"+5",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Authorization: Bearer mine\r\n",
    b"Host: evil.example\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade, Authorization, Host\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b" folded\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"GET /acme/v1/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"CONNECT ",
    b"HEAD ",
    b"//",
    b"/../",
    b"%0d%0a",
    b"#",
)


def _flipped(random: Random, data: bytearray, at: int) -> None:
    data[at : at + 1] = bytes([data[at] ^ 1 << random.randrange(8)] if at < len(data) else [])


def _replaced(random: Random, data: bytearray, at: int) -> None:
    data[at : at + 1] = random.randbytes(1)


def _inserted(random: Random, data: bytearray, at: int) -> None:
    data[at:at] = random.choice(_PIECES)


def _overwritten(random: Random, data: bytearray, at: int) -> None:
    piece = random.choice(_PIECES)
    data[at : at + len(piece)] = piece


def _deleted(random: Random, data: bytearray, at: int) -> None:
    del data[at : at + random.choice((1, 1, 2, 5, 20))]


def _doubled(random: Random, data: bytearray, at: int) -> None:
    data[at:at] = data[at : at + random.choice((1, 2, 10, 60))]


def _line_moved(random: Random, data: bytearray, at: int) -> None:
    start = data.rfind(b"\r\n", 0, at) + 2
    end = data.find(b"\r\n", at) + 2
    if 1 < start < end:
        line = data[start:end]
        if random.random() < 0.5:
            del data[start:end]
        place = data.find(b"\r\n", random.randrange(len(data) + 1)) + 2
        data[place:place] = line


def _cut(_random: Random, data: bytearray, at: int) -> None:
    del data[at:]


_DAMAGES: Sequence[Callable[[Random, bytearray, int], None]] = (
    _flipped,
    _replaced,
    _inserted,
    _inserted,
    _inserted,
    _overwritten,
    _deleted,
    _doubled,
    _line_moved,
    _cut,
)


def mutated(random: Random, data: bytes) -> bytes:
    """``data`` with a few damages, most of them in its head or where pieces of its framing meet."""
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        if not result:
            break
        head = result.find(b"\r\n\r\n") + 4
        edges = [at for at in range(len(result)) if result[at] in b"\r\n:"] if len(result) < 5000 else []
        at = random.choice(
            (
                random.randrange(len(result)),
                random.randrange(min(head, len(result)) or 1),
                random.choice(edges) if edges else 0,
            )
        )
        random.choice(_DAMAGES)(random, result, at)
    return bytes(result)
