"""Request targets: accepted byte for byte, or refused where two servers could read them in two ways."""

from __future__ import annotations

import re
import time
import unicodedata
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import TargetRefused, TargetTooLong
from proxy.target import Target, loggable_path, parse

MAX = 8192


def accepted(raw: bytes) -> Target | None:
    """The target, or ``None`` if it is refused."""
    try:
        return parse(raw, max_bytes=MAX)
    except TargetRefused:
        return None


ACCEPTED = {
    "root": (b"/", "/"),
    "plain": (b"/acme/v2/employees", "/acme/v2/employees"),
    "trailing-slash": (b"/acme/v2/employees/", "/acme/v2/employees/"),
    "colon-in-segment": (b"/v1/accounting-entries:search", "/v1/accounting-entries:search"),
    "colon-after-me": (b"/v1/installations/me:activate", "/v1/installations/me:activate"),
    "dot-in-segment": (b"/v1/a.b/c..d/...", "/v1/a.b/c..d/..."),
    "dot-before-parameter-name": (b"/v1/.x;y", "/v1/.x;y"),
    "segment-parameter": (b"/v1/a;x=y/b", "/v1/a;x=y/b"),
    "empty-segment": (b"/v1//x", "/v1//x"),
    "empty-first-segment": (b"//v1/x", "//v1/x"),
    "two-slashes-at-end": (b"/v1//", "/v1//"),
    "slashes-only": (b"///", "///"),
    "empty-segment-with-parameter": (b"/v1/;x=y/z", "/v1/;x=y/z"),
    "empty-segment-with-encoded-parameter": (b"/v1/%3b/z", "/v1/;/z"),
    "empty-segment-before-escape": (b"/v1//%41", "/v1//A"),
    "encoded-space": (b"/v1/a%20b", "/v1/a b"),
    "encoded-utf-8": (b"/v1/caf%C3%A9", "/v1/café"),
    "encoded-wide-letters": (b"/v1/%EF%BD%8D%EF%BD%85", "/v1/\uff4d\uff45"),
    "encoded-letter": (b"/%61cme/v1", "/acme/v1"),
    "encoded-question-mark": (b"/v1/a%3Fb", "/v1/a?b"),
    "percent-alone": (b"/v1/100%25", "/v1/100%"),
    "every-sub-delimiter": (b"/-_~:=@!$&'()*+,;", "/-_~:=@!$&'()*+,;"),
    "empty-query": (b"/v1?", "/v1"),
    "query-with-slashes-and-dots": (b"/v1?a=../..//b&a=%2F%5C%00%zz", "/v1"),
    "query-with-question-mark": (b"/v1?a?b", "/v1"),
    "query-that-only-resembles-a-method": (b"/v1?my_method=a&_methods=b&a=_method&_metho%64x", "/v1"),
    "cursor": (b"/v2/employees?after=ABC2~=&limit=10&limit=20", "/v2/employees"),
}


