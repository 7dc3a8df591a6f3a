"""What trusted proxies say of callers: read from the right, no further than the first who is not trusted."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.arrival import Arrival, Networks, address_of
from proxy.errors import TargetRefused
from proxy.forwarded import behind
from proxy.headers import Fields, Headers
from proxy.model import Policy
from proxy.sandbox import Sandbox
from tests.harness import Proxy, running_proxy
from tests.playbook import caller, http, stage, upstream

TRUSTED = Networks(map(ipaddress.ip_network, ("10.0.0.0/8", "2001:db8:aaaa::/48")))
PEER = "10.0.0.1"
HIDDEN = f"unknown behind {PEER}"


def arrival(*fields: tuple[str, str], trusted: Networks | None = TRUSTED) -> Arrival:
    """Where a request with these fields comes from that a proxy at ``PEER`` has passed on."""
    section: Headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    return behind(Arrival(PEER, trusted=trusted), Fields(section))


def x(*lines: str) -> str:
    """The caller that ``X-Forwarded-For`` lines lead to."""
    return arrival(*(("X-Forwarded-For", line) for line in lines)).caller


def standard(*lines: str) -> str:
    """The caller that ``Forwarded`` lines lead to."""
    return arrival(*(("Forwarded", line) for line in lines)).caller


USUAL = {
    "one": (["203.0.113.5"], "203.0.113.5"),
    "spoofed-on-the-left": (["10.9.9.9, 192.0.2.1, 203.0.113.5"], "203.0.113.5"),
    "spoofed-as-trusted": (["192.0.2.1, 10.9.9.9, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
    "spoofed-in-a-line-before": (["192.0.2.1", "203.0.113.5"], "203.0.113.5"),
    "a-chain-over-lines": (["203.0.113.5, 10.0.0.3", "10.0.0.2"], "203.0.113.5"),
    "all-trusted": (["10.0.0.4, 10.0.0.3"], "10.0.0.4"),
    "with-a-port": (["203.0.113.5:4711"], "203.0.113.5"),
    "ipv6": (["2001:db8::5"], "2001:db8::5"),
    "ipv6-in-brackets": (["[2001:DB8::5]"], "2001:db8::5"),
    "ipv6-with-a-port": (["[2001:db8::5]:4711"], "2001:db8::5"),
    "ipv6-trusted": (["203.0.113.5, 2001:db8:aaaa::1"], "203.0.113.5"),
    "ipv4-seen-through-ipv6": (["203.0.113.5, ::ffff:10.0.0.2"], "203.0.113.5"),
    "empty-elements": ([", 203.0.113.5 , ,", ",", ""], "203.0.113.5"),
    "nothing-in-it": ([" , "], PEER),
    "unknown": (["203.0.113.5, unknown"], HIDDEN),
    "hidden": (["203.0.113.5, _gateway"], HIDDEN),
    "hidden-further-on": (["_gateway, 10.0.0.2"], HIDDEN),
    "no-address": (["203.0.113.5, 203.0.113.300"], HIDDEN),
    "leading-zeros": (["203.0.113.05"], HIDDEN),
    "as-a-number": (["3405803781"], HIDDEN),
    "a-network": (["203.0.113.0/24"], HIDDEN),
    "with-a-zone": (["fe80::1%eth0"], HIDDEN),
    "quoted": (['"203.0.113.5"'], HIDDEN),
    "not-ascii": (["203.0.113.\xb2"], HIDDEN),
    "malformed-beyond-the-caller": (["%%%, 203.0.113.5"], "203.0.113.5"),
}


@pytest.mark.parametrize(("lines", "caller"), USUAL.values(), ids=USUAL)
def test_x_forwarded_for(lines: list[str], caller: str) -> None:
    """The caller is the first from the right that is no trusted proxy, and nobody where it is not told."""
    assert x(*lines) == caller


STANDARD = {
    "one": (["for=203.0.113.5"], "203.0.113.5"),
    "all-parameters": (["For=203.0.113.5;BY=10.0.0.1;proto=https;host=a.example"], "203.0.113.5"),
    "quoted": (['for="203.0.113.5:80"'], "203.0.113.5"),
    "ipv6": (['for="[2001:db8::5]:4711"'], "2001:db8::5"),
    "ipv6-with-a-hidden-port": (['for="[2001:db8::5]:_port"'], "2001:db8::5"),
    "ipv6-without-brackets": (['for="2001:db8::5"'], HIDDEN),
    "ipv6-without-quotes": (["for=[2001:db8::5]"], HIDDEN),
    "a-chain": (["for=192.0.2.1, for=203.0.113.5, for=10.0.0.3", "for=10.0.0.2"], "203.0.113.5"),
    "spoofed-on-the-left": (["for=10.9.9.9, for=203.0.113.5"], "203.0.113.5"),
    "a-comma-in-quotes": (['for=203.0.113.5;x="a, for=10.9.9.9"'], "203.0.113.5"),
    "a-semicolon-in-quotes": (['for=203.0.113.5;x="a;for=10.9.9.9"'], "203.0.113.5"),
    "an-element-in-quotes": (['for=203.0.113.5;x=", for=\\"10.9.9.9\\""'], "203.0.113.5"),
    "quotes-left-open": (['for="192.0.2.1, for=203.0.113.5'], "203.0.113.5"),
    "quotes-left-open-before-quotes": (['x="y, for="[2001:db8::5]"'], "2001:db8::5"),
    "escape-left-open": (['x="y\\, for=203.0.113.5'], "203.0.113.5"),
    "escaped": (['for="203.0.113\\.5"'], "203.0.113.5"),
    "spaces-around": ([" for=203.0.113.5 ; proto=https , "], "203.0.113.5"),
    "unknown": (["for=203.0.113.5, for=unknown"], HIDDEN),
    "hidden": (["for=203.0.113.5, for=_hidden"], HIDDEN),
    "without-for": (["for=203.0.113.5, by=10.0.0.1"], HIDDEN),
    "for-twice": (["for=203.0.113.5;for=203.0.113.6"], HIDDEN),
    "for-twice-in-other-letters": (["for=203.0.113.5;For=203.0.113.5"], HIDDEN),
    "no-pair": (["203.0.113.5"], HIDDEN),
    "malformed": (["for=203.0.113.5;=;"], HIDDEN),
    "malformed-beyond-the-caller": (["((, for=203.0.113.5"], "203.0.113.5"),
    "element-too-long": (["for=203.0.113.5;x=" + "y" * 2000], HIDDEN),
    "nothing-in-it": ([""], PEER),
}


@pytest.mark.parametrize(("lines", "caller"), STANDARD.values(), ids=STANDARD)
def test_forwarded(lines: list[str], caller: str) -> None:
    """As with ``X-Forwarded-For``, and no quotes that a caller leaves open swallow what a proxy added."""
    assert standard(*lines) == caller


def test_who_hides_is_in_no_network() -> None:
    """A caller that is not told has no address, so that it is nowhere where its proxy would be."""
    assert address_of(x("unknown")) is None


def test_nobody_else_is_believed() -> None:
    """Without a trusted proxy at the other end of the connection the fields change nothing."""
    fields = [("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1;proto=https;host=x.example")]
    assert arrival(*fields, trusted=None) == Arrival(PEER)


@pytest.mark.parametrize(
    "name",
    [
        "X_Forwarded_For",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Forwarded",
        "Via",
    ],
)
def test_no_other_field_names_a_caller(name: str) -> None:
    """Look-alikes and the fields of single products are passed on by proxies as callers send them."""
    assert arrival((name, "192.0.2.1")).caller == PEER
    assert arrival((name, "192.0.2.1"), ("X-Forwarded-For", "203.0.113.5")).caller == "203.0.113.5"


def test_both_fields_must_lead_to_one_caller() -> None:
    """Of two fields one may be a caller's own, so they are refused unless they agree."""
    agreed = arrival(("X-Forwarded-For", "203.0.113.5"), ("Forwarded", 'for="203.0.113.5:1"'))
    assert agreed.caller == "203.0.113.5"
    for other in ("for=10.9.9.9", "for=203.0.113.6", "for=unknown", "((("):
        with pytest.raises(TargetRefused, match="lead to different callers"):
            arrival(("X-Forwarded-For", "203.0.113.5"), ("Forwarded", other))


