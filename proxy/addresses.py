"""Which addresses a connection with a credential may be opened to.

A name says who should answer; whoever answers for the name in DNS says where. So addresses are judged, one by
one, and a name counts only where the operator wrote it. Pure: resolves nothing and connects nothing, which is
:mod:`proxy.outbound`'s part and its neighbours'.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Network = IPv4Network | IPv6Network


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part) for part in text.split())


# From IANA's registries of special-purpose addresses (RFC 6890), and not from the standard library's
# `is_global`, whose answers differ between patch releases of one Python.
_SPECIAL_4 = _networks(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
    "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 "
    "168.63.129.16/32"
)
"""Not on the public internet, the broadcast included; the last is Azure's host, which looks as if it were."""
_UNICAST_6 = IPv6Network("2000::/3")
"""All that IANA gives out as global unicast (RFC 4291 section 2.4): what is outside is never public."""
_SPECIAL_6 = _networks("2001::/23 2001:db8::/32 2002::/16 3fff::/20")
"""In it and not public: protocol assignments with Teredo, documentation, 6to4, documentation again. Teredo
and 6to4 hold an IPv4 address to which the packets go on."""
_NAT64 = IPv6Network("64:ff9b::/96")
"""What DNS64 makes of an IPv4 address, so the public way out of a network without IPv4 (RFC 6052)."""
_MAPPED = IPv6Network("::ffff:0:0/96")
_LISTED_ALONE = _networks(
    "169.254.0.0/16 168.63.129.16/32 100.100.100.200/32 192.0.0.192/32 "
    "fe80::/10 fd00:ec2::/32 fd20:ce::254/128 fd00:42::42/128"
)
"""Where clouds answer with a machine's own credentials: AWS, Azure, GCP and most others on link-local, then
Azure, Alibaba, Oracle, and in IPv6 AWS, GCP, Scaleway. Nobody means these by a range that holds them."""


@dataclass(frozen=True, slots=True)
class Destination:
    """One host that is connected to, as the operator wrote it, and which of its addresses count."""

    host: str
    private_networks: tuple[Network, ...] = ()
    """Where its name may lead beside the public internet."""

    def admits(self, address: str) -> bool:
        """Whether a connection may be opened to ``address``, which is what a resolver gave for the host.

        An address that the operator wrote leads to itself, and localhost to this machine (RFC 6761 section
        6.3), public addresses refused: http is for loopback only, and a token must not leave in clear.
        """
        found = _parse(address)
        if found is None:
            return False
        if is_ip_literal(self.host):
            return found == _parse(self.host)
        if is_loopback(self.host):
            return found.is_loopback
        return _is_public(found) or self._is_listed(found)

    def _is_listed(self, address: IPv4Address | IPv6Address) -> bool:
        alone = any(address in network for network in _LISTED_ALONE)
        return any(
            address in network and (network.num_addresses == 1 or not alone)
            for network in self.private_networks
        )


def is_ip_literal(host: str) -> bool:
    """Whether ``host`` (without brackets) is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by definition: 127.0.0.0/8, ::1, localhost (RFC 6761 section 6.3)."""
    if is_ip_literal(host):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def widens(network: Network) -> bool:
    """Whether listing ``network`` admits an address that would not be admitted anyway."""
    if isinstance(network, IPv4Network):
        return any(network.overlaps(special) for special in _SPECIAL_4)
    if network.subnet_of(_MAPPED):
        return False  # these are judged as the IPv4 addresses that they are
    return not network.subnet_of(_UNICAST_6) or any(network.overlaps(special) for special in _SPECIAL_6)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    """The address itself. A zone makes it mean something else on each machine, so it is none here."""
    if "%" in address or not is_ip_literal(address):
        return None
    found = ipaddress.ip_address(address)
    # To the network a mapped address is the IPv4 address in it (RFC 4291 section 2.5.5.2).
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in special for special in _SPECIAL_4)
    if address in _NAT64:
        return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _UNICAST_6 and not any(address in special for special in _SPECIAL_6)
