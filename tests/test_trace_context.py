"""W3C Trace Context, level 1: which ``traceparent`` is believed, and what of it."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from proxy.facts import RequestFinished, RequestTraced, Send
from proxy.headers import Fields
from proxy.trace_context import Parent, Trace, Tracer, parent_of

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


# --- where traces are made


def counted(length: int) -> int:
    """Bits as a test can foretell them: all are set."""
    return (1 << length) - 1


def begun(ratio: float = 1.0, parent: Parent | None = None) -> Trace:
    trace = Tracer(ratio, lambda: 1.8e9, counted).begin(parent, "https")
    assert trace is not None
    return trace


THEIRS = Parent(TRACE.decode(), SPAN.decode(), sampled=True)


def test_a_trace_begins_or_goes_on() -> None:
    """With a parent the trace is the parent's, without one it is new; our span is new in either case."""
    ours, theirs = begun(), begun(parent=THEIRS)
    assert (ours.trace_id, ours.parent_id) == ("f" * 32, None)
    assert (theirs.trace_id, theirs.parent_id) == (TRACE.decode(), SPAN.decode())
    assert theirs.told(RequestFinished("r")).span_id == "f" * 16


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_callers_decision_counts(ratio: float) -> None:
    """What the caller records is recorded whatever the ratio, and what it does not is not."""
    assert begun(ratio, THEIRS).sampled
    assert Tracer(ratio, lambda: 0.0, counted).begin(THEIRS._replace(sampled=False), "http") is None


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 0.1, 0.5, 0.999, 1.0])
def test_the_ratio_is_judged_as_opentelemetry_does(ratio: float) -> None:
    """The same traces are recorded by all who judge them by their ids."""
    bits, theirs = random.Random(7), TraceIdRatioBased(ratio)
    tracer = Tracer(ratio, lambda: 0.0, bits.getrandbits)
    for _ in range(500):
        trace = tracer.begin(None, "http")
        assert trace is not None
        decision = theirs.should_sample(None, int(trace.trace_id, 16), "GET").decision
        assert trace.sampled == (decision is Decision.RECORD_AND_SAMPLE)


def test_an_id_is_never_zero() -> None:
    """All zeros are no id, however seldom they come."""
    trace = Tracer(1.0, lambda: 0.0, lambda _: 0).begin(None, "http")
    assert trace is not None
    told = trace.told(RequestFinished("r"))
    assert (trace.trace_id, told.span_id) == ("0" * 31 + "1", "0" * 15 + "1")


@pytest.mark.parametrize(
    ("names", "kept_with_parent", "kept_without"),
    [
        pytest.param([b"Accept"], [b"Accept"], [b"Accept"], id="none"),
        pytest.param([b"traceparent"], [], [], id="parent"),
        pytest.param([b"TraceParent", b"X", b"TRACESTATE"], [b"X", b"TRACESTATE"], [b"X"], id="both"),
        pytest.param([b"tracestate", b"tracestate"], [b"tracestate", b"tracestate"], [], id="states"),
    ],
)
def test_what_of_theirs_goes_on(
    names: list[bytes], kept_with_parent: list[bytes], kept_without: list[bytes]
) -> None:
    """Their parent gives way to ours; their state goes on with a valid parent only."""
    section = Fields([(name, b"x") for name in names])
    for trace, kept in ((begun(parent=THEIRS), kept_with_parent), (begun(), kept_without)):
        assert [name for name, _ in trace.without_theirs(section)] == kept
    if names == [b"Accept"]:
        assert begun().without_theirs(section) is section


@pytest.mark.parametrize(("ratio", "flags"), [(1.0, "01"), (0.0, "00")])
def test_what_is_sent_is_a_valid_parent(ratio: float, flags: str) -> None:
    """Another implementation reads of it the trace, the span of this sending, and whether it is recorded."""
    trace = Tracer(ratio, lambda: 0.0, random.Random(1).getrandbits).begin(None, "http")
    assert trace is not None
    lines = [trace.send("/v1/x", 0.0), trace.send("/v1/x", 1.0)]
    values = [line.removeprefix(b"traceparent: ").removesuffix(b"\r\n") for line in lines]
    parents = [parent_of(fields(value)) for value in values]
    told = trace.told(RequestFinished("r"))
    spans = [parent.span_id for parent in parents if parent is not None]
    assert [parent and parent.trace_id for parent in parents] == [trace.trace_id] * 2
    assert len({told.span_id, *spans}) == 3
    assert [send.span_id for send in told.sends] == (spans if trace.sampled else [])
    assert {value[-2:].decode() for value in values} == {flags}


def test_what_is_told_of_a_request() -> None:
    """Each send with when, for how long and what came; one without an answer lasts to the request's end."""
    trace = begun(parent=THEIRS)
    trace.send("/v1/x", 1.5)
    trace.answered(3.0, 401)
    trace.send("/v1/x", 4.0)
    request = RequestFinished("r", duration_ms=10.0)
    assert trace.told(request) == RequestTraced(
        request,
        "f" * 16,
        SPAN.decode(),
        1.8e9,
        "https",
        (Send("f" * 16, "/v1/x", 1.5, 1.5, 401), Send("f" * 16, "/v1/x", 4.0, 6.0, None)),
    )
