"""For which host a request is meant, and whether a page of another site made the browser send it.

The two middlewares here stand before every handler, so that none can forget to ask. What a page of another
site may do is open our pages; it may change nothing, log nobody in or out, and get nothing of the API.
"""

from __future__ import annotations

from enum import Enum

from aiohttp import HttpVersion11, web

from proxy import guard, headers
from proxy.admin.answers import Handler, problem
from proxy.admin.services import SERVICES, Services
from proxy.config.values import origin_of
from proxy.errors import HostRefused, TargetRefused

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 section 9.2.1)."""


class Site(Enum):
    """Who made the sender send a request."""

    OWN = "own"
    """A page of ours."""
    FOREIGN = "foreign"
    """A page of another site."""
    UNTOLD = "untold"
    """No page: a program, or a person who typed an address."""


@web.middleware
async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse names that are not ours: an attacker's, which their DNS points here (DNS rebinding)."""
    services = request.app[SERVICES]
    try:
        authority = guard.authority_of(request.raw_headers, None, http_1_1=request.version >= HttpVersion11)
        if authority is not None:
            guard.check_host(guard.host_of(authority) or "", lambda host: _is_ours(services, host))
    except TargetRefused:
        return problem(400, "Bad Request", "Send one Host header with a host and an optional port.")
    except HostRefused:
        detail = f"Ask for {services.public_url}, an IP address, localhost, or a name of listen.hosts."
        return problem(421, "Misdirected Request", detail)
    return await handler(request)


@web.middleware
async def check_site(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a page of another site sent, unless it only opens one of our pages."""
    opens_page = request.method in SAFE and not request.path.startswith("/api/")
    if not opens_page and site_of(request) is Site.FOREIGN:
        detail = f"A page of another site sent this request. Open {request.app[SERVICES].public_url} instead."
        return problem(403, "Forbidden", detail)
    return await handler(request)


def site_of(request: web.Request) -> Site:
    """Who made the sender send this request (Fetch Metadata section 2.3, RFC 6454 section 7)."""
    fetched = headers.values(request.raw_headers, b"sec-fetch-site")
    origins = headers.values(request.raw_headers, b"origin")
    if any(value not in (b"same-origin", b"none") for value in fetched):
        return Site.FOREIGN
    is_own_page = b"same-origin" in fetched
    own = _own_origins(request)
    # Under "Referrer-Policy: no-referrer" browsers send "Origin: null" with our own forms, too.
    if any(value not in own and not (is_own_page and value == b"null") for value in origins):
        return Site.FOREIGN
    return Site.OWN if is_own_page or (origins and not fetched) else Site.UNTOLD


def _own_origins(request: web.Request) -> frozenset[bytes]:
    own = str(origin_of(request.app[SERVICES].public_url)).encode("latin-1")
    # The Host was found to be ours; a TLS terminator may have put an address in its place.
    hosts = headers.values(request.raw_headers, b"host")
    return frozenset({own, *(scheme + host for scheme in (b"http://", b"https://") for host in hosts)})


def _is_ours(services: Services, host: str) -> bool:
    return host == origin_of(services.public_url).host.lower() or host in services.hosts
