"""The audit trail of a store: what commands and proxies leave in it, and that no change of it is unseen."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy import audit, config, keyring
from proxy.audit import AuditError, Ledger, Recorder, TenantEdit
from proxy.chain import Entry
from proxy.consents import reference_of
from proxy.model import Secret, Tenant
from proxy.sandbox import Sandbox
from proxy.store import Store, open_store
from proxy.telemetry import audit as telemetry_audit
from proxy.vault import Vault, new_key_line
from tests.command import Cli, Ran, Serving, serving, write_config
from tests.harness import ADMIN_TOKEN, free_port, running_proxy, until
from tests.postgres import PASSWORD, Server

DAY_S = 86400.0
ME = f"os:{pwd.getpwuid(os.getuid()).pw_name}"


# --- the ledger

VAULT = Vault(Secret(new_key_line("k1")))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    opened = open_store(tmp_path / "proxy.db")
    yield opened
    await opened.close()


def ledger(store: Store, *, vault: Vault = VAULT, at: float = 1000.0) -> Ledger:
    """The trail of ``store`` at a time."""
    return Ledger(store.trail, vault, "proxy:test/0", lambda: at)


def entry(number: int, at: float = 1000.0) -> Entry:
    """An entry that no other is like."""
    return Entry(at, "token.refreshed", "acme", "proxy:test/0", f'{{"generation":{number}}}')


async def problems(store: Store, vault: Vault = VAULT, **anchors: bytes) -> list[tuple[int, str]]:
    """What a look through the trail finds."""
    verifier = await ledger(store, vault=vault).verified({int(k[1:]): v for k, v in anchors.items()})
    assert verifier is not None
    return [(finding.number, finding.problem.value) for finding in verifier.findings]


def sql(path: Path, *statements: str) -> None:
    """Change the database as somebody with access to its file does."""
    with closing(sqlite3.connect(path, timeout=20)) as db, db:
        for statement in statements:
            db.execute(statement)


async def rows(store: Store, event: str | None = None) -> list[dict[str, Any]]:
    """The records as listings show them."""
    return [audit.as_row(record) for record in await store.trail.newest(10_000, None, event)]


async def test_a_trail_goes_on_across_runs(store: Store) -> None:
    """Each run opens the key that the first one made; nothing to add writes nothing."""
    assert await ledger(store).verified({}) is None
    assert await ledger(store).append() is None
    for number in range(3):
        newest = await ledger(store).append([entry(number)])
        assert newest is not None
        assert newest.number == number + 1
    assert await problems(store) == []


async def test_another_key_ring_does_not_open_the_trail(store: Store) -> None:
    """It is said, and nothing is added with a key that is not the trail's."""
    await ledger(store).append([entry(1)])
    other = Vault(Secret(new_key_line("k1")))
    with pytest.raises(AuditError, match="put back the key ring"):
        await ledger(store, vault=other).append([entry(2)])
    assert len(await rows(store)) == 1


async def test_a_key_that_is_gone_is_not_made_anew(store: Store, tmp_path: Path) -> None:
    """A trail without its key is a fault, not a first start."""
    await ledger(store).append([entry(1)])
    sql(tmp_path / "proxy.db", "DELETE FROM meta WHERE key = 'audit_key'")
    for job in (ledger(store).append([entry(2)]), ledger(store).verified({})):
        with pytest.raises(AuditError, match="the key of the audit trail is gone"):
            await job


@pytest.mark.parametrize(
    ("statement", "at"),
    [
        pytest.param("DELETE FROM audit WHERE number > 2", (3, "missing"), id="cut-off"),
        pytest.param("DELETE FROM audit", (1, "missing"), id="all-gone"),
        pytest.param("UPDATE audit SET link = zeroblob(32) WHERE number = 4", (4, "changed"), id="link"),
        pytest.param("DELETE FROM meta WHERE key = 'audit_head'", (5, "forked"), id="no-mark"),
        pytest.param("UPDATE meta SET value = '{}' WHERE key = 'audit_head'", (5, "forked"), id="mark"),
    ],
)
async def test_what_is_added_to_a_broken_trail_hides_nothing(
    store: Store, tmp_path: Path, statement: str, at: tuple[int, str]
) -> None:
    """A proxy goes on recording behind the break, notices it, and the break stays to be found."""
    await ledger(store).append([entry(number) for number in range(4)])
    sql(tmp_path / "proxy.db", statement)
    going_on = ledger(store)
    noticed = []
    for number in (5, 6):
        await going_on.append([entry(number)])
        noticed.append(going_on.broken is not None)
    assert noticed == [True, False]
    assert await problems(store) == [at]
    assert [row["number"] for row in await rows(store)][-2:] == [5, 6]


