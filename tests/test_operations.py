"""What an operator does to the grants of a running proxy: refresh now, change keys, back up, restore."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import stat
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy import actions, lifecycle
from proxy import config as configuration
from proxy.lifecycle import Lease
from proxy.model import Grant, Secret
from proxy.sandbox import COMPANIES, DEFAULT_CLIENT, Sandbox, TokenFault
from proxy.store import Store, open_store
from proxy.vault import Vault, key_id_of, new_key_line
from tests.command import Cli, Ran, Serving, serving, started, write_config
from tests.harness import ADMIN_TOKEN, free_port, until

ACME = COMPANIES["acme"]


@pytest.fixture
def config(pleo: Sandbox, tmp_path: Path) -> Path:
    """A configuration for a proxy before ``pleo``."""
    return write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN})


@pytest.fixture
def ours(config: Path) -> Cli:
    """The command line with it."""
    return Cli(config)


def opened(config: Path) -> Store:
    """The store of a configuration, opened once more."""
    return open_store(configuration.load(config, {}).store.url)


async def told(ours: Cli, *arguments: str) -> Ran:
    """What a command says, from within a test that runs on an event loop."""
    return await asyncio.to_thread(ours, *arguments)


async def listed(ours: Cli, *arguments: str) -> dict[str, dict[str, Any]]:
    """A listing, from there."""
    return await asyncio.to_thread(ours.listed, *arguments)


async def stored(config: Path, tenant: str = "acme") -> Grant:
    """A grant as it is stored now."""
    store = opened(config)
    grant = await store.grant(tenant)
    await store.close()
    assert grant is not None
    return grant


async def connect(serve: Serving, *tenants: str) -> None:
    """Tenants named after companies, each connected."""
    for tenant in tenants:
        await serve.command("tenants", "add", tenant)
        await serve.connect(tenant, tenant)


# --- grants refresh


async def test_a_refresh_is_asked_for_and_done_by_who_serves(config: Path, pleo: Sandbox, ours: Cli) -> None:
    """The command waits, prints the grant as a listing does, and one refresh was made for it."""
    async with serving(config) as serve:
        await connect(serve, "acme")
        (row,) = (await serve.command("grants", "refresh", "acme", "--json")).json()
        assert (row["generation"], row["state"], row["last_outcome"]) == (2, "connected", "granted")
        assert row == (await serve.listed("grants", "list"))["acme"]
        (line,) = serve.process.lines("token.refresh_started")
        assert (line["tenant"], line["reason"]) == ("acme", "asked")
        assert await serve.get("/acme/v2/employees?limit=1") == 200
    assert pleo.counters.refreshes_of(ACME) == 1
    assert (await stored(config)).refresh_asked_at is None


async def test_many_who_ask_at_once_get_one_refresh(config: Path, pleo: Sandbox, tmp_path: Path) -> None:
    """Who asks while a refresh is asked for or under way is told of that one."""
    async with serving(config) as serve:
        await connect(serve, "acme")
        arguments = ("grants", "refresh", "acme", "--config", str(config))
        async with AsyncExitStack() as stack:
            async with pleo.hold_token_endpoint() as gate:
                asking = [
                    await stack.enter_async_context(started(*arguments, folder=tmp_path / f"ask{number}"))
                    for number in range(2)
                ]
                async with asyncio.timeout(20):
                    await gate.arrived()
                late = await stack.enter_async_context(started(*arguments, folder=tmp_path / "late"))
                # It asks while the refresh is at Pleo; a question noted then would be taken up after that.
                await asyncio.sleep(2)
            assert [await process.ended() for process in (*asking, late)] == [0, 0, 0]
        assert (await serve.listed("grants", "list"))["acme"]["generation"] == 2
    assert pleo.counters.refreshes_of(ACME) == 1


async def test_several_workers_make_one_refresh_of_a_question(pleo: Sandbox, tmp_path: Path) -> None:
    """All of them see it, also where it fails: Pleo is asked once."""
    config = write_config(
        tmp_path,
        pleo,
        admin={"token": ADMIN_TOKEN},
        listen={"workers": 3, "proxy": f"127.0.0.1:{free_port()}"},
    )
    async with serving(config) as serve:
        await until(lambda: len(serve.process.lines("worker.started")) == 3, 20)
        await connect(serve, "acme")
        await asyncio.sleep(1.2)  # until all hold the grant
        await serve.command("grants", "refresh", "acme")
        assert pleo.counters.refreshes_of(ACME) == 1
        await asyncio.sleep(1.2)
        pleo.token_faults.append(TokenFault("status", status=503, times=None))
        before = pleo.counters.token_requests
        ran = await told(serve.cli, "grants", "refresh", "acme")
        assert "unavailable" in ran.refusal(1)
        await asyncio.sleep(1.2)
        assert pleo.counters.token_requests - before == 1


@pytest.mark.parametrize(
    ("befall", "outcome", "follows"),
    [
        pytest.param(
            lambda pleo: pleo.token_faults.append(TokenFault("status", status=503)),
            "unavailable",
            "ask again later",
            id="unavailable",
        ),
        pytest.param(lambda pleo: pleo.revoke("acme"), "refused", "pleo-proxy connect acme", id="refused"),
        pytest.param(
            lambda pleo: pleo.rotate_client_secret("another"),
            "client_rejected",
            "pleo.client_secret",
            id="client-rejected",
        ),
    ],
)
async def test_a_refresh_that_fails_says_why(
    befall: Callable[[Sandbox], None], outcome: str, follows: str, config: Path, pleo: Sandbox
) -> None:
    """One line with the outcome and what to do, and exit code 1."""
    async with serving(config) as serve:
        await connect(serve, "acme")
        befall(pleo)
        line = (await told(serve.cli, "grants", "refresh", "acme")).refusal(1)
        assert f"failed: {outcome}: " in line
        assert follows in line


async def test_without_a_proxy_nothing_is_done(
    config: Path, ours: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody serves the command says so, and leaves no question behind for later."""
    async with serving(config) as serve:
        await connect(serve, "acme")
        await serve.stop()
    monkeypatch.setattr(actions, "_TAKEN_WITHIN_S", 0.5)
    line = (await told(ours, "grants", "refresh", "acme")).refusal(1)
    assert "no running `pleo-proxy serve` took up" in line
    assert (await stored(config)).refresh_asked_at is None


