"""How a connection to the upstream comes about: name, address, an HTTP proxy on the way, TLS.

Knows nothing of requests, and takes its sockets from :mod:`proxy.outbound`. All that can go wrong before a
connection is there becomes an :exc:`Outage`, here and nowhere else.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

import aiohappyeyeballs

from proxy.errors import UpstreamUnreachable
from proxy.headers import proxy_authorization
from proxy.model import HttpProxy, Origin
from proxy.outbound import ForbiddenAddressError, Sockets

HAPPY_EYEBALLS_DELAY_S = 0.25
"""RFC 8305 section 8."""
TUNNEL_HEAD_BYTES = 16 * 1024
"""More than any proxy says about a tunnel."""

FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (ForbiddenAddressError, "the name leads to addresses that are not allowed"),
    (TimeoutError, "no connection in time"),
    (ssl.SSLCertVerificationError, "certificate not accepted"),
    (ssl.SSLError, "TLS handshake failed"),
    (socket.gaierror, "name not resolved"),
    (UnicodeError, "name not resolved"),
    (ConnectionRefusedError, "connection refused"),
    (ConnectionError, "connection closed while it was set up"),
)
"""Why there is no connection, the first that fits; the text of the exception itself could hold anything."""

_INTERIM = re.compile(rb"\A(?:HTTP/1\.1 1[0-9][0-9](?s:.*?)\r\n\r\n)+")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")

P = TypeVar("P", bound=asyncio.Protocol)


class Outage(UpstreamUnreachable):
    """Nothing could be got through to the upstream, as opposed to an answer that cannot be used."""


class _NoTunnelError(Exception):
    """The HTTP proxy answered, and there is no tunnel."""


class Dialer:
    """Opens connections to one origin."""

    def __init__(
        self,
        origin: Origin,
        *,
        ssl_context: ssl.SSLContext | None,
        connect_s: float,
        http_proxy: HttpProxy | None,
        sockets: Sockets,
    ) -> None:
        """``connect_s`` bounds all of it. TLS is with the origin, also inside a tunnel."""
        self._origin = origin
        self._ssl = ssl_context
        self.connect_s = connect_s
        self._tunnel = _connect_request(origin, http_proxy) if http_proxy is not None else b""
        # The HTTP proxy is wherever the operator has it, and resolves the origin's name itself.
        self._sockets = sockets if http_proxy is None else None
        self._first_hop = (http_proxy.host, http_proxy.port) if http_proxy else (origin.host, origin.port)

    async def dial(self, new_protocol: Callable[[], P]) -> P:
        """A new connection. Names are resolved each time: the system's resolver knows how long they last.

        :raises Outage: there is none; the text says why
        """
        try:
            async with asyncio.timeout(self.connect_s):
                sock = await self._open_socket()
                # asyncio and uvloop both set TCP_NODELAY, and close the socket if TLS fails.
                _, protocol = await asyncio.get_running_loop().create_connection(
                    new_protocol,
                    sock=sock,
                    ssl=self._ssl,
                    server_hostname=self._origin.host if self._ssl else None,
                )
                return protocol
        except _NoTunnelError as error:
            raise Outage(f"{self._origin}: the HTTP proxy {error}") from None
        except (OSError, UnicodeError) as error:
            kind = next((text for failure, text in FAILURES if isinstance(error, failure)), "no connection")
            through = " (through the HTTP proxy)" if self._tunnel else ""
            raise Outage(f"{self._origin}: {kind}{through}") from None

    async def _open_socket(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        host, port = self._first_hop
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        # Not by create_connection, which on uvloop tries one address after the other.
        sock = await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_S,
            interleave=1,
            loop=loop,
            socket_factory=self._sockets,
        )
        if self._tunnel:
            try:
                await self._open_tunnel(sock)
            except BaseException:
                sock.close()
                raise
        return sock

    async def _open_tunnel(self, sock: socket.socket) -> None:
        """Ask the proxy for a tunnel (RFC 9110 section 9.3.6); read its answer and not a byte more."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, self._tunnel)
        head = b""
        while True:
            data = await loop.sock_recv(sock, 4096)
            if not data:
                raise ConnectionResetError
            head += data
            # Interim answers come first, if at all (RFC 9110 section 15.2).
            head = _INTERIM.sub(b"", head)
            answer, ended, rest = head.partition(b"\r\n\r\n")
            if ended:
                break
            if len(head) > TUNNEL_HEAD_BYTES:
                raise _NoTunnelError(f"sent a head of more than {TUNNEL_HEAD_BYTES} bytes")
        status = _STATUS.match(answer + b"\r\n")
        if status is None:
            raise _NoTunnelError("sent an answer that is not HTTP/1.1")
        if not status[1].startswith(b"2"):
            raise _NoTunnelError(f"answered {status[1].decode()}")
        if rest:  # nobody at the other end speaks before it is spoken to
            raise _NoTunnelError("sent more than its answer")


def _connect_request(origin: Origin, http_proxy: HttpProxy) -> bytes:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}".encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % target, b"Host: " + target]
    if http_proxy.credentials is not None:
        lines.append(b"Proxy-Authorization: " + proxy_authorization(http_proxy.credentials))
    return b"\r\n".join([*lines, b"", b""])
