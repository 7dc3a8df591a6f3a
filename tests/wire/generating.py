"""Requests and answers, all of them valid, drawn from a seed: the same seed gives the same bytes."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from random import Random

from tests.wire.recorder import End, Reply

METHODS = (
    b"GET POST PUT PATCH DELETE HEAD OPTIONS QUERY PROPFIND PROPPATCH REPORT SEARCH MKCOL COPY MOVE LOCK"
    b" PURGE M-SEARCH LINK FROBNICATE VERSION-CONTROL"
).split()
"""Those of RFC 9110 that a proxy serves, extensions, and what is none yet."""

_SEGMENTS = (
    b"v1 v2-beta employees accounting-entries:search x;y=z a=b ~user caf%C3%A9 %E2%82%AC a%20b 100%25 a.b ..."
    b" - _ !$&'()*+,;= @ a:b:c %61 %3F%23 0"
).split()
_QUERIES = (
    b"a=1&a=2",
    b"",
    b"after=ABC2~=&limit=10",
    b"path=%2Fetc%2f..%2F",
    b"x=%zz&y=%",
    b"q=a?b/c:d@e;f,g",
    b"%00%0d%0a",
    b"..//../",
    b"caf%C3%A9=%E2%82%AC&+=+",
    b'[]{}|\\^`"<>',
)
_NAMES = (
    b"Accept accept-language X-Thing x-THING X-Odd~Name! User-Agent If-None-Match Range Content-Language Date"
    b" X_Underscore Referer Priority DNT Cache-Control Pragma X.Dots Via Warning"
).split()
_SINGLE = {b"user-agent"}
"""Fields that must not come twice."""
_VALUES = (
    b"",
    b"a",
    b"*/*",
    b'W/"abc", "d\\"ef"',
    b"two  spaces\tand a tab",
    b"caf\xc3\xa9",
    b"\xff\xfe\x80obs-text",
    b"=?utf-8?q?x?=",
    b"a,b,,c",
    b"(comment (nested)) ;x=y",
    b"bytes=0-1,-5",
    b"v" * 500,
)
DROPPED = {
    b"Authorization": b"Basic cGxwX2tleTo=",
    b"authorization": b"Bearer mine",
    b"Cookie": b"a=b; c=d",
    b"X-Forwarded-For": b"10.0.0.1",
    b"x_forwarded_proto": b"http",
    b"Forwarded": b"for=10.0.0.1",
    b"Keep-Alive": b"timeout=5",
    b"Proxy-Authorization": b"Basic eA==",
    b"Proxy-Connection": b"keep-alive",
    b"TE": b"trailers",
    b"Trailer": b"X-Sum",
    b"X-HTTP-Method-Override": b"DELETE",
    b"X_Pleo_Tenant": b"acme",
}
"""Fields that end at the proxy."""


@dataclass(frozen=True)
class Asked:
    """A request, and how its caller sends it."""

    data: bytes
    is_head: bool
    http_1_1: bool
    keeps: bool
    """The connection serves another request afterwards."""
    dropped: frozenset[bytes]
    """Lower-case names of fields in it that end at the proxy."""


def body(random: Random, largest: int) -> bytes:
    """Bytes of any kind; most bodies are short."""
    size = random.choice((0, 1, 2, 10, 100, 1000, 5000, 16384, 65535, 65536, 65537, 200_000))
    return random.randbytes(min(size, largest))


def in_chunks(random: Random, content: bytes, trailers: bytes = b"") -> bytes:
    """Chunked coding with chunks of odd sizes, sizes of odd spelling, and extensions."""
    parts = []
    at = 0
    while at < len(content):
        size = random.choice((1, 2, 7, 255, 4096, 65536, len(content)))
        piece = content[at : at + size]
        at += size
        spelt = random.choice((b"%x", b"%X", b"000%x")) % len(piece)
        extension = random.choice((b"",) * 5 + (b";a", b";a=b;c=d", b';q="x y;z"'))
        parts += [spelt, extension, b"\r\n", piece, b"\r\n"]
    return b"".join([*parts, random.choice((b"0", b"0", b"0000", b"0;end=1")), b"\r\n", trailers, b"\r\n"])


def target(random: Random) -> bytes:
    """An origin-form target; it never begins with the tenant's name."""
    segments = [random.choice(_SEGMENTS) for _ in range(random.randrange(5))]
    slash = random.choice((b"/",) * 8 + (b"//", b"///"))
    path = b"/v9" + b"".join(random.choice((b"/", b"/", slash)) + segment for segment in segments)
    path += random.choice((b"", b"", b"", b"/", b"//"))
    return path + random.choice((b"", b"?" + random.choice(_QUERIES)))


