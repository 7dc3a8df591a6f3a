"""The operator's pages in a real browser: logging in, making a link that is followed, and what others try."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, Page

from proxy.facts import AdminLoggedIn, AdminLoggedOut, LinkCreated
from tests.browser.attacker import SITE
from tests.browser.steps import log_in
from tests.browser.watching import Kind, Watch
from tests.harness import ADMIN_TOKEN, Proxy

CONNECT = "/tenants/acme/connect"


async def test_an_operator_logs_in_makes_a_link_and_the_link_connects(proxy: Proxy, page: Page) -> None:
    """From a page that asks for the token to Pleo's consent and back, and no rule of ours is in the way."""
    await log_in(page, proxy, CONNECT)
    await page.get_by_role("button", name="Make the link").click()
    await page.locator("a.link").click()
    await page.get_by_role("link", name="Continue to Pleo").click()
    await page.get_by_role("button", name="Approve").click()
    await page.get_by_role("heading", name="It worked: Acme ApS is connected").wait_for()
    assert page.url == f"{proxy.admin_url}/oauth/result"
    await page.goto(proxy.admin_url)
    assert await page.locator("header span").inner_text() == "operator"
    await page.get_by_role("button", name="Log out").click()
    await page.get_by_role("heading", name="You are logged out").wait_for()
    await page.goto(proxy.admin_url)
    assert page.url.endswith("/login?next=%2F")


async def test_no_form_of_ours_leads_to_pleo(proxy: Proxy, page: Page, watch: Watch) -> None:
    """Browsers hold ``form-action`` against redirects, too: so the way to a consent begins with a link."""
    link = await proxy.link("acme")
    await page.goto(link)
    await page.evaluate(
        """() => {
            const form = document.createElement('form');
            const proof = document.createElement('input');
            proof.name = 'continue';
            proof.value = document.querySelector('a.button').href.split('=')[1];
            form.append(proof);
            document.body.append(form);
            form.submit();
        }"""
    )
    [breach] = await watch.expected(Kind.POLICY)
    assert breach.startswith("form-action forbids ")
    await watch.expected(Kind.CONSOLE)
    assert page.url == link


async def test_a_link_in_a_mail_opens_the_page_of_who_is_logged_in(
    proxy: Proxy, browser: BrowserContext, site: int
) -> None:
    """A strict cookie stays behind when another site's link is followed, and is found again at once."""
    page = await browser.new_page()
    await log_in(page, proxy)
    await page.goto(f"http://{SITE}:{site}/")
    await page.evaluate("(url) => { location = url }", proxy.admin_url + CONNECT)
    await page.get_by_role("button", name="Make the link").wait_for()
    assert page.url == proxy.admin_url + CONNECT


@pytest.mark.parametrize("host", [SITE, "127.0.0.1"])
async def test_pages_of_others_do_nothing_with_a_session(
    proxy: Proxy, browser: BrowserContext, site: int, host: str
) -> None:
    """Forms, scripts, frames and pictures of another site, or of another port of this host, which to browsers
    is the same site, make no link, log nobody in or out, and read nothing."""
    page = await browser.new_page()
    await log_in(page, proxy)
    before = len(proxy.facts)
    await page.goto(f"http://{host}:{site}/")
    for path, fields in ((CONNECT, {}), ("/logout", {}), ("/login", {"token": ADMIN_TOKEN})):
        other = await browser.new_page()
        await other.goto(f"http://{host}:{site}/")
        await other.evaluate(
            """([url, fields]) => {
                const form = document.createElement('form');
                form.method = 'post';
                form.action = url;
                for (const [name, value] of Object.entries(fields)) {
                    const input = document.createElement('input');
                    [input.name, input.value] = [name, value];
                    form.append(input);
                }
                document.body.append(form);
                form.submit();
            }""",
            [proxy.admin_url + path, fields],
        )
        await other.wait_for_url(proxy.admin_url + "/**")
        assert "another site" in await other.inner_text("body")
        await other.close()
    read = await page.evaluate(
        """async (base) => {
            const got = [];
            for (const path of ['/', '/tenants/acme/connect', '/api/v1/tenants']) {
                for (const options of [{credentials: 'include'}, {mode: 'no-cors', credentials: 'include'},
                                       {method: 'POST', credentials: 'include'}]) {
                    try { got.push(await (await fetch(base + path, options)).text()); } catch { }
                }
            }
            return got.filter((text) => text !== '');
        }""",
        proxy.admin_url,
    )
    assert read == []
    loaded = await page.evaluate(
        """async (base) => {
            const frame = document.createElement('iframe');
            frame.src = base + '/login';
            document.body.append(frame);
            await new Promise((done) => { frame.onload = done; });
            const opened = window.open(base + '/');
            await new Promise((done) => { setTimeout(done, 500); });
            return [frame.contentDocument === null, opened === null || opened.closed];
        }""",
        proxy.admin_url,
    )
    assert loaded == [True, True]
    [frame] = [each for each in page.frames if each is not page.main_frame]
    assert frame.url != f"{proxy.admin_url}/login"
    assert not [
        fact
        for fact in proxy.facts[before:]
        if isinstance(fact, AdminLoggedIn | AdminLoggedOut | LinkCreated)
    ]
    await page.goto(proxy.admin_url)
    assert await page.locator("header span").inner_text() == "operator"
