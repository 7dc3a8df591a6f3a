"""The pages about tenants in a real browser: wide and narrow, light and dark, without complaints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.async_api import Page, ViewportSize

from proxy import lifecycle
from proxy.model import Policy, Preset
from tests.browser.steps import log_in
from tests.harness import Proxy

WIDE, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)
SHOTS = os.environ.get("PLEO_PROXY_SCREENSHOTS")
"""A folder for pictures of the pages, for who wants to look at them."""


async def picture(page: Page, name: str) -> None:
    """The page as it is now, if somebody wants to see it."""
    if SHOTS is not None:
        await page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


async def with_more_tenants(proxy: Proxy) -> None:
    """Tenants in other states, beside the two that are connected."""
    await proxy.add_tenant("acme", hosts=("acme.internal",), trial=Policy(preset=Preset.READ_ONLY))
    await proxy.add_tenant("initech")
    await proxy.add_tenant("umbrella", enabled=False)
    await proxy.app.store.edit_grant("globex", lifecycle.revoked)
    for path in ("/acme/v2/employees", "/initech/v2/employees"):
        await proxy.get(path)


OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
CONTRAST = """() => {
    const lightness = (colour) => {
        const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (!colour.endsWith(', 0)')) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const weak = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own) continue;
        const [one, other] = [getComputedStyle(element).color, ground(element)].map(lightness);
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) weak.push(`${element.tagName} ${element.textContent.trim()} ${ratio}`);
    }
    return weak;
}"""
"""Texts with less contrast than WCAG 2.2 asks for (success criterion 1.4.3)."""

PAGES = [
    "/",
    "/tenants/acme",
    "/tenants/globex",
    "/tenants/acme/connect",
    "/tenants/acme/revoke",
    "/audit",
    "/settings",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
async def test_pages_fit_are_readable_and_complain_of_nothing(
    proxy: Proxy, page: Page, size: ViewportSize, scheme: str
) -> None:
    """At either width nothing must be scrolled sideways, and every text has contrast, by day and by night."""
    await with_more_tenants(proxy)
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.set_viewport_size(size)
    await log_in(page, proxy)
    for path in PAGES:
        await page.goto(proxy.admin_url + path)
        assert await page.evaluate(OVERFLOW) <= 0, path
        assert await page.evaluate(CONTRAST) == [], path
        name = path.strip("/").replace("/", "-") or "overview"
        await picture(page, f"{name}-{size['width']}-{scheme}")


async def test_an_operator_finds_a_tenant_and_what_to_copy(proxy: Proxy, page: Page) -> None:
    """From the overview by the filter to the tenant's page, where the line can be selected."""
    await with_more_tenants(proxy)
    await log_in(page, proxy)
    await page.get_by_label("Name or company").fill("acm")
    await page.get_by_role("button", name="Filter").click()
    await page.wait_for_url("**/?q=acm*")
    names = page.get_by_role("rowheader")
    assert await names.all_inner_texts() == ["acme"]
    await page.get_by_role("link", name="acme").click()
    await page.get_by_role("heading", name="acme connected").wait_for()
    line = page.get_by_label("curl by path")
    await line.click(click_count=3)
    selected = await page.evaluate("() => getSelection().toString().trim()")
    assert selected == f"curl {proxy.base_url}/acme/v2/employees"


async def test_an_operator_refreshes_pauses_and_revokes(proxy: Proxy, page: Page) -> None:
    """Each button does what it says and tells so; what cannot be undone is asked about first."""
    await log_in(page, proxy, "/tenants/acme")
    for button, told in (
        ("Refresh now", "The tokens are new."),
        ("Disable", "Callers are refused from now on."),
        ("Enable", "Callers are served again."),
    ):
        await page.get_by_role("button", name=button, exact=True).click()
        await page.get_by_role("status").get_by_text(told).wait_for()
    await page.get_by_role("link", name="Revoke…").click()
    await page.get_by_role("heading", name="Revoke the grant of acme?").wait_for()
    await picture(page, "revoke")
    await page.get_by_role("button", name="Erase the tokens").click()
    await page.get_by_role("heading", name="acme revoked").wait_for()
    assert await page.get_by_role("button", name="Refresh now").count() == 0
    await page.get_by_role("link", name="Connect link…").click()
    await page.get_by_role("button", name="Make the link").click()
    await page.locator("a.link").click()
    await page.get_by_role("link", name="Continue to Pleo").click()
    await page.get_by_role("button", name="Approve").click()
    await page.get_by_role("heading", name="It worked: Acme ApS is connected").wait_for()
    await page.goto(f"{proxy.admin_url}/tenants/acme")
    await page.get_by_role("heading", name="acme connected").wait_for()


async def test_pages_are_used_with_the_keyboard_alone(proxy: Proxy, page: Page) -> None:
    """The first stop skips to the content, and where the focus is can be seen."""
    await log_in(page, proxy)
    await page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert await focused.inner_text() == "Skip to the content"
    box = await focused.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert await focused.evaluate("(element) => getComputedStyle(element).outlineStyle") == "solid"
    await page.keyboard.press("Enter")
    assert page.url.endswith("#main")
