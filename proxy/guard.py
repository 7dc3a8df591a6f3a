"""The door of the proxy listener, which has no passwords: what is refused before anyone asks for a tenant.

Pure. Keeps out requests whose ``Host`` is not ours (DNS rebinding), that a browser sends for a web page, or
that were here before. ``tests/browser`` shows with a real browser what it sends, and that nothing gets in.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from proxy import headers
from proxy.errors import BrowserRefused, HostRefused, LoopDetected, PolicyRefused, TargetRefused
from proxy.headers import Field, Fields, remembered

_FORWARDINGS = re.compile(r"[0-9]{1,9}")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")


class Admitted(NamedTuple):
    """For whom a request is meant, as far as its head says."""

    authority: str | None
    """Host and port as the caller wrote them; ``None`` where HTTP/1.0 left them out."""
    host: str
    """Host without port and brackets, in lower case; empty where there is none."""


@remembered
def admit(fields: Fields, absolute: str | None, http_1_1: bool, /) -> Admitted:
    """Let through what is for one host, not from a web page, and not from ourselves.

    :param absolute: the authority of an absolute-form target.
    :raises TargetRefused: as :func:`authority_of`.
    :raises BrowserRefused: as :func:`check_browser`.
    :raises LoopDetected: ``Via`` already names this proxy.
    """
    authority = authority_of(fields, absolute, http_1_1=http_1_1)
    check_browser(fields, authority)
    if headers.passed_here_before(fields):
        raise LoopDetected("Via already names this proxy")
    return Admitted(authority, "" if authority is None else host_of(authority) or "")


def authority_of(fields: Iterable[Field], absolute: str | None, *, http_1_1: bool) -> str | None:
    """The host and port for which a request is meant (RFC 9112 sections 3.2 and 3.3).

    ``None`` for an HTTP/1.0 request without ``Host``, which that version allows.

    :raises TargetRefused: no ``Host`` in HTTP/1.1, several of them, or one that is malformed.
    """
    # A request with several Hosts is refused even where the target is absolute and would overrule them.
    host = headers.single(fields, b"host")
    if host is None and http_1_1:
        raise TargetRefused("the Host header is missing; HTTP/1.1 requires one")
    for named in (host, absolute):  # nor is a malformed one passed over then (RFC 9112 section 3.2)
        if named is not None and host_of(named) is None:
            raise TargetRefused("the Host header is not a host name or address with an optional port")
    return absolute if absolute is not None else host


def check_host(host: str, is_configured: Callable[[str], bool]) -> None:
    """Let only addresses, ``localhost`` and configured names through.

    A name that an attacker's DNS points at the proxy is none of these, so a page of theirs cannot become
    "same origin" with it.

    :param host: as :func:`admit` found it; empty where HTTP/1.0 left it out, which no browser does.
    :raises HostRefused: any other name.
    """
    if not host or _is_address(host) or host == "localhost" or is_configured(host):
        return
    raise HostRefused(f"Host {host[:253]!r} is neither an address, nor localhost, nor a configured name")


def check_browser(fields: Fields, authority: str | None) -> None:
    """Refuse what a browser sends on behalf of a page.

    The proxy serves no pages, so no page is its own. What remains is the address that a person types, which a
    browser marks with ``Sec-Fetch-Site: none`` (Fetch Metadata section 2.3). It marks nothing on its way to a
    plain http address other than loopback, and there it is known by itself (:func:`_is_unmarked_browser`).

    :raises BrowserRefused: a page sent this, or a browser that does not say for whom.
    """
    site = fields.values(b"sec-fetch-site")
    if site and site != [b"none"]:
        raise BrowserRefused("Sec-Fetch-Site says that a page sent this request")
    for value in fields.values(b"origin"):
        if not _is_at(authority, value):
            raise BrowserRefused("Origin says that a page of another site sent this request")
    for value in fields.values(b"referer"):
        if _WEB.match(value) and not _is_at(authority, value):
            raise BrowserRefused("Referer says that a page of another site sent this request")
    for name in _OF_PAGES:
        if fields.values(name):
            raise BrowserRefused("the request has a header that browsers send for pages only")
    if not site and not fields.values(headers.TENANT) and _is_unmarked_browser(fields):
        raise BrowserRefused("the request looks like a browser's, and does not say whether a page sent it")


_WEB = re.compile(rb"https?://", re.IGNORECASE)
_OF_PAGES = (
    b"access-control-request-method",  # a preflight, which is never granted
    b"service-worker",
    b"ping-to",
)
_ENGINE = re.compile(rb"Mozilla/5\.0 \(.*(?:AppleWebKit|Gecko)/")
_INTERNET_EXPLORER = re.compile(rb"MSIE |Trident/")
_TO_BE_SHOWN = re.compile(rb"text/html|image/")


def _is_unmarked_browser(fields: Fields) -> bool:
    """Whether a request without Fetch Metadata is a browser's: its engine's name, and a person's languages.

    A page can change neither: ``User-Agent`` is beyond a request that needs no preflight, and an emptied
    ``Accept-Language`` is still sent. Programs have the one or the other. Those that use Internet Explorer's
    network library (VBA, Office) have both, but do not ask for what is to be shown.

    A program that has all of it is let in with ``X-Pleo-Tenant``, for which a page needs a preflight.
    """
    if not fields.values(b"accept-language"):
        return False
    agent = b" ".join(fields.values(b"user-agent"))
    if _ENGINE.match(agent):
        return True
    if _INTERNET_EXPLORER.search(agent) is None or b"office" in agent.lower():
        return False
    return any(_TO_BE_SHOWN.search(value) for value in fields.values(b"accept"))


def _is_at(authority: str | None, url: bytes) -> bool:
    """Whether ``url`` is of the origin at ``authority``. TLS may have ended in front of the proxy."""
    scheme, _, rest = url.partition(b"://")
    own = rest.partition(b"/")[0].decode("latin-1")
    return scheme in (b"http", b"https") and own == authority


def one_hop_less(fields: Fields) -> Fields:
    """The fields of an OPTIONS request with one less in ``Max-Forwards`` (RFC 9110 section 7.6.2).

    :raises TargetRefused: several of them, or one that is no number.
    :raises PolicyRefused: none was left, so that the question is for the proxy and goes no further.
    """
    left = headers.single(fields, b"max-forwards")
    if left is None:
        return fields
    if not _FORWARDINGS.fullmatch(left):
        raise TargetRefused("the Max-Forwards header is not a number")
    if not int(left):
        raise PolicyRefused("OPTIONS with Max-Forwards: 0 asks the proxy itself, which has none to tell")
    fewer = b"%d" % (int(left) - 1)
    return Fields((name, fewer if name.lower() == b"max-forwards" else value) for name, value in fields)


@lru_cache(maxsize=1024)
def host_of(authority: str) -> str | None:
    """The host of an authority, without port and brackets, in lower case; ``None`` where it is malformed."""
    match = _AUTHORITY.fullmatch(authority)
    # Only dots are no name, and must not pass for a Host that is not there.
    return None if match is None else match[1].strip("[]").lower().rstrip(".") or None


@lru_cache(maxsize=1024)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
