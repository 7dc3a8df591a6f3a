"""One SQLite file as an open connection: created, checked, migrated, or refused in one line.

Neighbours: :mod:`proxy.store.schema` holds the steps that are applied here, :mod:`proxy.store.sqlite` the
statements that run afterwards. Nothing here knows of asyncio.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database

from proxy.errors import StoreError
from proxy.store import schema

BUSY_TIMEOUT_S = 5.0
"""How long to wait for another process's transaction; they take milliseconds, so this means it hangs."""

OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables, which refuse a value of the wrong type instead of keeping it."""

_FAULTS = {
    sqlite3.SQLITE_BUSY: ("it is locked by another process", "end that process, or try again"),
    sqlite3.SQLITE_LOCKED: ("it is locked by another process", "end that process, or try again"),
    sqlite3.SQLITE_PERM: ("access is not permitted", "let the user of pleo-proxy read and write it"),
    sqlite3.SQLITE_READONLY: (
        "it cannot be written",
        "let the user of pleo-proxy write the file and its directory",
    ),
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space"),
    sqlite3.SQLITE_IOERR: ("reading or writing failed", "check the disk"),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "restore a backup"),
    sqlite3.SQLITE_NOTADB: ("it is not a database", "correct store.url, or restore a backup"),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "let the user of pleo-proxy read and write the file and its directory",
    ),
}
_OTHER_FAULT = ("the database refused", "check the disk, or restore a backup")


def fault_of(error: sqlite3.Error) -> tuple[str, str]:
    """What went wrong with the database, and the remedy. Never the error's text, which may quote values."""
    # The low byte is the primary result code (https://sqlite.org/rescode.html#extrc).
    what, remedy = _FAULTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, _OTHER_FAULT)
    return f"{what} ({getattr(error, 'sqlite_errorname', type(error).__name__)})", remedy


@contextmanager
def writing(db: Database) -> Iterator[None]:
    """A transaction that takes the write lock before it reads.

    A deferred one (``db.atomic()``) would let two processes read the same grant and then both write it.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise


@contextmanager
def reading(db: Database) -> Iterator[None]:
    """A transaction whose statements all see the same moment."""
    with db.atomic():
        yield


def make_parent(path: Path) -> None:
    """Create the directory of ``path``, for nobody but its owner, if there is none.

    :raises StoreError: it cannot be created.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"store {path}: its directory cannot be created ({os.strerror(error.errno or 0)}): "
            "create it for the user of pleo-proxy, or correct store.url"
        ) from error


def connect(path: Path) -> Database:
    """Open the store at ``path``, creating or migrating it as needed, for the thread that calls.

    :raises StoreError: in one line, with the path, what is wrong, and the remedy. The file is as it was,
        save that a migration which was interrupted is whole or absent.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(
            f"store {path}: SQLite {sqlite3.sqlite_version} is too old: use a Python with {oldest} or newer"
        )
    make_parent(path)
    _create(path)
    try:
        return _opened(path)
    except sqlite3.Error as error:
        what, remedy = fault_of(error)
        raise StoreError(f"store {path}: {what}: {remedy}") from error


def _create(path: Path) -> None:
    """Create the file with mode 0600 if there is none; SQLite gives ``-wal`` and ``-shm`` the same mode.

    An existing file is not opened here: closing any descriptor of it would drop the locks that another
    connection of this process holds (https://sqlite.org/howtocorrupt.html section 2.2).
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(
            f"store {path}: it cannot be created ({os.strerror(error.errno or 0)}): "
            "let the user of pleo-proxy write to its directory, or correct store.url"
        ) from error
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # else a power cut could lose the name of a file whose content is safe
    finally:
        os.close(directory)


def _opened(path: Path) -> Database:
    # mode=rw: SQLite must not create what was not created with the right mode. isolation_level=None: the
    # driver begins no transactions of its own.
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
    )
    try:
        db = Database(conn, execute_plugins=False)  # plugins of sqlite-utils have no business with tokens
        for pragma in (
            "foreign_keys = ON",
            # An answer that is committed survives a power cut; in WAL mode NORMAL would not promise that.
            "synchronous = FULL",
            # A replaced token is overwritten, not only unlinked, in the database file. The -wal file keeps
            # older pages until it is truncated, which sweep() and close() do; what the file system keeps of
            # a truncated file is beyond a program's reach, and is sealed.
            "secure_delete = ON",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
        _refuse_strangers(db, path)
        _use_wal(db, path)
        with writing(db):
            # Looked at again: another process may have created or migrated it since.
            _refuse_strangers(db, path)
            if schema.migrations.pending(db):
                schema.migrations.apply(db)
    except BaseException:
        conn.close()
        raise
    return db


def _refuse_strangers(db: Database, path: Path) -> None:
    """Refuse what this program must not write to. Reads only."""
    if steps := schema.unknown_steps(db):
        raise StoreError(
            f"store {path}: it is from a newer version ({', '.join(steps)}): upgrade pleo-proxy, "
            "or restore a backup made by this version"
        )
    if schema.is_foreign(db):
        raise StoreError(f"store {path}: it is the database of another program: correct store.url")


def _use_wal(db: Database, path: Path) -> None:
    """Write-ahead logging: readers and the writer do not block each other, one fsync for each commit.

    Entering it needs the file alone, and SQLite does not wait for that by itself, so two processes that
    open a new store at once would meet SQLITE_BUSY.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise StoreError(
                f"store {path}: its file system cannot share memory between processes: "
                "put the store on a local disk"
            )
        return
