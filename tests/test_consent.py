"""The consent flow as a browser meets it: from a one-time link to Pleo and back, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urljoin, urlsplit

import pytest
from yarl import URL

from proxy import oauth
from proxy.admin.results import of_cookie
from proxy.admin.services import SERVICES
from proxy.authorize import FLOW_LIFETIME_S, LINK_LIFETIME_S
from proxy.consents import Ending
from proxy.errors import ConsentFault, StoreUnavailable
from proxy.facts import ConsentFailed, GrantConnected, GrantNeedsReauth, LinkOpened
from proxy.model import (
    Grant,
    GrantState,
    Policy,
    Preset,
    Secret,
    Tenant,
)
from proxy.sandbox import COMPANIES, DEFAULT_CLIENT, ApiFault, Sandbox, TokenFault, TokenState
from proxy.texts import catalogue
from tests.harness import Answer, Proxy, running_proxy, until

REFERENCE = r"[A-Z2-7]{4}-[A-Z2-7]{4}"


class Browser:
    """A browser with cookies of its own that stops at every redirect, and is handed on by the test."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.cookies: dict[str, str] = {}
        self.answers: list[Answer] = []

    async def get(self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
        """One request; an address under ``public_url`` goes to the operator's listener itself."""
        own = url.startswith(self._proxy.admin_url)
        if own:
            url = url.replace(self._proxy.admin_url, f"http://{self._proxy.app.admin_address}", 1)
        sent = dict(headers or {})
        if own and self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with self._proxy.session.request(
            method, URL(url, encoded=True), headers=sent, allow_redirects=False
        ) as response:
            raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
            answer = Answer(response.status, raw, await response.read())
        if own:
            self.answers.append(answer)
            self.cookies |= {morsel.key: morsel.value for morsel in set_cookies(answer)}
        return answer

    async def read(self, link: str) -> str:
        """Open a connect link and read its page; the address by which it goes on."""
        answer = await self.get(link)
        assert answer.status == 200, answer.body
        [onward] = re.findall(r'href="(\?continue=[^"]*)"', answer.body.decode())
        return urljoin(link, str(onward))

    async def go_on(self, link: str) -> Answer:
        """Read the page of a link and follow it on."""
        return await self.get(await self.read(link))

    async def open(self, link: str) -> str:
        """Open a connect link and go on; the address at Pleo that it leads to."""
        answer = await self.go_on(link)
        assert answer.status == 303, answer.body
        return location(answer)

    async def decide(self, at_pleo: str, company: str, decision: str = "approve") -> str:
        """Decide at Pleo; the callback's address."""
        choice = {"X-Sandbox-Consent": decision, "X-Sandbox-Company": company}
        answer = await self.get(at_pleo, headers=choice)
        assert answer.status == 302, answer.body
        return location(answer)

    async def come_back(self, callback: str) -> Answer:
        """Follow the callback to the page on which the browser comes to rest."""
        answer = await self.get(callback)
        assert answer.status == 303, answer.body
        assert location(answer) == f"{self._proxy.admin_url}/oauth/result"
        return await self.get(location(answer))

    async def connect(self, link: str, company: str, decision: str = "approve") -> Answer:
        """The whole way."""
        return await self.come_back(await self.decide(await self.open(link), company, decision))


@pytest.fixture
async def unconnected(proxy: Proxy) -> Tenant:
    """A tenant for which nobody has consented and whose company is not settled."""
    return await proxy.add_tenant("initech")


def location(answer: Answer) -> str:
    found = answer.header("Location")
    assert found is not None
    return found


def set_cookies(answer: Answer) -> list[Morsel[str]]:
    lines = [value for name, value in answer.headers if name.lower() == "set-cookie"]
    return [morsel for line in lines for morsel in SimpleCookie(line).values()]


def result_of(proxy: Proxy, answer: Answer) -> Ending:
    """The result that a callback's answer sends along."""
    [value] = [morsel.value for morsel in set_cookies(answer) if morsel.key == "pleo_proxy_result"]
    ending = of_cookie(value, proxy.app.admin[SERVICES].vault)
    assert ending is not None
    return ending


def state_of(at_pleo: str) -> str:
    return parse_qs(urlsplit(at_pleo).query)["state"][0]


def is_page_of(answer: Answer, fault: ConsentFault) -> bool:
    title = html.escape(catalogue("en").texts[f"faults.{fault.slug}.title"], quote=True)
    return answer.status == fault.status and f"<h1>{title}</h1>" in answer.body.decode()


def is_connected_page(answer: Answer, tenant: str) -> bool:
    text = answer.body.decode()
    return answer.status == 200 and "<h1>It worked: " in text and f"<strong>{tenant}</strong>" in text


def reference_on(answer: Answer) -> str:
    """The reference that a page gives."""
    [reference] = re.findall(f"<code>({REFERENCE})</code>", answer.body.decode())
    return str(reference)


async def grant_of(proxy: Proxy, tenant: str) -> Grant:
    grant = await proxy.app.store.grant(tenant)
    assert grant is not None
    return grant


def failures(proxy: Proxy) -> list[ConsentFailed]:
    """The failed consents so far; error codes and references aside, which have tests of their own."""
    failed = [fact for fact in proxy.facts if isinstance(fact, ConsentFailed)]
    return [replace(fact, error=None, reference="") for fact in failed]


# --- opening a link


async def test_a_link_leads_to_pleo_with_exactly_the_documented_parameters(
    proxy: Proxy, unconnected: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authorisation request is the documented one, and its challenge is the verifier's S256."""
    monkeypatch.setattr("proxy.authorize.oauth.new_verifier", lambda: Secret("v" * 64))
    answer = await Browser(proxy).go_on(await proxy.link("initech"))
    assert answer.status == 303
    endpoint, _, query = location(answer).partition("?")
    assert endpoint == proxy.pleo.authorize_url
    params = parse_qsl(query, strict_parsing=True)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 64).digest()).rstrip(b"=").decode()
    state = state_of(location(answer))
    assert len(state) == 43
    assert params == [
        ("response_type", "code"),
        ("client_id", DEFAULT_CLIENT.client_id),
        ("redirect_uri", f"{proxy.admin_url}/oauth/callback"),
        ("scope", " ".join(DEFAULT_CLIENT.scopes)),
        ("state", state),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ]


