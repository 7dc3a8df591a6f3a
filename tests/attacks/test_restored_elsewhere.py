"""A backup that is brought to another machine, without its keys and with them, while the first still runs.

The oracle: without the keys nothing of it is used. With them each grant's refresh token is used once more and
no access token before that; what one machine's refresh ends for the other is told there by name, and nobody
gets another company's data.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from proxy import config as configuration
from proxy.sandbox import COMPANIES, Sandbox
from tests.command import Cli, Serving, serving, write_config

TENANTS = ("acme", "globex")


async def connected(serve: Serving, *tenants: str) -> None:
    for tenant in tenants:
        await serve.command("tenants", "add", tenant)
        await serve.connect(tenant, tenant)
        assert await serve.get(f"/{tenant}/v2/employees?limit=1") == 200


def keys_of(config: Path) -> Path:
    return configuration.load(config, {}).store.state_dir / "keys"


@pytest.fixture
def machines(pleo: Sandbox, tmp_path: Path) -> list[Path]:
    """Two configurations whose states have nothing in common."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    return [write_config(folder, pleo) for folder in folders]


async def test_without_the_keys_a_stolen_backup_is_nothing(
    pleo: Sandbox, machines: list[Path], tmp_path: Path
) -> None:
    """The thief's own ring opens none of it, nothing is stored, and Pleo hears nothing of it."""
    first, second = machines
    backup = tmp_path / "backup"
    async with serving(first) as serve:
        await connected(serve, *TENANTS)
        await serve.command("backup", str(backup))
        asked = pleo.counters.token_requests
        async with serving(second) as thief:
            await thief.stop()
        ran = await asyncio.to_thread(Cli(second), "restore", str(backup))
        assert "another key of the same id" in ran.refusal(1)
        assert await asyncio.to_thread(Cli(second).listed, "tenants", "list") == {}
        assert pleo.counters.token_requests == asked
        for tenant in TENANTS:
            assert await serve.get(f"/{tenant}/v2/employees?limit=1") == 200
        await serve.stop()


async def test_with_the_keys_two_machines_end_each_others_grants_loudly(
    pleo: Sandbox, machines: list[Path], tmp_path: Path
) -> None:
    """The backup's refresh token is used once, each loss is in a log, and no data is mixed up."""
    first, second = machines
    backup = tmp_path / "backup"
    async with serving(first) as here:
        await connected(here, "acme")
        await here.command("backup", str(backup))
        await connected(here, "globex")
        keys_of(second).parent.mkdir(mode=0o700)
        shutil.copy2(keys_of(first), keys_of(second))
        await asyncio.to_thread(Cli(second).done, "restore", str(backup))
        before, requests = pleo.counters.refreshes.total(), len(pleo.api_requests)
        async with serving(second) as there:
            rows = await there.listed("grants", "list")
            assert list(rows) == ["acme"]
            # By the caller, or a moment before by itself: restored grants are verified within a minute.
            assert await there.get("/acme/v2/employees?limit=1") == 200
            assert pleo.counters.refreshes.total() == before + 1
            used = [request.generation for request in list(pleo.api_requests)[requests:]]
            assert used == [2], "the access token of the backup was not used"
            # The first machine finds its token dead, tries its refresh token, and says what came of it.
            assert await here.get("/acme/v2/employees?limit=1") == 503
            assert (await here.process.event("grant.needs_reauth"))["tenant"] == "acme"
            assert pleo.counters.reuse_attempts == 1
            # That reuse ends the second one's as well, where Pleo takes it for a theft.
            assert await there.get("/acme/v2/employees?limit=1") == 503
            assert (await there.process.event("grant.needs_reauth"))["tenant"] == "acme"
            assert await here.get("/globex/v2/employees?limit=1") == 200
            await there.stop()
        companies = {request.company_id for request in pleo.api_requests}
        assert companies <= {COMPANIES[name] for name in TENANTS} | {None}
        await here.stop()
