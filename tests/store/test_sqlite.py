"""What only the SQLite store promises: durability, files and their modes, processes, refusals at opening."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlite_utils import Database, Migrations

from proxy.errors import StoreError, StoreUnavailable, TenantError
from proxy.model import (
    Flow,
    Grant,
    GrantState,
    Link,
    Sealed,
    Tenant,
)
from proxy.store import ServeLock, connection, open_store, sqlite_trail
from proxy.store.schema import STEPS, m001_initial
from proxy.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
NOBODY = 65534

PREAMBLE = """
import asyncio, os, signal, sys
from pathlib import Path
from proxy.model import Grant, GrantState, Sealed, Tenant
from proxy.store import ServeLock, open_store

def advance(grant):
    return Grant("acme", GrantState.CONNECTED, grant.generation + 1 if grant else 1)

"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "proxy.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(path)
    await store.edit_tenants(lambda _: {"acme": Tenant("acme")})
    yield store
    await store.close()


def program(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)]


async def run_elsewhere(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process of its own, to its end."""
    return await asyncio.to_thread(
        subprocess.run,
        program(code, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def started(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that runs ``code`` beside the test, and has printed its first line."""
    pipe = subprocess.PIPE
    with subprocess.Popen(program(code, *arguments), cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give up the rights that would make every file writable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def public_directory() -> Iterator[Path]:
    """A directory that others may look into, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """Ask or tell the database through a connection that the store knows nothing of."""
    with closing(sqlite3.connect(path)) as conn, conn:
        return conn.execute(statement).fetchall()


async def ask(store: SqliteStore, statement: str) -> object:
    """The first value that ``statement`` gives on the store's own connection."""

    def job(db: Database) -> object:
        return db.execute(statement).fetchall()[0][0]

    return await store._run(job)


def content(path: Path) -> bytes:
    """What is in the database file now."""
    return path.read_bytes()


def names_beside(path: Path) -> list[str]:
    """The files in the directory of ``path``."""
    return sorted(file.name for file in path.parent.iterdir())


def move_away(path: Path, replacement: bytes | None) -> None:
    """What an operator does who restores a backup, or tidies up, under a running proxy."""
    path.rename(path.with_name("moved.db"))
    if replacement:
        path.write_bytes(replacement)


def grant(generation: int = 1, access: str = "sealed") -> Grant:
    return Grant("acme", GrantState.CONNECTED, generation, access=Sealed(access))


# Durability


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("synchronous", 2),  # FULL
        ("journal_mode", "wal"),
        ("foreign_keys", 1),
        ("secure_delete", 1),
        ("busy_timeout", 5000),
    ],
)
async def test_the_connection_is_set_up_for_safety(store: SqliteStore, pragma: str, value: object) -> None:
    """Commits reach the disk, deleted rows are overwritten, and a lock is waited for."""
    assert await ask(store, f"PRAGMA {pragma}") == value


async def test_what_is_returned_is_committed(store: SqliteStore, path: Path) -> None:
    """A second connection sees the grant as soon as the edit has returned."""
    await store.edit_grant("acme", lambda _: grant(7))
    assert query(path, "SELECT tenant, generation, access FROM grants") == [("acme", 7, "sealed")]


