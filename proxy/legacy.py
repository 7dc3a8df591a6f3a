"""Paths of Pleo's old API (``openapi.pleo.io``), and where today's API has the same. Pure.

Only shapes that today's API certainly does not have: all of its paths begin with a version, and of those with
a version only what it has in no version is here. ``/v1/employees`` and the like could be Pleo's tomorrow, so
they are Pleo's to answer.
"""

from __future__ import annotations

import re

_NONE = "which today's API does not have; see https://developers.pleo.io"
_ENTRIES = "today POST /v1/accounting-entries:search and GET /v1/accounting-entries/ID"

_TODAY: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(shape + r"(?:/.*)?", re.DOTALL), today)
    for shape, today in (
        (r"(?:/v1)?/expenses", _ENTRIES),
        (r"(?:/v1)?/companies/balance", _NONE),
        (r"/employees", "today GET /v2/employees"),
        (r"/teams", _NONE),
        (r"/tag-groups", "today /v0/tag-groups"),
        (r"/accounts", "today /v1/chart-of-accounts"),
        (r"/tax-codes", "today /v0/tax-codes"),
    )
)


def today(path: str) -> str:
    """What a path of the old API is today, as the rest of a sentence; empty if it is none of the old API.

    :param path: in plain spelling and small letters.
    """
    return next((found for shape, found in _TODAY if shape.fullmatch(path)), "")