def test_what_cannot_be_refreshed_is_one_line(ours: Cli) -> None:
    """A tenant that does not exist, one that nobody connected, and a revoked one."""
    assert "no tenant 'nobody'" in ours("grants", "refresh", "nobody").refusal(2)
    ours.done("tenants", "add", "acme")
    assert "no tokens to refresh (state none)" in ours("grants", "refresh", "acme").refusal(2)


# --- keys rotate


def add_key(config: Path, key_id: str, *, first: bool) -> None:
    """Put a new key into the ring."""
    path = configuration.load(config, {}).store.state_dir / "keys"
    new = new_key_line(key_id) + "\n"
    path.write_text(new + path.read_text() if first else path.read_text() + new)


def drop_key(config: Path, key_id: str) -> None:
    """Take a key out of the ring."""
    path = configuration.load(config, {}).store.state_dir / "keys"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(f"{key_id}:")]
    path.write_text("\n".join(kept) + "\n")


async def values(ours: Cli) -> dict[str, int]:
    """How many values each key seals."""
    return {row["id"]: row["values"] for row in (await told(ours, "keys", "list", "--json")).json()}


async def test_keys_are_exchanged_while_requests_go_on(config: Path, pleo: Sandbox, ours: Cli) -> None:
    """The order of the handbook: no grant is lost, no refresh is made for it, and the old key can go."""
    async with serving(config) as serve:
        await connect(serve, "acme", "globex")
        assert (await values(ours)) == {"k1": 6}, "the key check, the audit trail's key and two pairs"
        await serve.stop()
    add_key(config, "k2", first=True)
    async with serving(config, "second") as serve:
        assert (await serve.get("/acme/v2/employees?limit=1")) == 200
        ran = await serve.command("keys", "rotate")
        assert ran.out == "Sealed 2 grants anew.\n"
        assert (await values(ours)) == {"k2": 6, "k1": 0}
        assert (await serve.command("keys", "rotate")).out == "Sealed 0 grants anew.\n"
        # What the process holds in memory was sealed with k1, and its next refresh is saved all the same.
        await asyncio.sleep(1.2)
        assert not serve.process.lines("token.refresh_started")
        await serve.command("grants", "refresh", "acme")
        pleo.revoke_access("globex")
        assert (await serve.get("/globex/v2/employees?limit=1")) == 200
        await serve.stop()
    drop_key(config, "k1")
    async with serving(config, "third") as serve:
        rows = await serve.listed("grants", "list")
        assert {name: row["generation"] for name, row in rows.items()} == {"acme": 2, "globex": 2}
        for tenant in ("acme", "globex"):
            assert (await serve.get(f"/{tenant}/v2/employees?limit=1")) == 200
        await serve.stop()
    assert pleo.counters.refreshes_of(ACME) == 1


