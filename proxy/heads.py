"""The head of a request, read strictly: what two servers could read in two ways is no head (RFC 9112).

Pure, and stricter than most parsers: one space between the parts of the request line, CRLF at the end of
each line, nothing before a colon, no folded lines, no control characters. What passes here every parser reads
alike, which ``tests/test_heads.py`` holds to two others.

A caller sends much the same header section with each request, so a section is read once for the same bytes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy.errors import HeadTooLarge, TargetRefused
from proxy.headers import Fields, Headers
from proxy.recurring import Recurring

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# Registered methods are of capital letters and hyphens (RFC 9110 section 16.1); one in small letters is
# another method by the RFC and the same one to many servers.
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]{0,31}) ([\x21-\x7e]+) HTTP/1\.([01])")
_OTHER_VERSION = re.compile(rb"[A-Z]+ [^ ]+ HTTP/[0-9.]+")
_SECTION = re.compile(rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*")
_BEGINNING = re.compile(rb"(?:[A-Z][A-Z-]{0,31}(?: .*)?)?", re.DOTALL)
_BEGINNING_BYTES = 40
_BARE_LF = re.compile(rb"(?<!\r)\n")
_RECURRING_BYTES = 2048
"""Longer sections are read anew each time, so that what is remembered stays small."""


class Head(NamedTuple):
    """Request line and header section (RFC 9112 sections 3 and 5)."""

    method: str
    target: bytes
    """The request target as it came; :mod:`proxy.target` judges it."""
    http_1_1: bool
    """HTTP/1.1, else HTTP/1.0."""
    fields: Fields


UNREADABLE = Head("UNKNOWN", b"", http_1_1=True, fields=Fields(()))
"""Stands for a head that could not be read."""


def read(raw: bytes, *, head_bytes: int, most_fields: int) -> Head:
    """The head in ``raw``, which ends with the CRLF of its last line, the empty line left out.

    :raises TargetRefused: it is not well-formed; the text says which line is not.
    :raises HeadTooLarge: a header section of more than ``head_bytes``, or of more than ``most_fields``.
    """
    line, _, section = raw.partition(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if _OTHER_VERSION.fullmatch(line):
            raise TargetRefused("the protocol version is neither HTTP/1.1 nor HTTP/1.0")
        raise TargetRefused("the request line is not METHOD, target and HTTP/1.1 with one space between them")
    if len(section) > head_bytes:
        raise HeadTooLarge(f"the header section is larger than limits.head_bytes ({head_bytes})")
    fields = _recurring(section) if len(section) <= _RECURRING_BYTES else Fields(read_section(section))
    if len(fields) > most_fields:
        raise HeadTooLarge(f"there are {len(fields)} header fields; limits.headers is {most_fields}")
    method, target, minor = match.groups()
    if method == b"CONNECT":  # what follows it would be no HTTP (RFC 9110 section 9.3.6)
        raise TargetRefused("the method CONNECT is not served")
    return Head(method.decode("ascii"), target, minor == b"1", fields)


def can_become_a_head(raw: bytes, *, seen: int) -> bool:
    """Whether more bytes could make a head of this beginning of one, ``seen`` bytes of which were judged.

    Asked so that a TLS handshake, or a tool that ends lines with LF, is told at once instead of waited for.
    """
    if _BARE_LF.search(raw, seen):
        return False
    return seen >= _BEGINNING_BYTES or _BEGINNING.fullmatch(raw[:_BEGINNING_BYTES]) is not None


def read_section(section: bytes) -> Headers:
    """The fields of a header or trailer section, each line ended by CRLF (RFC 9112 section 5).

    :raises TargetRefused: a line is not ``name: value``.
    """
    if not _SECTION.fullmatch(section):
        raise TargetRefused(f"header field {_first_bad_line(section)} is malformed (RFC 9112 section 5)")
    fields = []
    for line in section.split(b"\r\n"):
        name, _, value = line.partition(b":")
        fields.append((name, value.strip(b" \t")))
    del fields[-1]  # what is behind the last line's end
    return fields


def _first_bad_line(section: bytes) -> int:
    lines = section.split(b"\r\n")
    bad = (number for number, line in enumerate(lines, 1) if not _SECTION.fullmatch(line + b"\r\n"))
    return next(bad, len(lines))


def _fields(section: bytes, recurs: bool) -> Fields:
    return Fields(read_section(section), recurs=recurs)


_recurring = Recurring(_fields, 512)