async def test_a_settled_company_is_preselected_at_pleo(proxy: Proxy) -> None:
    """The link of a tenant whose company is known carries its subject, and Pleo's page has it selected."""
    browser = Browser(proxy)
    at_pleo = await browser.open(await proxy.link("globex"))
    subject = parse_qs(urlsplit(at_pleo).query)["urn_pleo_params_oauth_subject"]
    assert subject == [f"urn:pleo:company:{COMPANIES['globex']}"]
    page = (await browser.get(at_pleo)).body.decode()
    assert f'<option value="{COMPANIES["globex"]}" selected>' in page


async def test_states_and_verifiers_are_new_for_each_flow(
    proxy: Proxy, unconnected: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two openings of one link in one browser share the cookie and nothing else."""
    verifiers = recorded_verifiers(monkeypatch)
    browser, link = Browser(proxy), await proxy.link("initech")
    first = await browser.open(link)
    cookie = dict(browser.cookies)
    second = await browser.open(link)
    assert browser.cookies == cookie
    assert state_of(first) != state_of(second)
    assert len(set(verifiers)) == 2


@pytest.mark.parametrize(
    ("public_url", "prefix", "secure"),
    [(None, "", False), ("https://connect.example", "__Host-", True)],
    ids=["http", "https"],
)
async def test_cookies_are_as_narrow_as_the_public_url_allows(
    pleo: Sandbox, tmp_path: Path, public_url: str | None, prefix: str, secure: bool
) -> None:
    """Both cookies are HttpOnly, Lax and host-only; over https they are Secure with the __Host- prefix."""
    listen: dict[str, Any] = {} if public_url is None else {"public_url": public_url}
    async with running_proxy(pleo, tmp_path, listen=listen) as proxy:
        await proxy.add_tenant("acme")
        browser = Browser(proxy)
        opened = await browser.go_on(await proxy.link("acme"))
        back = await browser.get(await browser.decide(location(opened), "acme"))
        result = await browser.get(location(back))
    morsels = [*set_cookies(opened), *set_cookies(back)]
    assert [morsel.key for morsel in morsels] == [f"{prefix}pleo_proxy_browser", f"{prefix}pleo_proxy_result"]
    for morsel in morsels:
        assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Lax", "/")
        assert (bool(morsel["secure"]), morsel["domain"]) == (secure, "")
    assert is_connected_page(result, "acme")


async def test_a_cookie_that_is_not_of_our_making_is_not_taken_up(proxy: Proxy, unconnected: Tenant) -> None:
    """A browser cookie that someone planted, or that is no text, is replaced by a random one."""
    for planted in ("known", "x" * 44, "\xff" * 43, '"a\\015\\012Set-Cookie: b=c"'):
        browser = Browser(proxy)
        browser.cookies["pleo_proxy_browser"] = planted
        answer = await browser.get(await proxy.link("initech"))
        assert answer.status == 200
        [morsel] = set_cookies(answer)
        assert morsel.value != planted
        assert len(morsel.value) == 43


async def test_head_begins_nothing(proxy: Proxy, unconnected: Tenant) -> None:
    """A HEAD for a link, or for the callback, is refused without a flow, a cookie or a taken state."""
    browser, link = Browser(proxy), await proxy.link("initech")
    answer = await Browser(proxy).get(link, method="HEAD")
    assert (answer.status, answer.header("Set-Cookie"), answer.header("Location")) == (405, None, None)
    assert not any(isinstance(fact, LinkOpened) and fact.tenant == "initech" for fact in proxy.facts)
    callback = await browser.decide(await browser.open(link), "initech")
    assert (await browser.get(callback, method="HEAD")).status == 405
    assert is_connected_page(await browser.come_back(callback), "initech")


async def test_a_link_opens_as_often_as_wanted_until_a_consent_succeeded(
    proxy: Proxy, unconnected: Tenant
) -> None:
    """A scanner, a given-up try and a denial spoil nothing; the success ends the link."""
    link, person = await proxy.link("initech"), Browser(proxy)
    await Browser(proxy).open(link)
    given_up = await person.open(link)
    assert is_page_of(await person.connect(link, "initech", "deny"), ConsentFault.DENIED)
    assert is_connected_page(await person.connect(link, "initech"), "initech")
    assert is_page_of(await person.get(link), ConsentFault.LINK_USED)
    assert is_page_of(
        await person.come_back(await person.decide(given_up, "initech")), ConsentFault.LINK_USED
    )


async def test_an_unknown_link_is_answered_with_a_page(proxy: Proxy) -> None:
    """A mistyped link gets 404 and a text for its reader; nothing begins."""
    browser = Browser(proxy)
    for token in ("nothing", "%FF%00", "x" * 5000):
        answer = await browser.get(f"{proxy.admin_url}/connect/{token}")
        assert is_page_of(answer, ConsentFault.LINK_UNKNOWN)
    assert browser.cookies == {}


async def test_an_expired_link_says_so(proxy: Proxy, unconnected: Tenant) -> None:
    """After a day a link gets 410 and the advice to ask for a new one."""
    link = await proxy.link("initech")
    proxy.pleo.advance(LINK_LIFETIME_S)
    assert is_page_of(await Browser(proxy).get(link), ConsentFault.LINK_EXPIRED)


async def test_a_link_may_expire_while_its_authoriser_is_at_pleo(proxy: Proxy, unconnected: Tenant) -> None:
    """A link is judged as of when it was opened."""
    browser, link = Browser(proxy), await proxy.link("initech")
    proxy.pleo.advance(LINK_LIFETIME_S - 60)
    at_pleo = await browser.open(link)
    proxy.pleo.advance(120)
    assert is_connected_page(await browser.come_back(await browser.decide(at_pleo, "initech")), "initech")


async def test_a_link_of_a_removed_tenant_is_unknown(proxy: Proxy, unconnected: Tenant) -> None:
    """Once its tenant is gone, neither the link nor a flow that began with it leads anywhere."""
    browser, link = Browser(proxy), await proxy.link("initech")
    callback = await browser.decide(await browser.open(link), "initech")
    async with proxy.pleo.hold_token_endpoint() as gate:
        result = asyncio.create_task(browser.come_back(callback))
        await gate.arrived()
        await proxy.app.store.edit_tenants(
            lambda stored: {name: tenant for name, tenant in stored.items() if name != "initech"}
        )
    assert is_page_of(await result, ConsentFault.LINK_UNKNOWN)
    assert is_page_of(await browser.get(link), ConsentFault.LINK_UNKNOWN)


# --- coming back


async def test_a_consent_connects_the_tenant_at_once(proxy: Proxy, unconnected: Tenant) -> None:
    """Calls of the tenant work with the next request, and the first consent settles its company."""
    assert (await proxy.get("/initech/v2/employees")).status == 503
    assert is_connected_page(await Browser(proxy).connect(await proxy.link("initech"), "initech"), "initech")
    answer = await proxy.get("/initech/v2/employees")
    assert {row["companyId"] for row in answer.json()["data"]} == {COMPANIES["initech"]}
    assert (await proxy.app.store.tenants())["initech"].company == COMPANIES["initech"]
    grant = await grant_of(proxy, "initech")
    assert (grant.state, grant.generation, grant.company) == (GrantState.CONNECTED, 1, COMPANIES["initech"])
    assert grant.scopes == DEFAULT_CLIENT.scopes


async def test_a_link_has_one_success_even_if_two_browsers_had_opened_it(
    proxy: Proxy, unconnected: Tenant
) -> None:
    """The browser that comes second is refused before its code is spent, and the grant stays the first's."""
    link, first, second = await proxy.link("initech"), Browser(proxy), Browser(proxy)
    late = await second.open(link)
    assert is_connected_page(await first.connect(link, "initech"), "initech")
    before, spent = await grant_of(proxy, "initech"), proxy.pleo.counters.token_requests
    callback = await second.decide(late, "initech")
    assert is_page_of(await second.come_back(callback), ConsentFault.LINK_USED)
    assert proxy.pleo.counters.token_requests == spent
    assert await grant_of(proxy, "initech") == before


async def test_of_two_browsers_that_come_back_at_once_one_succeeds(proxy: Proxy, unconnected: Tenant) -> None:
    """With both codes exchanged before either is stored, the link still counts once."""
    link, browsers = await proxy.link("initech"), [Browser(proxy), Browser(proxy)]
    callbacks = [await browser.decide(await browser.open(link), "initech") for browser in browsers]
    async with proxy.pleo.hold_token_endpoint() as gate:
        pages = [
            asyncio.create_task(browser.come_back(callback))
            for browser, callback in zip(browsers, callbacks, strict=True)
        ]
        await gate.arrived(2)
    connected, refused = sorted(await asyncio.gather(*pages), key=lambda page: page.status)
    assert is_connected_page(connected, "initech")
    assert is_page_of(refused, ConsentFault.LINK_USED)
    assert (await grant_of(proxy, "initech")).generation == 1


async def test_a_state_is_good_for_one_of_many_simultaneous_callbacks(
    proxy: Proxy, unconnected: Tenant
) -> None:
    """Of fifty callbacks with one state exactly one reaches the token endpoint; the rest are refused."""
    browser = Browser(proxy)
    callback = await browser.decide(await browser.open(await proxy.link("initech")), "initech")
    before = proxy.pleo.counters.token_requests
    answers = await asyncio.gather(*(browser.get(callback) for _ in range(50)))
    results = [result_of(proxy, answer) for answer in answers]
    assert [result.fault for result in results].count(ConsentFault.STATE_UNKNOWN) == 49
    [connected] = [result for result in results if result.fault is None]
    assert connected.tenant == "initech"
    assert proxy.pleo.counters.token_requests == before + 1
    assert proxy.pleo.counters.code_replays == 0


async def test_a_replayed_callback_is_refused_and_takes_nothing(proxy: Proxy, unconnected: Tenant) -> None:
    """The same address a second time gets a page, and Pleo never sees the code again."""
    browser = Browser(proxy)
    callback = await browser.decide(await browser.open(await proxy.link("initech")), "initech")
    assert is_connected_page(await browser.come_back(callback), "initech")
    assert is_page_of(await browser.come_back(callback), ConsentFault.STATE_UNKNOWN)
    assert proxy.pleo.counters.code_replays == 0
    assert (await proxy.get("/initech/v2/employees")).status == 200


async def test_another_browsers_callback_is_refused_and_spoils_nothing(
    proxy: Proxy, unconnected: Tenant
) -> None:
    """Without the cookie of the browser that opened the link, or with another's, a state is worth nothing."""
    browser, stranger = Browser(proxy), Browser(proxy)
    callback = await browser.decide(await browser.open(await proxy.link("initech")), "initech")
    assert is_page_of(await stranger.come_back(callback), ConsentFault.STATE_UNKNOWN)
    await stranger.open(await proxy.link("initech"))
    assert is_page_of(await stranger.come_back(callback), ConsentFault.STATE_UNKNOWN)
    assert await proxy.app.store.grant("initech") is None
    assert is_connected_page(await browser.come_back(callback), "initech")


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"error": "access_denied"}, ConsentFault.DENIED),
        ({"error": "access_denied", "error_description": "<b>it</b>"}, ConsentFault.DENIED),
        ({"error": "access_denied", "code": "pleo_code_x"}, ConsentFault.DENIED),
        ({"error": "server_error"}, ConsentFault.PLEO_UNAVAILABLE),
        ({"error": "temporarily_unavailable"}, ConsentFault.PLEO_UNAVAILABLE),
        ({"error": "invalid_scope", "error_uri": "https://evil.example"}, ConsentFault.NOT_SET_UP),
        ({"error": "unauthorized_client"}, ConsentFault.NOT_SET_UP),
        ({"error": "login_required"}, ConsentFault.CANCELLED),
        ({"error": "consent_required"}, ConsentFault.CANCELLED),
        ({"error": "<script>alert(1)</script>"}, ConsentFault.PLEO_REFUSED),
        ({"error": ""}, ConsentFault.PLEO_REFUSED),
        ({"code": ""}, ConsentFault.PLEO_REFUSED),
        ({}, ConsentFault.PLEO_REFUSED),
        ({"code": "never-issued"}, ConsentFault.PLEO_REFUSED),
        ({"code": "é\0\r\n&x=y"}, ConsentFault.PLEO_REFUSED),
    ],
)
async def test_a_callback_without_a_good_code_connects_nothing(
    proxy: Proxy, unconnected: Tenant, params: dict[str, str], fault: ConsentFault
) -> None:
    """The authoriser reads a fixed text, the operator a fixed word, and the link works again afterwards."""
    browser, link = Browser(proxy), await proxy.link("initech")
    state = state_of(await browser.open(link))
    query, before = urlencode({**params, "state": state}), proxy.pleo.counters.token_requests
    page = await browser.come_back(f"{proxy.admin_url}/oauth/callback?{query}")
    assert is_page_of(page, fault)
    has_code = bool(params.get("code")) and "error" not in params
    assert proxy.pleo.counters.token_requests == before + has_code
    assert failures(proxy) == [ConsentFailed("initech", fault.slug, None, "")]
    assert await proxy.app.store.grant("initech") is None
    assert is_connected_page(await browser.connect(link, "initech"), "initech")


