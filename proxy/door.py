"""A listening socket that lets in all callers who wait, at once.

uvloop accepts one connection in each turn of its loop: when hundreds connect together while others are
served, the last waits for hundreds of turns. Here the queue is emptied whenever the loop comes by. Knows
nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

_AT_ONCE = 256
"""Connections accepted in one turn, so that those who are in get their turn too."""
BACKLOG = 1024
"""Connections that wait until they are accepted."""
_OUT_OF_FILES_PAUSE_S = 0.5
"""Accepting again at once would only fail again; connections that end give descriptors back."""


_GOODBYE_S = 2.0
"""How long a caller may take to answer the end of TLS; nothing depends on whether it does."""


@dataclass(frozen=True, slots=True)
class Lock:
    """TLS at a door."""

    context: Callable[[], ssl.SSLContext]
    """What a new connection is secured with."""
    handshake_s: float
    most_at_once: int
    """Handshakes under way; who comes when there are as many is cut off."""
    failed: Callable[[str, str], None]
    """Told the caller's address and what was wrong."""


class Door:
    """One listening socket; made by :func:`open_doors`."""

    def __init__(
        self, protocol: Callable[[], asyncio.Protocol], sock: socket.socket, lock: Lock | None = None
    ) -> None:
        self._protocol = protocol
        self._socket = sock
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._entering: set[asyncio.Task[object]] = set()
        self._closed = False
        self._loop.add_reader(sock.fileno(), self._accept)

    @property
    def name(self) -> tuple[object, ...] | str:
        """The address on which it listens; the path of a Unix socket."""
        address: tuple[object, ...] | str = self._socket.getsockname()
        return address

    def fit(self, protocol: Callable[[], asyncio.Protocol], lock: Lock | None) -> None:
        """Let in by these whoever comes from now on."""
        self._protocol = protocol
        self._lock = lock

    def close(self) -> None:
        """Stop listening; connections that were accepted go on."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    async def all_inside(self) -> None:
        """Wait until who was accepted has a protocol, which whoever owns the protocols can then end.

        Whose handshake is still under way is not waited for: it has asked for nothing yet.
        """
        if self._lock is not None:
            for entering in self._entering:
                entering.cancel()
        await asyncio.gather(*self._entering, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(_OUT_OF_FILES_PAUSE_S, self._listen_again)
                return
            connection.setblocking(False)
            if self._lock is None:
                entering = self._loop.create_task(self._enter(connection))
            elif len(self._entering) < self._lock.most_at_once:
                entering = self._loop.create_task(self._unlock(connection, self._lock))
            else:
                connection.close()
                continue
            self._entering.add(entering)
            entering.add_done_callback(self._entering.discard)

    async def _enter(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # the caller has left already
            connection.close()

    async def _unlock(self, connection: socket.socket, lock: Lock) -> None:
        name = connection.getpeername()
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=lock.context(),
                ssl_handshake_timeout=lock.handshake_s,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        except OSError as error:
            connection.close()
            lock.failed(str(name[0]), _fault(error))
        except asyncio.CancelledError:
            connection.close()
            raise

    def _listen_again(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket.fileno(), self._accept)


def _fault(error: OSError) -> str:
    """What went wrong in a handshake, in words that no caller has chosen."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "malformed"
    if isinstance(error, ConnectionAbortedError | TimeoutError):
        return "timeout"
    return "left"


def open_doors(
    protocol: Callable[[], asyncio.Protocol],
    host: str,
    port: int,
    *,
    reuse_port: bool,
    lock: Lock | None = None,
) -> list[Door]:
    """Listen on every address that ``host`` stands for.

    :param reuse_port: several processes share the port, and the kernel spreads callers over them.
    :raises OSError: one of them cannot be listened on; none is then.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, proto, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sock = socket.socket(family, kind, proto)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Inherited by what is accepted: an answer's last bytes must not wait for more.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            sock.bind(address)
            sock.listen(BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return [Door(protocol, sock, lock) for sock in sockets]
