"""``/tenants/NAME``: all that there is to know of one tenant, and how its callers reach the proxy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson
from aiohttp import web

from proxy import listing
from proxy.admin import words
from proxy.admin.access import actor_of, require
from proxy.admin.answers import page
from proxy.admin.services import SERVICES
from proxy.admin.ways import ways_of
from proxy.chain import Record
from proxy.config.values import origin_of
from proxy.model import Grant, Role, Tenant
from proxy.telemetry.metrics import NO_TRAFFIC

_REFUSALS = 10


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [web.get("/tenants/{tenant}", require(Role.VIEWER)(_tenant))]


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests that were refused alike within a minute."""

    at: str | None
    name: str
    caller: str
    count: int
    request_id: str


async def _tenant(request: web.Request) -> web.Response:
    services, name = request.app[SERVICES], request.match_info["tenant"]
    tenant = (await services.store.tenants()).get(name)
    if tenant is None:
        text = "There is no tenant of this name."
        return page("refused.html", status=404, actor=actor_of(request), title="Not found", text=text)
    grant, now = await services.store.grant(name), services.clock()
    refused = await services.store.trail.newest(_REFUSALS, name, "request.finished")
    traffic = services.traffic()
    own = traffic.by_tenant.get(name, NO_TRAFFIC)
    return page(
        "tenant.html",
        actor=actor_of(request),
        tenant=tenant,
        health=words.health(tenant, grant, now=now, warn_s=services.warn_s),
        grant=_grant(tenant, grant, now),
        ways=ways_of(tenant, services.doors(), host=origin_of(services.public_url).host),
        policy=_policy(tenant),
        requests=own.requests,
        per_minute=words.per_minute(own.requests, now - traffic.since),
        failed=own.failed,
        share=words.share(own.failed, own.requests),
        since=listing.instant(traffic.since),
        refused=[_refused(record) for record in reversed(refused)],
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
    details = orjson.loads(record.entry.details)
    return Refused(
        listing.instant(record.entry.at),
        str(details.get("outcome", "")),
        str(details.get("caller", "")),
        int(details.get("count", 1)),
        str(details.get("first_request_id", "")),
    )
