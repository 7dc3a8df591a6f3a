"""The controls' listener, on loopback: the state without token values, and what tests do to the sandbox.

For people with curl and tests in another process; a test in this one calls :class:`Sandbox` itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson
from aiohttp import web

from .connection import Body, Listener, json_answer, read_body
from .faults import ApiFault, Switches, TokenFault
from .state import State
from .world import API_KEYS

_HELP = """A simulated Pleo: the controls. Companies: acme, globex, initech, or a company id.

The state, without token values:      curl {url}/control/state
Kill the access tokens of a company:  curl -X POST {url}/control/revoke-access/acme
Kill all tokens of a company:         curl -X POST {url}/control/revoke/acme
Move the clock:                       curl -X POST '{url}/control/advance?seconds=900'
Rotate the client's secret:           curl -X POST -d '{{"secret": "new"}}' {url}/control/rotate-secret
Read the switches:                    curl {url}/control/switches
Set switches:                         curl -X PATCH -d '{{"client_auth": "post"}}' {url}/control/switches
A fault of the token endpoint:        curl -X POST -d '{{"kind": "drop", "committed": true}}' {url}/control/token-fault
A fault of the API:                   curl -X POST -d '{{"kind": "status", "status": 503, "path": "^/v2/employees"}}' {url}/control/api-fault
Remove all faults:                    curl -X DELETE {url}/control/faults

Kinds of token fault: delay, status, drop, html, broken_json, no_refresh_token, no_expires_in, expires_in;
  with committed, times (null: until removed), grant, seconds, status, retry_after.
Kinds of API fault: delay, status, drop, redirect; with path, method, stage (before, after, mid_body), times,
  seconds, status, retry_after, location, chunked.
"""  # noqa: E501 - a command stands on one line, so that it can be copied


class ControlError(Exception):
    """A control request that cannot be carried out."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def control_listener(state: State) -> Listener:
    """The handler of all requests to the controls."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await read_body(request)
        if (request.method, request.path) == ("GET", "/"):
            return web.Response(text=_HELP.format(url=f"http://{request.host}"))
        try:
            return json_answer(200, _dispatch(state, request, body))
        except ControlError as exc:
            return json_answer(exc.status, {"error": str(exc)})

    return handle


def _dispatch(state: State, request: web.BaseRequest, body: Body) -> object:
    known = False
    for method, pattern, control in _CONTROLS:
        found = re.fullmatch(pattern, request.path)
        if found and method == request.method:
            return control(state, request, body)
        known = known or found is not None
    if known:
        raise ControlError(405, "This control does not accept that method; GET / lists them.")
    raise ControlError(404, "There is no such control; GET / lists them.")


def _show_state(state: State, _request: web.BaseRequest, _body: Body) -> object:
    companies = {}
    for company in state.world.companies.values():
        families = [family for family in state.authority.families if family.company_id == company.id]
        companies[company.slug] = {
            "id": company.id,
            "name": company.name,
            "legacy_key": API_KEYS[company.slug],
            "grants": [
                {
                    "generation": family.generation,
                    "access": state.authority.judge(family.access_token).state,
                    "refreshable": state.authority.alive(family),
                    "scopes": family.scopes,
                }
                for family in families
            ],
        }
    return {"now": state.now(), "companies": companies, "counters": state.counters.as_json()}


def _company(state: State, request: web.BaseRequest) -> str:
    name = request.path.rpartition("/")[2]
    company_id = state.world.company_id(name)
    if company_id is None:
        raise ControlError(
            404, f"There is no company {name!r}; known are {', '.join(API_KEYS)} and their ids."
        )
    return company_id


def _revoke_access(state: State, request: web.BaseRequest, _body: Body) -> object:
    state.authority.revoke_access(_company(state, request))
    return {"done": True}


def _revoke(state: State, request: web.BaseRequest, _body: Body) -> object:
    state.authority.revoke(_company(state, request))
    return {"done": True}


def _advance(state: State, request: web.BaseRequest, _body: Body) -> object:
    try:
        seconds = float(request.query.get("seconds", ""))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ControlError(400, "seconds must be a number that is not negative.")
    state.advance(seconds)
    return {"now": state.now()}


def _rotate_secret(state: State, _request: web.BaseRequest, body: Body) -> object:
    secret = _object(body).get("secret")
    if not isinstance(secret, str) or not secret:
        raise ControlError(400, 'The body must be {"secret": "..."} with a text that is not empty.')
    state.authority.rotate_client_secret(secret)
    return {"done": True}


def _show_switches(state: State, _request: web.BaseRequest, _body: Body) -> object:
    return asdict(state.switches)


def _set_switches(state: State, _request: web.BaseRequest, body: Body) -> object:
    values = _checked(Switches, _object(body))
    for name, value in values.items():
        setattr(state.switches, name, value)
    return asdict(state.switches)


def _add_token_fault(state: State, _request: web.BaseRequest, body: Body) -> object:
    fault = _made(TokenFault, _object(body))
    state.token_faults.append(fault)
    return asdict(fault)


def _add_api_fault(state: State, _request: web.BaseRequest, body: Body) -> object:
    fault = _made(ApiFault, _object(body))
    state.api_faults.append(fault)
    return asdict(fault)


def _clear_faults(state: State, _request: web.BaseRequest, _body: Body) -> object:
    state.token_faults.clear()
    state.api_faults.clear()
    return {"done": True}


_Control = Callable[[State, web.BaseRequest, Body], object]

_CONTROLS: tuple[tuple[str, str, _Control], ...] = (
    ("GET", "/control/state", _show_state),
    ("POST", "/control/revoke-access/[^/]+", _revoke_access),
    ("POST", "/control/revoke/[^/]+", _revoke),
    ("POST", "/control/advance", _advance),
    ("POST", "/control/rotate-secret", _rotate_secret),
    ("GET", "/control/switches", _show_switches),
    ("PATCH", "/control/switches", _set_switches),
    ("POST", "/control/token-fault", _add_token_fault),
    ("POST", "/control/api-fault", _add_api_fault),
    ("DELETE", "/control/faults", _clear_faults),
)


def _object(body: Body) -> dict[str, Any]:
    try:
        value = orjson.loads(body.head)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ControlError(400, "The body must be a JSON object.")
    return value


FaultT = TypeVar("FaultT", TokenFault, ApiFault)


def _made(kind: type[FaultT], values: dict[str, Any]) -> FaultT:
    if "kind" not in values:
        raise ControlError(400, "The field kind is required; GET / lists the kinds.")
    try:
        return kind(**_checked(kind, values))
    except (ValueError, re.error) as exc:
        raise ControlError(400, str(exc)) from None


def _checked(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values as the fields of ``kind`` hold them; all unknown names and wrong values are told at once."""
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}
    wrong = [f"{name} is not known" for name in values if name not in known]
    checked = {}
    for name in known & values.keys():
        value = tuple(values[name]) if isinstance(values[name], list) else values[name]
        checked[name] = value
        if not _fits(hints[name], value):
            wrong.append(f"{name} must be {_wording(hints[name])}")
    if wrong:
        raise ControlError(400, "; ".join(sorted(wrong)) + ".")
    return checked


def _fits(hint: object, value: object) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin in (Union, UnionType):
        return any(_fits(arg, value) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(args[0], item) for item in value)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint  # exact, since True is an int to isinstance


def _wording(hint: object) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, UnionType):
        return " or ".join(_wording(arg) for arg in args)
    if origin is tuple:
        return "a list of texts"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    return next((text for kind, text in names.items() if kind is hint), "of another type")