async def test_a_callback_without_state_is_refused(proxy: Proxy, unconnected: Tenant) -> None:
    """Neither a missing nor an empty nor an invented state takes up a flow."""
    browser = Browser(proxy)
    await browser.open(await proxy.link("initech"))
    for query in ("", "code=x", "code=x&state=", "code=x&state=invented", "error=access_denied"):
        page = await browser.come_back(f"{proxy.admin_url}/oauth/callback?{query}")
        assert is_page_of(page, ConsentFault.STATE_UNKNOWN)
    assert failures(proxy) == [ConsentFailed(None, "state-unknown", None, "")] * 5


async def test_a_flow_ends_after_a_quarter_of_an_hour(proxy: Proxy, unconnected: Tenant) -> None:
    """Who comes back too late is told to open the link again, which then works."""
    browser, link = Browser(proxy), await proxy.link("initech")
    at_pleo = await browser.open(link)
    proxy.pleo.advance(FLOW_LIFETIME_S)
    page = await browser.come_back(await browser.decide(at_pleo, "initech"))
    assert is_page_of(page, ConsentFault.STATE_UNKNOWN)
    assert is_connected_page(await browser.connect(link, "initech"), "initech")


async def test_a_browser_that_leaves_does_not_undo_the_consent(proxy: Proxy, unconnected: Tenant) -> None:
    """A callback whose browser is gone before the answer is carried out to its end."""
    browser = Browser(proxy)
    callback = await browser.decide(await browser.open(await proxy.link("initech")), "initech")
    facts = len(proxy.facts)
    async with proxy.pleo.hold_token_endpoint(committed=True) as gate:
        leaving = asyncio.create_task(browser.get(callback))
        await gate.arrived()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    await until(lambda: any(isinstance(fact, GrantConnected) for fact in proxy.facts[facts:]))
    assert (await proxy.get("/initech/v2/employees")).status == 200


