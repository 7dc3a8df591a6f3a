"""What outlives the process: tenants, grants, connect links and flows, in a database.

* :mod:`~proxy.store.interface`: what a store does, and the words for it; start here
* :mod:`~proxy.store.rows`: rows as values and back
* :mod:`~proxy.store.sqlite`: the store in a SQLite file, its statements and its thread
* :mod:`~proxy.store.sqlite_tenants`, :mod:`~proxy.store.sqlite_consents`: its tenants; links and flows
* :mod:`~proxy.store.sqlite_sessions`: who is logged in to the operator's pages, in that file
* :mod:`~proxy.store.connection`: how that file is created, checked, migrated, or refused
* :mod:`~proxy.store.schema`: its tables, step by step
* :mod:`~proxy.store.postgres`: the store in a PostgreSQL database, its statements and its thread
* :mod:`~proxy.store.postgres_tenants`, :mod:`~proxy.store.postgres_consents`: its tenants; links and flows
* :mod:`~proxy.store.postgres_sessions`: who is logged in to the operator's pages, in that database
* :mod:`~proxy.store.postgres_connection`: how that database is reached, checked, migrated, or refused
* :mod:`~proxy.store.postgres_schema`: its tables, step by step
* :mod:`~proxy.store.trail`: the audit trail of a store; :mod:`~proxy.store.sqlite_trail` and
  :mod:`~proxy.store.postgres_trail`: where its records are
* :mod:`~proxy.store.loop_thread`: the thread of that store
* :mod:`~proxy.store.lock`: one ``serve`` at a time
* :mod:`~proxy.store.journal`: pairs that were issued and not saved yet, in a local file
* :mod:`~proxy.store.identity`: the name of this instance

Secrets arrive sealed and leave sealed; nothing here could open one.
"""

from __future__ import annotations

from pathlib import Path

from proxy.config.store_url import StoreUrl
from proxy.errors import StoreError, StoreMissingError
from proxy.store.identity import instance_name
from proxy.store.interface import (
    LINK_KEPT_S,
    AdminSessions,
    Content,
    LinkSpent,
    Snapshot,
    Store,
    StoreNotEmpty,
    TenantGone,
)
from proxy.store.journal import Issued, Journal, JournalInUse, JournalUnavailable, journal_path, journals_in
from proxy.store.lock import ServeLock
from proxy.store.sqlite import SqliteStore
from proxy.store.trail import Extension, Marks, Notes, Standing, Trail

__all__ = [
    "LINK_KEPT_S",
    "AdminSessions",
    "Content",
    "Extension",
    "Issued",
    "Journal",
    "JournalInUse",
    "JournalUnavailable",
    "LinkSpent",
    "Marks",
    "Notes",
    "ServeLock",
    "Snapshot",
    "Standing",
    "Store",
    "StoreNotEmpty",
    "TenantGone",
    "Trail",
    "instance_name",
    "journal_path",
    "journals_in",
    "open_store",
]


def open_store(where: Path | StoreUrl, *, create: bool = True) -> Store:
    """Open the store that ``store.url`` names, or the SQLite file at a path; create it if absent.

    Blocks until the store is ready, so it is called before anything is served. Needs no event loop, but
    the store's methods do.

    :param create: without it nothing is made where there is no store.
    :raises StoreMissingError: there is none, and ``create`` is not set.
    :raises StoreError: in one line, with path or URL (never its password), what is wrong, and the remedy.
    """
    path = where if isinstance(where, Path) else where.path
    if path is not None:
        if not create and not (path.is_file() and path.stat().st_size):
            raise StoreMissingError(f"store {path}: there is no such file: correct the path")
        return SqliteStore.open(path)
    assert isinstance(where, StoreUrl)
    try:
        # Here, so that a proxy on SQLite need neither have the driver nor hold it in memory.
        from proxy.store.postgres import PostgresStore  # noqa: PLC0415 - as said
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise StoreError(
            f"store {where}: the driver for PostgreSQL is missing: "
            "pip install --require-hashes -r requirements-extras.lock"
        ) from None
    return PostgresStore.open(where, create=create)
