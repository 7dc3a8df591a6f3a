"""``audit verify|list|export|prune``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click

from proxy import listing
from proxy.audit import CHANGES, AuditError, Ledger, as_row, line_of
from proxy.chain import Record, Verifier
from proxy.cli.completion import tenant_names
from proxy.cli.inputs import When, config_option, json_option, open_ring, with_store
from proxy.cli.output import print_json, print_rows
from proxy.cli.recording import recorder_of
from proxy.config import Settings
from proxy.errors import UsageError
from proxy.store import Marks, Store


@click.group()
def audit() -> None:
    """The audit trail: who did what, in a chain of records that nobody without its key can change unseen."""


class _Anchor(click.ParamType[tuple[int, bytes]]):
    name = "NUMBER:LINK"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, bytes]:
        if isinstance(value, tuple):
            return value
        number, _, link = str(value).partition(":")
        try:
            found = int(number), bytes.fromhex(link)
        except ValueError:
            found = 0, b""
        if found[0] < 1 or len(found[1]) != 32:
            self.fail(
                f"{str(value)[:100]!r} is not NUMBER:LINK (64 hex digits), as the log's audit.anchored says",
                param,
                ctx,
            )
        return found


@audit.command()
@click.option(
    "--anchor",
    "anchors",
    type=_Anchor(),
    multiple=True,
    metavar="NUMBER:LINK",
    help="A record that was noted elsewhere, as the log event `audit.anchored` tells. Repeatable.",
)
@json_option
@config_option
def verify(anchors: tuple[tuple[int, bytes], ...], config_path: Path | None, *, as_json: bool) -> None:
    """Look through the whole trail for records that are changed, missing, reordered, or cut off at the end.

    Ends with exit code 1 if it finds something, and names the record. A trail that was put back to an older
    state as a whole, with the database, is in order by itself: only an --anchor that is newer shows it.
    """

    async def work(store: Store, settings: Settings) -> tuple[Verifier | None, int]:
        ledger = _ledger(store, settings)
        return await ledger.verified(dict(anchors)), await store.trail.noted()

    verifier, noted = with_store(config_path, work)
    if as_json:
        print_json(_as_report(verifier, noted))
    if verifier is None:
        if anchors:
            raise AuditError(f"record {anchors[0][0]} was noted, and there is no trail: it is gone")
        click.echo("There is no record yet.", err=True)
        return
    if verifier.findings:
        raise AuditError(_first_of(verifier))
    if not as_json:
        _print_order(verifier, noted)


def _first_of(verifier: Verifier) -> str:
    first, *others = verifier.findings
    what = f"record {first.number} {first.detail}" if first.number else first.detail
    more = f"; {len(others)} more findings, which --json lists" if others else ""
    return f"the audit trail is not in order: {what} ({first.problem.value}){more}"


def _print_order(verifier: Verifier, noted: int) -> None:
    end, begin = verifier.end, verifier.begin
    click.echo(f"{verifier.records} records, all in order.")
    if begin.number:
        click.echo(f"Records up to {begin.number} were pruned, last at {listing.instant(begin.at)}.")
    if end is not None and end.number:
        click.echo(f"Newest: {end.number}:{end.link.hex()} of {listing.instant(end.at)}")
    if verifier.unchecked:
        numbers = ", ".join(map(str, verifier.unchecked))
        click.echo(f"Not checked, since pruned: the anchors of {numbers}.", err=True)
    if noted:
        click.echo(
            f"{noted} notes of commands wait for a running proxy to put them into the chain.", err=True
        )


def _as_report(verifier: Verifier | None, noted: int) -> dict[str, Any]:
    if verifier is None:
        return {
            "in_order": True,
            "records": 0,
            "newest": None,
            "pruned": None,
            "noted": noted,
            "findings": [],
        }
    end, begin = verifier.end, verifier.begin
    return {
        "in_order": not verifier.findings,
        "records": verifier.records,
        "newest": None if end is None else f"{end.number}:{end.link.hex()}",
        "pruned": {"up_to": begin.number, "at": listing.instant(begin.at)} if begin.number else None,
        "noted": noted,
        "findings": [
            {"record": finding.number, "problem": finding.problem.value, "detail": finding.detail}
            for finding in verifier.findings
        ],
    }


@audit.command(name="list")
@click.option("--tenant", shell_complete=tenant_names, metavar="NAME", help="Only records of this tenant.")
@click.option("--event", metavar="EVENT", help="Only records of this event, such as tenant.changed.")
@click.option(
    "--changes",
    is_flag=True,
    help="Only what people changed: tenants, grants, links, keys, the store, and starts of the proxy.",
)
@click.option(
    "--since",
    type=When(),
    metavar="WHEN",
    help="Only records from then on: an age (90s, 15m, 2h, 3d) or an instant (2026-01-31T14:00, in UTC).",
)
@click.option("--most", type=click.IntRange(1), default=50, show_default=True, help="So many, the newest.")
@json_option
@config_option
def list_(
    tenant: str | None,
    event: str | None,
    since: datetime | None,
    most: int,
    config_path: Path | None,
    *,
    changes: bool,
    as_json: bool,
) -> None:
    """List the newest records, the oldest of them first. Looks at none of their links."""
    if changes and event is not None:
        raise UsageError("--changes names events already; leave out --event, or --changes")

    async def work(store: Store, _settings: Settings) -> list[Record]:
        begin = 0.0 if since is None else since.timestamp()
        # One more, to know whether there are more.
        return await store.trail.newest(most + 1, tenant, CHANGES if changes else event, since=begin)

    records = with_store(config_path, work)
    rows = [_shown(record, as_json=as_json) for record in records[-most:]]
    print_rows(rows, as_json=as_json, empty="There is no such record.")
    if len(records) > most and since is not None:
        click.echo(f"These are the newest {most}; there are more, which --most shows.", err=True)


def _shown(record: Record, *, as_json: bool) -> dict[str, Any]:
    row = as_row(record) | {"at": listing.instant(record.entry.at)}
    if not as_json:
        row["details"] = [
            f"{name}: {_detail(name, value)}"
            for name, value in row["details"].items()
            # Of what was added, what it has; that it lacks the rest says nothing.
            if record.entry.event != "tenant.added" or value not in (None, [], "0 hashes")
        ]
    return row


def _detail(name: str, value: object) -> str:
    """A detail of a record for people."""
    match value:
        case {"old": old, "new": new, **rest} if not rest:
            return f"{_detail(name, old)} → {_detail(name, new)}"
        case float() if name.endswith("_at"):
            return str(listing.instant(value))
        case list():
            return ", ".join(_detail("", each) for each in value) or "-"
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
    return str(value)


@audit.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@config_option
def export(file: Path | None, config_path: Path | None) -> None:
    """Write all records as lines of JSON to FILE, or to standard output.

    FILE must not exist, and is made for its owner alone. Times are seconds since the epoch; each line has the
    link of its record and of the one before.
    """
    written = 0

    async def work(store: Store, out: BinaryIO) -> None:
        def take(_: Marks, records: Sequence[Record]) -> None:
            nonlocal written
            written += len(records)
            out.writelines(map(line_of, records))

        await store.trail.read(take)
        out.flush()

    if file is None:
        with_store(config_path, lambda store, _: work(store, sys.stdout.buffer))
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AuditError(
            f"export {file}: it cannot be made ({os.strerror(error.errno or 0)}); name a new file"
        ) from None
    with os.fdopen(descriptor, "wb") as out:
        with_store(config_path, lambda store, _: work(store, out))
        os.fsync(out.fileno())
    click.echo(f"Wrote {written} records to {file}.")


@audit.command()
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    required=True,
    help="Remove records that are older than this day or instant (UTC).",
)
@click.option(
    "--broken-too", is_flag=True, help="Remove also records that are not in order; that is recorded."
)
@config_option
def prune(before: datetime, config_path: Path | None, *, broken_too: bool) -> None:
    """Remove old records for good; the chain goes on verifying from the first that stays, and records it.

    A running proxy does this by itself for records older than `audit.keep_days`.
    """
    limit = before.replace(tzinfo=UTC).timestamp()

    async def work(store: Store, settings: Settings) -> int:
        return await _ledger(store, settings).prune(limit, broken_too=broken_too)

    click.echo(f"Removed {with_store(config_path, work)} records.")


def _ledger(store: Store, settings: Settings) -> Ledger:
    recorder = recorder_of(settings)
    if recorder.vault is None:
        # Said anew, in the words of what is wrong with the ring.
        open_ring(settings)
        raise UsageError("the key ring cannot be opened")
    return Ledger(store.trail, recorder.vault, recorder.actor, recorder.clock)
