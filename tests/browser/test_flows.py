"""What operators do on their pages, from the login to the logout, with the mouse and without."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect

from proxy.admin.lockout import MOST_OF_ONE, WINDOW_S
from proxy.admin.overview import PAGE_ROWS
from proxy.errors import REFUSALS
from proxy.facts import AdminLoggedIn
from proxy.model import Tenant
from proxy.sandbox import DEFAULT_CLIENT, Sandbox
from tests.browser.steps import decide, log_in
from tests.browser.watching import watching
from tests.harness import ADMIN_TOKEN, Proxy, running_proxy

VIEWER_TOKEN = "viewer-token-of-the-tests"
TABS = 60
"""More than any page has stops for the keyboard."""


async def tab_to(page: Page, text: str) -> None:
    """Press Tab until what has the focus says ``text``."""
    for _ in range(TABS):
        await page.keyboard.press("Tab")
        if await page.evaluate("() => document.activeElement.textContent.trim()") == text:
            return
    pytest.fail(f"the keyboard does not reach {text!r}")


async def try_token(page: Page, token: str) -> None:
    """Send the form of the login page."""
    await page.get_by_label("Admin token").fill(token)
    await page.get_by_role("button", name="Log in").click()


async def test_wrong_tokens_are_told_then_nobody_is_heard_for_a_while(proxy: Proxy, page: Page) -> None:
    """Each wrong token is said to be one; after too many there is a wait, and then the right one enters."""
    await page.goto(f"{proxy.admin_url}/login")
    for _ in range(MOST_OF_ONE):
        await try_token(page, "a-guess")
        await expect(page.get_by_role("alert")).to_have_text("That is not an admin token.")
        await expect(page.get_by_label("Admin token")).to_have_value("")
    await try_token(page, ADMIN_TOKEN)
    wait = page.get_by_text("Too many wrong tokens came. Try again in ")
    await expect(wait).to_have_text(re.compile(r"in [1-9][0-9]? seconds\.$"))
    proxy.pleo.advance(WINDOW_S)
    await log_in(page, proxy)
    await expect(page.get_by_role("heading", name="Tenants")).to_be_visible()


async def test_a_session_that_ends_midway_is_begun_again_on_the_same_page(proxy: Proxy, page: Page) -> None:
    """What was to be done is not done; after the login the page is there again, and does it when asked."""
    await log_in(page, proxy, "/tenants/acme")
    refreshed = proxy.lines("token.refreshed")
    proxy.pleo.advance(proxy.settings.admin.session_idle_s)
    await page.get_by_role("button", name="Refresh now").click()
    await expect(page.get_by_role("heading", name="Log in to pleo-proxy")).to_be_visible()
    assert proxy.lines("token.refreshed") == refreshed
    await try_token(page, ADMIN_TOKEN)
    await page.get_by_role("button", name="Refresh now").click()
    await expect(page.get_by_role("status")).to_have_text("The tokens are new.")


async def test_operators_find_tenants_among_many(proxy: Proxy, page: Page) -> None:
    """By name, by state, and page by page; what is not there is said, with a way back."""
    many = {f"branch-{number:03}": Tenant(f"branch-{number:03}") for number in range(2 * PAGE_ROWS)}
    await proxy.app.store.edit_tenants(lambda stored: {**stored, **many})
    await proxy.app.watch.take_up()
    await log_in(page, proxy)
    names = page.get_by_role("rowheader")
    await expect(names).to_have_count(PAGE_ROWS)
    await page.get_by_role("link", name="Next").click()
    await expect(page.get_by_text("Page 2 of 3")).to_be_visible()
    await page.get_by_role("link", name="Next").click()
    await expect(names).to_have_text(["acme", "globex"])
    await expect(page.get_by_role("link", name="Next")).to_have_count(0)
    await page.get_by_role("link", name="Previous").click()
    await expect(names.first).to_have_text("branch-100")
    await page.get_by_role("list", name="Tenants by state").get_by_text("connected", exact=True).click()
    await expect(names).to_have_text(["acme", "globex"])
    await page.get_by_label("Name or company").fill("GLO")
    await page.keyboard.press("Enter")
    await expect(names).to_have_text(["globex"])
    await page.get_by_label("State", exact=True).select_option("not connected")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_text("No tenant is like that.")).to_be_visible()
    await page.get_by_role("main").get_by_role("link", name="Show all").last.click()
    await expect(names).to_have_count(PAGE_ROWS)


async def test_without_tenants_the_overview_says_how_to_add_one(
    pleo: Sandbox, browser: BrowserContext, tmp_path: Path
) -> None:
    """A first visit is no empty table."""
    async with running_proxy(pleo, tmp_path) as proxy, watching(browser, [proxy.admin_url]):
        page = await browser.new_page()
        await log_in(page, proxy)
        await expect(page.get_by_text("pleo-proxy tenants add NAME")).to_be_visible()
        await expect(page.get_by_role("table")).to_have_count(0)


async def test_what_operators_do_is_what_callers_get(proxy: Proxy, page: Page) -> None:
    """Disabled, enabled, revoked and connected again: at once the same for callers as on the page."""
    employees = "/acme/v2/employees"
    await log_in(page, proxy, "/tenants/acme")
    await page.get_by_role("button", name="Refresh now").click()
    await expect(page.get_by_role("status")).to_have_text("The tokens are new.")
    await page.get_by_role("button", name="Disable").click()
    await expect(page.get_by_role("heading", name="acme disabled")).to_be_visible()
    assert (await proxy.get(employees)).status == 403
    await page.get_by_role("button", name="Enable").click()
    await expect(page.get_by_role("heading", name="acme connected")).to_be_visible()
    assert (await proxy.get(employees)).status == 200
    await page.get_by_role("link", name="Revoke…").click()
    await page.get_by_role("link", name="Back to acme").click()
    await expect(page.get_by_role("heading", name="acme connected")).to_be_visible()
    await page.get_by_role("link", name="Revoke…").click()
    await page.get_by_role("button", name="Erase the tokens").click()
    await expect(page.get_by_role("heading", name="acme revoked")).to_be_visible()
    refused = await proxy.get(employees)
    assert refused.status == 503
    await page.goto(refused.json()["reconnect_url"])
    await page.get_by_role("button", name="Make the link").click()
    await page.goto(await page.locator("a.link").inner_text())
    await decide(page, "Approve")
    await page.wait_for_url("**/oauth/result")
    assert (await proxy.get(employees)).status == 200
    await page.goto(f"{proxy.admin_url}/tenants/acme")
    await expect(page.get_by_role("heading", name="acme connected")).to_be_visible()


async def test_a_line_to_copy_is_selected_whole(proxy: Proxy, page: Page) -> None:
    """From the overview to the tenant's page, where three clicks select the command."""
    await log_in(page, proxy)
    await page.get_by_role("link", name="acme").click()
    await page.get_by_label("curl by path").click(click_count=3)
    selected = await page.evaluate("() => getSelection().toString().trim()")
    assert selected == f"curl {proxy.base_url}/acme/v2/employees"


