"""``kill -9`` and SIGTERM at every point of a refresh, on real processes, and what a restart makes of it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from proxy.sandbox import COMPANIES, Sandbox
from tests.command import Process, Serving, serving, write_config
from tests.crashing import POINTS

ACME = COMPANIES["acme"]
SAVED = [name for name in POINTS if name != "answer-received"]
"""Where the grant outlives a kill without a person: between Pleo's answer and the journal nothing could."""


@pytest.fixture(params=["sqlite", "postgresql"])
def config(pleo: Sandbox, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A configuration for a proxy before ``pleo``, with each kind of store."""
    if request.param == "sqlite":
        return write_config(tmp_path, pleo, admin={"token": "admin"})
    store = {"url": request.getfixturevalue("database"), "state_dir": f"{tmp_path}/state"}
    return write_config(tmp_path, pleo, admin={"token": "admin"}, store=store)


async def connect(config: Path) -> None:
    """The tenant acme is connected, and nobody serves."""
    async with serving(config, "connecting") as serve:
        await serve.command("tenants", "add", "acme")
        await serve.connect("acme")
        await serve.stop()


@asynccontextmanager
async def crashing(config: Path, point: str, number: int) -> AsyncIterator[tuple[Process, str]]:
    """``serve`` that sends itself a signal at a point of its first refresh, and its base URL."""
    command = [
        sys.executable,
        "-m",
        "tests.crashing",
        point,
        str(int(number)),
        "serve",
        "--config",
        str(config),
    ]
    process = Process(command, config.parent / "crashing", {})
    try:
        ready = await process.event("proxy.started")
        yield process, f"http://{ready['proxy'][0]}"
    finally:
        process.kill()


async def status_of(url: str) -> int | None:
    """The status of a request, ``None`` if the connection broke."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            await answer.read()
            return answer.status
    except aiohttp.ClientError:
        return None


async def restarted(serve: Serving) -> int:
    """The status of a request after the restart, when the pause after a failure is over."""
    status = 0
    for _ in range(50):
        status = await serve.get("/acme/v2/employees?limit=1")
        if status == 200:
            break
        await asyncio.sleep(0.1)
    return status


@pytest.mark.parametrize("point", SAVED)
async def test_a_kill_loses_no_grant(pleo: Sandbox, config: Path, point: str) -> None:
    """After a restart the grant works without a person, and no refresh token was used twice."""
    await connect(config)
    async with crashing(config, point, signal.SIGKILL) as (process, base_url):
        pleo.revoke_access("acme")
        assert await status_of(f"{base_url}/acme/v2/employees?limit=1") is None
        assert await process.ended() == -signal.SIGKILL
    async with serving(config, "again") as serve:
        assert await restarted(serve) == 200
        if point == "journal-written":
            (replayed,) = serve.process.lines("journal.replayed")
            assert (replayed["tenant"], replayed["taken"]) == ("acme", True)
        await serve.stop()
    assert pleo.counters.refreshes_of(ACME) == 1
    assert pleo.counters.reuse_attempts == 0
    assert [path.stat().st_size for path in (config.parent / "state").glob("journal-*")] in ([0], [])


async def test_a_kill_before_the_answer_is_saved_costs_one_cautious_retry(
    pleo: Sandbox, config: Path
) -> None:
    """Where nothing could be saved one retry is made, and the loss is told from a revocation."""
    await connect(config)
    async with crashing(config, "answer-received", signal.SIGKILL) as (process, base_url):
        pleo.revoke_access("acme")
        assert await status_of(f"{base_url}/acme/v2/employees?limit=1") is None
        assert await process.ended() == -signal.SIGKILL
    await check_one_retry(pleo, config)


async def test_a_kill_while_pleo_answers_costs_one_cautious_retry(pleo: Sandbox, config: Path) -> None:
    """The same where the answer never arrived: Pleo has acted, and nobody here knows."""
    await connect(config)
    async with serving(config, "killed") as serve:
        pleo.revoke_access("acme")
        async with pleo.hold_token_endpoint(committed=True) as gate:
            asking = asyncio.create_task(status_of(f"{serve.base_url}/acme/v2/employees?limit=1"))
            await gate.arrived()
            serve.process.signal(signal.SIGKILL)
            assert await serve.process.ended() == -signal.SIGKILL
        assert await asking is None
    await check_one_retry(pleo, config)


async def check_one_retry(pleo: Sandbox, config: Path) -> None:
    """A restart tries once, and then says that an answer was lost."""
    requests = pleo.counters.token_requests
    async with serving(config, "again") as serve:
        assert await serve.get("/acme/v2/employees?limit=1") == 503
        assert await serve.get("/acme/v2/employees?limit=1") == 503
        (ended,) = serve.process.lines("grant.needs_reauth")
        assert ended["reason"] == "lost_answer"
        await serve.stop()
    assert pleo.counters.token_requests == requests + 1


@pytest.mark.parametrize("point", POINTS)
async def test_a_stop_at_any_point_loses_nothing(pleo: Sandbox, config: Path, point: str) -> None:
    """SIGTERM lets the refresh come to its end, wherever it is; nothing is left in the journal."""
    await connect(config)
    async with crashing(config, point, signal.SIGTERM) as (process, base_url):
        pleo.revoke_access("acme")
        assert await status_of(f"{base_url}/acme/v2/employees?limit=1") == 200
        assert await process.ended() == 0, process.err
        assert process.lines("token.refreshed")
    async with serving(config, "again") as serve:
        assert await serve.get("/acme/v2/employees?limit=1") == 200
        await serve.stop()
    assert pleo.counters.refreshes_of(ACME) == 1
    assert pleo.counters.reuse_attempts == 0