async def test_an_old_mark_put_back_is_noticed_and_stays_to_be_found(store: Store, tmp_path: Path) -> None:
    """Records beyond the mark are neither overwritten nor forgotten."""
    await ledger(store).append([entry(1)])
    old = (await store.trail.marks()).head
    await ledger(store).append([entry(2), entry(3)])
    with closing(sqlite3.connect(tmp_path / "proxy.db")) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'audit_head'", [old])
    assert await problems(store) == [(2, "mark")]
    going_on = ledger(store)
    await going_on.append([entry(4)])
    assert going_on.broken is not None
    assert await problems(store) == [(4, "forked")]


# --- notes


async def test_a_note_that_somebody_changed_is_marked(store: Store, tmp_path: Path) -> None:
    """Signed notes come through as they are; unsigned, changed and forged ones say so of themselves."""
    signed = Recorder("os:ann", lambda: 5.0, VAULT, {"sudo_user": "bob"})
    unsigned = Recorder("os:ann", lambda: 5.0, None)
    for recorder, name in ((signed, "a"), (unsigned, "b"), (signed, "c")):
        edit = TenantEdit(lambda stored, name=name: {**stored, name: Tenant(name)}, recorder)  # type: ignore[misc]
        await store.edit_tenants(edit, edit.notes)
    forged = (
        "INSERT INTO audit_notes SELECT 9, at, event, 'd', actor, details, key, tag FROM audit_notes LIMIT 1"
    )
    sql(tmp_path / "proxy.db", "UPDATE audit_notes SET actor = 'os:eve' WHERE tenant = 'c'", forged)
    await ledger(store).append()
    found = {row["tenant"]: row["details"].get("unsigned", False) for row in await rows(store)}
    assert found == {"a": False, "b": True, "c": True, "d": True}
    assert (await rows(store))[0]["details"]["sudo_user"] == "bob"
    assert await problems(store) == []


async def test_a_change_of_a_tenant_is_told_by_its_fields(store: Store) -> None:
    """Old and new of what changed, and nothing of what did not; hashes of keys are counted."""
    recorder = Recorder("os:ann", lambda: 5.0, VAULT)
    before = {
        "acme": Tenant("acme", legacy_keys=("f" * 64,), shared_keys=("d" * 64,)),
        "gone": Tenant("gone"),
        "same": Tenant("same"),
    }
    after = {"acme": Tenant("acme", hosts=("a.example",), legacy_keys=("e" * 64,)), "same": Tenant("same")}
    edit = TenantEdit(lambda _: after, recorder)
    assert edit(before) == after
    notes = {note.entry.tenant: note.entry for note in edit.notes()}
    assert {name: note.event for name, note in notes.items()} == {
        "acme": "tenant.changed",
        "gone": "tenant.removed",
    }
    assert json.loads(notes["acme"].details) == {
        "hosts": {"old": [], "new": ["a.example"]},
        "legacy_keys": {"old": "1 hashes", "new": "1 hashes"},
        "shared_keys": {"old": "1 hashes", "new": "0 hashes"},
    }


# --- pruning


async def test_pruning_leaves_a_trail_that_verifies(store: Store) -> None:
    """What was removed, and when, is recorded; what is left is in order, after several times too."""
    await ledger(store).append([entry(number, at=number) for number in range(10)])
    assert await ledger(store, at=50.0).prune(4.0) == 4
    assert await ledger(store, at=50.0).prune(4.0) == 0
    assert await ledger(store, at=51.0).prune(6.0) == 2
    assert await problems(store) == []
    (first, second) = await rows(store, "audit.pruned")
    assert first["details"] == {"before": 4.0, "records": 4, "up_to": 4, "broken": None}
    assert second["details"]["up_to"] == 6
    verifier = await ledger(store).verified({})
    assert verifier is not None
    assert (verifier.begin.number, verifier.begin.at) == (6, 51.0)
    assert await ledger(store, at=60.0).prune(100.0) == 6
    assert await problems(store) == []


