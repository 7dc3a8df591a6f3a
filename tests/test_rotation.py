"""Sealing anew with another key, beside processes that remember the values as they were."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy import lifecycle, pairs, recovery, rotation
from proxy.authorize import verifier_place
from proxy.facts import Fact, JournalReplayed
from proxy.lifecycle import NewPair
from proxy.model import Flow, Grant, Secret, Tenant
from proxy.oauth import TokenPair
from proxy.pairs import Lifetimes
from proxy.store import Issued, Journal, Store, open_store
from proxy.vault import Vault, is_same_value, key_id_of, new_key_line

OLD_LINE, NEW_LINE = new_key_line("old"), new_key_line("new")
OLD, BOTH = Vault(Secret(OLD_LINE)), Vault(Secret(f"{NEW_LINE}\n{OLD_LINE}"))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store that the old key has sealed, with a grant for each of three tenants."""
    opened = open_store(tmp_path / "proxy.db")
    await opened.set_key_check(OLD.seal_check())
    await opened.edit_tenants(lambda _: {name: Tenant(name) for name in ("acme", "globex", "initech")})
    for name in ("acme", "globex", "initech"):
        await opened.edit_grant(name, lambda _, name=name: connected(name))  # type: ignore[misc]
    yield opened
    await opened.close()


def new_pair(vault: Vault, tenant: str, generation: int) -> NewPair:
    """A pair as a refresh brings it."""
    return pairs.seal_pair(
        vault,
        TokenPair(Secret(f"access {tenant} {generation}"), Secret(f"refresh {tenant} {generation}"), 900),
        tenant=tenant,
        generation=generation,
        now=1000.0,
        lifetimes=Lifetimes(900, 9000),
    )


def connected(tenant: str) -> Grant:
    """A grant of generation 1, sealed with the old key."""
    pair = new_pair(OLD, tenant, 1)
    return lifecycle.connected(pair, tenant=tenant, company="company", scopes=("a",), generation=1)


async def rotate(store: Store, *, patience_s: float = 0.0) -> rotation.Rotated:
    """Rotate to the new key without a pause."""
    return await rotation.rotate(
        store, BOTH, pause=asyncio.sleep, progress=lambda _done, _total: None, patience_s=patience_s
    )


async def test_everything_gets_the_first_key_and_opens_as_before(store: Store) -> None:
    """Grants, verifiers and the key check; a second run finds nothing to do."""
    place = verifier_place("acme", "flow")
    flow = Flow("flow", "link", "acme", "browser", OLD.seal(Secret("verifier"), place), 0.0, 9e9)
    await store.add_flow(flow)
    assert await rotation.values_by_key(store) == {"old": 8}
    assert (await rotate(store)).resealed == 3
    assert await rotation.values_by_key(store) == {"new": 8}
    check = await store.key_check()
    assert check is not None
    BOTH.verify_check(check)
    new_alone = Vault(Secret(NEW_LINE))
    for tenant, grant in (await store.grants()).items():
        opened = pairs.open_pair(new_alone, grant)
        assert opened is not None
        assert opened.refresh == Secret(f"refresh {tenant} 1")
    taken = await store.take_flow("flow", "browser", 1.0)
    assert taken is not None
    assert new_alone.open(taken.verifier, place) == Secret("verifier")
    assert (await rotate(store)).resealed == 0


async def test_a_run_that_was_cut_off_is_continued(store: Store) -> None:
    """Each grant is a step of its own, so what is done stays done."""

    def cut(done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rotation.rotate(store, BOTH, pause=asyncio.sleep, progress=cut, patience_s=0.0)
    assert await rotation.values_by_key(store) == {"new": 3, "old": 4}
    assert (await rotate(store)).resealed == 2


async def test_a_grant_that_changes_meanwhile_is_not_put_back(store: Store) -> None:
    """Between reading the grants and sealing one anew, a refresh is saved: its pair stays."""
    before = await store.grant("globex")
    assert before is not None
    pair = new_pair(OLD, "globex", 2)

    async def refreshed() -> None:
        await store.edit_grant("globex", lambda grant: lifecycle.granted(grant, pair, before=before))

    tasks: list[asyncio.Task[None]] = []

    def progress(done: int, _total: int) -> None:
        if done == 1 and not tasks:
            tasks.append(asyncio.create_task(refreshed()))

    await rotation.rotate(store, BOTH, pause=asyncio.sleep, progress=progress, patience_s=5.0)
    await asyncio.gather(*tasks)
    await rotate(store)
    after = await store.grant("globex")
    assert after is not None
    assert after.generation == 2
    assert is_same_value(after.refresh, pair.refresh)
    opened = pairs.open_pair(BOTH, after)
    assert opened is not None
    assert opened.refresh == Secret("refresh globex 2")


async def test_a_refresh_that_began_from_the_old_text_is_saved(store: Store) -> None:
    """A process that read the grant before the rotation begins and saves its refresh as if nothing were."""
    before = await store.grant("acme")
    assert before is not None
    await rotate(store)
    lease, takeover = lifecycle.Lease("a/0", 2000.0), lifecycle.Takeover(300.0, 0.0)
    begun = await store.edit_grant(
        "acme",
        lambda grant: lifecycle.begin_refresh(grant, before=before, at=1.0, lease=lease, takeover=takeover),
    )
    assert begun is not None
    assert begun.refresh is not None
    assert (begun.lease_owner, key_id_of(begun.refresh)) == ("a/0", "new")
    pair = new_pair(OLD, "acme", 2)
    saved = await store.edit_grant("acme", lambda grant: lifecycle.granted(grant, pair, before=before))
    assert saved is not None
    assert (saved.generation, saved.refresh) == (2, pair.refresh)


async def test_a_journal_from_before_the_rotation_is_replayed(store: Store, tmp_path: Path) -> None:
    """Its record names the pair that it replaces by its old text; the pair is found and replaced."""
    before = await store.grant("acme")
    assert before is not None
    assert before.refresh is not None
    facts: list[Fact] = []
    journal = Journal.open(tmp_path / "journal-0.log")
    await journal.append(Issued("acme", 1, before.refresh, new_pair(OLD, "acme", 2)))
    await rotate(store)
    await recovery.replay(journal, store, facts.append)
    await journal.close()
    assert facts == [JournalReplayed("acme", 2, taken=True)]
    after = await store.grant("acme")
    assert after is not None
    assert after.generation == 2
