"""The tables of numbers: when tokens are refreshed, and what a request may take. Each default has its reason.

A rule between two settings stands on the later one, so that all broken rules are found in one pass. No I/O.
"""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from proxy.config.sections import Section
from proxy.config.values import Count, Days, Fraction, Rule, Seconds, Size, show_size


class Refresh(Section):
    """When tokens are replaced. Fractions are of the access token's lifetime unless another is named."""

    advisory: Fraction = Field(
        default=0.8,
        description="A token this old is refreshed ahead of its end. Callers wait for that up to `wait_s`, "
        "since Pleo ends the old token at once, and then go on with the old one. At 80 % of Pleo's 15 "
        "minutes, 3 minutes are left for retries.",
    )
    advisory_jitter: Fraction = Field(
        default=0.1,
        validate_default=True,
        description="Each refresh starts at random up to this much after `advisory`, so that tenants "
        "connected together do not refresh together.",
    )
    mandatory_s: Seconds = Field(
        default=30.0,
        description="With less than this left callers wait for the refresh, so that no token expires on its "
        "way. Ample for that way and for clocks that differ by seconds.",
    )
    mandatory: Fraction = Field(
        default=0.05,
        validate_default=True,
        description="The same as a fraction that is left; the smaller of the two counts, so that short-lived "
        "tokens are not refreshed at every request.",
    )
    wait_s: Seconds = Field(
        default=10.0,
        description="How long a request waits for a refresh under way. A refresh takes well under a second; "
        "many callers give up after 30.",
    )
    timeout_s: Seconds = Field(
        default=30.0,
        description="How long an answer of the token endpoint is waited for. Generous, because an answer "
        "that is given up may have rotated the tokens.",
    )
    default_expires_in_s: Seconds = Field(
        default=900.0,
        description="Assumed lifetime where a token response has no `expires_in`: Pleo's 15 minutes.",
    )
    refresh_lifetime_days: Days = Field(
        default=60.0, description="Assumed life of a refresh token, as Pleo states for the least."
    )
    warn_days: Days = Field(
        default=14.0,
        description="From so many days before the end of a refresh token on, the log warns once a day. A "
        "grant that is refreshed never comes so close.",
    )
    keep_alive: Fraction = Field(
        default=0.5,
        description="An idle grant is refreshed after this fraction of the refresh token's life. At one "
        "half, a month is left to notice and mend a failure.",
    )
    forced_hold_s: Seconds = Field(
        default=60.0,
        description="A 401 for a token that a 401 led to less than this ago is passed on: another refresh "
        "would not cure it.",
    )
    backoff_s: Seconds = Field(
        default=1.0,
        description="Pause after a first failed refresh; doubled after each further one.",
    )
    backoff_max_s: Seconds = Field(
        default=60.0,
        validate_default=True,
        description="The longest such pause: once Pleo is back, tenants are at most a minute behind.",
    )
    takeover_s: Seconds = Field(
        default=300.0,
        description="How long after another process's lease has run out this one waits before it refreshes "
        "the grant itself. The other may come back with a new pair in its journal, and a refresh with the "
        "old one would end the grant; longer means a longer wait for the tenant if it never does.",
    )
    client_rejected_pause_s: Seconds = Field(
        default=60.0,
        description="Pause of all refreshes after Pleo refused the OAuth client itself, which only an "
        "operator can mend.",
    )

    @field_validator("advisory", "keep_alive")
    @classmethod
    def _is_positive(cls, fraction: float) -> float:
        if fraction == 0:
            raise Rule("0 would refresh without end; choose a fraction between 0 and 1")
        return fraction

    @field_validator("advisory_jitter")
    @classmethod
    def _jitter_ends(cls, jitter: float, info: ValidationInfo) -> float:
        advisory: float | None = info.data.get("advisory")
        if advisory is not None and advisory + jitter > 1:
            raise Rule("must end within the lifetime: with refresh.advisory at most 1; lower one of them")
        return jitter

    @field_validator("mandatory")
    @classmethod
    def _mandatory_comes_last(cls, mandatory: float, info: ValidationInfo) -> float:
        advisory: float | None = info.data.get("advisory")
        if advisory is not None and 1 - mandatory <= advisory:
            raise Rule("must begin after refresh.advisory: the two together less than 1; lower one of them")
        return mandatory

    @field_validator("backoff_max_s")
    @classmethod
    def _backoff_grows(cls, longest: float, info: ValidationInfo) -> float:
        first: float | None = info.data.get("backoff_s")
        if first is not None and longest < first:
            raise Rule("must not be below refresh.backoff_s; raise it, or lower that")
        return longest


