"""What only the PostgreSQL store promises: instances beside each other, outages, refusals at opening."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest import mock

import pytest

from proxy.config.store_url import StoreUrl, parse_store_url
from proxy.errors import StoreError, StoreMissingError, StoreUnavailable
from proxy.model import Grant, GrantState, Sealed, Tenant
from proxy.store import Store, TenantGone, open_store, postgres_connection
from proxy.store.postgres import PostgresStore
from proxy.store.postgres_connection import Connections
from proxy.store.postgres_schema import STEPS, STEPS_TABLE
from tests.postgres import PASSWORD, QUOTED_PASSWORD, Server


@pytest.fixture
def url(database: str) -> StoreUrl:
    return parse_store_url(database)


@pytest.fixture
async def store(url: StoreUrl) -> AsyncIterator[PostgresStore]:
    """A store with the tenant acme."""
    async with opened(url) as store:
        await store.edit_tenants(lambda _: {"acme": Tenant("acme")})
        yield store


@asynccontextmanager
async def opened(url: StoreUrl) -> AsyncIterator[PostgresStore]:
    store = await asyncio.to_thread(PostgresStore.open, url)
    try:
        yield store
    finally:
        await store.close()


def grant(generation: int) -> Grant:
    return Grant("acme", GrantState.CONNECTED, generation, refresh=Sealed(f"sealed-{generation}"))


def advance(found: Grant | None) -> Grant:
    return grant(found.generation + 1 if found else 1)


def name_of(url: StoreUrl) -> str:
    return url.text.rpartition("/")[2]


def refused(url: StoreUrl) -> str:
    """Why a store is not opened: one line that begins with its URL, and never holds its password."""
    with pytest.raises(StoreError) as refusal:
        open_store(url)
    line = str(refusal.value)
    assert line.startswith(f"store {url}: ")
    assert line.isprintable()
    assert not any(word in line for word in (PASSWORD, QUOTED_PASSWORD, "planted"))
    assert refusal.value.__cause__ is None
    return line.removeprefix(f"store {url}: ")


# Opening


async def test_two_instances_can_open_a_new_store_at_once(url: StoreUrl, postgres: Server) -> None:
    """One creates the tables, the others wait for it, and each step is recorded once."""
    stores = await asyncio.gather(*(asyncio.to_thread(open_store, url) for _ in range(4)))
    for store in stores:
        assert await store.tenants() == {}
        await store.close()
    applied = postgres.psql(name_of(url), f"SELECT name FROM {STEPS_TABLE} ORDER BY name").stdout
    assert applied.split() == list(STEPS)


async def test_a_step_that_fails_leaves_nothing(url: StoreUrl, postgres: Server) -> None:
    """A migration that is cut off is whole or absent, and the next start carries it out."""
    broken = {"m001_initial": "CREATE TABLE half (x INTEGER); SELECT 1 / 0"}
    with mock.patch.object(postgres_connection, "STEPS", broken):
        assert (await asyncio.to_thread(refused, url)).startswith("the database refused (22012)")
    assert (
        postgres.psql(name_of(url), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").stdout
        == "0\n"
    )
    async with opened(url) as store:
        await store.ping()


async def test_a_newer_database_is_refused_and_untouched(
    store: PostgresStore, url: StoreUrl, postgres: Server
) -> None:
    """A step that this version does not know is the mark of a newer one; an open store goes on beside it."""
    postgres.psql(name_of(url), f"INSERT INTO {STEPS_TABLE} (name) VALUES ('m999_future')")
    line = await asyncio.to_thread(refused, url)
    assert line.startswith("it is from a newer version (m999_future): upgrade pleo-proxy")
    assert await store.tenants() == {"acme": Tenant("acme")}


async def test_a_foreign_database_is_refused_and_untouched(url: StoreUrl, postgres: Server) -> None:
    """Tables of another program are a wrong URL, not a place for ours."""
    postgres.psql(name_of(url), "CREATE TABLE accounts (id INTEGER)")
    assert await asyncio.to_thread(refused, url) == "it is the database of another program: correct store.url"
    assert (
        postgres.psql(name_of(url), "SELECT tablename FROM pg_tables WHERE schemaname = 'public'").stdout
        == "accounts\n"
    )


async def test_an_empty_database_can_be_left_empty(url: StoreUrl, postgres: Server) -> None:
    """Who only wants to look makes no tables."""
    with pytest.raises(StoreMissingError, match="the database is empty"):
        await asyncio.to_thread(open_store, url, create=False)
    assert (
        postgres.psql(name_of(url), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").stdout
        == "0\n"
    )


def test_a_wrong_password_is_refused_and_never_shown(postgres: Server, database: str) -> None:
    """The line names user, host and database, and what to correct."""
    wrong = parse_store_url(postgres.url(name_of(parse_store_url(database)), password="planted-wrong"))
    assert refused(wrong).startswith("the password was refused (28P01): correct it in store.url, PGPASSWORD")


def test_the_password_can_come_from_the_environment(
    postgres: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL without a password is completed as PostgreSQL's own programs do it."""
    bare = parse_store_url(str(parse_store_url(database)))
    assert bare.password is None
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    store = open_store(bare)
    asyncio.run(store.close())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda url: url + "_not", r"there is no such database \(3D000\): create it", id="database"
        ),
        pytest.param(
            lambda url: re.sub(r"127.0.0.1:\d+", "127.0.0.1:9", url),
            "it cannot be reached",
            id="nobody-there",
        ),
        pytest.param(
            lambda url: re.sub(r"127.0.0.1", "no-such-host.invalid", url), "it cannot be reached", id="name"
        ),
        pytest.param(lambda url: url + "?sslmode=nonsense", "does not understand its address", id="sslmode"),
        pytest.param(
            lambda url: url + "?sslmode=require", "it cannot be reached: check that the server", id="tls"
        ),
    ],
)
def test_what_cannot_be_opened_is_one_line(database: str, change: Callable[[str], str], message: str) -> None:
    """Whatever the driver or the server says, the operator reads what to do, and no password."""
    assert re.search(message, refused(parse_store_url(change(database))))


