"""Which addresses count as somebody's on the internet, and what the operator's own words add to them."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.addresses import Destination, is_ip_literal, is_loopback, widens

PLEO = Destination("external.pleo.io")

PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2606:4700::1111",
    "2a00:1450:4001::8a",
    "3ffe:ffff::1",
    "::ffff:93.184.216.34",
    "64:ff9b::93.184.216.34",
]
FORBIDDEN = {
    "this-network": "0.0.0.0",
    "this-network-end": "0.255.255.255",
    "private-10": "10.0.0.1",
    "private-10-end": "10.255.255.255",
    "shared": "100.64.0.0",
    "shared-end": "100.127.255.255",
    "alibaba-metadata": "100.100.100.200",
    "loopback": "127.0.0.1",
    "loopback-end": "127.255.255.255",
    "link-local": "169.254.0.1",
    "metadata": "169.254.169.254",
    "ecs-metadata": "169.254.170.2",
    "azure-host": "168.63.129.16",
    "private-172": "172.16.0.1",
    "private-172-end": "172.31.255.255",
    "protocol-assignments": "192.0.0.8",
    "oracle-metadata": "192.0.0.192",
    "documentation-1": "192.0.2.1",
    "6to4-relay": "192.88.99.1",
    "private-192": "192.168.0.1",
    "private-192-end": "192.168.255.255",
    "benchmarks": "198.18.0.1",
    "benchmarks-end": "198.19.255.255",
    "documentation-2": "198.51.100.7",
    "documentation-3": "203.0.113.7",
    "multicast": "224.0.0.1",
    "multicast-end": "239.255.255.255",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "v6-unspecified": "::",
    "v6-loopback": "::1",
    "v4-compatible": "::127.0.0.1",
    "v4-compatible-public": "::8.8.8.8",
    "mapped-loopback": "::ffff:127.0.0.1",
    "mapped-metadata": "::ffff:169.254.169.254",
    "mapped-in-hex": "::ffff:a00:1",
    "mapped-shifted": "::ffff:0:8.8.8.8",
    "nat64-loopback": "64:ff9b::127.0.0.1",
    "nat64-private": "64:ff9b::10.0.0.1",
    "nat64-metadata": "64:ff9b::a9fe:a9fe",
    "nat64-local": "64:ff9b:1::8.8.8.8",
    "discard": "100::1",
    "teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "v6-benchmarks": "2001:2::1",
    "orchid": "2001:20::1",
    "protocol-assignments-end": "2001:1ff:ffff::1",
    "v6-documentation": "2001:db8::1",
    "6to4-private": "2002:a00:1::1",
    "6to4-public": "2002:808:808::1",
    "v6-documentation-2": "3fff::1",
    "segment-routing": "5f00::1",
    "not-given-out": "4000::1",
    "unique-local": "fc00::1",
    "aws-metadata": "fd00:ec2::254",
    "gcp-metadata": "fd20:ce::254",
    "v6-link-local": "fe80::1",
    "site-local": "fec0::1",
    "v6-multicast": "ff02::1",
    "zone": "fe80::1%eth0",
    "zone-of-a-public-address": "2606:4700::1111%eth0",
    "zone-number": "2606:4700::1111%2",
    "name": "external.pleo.io",
    "short-form": "127.1",
    "one-number": "2130706433",
    "hexadecimal": "0x7f.0.0.1",
    "octal": "0127.0.0.1",
    "socket": "/run/some.sock",
    "nothing": "",
}

DISGUISES = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_name_may_lead_to_public_addresses(address: str) -> None:
    """Global unicast is admitted, right up to the ranges that are not, and through DNS64 too."""
    assert PLEO.admits(address)


@pytest.mark.parametrize("address", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_name_may_lead_nowhere_else(address: str) -> None:
    """What is private, special, in disguise, or no plain address gets no connection."""
    assert not PLEO.admits(address)


@given(st.ip_addresses())
def test_nothing_special_is_admitted(address: IPv4Address | IPv6Address) -> None:
    """What the standard library knows as private, multicast or the like is never admitted either."""
    if (
        address.is_private
        or address.is_multicast
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_reserved
    ):
        in_disguise = any(address in network for network in DISGUISES)
        assert in_disguise or not PLEO.admits(str(address))


@given(st.ip_addresses(v=4) | st.sampled_from([IPv4Address(each) for each in PUBLIC if ":" not in each]))
def test_an_address_in_disguise_is_judged_as_what_it_is(address: IPv4Address) -> None:
    """A mapped address, and one that NAT64 leads on, are admitted exactly if the one inside is."""
    admitted = PLEO.admits(str(address))
    assert PLEO.admits(f"::ffff:{address}") == admitted
    assert PLEO.admits(f"64:ff9b::{address}") == admitted
    assert not PLEO.admits(f"::{address}")
    assert not PLEO.admits(str(IPv6Address((0x2002 << 112) | (int(address) << 80))))


@pytest.mark.parametrize("literal", ["127.0.0.1", "10.1.2.3", "::1", "fd00::7", "93.184.216.34"])
def test_an_address_that_the_operator_wrote_is_itself(literal: str) -> None:
    """It is admitted whatever it is, and nothing else is: not its neighbour, no listed network, no other."""
    written = Destination(literal, (ip_network("192.168.0.0/16"),))
    assert written.admits(literal)
    assert not written.admits(str(ipaddress.ip_address(literal) + 1))
    assert not written.admits("192.168.0.1")
    assert not written.admits("1.1.1.1")


def test_a_written_address_may_come_back_mapped() -> None:
    """A resolver that maps IPv4 into IPv6 changes nothing."""
    assert Destination("127.0.0.1").admits("::ffff:127.0.0.1")
    assert not Destination("127.0.0.1").admits("::ffff:127.0.0.2")


@pytest.mark.parametrize("host", ["localhost", "pleo.localhost"])
def test_localhost_is_this_machine_and_nothing_else(host: str) -> None:
    """Plain http is for loopback alone, so a resolver cannot send localhost out into the world."""
    local = Destination(host, (ip_network("10.0.0.0/8"),))
    assert all(local.admits(address) for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"))
    assert not any(local.admits(address) for address in ("93.184.216.34", "10.0.0.1", "0.0.0.0", "fe80::1"))


def test_names_that_look_like_localhost_are_not() -> None:
    """Only the name itself, and what ends with it after a dot, is this machine."""
    for name in ("localhost.example", "notlocalhost", "localhost.localdomain", "127.0.0.1.nip.io"):
        assert not is_loopback(name)
        assert not Destination(name).admits("127.0.0.1")
    assert not is_ip_literal("127.1")


def test_listed_networks_are_admitted_beside_public_addresses() -> None:
    """A custom environment's own networks count, and no address beside them."""
    own = Destination("pleo.internal", (ip_network("10.20.0.0/16"), ip_network("fd12::/48")))
    assert all(own.admits(address) for address in ("10.20.0.1", "::ffff:10.20.255.255", "fd12::7", "1.1.1.1"))
    assert not any(
        own.admits(address)
        for address in ("10.21.0.1", "127.0.0.1", "fd12:0:1::7", "64:ff9b::10.20.0.1", "fd12::7%eth0")
    )


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fe80::a9fe:a9fe",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:42::42",
    ],
)
def test_metadata_is_admitted_only_by_its_own_address(address: str) -> None:
    """A range that holds a cloud's metadata address does not mean it; naming it alone does."""
    wide = (ip_network("0.0.0.0/0"), ip_network("::/0"), ip_network("169.254.0.0/16"), ip_network("fd00::/8"))
    assert not Destination("pleo.internal", wide).admits(address)
    assert Destination("pleo.internal", (*wide, ip_network(address))).admits(address)
    assert not PLEO.admits(address)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("10.0.0.0/8", True),
        ("127.0.0.1", True),
        ("8.0.0.0/7", False),
        ("8.0.0.0/6", True),
        ("1.1.1.1", False),
        ("0.0.0.0/0", True),
        ("fd00::/8", True),
        ("::/0", True),
        ("2606:4700::/32", False),
        ("2001::/16", True),
        ("2000::/3", True),
        ("64:ff9b::/96", True),
        ("::ffff:10.0.0.0/104", False),
    ],
)
def test_listing_what_is_public_has_no_effect(network: str, expected: bool) -> None:
    """A network widens what is admitted if it has an address that is not public."""
    assert widens(ip_network(network)) is expected
