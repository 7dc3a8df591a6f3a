"""The authorisation server's listener: the authorise endpoint, its consent page, and introspection.

Thin handlers over :mod:`proxy.sandbox.oauth_rules` and :mod:`proxy.sandbox.authority`; the token endpoint
and its faults are in :mod:`proxy.sandbox.token_endpoint`. Must never log a query, a form or an answer.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from aiohttp import web

from .connection import Listener, json_answer
from .consent_page import HEADERS, consent_page, error_page
from .oauth_rules import (
    AuthorizeRequest,
    OAuthError,
    PageRefusal,
    RedirectRefusal,
    basic_credentials,
    check_authorize,
)
from .state import State
from .token_endpoint import read_form, refusal, required, token_endpoint


def auth_listener(state: State) -> Listener:
    """The handler of all requests to the authorisation server."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        match request.method, request.path:
            case "GET", "/oauth/authorize":
                return _authorize(state, request)
            case "POST", "/oauth/authorize/decision":
                return await _decision(state, request)
            case "POST", "/oauth/token":
                return await token_endpoint(state, request)
            case "POST", "/oauth/token/introspect":
                return await _introspect(state, request)
            case _, path:
                return _nowhere(path)

    return handle


def _nowhere(path: str) -> web.Response:
    if path in ("/oauth/token", "/oauth/token/introspect"):
        return json_answer(405, {"error": "invalid_request"}, {"Allow": "POST"})
    if path in ("/oauth/authorize", "/oauth/authorize/decision"):
        return _page(405, "This address does not accept that method.")
    return _page(404, "There is nothing at this address.")


def _page(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=error_page(message), headers=HEADERS)


def _redirect(status: int, location: str) -> web.Response:
    return web.Response(status=status, headers={"Location": location, "Cache-Control": "no-store"})


def _authorize(state: State, request: web.BaseRequest) -> web.Response:
    params = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
    try:
        wanted = check_authorize(params, state.authority.client, state.world.companies, state.switches)
    except PageRefusal as exc:
        return _page(400, str(exc))
    except RedirectRefusal as exc:
        return _redirect(302, exc.location)
    decision = request.headers.get("X-Sandbox-Consent")
    if decision is not None:
        company = (
            request.headers.get("X-Sandbox-Company") or wanted.company_id or next(iter(state.world.companies))
        )
        return _decide(state, wanted, decision, company, 302)
    page = consent_page(
        consent_id=state.authority.open_consent(wanted),
        client_id=state.authority.client.client_id,
        companies={company.id: company.name for company in state.world.companies.values()},
        selected=wanted.company_id,
        scopes=wanted.scopes,
    )
    return web.Response(text=page, headers=HEADERS)


async def _decision(state: State, request: web.BaseRequest) -> web.Response:
    form = await read_form(request)
    wanted = state.authority.close_consent((form or {}).get("consent_id", ""))
    if form is None or wanted is None:
        return _page(400, "This request is unknown, decided already, or too old. Start again.")
    # 303, so that the browser repeats the form's POST as a GET (RFC 9700 section 4.12).
    return _decide(state, wanted, form.get("decision", ""), form.get("company", ""), 303)


def _decide(state: State, wanted: AuthorizeRequest, decision: str, company: str, status: int) -> web.Response:
    company_id = state.world.company_id(company)
    if company_id is None:
        return _page(400, "That company is not known.")
    if decision == "approve":
        return _redirect(status, state.authority.approve(wanted, company_id))
    if decision == "deny":
        denied = wanted.back.location(
            error="access_denied", error_description="The resource owner denied the request."
        )
        return _redirect(status, denied)
    return _page(400, "A decision is either approve or deny.")


async def _introspect(state: State, request: web.BaseRequest) -> web.Response:
    state.counters.introspections += 1
    form = await read_form(request)
    try:
        state.authority.authenticate(*basic_credentials(request.headers.get("Authorization", "")))
        token = required(form, "token")
    except OAuthError as exc:
        return refusal(state, exc)
    answer = state.authority.introspect(token, state.issuer)
    return json_answer(200, answer, {"Cache-Control": "no-store"})
