"""What the callers of a tenant may ask of Pleo: presets, rules of the operator's, blocked endpoints. Pure.

Judges method and decoded path in the most generous reading that a server could give them (letter case, path
parameters, repeated and trailing slashes, dots at ends aside), so that a spelling trick never passes what the
plain spelling would not. Which company a request names is :mod:`proxy.pin`'s; how many there are, and whether
a verdict is carried out or only reported, is :mod:`proxy.admission`'s.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from proxy import legacy
from proxy.errors import TenantError
from proxy.model import Policy, Preset, Unblocked
from proxy.recurring import Recurring

_PARAMETERS = re.compile(r";[^/]*")
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_MOST_HOSTS = 4
"""What looks like a host is taken off the beginning of a path so often, and again from what is left."""
_SLASHES = re.compile(r"/{2,}")
_AUTHORITY = re.compile(r"//[^/]*")
_RULE = re.compile(r"(?P<methods>\*|[A-Za-z]+(?:,[A-Za-z]+)*) (?P<path>/[!-~]*)")
_WILDCARD = re.compile(r"\*\*|\*")


@dataclass(frozen=True, slots=True)
class Rule:
    """Methods, and a pattern for the whole of a path in plain spelling."""

    methods: frozenset[str] | None
    """``None`` for any."""
    path: re.Pattern[str]

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is meant, its method in capitals and its path in plain spelling."""
        return (self.methods is None or method in self.methods) and bool(self.path.fullmatch(path))


def _rule(methods: str, path: str) -> Rule:
    named = None if methods == "*" else frozenset(methods.split())
    return Rule(named, re.compile(r"/v\d+(?:-[a-z0-9]+)?" + path))


_TRACE = Rule(frozenset({"TRACE", "TRACK"}), re.compile(r".*", re.DOTALL))
"""RFC 9110 section 9.3.8: TRACE comes back with all that was sent, and that includes the token."""
REVOKES = _rule("DELETE", r"/installations/me")
BLOCKED: tuple[tuple[Rule, Unblocked | None, str], ...] = (
    (_TRACE, None, "its answer would show the access token"),
    (
        REVOKES,
        Unblocked.INSTALLATION,
        "it would revoke every token of this tenant (DELETE /v1/installations/me)",
    ),
    (
        _rule("*", r"/subscriptions/[^/]+/secret"),
        Unblocked.SUBSCRIPTION_SECRET,
        "subscription secrets are not handed to callers",
    ),
)

_SEARCH = _rule("POST", r"/[^/]+:search")
_ANYTHING_READ = _rule("GET HEAD", r"(?:/.*)?")
_EXPORTS = (
    _rule("GET HEAD", r"/(?:introspect|companies|employees)(?:/.*)?"),
    _rule("GET HEAD POST PUT", r"/export-(?:jobs|items|job-events)(?:/.*)?"),
)
PRESETS: dict[Preset, tuple[Rule, ...]] = {
    Preset.READ_ONLY: (_ANYTHING_READ, _SEARCH),
    Preset.EXPORTS: _EXPORTS,
    Preset.ACCOUNTING: (
        _ANYTHING_READ,
        _SEARCH,
        *_EXPORTS,
        _rule("POST PUT DELETE", r"/(?:vendors|chart-of-accounts|tax-codes|tag-groups|tags)(?:[/:].*)?"),
        _rule("POST", r"/aggregations/tags"),
    ),
    Preset.FULL: (Rule(None, re.compile(r".*", re.DOTALL)),),
}
"""Derived from Pleo's endpoints and scopes; the first two presets cannot change accounting data."""


class Verdict(NamedTuple):
    """What a policy says of a method and path."""

    fault: str
    """What is wrong with them; empty if nothing is."""
    revokes: bool = False
    """If Pleo accepts the request, no token of the tenant holds any more."""
    rule: str = ""
    """Which rule has decided, in words."""
    is_legacy: bool = False
    """The path is one of Pleo's old API; the fault tells what it is today."""