def fields(random: Random, most: int = 8) -> list[tuple[bytes, bytes]]:
    """End-to-end fields, with duplicates, odd letter case and odd values."""
    found: list[tuple[bytes, bytes]] = []
    for _ in range(random.randrange(most)):
        name = random.choice(_NAMES)
        name = random.choice((name, name, name.lower(), name.upper(), name.swapcase()))
        if name.lower() in _SINGLE and any(known.lower() == name.lower() for known, _ in found):
            continue
        if name.lower() == b"via":
            found.append((name, random.choice((b"1.1 other", b"1.0 fred, HTTP/2.0 p.example:80 (x)"))))
        else:
            found.append((name, random.choice(_VALUES)))
    return found


def lines(
    random: Random, found: list[tuple[bytes, bytes]], *, plain: frozenset[bytes] = frozenset()
) -> bytes:
    """Fields as lines, with white space as the grammar allows it, but none behind values of ``plain``."""
    return b"".join(
        b"%b:%b%b%b\r\n"
        % (
            name,
            random.choice((b" ", b" ", b" ", b"", b"\t", b"   ")),
            value,
            b"" if name.lower() in plain else random.choice((b"", b"", b" \t")),
        )
        for name, value in found
    )


def request(random: Random, number: int, *, size: int | None = None, closes: bool = False) -> Asked:
    """A request of the tenant acme that says by ``X-Case`` which one it is.

    :param size: bytes of its body, where that matters.
    :param closes: it asks for the end of the connection.
    """
    method = random.choice(METHODS)
    http_1_1 = random.random() < 0.85
    found = fields(random)
    dropped = {b"x-pleo-tenant"}
    for name in random.sample(sorted(DROPPED), random.choice((0, 0, 0, 1, 3))):
        found.append((name, DROPPED[name]))
        dropped.add(name.lower())
    named = random.random() < 0.1
    if named:
        found += [(b"X-Drop-Me", b"1"), (random.choice((b"Connection", b"connection")), b"x-drop-me, X-NONE")]
        dropped.add(b"x-drop-me")
    found += [(b"X-Case", b"%d" % number), (b"X-Pleo-Tenant", b"acme")]
    content: bytes | None = None
    if size is not None:
        content = random.randbytes(size)
    elif random.random() < 0.5:
        content = body(random, 200_000)
    chunked = content is not None and http_1_1 and random.random() < 0.5
    if content is not None:
        found.append(
            (
                random.choice((b"Transfer-Encoding", b"transfer-encoding")),
                random.choice((b"chunked", b"Chunked")),
            )
            if chunked
            else (random.choice((b"Content-Length", b"CONTENT-LENGTH")), b"%d" % len(content))
        )
    if closes and http_1_1:
        found.append((b"Connection", b"close"))
    if not closes and not http_1_1:
        found.append((b"Connection", b"keep-alive"))
    random.shuffle(found)
    host = [
        (random.choice((b"Host", b"hOST")), random.choice((b"127.0.0.1", b"localhost:80", b"[::1]:8080")))
    ]
    if http_1_1 or random.random() < 0.5:
        found = host + found if random.random() < 0.8 else found + host
    head = b"%b %b HTTP/1.%d\r\n%b\r\n" % (method, target(random), http_1_1, lines(random, found))
    trailers = random.choice((b"", b"", b"X-Sum: 1\r\nx-sum:2\r\n"))
    framed = b"" if content is None else in_chunks(random, content, trailers) if chunked else content
    return Asked(head + framed, method == b"HEAD", http_1_1, not closes, frozenset(dropped))


