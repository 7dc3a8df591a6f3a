"""Who may pass the API's gate: bearer tokens and legacy keys judged, scopes, companies and the rate limit.

Decides over values and answers with :class:`ApiError`; must never put a credential in an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from email.utils import formatdate

from .authority import TokenState, Verdict
from .calls import ApiError, Caller
from .oauth_rules import parse_basic
from .state import RateWindow, State, fingerprint
from .world import API_KEYS, COMPANIES

_KEY_OWNERS = {key: COMPANIES[slug] for slug, key in API_KEYS.items()}


def judge(state: State, authorizations: list[str]) -> Verdict:
    """What the credential of a request is worth; an API key's verdict has no generation."""
    if len(authorizations) != 1:  # several fields are no credential at all
        return Verdict(TokenState.UNKNOWN if authorizations else TokenState.MISSING)
    scheme, _, credential = authorizations[0].partition(" ")
    if scheme.lower() == "bearer":
        return state.authority.judge(credential)
    owner = _key_owner(authorizations[0]) if state.switches.api_keys else None
    return Verdict(TokenState.LIVE if owner else TokenState.UNKNOWN, owner)


def unauthorized() -> ApiError:
    """The one answer to every credential that is not live, whatever is wrong with it."""
    return ApiError(401, "UNAUTHORIZED", "JWT is expired")


def admit(state: State, authorizations: list[str]) -> Caller:
    """The caller behind a request's credential.

    Raises:
        ApiError: 401 for anything but one live credential.
    """
    verdict = judge(state, authorizations)
    if verdict.state is not TokenState.LIVE or verdict.company_id is None:
        state.counters.dead_token_requests[verdict.state.value] += 1
        raise unauthorized()
    by_key = verdict.generation == 0
    return Caller(
        company_id=verdict.company_id,
        method="API_KEY" if by_key else "OAUTH",
        scopes=None if by_key else verdict.scopes,
        rate_key=fingerprint(authorizations[0]),
    )


def _key_owner(authorization: str) -> str | None:
    user, password = parse_basic(authorization) or ("", "")
    return None if password else _KEY_OWNERS.get(user)


def check_scope(caller: Caller, alternatives: tuple[str, ...]) -> None:
    """Raises 403 unless the caller holds one of the scopes; an empty tuple asks for none."""
    if alternatives and caller.scopes is not None and not set(alternatives) & set(caller.scopes):
        raise ApiError(403, "ACCESS_DENIED", "The token lacks a scope that this call needs.")


def check_company(caller: Caller, query: Iterable[tuple[str, str]], body: object) -> None:
    """Raises 403 if query or JSON body names another company."""
    named: list[object] = [value for name, value in query if name in ("company_id", "companyId")]
    if isinstance(body, dict) and body.get("companyId") is not None:
        named.append(body["companyId"])
    if any(company_id != caller.company_id for company_id in named):
        raise ApiError(403, "ACCESS_DENIED", "The token does not belong to that company.")


def over_limit(state: State, caller: Caller) -> dict[str, str] | None:
    """Counts a request; the headers of the 429 if it is one too many for this minute."""
    limit = state.switches.rate_limit_per_minute
    if limit is None:
        return None
    now = state.now()
    keys = {"token": caller.rate_key, "company": caller.company_id, "everything": ""}
    key = keys[state.switches.rate_limit_by]
    window = state.rate_windows.get(key)
    if window is None or not window.started_at <= now < window.started_at + 60:
        window = state.rate_windows[key] = RateWindow(now)
    window.requests += 1
    if window.requests <= limit:
        return None
    state.counters.rate_limited += 1
    ends_at = math.ceil(window.started_at + 60)
    match state.switches.retry_after:
        case "seconds":
            return {"Retry-After": str(max(1, math.ceil(ends_at - now)))}
        case "date":
            return {"Retry-After": formatdate(ends_at, usegmt=True)}
        case "none":
            return {}
