"""What operators do at a browser again and again."""

from __future__ import annotations

from playwright.async_api import Page

from tests.harness import ADMIN_TOKEN, Proxy


async def log_in(page: Page, proxy: Proxy, path: str = "/", token: str = ADMIN_TOKEN) -> None:
    """Open ``path`` and log in on the way."""
    await page.goto(proxy.admin_url + path)
    await page.get_by_label("Admin token").fill(token)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url(proxy.admin_url + path)


async def make_link(page: Page, proxy: Proxy, tenant: str) -> str:
    """Make a connect link on the page of ``tenant``; gives it."""
    await page.goto(f"{proxy.admin_url}/tenants/{tenant}/connect")
    await page.get_by_role("button", name="Make the link").click()
    return await page.locator("a.link").inner_text()
