"""``/api/v1/audit`` and ``/api/v1/settings``: the trail and the settings in force, as the pages show them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy import listing
from proxy.admin.operations import Operation
from proxy.admin.services import SERVICES
from proxy.admin.shapes import AuditQuery, AuditRecord, Nothing, Setting
from proxy.audit import as_row
from proxy.model import Role
from proxy.store.trail import NO_END


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
