"""``migrate-store`` between real stores: what it copies, what it refuses, what it leaves alone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy import config, pairs
from proxy.config.store_url import parse_store_url
from proxy.groundwork import open_vault
from proxy.lifecycle import connected
from proxy.model import ROUTE_FIELDS, Grant, Link, Secret, Tenant
from proxy.oauth import TokenPair
from proxy.store import Marks, ServeLock, Snapshot, Store, open_store
from tests.command import Cli, write_config
from tests.postgres import PASSWORD

NOW = time.time()


@pytest.fixture
def url(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty database, its password in the environment."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return str(parse_store_url(database))


ROUTES: dict[str, Any] = {field: (f"{field} 1", f"{field} 2") for field in ROUTE_FIELDS}
ROUTES["networks"] = ("10.1.0.0/16", "10.2.0.0/16")


@pytest.fixture
def ours(tmp_path: Path) -> Cli:
    """The command line with a store that holds two tenants, one of them connected, and a link."""
    ours = Cli(write_config(tmp_path))
    settings = config.load(ours.config, {})

    async def fill() -> None:
        store = open_store(settings.store.url)
        vault = await open_vault(settings, {}, store)
        await store.edit_tenants(lambda _: {"acme": Tenant("acme", **ROUTES), "globex": Tenant("globex")})
        pair = pairs.seal_pair(
            vault,
            TokenPair(Secret("planted-access"), Secret("planted-refresh"), 900),
            tenant="acme",
            generation=3,
            now=NOW,
            lifetimes=pairs.Lifetimes(900, 5_000_000),
        )
        grant = connected(pair, tenant="acme", company="c", scopes=("users:read",), generation=3)
        await store.edit_grant("acme", lambda _: grant)
        await store.add_link(Link("link", "acme", NOW, NOW + 900))
        await store.close()

    asyncio.run(fill())
    return ours


def url_of(ours: Cli) -> str:
    return str(config.load(ours.config, {}).store.url)


def held(where: str) -> Snapshot:
    """What the store at ``where`` holds."""

    async def look() -> Snapshot:
        store = open_store(parse_store_url(where), create=False)
        try:
            return await store.snapshot()
        finally:
            await store.close()

    return asyncio.run(look())


def edit(where: str, change: Grant | None) -> None:
    """Replace the grant of acme."""

    async def work() -> None:
        store: Store = open_store(parse_store_url(where))
        await store.edit_grant("acme", lambda _: change)
        await store.close()

    asyncio.run(work())


def test_there_and_back_again_nothing_is_lost(ours: Cli, url: str, tmp_path: Path) -> None:
    """A store moves to PostgreSQL and back to a new file, and holds the same in all three places."""
    before = held(url_of(ours))
    ran = ours.done("migrate-store", url_of(ours), url)
    assert "Copied 2 tenants, 1 grants, 1 links, 0 flows, 1 key checks" in ran.out
    back = f"sqlite:{tmp_path}/back/proxy.db"
    ours.done("migrate-store", url, back)
    # That it was moved is recorded where it was moved to; tests/test_audit.py has the rest of the trail.
    there, again = (replace(held(where), marks=Marks()) for where in (url, back))
    assert before == held(url_of(ours)) == there == again
    assert before.content.grants["acme"].generation == 3


def test_commands_work_on_the_new_store(ours: Cli, url: str, tmp_path: Path) -> None:
    """With ``store.url`` changed, and the key ring where it was, all goes on."""
    ours.done("migrate-store", url_of(ours), url)
    state_dir = str(config.load(ours.config, {}).store.state_dir)
    (tmp_path / "moved").mkdir()
    moved = Cli(write_config(tmp_path / "moved", store={"url": url, "state_dir": state_dir}))
    assert moved.listed("grants", "list")["acme"]["state"] == "connected"
    moved.done("tenants", "add", "initech")
    assert set(moved.listed("tenants", "list")) == {"acme", "globex", "initech"}


def test_a_dry_run_writes_nothing(ours: Cli, url: str, tmp_path: Path) -> None:
    """It says what would be copied, and makes neither tables nor files."""
    for target in (url, f"sqlite:{tmp_path}/new/proxy.db"):
        ran = ours.done("migrate-store", "--dry-run", url_of(ours), target)
        assert "Would copy 2 tenants, 1 grants" in ran.out
    assert not (tmp_path / "new").exists()
    ours.done("migrate-store", url_of(ours), url)


def test_a_target_that_holds_something_is_refused(ours: Cli, url: str) -> None:
    """Also in a dry run; and the target keeps what it has."""
    ours.done("migrate-store", url_of(ours), url)
    before = held(url)
    for options in ((), ("--dry-run",)):
        line = ours("migrate-store", *options, url_of(ours), url).refusal(1)
        assert line == f"store {url}: it is not empty, and nothing was written: name a new one"
    assert held(url) == before


def test_a_refresh_under_way_is_waited_for_by_the_operator(ours: Cli, url: str) -> None:
    """Its answer would come to the old store only."""
    grant = held(url_of(ours)).content.grants["acme"]
    edit(url_of(ours), replace(grant, attempted_at=NOW, lease_owner="0123456789abcdef/0"))
    line = ours("migrate-store", url_of(ours), url).refusal(1)
    assert "a refresh is noted as under way for acme: stop every `serve` of it" in line


def test_a_store_that_is_served_is_refused(ours: Cli, url: str) -> None:
    """What is served goes on changing."""
    path = parse_store_url(url_of(ours)).path
    assert path is not None
    with ServeLock.acquire(path):
        assert "serves it already" in ours("migrate-store", url_of(ours), url).refusal(1)


def test_tokens_that_do_not_open_are_not_copied(ours: Cli, url: str) -> None:
    """A value of another place, and a key ring of another store, are found before anything is written."""
    grant = held(url_of(ours)).content.grants["acme"]
    edit(url_of(ours), replace(grant, generation=4))
    line = ours("migrate-store", url_of(ours), url).refusal(1)
    assert "the tokens of tenant acme do not open (damaged, moved" in line
    edit(url_of(ours), grant)
    keys = config.load(ours.config, {}).store.state_dir / "keys"
    keys.write_text("k1:" + "A" * 43 + "=\n")
    assert "does not fit this store" in ours("migrate-store", url_of(ours), url).refusal(2)
    keys.write_text("k2:" + "A" * 43 + "=\n")
    assert "not in the key ring" in ours("migrate-store", url_of(ours), url).refusal(2)
    assert "planted" not in line


def test_a_source_that_is_not_there_is_not_made(ours: Cli, url: str, tmp_path: Path) -> None:
    """A slip in the first URL is no empty store."""
    line = ours("migrate-store", f"sqlite:{tmp_path}/no/proxy.db", url).refusal(1)
    assert line == f"store {tmp_path}/no/proxy.db: there is no such file: correct the path"
    assert not (tmp_path / "no").exists()
    assert "the database is empty" in ours("migrate-store", url, f"sqlite:{tmp_path}/x.db").refusal(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("sqlite:a.db", "sqlite:a.db"), "FROM and TO are the same store", id="same"),
        pytest.param(("a.db", "sqlite:a.db"), "FROM must be sqlite:///ABSOLUTE", id="no-scheme"),
        pytest.param(("sqlite:a.db", "postgresql://u:planted@h"), "TO must be postgresql://", id="no-name"),
    ],
)
def test_wrong_urls_are_one_line(ours: Cli, arguments: tuple[str, str], message: str) -> None:
    """The argument is named with its rule, and no password is shown."""
    line = ours("migrate-store", *arguments).refusal(2)
    assert line.startswith(message)
    assert "planted" not in line
