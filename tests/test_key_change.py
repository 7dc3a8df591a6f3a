"""The key ring in an operator's hands: where it may come from, and its change as the handbook has it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy import config as configuration
from proxy import groundwork, rotation
from proxy.config import secret_refs
from proxy.sandbox import Sandbox, approve
from proxy.store import open_store
from proxy.vault import new_key_line
from tests.command import PROGRAM, ROOT, Cli, Process, clean_environ, run, started, write_config
from tests.harness import ADMIN_TOKEN, free_port, running_proxy
from tests.kms import URL, Kms, running_kms
from tests.test_documents import blocks, commands

# --- where it may come from

SOURCES: dict[str, Mapping[str, Any]] = {
    "file": {"keys": {"file": "{folder}/ring"}},
    "variable": {"keys": {"env": "RING"}},
    "systemd": {"keys": {"credential": "ring"}},
}
"""``vault`` for each source that a real process can be given; ``{folder}`` is the test's."""


def placed(source: str, folder: Path, text: str) -> Mapping[str, str]:
    """Put the ring in its place; returns the environment for it."""
    path = folder / "ring"
    path.write_text(text)
    path.chmod(0o600)
    return {"RING": text} if source == "variable" else {"CREDENTIALS_DIRECTORY": str(folder)}


def configured(source: str, folder: Path, pleo: Sandbox | None = None) -> Path:
    """A configuration that takes its ring from ``source``."""
    ((kind, place),) = SOURCES[source]["keys"].items()
    keys = {kind: place.format(folder=folder)}
    return write_config(folder, pleo, vault={"keys": keys}, admin={"token": ADMIN_TOKEN})


@asynccontextmanager
async def served(config: Path, name: str, environ: Mapping[str, str]) -> AsyncIterator[tuple[Process, str]]:
    """``serve`` and its base URL; it is stopped in order at the end."""
    arguments = ("serve", "--config", str(config))
    async with started(*arguments, folder=config.parent / name, environ=environ) as process:
        ready = await process.event("proxy.started")
        yield process, f"http://{ready['proxy'][0]}"
        process.signal(15)
        assert await process.ended() == 0, process.err


async def status(url: str) -> int:
    """What a caller gets there."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("source", SOURCES)
async def test_a_ring_opens_from_each_source(pleo: Sandbox, tmp_path: Path, source: str) -> None:
    """``serve`` and the commands take the ring from there, and what it sealed opens after a restart."""
    config = configured(source, tmp_path, pleo)
    environ = placed(source, tmp_path, f"{new_key_line('given')}\n")
    ours = Cli(config)
    async with served(config, "first", environ) as (_, base_url):
        await asyncio.to_thread(ours.done, "tenants", "add", "acme")
        link = (await asyncio.to_thread(ours.done, "connect", "acme")).out.strip()
        assert (await approve(link, company="acme")).status == 200
        assert await status(f"{base_url}/acme/v2/employees") == 200
    async with served(config, "second", environ) as (process, base_url):
        assert await status(f"{base_url}/acme/v2/employees") == 200
        assert not process.lines("token.refresh_started")
    (row,) = (await asyncio.to_thread(ours.done, "keys", "list", "--json", environ=environ)).json()
    assert (row["id"], row["in_ring"]) == ("given", True)
    assert row["values"] >= 3, "the key check and a pair"
    assert not (tmp_path / "state" / "keys").exists(), "a key was made although one was given"


async def test_a_ring_opens_from_a_docker_secret(
    pleo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without systemd's directory a credential is the file that Docker and Podman mount."""
    monkeypatch.setattr(secret_refs, "DOCKER_SECRETS", tmp_path / "secrets")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ring").write_text(f"{new_key_line('of-docker')}\n")
    state = tmp_path / "state"
    for generation in (1, 2):
        async with running_proxy(pleo, state, vault={"keys": {"credential": "ring"}}) as proxy:
            if generation == 1:
                await proxy.add_tenant("acme")
                assert (await proxy.connect("acme")).status == 200
            assert (await proxy.get("/acme/v2/employees")).status == 200
            assert set(await rotation.values_by_key(proxy.app.store)) == {"of-docker"}
    assert not (state / "keys").exists()


