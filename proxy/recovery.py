"""What a start makes good: pairs that were issued and not saved, and refreshes that were cut off.

In this order: a pair in the journal is the answer to an attempt, and an attempt without one counts as lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from proxy import lifecycle
from proxy.facts import Emit, JournalReplayed
from proxy.model import Grant, GrantState
from proxy.store import Issued, Journal, JournalInUse, Store, TenantGone, journals_in
from proxy.vault import is_same_value

_LOOK_S = 0.1


async def replay_all(state_dir: Path, store: Store, emit: Emit, *, patience_s: float) -> None:
    """Replay every journal in ``state_dir``, of workers that are no more too.

    A worker whose supervisor was killed serves its last requests still, and may be about to save a pair; its
    journal is waited for.

    :param patience_s: how long one that is in use is waited for.
    :raises StoreError: one is in use for longer, or cannot be read.
    :raises StoreUnavailable: the store does not take a pair now; it stays in its journal.
    """
    for path in journals_in(state_dir):
        journal = await _opened(path, patience_s)
        try:
            await replay(journal, store, emit)
        finally:
            await journal.close()


async def _opened(path: Path, patience_s: float) -> Journal:
    ends = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            return Journal.open(path)
        except JournalInUse:
            if asyncio.get_running_loop().time() > ends:
                raise
        await asyncio.sleep(_LOOK_S)


async def replay(journal: Journal, store: Store, emit: Emit) -> None:
    """Have the store take what a former run recorded in ``journal`` and could not save.

    :raises StoreUnavailable: it does not take it now.
    """
    for number, issued in journal.outstanding.items():
        taken = await _take(store, issued)
        emit(JournalReplayed(issued.tenant, issued.generation + 1, taken=taken))
        await journal.settle(number)


async def _take(store: Store, issued: Issued) -> bool:
    before = Grant(issued.tenant, GrantState.REFRESHING, issued.generation, refresh=issued.replaced)
    try:
        stored = await store.edit_grant(
            issued.tenant, lambda grant: lifecycle.granted(grant, issued.pair, before=before)
        )
    except TenantGone:
        return False
    return stored is not None and is_same_value(stored.access, issued.pair.access)


async def settle_attempts(store: Store, is_gone: Callable[[str | None], bool]) -> None:
    """Note the refreshes that were left without an answer by owners that are gone.

    :raises StoreUnavailable: the store does not work.
    """

    def settle(grant: Grant | None) -> Grant | None:
        return lifecycle.after_cut_off(grant) if grant is not None and is_gone(grant.lease_owner) else grant

    for grant in (await store.grants()).values():
        if grant.attempted_at is not None:
            with suppress(TenantGone):  # removed meanwhile
                await store.edit_grant(grant.tenant, settle)
