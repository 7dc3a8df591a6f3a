"""Logging in to the operator's pages and out again: with a token, or as whom single sign-on names."""

from __future__ import annotations

import re
from typing import Literal

from aiohttp import web

from proxy import headers
from proxy.admin.access import (
    SESSION_COOKIE,
    actor_of,
    peer_of,
    require,
    session_of,
    signed_on,
    user_of_proxy,
    wait_answer,
)
from proxy.admin.answers import page, problem
from proxy.admin.cookies import cookie, set_cookie
from proxy.admin.desk import TooManyFailures
from proxy.admin.forms import form_of
from proxy.admin.services import SERVICES
from proxy.admin.sessions import session_id
from proxy.admin.sites import Site, site_of
from proxy.admin.sso import Identity
from proxy.facts import AdminLoggedIn, AdminLoggedOut
from proxy.model import Role, Secret

# A path of ours: "//host" and "/\host" would lead elsewhere, and so might what a browser removes.
_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,1023}")
_NOT_THERE = re.compile(r"/(?:login|logout)(?![^?])")


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [
        # Without HEAD: to ask may begin a session.
        web.get("/login", _ask, allow_head=False),
        web.post("/login", _log_in),
        web.post("/logout", require(Role.VIEWER)(_log_out)),
    ]


def path_of_ours(wanted: str) -> str:
    """Where to go after the login: ``wanted``, unless it could lead to another site."""
    return wanted if _PATH.fullmatch(wanted) and not _NOT_THERE.match(wanted) else "/"


async def _ask(request: web.Request) -> web.Response:
    back = path_of_ours(request.query.get("next", "/"))
    if _is_from_elsewhere(request):
        # The browser keeps a Strict cookie to itself when another site's link was followed. It sends it with
        # what our own page leads to, so whoever is logged in is not asked again.
        return page("continue.html", back=back)
    if await session_of(request) is not None:
        return _go(back)
    identity = signed_on(request)
    if identity is not None:
        return await _enter(request, identity, by="sso", back=back)
    return _login_page(request, back)


async def _log_in(request: web.Request) -> web.StreamResponse:
    if site_of(request) is not Site.OWN:  # else a page of another site could log its own user in
        # Over plain HTTP from another machine browsers do not tell, and the token would cross the network.
        where = request.app[SERVICES].public_url
        text = f"Log in on the page of {where}, and nowhere else. Programs send the token as bearer."
        return page("refused.html", status=403, title="Not logged in", text=text)
    form = await form_of(request)
    back = path_of_ours(form.get("next", "/"))
    token = Secret(form.get("token", "").strip())
    try:
        role = request.app[SERVICES].desk.role_of(token, peer=peer_of(request), by="form")
    except TooManyFailures as locked:
        return wait_answer(request, locked)
    if role is None:
        return _login_page(request, back, status=403, fault="That is not an admin token.")
    return await _enter(request, Identity(role.value, role), by="token", back=back)


async def _log_out(request: web.Request) -> web.Response:
    services, actor = request.app[SERVICES], actor_of(request)
    id_ = session_id(cookie(request, SESSION_COOKIE))
    if actor.csrf is None or id_ is None:
        return problem(400, "Bad Request", "A program with a token has no session to end.")
    await services.sessions.end(id_)
    services.emit(AdminLoggedOut(actor.user, actor.role, peer_of(request)))
    response = page("logged_out.html")
    set_cookie(response, services, SESSION_COOKIE, "", max_age=0, same_site="Strict")
    return response


async def _enter(
    request: web.Request, identity: Identity, *, by: Literal["token", "sso"], back: str
) -> web.Response:
    services = request.app[SERVICES]
    old = session_id(cookie(request, SESSION_COOKIE))
    id_ = await services.sessions.begin(identity, by_sso=by == "sso", instead_of=old)
    services.emit(AdminLoggedIn(identity.user, identity.role, by, peer_of(request)))
    response = _go(back)
    lifetime = int(services.sessions.limits.max_s)
    set_cookie(response, services, SESSION_COOKIE, id_.reveal(), max_age=lifetime, same_site="Strict")
    return response


def _login_page(
    request: web.Request, back: str, *, status: int = 200, fault: str | None = None
) -> web.Response:
    return page("login.html", status=status, back=back, fault=fault, user=user_of_proxy(request))


def _go(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


def _is_from_elsewhere(request: web.Request) -> bool:
    fetched = headers.values(request.raw_headers, b"sec-fetch-site")
    return any(value not in (b"same-origin", b"none") for value in fetched)
