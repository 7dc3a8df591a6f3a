"""A page that somebody in the network visits, in a real browser: what it tries, and that it gets nowhere.

The oracle stands on the other side: what the proxy's log says of each request, and what the simulated Pleo
has received. ``attacks.js`` holds the attacks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import BrowserContext, Page

from proxy import guard, headers
from proxy.sandbox import Sandbox, api_app
from proxy.sandbox.calls import Reply
from tests.browser.attacker import (
    PLAIN_ADDRESS,
    PLAIN_NAME,
    SITE,
    Relay,
)
from tests.harness import Proxy, running_proxy, until

EMPLOYEES = "/acme/v2/employees"
PATIENCE_S = 30.0
"""Within which a busy browser has sent what it was told to."""
FIRST_PATIENCE_S = 5.0
"""Within which it has, if it does not give some of it up."""
UNSENT = {"speculation", "prerender"}
"""Attacks that this browser keeps to itself in some cases; if it sends them they must be refused as well."""


@pytest.fixture
async def named(pleo: Sandbox, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy that also answers to :data:`PLAIN_NAME`, with the tenant acme."""
    async with running_proxy(pleo, tmp_path, listen={"hosts": [PLAIN_NAME]}) as running:
        await running.add_tenant("acme")
        await running.connect("acme")
        yield running


def seen_by_proxy(proxy: Proxy) -> dict[str, set[str]]:
    """What came of the requests of each attack: status, or the name of the refusal."""
    seen: dict[str, set[str]] = {}
    for line in proxy.lines("request.finished"):
        path, _, attack = line["path"].rpartition("/")
        if path == EMPLOYEES:
            seen.setdefault(attack, set()).add(line["outcome"])
    return seen


def seen_by_pleo(proxy: Proxy) -> set[str]:
    """Attacks of which something arrived at Pleo."""
    paths = (request.target.partition("?")[0] for request in proxy.pleo.api_requests)
    return {path.rpartition("/")[2] for path in paths if path.startswith("/v2/employees")}


async def all_seen(
    attacks: Iterable[str], seen: Callable[[], Iterable[str]], patience_s: float = PATIENCE_S
) -> None:
    """Wait until all attacks have arrived; fails with those that did not."""
    expected = set(attacks) - UNSENT
    with suppress(AssertionError):
        await until(lambda: expected <= set(seen()), patience_s)
    assert expected - set(seen()) == set()


async def attack(
    browser: BrowserContext, site: int, base: str, seen: Callable[[], Iterable[str]]
) -> tuple[Page, dict[str, str | None]]:
    """Open the attacker's page and let it try everything; gives the page, and what each attack could read.

    A browser that is short of processors gives up frames now and then, so what did not arrive is tried once
    more, by a page of its own.
    """
    page = await attacking_page(browser, site)
    read: dict[str, str | None] = await page.evaluate("(base) => attack(base)", base)
    with suppress(AssertionError):
        await all_seen(read, seen, FIRST_PATIENCE_S)
        return page, read
    missing = sorted(set(read) - UNSENT - set(seen()))
    again = await attacking_page(browser, site)
    read |= await again.evaluate("([base, names]) => attack(base, names)", [base, missing])
    await all_seen(read, seen)
    return page, read


async def attacking_page(browser: BrowserContext, site: int) -> Page:
    """The attacker's page, open in the browser."""
    page = await browser.new_page()
    await page.goto(f"http://{SITE}:{site}/")
    return page


@pytest.mark.parametrize("host", ["127.0.0.1", PLAIN_NAME, PLAIN_ADDRESS])
async def test_a_page_of_another_site_neither_reads_nor_writes(
    named: Proxy, browser: BrowserContext, site: int, host: str
) -> None:
    """Whatever a page can make the browser send is refused, reaches no tenant, and is read by nobody."""
    calls = named.pleo.counters.api_requests
    base = f"http://{host}:{named.address[1]}"
    page, read = await attack(browser, site, base, lambda: seen_by_proxy(named))
    assert len(read) > 60
    assert {attack: text for attack, text in read.items() if text is not None} == {}
    await page.evaluate("(url) => { location = url }", f"{base}{EMPLOYEES}/location")
    await all_seen({"location"}, lambda: seen_by_proxy(named))
    seen = seen_by_proxy(named)
    assert {attack: ended for attack, ended in seen.items() if ended != {"browser-refused"}} == {}
    assert named.pleo.counters.api_requests == calls
    assert (await named.get(EMPLOYEES)).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", PLAIN_NAME])
