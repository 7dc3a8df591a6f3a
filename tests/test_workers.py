"""Several real worker processes on the same ports: shared work, added-up counts, a death, a stop."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from proxy import keyring, lifecycle, pairs
from proxy.model import Secret, Tenant
from proxy.oauth import TokenPair
from proxy.sandbox import COMPANIES, Sandbox
from proxy.store import open_store
from proxy.vault import Vault
from tests.command import Cli, Serving, started, write_config
from tests.harness import ADMIN_TOKEN, free_port, until

WORKERS = 2


@dataclass(frozen=True)
class Prepared:
    """A configuration for several workers before ``pleo``, with the tenant acme connected in its store."""

    config: Path
    pleo: Sandbox
    port: int


@pytest.fixture
async def prepared(pleo: Sandbox, tmp_path: Path) -> Prepared:
    """Ports are fixed, as several workers need."""
    pleo.switches.rate_limit_per_minute = None
    port, admin_port = free_port(), free_port()
    listen = {
        "workers": WORKERS,
        "proxy": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{admin_port}",
        "public_url": f"http://127.0.0.1:{admin_port}",
    }
    config = write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN}, listen=listen, limits={"drain_s": 5})
    await connect_acme(tmp_path / "state", pleo)
    return Prepared(config, pleo, port)


async def connect_acme(state_dir: Path, pleo: Sandbox) -> None:
    """Store the tenant acme with a live grant, as a consent would."""
    keyring.generate(state_dir / "keys", "k1")
    vault = Vault(keyring.read(state_dir / "keys"))
    pair = pleo.grant("acme")
    sealed = pairs.seal_pair(
        vault,
        TokenPair(Secret(pair.access_token), Secret(pair.refresh_token), pair.expires_in),
        tenant="acme",
        generation=1,
        now=pleo.now(),
        lifetimes=pairs.Lifetimes(900, 5184000),
    )
    grant = lifecycle.connected(sealed, tenant="acme", company=COMPANIES["acme"], scopes=(), generation=1)
    store = open_store(state_dir / "proxy.db")
    await store.set_key_check(vault.seal_check())
    await store.edit_tenants(lambda _: {"acme": Tenant("acme", company=COMPANIES["acme"])})
    await store.edit_grant("acme", lambda _: grant)
    await store.close()


@asynccontextmanager
async def serving(prepared: Prepared) -> AsyncIterator[Serving]:
    """All workers serve."""
    config = prepared.config
    # A new connection for each request, so that all workers get some.
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        started("serve", "--config", str(config), folder=config.parent / "serve") as process,
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        await until(lambda: len(process.lines("worker.started")) == WORKERS or process.has_ended, 30)
        assert not process.has_ended, process.err
        (admin,) = {line["admin"] for line in process.lines("proxy.started")} - {""}
        yield Serving(process, Cli(config), f"http://127.0.0.1:{prepared.port}", f"http://{admin}", session)


def workers_that(serve: Serving, event: str) -> set[int]:
    """The workers that logged an event."""
    return {line["worker"] for line in serve.process.lines(event)}


async def scraped(serve: Serving) -> str:
    """The metrics page."""
    async with serve.session.get(f"{serve.admin_url}/metrics") as answer:
        return await answer.text()


async def requests_counted(serve: Serving) -> float:
    """Answered requests of acme as a scrape tells."""
    text = await scraped(serve)
    found = re.search(
        r'^pleo_proxy_requests_total\{outcome="answered",status_class="2xx",tenant="acme"\} (\S+)$',
        text,
        re.MULTILINE,
    )
    return float(found[1]) if found else 0.0


async def test_workers_share_the_port_and_their_counts_add_up(prepared: Prepared) -> None:
    """Requests go to all workers, one answers operators, and a scrape counts every request once."""
    async with serving(prepared) as serve:
        statuses = await asyncio.gather(*(serve.get("/acme/v2/employees?limit=1") for _ in range(90)))
        assert statuses == [200] * 90
        assert workers_that(serve, "request.finished") == set(range(WORKERS))
        assert await requests_counted(serve) == 90
        text = await scraped(serve)
        assert "\npleo_proxy_store_up 1.0\n" in text
        assert "\npleo_proxy_refresh_token_left_seconds" in text
        # Each has opened one of its own, and tells of it with its next look at the store.
        opened = re.compile(r"^pleo_proxy_upstream_connections_opened_total (\S+)$", re.MULTILINE)
        async with asyncio.timeout(10):
            while float(opened.findall(await scraped(serve))[0]) < WORKERS:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert len(re.findall(r'^pleo_proxy_grant_usable\{tenant="acme"\} 1.0$', text, re.MULTILINE)) == 1
        await serve.stop()
        assert len(serve.process.lines("proxy.stopped")) == WORKERS
        assert serve.process.err == ""


async def test_workers_share_a_unix_socket(pleo: Sandbox, tmp_path: Path) -> None:
    """All workers accept from one Unix socket, also one that replaces another, and the stop removes it."""
    pleo.switches.rate_limit_per_minute = None
    port, admin_port = free_port(), free_port()
    path = tmp_path / "acme.sock"
    listen = {
        "workers": WORKERS,
        "proxy": [f"127.0.0.1:{port}", {"address": f"unix:{path}", "tenant": "acme", "mode": "0660"}],
        "admin": f"127.0.0.1:{admin_port}",
        "public_url": f"http://127.0.0.1:{admin_port}",
    }
    config = write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN}, listen=listen)
    await connect_acme(tmp_path / "state", pleo)
    async with serving(Prepared(config, pleo, port)) as serve:
        assert path.stat().st_mode & 0o777 == 0o660
        await over_unix_until_all_serve(serve, path)
        (pid,) = started_as(serve, 0)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: len(started_as(serve, 0)) == 2)
        before = len(serve.process.lines("request.finished"))
        await over_unix_until_all_serve(serve, path, before)
        await serve.stop()
    assert not path.exists()


async def over_unix_until_all_serve(serve: Serving, path: Path, skipped: int = 0) -> None:
    """Connections in crowds, until each worker has answered one; all are answered."""
    async with asyncio.timeout(30):
        served: set[int] = set()
        while served != set(range(WORKERS)):
            statuses = await asyncio.gather(*(over_unix(path) for _ in range(20)))
            assert set(statuses) == {200}
            served = {line["worker"] for line in serve.process.lines("request.finished")[skipped:]}


async def over_unix(path: Path) -> int:
    """The status of a request on a connection of its own."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://localhost/v2/employees?limit=1") as answer,
    ):
        await answer.read()
        return answer.status


