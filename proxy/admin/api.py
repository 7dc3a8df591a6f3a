"""The JSON API under ``/api/v1``: what the command line lists and does, for holders of the admin token."""

from __future__ import annotations

from aiohttp import web

from proxy import listing
from proxy.admin.answers import Handler, bearer, data, problem
from proxy.admin.services import SERVICES
from proxy.store import TenantGone


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [
        web.get("/api/v1/tenants", _authenticated(_tenants)),
        web.get("/api/v1/grants", _authenticated(_grants)),
        web.post("/api/v1/tenants/{tenant}/connect", _authenticated(_connect)),
    ]


def _authenticated(handler: Handler) -> Handler:
    async def check(request: web.Request) -> web.StreamResponse:
        token = bearer(request)
        if token is None or not request.app[SERVICES].is_admin_token(token):
            response = problem(401, "Unauthorized", "Send the admin token as `Authorization: Bearer TOKEN`.")
            response.headers["WWW-Authenticate"] = 'Bearer realm="pleo-proxy admin"'
            return response
        return await handler(request)

    return check


async def _tenants(request: web.Request) -> web.Response:
    store = request.app[SERVICES].store
    return data(listing.tenants((await store.tenants()).values(), await store.grants()))


async def _grants(request: web.Request) -> web.Response:
    store = request.app[SERVICES].store
    return data(listing.grants((await store.tenants()).values(), await store.grants()))


async def _connect(request: web.Request) -> web.Response:
    tenant = request.match_info["tenant"]
    try:
        url, expires_at = await request.app[SERVICES].make_link(tenant)
    except TenantGone:
        return problem(404, "Not Found", f"There is no tenant {tenant!r}.")
    made = {"tenant": tenant, "url": url.reveal(), "expires_at": listing.instant(expires_at)}
    return data(made, status=201)