async def test_two_tenants_connect_side_by_side_in_one_browser(proxy: Proxy, unconnected: Tenant) -> None:
    """Flows of two links under way in one browser end each with its own tenant."""
    browser = Browser(proxy)
    one = await browser.open(await proxy.link("initech"))
    other = await browser.open(await proxy.link("globex"))
    back_one, back_other = await browser.decide(one, "initech"), await browser.decide(other, "globex")
    assert is_connected_page(await browser.come_back(back_one), "initech")
    assert is_connected_page(await browser.come_back(back_other), "globex")
    for name in ("initech", "globex"):
        assert (await grant_of(proxy, name)).company == COMPANIES[name]


# --- what goes wrong behind the callback


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (TokenFault("status", status=500), ConsentFault.PLEO_UNAVAILABLE),
        (TokenFault("status", status=503, retry_after="60"), ConsentFault.PLEO_UNAVAILABLE),
        (TokenFault("status", status=429), ConsentFault.PLEO_UNAVAILABLE),
        (TokenFault("drop"), ConsentFault.PLEO_REFUSED),
        (TokenFault("drop", committed=True), ConsentFault.PLEO_REFUSED),
        (TokenFault("html"), ConsentFault.PLEO_REFUSED),
        (TokenFault("broken_json", committed=True), ConsentFault.PLEO_REFUSED),
        (TokenFault("no_refresh_token"), ConsentFault.PLEO_REFUSED),
    ],
    ids=lambda given: getattr(given, "slug", "") or f"{given.kind}-{given.status}-{given.committed}",
)
async def test_a_failed_code_exchange_stores_nothing_and_leaves_the_link_good(
    proxy: Proxy, unconnected: Tenant, fault: TokenFault, told: ConsentFault
) -> None:
    """Whatever keeps Pleo from giving a whole pair, the authoriser is asked to try again, and can."""
    browser, link = Browser(proxy), await proxy.link("initech")
    proxy.pleo.token_faults.append(replace(fault))
    page = await browser.connect(link, "initech")
    assert is_page_of(page, told)
    assert "The link in your message goes on working until " in page.body.decode()
    assert failures(proxy) == [ConsentFailed("initech", told.slug, None, "")]
    assert proxy.lines("grant.consent_failed")[-1]["error"], "the operator is told what Pleo answered"
    assert await proxy.app.store.grant("initech") is None
    assert (await proxy.app.store.tenants())["initech"].company is None
    assert is_connected_page(await browser.connect(link, "initech"), "initech")


