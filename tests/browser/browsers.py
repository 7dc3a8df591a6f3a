"""Debian's Chromium for tests: whether it is there, and one that never ran before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, async_playwright

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
"""Where ``make browser`` puts it; the variable is for machines that have it elsewhere."""
REQUIRED = "BROWSER_REQUIRED"
"""A variable that the pipeline sets: a browser that is absent there was forgotten, not done without."""
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Chromium's own fence around local networks is off: other browsers have none, and the proxy's is tried.
    "--disable-features=HttpsUpgrades,LocalNetworkAccessChecks",
)


def installed(executable: Path = CHROMIUM, environ: Mapping[str, str] = os.environ) -> Path:
    """The browser; where there is none the test is skipped, and in the pipeline it fails.

    :raises pytest.skip.Exception: there is none, and nobody said that there must be one.
    :raises pytest.fail.Exception: there must be one.
    """
    if executable.exists():
        return executable
    reason = f"{executable} is missing; `make browser` installs Chromium"
    if environ.get(REQUIRED):
        pytest.fail(f"{reason}, and {REQUIRED} is set", pytrace=False)
    pytest.skip(reason)


@asynccontextmanager
async def chromium(executable: Path, names: Mapping[str, str]) -> AsyncIterator[BrowserContext]:
    """A browser to which each of ``names`` leads to an address of this machine."""
    rules = ", ".join(f"MAP {name} {address}" for name, address in names.items())
    async with async_playwright() as playwright:
        with tempfile.TemporaryDirectory(prefix="pleo-proxy-browser-", ignore_cleanup_errors=True) as profile:
            context = await playwright.chromium.launch_persistent_context(
                profile, executable_path=executable, args=[*_ARGUMENTS, f"--host-resolver-rules={rules}"]
            )
            try:
                yield context
            finally:
                await context.close()
