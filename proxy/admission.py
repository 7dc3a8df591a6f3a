"""Whether a request is let in now: a tenant's policy, its rate, and how many of its requests are under way.

Holds what is counted for each tenant that is called, and nothing on the way to Pleo. A policy on trial is
asked the same as the one in force: what it would refuse is reported, and passes. Never waits: who is over a
limit is refused at once, so that one tenant at its limit takes nothing from another.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from proxy import pin, policy
from proxy.arrival import Networks, address_of
from proxy.errors import BodyTooLarge, LegacyPathRefused, PolicyRefused, RateLimited, Refusal
from proxy.facts import Emit, PolicyWouldRefuse
from proxy.headers import Fields
from proxy.model import Clock, Policy, Tenant
from proxy.rates import Rate, Rates
from proxy.target import Target

Kind = Literal["caller", "endpoint", "legacy", "company", "rate", "concurrency", "body"]
"""Which part of a policy refuses."""


@dataclass(frozen=True, slots=True)
class Allowances:
    """What the settings say for tenants whose policy says nothing."""

    requests_per_minute: int | None
    ceiling: int | None
    """Requests a minute that Pleo takes, if that is known."""
    concurrency: int
    body_bytes: int
    """Most for any tenant."""


class Fault(NamedTuple):
    """Why a policy refuses."""

    kind: Kind
    detail: str
    retry_after_s: int | None = None

    def refusal(self, tenant: str) -> Refusal:
        """The answer to the caller."""
        match self.kind:
            case "rate" | "concurrency":
                return RateLimited(self.detail, tenant=tenant, retry_after_s=self.retry_after_s)
            case "body":
                return BodyTooLarge(self.detail, tenant=tenant)
            case "legacy":
                return LegacyPathRefused(self.detail, tenant=tenant)
            case "caller" | "endpoint" | "company":
                return PolicyRefused(self.detail, tenant=tenant)


class _Judge:
    """One policy of one tenant, made ready."""

    __slots__ = ("_bucket", "_networks", "body_bytes", "company", "concurrency", "rules")

    def __init__(
        self, tenant: Tenant, held: Policy, allowances: Allowances, rates: Rates, bucket: str
    ) -> None:
        self.rules = policy.rules_of(held)
        self.company = tenant.company if held.pin_company else None
        self.concurrency = held.concurrency or allowances.concurrency
        self.body_bytes = min(held.body_bytes or allowances.body_bytes, allowances.body_bytes)
        per_minute = held.requests_per_minute or allowances.requests_per_minute
        rate = None if per_minute is None else Rate.of(per_minute, allowances.ceiling)
        self._bucket = None if rate is None else rates.bucket(bucket, rate)
        self._networks = held.callers

    def fault(self, asked: Admitted, verdict: policy.Verdict, under_way: int, now: float) -> Fault | None:
        """Why the request is refused; the rate is asked last, so that nothing is taken for a refused one."""
        if self._networks and not _is_in(asked.caller, self._networks):
            return Fault("caller", f"the policy lets no callers in from {asked.caller}")
        if verdict.fault:
            kind: Kind = "legacy" if verdict.is_legacy else "endpoint"
            return Fault(kind, f"{asked.method} {asked.target.decoded} is {verdict.fault}")
        query, company = asked.target.query, self.company
        if query and company is not None and (fault := pin.fault_in_query(query, company)):
            return Fault("company", fault)
        if under_way >= self.concurrency:
            return Fault("concurrency", f"{under_way} requests of this tenant are under way already", 1)
        if self._bucket is not None and (wait_s := self._bucket.take(now)):
            return Fault("rate", "more requests in a minute than this tenant may send", math.ceil(wait_s))
        return None

    def fault_in_fields(self, fields: Fields, length: int | None) -> Fault | None:
        """Why a body that is announced so is refused."""
        if length is not None and length > self.body_bytes:
            return Fault("body", f"the body has {length} bytes; this tenant's may have {self.body_bytes}")
        if self.company is not None:
            kind, encoding = fields.values(b"content-type"), fields.values(b"content-encoding")
            if (encoding or kind) and (fault := pin.fault_in_fields(kind, encoding)):
                return Fault("company", fault)
        return None


class Gate:
    """The way in of one tenant."""

    __slots__ = ("emit", "is_stale", "judge", "tenant", "trial", "under_way")

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.under_way = 0
        self.is_stale = False
        """What it judges by was changed."""
        self.tenant: Tenant
        self.judge: _Judge
        self.trial: _Judge | None

    def would_refuse(self, asked: Admitted, fault: Fault | None) -> None:
        """Report what the policy on trial says."""
        if fault is not None:
            self.emit(
                PolicyWouldRefuse(
                    asked.request_id,
                    self.tenant.name,
                    asked.method,
                    asked.target.shown,
                    asked.caller,
                    fault.kind,
                    fault.detail,
                )
            )


class Admitted:
    """A request of which a policy is asked; let in, it is under way until it leaves."""

    __slots__ = (
        "_gate",
        "_inside",
        "_judge",
        "_trial",
        "caller",
        "method",
        "request_id",
        "revokes",
        "target",
    )

    def __init__(self, gate: Gate, request_id: str, method: str, target: Target, caller: str) -> None:
        self.request_id = request_id
        self.method = method
        self.target = target
        self.caller = caller
        self.revokes = False
        """If Pleo accepts the request, no token of the tenant holds any more."""
        self._gate = gate
        # Kept: a request is judged by one policy to its end, though another may be in force by then.
        self._judge = gate.judge
        self._trial = gate.trial
        self._inside = False

    def enter(self) -> None:
        """Count it as under way."""
        self._inside = True
        self._gate.under_way += 1

    def leave(self) -> None:
        """The request has ended."""
        if self._inside:
            self._inside = False
            self._gate.under_way -= 1

    @property
    def body_bytes(self) -> int:
        """What a body may have."""
        return self._judge.body_bytes

    def check_announced(self, fields: Fields, length: int | None) -> None:
        """What the header section says of a body.

        :raises Refusal: the policy does not take it.
        """
        gate = self._gate
        if self._trial is not None:
            gate.would_refuse(self, self._trial.fault_in_fields(fields, length))
        fault = self._judge.fault_in_fields(fields, length)
        if fault is not None:
            raise fault.refusal(gate.tenant.name)

    def check_whole(self, body: bytes) -> None:
        """A body that is in memory.

        :raises Refusal: it names another company.
        """
        if (company := self._company()) is not None and (fault := pin.fault_in_json(body, company)):
            self._refuse(fault)

    def inspection(self) -> Inspection | None:
        """For a body that comes in pieces; ``None`` where nobody wants to look into it."""
        company = self._company()
        return None if company is None else Inspection(self)

    def refuse_unread(self) -> None:
        """A body that seems to name a company and is too large to be read as a whole."""
        self._refuse(
            "the body seems to name a company and is larger than limits.replay_memory, so it cannot be "
            "looked into; send less at once, or leave the company out"
        )

    def _company(self) -> str | None:
        trial = self._trial
        return self._judge.company or (None if trial is None else trial.company)

    def _refuse(self, detail: str) -> None:
        gate, fault = self._gate, Fault("company", detail)
        if self._trial is not None and self._trial.company is not None:
            gate.would_refuse(self, fault)
        if self._judge.company is not None:
            raise fault.refusal(gate.tenant.name)


class Inspection:
    """Looks into a body that comes in pieces (:class:`proxy.replay.Inspection`)."""

    __slots__ = ("_admitted", "_tail")

    def __init__(self, admitted: Admitted) -> None:
        self._admitted = admitted
        self._tail = b""

    @staticmethod
    def wants(start: bytes) -> bool | None:
        """Whether a body that begins so is looked into; ``None`` if more of it is needed."""
        return pin.may_be_json(start)

    def whole(self, body: bytes) -> None:
        """All of it.

        :raises Refusal: it names another company.
        """
        self._admitted.check_whole(body)

    def piece(self, piece: bytes) -> None:
        """The next piece of one that is too large to be held.

        :raises Refusal: it could name another company.
        """
        if pin.is_suspect(piece, self._tail):
            self._admitted.refuse_unread()
        self._tail = pin.tail(piece, self._tail)


class Admission:
    """The ways in of all tenants that are called."""

    def __init__(self, allowances: Allowances, rates: Rates, emit: Emit, clock: Clock) -> None:
        """``clock`` never goes back, and all processes that share ``rates`` have the same."""
        self._allowances = allowances
        self._rates = rates
        self._emit = emit
        self._clock = clock
        self._gates: dict[str, Gate] = {}

    def admit(self, tenant: Tenant, request_id: str, method: str, target: Target, caller: str) -> Admitted:
        """Let a request in, and count it until it leaves.

        :raises PolicyRefused: its caller, endpoint or company.
        :raises RateLimited: the tenant is at a limit.
        """
        gate = self._gates.get(tenant.name)
        if gate is None or gate.tenant is not tenant or gate.is_stale:
            gate = self._open(tenant, gate or Gate(self._emit))
        asked, now = Admitted(gate, request_id, method, target, caller), self._clock()
        if gate.trial is not None:
            tried = gate.trial.rules.verdict(method, target.decoded)
            gate.would_refuse(asked, gate.trial.fault(asked, tried, gate.under_way, now))
        judge = gate.judge
        verdict = judge.rules.verdict(method, target.decoded)
        fault = judge.fault(asked, verdict, gate.under_way, now)
        if fault is not None:
            raise fault.refusal(tenant.name)
        asked.revokes = verdict.revokes
        asked.enter()
        return asked

    def change(self, allowances: Allowances) -> None:
        """Judge by these whoever comes from now on; who is inside is judged as at the entrance."""
        self._allowances = allowances
        for gate in self._gates.values():
            gate.is_stale = True

    def forget(self, gone: Sequence[str]) -> None:
        """Tenants that are no more."""
        for name in gone:
            self._gates.pop(name, None)

    def _open(self, tenant: Tenant, gate: Gate) -> Gate:
        gate.tenant = tenant
        gate.is_stale = False
        gate.judge = _Judge(tenant, tenant.policy, self._allowances, self._rates, tenant.name)
        gate.trial = None
        if tenant.trial is not None:
            # A bucket of its own: what is tried must not take from what is in force. "/" is in no name.
            bucket = f"{tenant.name}/trial"
            gate.trial = _Judge(tenant, tenant.trial, self._allowances, self._rates, bucket)
        self._gates[tenant.name] = gate
        return gate


@lru_cache(maxsize=4096)
def _is_in(caller: str, networks: tuple[str, ...]) -> bool:
    """Whether an address is in one of the networks; what is no address, such as a Unix peer, never is."""
    address = address_of(caller)
    return address is not None and address in Networks(map(ipaddress.ip_network, networks))
