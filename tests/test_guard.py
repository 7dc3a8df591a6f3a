"""The door: which hosts a request may name, and that no web page gets in."""

from __future__ import annotations

import ipaddress
from time import process_time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy import guard
from proxy.errors import BrowserRefused, HostRefused, LoopDetected, PolicyRefused, TargetRefused
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
        pytest.param(b".", id="only-dots"),
        pytest.param(b"..:80", id="only-dots-and-a-port"),
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
    # The proxy has no pages, so who is of its origin is a foreign document that is shown under its name.
    "same-origin": [(b"Sec-Fetch-Site", b"same-origin")],
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
    "typed-by-the-user-foreign-origin": [
        (b"Sec-Fetch-Site", b"none"),
        (b"Origin", b"http://evil.example"),
    ],
    "foreign-referer": [(b"Referer", b"http://evil.example/page?x=http://127.0.0.1:8080/")],
    "referer-without-path": [(b"Referer", b"https://evil.example")],
    "referer-upper-case": [(b"REFERER", b"HTTP://evil.example/")],
    "referer-of-another-port": [(b"Referer", b"http://127.0.0.1/")],
    "referer-that-only-begins-alike": [(b"Referer", b"http://127.0.0.1:8080.evil.example/")],
    "referer-with-userinfo": [(b"Referer", b"http://127.0.0.1:8080@evil.example/")],
    "second-referer-counts": [
        (b"Referer", b"http://127.0.0.1:8080/acme"),
        (b"Referer", b"http://evil.example/"),
    ],
    "preflight": [(b"Access-Control-Request-Method", b"PUT")],
    "service-worker": [(b"Service-Worker", b"script")],
    "hyperlink-ping": [(b"Ping-To", b"http://evil.example/")],
}


def pages_fields(fields: Headers, authority: str | None = HERE) -> None:
    """Ask the rule for browsers."""
    guard.check_browser(Fields(fields), authority)


@pytest.mark.parametrize("fields", PAGES.values(), ids=PAGES)
def test_requests_of_pages_are_refused(fields: Headers) -> None:
    """What a browser says of the page it sends for leads to a refusal, by any of its fields."""
    with pytest.raises(BrowserRefused):
        pages_fields(fields)
    with pytest.raises(BrowserRefused):
        pages_fields([(b"X-Pleo-Tenant", b"acme"), *fields])


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([], id="no-browser"),
        pytest.param([(b"Sec-Fetch-Site", b"none")], id="typed-by-the-user"),
        pytest.param([(b"Origin", b"http://127.0.0.1:8080")], id="own-origin"),
        pytest.param([(b"Origin", b"https://127.0.0.1:8080")], id="own-origin-behind-tls"),
        pytest.param([(b"Referer", b"http://127.0.0.1:8080/acme/v1/x?y")], id="own-referer"),
        pytest.param([(b"Referer", b"http://127.0.0.1:8080")], id="own-referer-without-path"),
        pytest.param([(b"Referer", b"the old system")], id="referer-that-is-no-page"),
        pytest.param([(b"Referer", b"")], id="referer-empty"),
        pytest.param([(b"Sec-Fetch-Mode", b"cors"), (b"Accept-Language", b"*")], id="other-fields"),
    ],
)
def test_programs_and_typed_addresses_pass(fields: Headers) -> None:
    """A program sends none of these fields, or of itself only, and a typed address is a person's own wish."""
    pages_fields(fields)


def test_without_an_authority_every_origin_is_foreign() -> None:
    """A request without Host has no origin of its own to be equal to."""
    for origin in (b"http://127.0.0.1:8080", b"null", b"https://evil.example", b"http://"):
        with pytest.raises(BrowserRefused):
            pages_fields([(b"Origin", origin)], None)


CHROME = b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0"
FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:52.0) Gecko/20100101 Firefox/52.0"
IE_7 = b"Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.0)"
IE_11 = b"Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko"


def fields_of(text: str) -> Headers:
    """Header lines as a section."""
    pairs = (line.strip().partition(": ") for line in text.strip().splitlines())
    return [(name.encode(), value.encode()) for name, _, value in pairs]


UNMARKED = {
    "chrome": [(b"User-Agent", CHROME), (b"Accept-Language", b"en-US,en;q=0.9"), (b"Accept", b"*/*")],
    "firefox-of-2017": [(b"User-Agent", FIREFOX), (b"Accept-Language", b"en-US,en;q=0.5")],
    "language-emptied-by-the-page": [(b"User-Agent", CHROME), (b"Accept-Language", b"")],
    "internet-explorer-11-shows": [
        (b"User-Agent", IE_11),
        (b"Accept-Language", b"de"),
        (b"Accept", b"text/html, application/xhtml+xml, */*"),
    ],
    "internet-explorer-7-posts-a-form": [
        (b"User-Agent", IE_7),
        (b"Accept-Language", b"de"),
        (b"Accept", b"image/gif, image/jpeg, image/pjpeg, application/x-ms-application, */*"),
        (b"Content-Type", b"text/plain"),
    ],
}


@pytest.mark.parametrize("fields", UNMARKED.values(), ids=UNMARKED)
def test_browsers_that_say_nothing_are_refused(fields: Headers) -> None:
    """Where a browser says nothing of the page, it is known by itself, unless it shows that no page asks."""
    with pytest.raises(BrowserRefused, match="looks like a browser's"):
        pages_fields(fields)
    pages_fields([*fields, (b"Sec-Fetch-Site", b"none")])
    pages_fields([*fields, (b"X-Pleo-Tenant", b"acme")])


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(b"MSIE " * 12_000 + b"office", id="internet-explorer"),
        pytest.param(b"Mozilla/5.0 (" + b"AppleWebKit" * 5_000, id="engine"),
        pytest.param(b"Mozilla/5.0 (" * 5_000, id="beginning"),
    ],
)
def test_no_name_of_a_browser_takes_long_to_judge(agent: bytes) -> None:
    """The longest ``User-Agent`` that a head can have costs milliseconds, whatever it is made of."""
    fields = Fields([(b"User-Agent", agent), (b"Accept-Language", b"de"), (b"Accept", b"*/*")])
    began = process_time()
    guard.check_browser(fields, HERE)
    assert process_time() - began < 0.05