async def test_records_whose_time_was_changed_are_not_pruned_out_of_the_way(
    store: Store, tmp_path: Path
) -> None:
    """What is not in order stays until somebody says otherwise, which is recorded."""
    await ledger(store).append([entry(number) for number in range(4)])
    sql(tmp_path / "proxy.db", "UPDATE audit SET at = 1 WHERE number < 3")
    with pytest.raises(AuditError, match="record 1 of the audit trail is not in order"):
        await ledger(store).prune(500.0)
    assert [row["number"] for row in await rows(store)] == [1, 2, 3, 4]
    assert await ledger(store).prune(500.0, broken_too=True) == 2
    assert (await rows(store, "audit.pruned"))[0]["details"]["broken"] == 1
    assert await problems(store) == []


async def test_a_long_trail_is_pruned_in_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is larger than its bound, and each leaves the trail in order."""
    monkeypatch.setattr(audit, "_PRUNED_AT_ONCE", 3)
    await ledger(store).append([entry(number, at=number) for number in range(10)])
    assert await ledger(store).prune(8.0) == 8
    assert [row["details"]["records"] for row in await rows(store, "audit.pruned")] == [3, 3, 2]
    assert await problems(store) == []


# --- commands


@pytest.fixture
def ours(tmp_path: Path) -> Cli:
    """The command line with a key ring and an empty store."""
    ours = Cli(write_config(tmp_path))
    keyring.generate(tmp_path / "state" / "keys", "k1")
    return ours


LINK_CREATED = "connect.link_created"


def serve_once(ours: Cli) -> None:
    """What a first start does to a store: from then on commands have the chain's key."""
    settings = config.load(ours.config, {})

    async def work() -> None:
        store = open_store(settings.store.url)
        vault = Vault(keyring.read(settings.store.state_dir / "keys"))
        await store.set_key_check(vault.seal_check())
        await store.close()

    asyncio.run(work())


def events(ours: Cli) -> list[tuple[str, str | None]]:
    """Event and tenant of each record."""
    return [(row["event"], row["tenant"]) for row in ours.done("audit", "list", "--json").json()]


def report(ran: Ran) -> list[tuple[int, str]]:
    """The findings of ``audit verify --json``."""
    return [(each["record"], each["problem"]) for each in ran.json()["findings"]]


def test_every_command_that_changes_something_is_recorded(ours: Cli, tmp_path: Path) -> None:
    """Each with who ran it, and those that show or were refused are not."""
    serve_once(ours)
    file = tmp_path / "tenants.toml"
    file.write_text('[[tenant]]\nname = "acme"\npreset = "exports"\n[[tenant]]\nname = "initech"\n')
    ours.done("tenants", "add", "acme")
    ours.done("tenants", "add", "globex")
    assert ours("tenants", "add", "acme").code == 2
    ours.done("tenants", "set", "acme", "--preset", "read-only")
    ours.done("tenants", "disable", "acme")
    ours.done("tenants", "disable", "acme")
    ours.done("tenants", "enable", "acme")
    ours.done("policy", "set", "acme", "--report", "--deny", "POST /v1/vendors")
    ours.done("policy", "promote", "acme")
    ours.done("tenants", "apply", str(file), "--dry-run")
    ours.done("tenants", "apply", str(file))
    ours.done("connect", "acme")
    ours.done("tenants", "remove", "acme")
    ours.done("keys", "rotate")
    ours.done("backup", str(tmp_path / "backup"))
    ours.done("restore", str(tmp_path / "backup"), "--yes")
    assert events(ours) == [
        ("tenant.added", "acme"),
        ("tenant.added", "globex"),
        *[("tenant.changed", "acme")] * 6,
        ("tenant.removed", "globex"),
        ("tenant.added", "initech"),
        ("connect.link_created", "acme"),
        ("tenant.removed", "acme"),
        ("keys.rotated", None),
        ("store.backed_up", None),
        ("store.restored", None),
    ]
    records = ours.done("audit", "list", "--json").json()
    assert {row["actor"] for row in records} == {ME}
    assert records[2]["details"] == {"policy.preset": {"old": "full", "new": "read-only"}}
    assert records[6]["details"]["policy.deny"] == {"old": [], "new": ["POST /v1/vendors"]}
    assert all("unsigned" not in row["details"] for row in records)
    assert "15 records, all in order" in ours.done("audit", "verify").out