async def test_a_commit_survives_the_death_of_the_process(path: Path) -> None:
    """A process killed right after an edit returned has lost nothing."""
    code = """
async def main():
    store = open_store(Path(sys.argv[1]))
    await store.edit_tenants(lambda _: {"acme": Tenant("acme")})
    await store.edit_grant("acme", advance)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    ended = await run_elsewhere(code, path)
    assert ended.returncode == -signal.SIGKILL, ended.stderr

    store = SqliteStore.open(path)
    found = await store.grant("acme")
    await store.close()
    assert found == Grant("acme", GrantState.CONNECTED, 1)


async def test_replaced_secrets_are_erased(store: SqliteStore, path: Path) -> None:
    """After a sweep no file of the store holds the token that was replaced; what replaced it is there."""
    await store.edit_grant("acme", lambda _: grant(1, "replaced-" * 50))
    await store.edit_grant("acme", lambda _: grant(2, "current-" * 50))
    await store.sweep(0)

    everything = b"".join(content(path.with_name(name)) for name in names_beside(path))
    assert b"replaced-" not in everything
    assert b"current-" in everything


async def test_closing_leaves_one_file(store: SqliteStore, path: Path) -> None:
    """The write-ahead log, with the old secrets in it, is gone when the store is closed."""
    await store.edit_grant("acme", lambda _: grant(1, "removed-" * 50))
    await store.edit_grant("acme", lambda _: None)
    await store.close()
    assert names_beside(path) == ["proxy.db"]
    assert b"removed-" not in content(path)


async def test_closing_beside_another_reader_empties_the_log(store: SqliteStore, path: Path) -> None:
    """Where the log must stay for another process, nothing is left in it."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM grants").fetchall()
        await store.edit_grant("acme", lambda _: grant())
        await store.close()
        assert path.with_name("proxy.db-wal").stat().st_size == 0


# Processes and threads


async def test_two_processes_lose_no_update(store: SqliteStore, path: Path) -> None:
    """Two processes that each advance one grant a hundred times have advanced it two hundred times."""
    code = """
async def main():
    store = open_store(Path(sys.argv[1]))
    for _ in range(100):
        await store.edit_grant("acme", advance)
    await store.close()

asyncio.run(main())
"""
    both = await asyncio.gather(run_elsewhere(code, path), run_elsewhere(code, path))
    assert [ended.returncode for ended in both] == [0, 0], both
    found = await store.grant("acme")
    assert found is not None
    assert found.generation == 200


def test_processes_may_create_one_store_at_once(tmp_path: Path) -> None:
    """Three processes that open a store that does not exist yet all get it, time after time."""
    code = """
print("ready", flush=True)
for line in sys.stdin:
    store = open_store(Path(line.strip()))
    asyncio.run(store.ping())
    asyncio.run(store.close())
    print("opened", flush=True)
"""
    with started(code) as first, started(code) as second, started(code) as third:
        processes = (first, second, third)
        for attempt in range(20):
            for process in processes:
                assert process.stdin
                process.stdin.write(f"{tmp_path / str(attempt) / 'proxy.db'}\n")
                process.stdin.flush()
            for process in processes:
                assert process.stdout
                assert process.stdout.readline() == "opened\n"
            assert query(tmp_path / str(attempt) / "proxy.db", "SELECT name FROM _sqlite_migrations") == [
                (step.__name__,) for step in STEPS
            ]


async def test_a_store_from_before_certificates_keeps_all_it_has(tmp_path: Path) -> None:
    """A store of the first version is brought forward with its tenants, routes and grants, once."""
    path = tmp_path / "old.db"
    old = Migrations("pleo-proxy")
    old()(m001_initial)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA foreign_keys = ON")
        db = Database(conn)
        old.apply(db)
        db.execute("INSERT INTO tenants VALUES ('acme', NULL, 1, 'full'), ('globex', NULL, 0, 'full')")
        db.execute(
            "INSERT INTO routes VALUES ('acme', 'host', 'b.example', 0), ('acme', 'host', 'a.example', 1),"
            " ('acme', 'network', '10.0.0.0/8', 0), ('globex', 'legacy_key', 'ff', 0)"
        )
        db.execute(
            "INSERT INTO grants (tenant, state, generation, scopes) VALUES ('acme', 'revoked', 4, 'x')"
        )
        conn.commit()
    path.chmod(0o600)
    acme = Tenant("acme", hosts=("b.example", "a.example"), networks=("10.0.0.0/8",))
    globex = Tenant("globex", enabled=False, legacy_keys=("ff",))
    for _ in range(2):
        store = open_store(path)
        assert await store.tenants() == {"acme": acme, "globex": globex}
        assert (await store.grants())["acme"].generation == 4
        await store.close()
    store = open_store(path)
    with pytest.raises(TenantError, match="claimed twice"):
        await store.edit_tenants(lambda found: {**found, "globex": replace(globex, hosts=("a.example",))})
    kept = await store.edit_tenants(lambda _: {"acme": replace(acme, certificates=("san:dns:x.example",))})
    assert kept["acme"].certificates == ("san:dns:x.example",)
    assert query(path, "SELECT count(*) FROM routes WHERE tenant = 'globex'") == [(0,)]
    await store.close()


