"""Sealing what is stored anew with the first key of the ring, while requests and refreshes go on.

One grant at a time, each in a transaction of its own that looks at the grant as it is then: a step that was
cut off is whole or absent, and whoever runs this again goes on where it stopped. A token keeps its identity
(:func:`proxy.vault.is_same_value`), so a process that holds the pair in memory, a refresh that begins
afterwards and a record in a journal go on meaning it. Shows and logs nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from proxy import pairs
from proxy.audit import KEY_PLACE
from proxy.authorize import verifier_place
from proxy.model import Clock, Flow, Grant, Sealed
from proxy.store import Store, TenantGone
from proxy.vault import CHECK_PLACE, SealedValueError, Vault, key_id_of

_LOOK_S = 0.5
"""Pause before grants are looked at again of which a refresh was under way."""
PATIENCE_S = 90.0
"""How long to wait for such refreshes: none takes longer, unless its process is gone."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """What came of it. All has the first key if neither ``busy`` nor ``refused`` names a tenant."""

    resealed: int
    """Grants that were sealed anew."""
    busy: tuple[str, ...]
    """Tenants of which a refresh is noted as under way that did not end in time."""
    refused: Mapping[str, str]
    """Tenants whose tokens do not open, and why."""


async def rotate(
    store: Store,
    vault: Vault,
    *,
    pause: Callable[[float], Awaitable[None]],
    progress: Callable[[int, int], None],
    patience_s: float,
    clock: Clock = time.monotonic,
) -> Rotated:
    """Seal everything in ``store`` with the first key of ``vault``.

    :param patience_s: how long to come back to grants of which a refresh is under way.
    :param progress: told how many grants of how many are done.
    :raises KeyRingError: the ring is not this store's; nothing was changed.
    :raises StoreUnavailable: the store does not work; what is done so far is done.
    """
    # First: a process with a ring that lacks the new key then refuses to start, before it could meet a value.
    await _reseal_check(store, vault)
    await store.edit_flows(lambda flow: _resealed_flow(vault, flow))
    await store.trail.reseal_key(lambda key: vault.reseal(key, KEY_PLACE))
    ends = clock() + patience_s
    done = 0
    refused: dict[str, str] = {}
    while True:
        waiting = [
            tenant
            for tenant, grant in (await store.grants()).items()
            if tenant not in refused and not _is_done(vault, grant)
        ]
        total = done + len(waiting)
        progress(done, total)
        busy = []
        for tenant in waiting:
            try:
                if await _reseal(store, vault, tenant):
                    done += 1
                else:
                    busy.append(tenant)
            except SealedValueError as error:
                refused[tenant] = error.problem
            progress(done, total)
        if not waiting or clock() >= ends:
            return Rotated(done, tuple(busy), refused)
        if busy:
            await pause(_LOOK_S)


async def values_by_key(store: Store) -> Counter[str]:
    """How many stored values each key seals, by key id."""
    stored = await store.snapshot()
    values: list[Sealed | None] = [stored.content.key_check, stored.marks.key]
    values += (flow.verifier for flow in stored.flows)
    for grant in stored.content.grants.values():
        values += (grant.access, grant.refresh)
    return Counter(key_id_of(sealed) for sealed in values if sealed is not None)


def _is_done(vault: Vault, grant: Grant) -> bool:
    return pairs.is_sealed_with(vault.key_ids[0], grant)


async def _reseal(store: Store, vault: Vault, tenant: str) -> bool:
    """Whether the tenant's grant has the first key now, or is gone."""

    def edit(grant: Grant | None) -> Grant | None:
        # A refresh under way is about to replace these values; what it leaves is looked at again.
        if grant is None or grant.attempted_at is not None:
            return grant
        return pairs.resealed(vault, grant)

    with suppress(TenantGone):
        grant = await store.edit_grant(tenant, edit)
        return grant is None or _is_done(vault, grant)
    return True


async def _reseal_check(store: Store, vault: Vault) -> None:
    check = await store.key_check()
    if check is None:
        await store.set_key_check(vault.seal_check())
        return
    vault.verify_check(check)
    await store.set_key_check(vault.reseal(check, CHECK_PLACE), replacing=check)


def _resealed_flow(vault: Vault, flow: Flow) -> Flow:
    # One that does not open is over within minutes, and whoever comes back for it is told to begin anew.
    with suppress(SealedValueError):
        return replace(flow, verifier=vault.reseal(flow.verifier, verifier_place(flow.tenant, flow.id)))
    return flow
