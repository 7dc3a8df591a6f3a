"""Lines of the log for a reader: what is read, picked and folded, and that none does harm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.loglines import Counting, Dated, Folding, Line, Pick, Repeats, parsed, printable

HOSTILE = "\x1b]0;mine\x07\x9b31m\u202e\u2028\U000e0001"


def line(**fields: object) -> Line:
    """A line with these fields."""
    return parsed(json.dumps(fields).encode())


@given(st.text())
def test_what_is_shown_is_printable_and_loses_nothing(text: str) -> None:
    """Every text becomes printable, and a printable one stays as it is."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_what_a_terminal_might_obey_is_escaped() -> None:
    """Control characters of both sets, marks of direction, line separators and tags show as escapes."""
    assert printable(f"a{HOSTILE}b") == r"a\x1b]0;mine\x07\x9b31m\u202e\u2028\U000e0001b"


@given(st.binary())
def test_any_bytes_are_a_line(raw: bytes) -> None:
    """Whatever bytes a log holds, they are read without an error, and shown harmless."""
    assert parsed(raw).plain.isprintable()
    assert parsed(raw).text("event").isprintable()
    Pick(tenants=("a",)).takes(parsed(raw))
    list(Folding().add(parsed(raw), ""))


@pytest.mark.parametrize("raw", [b"", b"[1]", b"7", b"null", b"{", b"\xff", b'{"a":"\\ud800"}'])
def test_what_is_no_object_has_no_fields(raw: bytes) -> None:
    """Only a JSON object is a line of ours."""
    assert parsed(raw).fields is None


def test_a_line_may_end_as_windows_does() -> None:
    """A carriage return at the end is none of the line."""
    assert parsed(b'{"event":"x"}\r') == parsed(b'{"event":"x"}')


def test_fields_of_every_kind_are_text() -> None:
    """A field of any kind is shown; one that is nested too deep to be written again is left out."""
    shown = line(a=None, b=True, c=["x", HOSTILE], d=1.5)
    assert [shown.text(name) for name in "abd"] == ["", "true", "1.5"]
    assert shown.text("c").isprintable()
    assert parsed(b'{"a":' + b"[" * 600 + b"]" * 600 + b"}").text("a") == "…"


@given(st.dictionaries(st.text(), st.text() | st.integers(0, 9)))
def test_harmless_json_says_the_same(fields: dict[str, str | int]) -> None:
    """JSON for a terminal is printable and means what the line meant."""
    raw = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
    shown = parsed(raw).harmless_json.decode()
    assert shown.isprintable()
    assert json.loads(shown) == fields


def test_harmless_json_keeps_blanks_outside_of_texts_valid() -> None:
    """A tab between the parts of an object becomes a space, since an escape would be no JSON there."""
    assert json.loads(parsed(b'{\t"a":\t"\x7f"}').harmless_json) == {"a": "\x7f"}


REQUEST = line(
    timestamp="2026-01-31T14:00:00.000000Z",
    level="warning",
    event="request.finished",
    tenant="acme",
    status=503,
    request_id="r1",
)


@pytest.mark.parametrize(
    ("pick", "takes"),
    [
        (Pick(), True),
        (Pick(tenants=("acme",)), True),
        (Pick(tenants=("globex", "acme")), True),
        (Pick(tenants=("globex",)), False),
        (Pick(tenants=("acm",)), False),
        (Pick(events=("request.finished",)), True),
        (Pick(events=("request.*",)), True),
        (Pick(events=("token.*", "request.?inished")), True),
        (Pick(events=("request",)), False),
        (Pick(statuses=("503",)), True),
        (Pick(statuses=("5xx",)), True),
        (Pick(statuses=("401", "5xx")), True),
        (Pick(statuses=("4xx",)), False),
        (Pick(statuses=("500",)), False),
        (Pick(level="info"), True),
        (Pick(level="warning"), True),
        (Pick(level="error"), False),
        (Pick(request_ids=("r1",)), True),
        (Pick(request_ids=("r",)), False),
        (Pick(tenants=("acme",), statuses=("2xx",)), False),
        (Pick(tenants=("globex",), statuses=("5xx",)), False),
    ],
)
def test_lines_are_picked(pick: Pick, takes: bool) -> None:
    """Of one field any of what is named is taken, and all fields must agree."""
    assert pick.takes(REQUEST) is takes


