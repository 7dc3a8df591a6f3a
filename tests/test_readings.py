"""What a scrape reads of a running proxy: connections, bodies, tokens, the store, the loop's lag."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.errors import StoreUnavailable
from proxy.facts import StoreFailed, StoreRecovered
from proxy.readings import Readings, Reloads
from proxy.replay import Kept, ReplayBody
from proxy.sandbox import Sandbox
from proxy.telemetry import families
from tests.harness import Proxy, running_proxy, until


def scraped(proxy: Proxy) -> dict[str, float]:
    """Samples by name and labels, the project's prefix left out."""
    return {
        f"{sample.name.removeprefix('pleo_proxy_')}"
        f"{{{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(proxy.metrics.render().decode())
        for sample in family.samples
    }


async def test_connections_are_counted_busy_and_idle(proxy: Proxy) -> None:
    """A connection to Pleo is busy while a request is on it and idle afterwards, and was opened once."""
    async with proxy.pleo.hold_api("/v2/employees") as gate:
        call = asyncio.create_task(proxy.get("/acme/v2/employees"))
        await gate.arrived()
        found = scraped(proxy)
        assert found["upstream_connections{state=busy}"] == 1
        assert found["upstream_connections{state=idle}"] == 0
        assert found["caller_connections{}"] == 1
    assert (await call).status == 200
    await until(lambda: scraped(proxy)["upstream_connections{state=idle}"] == 1)
    assert scraped(proxy)["upstream_connections{state=busy}"] == 0
    await until(lambda: scraped(proxy)["upstream_connections_opened_total{}"] == 1)


async def test_requests_that_wait_for_a_refresh_are_counted(proxy: Proxy) -> None:
    """They wait while the refresh is under way, and nobody does afterwards, callers that left included."""
    proxy.pleo.revoke_access("acme")
    async with proxy.pleo.hold_token_endpoint() as gate:
        calls = [asyncio.create_task(proxy.get("/acme/v2/employees")) for _ in range(3)]
        await gate.arrived()
        await until(lambda: scraped(proxy)["under_way{kind=waiting_for_refresh}"] == 3)
        assert scraped(proxy)["under_way{kind=refreshes}"] == 1
        calls.pop().cancel()
        await until(lambda: scraped(proxy)["under_way{kind=waiting_for_refresh}"] == 2)
    assert [(await call).status for call in calls] == [200, 200]
    assert scraped(proxy)["under_way{kind=waiting_for_refresh}"] == 0


async def test_each_tenant_shows_whether_it_works_and_until_when(proxy: Proxy) -> None:
    """A tenant whose consent has ended shows 0 and no time; one that works shows its weeks."""
    proxy.pleo.revoke("globex")
    await proxy.get("/globex/v2/employees")
    assert (await proxy.get("/acme/v2/employees")).status == 200
    found = scraped(proxy)
    assert found["grant_usable{tenant=acme}"] == 1
    assert found["grant_usable{tenant=globex}"] == 0
    days = found["refresh_token_left_seconds{tenant=acme}"] / 86400
    assert 59 < days <= 60
    assert "refresh_token_left_seconds{tenant=globex}" not in found
    assert 0 < found["access_token_left_seconds{}"] <= 3600


async def test_a_token_that_nobody_uses_has_no_time_left_to_tell(proxy: Proxy) -> None:
    """It may expire unseen, which is no trouble and must not look like one."""
    assert "access_token_left_seconds{}" not in scraped(proxy)


