"""The token endpoint: reads the form, applies faults, lets the authority decide, answers.

Between the faults that strike before and those that strike after, nothing awaits: that stretch is the commit.
Must never log a form or an answer.
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import parse_qsl

from aiohttp import web

from .authority import TokenPair
from .connection import hang_up, json_answer, read_body
from .faults import TokenFault, take
from .oauth_rules import OAuthError, client_credentials
from .state import State

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 section 5.1
_HTML = "<!doctype html><html><body><h1>Please sign in to the network</h1></body></html>"


async def read_form(request: web.BaseRequest) -> dict[str, str] | None:
    """The form of a request, or ``None`` if it has none or names a field twice (RFC 6749 section 3.2)."""
    body = await read_body(request)
    if request.content_type != "application/x-www-form-urlencoded" or not body.complete:
        return None
    try:
        pairs = parse_qsl(body.head.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(body.head))
    except ValueError:
        return None
    counts = Counter(name for name, _ in pairs)
    return dict(pairs) if all(count == 1 for count in counts.values()) else None


def well_formed(form: dict[str, str] | None) -> dict[str, str]:
    """The form, or ``invalid_request`` if there is none."""
    if form is None:
        raise OAuthError("invalid_request", "The request is not one well-formed form.")
    return form


def required(form: dict[str, str] | None, name: str) -> str:
    """A field's value, or ``invalid_request``; an empty one counts as missing (RFC 6749 section 3.2)."""
    value = well_formed(form).get(name)
    if not value:
        raise OAuthError("invalid_request", f"The form field {name} is missing.")
    return value


def refusal(state: State, exc: OAuthError) -> web.Response:
    """An error answer by RFC 6749 section 5.2."""
    headers = dict(_NO_STORE)
    if exc.error == "invalid_client":
        state.counters.rejected_clients += 1
        headers["WWW-Authenticate"] = 'Basic realm="pleo sandbox"'
    return json_answer(exc.status, {"error": exc.error, "error_description": exc.description}, headers)


async def token_endpoint(state: State, request: web.BaseRequest) -> web.StreamResponse:
    """One request to the token endpoint."""
    state.counters.token_requests += 1
    form = await read_form(request)
    grant = (form or {}).get("grant_type")
    fault = take(state.token_faults, (f for f in state.token_faults if f.grant in ("any", grant)))
    await state.pass_token_gates(committed=False)
    broken = await _strike(state, request, fault, committed=False)
    if broken is not None:
        return broken
    answer = _commit(state, request.headers.get("Authorization"), form, fault)
    await state.pass_token_gates(committed=True)
    return await _strike(state, request, fault, committed=True) or answer


async def _strike(
    state: State, request: web.BaseRequest, fault: TokenFault | None, *, committed: bool
) -> web.Response | None:
    """What a fault of this side answers in place of the authority, if anything."""
    if fault is None or fault.committed is not committed:
        return None
    match fault.kind:
        case "delay":
            await state.pause(fault.seconds)
        case "drop":
            return hang_up(request)
        case "status":
            headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            return json_answer(fault.status, {"error": "temporarily_unavailable"}, headers)
        case "html":
            return web.Response(text=_HTML, content_type="text/html")
        case "broken_json":
            return web.Response(body=b'{"access_token": "', headers={"Content-Type": "application/json"})
        case _:
            pass  # the rest alter the answer itself
    return None


def _commit(
    state: State, authorization: str | None, form: dict[str, str] | None, fault: TokenFault | None
) -> web.Response:
    keep_refresh = fault is not None and fault.kind == "no_refresh_token"
    try:
        credentials = client_credentials(authorization, well_formed(form), state.switches.client_auth)
        state.authority.authenticate(*credentials)
        pair = _grant(state, well_formed(form), keep_refresh=keep_refresh)
    except OAuthError as exc:
        return refusal(state, exc)
    return json_answer(200, _success(state, pair, fault), _NO_STORE)


def _grant(state: State, form: dict[str, str], *, keep_refresh: bool) -> TokenPair:
    match required(form, "grant_type"):
        case "authorization_code":
            code, redirect_uri = required(form, "code"), form.get("redirect_uri")
            pair = state.authority.exchange(code, redirect_uri, form.get("code_verifier"))
            state.world.install(pair.company_id)
            return pair
        case "refresh_token":
            return state.authority.refresh(required(form, "refresh_token"), keep_refresh=keep_refresh)
        case _:
            raise OAuthError("unsupported_grant_type", "Only codes and refresh tokens are exchanged here.")


def _success(state: State, pair: TokenPair, fault: TokenFault | None) -> dict[str, object]:
    answer: dict[str, object] = {
        "access_token": pair.access_token,
        "token_type": state.switches.token_type,
        "expires_in": pair.expires_in,
        "refresh_token": pair.refresh_token,
    }
    if state.switches.scope_in_answer:
        answer["scope"] = " ".join(pair.scopes)
    match None if fault is None else fault.kind:
        case "no_refresh_token":
            del answer["refresh_token"]
        case "no_expires_in":
            del answer["expires_in"]
        case "expires_in" if fault is not None:
            answer["expires_in"] = int(fault.seconds)
        case _:
            pass
    return answer
