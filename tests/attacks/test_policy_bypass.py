"""Requests that try to be more than their tenant's policy allows, by another spelling of method or path.

The oracle: Pleo sees nothing that a server which reads most generously would take for the blocked endpoint,
and of what is allowed it sees no field by which it could be another request.
"""

from __future__ import annotations

import unicodedata
from itertools import product
from urllib.parse import unquote

import pytest

from proxy.model import Policy, Preset
from proxy.sandbox import COMPANIES
from tests.harness import Proxy

OVERRIDES = [
    b"X-HTTP-Method-Override: DELETE",
    b"x-http-method-override: DELETE",
    b"X_HTTP_Method_Override: DELETE",
    b"X-HTTP_METHOD-override: DELETE",
    b"X-HTTP-Method: DELETE",
    b"X-Method-Override: DELETE",
    b"X_Method_Override: DELETE",
    b"X-Original-URL: /v1/installations/me",
    b"X_Original_URL: /v1/installations/me",
    b"X-Original-URI: /v1/installations/me",
    b"X-Original-Method: DELETE",
    b"X-Original-Host: globex.example",
    b"X-Rewrite-URL: /v1/installations/me",
    b"x_rewrite_url: /v1/installations/me",
    b"X-Override-URL: /v1/installations/me",
    b"X-HTTP-Path-Override: /v1/installations/me",
    b"X-HTTP-Host-Override: globex.example",
    b"X-Forwarded-Prefix: /v1/installations",
    b"X-Forwarded-Path: /v1/installations/me",
    b"X-Forwarded-Uri: /v1/installations/me",
    b"X-Forwarded-Method: DELETE",
    b"X-Envoy-Original-Path: /v1/installations/me",
    b"X-Envoy-Original-Method: DELETE",
    b"X-Host: globex.example",
    b"X-Proxy-URL: https://globex.example/",
]


@pytest.mark.parametrize("line", OVERRIDES)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_no_field_makes_it_another_request(proxy: Proxy, method: bytes, line: bytes) -> None:
    """A field that frameworks take for the method, path or host that is meant does not reach Pleo."""
    data = b"%b /acme/v1/sandbox/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%b\r\n\r\n"
    assert (await proxy.raw(data % (method, line))).startswith(b"HTTP/1.1 200 OK\r\n")
    request = proxy.pleo.api_requests[-1]
    assert (request.method, request.target) == (method.decode(), "/v1/sandbox/echo")
    sent = {name.lower() for name, _ in request.headers}
    assert sent == {"host", "via", "authorization"}


METHODS = [b"POST", b"PUT", b"GET"]
QUERIES = [
    b"_method=DELETE",
    b"a=b&_method=delete",
    b"%5fmethod=DELETE",
    b"_METHOD=DELETE",
    b"a;_method=DELETE",
]


