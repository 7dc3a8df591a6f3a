"""Header fields on their way up and back: what is dropped, what is kept byte for byte, what is added."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import headers
from proxy.errors import TargetRefused, UpstreamUnreachable
from proxy.headers import Field, Headers
from proxy.model import Origin, Secret

PLEO = Origin("https", "external.pleo.io", 443)
HOST = (b"Host", b"external.pleo.io")
VIA = (b"Via", b"1.1 pleo-proxy")
TOKEN = Secret("the-token")
BEARER = (b"Authorization", b"Bearer the-token")

HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
PROXYS = {b"proxy-authorization", b"proxy-authenticate", b"proxy-connection", b"proxy-status", b"proxy-x"}
CALLERS_ONLY = (
    {b"authorization", b"cookie", b"host", b"expect", b"x-pleo-tenant", b"forwarded"}
    | {b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-anything"}
    | {b"x-http-method", b"x-http-method-override", b"x-method-override"}
    | {b"x-original-url", b"x-original-uri", b"x-original-method", b"x-original-host", b"x-rewrite-url"}
    | {b"x-override-url", b"x-http-path-override", b"x-http-host-override", b"x-host", b"x-proxy-url"}
    | {b"x-envoy-original-path", b"x-envoy-original-method"}
)
PREFIXES = (b"proxy-", b"x-forwarded-", b"x-original-", b"x-rewrite-", b"x-envoy-")
KEPT = {
    b"x-hostname",
    b"x-originals",
    b"x-http",
    b"accept",
    b"content-type",
    b"content-length",
    b"via",
    b"x-authorization",
    b"hostname",
    b"tea",
}
# What the message would mean something else without.
NEVER_NAMED = {b"host", b"content-length", b"content-type", b"content-encoding", b"expect", b"via"}


def for_upstream(fields: Headers) -> Headers:
    """The caller's fields as Pleo gets them, less the credential."""
    return headers.for_upstream(fields, host=HOST[1], version=b"1.1")


def for_caller(fields: Headers, base_url: str = "http://127.0.0.1:8080/acme") -> Headers:
    """Pleo's fields as the caller gets them, less our request id."""
    *back, request_id = headers.for_caller(fields, upstream=PLEO, base_url=base_url, request_id="r-1")
    assert request_id == (b"X-Request-Id", b"r-1")
    return back


def plain(name: bytes) -> bytes:
    """The one spelling of a name."""
    return name.lower().replace(b"_", b"-")


def respelt(name: bytes) -> st.SearchStrategy[bytes]:
    """``name`` in any letter case, with ``_`` for some of its ``-``."""
    choices = [{char, char.upper(), "_" if char == "-" else char} for char in name.decode()]
    return st.tuples(*(st.sampled_from(sorted(choice)) for choice in choices)).map(
        lambda chars: "".join(chars).encode()
    )


TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMES = st.text(TCHAR, min_size=1, max_size=12).map(str.encode) | st.sampled_from(
    sorted(HOP_BY_HOP | PROXYS | CALLERS_ONLY | KEPT)
).flatmap(respelt)
VALUES = st.binary(max_size=20).map(lambda value: value.translate(None, b"\r\n\0"))
NAMING = st.lists(NAMES | st.just(b""), max_size=4).map(b", ".join)
FIELDS = st.lists(
    st.tuples(NAMES, VALUES) | st.tuples(respelt(b"connection"), NAMING) | st.tuples(NAMES, VALUES),
    max_size=12,
)


def named_by_connection(fields: Headers) -> set[bytes]:
    """Names that a Connection field of ``fields`` makes hop-by-hop."""
    options = [value.split(b",") for name, value in fields if plain(name) == b"connection"]
    return {option.strip().lower() for some in options for option in some} - NEVER_NAMED