class Rules:
    """The part of a policy that is about methods and paths; policies that agree in it share one."""

    __slots__ = ("_allowed", "_are_named", "_blocked", "_denied", "_place")

    def __init__(self, policy: Policy) -> None:
        self._blocked = [
            (rule, why) for rule, unless, why in BLOCKED if unless is None or unless not in policy.unblock
        ]
        self._denied = [(parse_rule(text), text) for text in policy.deny]
        preset = f"the preset {policy.preset.value!r}"
        self._place = "what the policy allows" if policy.allow else preset
        self._allowed = [(parse_rule(text), f"the rule {text!r}") for text in policy.allow] or [
            (rule, preset) for rule in PRESETS[policy.preset]
        ]
        self._are_named = bool(policy.allow)

    def verdict(self, method: str, decoded_path: str) -> Verdict:
        """Judge a request.

        :param decoded_path: the percent-decoded path that Pleo would get, without query.
        """
        asked = (self, method, decoded_path)
        return _recurring(asked) if len(decoded_path) <= _RECURRING_LENGTH else _judged(asked)

    def judge(self, method: str, decoded_path: str) -> Verdict:
        """As :meth:`verdict`, worked out anew."""
        judged = method.upper()  # methods are case-sensitive (RFC 9110 section 9.1); not every server knows
        readings = _readings(decoded_path)
        if not readings:
            return Verdict("spelt with more empty segments than can be read in one way")
        today = legacy.today(readings[0])
        decided = ""
        for path in readings:
            for rule, why in self._blocked:
                if rule.matches(judged, path):
                    return Verdict(f"blocked: {why}", rule="the list of blocked endpoints")
            for rule, text in self._denied:
                if rule.matches(judged, path):
                    return Verdict(f"denied by the rule {text!r}", rule=f"the rule {text!r}")
            allowing = next((text for rule, text in self._allowed if rule.matches(judged, path)), "")
            # An operator who names the path knows better than a list of what Pleo had once.
            if today and not (allowing and self._are_named):
                return _legacy(today)
            if not allowing:
                return Verdict(f"outside {self._place}", rule=self._place)
            decided = decided or allowing
        return Verdict("", any(REVOKES.matches(judged, path) for path in readings), decided)


def _legacy(today: str) -> Verdict:
    return Verdict(f"of Pleo's old API, {today}", rule="the paths of Pleo's old API", is_legacy=True)


_RECURRING_LENGTH = 256
"""Tools ask for the same few paths again and again; longer ones would make the memory of them large."""


def _judged(asked: tuple[Rules, str, str]) -> Verdict:
    rules, method, decoded_path = asked
    return rules.judge(method, decoded_path)


_recurring: Recurring[tuple[Rules, str, str], Verdict] = Recurring(lambda asked, _: _judged(asked), 4096)


def rules_of(policy: Policy) -> Rules:
    """The rules of a policy, made once for all policies that have the same."""
    return _rules(policy.preset, policy.allow, policy.deny, policy.unblock)


@lru_cache(maxsize=1024)
def _rules(
    preset: Preset, allow: tuple[str, ...], deny: tuple[str, ...], unblock: tuple[Unblocked, ...]
) -> Rules:
    return Rules(Policy(preset, allow, deny, unblock))


