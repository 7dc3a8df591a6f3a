"""Which company a request names, in its query or in a JSON body. Pure.

A tenant's callers speak for one company. Pleo takes company ids as ``company_id`` or ``companyId`` and would
refuse another one than the token's; that is not relied on. Names are compared in the most generous reading
(letter case and everything but letters and digits aside), wherever in a document they stand, and every
occurrence counts, since servers differ in which of several they take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote_plus

_OTHER_THAN_WORD = re.compile(r"[^a-z0-9]+")
_NAMES_A_COMPANY = re.compile(r"companyids?\Z")
_NOT_HEX = re.compile(r"[^0-9a-f]+")
_PAIRS_END = re.compile(rb"[&;]")
_COMPANY_URN = "urn:pleo:company:"

# What bytes must hold before they can name a company as a member of a JSON text.
_NAME = re.compile(rb"company[_.-]{0,2}(?:i|\xc4[\xb0\xb1])d")
_ESCAPED_LETTER = re.compile(rb'\\(?:u00[4-7]|u013[01]|[^"/bfnrtu])')
"""An escape of a letter (RFC 8259 section 7), which encoders never write, or one that JSON does not have."""
_TAIL_BYTES = 24
"""More than the longest of these less one byte: what is cut between two pieces is seen in the second."""
_BEFORE_JSON = b"\xef\xbb\xbf\xfe\xff\x00 \t\r\n"
"""Byte order marks, NULs of wider encodings, white space."""
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?([^\"';,\s]*)", re.IGNORECASE)
_LIKE_ASCII = re.compile(rb"utf-?8|us-ascii|ascii|iso-8859-\d+|windows-125\d|latin-?1", re.IGNORECASE)


def fault_in_query(query: bytes | None, company: str) -> str:
    """Which parameter names another company; empty if none does.

    :param company: the tenant's, a UUID in lower case.
    """
    if not query:
        return ""
    lower = query.lower()
    if b"company" not in lower and b"%" not in lower:
        return ""
    for pair in _PAIRS_END.split(query):
        name, _, value = pair.decode("latin-1").partition("=")
        shown = unquote_plus(name)
        if _names_a_company(shown) and not all(
            _is_company(one, company) for one in unquote_plus(value).split(",")
        ):
            return f"the query parameter {shown[:40]!r} names another company than the tenant's"
    return ""


def fault_in_fields(content_type: Sequence[bytes], content_encoding: Sequence[bytes]) -> str:
    """Why a body that is sent with these fields could not be looked into; empty if it can be."""
    for value in content_encoding:
        if value.strip().lower() not in (b"", b"identity"):
            return "a body with a Content-Encoding cannot be looked into; send it without"
    for value in content_type:
        for charset in _CHARSET.findall(value):
            if not _LIKE_ASCII.fullmatch(charset):
                return "a body in this charset cannot be looked into; send JSON in UTF-8"
    return ""


def fault_in_json(body: bytes, company: str) -> str:
    """Which member of a JSON text names another company; empty if none does, or the body is no JSON."""
    if not may_be_json(body) or not is_suspect(body):
        return ""
    try:
        text = body.decode(json.detect_encoding(body)).removeprefix("\ufeff")
        document = json.loads(text, object_pairs_hook=_Members)
    except (ValueError, RecursionError):
        # A parser more lenient than ours could read it, so it must not name a company at all.
        return "it seems to name a company and is no valid JSON; send JSON in UTF-8"
    for name, value in _members(document):
        if _names_a_company(name) and not _is_of_company(value, company):
            return f"the member {name[:40]!r} names another company than the tenant's"
    return ""


def may_be_json(start: bytes) -> bool | None:
    """Whether a body that begins so can hold members; ``None`` if more of it is needed.

    Whatever its Content-Type: nobody knows which ones Pleo looks at. "/" begins a comment, which JSON does
    not have and some parsers take.
    """
    begins = start.lstrip(_BEFORE_JSON)[:1]
    return begins in (b"{", b"[", b"/") if begins else None


def is_suspect(piece: bytes, before: bytes = b"") -> bool:
    """Whether bytes could name a company, so that a whole document has to be read.

    :param before: the end of the piece before (:func:`tail`).
    """
    looked_at = before + piece
    if b"\0" in looked_at:  # UTF-16 or UTF-32
        return True
    if _NAME.search(looked_at.lower()):
        return True
    return b"\\" in looked_at and _ESCAPED_LETTER.search(looked_at.replace(b"\\\\", b"")) is not None


def tail(piece: bytes, before: bytes = b"") -> bytes:
    """What to hand to :func:`is_suspect` with the next piece."""
    return (before + piece)[-_TAIL_BYTES:]


class _Members(list[tuple[str, Any]]):
    """An object with all its members, also those whose name comes again."""


def _members(document: object) -> Iterator[tuple[str, object]]:
    """All members of all objects in a document, however deep."""
    waiting: list[object] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Members):
            yield from value
            waiting += [member for _, member in value]
        elif isinstance(value, list):
            waiting += value


def _names_a_company(name: str) -> bool:
    # By way of capitals: U+0131 and "i" have the same one, so some servers take one for the other.
    return _NAMES_A_COMPANY.search(_OTHER_THAN_WORD.sub("", name.upper().lower())) is not None


def _is_of_company(value: object, company: str) -> bool:
    """Whether the value of a member that names a company means no other."""
    match value:
        case None:
            return True
        case str():
            return all(_is_company(one, company) for one in value.split(","))
        case _Members():  # a filter, such as {"eq": "…"}: the words in it are no ids
            return all(_means_no_other(member, company) for _, member in value)
        case list():
            return all(_is_of_company(one, company) for one in value)
        case _:
            return False


def _means_no_other(value: object, company: str) -> bool:
    if isinstance(value, str):
        hexadecimal = _NOT_HEX.sub("", value.lower())
        return len(hexadecimal) < 32 or _is_company(value, company)
    if isinstance(value, _Members):
        return all(_means_no_other(member, company) for _, member in value)
    if isinstance(value, list):
        return all(_means_no_other(one, company) for one in value)
    return True


def _is_company(value: str, company: str) -> bool:
    return value.strip().lower().removeprefix(_COMPANY_URN) == company