def test_changes_are_told_from_what_the_proxy_does(ours: Cli) -> None:
    """With ``--changes`` there is who changed what, and nothing of the life of tokens."""
    serve_once(ours)
    ours.done("tenants", "add", "acme")
    settings = config.load(ours.config, {})

    async def work() -> None:
        store = open_store(settings.store.url)
        vault = Vault(keyring.read(settings.store.state_dir / "keys"))
        entries = [
            Entry(time.time(), event, "acme", "proxy:x/0", "{}")
            for event in ("token.refreshed", "grant.connected", "audit.dropped", "proxy.started")
        ]
        await Ledger(store.trail, vault, "proxy:x/0", time.time).append(entries)
        await store.close()

    asyncio.run(work())
    ours.done("tenants", "disable", "acme")

    def told(*options: str) -> list[str]:
        return [row["event"] for row in ours.done("audit", "list", "--json", *options).json()]

    assert told("--changes") == ["tenant.added", "grant.connected", "proxy.started", "tenant.changed"]
    assert told("--changes", "--tenant", "globex", "--since", "1h") == []
    assert "--changes names events already" in ours("audit", "list", "--changes", "--event", "x").refusal()


def test_a_link_is_recorded_by_its_reference(ours: Cli) -> None:
    """A link that a command made is found by what the authoriser's page calls it, and not by its token."""
    serve_once(ours)
    ours.done("tenants", "add", "acme")
    token = ours.done("connect", "acme").out.strip().rpartition("/")[2]
    [record] = [row for row in ours.done("audit", "list", "--json").json() if row["event"] == LINK_CREATED]
    link_id = hashlib.sha256(f"link\0{token}".encode()).hexdigest()
    assert record["details"]["reference"] == reference_of(link_id)
    assert token not in str(record)


def test_details_are_told_for_people(ours: Cli) -> None:
    """A change is told as what was and what is, an addition by what it has, an instant as one."""
    serve_once(ours)
    ours.done("tenants", "add", "acme", "--host", "a.internal", "--host", "b.internal")
    ours.done("tenants", "set", "acme", "--preset", "read-only", "--clear", "hosts")
    ours.done("connect", "acme", "--hours", "1")
    lines = [line.rstrip() for line in ours.done("audit", "list").out.splitlines()]
    text = "\n".join([*lines, ""])
    assert "hosts: a.internal, b.internal\n" in text
    assert "hosts: a.internal, b.internal → -\n" in text
    assert "policy.preset: full → read-only\n" in text
    assert "policy.pin_company: yes\n" in text
    assert re.search(r"expires_at: 20\S+\+00:00\n", text)
    assert not re.search(r"None|\[|0 hashes", text)


def test_records_since_an_instant_are_listed(ours: Cli) -> None:
    """Older ones are left out, and it is said when there are more than are shown."""
    serve_once(ours)
    for name in ("acme", "globex", "initech"):
        ours.done("tenants", "add", name)
    rows = ours.done("audit", "list", "--json").json()
    later = datetime.fromtimestamp(time.time() + 60, UTC).isoformat()

    def told(*options: str) -> tuple[list[str], str]:
        ran = ours.done("audit", "list", "--json", *options)
        return ([row["tenant"] for row in ran.json()], ran.err)

    assert told("--since", rows[0]["at"]) == (["acme", "globex", "initech"], "")
    assert told("--since", "1h", "--most", "2") == (
        ["globex", "initech"],
        "These are the newest 2; there are more, which --most shows.\n",
    )
    assert told("--since", "1h", "--most", "3")[1] == ""
    assert told("--most", "2") == (["globex", "initech"], "")
    assert told("--since", later)[0] == []
    assert "neither an age" in ours("audit", "list", "--since", "tomorrow").refusal()


def test_without_the_key_ring_a_command_leaves_a_note(ours: Cli, tmp_path: Path) -> None:
    """Before the first start, or where the ring is the service's alone, the next who has it chains it."""
    keys = tmp_path / "state" / "keys"
    away = keys.rename(tmp_path / "away")
    ours.done("tenants", "add", "acme")
    assert events(ours) == []
    away.rename(keys)
    serve_once(ours)
    assert ours.done("audit", "verify", "--json").json()["noted"] == 1
    ours.done("tenants", "add", "globex", environ={"SUDO_USER": "ann"})
    first, second = ours.done("audit", "list", "--json").json()
    assert (first["tenant"], first["details"]["unsigned"]) == ("acme", True)
    assert (second["tenant"], second["details"]["sudo_user"]) == ("globex", "ann")