async def test_another_process_is_noticed(store: SqliteStore, path: Path) -> None:
    """A command that runs beside the proxy is told of; what the proxy did itself is not."""
    code = """
async def main():
    store = open_store(Path(sys.argv[1]))
    await store.edit_grant("acme", advance)
    await store.close()

asyncio.run(main())
"""
    await store.edit_grant("acme", lambda _: grant(1))
    assert not await store.changed()
    assert (await run_elsewhere(code, path)).returncode == 0
    assert await store.changed()
    assert not await store.changed()


async def test_everything_runs_on_the_stores_own_thread(store: SqliteStore) -> None:
    """No SQLite call blocks the event loop, and no other thread touches the connection."""
    threads: set[str] = set()

    def note(found: Grant | None) -> Grant | None:
        threads.add(threading.current_thread().name)
        return found

    await asyncio.gather(*(store.edit_grant("acme", note) for _ in range(10)))
    assert threads == {"store_0"}


async def test_cancelling_who_waits_does_not_stop_what_began(store: SqliteStore) -> None:
    """An edit under way, and one that waits for its turn, are both committed though nobody waits for them."""
    began, go_on = threading.Event(), threading.Event()

    def first(_: Grant | None) -> Grant:
        began.set()
        assert go_on.wait(30)
        return grant(1)

    tasks = [
        asyncio.create_task(store.edit_grant("acme", first)),
        asyncio.create_task(
            store.edit_grant("acme", lambda found: grant(found.generation + 1 if found else -1))
        ),
    ]
    assert await asyncio.to_thread(began.wait, 30)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in ended] == [asyncio.CancelledError] * 2
    go_on.set()
    assert await store.grant("acme") == grant(2)


async def test_a_failure_that_nobody_waits_for_is_silent(store: SqliteStore) -> None:
    """An edit that raises after its caller has left does not end up as a complaint of the event loop."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    began, go_on = threading.Event(), threading.Event()

    def fail(_: Grant | None) -> Grant:
        began.set()
        assert go_on.wait(30)
        raise ValueError

    task = asyncio.create_task(store.edit_grant("acme", fail))
    assert await asyncio.to_thread(began.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    go_on.set()
    assert await store.grant("acme") is None
    gc.collect()
    assert complaints == []


async def test_ten_thousand_tenants_load_fast(store: SqliteStore) -> None:
    """What a start reads of a large store takes no time worth mentioning."""
    names = [f"tenant-{number:05}" for number in range(10_000)]
    await store.edit_tenants(
        lambda _: {name: Tenant(name, hosts=(f"{name}.example",), networks=("10.0.0.0/8",)) for name in names}
    )

    def fill(db: Database) -> None:
        with connection.writing(db):
            db.conn.executemany(
                "INSERT INTO grants (tenant, state, generation, scopes, access, refresh)"
                " VALUES (?, 'connected', 1, 'users:read companies:read', ?, ?)",
                [(name, "a" * 1500, "r" * 300) for name in names],
            )

    await store._run(fill)
    begun = time.perf_counter()
    tenants, grants = await store.tenants(), await store.grants()
    took_s = time.perf_counter() - begun

    assert len(tenants) == len(grants) == 10_000
    assert took_s < 3


# Failures while it runs


async def test_a_full_disk_is_an_outage_that_loses_nothing(store: SqliteStore) -> None:
    """What does not fit is refused whole, what was there stays, and with space everything works again."""
    await store.edit_grant("acme", lambda _: grant(1))
    pages = await ask(store, "PRAGMA page_count")
    await ask(store, f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreUnavailable, match=r"the disk is full \(SQLITE_FULL\)"):
        await store.edit_grant("acme", lambda _: grant(2, "long" * 10_000))
    assert await store.grant("acme") == grant(1)

    await ask(store, "PRAGMA max_page_count = 1000000")
    await store.edit_grant("acme", lambda _: grant(2, "long" * 10_000))
    assert await store.grant("acme") == grant(2, "long" * 10_000)


async def test_a_lock_that_is_not_given_back_is_an_outage(store: SqliteStore, path: Path) -> None:
    """A process that hangs in a transaction stops writes and readiness, and reads go on."""
    await ask(store, "PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for call in (store.edit_grant("acme", lambda _: grant()), store.ping()):
            with pytest.raises(StoreUnavailable, match=r"locked by another process \(SQLITE_BUSY\)"):
                await call
        assert await store.tenants() == {"acme": Tenant("acme")}
        other.execute("ROLLBACK")
    await store.ping()


async def test_a_read_only_database_is_an_outage(store: SqliteStore) -> None:
    """SQLite's refusal to write is told as what it is."""
    await store._run(lambda db: db.execute("PRAGMA query_only = ON").fetchall())
    with pytest.raises(StoreUnavailable, match=r"it cannot be written \(SQLITE_READONLY\)"):
        await store.edit_grant("acme", lambda _: grant())