WRONG = {
    "missing": (None, "is missing|is not set|does not exist"),
    "empty": ("", "holds no key|is empty"),
    "blank": (" \n", "holds no key|is empty"),
    "no ring": ("planted-secret-text\n", "key ring, line 1: not KEYID:BASE64"),
    "short": ("k1:QUJD\n", "key ring, line 1: the key has 3 bytes instead of 32"),
    "another": (f"given:{'A' * 43}=\n", "does not fit this store"),
    "another id": (f"other:{'A' * 43}=\n", "sealed with key 'given', which is not in the key ring"),
}
"""What stands in the ring's place, and what is said of it."""


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("source", SOURCES)
def test_a_ring_that_is_wrong_stops_the_start(tmp_path: Path, source: str, wrong: str) -> None:
    """A store that was sealed is not served with a ring that is missing, empty, malformed or another's."""
    config = configured(source, tmp_path)
    environ = placed(source, tmp_path, f"{new_key_line('given')}\n")
    settings = configuration.load(config, {})

    async def seal() -> None:
        store = open_store(settings.store.url)
        await groundwork.open_vault(settings, environ, store)
        await store.close()

    asyncio.run(seal())
    text, says = WRONG[wrong]
    environ = placed(source, tmp_path, text or "")
    if text is None:
        (tmp_path / "ring").unlink()
        environ = {name: value for name, value in environ.items() if name != "RING"}
    ran = run("serve", "--config", str(config), environ=environ)
    assert (ran.code, ran.out) == (2, "")
    assert any(each in ran.err for each in says.split("|")), ran.err
    assert "planted" not in ran.err
    assert not (tmp_path / "state" / "keys").exists()


# --- its change, rehearsed

GUIDE = ROOT / "docs" / "how-to" / "rotate.md"