# Java, Node.js, curl, Python and Perl as they sent it here; the rest as they are known to.
PROGRAMS = {
    "curl": "User-Agent: curl/7.88.1\nAccept: */*",
    "curl-with-a-browsers-name": f"User-Agent: {CHROME.decode()}\nAccept: */*",
    "wget": "User-Agent: Wget/1.21\nAccept: */*\nAccept-Encoding: identity\nConnection: Keep-Alive",
    "python": "Accept-Encoding: identity\nUser-Agent: Python-urllib/3.11\nConnection: close",
    "requests": "User-Agent: python-requests/2.32\nAccept-Encoding: gzip, deflate\nAccept: */*",
    "perl": "User-Agent: HTTP-Tiny/0.080",
    "libwww-perl": "TE: deflate,gzip;q=0.3\nConnection: TE, close\nUser-Agent: libwww-perl/6.67",
    "java": """User-Agent: Java/17.0.15
        Accept: text/html, image/gif, image/jpeg, */*; q=0.2
        Connection: keep-alive""",
    "java-with-languages": """User-Agent: Java/1.8.0_292
        Accept-Language: de-DE
        Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2""",
    "java-client": """Connection: Upgrade, HTTP2-Settings
        HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA
        Upgrade: h2c
        User-Agent: Java-http-client/17.0.15""",
    "nodejs": """accept: */*
        accept-language: *
        sec-fetch-mode: cors
        user-agent: node
        accept-encoding: gzip, deflate""",
    "dotnet": "Connection: Keep-Alive",
    "dotnet-soap": "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0; MS Web Services Client Protocol 4.0)",
    "powershell-5": "User-Agent: Mozilla/5.0 (Windows NT; Windows NT 10.0; de-DE) WindowsPowerShell/5.1",
    "powershell-7": "User-Agent: Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0; de) PowerShell/7.4.1",
    "power-query": """User-Agent: Microsoft.Data.Mashup (https://go.microsoft.com/fwlink/?LinkID=304225)
        Accept-Encoding: gzip, deflate
        Connection: Keep-Alive""",
    "excel-web-query": """Accept: */*
        Accept-Language: de-DE
        User-Agent: Mozilla/4.0 (compatible; ms-office; MSOffice 16)
        Accept-Encoding: gzip, deflate""",
    "excel-2007-web-query": """Accept: image/gif, image/jpeg, */*
        Accept-Language: de-DE
        User-Agent: Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.1; Trident/4.0; MSOffice 12)""",
    "vba-xmlhttp": """Accept: */*
        Accept-Language: de-DE
        User-Agent: Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; WOW64; Trident/7.0; .NET4.0C)
        UA-CPU: AMD64
        Accept-Encoding: gzip, deflate""",
    "vba-xmlhttp-writes": """Accept: application/json
        Accept-Language: de-DE
        Content-Type: application/json
        User-Agent: Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko""",
    "vba-serverxmlhttp": """Accept: */*
        Accept-Language: de-DE
        User-Agent: Mozilla/4.0 (compatible; Win32; WinHttp.WinHttpRequest.5)""",
    "delphi-indy": """Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
        User-Agent: Mozilla/3.0 (compatible; Indy Library)""",
    "qt": """Connection: Keep-Alive
        Accept-Encoding: gzip, deflate
        Accept-Language: de-DE,en,*
        User-Agent: Mozilla/5.0""",
    "google-apps-script": "User-Agent: Mozilla/5.0 (compatible; Google-Apps-Script; beanserver; +https://script.google.com)",
    "sap": "User-Agent: SAP NetWeaver Application Server (1.0;754)\nAccept-Language: de",
}


@pytest.mark.parametrize("text", PROGRAMS.values(), ids=PROGRAMS)
def test_programs_of_every_age_pass(text: str) -> None:
    """What common tools send, also those that share a name or a library with browsers, is let in."""
    pages_fields(fields_of(text), "proxy.internal:8080")


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


# --- all of it at once


def test_who_is_admitted_is_told_for_whom() -> None:
    """The authority as it was written, and its host in plain spelling; neither where HTTP/1.0 has none."""
    there = Fields([(b"Host", b"A.example.:80")])
    assert guard.admit(there, None, True) == ("A.example.:80", "a.example")
    assert guard.admit(there, "[2001:DB8::1]:8080", True) == ("[2001:DB8::1]:8080", "2001:db8::1")
    assert guard.admit(Fields([]), None, False) == (None, "")


@pytest.mark.parametrize(
    ("field", "refusal"),
    [
        ((b"Sec-Fetch-Site", b"cross-site"), BrowserRefused),
        ((b"Origin", b"https://evil.example"), BrowserRefused),
        ((b"Via", b"1.1 pleo-proxy"), LoopDetected),
        ((b"Host", b"b"), TargetRefused),
    ],
)
def test_who_is_not_admitted(field: tuple[bytes, bytes], refusal: type[Exception]) -> None:
    """Pages, requests that were here before, and those for two hosts stay out."""
    with pytest.raises(refusal):
        guard.admit(Fields([(b"Host", b"a"), field]), None, True)


def test_no_host_is_let_in() -> None:
    """Where HTTP/1.0 left it out there is none to judge, and no browser leaves it out."""
    guard.check_host("", frozenset[str]().__contains__)