@pytest.mark.parametrize("replacement", [None, b"another file"], ids=["removed", "replaced"])
async def test_a_file_that_went_away_is_an_outage(
    store: SqliteStore, path: Path, replacement: bytes | None
) -> None:
    """Readiness tells that commits go to a file that nobody will find again."""
    move_away(path, replacement)
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        await store.ping()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE grants SET state = 'exploded'", "the state of acme's grant is 'exploded'"),
        ("UPDATE grants SET last_outcome = 'odd'", "the last outcome of acme's grant is 'odd'"),
        ("""UPDATE tenants SET policy = '{"preset":"all"}'""", 'a policy is \'{"preset":"all"}\''),
        ("""UPDATE tenants SET trial = '{"unblock":["x"]}'""", "a policy is"),
        ("""UPDATE tenants SET policy = '{"newer":1}'""", "a policy is"),
        ("UPDATE tenants SET policy = 'full'", "a policy is 'full'"),
    ],
)
async def test_a_word_that_is_not_known_is_told_and_not_guessed(
    store: SqliteStore, path: Path, change: str, message: str
) -> None:
    """A state, outcome or preset of some other version stops what would need to understand it."""
    await store.edit_grant("acme", lambda _: grant())
    await store.add_link(Link("link", "acme", created_at=0, expires_at=1))
    query(path, change)

    def keep(tenant: Tenant, found: Grant | None) -> tuple[Tenant, Grant]:
        return tenant, found or grant()

    with pytest.raises(StoreUnavailable, match=message):
        await store.connect("acme", keep, link="link", at=0)


async def test_a_defect_is_not_called_an_outage(store: SqliteStore) -> None:
    """What the program must never do, such as one id twice, comes out as it is and leaves no lock behind."""
    link = Link("link", "acme", created_at=0, expires_at=1)
    flow = Flow("flow", "link", "acme", "browser", Sealed("verifier"), created_at=0, expires_at=1)
    await store.add_link(link)
    await store.add_flow(flow)
    with pytest.raises(sqlite3.IntegrityError):
        await store.add_link(link)
    with pytest.raises(sqlite3.IntegrityError):
        await store.add_flow(flow)
    await store.ping()


