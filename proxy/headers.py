"""What crosses the proxy in header fields, and what does not. Pure; names and values are bytes throughout.

The order of work is the security argument: the caller's fields are cleaned first, and the credential goes in
last, so that nothing a caller sends can remove, replace or accompany it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import lru_cache, wraps
from typing import Concatenate, ParamSpec, TypeVar

from proxy.errors import TargetRefused, UpstreamUnreachable
from proxy.model import Origin, Secret

Field = tuple[bytes, bytes]
Headers = list[Field]


class Fields:
    """A header section: its fields in their order, and their values by name.

    Two sections are equal only if they are one object, so that what follows from one can be looked up by it.
    """

    __slots__ = ("_by_name", "_fields", "recurs")

    def __init__(self, fields: Iterable[Field], *, recurs: bool = False) -> None:
        """``recurs``: the object also stands for the same section of other requests (:func:`remembered`)."""
        self.recurs = recurs
        self._fields = tuple(fields)
        self._by_name = by_name = {}  # type: dict[bytes, list[bytes]]
        for name, value in self._fields:
            lower = name.lower()
            if lower in by_name:
                by_name[lower].append(value.strip())
            else:
                by_name[lower] = [value.strip()]

    def values(self, name: bytes) -> list[bytes]:
        """All values of the field ``name`` (given in lower case), in order, freed of white space."""
        return self._by_name.get(name, _NONE)

    def __iter__(self) -> Iterator[Field]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


_NONE: list[bytes] = []

_Given = ParamSpec("_Given")
_Said = TypeVar("_Said")


def remembered(
    rule: Callable[Concatenate[Fields, _Given], _Said],
) -> Callable[Concatenate[Fields, _Given], _Said]:
    """Remember what a pure rule says of a section that recurs, for the same further arguments.

    A tool repeats its header section from request to request, and most of what is worked out for a request
    follows from it alone. A refusal is not remembered.
    """
    known = lru_cache(maxsize=512)(rule)

    @wraps(rule)
    def say(fields: Fields, /, *args: _Given.args, **named: _Given.kwargs) -> _Said:
        return known(fields, *args, **named) if fields.recurs else rule(fields, *args, **named)  # type: ignore[arg-type] # what is given is hashable

    return say


PSEUDONYM = b"pleo-proxy"
"""How the proxy names itself in ``Via`` (RFC 9110 section 7.6.3)."""
TENANT = b"x-pleo-tenant"
SHARED_KEY = b"x-pleo-proxy-key"
REQUEST_ID = b"x-request-id"

_HOP_BY_HOP = frozenset(
    {b"keep-alive", b"te", b"trailer", b"upgrade"},
)
"""RFC 9110 section 7.6.1; ``Connection`` is read first, and ``Proxy-*`` is matched by its prefix."""

_CALLERS_ONLY = frozenset(
    {
        b"authorization",  # a legacy key must never reach Pleo beside or instead of the injected token
        b"cookie",
        b"host",
        TENANT,
        SHARED_KEY,
        # Where a request came from inside is not told to Pleo.
        b"forwarded",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"true-client-ip",
        # Frameworks take these for the method, path or host that is meant, which the policy never judged.
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-override-url",
        b"x-http-path-override",
        b"x-http-host-override",
        b"x-host",
        b"x-proxy-url",
    },
)
_CALLERS_ONLY_PREFIXES = (
    b"x-forwarded-",
    # The same again: "X-Original-URL" and "X-Rewrite-URL" of IIS and Symfony, "x-envoy-original-path", and
    # what else such a server believes of the one before it.
    b"x-original-",
    b"x-rewrite-",
    b"x-envoy-",
)

_FOR_PAGES = frozenset(
    {b"set-cookie", b"set-cookie2", b"clear-site-data", b"service-worker-allowed", b"timing-allow-origin"},
)
_CORS_PREFIX = b"access-control-"
"""In answers these give a page access, or leave something in a browser, for Pleo's origin. Callers call the
proxy's origin, which has no pages and keeps nobody logged in."""


class _Kind(Enum):
    END_TO_END = 0
    HOP_BY_HOP = 1
    CALLERS_ONLY = 2
    CONNECTION = 3
    VIA = 4
    REFERENCE = 5
    EXPECT = 6
    CODING = 7
    FOR_PAGES = 8


_OF_THEIR_OWN = {
    b"connection": _Kind.CONNECTION,
    b"via": _Kind.VIA,
    b"location": _Kind.REFERENCE,
    b"link": _Kind.REFERENCE,
    b"content-location": _Kind.REFERENCE,
    b"expect": _Kind.EXPECT,
    b"transfer-encoding": _Kind.CODING,
}

_kinds: dict[bytes, _Kind] = {}
"""Cache by the exact bytes of a name: lower-casing each name of each request costs microseconds."""
_KINDS_MOST = 4096


