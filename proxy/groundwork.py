"""What a start does before anything is served: the lock, the key ring, and what a former run left.

Once for a process that serves alone, and once for all workers. Serves nothing and leaves nothing open but the
lock; called by :mod:`proxy.app`, by the supervisor of workers, and by whoever sets up a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

from proxy import keyring, recovery
from proxy.admin import token as admin_token
from proxy.config import Settings
from proxy.facts import Emit
from proxy.model import Secret
from proxy.store import ServeLock, Store, instance_name, open_store
from proxy.vault import Vault
from proxy.wiring import LEASE_MARGIN_S


async def prepare(
    settings: Settings, environ: Mapping[str, str], stack: AsyncExitStack, emit: Emit
) -> tuple[Secret | None, Secret]:
    """What is done once for several workers: the lock, the store's schema, the key ring, old attempts.

    :returns: the admin token if it was generated now, to be shown once; and the key ring, with which workers
        are started, so that none of them asks a key service when it takes another's place.
    :raises OperatorError: it cannot serve; one line says why and what to do.
    """
    keep_others_out(settings, stack)
    store = open_store(settings.store.url)
    try:
        vault = await open_vault(settings, environ, store)
        await recover(settings, store, emit)
    finally:
        await store.close()
    given = settings.admin.token is not None
    return None if given else admin_token.generated(settings.store.state_dir)[1], vault.keys


async def open_vault(settings: Settings, environ: Mapping[str, str], store: Store) -> Vault:
    """The vault of this store.

    :raises KeyRingError: the key ring is missing, malformed, open to others, or another store's.
    :raises KeyServiceError: the service that wrapped its keys does not unwrap them.
    """
    check = await store.key_check()
    keys = keyring.read_or_generate(
        settings.vault.keys, environ, store_is_sealed=check is not None, service=settings.vault.key_service
    )
    vault = Vault(keys)
    if check is None:
        await store.set_key_check(vault.seal_check())
        # Read back: of two instances that start on a new store, the other may have been faster.
        check = await store.key_check()
    if check is not None:
        vault.verify_check(check)
    return vault


def keep_others_out(settings: Settings, stack: AsyncExitStack) -> None:
    """Take the lock of a SQLite store until ``stack`` is closed; a PostgreSQL store is for many instances.

    :raises StoreError: another ``serve`` has it.
    """
    if settings.store.url.path is not None:
        stack.enter_context(ServeLock.acquire(settings.store.url.path))


async def recover(settings: Settings, store: Store, emit: Emit) -> None:
    """Make good what a former run of this instance left; others may be serving a PostgreSQL store."""
    # What a worker without a supervisor takes to end at the most.
    patience_s = settings.limits.drain_s + settings.refresh.timeout_s + LEASE_MARGIN_S
    await recovery.replay_all(settings.store.state_dir, store, emit, patience_s=patience_s)
    alone = settings.store.url.path is not None
    mine = f"{instance_name(settings.store.state_dir)}/"
    await recovery.settle_attempts(store, lambda owner: alone or (owner or "").startswith(mine))
