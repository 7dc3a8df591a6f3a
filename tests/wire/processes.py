"""A real ``serve`` process with the tenant acme connected, what it costs in memory, and peers for it.

The grant is written by the store and the vault before the process starts, so that no consent is needed.
"""

from __future__ import annotations

import asyncio
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from proxy import config, lifecycle, pairs
from proxy.groundwork import open_vault
from proxy.model import DAY_S, Secret, Tenant
from proxy.oauth import TokenPair
from proxy.pairs import Lifetimes
from proxy.store import open_store
from tests.command import Process, started, write_config
from tests.wire.theatre import TENANT


@dataclass(frozen=True)
class Served:
    """A running ``serve``."""

    process: Process
    address: tuple[str, int]

    def memory(self, kind: str = "VmRSS") -> float:
        """Resident memory of the process in MB; its peak with ``VmHWM``."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{kind}:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1000

    def check(self) -> None:
        """It runs, and nothing in it crashed."""
        assert not self.process.has_ended, self.process.err
        crashes = [line for line in self.process.lines() if line["event"].endswith("crashed")]
        assert not crashes, crashes


@asynccontextmanager
async def served(
    folder: Path, upstream_url: str, limits: Mapping[str, Any] | None = None
) -> AsyncIterator[Served]:
    """``serve`` before ``upstream_url``, with acme connected, ready for callers."""
    path = write_config(folder, pleo={"api_url": upstream_url}, limits=limits or {})
    await _connect(path)
    async with started("serve", "--config", str(path), folder=folder / "run") as process:
        ready = await process.event("proxy.started")
        host, _, port = ready["proxy"][0].rpartition(":")
        yield Served(process, (host, int(port)))


async def _connect(path: Path) -> None:
    settings = config.load(path, {})
    settings.store.state_dir.mkdir(mode=0o700, exist_ok=True)
    store = open_store(settings.store.sqlite_path)
    try:
        vault = await open_vault(settings, {}, store)
        await store.edit_tenants(lambda stored: {**stored, TENANT: Tenant(TENANT)})
        sealed = pairs.seal_pair(
            vault,
            TokenPair(Secret("at-1"), Secret("rt-1"), DAY_S),
            tenant=TENANT,
            generation=1,
            now=time.time(),
            lifetimes=Lifetimes(900.0, 60 * DAY_S),
        )
        grant = lifecycle.connected(sealed, tenant=TENANT, company="c", scopes=(), generation=1)
        await store.edit_grant(TENANT, lambda _: grant)
    finally:
        await store.close()


def allow_open_files(wanted: int) -> int:
    """Let this process and those that it starts open ``wanted`` files, or as many as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


# --- an upstream that takes and gives bytes of any number and keeps none

PIECE = bytes(64 * 1024)


@dataclass
class Plenty:
    """The listening upstream: ``/take`` reads a body, ``/give/N`` sends N bytes, ``/wait`` never answers.

    ``/both/N`` reads a body and then sends N bytes.
    """

    taken: int = 0
    """Bytes of bodies read."""
    given: int = 0
    """Bytes of bodies handed to the sockets."""
    open: set[PlentyConnection] = field(default_factory=set)
    _listener: asyncio.Server | None = None

    async def start(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: PlentyConnection(self), "127.0.0.1", 0, backlog=1024
        )
        return self

    @property
    def url(self) -> str:
        assert self._listener is not None
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def busy(self) -> int:
        """Connections with a request under way."""
        return sum(1 for connection in self.open if connection.busy)

    async def stop(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for connection in list(self.open):
            connection.transport.abort()
        await self._listener.wait_closed()


class PlentyConnection(asyncio.Protocol):
    """One connection to it."""

    def __init__(self, plenty: Plenty) -> None:
        self._plenty = plenty
        self._head = b""
        self._left = 0
        self._to_give = 0
        self._writable = True
        self.busy = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._plenty.open.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._plenty.open.discard(self)
        self._to_give = 0

    def data_received(self, data: bytes) -> None:
        if not self.busy:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            self.busy = True
            found = re.search(rb"\r\nContent-Length: (\d+)", head)
            self._left = int(found[1]) if found else 0
            self._path = head.split(b" ", 2)[1].split(b"/")[1:]
        self._plenty.taken += len(data)
        self._left -= len(data)
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        match self._path:
            case [b"take"]:
                self._begin(2)
            case [b"give" | b"both", size]:
                self._begin(int(size))
            case _:
                pass

    def _begin(self, size: int) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        self._to_give = size
        self._give()

    def _give(self) -> None:
        while self._to_give and self._writable:
            piece = PIECE[: self._to_give]
            self._to_give -= len(piece)
            self._plenty.given += len(piece)
            if not self._to_give:
                self.busy = False
            self.transport.write(piece)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._give()


# --- an upstream in a process of its own, to be killed


@asynccontextmanager
async def half_an_answer(folder: Path) -> AsyncIterator[tuple[Process, str]]:
    """An upstream that answers with a head, or a first chunk, and then waits for its end."""
    process = Process([sys.executable, "-m", "tests.wire.half_answerer"], folder, {})
    try:
        while "\n" not in process.out:
            assert not process.has_ended, process.err
            await asyncio.sleep(0.01)
        yield process, f"http://127.0.0.1:{int(process.out)}"
    finally:
        process.kill()
