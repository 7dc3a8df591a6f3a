"""A fresh sandbox for each test, on real sockets and with a clock that stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.sandbox import Sandbox
from tests.sandbox.sandbox_driver import Clock, Driver


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(clock=Clock()) as sandbox:
        yield sandbox


@pytest.fixture
async def driver(sandbox: Sandbox) -> AsyncIterator[Driver]:
    async with aiohttp.ClientSession() as session:
        yield Driver(sandbox, session)
