"""What people do at a browser again and again."""

from __future__ import annotations

from playwright.async_api import Page

from proxy.sandbox import COMPANIES
from tests.harness import ADMIN_TOKEN, Proxy


async def log_in(page: Page, proxy: Proxy, path: str = "/", token: str = ADMIN_TOKEN) -> None:
    """Open ``path`` and log in on the way."""
    await page.goto(proxy.admin_url + path)
    await page.get_by_label("Admin token").fill(token)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url(proxy.admin_url + path)


async def decide(page: Page, button: str, company: str | None = None) -> None:
    """From the page of a connect link go on to Pleo, and press a button there."""
    await page.get_by_role("link", name="Continue to Pleo").click()
    if company is not None:
        await page.get_by_label("Company").select_option(COMPANIES[company])
    await page.get_by_role("button", name=button).click()
