"""Where a body ends: which framings are understood, and chunks however they are cut."""

from __future__ import annotations

from itertools import pairwise

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import framing
from proxy.errors import TargetRefused
from proxy.framing import CHUNKED, Chunks, Counted, Framing
from proxy.headers import Fields, Headers

TE, CL = b"Transfer-Encoding", b"Content-Length"


def of(fields: Headers, *, http_1_1: bool = True) -> Framing:
    """The framing after a head with these fields."""
    return framing.of(Fields(fields), http_1_1)


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        pytest.param([], 0, id="no-body"),
        pytest.param([(CL, b"0")], 0, id="empty"),
        pytest.param([(CL, b"000")], 0, id="empty-with-zeros"),
        pytest.param([(CL, b"5")], 5, id="length"),
        pytest.param([(CL, b"0005")], 5, id="length-with-zeros"),
        pytest.param([(TE, b"chunked")], CHUNKED, id="chunked"),
        pytest.param([(b"tRANSFER-eNCODING", b"ChunKed")], CHUNKED, id="chunked-letter-case"),
    ],
)
def test_plain_framings_pass(fields: Headers, length: int) -> None:
    """A body with a length, one in chunks, and none at all are understood."""
    assert of(fields).length == length
    assert CHUNKED < 0, "it must be no length that a body can have"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([(TE, b"chunked"), (CL, b"5")], id="both"),
        pytest.param([(TE, b""), (CL, b"5")], id="both-with-empty-coding"),
        pytest.param([(TE, b"chunked"), (TE, b"chunked")], id="chunked-twice"),
        pytest.param([(TE, b"chunked"), (TE, b"identity")], id="another-coding-beside"),
        pytest.param([(TE, b"gzip, chunked")], id="another-coding-first"),
        pytest.param([(TE, b"x,chunked")], id="unknown-coding-first"),
        pytest.param([(TE, b"chunked;q=1")], id="chunked-with-parameter"),
        pytest.param([(TE, b"identity")], id="identity"),
        pytest.param([(TE, b"")], id="empty-coding"),
        pytest.param([(CL, b"5"), (CL, b"5")], id="length-twice"),
        pytest.param([(CL, b"5"), (CL, b"6")], id="two-lengths"),
        pytest.param([(CL, b"5, 5")], id="list-of-lengths"),
        pytest.param([(CL, b"9" * 19)], id="length-beyond-64-bits"),
        pytest.param([(CL, b"+5")], id="length-with-sign"),
        pytest.param([(CL, "\u0665".encode())], id="length-in-other-digits"),
        pytest.param([(CL, b"")], id="empty-length"),
        pytest.param([(CL, b"0x5")], id="hexadecimal"),
    ],
)
def test_framings_of_two_meanings_are_refused(fields: Headers) -> None:
    """What two servers could see ending at two places is refused."""
    with pytest.raises(TargetRefused):
        of(fields)


def test_http_1_0_has_no_chunks() -> None:
    """A coding in a request of that version is one that its sender cannot mean."""
    with pytest.raises(TargetRefused, match=r"HTTP/1\.0"):
        of([(TE, b"chunked")], http_1_1=False)
    assert of([(CL, b"5")], http_1_1=False).length == 5