def test_without_the_driver_the_line_says_how_to_get_it(database: str) -> None:
    """SQLite needs no driver for PostgreSQL, so it may be absent."""
    others = {
        name: module for name, module in sys.modules.items() if not name.startswith("proxy.store.postgres")
    }
    with mock.patch.dict(sys.modules, others, clear=True):
        # How Python marks what cannot be imported.
        sys.modules["asyncpg"] = None  # type: ignore[assignment]
        assert refused(parse_store_url(database)) == (
            "the driver for PostgreSQL is missing: pip install --require-hashes -r requirements-extras.lock"
        )


# Several instances


async def test_a_commit_of_another_instance_is_seen_within_a_second(
    store: PostgresStore, url: StoreUrl
) -> None:
    """Told by the server and not asked of the tables; own commits are not told."""
    async with opened(url) as other:
        await store.edit_grant("acme", advance)
        assert not await store.changed()
        began = time.monotonic()
        assert await other.changed()
        assert time.monotonic() - began < 1
        assert not await other.changed()


async def test_a_refused_edit_is_not_told(store: PostgresStore, url: StoreUrl) -> None:
    """What was rolled back never happened for anybody."""

    async with opened(url) as other:
        with pytest.raises(ValueError, match="cannot be stored"):
            await store.edit_grant("acme", lambda _: Grant("beta", GrantState.CONNECTED, 1))
        with pytest.raises(TenantGone):
            await store.edit_grant("beta", advance)
        assert not await other.changed()


async def test_what_was_missed_while_nothing_was_heard_counts_as_a_change(
    store: PostgresStore, url: StoreUrl, postgres: Server
) -> None:
    """A listening connection that was lost is made anew, and then the store says once that it may be so."""
    assert not await store.changed()
    cut(postgres, name_of(url))
    told = []
    for _ in range(200):
        with suppress(StoreUnavailable):
            told.append(await store.changed())
        if len(told) == 2:
            break
        await asyncio.sleep(0.01)
    assert told == [True, False]


async def test_cancelling_who_waits_does_not_stop_what_began(store: PostgresStore) -> None:
    """An edit is committed though nobody waits for it any more."""
    task = asyncio.create_task(store.edit_grant("acme", advance))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(500):
        if await store.grant("acme") is not None:
            break
        await asyncio.sleep(0.01)
    assert await store.grant("acme") == grant(1)


