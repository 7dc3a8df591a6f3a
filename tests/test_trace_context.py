"""W3C Trace Context, level 1: which ``traceparent`` is believed, and what of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.headers import Fields
from proxy.trace_context import Parent, parent_of

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"
VALID = b"00-" + TRACE + b"-" + SPAN + b"-01"


def fields(*values: bytes, name: bytes = b"traceparent") -> Fields:
    return Fields([(name, value) for value in values])


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        pytest.param(VALID, True, id="sampled"),
        pytest.param(VALID[:-2] + b"00", False, id="not-sampled"),
        pytest.param(VALID[:-2] + b"03", True, id="a-flag-of-level-2"),
        pytest.param(VALID[:-2] + b"fe", False, id="all-flags-but-that"),
        pytest.param(b"01" + VALID[2:], True, id="a-later-version"),
        pytest.param(b"cc" + VALID[2:] + b"-what-the-future-brings", True, id="more-of-a-later-version"),
    ],
)
def test_a_valid_traceparent_is_read(value: bytes, sampled: bool) -> None:
    """Ids and the one flag, of this version and of what a later one keeps of it."""
    assert parent_of(fields(value)) == Parent(TRACE.decode(), SPAN.decode(), sampled)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(VALID[:-1], id="too-short"),
        pytest.param(VALID + b"0", id="too-long"),
        pytest.param(VALID + b"-more", id="more-of-this-version"),
        pytest.param(b"cc" + VALID[2:] + b".more", id="more-without-a-dash"),
        pytest.param(b"ff" + VALID[2:], id="no-version"),
        pytest.param(VALID.upper(), id="upper-case"),
        pytest.param(b"00-" + b"0" * 32 + b"-" + SPAN + b"-01", id="trace-of-zeros"),
        pytest.param(b"00-" + TRACE + b"-" + b"0" * 16 + b"-01", id="span-of-zeros"),
        pytest.param(VALID.replace(b"-", b"_"), id="other-dashes"),
        pytest.param(b"00-" + TRACE[:-1] + b"x-" + SPAN + b"-01", id="no-hexadecimal"),
        pytest.param(VALID + b", " + VALID, id="two-in-one"),
    ],
)
def test_an_invalid_traceparent_is_not_believed(value: bytes) -> None:
    """Section 3.2: what is not exactly of the form is ignored."""
    assert parent_of(fields(value)) is None


def test_two_parents_are_none() -> None:
    """A request has one parent; which of two is meant nobody can tell."""
    assert parent_of(fields(VALID, VALID)) is None
    assert parent_of(fields()) is None


def test_the_fields_name_is_read_in_any_case() -> None:
    """Section 3.2.1: names are compared as all names of fields are."""
    assert parent_of(fields(VALID, name=b"TraceParent")) is not None


@given(st.binary(max_size=80))
def test_what_is_believed_is_harmless(value: bytes) -> None:
    """Whatever comes, an id is 32 hexadecimal digits, or there is none."""
    parent = parent_of(fields(value))
    assert parent is None or re.fullmatch("[0-9a-f]{32}", parent.trace_id)
