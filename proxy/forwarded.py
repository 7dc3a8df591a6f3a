"""Who a request comes from where trusted proxies stand before this one (RFC 7239, ``X-Forwarded-For``).

Pure. Every hop adds what it saw at the right, so the fields are read from there: hop by hop as long as each
is a trusted proxy, and no further than the first that is not. What stands left of it a caller may have
written, and is never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from proxy.arrival import Address, Arrival, Networks, address_of
from proxy.errors import TargetRefused
from proxy.headers import Fields, remembered

_HOPS_MOST = 32
"""No chain of proxies is that long, and reading on would be work for whoever wrote it."""
_ELEMENT_BYTES = 1024
_EMPTY = b", \t"

_NODE = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|(\d{1,3}(?:\.\d{1,3}){3}))(?::(?:\d{1,5}|_[A-Za-z0-9._-]+))?")
"""RFC 7239 section 6: an address, with a port or a name instead of one."""
_BARE_IPV6 = re.compile(rb"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
"""``X-Forwarded-For`` has them without brackets; ``Forwarded`` must not."""
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = _TOKEN + rb'|"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_PAIR = re.compile(rb"[ \t]*(" + _TOKEN + rb")=(" + _VALUE + rb")[ \t]*")
_ELEMENT = re.compile(rb"%b(?:;%b)*" % (_PAIR.pattern, _PAIR.pattern))
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


class _Hop(NamedTuple):
    """What one proxy says of the request that it got."""

    address: Address | None
    """Who sent it; ``None`` where that is not told, or not in a form that could be relied on."""
    proto: str | None = None
    host: str | None = None


class _Caller(NamedTuple):
    """Where a chain of hops leads."""

    address: Address | None
    """``None`` where a trusted proxy does not tell."""
    hops: int
    """How many were read; none where nothing is said."""
    last: _Hop


def behind(arrival: Arrival, fields: Fields) -> Arrival:
    """The arrival at the first trusted proxy of a request that came from one.

    A caller that a trusted proxy does not tell has no address, and is in no network: taking the proxy's
    instead would let in who hides behind it.

    :raises TargetRefused: ``Forwarded`` and ``X-Forwarded-For`` lead to different callers.
    """
    if arrival.trusted is None:
        return arrival
    told = _told(fields, arrival.trusted)
    if not told.hops:
        return arrival
    scheme: Literal["http", "https"] = arrival.scheme
    if told.last.proto in ("http", "https"):
        scheme = "https" if told.last.proto == "https" else "http"
    caller = f"unknown behind {arrival.caller}" if told.address is None else str(told.address)
    return arrival._replace(caller=caller, scheme=scheme, authority=told.last.host)


@remembered
def _told(fields: Fields, trusted: Networks, /) -> _Caller:
    standard = _caller(_standard_hops(fields.values(b"forwarded")), trusted)
    usual = _caller(_usual_hops(fields.values(b"x-forwarded-for")), trusted)
    if standard.hops and usual.hops and standard.address != usual.address:
        # Most proxies write one of them and pass on the other as it came, so neither can be preferred.
        raise TargetRefused(
            "Forwarded and X-Forwarded-For lead to different callers; let the proxy in front set one of them "
            "and remove the other"
        )
    found = standard if standard.hops else usual
    return found._replace(
        last=_Hop(
            found.address,
            found.last.proto or (_at_hop(fields.values(b"x-forwarded-proto"), found.hops) or "").lower(),
            found.last.host or _at_hop(fields.values(b"x-forwarded-host"), found.hops),
        )
    )


def _caller(hops: Iterator[_Hop], trusted: Networks) -> _Caller:
    """The first hop from the right that is no trusted proxy, or the last of them."""
    found = _Caller(None, 0, _Hop(None))
    for number, hop in enumerate(hops, 1):
        if number > _HOPS_MOST:
            return _Caller(None, number, hop)
        found = _Caller(hop.address, number, hop)
        if hop.address is None or hop.address not in trusted:
            break
    return found


def _usual_hops(lines: Sequence[bytes]) -> Iterator[_Hop]:
    return (_Hop(_address(text, bare=True)) for text in _from_the_right(lines))


def _from_the_right(lines: Sequence[bytes]) -> Iterator[bytes]:
    """The elements of a list that is spread over field lines, the last one first, empty ones left out.

    RFC 9110 section 5.6.1 has both. Empty ones go many at a time: one by one, a line of commas would be work.
    """
    for line in reversed(lines):
        rest = line.rstrip(_EMPTY)
        while rest:
            rest, _, text = rest.rpartition(b",")
            yield text.strip(b" \t")
            rest = rest.rstrip(_EMPTY)


def _at_hop(lines: Sequence[bytes], hops: int) -> str | None:
    """What the proxy says that is ``hops`` from the right, or the first where fewer of them say anything."""
    found = None
    for text, _ in zip(_from_the_right(lines), range(hops), strict=False):
        found = text
    return None if found is None else found.decode("latin-1")


def _standard_hops(lines: Sequence[bytes]) -> Iterator[_Hop]:
    for line in reversed(lines):
        rest = line.rstrip(_EMPTY)
        while rest:
            comma = _comma_before_last_element(rest)
            yield _standard_hop(rest[comma + 1 :])
            rest = rest[: max(comma, 0)].rstrip(_EMPTY)


def _comma_before_last_element(line: bytes) -> int:
    """Behind which the last element of a line begins; -1 where no end of the line alone is one.

    A comma may be in quotes. But quotes that a caller left open must not swallow what a proxy added behind
    them, so the shortest end of the line that is well-formed is its last element.
    """
    comma = len(line)
    while (comma := line.rfind(b",", max(len(line) - _ELEMENT_BYTES, 0), comma)) >= 0:
        if _ELEMENT.fullmatch(line, comma + 1):
            return comma
    return -1


def _standard_hop(element: bytes) -> _Hop:
    if len(element) > _ELEMENT_BYTES or not _ELEMENT.fullmatch(element):
        return _Hop(None)
    pairs = [(name.lower(), _unquoted(value)) for name, value in _PAIR.findall(element)]
    said = dict(pairs)
    if len(said) != len(pairs):  # RFC 7239 section 4: no parameter twice
        return _Hop(None)
    proto, host = said.get(b"proto"), said.get(b"host")
    return _Hop(
        _address(said.get(b"for", b""), bare=False),
        None if proto is None else proto.decode("latin-1").lower(),
        None if host is None else host.decode("latin-1"),
    )


def _unquoted(value: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", value[1:-1]) if value.startswith(b'"') else value


def _address(text: bytes, *, bare: bool) -> Address | None:
    node = _NODE.fullmatch(text)
    if node is not None:
        return address_of((node[1] or node[2]).decode("ascii"))
    if bare and _BARE_IPV6.fullmatch(text):
        return address_of(text.decode("ascii"))
    return None
