"""Who may do what on the operator's listener: :func:`require`, in front of every handler that is not public.

Programs show a token as bearer, people have a session. Refusals come in the form that fits: pages lead to the
login, the API answers with problem documents. What changes something takes the role operator, and from a
session the token of its forms, too.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlencode

from aiohttp import web
from yarl import URL

from proxy import headers
from proxy.admin.answers import Handler, page, problem
from proxy.admin.cookies import cookie
from proxy.admin.desk import TooManyFailures
from proxy.admin.forms import form_of
from proxy.admin.services import SERVICES
from proxy.admin.sessions import csrf_token, session_id
from proxy.admin.sites import SAFE, Site, site_of
from proxy.admin.sso import Identity
from proxy.model import AdminSession, Role, Secret

SESSION_COOKIE = "pleo_proxy_session"
CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who sends a request, as the handler behind :func:`require` may know it."""

    user: str
    role: Role
    csrf: str | None = None
    """What forms of this session carry; ``None`` for programs, which have no session."""

    @property
    def may_change(self) -> bool:
        """Whether pages offer what changes something."""
        return self.role.includes(Role.OPERATOR)


_ACTOR = web.RequestKey("actor", Actor)


def actor_of(request: web.Request) -> Actor:
    """Who sent a request that :func:`require` let through."""
    return request[_ACTOR]


def require(role: Role) -> Callable[[Handler], Handler]:
    """Let a handler be reached by those alone who have ``role`` or more."""

    def guard(handler: Handler) -> Handler:
        async def check(request: web.Request) -> web.StreamResponse:
            actor = await _actor(request)
            if isinstance(actor, web.Response):
                return actor
            if not actor.role.includes(role):
                return _refuse(request, 403, f"This takes the role {role}; {actor.user} is a {actor.role}.")
            if (
                request.method not in SAFE
                and actor.csrf is not None
                and not await _is_our_form(request, actor)
            ):
                return _refuse(request, 403, "The form is not one of this session. Open its page again.")
            request[_ACTOR] = actor
            return await handler(request)

        return check

    return guard


async def session_of(request: web.Request) -> tuple[Secret, AdminSession] | None:
    """The session of the browser, if it has one in force, with its id."""
    id_ = session_id(cookie(request, SESSION_COOKIE))
    if id_ is None:
        return None
    session = await request.app[SERVICES].sessions.find(id_, signed_on(request))
    return None if session is None else (id_, session)


async def is_still_welcome(request: web.Request) -> bool:
    """Whether who sent a request that takes long would be let in still; asking is no use of a session.

    :raises StoreUnavailable: it cannot be said now.
    """
    services = request.app[SERVICES]
    token = _bearer(request)
    if token is not None:
        return services.desk.is_still_right(token)
    id_ = session_id(cookie(request, SESSION_COOKIE))
    return id_ is not None and await services.sessions.find(id_, signed_on(request), is_use=False) is not None


def signed_on(request: web.Request) -> Identity | None:
    """Whom the authenticating proxy names, if there is one, and the user has a role."""
    sso, user = request.app[SERVICES].sso, user_of_proxy(request)
    return None if sso is None or user is None else sso.identity(user)


def user_of_proxy(request: web.Request) -> str | None:
    """Whom the authenticating proxy names, with a role or without."""
    sso = request.app[SERVICES].sso
    if sso is None:
        return None
    values = headers.values(request.raw_headers, sso.header.lower().encode())
    return sso.user(peer_of(request), [value.decode("utf-8", "replace") for value in values])


def peer_of(request: web.Request) -> str:
    """Where a request comes from: the other end of the connection, whatever its headers say."""
    return request.remote or ""


def wait_answer(request: web.Request, locked: TooManyFailures) -> web.Response:
    """The answer to a token that was not looked at."""
    text = f"Too many wrong tokens came. Try again in {locked.retry_after_s} seconds."
    response = _refuse(request, 429, text)
    response.headers["Retry-After"] = str(locked.retry_after_s)
    return response


async def _actor(request: web.Request) -> Actor | web.Response:
    token = _bearer(request)
    if token is not None:
        return _of_token(request, token)
    found = await session_of(request)
    if found is None:
        return await _ask_for_login(request)
    id_, session = found
    return Actor(session.user, session.role, csrf_token(id_))


def _of_token(request: web.Request, token: Secret) -> Actor | web.Response:
    try:
        role = request.app[SERVICES].desk.role_of(token, peer=peer_of(request), by="bearer")
    except TooManyFailures as locked:
        return wait_answer(request, locked)
    return _challenge() if role is None else Actor(role.value, role)


async def _is_our_form(request: web.Request, actor: Actor) -> bool:
    if site_of(request) is not Site.OWN:
        return False
    given = request.headers.get(CSRF_HEADER)
    if given is None:
        given = (await form_of(request)).get(CSRF_FIELD, "")
    return hmac.compare_digest(given.encode("utf-8", "replace"), (actor.csrf or "").encode())


async def _ask_for_login(request: web.Request) -> web.Response:
    if _is_api(request):
        return _challenge()
    back = await _page_of(request)
    return web.Response(status=303, headers={"Location": f"/login?{urlencode({'next': back})}"})


async def _page_of(request: web.Request) -> str:
    """Where what was to be changed is asked for again: the page of its address, or of what it belongs to."""
    own = request.rel_url
    parts = own.raw_path.split("/")
    parents = [URL("/".join(parts[:count]), encoded=True) for count in range(len(parts) - 1, 1, -1)]
    for url in (own, *parents):
        opened = await request.app.router.resolve(request.clone(method="GET", rel_url=url))
        if opened.http_exception is None:
            return url.raw_path_qs
    return "/"


def _challenge() -> web.Response:
    response = problem(401, "Unauthorized", "Send the admin token as `Authorization: Bearer TOKEN`.")
    response.headers["WWW-Authenticate"] = 'Bearer realm="pleo-proxy admin"'
    return response


def _refuse(request: web.Request, status: int, text: str) -> web.Response:
    title = HTTPStatus(status).phrase
    if _is_api(request):
        return problem(status, title, text)
    return page("refused.html", status=status, title=title, text=text)


def _is_api(request: web.Request) -> bool:
    return request.path.startswith("/api/")


def _bearer(request: web.Request) -> Secret | None:
    """The bearer token of a request (RFC 6750 section 2.1)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return Secret(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
