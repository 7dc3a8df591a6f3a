"""The API's table of calls: method, path, handler and the scopes of which one is needed.

Paths are matched as the raw bytes came, since they hold colons. The first matching row wins; a path that
matches under another method only is 405. Must stay a table: what a call does is in its handler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import exports, ledgers, resources
from .calls import ApiError, Handler

_ID = "([^/:?]+)"


@dataclass(frozen=True, slots=True)
class Route:
    """One call of the API."""

    method: str
    path: re.Pattern[str]
    handler: Handler
    scopes: tuple[str, ...]


def _route(method: str, path: str, handler: Handler, *scopes: str) -> Route:
    return Route(method, re.compile(path.replace("{id}", _ID)), handler, scopes)


_VENDORS_WRITE = "vendors:write"
# The tag scopes are spelled differently in staging and production; either will do.
_TAGS_READ = ("tag-groups:read", "tag-group:read")
_TAGS_WRITE = ("tag-groups:write", "tag-group:write")
_ENTRIES_READ = ("export-items:read", "export-jobs:read")

ROUTES = (
    _route("GET", "/v1/introspect", resources.introspect),
    _route("GET", "/v1/installations/me", resources.get_installation),
    _route("POST", "/v1/installations/me", resources.create_installation),
    _route("PUT", "/v1/installations/me", resources.update_installation),
    _route("DELETE", "/v1/installations/me", resources.delete_installation),
    _route("POST", "/v1/installations/me:activate", resources.activate_installation),
    _route("GET", "/v1/companies", resources.list_companies, "companies:read"),
    _route("GET", "/v1/companies/{id}", resources.get_company, "companies:read"),
    _route("GET", "/v2/employees", resources.list_employees, "users:read"),
    _route("GET", "/v2/employees/{id}", resources.get_employee, "users:read"),
    _route("POST", "/v1/accounting-entries:search", resources.search_entries, *_ENTRIES_READ),
    _route("GET", "/v1/accounting-entries/{id}", resources.get_entry, *_ENTRIES_READ),
    _route("GET", "/v1/accounting-entries/{id}/receipts", resources.get_receipts, *_ENTRIES_READ),
    _route("POST", "/v1/vendors", resources.create_vendor, _VENDORS_WRITE),
    _route("POST", "/v1/vendors:search", resources.search_vendors, "vendors:read"),
    _route("GET", "/v1/vendors/{id}", resources.get_vendor, "vendors:read"),
    _route("PUT", "/v1/vendors/{id}", resources.update_vendor, _VENDORS_WRITE),
    _route("POST", "/v1/vendors/{id}:activate", resources.activate_vendor, _VENDORS_WRITE),
    _route("POST", "/v1/vendors/{id}:archive", resources.archive_vendor, _VENDORS_WRITE),
    _route("GET", "/v3/export-jobs", exports.list_jobs, "export-jobs:read"),
    _route("POST", "/v3/export-jobs", exports.create_job, "export-jobs:write"),
    _route("GET", "/v3/export-jobs/{id}", exports.get_job, "export-jobs:read"),
    _route("GET", "/v3/export-jobs/{id}/items", exports.list_job_items, "export-jobs:read"),
    _route("PUT", "/v3/export-jobs/{id}/items", exports.update_job_items, "export-jobs:write"),
    _route("POST", "/v3/export-job-events", exports.job_event, "export-jobs:write"),
    _route("GET", "/v3/export-items", exports.list_items, "export-items:read"),
    _route("GET", "/v1/chart-of-accounts", ledgers.list_accounts, "accounts:read"),
    _route("POST", "/v1/chart-of-accounts", ledgers.create_account, "accounts:write"),
    _route("POST", "/v1/chart-of-accounts/batch", ledgers.create_accounts, "accounts:write"),
    _route("POST", "/v1/chart-of-accounts:search", ledgers.search_accounts, "accounts:read"),
    _route("POST", "/v0/tax-codes", ledgers.create_tax_code, "tax-codes:write"),
    _route("POST", "/v0/tax-codes:search", ledgers.search_tax_codes, "tax-codes:read"),
    _route("GET", "/v0/tax-codes/{id}", ledgers.get_tax_code, "tax-codes:read"),
    _route("PUT", "/v0/tax-codes/{id}", ledgers.update_tax_code, "tax-codes:write"),
    _route("DELETE", "/v0/tax-codes/{id}", ledgers.delete_tax_code, "tax-codes:write"),
    _route("GET", "/v0/tag-groups", ledgers.list_groups, *_TAGS_READ),
    _route("POST", "/v0/tag-groups", ledgers.create_group, *_TAGS_WRITE),
    _route("GET", "/v0/tag-groups/{id}", ledgers.get_group, *_TAGS_READ),
    _route("PUT", "/v0/tag-groups/{id}", ledgers.update_group, *_TAGS_WRITE),
    _route("DELETE", "/v0/tag-groups/{id}", ledgers.delete_group, *_TAGS_WRITE),
    _route("GET", "/v0/tag-groups/{id}/tags", ledgers.list_group_tags, *_TAGS_READ),
    _route("POST", "/v0/tag-groups/{id}/tags", ledgers.create_tag, *_TAGS_WRITE),
    _route("GET", "/v0/tags", ledgers.list_tags, *_TAGS_READ),
    _route("GET", "/v0/tags/{id}", ledgers.get_tag, *_TAGS_READ),
    _route("PUT", "/v0/tags/{id}", ledgers.update_tag, *_TAGS_WRITE),
    _route("DELETE", "/v0/tags/{id}", ledgers.delete_tag, *_TAGS_WRITE),
    _route("GET", "/v1/subscriptions", ledgers.list_subscriptions),
    _route("POST", "/v1/subscriptions", ledgers.create_subscription),
    _route("GET", "/v1/subscriptions/{id}", ledgers.get_subscription),
    _route("DELETE", "/v1/subscriptions/{id}", ledgers.delete_subscription),
    _route("GET", "/v1/subscriptions/{id}/secret", ledgers.get_subscription_secret),
)


def match(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    """The route of a request and the path's parameters; HEAD is served as GET.

    Raises:
        ApiError: 404 for an unknown path, 405 for a known one with another method.
    """
    wanted = "GET" if method == "HEAD" else method
    known = False
    for route in ROUTES:
        found = route.path.fullmatch(path)
        if found is None:
            continue
        if route.method == wanted:
            return route, found.groups()
        known = True
    if known:
        raise ApiError(405, "METHOD_NOT_ALLOWED", "This resource does not support that method.")
    raise ApiError(404, "NOT_FOUND", "There is no such resource.")