@dataclass(frozen=True)
class Answered:
    """An answer of the upstream, and what a caller of it must see."""

    reply: Reply
    content: bytes
    is_whole: bool
    """It is not broken off."""


_PLAIN = frozenset({b"transfer-encoding"})
"""httptools' parser takes a coding with white space behind it for another one, and the answer is refused."""
STATUSES = [status for status in range(200, 600) if status != 401]
"""All final statuses but the one on which the proxy acts."""
_REASONS = (b"OK", b"", b"Fine By Me", b"caf\xc3\xa9 \xff", b"Multiple  Spaces")
_ANSWER_FIELDS = (
    (b"Set-Cookie", b"a=1; Path=/"),
    (b"Set-Cookie", b"b=2"),
    (b"set-cookie", b""),
    (b"Content-Type", b"application/json; charset=utf-8"),
    (b"X-RateLimit-Remaining", b"0"),
    (b"Retry-After", b"7"),
    (b"ETag", b'W/"x"'),
    (b"X-Bytes", b"caf\xc3\xa9 \xff\x80"),
    (b"X-Empty", b""),
    (b"WWW-Authenticate", b'Bearer realm="x"'),
    (b"Location", b"https://elsewhere.example/a?b=%2F"),
    (b"Vary", b"*"),
    (b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
    (b"Keep-Alive", b"timeout=60"),
    (b"Server", b"x"),
)

_INTERIM = (b"",) * 6 + (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")


def answer(random: Random, *, is_head: bool) -> Answered:
    """An answer to a request, with every framing, whole or broken off."""
    status = random.choice((200, 200, 204, 304, random.choice(STATUSES), random.choice(STATUSES)))
    http_1_1 = random.random() < 0.9
    found = random.sample(_ANSWER_FIELDS, random.randrange(len(_ANSWER_FIELDS)))
    content = body(random, 300_000)
    if random.random() < 0.15:
        content = gzip.compress(content, 1)
        found.append((b"Content-Encoding", b"gzip"))
    framing = random.choice(
        ("length", "length", "chunks" if http_1_1 else "length", "chunks" if http_1_1 else "end", "end")
    )
    bodiless = is_head or status in (204, 304)
    framed = b"" if bodiless else content
    if framing == "length" and status != 204:
        found.append((random.choice((b"Content-Length", b"content-LENGTH")), b"%d" % len(content)))
    elif framing == "chunks" and status != 204:
        found.append((b"Transfer-Encoding", b"chunked"))
        trailers = random.choice((b"", b"", b"X-Sum: 1\r\nX-Sum: 2\r\n"))
        framed = b"" if bodiless else in_chunks(random, content, trailers)
    random.shuffle(found)
    ends = framing == "end" and not bodiless
    if ends and random.random() < 0.5:
        found.append((b"Connection", b"close"))
    head = b"HTTP/1.%d %d %b\r\n%b\r\n" % (
        http_1_1,
        status,
        random.choice(_REASONS),
        lines(random, found, plain=_PLAIN),
    )
    end: End = "close" if ends else random.choice(("stay", "stay", "stay", "close"))
    breaks = bool(framed) and not ends and random.random() < 0.15
    if breaks:
        framed = framed[: random.randrange(len(framed))]
        end = random.choice(("close", "reset"))
    return Answered(Reply(random.choice(_INTERIM) + head + framed, end), content, not breaks)