async def test_an_expired_code_is_refused(proxy: Proxy, unconnected: Tenant) -> None:
    """``invalid_grant`` for a code ends the flow and touches no grant."""
    browser = Browser(proxy)
    callback = await browser.decide(await browser.open(await proxy.link("initech")), "initech")
    proxy.pleo.advance(proxy.pleo.switches.code_lifetime_s)
    assert is_page_of(await browser.come_back(callback), ConsentFault.PLEO_REFUSED)
    assert await proxy.app.store.grant("initech") is None


async def test_a_wrong_client_secret_leaves_the_existing_grant_alone(proxy: Proxy) -> None:
    """``invalid_client`` at a reconnection ends the flow; the tenant goes on with what it had."""
    before = await grant_of(proxy, "acme")
    browser = Browser(proxy)
    callback = await browser.decide(await browser.open(await proxy.link("acme")), "acme")
    proxy.pleo.rotate_client_secret("another")
    assert is_page_of(await browser.come_back(callback), ConsentFault.NOT_SET_UP)
    assert proxy.pleo.counters.rejected_clients == 1
    assert await grant_of(proxy, "acme") == before
    assert (await proxy.get("/acme/v2/employees")).status == 200


async def test_a_grant_that_cannot_be_verified_is_not_stored(proxy: Proxy, unconnected: Tenant) -> None:
    """Where Pleo does not tell the company of a new token, nothing is stored and the link stays good."""
    browser, link = Browser(proxy), await proxy.link("initech")
    broken = ApiFault("status", "/v1/introspect", times=3, status=500)
    proxy.pleo.api_faults.append(broken)
    assert is_page_of(await browser.connect(link, "initech"), ConsentFault.NOT_VERIFIED)
    assert broken.times == 0
    assert await proxy.app.store.grant("initech") is None
    assert is_connected_page(await browser.connect(link, "initech"), "initech")


