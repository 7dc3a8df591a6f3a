"""The connections of the operator's listener: how many there are, how long they take, how large a head is.

aiohttp's own protocol, with bounds. It has a timer for connections that wait for a request, which runs while
a head comes in, too. What it lacks is a timer for who does not read, and an answer to malformed requests that
does not repeat them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from proxy.admin.answers import PROTECTION, problem

CONNECTIONS = 256
"""At one time; there are few operators, and callers' connections shall not want for file descriptors."""
_LINE_BYTES = 8190
"""Of a header field, as Apache's LimitRequestFieldSize."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n"
    b"Retry-After: 10\r\nConnection: close\r\n\r\nToo many connections\n"
)

# aiohttp would log the text of malformed requests, which may hold a link's token or a code.
_silent = logging.getLogger("proxy.admin.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """What a request's head may be: bytes of its target, header fields, seconds until it is there."""

    target_bytes: int
    headers: int
    idle_s: float
    """Also of a connection between requests, and of an answer that is not read."""


class Listener:
    """The operator's listener, open. Made by :meth:`open`; to be closed by who opened it."""

    def __init__(self, runner: web.AppRunner, limits: HeadLimits) -> None:
        self._runner = runner
        self.limits = limits
        """Of connections that are made from now on."""
        self._listening: asyncio.Server

    @classmethod
    async def open(cls, app: web.Application, host: str, port: int, limits: HeadLimits) -> Listener:
        """Listen at ``host`` and ``port``.

        :raises OSError: that cannot be listened on.
        """
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        server = runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        listener = cls(runner, limits)

        def connection() -> asyncio.Protocol:
            if len(server.connections) >= CONNECTIONS:
                return _TurnedAway()
            return _Connection(server, loop, listener.limits)

        try:
            listener._listening = await loop.create_server(connection, host, port)
        except BaseException:
            await runner.cleanup()
            raise
        return listener

    @property
    def name(self) -> tuple[object, ...]:
        """The name of the socket."""
        return cast("tuple[object, ...]", self._listening.sockets[0].getsockname())

    async def close(self) -> None:
        """Accept no more, and end what is left within a few seconds."""
        self._listening.close()
        await self._runner.cleanup()


class _Connection(web.RequestHandler):
    """One connection of an operator's or an authoriser's browser, or of a program."""

    __slots__ = ("_idle_s", "_stuck", "_wire")

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, limits: HeadLimits) -> None:
        super().__init__(
            server,
            loop=loop,
            # Until a head is whole, and between requests.
            keepalive_timeout=limits.idle_s,
            logger=_silent,
            access_log=None,  # type: ignore[arg-type]  # None turns it off
            max_line_size=limits.target_bytes,
            max_field_size=_LINE_BYTES,
            max_headers=limits.headers,
            # A form is a hundred bytes; unpacking is for those who want to send much with little.
            auto_decompress=False,
        )
        self._idle_s = limits.idle_s
        self._stuck: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        # So that every byte that is not taken stops the writing, and starts the timer.
        self._wire.set_write_buffer_limits(0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._unstick()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = asyncio.get_running_loop().call_later(self._idle_s, self._give_up)

    def resume_writing(self) -> None:
        self._unstick()
        super().resume_writing()

    def _give_up(self) -> None:
        assert self._wire is not None
        sock = self._wire.get_extra_info("socket")
        if sock is not None:  # else the system would go on keeping the bytes for who does not read them
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._wire.abort()

    def _unstick(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """What is no request gets an answer in our own words, which repeat nothing of it."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        if isinstance(exc, LineTooLong):
            response = problem(431, "Request Header Fields Too Large")
        elif status == 400:
            response = problem(400, "Bad Request", "This is no HTTP request, or a malformed one.")
        else:
            response = problem(status, "Internal error")
        response.headers.update(PROTECTION)
        response.force_close()
        return response


class _TurnedAway(asyncio.Protocol):
    """A connection too many: told so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        stream.write(_BUSY)
        stream.close()