@pytest.mark.parametrize(
    ("fields", "http_1_1", "persists"),
    [
        pytest.param([], True, True, id="1.1"),
        pytest.param([], False, False, id="1.0"),
        pytest.param([(b"Connection", b"close")], True, False, id="1.1-close"),
        pytest.param([(b"Connection", b"x , CLOSE")], True, False, id="1.1-close-among-others"),
        pytest.param(
            [(b"Connection", b"x"), (b"connection", b"close")], True, False, id="1.1-close-in-second"
        ),
        pytest.param([(b"Connection", b"Keep-Alive")], False, True, id="1.0-keep-alive"),
        pytest.param([(b"Connection", b"keep-alive, close")], False, False, id="1.0-both"),
        pytest.param([(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")], True, False, id="upgrade"),
    ],
)
def test_whether_a_connection_persists(fields: Headers, http_1_1: bool, persists: bool) -> None:
    """RFC 9112 section 9.3, and never behind a request for another protocol."""
    assert of(fields, http_1_1=http_1_1).persists == persists


@pytest.mark.parametrize(
    ("fields", "http_1_1", "expects"),
    [
        pytest.param([(CL, b"5"), (b"Expect", b"100-Continue")], True, True, id="expects"),
        pytest.param([(b"Expect", b"100-continue")], True, False, id="no-body"),
        pytest.param([(CL, b"5"), (b"Expect", b"100-continue")], False, False, id="http-1.0"),
        pytest.param([(CL, b"5"), (b"Expect", b"something")], True, False, id="something-else"),
    ],
)
def test_what_is_waited_for(fields: Headers, http_1_1: bool, expects: bool) -> None:
    """Only a body can be held back (RFC 9110 section 10.1.1)."""
    assert of(fields, http_1_1=http_1_1).expects_continue == expects


# --- decoding

BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut at these places."""
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


@given(st.binary(max_size=60), st.binary(max_size=20), CUTS)
def test_a_counted_body_ends_at_its_length(body: bytes, behind: bytes, cuts: list[int]) -> None:
    """What is behind it is handed back, whatever the pieces are."""
    decoder = Counted(len(body))
    got = left = b""
    for piece in pieces(body + behind, cuts):
        if decoder.ended:
            left += piece
            continue
        taken, rest = decoder.feed(piece)
        got, left = got + taken, left + rest
    assert (got, left, decoder.ended) == (body, behind, True)


@given(BODIES, st.sampled_from([b"", b"X-A: b\r\n", b"X-A: b\r\nX-C:\r\n"]), st.binary(max_size=20), CUTS)
def test_chunks_are_put_together_however_they_are_cut(
    chunks: list[bytes], trailers: bytes, behind: bytes, cuts: list[int]
) -> None:
    """Body, trailers and what is behind them come out the same for every way of cutting."""
    wire = b"".join(b"%x;e=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    wire += b"0\r\n%b\r\n" % trailers
    decoder = Chunks(section_bytes=1000)
    got = left = b""
    for piece in pieces(wire + behind, cuts):
        if decoder.ended:
            left += piece
            continue
        taken, rest = decoder.feed(piece)
        got, left = got + taken, left + rest
    assert (got, left, decoder.ended) == (b"".join(chunks), behind, True)
    assert len(decoder.trailers) == trailers.count(b"\r\n")


WIRE = b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nX: y\r\n\r\nNEXT"


@pytest.mark.parametrize("size", range(1, len(WIRE)))
def test_no_cut_changes_a_body(size: int) -> None:
    """In pieces of any size, down to single bytes, body, trailers and what is behind stay the same."""
    decoder, got, left = Chunks(section_bytes=1000), b"", b""
    for at in range(0, len(WIRE), size):
        piece = WIRE[at : at + size]
        taken, rest = (b"", piece) if decoder.ended else decoder.feed(piece)
        got, left = got + taken, left + rest
    assert (got, left, list(decoder.trailers)) == (b"hello!", b"NEXT", [(b"X", b"y")])


@pytest.mark.parametrize("cut", range(len(WIRE)))
def test_one_cut_anywhere_changes_nothing(cut: int) -> None:
    """Wherever one read ends and the next begins."""
    decoder = Chunks(section_bytes=1000)
    got, left = decoder.feed(WIRE[:cut])
    if decoder.ended:
        left += WIRE[cut:]
    else:
        more, left = decoder.feed(WIRE[cut:])
        got += more
    assert (got, left, list(decoder.trailers)) == (b"hello!", b"NEXT", [(b"X", b"y")])


class Judge:
    """Another parser's view of a chunked body."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


SCRAPS = st.lists(
    st.sampled_from(
        [b"0", b"5", b"a", b"\r\n", b"\r", b"\n", b"hello", b";x", b" ", b"X: y", b"\r\n\r\n", b"0\r\n\r\n"]
    ),
    max_size=12,
).map(b"".join)


@given(SCRAPS, CUTS)
def test_llhttp_decodes_what_is_decoded_here_in_the_same_way(wire: bytes, cuts: list[int]) -> None:
    """Of chunks that are complete here another parser makes the same body, with the same end."""
    decoder, got, left = Chunks(section_bytes=1000), b"", b""
    try:
        for piece in pieces(wire, cuts):
            if decoder.ended:
                left += piece
                continue
            taken, rest = decoder.feed(piece)
            got, left = got + taken, left + rest
    except TargetRefused:
        return
    if not decoder.ended:
        return
    judge = Judge()
    parser = httptools.HttpRequestParser(judge)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.feed_data(wire.removesuffix(left))
    assert judge.complete
    assert judge.body == got


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"5 \r\nhello", id="space-behind-size"),
        pytest.param(b"+5\r\nhello", id="sign"),
        pytest.param(b"0x5\r\nhello", id="0x"),
        pytest.param(b"\r\n", id="no-size"),
        pytest.param(b"5\nhello", id="bare-lf"),
        pytest.param(b"50\nhello", id="bare-lf-behind-two-digits"),
        pytest.param(b"5;a\nhello", id="bare-lf-behind-an-extension"),
        pytest.param(b"\n", id="bare-lf-first"),
        pytest.param(b"5\r\nhello\r\n\n", id="bare-lf-between-chunks"),
        pytest.param(b"1" * 17 + b"\r\n", id="beyond-64-bits"),
        pytest.param(b"5\r\nhello!", id="longer-than-its-size"),
        pytest.param(b"5\r\nhello\n", id="ended-by-lf"),
        pytest.param(b"5;" + b"x" * 2000, id="endless-extension"),
        pytest.param(b"0\r\nno field\r\n\r\n", id="trailer-without-colon"),
        pytest.param(b"0\r\n" + b"X: y\r\n" * 200, id="endless-trailers"),
    ],
)
def test_malformed_chunks_are_refused(wire: bytes) -> None:
    """At once, and also where they come byte by byte."""
    with pytest.raises(TargetRefused):
        Chunks(section_bytes=1000).feed(wire)
    decoder = Chunks(section_bytes=1000)
    with pytest.raises(TargetRefused):
        list(map(decoder.feed, (bytes([byte]) for byte in wire)))