@given(FIELDS)
def test_nothing_of_one_hop_and_nothing_of_the_caller_survives(fields: Headers) -> None:
    """No hop-by-hop, Proxy- or caller-only field goes up in any letter case or with ``_`` for ``-``."""
    gone = HOP_BY_HOP | (CALLERS_ONLY - {b"host"})
    up = for_upstream(fields)
    assert not [name for name, _ in up if plain(name) in gone]
    assert not [name for name, _ in up if plain(name).startswith(PREFIXES)]
    assert not [name for name, _ in up if name.lower() in named_by_connection(fields)]
    assert [field for field in up if plain(field[0]) == b"host"] == [HOST]


@pytest.mark.parametrize("name", sorted(CALLERS_ONLY | HOP_BY_HOP | PROXYS))
def test_each_name_is_dropped_in_each_spelling(name: bytes) -> None:
    """Small letters, capitals and underscores are one name."""
    for spelt in (
        name,
        name.upper(),
        name.title(),
        name.replace(b"-", b"_"),
        name.upper().replace(b"-", b"_"),
    ):
        assert for_upstream([(b"A", b"1"), (spelt, b"x"), (b"B", b"2")]) == [
            HOST,
            (b"A", b"1"),
            (b"B", b"2"),
            VIA,
        ]


@given(FIELDS)
def test_everything_else_goes_up_as_it_came(fields: Headers) -> None:
    """Order, spelling, bytes and duplicates of all other fields are kept, between our Host and our Via."""
    expected = [
        (name, value)
        for name, value in fields
        if plain(name) not in HOP_BY_HOP | CALLERS_ONLY
        and name.lower() != b"content_length"
        and not plain(name).startswith(PREFIXES)
        and name.lower() not in named_by_connection(fields)
    ]
    assert for_upstream(fields) == [HOST, *expected, VIA]


@given(FIELDS)
def test_the_credential_is_ours_alone(fields: Headers) -> None:
    """Whatever the caller sends, there is exactly one Authorization, and it is the injected one."""
    up = headers.inject(headers.lines(for_upstream(fields)), TOKEN)
    sent = [tuple(line.split(b": ", 1)) for line in up.removesuffix(b"\r\n").split(b"\r\n")]
    assert [field for field in sent if plain(field[0]) == b"authorization"] == [BEARER]
    assert sent[-1] == BEARER


def test_injecting_leaves_the_clean_fields_alone() -> None:
    """The clean fields can be injected into a second time, with another token."""
    clean = headers.lines(for_upstream([(b"Accept", b"*/*")]))
    headers.inject(clean, Secret("first"))
    assert headers.inject(clean, Secret("second")) == clean + b"Authorization: Bearer second\r\n"


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\x00", "caf\xe9"])
def test_what_is_no_token_is_not_injected(value: str) -> None:
    """A stored token with a line break in it makes no second line."""
    with pytest.raises(ValueError, match="access token"):
        headers.inject(b"", Secret(value))


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(b"Authorization", id="connection-names-authorization"),
        pytest.param(b"Host", id="connection-names-host"),
        pytest.param(b"host , AUTHORIZATION,close", id="connection-names-both"),
        pytest.param(b"Via", id="connection-names-via"),
        pytest.param(b"Content-Length", id="connection-names-content-length"),
        pytest.param(b"Content-Type", id="connection-names-content-type"),
        pytest.param(b"content-encoding", id="connection-names-content-encoding"),
    ],
)
def test_a_connection_that_names_what_must_stay_changes_nothing(option: bytes) -> None:
    """A Connection field removes neither credential, destination, framing nor the trace of a loop."""
    fields = [
        (b"Host", b"proxy.internal"),
        (b"Authorization", b"Basic old"),
        (b"Via", b"1.1 other"),
        (b"Content-Type", b"application/json"),
        (b"Content-Encoding", b"gzip"),
        (b"Content-Length", b"2"),
    ]
    with_connection = [(b"Connection", option), *fields]
    up = for_upstream(with_connection)
    assert up == for_upstream(fields)
    assert up == [HOST, *fields[2:], VIA]


