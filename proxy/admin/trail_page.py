"""``/audit``: the newest records of the audit trail, or of those of a tenant or of events, page by page."""

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
from proxy.store.trail import NO_END

PAGE_RECORDS = 100
_LONGEST = 400
"""Of a filter: several events."""
_LONGEST_NUMBER = 15


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [web.get("/audit", require(Role.VIEWER)(_audit))]


async def _audit(request: web.Request) -> web.Response:
    trail = request.app[SERVICES].store.trail
    tenant, event = (request.query.get(name, "").strip()[:_LONGEST] for name in ("tenant", "event"))
    before = _number(request.query.get("before", ""))
    found = await trail.newest(
        PAGE_RECORDS + 1, tenant or None, event.split() or None, before=NO_END if before is None else before
    )
    records = found[-PAGE_RECORDS:]
    has_more = len(found) > len(records)
    return page(
        "audit.html",
        actor=actor_of(request),
        rows=[_row(record) for record in reversed(records)],
        tenant=tenant,
        event=event,
        is_newest=before is None,
        earlier=address(tenant=tenant, event=event, before=str(records[0].number)) if has_more else None,
    )


def address(**wanted: str) -> str:
    """Where records are listed: of a ``tenant``, of an ``event`` or several, ``before`` a number."""
    return f"/audit?{urlencode({name: value for name, value in wanted.items() if value})}"


def _number(text: str) -> int | None:
    is_one = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
    return int(text) if is_one else None


def _row(record: Record) -> dict[str, Any]:
    row = as_row(record)
    details = [(name.replace("_", " "), _told(name, value)) for name, value in row["details"].items()]
    return {**row, "at": listing.instant(row["at"]), "details": details}


def _told(name: str, value: object) -> str:
    match value:
        case float() if name.endswith("_at"):
            return str(listing.instant(value))
        case str():
            return value
        case list() if all(isinstance(each, str) for each in value):
            return ", ".join(value) or "none"
        case _:
            return orjson.dumps(value).decode()
