"""What would become of a request: every step of the main path but the sending, asked of the same functions.

Follows :meth:`proxy.exchange.Exchange._answer` step by step up to the token, so that it cannot say anything
else; ``tests/test_explain.py`` holds the two to each other. Calls nobody, changes nothing and counts nothing:
rates and how many are under way are left out. Never shows what a header of the caller's holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import orjson

from proxy import forwarded, framing, guard, headers, heads, listing, policy, problems, target
from proxy.admission import Admission, Allowances
from proxy.arrival import Arrival
from proxy.errors import QuestionError, Refusal
from proxy.heads import Head
from proxy.model import Grant, Origin, Policy
from proxy.rates import Rates
from proxy.tenants import Directory, Resolved

_ANY_ADDRESS = "127.0.0.1"
_NO_BODY = framing.Framing(0, persists=False, expects_continue=False)


@dataclass(frozen=True, slots=True)
class Question:
    """A request that nobody has sent, and where it would come from."""

    path: str
    """The request target, as the caller would write it."""
    method: str = "GET"
    caller: str = _ANY_ADDRESS
    """The address at the other end of the connection."""
    host: str | None = None
    """``Host``; an address of the proxy's where neither this nor a header names one."""
    headers: tuple[str, ...] = ()
    """Further header lines as ``Name: value``."""
    listener: str | None = None
    """The entry of ``listen.proxy`` at which it comes in, ``HOST:PORT``; the first where it is not said."""
    certificates: tuple[str, ...] = ()
    """Names of the certificate that the caller shows."""

    def lines(self) -> bytes:
        """Its head as it would come in, without the empty line.

        :raises QuestionError: a header that no line can hold.
        """
        found = [f"Host: {self.host}"] if self.host is not None else []
        found += self.headers
        if not any(line.partition(":")[0].lower() == "host" for line in found):
            found.insert(0, f"Host: {_ANY_ADDRESS}")
        for number, line in enumerate(found, 1):
            # By its number: what is typed in the wrong place may be a secret.
            if "\r" in line or "\n" in line or ":" not in line or any(char > "\xff" for char in line):
                raise QuestionError(f"header {number} is not 'Name: value' on one line; correct it")
        begin = f"{self.method} {self.path} HTTP/1.1\r\n".encode()
        if begin.count(b"\n") > 1:
            raise QuestionError("method and path must be on one line; remove the line break")
        return begin + "".join(f"{line}\r\n" for line in found).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a head may have (the ``[limits]`` settings)."""

    target_bytes: int
    head_bytes: int
    headers: int


@dataclass(slots=True)
class _Course:
    """How far a request has come, and what was found on the way."""

    caller: str
    head: Head = heads.UNREADABLE
    body: framing.Framing = _NO_BODY
    path: str = ""
    host: str = ""
    routes: Sequence[tuple[str, str]] = ()
    """Each route that claims it, with the tenant."""
    tenant: str | None = None
    resolved: Resolved | None = None
    enforced: dict[str, Any] | None = None
    trial: dict[str, Any] | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Explainer:
    """Answers questions about one state of the world."""

    bounds: Bounds
    allowances: Allowances
    origin: Origin
    public_url: str
    directory: Directory
    grants: Mapping[str, Grant]
    is_configured_host: Callable[[str], bool]
    arrive: Callable[[Question], Arrival]
    """How the request comes in; raises a :class:`QuestionError` where nothing could come in so."""
    check_token: Callable[[str], object]
    """Raises a :class:`Refusal` where a tenant has no token to use."""

    def explain(self, question: Question) -> dict[str, Any]:
        """What would become of the request, as plain data.

        :raises QuestionError: the question is none.
        """
        raw, arrival = question.lines(), self.arrive(question)
        course = _Course(arrival.caller)
        try:
            self._follow(raw, arrival, course)
        except Refusal as refusal:
            course.refusal = refusal
            course.tenant = refusal.tenant or course.tenant
            course.path = course.path or target.loggable_path(question.path.encode())
        return self._told(course)

    def _follow(self, raw: bytes, arrival: Arrival, course: _Course) -> None:
        # Accept.
        bounds = self.bounds
        head = course.head = heads.read(raw, head_bytes=bounds.head_bytes, most_fields=bounds.headers)
        course.body = framing.of(head.fields, head.http_1_1)
        wanted = target.parse(head.target, bounds.target_bytes)
        course.path = wanted.shown
        arrival = forwarded.behind(arrival, head.fields)
        course.caller = arrival.caller
        if arrival.authority is not None:
            sent_to = guard.admit(head.fields, wanted.authority, head.http_1_1).host
            guard.check_host(sent_to, self.is_configured_host)

        # Guard.
        host = guard.admit(head.fields, arrival.authority or wanted.authority, head.http_1_1).host
        course.host = host
        guard.check_host(host, self.is_configured_host)
        if head.method == "OPTIONS":
            head = course.head = head._replace(fields=guard.one_hop_less(head.fields))

        # Resolve the tenant, then ask its policies, then whether there is a token.
        claims = self.directory.claims(wanted, head.fields, host, arrival)
        course.routes = [(how, claimed.name) for how, claimed in claims]
        course.resolved = self.directory.resolve(wanted, head.fields, host, arrival)
        tenant = course.resolved.tenant
        course.tenant = tenant.name
        course.routes = course.routes or [("listen.default_tenant", tenant.name)]
        if tenant.trial is not None:
            course.trial = _opinion(tenant.trial, course, self._refusal_by(tenant.trial, course))
        refusal = self._refusal_by(tenant.policy, course)
        course.enforced = _opinion(tenant.policy, course, refusal)
        if refusal is not None:
            raise refusal
        self.check_token(tenant.name)

    def _refusal_by(self, held: Policy, course: _Course) -> Refusal | None:
        """What a policy refuses the request with, whatever else comes in or is under way."""
        assert course.resolved is not None
        tenant = replace(course.resolved.tenant, policy=held, trial=None)
        # With counts of its own, of which it is the first.
        with closing(Rates()) as rates:
            admission = Admission(self.allowances, rates, lambda _fact: None, lambda: 0.0)
            try:
                admitted = admission.admit(
                    tenant, "", course.head.method, course.resolved.target, course.caller
                )
                if length := course.body.length:
                    announced = None if length == framing.CHUNKED else length
                    admitted.check_announced(course.head.fields, announced)
            except Refusal as refusal:
                return refusal
        return None

    def _told(self, course: _Course) -> dict[str, Any]:
        tenant = self.directory.tenants.get(course.tenant or "")
        return {
            "forwarded": course.refusal is None,
            "method": course.head.method,
            "path": course.path,
            "host": course.host or None,
            "caller": course.caller,
            "tenant": course.tenant,
            "routes": [{"route": how, "tenant": name} for how, name in course.routes],
            "policy": course.enforced,
            "trial": course.trial,
            "grant": None if tenant is None else listing.grants([tenant], self.grants)[0],
            "sends": None if course.refusal is not None else self._sends(course),
            "refusal": None if course.refusal is None else self._problem(course.refusal),
            "not_asked": [] if course.refusal is not None else _not_asked(course),
        }

    def _sends(self, course: _Course) -> dict[str, Any]:
        """What goes up and how it differs from what came in; of what is the caller's, names alone."""
        assert course.resolved is not None
        kept = headers.for_upstream(
            course.head.fields,
            host=self.origin.authority.encode(),
            version=b"1.1" if course.head.http_1_1 else b"1.0",
            keep_expect=course.body.expects_continue,
        )
        came, goes = Counter(course.head.fields), Counter(kept)
        return {
            "to": str(self.origin),
            "path": course.resolved.target.shown,
            "removed_prefix": course.resolved.prefix or None,
            "passed_on": [_text(name) for name, _ in (goes & came).elements()],
            "stripped": [_text(name) for name, _ in (came - goes).elements()],
            "added": [
                *(f"{_text(name)}: {_text(value)}" for name, value in (goes - came).elements()),
                "Authorization: Bearer, with the access token of the tenant",
            ],
        }

    def _problem(self, refusal: Refusal) -> dict[str, Any]:
        shown: dict[str, Any] = orjson.loads(
            problems.document(refusal, public_url=self.public_url, request_id="")
        )
        del shown["request_id"]
        return {"name": refusal.name, **shown}


def _opinion(held: Policy, course: _Course, refusal: Refusal | None) -> dict[str, Any]:
    """What a policy says, with the rule that decides."""
    assert course.resolved is not None
    verdict = policy.rules_of(held).verdict(course.head.method, course.resolved.target.decoded)
    by_path = refusal is None or (verdict.fault != "" and refusal.detail.endswith(verdict.fault))
    return {
        "verdict": "allowed" if refusal is None else "refused",
        # Else a caller's network, a company or a length decides, which the detail names.
        "rule": (verdict.rule or None) if by_path else None,
        "detail": None if refusal is None else refusal.detail,
    }


def _not_asked(course: _Course) -> list[str]:
    """What could refuse the request all the same."""
    found = ["how many requests come in a minute or are under way", "Pleo"]
    if course.body.length:
        found.insert(0, "what the body holds (its length, and whether it names another company)")
    return found


def _text(field: bytes) -> str:
    return field.decode("latin-1")
