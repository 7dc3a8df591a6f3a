"""W3C Trace Context: of which trace a request says that it is a part. Pure.

What callers send of it goes to Pleo as it came, be it valid or not: the proxy forwards a trace and takes no
part in it (section 2.3 of https://www.w3.org/TR/trace-context-1/), and a field that an intermediary makes
nothing of is passed on (RFC 9110 section 5.1). Only what is valid is believed here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy.headers import Fields

PARENT = b"traceparent"
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
"""What is behind the flags is of a later version (section 3.2.4)."""
_NO_VERSION = b"ff"
_FIRST_VERSION = b"00"
_SAMPLED = 1


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