@given(FIELDS, st.sampled_from([b"authorization", b"host"]).flatmap(respelt))
def test_naming_authorization_or_host_never_matters(fields: Headers, option: bytes) -> None:
    """Among any fields, a Connection that names Authorization or Host has no effect."""
    assert for_upstream([*fields, (b"Connection", option)]) == for_upstream(fields)


@pytest.mark.parametrize(
    "connection",
    [
        pytest.param([(b"Connection", b"X-Secret")], id="named"),
        pytest.param([(b"connection", b"close, x-secret")], id="named-among-others"),
        pytest.param([(b"Connection", b"close"), (b"CONNECTION", b" ,X-SECRET\t")], id="named-by-the-second"),
    ],
)
def test_fields_named_by_connection_are_hop_by_hop(connection: Headers) -> None:
    """A field that any Connection names goes no further, wherever it stands."""
    before, after = (b"X-Secret", b"1"), (b"x-secret", b"2")
    assert for_upstream([before, *connection, after, (b"X-Public", b"3")]) == [HOST, (b"X-Public", b"3"), VIA]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"X_Pleo_Tenant", id="tenant-with-underscores"),
        pytest.param(b"x-pleo_tenant", id="tenant-with-one-underscore"),
        pytest.param(b"AUTHORIZATION", id="authorization-upper-case"),
        pytest.param(b"Proxy_Authorization", id="proxy-authorization-with-underscore"),
        pytest.param(b"X_Forwarded_For", id="forwarded-for-with-underscores"),
        pytest.param(b"Transfer_Encoding", id="transfer-encoding-with-underscore"),
        pytest.param(b"Content_Length", id="content-length-with-underscore"),
        pytest.param(b"X_HTTP_Method_Override", id="method-override-with-underscores"),
        pytest.param(b"Cookie", id="cookie"),
        pytest.param(b"Expect", id="expect"),
    ],
)
def test_look_alikes_are_dropped(name: bytes) -> None:
    """A name that a CGI-like server would read as a protected one is treated as that one."""
    assert for_upstream([(name, b"x")]) == [HOST, VIA]


FOR_PAGES = (
    b"Access-Control-Allow-Origin", b"Access-Control-Allow-Credentials", b"Access-Control-Expose-Headers",
    b"Access-Control-Anything", b"Set-Cookie", b"Set-Cookie2", b"Clear-Site-Data", b"Service-Worker-Allowed",
    b"Timing-Allow-Origin",
)  # fmt: skip


@given(st.sampled_from(FOR_PAGES).flatmap(lambda name: respelt(name.lower())))
def test_no_answer_opens_the_proxy_to_pages_or_leaves_a_cookie(name: bytes) -> None:
    """What Pleo allows pages at its own origin is not said for the proxy's, however it is spelt."""
    kept = (b"Accept-Control", b"x")
    assert for_caller([(b"Vary", b"Origin"), (name, b"*"), kept, (name, b"a")]) == [
        (b"Vary", b"Origin"),
        kept,
    ]


@pytest.mark.parametrize(
    "name",
    [
        "X-Authorization",
        "Authorization2",
        "Hosts",
        "Set-Cookie",
        "X-Forward",
        "Proxy",
        "Upgrades",
        "X-Request-Id",
    ],
)
def test_names_that_only_resemble_are_kept(name: str) -> None:
    """A longer or shorter name than a protected one is a field of its own."""
    assert for_upstream([(name.encode(), b"x")]) == [HOST, (name.encode(), b"x"), VIA]


def test_via_tells_the_version_of_the_caller() -> None:
    """Our Via comes last and names the protocol version that the caller spoke."""
    up = headers.for_upstream([(b"Via", b"1.1 a")], host=b"h", version=b"1.0")
    assert up == [(b"Host", b"h"), (b"Via", b"1.1 a"), (b"Via", b"1.0 pleo-proxy")]


