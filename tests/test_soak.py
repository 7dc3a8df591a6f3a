"""Short-lived tokens, many tenants, callers without pause, and processes killed at random.

No grant may be lost but those whose refresh was at Pleo in the instant of a kill: their answer was in memory
alone, or nowhere. ``SOAK_S`` and ``SOAK_TENANTS`` make it longer and larger (``make soak``).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import aiohttp

from proxy import keyring, lifecycle, pairs
from proxy.config.store_url import parse_store_url
from proxy.model import Grant, Secret, Tenant
from proxy.oauth import TokenPair
from proxy.sandbox import Sandbox
from proxy.store import open_store
from proxy.vault import Vault
from tests.command import Serving, serving, write_config
from tests.harness import ADMIN_TOKEN, free_port
from tests.postgres import Server

SOAK_S = float(os.environ.get("SOAK_S", "12"))
KILLS = max(3, int(SOAK_S / 8))
"""So many at least, however slow the machine is."""
TENANTS = int(os.environ.get("SOAK_TENANTS", "8"))
LIFETIME_S = 2.0


async def connect_all(state_dir: Path, pleo: Sandbox, names: list[str], url: str | None = None) -> None:
    """Tenants with live grants in the store, as consents would leave them."""
    keyring.generate(state_dir / "keys", "k1")
    vault = Vault(keyring.read(state_dir / "keys"))
    store = open_store(parse_store_url(url or f"sqlite://{state_dir}/proxy.db"))
    await store.set_key_check(vault.seal_check())
    ids = {name: pleo.world.add_company(name) for name in names}
    await store.edit_tenants(lambda _: {name: Tenant(name, company=ids[name]) for name in names})
    for name in names:
        pair = pleo.grant(name)
        sealed = pairs.seal_pair(
            vault,
            TokenPair(Secret(pair.access_token), Secret(pair.refresh_token), pair.expires_in),
            tenant=name,
            generation=1,
            now=pleo.now(),
            lifetimes=pairs.Lifetimes(900, 5184000),
        )
        grant = lifecycle.connected(sealed, tenant=name, company=ids[name], scopes=(), generation=1)

        def put(_: Grant | None, grant: Grant = grant) -> Grant:
            return grant

        await store.edit_grant(name, put)
    await store.close()


@dataclass
class Soak:
    """What is killed and started again, and callers that go on through it."""

    ports: list[int]
    random: Random
    statuses: Counter[int | str] = field(default_factory=Counter)
    runs: int = 0
    kills: int = 0
    until: float = field(default_factory=lambda: monotonic() + SOAK_S)
    excused: set[str] = field(default_factory=set)
    """Tenants whose refresh was under way at a kill."""

    def goes_on(self) -> bool:
        """Whether its time is not over yet, or too little was killed."""
        return monotonic() < self.until or self.kills < KILLS

    @asynccontextmanager
    async def running(self, config: Path) -> AsyncIterator[Serving]:
        """The next run of ``serve``."""
        self.runs += 1
        async with serving(config, f"run-{self.runs}") as serve:
            yield serve

    def note_kill(self, serve: Serving, worker: int | None = None) -> None:
        """Whatever was being refreshed by the killed process may have been answered into nothing."""
        self.kills += 1
        under_way: dict[str, Any] = {}
        for line in token_lines(serve):
            if worker is not None and line.get("worker") != worker:
                continue
            if line["event"] == "token.refresh_started":
                under_way[line["tenant"]] = line
            else:
                under_way.pop(line["tenant"], None)
        self.excused |= under_way.keys()

    async def call(self, session: aiohttp.ClientSession, tenant: str) -> int | str:
        """One caller's request; its status, or what became of it."""
        url = f"http://127.0.0.1:{self.random.choice(self.ports)}/{tenant}/v2/employees?limit=1"
        try:
            async with session.get(url) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, OSError):
            return "broken"

    async def caller(self, session: aiohttp.ClientSession, tenant: str) -> None:
        """Requests of one tenant, without pause."""
        while True:
            self.statuses[await self.call(session, tenant)] += 1
            await asyncio.sleep(self.random.random() * 0.1)


def token_lines(serve: Serving) -> list[dict[str, Any]]:
    """The log's lines about tokens."""
    lines = serve.process.out.splitlines()
    return [json.loads(line) for line in lines if '"event":"token.' in line and line.endswith("}")]


def worker_pids(serve: Serving) -> dict[int, int]:
    """The process of each worker now."""
    lines = [line for line in serve.process.out.splitlines() if '"event":"worker.started"' in line]
    return {line["number"]: line["pid"] for line in map(json.loads, lines)}