async def test_a_viewer_is_offered_nothing_that_changes_something(
    pleo: Sandbox, browser: BrowserContext, tmp_path: Path
) -> None:
    """Everything can be read; the only buttons are those that filter, and the logout."""
    admin = {"token": ADMIN_TOKEN, "viewer_token": VIEWER_TOKEN}
    async with running_proxy(pleo, tmp_path, admin=admin) as proxy, watching(browser, [proxy.admin_url]):
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        page = await browser.new_page()
        await log_in(page, proxy, token=VIEWER_TOKEN)
        await expect(page.get_by_role("banner")).to_contain_text("viewer")
        for path in (
            "/",
            "/tenants/acme",
            "/tenants/acme/connect",
            "/tenants/acme/revoke",
            "/audit",
            "/settings",
        ):
            await page.goto(proxy.admin_url + path)
            buttons = await page.get_by_role("main").get_by_role("button").all_inner_texts()
            assert set(buttons) <= {"Filter"}, path
            assert await page.locator("form[method=post]").count() == 1, path  # the logout
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_role("heading", name="You are logged out")).to_be_visible()


async def test_the_trail_is_filtered_by_tenant_and_event(proxy: Proxy, page: Page) -> None:
    """What an operator did is there with a name; a filter leaves the rest out, and is undone by a link."""
    await log_in(page, proxy, "/tenants/acme")
    for button in ("Disable", "Enable"):
        await page.get_by_role("button", name=button).click()
        await page.get_by_role("status").wait_for()
    await page.get_by_role("navigation", name="Main").get_by_role("link", name="Audit").click()
    await page.get_by_label("Tenant").fill("acme")
    await page.get_by_label("Event").fill("tenant.changed")
    await page.get_by_role("button", name="Filter").click()
    await page.wait_for_url("**/audit?tenant=acme&event=tenant.changed")
    events = page.get_by_role("rowheader")
    async with asyncio.timeout(10):
        while await events.count() < 2:  # records are written about once a second
            await page.reload()
    assert await events.all_inner_texts() == ["tenant.changed", "tenant.changed"]
    await expect(page.get_by_role("row").nth(1)).to_contain_text("admin:operator")
    await page.get_by_label("Tenant").fill("nobody")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("There is no such record.")).to_be_visible()
    await page.get_by_role("link", name="Newest of all").click()
    await expect(events.filter(has_text="grant.connected")).to_have_count(2)