def test_the_cache_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that callers make up fill no memory, and are judged alike when the cache is full."""
    monkeypatch.setattr(headers, "_kinds", {})
    monkeypatch.setattr(headers, "_KINDS_MOST", 3)
    made_up: Headers = [(f"X-{number}".encode(), b"") for number in range(10)]
    assert for_upstream([*made_up, (b"Cookie", b"x")]) == [HOST, *made_up, VIA]
    assert len(headers._kinds) == 3


# --- back to the caller


@given(FIELDS)
def test_the_answers_fields_come_back_as_they_were(fields: Headers) -> None:
    """Hop-by-hop fields aside, the answer's fields keep order, spelling, bytes and duplicates."""
    fields = [field for field in fields if plain(field[0]) != b"transfer-encoding"]
    expected = [
        (name, value)
        for name, value in fields
        if plain(name) not in HOP_BY_HOP
        and not plain(name).startswith(b"proxy-")
        and name.lower() not in named_by_connection(fields)
    ]
    assert for_caller(fields) == expected


@pytest.mark.parametrize(
    "coding", [b"gzip", b"gzip, chunked", b"chunked, gzip", b"identity", b"", b"x-chunked", b"chunked "]
)
def test_an_answer_in_an_unknown_coding_is_refused(coding: bytes) -> None:
    """A body that is coded for one hop in a way that is not undone here must not pass for a plain one."""
    with pytest.raises(UpstreamUnreachable, match="transfer coding"):
        for_caller([(b"Transfer-Encoding", coding)])
    with pytest.raises(UpstreamUnreachable, match="transfer coding"):
        for_caller([(b"Transfer-Encoding", b"chunked")] * 2)
    assert for_caller([(b"transfer-encoding", b"Chunked")]) == []


REFERENCES = {
    "absolute": (b"https://external.pleo.io/v1/x?y#z", b"http://127.0.0.1:8080/acme/v1/x?y#z"),
    "origin-alone": (b"https://external.pleo.io", b"http://127.0.0.1:8080/acme"),
    "origin-and-query": (b"https://external.pleo.io?x", b"http://127.0.0.1:8080/acme?x"),
    "upper-case": (b"HTTPS://External.PLEO.io/v1", b"http://127.0.0.1:8080/acme/v1"),
    "default-port": (b"https://external.pleo.io:443/v1", b"http://127.0.0.1:8080/acme/v1"),
    "path-alone": (b"/v3/export-jobs/1", b"/acme/v3/export-jobs/1"),
    "longer-host": (b"https://external.pleo.io.example/v1", None),
    "longer-host-alone": (b"https://external.pleo.io.example", None),
    "longer-label": (b"https://external.pleo.iox/v1", None),
    "host-as-userinfo": (b"https://external.pleo.io@evil.example/v1", None),
    "host-as-user-and-password": (b"https://external.pleo.io:443@evil.example/v1", None),
    "other-port": (b"https://external.pleo.io:8443/v1", None),
    "longer-port": (b"https://external.pleo.io:4430/v1", None),
    "other-scheme": (b"http://external.pleo.io/v1", None),
    "other-host": (b"https://auth.pleo.io/login", None),
    "host-in-anothers-query": (b"https://auth.pleo.io/login?to=https://external.pleo.io/v1", None),
    "scheme-relative": (b"//external.pleo.io/v1", None),
    "relative": (b"jobs/1", None),
    "empty": (b"", None),
    "link": (
        b'<https://external.pleo.io/v2/employees?after=A>; rel="next"',
        b'<http://127.0.0.1:8080/acme/v2/employees?after=A>; rel="next"',
    ),
    "link-of-several": (
        b'<https://external.pleo.io/a>; rel="next", </b>; rel=prev, <https://external.pleo.io.example/c>',
        b'<http://127.0.0.1:8080/acme/a>; rel="next", </acme/b>; rel=prev, <https://external.pleo.io.example/c>',
    ),
    "link-with-anchor": (
        b'<//cdn.example/x>; anchor="https://external.pleo.io"; title="/v1"',
        b'<//cdn.example/x>; anchor="http://127.0.0.1:8080/acme"; title="/v1"',
    ),
}


