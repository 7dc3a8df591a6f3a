"""Pages: the overview, a page for each problem type, and the way to connect a tenant again."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

from proxy import listing
from proxy.admin.answers import page
from proxy.admin.services import SERVICES
from proxy.errors import REFUSALS
from proxy.model import Secret
from proxy.store import TenantGone

_STYLE = files("proxy.admin").joinpath("templates", "style.css").read_text("utf-8")
_BY_NAME = {refusal.name: refusal for refusal in REFUSALS}


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [
        web.get("/", _overview),
        web.get("/style.css", _style),
        web.get("/problems/{name}", _problem),
        web.get("/tenants/{tenant}/connect", _ask_to_connect),
        web.post("/tenants/{tenant}/connect", _connect),
    ]


async def _overview(_request: web.Request) -> web.Response:
    return page("overview.html")


async def _style(_request: web.Request) -> web.Response:
    return web.Response(text=_STYLE, content_type="text/css")


async def _problem(request: web.Request) -> web.Response:
    refusal = _BY_NAME.get(request.match_info["name"])
    if refusal is None:
        raise web.HTTPNotFound
    return page("problem.html", refusal=refusal, why=refusal.__doc__)


async def _ask_to_connect(request: web.Request) -> web.Response:
    return page("connect_tenant.html", tenant=request.match_info["tenant"], link=None, fault=None)


async def _connect(request: web.Request) -> web.Response:
    """Make a link for whoever has the admin token; it is asked for each time, so no session is needed."""
    services = request.app[SERVICES]
    tenant = request.match_info["tenant"]
    token = await _form_token(request)
    if token is None or not services.is_admin_token(token):
        fault = "That is not the admin token."
        return page("connect_tenant.html", status=403, tenant=tenant, link=None, fault=fault)
    try:
        url, expires_at = await services.make_link(tenant)
    except TenantGone:
        fault = "There is no tenant of this name."
        return page("connect_tenant.html", status=404, tenant=tenant, link=None, fault=fault)
    expires = listing.instant(expires_at)
    return page("connect_tenant.html", tenant=tenant, link=url.reveal(), expires_at=expires, fault=None)


async def _form_token(request: web.Request) -> Secret | None:
    """The token of the page's form; ``None`` where there is none or the body is no form."""
    try:
        token = (await request.post()).get("token")
    except (ValueError, LookupError, web.RequestPayloadError):  # bytes or a charset that make no text
        return None
    return Secret(token.strip()) if isinstance(token, str) else None
