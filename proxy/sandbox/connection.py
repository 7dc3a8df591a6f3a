"""The few things the listeners do with a connection: read a body, answer JSON, hang up.

Must never log; the bodies that pass here hold tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import orjson
from aiohttp import web

JSON_TYPE = "application/json;charset=UTF-8"
KEPT_BODY = 1 << 20
"""Bytes of a body that are kept; the rest is counted and hashed only."""

Listener = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Body:
    """A request body: its beginning, and length and hash of the whole."""

    head: bytes
    length: int
    sha256: str

    @property
    def complete(self) -> bool:
        """Whether ``head`` is all of it."""
        return self.length == len(self.head)


EMPTY_BODY = Body(b"", 0, hashlib.sha256().hexdigest())


async def read_body(request: web.BaseRequest) -> Body:
    """Reads the body to its end, after the 100 (Continue) that a caller may wait for."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the interim answer is no part of the final one's head
    digest, head, length = hashlib.sha256(), bytearray(), 0
    async for chunk in request.content.iter_any():
        digest.update(chunk)
        length += len(chunk)
        head += chunk[: KEPT_BODY - len(head)]
    return Body(bytes(head), length, digest.hexdigest())


def json_answer(status: int, value: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer with the content type that Pleo documents."""
    body = orjson.dumps(value)
    return web.Response(status=status, body=body, headers={"Content-Type": JSON_TYPE, **(headers or {})})


class HungUp(web.Response):
    """Stands for an answer that reaches nobody."""


def hang_up(request: web.BaseRequest) -> HungUp:
    """Resets the connection."""
    if request.transport is not None:
        request.transport.abort()
    return HungUp()


def patient(listener: Listener) -> Listener:
    """The same listener, to which a peer that leaves in the middle of a body is nothing worth a log line."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await listener(request)
        except (ConnectionError, web.RequestPayloadError):
            return hang_up(request)

    return handle
