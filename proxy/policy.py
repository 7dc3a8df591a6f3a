"""What the callers of a tenant may ask of Pleo: presets and blocked endpoints. Pure.

Judges method and decoded path in the most generous reading that a server could give them (letter case, path
parameters, repeated and trailing slashes, dots at ends aside), so that a spelling trick never passes what the
plain spelling would not. Never judges bodies.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from proxy.errors import PolicyRefused
from proxy.model import Preset, Tenant
from proxy.recurring import Recurring

_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"/{2,}")
_AUTHORITY = re.compile(r"//[^/]*")
_READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class _Rule:
    methods: frozenset[str] | None
    """``None`` for any."""
    path: re.Pattern[str]

    def matches(self, method: str, path: str) -> bool:
        return (self.methods is None or method in self.methods) and bool(self.path.fullmatch(path))


def _rule(methods: str, path: str) -> _Rule:
    named = None if methods == "*" else frozenset(methods.split())
    return _Rule(named, re.compile(r"/v\d+(?:-[a-z0-9]+)?" + path))


BLOCKED: tuple[tuple[_Rule, str], ...] = (
    (
        # RFC 9110 section 9.3.8: TRACE comes back with all that was sent, and that includes the token.
        _Rule(frozenset({"TRACE", "TRACK"}), re.compile(r".*", re.DOTALL)),
        "its answer would show the access token",
    ),
    (
        _rule("DELETE", r"/installations/me"),
        "it would revoke every token of this tenant (DELETE /v1/installations/me)",
    ),
    (_rule("*", r"/subscriptions/[^/]+/secret"), "subscription secrets are not handed to callers"),
)

_SEARCH = _rule("POST", r"/[^/]+:search")
_ANYTHING_READ = _rule("GET HEAD", r"(?:/.*)?")
_EXPORTS = (
    _rule("GET HEAD", r"/(?:introspect|companies|employees)(?:/.*)?"),
    _rule("GET HEAD POST PUT", r"/export-(?:jobs|items|job-events)(?:/.*)?"),
)
PRESETS: dict[Preset, tuple[_Rule, ...]] = {
    Preset.READ_ONLY: (_ANYTHING_READ, _SEARCH),
    Preset.EXPORTS: _EXPORTS,
    Preset.ACCOUNTING: (
        _ANYTHING_READ,
        _SEARCH,
        *_EXPORTS,
        _rule("POST PUT DELETE", r"/(?:vendors|chart-of-accounts|tax-codes|tag-groups|tags)(?:[/:].*)?"),
        _rule("POST", r"/aggregations/tags"),
    ),
    Preset.FULL: (_Rule(None, re.compile(r".*", re.DOTALL)),),
}
"""Derived from Pleo's endpoints and scopes; the first two presets cannot change accounting data."""


def check(tenant: Tenant, method: str, decoded_path: str) -> None:
    """Let a request pass or refuse it.

    :param decoded_path: the percent-decoded path that Pleo would get, without query.
    :raises PolicyRefused: the endpoint is blocked, or the tenant's preset does not allow it.
    """
    asked = (tenant.preset, method, decoded_path)
    fault = _recurring(asked) if len(decoded_path) <= _RECURRING_LENGTH else _fault(asked)
    if fault:
        raise PolicyRefused(f"{method} {decoded_path} is {fault}", tenant=tenant.name)


_RECURRING_LENGTH = 256
"""Tools ask for the same few paths again and again; longer ones would make the memory of them large."""


def _fault(asked: tuple[Preset, str, str], _recurs: bool = False) -> str:
    """What is wrong with a preset's method and path; empty if nothing is."""
    preset, method, decoded_path = asked
    judged = method.upper()  # methods are case-sensitive (RFC 9110 section 9.1), and not every server knows
    for path in _readings(decoded_path):
        for rule, why in BLOCKED:
            if rule.matches(judged, path):
                return f"blocked: {why}"
        if not any(rule.matches(judged, path) for rule in PRESETS[preset]):
            return f"outside the preset {preset.value!r}"
    return ""


_recurring = Recurring(_fault, 4096)


def _readings(decoded_path: str) -> tuple[str, ...]:
    """The path in plain spelling, and in others that a server could read it in.

    "//host/path" is a reference to another host (RFC 3986 section 4.2), and a server that resolves targets
    like references would route by what follows it.
    """
    path = _PARAMETERS.sub("", decoded_path).casefold()
    if path.isascii() and "//" not in path and "." not in path and " " not in path:
        return (path.rstrip("/") or "/",)
    spelt = [path]
    if not path.isascii():
        # Java takes a dotless i for an i where case does not count, and others fold widths and accents.
        letters = unicodedata.normalize("NFKD", decoded_path.upper()).encode("ascii", "ignore").decode()
        spelt.append(_PARAMETERS.sub("", letters).casefold())
    if "." in path or " " in path:
        # Windows cuts dots and spaces off the ends of names, Rails and older Springs what follows a dot.
        spelt += [_without_ends(one) for one in spelt] + [_without_format(one) for one in spelt]
    if path.startswith("//"):
        spelt += [_AUTHORITY.sub("", one, count=1) for one in spelt]
    return tuple(dict.fromkeys(_SLASHES.sub("/", one).rstrip("/") or "/" for one in spelt))


def _without_ends(path: str) -> str:
    return "/".join(segment.rstrip(". ") for segment in path.split("/"))


def _without_format(path: str) -> str:
    before, slash, last = path.rpartition("/")
    return before + slash + last.partition(".")[0]
