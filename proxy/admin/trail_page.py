"""``/audit``: the newest records of the audit trail, page by page; of a tenant or event the last hundred."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import orjson
from aiohttp import web

from proxy import listing
from proxy.admin.access import actor_of, require
from proxy.admin.answers import page
from proxy.admin.services import SERVICES
from proxy.audit import as_row
from proxy.chain import Record
from proxy.model import Role
from proxy.store import Trail

PAGE_RECORDS = 100
_LONGEST_NUMBER = 15


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [web.get("/audit", require(Role.VIEWER)(_audit))]


async def _audit(request: web.Request) -> web.Response:
    trail = request.app[SERVICES].store.trail
    tenant, event = (request.query.get(name, "").strip()[:100] for name in ("tenant", "event"))
    before = _number(request.query.get("before", ""))
    if tenant or event or before is None:
        records = await trail.newest(PAGE_RECORDS, tenant or None, event or None)
    else:
        records = await _before(trail, before)
    oldest = records[0].number if records else 1
    return page(
        "audit.html",
        actor=actor_of(request),
        rows=[_row(record) for record in reversed(records)],
        tenant=tenant,
        event=event,
        is_newest=before is None,
        # Of one tenant or event there is no next page: the command lists as many as are asked for.
        earlier=f"/audit?{urlencode({'before': oldest})}" if oldest > 1 and not (tenant or event) else None,
    )


async def _before(trail: Trail, before: int) -> list[Record]:
    """The records before a number, without gaps for as long as nothing was pruned."""
    found = await trail.page(max(0, before - 1 - PAGE_RECORDS))
    return [record for record in found if record.number < before][:PAGE_RECORDS]


def _number(text: str) -> int | None:
    is_one = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
    return int(text) if is_one else None


def _row(record: Record) -> dict[str, Any]:
    row = as_row(record)
    details = [(name.replace("_", " "), _told(value)) for name, value in row["details"].items()]
    return {**row, "at": listing.instant(row["at"]), "details": details}


def _told(value: object) -> str:
    match value:
        case str():
            return value
        case list() if all(isinstance(each, str) for each in value):
            return ", ".join(value) or "none"
        case _:
            return orjson.dumps(value).decode()
