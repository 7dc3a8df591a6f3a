"""What outlives the process: tenants, grants, connect links and flows, in a database.

* :mod:`~proxy.store.interface`: what a store does, and the words for it; start here
* :mod:`~proxy.store.sqlite`: the store in a SQLite file, its statements and its thread
* :mod:`~proxy.store.connection`: how that file is created, checked, migrated, or refused
* :mod:`~proxy.store.schema`: the tables, step by step
* :mod:`~proxy.store.rows`: rows as values and back
* :mod:`~proxy.store.lock`: one ``serve`` at a time
* :mod:`~proxy.store.journal`: pairs that were issued and not saved yet, in a local file
* :mod:`~proxy.store.identity`: the name of this instance

Secrets arrive sealed and leave sealed; nothing here could open one.
"""

from __future__ import annotations

from pathlib import Path

from proxy.store.identity import instance_name
from proxy.store.interface import LINK_KEPT_S, LinkSpent, Store, TenantGone
from proxy.store.journal import Issued, Journal, JournalUnavailable, journal_path, journals_in
from proxy.store.lock import ServeLock
from proxy.store.sqlite import SqliteStore

__all__ = [
    "LINK_KEPT_S",
    "Issued",
    "Journal",
    "JournalUnavailable",
    "LinkSpent",
    "ServeLock",
    "Store",
    "TenantGone",
    "instance_name",
    "journal_path",
    "journals_in",
    "open_store",
]


def open_store(url_path: Path) -> Store:
    """Open the store in the SQLite file at ``url_path``, the path of ``store.url``; create it if absent.

    Blocks until the store is ready, so it is called before anything is served. Needs no event loop, but
    the store's methods do.

    :raises StoreError: in one line, with the path, what is wrong, and the remedy.
    """
    return SqliteStore.open(url_path)
