"""The head of a request: what is read is read as others do, and what could be read in two ways is refused."""

from __future__ import annotations

import httptools
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import heads
from proxy.errors import HeadTooLarge, Refusal, TargetRefused
from proxy.headers import Field, Fields, remembered
from proxy.heads import Head

LINE = b"GET /v1/x HTTP/1.1\r\n"


def read(raw: bytes) -> Head:
    """A head within ordinary limits."""
    return heads.read(raw, head_bytes=65536, most_fields=100)


def test_a_head_is_read_as_it_is() -> None:
    """Names and values keep their bytes and order; white space around a value is none of it."""
    head = read(b"PATCH /v1/%7Ea?q=%2f HTTP/1.0\r\nhOST: a\r\nX-Empty:\r\nx-Twice:1\r\nX-twice: \t2\t \r\n")
    assert (head.method, head.target, head.http_1_1) == ("PATCH", b"/v1/%7Ea?q=%2f", False)
    assert list(head.fields) == [(b"hOST", b"a"), (b"X-Empty", b""), (b"x-Twice", b"1"), (b"X-twice", b"2")]
    assert head.fields.values(b"x-twice") == [b"1", b"2"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"GET /v1/x HTTP/1.2", "the protocol version is neither"),
        (b"GET /v1/x HTTP/2", "the protocol version is neither"),
        (b"PRI * HTTP/2.0", "the protocol version is neither"),
        (b"GET /v1/x", "the request line is not METHOD"),
        (b"GET /v1/x HTTP/x", "the request line is not METHOD"),
        (b"GET /v1/x y HTTP/1.2", "the request line is not METHOD"),
        (b"CONNECT a:443 HTTP/1.1", "the method CONNECT is not served"),
    ],
)
def test_it_is_told_what_is_wrong_with_a_request_line(line: bytes, told: str) -> None:
    """Another version is called that, and all else is shown what it should have been."""
    with pytest.raises(TargetRefused, match=told):
        read(line + b"\r\nHost: a\r\n")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"GET /v1/x", id="no-version"),
        pytest.param(b"GET  /v1/x HTTP/1.1", id="two-spaces"),
        pytest.param(b"GET /v1/x  HTTP/1.1", id="two-spaces-before-version"),
        pytest.param(b" GET /v1/x HTTP/1.1", id="space-before"),
        pytest.param(b"GET /v1/x HTTP/1.1 ", id="space-behind"),
        pytest.param(b"GET\t/v1/x HTTP/1.1", id="tab"),
        pytest.param(b"GET /v1/x y HTTP/1.1", id="space-in-target"),
        pytest.param(b"GET /v1/\x00 HTTP/1.1", id="nul"),
        pytest.param(b"get /v1/x HTTP/1.1", id="small-letters"),
        pytest.param(b"GET /v1/x HTTP/1.2", id="version-1.2"),
        pytest.param(b"GET /v1/x HTTP/2.0", id="version-2.0"),
        pytest.param(b"GET /v1/x http/1.1", id="version-small"),
        pytest.param(b"CONNECT a:443 HTTP/1.1", id="connect"),
        pytest.param(b"", id="empty"),
    ],
)
def test_other_request_lines_are_refused(line: bytes) -> None:
    """One space between method, target and version, and nothing else."""
    with pytest.raises(TargetRefused):
        read(line + b"\r\nHost: a\r\n")


@pytest.mark.parametrize(
    ("section", "number"),
    [
        pytest.param(b"Host : a\r\n", 1, id="space-before-colon"),
        pytest.param(b"A: b\r\n c\r\n", 2, id="folded"),
        pytest.param(b"A: b\r\nB\r\n", 2, id="no-colon"),
        pytest.param(b": b\r\n", 1, id="no-name"),
        pytest.param(b"A: b\r\nC: d\rE: f\r\n", 2, id="bare-cr"),
        pytest.param(b"A: b\nC: d\r\n", 1, id="bare-lf"),
        pytest.param(b"A: b\r\nC: \x00\r\n", 2, id="nul"),
        pytest.param(b"A\xe9: b\r\n", 1, id="not-ascii"),
        pytest.param(b"A: \x7f\r\n", 1, id="delete"),
        pytest.param(b"A: b\r\nC: d", 2, id="line-not-ended"),
    ],
)
def test_a_malformed_field_is_named_by_its_number(section: bytes, number: int) -> None:
    """Its text is not repeated, since it may hold anything."""
    with pytest.raises(TargetRefused, match=f"^header field {number} is malformed"):
        read(LINE + section)