async def test_a_refresh_under_way_is_left_alone_and_come_back_to(
    config: Path, pleo: Sandbox, tmp_path: Path
) -> None:
    """Rotation waits for it, and then nothing is left that the old key seals."""
    async with serving(config) as serve:
        await connect(serve, "acme")
        # This process goes on sealing with k1; the one that rotates has k2 as its first key.
        add_key(config, "k2", first=True)
        before = await stored(config)
        arguments = ("keys", "rotate", "--config", str(config))
        async with AsyncExitStack() as stack:
            async with pleo.hold_token_endpoint() as gate:
                asking = asyncio.create_task(serve.command("grants", "refresh", "acme"))
                async with asyncio.timeout(20):
                    await gate.arrived()
                rotating = await stack.enter_async_context(started(*arguments, folder=tmp_path / "rotate"))
                await asyncio.sleep(2)
                assert not rotating.has_ended
                assert (await stored(config)).refresh == before.refresh
            assert (await rotating.ended(), rotating.out) == (0, "Sealed 1 grants anew.\n")
        await asking
        after = await stored(config)
        assert after.refresh is not None
        assert (after.generation, key_id_of(after.refresh)) == (2, "k2")
        # The process has only k1, and goes on with what it holds; its next refresh is saved.
        (row,) = (await serve.command("grants", "refresh", "acme", "--json")).json()
        assert row["generation"] == 3
        await serve.stop()


