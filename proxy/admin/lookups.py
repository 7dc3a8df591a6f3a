"""``/api/v1/audit``, ``…/settings``, ``…/traffic``: trail, settings and requests, as the pages show them."""

from __future__ import annotations

from dataclasses import asdict
from math import isinf
from typing import Any

from aiohttp import web

from proxy import listing
from proxy.admin.operations import Operation
from proxy.admin.services import SERVICES
from proxy.admin.shapes import (
    AuditQuery,
    AuditRecord,
    Counted,
    Nothing,
    Setting,
    TenantsTraffic,
    Traffic,
)
from proxy.audit import as_row
from proxy.model import Role
from proxy.store.trail import NO_END
from proxy.telemetry import trend


def operations() -> list[Operation[Any, Any]]:
    """Operations of this module."""
    return [
        Operation(
            id="listAuditRecords",
            method="GET",
            path="/api/v1/audit",
            role=Role.VIEWER,
            summary="List the newest records of the audit trail",
            description="The oldest of them first. `pleo-proxy audit verify` looks at their links.",
            asks=AuditQuery,
            handler=_audit,
            answer=list[AuditRecord],
        ),
        Operation(
            id="showTraffic",
            method="GET",
            path="/api/v1/traffic",
            role=Role.VIEWER,
            summary="Show what callers have sent",
            description="The numbers of the charts, and those beside them. Monitoring takes `/metrics`.",
            handler=_traffic,
            answer=Traffic,
        ),
        Operation(
            id="listSettings",
            method="GET",
            path="/api/v1/settings",
            role=Role.VIEWER,
            summary="List all settings as they are in force",
            handler=_settings,
            answer=list[Setting],
        ),
    ]


async def _audit(request: web.Request, asked: AuditQuery) -> list[AuditRecord]:
    before = NO_END if asked.before is None else asked.before
    trail = request.app[SERVICES].store.trail
    events = (asked.event or "").split() or None
    found = await trail.newest(asked.most, asked.tenant, events, before=before)
    rows = (as_row(record) | {"at": listing.instant(record.entry.at)} for record in found)
    return [AuditRecord.model_validate(row) for row in rows]


async def _settings(request: web.Request, _: Nothing) -> list[Setting]:
    return [Setting(**asdict(setting)) for setting in request.app[SERVICES].settings]


async def _traffic(request: web.Request, _: Nothing) -> Traffic:
    services = request.app[SERVICES]
    known, counted, followed = await services.store.tenants(), services.traffic(), services.trend
    recent = followed.of(known)
    return Traffic(
        since=listing.instant(counted.since),
        last_hour=[_counted(each) for each in followed.minutes()],
        last_minute_ended_at=listing.instant(followed.sampled_at),
        tenants=[
            TenantsTraffic(
                tenant=name,
                requests=counted.by_tenant[name].requests,
                failed=counted.by_tenant[name].failed,
                failures=dict(counted.by_tenant[name].failures),
                last_hour=[_counted(each) for each in of_late.steps],
                p50_ms=_ms(of_late.p50_s),
                p99_ms=_ms(of_late.p99_s),
            )
            for name, of_late in recent.items()
            if name in counted.by_tenant
        ],
    )


def _counted(each: trend.Counted) -> Counted:
    return Counted(requests=each.requests, failed=each.failed)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None or isinf(seconds) else round(seconds * 1000, 3)