async def test_the_settings_show_no_secret_and_where_each_is_from(proxy: Proxy, page: Page) -> None:
    """From any page by the navigation; of the secrets that this run has none is in it."""
    await log_in(page, proxy)
    await page.get_by_role("navigation", name="Main").get_by_role("link", name="Settings").click()
    await expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    text = await page.content()
    assert "refresh.advisory" in text
    assert ADMIN_TOKEN not in text
    assert DEFAULT_CLIENT.client_secret not in text


async def test_a_refusal_leads_to_a_page_that_explains_it(proxy: Proxy, page: Page) -> None:
    """Whoever gets a problem document opens its type, with no login; each of them has such a page."""
    refused = (await proxy.get("/nobody/v2/employees")).json()
    await page.goto(refused["type"])
    await expect(page.get_by_role("heading", level=1)).to_have_text(refused["title"])
    for refusal in REFUSALS:
        await page.goto(f"{proxy.admin_url}/problems/{refusal.name}")
        await expect(page.get_by_role("heading", level=1)).to_have_text(refusal.title)
        await expect(page.get_by_role("heading", name="For who sent the request")).to_be_visible()


async def test_an_operator_needs_no_mouse(proxy: Proxy, page: Page) -> None:
    """From the login, where the field has the focus, to the confirmation before something is erased."""
    await page.goto(f"{proxy.admin_url}/login?next=/tenants/acme")
    await expect(page.get_by_label("Admin token")).to_be_focused()
    await page.keyboard.type(ADMIN_TOKEN)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{proxy.admin_url}/tenants/acme")
    await page.keyboard.press("Tab")
    stop = page.locator(":focus")
    await expect(stop).to_have_text("Skip to the content")
    await expect(stop).to_be_in_viewport()
    await page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    await tab_to(page, "Revoke…")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/revoke")
    await tab_to(page, "Erase the tokens")
    outline = "() => getComputedStyle(document.activeElement).outlineStyle"
    assert await page.evaluate(outline) == "solid"
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="acme revoked")).to_be_visible()
    await tab_to(page, "Log out")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="You are logged out")).to_be_visible()
    assert len([fact for fact in proxy.facts if isinstance(fact, AdminLoggedIn)]) == 1
