"""The data that every sandbox starts with. The same ids and values each time, so that tests can name them.

Pure functions from a company to its tables; no clock, no chance, no real person or firm.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

Record = dict[str, Any]
Table = dict[str, Record]

_NAMESPACE = uuid.UUID("5a0d90c5-0000-4000-8000-000000000001")
_START = datetime(2025, 1, 6, 8, 30, tzinfo=UTC)

_FIRST = ("Freja", "Emil", "Ida", "Lukas", "Clara", "Noah", "Alma", "Jonas", "Maja", "Felix", "Nora", "Oscar")
_LAST = ("Holm", "Weber", "Lind", "Berg", "Falk", "Krause", "Dahl", "Wood", "Stone", "Vogel", "Brandt")
_JOBS = ("Accountant", "Engineer", "Office Manager", "Sales Lead", "Designer", "Support Specialist")
_TEAMS = ("FIN", "ENG", "OPS", "SAL")
_VENDORS = (
    "Nordic Rail",
    "Blue Kettle Coffee",
    "Paper & Pen",
    "Cloudberry Hosting",
    "Harbour Hotel",
    "City Cabs",
    "Green Desk Furniture",
    "Lighthouse Energy",
    "Fjord Telecom",
    "Oak Street Catering",
    "Paragraph Legal",
    "Skyline Air",
    "Bricks Tools",
    "Daily Press",
    "Pixel Prints",
)
_ACCOUNTS = (
    ("2100", "Travel"),
    ("2110", "Hotels"),
    ("2200", "Meals and entertainment"),
    ("2300", "Office supplies"),
    ("2310", "Furniture"),
    ("2400", "Software and hosting"),
    ("2500", "Telephone and internet"),
    ("2600", "Energy"),
    ("2700", "Professional fees"),
    ("2800", "Marketing"),
    ("2900", "Training"),
    ("5820", "Company cards"),
)
_TAXES = (
    ("U25", "Purchase VAT 25 %", 0.25, "inclusive"),
    ("U19", "Purchase VAT 19 %", 0.19, "inclusive"),
    ("U07", "Reduced VAT 7 %", 0.07, "inclusive"),
    ("X20", "VAT 20 % on top", 0.20, "exclusive"),
    ("REV", "Reverse charge, EU services", 0.25, "reverse"),
    ("Z00", "No VAT", 0.0, "inclusive"),
)
_GROUPS = {
    "COST": ("Cost centre", ("Administration", "Sales", "Product", "Warehouse", "People")),
    "PROJ": ("Project", ("Apollo", "Borealis", "Cedar", "Dune")),
}
_TYPES = ("card_purchase", "card_purchase", "out_of_pocket", "invoice", "mileage")
_STATUSES = ("exported", "ready_to_export", "ready_to_export", "in_review")


def seeded_id(*parts: object) -> str:
    """The id of a seeded record, always the same for the same parts."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(map(str, parts))))


def _at(minutes: int) -> str:
    return (_START + timedelta(minutes=minutes)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _table(records: list[Record]) -> Table:
    return {record["id"]: record for record in records}


def _record(key: tuple[object, ...], company_id: str, minutes: int, **values: object) -> Record:
    stamp = _at(minutes)
    return {
        "id": seeded_id(*key),
        "companyId": company_id,
        **values,
        "createdAt": stamp,
        "updatedAt": stamp,
    }


def employees(slug: str, company_id: str, count: int) -> Table:
    """People with distinct addresses at ``SLUG.example``."""
    records = []
    for n in range(count):
        first, last = _FIRST[n % len(_FIRST)], _LAST[n % len(_LAST)]
        records.append(
            _record(
                (slug, "employee", n),
                company_id,
                n * 97,
                firstName=first,
                lastName=last,
                email=f"{first}.{last}.{n + 1}@{slug}.example".lower(),
                jobTitle=_JOBS[n % len(_JOBS)],
                teamCode=_TEAMS[n % len(_TEAMS)],
                code=f"E{n + 1:04}",
                status="active" if n % 9 else "invited",
            )
        )
    return _table(records)


def vendors(slug: str, company_id: str, country: str) -> Table:
    """The firms that the company buys from."""
    return _table(
        [
            _record(
                (slug, "vendor", n),
                company_id,
                n * 31,
                name=name,
                code=f"V{n + 1:03}",
                countryCode=country,
                taxIdentifier=f"{country}{10_000_000 + n * 7919}",
                status="archived" if n == len(_VENDORS) - 1 else "active",
            )
            for n, name in enumerate(_VENDORS)
        ]
    )


def accounts(slug: str, company_id: str) -> Table:
    """The chart of accounts."""
    return _table(
        [
            _record((slug, "account", code), company_id, n, name=name, code=code, archived=False)
            for n, (code, name) in enumerate(_ACCOUNTS)
        ]
    )


def tax_codes(slug: str, company_id: str) -> Table:
    """Tax codes of all three types."""
    return _table(
        [
            _record(
                (slug, "tax", code), company_id, n, name=name, code=code, rate=rate, type=kind, archived=False
            )
            for n, (code, name, rate, kind) in enumerate(_TAXES)
        ]
    )


def tag_groups(slug: str, company_id: str) -> Table:
    """Tag groups, each with a metadata object."""
    return _table(
        [
            _record((slug, "group", code), company_id, n, name=name, code=code, archived=False, metadata={})
            for n, (code, (name, _)) in enumerate(_GROUPS.items())
        ]
    )


def tags(slug: str, groups: Table) -> Table:
    """The tags of all groups."""
    records = []
    for group in groups.values():
        for n, name in enumerate(_GROUPS[group["code"]][1]):
            tag = _record(
                (slug, "tag", group["code"], n),
                group["companyId"],
                n,
                groupId=group["id"],
                name=name,
                code=f"{group['code']}-{n + 1:02}",
                archived=False,
            )
            del tag["companyId"]  # a tag belongs to its group, and the group to the company
            records.append(tag)
    return _table(records)


def accounting_entries(
    slug: str,
    company_id: str,
    count: int,
    *,
    currency: str,
    employees: list[Record],
    vendors: list[Record],
    accounts: list[Record],
) -> Table:
    """Spending of the company's people, one entry every few hours."""
    records = []
    for n in range(count):
        vendor, employee = vendors[n % len(vendors)], employees[n % len(employees)]
        amount = round(12.5 + (n * 7919 % 90_000) / 100, 2)
        records.append(
            _record(
                (slug, "entry", n),
                company_id,
                n * 211,
                date=_at(n * 211),
                type=_TYPES[n % len(_TYPES)],
                status=_STATUSES[n % len(_STATUSES)],
                note=f"{vendor['name']} for {employee['teamCode']}",
                employeeId=employee["id"],
                vendorId=vendor["id"],
                accountId=accounts[n % len(accounts)]["id"],
                amount={"value": amount, "currency": currency},
            )
        )
    return _table(records)


def receipts(slug: str, entries: Table) -> dict[str, list[Record]]:
    """Receipts by entry: files are addresses on another host, and every fifth entry has none."""
    found: dict[str, list[Record]] = {}
    for n, entry_id in enumerate(entries):
        receipt_id = seeded_id(slug, "receipt", n)
        found[entry_id] = (
            []
            if n % 5 == 4
            else [
                {
                    "id": receipt_id,
                    "type": "application/pdf",
                    "size": 20_000 + n * 311,
                    "url": f"https://files.example/{receipt_id}?expires=900",
                }
            ]
        )
    return found
