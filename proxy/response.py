"""The answer to a caller: head and body composed as bytes and written as they are.

Nothing is decoded, reordered or added on the way but the framing (RFC 9112 section 6), and a ``Date`` where
there is none (RFC 9110 section 6.6.1). Knows nothing of tokens or tenants.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time

from proxy.headers import Field, Headers, lines
from proxy.intake import CallerRequest

_LENGTHS = frozenset({len(b"content-length"), len(b"date")})
_REASON_UNSAFE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")


class CallerResponse:
    """One answer, from its head to its last byte.

    :param headers: end-to-end fields as they are to be sent, ``Content-Length`` included if it is known.
    :param body: the whole body where it is at hand, so that head and body leave in one write.
    :param close: close the connection after this answer.
    """

    __slots__ = (
        "_bodiless",
        "_chunks",
        "_close",
        "_headers",
        "_reason",
        "_request",
        "_whole_body",
        "begun",
        "body_bytes",
        "status",
    )

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: Headers,
        *,
        body: bytes | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.begun = False
        """The head is on its way, so no other answer can be given."""
        self.body_bytes = 0
        """Body bytes written so far, without chunk framing."""
        self._reason = reason
        self._headers = headers
        self._whole_body = body
        self._close = close
        self._chunks = False
        self._bodiless = False
        self._request: CallerRequest

    @property
    def is_whole(self) -> bool:
        """Head and body leave together, so that nothing is left to write."""
        return self._whole_body is not None

    @property
    def persists(self) -> bool:
        """Whether the connection serves another request."""
        return not self._close

    def begin(self, request: CallerRequest) -> None:
        """Send the head, and the body with it where it is at hand.

        :raises ConnectionError: the caller has left.
        """
        self._request = request
        head = self._head(request)
        body = self._whole_body
        if body is None or self._bodiless:
            request.line.write(head)
        else:
            request.line.write(head + body)
            self.body_bytes = len(body)
        self.begun = True

    async def write(self, piece: bytes) -> None:
        """Send a part of the body and wait while the caller is slower than the upstream.

        :raises ConnectionError: the caller has left.
        """
        if not piece or self._bodiless:
            return
        line = self._request.line
        line.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunks else piece)
        self.body_bytes += len(piece)
        await line.drained()

    def end(self, trailers: Sequence[Field] = ()) -> None:
        """Send what ends the body.

        :param trailers: fields after the body (RFC 9110 section 6.5), dropped where it is not in chunks
        :raises ConnectionError: the caller has left.
        """
        if self._chunks and not self._bodiless:
            self._request.line.write(b"0\r\n%b\r\n" % lines(trailers))

    def break_off(self) -> None:
        """End the connection visibly in the middle: a body that broke off must not look whole."""
        self._close = True
        if self.begun:
            self._request.line.reset()

    def _head(self, request: CallerRequest) -> bytes:
        http_1_1 = request.head.http_1_1
        self._bodiless = request.head.method == "HEAD" or self.status in (204, 304)
        there = [name.lower() for name, _ in self._headers if len(name) in _LENGTHS]
        framing = b"" if b"date" in there else _date(int(time()))
        if not self._bodiless and b"content-length" not in there:
            if self._whole_body is not None:
                framing += b"Content-Length: %d\r\n" % len(self._whole_body)
            elif http_1_1:
                self._chunks = True
                framing += b"Transfer-Encoding: chunked\r\n"
            else:
                self._close = True  # the end of the connection ends the body
        headers = self._headers
        if self.status == 204 and b"content-length" in there:  # which RFC 9110 section 8.6 forbids
            headers = [field for field in headers if field[0].lower() != b"content-length"]
        # Behind a body that has not come to its end, nobody could tell where the next request begins.
        if not request.persists or not request.body_has_arrived:
            self._close = True
        if self._close:
            framing += b"Connection: close\r\n"
        elif not http_1_1:
            framing += b"Connection: keep-alive\r\n"
        return b"%b%b%b\r\n" % (_status_line(self.status, self._reason), lines(headers), framing)


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()


@lru_cache(maxsize=1024)
def _status_line(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, _REASON_UNSAFE.sub(b"", reason) or _usual_reason(status))


def _usual_reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
