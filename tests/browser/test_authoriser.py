"""A consent in a real browser, from the link to each result."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page

from proxy.authorize import LINK_LIFETIME_S
from proxy.sandbox import COMPANIES, Sandbox
from tests.browser.attacker import SITE
from tests.browser.steps import decide, log_in
from tests.browser.watching import Kind, Watch
from tests.harness import Proxy, running_proxy

WHO = {"organisation": "Nordlys Accounting ApS", "contact": "it@nordlys.example"}
ASKS = "Access to Pleo for Nordlys Accounting ApS"


@pytest.fixture
async def proxy(pleo: Sandbox, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy of an organisation with a name: acme's company is known, initech's is not."""
    async with running_proxy(pleo, tmp_path, consent=WHO) as running:
        await running.add_tenant("acme", company=COMPANIES["acme"])
        await running.add_tenant("initech")
        yield running


async def sees(page: Page, heading: str) -> None:
    """Wait for a page; how each looks is seen on the tour."""
    await page.get_by_role("heading", name=heading, level=1).wait_for()


async def open_link(page: Page, link: str, heading: str = ASKS) -> None:
    """Open a link, whose page has this heading."""
    await page.goto(link)
    await sees(page, heading)


async def test_approve(proxy: Proxy, page: Page) -> None:
    """Read, continue, approve, done; going back and loading again do no harm."""
    await open_link(page, await proxy.link("acme"))
    await decide(page, "Approve")
    await sees(page, "It worked: Acme ApS is connected")
    assert (await proxy.get("/acme/v2/employees")).status == 200
    assert page.url == f"{proxy.admin_url}/oauth/result"
    await page.reload()
    await sees(page, "It worked: Acme ApS is connected")
    await page.go_back()
    await page.go_forward()
    await sees(page, "It worked: Acme ApS is connected")


async def test_deny_and_then_approve(proxy: Proxy, page: Page) -> None:
    """Who declined is told that nothing was connected, and can change their mind with the same link."""
    link = await proxy.link("initech")
    await open_link(page, link)
    await decide(page, "Deny")
    await sees(page, "Access was not granted")
    assert (await proxy.get("/initech/v2/employees")).status == 503
    await open_link(page, link)
    await decide(page, "Approve", "initech")
    await sees(page, "It worked: Initech Ltd is connected")


async def test_a_wrong_company_and_then_the_right_one(proxy: Proxy, page: Page) -> None:
    """The page names both companies, and the same link connects the one that it is for."""
    link = await proxy.link("acme")
    await open_link(page, link)
    await decide(page, "Approve", "globex")
    await sees(page, "Another company was chosen")
    facts = page.locator("dl")
    assert COMPANIES["acme"] in await facts.inner_text()
    assert "Globex GmbH" in await facts.inner_text()
    await open_link(page, link)
    await decide(page, "Approve", "acme")
    await sees(page, "It worked: Acme ApS is connected")


async def test_an_expired_link(proxy: Proxy, page: Page) -> None:
    """A day later the link tells that it is over, and leads nowhere."""
    link = await proxy.link("acme")
    proxy.pleo.advance(LINK_LIFETIME_S)
    await open_link(page, link, "This link has expired")
    assert await page.get_by_role("link").all_inner_texts() == ["it@nordlys.example"]


async def test_a_reused_link(proxy: Proxy, page: Page) -> None:
    """The second time the link tells when it was used, and the operator's page that it was."""
    link = await proxy.link("acme")
    await open_link(page, link)
    await decide(page, "Approve")
    await sees(page, "It worked: Acme ApS is connected")
    await open_link(page, link, "This link was already used")
    assert await page.locator("time").count() == 1
    assert await page.get_by_role("link").all_inner_texts() == ["it@nordlys.example"]
    reference = await page.locator("footer code").inner_text()
    await log_in(page, proxy, "/tenants/acme")
    links = page.get_by_role("region", name="Connect links")
    assert f"{reference} used " in await links.inner_text()


async def test_fewer_scopes(proxy: Proxy, page: Page) -> None:
    """What was not granted is told apart from what was."""
    proxy.pleo.switches.granted_scopes = ("companies:read", "users:read")
    await open_link(page, await proxy.link("initech"))
    await decide(page, "Approve", "initech")
    await sees(page, "It worked: Initech Ltd is connected")
    await page.get_by_role("heading", name="Asked for, and not granted").wait_for()


async def test_a_page_of_another_site_shows_who_asks_first(
    proxy: Proxy, page: Page, watch: Watch, site: int
) -> None:
    """Who has a link and sends somebody's browser past its page gets them to the page, and not to Pleo."""
    link = await proxy.link("acme")
    await open_link(page, link)
    await page.goto(f"http://{SITE}:{site}/")
    await page.evaluate("(url) => { location = url }", f"{link}?continue={'0' * 64}")
    await sees(page, "Please begin with the first page")
    await page.get_by_role("link", name="Start again").click()
    await sees(page, ASKS)
    assert page.url.rstrip("?") == link
    assert (await proxy.app.store.snapshot()).flows == ()
    asked = await watch.expected(Kind.ELSEWHERE)
    assert all(url.startswith(f"http://{SITE}:{site}/") for url in asked)


async def test_the_way_is_gone_with_the_keyboard_alone(proxy: Proxy, page: Page) -> None:
    """The one thing to press is reached by the tabulator, and where the focus is can be seen."""
    await open_link(page, await proxy.link("acme"))
    for _ in range(10):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if await focused.inner_text() == "Continue to Pleo":
            break
    assert await focused.evaluate("(element) => getComputedStyle(element).outlineStyle") == "solid"
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Approve").wait_for()
