"""The API's listener: records each request, applies faults, passes the gate, carries out the call, answers.

The order is that of a gateway in front of services: network faults, then the credential, then rate, scope and
company, then the call. Must never log a header, and records ``Authorization`` as a fingerprint only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from .api_routes import Route, match
from .authority import Verdict
from .calls import ApiError, Call, Caller, Reply
from .connection import EMPTY_BODY, Body, HungUp, Listener, hang_up, json_answer, read_body
from .faults import ApiFault, take
from .gatekeeper import admit, check_company, check_scope, judge, over_limit, unauthorized
from .probes import bytes_probe, echo_probe
from .state import ApiRequest, State, fingerprint

_PROBES: dict[str, Callable[[web.BaseRequest, ApiRequest, Body], Coroutine[Any, Any, web.StreamResponse]]] = {
    "/v1/sandbox/echo": echo_probe,
    "/v1/sandbox/bytes": bytes_probe,
}


def api_listener(state: State) -> Listener:
    """The handler of all requests to the API."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        state.counters.api_requests += 1
        authorizations = request.headers.getall("Authorization", [])
        record = _record(request)
        _note(record, judge(state, authorizations))
        state.api_requests.append(record)
        try:
            answer = await _serve(state, request, record, authorizations)
        except ApiError as exc:
            answer = _error(state, exc)
        record.status = 0 if isinstance(answer, HungUp) else answer.status
        return answer

    return handle


def _record(request: web.BaseRequest) -> ApiRequest:
    headers = []
    for raw_name, raw_value in request.raw_headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("utf-8", "surrogateescape")
        shown = fingerprint(value) if name.lower() == "authorization" else raw_value.decode("latin-1")
        headers.append((name, shown))
    return ApiRequest(request.method, request.raw_path, headers, EMPTY_BODY.length, EMPTY_BODY.sha256)


def _note(record: ApiRequest, verdict: Verdict) -> None:
    record.token = verdict.state
    record.company_id = verdict.company_id
    record.generation = verdict.generation


async def _serve(
    state: State, request: web.BaseRequest, record: ApiRequest, authorizations: list[str]
) -> web.StreamResponse:
    path, _, query = request.raw_path.partition("?")
    if state.switches.early_refusal:
        admit(state, authorizations)
    body = await read_body(request)
    record.body_length, record.body_sha256 = body.length, body.sha256
    candidates = (fault for fault in state.api_faults if fault.hits(request.method, path))
    fault = take(state.api_faults, candidates)
    await state.pass_api_gates(path, "before")
    broken = await _strike(state, request, fault, "before")
    if broken is not None:
        return broken
    # Judged again: what was live on arrival may have been rotated away while the request was under way.
    _note(record, judge(state, authorizations))
    answer = await _answer(state, request, record, body, query=query, caller=admit(state, authorizations))
    await state.pass_api_gates(path, "after")
    broken = await _strike(state, request, fault, "after")
    if fault is not None and fault.stage == "mid_body" and isinstance(answer, web.Response):
        return await _break_off(state, request, answer, fault)
    return broken or answer


async def _strike(
    state: State, request: web.BaseRequest, fault: ApiFault | None, stage: str
) -> web.Response | None:
    """What a fault of this stage answers in place of the call, if anything."""
    if fault is None or fault.stage != stage:
        return None
    match fault.kind:
        case "delay":
            await state.pause(fault.seconds)
            return None
        case "drop":
            return hang_up(request)
        case "redirect":
            return web.Response(status=302, headers={"Location": fault.location})
        case "status" if fault.status == 401:
            return _error(state, unauthorized())
        case "status":
            headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            return json_answer(
                fault.status, {"type": "SANDBOX_FAULT", "message": "A fault on demand."}, headers
            )


async def _answer(
    state: State, request: web.BaseRequest, record: ApiRequest, body: Body, *, query: str, caller: Caller
) -> web.StreamResponse:
    limited = over_limit(state, caller)
    if limited is not None:
        return json_answer(429, {"type": "RATE_LIMITED", "message": "Too many requests."}, limited)
    path = request.raw_path.partition("?")[0]
    pairs = parse_qsl(query, keep_blank_values=True)
    if path in _PROBES:
        return await _PROBES[path](request, record, body)
    return _render(_call(state, request, body, caller, (path, pairs)))


def _call(
    state: State,
    request: web.BaseRequest,
    body: Body,
    caller: Caller,
    target: tuple[str, list[tuple[str, str]]],
) -> Reply:
    path, pairs = target
    route, params = match(request.method, path)
    check_scope(caller, route.scopes)
    content = _content(route, body)
    check_company(caller, pairs, content)
    company = state.world.companies[caller.company_id]
    return route.handler(Call(state, caller, company, params, pairs, content))


def _content(route: Route, body: Body) -> object:
    if not body.complete:
        raise ApiError(413, "PAYLOAD_TOO_LARGE", "The body is too large.")
    if not body.head or route.method in ("GET", "DELETE"):
        return None
    try:
        return orjson.loads(body.head)
    except orjson.JSONDecodeError:
        raise ApiError(400, "BAD_REQUEST", "The body is not JSON.") from None


def _render(reply: Reply) -> web.Response:
    if reply.body is None:
        return web.Response(status=reply.status, headers=reply.headers)
    return json_answer(reply.status, reply.body, reply.headers)


def _error(state: State, exc: ApiError) -> web.Response:
    if exc.status != 401:
        return json_answer(exc.status, {"type": exc.kind, "message": exc.message})
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'} if state.switches.www_authenticate else {}
    if state.switches.unauthorized_body == "empty":
        return web.Response(status=401, headers=headers)
    return json_answer(401, {"type": exc.kind, "message": exc.message}, headers)


async def _break_off(
    state: State, request: web.BaseRequest, answer: web.Response, fault: ApiFault
) -> web.StreamResponse:
    """Sends half of the body, then waits or hangs up."""
    whole = answer.body if isinstance(answer.body, bytes) else b""
    half = len(whole) // 2
    headers = {
        name: value for name, value in answer.headers.items() if not re.match("(?i)content-length", name)
    }
    stream = web.StreamResponse(status=answer.status, headers=headers)
    if fault.chunked:
        stream.enable_chunked_encoding()
    else:
        stream.content_length = len(whole)
    await stream.prepare(request)
    await stream.write(whole[:half])
    if fault.kind == "drop":
        hang_up(request)
        return stream
    await state.pause(fault.seconds)
    await stream.write(whole[half:])
    await stream.write_eof()
    return stream