class Limits(Section):
    """What one request, and all together, may take. Beyond them the proxy refuses; see the problem types."""

    head_bytes: Size = Field(
        default=65536,
        description="A request's line and headers together. Cookies of large intranets fit; nginx allows 32 "
        "KiB.",
    )
    headers: Count = Field(
        default=100, description="Header fields of a request, as Apache's LimitRequestFields."
    )
    target_bytes: Size = Field(
        default=8192,
        validate_default=True,
        description="Path and query of a request. RFC 9110 section 4.1 asks for 8000 at least.",
    )
    body_bytes: Size = Field(
        default=64 * 1024**2,
        description="A request's body. Pleo has no upload endpoint, and its bodies are small JSON.",
    )
    replay_memory: Size = Field(
        default=1024**2,
        description="How much of a request's body is kept in memory, to send it again after a 401. Pleo's "
        "JSON bodies fit.",
    )
    replay_disk: Size = Field(
        default=64 * 1024**2,
        validate_default=True,
        description="Largest body that can be sent again; what memory does not hold is in a temporary file. "
        "As `body_bytes`, so that every accepted body can be.",
    )
    tenant_requests_per_minute: Count | None = Field(
        default=None,
        description="Requests that each tenant may send in a minute, a fifth of them at once; a policy may "
        "set another number for its tenant. Absent: 500 in `production` and `staging`, as Pleo advises, and "
        "no limit in `custom`. Pleo takes 600, so more is refused there.",
    )
    tenant_concurrency: Count = Field(
        default=512,
        description="Requests of one tenant under way at one time, in each worker; a policy may set another "
        "number. Half of `connections`, so that no tenant can take them all.",
    )
    connections: Count = Field(
        default=1024,
        description="Connections of callers at one time, as nginx's `worker_connections` of many packages.",
    )
    idle_s: Seconds = Field(
        default=60.0,
        description="How long a connection may be silent: a caller's between requests, while its body is "
        "awaited (then 400) and while it takes nothing of its answer, Pleo's while an answer is awaited "
        "(then 504). As load balancers of large clouds do.",
    )
    head_s: Seconds = Field(
        default=10.0,
        description="How long a caller may take to send a request's head: defence against slow senders.",
    )
    upstream_connect_s: Seconds = Field(
        default=10.0,
        description="How long connecting to Pleo may take, TLS included; covers two lost SYN packets.",
    )
    upstream_total_s: Seconds = Field(
        default=300.0,
        validate_default=True,
        description="How long a request to Pleo may take as a whole, and its body to come from the caller. "
        "Few callers wait longer than five minutes.",
    )
    drain_s: Seconds = Field(
        default=30.0,
        description="How long requests under way may finish at a stop, as Kubernetes' default grace period. "
        "A refresh under way is waited for up to `refresh.timeout_s` more: give the service manager both.",
    )

    @field_validator("target_bytes")
    @classmethod
    def _target_fits_head(cls, target: int, info: ValidationInfo) -> int:
        head: int | None = info.data.get("head_bytes")
        if head is not None and target > head:
            raise Rule(f"must not exceed limits.head_bytes ({show_size(head)}); lower it, or raise that")
        return target

    @field_validator("replay_disk")
    @classmethod
    def _disk_is_larger(cls, disk: int, info: ValidationInfo) -> int:
        memory: int | None = info.data.get("replay_memory")
        if memory is not None and memory > disk:
            raise Rule(
                f"must not be below limits.replay_memory ({show_size(memory)}); raise it, or lower that"
            )
        return disk

    @field_validator("upstream_total_s")
    @classmethod
    def _total_holds_connect(cls, total: float, info: ValidationInfo) -> float:
        connect: float | None = info.data.get("upstream_connect_s")
        if connect is not None and connect > total:
            raise Rule("must not be below limits.upstream_connect_s; raise it, or lower that")
        return total