# Files and refusals at opening


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask, the directory that is created and all files of the store are private."""
    before = os.umask(0)
    try:
        store = open_store(tmp_path / "deep" / "state" / "proxy.db")
        await store.edit_tenants(lambda _: {"acme": Tenant("acme")})
        directory = tmp_path / "deep" / "state"
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert modes == dict.fromkeys(["proxy.db", "proxy.db-wal", "proxy.db-shm"], 0o600)


async def test_a_store_opens_again(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening what exists changes nothing in it; a relative path will do."""
    await store.close()
    before = content(path)
    monkeypatch.chdir(path.parent)
    again = open_store(Path(path.name))
    assert await again.tenants() == {"acme": Tenant("acme")}
    await again.close()
    assert content(path) == before


async def test_a_path_is_no_address(tmp_path: Path) -> None:
    """Characters that mean something in a URI mean nothing in a path."""
    path = tmp_path / "a?mode=ro#100%.db"
    await open_store(path).close()
    assert names_beside(path) == [path.name]


def refused(path: Path) -> str:
    """The text with which opening ``path`` is refused; one line that names it."""
    with pytest.raises(StoreError) as refusal:
        open_store(path)
    text = str(refusal.value)
    assert "\n" not in text
    assert text.startswith(f"store {path}: ")
    return text.removeprefix(f"store {path}: ")


async def test_a_newer_database_is_refused_and_untouched(store: SqliteStore, path: Path) -> None:
    """An older program names the steps that it does not know, and leaves the file as it is."""
    await store.close()
    query(
        path,
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
        " VALUES ('pleo-proxy', 'm999_more', '')",
    )
    before = content(path)

    text = refused(path)

    assert text.startswith("it is from a newer version (m999_more): upgrade pleo-proxy")
    assert content(path) == before
    assert names_beside(path) == [path.name]


def test_the_database_of_another_program_is_refused_and_untouched(path: Path) -> None:
    """A path that was mistaken does not put our tables among those of others."""
    query(path, "CREATE TABLE invoices (id INTEGER)")
    before = path.read_bytes()
    assert refused(path) == "it is the database of another program: correct store.url"
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_untouched(path: Path) -> None:
    """A text file stays what it is."""
    path.write_text("[listen]\n" * 1000)
    assert refused(path) == "it is not a database (SQLITE_NOTADB): correct store.url, or restore a backup"
    assert path.read_text() == "[listen]\n" * 1000


