"""How a request reached the proxy: from whom, on which listener, and what a proxy on the way may say of it.

Pure. Says who the caller is, never what it may do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Literal, NamedTuple

from proxy.addresses import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Networks:
    """Some networks, as one place in which an address lies or not."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)

    def __contains__(self, address: Address) -> bool:
        return any(network.version == address.version and address in network for network in self._networks)


class Arrival(NamedTuple):
    """What is known of a request before its head is looked at; one value for all requests of a connection."""

    caller: str
    """Address of the caller; ``uid:1001 pid:77`` behind a Unix socket, ``unknown behind 10.0.0.1`` where a
    trusted proxy does not tell."""
    scheme: Literal["http", "https"] = "http"
    """How the caller reaches the proxy."""
    listener: str | None = None
    """Name of the tenant that the listener is for, if it is for one."""
    certificate: tuple[str, ...] = ()
    """Names of the certificate that the caller has shown, if it was asked for one."""
    trusted: Networks | None = None
    """Whose forwarded fields are believed; ``None`` where the socket's peer is none of them."""
    authority: str | None = None
    """Host and port that the caller asked a trusted proxy for, where that tells."""


def address_of(text: str) -> Address | None:
    """The IP address that ``text`` is, if it is one."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A dual-stack listener sees an IPv4 caller as ::ffff:10.0.0.1, and networks are written for 10.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
