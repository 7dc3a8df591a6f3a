"""Companies, employees, accounting entries, vendors and the caller's own installation.

Each function carries out one call for a caller who is allowed to make it.
"""

from __future__ import annotations

from .calls import ApiError, Call, Reply, changed, data, find, page
from .oauth_rules import SUBJECT_PREFIX
from .seeds import Record

_VENDOR_FIELDS = (
    "name",
    "code",
    "countryCode",
    "taxIdentifier",
    "registrationNumber",
    "accountId",
    "taxCodeId",
)
_INSTALLATION_STATES = ("ACTIVATED", "INACTIVE", "AUTHORIZED", "PENDING_INTEGRATION")


def introspect(call: Call) -> Reply:
    """What the caller's own credential is."""
    call.state.counters.api_introspections += 1
    caller, client = call.caller, call.state.authority.client
    return data(
        {
            "authMethod": caller.method,
            "clientId": client.client_id,
            "scope": " ".join(client.scopes if caller.scopes is None else caller.scopes),
            "applicationName": "Sandbox application",
            "subjectURN": SUBJECT_PREFIX + caller.company_id,
        }
    )


def list_companies(call: Call) -> Reply:
    """A credential sees its own company only."""
    return page(call, [call.company.record()])


def get_company(call: Call) -> Reply:
    """The caller's company; any other is refused as the query parameter would be."""
    if call.params[0] != call.company.id:
        raise ApiError(403, "ACCESS_DENIED", "The token does not belong to that company.")
    return data(call.company.record())


def list_employees(call: Call) -> Reply:
    """Employees, also by e-mail address."""
    emails = call.all("email")
    rows = call.company.employees.values()
    return page(call, [row for row in rows if not emails or row["email"] in emails])


def get_employee(call: Call) -> Reply:
    """One employee."""
    return data(find(call.company.employees, call.params[0]))


def search_entries(call: Call) -> Reply:
    """Accounting entries, narrowed by ids, statuses, types and dates in the body."""
    wanted = call.body()
    ids, statuses, types = (wanted.get(name) for name in ("accountingEntryIds", "statuses", "types"))
    since, until = wanted.get("dateFrom", ""), wanted.get("dateTo", "~")
    return page(
        call,
        [
            row
            for row in call.company.accounting_entries.values()
            if (ids is None or row["id"] in ids)
            and (statuses is None or row["status"] in statuses)
            and (types is None or row["type"] in types)
            and since <= row["date"] <= until
        ],
    )


def get_entry(call: Call) -> Reply:
    """One accounting entry."""
    return data(find(call.company.accounting_entries, call.params[0]))


def get_receipts(call: Call) -> Reply:
    """The receipts of one entry: time-limited addresses on another host."""
    find(call.company.accounting_entries, call.params[0])
    return data(call.company.receipts[call.params[0]])


def create_vendor(call: Call) -> Reply:
    """A new, active vendor; a code that is taken is a conflict."""
    values = call.body("companyId", "name")
    code = values.get("code")
    if code is not None and any(row.get("code") == code for row in call.company.vendors.values()):
        raise ApiError(409, "CONFLICT", "A vendor with this code exists.")
    fields = {name: values[name] for name in _VENDOR_FIELDS if name in values}
    vendor = call.world.new_record(call.company, {**fields, "status": "active"})
    call.company.vendors[vendor["id"]] = vendor
    return data(vendor, 201)


def get_vendor(call: Call) -> Reply:
    """One vendor."""
    return data(find(call.company.vendors, call.params[0]))


def update_vendor(call: Call) -> Reply:
    """Changes a vendor's fields."""
    vendor = find(call.company.vendors, call.params[0])
    return data(changed(call, vendor, call.body("name"), _VENDOR_FIELDS))


def activate_vendor(call: Call) -> Reply:
    """Makes a vendor active."""
    return data(changed(call, find(call.company.vendors, call.params[0]), {"status": "active"}, ("status",)))


def archive_vendor(call: Call) -> Reply:
    """Archives a vendor."""
    return data(
        changed(call, find(call.company.vendors, call.params[0]), {"status": "archived"}, ("status",))
    )


def search_vendors(call: Call) -> Reply:
    """Vendors, narrowed by ids, status and a part of the name."""
    wanted = call.body()
    ids, status, text = wanted.get("vendorIds"), wanted.get("status"), str(wanted.get("name", "")).lower()
    return page(
        call,
        [
            row
            for row in call.company.vendors.values()
            if (ids is None or row["id"] in ids)
            and status in (None, row["status"])
            and text in row["name"].lower()
        ],
    )


def _installation(call: Call) -> Record:
    if call.company.installation is None:
        raise ApiError(404, "NOT_FOUND", "There is no installation.")
    return call.company.installation


def get_installation(call: Call) -> Reply:
    """The client's installation, which consent creates."""
    return data(_installation(call))


def create_installation(call: Call) -> Reply:
    """Creates the installation, or sets the state of the one there is."""
    values = call.body()
    status = _status(values.get("status", "ACTIVATED"))
    record = call.world.install(call.company.id)
    return data(changed(call, record, {**values, "status": status}, ("status", "metadata", "errorCode")))


def update_installation(call: Call) -> Reply:
    """Sets state and metadata."""
    record, values = _installation(call), call.body("status")
    return data(
        changed(call, record, {**values, "status": _status(values["status"])}, ("status", "metadata"))
    )


def activate_installation(call: Call) -> Reply:
    """Marks the installation as activated."""
    return data(changed(call, _installation(call), {"status": "ACTIVATED"}, ("status",)))


def delete_installation(call: Call) -> Reply:
    """Deletes the installation, and with it every token of the client for this company."""
    _installation(call)
    call.company.installation = None
    call.state.authority.revoke(call.company.id)
    return Reply(204)


def _status(status: object) -> object:
    if status not in _INSTALLATION_STATES:
        raise ApiError(400, "BAD_REQUEST", "status is not one of the known states.")
    return status
