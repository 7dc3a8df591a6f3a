"""What a request asks for: the request target as bytes, split and judged but never rewritten.

Pure. What is checked here is what is sent upstream: a target that two servers could read in two ways is
refused, because the policy decision and Pleo's routing must be about the same path.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from proxy.errors import TargetRefused, TargetTooLong
from proxy.recurring import Recurring

_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)", re.DOTALL)
_PLAIN = re.compile(rb"/[A-Za-z0-9_~:=@!$&'()*+,/-]*")
# ";x=y" parameters are cut before looking at a segment, as Java servers do before routing.
_REFUSED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"%[0-9A-Fa-f]{2}"), "is percent-encoded twice ('%25' before two hexadecimal digits)"),
    (re.compile(r"\\"), "has a backslash"),
    (re.compile(r"[\x00-\x1f\x7f-\x9f]"), "has a control character"),
    (re.compile(r"/\.\.?(?:;[^/]*)?(?=/|\Z)"), "has a dot segment ('.' or '..')"),
)
"""What a decoded path must not have, because a server on the way could read it as another path."""
_STRUCTURE = re.compile(r"[./\\\\;%?#]")
_METHOD_PARAMETER = re.compile(rb"(?:\A|[?&;])_method(?:[=&;\[]|\Z)")


class Target:
    """An origin-form target (RFC 9112 section 3.2.1), its bytes kept; nothing changes it."""

    __slots__ = ("_rest", "authority", "decoded", "first_segment", "path", "query", "raw", "shown")

    def __init__(self, path: bytes, query: bytes | None, decoded: str, authority: str | None = None) -> None:
        self.path = path
        self.query = query
        """Bytes after the first ``?``; ``None`` where there is none (an empty query is kept as such)."""
        self.decoded = decoded
        """The path percent-decoded once: for decisions, never for sending."""
        self.authority = authority
        """From an absolute-form target (RFC 9112 section 3.2.2), where it replaces ``Host``."""
        self.raw = path if query is None else path + b"?" + query
        """The bytes to send."""
        self.shown = path.decode("ascii")
        """The path for a log."""
        self.first_segment = decoded[1:].partition("/")[0]
        """The decoded path's first segment: where a tenant's name may stand."""
        self._rest: Target | None = None

    def without_first_segment(self) -> Target:
        """The same target less its first path segment, byte for byte; ``/name`` becomes ``/``."""
        if self._rest is None:
            path = b"/" + self.path[1:].partition(b"/")[2]
            decoded = "/" + self.decoded[1:].partition("/")[2]
            self._rest = Target(path, self.query, decoded, self.authority)
        return self._rest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Target):
            return NotImplemented
        return (self.raw, self.decoded, self.authority) == (other.raw, other.decoded, other.authority)

    def __hash__(self) -> int:
        return hash((self.raw, self.authority))


def parse(raw: bytes, max_bytes: int) -> Target:
    """The target of a request line.

    :raises TargetTooLong: longer than ``max_bytes``.
    :raises TargetRefused: not origin-form or absolute-form; a fragment; bytes outside visible ASCII; a bad
        percent escape; a decoded path with dot segments, backslashes, control characters, encoded slashes
        or further percent escapes; or a query with a parameter ``_method``.
    """
    if len(raw) > max_bytes:
        raise TargetTooLong(f"the target has {len(raw)} bytes; limits.target_bytes is {max_bytes}")
    return _recurring(raw) if len(raw) <= _RECURRING_BYTES else _parsed(raw)


def _parsed(raw: bytes) -> Target:
    authority = None
    if not raw.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(raw)
        if absolute is None:
            raise TargetRefused("the request target must begin with '/'")
        authority, raw = absolute[1].decode("latin-1"), absolute[2]
        if not raw.startswith(b"/"):
            raw = b"/" + raw
    if _PLAIN.fullmatch(raw):  # as nearly all are
        return Target(raw, None, raw.decode("ascii"), authority)
    if not _VISIBLE.fullmatch(raw) or b"#" in raw:
        raise TargetRefused("the request target has a character that must be percent-encoded (RFC 3986)")
    path, mark, query = raw.partition(b"?")
    if mark:
        _check_query(query)
    return Target(path, query if mark else None, _decoded_path(path), authority)


_recurring: Recurring[bytes, Target] = Recurring(lambda raw, _: _parsed(raw), 4096)
_RECURRING_BYTES = 256
"""Longer targets are parsed anew each time, so that what is remembered stays small."""


def loggable_path(raw: bytes) -> str:
    """The path of a target that was refused, in printable ASCII and bounded, without its query."""
    path = raw.partition(b"?")[0][:512].decode("latin-1")
    return "".join(char if " " <= char <= "~" else f"\\x{ord(char):02x}" for char in path)


def _check_query(query: bytes) -> None:
    """Rails, Laravel, Spring and others let ``_method`` make a POST another method than policy judged."""
    asked = (unquote_to_bytes(query) if b"%" in query else query).lower()
    if b"_method" in asked and _METHOD_PARAMETER.search(asked):
        raise TargetRefused("the query has a parameter '_method', which some servers take for the method")


def _decoded_path(path: bytes) -> str:
    if _PLAIN.fullmatch(path):
        return path.decode("ascii")
    if _BAD_ESCAPE.search(path):
        raise TargetRefused("the path has a '%' that is not followed by two hexadecimal digits")
    if b"%2f" in path.lower():
        raise TargetRefused("the path has an encoded slash (%2F)")
    try:
        decoded = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise TargetRefused("the path is not UTF-8 when percent-decoded") from None
    for pattern, fault in _REFUSED:
        if pattern.search(decoded):
            raise TargetRefused(f"the path {fault}")
    if not decoded.isascii():
        # Servers that fold such letters into their plain forms (NFKC) would see dots and slashes in them.
        folded = unicodedata.normalize("NFKC", decoded)
        if _STRUCTURE.findall(folded) != _STRUCTURE.findall(decoded):
            raise TargetRefused("the path has a letter that some servers take for '.', '/' or the like")
    return decoded
