"""The browser, and a page in it that is watched: what it complains of fails the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page

from tests.browser.attacker import NAMES, attackers_site
from tests.browser.browsers import chromium, installed
from tests.browser.watching import Watch, watching
from tests.harness import Proxy


@pytest.fixture(scope="session")
def executable() -> Path:
    """Chromium, or the end of the test."""
    return installed()


@pytest.fixture
async def browser(executable: Path) -> AsyncIterator[BrowserContext]:
    """A browser of a person in the network."""
    async with chromium(executable, NAMES) as context:
        yield context


@pytest.fixture
async def site() -> AsyncIterator[int]:
    """The port of an attacker's site."""
    async with attackers_site() as port:
        yield port


@pytest.fixture
async def watch(browser: BrowserContext, proxy: Proxy) -> AsyncIterator[Watch]:
    """What the browser complains of, for who expects something; at the end there must be nothing."""
    async with watching(browser, (proxy.admin_url, proxy.pleo.auth_url)) as watch:
        yield watch


@pytest.fixture
async def page(watch: Watch, browser: BrowserContext) -> Page:
    """A page of a browser that is watched."""
    return await browser.new_page()