async def test_an_attempt_that_nobody_ends_is_reported(
    config: Path, ours: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded, the others are sealed anew, and the line says what to do."""
    async with serving(config) as serve:
        await connect(serve, "acme", "globex")
        await serve.stop()
    add_key(config, "k2", first=True)
    store = opened(config)
    await store.edit_grant("acme", attempted)
    await store.close()
    monkeypatch.setattr("proxy.rotation.PATIENCE_S", 0.2)
    ran = await told(ours, "keys", "rotate")
    assert ran.code == 1
    assert "acme" in ran.err
    assert "run this again" in ran.err
    assert (await values(ours)) == {"k2": 4, "k1": 2}
    async with serving(config, "again") as serve:
        await serve.command("keys", "rotate")
        await serve.stop()
    assert (await values(ours))["k1"] == 0


def attempted(grant: Grant | None) -> Grant | None:
    """``grant`` with an attempt that a process which is gone has left."""
    assert grant is not None
    takeover = lifecycle.Takeover(300, 0)
    return lifecycle.begin_refresh(grant, before=grant, at=1.0, lease=Lease("gone/0", 2.0), takeover=takeover)


async def test_values_of_a_lost_key_are_named(config: Path, ours: Cli) -> None:
    """What does not open is left as it is; all else is sealed anew."""
    async with serving(config) as serve:
        await connect(serve, "acme", "globex")
        await serve.stop()
    add_key(config, "k2", first=True)
    (await told(ours, "keys", "rotate"))
    add_key(config, "k3", first=True)
    store = opened(config)
    planted = (await store.grants())["globex"].refresh
    await store.edit_grant("acme", lambda grant: grant and replace(grant, refresh=planted))
    await store.close()
    ran = await told(ours, "keys", "rotate")
    assert ran.code == 1
    assert "1 tenants do not open, acme first: damaged, moved from another place" in ran.err
    assert (await values(ours)) == {"k3": 4, "k2": 2, "k1": 0}


# --- backup and restore


@pytest.fixture
async def saved(config: Path, tmp_path: Path) -> Path:
    """A backup of two connected tenants, made beside the running proxy, which has stopped since."""
    file = tmp_path / "backup"
    async with serving(config) as serve:
        await connect(serve, "acme", "globex")
        ran = await serve.command("backup", str(file))
        assert ran.out == f"Wrote 2 tenants and 2 grants to {file}.\n"
        await serve.stop()
    return file


def mode_of(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def content_of(path: Path) -> bytes:
    """What a file holds."""
    return path.read_bytes()


def put(path: Path, data: bytes) -> None:
    """Have a file hold ``data``."""
    path.write_bytes(data)


def lose_store(config: Path) -> None:
    """The store is gone; keys and journals are still there."""
    for file in configuration.load(config, {}).store.state_dir.glob("proxy.db*"):
        file.unlink()


async def test_a_backup_is_one_file_for_its_owner_that_holds_no_token(
    saved: Path, ours: Cli, pleo: Sandbox
) -> None:
    """Nothing is left beside it, and a second backup replaces it whole."""
    assert mode_of(saved) == 0o600
    assert [file.name for file in saved.parent.glob("*backup*")] == ["backup"]
    pair = pleo.grant("acme")
    assert pair.refresh_token.encode() not in content_of(saved)
    assert pair.access_token.encode() not in content_of(saved)
    put(saved, b"something else")
    (await told(ours, "backup", str(saved)))
    assert content_of(saved).startswith(b"pleo-proxy backup 1\n")


async def test_a_backup_is_tried_beside_a_running_proxy(saved: Path, ours: Cli, config: Path) -> None:
    """A dry run says what a restore would do, asks for no stop, and changes nothing; a bad file fails it."""
    async with serving(config) as serve:
        ran = await serve.command("restore", "--dry-run", str(saved))
        assert re.fullmatch(
            r"Would restore 2 tenants as of 20\S+\.\n"
            r"Would keep 2 grants that are as new in the store, or newer\.\n"
            r"Would restore 0 grants, to be verified by their first refresh\.\n",
            ran.out,
        )
        await serve.stop()
    lose_store(config)
    assert (
        "Would restore 2 grants, to be verified" in (await told(ours, "restore", "--dry-run", str(saved))).out
    )
    assert (await told(ours, "tenants", "list", "--json")).json() == []
    put(saved, content_of(saved)[:-9] + b"x")
    assert "cut short" in (await asyncio.to_thread(ours, "restore", "--dry-run", str(saved))).refusal(1)


async def test_a_backup_of_another_ring_fails_its_trial(saved: Path, ours: Cli, config: Path) -> None:
    """A dry run with a key ring that does not open the tokens fails, as a restore would."""
    ring = configuration.load(config, {}).store.state_dir / "keys"
    ring.unlink()
    (await told(ours, "keys", "generate"))
    assert (await asyncio.to_thread(ours, "restore", "--dry-run", str(saved))).code == 1


async def test_a_backup_for_a_store_of_another_ring_fails_its_trial(
    saved: Path, ours: Cli, config: Path
) -> None:
    """A dry run fails, as a restore would, where the store was sealed with other keys than the file."""
    check = Vault(Secret(new_key_line("k1"))).seal_check()
    with closing(sqlite3.connect(configuration.load(config, {}).store.state_dir / "proxy.db")) as db, db:
        assert db.execute("UPDATE meta SET value = ? WHERE key = 'key_check'", [check]).rowcount == 1
    ran = await asyncio.to_thread(ours, "restore", "--dry-run", str(saved))
    assert (ran.code, ran.out) == (2, ""), ran


async def test_a_restored_grant_works_after_one_refresh(
    saved: Path, config: Path, ours: Cli, pleo: Sandbox
) -> None:
    """After a loss of the store it is unverified: its old access token is not used before it is refreshed."""
    lose_store(config)
    assert "Restored 2 grants, to be verified" in (await told(ours, "restore", str(saved))).out
    rows = await listed(ours, "grants", "list")
    assert {row["state"] for row in rows.values()} == {"unverified"}
    assert {row["generation"] for row in rows.values()} == {2}, "beyond that of the file"
    async with serving(config, "restored") as serve:
        assert await serve.get("/acme/v2/employees?limit=1") == 200
        assert (await serve.process.event("token.refresh_started"))["reason"] == "restored"
        assert (await serve.listed("grants", "list"))["acme"]["state"] == "connected"
        await serve.stop()
    assert [request.generation for request in pleo.api_requests if request.company_id == ACME][-1:] == [2]
    assert pleo.counters.refreshes_of(ACME) == 1


async def test_a_backup_that_pleo_has_outrun_is_told_from_a_revocation(
    saved: Path, config: Path, ours: Cli, pleo: Sandbox
) -> None:
    """Its tokens are refused; the log says that the backup was stale, and the tenant is to be reconnected."""
    async with serving(config, "goes-on") as serve:
        await serve.command("grants", "refresh", "acme")
        await serve.stop()
    lose_store(config)
    (await told(ours, "restore", str(saved)))
    async with serving(config, "restored") as serve:
        assert await serve.get("/acme/v2/employees?limit=1") == 503
        line = await serve.process.event("grant.needs_reauth")
        assert (line["tenant"], line["reason"]) == ("acme", "stale_backup")
        assert await serve.get("/globex/v2/employees?limit=1") == 200
        await serve.stop()


async def test_a_failed_first_refresh_leaves_the_grant_in_doubt(
    saved: Path, config: Path, ours: Cli, pleo: Sandbox
) -> None:
    """While Pleo is not available the old access token is not used, and the state stays."""
    lose_store(config)
    (await told(ours, "restore", str(saved)))
    pleo.token_faults.append(TokenFault("status", status=503, times=None))
    sent = len(pleo.api_requests)
    async with serving(config, "restored") as serve:
        assert await serve.get("/acme/v2/employees?limit=1") == 503
        assert (await serve.listed("grants", "list"))["acme"]["state"] == "unverified"
        assert len(pleo.api_requests) == sent
        pleo.token_faults.clear()
        (row,) = (await serve.command("grants", "refresh", "acme", "--json")).json()
        assert row["state"] == "connected"
        await serve.stop()


async def test_newer_tokens_in_the_store_are_kept(
    saved: Path, config: Path, ours: Cli, pleo: Sandbox
) -> None:
    """Restoring over a store that has gone on costs no grant: Pleo has ended the older pairs."""
    async with serving(config, "goes-on") as serve:
        await serve.command("grants", "refresh", "acme")
        await serve.command("grants", "revoke", "globex")
        await serve.command("tenants", "add", "extra")
        await serve.stop()
    assert "the store holds 3 tenants" in (await told(ours, "restore", str(saved))).refusal(2)
    ran = await told(ours, "restore", str(saved), "--yes")
    assert "Kept 2 grants" in ran.out
    rows = await listed(ours, "grants", "list")
    assert {name: (row["state"], row["generation"]) for name, row in rows.items()} == {
        "acme": ("connected", 2),
        "globex": ("revoked", 1),
    }
    async with serving(config, "restored") as serve:
        assert await serve.get("/acme/v2/employees?limit=1") == 200
        await serve.stop()


async def test_a_tenant_that_was_removed_since_comes_back(saved: Path, config: Path, ours: Cli) -> None:
    """Where the store has no grant, that of the file counts."""
    (await told(ours, "tenants", "remove", "acme"))
    (await told(ours, "restore", str(saved), "--yes"))
    rows = await listed(ours, "grants", "list")
    assert {name: row["state"] for name, row in rows.items()} == {"acme": "unverified", "globex": "connected"}


async def test_a_store_that_is_served_is_not_restored_into(saved: Path, config: Path, ours: Cli) -> None:
    """The lock of the running proxy holds it off."""
    async with serving(config, "again") as serve:
        ran = await told(ours, "restore", str(saved), "--yes")
        assert "serves it already" in ran.refusal(1)
        await serve.stop()


async def test_a_changed_backup_is_refused(saved: Path, config: Path, ours: Cli) -> None:
    """Any byte changed, cut off or added, and nothing is restored."""
    lose_store(config)
    whole = content_of(saved)
    for data in (
        whole.replace(b'"enabled":true', b'"enabled":null', 1),
        whole.replace(b'"sha256":"', b'"sha256":"0', 1),
        whole[:-1],
        whole[: len(whole) // 2],
        whole + b"x",
        whole.replace(b"backup 1", b"backup 2", 1),
        b"something else",
        b"",
    ):
        put(saved, data)
        assert "backup" in (await told(ours, "restore", str(saved))).refusal(1)
    assert (await listed(ours, "tenants", "list")) == {}
    absent = str(saved.with_name("absent"))
    assert "cannot be read" in (await told(ours, "restore", absent)).refusal(1)


async def test_a_backup_of_another_ring_is_refused(saved: Path, config: Path, ours: Cli) -> None:
    """Without the key that made it nothing is restored, even where the hash of the bytes is right."""
    lose_store(config)
    (configuration.load(config, {}).store.state_dir / "keys").write_text(new_key_line("k1") + "\n")
    assert "another key of the same id" in (await told(ours, "restore", str(saved))).refusal(1)


async def test_a_shared_store_is_kept_and_restored_too(pleo: Sandbox, tmp_path: Path, database: str) -> None:
    """All of it with PostgreSQL, where nothing but --yes says that no proxy runs."""
    config = write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN}, store={"url": database})
    ours, file = Cli(config), str(tmp_path / "backup")
    async with serving(config) as serve:
        await connect(serve, "acme", "globex")
        (row,) = (await serve.command("grants", "refresh", "acme", "--json")).json()
        assert row["generation"] == 2
        add_key(config, "k2", first=True)
        assert (await serve.command("keys", "rotate")).out == "Sealed 2 grants anew.\n"
        await serve.command("grants", "refresh", "globex")
        await serve.command("keys", "rotate")
        assert await values(ours) == {"k2": 6, "k1": 0}
        await serve.command("backup", file)
        await serve.stop()
    await told(ours, "tenants", "remove", "acme")
    assert "add --yes" in (await told(ours, "restore", file)).refusal(2)
    assert (await told(ours, "restore", file, "--yes")).code == 0
    async with serving(config, "restored") as serve:
        for tenant in ("acme", "globex"):
            assert await serve.get(f"/{tenant}/v2/employees?limit=1") == 200
        (line,) = serve.process.lines("token.refresh_started")
        assert (line["tenant"], line["reason"]) == ("acme", "restored")
        await serve.stop()


# --- two client secrets


async def test_a_client_secret_is_changed_without_an_outage(pleo: Sandbox, tmp_path: Path) -> None:
    """While Pleo still takes the old secret the proxy falls back to it, says so once, and refuses nobody."""
    secret = DEFAULT_CLIENT.client_secret
    config = write_config(
        tmp_path, pleo, pleo={"client_secret": "not-yet-known", "client_secret_previous": secret}
    )
    async with serving(config) as serve:
        await connect(serve, "acme")
        await serve.command("grants", "refresh", "acme")
        (line,) = serve.process.lines("client.secret_fell_back")
        assert (line["level"], line["setting"]) == ("warning", "pleo.client_secret_previous")
        assert secret not in serve.process.out
        await serve.stop()
