"""A thousand tokens that end within one minute: the refreshes spread, and nobody waits for another's."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import pytest

from proxy import lifecycle, pairs
from proxy.lifecycle import Windows
from proxy.model import Grant, Secret, Tenant
from proxy.oauth import TokenFailure, TokenPair
from proxy.refresher import Refresher
from proxy.store import Journal, open_store
from proxy.tokens import RefreshRules, Tokens
from proxy.vault import Vault
from tests.harness import until

NAMES = [f"t{number}" for number in range(1000)]
LIFETIME_S = 60.0
DEFAULTS = Windows(0.8, 0.1, 30, 0.05, 0.5)


@dataclass
class Provider:
    """Grants what is asked for as soon as the gate is open."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    most: int = 0

    async def refresh(self, refresh: Secret) -> TokenPair | TokenFailure:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.gate.wait()
        self.waiting -= 1
        return TokenPair(Secret("at-2"), Secret(f"{refresh.reveal()}+"), LIFETIME_S)


@pytest.fixture(scope="module")
def vault() -> Vault:
    """One key for all."""
    return Vault(Secret("k1:" + b64encode(bytes(32)).decode()))


def _always(grant: Grant) -> Callable[[Grant | None], Grant]:
    return lambda _: grant


async def test_a_thousand_tokens_of_one_minute(tmp_path: Path, vault: Vault) -> None:
    """No second takes more than a third of the refreshes, and a fresh token never waits for a stale one."""
    now = [1_800_000_000.0]
    began = now[0]
    store, provider = open_store(tmp_path / "proxy.db"), Provider()
    lifetimes = pairs.Lifetimes(900, 60 * 86400)
    starts: Counter[int] = Counter()
    refresher = Refresher(
        store,
        Journal.open(tmp_path / "journal-0.log"),
        vault,
        provider,
        lifetimes,
        lambda _: None,
        lambda: now[0],
        asyncio.sleep,
        "p",
        lease_s=40,
        takeover_s=300,
    )
    rules = RefreshRules(DEFAULTS, 10, 60, 1, 60, 60)
    tokens = Tokens(store, vault, refresher, rules, lambda _: None, lambda: now[0])
    await store.edit_tenants(lambda _: {name: Tenant(name) for name in NAMES})
    for name in NAMES:
        sealed = pairs.seal_pair(
            vault,
            TokenPair(Secret("at-1"), Secret(f"rt-{name}"), LIFETIME_S),
            tenant=name,
            generation=1,
            now=began,
            lifetimes=lifetimes,
        )
        grant = lifecycle.connected(sealed, tenant=name, company="c", scopes=(), generation=1)
        await store.edit_grant(name, _always(grant))
        tokens.take(grant)
    for name in NAMES:
        await tokens.current(name)  # so that they count as used, and are refreshed ahead

    waits = []
    for tick in range(2 * int(LIFETIME_S)):
        now[0] = began + tick / 2
        before = tokens.refreshes_under_way
        await tokens.refresh_due()
        starts[tick // 2] += tokens.refreshes_under_way - before
        for name in NAMES[::50]:
            if tokens.held.live[name].task is None and now[0] < began + 0.8 * LIFETIME_S:
                asked = perf_counter()
                assert (await tokens.current(name)).value == Secret("at-1")
                waits.append(perf_counter() - asked)
    assert sum(starts.values()) == len(NAMES)
    # They begin between 80 and 90 % of the lifetime, which is six seconds of this one.
    assert set(starts) >= {48, 49, 50, 51, 52, 53}
    assert max(starts.values()) < len(NAMES) / 3
    assert max(second for second, count in starts.items() if count) <= 54
    assert max(waits) < 0.05
    now[0] = began + 0.9 * LIFETIME_S
    provider.gate.set()
    await until(lambda: tokens.refreshes_under_way == 0, timeout_s=60)
    await store.close()
