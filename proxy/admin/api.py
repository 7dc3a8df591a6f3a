"""The JSON API under ``/api/v1``: what the command line lists and does, for who has a token or a session."""

from __future__ import annotations

from aiohttp import web

from proxy import listing
from proxy.admin.access import actor_of, require
from proxy.admin.answers import data, problem
from proxy.admin.services import SERVICES
from proxy.errors import OperatorError, TenantError
from proxy.model import Role
from proxy.store import TenantGone


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    view, change = require(Role.VIEWER), require(Role.OPERATOR)
    return [
        web.get("/api/v1/tenants", view(_tenants)),
        web.get("/api/v1/grants", view(_grants)),
        web.post("/api/v1/tenants/{tenant}/connect", change(_connect)),
        web.post("/api/v1/tenants/{tenant}/refresh", change(_refresh)),
        web.post("/api/v1/tenants/{tenant}/enable", change(_enable)),
        web.post("/api/v1/tenants/{tenant}/disable", change(_disable)),
        web.post("/api/v1/grants/{tenant}/revoke", change(_revoke)),
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
        return _no_tenant(tenant)
    made = {"tenant": tenant, "url": url.reveal(), "expires_at": listing.instant(expires_at)}
    return data(made, status=201)


async def _refresh(request: web.Request) -> web.Response:
    """The tokens are refreshed, and the answer is the grant; or what kept them from it."""
    tenant = request.match_info["tenant"]
    try:
        await request.app[SERVICES].refresh(tenant, actor_of(request).user)
    except TenantGone:
        return _no_tenant(tenant)
    except TenantError as error:
        return problem(409, "Conflict", str(error))
    except OperatorError as error:
        return problem(502, "Bad Gateway", str(error))
    return await _grant(request, tenant)


async def _enable(request: web.Request) -> web.Response:
    return await _switch(request, enabled=True)


async def _disable(request: web.Request) -> web.Response:
    return await _switch(request, enabled=False)


async def _switch(request: web.Request, *, enabled: bool) -> web.Response:
    name, services = request.match_info["tenant"], request.app[SERVICES]
    try:
        await services.switch(name, actor_of(request).user, enabled=enabled)
    except TenantGone:
        return _no_tenant(name)
    rows = listing.tenants((await services.store.tenants()).values(), await services.store.grants())
    return _row(rows, "name", name)


async def _revoke(request: web.Request) -> web.Response:
    tenant = request.match_info["tenant"]
    try:
        await request.app[SERVICES].revoke(tenant, actor_of(request).user)
    except TenantGone:
        return _no_tenant(tenant)
    except TenantError as error:
        return problem(409, "Conflict", str(error))
    return await _grant(request, tenant)


async def _grant(request: web.Request, tenant: str) -> web.Response:
    store = request.app[SERVICES].store
    return _row(listing.grants((await store.tenants()).values(), await store.grants()), "tenant", tenant)


def _row(rows: list[listing.Row], key: str, name: str) -> web.Response:
    found = [row for row in rows if row[key] == name]
    return data(found[0]) if found else _no_tenant(name)


def _no_tenant(name: str) -> web.Response:
    return problem(404, "Not Found", f"There is no tenant {name!r}.")