def _kind(name: bytes) -> _Kind:
    known = _kinds.get(name)
    if known is None:
        known = _judge(name)
        if len(_kinds) < _KINDS_MOST:  # names come from callers, so the cache is bounded
            _kinds[name] = known
    return known


def _judge(name: bytes) -> _Kind:
    # CGI-like servers read "X_Pleo_Tenant" as "X-Pleo-Tenant", so both spellings are one name here.
    lower = name.lower().replace(b"_", b"-")
    if lower in _HOP_BY_HOP or lower.startswith(b"proxy-"):
        return _Kind.HOP_BY_HOP
    if lower in _CALLERS_ONLY or lower.startswith(_CALLERS_ONLY_PREFIXES):
        return _Kind.CALLERS_ONLY
    if lower in _FOR_PAGES or lower.startswith(_CORS_PREFIX):
        return _Kind.FOR_PAGES
    if lower == b"content-length" and b"_" in name:
        return _Kind.CALLERS_ONLY  # a second length beside the one that frames the body
    return _OF_THEIR_OWN.get(lower, _Kind.END_TO_END)


def for_upstream(
    fields: Iterable[Field], *, host: bytes, version: bytes, keep_expect: bool = False
) -> Headers:
    """The caller's fields as they may go to Pleo, with the upstream's ``Host`` and our ``Via``.

    Order, spelling and duplicates are kept. No ``Authorization`` is among them until :func:`inject`.

    :param version: HTTP version in which the caller's request came, such as ``b"1.1"``.
    :param keep_expect: see :func:`expects_continue`; an expectation that nobody waits for stays behind.
    """
    kept: Headers = [(b"Host", host)]  # first, as RFC 9110 section 7.2 asks
    named: set[bytes] = set()
    for field in fields:
        kind = _kinds.get(field[0]) or _kind(field[0])
        if kind is _Kind.END_TO_END or kind is _Kind.VIA or kind is _Kind.REFERENCE:
            kept.append(field)
        elif kind is _Kind.CONNECTION:
            named |= _connection_options(field[1])
        elif kind is _Kind.FOR_PAGES or (kind is _Kind.EXPECT and keep_expect):
            kept.append(field)
    if named:
        kept = _without(kept, named)
    kept.append((b"Via", version + b" " + PSEUDONYM))
    return kept


def lines(fields: Sequence[Field]) -> bytes:
    """Fields as they are sent, each line ended by CRLF (RFC 9112 section 5).

    :raises ValueError: a field holds a line break. The last line of defence: one more line than fields would
        be a field of a caller's own making.
    """
    composed = b"".join([b"%b: %b\r\n" % field for field in fields])
    if not composed.count(b"\r") == composed.count(b"\n") == len(fields):
        raise ValueError("a line break in a header field")
    return composed


@remembered
def upstream_lines(fields: Fields, host: bytes, version: bytes, keep_expect: bool, /) -> bytes:
    """What :func:`for_upstream` keeps, as it is sent."""
    return lines(for_upstream(fields, host=host, version=version, keep_expect=keep_expect))


def inject(cleaned: bytes, token: Secret) -> bytes:
    """Header lines with the credential, the last thing to happen to them (RFC 6750 section 2.1).

    :raises ValueError: the token holds what is none of its characters, and could be another line.
    """
    value = token.reveal()
    if not (value.isascii() and value.isprintable()):
        raise ValueError("an access token with a character that no token has")
    return b"%bAuthorization: Bearer %b\r\n" % (cleaned, value.encode())


def proxy_authorization(credentials: Secret) -> bytes:
    """``user:password`` as an HTTP proxy on the way takes it (RFC 9110 section 11.7.2, RFC 7617)."""
    return b"Basic " + b64encode(credentials.reveal().encode())


def for_caller(fields: Sequence[Field], *, upstream: Origin, base_url: str, request_id: str) -> Headers:
    """The fields of Pleo's answer as they go back: less hop-by-hop fields and what is meant for browsers,
    references pointed at the proxy.

    :param base_url: how the caller reaches this tenant, without a slash at the end.
    :raises UpstreamUnreachable: the body is in a coding that is not undone here.
    """
    kept: Headers = []
    named: set[bytes] = set()
    coded = False
    for field in fields:
        kind = _kinds.get(field[0]) or _kind(field[0])
        if kind is _Kind.END_TO_END:
            kept.append(field)
        elif kind is _Kind.CONNECTION:
            named |= _connection_options(field[1])
        elif kind is _Kind.REFERENCE:
            kept.append((field[0], _repoint(field[1], upstream, base_url.encode())))
        elif kind is _Kind.CODING:
            # RFC 9112 section 6.1: the body would go on coded, and nothing would say so any more. White space
            # counts, since the parser of answers knows the coding only without.
            if coded or field[1].lower() != b"chunked":
                raise UpstreamUnreachable(f"{upstream} sent its answer in an unknown transfer coding")
            coded = True
        elif kind is not _Kind.HOP_BY_HOP and kind is not _Kind.FOR_PAGES:
            kept.append(field)
    if named:
        kept = _without(kept, named)
    kept.append((b"X-Request-Id", request_id.encode()))
    return kept


