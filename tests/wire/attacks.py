"""The catalogue of requests that must not get through as they are.

Each is refused, or made harmless as RFC 9112 asks. What counts is what arrives upstream: ``UP`` stands for
the upstream's authority in the heads that may arrive, and no others may.
"""

from __future__ import annotations

from dataclasses import dataclass

UP = b"UPSTREAM"
SMUGGLED = b"GET /acme/v1/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Smuggled: 1\r\n\r\n"
"""A request that an attacker hides in another; it is never to arrive as one of its own."""


@dataclass(frozen=True)
class Outcome:
    """What the caller and the upstream may get."""

    statuses: tuple[int, ...]
    arrives: tuple[tuple[bytes, bytes], ...] = ()
    """Heads and bodies of the whole requests that arrive, in order."""
    closes: bool = True


@dataclass(frozen=True)
class Attack:
    """Bytes of a caller, and the outcomes of which one must come about."""

    data: bytes
    outcomes: tuple[Outcome, ...]


def asked(*lines: bytes, method: bytes = b"POST", target: bytes = b"/acme/v1/x", body: bytes = b"") -> bytes:
    """A request whose lines after ``Host`` are these, as they are."""
    return b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n%b" % (
        method,
        target,
        b"".join(line + b"\r\n" for line in lines),
        body,
    )


def chunked(body: bytes, *lines: bytes) -> bytes:
    """A request with a chunked body, given with its framing."""
    return asked(b"Transfer-Encoding: chunked", *lines, body=body)


def sent(
    *lines: bytes,
    method: bytes = b"POST",
    target: bytes = b"/v1/x",
    version: bytes = b"1.1",
    coding: bool = False,
) -> bytes:
    """The head that arrives upstream: the kept lines, what the proxy adds, and the framing of chunks."""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%bVia: %b pleo-proxy\r\nAuthorization: Bearer at-1\r\n%b\r\n" % (
        method,
        target,
        UP,
        b"".join(line + b"\r\n" for line in lines),
        version,
        b"Transfer-Encoding: chunked\r\n" if coding else b"",
    )


def refused(data: bytes, status: int = 400) -> Attack:
    """Answered with a problem document and a closed connection; nothing arrives."""
    return Attack(data, (Outcome((status,)),))


def declined(data: bytes, status: int) -> Attack:
    """Answered with a problem document; the request is whole, so that its connection may go on."""
    return Attack(data, (Outcome((status,), closes=False),))


def harmless(data: bytes, *arrives: tuple[bytes, bytes], closes: bool = False) -> Attack:
    """Taken for what it means by the RFC: exactly these requests arrive."""
    return Attack(data, (Outcome((200,) * len(arrives), arrives, closes=closes),))


def served_then_refused(data: bytes, *arrives: tuple[bytes, bytes]) -> Attack:
    """The good beginning may be served, depending on how the bytes come; what follows is refused."""
    return Attack(data, (Outcome((*(200,) * len(arrives), 400), arrives), Outcome((400,))))


def last_of_its_connection(data: bytes, arrives: tuple[bytes, bytes]) -> Attack:
    """Served or refused, depending on how the bytes come; what follows is not looked at."""
    return Attack(data, (Outcome((200,), (arrives,)), Outcome((400,))))


def get(line: bytes, *lines: bytes) -> bytes:
    """A request without body whose first line is given."""
    return b"\r\n".join((line, *lines, b"", b""))


HOST = b"Host: 127.0.0.1"
LINE = b"GET /acme/v1/x HTTP/1.1"
GET_X = sent(method=b"GET")
HIDDEN_IN_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)

