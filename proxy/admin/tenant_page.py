"""``/tenants/NAME``: all that there is to know of one tenant, how callers reach it, what can be done."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from proxy import listing
from proxy.admin import charts, words
from proxy.admin.access import actor_of, require
from proxy.admin.answers import page
from proxy.admin.history import AUTHORISATIONS, REFRESHES, told
from proxy.admin.links import link_row
from proxy.admin.services import SERVICES
from proxy.admin.trail_page import address
from proxy.admin.ways import ways_of
from proxy.audit import as_row
from proxy.chain import Record
from proxy.config.values import origin_of
from proxy.errors import REFUSALS, OperatorError, TenantError
from proxy.model import Grant, Role, Tenant
from proxy.store import TenantGone
from proxy.telemetry.metrics import NO_TRAFFIC

_REFUSALS = 10
_EXPLAINED = frozenset(refusal.name for refusal in REFUSALS)
"""Outcomes that have a page of their own."""
_HISTORY = 8
"""Of each kind; the audit page has the rest."""
_DONE = {
    "refreshed": "The tokens are new.",
    "enabled": "Callers are served again.",
    "disabled": "Callers are refused from now on.",
    "revoked": "The tokens are erased.",
}
"""What the page says after an action."""


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    view, change = require(Role.VIEWER), require(Role.OPERATOR)
    return [
        web.get("/tenants/{tenant}", view(_tenant)),
        web.post("/tenants/{tenant}/refresh", change(_refresh)),
        web.post("/tenants/{tenant}/enable", change(_enable)),
        web.post("/tenants/{tenant}/disable", change(_disable)),
        web.get("/tenants/{tenant}/revoke", view(_ask_to_revoke)),
        web.post("/tenants/{tenant}/revoke", change(_revoke)),
    ]


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests that were refused alike within a minute."""

    at: str | None
    name: str
    caller: str
    count: int
    request_id: str


async def _tenant(request: web.Request) -> web.Response:
    return await _show(request)


async def _refresh(request: web.Request) -> web.Response:
    actor, name = actor_of(request), request.match_info["tenant"]
    return await _do(request, "refreshed", request.app[SERVICES].refresh(name, actor.user))


async def _enable(request: web.Request) -> web.Response:
    actor, name = actor_of(request), request.match_info["tenant"]
    return await _do(request, "enabled", request.app[SERVICES].switch(name, actor.user, enabled=True))


async def _disable(request: web.Request) -> web.Response:
    actor, name = actor_of(request), request.match_info["tenant"]
    return await _do(request, "disabled", request.app[SERVICES].switch(name, actor.user, enabled=False))


async def _ask_to_revoke(request: web.Request) -> web.Response:
    name = request.match_info["tenant"]
    if name not in await request.app[SERVICES].store.tenants():
        return _not_there(request)
    return page("revoke.html", actor=actor_of(request), tenant=name)


async def _revoke(request: web.Request) -> web.Response:
    actor, name = actor_of(request), request.match_info["tenant"]
    return await _do(request, "revoked", request.app[SERVICES].revoke(name, actor.user))


async def _do(request: web.Request, done: str, action: Awaitable[None]) -> web.Response:
    """Carry out an action, then lead to the tenant's page, so that loading that again does nothing twice."""
    try:
        await action
    except TenantGone:
        return _not_there(request)
    except TenantError as error:
        return await _show(request, status=409, fault=str(error))
    except OperatorError as error:
        return await _show(request, status=502, fault=str(error))
    where = f"/tenants/{request.match_info['tenant']}?done={done}"
    return web.Response(status=303, headers={"Location": where})


def _not_there(request: web.Request) -> web.Response:
    text = "There is no tenant of this name."
    return page("refused.html", status=404, actor=actor_of(request), title="Not found", text=text)


async def _show(request: web.Request, *, status: int = 200, fault: str | None = None) -> web.Response:
    services, name = request.app[SERVICES], request.match_info["tenant"]
    tenant = (await services.store.tenants()).get(name)
    if tenant is None:
        return _not_there(request)
    grant, now = await services.store.grant(name), services.clock()
    trail = services.store.trail
    refused = await trail.newest(_REFUSALS, name, "request.finished")
    refreshes = await trail.newest(_HISTORY, name, REFRESHES)
    authorisations = await trail.newest(_HISTORY, name, AUTHORISATIONS)
    traffic = services.traffic()
    own = traffic.by_tenant.get(name, NO_TRAFFIC)
    recent = services.trend.of([name]).get(name)
    return page(
        "tenant.html",
        status=status,
        actor=actor_of(request),
        fault=fault,
        done=_DONE.get(request.query.get("done", "")),
        has_tokens=grant is not None and grant.refresh is not None,
        tenant=tenant,
        health=words.health(tenant, grant, now=now, warn_s=services.warn_s),
        grant=_grant(tenant, grant, now),
        ways=ways_of(tenant, services.doors(), host=origin_of(services.public_url).host),
        policy=_policy(tenant),
        requests=own.requests,
        per_minute=words.per_minute(own.requests, now - traffic.since),
        failed=own.failed,
        failures=[(outcome, count, outcome in _EXPLAINED) for outcome, count in own.failures.items()],
        share=words.share(own.failed, own.requests),
        since=listing.instant(traffic.since),
        chart=None if recent is None else charts.of_steps(recent.steps),
        p50="" if recent is None else words.took(recent.p50_s),
        p99="" if recent is None else words.took(recent.p99_s),
        refused=[_refused(record) for record in reversed(refused)],
        links=[link_row(link, now) for link in await services.store.links(name)],
        refreshes=list(map(told, reversed(refreshes))),
        authorisations=list(map(told, reversed(authorisations))),
        all_refusals=address(tenant=name, event="request.finished"),
        all_refreshes=address(tenant=name, event=" ".join(REFRESHES)),
        all_authorisations=address(tenant=name, event=" ".join(AUTHORISATIONS)),
    )


def _grant(tenant: Tenant, grant: Grant | None, now: float) -> list[tuple[str, str, str | None]]:
    """What is known of the grant: a term, words, and the instant where there is one."""
    company = tenant.company or "settled by the first consent"
    if grant is None:
        return [("Company", company, None)]
    outcome = grant.last_outcome.value if grant.last_outcome is not None else "none"
    return [
        ("Company", grant.company or company, None),
        ("Last refresh", words.ago(grant.last_refreshed_at, now), listing.instant(grant.last_refreshed_at)),
        ("Outcome of the last try", outcome, None),
        (
            "Age of the access token, and its end",
            words.token_age(grant, now),
            listing.instant(grant.access_expires_at),
        ),
        (
            "Until re-authentication",
            words.until_reauth(grant, now),
            listing.instant(grant.refresh_expires_at),
        ),
        ("Generation", str(grant.generation), None),
        ("Scopes", listing.shown(grant.scopes), None),
    ]


def _policy(tenant: Tenant) -> list[tuple[str, str, str | None]]:
    """Each field of the policy: in force, and on trial where that differs."""
    tried: dict[str, Any] = {} if tenant.trial is None else asdict(tenant.trial)
    rows = []
    for name, value in asdict(tenant.policy).items():
        on_trial = tried.get(name, value)
        rows.append((name.replace("_", " "), _told(value), _told(on_trial) if on_trial != value else None))
    return rows


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "as the settings say"
    return listing.shown(value)


def _refused(record: Record) -> Refused:
    details = as_row(record)["details"]
    return Refused(
        listing.instant(record.entry.at),
        str(details.get("outcome", "")),
        str(details.get("caller", "")),
        int(details.get("count", 1)),
        str(details.get("first_request_id", "")),
    )