@pytest.mark.parametrize("name", [b"Location", b"location", b"Link", b"Content-Location"], ids=bytes.decode)
@pytest.mark.parametrize(("sent", "expected"), REFERENCES.values(), ids=REFERENCES)
def test_references_to_the_upstream_lead_to_the_proxy(
    name: bytes, sent: bytes, expected: bytes | None
) -> None:
    """A reference to Pleo's origin becomes one to the tenant at the proxy; no other one is touched."""
    assert for_caller([(name, sent)]) == [(name, sent if expected is None else expected)]


def test_other_fields_are_not_rewritten() -> None:
    """A URL of the upstream in any other field is data."""
    field = (b"X-Self", b"https://external.pleo.io/v1")
    assert for_caller([field]) == [field]


@pytest.mark.parametrize(
    ("upstream", "sent", "expected"),
    [
        pytest.param(
            Origin("http", "::1", 9000), b"http://[::1]:9000/v1", b"http://p/v1", id="ipv6-with-port"
        ),
        pytest.param(Origin("http", "::1", 9000), b"http://[::1]/v1", None, id="ipv6-without-its-port"),
        pytest.param(
            Origin("http", "::1", 80), b"http://[::1]:80/v1", b"http://p/v1", id="ipv6-default-port"
        ),
        pytest.param(Origin("http", "a.b", 9000), b"http://a.b:9000", b"http://p", id="port-at-end"),
        pytest.param(Origin("http", "a.b", 9000), b"http://a.b:90001/", None, id="longer-port"),
        pytest.param(Origin("http", "a.b", 80), b"http://axb/v1", None, id="dot-is-a-dot"),
        pytest.param(Origin("http", "a.b", 80), b"/v1", b"/v1", id="path-alone-without-prefix"),
    ],
)
def test_references_by_origin(upstream: Origin, sent: bytes, expected: bytes | None) -> None:
    """Exactly the configured origin is recognised, its port included."""
    back = headers.for_caller([(b"Location", sent)], upstream=upstream, base_url="http://p", request_id="r")
    assert back[0] == (b"Location", sent if expected is None else expected)


def test_the_base_url_is_taken_literally() -> None:
    """Nothing in the caller's base URL is read as a pattern."""
    sent = (b"Location", b"https://external.pleo.io/v1")
    assert for_caller([sent], r"http://h:1/\1\g<0>") == [(b"Location", rb"http://h:1/\1\g<0>/v1")]


# --- reading


@pytest.mark.parametrize(
    ("vias", "looped"),
    [
        pytest.param([], False, id="none"),
        pytest.param([b"1.1 pleo-proxy"], True, id="ours"),
        pytest.param([b"1.0 fred, 1.1 pleo-proxy (x), 1.1 z"], True, id="ours-among-others"),
        pytest.param([b"1.1 a", b"HTTP/1.1  pleo-proxy"], True, id="ours-in-the-second-field"),
        pytest.param([b"1.1 pleo-proxy.example"], False, id="longer-name"),
        pytest.param([b"1.1 other (pleo-proxy)"], False, id="in-a-comment"),
        pytest.param([b"pleo-proxy"], False, id="no-version"),
        pytest.param([b""], False, id="empty"),
    ],
)
def test_a_loop_is_seen_by_our_via(vias: list[bytes], *, looped: bool) -> None:
    """The request came round if a Via has our pseudonym as its received-by."""
    assert headers.passed_here_before([(b"VIA", value) for value in vias]) is looped


