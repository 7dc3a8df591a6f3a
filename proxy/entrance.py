"""Who comes in by a listening socket: the peer's address or credentials, and whether the listener is for it.

Asks the socket once for each connection. Knows nothing of HTTP.
"""

from __future__ import annotations

import socket
import struct
from asyncio import BaseTransport
from dataclasses import dataclass

from proxy.arrival import Arrival, Networks, address_of
from proxy.certificates import names_of
from proxy.errors import PolicyRefused, Refusal

_CREDENTIALS = struct.Struct("3i")
_PEERCRED = getattr(socket, "SO_PEERCRED", None)
"""Linux has it (``unix(7)``); elsewhere nobody behind a Unix socket is known."""


@dataclass(frozen=True, slots=True)
class Peers:
    """Which users of this machine a Unix socket lets in. Nobody is named: the file's mode alone decides."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()

    def let_in(self, uid: int, gid: int) -> bool:
        """Whether a process of this user, with this primary group, is one of them."""
        return uid in self.uids or gid in self.gids or not (self.uids or self.gids)


@dataclass(frozen=True, slots=True)
class Entrance:
    """What all connections of one listening socket have in common."""

    tenant: str | None = None
    """Whose callers connect here and nobody else's."""
    trusted: Networks | None = None
    """Proxies that are believed what they say of callers; ``None`` if there are none."""
    peers: Peers = Peers()
    tls: bool = False

    def arrival(self, transport: BaseTransport) -> tuple[Arrival, Refusal | None]:
        """Who has connected, and why it is not served, if it is not."""
        name = transport.get_extra_info("peername")
        if not isinstance(name, tuple):
            return self._of_this_machine(transport)
        return self.arrival_from(str(name[0]), _certificate(transport) if self.tls else ()), None

    def arrival_from(self, caller: str, certificate: tuple[str, ...] = ()) -> Arrival:
        """The arrival of who connects from this address, and has shown a certificate of these names."""
        arrival = Arrival(caller, listener=self.tenant)
        if self.tls:
            arrival = arrival._replace(scheme="https", certificate=certificate)
        address = None if self.trusted is None else address_of(arrival.caller)
        if self.trusted is not None and address is not None and address in self.trusted:
            arrival = arrival._replace(trusted=self.trusted)
        return arrival

    def _of_this_machine(self, transport: BaseTransport) -> tuple[Arrival, Refusal | None]:
        pid, uid, gid = _credentials(transport)
        refusal = None
        if not self.peers.let_in(uid, gid):
            refusal = PolicyRefused(
                f"uid {uid} with gid {gid} is not among the peers of this listener (listen.proxy)"
            )
        return Arrival(f"uid:{uid} pid:{pid}", listener=self.tenant), refusal


def _certificate(transport: BaseTransport) -> tuple[str, ...]:
    """Names of the certificate that the caller has shown, and that TLS has found valid."""
    secured = transport.get_extra_info("ssl_object")
    der = None if secured is None else secured.getpeercert(binary_form=True)
    return () if der is None else names_of(der)


def _credentials(transport: BaseTransport) -> tuple[int, int, int]:
    """Process, user and group that connected; -1 where that is not known."""
    sock = transport.get_extra_info("socket")
    if sock is None or _PEERCRED is None:
        return -1, -1, -1
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, _PEERCRED, _CREDENTIALS.size))
    return pid, uid, gid
