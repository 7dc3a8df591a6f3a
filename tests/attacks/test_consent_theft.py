"""Attacks on the consent flow by whoever holds a piece of somebody else's: link, callback, code or cookie.

The oracle: a tenant gets a grant only from a consent that was begun and ended in one browser with one link of
that tenant, and nothing that a browser is given leads anywhere but to Pleo and back.
"""

from __future__ import annotations

from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from proxy.errors import ConsentFault
from proxy.sandbox import COMPANIES
from tests.harness import Proxy
from tests.test_consent import Browser, grant_of, is_connected_page, is_page_of, location, state_of


def parameter(url: str, name: str) -> str:
    return parse_qs(urlsplit(url).query)[name][0]


def callback(proxy: Proxy, **query: str) -> str:
    return f"{proxy.admin_url}/oauth/callback?{urlencode(query)}"


async def test_a_code_of_the_attackers_own_is_not_taken_for_the_victims(proxy: Proxy) -> None:
    """A good code from another browser's flow fails with this one's state: its verifier is another's."""
    await proxy.add_tenant("initech")
    link = await proxy.link("initech")
    attacker, victim = Browser(proxy), Browser(proxy)
    stolen = parameter(await attacker.decide(await attacker.open(link), "initech"), "code")
    state = state_of(await victim.open(link))
    page = await victim.come_back(callback(proxy, code=stolen, state=state))
    assert is_page_of(page, ConsentFault.PLEO_REFUSED)
    assert await proxy.app.store.grant("initech") is None
    assert is_connected_page(await victim.connect(link, "initech"), "initech")


async def test_codes_of_two_flows_in_one_browser_cannot_be_exchanged(proxy: Proxy) -> None:
    """With two tenants' flows under way in one browser, neither gets what was meant for the other."""
    browser = Browser(proxy)
    before = {name: await grant_of(proxy, name) for name in ("acme", "globex")}
    backs = [await browser.decide(await browser.open(await proxy.link(name)), name) for name in before]
    codes, states = ([parameter(back, name) for back in backs] for name in ("code", "state"))
    for code, state in zip(codes, reversed(states), strict=True):
        page = await browser.come_back(callback(proxy, code=code, state=state))
        assert is_page_of(page, ConsentFault.PLEO_REFUSED)
    for name, grant in before.items():
        assert await grant_of(proxy, name) == grant
        answer = await proxy.get(f"/{name}/v2/employees?limit=1")
        assert {row["companyId"] for row in answer.json()["data"]} == {COMPANIES[name]}


async def test_a_thief_of_a_link_gets_nothing_that_is_connected(proxy: Proxy) -> None:
    """The link of a settled tenant connects no other company, and the theft leaves it usable by its owner."""
    before = await grant_of(proxy, "acme")
    link = await proxy.link("acme")
    thief = Browser(proxy)
    page = await thief.connect(link, "globex")
    assert is_page_of(page, ConsentFault.WRONG_COMPANY)
    # The page says for which company the link is, as the address at Pleo does; of the grant it tells nothing.
    told = b"".join(answer.body for answer in thief.answers)
    secrets = [value.encode() for value in proxy.pleo.authority.secrets_issued()]
    assert not [value for value in [b"Acme ApS", *secrets] if value in told]
    assert await grant_of(proxy, "acme") == before
    assert is_connected_page(await Browser(proxy).connect(link, "acme"), "acme")


async def test_a_link_that_a_thief_used_is_noticed(proxy: Proxy) -> None:
    """Who comes second with a used link is told so, before anything is asked of Pleo."""
    await proxy.add_tenant("initech")
    link = await proxy.link("initech")
    assert is_connected_page(await Browser(proxy).connect(link, "globex"), "initech")
    assert is_page_of(await Browser(proxy).get(link), ConsentFault.LINK_USED)
    (connected,) = [line for line in proxy.lines("grant.connected") if line["tenant"] == "initech"]
    assert connected["company"] == COMPANIES["globex"]


async def test_a_cookie_alone_takes_up_no_flow(proxy: Proxy) -> None:
    """A thief of the browser's cookie without the state, or of the state without the cookie, has nothing."""
    await proxy.add_tenant("initech")
    owner, thief = Browser(proxy), Browser(proxy)
    back = await owner.decide(await owner.open(await proxy.link("initech")), "initech")
    assert is_page_of(await thief.come_back(back), ConsentFault.STATE_UNKNOWN)
    thief.cookies = dict(owner.cookies)
    forged = callback(proxy, code=parameter(back, "code"), state="x" * 43)
    assert is_page_of(await thief.come_back(forged), ConsentFault.STATE_UNKNOWN)
    assert is_connected_page(await owner.come_back(back), "initech")