async def test_a_revoked_token_costs_one_refresh_across_workers(prepared: Prepared) -> None:
    """A hundred and fifty requests over all workers with a dead token all get 200, for one refresh."""
    async with serving(prepared) as serve:
        prepared.pleo.revoke_access("acme")
        statuses = await asyncio.gather(*(serve.get("/acme/v2/employees?limit=1") for _ in range(150)))
        assert statuses == [200] * 150
        assert workers_that(serve, "request.finished") == set(range(WORKERS))
        assert prepared.pleo.counters.refreshes_of(COMPANIES["acme"]) == 1
        assert prepared.pleo.counters.reuse_attempts == 0


async def test_a_worker_that_dies_is_replaced_and_its_counts_stay(prepared: Prepared) -> None:
    """After kill -9 of any worker another takes its place, and no count falls."""
    async with serving(prepared) as serve:
        await asyncio.gather(*(serve.get("/acme/v2/employees?limit=1") for _ in range(30)))
        for number in range(WORKERS):
            (pid,) = {
                line["pid"] for line in serve.process.lines("worker.started") if line["number"] == number
            }
            os.kill(pid, signal.SIGKILL)
            await until(lambda number=number: len(started_as(serve, number)) == 2)  # type: ignore[misc]
        died = serve.process.lines("worker.died")
        assert [(line["number"], line["exit_code"]) for line in died] == [(n, -9) for n in range(WORKERS)]
        assert await requests_counted(serve) == 30
        statuses = await asyncio.gather(*(serve.get("/acme/v2/employees?limit=1") for _ in range(30)))
        assert statuses == [200] * 30
        assert await requests_counted(serve) == 60
        await serve.stop()


def started_as(serve: Serving, number: int) -> list[int]:
    """The processes that have served as worker ``number``."""
    return [line["pid"] for line in serve.process.lines("worker.started") if line["number"] == number]


