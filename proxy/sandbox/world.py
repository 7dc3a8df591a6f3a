"""The companies of the simulated Pleo and their data: plain records by id, seeded the same way every time.

Pure state. It must never know of tokens or HTTP; what a request may see of it is decided elsewhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .seeds import (
    Record,
    Table,
    accounting_entries,
    accounts,
    employees,
    receipts,
    seeded_id,
    tag_groups,
    tags,
    tax_codes,
    vendors,
)

COMPANIES = {
    "acme": "0a0ac3e0-5b1d-4c1e-9f53-6d1f6f3a7c01",
    "globex": "91b0be00-2f6a-4f0b-8c55-0d5a3c1f7e02",
    "initech": "1417ec00-7c3b-4d9a-a1b2-3e4f5a6b7c03",
}
"""Company id by slug."""

API_KEYS = {slug: f"plp_sandbox_{slug}" for slug in COMPANIES}
"""The legacy API key of each company, by slug: the user name of HTTP Basic, with an empty password."""

_NAMES = {"acme": "Acme ApS", "globex": "Globex GmbH", "initech": "Initech Ltd"}
_COUNTRIES = {"acme": ("DK", "DKK"), "globex": ("DE", "EUR"), "initech": ("GB", "GBP")}
_EMPLOYEES = {"acme": 57, "globex": 12, "initech": 3}
_ENTRIES = {"acme": 130, "globex": 40, "initech": 5}

UNFINISHED = ("pending", "in_progress")
"""The states of an export job in which it blocks others and can expire."""


def timestamp(instant: float) -> str:
    """An instant in the form that Pleo writes."""
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class ExportJob:
    """An export job: its record, its items by accounting entry, and when it last changed."""

    record: Record
    items: Table
    updated_at: float


@dataclass(slots=True)
class Company:
    """One company and all that it owns."""

    slug: str
    id: str
    name: str
    country: str
    currency: str
    employees: Table = field(default_factory=dict)
    accounting_entries: Table = field(default_factory=dict)
    receipts: dict[str, list[Record]] = field(default_factory=dict)
    vendors: Table = field(default_factory=dict)
    tax_codes: Table = field(default_factory=dict)
    tag_groups: Table = field(default_factory=dict)
    tags: Table = field(default_factory=dict)
    accounts: Table = field(default_factory=dict)
    subscriptions: Table = field(default_factory=dict)
    export_jobs: dict[str, ExportJob] = field(default_factory=dict)
    installation: Record | None = None

    def record(self) -> Record:
        """The company as the API shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "countryCode": self.country,
            "baseCurrency": self.currency,
            "createdAt": "2021-03-01T09:00:00.000Z",
        }


class World:
    """All companies, with the clock that stamps what changes."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.companies: dict[str, Company] = {}
        for slug, company_id in COMPANIES.items():
            self.companies[company_id] = _company(slug, company_id)

    def company_id(self, name: str) -> str | None:
        """The id for a slug or an id, if it is known."""
        for company in self.companies.values():
            if name in (company.slug, company.id):
                return company.id
        return None

    def add_company(self, slug: str) -> str:
        """One more company, with a little of everything; returns its id."""
        company_id = seeded_id("company", slug)
        self.companies[company_id] = _company(slug, company_id)
        return company_id

    def stamp(self) -> str:
        """The present instant as Pleo writes it."""
        return timestamp(self._now())

    def new_record(self, company: Company, values: dict[str, Any]) -> Record:
        """A record that is made now."""
        stamp = self.stamp()
        return {
            "id": str(uuid.uuid4()),
            "companyId": company.id,
            **values,
            "createdAt": stamp,
            "updatedAt": stamp,
        }

    def install(self, company_id: str) -> Record:
        """The client's installation at a company, made if there is none; consent leaves one."""
        company = self.companies[company_id]
        if company.installation is None:
            stamp = self.stamp()
            company.installation = {
                "id": seeded_id("installation", company_id),
                "applicationId": seeded_id("application"),
                "resource": f"urn:pleo:company:{company_id}",
                "status": "AUTHORIZED",
                "metadata": {},
                "createdAt": stamp,
                "updatedAt": stamp,
            }
        return company.installation

    def expire_jobs(self, company: Company, lifetime_s: float) -> None:
        """Fails the unfinished export jobs that nobody has touched for ``lifetime_s``."""
        for job in company.export_jobs.values():
            expires_at = job.updated_at + lifetime_s
            if job.record["status"] in UNFINISHED and self._now() >= expires_at:
                job.record |= {
                    "status": "failed",
                    "failureReasonType": "job_expired",
                    "failureReason": "The job expired.",
                    "expiredAt": timestamp(expires_at),
                }
                abandon_items(job)


def abandon_items(job: ExportJob) -> None:
    """What a failed job leaves behind: the items that were not processed are abandoned."""
    for item in job.items.values():
        if item["status"] in UNFINISHED:
            item["status"] = "abandoned"


def _company(slug: str, company_id: str) -> Company:
    country, currency = _COUNTRIES.get(slug, ("DK", "DKK"))
    company = Company(slug, company_id, _NAMES.get(slug, slug), country, currency)
    company.employees = employees(slug, company_id, _EMPLOYEES.get(slug, 2))
    company.vendors = vendors(slug, company_id, country)
    company.tax_codes = tax_codes(slug, company_id)
    company.tag_groups = tag_groups(slug, company_id)
    company.tags = tags(slug, company.tag_groups)
    company.accounts = accounts(slug, company_id)
    company.accounting_entries = accounting_entries(
        slug,
        company_id,
        _ENTRIES.get(slug, 2),
        currency=currency,
        employees=list(company.employees.values()),
        vendors=list(company.vendors.values()),
        accounts=list(company.accounts.values()),
    )
    company.receipts = receipts(slug, company.accounting_entries)
    return company
