"""Export jobs: one at a time for a company, their states, items and expiry.

``pending`` becomes ``in_progress`` by the event ``started``, and ends by ``completed``,
``completed_with_errors`` or ``failed``; an unfinished job expires an hour after its last update.
"""

from __future__ import annotations

from typing import Any

from .calls import ApiError, Call, Reply, data, page
from .seeds import Record
from .world import UNFINISHED, ExportJob, abandon_items

_NEXT = {
    "started": ("pending", "in_progress"),
    "completed": ("in_progress", "completed"),
    "completed_with_errors": ("in_progress", "completed_with_errors"),
    "failed": (None, "failed"),
}
"""For each event: the state that it asks for (``None``: any unfinished one) and the one it leads to."""

_ITEM_STATES = ("pending", "in_progress", "failed", "successful", "abandoned")
_ITEM_FIELDS = ("status", "externalId", "externalUrl", "exportedAt", "failureReason", "failureReasonType")


def _jobs(call: Call) -> dict[str, ExportJob]:
    call.world.expire_jobs(call.company, call.state.switches.export_job_lifetime_s)
    return call.company.export_jobs


def _job(call: Call, job_id: str) -> ExportJob:
    job = _jobs(call).get(job_id)
    if job is None:
        raise ApiError(404, "NOT_FOUND", "There is no such export job.")
    return job


def _touch(call: Call, job: ExportJob) -> None:
    job.updated_at = call.state.now()
    job.record["lastUpdatedAt"] = call.world.stamp()


def list_jobs(call: Call) -> Reply:
    """The company's export jobs, also by status."""
    statuses = call.all("status")
    rows = [job.record for job in _jobs(call).values()]
    return page(call, [row for row in rows if not statuses or row["status"] in statuses])


def create_job(call: Call) -> Reply:
    """A new job, unless one is under way."""
    values = call.body("companyId", "accountingEntryIds")
    entry_ids = values["accountingEntryIds"]
    if any(job.record["status"] in UNFINISHED for job in _jobs(call).values()):
        raise ApiError(409, "EXPORT_ALREADY_IN_PROGRESS", "An export of this company is in progress.")
    known = call.company.accounting_entries
    if not isinstance(entry_ids, list) or not entry_ids or any(entry not in known for entry in entry_ids):
        raise ApiError(422, "VALIDATION_ERROR", "accountingEntryIds must list entries of this company.")
    record = call.world.new_record(
        call.company,
        {
            "status": "pending",
            "isInteractive": values.get("isInteractive", True),
            "numberOfItems": len(entry_ids),
            "expiresIn": int(call.state.switches.export_job_lifetime_s),
        },
    )
    if "employeeId" in values:
        record["createdBy"] = values["employeeId"]
    record["lastUpdatedAt"] = record.pop("updatedAt")
    items = {
        entry: {"id": entry, "accountingEntryId": entry, "exportJobId": record["id"], "status": "pending"}
        for entry in entry_ids
    }
    call.company.export_jobs[record["id"]] = ExportJob(record, items, call.state.now())
    return data(record, 201)


def get_job(call: Call) -> Reply:
    """One job."""
    return data(_job(call, call.params[0]).record)


def list_job_items(call: Call) -> Reply:
    """A job's items, also by status."""
    statuses = call.all("status")
    rows = _job(call, call.params[0]).items.values()
    return page(call, [_item(row) for row in rows if not statuses or row["status"] in statuses])


def _item(row: Record) -> Record:
    return {name: value for name, value in row.items() if name != "id"}


def update_job_items(call: Call) -> Reply:
    """Reports how items fared; what cannot be updated is listed as an error beside the rest."""
    job = _job(call, call.params[0])
    if job.record["status"] not in UNFINISHED:
        raise ApiError(409, "CONFLICT", "The export job has ended.")
    updates = call.json
    if not isinstance(updates, list) or not all(isinstance(update, dict) for update in updates):
        raise ApiError(400, "BAD_REQUEST", "The body must be a list of item updates.")
    done: list[Record] = []
    errors: list[Record] = []
    for update in updates:
        error = _update_item(job, update)
        entry_id = update.get("accountingEntryId")
        if error is None:
            done.append(_item(job.items[entry_id]))
        else:
            errors.append(
                {"accountingEntryId": entry_id, "type": error, "message": "The item was not updated."}
            )
    _touch(call, job)
    return Reply(200, {"data": done, "errors": errors})


def _update_item(job: ExportJob, update: dict[str, Any]) -> str | None:
    item = job.items.get(str(update.get("accountingEntryId")))
    if item is None:
        return "ACCOUNTING_ENTRY_DOES_NOT_EXIST"
    if update.get("status") not in _ITEM_STATES:
        return "EXPORT_ENTRY_STATUS_UPDATE_FAILED"
    item.update({name: update[name] for name in _ITEM_FIELDS if name in update})
    return None


def job_event(call: Call) -> Reply:
    """Moves a job to its next state; an event that does not fit the present state is a conflict."""
    values = call.body("jobId", "event")
    job = _job(call, str(values["jobId"]))
    if values["event"] not in _NEXT:
        raise ApiError(422, "VALIDATION_ERROR", "event is not one of the known events.")
    needed, status = _NEXT[values["event"]]
    present = job.record["status"]
    if present not in UNFINISHED or needed not in (None, present):
        raise ApiError(409, "CONFLICT", f"A job that is {present} cannot take this event.")
    job.record["status"] = status
    _touch(call, job)
    job.record["startedAt" if status == "in_progress" else "completedAt"] = job.record["lastUpdatedAt"]
    if status == "failed":
        job.record |= {
            name: values[name] for name in ("failureReason", "failureReasonType") if name in values
        }
        abandon_items(job)
    return Reply(204)


def list_items(call: Call) -> Reply:
    """The entries of a job in the form that an accounting system needs."""
    job_id = call.first("job_id")
    if job_id is None:
        raise ApiError(400, "BAD_REQUEST", "job_id is required.")
    return page(call, [_export_item(call, entry_id) for entry_id in _job(call, job_id).items])


def _export_item(call: Call, entry_id: str) -> Record:
    entry = call.company.accounting_entries[entry_id]
    employee = call.company.employees[entry["employeeId"]]
    account = call.company.accounts[entry["accountId"]]
    vendor = call.company.vendors[entry["vendorId"]]
    amount = {"inWalletCurrency": entry["amount"], "inSupplierCurrency": entry["amount"]}
    return {
        "accountingEntryId": entry_id,
        "companyId": call.company.id,
        "date": entry["date"],
        "type": entry["type"],
        "note": entry["note"],
        "amount": amount,
        "user": {
            "id": employee["id"],
            "name": f"{employee['firstName']} {employee['lastName']}",
            "code": employee["code"],
        },
        "supplier": {"name": vendor["name"], "taxIdentifier": vendor.get("taxIdentifier")},
        "files": [
            {name: receipt[name] for name in ("size", "type", "url")}
            for receipt in call.company.receipts[entry_id]
        ],
        "accountingEntryLines": [
            {
                "accountingEntryLineId": entry_id,
                "lineAmount": amount,
                "netAmount": amount,
                "account": {name: account[name] for name in ("id", "name", "code")},
            }
        ],
        "additionalInformation": {"reconciliationId": entry_id[:8]},
        "_links": {"web": {"href": f"https://app.example/expenses/{entry_id}"}},
    }
