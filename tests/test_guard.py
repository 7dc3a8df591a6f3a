"""The door: which hosts a request may name, and that no web page gets in."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy import guard
from proxy.errors import BrowserRefused, HostRefused, PolicyRefused, TargetRefused
from proxy.headers import Fields, Headers
from proxy.target import parse

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HERE = "127.0.0.1:8080"


def authority(*hosts: bytes, target: bytes = b"/", http_1_1: bool = True) -> str | None:
    """The authority of a request with these Host fields."""
    fields: Headers = [(b"Host", host) for host in hosts]
    return guard.authority_of(fields, parse(target, max_bytes=999).authority, http_1_1=http_1_1)


@pytest.mark.parametrize(
    "host",
    [
        "a",
        "A.example",
        "a.example.:80",
        "127.0.0.1",
        "127.0.0.1:65535",
        "[::1]",
        "[2001:DB8::1]:8080",
        "a_b-c",
    ],
)
def test_the_authority_is_the_hosts(host: str) -> None:
    """A well-formed Host is taken as it was sent."""
    assert authority(host.encode()) == host


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"a b", id="space"),
        pytest.param(b"a/b", id="slash"),
        pytest.param(b"user@a", id="userinfo"),
        pytest.param(b"a,b", id="list"),
        pytest.param(b"a:", id="empty-port"),
        pytest.param(b"a:b", id="port-not-a-number"),
        pytest.param(b"a:123456", id="port-too-long"),
        pytest.param(b"::1", id="ipv6-without-brackets"),
        pytest.param(b"[::1", id="bracket-not-closed"),
        pytest.param(b"[::1]x", id="after-bracket"),
        pytest.param(b"a\xff", id="not-ascii"),
        pytest.param(b"a\x00", id="nul"),
        pytest.param(b"a\nb", id="newline"),
        pytest.param(b"a%2e", id="percent"),
        pytest.param(b"http://a", id="url"),
    ],
)
def test_malformed_hosts_are_refused(host: bytes) -> None:
    """What is no host with an optional port is refused, in Host and in an absolute target."""
    with pytest.raises(TargetRefused):
        guard.authority_of([(b"Host", host)], None, http_1_1=True)


@pytest.mark.parametrize(
    "target", [b"http://user@a/", b"http:///x", b"http://a:b/", b"http://a b/"], ids=repr
)
def test_malformed_authorities_of_targets_are_refused(target: bytes) -> None:
    """An absolute target's authority is held to the same rule."""
    with pytest.raises(TargetRefused):
        authority(b"a", target=target)


@pytest.mark.parametrize(
    "hosts", [pytest.param([b"a", b"b"], id="two-hosts"), pytest.param([b"a", b"a"], id="one-host-twice")]
)
@pytest.mark.parametrize("target", [b"/", b"http://a/"], ids=["origin-form", "absolute-form"])
@pytest.mark.parametrize("http_1_1", [True, False], ids=["1.1", "1.0"])
def test_several_hosts_are_refused(hosts: list[bytes], target: bytes, *, http_1_1: bool) -> None:
    """A request with more than one Host is refused in every version and form."""
    with pytest.raises(TargetRefused, match="Host is sent 2 times"):
        authority(*hosts, target=target, http_1_1=http_1_1)


def test_a_host_is_required_since_http_1_1() -> None:
    """HTTP/1.1 without Host is refused, even with an absolute target; HTTP/1.0 has none to send."""
    for target in (b"/", b"http://a/"):
        with pytest.raises(TargetRefused, match="missing"):
            authority(target=target)
    assert authority(http_1_1=False) is None


def test_a_malformed_host_is_not_excused_by_an_absolute_target() -> None:
    """The field is malformed whatever the target says, and another server might look at it."""
    for host in (b"", b"a b", b"a, b", b"a@b"):
        with pytest.raises(TargetRefused, match="not a host name"):
            authority(host, target=b"http://c.example/")


def test_an_absolute_targets_authority_replaces_the_host() -> None:
    """The target's authority counts, not the Host beside it (RFC 9112 section 3.2.2)."""
    assert authority(b"evil.example", target=b"http://a.example:1/") == "a.example:1"
    assert authority(target=b"http://a.example/", http_1_1=False) == "a.example"


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        pytest.param("LocalHost:8080", "localhost", id="letter-case-and-port"),
        pytest.param("a.example.", "a.example", id="dot-at-end"),
        pytest.param("a.example.:80", "a.example", id="dot-before-port"),
        pytest.param("[2001:DB8::1]:80", "2001:db8::1", id="ipv6"),
        pytest.param("127.0.0.1", "127.0.0.1", id="ipv4"),
    ],
)
def test_host_name(given_: str, name: str) -> None:
    """Letter case, port, brackets and a final dot make no other host."""
    assert guard.admit(Fields([(b"Host", given_.encode())]), None, True).host == name


NOTHING_CONFIGURED = frozenset[str]()