async def test_a_passing_failure_of_introspection_is_survived(proxy: Proxy, unconnected: Tenant) -> None:
    """The question for company and scopes is asked again before a consent is given up."""
    proxy.pleo.api_faults.append(ApiFault("drop", "/v1/introspect"))
    assert is_connected_page(await Browser(proxy).connect(await proxy.link("initech"), "initech"), "initech")


async def test_another_companys_consent_is_refused_and_its_tokens_are_discarded(proxy: Proxy) -> None:
    """The existing grant stays in use, the new pair is nowhere, and the link works for the right company."""
    browser, link, before = Browser(proxy), await proxy.link("acme"), await grant_of(proxy, "acme")
    assert is_page_of(await browser.connect(link, "globex"), ConsentFault.WRONG_COMPANY)
    assert failures(proxy) == [ConsentFailed("acme", "wrong-company", None, "")]
    assert await grant_of(proxy, "acme") == before
    assert (await proxy.app.store.tenants())["acme"].company == COMPANIES["acme"]
    await proxy.get("/acme/v2/employees")
    seen = proxy.pleo.api_requests[-1]
    assert (seen.token, seen.company_id) == (TokenState.LIVE, COMPANIES["acme"])
    assert is_connected_page(await browser.connect(link, "acme"), "acme")


async def test_first_consents_for_two_companies_settle_one(proxy: Proxy, unconnected: Tenant) -> None:
    """Of two links opened for an unsettled tenant the faster consent decides; the other is refused."""
    browsers, companies = [Browser(proxy), Browser(proxy)], ("initech", "globex")
    callbacks = [
        await browser.decide(await browser.open(await proxy.link("initech")), company)
        for browser, company in zip(browsers, companies, strict=True)
    ]
    async with proxy.pleo.hold_token_endpoint() as gate:
        pages = [
            asyncio.create_task(browser.come_back(callback))
            for browser, callback in zip(browsers, callbacks, strict=True)
        ]
        await gate.arrived(2)
    one, other = await asyncio.gather(*pages)
    winner = companies[0] if one.status == 200 else companies[1]
    assert {one.status, other.status} == {200, ConsentFault.WRONG_COMPANY.status}
    assert (await proxy.app.store.tenants())["initech"].company == COMPANIES[winner]
    assert (await grant_of(proxy, "initech")).company == COMPANIES[winner]
    assert (await proxy.get("/initech/v2/employees")).json()["data"][0]["companyId"] == COMPANIES[winner]


async def test_fewer_scopes_than_asked_connect_and_are_reported(proxy: Proxy, unconnected: Tenant) -> None:
    """A grant of a part of the scopes is stored with those, and the log names what is missing."""
    proxy.pleo.switches.granted_scopes = ("companies:read", "users:read")
    assert is_connected_page(await Browser(proxy).connect(await proxy.link("initech"), "initech"), "initech")
    line = proxy.lines("grant.connected")[-1]
    assert line["scopes"] == ["companies:read", "users:read"]
    assert proxy.lines("grant.scopes_missing")[-1]["scopes"] == [
        scope for scope in DEFAULT_CLIENT.scopes if scope not in ("companies:read", "users:read")
    ]
    assert (await grant_of(proxy, "initech")).scopes == ("companies:read", "users:read")
    assert (await proxy.get("/initech/v2/employees")).status == 200


