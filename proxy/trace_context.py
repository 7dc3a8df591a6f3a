"""W3C Trace Context: of which trace a request is a part, and what Pleo hears of that. Pure.

Where the proxy makes no traces itself, what callers send goes to Pleo as it came, be it valid or not: it then
forwards a trace and takes no part in it (section 2.3 of https://www.w3.org/TR/trace-context-1/), and a field
that an intermediary makes nothing of is passed on (RFC 9110 section 5.1). Where it does (:class:`Tracer`), a
valid ``traceparent`` gives way to one that names our span, and one that is not valid to the beginning of a
trace. Ids and instants are all that is made here; spans are made of facts (:mod:`proxy.tracing`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from proxy.facts import RequestFinished, RequestTraced, Send
from proxy.headers import Fields
from proxy.model import Clock

PARENT = b"traceparent"
STATE = b"tracestate"
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
"""What is behind the flags is of a later version (section 3.2.4)."""
_NO_VERSION = b"ff"
_FIRST_VERSION = b"00"
_SAMPLED = 1
_SPAN_MASK = 2**64 - 1


class Parent(NamedTuple):
    """What a valid ``traceparent`` says (section 3.2)."""

    trace_id: str
    """32 hexadecimal digits in lower case."""
    span_id: str
    """16 of them: of the caller's own part of the trace."""
    sampled: bool
    """The caller may have recorded it."""


def parent_of(fields: Fields) -> Parent | None:
    """The caller's place in a trace; ``None`` where it names none, more than one, or none that is valid."""
    given = fields.values(PARENT)
    match = _PARENT.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == _NO_VERSION or (version == _FIRST_VERSION and rest is not None):
        return None
    if not (trace_id.strip(b"0") and span_id.strip(b"0")):
        return None  # all zeros are no id (sections 3.2.2.3 and 3.2.2.4)
    return Parent(trace_id.decode(), span_id.decode(), bool(int(flags, 16) & _SAMPLED))


class Trace:
    """The part that one request has in a trace: a span of its own, and one for each time that it is sent.

    :param bits: random bits, so many as are asked for, as a number.
    """

    __slots__ = ("_at", "_bits", "_scheme", "_sends", "parent_id", "sampled", "trace_id")

    def __init__(
        self,
        trace_id: str,
        parent_id: str | None,
        scheme: str,
        at: float,
        bits: Callable[[int], int],
        *,
        sampled: bool,
    ) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        """The caller's span; ``None`` where the trace begins here."""
        self.sampled = sampled
        self._scheme = scheme
        self._at = at
        self._bits = bits
        self._sends: list[Send] = []

    def without_theirs(self, fields: Fields) -> Fields:
        """The caller's fields without the ``traceparent`` that ours stands for.

        ``tracestate`` is kept as it came, as others' entries must be (section 3.5); but it goes with a
        ``traceparent`` that is not valid, since nobody knows of which trace it is (section 4).
        """
        if not (fields.values(PARENT) or fields.values(STATE)):
            return fields
        dropped = (PARENT,) if self.parent_id is not None else (PARENT, STATE)
        return Fields(field for field in fields if field[0].lower() not in dropped)

    def send(self, path: str, after_ms: float) -> bytes:
        """The request is about to be sent: the line by which Pleo's part follows upon that.

        :param path: without the query.
        :param after_ms: since the request began.
        """
        span_id = _span_id(self._bits)
        if not self.sampled:
            return f"traceparent: 00-{self.trace_id}-{span_id}-00\r\n".encode()
        self._sends.append(Send(span_id, path, after_ms))
        return f"traceparent: 00-{self.trace_id}-{span_id}-01\r\n".encode()

    def answered(self, after_ms: float, status: int) -> None:
        """The head of the answer to the last send has come."""
        if self.sampled:
            send = self._sends[-1]
            send.duration_ms, send.status = after_ms - send.after_ms, status

    def told(self, request: RequestFinished) -> RequestTraced:
        """All of it, when the request has ended; only where it is recorded."""
        for send in self._sends:
            if send.status is None:
                send.duration_ms = request.duration_ms - send.after_ms
        return RequestTraced(
            request, _span_id(self._bits), self.parent_id, self._at, self._scheme, tuple(self._sends)
        )


class Tracer:
    """Begins traces, and says which of them are recorded: as the caller's is, else by chance.

    What is minted here is on the way of each request, so it is as little as can be.

    :param ratio: of the traces that begin here and are recorded, from 0 to 1.
    :param bits: random bits, so many as are asked for, as a number. An id is no secret.
    """

    def __init__(self, ratio: float, clock: Clock, bits: Callable[[int], int]) -> None:
        # By the trace's id, as OpenTelemetry's TraceIdRatioBased does, so that all who do so agree.
        self._bound = round(ratio * (_SPAN_MASK + 1))
        self._clock = clock
        self._bits = bits

    def begin(self, parent: Parent | None, scheme: str) -> Trace | None:
        """The part of a request; ``None`` where its caller's trace is not recorded, and goes on as it came.

        :param scheme: by which the caller came.
        """
        if parent is None:
            number = self._bits(128) or 1
            sampled = number & _SPAN_MASK < self._bound
            return Trace(f"{number:032x}", None, scheme, self._clock(), self._bits, sampled=sampled)
        if not parent.sampled:
            return None
        return Trace(parent.trace_id, parent.span_id, scheme, self._clock(), self._bits, sampled=True)


def _span_id(bits: Callable[[int], int]) -> str:
    return f"{bits(64) or 1:016x}"  # all zeros are no id, however seldom they come
