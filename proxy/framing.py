"""Where the body of a request ends (RFC 9112 sections 6 and 7), decided so that everyone sees the same end.

Pure: bytes come in as they arrive, and pieces of the body come out, freed of their framing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from proxy import heads
from proxy.errors import TargetRefused
from proxy.headers import Field, Fields, expects_continue, remembered

CHUNKED = -1
"""Stands for a length that only the chunks tell."""

_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_LINE_BYTES = 1024
"""Of a chunk's first line; extensions (section 7.1.1) mean nothing here and are bounded."""


class Framing(NamedTuple):
    """What a head says of what comes after it."""

    length: int
    """Bytes of the body, 0 for none, or :data:`CHUNKED`."""
    persists: bool
    """Another request may come on the same connection (RFC 9112 section 9.3)."""
    expects_continue: bool
    """The caller waits for ``100 Continue`` before it sends its body (RFC 9110 section 10.1.1)."""


@remembered
def of(fields: Fields, http_1_1: bool, /) -> Framing:
    """What follows a head with these fields.

    :raises TargetRefused: a framing that is ambiguous, or that only some servers would understand.
    """
    options = {
        option.strip().lower() for value in fields.values(b"connection") for option in value.split(b",")
    }
    persists = b"close" not in options and (http_1_1 or b"keep-alive" in options)
    # What comes after a request for another protocol may be of that protocol, and none is switched to here.
    persists = persists and not fields.values(b"upgrade")
    length = _length(fields, http_1_1=http_1_1)
    # Section 10.1.1: an expectation in an HTTP/1.0 request, or without a body, is nothing to wait for.
    return Framing(length, persists, http_1_1 and length != 0 and expects_continue(fields))


def _length(fields: Fields, *, http_1_1: bool) -> int:
    codings, lengths = fields.values(b"transfer-encoding"), fields.values(b"content-length")
    if codings:
        if not http_1_1:
            raise TargetRefused("HTTP/1.0 has no Transfer-Encoding; send Content-Length")
        if lengths:
            raise TargetRefused("Transfer-Encoding and Content-Length are both sent; send one of them")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise TargetRefused("the Transfer-Encoding is not chunked alone")
        return CHUNKED
    if not lengths:
        return 0
    # Section 6.3 allows to take repeated equal lengths for one; servers that look at one of them only differ.
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise TargetRefused("the Content-Length is not a length that a body can have")
    return int(lengths[0])


class Decoder(Protocol):
    """The framing of one body."""

    ended: bool
    trailers: Sequence[Field]
    """Known once the body has ended (RFC 9110 section 6.5)."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Bytes of the body out of what came, and the bytes behind its end.

        :raises TargetRefused: the framing is malformed, and nothing behind this can be relied on.
        """


class Counted:
    """A body of known length."""

    __slots__ = ("_left", "ended")

    trailers: Sequence[Field] = ()

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = not length

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """As :meth:`Decoder.feed`; a piece within the body is handed on as it is."""
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data, b""
        self.ended = True
        if left == 0:
            self._left = 0
            return data, b""
        end, self._left = self._left, 0
        return data[:end], data[end:]


class Chunks:
    """A body in chunks (RFC 9112 section 7.1)."""

    __slots__ = ("_in_trailers", "_left", "_section_bytes", "_unread", "ended", "trailers")

    def __init__(self, *, section_bytes: int) -> None:
        """``section_bytes`` is how long the trailer section may be."""
        self.ended = False
        self.trailers: Sequence[Field] = ()
        self._section_bytes = section_bytes
        self._left = 0
        """Bytes of the chunk that are still to come, and the CRLF behind them."""
        self._in_trailers = False
        self._unread = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """As :meth:`Decoder.feed`."""
        if self._unread:
            data, self._unread = self._unread + data, b""
        pieces: list[bytes] = []
        position = 0
        while not self._in_trailers:
            if self._left:
                taken = self._take(data, position, pieces)
                if taken is None:
                    return b"".join(pieces), b""
                position = taken
            end = data.find(b"\n", position)
            if end < 0:
                self._keep(data[position:], _LINE_BYTES)
                return b"".join(pieces), b""
            size = _chunk_size(data[position : end + 1])
            position = end + 1
            if size:
                self._left = size + 2
            else:
                self._in_trailers = True
        return b"".join(pieces), self._end(data[position:])

    def _take(self, data: bytes, position: int, pieces: list[bytes]) -> int | None:
        """Take what is there of the chunk; where it ends, or ``None`` if it does not end here."""
        end = position + self._left
        body_end = end - 2
        if body_end > position:
            pieces.append(data[position:body_end] if position or body_end < len(data) else data)
        line_end = data[max(body_end, position) : end]
        if not b"\r\n"[2 - min(self._left, 2) :].startswith(line_end):
            raise TargetRefused("a chunk is longer than its size (RFC 9112 section 7.1)")
        if end > len(data):
            self._left = end - len(data)
            return None
        self._left = 0
        return end

    def _end(self, data: bytes) -> bytes:
        """The trailer section, if all of it is there; returns what is behind it."""
        if data.startswith(b"\r\n"):
            self.ended = True
            return data[2:]
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._keep(data, self._section_bytes)
            return b""
        self.trailers = heads.read_section(data[: end + 2])
        self.ended = True
        return data[end + 4 :]

    def _keep(self, data: bytes, most: int) -> None:
        if len(data) > most:
            raise TargetRefused("the framing of the body is longer than its content can need")
        self._unread = data


def _chunk_size(line: bytes) -> int:
    match = _CHUNK_LINE.fullmatch(line[:-2]) if line.endswith(b"\r\n") else None
    if match is None:
        raise TargetRefused("the size of a chunk is malformed (RFC 9112 section 7.1)")
    return int(match[1], 16)