def test_a_database_that_was_put_back_is_found_by_an_anchor(ours: Cli, tmp_path: Path) -> None:
    """It is in order by itself; what was noted elsewhere is not in it."""
    serve_once(ours)
    database = tmp_path / "state" / "proxy.db"
    ours.done("tenants", "add", "acme")
    shutil.copy(database, tmp_path / "old")
    ours.done("tenants", "add", "globex")
    anchor = ours.done("audit", "verify", "--json").json()["newest"]
    ours.done("audit", "verify", "--anchor", anchor)
    for beside in database.parent.glob("proxy.db-*"):
        beside.unlink()
    shutil.copy(tmp_path / "old", database)
    ours.done("audit", "verify")
    assert "record 2 was noted, and is not there (anchor)" in ours(
        "audit", "verify", "--anchor", anchor
    ).refusal(1)
    ours.done("tenants", "add", "initech")
    assert "record 2 is another than the one that was noted" in ours(
        "audit", "verify", "--anchor", anchor
    ).refusal(1)
    for wrong in ("2", "x:y", "0:" + "0" * 64, "2:" + "0" * 62):
        assert "is not NUMBER:LINK" in ours("audit", "verify", "--anchor", wrong).refusal(2)


def test_an_export_is_lines_of_json_for_its_owner(ours: Cli, tmp_path: Path) -> None:
    """Whole, with links, never over an existing file."""
    serve_once(ours)
    ours.done("tenants", "add", "acme")
    ours.done("tenants", "remove", "acme")
    file = tmp_path / "export"
    assert "Wrote 2 records" in ours.done("audit", "export", str(file)).out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first, second = map(json.loads, file.read_text().splitlines())
    assert (first["event"], second["event"]) == ("tenant.added", "tenant.removed")
    assert second["previous"] == first["link"]
    assert ours.done("audit", "export").out == file.read_text()
    assert "File exists" in ours("audit", "export", str(file)).refusal(1)


def test_records_are_pruned_by_hand(ours: Cli) -> None:
    """Up to a day, and the rest verifies."""
    serve_once(ours)
    ours.done("tenants", "add", "acme")
    assert ours.done("audit", "prune", "--before", "2020-01-31").out == "Removed 0 records.\n"
    assert ours.done("audit", "prune", "--before", "2999-01-01T00:00:00Z").out == "Removed 1 records.\n"
    assert "Records up to 1 were pruned" in ours.done("audit", "verify").out
    assert events(ours) == [("audit.pruned", None)]
    assert "not match the formats" in ours("audit", "prune", "--before", "yesterday").refusal(2)


def test_a_trail_verifies_with_the_new_key_alone(ours: Cli, tmp_path: Path) -> None:
    """A rotation seals the chain's key anew, and counts it until then."""
    serve_once(ours)
    ours.done("tenants", "add", "acme")
    keys = tmp_path / "state" / "keys"
    old = keys.read_text()
    keys.write_text(f"{new_key_line('k2')}\n{old}")
    listed = ours.done("keys", "list", "--json").json()
    assert {row["id"]: row["values"] for row in listed} == {"k2": 0, "k1": 2}
    ours.done("keys", "rotate")
    keys.write_text(keys.read_text().splitlines()[0])
    assert "2 records, all in order" in ours.done("audit", "verify").out


def test_a_trail_moves_with_its_store(ours: Cli, database: str, tmp_path: Path) -> None:
    """Records, marks and key are in the new store, and that it was moved is recorded there."""
    serve_once(ours)
    ours.done("tenants", "add", "acme")
    ours.done("tenants", "set", "acme", "--host", "a.example")
    ours.done("audit", "prune", "--before", "2020-01-31")
    source = str(config.load(ours.config, {}).store.url)
    environ = {"PGPASSWORD": PASSWORD}
    ours.done("migrate-store", source, database, environ=environ)
    (tmp_path / "moved").mkdir()
    store = {"url": database, "state_dir": f"{tmp_path}/state"}
    moved = Cli(write_config(tmp_path / "moved", store=store))
    assert events(moved) == [*events(ours), ("store.migrated", None)]
    assert "3 records, all in order" in moved.done("audit", "verify").out
    assert PASSWORD not in moved.done("audit", "export").out