def test_limits_are_named() -> None:
    """Too many fields, and too many bytes of them."""
    with pytest.raises(HeadTooLarge, match=r"there are 3 header fields; limits\.headers is 2"):
        heads.read(LINE + b"A: b\r\n" * 3, head_bytes=100, most_fields=2)
    with pytest.raises(HeadTooLarge, match=r"larger than limits\.head_bytes \(17\)"):
        heads.read(LINE + b"A: b\r\n" * 3, head_bytes=17, most_fields=9)
    assert len(heads.read(LINE + b"A: b\r\n" * 3, head_bytes=18, most_fields=3).fields) == 3


@given(st.binary(max_size=60))
@example(b"\x16\x03\x01\x02")
@example(b"GET / HTTP/1.1\n")
@example(b"hello")
def test_what_can_become_no_head_is_known_before_its_end(beginning: bytes) -> None:
    """Nothing that is a head was given up at any of its beginnings."""
    raw = beginning + b"\r\n"
    try:
        read(raw)
    except Refusal:
        raw = LINE + b"A: " + beginning + b"\r\n"
        try:
            read(raw)
        except Refusal:
            return
    seen = 0
    for end in range(1, len(raw)):
        assert heads.can_become_a_head(raw[:end], seen=seen)
        seen = end


@pytest.mark.parametrize("raw", [b"\x16\x03\x01", b"hello", b"GET /\n", b"GET / HTTP/1.1\r\nA: b\n", b"{"])
def test_another_protocol_is_told_at_once(raw: bytes) -> None:
    """A TLS handshake, a JSON text or lines without CR need not be waited for."""
    assert not heads.can_become_a_head(raw, seen=0)


# --- others as judges

