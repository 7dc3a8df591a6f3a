"""Two paths that Pleo does not have, for tests of what travels: an echo of the request, and many bytes.

They are behind the same gate as the API. Must never show an ``Authorization`` value, only its fingerprint.
"""

from __future__ import annotations

import re

from aiohttp import web

from .calls import ApiError
from .connection import Body, json_answer
from .state import ApiRequest

SHOWN_BODY = 1 << 16
"""Bytes of a body that the echo repeats."""

_BLOCK = bytes(n % 251 for n in range(251 * 256))  # 251 is prime: no power-of-two slip goes unseen


def deterministic_bytes(size: int) -> bytes:
    """The body of ``/v1/sandbox/bytes``: byte ``n`` is ``n % 251``."""
    return (_BLOCK * (size // len(_BLOCK) + 1))[:size]


async def echo_probe(_request: web.BaseRequest, record: ApiRequest, body: Body) -> web.StreamResponse:
    """Answers the request as it arrived."""
    return json_answer(
        200,
        {
            "method": record.method,
            "target": record.target,
            "headers": record.headers,
            "bodyLength": body.length,
            "bodySha256": body.sha256,
            "body": body.head[:SHOWN_BODY].decode("latin-1"),
        },
    )


async def bytes_probe(request: web.BaseRequest, _record: ApiRequest, _body: Body) -> web.StreamResponse:
    """Streams ``size`` bytes, with ``Content-Length`` or, by ``chunked=1``, in chunks."""
    size = request.query.get("size", "0")
    if not re.fullmatch(r"[0-9]{1,10}", size):
        raise ApiError(400, "BAD_REQUEST", "size must be a number of bytes.")
    left = int(size)
    stream = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    if request.query.get("chunked") == "1":
        stream.enable_chunked_encoding()
    else:
        stream.content_length = left
    await stream.prepare(request)
    while left and request.method != "HEAD":
        chunk = _BLOCK[:left]
        await stream.write(chunk)
        left -= len(chunk)
    await stream.write_eof()
    return stream