REACHED: dict[str, tuple[list[tuple[str, str]], str, str | None]] = {
    "nothing": ([("X-Forwarded-For", "203.0.113.5")], "http", None),
    "standard": ([("Forwarded", "for=203.0.113.5;proto=https;host=a.example")], "https", "a.example"),
    "standard-quoted": (
        [("Forwarded", 'for=203.0.113.5;proto="HTTPS";host="a.example:8443"')],
        "https",
        "a.example:8443",
    ),
    "standard-of-the-first-proxy": (
        [("Forwarded", "for=203.0.113.5;proto=https;host=a.example, for=10.0.0.2;proto=http;host=inner")],
        "https",
        "a.example",
    ),
    "usual": (
        [
            ("X-Forwarded-For", "203.0.113.5"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "a.example"),
        ],
        "https",
        "a.example",
    ),
    "usual-of-the-first-proxy": (
        [("X-Forwarded-For", "203.0.113.5, 10.0.0.2"), ("X-Forwarded-Proto", "x, https, http")],
        "https",
        None,
    ),
    "usual-set-by-one-of-two": (
        [("X-Forwarded-For", "203.0.113.5, 10.0.0.2"), ("X-Forwarded-Proto", "HTTPS")],
        "https",
        None,
    ),
    "spoofed-on-the-left": (
        [("X-Forwarded-For", "1.1.1.1, 203.0.113.5"), ("X-Forwarded-Host", "evil.example, a.example")],
        "http",
        "a.example",
    ),
    "another-scheme": ([("Forwarded", "for=203.0.113.5;proto=javascript")], "http", None),
    "of-nobody": ([("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "a.example")], "http", None),
}


@pytest.mark.parametrize(("fields", "scheme", "authority"), REACHED.values(), ids=REACHED)
def test_how_the_caller_reaches_the_proxy(
    fields: list[tuple[str, str]], scheme: str, authority: str | None
) -> None:
    """Scheme and host are what the first trusted proxy on the way says, of the caller that it names."""
    found = arrival(*fields)
    assert (found.scheme, found.authority) == (scheme, authority)


@pytest.mark.parametrize(
    ("proto", "scheme"), [("http", "http"), ("https", "https"), ("ws", "https"), ("", "https")]
)
def test_a_scheme_that_is_none_changes_nothing(proto: str, scheme: str) -> None:
    """Over TLS from the proxy in front the scheme stays https, unless that says http."""
    fields = Fields([(b"X-Forwarded-For", b"203.0.113.5"), (b"X-Forwarded-Proto", proto.encode())])
    assert behind(Arrival(PEER, scheme="https", trusted=TRUSTED), fields).scheme == scheme


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded"])
@pytest.mark.parametrize(
    "element",
    ["10.0.0.2", "for=10.0.0.2", "", 'x="', '"', "a=b;" * 300, "\\", ";", 'for="[2001:db8:aaaa::1]"'],
)
def test_ten_thousand_elements_cost_little(name: str, element: str) -> None:
    """However long a list and whatever is in it, reading it takes a few milliseconds at the most."""
    line = ",".join([element] * 10_000)[:65_536]
    started = perf_counter()
    found = arrival((name, line))
    assert perf_counter() - started < 0.25
    assert found.caller in {HIDDEN, PEER}


@pytest.mark.parametrize(
    "sign", [b",", b" ", b"\t,", b'"', b"=", b";", b"\\", b"a", b'a="', b',a="', b",a=b;"]
)
def test_no_sign_in_great_numbers_costs_much(sign: bytes) -> None:
    """However a caller fills the fields that its proxy passes on, reading them stays linear."""
    value = sign * (65_536 // len(sign))
    names = (b"Forwarded", b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host")
    fields = Fields([(name, value) for name in names] + [(b"X-Forwarded-For", b"203.0.113.5")])
    started = perf_counter()
    with suppress(TargetRefused):
        behind(Arrival(PEER, trusted=TRUSTED), fields)
    assert perf_counter() - started < 0.1


def test_a_chain_has_an_end() -> None:
    """Of thirty-two trusted hops the last is the caller; who names more is told of by nobody."""
    assert x(", ".join(["203.0.113.5"] + ["10.0.0.2"] * 31)) == "203.0.113.5"
    assert x(", ".join(["203.0.113.5"] + ["10.0.0.2"] * 32)) == HIDDEN


# --- against an oracle that knows the way that a request took

OUTSIDE = st.sampled_from(["203.0.113.5", "192.0.2.77", "2001:db8::5", "11.0.0.0", "9.255.255.255"])
PROXIES = st.sampled_from(["10.0.0.2", "10.255.255.255", "2001:db8:aaaa::1", "2001:db8:aaaa:ffff::"])
JUNK = st.text(st.sampled_from(list('0123456789abcdef.:[]",;=\\ forproto_xX\t\xff')), max_size=40).map(
    str.strip
)


@st.composite
def ways(draw: st.DrawFn) -> tuple[str, list[str], list[int], str, str]:
    """A caller outside, the trusted proxies between it and ``PEER``, how each writes, and junk."""
    proxies = draw(st.lists(PROXIES, max_size=4))
    styles = draw(st.lists(st.integers(0, 5), min_size=len(proxies) + 1, max_size=len(proxies) + 1))
    return draw(OUTSIDE), proxies, styles, draw(JUNK), draw(JUNK)


def written(name: str, address: str, style: int) -> str:
    """One element, as different proxies write it."""
    is_ipv6 = ipaddress.ip_address(address).version == 6
    port = ":4711" if style % 2 else ""
    node = (
        f"[{address}]{port}"
        if is_ipv6 and (port or name == "Forwarded" or style == 2)
        else f"{address}{port}"
    )
    if name == "X-Forwarded-For":
        return node
    value = f'"{node}"' if is_ipv6 or port or style == 4 else node
    return ["{}", "by=10.0.0.9;{}", "{};proto=https", '{};host="a, b"', "{}", '{};x="\\""'][style].format(
        f"for={value}"
    )


@settings(max_examples=500)
@given(ways(), st.sampled_from(["X-Forwarded-For", "Forwarded"]))
def test_the_caller_is_found_whatever_it_has_written_itself(
    way: tuple[str, list[str], list[int], str, str], name: str
) -> None:
    """Whoever came in from outside, by whichever trusted proxies, is found as the first of them saw it."""
    caller, proxies, styles, junk, more_junk = way
    lines = [more_junk, junk]
    for address, style in zip([caller, *proxies], styles, strict=True):
        element = written(name, address, style)
        if style in (1, 3):  # some proxies add a line, and some add to the last one
            lines.append(element)
        else:
            lines[-1] = f"{lines[-1]}, {element}" if lines[-1] else element
    assert arrival(*((name, line) for line in lines)).caller == str(ipaddress.ip_address(caller))


@given(st.lists(st.binary(max_size=60), max_size=4), st.sampled_from([b"Forwarded", b"X-Forwarded-For"]))
def test_nothing_that_is_sent_breaks_the_reading(lines: list[bytes], name: bytes) -> None:
    """Any bytes lead to an address, to nobody, or to the peer."""
    found = behind(Arrival(PEER, trusted=TRUSTED), Fields([(name, line) for line in lines])).caller
    assert found in {HIDDEN, PEER} or address_of(found) is not None


# --- over real sockets

BEHIND = {"trusted_proxies": ["127.0.0.0/8"], "hosts": ["proxy.example"]}


async def test_the_caller_in_the_log_and_for_networks_is_the_told_one(pleo: Sandbox, tmp_path: Path) -> None:
    """Behind a trusted proxy the log has the caller, its network leads to the tenant, Pleo sees none."""
    async with running_proxy(pleo, tmp_path, listen=BEHIND) as proxy:
        await proxy.add_tenant("acme", networks=("203.0.113.0/24",))
        await proxy.connect("acme")
        answer = await proxy.get("/v2/employees", headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.5"})
        assert answer.status == 200
        assert caller_in_the_log(proxy) == "203.0.113.5"
        sent = pleo.api_requests[-1].headers
        assert not [name for name, _ in sent if "forwarded" in name.lower()]
        assert "203.0.113.5" not in str(sent)
        spoofed = await proxy.get("/v2/employees", headers={"X-Forwarded-For": "203.0.113.5, 198.51.100.1"})
        assert (spoofed.status, caller_in_the_log(proxy)) == (404, "198.51.100.1")
        hidden = await proxy.get("/v2/employees", headers={"X-Forwarded-For": "203.0.113.5, unknown"})
        assert (hidden.status, caller_in_the_log(proxy)) == (404, "unknown behind 127.0.0.1")
        both = {"X-Forwarded-For": "203.0.113.5", "Forwarded": "for=198.51.100.1"}
        torn = await proxy.get("/v2/employees", headers=both)
        assert (torn.status, torn.json()["title"]) == (400, "The request is malformed")


async def test_a_policy_lets_in_nobody_who_hides(pleo: Sandbox, tmp_path: Path) -> None:
    """Networks of a policy are about the told caller; who is not told is in none, not even its proxy's."""
    async with running_proxy(pleo, tmp_path, listen=BEHIND) as proxy:
        await proxy.add_tenant("acme", policy=Policy(callers=("203.0.113.0/24", "127.0.0.0/8")))
        await proxy.connect("acme")
        for told, status in (("203.0.113.5", 200), ("198.51.100.1", 403), ("unknown", 403), ("_x", 403)):
            answer = await proxy.get("/acme/v2/employees", headers={"X-Forwarded-For": told})
            assert answer.status == status, told


async def test_a_caller_that_is_no_trusted_proxy_is_itself(pleo: Sandbox, tmp_path: Path) -> None:
    """From elsewhere than the configured networks the fields count for nothing."""
    async with running_proxy(pleo, tmp_path, listen={"trusted_proxies": ["127.0.0.2/32"]}) as proxy:
        await proxy.add_tenant("acme", networks=("203.0.113.0/24",))
        for name in ("X-Forwarded-For", "Forwarded"):
            value = "203.0.113.5" if name.startswith("X") else "for=203.0.113.5"
            answer = await proxy.get("/v2/employees", headers={name: value})
            assert (answer.status, caller_in_the_log(proxy)) == (404, "127.0.0.1")


def caller_in_the_log(proxy: Proxy) -> str:
    """Of the request that was finished last."""
    return str(proxy.lines("request.finished")[-1]["caller"])


@pytest.mark.parametrize(
    ("fields", "base"),
    [
        pytest.param(
            b"Forwarded: for=203.0.113.5;proto=https;host=proxy.example\r\n",
            b"https://proxy.example/acme",
            id="standard",
        ),
        pytest.param(
            b"X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n", b"https://p/acme", id="usual"
        ),
        pytest.param(b"X-Forwarded-Proto: https\r\n", b"http://p/acme", id="of-nobody"),
    ],
)
async def test_references_lead_back_the_way_that_the_caller_came(
    tmp_path: Path, fields: bytes, base: bytes
) -> None:
    """``Location`` of an answer has the scheme and host under which the caller reaches the proxy in front."""
    async with stage(tmp_path, listen={**BEHIND, "hosts": ["p", "proxy.example"]}) as theatre:
        await theatre.play(
            caller >> b"GET /acme/v1/x HTTP/1.1\r\nHost: p\r\n%b\r\n" % fields,
            upstream << b"GET /v1/x HTTP/1.1\r\nHost: %b\r\nVia: 1.1 pleo-proxy\r\n"
            b"Authorization: Bearer at-1\r\n\r\n" % theatre.upstream_host,
            upstream >> http(b"302 Found", b"", b"Location: %b/y\r\n" % theatre.upstream.url.encode()),
        )
        head = await theatre.receive_head(caller)
        assert b"\r\nLocation: %b/y\r\n" % base in head


@pytest.mark.parametrize(
    ("host", "told", "status"),
    [
        pytest.param(b"evil.example", b"proxy.example", b"421", id="a-rebound-name-that-tells-a-known-one"),
        pytest.param(b"proxy.example", b"evil.example", b"421", id="a-rebound-name-behind-the-proxys-own"),
        pytest.param(b"proxy.example", b"proxy.example, b", b"421", id="another-name-added"),
        pytest.param(b"proxy.example", b"a/b", b"400", id="no-host"),
    ],
)
async def test_host_and_the_told_host_must_both_be_ours(
    tmp_path: Path, host: bytes, told: bytes, status: bytes
) -> None:
    """A page of a rebound name gets by no proxy, whether that passes on ``Host`` or puts in its own."""
    async with stage(tmp_path, listen=BEHIND) as theatre:
        await theatre.play(
            caller >> b"GET /acme/v1/x HTTP/1.1\r\nHost: %b\r\nX-Forwarded-For: 203.0.113.5\r\n"
            b"X-Forwarded-Host: %b\r\n\r\n" % (host, told)
        )
        assert (await theatre.receive_head(caller)).startswith(b"HTTP/1.1 %b " % status)


async def test_the_told_host_leads_to_its_tenant(pleo: Sandbox, tmp_path: Path) -> None:
    """A host route is about the name that the caller used, not the one that its proxy put in."""
    async with running_proxy(pleo, tmp_path, listen=BEHIND) as proxy:
        await proxy.add_tenant("acme", hosts=("acme.example",))
        await proxy.connect("acme")
        told = {"X-Forwarded-For": "203.0.113.5", "X-Forwarded-Host": "acme.example"}
        assert (await proxy.get("/v2/employees", headers=told)).status == 200