@given(st.ip_addresses(), st.none() | st.integers(0, 65535))
def test_any_address_is_let_in(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None
) -> None:
    """An address is no name that DNS could rebind, so each one passes."""
    text = f"[{address}]" if address.version == 6 else str(address)
    named = (text if port is None else f"{text}:{port}").encode()
    host = guard.admit(Fields([(b"Host", named)]), None, True).host
    assert ipaddress.ip_address(host) == address
    guard.check_host(host, NOTHING_CONFIGURED.__contains__)


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,9}(\.[a-z0-9-]{1,9}){0,3}", fullmatch=True))
def test_a_name_is_let_in_only_if_configured(name: str) -> None:
    """A name passes if it is configured and is refused if it is not."""
    assume(name != "localhost")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        with pytest.raises(HostRefused) as caught:
            guard.check_host(name, NOTHING_CONFIGURED.__contains__)
        assert repr(name) in caught.value.detail
    guard.check_host(name, {name}.__contains__)


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("attacker.example", id="rebound-name"),
        pytest.param("127.0.0.1.attacker.example", id="address-as-label"),
        pytest.param("localhost.attacker.example", id="localhost-as-label"),
        pytest.param("sub.localhost", id="under-localhost"),
        pytest.param("2130706433", id="address-as-number"),
        pytest.param("0x7f000001", id="address-in-hex"),
        pytest.param("127.1", id="short-address"),
        pytest.param("0177.0.0.1", id="octal-address"),
        pytest.param("", id="only-dots"),
        pytest.param(":", id="no-address-in-brackets"),
    ],
)
def test_rebinding_names_are_refused(host: str) -> None:
    """A name that only looks like an address or like localhost is a name like any other."""
    with pytest.raises(HostRefused):
        guard.check_host(host, {"proxy.internal"}.__contains__)


def test_localhost_is_let_in() -> None:
    """``localhost`` needs no configuration."""
    guard.check_host("localhost", NOTHING_CONFIGURED.__contains__)


PAGES = {
    "cross-site": [(b"Sec-Fetch-Site", b"cross-site")],
    "same-site": [(b"sec-fetch-site", b"same-site")],
    "unknown-site": [(b"Sec-Fetch-Site", b"other")],
    "empty-site": [(b"Sec-Fetch-Site", b"")],
    "site-upper-case": [(b"Sec-Fetch-Site", b"NONE")],
    "second-site-counts": [(b"Sec-Fetch-Site", b"none"), (b"Sec-Fetch-Site", b"cross-site")],
    "foreign-origin": [(b"Origin", b"https://evil.example")],
    "null-origin": [(b"Origin", b"null")],
    "empty-origin": [(b"Origin", b"")],
    "longer-origin": [(b"Origin", b"http://127.0.0.1:8080.evil.example")],
    "other-port": [(b"Origin", b"http://127.0.0.1:80")],
    "without-port": [(b"Origin", b"http://127.0.0.1")],
    "other-scheme": [(b"Origin", b"file://127.0.0.1:8080")],
    "second-origin-counts": [(b"Origin", b"http://127.0.0.1:8080"), (b"ORIGIN", b"http://evil.example")],
    "own-site-foreign-origin": [(b"Sec-Fetch-Site", b"same-origin"), (b"Origin", b"http://evil.example")],
}


@pytest.mark.parametrize("fields", PAGES.values(), ids=PAGES)
def test_requests_of_pages_are_refused(fields: Headers) -> None:
    """What a browser says it sends for another site's page is refused, by either of its two fields."""
    with pytest.raises(BrowserRefused):
        guard.check_browser(fields, HERE)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([], id="no-browser"),
        pytest.param([(b"Sec-Fetch-Site", b"none")], id="typed-by-the-user"),
        pytest.param([(b"Sec-Fetch-Site", b"same-origin")], id="own-site"),
        pytest.param([(b"Origin", b"http://127.0.0.1:8080")], id="own-origin"),
        pytest.param([(b"Origin", b"https://127.0.0.1:8080")], id="own-origin-behind-tls"),
        pytest.param([(b"Sec-Fetch-Mode", b"cors"), (b"Referer", b"http://evil.example")], id="other-fields"),
    ],
)
def test_programs_and_own_requests_pass(fields: Headers) -> None:
    """A program sends neither field, and a request of the proxy's own origin is no other site's."""
    guard.check_browser(fields, HERE)


def test_without_an_authority_every_origin_is_foreign() -> None:
    """A request without Host has no origin of its own to be equal to."""
    for origin in (b"http://127.0.0.1:8080", b"null", b"https://evil.example"):
        with pytest.raises(BrowserRefused):
            guard.check_browser([(b"Origin", origin)], None)


# --- Max-Forwards


@pytest.mark.parametrize(("given", "left"), [(b"1", b"0"), (b"10", b"9"), (b"007", b"6")])
def test_a_forwarding_is_counted(given: bytes, left: bytes) -> None:
    """One less goes on, in its place and spelling, and no other field is touched."""
    fields = Fields([(b"A", b"1"), (b"max-FORWARDS", given), (b"B", b"2")])
    assert list(guard.one_hop_less(fields)) == [(b"A", b"1"), (b"max-FORWARDS", left), (b"B", b"2")]


def test_without_a_number_nothing_is_counted() -> None:
    """A section without Max-Forwards is the same section."""
    fields = Fields([(b"A", b"1"), (b"X-Max-Forwards", b"0")])
    assert guard.one_hop_less(fields) is fields


def test_the_last_forwarding_is_not_spent() -> None:
    """What may not be forwarded is answered here."""
    for none in (b"0", b"000"):
        with pytest.raises(PolicyRefused, match="Max-Forwards: 0"):
            guard.one_hop_less(Fields([(b"Max-Forwards", none)]))


@pytest.mark.parametrize("given", [b"", b"-1", b"+1", b"1.0", b"x", b"1,1", b"9999999999", b"\xb2"])
def test_a_number_that_is_none_is_refused(given: bytes) -> None:
    """Neither is it guessed what was meant, nor passed on uncounted."""
    with pytest.raises(TargetRefused, match="Max-Forwards"):
        guard.one_hop_less(Fields([(b"Max-Forwards", given)]))


def test_two_numbers_are_refused() -> None:
    """Of two Max-Forwards neither counts."""
    with pytest.raises(TargetRefused, match="sent 2 times"):
        guard.one_hop_less(Fields([(b"Max-Forwards", b"1"), (b"max-forwards", b"1")]))