@pytest.mark.parametrize("query", QUERIES)
async def test_no_parameter_makes_it_another_method(proxy: Proxy, query: bytes) -> None:
    """A query by which some servers would make a POST a DELETE is refused."""
    before = len(proxy.pleo.api_requests)
    for method in METHODS:
        line = b"%b /acme/v1/installations/me?%b HTTP/1.1\r\n" % (method, query)
        answer = await proxy.raw(line + b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert b"/problems/target-refused" in answer
    assert len(proxy.pleo.api_requests) == before


BLOCKED = b"/v1/installations/me"
SPELLINGS = [
    BLOCKED,
    b"/v1/installations/me/",
    b"/v1/installations/me//",
    b"/v1/Installations/ME",
    b"/V1/installations/me",
    b"/v1//installations/me",
    b"//v1/installations/me",
    b"//x/v1/installations/me",
    b"/v1/installations/me;a=b",
    b"/v1/installations;a=b/me",
    b"/v1;/installations;/me;",
    b"/v1/installations/m%65",
    b"/%76%31/%69nstallations/me",
    b"/v1/installations/%6d%65?a=b",
    b"/v1/installations/%4dE",
    b"/v1/in\xc5\xbftallations/me",
    b"/v1/in%C5%BFtallations/me",  # the long s
    b"/v1/%C4%B1nstallations/me",  # the dotless i
    b"/v1/%C4%B0nstallations/me",  # the I with a dot
    b"/v1/install%C3%A0tions/me",
    b"/v1/%EF%BD%89nstallations/m%EF%BD%85",  # wide letters
    b"/v1/x/%EF%BC%8E%EF%BC%8E/installations/me",
    b"/v1%EF%BC%8Finstallations%EF%BC%8Fme",
    b"/v1/installations/me.",
    b"/v1/installations/me..",
    b"/v1/installations./me",
    b"/v1%20/installations%20/me%20.%20",
    b"/v1/.../installations/me",
    b"/v1/installations/me;a.json",
    b"/v1/installations/me.tar.gz",
    b"//x.y/v1/installations/me.json",
    b"/v1/installations/me%20",
    b"/v1/installations/me%2e",
    b"/v1/installations/me.json",
    b"/v1/installations/me%00",
    b"/v1/installations/me%0a",
    b"/v1/installations/me#",
    b"/v1/installations/./me",
    b"/v1/x/../installations/me",
    b"/v1/installations/me/.",
    b"/v1/installations/me/x/..",
    b"/v1/installations%2fme",
    b"/v1/installations%5cme",
    b"/v1\\installations\\me",
    b"/v1/installations/%256de",
]


def plainest(target: str) -> str:
    """The path as a server would read it that forgives case, parameters, slashes, dots, spaces, formats."""
    path = unicodedata.normalize("NFKD", unquote(target.partition("?")[0]).upper())
    path = "".join(char for char in path if not unicodedata.combining(char)).lower()
    segments = [segment.partition(";")[0].partition(".")[0].strip() for segment in path.split("/")]
    return "/" + "/".join(segment for segment in segments if segment)


async def test_no_spelling_of_the_blocked_endpoint_gets_through(proxy: Proxy) -> None:
    """The call that would end the tenant's authorisation stays here however method and path are written."""
    proxy.pleo.switches.rate_limit_per_minute = None
    proxy.pleo.api_requests.clear()
    methods = (b"DELETE", b"delete", b"Delete", b"DELETE ")
    for method, prefix, spelt in product(methods, (b"/acme", b""), SPELLINGS):
        line = b"%b %b HTTP/1.1\r\n" % (method, prefix + spelt)
        lines = line + b"Host: 127.0.0.1\r\nX-Pleo-Tenant: acme\r\nConnection: close\r\n\r\n"
        assert (await proxy.raw(lines)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ")), (method, spelt)
    assert not proxy.pleo.api_requests
    assert plainest("/v1/%C4%B1nstallations/Me.json;x?y") == BLOCKED.decode()
    assert {plainest(spelt.decode("latin-1")) for spelt in SPELLINGS} >= {BLOCKED.decode()}
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200


@pytest.mark.parametrize("spelt", [b"POST", b"post", b"Post", b"PoST"])
@pytest.mark.parametrize(
    "path", [b"/v1/vendors", b"/v1/vendors/", b"/v1/vendors;:search", b"/v1/vendors%3asearch/x"]
)
async def test_a_reader_does_not_write(proxy: Proxy, spelt: bytes, path: bytes) -> None:
    """With the preset read-only, a call that would create something does not reach Pleo."""
    await proxy.add_tenant("acme", company=COMPANIES["acme"], policy=Policy(Preset.READ_ONLY))
    before = len(proxy.pleo.api_requests)
    line = b"%b /acme%b HTTP/1.1\r\n" % (spelt, path)
    answer = await proxy.raw(line + b"Host: 127.0.0.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
    assert answer[9:12] in (b"400", b"403"), answer
    assert len(proxy.pleo.api_requests) == before