@pytest.mark.parametrize(("raw", "decoded"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_targets_keep_their_bytes(raw: bytes, decoded: str) -> None:
    """An accepted target is sent as it came, and judged by its path decoded once."""
    target = parse(raw, max_bytes=MAX)
    assert target.raw == raw
    assert target.decoded == decoded
    assert target.authority is None


REFUSED = {
    "empty": b"",
    "asterisk-form": b"*",
    "authority-form": b"example.com:443",
    "relative": b"v1/employees",
    "other-scheme": b"ftp://example.com/",
    "scheme-without-slashes": b"http:/example.com/",
    "fragment": b"/v1#x",
    "fragment-in-query": b"/v1?a#x",
    "space": b"/v1/a b",
    "tab": b"/v1/\ta",
    "newline": b"/v1/a\n",
    "carriage-return": b"/v1/\ra",
    "nul": b"/v1/\x00",
    "delete": b"/v1/\x7f",
    "raw-utf-8": "/v1/é".encode(),
    "control-character-in-query": b"/v1?a=\x01",
    "raw-utf-8-in-query": "/v1?a=é".encode(),
    "percent-at-end": b"/v1/a%",
    "percent-with-one-digit": b"/v1/a%4",
    "percent-with-no-hex": b"/v1/%zz",
    "encoded-slash": b"/v1/a%2Fb",
    "encoded-slash-lower-case": b"/v1/a%2fb",
    "encoded-slash-hides-dots": b"/v1/..%2fv2",
    "backslash": b"/v1\\..\\v2",
    "encoded-backslash": b"/v1/%5C..",
    "encoded-nul": b"/v1/a%00",
    "encoded-newline": b"/v1/a%0Ab",
    "encoded-carriage-return": b"/v1/a%0d",
    "encoded-delete": b"/v1/a%7F",
    "encoded-c1-control": b"/v1/a%C2%85b",
    "dot-segment": b"/v1/./x",
    "dot-segment-at-end": b"/v1/.",
    "double-dot-segment": b"/v1/../x",
    "double-dot-at-end": b"/v1/..",
    "double-dot-first": b"/../x",
    "encoded-dot-segment": b"/v1/%2e%2E/x",
    "half-encoded-dot-segment": b"/v1/.%2e/x",
    "dot-segment-with-parameter": b"/v1/..;x=y/x",
    "dot-segment-with-empty-parameter": b"/v1/..;/x",
    "single-dot-with-parameter-at-end": b"/v1/.;x",
    "dot-segment-with-encoded-parameter": b"/v1/..%3Bx/y",
    "dot-segment-between-slashes": b"/v1//..//x",
    "encoded-twice-dot": b"/v1/%252e%252e/x",
    "encoded-twice-slash": b"/v1/a%252Fb",
    "encoded-twice-letter": b"/v1/installations/m%2565",
    "overlong-utf-8": b"/v1/%C0%AE%C0%AE/x",
    "not-utf-8": b"/v1/%FF",
    "encoded-surrogate": b"/v1/%ED%A0%80",
    "wide-dots": b"/v1/%EF%BC%8E%EF%BC%8E/x",
    "one-dot-leader": b"/v1/%E2%80%A4%E2%80%A4/x",
    "two-dots-in-one": b"/v1/%E2%80%A5/x",
    "wide-slash": b"/v1%EF%BC%8Fx",
    "slash-within-a-letter": b"/v1/%E2%84%80",
    "wide-backslash": b"/v1%EF%BC%BCx",
    "wide-semicolon": b"/v1/x%EF%BC%9By",
    "wide-percent": b"/v1/%EF%BC%852e",
    "method-in-the-query": b"/v1/x?_method=DELETE",
    "method-in-the-query-further-on": b"/v1/x?a=b&_method=DELETE",
    "method-in-the-query-after-semicolon": b"/v1/x?a=b;_method=DELETE",
    "method-in-the-query-in-capitals": b"/v1/x?_METHOD=DELETE",
    "method-in-the-query-encoded": b"/v1/x?%5F%6dethod=DELETE",
    "method-in-the-query-as-a-list": b"/v1/x?_method[]=DELETE",
    "method-in-the-query-without-value": b"/v1/x?_method",
    "method-in-the-query-after-question-mark": b"/v1/x??_method=DELETE",
    "absolute-with-method-in-the-query": b"http://example.com?_method=DELETE",
    "absolute-with-dot-segment": b"http://example.com/../x",
    "absolute-with-fragment": b"http://example.com#x",
    "absolute-with-space-in-path": b"http://example.com/ x",
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_refused_targets(raw: bytes) -> None:
    """A target that is malformed or means different things to different servers is refused."""
    with pytest.raises(TargetRefused):
        parse(raw, max_bytes=MAX)


@pytest.mark.parametrize("digit", "0123456789abcdefABCDEF")
def test_every_digit_of_an_escape_counts(digit: str) -> None:
    """An escape with this digit, encoded once more, is refused at either place; half an escape is none."""
    for twice in (f"/v1/%25{digit}5", f"/v1/%254{digit}"):
        assert accepted(twice.encode()) is None
    assert accepted(f"/v1/%{digit}".encode()) is None
    assert accepted(f"/v1/%25{digit}g".encode()) is not None


@pytest.mark.parametrize(
    ("raw", "sent", "authority"),
    [
        pytest.param(b"http://a.example/v1?x", b"/v1?x", "a.example", id="http"),
        pytest.param(b"HTTPS://a.example:8443/v1", b"/v1", "a.example:8443", id="https-with-port"),
        pytest.param(b"http://a.example", b"/", "a.example", id="without-path"),
        pytest.param(b"http://a.example?x=1", b"/?x=1", "a.example", id="query-without-path"),
        pytest.param(b"http://user@a.example/", b"/", "user@a.example", id="userinfo-is-kept-for-the-guard"),
        pytest.param(b"http:///v1", b"/v1", "", id="empty-authority-is-kept-for-the-guard"),
        pytest.param(b"http://a b/v1", b"/v1", "a b", id="malformed-authority-is-kept-for-the-guard"),
    ],
)
def test_absolute_form(raw: bytes, sent: bytes, authority: str) -> None:
    """An absolute target is sent in origin-form, and its authority stands in for ``Host``."""
    target = parse(raw, max_bytes=MAX)
    assert (target.raw, target.authority) == (sent, authority)


def test_length_is_bounded_before_anything_else() -> None:
    """A target of exactly the limit passes; one byte more is too long, whatever else is wrong with it."""
    assert parse(b"/" + b"a" * 9, max_bytes=10).raw == b"/aaaaaaaaa"
    with pytest.raises(TargetTooLong, match=r"11 bytes; limits\.target_bytes is 10"):
        parse(b"/.." + b"#" * 8, max_bytes=10)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"/" + b"a" * 26 + b".", id="long-segment"),
        pytest.param(b"/" + b"a/" * 13 + b".x", id="many-segments"),
        pytest.param(b"/" + b"a" * 26 + b"%41", id="escape-at-end"),
        pytest.param(b"/" + b"a;" * 13 + b"\\", id="refused-at-end"),
    ],
)
def test_time_does_not_explode_with_length(raw: bytes) -> None:
    """No target makes the patterns backtrack: two dozen characters take no measurable time."""
    before = time.process_time()
    accepted(raw)
    assert time.process_time() - before < 0.5


