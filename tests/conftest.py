"""Fixtures for tests that run the whole proxy."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from proxy.sandbox import Sandbox
from tests.harness import Proxy, running_proxy
from tests.log_watch import Watch
from tests.postgres import Server

# How long one example takes on a busy machine says nothing about the rule that it tries.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


# A shell that starts the tests in the background has Ctrl-C ignored, by every process that they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def log_watch() -> Iterator[Watch]:
    """Sees every log line, of this process and of each ``serve`` that a test starts."""
    watch = Watch()
    with watch.on():
        yield watch
        faults = watch.faults()
        watch.close()
    assert faults == [], "log lines that are in no schema, after the last test"


@pytest.fixture(autouse=True)
def log_lines(log_watch: Watch) -> Iterator[None]:
    """Set up first and so torn down last: no test leaves a log line behind that is in no schema."""
    yield
    faults = log_watch.faults()
    assert faults == [], "log lines that are in no schema"


@pytest.fixture
async def pleo() -> AsyncIterator[Sandbox]:
    """A simulated Pleo on loopback."""
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def proxy(pleo: Sandbox, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy before ``pleo`` with the tenants acme and globex, both connected."""
    async with running_proxy(pleo, tmp_path) as running:
        for name in ("acme", "globex"):
            await running.add_tenant(name)
            visit = await running.connect(name)
            assert visit.status == 200, visit.text
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A real PostgreSQL on loopback, started when a test first asks for it."""
    with tempfile.TemporaryDirectory(prefix="pleo-proxy-postgres-") as folder, Server(Path(folder)) as server:
        yield server


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, with its password."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)