async def test_a_stop_drains_all_workers(prepared: Prepared) -> None:
    """Requests under way in any worker are answered after SIGTERM, and then all processes are gone."""
    async with serving(prepared) as serve:
        async with prepared.pleo.hold_api("/v2/employees") as gate:
            calls = [asyncio.create_task(serve.get("/acme/v2/employees?limit=1")) for _ in range(20)]
            await gate.arrived(20)
            serve.process.signal(signal.SIGTERM)
            await until(lambda: len(serve.process.lines("proxy.draining")) == WORKERS)
        assert await asyncio.gather(*calls) == [200] * 20
        assert await serve.process.ended() == 0
        assert sum(line["requests_cut"] for line in serve.process.lines("proxy.stopped")) == 0


async def test_a_stop_in_the_pause_after_a_death_starts_no_worker(prepared: Prepared) -> None:
    """A worker that would only start now would not hear of the stop, and hold it up for a minute."""
    async with serving(prepared) as serve, prepared.pleo.hold_api("/v2/employees") as gate:
        calls = [asyncio.create_task(serve.get("/acme/v2/employees?limit=1")) for _ in range(20)]
        await gate.arrived(20)
        (pid,) = {line["pid"] for line in serve.process.lines("worker.started") if line["number"] == 0}
        os.kill(pid, signal.SIGKILL)
        pause_s = (await serve.process.event("worker.died"))["restart_in_s"]
        assert pause_s > 0
        serve.process.signal(signal.SIGTERM)
        # The other worker goes on with its requests for longer than the pause.
        await asyncio.sleep(pause_s + 1)
        assert not serve.process.has_ended
        gate.release()
        assert await serve.process.ended() == 0
        await asyncio.gather(*calls, return_exceptions=True)
        assert len(started_as(serve, 0)) == 1


async def test_workers_end_with_their_supervisor(prepared: Prepared) -> None:
    """When the supervisor is killed, its workers drain and end, and the port is free again."""
    async with serving(prepared) as serve:
        serve.process.kill()
        await until(lambda: len(serve.process.lines("proxy.stopped")) == WORKERS)
        await until(lambda: not is_listening(serve.address))


def is_listening(address: tuple[str, int]) -> bool:
    """Whether a connection to the address is accepted."""
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


async def test_a_port_in_use_is_one_clear_line(prepared: Prepared, tmp_path: Path) -> None:
    """Workers never share a port with a stranger, even with one who would let them."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", prepared.port))
        stranger.listen()
        async with started("serve", "--config", str(prepared.config), folder=tmp_path / "run") as process:
            assert await process.ended() == 1
            assert process.out == ""
            assert "the port is in use" in process.err
            assert process.err.count("\n") == 1


async def test_a_start_that_fails_in_the_workers_ends_all(prepared: Prepared, tmp_path: Path) -> None:
    """What keeps the workers from starting is said, and the exit code tells that nothing serves."""
    broken = {
        "PLEO_PROXY__PLEO__CA_FILE": str(prepared.config),
        "PLEO_PROXY__PLEO__API_URL": "https://[::1]:9",
    }
    arguments = ("serve", "--config", str(prepared.config))
    async with started(*arguments, folder=tmp_path / "run", environ=broken) as process:
        assert await process.ended() == 1
        assert "cannot be read as PEM certificates" in process.err


async def test_workers_share_what_a_tenant_may_send(prepared: Prepared) -> None:
    """Whichever worker a request comes to, all of them together let in what the policy says."""
    async with serving(prepared) as serve:
        await serve.command("policy", "set", "acme", "--rate", "50")
        await until(lambda: len(tenants_loaded(serve)) == WORKERS)
        statuses = [await serve.get("/acme/v2/employees?limit=1") for _ in range(30)]
        # Ten at once, and one more each 1.2 s.
        assert 10 <= statuses.count(200) <= 14, statuses
        assert statuses.count(200) + statuses.count(429) == 30
        await serve.stop()


def tenants_loaded(serve: Serving) -> set[int]:
    """The workers that have taken up a change of tenants since the start."""
    lines = [json.loads(line) for line in serve.process.out.splitlines() if '"tenants.loaded"' in line]
    return {line["worker"] for line in lines if line["changed"]}
