"""A call to the API and its answer as values, and the pages of a collection.

The resources in :mod:`proxy.sandbox.resources` and its neighbours are functions from :class:`Call` to
:class:`Reply`; they must never see a token or a socket.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .seeds import Record, Table
from .state import State
from .world import Company, World

_CURSOR = re.compile(r"[A-Z2-7=~]+")
_ORDERS = ("ASC", "ASC_NULLS_FIRST", "ASC_NULLS_LAST", "DESC", "DESC_NULLS_FIRST", "DESC_NULLS_LAST")


class ApiError(Exception):
    """An error answer of the API: ``{"type", "message"}`` with a status."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(kind)
        self.status = status
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the company whose credential it is, and what that credential may do."""

    company_id: str
    method: str
    scopes: tuple[str, ...] | None
    """``None`` is an API key, which may do everything."""
    rate_key: str
    """The credential's fingerprint."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, past the gate."""

    state: State
    caller: Caller
    company: Company
    params: tuple[str, ...]
    query: Sequence[tuple[str, str]]
    json: object = None

    @property
    def world(self) -> World:
        """The world that the call reads and changes."""
        return self.state.world

    def first(self, name: str) -> str | None:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), None)

    def all(self, name: str) -> list[str]:
        """All values of a repeated query parameter."""
        return [value for key, value in self.query if key == name]

    def body(self, *required: str) -> dict[str, Any]:
        """The JSON object of the body.

        Raises:
            ApiError: 400 if there is none, 422 if a required field is missing.
        """
        if not isinstance(self.json, dict):
            raise ApiError(400, "BAD_REQUEST", "The body must be a JSON object.")
        for name in required:
            if self.json.get(name) is None:
                raise ApiError(422, "VALIDATION_ERROR", f"The field {name} is required.")
        return self.json


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``body`` is sent as JSON unless it is ``None``."""

    status: int
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Reply]


def data(value: object, status: int = 200) -> Reply:
    """An answer in the envelope that all single resources share."""
    return Reply(status, {"data": value})


def find(table: Table, record_id: str) -> Record:
    """A record of the caller's company.

    Raises:
        ApiError: 404; the record of another company is as unknown as none.
    """
    record = table.get(record_id)
    if record is None:
        raise ApiError(404, "NOT_FOUND", "There is no such resource.")
    return record


def changed(call: Call, record: Record, values: Mapping[str, Any], allowed: Iterable[str]) -> Record:
    """The record after an update of its ``allowed`` fields."""
    record.update({name: values[name] for name in allowed if name in values})
    record["updatedAt"] = call.world.stamp()
    return record


def page(call: Call, records: Iterable[Record]) -> Reply:
    """One page of a collection, by ``before``, ``after`` or ``offset``, ``limit`` and the sorting parameters.

    Raises:
        ApiError: 400 for parameters that are malformed or exclude each other.
    """
    rows = _sorted(call, list(records))
    limit = _limit(call)
    start, end = _window(call, rows, limit)
    chosen = rows[start:end]
    current: dict[str, object] = {"limit": limit, "parameters": _parameters(call)}
    current |= {name: value for name in ("before", "after") if (value := call.first(name)) is not None}
    if call.first("offset") is not None:
        current["offset"] = start
    current |= {"sortingKeys": call.all("sorting_keys"), "sortingOrder": call.all("sorting_order")}
    pagination: dict[str, object] = {
        "hasNextPage": end < len(rows),
        "hasPreviousPage": start > 0,
        "total": len(rows),
        "currentRequestPagination": current,
    }
    if chosen:
        pagination |= {"startCursor": _cursor(chosen[0]), "endCursor": _cursor(chosen[-1])}
    return Reply(200, {"data": chosen, "pagination": pagination})


def _parameters(call: Call) -> dict[str, list[str]]:
    parameters: dict[str, list[str]] = {}
    for name, value in call.query:
        parameters.setdefault(name, []).append(value)
    return parameters


def _limit(call: Call) -> int:
    switches = call.state.switches
    text = call.first("limit")
    limit = switches.default_page_size if text is None else _natural(text, "limit")
    if not 1 <= limit <= switches.max_page_size:
        raise ApiError(400, "BAD_REQUEST", f"limit must be between 1 and {switches.max_page_size}.")
    return limit


def _natural(text: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ApiError(400, "BAD_REQUEST", f"{name} must be a number.")
    return int(text)


def _window(call: Call, rows: list[Record], limit: int) -> tuple[int, int]:
    before, after, offset = call.first("before"), call.first("after"), call.first("offset")
    if sum(value is not None for value in (before, after, offset)) > 1:
        raise ApiError(400, "BAD_REQUEST", "before, after and offset exclude each other.")
    if before is not None:
        end = _position(rows, before)
        return max(0, end - limit), end
    start = 0
    if after is not None:
        start = _position(rows, after) + 1
    elif offset is not None:
        start = min(_natural(offset, "offset"), len(rows))
    return start, min(start + limit, len(rows))


def _key(record: Record) -> str:
    return str(record.get("id") or record["accountingEntryId"])


def _cursor(record: Record) -> str:
    return base64.b32encode(_key(record).encode("ascii")).decode("ascii")


def _position(rows: list[Record], cursor: str) -> int:
    try:
        key = base64.b32decode(cursor).decode("ascii") if _CURSOR.fullmatch(cursor) else ""
    except (binascii.Error, ValueError):
        key = ""
    for index, row in enumerate(rows):
        if _key(row) == key:
            return index
    raise ApiError(400, "BAD_REQUEST", "The cursor is not known.")


def _sorted(call: Call, rows: list[Record]) -> list[Record]:
    keys, orders = call.all("sorting_keys"), call.all("sorting_order")
    if orders and len(orders) != len(keys):
        raise ApiError(400, "BAD_REQUEST", "sorting_order needs one order for each of sorting_keys.")
    if any(order not in _ORDERS for order in orders):
        raise ApiError(400, "BAD_REQUEST", "sorting_order is not one of the known orders.")
    # The last key first: the sort is stable, so the first key decides.
    for key, order in reversed(list(zip(keys, orders or ["ASC"] * len(keys), strict=True))):
        if rows and not any(_sortable(row.get(key)) for row in rows):
            raise ApiError(400, "BAD_REQUEST", "sorting_keys names a field that cannot be sorted by.")
        rows = _sorted_by(rows, key, order)
    return rows


def _sortable(value: object) -> bool:
    return isinstance(value, str | int | float)


def _sorted_by(rows: list[Record], key: str, order: str) -> list[Record]:
    """Sorted by one field; rows without it come last unless the order says first."""
    absent = [row for row in rows if row.get(key) is None]
    present = sorted(
        (row for row in rows if row.get(key) is not None),
        key=lambda row: row[key],
        reverse=order.startswith("DESC"),
    )
    return absent + present if order.endswith("FIRST") else present + absent