def test_an_empty_trail_is_in_order(ours: Cli) -> None:
    """Unless something of it was noted."""
    ran = ours.done("audit", "verify")
    assert (ran.out, ran.err) == ("", "There is no record yet.\n")
    assert ours.done("audit", "verify", "--json").json()["in_order"]
    assert "it is gone" in ours("audit", "verify", "--anchor", "1:" + "0" * 64).refusal(1)


# --- a running proxy


@pytest.fixture(params=["sqlite", "postgresql"])
def trails(pleo: Sandbox, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Callable[..., None]]:
    """A configuration with three workers on each kind of store, and raw SQL on its database."""
    sections: dict[str, dict[str, Any]] = {
        "admin": {"token": ADMIN_TOKEN},
        "listen": {"workers": 3, "proxy": f"127.0.0.1:{free_port()}"},
    }
    if request.param == "sqlite":
        path = write_config(tmp_path, pleo, **sections)
        return path, lambda *statements: sql(tmp_path / "state" / "proxy.db", *statements)
    url: str = request.getfixturevalue("database")
    server: Server = request.getfixturevalue("postgres")
    name = url.rpartition("/")[2]
    path = write_config(tmp_path, pleo, **sections, store={"url": url, "state_dir": f"{tmp_path}/state"})

    def raw(*statements: str) -> None:
        for statement in statements:
            server.psql(name, statement)

    return path, raw


async def live_for_a_while(serve: Serving) -> None:
    """A tenant is connected, refreshed, refused things, changed and revoked."""
    await until(lambda: len(serve.process.lines("worker.started")) == 3, 30)
    await serve.command("tenants", "add", "acme", "--preset", "read-only")
    await serve.connect("acme")
    await serve.command("grants", "refresh", "acme")
    statuses: list[int] = []
    while statuses.count(403) < 20:  # a worker may not have heard of the tenant yet
        statuses.append(await refused(serve))
    assert await serve.get("/nobody/v2/employees") == 404
    await serve.command("tenants", "disable", "acme")
    await serve.command("grants", "revoke", "acme")


async def refused(serve: Serving) -> int:
    """The status of a request that the tenant's preset does not let through."""
    async with serve.session.post(f"{serve.base_url}/acme/v1/vendors") as answer:
        return answer.status


def tamperings(newest: int) -> dict[str, tuple[str, tuple[int, str]]]:
    """Raw SQL, and the finding that it must lead to first."""
    copied = "at, event, tenant, actor, details, previous, link"
    return {
        "changed": ("UPDATE audit SET actor = 'os:nobody' WHERE number = 4", (4, "changed")),
        "missing": ("DELETE FROM audit WHERE number = 5", (5, "missing")),
        "first-missing": ("DELETE FROM audit WHERE number = 1", (1, "missing")),
        "cut-off": ("DELETE FROM audit WHERE number > 6", (7, "cut_off")),
        "appended": (
            f"INSERT INTO audit (number, {copied}) SELECT {newest + 1}, {copied} FROM audit WHERE number = 2",
            (newest + 1, "reordered"),
        ),
    }


SWAP = (
    "UPDATE audit SET number = 100000 WHERE number = 3",
    "UPDATE audit SET number = 3 WHERE number = 7",
    "UPDATE audit SET number = 7 WHERE number = 100000",
)


