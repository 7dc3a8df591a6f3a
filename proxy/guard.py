"""The door of the proxy listener, which has no passwords: what is refused before anyone asks for a tenant.

Pure. Keeps out requests whose end two servers could see in two places (smuggling), whose ``Host`` is not ours
(DNS rebinding), and that a web page sends.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from proxy import headers
from proxy.errors import BrowserRefused, HostRefused, TargetRefused
from proxy.headers import Field
from proxy.target import Target

_VERSIONS = frozenset({(1, 0), (1, 1)})
_LENGTH = re.compile(r"[0-9]{1,18}")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")


def check_framing(
    version: tuple[int, int], *, transfer_encoding: str | None, content_length: str | None, has_body: bool
) -> None:
    """Let through only what ends at the same byte for everyone (RFC 9112 sections 2.3, 6.1 and 6.3).

    The parser before this knows codings and lengths that are not understood here, and reads messages of other
    versions; what it saw must be all that there is.

    :param transfer_encoding: the field's value, ``None`` where there is none; as ``content_length``.
    :param has_body: whether the parser saw that a body follows.
    :raises TargetRefused: a framing that is ambiguous, or that only some servers would understand.
    """
    if version not in _VERSIONS:
        raise TargetRefused("the protocol version is neither HTTP/1.1 nor HTTP/1.0")
    if transfer_encoding is not None:
        if version == (1, 0):
            raise TargetRefused("HTTP/1.0 has no Transfer-Encoding; send Content-Length")
        if content_length is not None:
            raise TargetRefused("Transfer-Encoding and Content-Length are both sent; send one of them")
        if transfer_encoding.lower() != "chunked":
            raise TargetRefused("the Transfer-Encoding is not chunked alone")
    elif content_length is None:
        if has_body:  # what CONNECT is followed by
            raise TargetRefused("the method CONNECT is not served")
    elif not _LENGTH.fullmatch(content_length) or (int(content_length) > 0) != has_body:
        raise TargetRefused("the Content-Length is not a length that a body can have")


def authority_of(fields: Sequence[Field], target: Target, *, http_1_1: bool) -> str | None:
    """The host and port for which a request is meant (RFC 9112 sections 3.2 and 3.3).

    ``None`` for an HTTP/1.0 request without ``Host``, which that version allows.

    :raises TargetRefused: no ``Host`` in HTTP/1.1, several of them, or one that is malformed.
    """
    # A request with several Hosts is refused even where the target is absolute and would overrule them.
    host = headers.single(fields, b"host")
    if host is None and http_1_1:
        raise TargetRefused("the Host header is missing; HTTP/1.1 requires one")
    authority = target.authority if target.authority is not None else host
    if authority is not None and _host_of(authority) is None:
        raise TargetRefused("the Host header is not a host name or address with an optional port")
    return authority


def host_name(authority: str) -> str:
    """Host without port and brackets, in lower case, without a dot at its end."""
    host = _host_of(authority)
    assert host is not None, "authority_of has checked it"
    return host


def check_host(host: str, is_configured: Callable[[str], bool]) -> None:
    """Let only addresses, ``localhost`` and configured names through.

    A name that an attacker's DNS points at the proxy is none of these, so a page of theirs cannot become
    "same origin" with it.

    :raises HostRefused: any other name.
    """
    if host == "localhost" or is_configured(host) or _is_address(host):
        return
    raise HostRefused(f"Host {host[:253]!r} is neither an address, nor localhost, nor a configured name")


def check_browser(fields: Sequence[Field], authority: str | None) -> None:
    """Refuse what a browser sends on behalf of a page of another site (Fetch Metadata, Origin).

    :raises BrowserRefused: ``Sec-Fetch-Site`` or ``Origin`` tell of another site.
    """
    for value in headers.values(fields, b"sec-fetch-site"):
        if value not in (b"none", b"same-origin"):
            raise BrowserRefused("Sec-Fetch-Site says that a page of another site sent this request")
    own = (authority or "").encode("latin-1")
    for value in headers.values(fields, b"origin"):
        if value not in (b"http://" + own, b"https://" + own):
            raise BrowserRefused("Origin says that a page of another site sent this request")


# Callers send few different hosts, and each in every request.
@lru_cache(maxsize=1024)
def _host_of(authority: str) -> str | None:
    match = _AUTHORITY.fullmatch(authority)
    return None if match is None else match[1].strip("[]").lower().rstrip(".")


@lru_cache(maxsize=1024)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
