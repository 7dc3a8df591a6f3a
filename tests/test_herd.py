"""A thousand simultaneous 401s: one refresh, no reuse, every caller served, by any number of processes."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from proxy.sandbox import COMPANIES, Sandbox
from tests.command import Serving, serving, write_config
from tests.harness import free_port, until
from tests.wire.processes import allow_open_files

CALLERS = 1000
INSTANCES = 3
LIMITS = {"tenant_concurrency": CALLERS}
PATH = "/acme/v2/employees?limit=1"


@pytest.fixture(autouse=True)
def many_files() -> None:
    """A connection of each caller to the proxy, and one of it to the simulated Pleo, are all open at once."""
    allow_open_files(5 * CALLERS)


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_thousand_401s_cost_one_refresh(pleo: Sandbox, tmp_path: Path, workers: int) -> None:
    """All are at Pleo with the dead token before any of them is refused; the provider counts one rotation."""
    pleo.switches.rate_limit_per_minute = None
    listen: dict[str, object] = {}
    if workers > 1:
        port, admin = free_port(), free_port()
        listen = {
            "workers": workers,
            "proxy": f"127.0.0.1:{port}",
            "admin": f"127.0.0.1:{admin}",
            "public_url": f"http://127.0.0.1:{admin}",
        }
    config = write_config(tmp_path, pleo, admin={"token": "admin"}, listen=listen, limits=LIMITS)
    async with serving(config) as serve:
        if workers > 1:
            await until(lambda: len(serve.process.lines("worker.started")) == workers)
        await serve.command("tenants", "add", "acme")
        await serve.connect("acme")
        await asyncio.sleep(1)  # every worker sees the consent within a second
        await herd(pleo, [serve])
        await serve.stop()


async def test_a_thousand_401s_over_three_instances_cost_one_refresh(
    pleo: Sandbox, tmp_path: Path, database: str
) -> None:
    """Instances with state directories of their own on one PostgreSQL store, as on three machines."""
    pleo.switches.rate_limit_per_minute = None
    async with AsyncExitStack() as stack:
        serves: list[Serving] = []
        for number in range(INSTANCES):
            folder = tmp_path / str(number)
            (folder / "state").mkdir(parents=True)
            if number:
                shutil.copy(tmp_path / "0" / "state" / "keys", folder / "state" / "keys")
            store = {"url": database, "state_dir": f"{folder}/state"}
            config = write_config(folder, pleo, admin={"token": "admin"}, store=store, limits=LIMITS)
            serves.append(await stack.enter_async_context(serving(config)))
        await serves[0].command("tenants", "add", "acme")
        await serves[0].connect("acme")
        await asyncio.sleep(1)  # every instance sees the consent within a second
        await herd(pleo, serves)
        for serve in serves:
            await serve.stop()


async def herd(pleo: Sandbox, serves: list[Serving]) -> None:
    """A thousand calls that all meet a dead token, and what came of them."""
    pleo.revoke_access("acme")
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        pleo.hold_api("/v2/employees") as gate,
    ):

        async def call(serve: Serving) -> int:
            async with session.get(serve.base_url + PATH) as answer:
                await answer.read()
                return answer.status

        calls = [asyncio.create_task(call(serves[number % len(serves)])) for number in range(CALLERS)]
        async with asyncio.timeout(120):
            await gate.arrived(CALLERS)
        gate.release()
        statuses = await asyncio.gather(*calls)
    assert statuses == [200] * CALLERS
    finished = [line for serve in serves for line in serve.process.lines("request.finished")]
    assert {line["generation"] for line in finished} == {2}
    assert pleo.counters.refreshes_of(COMPANIES["acme"]) == 1
    assert pleo.counters.reuse_attempts == 0
    assert pleo.counters.dead_token_requests["revoked"] == CALLERS