_NOT_IN_TRAILERS = frozenset(
    {
        b"content-length",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"www-authenticate",
        b"authentication-info",
        b"age",
        b"cache-control",
        b"date",
        b"expires",
        b"pragma",
        b"retry-after",
        b"vary",
        b"warning",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        b"range",
        b"max-forwards",
        REQUEST_ID,
    },
)
"""Fields that change what a message means, and so must be known before its content (RFC 9110 section 6.5.1:
framing, routing, authentication, request modifiers, response controls, content format)."""


def trailers_that_pass(trailers: Sequence[Field], fields: Iterable[Field]) -> Headers:
    """The trailer fields of a message that go on, in either direction; ``fields`` are those of its head.

    What some recipients merge into the header section must not change there what the head has settled, so no
    credential, destination or framing is among them, however it is spelt.
    """
    if not trailers:
        return []
    settled = set(_NOT_IN_TRAILERS)
    for name, value in fields:
        if _kind(name) is _Kind.CONNECTION:
            settled |= _connection_options(value)
    return [
        (name, value)
        for name, value in trailers
        if _kind(name) is _Kind.END_TO_END and name.lower().replace(b"_", b"-") not in settled
    ]


def expects_continue(fields: Iterable[Field]) -> bool:
    """Whether the caller waits for ``100 Continue`` before it sends its body (RFC 9110 section 10.1.1)."""
    return [value.lower() for value in values(fields, b"expect")] == [b"100-continue"]


def passed_here_before(fields: Iterable[Field]) -> bool:
    """Whether a ``Via`` already names this proxy: the request came round in a loop."""
    return any(
        PSEUDONYM in (part.split()[1:2] or [b""])
        for value in values(fields, b"via")
        for part in value.split(b",")
    )


def values(fields: Iterable[Field], name: bytes) -> list[bytes]:
    """As :meth:`Fields.values`, of any section."""
    return (fields if isinstance(fields, Fields) else Fields(fields)).values(name)


def single(fields: Iterable[Field], name: bytes) -> str | None:
    """The value of a field that may be sent once at most.

    :raises TargetRefused: it is sent more than once.
    """
    found = values(fields, name)
    if len(found) > 1:
        raise TargetRefused(f"the header {name.decode().title()} is sent {len(found)} times; send it once")
    return found[0].decode("latin-1") if found else None


# Fields without which a message means something else; a Connection that names them changes nothing
# (RFC 9110 section 7.6.1: a sender must not list fields meant for all recipients).
_NEVER_NAMED = frozenset(
    {b"host", b"content-length", b"content-type", b"content-encoding", b"expect", b"via"},
)


@lru_cache(maxsize=256)
def _connection_options(value: bytes) -> frozenset[bytes]:
    """Names of fields that must go with their hop; those that never pass anyway need no second look."""
    options = {option.strip().lower() for option in value.split(b",")}
    return frozenset(options - _NEVER_NAMED - _HOP_BY_HOP - {b"close"})


def _without(headers: Headers, named: set[bytes]) -> Headers:
    return [field for field in headers if field[0].lower() not in named]


_BEFORE_PATH = re.compile(rb"\A[^:]+://[^/]*")


def _repoint(value: bytes, upstream: Origin, base_url: bytes) -> bytes:
    """``value`` with each reference to the upstream turned into one to the proxy.

    A path alone gets the tenant's prefix, without which it would lead past the tenant.
    """
    prefix = _BEFORE_PATH.sub(b"", base_url)
    return _references(upstream).sub(lambda found: base_url if found[0] else prefix, value)


@lru_cache(maxsize=4)
def _references(upstream: Origin) -> re.Pattern[bytes]:
    """Where a reference to ``upstream`` begins: its origin, or nothing before a path.

    Looked for at the start of a value, after "<" (RFC 8288) and in quotes: a URL of the upstream inside the
    query of another server's URL is that server's business. What follows the origin must end it, since
    "https://external.pleo.io.example" begins with it and is not of it.
    """
    port = b"" if upstream.authority.endswith(f":{upstream.port}") else rb"(?::%d)?" % upstream.port
    origin = rb"(?i:" + re.escape(str(upstream).encode()) + rb")" + port
    return re.compile(rb'(?:\A|(?<=[<"]))' + origin + rb'(?=[/?#>"]|\Z)|(?:\A|(?<=<))(?=/(?!/))')
