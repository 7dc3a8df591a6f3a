"""The answer to a caller as an aiohttp response whose head and body bytes go straight to the transport.

``aiohttp.web.Server`` asks a response for ``prepare``, ``write_eof`` and ``keep_alive``; this type answers
them with bytes that are already composed, so that nothing is decoded, reordered or added on the way.
Knows framing (RFC 9112 section 6) and nothing of tokens or tenants.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus

from aiohttp import ClientConnectionResetError, web
from aiohttp.abc import AbstractStreamWriter

from proxy.headers import Field, Headers, has

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_REASON_UNSAFE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")


class CallerResponse(web.StreamResponse):
    """One answer, from its head to its last byte.

    :param headers: end-to-end fields as they are to be sent, ``Content-Length`` included if it is known.
    :param body: the whole body where it is at hand, so that head and body leave in one write.
    :param close: close the connection after this answer.
    """

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: Headers,
        *,
        body: bytes | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(status=status)
        self._line_and_fields = (status, reason, headers)
        self._whole_body = body
        self._close = close
        self._writer: AbstractStreamWriter | None = None
        self._request: web.BaseRequest | None = None
        self._chunks = False
        self._bodiless = False
        self._ended = False
        self.body_bytes = 0
        """Body bytes handed to the transport so far, without chunk framing."""

    @property
    def prepared(self) -> bool:
        """The head is on its way, so no other answer can be given."""
        return self._request is not None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection serves another request (asked by aiohttp at the end)."""
        return not self._close

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head, and the body with it where it is at hand.

        :raises ConnectionError: the caller has left.
        """
        if self._request is not None:
            return self._writer
        self._request, self._writer = request, request.writer
        head = self._head(request)
        body = self._whole_body
        if body is None or self._bodiless:
            self._send(head)
        else:
            self._send(head + (self._framed(body) if body else b"") + self._end())
            self.body_bytes = len(body)
        return self._writer

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a part of the body and wait while the caller is slower than the upstream.

        :raises ConnectionError: the caller has left.
        """
        assert self._writer is not None
        if not data or self._bodiless:
            return
        chunk = bytes(data)
        self._send(self._framed(chunk))
        self.body_bytes += len(chunk)
        await self._writer.drain()

    async def write_eof(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> None:
        """Send what ends the body. Calling it again is fine: aiohttp always does at the end.

        :param trailers: fields after the body (RFC 9110 section 6.5), dropped where it is not in chunks
        """
        if data:
            await self.write(data)
        if not self._ended and self._request is not None:
            end = self._end(trailers)
            if end:
                self._send(end)

    def break_off(self) -> None:
        """End the connection visibly in the middle: a body that broke off must not look whole."""
        self._ended = True
        self._close = True
        if self._request is not None and self._request.transport is not None:
            _reset(self._request.transport)

    def _head(self, request: web.BaseRequest) -> bytes:
        status, reason, headers = self._line_and_fields
        http_1_1 = request.version >= (1, 1)
        self._bodiless = request.method == "HEAD" or status in (204, 304)
        framing = b""
        if not self._bodiless and not has(headers, b"content-length"):
            if self._whole_body is not None:
                framing = b"Content-Length: %d\r\n" % len(self._whole_body)
            elif http_1_1:
                self._chunks = True
                framing = b"Transfer-Encoding: chunked\r\n"
            else:
                self._close = True  # the end of the connection ends the body
        self._close |= not request.keep_alive
        if self._close:
            framing += b"Connection: close\r\n"
        elif not http_1_1:
            framing += b"Connection: keep-alive\r\n"
        fields = b"\r\n".join([name + b": " + value for name, value in headers])
        return b"%b%b\r\n%b\r\n" % (_status_line(status, reason), fields, framing)

    def _framed(self, chunk: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunks else chunk

    def _end(self, trailers: Sequence[Field] = ()) -> bytes:
        self._ended = True
        if not self._chunks or self._bodiless:
            return b""
        return b"0\r\n" + b"".join(b"%b: %b\r\n" % field for field in trailers) + b"\r\n"

    def _send(self, data: bytes) -> None:
        transport = self._request.transport if self._request is not None else None
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the caller has left")
        transport.write(data)


def _reset(transport: asyncio.Transport) -> None:
    """End a connection with RST: where its end ends the body, a FIN would make the body look whole."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


@lru_cache(maxsize=1024)
def _status_line(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, _REASON_UNSAFE.sub(b"", reason) or _usual_reason(status))


def _usual_reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