TOKENS = st.text("aZ9!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
VALUES = st.binary(max_size=12)
LINES = st.lists(
    st.one_of(
        st.tuples(TOKENS, VALUES).map(lambda pair: pair[0] + b": " + pair[1]),
        st.tuples(TOKENS, VALUES).map(lambda pair: pair[0] + b":" + pair[1]),
        st.sampled_from([b"Host: a", b"Content-Length: 0", b"Connection: close", b"Connection: a, b"]),
        st.binary(max_size=12),
    ),
    max_size=5,
).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
RAW = st.tuples(
    st.sampled_from([b"GET", b"POST", b"DELETE", b"REPORT", b"Get", b""]),
    st.sampled_from([b" ", b"  ", b"\t"]),
    st.binary(min_size=1, max_size=12).map(lambda path: b"/" + path),
    st.sampled_from([b" HTTP/1.1", b" HTTP/1.0", b" HTTP/1.2", b"  HTTP/1.1", b""]),
    LINES,
).map(lambda parts: b"".join(parts[:4]) + b"\r\n" + parts[4])


class Heard:
    """What llhttp makes of a head."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[Field] = []
        self.messages = 0

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.messages += 1


def framed(fields: Fields) -> bool:
    """Fields of which the framing is judged elsewhere, and more strictly."""
    return bool({b"content-length", b"transfer-encoding", b"upgrade"} & {name.lower() for name, _ in fields})


@given(RAW)
def test_llhttp_reads_what_is_read_here_in_the_same_way(raw: bytes) -> None:
    """Method, target and fields are those that a widely used parser sees, and there is one message."""
    try:
        head = read(raw)
    except Refusal:
        return
    if framed(head.fields):
        return
    heard = Heard()
    parser = httptools.HttpRequestParser(heard)
    parser.feed_data(raw + b"\r\n")
    assert heard.messages == 1
    assert parser.get_method().decode() == head.method
    assert heard.target == head.target
    assert [(name, value.strip(b" \t")) for name, value in heard.fields] == list(head.fields)


@given(RAW)
def test_aiohttp_reads_what_is_read_here_in_the_same_way(raw: bytes) -> None:
    """The parser that faced callers before agrees too, or refuses."""
    try:
        head = read(raw)
    except Refusal:
        return
    if framed(head.fields):
        return
    parser = HttpRequestParser(BaseProtocol(None), None, 2**16, max_line_size=2**16, max_field_size=2**16)  # type: ignore[arg-type] # a head needs no loop
    try:
        ((message, _),), _, rest = parser.feed_data(raw + b"\r\n")
    except (HttpProcessingError, ValueError):
        return
    assert message.method == head.method
    assert [(name, value.strip(b" \t")) for name, value in message.raw_headers] == list(head.fields)
    assert not rest


# --- what is remembered


def test_the_same_section_is_read_once() -> None:
    """Tools repeat themselves: what came twice is the same object from then on."""
    once, again, third, fourth = (read(LINE + b"X-Twice: b\r\n").fields for _ in range(4))
    assert once is not again
    assert again is third is fourth
    assert (once.recurs, again.recurs) == (False, True)
    assert read(LINE + b"X-Twice: c\r\n").fields is not fourth
    long = LINE + b"A: %b\r\n" % (b"x" * 3000)
    read(long)
    assert read(long).fields is not read(long).fields


def test_a_rule_is_asked_once_for_a_section_that_recurs() -> None:
    """Its answer depends on the section and the other arguments alone; a refusal is given anew each time."""
    asked: list[bytes] = []

    @remembered
    def rule(fields: Fields, name: bytes, /) -> int:
        asked.append(name)
        if name == b"bad":
            raise TargetRefused
        return len(fields.values(name))

    recurring, other = Fields([(b"A", b"b")], recurs=True), Fields([(b"A", b"b")])
    assert [rule(recurring, b"a"), rule(recurring, b"a"), rule(recurring, b"x")] == [1, 1, 0]
    assert asked == [b"a", b"x"]
    assert [rule(other, b"a"), rule(other, b"a")] == [1, 1]
    assert asked == [b"a", b"x", b"a", b"a"]
    for _ in range(2):
        with pytest.raises(TargetRefused):
            rule(recurring, b"bad")
    assert asked[4:] == [b"bad", b"bad"]


# --- each byte

TCHAR = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""RFC 9110 section 5.6.2."""
CAPITALS = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
VISIBLE = set(range(0x21, 0x7F))
IN_VALUES = {0x09, 0x20, *VISIBLE, *range(0x80, 0x100)}
"""RFC 9110 section 5.5."""


def is_read(raw: bytes) -> bool:
    try:
        read(raw)
    except TargetRefused:
        return False
    return True


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_is_taken_where_the_rfc_has_it(byte: int) -> None:
    """In names, values, targets and methods, alone and in the midst of others."""
    one = bytes([byte])
    line = b"GET / HTTP/1.1\r\n"
    assert is_read(line + b"%b: x\r\n" % one) is (byte in TCHAR)
    assert is_read(line + b"X%bY: x\r\n" % one) is (byte in TCHAR | set(b":"))
    assert is_read(line + b"X:%b\r\n" % one) is (byte in IN_VALUES)
    assert is_read(line + b"X: a%bb\r\n" % one) is (byte in IN_VALUES)
    assert is_read(b"GET /%b HTTP/1.1\r\n" % one) is (byte in VISIBLE)
    assert is_read(b"GET /a%bb HTTP/1.1\r\n" % one) is (byte in VISIBLE)
    assert is_read(b"%b / HTTP/1.1\r\n" % one) is (byte in CAPITALS)
    assert is_read(b"M%bM / HTTP/1.1\r\n" % one) is (byte in CAPITALS | set(b"-"))
    assert is_read(b"GET / HTTP/1.%b\r\n" % one) is (byte in b"01")
    assert is_read(b"GET / HTTP/1%b1\r\n" % one) is (byte in b".")


def test_methods_have_a_bounded_length() -> None:
    """Up to 32 characters, as no registered method has."""
    assert is_read(b"M" * 32 + b" / HTTP/1.1\r\n")
    assert not is_read(b"M" * 33 + b" / HTTP/1.1\r\n")


def test_each_byte_of_a_beginning_is_judged_at_once() -> None:
    """What comes first can become a head as long as it is a method, alone or with a space behind it."""
    for beginning in (b"", b"G", b"M-SEARCH", b"M" * 32, b"M" * 32 + b" /", b"GET ", b"GET /\r\nX"):
        assert heads.can_become_a_head(beginning, seen=0), beginning
    for byte in range(256):
        one = bytes([byte])
        assert heads.can_become_a_head(one, seen=0) is (byte in CAPITALS)
        assert heads.can_become_a_head(b"M" + one, seen=0) is (byte in CAPITALS | set(b"- "))
    for beginning in (b"M" * 33, b"GETx", b"GET\t/", b"-GET", b" GET"):
        assert not heads.can_become_a_head(beginning, seen=0), beginning