def children_of(pid: int) -> list[int]:
    """The processes that this one has started (Linux)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def kill_a_worker(soak: Soak, serve: Serving) -> None:
    """``kill -9``; the supervisor starts another."""
    number, pid = soak.random.choice(sorted(worker_pids(serve).items()))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.3)
        soak.note_kill(serve, number)


async def disturb(soak: Soak, config: Path) -> None:
    """Kill workers and whole processes, and start them again, until it is time."""
    while soak.goes_on():
        async with soak.running(config) as serve:
            ends = monotonic() + soak.random.uniform(4, 10)
            while soak.goes_on() and monotonic() < ends:
                await asyncio.sleep(soak.random.uniform(0.5, 2.5))
                await kill_a_worker(soak, serve)
            if soak.random.random() < 0.5:
                await serve.stop()
            else:
                # All of it, as a process manager does: one that was only starting holds the port too.
                for pid in [serve.process.pid, *children_of(serve.process.pid)]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await serve.process.ended()
                soak.note_kill(serve)


async def test_no_grant_is_lost_through_kills(tmp_path: Path) -> None:
    """Two workers on SQLite: at the end every tenant is served, but those that a kill caught at Pleo."""
    names = [f"t{number}" for number in range(TENANTS)]
    port, admin = free_port(), free_port()
    async with AsyncExitStack() as stack:
        pleo = await stack.enter_async_context(Sandbox(access_lifetime_s=LIFETIME_S))
        listen = {
            "workers": 2,
            "proxy": f"127.0.0.1:{port}",
            "admin": f"127.0.0.1:{admin}",
            "public_url": f"http://127.0.0.1:{admin}",
        }
        config = write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN}, listen=listen)
        await connect_all(tmp_path / "state", pleo, names)
        soak = Soak([port], Random(7))
        async with calling(soak, pleo, names) as session:
            await disturb(soak, config)
        async with soak.running(config) as serve:
            await check(soak, pleo, session, names)
            await serve.stop()


async def test_no_grant_is_lost_through_kills_and_outages_of_postgresql(tmp_path: Path) -> None:
    """Two instances on PostgreSQL, either of which is killed, and the database stopped now and then."""
    names = [f"t{number}" for number in range(TENANTS)]
    async with AsyncExitStack() as stack:
        pleo = await stack.enter_async_context(Sandbox(access_lifetime_s=LIFETIME_S))
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="pleo-proxy-postgres-"))
        server = stack.enter_context(Server(Path(home)))
        configs, ports = [], []
        url = server.url(server.create())
        for number in range(2):
            folder = tmp_path / f"instance-{number}"
            (folder / "state").mkdir(parents=True)
            if number == 0:
                await connect_all(folder / "state", pleo, names, url)
            else:
                shutil.copy(tmp_path / "instance-0" / "state" / "keys", folder / "state" / "keys")
            ports.append(free_port())
            configs.append(
                write_config(
                    folder,
                    pleo,
                    admin={"token": ADMIN_TOKEN},
                    listen={"proxy": f"127.0.0.1:{ports[-1]}"},
                    store={"url": url, "state_dir": f"{folder}/state"},
                )
            )
        soak = Soak(ports, Random(8))
        async with calling(soak, pleo, names) as session:
            running = [await enter(soak, stack, config) for config in configs]
            while soak.goes_on():
                await asyncio.sleep(soak.random.uniform(0.5, 2))
                if soak.random.random() < 0.3:
                    await asyncio.to_thread(server.stop)
                    await asyncio.sleep(soak.random.uniform(0.5, 3))
                    await asyncio.to_thread(server.start)
                    continue
                number = soak.random.randrange(2)
                block, serve = running[number]
                serve.process.signal(signal.SIGKILL)
                await serve.process.ended()
                soak.note_kill(serve)
                await block.aclose()
                await asyncio.sleep(soak.random.random())
                running[number] = await enter(soak, stack, configs[number])
        await check(soak, pleo, session, names)
        for block, serve in running:
            await serve.stop()
            await block.aclose()


async def enter(soak: Soak, stack: AsyncExitStack, config: Path) -> tuple[AsyncExitStack, Serving]:
    """An instance, and what ends it before the test does."""
    block = await stack.enter_async_context(AsyncExitStack())
    return block, await block.enter_async_context(soak.running(config))


@asynccontextmanager
async def calling(soak: Soak, pleo: Sandbox, names: list[str]) -> AsyncIterator[aiohttp.ClientSession]:
    """Callers of every tenant, as long as the block lasts."""
    pleo.switches.rate_limit_per_minute = None
    # Not closed here: what is checked afterwards calls too.
    session = aiohttp.ClientSession()
    callers = [asyncio.create_task(soak.caller(session, name)) for name in names]
    try:
        yield session
    except BaseException:
        await session.close()
        raise
    finally:
        for caller in callers:
            caller.cancel()
        ended = await asyncio.gather(*callers, return_exceptions=True)
    assert [one for one in ended if not isinstance(one, asyncio.CancelledError)] == []


async def check(soak: Soak, pleo: Sandbox, session: aiohttp.ClientSession, names: list[str]) -> None:
    """What came of it: nothing is lost but what a kill took, and nothing was used twice but that."""
    async with session:
        lost = {name for name in names if not await served(soak, session, name)}
    refreshes = sum(pleo.counters.refreshes.values())
    figures = f"{soak.kills} kills, {refreshes} refreshes, lost {len(lost)} of {len(soak.excused)}"
    logging.getLogger(__name__).info("%s, answers %s", figures, soak.statuses)
    assert lost <= soak.excused
    assert pleo.counters.reuse_attempts == len(lost)
    assert refreshes > SOAK_S * TENANTS / 8
    assert soak.statuses[200] > 10 * SOAK_S


async def served(soak: Soak, session: aiohttp.ClientSession, name: str) -> bool:
    """Whether the tenant is answered within ten seconds, by every instance."""
    for port in soak.ports:
        soak_of_one = Soak([port], soak.random)
        for _ in range(40):
            if await soak_of_one.call(session, name) == 200:
                break
            await asyncio.sleep(0.25)
        else:
            return False
    return True