_LENGTHS_AND_CODINGS: dict[str, Attack] = {
    "cl.te": refused(
        asked(
            b"Content-Length: %d" % (5 + len(SMUGGLED)),
            b"Transfer-Encoding: chunked",
            body=b"0\r\n\r\n" + SMUGGLED,
        )
    ),
    "te.cl": refused(asked(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=HIDDEN_IN_CHUNK)),
    "te.cl-zero": refused(asked(b"Transfer-Encoding: chunked", b"Content-Length: 0", body=HIDDEN_IN_CHUNK)),
    "te.te-twice": refused(chunked(HIDDEN_IN_CHUNK, b"Transfer-Encoding: chunked")),
    "te.te-identity": refused(chunked(HIDDEN_IN_CHUNK, b"Transfer-Encoding: identity")),
    "te.te-unknown-first": refused(asked(b"Transfer-Encoding: x", b"Transfer-encoding: chunked")),
    "te.te-unknown-second": refused(chunked(b"0\r\n\r\n" + SMUGGLED, b"Transfer-Encoding: cow")),
    "te-odd-case": harmless(
        asked(b"tRANSFER-eNCODING: cHuNkEd", body=HIDDEN_IN_CHUNK), (sent(coding=True), SMUGGLED)
    ),
    "te-tab-before-value": harmless(
        asked(b"Transfer-Encoding:\tchunked", body=HIDDEN_IN_CHUNK), (sent(coding=True), SMUGGLED)
    ),
    "te-space-after-value": harmless(
        asked(b"Transfer-Encoding: chunked \t", body=HIDDEN_IN_CHUNK), (sent(coding=True), SMUGGLED)
    ),
    "te-vertical-tab": refused(asked(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-form-feed": refused(asked(b"Transfer-Encoding: chunked\x0c", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-nul": refused(asked(b"Transfer-Encoding: chunked\x00", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-no-break-space": refused(asked(b"Transfer-Encoding: chunked\xa0", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-space-before-colon": refused(asked(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-tab-before-colon": refused(asked(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-space-before-name": refused(asked(b" Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-folded": refused(asked(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-identity": refused(asked(b"Transfer-Encoding: identity", body=SMUGGLED)),
    "te-identity-and-length": refused(asked(b"Transfer-Encoding: identity", b"Content-Length: 0")),
    "te-chunked-identity": refused(asked(b"Transfer-Encoding: chunked, identity", body=HIDDEN_IN_CHUNK)),
    "te-identity-chunked": refused(asked(b"Transfer-Encoding: identity, chunked", body=HIDDEN_IN_CHUNK)),
    "te-gzip-chunked": refused(asked(b"Transfer-Encoding: gzip, chunked", body=HIDDEN_IN_CHUNK)),
    "te-chunked-gzip": refused(asked(b"Transfer-Encoding: chunked, gzip", body=HIDDEN_IN_CHUNK)),
    "te-chunked-chunked": refused(asked(b"Transfer-Encoding: chunked, chunked", body=HIDDEN_IN_CHUNK)),
    "te-comma-first": refused(asked(b"Transfer-Encoding: ,chunked", body=HIDDEN_IN_CHUNK)),
    "te-comma-last": refused(asked(b"Transfer-Encoding: chunked,", body=HIDDEN_IN_CHUNK)),
    "te-parameter": refused(asked(b"Transfer-Encoding: chunked;q=1", body=HIDDEN_IN_CHUNK)),
    "te-quoted": refused(asked(b'Transfer-Encoding: "chunked"', body=HIDDEN_IN_CHUNK)),
    "te-letter-before": refused(asked(b"Transfer-Encoding: xchunked", body=HIDDEN_IN_CHUNK)),
    "te-letter-after": refused(asked(b"Transfer-Encoding: chunkedd", body=HIDDEN_IN_CHUNK)),
    "te-two-words": refused(asked(b"Transfer-Encoding: chun ked", body=HIDDEN_IN_CHUNK)),
    "te-empty": refused(asked(b"Transfer-Encoding:", body=HIDDEN_IN_CHUNK)),
    "te-empty-and-length": refused(
        asked(b"Transfer-Encoding: ", b"Content-Length: 5", body=b"hello" + SMUGGLED)
    ),
    "te-in-http-1.0": refused(
        b"POST /acme/v1/x HTTP/1.0\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN_IN_CHUNK
    ),
    "te-in-http-1.0-kept-alive": refused(
        b"POST /acme/v1/x HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED
    ),
    "te-behind-bare-lf": refused(asked(b"X: y\nTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-behind-bare-cr": refused(asked(b"X: y\rTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED)),
    "te-with-underscore": harmless(
        asked(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
        (sent(b"Content-Length: 5"), b"0\r\n\r\n"),
    ),
    "te-of-a-get": harmless(
        asked(b"Transfer-Encoding: chunked", method=b"GET", body=HIDDEN_IN_CHUNK),
        (sent(method=b"GET", coding=True), SMUGGLED),
    ),
    "te-named-by-connection": harmless(
        asked(b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked", body=HIDDEN_IN_CHUNK),
        (sent(coding=True), SMUGGLED),
    ),
    "cl-twice-differing": refused(asked(b"Content-Length: 5", b"Content-Length: 0", body=b"hello")),
    "cl-twice-the-same": refused(asked(b"Content-Length: 5", b"content-length: 5", body=b"hello")),
    "cl-list": refused(asked(b"Content-Length: 5, 5", body=b"hello")),
    "cl-list-differing": refused(asked(b"Content-Length: 5, 0", body=b"hello" + SMUGGLED)),
    "cl-plus": refused(asked(b"Content-Length: +5", body=b"hello")),
    "cl-minus": refused(asked(b"Content-Length: -5", body=b"hello")),
    "cl-minus-zero": refused(asked(b"Content-Length: -0", body=SMUGGLED)),
    "cl-space-within": refused(asked(b"Content-Length: 1 0", body=b"hello" * 2)),
    "cl-hexadecimal": refused(asked(b"Content-Length: 0x5", body=b"hello")),
    "cl-hexadecimal-digits": refused(asked(b"Content-Length: a", body=b"hello" * 2)),
    "cl-underscore-within": refused(asked(b"Content-Length: 1_0", body=b"hello" * 2)),
    "cl-fraction": refused(asked(b"Content-Length: 5.0", body=b"hello")),
    "cl-exponent": refused(asked(b"Content-Length: 5e0", body=b"hello")),
    "cl-quoted": refused(asked(b'Content-Length: "5"', body=b"hello")),
    "cl-empty": refused(asked(b"Content-Length:", body=SMUGGLED)),
    "cl-nul": refused(asked(b"Content-Length: 5\x00", body=b"hello")),
    "cl-other-digits": refused(asked("Content-Length: \u0665".encode(), body=b"hello")),
    "cl-2-to-the-63": refused(asked(b"Content-Length: 9223372036854775808", body=SMUGGLED), 400),
    "cl-largest-of-64-bits": refused(asked(b"Content-Length: 18446744073709551615", body=SMUGGLED)),
    "cl-overflow": refused(asked(b"Content-Length: 18446744073709551616", body=SMUGGLED)),
    "cl-overflow-to-five": refused(asked(b"Content-Length: 18446744073709551621", body=b"hello" + SMUGGLED)),
    "cl-of-many-digits": refused(asked(b"Content-Length: " + b"9" * 400, body=SMUGGLED)),
    "cl-over-the-limit": refused(asked(b"Content-Length: 99999999999", body=SMUGGLED), 413),
    "cl-leading-zeros": harmless(
        asked(b"Content-Length: 0005", body=b"hello"), (sent(b"Content-Length: 0005"), b"hello")
    ),
    "cl-folded": refused(asked(b"Content-Length: 5\r\n 0", body=b"hello")),
    "cl-space-before-colon": refused(asked(b"Content-Length : 5", body=b"hello")),
    "cl-with-underscore": harmless(
        asked(b"Content_Length: 99", b"Content-Length: 5", body=b"hello"),
        (sent(b"Content-Length: 5"), b"hello"),
    ),
    "cl-named-by-connection": harmless(
        asked(b"Connection: Content-Length", b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),
        (sent(b"Content-Length: %d" % len(SMUGGLED)), SMUGGLED),
    ),
    "cl-of-a-get-that-hides-a-request": harmless(
        asked(b"Content-Length: %d" % len(SMUGGLED), method=b"GET", body=SMUGGLED),
        (sent(b"Content-Length: %d" % len(SMUGGLED), method=b"GET"), SMUGGLED),
    ),
    "cl-of-a-delete-that-hides-a-request": harmless(
        asked(b"Content-Length: %d" % len(SMUGGLED), method=b"DELETE", body=SMUGGLED),
        (sent(b"Content-Length: %d" % len(SMUGGLED), method=b"DELETE"), SMUGGLED),
    ),
    "cl-of-a-head-that-hides-a-request": harmless(
        asked(b"Content-Length: %d" % len(SMUGGLED), method=b"HEAD", body=SMUGGLED),
        (sent(b"Content-Length: %d" % len(SMUGGLED), method=b"HEAD"), SMUGGLED),
    ),
}

_CHUNKS: dict[str, Attack] = {
    "chunk-size-overflow": refused(chunked(b"10000000000000000\r\n" + SMUGGLED)),
    "chunk-size-overflow-to-zero": refused(chunked(b"10000000000000000\r\n\r\n" + SMUGGLED)),
    "chunk-size-largest": Attack(chunked(b"ffffffffffffffff\r\n" + SMUGGLED), (Outcome((), closes=False),)),
    "chunk-size-negative": refused(chunked(b"-5\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-plus": refused(chunked(b"+5\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-0x": refused(chunked(b"0x5\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-no-hexadecimal": refused(chunked(b"5g\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-space-before": refused(chunked(b" 5\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-space-after": refused(chunked(b"5 \r\nhello\r\n0\r\n\r\n")),
    "chunk-size-tab-after": refused(chunked(b"5\t\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-two-numbers": refused(chunked(b"5 0\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-underscore": refused(chunked(b"0_5\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-empty": refused(chunked(b"\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-empty-with-extension": refused(chunked(b";a=b\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-nul": refused(chunked(b"5\x00\r\nhello\r\n0\r\n\r\n")),
    "chunk-size-leading-zeros": harmless(
        chunked(b"0000000005\r\nhello\r\n0\r\n\r\n"), (sent(coding=True), b"hello")
    ),
    "chunk-size-ends-with-lf": refused(chunked(b"5\nhello\r\n0\r\n\r\n")),
    "chunk-size-ends-with-cr": refused(chunked(b"5\rhello\r\n0\r\n\r\n")),
    "chunk-extension": harmless(
        chunked(b'5;a=b;c="d;e"\r\nhello\r\n0;last\r\n\r\n'), (sent(coding=True), b"hello")
    ),
    "chunk-extension-with-lf": refused(chunked(b"5;a\nhello\r\n0\r\n\r\n" + SMUGGLED)),
    "chunk-extension-with-cr": refused(chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n" + SMUGGLED)),
    "chunk-extension-quoted-line-break": refused(chunked(b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n')),
    "chunk-extension-nul": refused(chunked(b"5;a\x00b\r\nhello\r\n0\r\n\r\n")),
    "chunk-extension-lf-before-end": refused(chunked(b"2;\nxx\r\n0\r\n\r\n" + SMUGGLED)),
    "chunk-data-too-long": refused(chunked(b"5\r\nhello!\r\n0\r\n\r\n")),
    "chunk-data-without-crlf": refused(chunked(b"5\r\nhello0\r\n\r\n")),
    "chunk-data-ends-with-lf": refused(chunked(b"5\r\nhello\n0\r\n\r\n")),
    "chunk-data-ends-with-cr": refused(chunked(b"5\r\nhello\r0\r\n\r\n")),
    "chunk-data-ends-with-two-other-bytes": refused(chunked(b"5\r\nhelloXX0\r\n\r\n" + SMUGGLED)),
    "chunk-last-without-empty-line": refused(chunked(b"5\r\nhello\r\n0\r\n" + SMUGGLED)),
    "chunk-last-ends-with-lf": refused(chunked(b"5\r\nhello\r\n0\n\n" + SMUGGLED)),
    "chunk-trailer-that-is-no-field": refused(chunked(b"5\r\nhello\r\n0\r\nno field\r\n\r\n")),
    "chunk-trailer-with-space-before-colon": refused(chunked(b"0\r\nX : y\r\n\r\n")),
    "chunk-trailer-folded": refused(chunked(b"0\r\nX: y\r\n z\r\n\r\n")),
    "chunk-trailer-with-bare-lf": refused(chunked(b"0\r\nX: y\nContent-Length: 5\r\n\r\n")),
    "chunk-trailer-with-nul": refused(chunked(b"0\r\nX: \x00\r\n\r\n")),
}

_TRAILER_FIELDS = {
    "host": b"Host: evil.example",
    "transfer-encoding": b"Transfer-Encoding: chunked",
    "content-length": b"Content-Length: 5",
    "authorization": b"Authorization: Bearer mine",
    "authorization-with-underscore": b"Author_ization: Bearer mine",
    "tenant": b"X-Pleo-Tenant: globex",
    "connection": b"Connection: close",
    "upgrade": b"Upgrade: h2c",
    "cookie": b"Cookie: a=b",
}
"""Trailers that would mean something in a head: dropped with all trailers, or the request is refused."""


def trailing(line: bytes) -> Attack:
    """A trailer that must not get into a head, neither of its own request nor of the honest next one."""
    second = get(b"GET /acme/v1/second HTTP/1.1", HOST)
    data = chunked(b"5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n" + second)
    return harmless(data, (sent(coding=True), b"hello"), (sent(method=b"GET", target=b"/v1/second"), b""))


_LINES: dict[str, Attack] = {
    "lf-ends-all-lines": refused(LINE + b"\n" + HOST + b"\n\n"),
    "lf-ends-the-request-line": refused(LINE + b"\n" + HOST + b"\r\n\r\n"),
    "lf-ends-a-field": refused(LINE + b"\r\n" + HOST + b"\nX: y\r\n\r\n"),
    "lf-ends-the-head": refused(LINE + b"\r\n" + HOST + b"\r\n\n" + SMUGGLED),
    "cr-ends-all-lines": refused(LINE + b"\r" + HOST + b"\r\r" + SMUGGLED),
    "cr-ends-a-field": refused(LINE + b"\r\n" + HOST + b"\rX: y\r\n\r\n"),
    "cr-in-a-value": refused(get(LINE, HOST, b"X: a\rb")),
    "cr-cr-lf": refused(get(LINE, HOST, b"X: a\r")),
    "cr-in-a-name": refused(get(LINE, HOST, b"X\rY: a")),
    "lf-in-a-name": refused(get(LINE, HOST, b"X\nY: a")),
    "fold-with-space": refused(get(LINE, HOST, b"X: a", b" b")),
    "fold-with-tab": refused(get(LINE, HOST, b"X: a", b"\tb")),
    "fold-of-the-first-field": refused(get(LINE, b" X: a", HOST)),
    "fold-that-hides-authorization": refused(get(LINE, HOST, b"X: a", b" Authorization: Bearer mine")),
    "space-before-colon": refused(get(LINE, HOST, b"X : a")),
    "space-within-a-name": refused(get(LINE, HOST, b"X Y: a")),
    "empty-name": refused(get(LINE, HOST, b": a")),
    "no-colon": refused(get(LINE, HOST, b"X-without")),
    "nul-in-a-name": refused(get(LINE, HOST, b"X\x00Y: a")),
    "control-byte-in-a-name": refused(get(LINE, HOST, b"X\x01Y: a")),
    "high-byte-in-a-name": refused(get(LINE, HOST, b"X\xe9: a")),
    "separator-in-a-name": refused(get(LINE, HOST, b"X(Y): a")),
    "nul-in-a-value": refused(get(LINE, HOST, b"X: a\x00b")),
    "control-byte-in-a-value": refused(get(LINE, HOST, b"X: a\x01b")),
    "delete-in-a-value": refused(get(LINE, HOST, b"X: a\x7fb")),
    "vertical-tab-in-a-value": refused(get(LINE, HOST, b"X: a\x0bb")),
    "escape-in-a-value": refused(get(LINE, HOST, b"X: \x1b[31m")),
}


def target(raw: bytes) -> bytes:
    """A GET for ``raw``."""
    return get(b"GET %b HTTP/1.1" % raw, HOST)


_TARGETS: dict[str, Attack] = {
    "target-nul": refused(target(b"/acme/v1/\x00")),
    "target-control-byte": refused(target(b"/acme/v1/\x01")),
    "target-delete": refused(target(b"/acme/v1/\x7f")),
    "target-tab": refused(target(b"/acme/v1/\tx")),
    "target-high-byte": refused(target(b"/acme/v1/\xff")),
    "target-space": refused(target(b"/acme/v1/a b")),
    "target-encoded-line-break": refused(target(b"/acme/v1/x%0d%0aX:%20y")),
    "target-encoded-line-break-in-query": harmless(
        target(b"/acme/v1/x?a=%0d%0aAuthorization:%20Bearer%20mine"),
        (sent(method=b"GET", target=b"/v1/x?a=%0d%0aAuthorization:%20Bearer%20mine"), b""),
    ),
    "target-encoded-nul": refused(target(b"/acme/v1/%00")),
    "target-fragment": refused(target(b"/acme/v1/x#y")),
    "target-backslash": refused(target(b"/acme\\v1\\..\\x")),
    "target-dot-segments": refused(target(b"/acme/../globex/v1/x")),
    "target-encoded-dot-segments": refused(target(b"/acme/%2e%2e/globex/v1/x")),
    "target-encoded-slash": refused(target(b"/acme%2fv1/x")),
    "target-encoded-twice": refused(target(b"/acme/%252e%252e/x")),
    "target-double-slash": harmless(
        target(b"/acme//evil.example/v1/x"), (sent(method=b"GET", target=b"//evil.example/v1/x"), b"")
    ),
    "target-relative": refused(target(b"acme/v1/x")),
    "target-asterisk": refused(target(b"*")),
    "target-asterisk-of-options": refused(get(b"OPTIONS * HTTP/1.1", HOST)),
    "target-authority": refused(target(b"127.0.0.1:80")),
    "target-too-long": declined(target(b"/acme/v1/" + b"x" * 8200), 414),
    "target-far-too-long": refused(target(b"/acme/v1/" + b"x" * 200_000), 414),
    "absolute-form-of-another-host": declined(target(b"http://evil.example/acme/v1/x"), 421),
    "absolute-form-beside-another-host": harmless(
        get(b"GET http://127.0.0.1/acme/v1/x HTTP/1.1", b"Host: evil.example"), (GET_X, b"")
    ),
    "absolute-form-with-userinfo": refused(target(b"http://127.0.0.1@evil.example/acme/v1/x")),
    "absolute-form-with-bad-port": refused(target(b"http://127.0.0.1:x/acme/v1/x")),
    "absolute-form-with-escape-in-host": refused(target(b"http://127.0.0.1%00.evil.example/acme/v1/x")),
    "absolute-form-of-another-scheme": refused(target(b"ftp://127.0.0.1/acme/v1/x")),
    "absolute-form-without-host": refused(target(b"http:///acme/v1/x")),
    "connect-authority": refused(get(b"CONNECT evil.example:443 HTTP/1.1", HOST) + SMUGGLED),
    "connect-origin-form": refused(get(b"CONNECT /acme/v1/x HTTP/1.1", HOST) + SMUGGLED),
    "trace": declined(get(b"TRACE /acme/v1/x HTTP/1.1", HOST, b"Max-Forwards: 0"), 403),
    "delete-of-the-installation": declined(get(b"DELETE /acme//v1//installations/me HTTP/1.1", HOST), 403),
    "delete-of-the-installation-behind-a-host": declined(
        get(b"DELETE /acme//x.example/v1/installations/me HTTP/1.1", HOST), 403
    ),
}

_FIRST_LINES: dict[str, Attack] = {
    "line-of-http-0.9": refused(b"GET /acme/v1/x\r\n\r\n"),
    "line-with-version-0.9": refused(get(b"GET /acme/v1/x HTTP/0.9", HOST)),
    "line-with-version-1.2": refused(get(b"GET /acme/v1/x HTTP/1.2", HOST)),
    "line-with-version-1.10": refused(get(b"GET /acme/v1/x HTTP/1.10", HOST)),
    "line-with-version-2.0": refused(get(b"GET /acme/v1/x HTTP/2.0", HOST)),
    "line-with-version-2": refused(get(b"GET /acme/v1/x HTTP/2", HOST)),
    "line-with-version-in-lower-case": refused(get(b"GET /acme/v1/x http/1.1", HOST)),
    "line-with-version-with-space": refused(get(b"GET /acme/v1/x HTTP/ 1.1", HOST)),
    "line-with-letters-after-version": refused(get(b"GET /acme/v1/x HTTP/1.1x", HOST)),
    "line-with-space-at-end": refused(get(b"GET /acme/v1/x HTTP/1.1 ", HOST)),
    "line-with-tabs": refused(get(b"GET\t/acme/v1/x\tHTTP/1.1", HOST)),
    "line-with-space-at-start": refused(get(b" GET /acme/v1/x HTTP/1.1", HOST)),
    "line-with-two-spaces": refused(get(b"GET  /acme/v1/x HTTP/1.1", HOST)),
    "line-after-empty-lines": harmless(b"\r\n\r\n" + get(LINE, HOST), (GET_X, b"")),
    "line-after-nul": refused(b"\x00" + get(LINE, HOST)),
    "method-in-lower-case": refused(get(b"get /acme/v1/x HTTP/1.1", HOST)),
    "method-unknown": harmless(
        get(b"FROBNICATE /acme/v1/x HTTP/1.1", HOST), (sent(method=b"FROBNICATE"), b"")
    ),
    "method-with-nul": refused(get(b"GE\x00T /acme/v1/x HTTP/1.1", HOST)),
    "method-with-letters-after": harmless(
        get(b"GETX /acme/v1/x HTTP/1.1", HOST), (sent(method=b"GETX"), b"")
    ),
    "method-missing": refused(get(b"/acme/v1/x HTTP/1.1", HOST)),
    "method-very-long": refused(get(b"G" * 100_000 + b" /acme/v1/x HTTP/1.1", HOST)),
    "method-of-streaming": harmless(
        get(b"DESCRIBE /acme/v1/x HTTP/1.1", HOST), (sent(method=b"DESCRIBE"), b"")
    ),
    "preface-of-http-2": refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    "tls-client-hello": refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)),
    "socks-5": refused(b"\x05\x01\x00\r\n\r\n"),
    "proxy-protocol": refused(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + get(LINE, HOST)),
}

_HOSTS: dict[str, Attack] = {
    "host-missing": refused(get(LINE)),
    "host-twice-differing": refused(get(LINE, HOST, b"Host: evil.example")),
    "host-twice-the-same": refused(get(LINE, HOST, HOST)),
    "host-empty": refused(get(LINE, b"Host:")),
    "host-with-space": refused(get(LINE, b"Host: 127.0.0.1 evil.example")),
    "host-list": refused(get(LINE, b"Host: 127.0.0.1,evil.example")),
    "host-with-userinfo": refused(get(LINE, b"Host: evil.example@127.0.0.1")),
    "host-with-path": refused(get(LINE, b"Host: 127.0.0.1/evil")),
    "host-with-bad-port": refused(get(LINE, b"Host: 127.0.0.1:80:80")),
    "host-with-high-byte": refused(get(LINE, b"Host: 127.0.0.1\xff")),
    "host-with-space-before-colon": refused(get(LINE, b"Host : 127.0.0.1")),
    "host-folded": refused(get(LINE, b"Host:", b" 127.0.0.1")),
    "host-of-somebody-else": declined(get(LINE, b"Host: evil.example"), 421),
    "host-with-underscore": harmless(
        get(LINE, HOST, b"Ho_st: evil.example"), (sent(b"Ho_st: evil.example", method=b"GET"), b"")
    ),
    "host-named-by-connection": harmless(get(LINE, HOST, b"Connection: Host, Via"), (GET_X, b"")),
    "host-of-http-1.0-missing": harmless(
        b"GET /acme/v1/x HTTP/1.0\r\n\r\n", (sent(method=b"GET", version=b"1.0"), b""), closes=True
    ),
}

_FIELDS: dict[str, Attack] = {
    "authorization": harmless(get(LINE, HOST, b"Authorization: Bearer mine"), (GET_X, b"")),
    "authorization-twice": harmless(
        get(LINE, HOST, b"Authorization: Bearer mine", b"authorization: Basic eA=="), (GET_X, b"")
    ),
    "authorization-of-a-proxy": harmless(get(LINE, HOST, b"Proxy-Authorization: Basic eA=="), (GET_X, b"")),
    "authorization-of-a-proxy-with-underscore": harmless(
        get(LINE, HOST, b"Proxy_Authorization: Basic eA=="), (GET_X, b"")
    ),
    "authorization-named-by-connection": harmless(
        get(LINE, HOST, b"Connection: Authorization", b"Authorization: Bearer mine"), (GET_X, b"")
    ),
    "connection-names-everything": harmless(
        get(
            LINE,
            HOST,
            b"Connection: keep-alive, Authorization, Host, Via, X-A, Content-Length, Upgrade",
            b"X-A: 1",
            b"Keep-Alive: timeout=9",
            b"X-B: 2",
        ),
        (sent(b"X-B: 2", method=b"GET"), b""),
    ),
    "tenant-with-underscores": harmless(get(LINE, HOST, b"X_Pleo_Tenant: globex"), (GET_X, b"")),
    "forwarded-fields": harmless(
        get(LINE, HOST, b"X-Forwarded-Host: evil.example", b"X_Forwarded_For: ::1", b"Forwarded: for=::1"),
        (GET_X, b""),
    ),
    "method-override": harmless(
        get(LINE, HOST, b"X-HTTP-Method-Override: DELETE", b"X_Method_Override: DELETE"), (GET_X, b"")
    ),
    "cookie": harmless(get(LINE, HOST, b"Cookie: session=1", b"cookie: b=2"), (GET_X, b"")),
    "te-trailers": harmless(get(LINE, HOST, b"TE: trailers", b"Trailer: Authorization"), (GET_X, b"")),
    "expect-without-body": harmless(get(LINE, HOST, b"Expect: 100-continue"), (GET_X, b"")),
    "field-too-long": refused(get(LINE, HOST, b"X: " + b"y" * 70_000), 431),
    "name-too-long": refused(get(LINE, HOST, b"X" * 70_000 + b": y"), 431),
    "fields-too-many": refused(get(LINE, HOST, *[b"X-%d: y" % number for number in range(200)]), 431),
    "head-too-large": declined(
        get(LINE, HOST, *[b"X-%d: %b" % (number, b"y" * 9000) for number in range(8)]), 431
    ),
}

_SEQUENCES: dict[str, Attack] = {
    "upgrade-h2c-and-preface": harmless(
        get(LINE, HOST, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
        + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        (GET_X, b""),
        closes=True,
    ),
    "upgrade-h2c-and-a-request": harmless(
        get(LINE, HOST, b"Connection: Upgrade", b"Upgrade: h2c") + SMUGGLED, (GET_X, b""), closes=True
    ),
    "upgrade-websocket-and-frames": harmless(
        get(LINE, HOST, b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
        + b"\x81\x85\x00\x00\x00\x00hello",
        (sent(b"Sec-WebSocket-Version: 13", method=b"GET"), b""),
        closes=True,
    ),
    "upgrade-websocket-of-old": harmless(
        get(LINE, HOST, b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key1: 4 @1")
        + b"12345678",
        (sent(b"Sec-WebSocket-Key1: 4 @1", method=b"GET"), b""),
        closes=True,
    ),
    "upgrade-with-body-that-hides-a-request": harmless(
        asked(
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Content-Length: %d" % len(SMUGGLED),
            body=SMUGGLED,
        ),
        (sent(b"Content-Length: %d" % len(SMUGGLED)), SMUGGLED),
        closes=True,
    ),
    "garbage-after-a-request": served_then_refused(
        get(LINE, HOST) + b"\x00\x01garbage\r\n\r\n", (GET_X, b"")
    ),
    "garbage-after-a-body": served_then_refused(
        asked(b"Content-Length: 5", body=b"hello!\r\n\r\n" + SMUGGLED), (sent(b"Content-Length: 5"), b"hello")
    ),
    "request-after-a-refused-one": refused(target(b"/acme/../x") + SMUGGLED),
    "request-after-a-malformed-one": refused(get(LINE, HOST, b"X : y") + SMUGGLED),
    "request-after-connection-close": last_of_its_connection(
        get(LINE, HOST, b"Connection: close") + SMUGGLED, (GET_X, b"")
    ),
    "request-after-http-1.0": last_of_its_connection(
        b"GET /acme/v1/x HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n" + SMUGGLED,
        (sent(method=b"GET", version=b"1.0"), b""),
    ),
    "request-in-an-unread-body": Attack(
        asked(b"Content-Length: %d" % len(SMUGGLED), target=b"/nobody/v1/x", body=SMUGGLED),
        (Outcome((404,)), Outcome((404,), closes=False)),
    ),
    "request-in-an-unread-chunk": Attack(
        asked(b"Transfer-Encoding: chunked", target=b"/nobody/v1/x", body=HIDDEN_IN_CHUNK),
        (Outcome((404,)), Outcome((404,), closes=False)),
    ),
    "request-in-the-body-of-a-refused-expectation": Attack(
        asked(
            b"Expect: 100-continue",
            b"Content-Length: %d" % len(SMUGGLED),
            target=b"/nobody/v1/x",
            body=SMUGGLED,
        ),
        (Outcome((404,)), Outcome((404,), closes=False)),
    ),
}

ATTACKS: dict[str, Attack] = {
    **_LENGTHS_AND_CODINGS,
    **_CHUNKS,
    **{f"chunk-trailer-{name}": trailing(line) for name, line in _TRAILER_FIELDS.items()},
    **_LINES,
    **_TARGETS,
    **_FIRST_LINES,
    **_HOSTS,
    **_FIELDS,
    **_SEQUENCES,
}
