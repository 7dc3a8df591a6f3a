"""What works while something else does not; the table in ``docs/outages.md`` points here."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.errors import StoreUnavailable
from proxy.facts import JournalFailed, Refreshed
from proxy.sandbox import COMPANIES, Sandbox, TokenFault
from proxy.store import JournalUnavailable
from proxy.store.journal import Journal
from tests.harness import Proxy, running_proxy, until

ACME = COMPANIES["acme"]
QUICK = {"drain_s": 0.2}
PATH = "/acme/v2/employees?limit=1"


async def test_the_authorisation_server_is_down(proxy: Proxy) -> None:
    """A good token serves on through failed refreshes; once it has expired callers are told to come back."""
    proxy.pleo.token_faults.append(TokenFault("status", status=503, times=None))
    proxy.pleo.advance(900 * 0.91)
    assert (await proxy.get(PATH)).status == 200
    proxy.pleo.advance(900)
    answer = await proxy.get(PATH)
    assert (answer.status, answer.json()["type"].rpartition("/")[2]) == (503, "provider-unavailable")
    assert answer.header("Retry-After")
    proxy.pleo.token_faults.clear()
    proxy.pleo.advance(120)
    assert (await proxy.get(PATH)).status == 200


async def test_the_api_is_down(proxy: Proxy) -> None:
    """Callers get 502, tokens are refreshed all the same, and nothing is lost when the API is back."""
    api = proxy.pleo
    await api.stop()
    assert (await proxy.get(PATH)).status == 502
    await api.start()
    # The circuit lets one request through as soon as it is time.
    await until_served(proxy)
    assert api.counters.reuse_attempts == 0


async def until_served(proxy: Proxy) -> None:
    """Wait until a call succeeds."""
    for _ in range(100):
        if (await proxy.get(PATH)).status == 200:
            return
        await until(lambda: True)
    raise AssertionError("it did not heal")


async def test_the_disk_is_full(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that cannot be written is said so, and the store keeps the pair all the same."""

    async def full(_journal: Journal, _issued: object) -> int:
        raise JournalUnavailable("No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    proxy.pleo.advance(901)
    assert (await proxy.get(PATH)).status == 200
    failed = [fact for fact in proxy.facts if isinstance(fact, JournalFailed)]
    assert [(fact.tenant, fact.error) for fact in failed] == [("acme", "No space left on device")]
    stored = await proxy.app.store.grant("acme")
    assert stored is not None
    assert stored.generation == 2


async def test_the_store_goes_while_pleo_answers(pleo: Sandbox, tmp_path: Path) -> None:
    """A pair that the store cannot take is in the journal, and a restart gives it to the store."""
    async with running_proxy(
        pleo, tmp_path, refresh={"timeout_s": 0.3, "wait_s": 0.2}, limits=QUICK
    ) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        edit = proxy.app.store.edit_grant
        calls = 0

        async def goes(tenant: str, change: object) -> object:
            nonlocal calls
            calls += 1
            if calls > 1:  # the first is the write-ahead
                raise StoreUnavailable("gone")
            return await edit(tenant, change)  # type: ignore[arg-type] # handed on

        proxy.app.store.edit_grant = goes  # type: ignore[method-assign,assignment]
        pleo.advance(901)
        assert (await proxy.get(PATH)).status == 503
        assert not [fact for fact in proxy.facts if isinstance(fact, Refreshed)], "nothing is used unsaved"
    async with running_proxy(pleo, tmp_path) as proxy:
        (replayed,) = proxy.lines("journal.replayed")
        assert (replayed["generation"], replayed["taken"]) == (2, True)
        assert (await proxy.get(PATH)).status == 200
    assert pleo.counters.refreshes_of(ACME) == 1
    assert pleo.counters.reuse_attempts == 0


@pytest.mark.parametrize("ahead_s", [7200.0, -7200.0], ids=["ahead", "behind"])
async def test_the_clock_is_wrong(pleo: Sandbox, tmp_path: Path, ahead_s: float) -> None:
    """A clock that is hours off costs refreshes at the most: lifetimes are counted from each answer."""
    async with running_proxy(pleo, tmp_path, clock=lambda: pleo.now() + ahead_s) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        assert (await proxy.get(PATH)).status == 200
        pleo.advance(901)
        assert (await proxy.get(PATH)).status == 200
    assert pleo.counters.refreshes_of(ACME) == 1


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0], ids=["forward", "back"])
async def test_the_clock_is_set_while_it_runs(pleo: Sandbox, tmp_path: Path, jump_s: float) -> None:
    """Set forward, tokens are refreshed early; set back, one that Pleo calls dead leads to one refresh."""
    offset = [0.0]
    async with running_proxy(pleo, tmp_path, clock=lambda: pleo.now() + offset[0]) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        offset[0] = jump_s
        assert (await proxy.get(PATH)).status == 200
        pleo.advance(901)
        assert (await proxy.get(PATH)).status == 200
    assert pleo.counters.reuse_attempts == 0
    assert pleo.counters.refreshes_of(ACME) in (1, 2)
