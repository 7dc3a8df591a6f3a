"""No request that target and policy let through is to any server, however lenient, one of a blocked endpoint.

The lenient server here is written without a look at the proxy's rules: it reads a target in all the ways that
Java, nginx, Express, IIS, Rails and proxies that decode and forward are known to read one, one after another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy import policy
from proxy.errors import TargetRefused, TargetTooLong
from proxy.model import Policy, Preset
from proxy.target import parse

METHODS = ("DELETE", "GET", "POST", "TRACE", "delete", "Delete")
FULL = Policy(Preset.FULL)
READ_ONLY = Policy(Preset.READ_ONLY)
MOST_READINGS = 400

SEEDS = [
    bytes([number]) + path
    for number in range(len(METHODS))
    for path in (
        b"/v1/installations/me",
        b"/v1/Installations//me/;x=y?z",
        b"/v1/x/..;/installations/%2e%2e/me.json",
        b"//h/v1-beta/subscriptions/1/secret",
        b"/v2\\installations%5cme%20.",
        b"http://h/v1/%69nstallations/%EF%BD%8De#",
        b"/v1/vendors?_method=DELETE",
    )
]


# --- the lenient server


def dots_resolved(path: str) -> str:
    """RFC 3986 section 5.2.4, roughly."""
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept[-1:] = []
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def each_segment(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda path: "/".join(map(change, path.split("/")))


def last_segment(change: Callable[[str], str]) -> Callable[[str], str]:
    def changed(path: str) -> str:
        before, slash, last = path.rpartition("/")
        return before + slash + change(last)

    return changed


def plain_letters(path: str) -> str:
    folded = unicodedata.normalize("NFKD", path.upper())
    return "".join(char for char in folded if not unicodedata.combining(char)).lower()


READERS: dict[str, Callable[[str], str]] = {
    "decodes": lambda path: unquote(path, errors="replace"),
    "decodes %u": lambda path: re.sub("%u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), path),
    "does not mind case": str.casefold,
    "folds letters": plain_letters,
    "takes a backslash for a slash": lambda path: path.replace("\\", "/"),
    "merges slashes": lambda path: re.sub("/+", "/", path),
    "resolves dots": dots_resolved,
    "drops path parameters": each_segment(lambda segment: segment.partition(";")[0]),
    "trims segments": each_segment(lambda segment: segment.rstrip(". ").strip()),
    "drops a format": last_segment(lambda segment: segment.partition(".")[0] or segment),
    "ends at a query": lambda path: path.partition("?")[0],
    "ends at a fragment": lambda path: path.partition("#")[0],
    "ends at NUL": lambda path: path.partition("\0")[0],
    "drops control characters": lambda path: re.sub(r"[\x00-\x1f\x7f]", "", path),
    "drops a slash at the end": lambda path: path.rstrip("/") or "/",
    "takes two slashes for a host": lambda path: re.sub("^(?:[a-z]+:)?//[^/]*", "", path),
}


def readings(path: str) -> set[str]:
    """The path as it is, and all that the readers make of it one after the other."""
    found, new = {path}, [path]
    while new and len(found) < MOST_READINGS:
        one = new.pop()
        for read in READERS.values():
            other = read(one)
            if other not in found:
                found.add(other)
                new.append(other)
    return found


ENDS_THE_GRANT = re.compile(r"/v\d+(-[a-z0-9]+)?/installations/me")
SECRET = re.compile(r"/v\d+(-[a-z0-9]+)?/subscriptions/[^/]+/secret")
WRITES = {"PUT", "DELETE", "PATCH"}


def crimes(method: str, target: str) -> Iterator[str]:
    """What a lenient server would do on a request that nobody may make."""
    if method.upper() in {"TRACE", "TRACK"}:
        yield "shows the token"
    # Where the query begins everybody agrees on, as long as nothing was decoded.
    for reading in readings(target.partition("?")[0]):
        if method.upper() == "DELETE" and ENDS_THE_GRANT.fullmatch(reading):
            yield f"ends the grant, read as {reading!r}"
        if SECRET.fullmatch(reading):
            yield f"shows a subscription's secret, read as {reading!r}"


# --- the oracle


def let_through(rules: Policy, method: str, raw: bytes) -> bytes | None:
    """The target that would be sent to Pleo, if any is."""
    try:
        target = parse(raw, 8192)
    except (TargetRefused, TargetTooLong):
        return None
    return None if policy.rules_of(rules).verdict(method, target.decoded).fault else target.raw


def judge(method: str, raw: bytes) -> None:
    """Hold the oracle to one request."""
    sent = let_through(FULL, method, raw)
    if sent is not None:
        found = list(crimes(method, sent.decode("latin-1")))
        assert not found, f"{method} {raw!r} is let through and {found[0]}"
    if method.upper() in WRITES:
        assert let_through(READ_ONLY, method, raw) is None, (
            f"{method} {raw!r} writes where only reading is allowed"
        )


def check(data: bytes) -> None:
    """The first byte chooses the method, the rest is the target."""
    judge(METHODS[data[0] % len(METHODS)] if data else "GET", data[1:])


PIECES = (
    b"/ // . .. ; ? # % \\ : @ = & v1 v2-beta x installations Installations me ME subscriptions 1 secret"
    b" %2e %2f %5c %25 %00 %20 %3b %3f %23 %0a %09 %c0%ae %ef%bc%8e %ef%bd%8de %c4%b1 %u002e %6d%65 .json"
    b" ..;/ %2e%2e ;a=b installat%69ons http://h //h _method=DELETE"
).split()
BLOCKED = st.sampled_from([b"/v1/installations/me", b"/v1-beta/subscriptions/1/secret"])


@st.composite
def disguises(draw: st.DrawFn) -> bytes:
    """A blocked endpoint with pieces put in, or letters encoded."""
    path = draw(BLOCKED)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(path)))
        if draw(st.booleans()) or at == len(path):
            path = path[:at] + draw(st.sampled_from(PIECES)) + path[at:]
        else:
            path = path[:at] + b"%%%02x" % path[at] + path[at + 1 :]
    return path


@settings(max_examples=400)
@given(
    st.sampled_from(METHODS),
    disguises() | st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join) | st.binary(max_size=40),
)
@example("DELETE", b"/v1/installations/me%3Fx")
@example("DELETE", b"/v1/installations/me%23x")
@example("DELETE", b"/v1/installations/me.json")
@example("DELETE", b"/%20v1/installations/me")
@example("DELETE", b"/v1/%20installations%20/%20me")
@example("DELETE", b"/v1/installations/me%C2%A0")
@example("DELETE", b"/%E3%80%80v1/installations/me")
@example("GET", b"/v1/subscriptions/;/secret")
@example("GET", b"//h/v1-bea/subscriptions/;/secret")
@example("GET", b"/;///h/v1/subscriptions/1/secret")
@example("GET", b"//h//v1/v1/subscriptions/1/secret")
@example("GET", b"//h" * 12 + b"/v1/subscriptions/1/secret")
@example("GET", b"/v1/subscriptions/a.b/secret.xml;x")
def test_no_disguise_gets_through(method: str, raw: bytes) -> None:
    """Whatever a blocked endpoint is dressed up as, it is refused, and a reader's writing is."""
    judge(method, raw)


def test_the_lenient_server_is_lenient() -> None:
    """It sees the endpoint in each disguise that is known, so that the oracle can fail."""
    for disguise in (
        "/v1/installations/me", "/V1/Installations/ME/", "//h/v1//installations/me", "/v1\\installations\\me",
        "/v1/x/..;/installations/me", "/v1/x/%2e%2e/installations/me", "/v1/x/%252e%252e/installations/me",
        "/v1/installations/me.json", "/v1/installations/me%20.", "/v1/installations/me;x?y",
        "/v1/%C4%B1nstallations/me", "/v1/%EF%BD%89nstallations/me", "/v1/installations/%u006de",
        "/v1/installations/me%00", "/v1/installations/me%23x",
    ):  # fmt: skip
        assert list(crimes("DELETE", disguise)), disguise
    assert not list(crimes("DELETE", "/v1/installations/you"))
    assert not list(crimes("GET", "/v1/installations/me"))