@pytest.mark.parametrize("status", [None, 5, 5031])
def test_a_status_of_another_form_is_of_no_class(status: object) -> None:
    """Only three characters can be of a class."""
    assert not Pick(statuses=("5xx",)).takes(line(event="x", status=status))


def test_a_line_that_is_no_object_is_taken_only_if_all_are() -> None:
    """What has no fields is shown with the whole log, and not among picked lines."""
    other = parsed(b"Traceback")
    assert Pick().takes(other)
    assert not Pick(level="debug").takes(other)


def test_a_line_without_an_instant_has_the_one_before() -> None:
    """A line that does not say when it was written belongs to the one before it; other forms do not count."""
    dated = Dated()
    instants = [dated.instant(each) for each in (parsed(b"x"), REQUEST, parsed(b"x"), line(timestamp="soon"))]
    assert instants == ["", *["2026-01-31T14:00:00.000000Z"] * 3]


def folded(*lines: Line) -> list[object]:
    """What is shown of lines from one source: lines as they are, repeats as their number."""
    folding = Folding()
    shown = [each for one in lines for each in folding.add(one, "a")]
    return [each.count if isinstance(each, Repeats) else each for each in [*shown, *folding.told()]]


def one(**fields: object) -> Line:
    """A line about a request, with other fields."""
    return line(**{"event": "e", "tenant": "t", "outcome": "o", "status": 200, **fields})


def test_repeated_lines_are_counted() -> None:
    """The first of several is shown, the others are a number before what comes next; the last is kept."""
    first, second, other = one(request_id="1"), one(request_id="2"), one(event="f")
    assert folded(first, second, second, other) == [first, 2, other]
    assert folded(first, second) == [first, 1]
    assert folded(first) == [first]
    folding = Folding()
    list(folding.add(first, "a"))
    list(folding.add(second, "a"))
    assert [*folding.told(), *folding.told()] == [Repeats(1, second)], "told once"
    assert list(folding.add(second, "a")) == [], "goes on counting"


@pytest.mark.parametrize("name", ["event", "tenant", "outcome", "status"])
def test_lines_that_differ_are_not_folded(name: str) -> None:
    """A line of another event, tenant, outcome or status is shown."""
    lines = [one(), one(**{name: "other"})]
    assert folded(*lines) == lines


def test_sources_are_not_folded_together() -> None:
    """The same from another instance is news."""
    folding = Folding()
    assert [*folding.add(one(), "a"), *folding.add(one(), "b")] == [one(), one()]


def test_what_is_no_object_is_never_folded() -> None:
    """The lines of a traceback are all shown."""
    text = parsed(b"x")
    assert folded(text, text) == [text, text]
    assert replace(text, raw=b"y").plain == "y"


# --- counted


def counted(fields: Sequence[str], *lines: Line) -> list[dict[str, object]]:
    """The rows of what some lines say."""
    counting = Counting(fields)
    for each in lines:
        counting.add(each)
    return counting.rows()


def test_lines_are_counted_by_what_they_say() -> None:
    """The most frequent first, then by what they say, each with its first and last instant."""
    at = "2026-01-31T14:00:0{}.000000Z".format
    rows = counted(
        ["outcome", "status"],
        one(timestamp=at(1), outcome="x"),
        one(timestamp=at(2)),
        one(timestamp=at(3), status=None),
        one(timestamp=at(4)),
    )
    assert rows == [
        {"count": 2, "outcome": "o", "status": "200", "first_at": at(2), "last_at": at(4)},
        {"count": 1, "outcome": "o", "status": None, "first_at": at(3), "last_at": at(3)},
        {"count": 1, "outcome": "x", "status": "200", "first_at": at(1), "last_at": at(1)},
    ]


def test_lines_without_the_fields_do_not_count() -> None:
    """A line counts if it has one of them; what is no JSON has none."""
    rows = counted(["status", "reason"], line(event="e"), parsed(b"x"), line(reason="r"), line(status=200))
    assert [(row["status"], row["reason"]) for row in rows] == [(None, "r"), ("200", None)]


def test_what_callers_choose_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many kinds all others are one; kinds that are known go on."""
    monkeypatch.setattr(Counting, "MOST", 2)
    rows = counted(["path"], *(line(path=f"/{each}") for each in "abcdba"))
    assert {str(row["path"]): row["count"] for row in rows} == {"/a": 2, "/b": 2, "(others)": 2}


def test_a_field_that_is_named_twice_counts_once() -> None:
    """It is one column."""
    assert list(counted(["status", "status"], one())[0]) == ["count", "status", "first_at", "last_at"]