async def test_without_the_guard_the_same_page_reaches_pleo(
    named: Proxy, browser: BrowserContext, site: int, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attacks are real: with the browser rules switched off, each that is refused arrives at Pleo."""
    monkeypatch.setattr(guard, "check_browser", lambda *_: None)
    base = f"http://{host}:{named.address[1]}"
    await attack(browser, site, base, lambda: seen_by_proxy(named))
    arrived = seen_by_pleo(named)
    others = {attack: ended for attack, ended in seen_by_proxy(named).items() if attack not in arrived}
    # A browser may give up what it has begun.
    assert {attack: ended for attack, ended in others.items() if ended != {"caller_left"}} == {}
    assert len(arrived) > 60
    wrote = {
        request.target.rpartition("/")[2]
        for request in named.pleo.api_requests
        if request.method == "POST" and request.body_length
    }
    assert {"post", "post-no-referrer", "beacon", "form-text-plain", "policy-report"} <= wrote


async def test_an_answer_that_pleo_opens_to_pages_stays_closed(
    named: Proxy, browser: BrowserContext, site: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even past the guard no page reads an answer and no cookie is kept: answers leave that out."""
    render = api_app._render

    def opened(reply: Reply) -> web.Response:
        answer = render(reply)
        answer.headers.update({"Access-Control-Allow-Origin": "*", "Set-Cookie": "session=1"})
        return answer

    monkeypatch.setattr(api_app, "_render", opened)
    monkeypatch.setattr(guard, "check_browser", lambda *_: None)
    page = await attacking_page(browser, site)
    read = "(url) => fetch(url, {credentials: 'omit'}).then((answer) => answer.text(), () => null)"
    image = "(url) => element('img', {src: url})"
    url = named.base_url + EMPLOYEES
    assert await page.evaluate(read, url) is None
    await page.evaluate(image, url)
    assert await browser.cookies() == []
    assert len(named.pleo.api_requests) >= 2
    # It would be read, and kept, if it came.
    monkeypatch.setattr(headers, "_kinds", {})
    monkeypatch.setattr(headers, "_CORS_PREFIX", b" ")
    monkeypatch.setattr(headers, "_FOR_PAGES", frozenset())
    assert json.loads(await page.evaluate(read, url))["data"]
    typed = await browser.new_page()
    await typed.goto(url)
    assert [each["name"] for each in await browser.cookies()] == ["session"]


@pytest.mark.parametrize("name", ["rebound.example", "rebound.localhost"])
async def test_a_name_that_turns_to_the_proxy_is_of_no_use(
    named: Proxy, browser: BrowserContext, site: int, name: str
) -> None:
    """A page whose own name leads to the proxy (DNS rebinding) reads refusals only, and writes nothing."""
    calls = named.pleo.counters.api_requests
    port = named.address[1]
    relay = Relay(site)
    async with relay.listening(port):
        page = await browser.new_page()
        await page.goto(f"http://{name}:{port}/")
        relay.port = port
        read = await page.evaluate("() => attackOwn()")
        await page.close()
    assert ("own-service-worker" in read) == name.endswith(".localhost")
    seen = seen_by_proxy(named)
    assert seen.keys() == read.keys()
    assert set.union(*seen.values()) <= {"browser-refused", "host-refused"}
    refusals = [text for text in read.values() if text is not None]
    assert refusals
    assert {json.loads(text)["status"] for text in refusals} <= {403, 421}
    assert named.pleo.counters.api_requests == calls


async def test_the_rule_for_hosts_alone_stops_a_rebound_name(
    named: Proxy, browser: BrowserContext, site: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding fails by its ``Host``, whatever the browser marks; without that rule, the page reads."""
    monkeypatch.setattr(guard, "check_browser", lambda *_: None)
    port = named.address[1]
    relay = Relay(site)
    async with relay.listening(port):
        page = await browser.new_page()
        await page.goto(f"http://rebound.example:{port}/")
        relay.port = port
        await page.evaluate("() => attackOwn()")
        assert set.union(*seen_by_proxy(named).values()) == {"host-refused"}
        assert seen_by_pleo(named) == set()
        monkeypatch.setattr(guard, "check_host", lambda *_: None)
        stolen = await page.evaluate("(path) => fetch(path).then((answer) => answer.text())", EMPLOYEES)
        await page.close()
    assert json.loads(stolen)["data"]


async def test_a_person_who_types_an_address_on_loopback_is_answered(
    named: Proxy, browser: BrowserContext
) -> None:
    """A typed address is marked as that; a script in what it shows, if there were one, could do nothing."""
    page = await browser.new_page()
    answer = await page.goto(named.base_url + EMPLOYEES)
    assert answer is not None
    assert answer.status == 200
    assert json.loads(await answer.text())["data"]
    fetched = await page.evaluate("(path) => fetch(path).then((answer) => answer.status)", EMPLOYEES)
    assert fetched == 403


@pytest.mark.parametrize("host", [PLAIN_NAME, PLAIN_ADDRESS])
async def test_an_address_typed_for_plain_http_is_refused(
    named: Proxy, browser: BrowserContext, host: str
) -> None:
    """Where the browser does not say who wants the page, a person cannot be told from a link."""
    page = await browser.new_page()
    answer = await page.goto(f"http://{host}:{named.address[1]}{EMPLOYEES}")
    assert answer is not None
    assert answer.status == 403
    program = await named.get(EMPLOYEES, headers={"Host": f"{host}:{named.address[1]}"})
    assert program.status == 200


async def test_a_browser_in_a_program_is_let_in_with_the_tenants_header(
    named: Proxy, browser: BrowserContext
) -> None:
    """``X-Pleo-Tenant``, which no page of another site can send, lets in what looks like a browser."""
    page = await browser.new_page()
    await page.set_extra_http_headers({"X-Pleo-Tenant": "acme"})
    answer = await page.goto(f"http://{PLAIN_NAME}:{named.address[1]}/v2/employees")
    assert answer is not None
    assert answer.status == 200
