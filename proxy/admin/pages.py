"""Pages: the style, pages about the problem types, and the way to connect a tenant again."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

from proxy import listing
from proxy.admin.access import actor_of, require
from proxy.admin.answers import page
from proxy.admin.remedies import FOR_OPERATORS
from proxy.admin.services import SERVICES
from proxy.errors import REFUSALS
from proxy.model import Role
from proxy.store import TenantGone

_STYLE = files("proxy.admin").joinpath("templates", "style.css").read_text("utf-8")
_BY_NAME = {refusal.name: refusal for refusal in REFUSALS}


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    view, change = require(Role.VIEWER), require(Role.OPERATOR)
    return [
        web.get("/style.css", _style),
        web.get("/problems", _problems),
        web.get("/problems/{name}", _problem),
        web.get("/tenants/{tenant}/connect", view(_ask_to_connect)),
        web.post("/tenants/{tenant}/connect", change(_connect)),
    ]


async def _style(_request: web.Request) -> web.Response:
    return web.Response(text=_STYLE, content_type="text/css")


async def _problem(request: web.Request) -> web.Response:
    refusal = _BY_NAME.get(request.match_info["name"])
    if refusal is None:
        raise web.HTTPNotFound
    for_operators = FOR_OPERATORS[refusal.name]
    return page("problem.html", refusal=refusal, why=refusal.__doc__, for_operators=for_operators)


async def _problems(_request: web.Request) -> web.Response:
    return page(
        "problems.html", refusals=sorted(REFUSALS, key=lambda refusal: (refusal.status, refusal.name))
    )


async def _ask_to_connect(request: web.Request) -> web.Response:
    return _connect_page(request)


async def _connect(request: web.Request) -> web.Response:
    try:
        tenant, user = request.match_info["tenant"], actor_of(request).user
        url, expires_at = await request.app[SERVICES].make_link(tenant, user)
    except TenantGone:
        return _connect_page(request, status=404, fault="There is no tenant of this name.")
    return _connect_page(request, link=url.reveal(), expires_at=listing.instant(expires_at))


def _connect_page(
    request: web.Request,
    *,
    status: int = 200,
    link: str | None = None,
    expires_at: str | None = None,
    fault: str | None = None,
) -> web.Response:
    return page(
        "connect_tenant.html",
        status=status,
        actor=actor_of(request),
        tenant=request.match_info["tenant"],
        link=link,
        expires_at=expires_at,
        fault=fault,
    )