async def test_commits_are_durable(store: PostgresStore) -> None:
    """Whatever the database's default is, a commit waits for the server's disk."""

    async def shown(db: Connections) -> str:
        async with db.connection() as conn:
            return str(await conn.fetchval("SHOW synchronous_commit"))

    assert await store._run(shown) == "on"


# Outages


@pytest.fixture
def private_server() -> Iterator[Server]:
    """A server that a test may stop."""
    with tempfile.TemporaryDirectory(prefix="pleo-proxy-postgres-") as folder, Server(Path(folder)) as server:
        yield server


async def test_a_server_that_stops_is_an_outage_and_heals(private_server: Server) -> None:
    """Every method fails at once while it is away, and works when it is back; nothing has to be restarted."""
    url = parse_store_url(private_server.url(private_server.create()))
    async with opened(url) as store:
        await store.edit_tenants(lambda _: {"acme": Tenant("acme")})
        await store.edit_grant("acme", advance)
        private_server.stop()
        for attempt in (
            store.ping,
            store.changed,
            store.tenants,
            store.snapshot,
            lambda: store.edit_grant("acme", advance),
            lambda: store.sweep(0),
        ):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="The store failed: ") as outage:
                await attempt()
            assert time.monotonic() - began < 5
            assert "planted" not in f"{outage.value}{outage.value!r}{outage.value.__cause__}"
        private_server.start()
        await until_it_works(store)
        assert await store.changed(), "what others did meanwhile was not heard"
        assert await store.edit_grant("acme", advance) == grant(2)


async def test_a_server_that_says_nothing_does_not_hang_the_store() -> None:
    """A host that takes connections and never answers is given up after the time for connecting."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        mock.patch.object(postgres_connection, "CONNECT_S", 0.2),
    ):
        url = parse_store_url(f"postgresql://u:planted@127.0.0.1:{silent.getsockname()[1]}/d")
        line = await asyncio.to_thread(refused, url)
    assert line == "it gave no answer in time: check the server and the network"


async def test_a_lock_that_is_not_given_back_is_an_outage(store: PostgresStore, url: StoreUrl) -> None:
    """An instance that hangs in a transaction keeps others waiting for seconds, not for ever."""
    settings = {**postgres_connection._SERVER_SETTINGS, "lock_timeout": "100"}
    with mock.patch.object(postgres_connection, "_SERVER_SETTINGS", settings):
        async with opened(url) as other:
            entered, leave = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()

            def hang(_: Grant | None) -> Grant:
                loop.call_soon_threadsafe(entered.set)
                asyncio.run_coroutine_threadsafe(leave.wait(), loop).result(30)
                return grant(1)

            task = asyncio.create_task(store.edit_grant("acme", hang))
            await entered.wait()
            with pytest.raises(StoreUnavailable, match=r"a lock was not given back in time \(55P03\)"):
                await other.edit_grant("acme", advance)
            leave.set()
            assert await task == grant(1)


async def test_a_standby_is_not_ready(store: PostgresStore, url: StoreUrl, postgres: Server) -> None:
    """A server that takes no writes is told by readiness, and refuses edits as an outage."""
    postgres.psql(name_of(url), f"ALTER DATABASE {name_of(url)} SET default_transaction_read_only = on")
    cut(postgres, name_of(url))
    for attempt in (store.ping, lambda: store.edit_grant("acme", advance)):
        with pytest.raises(StoreUnavailable, match=r"takes no writes|cannot be written"):
            await until_it_works(store, attempt)


async def until_it_works(store: Store, attempt: Callable[[], Awaitable[object]] | None = None) -> None:
    """Ask again for as long as the connection is the trouble; at most a few seconds."""
    for _ in range(400):
        try:
            await (attempt or store.ping)()
        except StoreUnavailable as error:
            if not re.search("connection|reached|starting|shutting", error.detail):
                raise
            await asyncio.sleep(0.02)
        else:
            return
    raise AssertionError("it does not come back")


def cut(postgres: Server, name: str) -> None:
    """End every connection to a database, as an administrator does."""
    everyone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    postgres.psql(name, f"{everyone} AND pid <> pg_backend_pid()")