async def test_a_store_that_fails_shows_while_it_does(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """store_up is 0 from the watch's first look that finds it so, and 1 again after it came back."""

    async def failing() -> None:
        raise StoreUnavailable("not shown")

    assert scraped(proxy)["store_up{}"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(proxy.app.store, "ping", failing)
        await proxy.next_fact(StoreFailed)
        assert scraped(proxy)["store_up{}"] == 0
    await until(lambda: any(isinstance(fact, StoreRecovered) for fact in proxy.facts))
    assert scraped(proxy)["store_up{}"] == 1


async def test_the_watch_measures_how_late_it_wakes_up(proxy: Proxy) -> None:
    """Each round is one observation, so the lag costs requests nothing."""
    before = scraped(proxy)["event_loop_lag_seconds_count{}"]
    await until(lambda: scraped(proxy)["event_loop_lag_seconds_count{}"] >= before + 2)
    assert scraped(proxy)["event_loop_lag_seconds_sum{}"] < 60


async def test_a_401_whose_body_is_gone_is_counted(pleo: Sandbox, tmp_path: Path) -> None:
    """A body beyond limits.replay_disk is given up, and its 401 that was passed on is told."""
    limits = {"replay_memory": 1024, "replay_disk": 4096}
    async with running_proxy(pleo, tmp_path, limits=limits) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        pleo.revoke_access("acme")

        async def body() -> AsyncIterator[bytes]:
            yield b"%" * 100
            await until(lambda: scraped(proxy)["replay_bytes{place=memory}"] == 100)
            yield b"%" * 5000

        assert (await proxy.call("POST", "/acme/v1/vendors", data=body())).status == 401
        await until(lambda: scraped(proxy)["requests_not_repeated_total{}"] == 1)
        found = scraped(proxy)
        assert found["replay_given_up_total{}"] == 1
        assert found["replay_bytes{place=memory}"] == found["replay_bytes{place=disk}"] == 0


def test_each_reading_comes_from_its_part() -> None:
    """Numbers that are all different end up under the names that are meant, one for each."""
    grants = SimpleNamespace(
        states=lambda: {"connected": 1},
        usable=lambda: {"acme": True, "globex": False},
        access_left_s=lambda: 2.0,
        refresh_left_s=lambda: {"acme": 3.0},
    )
    refresher = SimpleNamespace(lease_waits=4)
    tokens = SimpleNamespace(held=grants, waiting=5, refreshes_under_way=6, refresher=refresher)
    pool = {
        "connections_open": 17,
        "connections_idle": 7,
        "connects_total": 8,
        "reuses_total": 99,
        "stale_retries_total": 9,
    }
    parts: list[Any] = [
        SimpleNamespace(kept=Kept(11, 12, 13), under_way=14, not_repeated=15),
        tokens,
        SimpleNamespace(connections=set(range(16))),
        SimpleNamespace(stats=pool),
        SimpleNamespace(outstanding={1: None, 2: None}),
        SimpleNamespace(waiting=18, dropped=19),
        lambda: True,
        lambda: Reloads(succeeded=False, read_at=23.0),
        SimpleNamespace(waiting=20, exported=21, dropped=22),
    ]
    readings = Readings(*parts)
    assert readings.gauges() == {
        (families.GRANTS, "connected"): 1,
        (families.USABLE, "acme"): 1.0,
        (families.USABLE, "globex"): 0.0,
        (families.REFRESH_LEFT, "acme"): 3.0,
        (families.ACCESS_LEFT,): 2.0,
        (families.UNDER_WAY, "requests"): 14,
        (families.UNDER_WAY, "waiting_for_refresh"): 5,
        (families.UNDER_WAY, "refreshes"): 6,
        (families.POOL, "busy"): 10,
        (families.POOL, "idle"): 7,
        (families.CALLERS,): 16,
        (families.REPLAY, "memory"): 11,
        (families.REPLAY, "disk"): 12,
        (families.JOURNAL,): 2,
        (families.STORE_UP,): 1.0,
        (families.CONFIG_OK,): 0.0,
        (families.CONFIG_AT,): 23.0,
        (families.AUDIT_WAITING,): 18,
        (families.TRACES_WAITING,): 20,
    }
    assert readings.totals() == {
        families.NOT_REPEATED: 15,
        families.REPLAY_LOST: 13,
        families.LEASE_WAITS: 4,
        families.CONNECTS: 8,
        families.STALE_RETRIES: 9,
        families.AUDIT_DROPPED: 19,
        families.SPANS_EXPORTED: 21,
        families.SPANS_DROPPED: 22,
    }


class Pieces:
    """A body that comes in two pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._left = [*pieces, b""]

    async def readany(self) -> bytes:
        return self._left.pop(0)


async def taken(chunks: AsyncIterator[bytes], count: int) -> None:
    for _ in range(count):
        await anext(chunks)


@pytest.mark.parametrize(
    ("pieces", "memory", "disk", "given_up"),
    [
        pytest.param(1, 6, 0, 0, id="memory"),
        pytest.param(2, 0, 12, 0, id="disk"),
        pytest.param(3, 0, 0, 1, id="given-up"),
    ],
)
async def test_what_is_kept_of_bodies_is_known(pieces: int, memory: int, disk: int, given_up: int) -> None:
    """Bytes count where they are, in memory or on disk, and nowhere once the body is closed."""
    kept = Kept()
    body = ReplayBody(
        Pieces(b"x" * 6, b"y" * 6, b"z" * 6),
        length=None,
        memory_bytes=10,
        disk_bytes=15,
        body_bytes=100,
        kept=kept,
    )
    await taken(body.chunks(), pieces)
    assert kept == Kept(memory, disk, given_up)
    body.close()
    body.close()
    assert kept == Kept(0, 0, given_up)