@dataclass
class Instance:
    """One instance of the proxy, which can be restarted."""

    config: Path
    environ: Mapping[str, str]
    starts: int = 0
    base_url: str = ""
    process: Process | None = None

    @property
    def ring(self) -> Path:
        return self.config.parent / "state" / "keys"

    async def start(self) -> None:
        """Serve, with a folder for each run's output."""
        self.starts += 1
        folder = self.config.parent / f"run-{self.starts}"
        self.process = Process([str(PROGRAM), "serve", "--config", str(self.config)], folder, self.environ)
        ready = await self.process.event("proxy.started")
        self.base_url = f"http://{ready['proxy'][0]}"

    async def stop(self) -> None:
        """Stop in order."""
        assert self.process is not None
        self.process.signal(15)
        assert await self.process.ended() == 0, self.process.err

    async def end(self) -> None:
        """Stop if it runs, however the test went."""
        if self.process is not None:
            self.process.signal(15)
            try:
                await self.process.ended()
            finally:
                self.process.kill()

    async def restart(self) -> None:
        """As a service manager does."""
        await self.stop()
        await self.start()

    async def shell(self, line: str) -> str:
        """What a line of the handbook prints, run on this instance's machine."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", line.replace("/var/lib/pleo-proxy", str(self.ring.parent))),
            env={
                **clean_environ(),
                **self.environ,
                "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
                "PLEO_PROXY_CONFIG": str(self.config),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (line, out, err)
        return out.decode()


@dataclass
class Callers:
    """A caller that goes on calling, behind something that knows which instance takes connections."""

    instances: list[Instance]
    statuses: list[int] = field(default_factory=list)
    refused: int = 0

    async def call(self) -> None:
        """Until it is cancelled."""
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            while True:
                for instance in self.instances:
                    try:
                        async with session.get(f"{instance.base_url}/acme/v2/employees?limit=1") as answer:
                            await answer.read()
                            self.statuses.append(answer.status)
                    except aiohttp.ClientConnectorError:
                        self.refused += 1
                    else:
                        break
                await asyncio.sleep(0.02)

    async def answered(self, more: int = 5) -> None:
        """Some more requests were answered."""
        wanted = len(self.statuses) + more
        async with asyncio.timeout(20):
            while len(self.statuses) < wanted:  # noqa: ASYNC110 - the callers tell nobody
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def kms() -> Any:
    """A key service for the rehearsal with wrapped keys."""
    with running_kms() as running:
        yield running


@pytest.mark.parametrize("how", ["one, wrapped keys", "two, plain keys"])
async def test_the_key_is_changed_as_the_handbook_says(
    pleo: Sandbox, tmp_path: Path, database: str, kms: Kms, how: str
) -> None:
    """Step by step, its commands run as printed: all opens with the new key, and nothing needs the old one.

    Callers meet nothing but Pleo's answers; where there is one instance, a closed door while it restarts.
    """
    pleo.switches.rate_limit_per_minute = None
    names = ("a", "b") if how.startswith("two") else ("a",)
    instances = [Instance(prepared(tmp_path / name, pleo, how, database), kms.environ) for name in names]
    callers = Callers(instances)
    async with AsyncExitStack() as stack:
        for instance in instances:
            stack.push_async_callback(instance.end)
        await begin(instances)
        calling = asyncio.create_task(callers.call())
        stack.callback(calling.cancel)
        await callers.answered()
        await rehearse(pleo, instances, callers)
        for instance in instances:
            for tenant in ("acme", "globex"):
                assert await status(f"{instance.base_url}/{tenant}/v2/employees") == 200
    assert set(callers.statuses) == {200}
    assert len(callers.statuses) > 20
    assert callers.refused > 0
    await check_sealed_with("k2", instances[0].config)


async def begin(instances: list[Instance]) -> None:
    """All serve with one ring, and two tenants are connected."""
    first, *others = instances
    await first.start()
    for other in others:
        other.ring.parent.mkdir()
        shutil.copy(first.ring, other.ring)
        await other.start()
    cli = Cli(first.config)
    for tenant in ("acme", "globex"):
        await asyncio.to_thread(cli.done, "tenants", "add", tenant)
        link = (await asyncio.to_thread(cli.done, "connect", tenant)).out.strip()
        assert (await approve(link, company=tenant)).status == 200
    for other in others:
        async with asyncio.timeout(20):
            while await status(f"{other.base_url}/acme/v2/employees") != 200:  # noqa: ASYNC110 - another process tells
                await asyncio.sleep(0.05)


async def rehearse(pleo: Sandbox, instances: list[Instance], callers: Callers) -> None:
    """The steps of the handbook, with a refresh after each restart."""
    generate, append, rotate, list_keys = (
        line for block in blocks(GUIDE) if block.heading == "Changing the key" for line in commands(block)
    )
    first, *others = instances

    async def restart_all() -> None:
        for other in others:
            shutil.copy(first.ring, other.ring)
        for instance in instances:
            await instance.restart()
            pleo.revoke_access("acme")
            await callers.answered()

    await first.shell(generate)
    await first.shell(append)
    await restart_all()
    first.ring.write_text("\n".join(reversed(first.ring.read_text().splitlines())) + "\n")
    await restart_all()
    assert "Sealed" in await first.shell(rotate)
    rows = json.loads(await first.shell(f"{list_keys} --json"))
    values = {row["id"]: row["values"] for row in rows}
    assert list(values) == ["k2", "k1"]
    assert values["k2"] >= 5, "the key check and two pairs"
    assert values["k1"] == 0
    kept = [line for line in first.ring.read_text().splitlines() if line.startswith("k2:")]
    first.ring.write_text("\n".join(kept) + "\n")
    await restart_all()
    await first.shell("pleo-proxy audit verify")


def prepared(folder: Path, pleo: Sandbox, how: str, database: str) -> Path:
    """The configuration of an instance on a machine of its own."""
    folder.mkdir()
    sections: dict[str, Mapping[str, Any]] = {
        "listen": {"proxy": f"127.0.0.1:{free_port()}"},
        "admin": {"token": ADMIN_TOKEN},
        # Tokens are revoked more often here than a minute apart, and each time a new one cures it.
        "refresh": {"forced_hold_s": 0.01},
    }
    if how.startswith("one"):
        return write_config(folder, pleo, vault={"key_service": URL}, **sections)
    return write_config(folder, pleo, store={"url": database, "state_dir": f"{folder}/state"}, **sections)


async def check_sealed_with(key_id: str, config: Path) -> None:
    """All that is stored has this key; of a SQLite file not a byte is left that another sealed."""
    settings = configuration.load(config, {})
    store = open_store(settings.store.url)
    try:
        assert set(await rotation.values_by_key(store)) == {key_id}
    finally:
        await store.close()
    if settings.store.url.path is not None:
        files = b"".join(path.read_bytes() for path in settings.store.url.path.parent.glob("proxy.db*"))
        assert f"v1.{key_id}.".encode() in files
        assert b"v1.k1." not in files