async def test_a_damaged_database_is_refused(store: SqliteStore, path: Path) -> None:
    """A file that was cut off is not taken for an empty store."""
    await store.close()
    os.truncate(path, len(content(path)) // 2)
    assert refused(path) == "it is damaged (SQLITE_CORRUPT): restore a backup"


def test_a_directory_is_refused(path: Path) -> None:
    """The path of a directory is told apart from a missing file."""
    path.mkdir()
    assert refused(path).startswith("it cannot be opened (SQLITE_CANTOPEN")


def test_a_link_to_nowhere_is_refused(path: Path) -> None:
    """No file comes into being at the other end, where its mode would not be seen to."""
    path.symlink_to(path.with_name("elsewhere.db"))
    assert refused(path).startswith("it cannot be opened (SQLITE_CANTOPEN")
    assert names_beside(path) == [path.name]


def test_a_parent_that_is_a_file_is_refused(path: Path) -> None:
    """Where no directory can be made, the text says why."""
    path.write_text("")
    text = refused(path / "proxy.db")
    assert text.startswith("its directory cannot be created (File exists): create it")


def test_a_directory_without_permission_is_refused() -> None:
    """A directory that belongs to somebody else is named with the remedy."""
    with public_directory() as directory:
        directory.chmod(0o555)
        with unprivileged():
            text = refused(directory / "proxy.db")
            assert text.startswith("it cannot be created (Permission denied): let the user")
            text = refused(directory / "state" / "proxy.db")
            assert text.startswith("its directory cannot be created (Permission denied): create it")


def test_a_read_only_file_is_refused() -> None:
    """SQLite would open it for reading only and fail at the first refresh; the proxy fails at the start."""
    with public_directory() as directory:
        path = directory / "proxy.db"
        path.touch()
        path.chmod(0o444)
        with unprivileged():
            assert refused(path).startswith("it cannot be written (SQLITE_READONLY")


@pytest.mark.parametrize("lock", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_locked_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
    """Opening waits for other processes, and not for ever."""
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"BEGIN {lock}")
        assert refused(path).startswith("it is locked by another process (SQLITE_BUSY): end that process")


async def test_opening_waits_where_sqlite_does_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that is just setting up the same new file delays the opening and does not end it."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(time, "sleep", lambda _: other.execute("ROLLBACK"))
        store = open_store(path)
        await store.ping()
        await store.close()


def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library without STRICT tables is named before anything is created."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    assert "is too old: use a Python with 3.37.0 or newer" in refused(path)
    assert not path.exists()


def test_a_file_system_without_shared_memory_is_refused(path: Path) -> None:
    """Where SQLite keeps another journal mode than the one asked for, the text names the remedy."""

    class Unmoved:
        def execute(self, statement: str) -> Unmoved:
            assert statement == "PRAGMA journal_mode = WAL"
            return self

        def fetchone(self) -> tuple[str]:
            return ("delete",)

    with pytest.raises(StoreError, match="put the store on a local disk"):
        connection._use_wal(cast("Database", Unmoved()), path)


def test_a_refused_opening_leaves_no_thread(path: Path) -> None:
    """A store that was not opened has nothing that would need closing."""
    path.mkdir()
    before = set(threading.enumerate())
    refused(path)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


# The serve lock


def test_only_one_serves(path: Path) -> None:
    """A second one is told who holds the lock, and gets it once the first has let go."""
    first = f"process {os.getpid()} serves it already: stop that one"
    with ServeLock.acquire(path), pytest.raises(StoreError, match=first):
        ServeLock.acquire(path)
    lock = ServeLock.acquire(path)
    lock.close()
    lock.close()
    file = path.with_name("proxy.db.serve.lock")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_lock_ends_with_its_process(path: Path) -> None:
    """A killed process is named while it lives, and needs no cleaning up after."""
    code = 'lock = ServeLock.acquire(Path(sys.argv[1])); print("ready", flush=True); sys.stdin.read()'
    with started(code, path) as holder:
        with pytest.raises(StoreError, match=f"process {holder.pid} serves it already"):
            ServeLock.acquire(path)
        holder.kill()
        holder.wait(30)
        ServeLock.acquire(path).close()


def test_a_lock_file_that_cannot_be_used_is_refused(path: Path) -> None:
    """The text names the file, the reason and the remedy."""
    path.with_name("proxy.db.serve.lock").mkdir()
    with pytest.raises(StoreError, match=r"serve\.lock: it cannot be taken \(Is a directory\): let the user"):
        ServeLock.acquire(path)


def test_a_holder_that_has_not_said_who_it_is(path: Path) -> None:
    """Between taking the lock and writing its number, the holder is simply another process."""
    with ServeLock.acquire(path):
        os.truncate(path.with_name("proxy.db.serve.lock"), 0)
        with pytest.raises(StoreError, match="another process serves it already"):
            ServeLock.acquire(path)


async def test_records_of_a_tenant_are_found_by_an_index(tmp_path: Path) -> None:
    """A page about one tenant does not read the trail of all."""
    path = tmp_path / "proxy.db"
    store = open_store(path)
    assert await store.trail.newest(9, "acme", "grant.revoked", before=5) == []
    await store.close()
    wanted = {"tenant": "acme", "events": '["x"]', "most": 9, "since": 0.0, "before": 5}
    statement = sqlite_trail._NEWEST + sqlite_trail._OF_TENANT + sqlite_trail._IN_ORDER
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", wanted).fetchall()
    assert "USING INDEX audit_of_tenant (tenant=? AND number<?)" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
