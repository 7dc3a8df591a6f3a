"""Everything about Pleo that is undocumented or can go wrong, as typed switches and faults.

Holds values and the small rule of which fault hits next; it must never do I/O or look at a request. The
listeners read these values on every request, so a test may change them while the sandbox runs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeVar

ClientAuth = Literal["basic", "post", "either"]
RefusalError = Literal["invalid_grant", "invalid_token", "invalid_refresh_token"]
GrantType = Literal["any", "authorization_code", "refresh_token"]


@dataclass(slots=True)
class Switches:
    """The values that Pleo does not document or documents twice; each default says why it is the default."""

    client_auth: ClientAuth = "basic"
    """How the OAuth client authenticates. Pleo documents Basic only and form fields; Basic by default."""

    refusal_error: RefusalError = "invalid_grant"
    """The ``error`` of a refused refresh. RFC 6749 names ``invalid_grant``; two others were seen."""

    refusal_status: int = 400
    """The status beside it; 400 by RFC 6749 section 5.2."""

    reuse_kills_family: bool = True
    """Whether a rotated refresh token that is used again kills its whole family. Pleo says it *may*, so the
    default is the harsher reading: what survives it survives the milder one."""

    reconsent_kills_family: bool = False
    """Whether a new consent for a company kills that company's earlier ones. Undocumented; RFC 6749 has no
    such rule."""

    code_lifetime_s: float = 60.0
    """Life of an authorisation code in seconds. Pleo says short-lived and gives no number."""

    require_pkce: bool = True
    """Whether an authorise request without a challenge is refused."""

    granted_scopes: tuple[str, ...] | None = None
    """When set, consent grants only those of the asked scopes that are listed here."""

    token_bytes: int = 32
    """Random bytes in a token. 1100 gives tokens of about 1.5 KB, the size of the JWTs that were seen."""

    token_type: str = "Bearer"  # noqa: S105 - a scheme's name, not a secret
    """``token_type`` of a token answer; RFC 6749 section 7.1 compares it without regard to case."""

    scope_in_answer: bool = True
    """Whether a token answer repeats the granted scopes; optional by RFC 6749 section 5.1."""

    unauthorized_body: Literal["json", "empty"] = "json"
    """The body of a 401 from the API. Undocumented."""

    www_authenticate: bool = False
    """Whether a 401 from the API carries ``WWW-Authenticate``. RFC 9110 asks for it; undocumented."""

    early_refusal: bool = False
    """Whether the API answers 401 before it has read the request's body, as a gateway in front may."""

    api_keys: bool = True
    """Whether the API accepts a legacy key as HTTP Basic user name."""

    rate_limit_per_minute: int | None = 600
    """Requests a minute before 429, or null for no limit. 600 is documented."""

    rate_limit_by: Literal["token", "company", "everything"] = "token"
    """What the rate limit counts by. Undocumented."""

    retry_after: Literal["seconds", "date", "none"] = "seconds"
    """The form of ``Retry-After`` on the rate limit's 429. Third-party evidence only."""

    export_job_lifetime_s: float = 3600.0
    """Seconds after its last update at which an unfinished export job expires. One hour is documented."""

    default_page_size: int = 20
    """Records in a page when ``limit`` is absent. Undocumented."""

    max_page_size: int = 100
    """The largest ``limit``. Undocumented."""


@dataclass(slots=True)
class TokenFault:
    """One fault of the token endpoint.

    ``committed`` says on which side of the token's rotation the fault strikes: a drop, delay, status, HTML or
    broken answer with ``committed=True`` leaves the old pair dead and the caller without the new one.
    ``times`` is the number of requests it hits; ``None`` keeps it until it is removed.
    """

    kind: Literal[
        "delay", "status", "drop", "html", "broken_json", "no_refresh_token", "no_expires_in", "expires_in"
    ]
    _: KW_ONLY
    committed: bool = False
    times: int | None = 1
    grant: GrantType = "any"
    seconds: float = 0.0
    """How long ``delay`` waits, or the value that ``expires_in`` announces."""
    status: int = 503
    """For ``status``: 429, 500, 502 or 503."""
    retry_after: str | None = None

    def __post_init__(self) -> None:
        _check_common(self.times, self.seconds, self.status)


@dataclass(slots=True)
class ApiFault:
    """One fault of the API listener, for the requests whose raw path matches ``path`` (a regular expression).

    ``stage`` says when it strikes: ``before`` the call is carried out, ``after`` it was carried out but
    before the answer, or ``mid_body``, after half of the answer's body.
    """

    kind: Literal["delay", "status", "drop", "redirect"]
    path: str = ""
    _: KW_ONLY
    method: str | None = None
    stage: Literal["before", "after", "mid_body"] = "before"
    times: int | None = 1
    seconds: float = 0.0
    status: int = 503
    retry_after: str | None = None
    location: str = "https://files.example/elsewhere"
    """Where ``redirect`` sends the caller: by default to another host, where a token must not go."""
    chunked: bool = False
    """For ``mid_body``: a chunked body in place of one with ``Content-Length``."""

    def __post_init__(self) -> None:
        _check_common(self.times, self.seconds, self.status)
        re.compile(self.path)
        if self.stage == "mid_body" and self.kind not in ("delay", "drop"):
            raise ValueError("Only a delay or a drop can strike in the middle of a body.")
        if self.kind == "redirect" and self.stage != "before":
            raise ValueError("A redirect strikes before the call is carried out.")

    def hits(self, method: str, path: str) -> bool:
        """Whether this fault is meant for such a request."""
        return self.method in (None, method) and re.search(self.path, path) is not None


def _check_common(times: int | None, seconds: float, status: int) -> None:
    if times is not None and times < 1:
        raise ValueError("times is the number of requests to hit, at least 1, or null for all.")
    if seconds < 0:
        raise ValueError("seconds must not be negative.")
    if not 200 <= status <= 599:
        raise ValueError("status must be between 200 and 599.")


FaultT = TypeVar("FaultT", TokenFault, ApiFault)


def take(faults: deque[FaultT], candidates: Iterable[FaultT]) -> FaultT | None:
    """The first candidate, used up by one; removed from ``faults`` once it has hit as often as it was to."""
    fault = next(iter(candidates), None)
    if fault is not None and fault.times is not None:
        fault.times -= 1
        if fault.times == 0:
            faults.remove(fault)
    return fault
