"""A strict, incremental reader of HTTP/1.1 messages (RFC 9112), to judge what the proxy sends.

Written without any parser that the proxy uses, and without mercy: what the RFC lets a recipient tolerate is
:exc:`Malformed` here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Field = tuple[bytes, bytes]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(1\.[01])")
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
_ANY_REASON = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9][0-9])(?: ([^\r\n]*))?")
_FIELD = re.compile(
    rb"("
    + _TOKEN
    + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})((?:;[\t\x20-\x7e\x80-\xff]*)?)")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Malformed(Exception):  # noqa: N818 - it is a finding, not a mistake of the reader
    """Not a message of HTTP/1.1."""


@dataclass
class Message:
    """One message as it was read; ``first`` is its start line's three parts."""

    first: tuple[bytes, bytes, bytes]
    """Method, target, version; or version, status, reason."""
    fields: list[Field]
    head: bytes
    """The head as it came, up to and with the empty line."""
    body: bytes = b""
    trailers: list[Field] = field(default_factory=list)
    chunked: bool = False
    complete: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field, given in lower case."""
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def status(self) -> int:
        """The status of an answer."""
        return int(self.first[1])


class Reader:
    """Makes messages of bytes that come in pieces of any size."""

    def __init__(self, kind: Literal["request", "answer"], *, lenient: bool = False) -> None:
        """``lenient``: as a recipient may be by the RFC (sections 2.2 and 6.3)."""
        self._kind = kind
        self._lenient = lenient
        self._data = bytearray()
        self._searched = 0
        self._pieces: list[bytes] = []
        self._message: Message | None = None
        self._left = 0
        self._state: Literal["head", "sized", "size", "chunk", "after chunk", "trailers", "until end"] = (
            "head"
        )
        self.bodiless: list[bool] = []
        """For each answer to come whether it answers HEAD (RFC 9112 section 6.3 rule 1)."""
        self.done: list[Message] = []
        """Messages that are whole."""

    @property
    def begun(self) -> Message | None:
        """The message whose head is here and whose end is not, with as much body as there is."""
        if self._message is not None:
            self._message.body = b"".join(self._pieces)
        return self._message

    @property
    def rest(self) -> bytes:
        """Bytes that belong to no message yet."""
        return bytes(self._data)

    def feed(self, data: bytes) -> None:
        """Read on.

        :raises Malformed: these bytes are no message.
        """
        self._data += data
        while self._step():
            pass

    def end(self) -> None:
        """The connection ended in good order: what its end delimits is whole."""
        if self._state == "until end":
            self._finish()

    def _step(self) -> bool:
        match self._state:
            case "head":
                return self._read_head()
            case "sized" | "chunk" | "until end":
                return self._read_body()
            case "size":
                return self._read_size()
            case "after chunk":
                return self._read_after_chunk()
            case "trailers":
                return self._read_trailers()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        self._searched = 0
        return taken

    def _line(self) -> bytes | None:
        end = self._data.find(b"\r\n", max(0, self._searched - 1))
        if end < 0:
            self._searched = len(self._data)
            if self._searched > 1 << 17:
                raise Malformed("an endless line")
            return None
        return self._take(end + 2)[:-2]

    def _read_head(self) -> bool:
        if self._lenient:
            while self._data.startswith((b"\r", b"\n")):
                del self._data[:1]
        end = self._data.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self._data)
            if self._data and not re.match(rb"[!-~]", self._data):
                raise Malformed(f"no message begins like this: {bytes(self._data[:40])!r}")
            return False
        head = self._take(end + 4)
        first, *lines = head[:-4].split(b"\r\n")
        pattern = _REQUEST_LINE if self._kind == "request" else _STATUS_LINE
        if self._lenient and self._kind == "answer":
            pattern = _ANY_REASON
        parts = pattern.fullmatch(first)
        if parts is None:
            raise Malformed(f"start line {first[:200]!r}")
        self._message = Message((parts[1], parts[2], parts[3]), [_field(line) for line in lines], head)
        self._pieces = []
        self._frame(self._message)
        return True

    def _frame(self, message: Message) -> None:
        """Find out where the body ends (RFC 9112 section 6.3)."""
        if self._kind == "request":
            if len(message.values(b"host")) != 1 and message.first[2] == b"1.1":
                raise Malformed(f"no Host or several: {message.head!r}")
            may_have_body = True
        else:
            is_head = message.status >= 200 and bool(self.bodiless) and self.bodiless.pop(0)
            may_have_body = not is_head and message.status >= 200 and message.status not in (204, 304)
        if not may_have_body:
            # Whatever the fields say (rule 1).
            self._finish()
            return
        length = _checked_framing(message)
        message.chunked = bool(message.values(b"transfer-encoding"))
        if length == 0 or (length is None and not message.chunked and self._kind == "request"):
            self._finish()
        elif message.chunked:
            self._state = "size"
        elif length is not None:
            self._left = length
            self._state = "sized"
        else:
            self._state = "until end"

    def _read_body(self) -> bool:
        if not self._data:
            return False
        if self._state == "until end":
            self._pieces.append(self._take(len(self._data)))
            return False
        piece = self._take(min(self._left, len(self._data)))
        self._pieces.append(piece)
        self._left -= len(piece)
        if not self._left:
            if self._state == "sized":
                self._finish()
            else:
                self._state = "after chunk"
        return True

    def _read_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        parts = _CHUNK.fullmatch(line)
        if parts is None:
            raise Malformed(f"chunk size {line[:200]!r}")
        self._left = int(parts[1], 16)
        self._state = "chunk" if self._left else "trailers"
        return True

    def _read_after_chunk(self) -> bool:
        if len(self._data) < 2:
            return False
        if self._take(2) != b"\r\n":
            raise Malformed("a chunk that is longer than its size")
        self._state = "size"
        return True

    def _read_trailers(self) -> bool:
        line = self._line()
        if line is None:
            return False
        assert self._message is not None
        if line:
            self._message.trailers.append(_field(line))
        else:
            self._finish()
        return True

    def _finish(self) -> None:
        message = self._message
        assert message is not None
        message.body = b"".join(self._pieces)
        message.complete = True
        self._pieces = []
        self._message = None
        self._state = "head"
        self.done.append(message)


def _checked_framing(message: Message) -> int | None:
    """The length, if the message says one; there is one framing at most, and it is one of HTTP/1.1."""
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Malformed(f"two framings: {message.head!r}")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise Malformed(f"length {lengths[0]!r}")
    if codings and codings[0].lower() != b"chunked":
        raise Malformed(f"coding {codings[0]!r}")
    return int(lengths[0]) if lengths else None


def _field(line: bytes) -> Field:
    parts = _FIELD.fullmatch(line)
    if parts is None:
        raise Malformed(f"field {line[:200]!r}")
    return parts[1], parts[2]
