"""A store of each kind, for what every store promises: one more parameter tests one more store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from proxy.config.store_url import parse_store_url
from proxy.store import Store, open_store

Opener = Callable[[], Awaitable[Store]]
"""Opens the same store once more, as another process would."""


@pytest.fixture(params=["sqlite", "postgresql"])
async def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    opened: list[Store] = []
    # Asked for by its name, so that a server is started only where one is tested.
    text = (
        f"sqlite:{tmp_path / 'proxy.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("database")
    )

    async def open_it() -> Store:
        opened.append(open_store(parse_store_url(text)))
        return opened[-1]

    yield open_it
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_again: Opener) -> Store:
    return await open_again()