# Pieces of which attacks are made, so that random sequences of them come close to the rules' edges.
PIECES = rb"/ / . .. ; a v1 %2e %2E %2f %25 %3b %5c %00 %c3%a9 %c2%80 %20 %41 % \ : ? = ~ xxxxxxxxx".split()
TARGETS = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: b"/" + b"".join(pieces))
LETTERS = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/\\")
SEGMENTS = st.text(LETTERS, min_size=1, max_size=8).map(lambda text: quote(text, safe=":;=@"))
WELL_MEANT = st.lists(SEGMENTS, max_size=5).map(lambda segments: ("/" + "/".join(segments)).encode())


@given(TARGETS | WELL_MEANT | st.binary(max_size=30))
def test_what_was_checked_is_what_is_sent(raw: bytes) -> None:
    """Any accepted origin-form target is sent unchanged, and its decoded path is that of the bytes sent."""
    target = accepted(raw)
    if target is None:
        return
    if raw.startswith(b"/"):
        assert target.raw == raw
    assert target.decoded.encode() == unquote_to_bytes(target.path)
    assert target.raw.partition(b"?")[0] == target.path


@given(TARGETS | WELL_MEANT)
def test_an_accepted_path_has_one_meaning(raw: bytes) -> None:
    """The decoded path has no dot segment, even less its parameters, no backslash, no control character and
    nothing left to decode."""
    target = accepted(raw)
    if target is None:
        return
    for decoded in (target.decoded, re.sub(";[^/]*", "", target.decoded)):
        segments = decoded.split("/")
        assert segments[0] == ""
        assert not {".", ".."} & set(segments)
    assert "\\" not in target.decoded
    assert not [char for char in target.decoded if unicodedata.category(char) == "Cc"]
    assert unquote_to_bytes(target.decoded) == target.decoded.encode()
    assert target.decoded.count("/") == target.path.count(b"/")


@given(st.sampled_from(sorted(name for name, raw in REFUSED.items() if raw.startswith(b"/"))), WELL_MEANT)
def test_a_refused_path_stays_refused_behind_another(name: str, before: bytes) -> None:
    """What is refused at the start of a path is refused further on as well."""
    assert accepted(before.rstrip(b"/") + REFUSED[name]) is None


@given(WELL_MEANT | TARGETS, st.none() | st.sampled_from([b"", b"a=1&a=2", b"x=/../", b"?"]))
def test_prefix_removal_keeps_the_remaining_bytes(rest: bytes, query: bytes | None) -> None:
    """Less ``/acme``, the rest of the target is exactly what followed it."""
    tail = rest if query is None else rest + b"?" + query
    whole = accepted(b"/acme" + tail)
    if whole is None:
        return
    assert whole.first_segment == "acme"
    less = whole.without_first_segment()
    assert less.raw == tail
    assert less == accepted(tail)


@pytest.mark.parametrize(
    ("raw", "first", "rest"),
    [
        pytest.param(b"/acme", "acme", b"/", id="name-alone"),
        pytest.param(b"/acme?x=1", "acme", b"/?x=1", id="name-and-query"),
        pytest.param(b"/acme/", "acme", b"/", id="name-and-slash"),
        pytest.param(b"/%61cme/v1", "acme", b"/v1", id="encoded-name"),
        pytest.param(b"/acme;x/v1", "acme;x", b"/v1", id="name-with-parameter"),
        pytest.param(b"/acme/acme/v1", "acme", b"/acme/v1", id="name-twice"),
        pytest.param(b"/", "", b"/", id="root"),
        pytest.param(b"/acme//v1", "acme", b"//v1", id="slashes-after-the-name"),
        pytest.param(b"//acme/v1", "", b"/acme/v1", id="slashes-before-the-name"),
    ],
)
def test_first_segment_and_the_rest(raw: bytes, first: str, rest: bytes) -> None:
    """The first segment is read decoded and removed as bytes; at least a slash is left."""
    target = parse(raw, max_bytes=MAX)
    assert target.first_segment == first
    assert target.without_first_segment().raw == rest


def test_prefix_removal_keeps_the_authority() -> None:
    """The authority of an absolute target outlives the prefix."""
    target = parse(b"http://a.example/acme/v1", max_bytes=MAX)
    assert target.without_first_segment() == Target(b"/v1", None, "/v1", "a.example")


@given(st.binary(max_size=2000))
def test_the_path_of_a_refused_target_can_be_logged(raw: bytes) -> None:
    """Printable ASCII of bounded length, whatever was sent, and never the query."""
    shown = loggable_path(raw + b"?secret")
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 4 * 512
    assert "?" not in shown
