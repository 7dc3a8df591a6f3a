"""An upstream on a real socket that keeps what arrives and answers as it is told.

Everything that arrives is read strictly: bytes that are no well-formed request, or that carry another
credential than ours, are kept as findings.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Self, cast

from tests.wire.messages import Malformed, Message, Reader

End = Literal["stay", "close", "reset"]


@dataclass(frozen=True)
class Reply:
    """What the recorder sends for one request, and what it does to the connection afterwards."""

    data: bytes
    end: End = "stay"


def accepted(request: Message) -> Reply:
    """An answer that names what it is for, so that an answer given to the wrong caller shows."""
    body = request.first[1]
    return Reply(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-For: %b\r\n\r\n" % (len(body), body)
        + (b"" if request.first[0] == b"HEAD" else body)
    )


@dataclass
class Recorder:
    """The listening upstream."""

    reply: Callable[[Message], Reply | None] = accepted
    """``None`` for no answer at all."""
    bearer: bytes | None = b"Bearer at-1"
    """The one credential that must be in each request; ``None`` where anything may be."""
    requests: list[Message] = field(default_factory=list)
    """Whole requests, in the order in which they became whole."""
    findings: list[str] = field(default_factory=list)
    connections: set[RecorderConnection] = field(default_factory=set)
    broken: list[Message] = field(default_factory=list)
    """Requests whose connection ended before they were whole."""
    _listener: asyncio.Server | None = None

    async def start(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: RecorderConnection(self), "127.0.0.1", 0)
        return self

    @property
    def address(self) -> tuple[str, int]:
        assert self._listener is not None
        host, port = self._listener.sockets[0].getsockname()[:2]
        return host, port

    @property
    def authority(self) -> bytes:
        return b"%b:%d" % (self.address[0].encode(), self.address[1])

    @property
    def url(self) -> str:
        return f"http://{self.authority.decode()}"

    def took(self, request: Message) -> None:
        """A whole request arrived."""
        self.requests.append(request)
        self.check(request)

    def check(self, request: Message) -> None:
        """Keep it as a finding if a head carries any other credential than ours, or ours twice."""
        if self.bearer is not None and request.values(b"authorization") != [self.bearer]:
            self.findings.append(f"credential: {request.head!r}")

    def clear(self) -> None:
        self.requests.clear()
        self.broken.clear()
        self.findings.clear()

    async def stop(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await self._listener.wait_closed()


class RecorderConnection(asyncio.Protocol):
    """One connection to the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._reader = Reader("request")
        self._ended = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._recorder.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            self._reader.feed(data)
        except Malformed as error:
            self._recorder.findings.append(f"malformed: {error}")
            self._ended = True
            self.transport.abort()
            return
        for request in self._reader.done:
            self._recorder.took(request)
            self._answer(request)
        self._reader.done.clear()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._recorder.connections.discard(self)
        begun = self._reader.begun
        if begun is not None:
            self._recorder.check(begun)
            self._recorder.broken.append(begun)

    def _answer(self, request: Message) -> None:
        reply = self._recorder.reply(request)
        if reply is None or self._ended:
            return
        self.transport.write(reply.data)
        if reply.end == "close":
            self._ended = True
            self.transport.close()
        elif reply.end == "reset":
            self._ended = True
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
