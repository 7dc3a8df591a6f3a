"""The JSON API under ``/api/v1``: what the command line lists and does, for who has a token or a session."""

from __future__ import annotations

from aiohttp import web

from proxy import listing
from proxy.admin.access import actor_of, require
from proxy.admin.answers import data, problem
from proxy.admin.services import SERVICES
from proxy.model import Role
from proxy.store import TenantGone


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    view, change = require(Role.VIEWER), require(Role.OPERATOR)
    return [
        web.get("/api/v1/tenants", view(_tenants)),
        web.get("/api/v1/grants", view(_grants)),
        web.post("/api/v1/tenants/{tenant}/connect", change(_connect)),
    ]


async def _tenants(request: web.Request) -> web.Response:
    store = request.app[SERVICES].store
    return data(listing.tenants((await store.tenants()).values(), await store.grants()))


async def _grants(request: web.Request) -> web.Response:
    store = request.app[SERVICES].store
    return data(listing.grants((await store.tenants()).values(), await store.grants()))


async def _connect(request: web.Request) -> web.Response:
    tenant = request.match_info["tenant"]
    try:
        url, expires_at = await request.app[SERVICES].make_link(tenant, actor_of(request).user)
    except TenantGone:
        return problem(404, "Not Found", f"There is no tenant {tenant!r}.")
    made = {"tenant": tenant, "url": url.reveal(), "expires_at": listing.instant(expires_at)}
    return data(made, status=201)