async def test_what_happened_is_recorded_and_raw_sql_is_found(
    trails: tuple[Path, Callable[..., None]],
) -> None:
    """Three workers and commands make one chain; each change of the database is named by ``audit verify``."""
    path, raw = trails
    async with serving(path) as serve:
        await live_for_a_while(serve)
        await serve.stop()
        anchored = serve.process.lines("audit.anchored")
        assert not serve.process.lines("audit.failed")
    ours = Cli(path)
    assert (await told(ours, "audit", "verify")).code == 0
    anchors = [f"{line['number']}:{line['link']}" for line in anchored]
    assert anchors
    newest = max(anchors, key=lambda anchor: int(anchor.partition(":")[0]))
    assert (await told(ours, "audit", "verify", "--anchor", newest)).code == 0

    ran = await told(ours, "audit", "list", "--most", "1000", "--json")
    found = {(row["event"], row["tenant"]) for row in ran.json()}
    assert found >= {
        ("proxy.started", None),
        ("tenant.added", "acme"),
        ("connect.link_created", "acme"),
        ("connect.link_opened", "acme"),
        ("grant.connected", "acme"),
        ("grant.refresh_asked", "acme"),
        ("token.refreshed", "acme"),
        ("request.finished", "acme"),
        ("request.finished", None),
        ("tenant.changed", "acme"),
        ("grant.revoked", "acme"),
        ("proxy.draining", None),
    }
    refusals = [row["details"] for row in ran.json() if row["event"] == "request.finished"]
    told_of = [each for each in refusals if each["outcome"] == "policy-refused"]
    assert sum(each["count"] for each in told_of) == 20
    assert len(told_of) <= 3 * 2  # one for each worker, or two where a minute ended meanwhile
    assert {each["caller"] for each in refusals} == {"127.0.0.1"}

    raw("CREATE TABLE untouched AS SELECT * FROM audit")
    for statement, finding in tamperings(ran.json()[-1]["number"]).values():
        raw(statement)
        ran = await told(ours, "audit", "verify", "--json")
        assert (ran.code, report(ran)[0]) == (1, finding), statement
        raw("DELETE FROM audit", "INSERT INTO audit SELECT * FROM untouched")
    raw(*SWAP)
    ran = await told(ours, "audit", "verify", "--json")
    assert report(ran) == [(3, "reordered"), (7, "reordered")]
    assert "record 3 is in truth record 7" in ran.err
    raw("DELETE FROM audit", "INSERT INTO audit SELECT * FROM untouched")
    assert (await told(ours, "audit", "verify")).code == 0


async def test_a_kill_in_the_middle_leaves_a_trail_that_verifies(
    trails: tuple[Path, Callable[..., None]],
) -> None:
    """Whatever was being written is there whole or not at all, and the next run goes on behind it."""
    path, _ = trails
    ours = Cli(path)
    for run_name in ("first", "second"):
        async with serving(path, run_name) as serve:
            if run_name == "first":
                await live_for_a_while(serve)
            else:
                await until(lambda: len(serve.process.lines("worker.started")) == 3, 30)
            adding = asyncio.create_task(add_tenants(ours, run_name))
            await asyncio.sleep(0.3)
            workers = [line["pid"] for line in serve.process.lines("worker.started")]
            serve.process.signal(signal.SIGKILL)
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            assert await serve.process.ended() == -signal.SIGKILL
            await adding
        ran = await told(ours, "audit", "verify")
        assert ran.code == 0, ran
    added = (await told(ours, "audit", "list", "--event", "tenant.added", "--json")).json()
    assert len(added) == 9


async def add_tenants(ours: Cli, prefix: str) -> None:
    """Four commands, one after the other."""
    for number in range(4):
        assert (await told(ours, "tenants", "add", f"{prefix}-{number}")).code == 0


async def told(ours: Cli, *arguments: str) -> Ran:
    """What a command says, from within a test that runs on an event loop."""
    return await asyncio.to_thread(ours, *arguments)


async def test_old_records_are_pruned_by_who_serves(
    pleo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond ``audit.keep_days`` nothing is kept, and the trail verifies."""
    monkeypatch.setattr(telemetry_audit, "_PRUNE_S", 0.0)
    now = time.time()
    async with running_proxy(pleo, tmp_path, clock=lambda: now, audit={"keep_days": 2}) as proxy:
        await proxy.add_tenant("acme")
        assert (await proxy.get("/nobody/v1/x")).status == 404
        now += 90
        await recorded(proxy.app.store, "request.finished")
        now += 3 * DAY_S
        await recorded(proxy.app.store, "audit.pruned")
        assert not await proxy.app.store.trail.newest(1, None, "request.finished")
        verifier = await ledger(proxy.app.store, vault=proxy.app.tokens.vault).verified({})
        assert verifier is not None
        assert verifier.findings == []


async def recorded(store: Store, event: str) -> None:
    """Wait until there is a record of an event."""
    async with asyncio.timeout(10):
        while not await store.trail.newest(1, None, event):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