async def test_a_reconnection_restores_service_and_leaves_routes_and_policy(proxy: Proxy) -> None:
    """After a revocation a new consent serves at once, under the old routes and with a higher generation."""
    kept = await proxy.add_tenant(
        "acme", company=COMPANIES["acme"], policy=Policy(Preset.READ_ONLY), hosts=("acme.pleo.internal",)
    )
    proxy.pleo.revoke("acme")
    assert (await proxy.get("/acme/v2/employees")).status in (401, 503)
    await until(lambda: any(isinstance(fact, GrantNeedsReauth) for fact in proxy.facts))
    refused = await proxy.get("/acme/v2/employees")
    assert refused.status == 503
    assert refused.json()["reconnect_url"] == f"{proxy.admin_url}/tenants/acme/connect"
    before = await grant_of(proxy, "acme")
    assert (before.state, before.access, before.refresh) == (GrantState.NEEDS_REAUTH, None, None)

    assert is_connected_page(await Browser(proxy).connect(await proxy.link("acme"), "acme"), "acme")
    assert (await proxy.get("/acme/v2/employees")).status == 200
    after = await grant_of(proxy, "acme")
    assert (after.state, after.generation) == (GrantState.CONNECTED, before.generation + 1)
    assert (await proxy.app.store.tenants())["acme"] == kept
    assert (await proxy.get("/v2/employees", headers={"Host": "acme.pleo.internal"})).status == 200
    assert (await proxy.call("POST", "/acme/v1/vendors", data=b"{}")).status == 403


