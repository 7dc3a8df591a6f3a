"""The JSON API under ``/api/v1``: what the command line lists and does, for who has a token or a session."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy import listing
from proxy.admin.access import actor_of
from proxy.admin.operations import Operation
from proxy.admin.services import SERVICES
from proxy.admin.shapes import GrantRow, Link, Nothing, ReloadReport, TenantRow, TenantsPolicy, Waiting
from proxy.model import Role, Tenant
from proxy.store import TenantGone

_NO_TENANT = {404: "There is no tenant of this name."}


def operations() -> list[Operation[Any, Any]]:
    """Operations of this module."""
    return [*_reading(), *_changing()]


def _reading() -> list[Operation[Any, Any]]:
    return [
        Operation(
            id="listTenants",
            method="GET",
            path="/api/v1/tenants",
            role=Role.VIEWER,
            summary="List all tenants",
            handler=_tenants,
            answer=list[TenantRow],
        ),
        Operation(
            id="showTenant",
            method="GET",
            path="/api/v1/tenants/{tenant}",
            role=Role.VIEWER,
            summary="Show a tenant",
            handler=_tenant,
            answer=TenantRow,
            refuses=_NO_TENANT,
        ),
        Operation(
            id="showPolicy",
            method="GET",
            path="/api/v1/tenants/{tenant}/policy",
            role=Role.VIEWER,
            summary="Show a tenant's policy, and the one on trial",
            handler=_policy,
            answer=TenantsPolicy,
            refuses=_NO_TENANT,
        ),
        Operation(
            id="listGrants",
            method="GET",
            path="/api/v1/grants",
            role=Role.VIEWER,
            summary="List the grant of every tenant",
            handler=_grants,
            answer=list[GrantRow],
        ),
        Operation(
            id="showGrant",
            method="GET",
            path="/api/v1/grants/{tenant}",
            role=Role.VIEWER,
            summary="Show a tenant's grant",
            handler=_grant,
            answer=GrantRow,
            refuses=_NO_TENANT,
        ),
    ]


def _changing() -> list[Operation[Any, Any]]:
    return [
        Operation(
            id="connectTenant",
            method="POST",
            path="/api/v1/tenants/{tenant}/connect",
            role=Role.OPERATOR,
            summary="Make a connect link",
            description="It works once, for a day. A person at the tenant's company opens it and approves.",
            handler=_connect,
            answer=Link,
            status=201,
            refuses=_NO_TENANT,
        ),
        Operation(
            id="refreshTokens",
            method="POST",
            path="/api/v1/tenants/{tenant}/refresh",
            role=Role.OPERATOR,
            summary="Refresh a tenant's tokens now",
            description="Waits for the outcome. Callers notice nothing.",
            handler=_refresh,
            answer=GrantRow,
            refuses={
                **_NO_TENANT,
                409: "The tenant has no tokens.",
                502: "The refresh failed; the detail says why, and what follows.",
            },
        ),
        Operation(
            id="enableTenant",
            method="POST",
            path="/api/v1/tenants/{tenant}/enable",
            role=Role.OPERATOR,
            summary="Let callers use a tenant again",
            handler=_enable,
            answer=TenantRow,
            refuses=_NO_TENANT,
        ),
        Operation(
            id="disableTenant",
            method="POST",
            path="/api/v1/tenants/{tenant}/disable",
            role=Role.OPERATOR,
            summary="Refuse a tenant's callers",
            description="Its grant is kept, and kept alive.",
            handler=_disable,
            answer=TenantRow,
            refuses=_NO_TENANT,
        ),
        Operation(
            id="reloadConfiguration",
            method="POST",
            path="/api/v1/reload",
            role=Role.OPERATOR,
            summary="Read the configuration again",
            description="As SIGHUP does. Nothing is interrupted. With mistakes nothing is taken up.",
            handler=_reload,
            answer=ReloadReport,
            refuses={
                409: "The configuration has mistakes; the detail has all of them, and nothing was taken up.",
                502: "A process did not take it up; the detail says which.",
            },
        ),
        Operation(
            id="revokeGrant",
            method="POST",
            path="/api/v1/grants/{tenant}/revoke",
            role=Role.OPERATOR,
            summary="Erase a tenant's tokens",
            description="Here, that is: at Pleo they end when they expire. Connecting it again needs a new "
            "consent.",
            handler=_revoke,
            answer=GrantRow,
            refuses={**_NO_TENANT, 409: "The tenant was never connected."},
        ),
    ]


async def _tenants(request: web.Request, _: Nothing) -> list[TenantRow]:
    store = request.app[SERVICES].store
    rows = listing.tenants((await store.tenants()).values(), await store.grants())
    return [TenantRow.model_validate(row) for row in rows]


async def _tenant(request: web.Request, _: Nothing) -> TenantRow:
    rows = listing.tenants([await _named(request)], await request.app[SERVICES].store.grants())
    return TenantRow.model_validate(rows[0])


async def _policy(request: web.Request, _: Nothing) -> TenantsPolicy:
    tenant = await _named(request)
    trial = None if tenant.trial is None else asdict(tenant.trial)
    return TenantsPolicy.model_validate({"tenant": tenant.name, **asdict(tenant.policy), "trial": trial})


async def _grants(request: web.Request, _: Nothing) -> list[GrantRow]:
    store = request.app[SERVICES].store
    rows = listing.grants((await store.tenants()).values(), await store.grants())
    return [GrantRow.model_validate(row) for row in rows]


async def _grant(request: web.Request, _: Nothing) -> GrantRow:
    rows = listing.grants([await _named(request)], await request.app[SERVICES].store.grants())
    return GrantRow.model_validate(rows[0])


async def _connect(request: web.Request, _: Nothing) -> Link:
    tenant = request.match_info["tenant"]
    url, expires_at = await request.app[SERVICES].make_link(tenant, actor_of(request).user)
    return Link(tenant=tenant, url=url.reveal(), expires_at=listing.instant(expires_at))


async def _refresh(request: web.Request, asked: Nothing) -> GrantRow:
    await request.app[SERVICES].refresh(request.match_info["tenant"], actor_of(request).user)
    return await _grant(request, asked)


async def _enable(request: web.Request, asked: Nothing) -> TenantRow:
    await request.app[SERVICES].switch(request.match_info["tenant"], actor_of(request).user, enabled=True)
    return await _tenant(request, asked)


async def _disable(request: web.Request, asked: Nothing) -> TenantRow:
    await request.app[SERVICES].switch(request.match_info["tenant"], actor_of(request).user, enabled=False)
    return await _tenant(request, asked)


async def _reload(request: web.Request, _: Nothing) -> ReloadReport:
    report = await request.app[SERVICES].reload_configuration(actor_of(request).user)
    waiting = [Waiting(key=key, why=why) for key, why in report.needs_restart.items()]
    return ReloadReport(source=report.source, changed=list(report.changed), needs_restart=waiting)


async def _revoke(request: web.Request, asked: Nothing) -> GrantRow:
    await request.app[SERVICES].revoke(request.match_info["tenant"], actor_of(request).user)
    return await _grant(request, asked)


async def _named(request: web.Request) -> Tenant:
    """The tenant that the path names.

    :raises TenantGone: there is none.
    """
    name = request.match_info["tenant"]
    tenant = (await request.app[SERVICES].store.tenants()).get(name)
    if tenant is None:
        raise TenantGone(name)
    return tenant
