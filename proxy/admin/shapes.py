"""What the JSON API is given and answers with, as types; the OpenAPI document is made of them.

No more than a listing has is in them: no token, sealed or not, and of a key nothing but a piece of its hash.
A member that no type names is refused, in questions and in answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.loglines import STATUS
from proxy.model import GrantState, Outcome, Preset, Unblocked
from proxy.store.trail import NO_END

Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"}, description="ISO 8601, UTC.")]
TenantName = Annotated[str, Field(description="The tenant's name.", examples=["acme"])]
Company = Annotated[str | None, Field(description="The company at Pleo; null until a consent settles it.")]
Network = Annotated[str, Field(description="In CIDR notation.")]


class Shape(BaseModel):
    """What all have in common: nothing is taken that is not named."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Nothing(Shape):
    """An operation that is given nothing."""


class Problem(Shape):
    """A problem document (RFC 9457)."""

    type: str = Field(description="about:blank: the status says what kind it is.")
    title: str
    status: int
    detail: str | None = Field(default=None, description="What is wrong, and what to do.")


# --- tenants and grants


class TenantRow(Shape):
    """A tenant, as `pleo-proxy tenants show --json` has it."""

    name: TenantName
    company: Company
    enabled: bool = Field(description="Whether its callers are served.")
    state: GrantState = Field(description="Of its grant.")
    routes: list[str] = Field(description="How its callers are recognised, as `kind: value`.")
    preset: Preset


class GrantRow(Shape):
    """What somebody at the tenant's company consented to, as `pleo-proxy grants show --json` has it."""

    tenant: TenantName
    state: GrantState
    generation: int = Field(description="+1 with every new pair of tokens; 0 before the first.")
    company: Company
    scopes: list[str]
    access_expires_at: Instant | None
    refresh_expires_at: Instant | None = Field(
        description="Known or assumed end of the refresh token, after which the tenant must consent again."
    )
    last_refreshed_at: Instant | None
    last_outcome: Outcome | None = Field(description="What came of the last refresh.")


class Link(Shape):
    """What a person at the tenant's company opens to consent. Whoever has it can connect the tenant."""

    tenant: TenantName
    url: str = Field(description="Works once.")
    expires_at: Instant


class Waiting(Shape):
    """A setting that was changed and keeps its value until a restart."""

    key: str = Field(examples=["listen.proxy"])
    why: str


class ReloadReport(Shape):
    """What came of reading the configuration again."""

    source: str = Field(description="The file, or `the environment`.")
    changed: list[str] = Field(description="Settings with another value from now on.")
    needs_restart: list[Waiting]


class PolicyRow(Shape):
    """What callers may ask of Pleo, from where, and how much."""

    preset: Preset
    allow: list[str] = Field(description="Rules as `METHODS PATH`, in place of the preset's.")
    deny: list[str] = Field(description="Rules that go before all that allows.")
    unblock: list[Unblocked] = Field(description="Endpoints that are otherwise blocked in any case.")
    callers: list[Network] = Field(description="Networks of callers that are let in; empty for all.")
    pin_company: bool = Field(description="Whether requests that name another company are refused.")
    requests_per_minute: int | None = Field(description="Here and below, null is as the settings say.")
    concurrency: int | None
    body_bytes: int | None


class TenantsPolicy(PolicyRow):
    """A tenant's policy, as `pleo-proxy policy show --json` has it."""

    tenant: TenantName
    trial: PolicyRow | None = Field(description="A policy that is only tried; null if there is none.")


# --- traffic


class Counted(Shape):
    """Requests in a span of time."""

    requests: int
    failed: int = Field(description="Refused by the proxy, or without a whole answer.")


class TenantsTraffic(Counted):
    """Requests of a tenant since the start, and of late."""

    tenant: TenantName
    failures: dict[str, int] = Field(description="Those that failed, by their outcome in the log.")
    last_hour: list[Counted] = Field(description="In spans of five minutes, the oldest first.")
    p50_ms: float | None = Field(
        description="Half of its requests of the last half hour to hour took up to this, as estimated from "
        "the metrics' buckets; null where there was none, or where it is over a minute."
    )
    p99_ms: float | None = Field(description="The same of 99 in a hundred.")


class Traffic(Shape):
    """What callers have sent, over all workers."""

    since: Instant = Field(description="When counting began.")
    last_hour: list[Counted] = Field(description="Of all callers by the minute, the oldest first.")
    last_minute_ended_at: Instant
    tenants: list[TenantsTraffic] = Field(description="Those that were called.")


# --- what is looked up


class AuditQuery(Shape):
    """Which records of the audit trail are wanted."""

    tenant: str | None = Field(default=None, max_length=100, description="Only those of this tenant.")
    event: str | None = Field(
        default=None, max_length=400, description="Only those of this event, or of several, by blanks."
    )
    most: int = Field(default=50, ge=1, le=1000, description="So many, the newest.")
    before: int | None = Field(
        default=None, ge=1, le=NO_END, description="Only those before the record of this number."
    )