@pytest.mark.parametrize(
    "added",
    [
        {"iss": "https://attacker.example"},
        {"redirect_uri": "https://attacker.example/"},
        {"next": "https://attacker.example/", "return_to": "//attacker.example"},
        {"access_token": "attackers-token", "refresh_token": "attackers-token", "expires_in": "9999999"},
        {"company": COMPANIES["globex"], "tenant": "globex"},
    ],
    ids="-".join,
)
async def test_what_is_added_to_a_callback_changes_nothing(proxy: Proxy, added: dict[str, str]) -> None:
    """The issuer, tokens, companies and addresses that an attacker adds are not looked at."""
    await proxy.add_tenant("initech")
    browser = Browser(proxy)
    back = await browser.decide(await browser.open(await proxy.link("initech")), "initech")
    assert is_connected_page(await browser.come_back(f"{back}&{urlencode(added)}"), "initech")
    grant = await grant_of(proxy, "initech")
    assert grant.company == COMPANIES["initech"]
    answer = await proxy.get("/initech/v2/employees?limit=1")
    assert {row["companyId"] for row in answer.json()["data"]} == {COMPANIES["initech"]}


@pytest.mark.parametrize("name", ["code", "state"])
@pytest.mark.parametrize("first", [True, False])
async def test_a_parameter_sent_twice_connects_its_own_tenant_or_none(
    proxy: Proxy, name: str, *, first: bool
) -> None:
    """With two codes or two states, whichever counts, no tenant gets what was meant for another."""
    await proxy.add_tenant("initech")
    browser = Browser(proxy)
    backs = {
        tenant: await browser.decide(await browser.open(await proxy.link(tenant)), tenant)
        for tenant in ("initech", "globex")
    }
    before = await grant_of(proxy, "globex")
    pairs = parse_qsl(urlsplit(backs["initech"]).query)
    pairs.insert(0 if first else len(pairs), (name, parameter(backs["globex"], name)))
    await browser.come_back(f"{proxy.admin_url}/oauth/callback?{urlencode(pairs)}")
    mine, other = await proxy.app.store.grant("initech"), await grant_of(proxy, "globex")
    assert mine is None or mine.company == COMPANIES["initech"]
    assert other == before or other.company == COMPANIES["globex"]


async def test_no_code_or_state_stays_in_the_address_bar(proxy: Proxy) -> None:
    """The callback leads on at once, and the page on which the browser comes to rest has neither in it."""
    await proxy.add_tenant("initech")
    browser = Browser(proxy)
    back = await browser.decide(await browser.open(await proxy.link("initech")), "initech")
    answer = await browser.get(back)
    assert (answer.status, location(answer)) == (303, f"{proxy.admin_url}/oauth/result")
    assert answer.header("Referrer-Policy") == "no-referrer"
    assert answer.header("Cache-Control") == "no-store"
    page = await browser.get(location(answer))
    for secret in (parameter(back, "code"), parameter(back, "state")):
        assert secret.encode() not in page.body
        assert secret not in repr([*answer.headers, *page.headers])


async def test_the_flow_leads_nowhere_but_to_pleo_and_back(proxy: Proxy) -> None:
    """No parameter of a link or a callback says where a browser is sent: none of them redirects openly."""
    link = await proxy.link("acme")
    for tail in ("?next=https://attacker.example", "?redirect_uri=//attacker.example", "?url=javascript:1"):
        browser = Browser(proxy)
        assert b"attacker" not in (await browser.get(link + tail)).body
        opened = await browser.get(f"{await browser.read(link)}&{tail[1:]}")
        assert location(opened).startswith(f"{proxy.pleo.authorize_url}?")
        assert parameter(location(opened), "redirect_uri") == f"{proxy.admin_url}/oauth/callback"
        assert "attacker" not in location(opened)
        back = await Browser(proxy).get(f"{proxy.admin_url}/oauth/callback{tail}&code=x&state=y")
        assert location(back) == f"{proxy.admin_url}/oauth/result"
    for path in ("/connect/%2f%2fattacker.example", "/connect//attacker.example", "//attacker.example/..%2f"):
        answer = await Browser(proxy).get(proxy.admin_url + path)
        assert answer.header("Location") is None
        assert answer.status == 404


async def test_a_callback_by_another_method_takes_no_state(proxy: Proxy) -> None:
    """Only GET takes up a flow, so a form of another page cannot post one."""
    await proxy.add_tenant("initech")
    browser = Browser(proxy)
    back = await browser.decide(await browser.open(await proxy.link("initech")), "initech")
    for method in ("POST", "PUT", "HEAD", "OPTIONS", "DELETE"):
        assert (await browser.get(back, method=method)).status == 405
    assert is_connected_page(await browser.come_back(back), "initech")
