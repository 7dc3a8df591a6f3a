"""The live view in a browser: what callers do shows by itself, is picked, and waits while it is paused."""

from __future__ import annotations

import asyncio

from playwright.async_api import Locator, Page, expect

from proxy.sandbox import ApiFault
from tests.browser.steps import log_in
from tests.harness import Proxy

LIVE, COMING = "/live", "New lines come by themselves."
EMPLOYEES = "/acme/v2/employees"


def told(page: Page, text: str) -> Locator:
    """Lines that say ``text``."""
    return page.locator("#lines tr", has_text=text)


async def watching_live(page: Page, proxy: Proxy, path: str = LIVE) -> None:
    """Log in on the way to the live view, and wait until it is connected."""
    await log_in(page, proxy, path)
    await expect(page.locator("#state")).to_have_text(COMING)


async def curl(proxy: Proxy, path: str) -> str:
    """A caller as there are many; gives the status."""
    command = (
        "curl",
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        proxy.base_url + path,
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode()


async def test_a_request_shows_as_it_is_made(proxy: Proxy, page: Page) -> None:
    """With method, path, tenant, status and request id; one that fails is red, and nobody loads the page."""
    await watching_live(page, proxy)
    assert await curl(proxy, f"{EMPLOYEES}?limit=1") == "200"
    line = told(page, f"GET {EMPLOYEES}")
    await expect(line).to_have_count(1)
    for cell in ("acme", "200 answered", "127.0.0.1", proxy.lines("request.finished")[-1]["request_id"]):
        await expect(line).to_contain_text(cell)
    proxy.pleo.api_faults.append(ApiFault("status", status=503))
    assert await curl(proxy, "/globex/v1/companies") == "503"
    result = told(page, "GET /globex/v1/companies").locator("[data-field=result]")
    await expect(result).to_have_text("503 answered")
    await expect(result).to_have_class("bad")
    await expect(page.locator("#lines tr").first).to_contain_text("/globex/v1/companies")


async def test_only_what_is_picked_comes(proxy: Proxy, page: Page) -> None:
    """By tenant, status or event, as the form says; all of it is there again by a link."""
    await watching_live(page, proxy)
    await page.get_by_label("Tenant").fill("globex")
    await page.get_by_label("Status").fill("4xx")
    await page.get_by_role("button", name="Filter").click()
    await page.wait_for_url("**/live?tenant=globex&status=4xx**")
    await expect(page.locator("#state")).to_have_text(COMING)
    await proxy.get(EMPLOYEES)
    await proxy.get("/globex/v2/employees")
    await proxy.get("/globex/v2/no-such-thing")
    await expect(told(page, "/globex/v2/no-such-thing")).to_have_count(1)
    await expect(page.locator("#lines tr")).to_have_count(1)
    await page.get_by_label("Status").fill("many")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_role("alert")).to_have_text(
        "A status is 401 or the like, or a class of them, as 5xx."
    )
    await page.goto(f"{proxy.admin_url}{LIVE}?tenant=globex")
    await page.get_by_role("link", name="Show all").click()
    await expect(told(page, EMPLOYEES)).to_have_count(1)


async def test_a_paused_view_stands_still_and_loses_nothing(proxy: Proxy, page: Page) -> None:
    """It counts what waits; going on shows it, the newest first."""
    await watching_live(page, proxy)
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator("#state")).to_have_text("Paused.")
    shown = await page.locator("#lines tr").count()
    for path in (EMPLOYEES, "/globex/v2/employees"):
        await proxy.get(path)
    await expect(page.locator("#state")).to_have_text("Paused; 2 new lines.")
    await expect(page.locator("#lines tr")).to_have_count(shown)
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator("#lines tr")).to_have_count(shown + 2)
    await expect(page.locator("#lines tr").first).to_contain_text("/globex/v2/employees")
    await proxy.get("/acme/v1/companies")
    await expect(told(page, "/acme/v1/companies")).to_have_count(1)


async def test_a_view_ends_with_its_session(proxy: Proxy, page: Page) -> None:
    """Who has logged out in another window sees nothing more, and is told why."""
    await watching_live(page, proxy)
    other = await page.context.new_page()
    await other.goto(proxy.admin_url)
    await other.get_by_role("button", name="Log out").click()
    await expect(page.locator("#state")).to_contain_text("You are logged out.")
    await page.get_by_role("link", name="Load the page again").click()
    await expect(page.get_by_role("heading", name="Log in to pleo-proxy")).to_be_visible()