class AuditRecord(Shape):
    """A record of the audit trail."""

    number: int = Field(description="Its place in the chain.")
    at: Instant
    event: str
    tenant: str | None
    actor: str = Field(description="Who did it.")
    details: dict[str, Any]


class LiveQuery(Shape):
    """Which lines of the log are wanted: of each member one of what is named, and all members."""

    tenant: str | None = Field(default=None, max_length=200, description="Names, separated by blanks.")
    event: str | None = Field(
        default=None,
        max_length=200,
        description="Events or patterns of them, separated by blanks.",
        examples=["request.finished token.*"],
    )
    status: str | None = Field(
        default=None,
        max_length=200,
        pattern=rf"^(?:(?:{STATUS.pattern})(?: +|$))*$",
        description="Statuses or classes of them, separated by blanks.",
        examples=["401 5xx"],
    )
    level: Literal["", "debug", "info", "warning", "error"] | None = Field(
        default=None, description="The least that is wanted."
    )
    after: str | None = Field(
        default=None, max_length=100, description="An `id` to go on from, where `Last-Event-ID` has none."
    )


class LiveEvent(Shape):
    """Each event of the stream, as its fields (WHATWG HTML section 9.2)."""

    event: Literal["message", "begin", "left_out", "end"] = Field(
        default="message", description="A line of the log is a message, for which nothing is said."
    )
    data: str = Field(
        description="JSON: a line of the log, how many `lines` were left out, or `why` it ends."
    )
    id: str = Field(default="", description="To go on from.")


class Setting(Shape):
    """A setting as it is in force; a secret by the place that it comes from."""

    key: str
    value: str = Field(description="As TOML would have it; empty where there is none.")
    source: str = Field(description="`default`, `file`, or the variable that set it.")
    meaning: str


# --- explaining


# These say what is looked at behind the type, which has better words for who does not keep to them.
_ONE_LINE: dict[str, Any] = {"pattern": r"^[^\n]*$"}
_FIELD_VALUE: dict[str, Any] = {"pattern": r"^[\x00-\x09\x0b\x0c\x0e-\xff]*$"}
_FIELD_LINE: dict[str, Any] = {
    "pattern": r"^[\x00-\x09\x0b\x0c\x0e-\x39\x3b-\xff]*:[\x00-\x09\x0b\x0c\x0e-\xff]*$"
}
_ADDRESS: dict[str, Any] = {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}

HostName = Annotated[str, Field(json_schema_extra=_FIELD_VALUE)]
FieldLine = Annotated[str, Field(json_schema_extra=_FIELD_LINE)]


class Question(Shape):
    """A request that nobody has sent, and where it would come from."""

    path: str = Field(
        description="The request target, as the caller would write it.",
        examples=["/acme/v2/employees"],
        json_schema_extra=_ONE_LINE,
    )
    method: str = Field(default="GET", json_schema_extra=_ONE_LINE)
    caller: str = Field(
        default="127.0.0.1",
        alias="from",
        description="The address at the other end of the connection.",
        json_schema_extra=_ADDRESS,
    )
    host: HostName | None = Field(
        default=None, description="`Host`; an address of the proxy's where it is not said."
    )
    headers: tuple[FieldLine, ...] = Field(default=(), description="Further lines as `Name: value`.")
    listener: str | None = Field(
        default=None, description="The entry of `listen.proxy` at which it comes in; the first if not said."
    )
    certificates: tuple[str, ...] = Field(
        default=(), description="Names of the TLS certificate that the caller shows."
    )


class Claim(Shape):
    """A route that claims the request."""

    route: str
    tenant: TenantName


class Opinion(Shape):
    """What a policy says of the request."""

    verdict: Literal["allowed", "refused"]
    rule: str | None = Field(description="The rule that decides, where one does.")
    detail: str | None


class Sends(Shape):
    """What would go to Pleo. Of what is the caller's, names alone."""

    to: str
    path: str
    removed_prefix: str | None
    passed_on: list[str]
    stripped: list[str]
    added: list[str]


class Refused(Shape):
    """The problem document that the caller would get, and its name."""

    name: str
    type: str
    title: str
    status: int
    detail: str
    tenant: str | None = None
    action: str | None = None
    reconnect_url: str | None = None


class Explanation(Shape):
    """What would become of the request."""

    forwarded: bool
    method: str
    path: str
    host: str | None
    caller: str
    tenant: str | None
    routes: list[Claim]
    policy: Opinion | None
    trial: Opinion | None
    grant: GrantRow | None
    sends: Sends | None = Field(description="null where it would be refused.")
    refusal: Refused | None = Field(description="null where it would be forwarded.")
    not_asked: list[str] = Field(description="What could refuse it all the same.")


# --- health


class Health(Shape):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Shape):
    """Whether the proxy serves requests."""

    status: Literal["ready", "not ready"]
    reason: str | None = Field(default=None, description="Why it does not.")