def parse_rule(text: str) -> Rule:
    """A rule of the operator's: ``METHODS PATH``.

    Methods are separated by commas, or ``*`` for any; ``GET`` means ``HEAD`` too. In the path ``*`` stands
    for anything within a segment and ``**`` for anything at all.

    :raises TenantError: it is none; the text shows an example.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise TenantError(f"rule {text!r} is not METHODS PATH; write for example 'GET,POST /v1/vendors/**'")
    path = match["path"]
    if "?" in path or "#" in path or "%" in path or ";" in path:
        raise TenantError(
            f"rule {text!r}: a path pattern is the decoded path alone; leave out query, '%' and ';'"
        )
    methods = frozenset(match["methods"].upper().split(","))
    if "GET" in methods:
        methods |= {"HEAD"}
    return Rule(None if "*" in methods else methods, re.compile(_pattern(path.casefold()), re.DOTALL))


def _pattern(path: str) -> str:
    plain = path.rstrip("/") or "/"
    pieces, at = [], 0
    for wildcard in _WILDCARD.finditer(plain):
        pieces += [re.escape(plain[at : wildcard.start()]), ".*" if wildcard[0] == "**" else "[^/]*"]
        at = wildcard.end()
    return "".join([*pieces, re.escape(plain[at:])])


def checked(policy: Policy, *, ceiling: int | None = None) -> Policy:
    """The policy in canonical form, without repetitions.

    :param ceiling: most requests a minute that Pleo takes.
    :raises TenantError: a rule, network or number that is none; the text names item, value and remedy.
    """
    for text in (*policy.allow, *policy.deny):
        parse_rule(text)
    for name in ("requests_per_minute", "concurrency", "body_bytes"):
        number = getattr(policy, name)
        if number is not None and number < 1:
            raise TenantError(f"policy: {name} {number} must be at least 1; leave it out for no number")
    rate = policy.requests_per_minute
    if ceiling is not None and rate is not None and rate > ceiling:
        raise TenantError(
            f"policy: requests_per_minute {rate} is more than the {ceiling} that Pleo takes; lower it"
        )
    return replace(
        policy,
        allow=_unique(policy.allow),
        deny=_unique(policy.deny),
        unblock=tuple(dict.fromkeys(policy.unblock)),
        callers=_unique(_network(text) for text in policy.callers),
    )


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError:
        raise TenantError(
            f"policy: callers {text!r} is not in CIDR notation with zero host bits, such as '10.1.0.0/16'"
        ) from None


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _readings(decoded_path: str) -> tuple[str, ...]:
    """The path in plain spelling, and in others that a server could read it in; none if there is no end.

    "//host/path" is a reference to another host (RFC 3986 section 4.2), and a server that resolves targets
    like references would route by what follows it.
    """
    path = _PARAMETERS.sub("", decoded_path).casefold()
    # One look for each, since that is ten times as fast as a pattern, and most paths are plain.
    odd = "//" in path or "." in path or " " in path or "?" in path or "#" in path or ";" in decoded_path
    if path.isascii() and not odd:
        return (path.rstrip("/") or "/",)
    spelt = [path]
    if ";" in decoded_path:
        spelt.append(decoded_path.casefold())  # not every server knows path parameters
    if not path.isascii():
        # Java takes a dotless i for an i where case does not count, and others fold widths and accents.
        letters = unicodedata.normalize("NFKD", decoded_path.upper()).encode("ascii", "ignore").decode()
        spelt.append(_PARAMETERS.sub("", letters).casefold())
    # A proxy on the way that decodes and sends on would make a query of what follows.
    spelt += [_QUERY.sub("", one) for one in spelt]
    if any("." in one or " " in one for one in spelt):
        # Windows cuts dots and spaces off the ends of names, Rails and older Springs what follows a dot.
        spelt += [_without_ends(one) for one in spelt] + [_without_format(one) for one in spelt]
    for _ in range(_MOST_HOSTS):
        less = {_AUTHORITY.sub("", one, count=1) for one in spelt if one.startswith("//")}.difference(spelt)
        if not less:
            return tuple(dict.fromkeys(_SLASHES.sub("/", one).rstrip("/") or "/" for one in spelt))
        spelt += sorted(less)
    return ()


def _without_ends(path: str) -> str:
    return "/".join(segment.rstrip(". ").lstrip(" ") for segment in path.split("/"))


def _without_format(path: str) -> str:
    before, slash, last = path.rpartition("/")
    return before + slash + last.partition(".")[0]
