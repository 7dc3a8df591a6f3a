"""Two instances on one PostgreSQL store, each with a state directory of its own, as on two machines."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.config.store_url import parse_store_url
from proxy.groundwork import recover
from proxy.model import Grant, GrantState, Sealed, Tenant
from proxy.sandbox import Sandbox
from proxy.store import instance_name, open_store
from tests.harness import Proxy, running_proxy, settings_for, until


@asynccontextmanager
async def two_proxies(pleo: Sandbox, folder: Path, database: str) -> AsyncIterator[tuple[Proxy, Proxy]]:
    """Both with one key ring."""
    store = {"url": database, "state_dir": str(folder / "a")}
    async with running_proxy(pleo, folder / "a", store=store) as first:
        (folder / "b").mkdir()
        shutil.copy(folder / "a" / "keys", folder / "b" / "keys")
        store = {"url": database, "state_dir": str(folder / "b")}
        async with running_proxy(pleo, folder / "b", store=store) as second:
            yield first, second


async def test_two_instances_serve_one_store(pleo: Sandbox, tmp_path: Path, database: str) -> None:
    """A consent at one is served by the other, and an expired token costs both together one refresh."""
    async with two_proxies(pleo, tmp_path, database) as (first, second):
        await first.add_tenant("acme")
        assert (await first.connect("acme")).status == 200
        await until(lambda: second.app.tokens.states().get("connected") == 1)
        assert (await second.get("/acme/v2/employees")).status == 200

        pleo.advance(1000)
        answers = await asyncio.gather(*(each.get("/acme/v2/employees") for each in [first, second] * 10))
        assert {answer.status for answer in answers} == {200}
        assert len(first.lines("token.refreshed")) + len(second.lines("token.refreshed")) == 1
        assert {(await each.app.store.grants())["acme"].generation for each in (first, second)} == {2}


async def test_waiting_for_another_instances_refresh_is_counted(
    pleo: Sandbox, tmp_path: Path, database: str
) -> None:
    """Of two that want to refresh one grant, the one that finds the other at it waits, once."""
    async with two_proxies(pleo, tmp_path, database) as (first, second):
        await first.add_tenant("acme")
        await first.connect("acme")
        await until(lambda: second.app.tokens.states().get("connected") == 1)
        pleo.advance(1000)
        async with pleo.hold_token_endpoint() as gate:
            calls = [asyncio.create_task(first.get("/acme/v2/employees"))]
            await gate.arrived()
            calls.append(asyncio.create_task(second.get("/acme/v2/employees")))
            await until(lambda: second.app.tokens.refresher.lease_waits)
        assert [(await call).status for call in calls] == [200, 200]
        waits = [each.app.tokens.refresher.lease_waits for each in (first, second)]
        assert waits == [0, 1]


async def test_a_start_settles_only_its_own_attempts(pleo: Sandbox, tmp_path: Path, database: str) -> None:
    """What another instance is at is left to it: it may be serving."""
    settings = settings_for(pleo, tmp_path, store={"url": database, "state_dir": str(tmp_path)})
    mine = f"{instance_name(tmp_path)}/0"
    store = open_store(parse_store_url(database))
    try:
        await store.edit_tenants(lambda _: {name: Tenant(name) for name in ("mine", "theirs")})
        for name, owner in (("mine", mine), ("theirs", "0123456789abcdef/0")):
            grant = Grant(
                name,
                GrantState.REFRESHING,
                1,
                access=Sealed("v1.k1.access"),
                refresh=Sealed("v1.k1.refresh"),
                attempted_at=1.0,
                lease_owner=owner,
                lease_until=2.0,
            )
            await store.edit_grant(name, lambda _, grant=grant: grant)  # type: ignore[misc]
        before = await store.grant("theirs")

        await recover(settings, store, lambda _: None)

        settled = await store.grant("mine")
        assert settled is not None
        assert settled.attempted_at is None
        assert await store.grant("theirs") == before
    finally:
        await store.close()