@given(FIELDS)
@example([])
def test_a_request_that_was_forwarded_is_recognised(fields: Headers) -> None:
    """What this proxy sends, it knows again, whatever the caller added or named in Connection."""
    assert headers.passed_here_before(for_upstream(fields))


def test_values_are_found_in_order_without_white_space() -> None:
    """All values of a field in any letter case, stripped; a look-alike with ``_`` is another field."""
    fields: list[Field] = [(b"X-A", b" 1\t"), (b"x-a", b"2"), (b"X_A", b"3"), (b"X-AB", b"4")]
    assert headers.values(fields, b"x-a") == [b"1", b"2"]
    assert headers.values(fields, b"x-b") == []


def test_single_takes_one_value_at_most() -> None:
    """A field that must be sent once is refused if it is sent twice, even with one value."""
    assert headers.single([], b"host") is None
    assert headers.single([(b"HOST", b" a\xff ")], b"host") == "aÿ"
    with pytest.raises(TargetRefused, match="Host is sent 2 times"):
        headers.single([(b"Host", b"a"), (b"host", b"a")], b"host")


@pytest.mark.parametrize(
    ("fields", "waits"),
    [
        pytest.param([(b"Expect", b"100-continue")], True, id="asked"),
        pytest.param([(b"eXPECT", b" 100-Continue ")], True, id="odd-spelling"),
        pytest.param([], False, id="nothing"),
        pytest.param([(b"Expect", b"200-ok")], False, id="unknown"),
        pytest.param([(b"Expect", b"100-continue"), (b"Expect", b"200-ok")], False, id="two"),
        pytest.param([(b"Expect", b"100-continue, 200-ok")], False, id="list"),
        pytest.param([(b"Expectation", b"100-continue")], False, id="other-name"),
    ],
)
def test_only_one_expectation_is_known(fields: Headers, waits: bool) -> None:
    """A body is waited for where 100-continue, and nothing beside it, is expected."""
    assert headers.expects_continue(fields) is waits


@pytest.mark.parametrize("connection", [b"close", b"Expect"], ids=["plain", "named-by-connection"])
@pytest.mark.parametrize("keep", [True, False])
def test_an_expectation_goes_up_only_where_it_is_waited_for(connection: bytes, keep: bool) -> None:
    """Kept, it stays as it was sent, whatever Connection says of it: the wait depends on it."""
    expect = (b"eXPECT", b"100-Continue")
    fields = [(b"Connection", connection), expect, (b"Accept", b"*/*")]
    up = headers.for_upstream(fields, host=HOST[1], version=b"1.1", keep_expect=keep)
    assert up == [HOST, *([expect] if keep else []), (b"Accept", b"*/*"), VIA]


@pytest.mark.parametrize(
    "name",
    [
        b"Access-Control-Allow-Origin", b"Authorization", b"Cache-Control", b"Connection",
        b"Content-Encoding", b"Content-Length",
        b"Content-Range", b"Content-Type", b"Cookie", b"Date", b"Host", b"If-Match", b"Keep-Alive", b"Link",
        b"Proxy-Authenticate", b"Proxy-Status", b"Set-Cookie", b"TE", b"Trailer", b"Transfer-Encoding",
        b"Upgrade", b"Vary", b"Via", b"WWW-Authenticate", b"X-Forwarded-For", b"X-Named", b"X-Request-Id",
    ],
)  # fmt: skip
@pytest.mark.parametrize("spell", [bytes.lower, bytes.upper], ids=["lower", "upper"])
def test_no_trailer_changes_what_the_head_has_settled(name: bytes, spell: Callable[[bytes], bytes]) -> None:
    """Framing, routing, authentication and controls are not taken from trailers; the rest keeps its order."""
    kept = [(b"Digest", b"x"), (b"Server-Timing", b"a;dur=1"), (b"digest", b"y")]
    trailers = [kept[0], (spell(name), b"z"), *kept[1:]]
    assert headers.trailers_that_pass(trailers, [(b"connection", b"close, x-named")]) == kept