async def test_a_store_that_fails_is_a_page_too(
    proxy: Proxy, unconnected: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link and a callback meet a broken store with a text for their reader, and leave no code behind."""

    async def broken(*_args: object, **_options: object) -> None:
        raise StoreUnavailable

    browser, link = Browser(proxy), await proxy.link("initech")
    callback = await browser.decide(await browser.open(link), "initech")
    for method in ("take_flow", "connect"):
        with monkeypatch.context() as patch:
            patch.setattr(proxy.app.store, method, broken)
            page = await browser.come_back(callback)
        assert is_page_of(page, ConsentFault.STORE_FAILED)
    with monkeypatch.context() as patch:
        patch.setattr(proxy.app.store, "link", broken)
        assert is_page_of(await browser.get(link), ConsentFault.STORE_FAILED)
    assert [fact.tenant for fact in failures(proxy)] == [None, "initech"]
    assert is_connected_page(await browser.connect(link, "initech"), "initech")


# --- what is shown and kept


def recorded_verifiers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The verifiers of the flows that begin from now on."""
    made, new_verifier = [], oauth.new_verifier

    def recording() -> Secret:
        verifier = new_verifier()
        made.append(verifier.reveal())
        return verifier

    monkeypatch.setattr("proxy.authorize.oauth.new_verifier", recording)
    return made


def bytes_on_disk(state_dir: Path) -> bytes:
    """Everything that the proxy has written to files: database, its log, key ring, journal."""
    files = [path for path in state_dir.rglob("*") if path.is_file()]
    assert {"proxy.db", "proxy.db-wal"} <= {path.name for path in files}
    return b"".join(path.read_bytes() for path in files)


async def test_no_secret_of_a_flow_is_shown_logged_or_stored_in_the_clear(
    proxy: Proxy,
    unconnected: Tenant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Pages, addresses, log lines and files hold no link, state, verifier, code, token or cookie."""
    caplog.set_level(logging.DEBUG)
    verifiers, browser, links = recorded_verifiers(monkeypatch), Browser(proxy), []
    states = []
    for company, decision in (("initech", "deny"), ("initech", "approve"), ("globex", "approve")):
        links.append(await proxy.link("initech"))
        at_pleo = await browser.open(links[-1])
        states.append(state_of(at_pleo))
        await browser.come_back(await browser.decide(at_pleo, company, decision))
        assert (await browser.get(links[-1])).status in (200, 410)
    await browser.open(await proxy.link("initech"))
    proxy.pleo.revoke_access("initech")
    assert (await proxy.get("/initech/v2/employees")).status == 200  # with a refreshed token

    tokens = [link.rpartition("/")[2] for link in links]
    issued = proxy.pleo.authority.secrets_issued()
    assert any(value.startswith("pleo_code_") for value in issued)
    never_shown = {*tokens, *verifiers, *issued}
    shown = [answer.body.decode() for answer in browser.answers]
    shown += [value for answer in browser.answers for _, value in answer.headers]
    shown += [proxy.log.getvalue().decode(), caplog.text]
    for text in shown:
        assert not [secret for secret in never_shown if secret in text]
    # A state is for Pleo's eyes only, and the browser's cookie for its own.
    to_pleo = [location(answer) for answer in browser.answers if (answer.header("Location") or "").count("?")]
    assert all(address.startswith(proxy.pleo.authorize_url) for address in to_pleo)
    for text in set(shown) - set(to_pleo):
        assert not [state for state in states if state in text]
    cookie = browser.cookies["pleo_proxy_browser"]
    assert cookie not in proxy.log.getvalue().decode() + caplog.text

    stored = bytes_on_disk(tmp_path)
    for secret in (*never_shown - {DEFAULT_CLIENT.client_secret}, *states, cookie):
        assert secret.encode() not in stored


@pytest.mark.parametrize(
    "crafted",
    [
        "",
        "connected",
        "connected.",
        "connected.-",
        "connected.Acme",
        "connected.<script>alert(1)</script>",
        "connected.acme%3Cb%3E",
        "connected." + "a" * 64,
        "denied.acme",
        "<img src=x onerror=alert(1)>",
        '"><script>alert(1)</script>',
        "{{ 7 * 7 }}",
        "\xff\xfe",
        "state-unknown\0",
    ],
)
async def test_a_crafted_result_cookie_shows_nothing_of_itself(proxy: Proxy, crafted: str) -> None:
    """What is no result of ours is answered as an unknown step, in fixed words."""
    browser = Browser(proxy)
    known = await browser.get(f"{proxy.admin_url}/oauth/result")
    assert is_page_of(known, ConsentFault.STATE_UNKNOWN)
    host, _, port = proxy.app.admin_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"GET /oauth/result HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: pleo_proxy_result="
    writer.write(head + crafted.replace("\0", "%00").encode("latin-1") + b"\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    page = answer.partition(b"\r\n\r\n")[2].decode()
    assert re.sub(REFERENCE, "", page) == re.sub(REFERENCE, "", known.body.decode())


@pytest.mark.parametrize(
    ("part", "change"),
    [
        (0, lambda data: data.replace(b"initech", b"globex")),
        (0, lambda data: data.replace(b"Initech", b"Attacker")),
        (0, lambda data: data[:-1]),
        (0, lambda _: b""),
        (1, lambda _: b"other"),
        (2, lambda tag: b"0" * len(tag)),
        (2, lambda _: b""),
    ],
    ids=["tenant", "name", "cut", "empty", "key", "tag", "no-tag"],
)
async def test_a_changed_result_is_none(
    proxy: Proxy, unconnected: Tenant, part: int, change: Callable[[bytes], bytes]
) -> None:
    """The page tells what a callback found, and nothing that was made of it on the way."""
    browser = Browser(proxy)
    assert is_connected_page(await browser.connect(await proxy.link("initech"), "initech"), "initech")
    text, key, tag = browser.cookies["pleo_proxy_result"].split(".")
    parts = [base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), key.encode(), tag.encode()]
    before = parts[part]
    parts[part] = change(before)
    assert parts[part] != before
    crafted = base64.urlsafe_b64encode(parts[0]).decode().rstrip("=")
    browser.cookies["pleo_proxy_result"] = ".".join((crafted, *(each.decode() for each in parts[1:])))
    assert is_page_of(await browser.get(f"{proxy.admin_url}/oauth/result"), ConsentFault.STATE_UNKNOWN)


async def test_what_is_authenticated_for_another_purpose_is_no_result(proxy: Proxy) -> None:
    """The key ring authenticates notes of the audit trail as well; none of them passes for a result."""
    vault, data = proxy.app.admin[SERVICES].vault, Ending("AAAA-AAAA", tenant="acme").as_bytes()
    key_id, tag = vault.authenticate(data)
    assert of_cookie(f"{base64.urlsafe_b64encode(data).decode()}.{key_id}.{tag}", vault) is None


async def test_the_facts_of_a_flow_tell_its_story(proxy: Proxy, unconnected: Tenant) -> None:
    """Opened, failed and connected are told with tenant, generation, company and a fixed reason."""
    browser, link = Browser(proxy), await proxy.link("initech")
    await browser.connect(link, "initech", "deny")
    await browser.connect(link, "initech")
    told = [
        {key: value for key, value in line.items() if key not in ("timestamp", "scopes", "reference")}
        for line in proxy.lines()
        if line["event"].startswith(("connect.", "grant.")) and line["tenant"] == "initech"
    ]
    opened = {"level": "info", "event": "connect.link_opened", "tenant": "initech"}
    assert told == [
        opened,
        {
            "level": "warning",
            "event": "grant.consent_failed",
            "tenant": "initech",
            "reason": "denied",
            "error": "access_denied",
        },
        opened,
        {
            "level": "info",
            "event": "grant.connected",
            "tenant": "initech",
            "generation": 1,
            "company": COMPANIES["initech"],
        },
    ]
    assert "pleo_" not in json.dumps(told)
