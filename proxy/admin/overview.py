"""``/``: all tenants at a glance, those first that need somebody, a page at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from aiohttp import web

from proxy import listing
from proxy.admin import charts, words
from proxy.admin.access import actor_of, require
from proxy.admin.answers import page
from proxy.admin.charts import Chart
from proxy.admin.services import SERVICES
from proxy.admin.words import Health, Tone
from proxy.model import Grant, Role, Tenant
from proxy.telemetry.metrics import NO_TRAFFIC, TrafficSince
from proxy.telemetry.trend import Recent

PAGE_ROWS = 100
_ATTENTION = "attention"
_ORDER = {Tone.BAD: 0, Tone.WARN: 1, Tone.GOOD: 2, Tone.OFF: 3}


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [web.get("/", require(Role.VIEWER)(_overview))]


@dataclass(frozen=True, slots=True)
class Row:
    """A tenant on the overview."""

    name: str
    company: str | None
    health: Health
    refreshed: str
    refreshed_at: str | None
    token: str
    reauth: str
    requests: int
    per_minute: str
    failed: str
    took: str
    """Half of the requests, and 99 of a hundred."""
    chart: Chart | None


async def _overview(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    now = services.clock()
    tenants, grants = await services.store.tenants(), await services.store.grants()
    healths = {
        tenant.name: words.health(tenant, grants.get(tenant.name), now=now, warn_s=services.warn_s)
        for tenant in tenants.values()
    }
    text, wanted = request.query.get("q", "").strip(), request.query.get("state", "")
    found = [tenant for tenant in tenants.values() if _matches(tenant, healths[tenant.name], text, wanted)]
    found.sort(key=lambda tenant: (_ORDER[healths[tenant.name].tone], tenant.name))
    pages = max(1, -(-len(found) // PAGE_ROWS))
    number = _page_number(request.query.get("page", ""), pages)
    traffic = services.traffic()
    shown = found[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]
    recent = services.trend.of(tenant.name for tenant in shown)
    return page(
        "overview.html",
        actor=actor_of(request),
        rows=[
            _row(tenant, grants.get(tenant.name), healths[tenant.name], traffic, recent.get(tenant.name), now)
            for tenant in shown
        ],
        chart=charts.of_minutes(services.trend.minutes()) if services.trend.minutes() else None,
        counted=_counted(healths),
        total=len(tenants),
        found=len(found),
        since=listing.instant(traffic.since),
        text=text,
        wanted=wanted,
        states=sorted({health.word for health in healths.values()} | ({wanted} - {"", _ATTENTION})),
        number=number,
        pages=pages,
        earlier=_address(text, wanted, number - 1) if number > 1 else None,
        later=_address(text, wanted, number + 1) if number < pages else None,
    )


def _matches(tenant: Tenant, health: Health, text: str, wanted: str) -> bool:
    if wanted and wanted != health.word and not (wanted == _ATTENTION and health.needs_attention):
        return False
    return text.lower() in tenant.name or (text.lower() in (tenant.company or ""))


def _page_number(text: str, pages: int) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 1
    return min(max(number, 1), pages)


def _address(text: str, wanted: str, number: int) -> str:
    given = {"q": text, "state": wanted, "page": str(number)}
    return "/?" + urlencode({name: value for name, value in given.items() if value})


def _counted(healths: Mapping[str, Health]) -> list[tuple[str, Tone, int, str]]:
    """Each state with how many tenants are in it, the worst first, and where these are listed."""
    counts = Counter((health.word, health.tone) for health in healths.values())
    ordered = sorted(counts.items(), key=lambda item: (_ORDER[item[0][1]], item[0][0]))
    return [(word, tone, count, "/?" + urlencode({"state": word})) for (word, tone), count in ordered]


def _row(  # noqa: PLR0917 - all that a row shows
    tenant: Tenant,
    grant: Grant | None,
    health: Health,
    counted: TrafficSince,
    recent: Recent | None,
    now: float,
) -> Row:
    traffic = counted.by_tenant.get(tenant.name, NO_TRAFFIC)
    refreshed_at = None if grant is None else grant.last_refreshed_at
    return Row(
        tenant.name,
        tenant.company,
        health,
        words.ago(refreshed_at, now),
        listing.instant(refreshed_at),
        words.token_age(grant, now),
        words.until_reauth(grant, now),
        traffic.requests,
        words.per_minute(traffic.requests, now - counted.since),
        words.share(traffic.failed, traffic.requests),
        "—" if recent is None else f"{words.took(recent.p50_s)} / {words.took(recent.p99_s)}",
        None if recent is None else charts.of_steps(recent.steps),
    )
