"""A walk past every page that people see, in the states worth seeing, with a name for each stop."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from playwright.async_api import Page, Request, Route

from proxy.admin.lockout import MOST_OF_ONE
from proxy.authorize import LINK_LIFETIME_S
from proxy.config import Report
from proxy.errors import ConfigurationError
from tests.browser.steps import decide, log_in
from tests.harness import Proxy
from tests.operator_browser import Browser

Walk = AsyncGenerator[str]
STOPS = {
    "login": "The login",
    "login-refused": "A token that is none",
    "problem": "What a refusal means, for developers",
    "problems": "All refusals there are",
    "continue": "After a link in a mail, for a moment",
    "overview": "All tenants, those first that need somebody",
    "overview-attention": "Those that need somebody",
    "tenant": "A tenant",
    "tenant-lost": "A tenant whose authorisation has ended",
    "connect": "Making a link for the person who authorises",
    "connect-link": "The link, shown once",
    "revoke": "Before the tokens are erased",
    "live": "What callers do, as it happens",
    "audit": "Who did what",
    "settings": "The settings in force",
    "settings-changed": "After the configuration was read again",
    "settings-mistaken": "After it was read again, with mistakes in it",
    "not-found": "A tenant that is not there",
    "logged-out": "After the logout",
    "login-locked": "After too many wrong tokens",
    "authoriser": "What the link shows: who asks, and for what",
    "authoriser-denied": "After a no at Pleo",
    "authoriser-connected": "After a yes at Pleo",
    "authoriser-used": "The link once more",
    "authoriser-wrong-company": "After a yes for another company",
    "authoriser-fewer-scopes": "After a yes to less than was asked for",
    "authoriser-expired": "The link of the day before yesterday",
}
"""Each stop, and what there is to see."""
_FILE = "/etc/pleo-proxy/config.toml"
_LOGIN = re.compile(r"/login\?")


async def tour(page: Page, proxy: Proxy) -> Walk:
    """Gives the name of each stop in turn; the page may be looked at, and must be left where it is."""
    for part in (_public, _operator, _goodbye, _authoriser):
        async with aclosing(part(page, proxy)) as walk:
            async for name in walk:
                yield name


async def _public(page: Page, proxy: Proxy) -> Walk:
    await page.goto(f"{proxy.admin_url}/login")
    yield "login"
    await page.get_by_label("Admin token").fill("not-the-token")
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_role("alert").wait_for()
    yield "login-refused"
    await page.goto(f"{proxy.admin_url}/problems/needs-reauth")
    yield "problem"
    await page.goto(f"{proxy.admin_url}/problems")
    yield "problems"
    await _followed_from_elsewhere(page, proxy)
    yield "continue"


async def _followed_from_elsewhere(page: Page, proxy: Proxy) -> None:
    """The page that leads on at once, held fast."""

    async def hold(route: Route, request: Request) -> None:
        if request.url.endswith("?from-elsewhere"):
            answer = await route.fetch(headers={**request.headers, "Sec-Fetch-Site": "cross-site"})
            await route.fulfill(response=answer)
        else:
            await route.abort("aborted")

    await page.route(_LOGIN, hold)
    await page.goto(f"{proxy.admin_url}/login?from-elsewhere")
    await page.get_by_role("heading", name="One moment").wait_for()


async def _operator(page: Page, proxy: Proxy) -> Walk:
    await page.unroute(_LOGIN)
    await log_in(page, proxy)
    yield "overview"
    await page.goto(f"{proxy.admin_url}/?state=attention")
    yield "overview-attention"
    await page.goto(f"{proxy.admin_url}/tenants/acme")
    yield "tenant"
    await page.goto(f"{proxy.admin_url}/tenants/hooli")
    yield "tenant-lost"
    await page.goto(f"{proxy.admin_url}/tenants/hooli/connect")
    yield "connect"
    await page.get_by_role("button", name="Make the link").click()
    await page.locator("a.link").wait_for()
    yield "connect-link"
    await page.goto(f"{proxy.admin_url}/tenants/acme/revoke")
    yield "revoke"
    await page.goto(f"{proxy.admin_url}/live")
    await page.get_by_text("New lines come by themselves.").wait_for()
    for path in (
        "/globex/v1/companies",
        "/hooli/v2/employees",
        "/acme/v2/no-such-thing",
        "/acme/v2/employees",
    ):
        await proxy.get(path)
    await page.locator("#lines tr", has_text="/acme/v2/no-such-thing").wait_for()
    yield "live"
    await page.goto(f"{proxy.admin_url}/audit")
    yield "audit"
    await page.goto(f"{proxy.admin_url}/settings")
    yield "settings"
    for reload, name in ((_changed, "settings-changed"), (_mistaken, "settings-mistaken")):
        proxy.app._services.reload = reload
        await page.get_by_role("button", name="Read the configuration again").click()
        await page.wait_for_url("**/settings/reload")
        await page.get_by_role("status" if reload is _changed else "alert").wait_for()
        yield name
    await page.goto(f"{proxy.admin_url}/tenants/nobody")
    yield "not-found"


async def _changed() -> Report:
    restart = {"listen.proxy": "its socket is opened at a start"}
    return Report(_FILE, ("limits.headers", "log.level", "pleo.client_secret"), restart, (), ())


async def _mistaken() -> Report:
    raise ConfigurationError(
        _FILE, ["limits.headers: 'many' is no whole number; write one such as 100", "log.lewel: unknown key"]
    )


async def _goodbye(page: Page, proxy: Proxy) -> Walk:
    await page.goto(proxy.admin_url)
    await page.get_by_role("button", name="Log out").click()
    await page.get_by_role("heading", name="You are logged out").wait_for()
    yield "logged-out"
    guesser = Browser(proxy)
    for _ in range(MOST_OF_ONE):
        await guesser.log_in("wrong")
    await page.goto(f"{proxy.admin_url}/login")
    await page.get_by_label("Admin token").fill("not-the-token")
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_text("Too many wrong tokens came").wait_for()
    yield "login-locked"


async def _authoriser(page: Page, proxy: Proxy) -> Walk:
    link = await proxy.link("wayne")
    await page.goto(link)
    yield "authoriser"
    await decide(page, "Deny")
    await page.wait_for_url("**/oauth/result")
    yield "authoriser-denied"
    await page.goto(link)
    await decide(page, "Approve", "globex")
    await page.wait_for_url("**/oauth/result")
    yield "authoriser-connected"
    await page.goto(link)
    yield "authoriser-used"
    await page.goto(await proxy.link("wayne"))
    await decide(page, "Approve", "initech")
    await page.wait_for_url("**/oauth/result")
    yield "authoriser-wrong-company"
    proxy.pleo.switches.granted_scopes = ("companies:read", "users:read")
    link = await proxy.link("initech")
    await page.goto(link)
    await decide(page, "Approve", "initech")
    await page.wait_for_url("**/oauth/result")
    yield "authoriser-fewer-scopes"
    link = await proxy.link("wayne")
    proxy.pleo.advance(LINK_LIFETIME_S)
    await page.goto(link)
    yield "authoriser-expired"
