"""What authorisers read: who asks for what before they go to Pleo, and what came of it after."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import replace
from html import unescape
from pathlib import Path
from string import Formatter

import pytest
from markupsafe import Markup

from proxy import consents, oauth, texts
from proxy.admin.results import as_cookie
from proxy.admin.services import SERVICES
from proxy.authorize import LINK_LIFETIME_S, proof_of
from proxy.config.advice import SCOPES
from proxy.consents import Ending
from proxy.errors import ConsentFault
from proxy.facts import ConsentFailed, Fact, LinkOpened, LinkRefused
from proxy.model import Outcome, Secret
from proxy.oauth import TokenFailure
from proxy.sandbox import COMPANIES, DEFAULT_CLIENT, ApiFault, Sandbox
from proxy.texts import Catalogue, catalogue
from tests.harness import Answer, Proxy, running_proxy
from tests.operator_browser import Markup as Tags
from tests.operator_browser import logged_in, shown_text
from tests.test_consent import REFERENCE, Browser, is_connected_page, is_page_of, reference_on, set_cookies

LANGUAGES = [pytest.param(catalogue(language), id=language) for language in texts.LANGUAGES]
DOCUMENTED_SCOPES = frozenset[str]().union(*SCOPES.values())
"""That Pleo's documentation names, in production and in staging."""
EXPERTS_WORDS = r"\b(tokens?|grants?|oauth|scopes?|callback|state|redirect|http|api|tenants?|server)\b"


# --- the catalogues


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_there_is_more_than_one_language() -> None:
    """English is the default, and a second catalogue shows that others can be added."""
    assert texts.DEFAULT == "en"
    assert {"de", "en"} <= set(texts.LANGUAGES)


@pytest.mark.parametrize("other", LANGUAGES)
def test_catalogues_have_the_same_texts(other: Catalogue) -> None:
    """No language lacks a text or has one that nobody asks for, and all texts take the same values."""
    english = catalogue("en").texts
    assert other.texts.keys() == english.keys()
    for key, text in other.texts.items():
        # What is known anyway may be named or not, as the language has it.
        optional = {"organisation", "contact"}
        assert placeholders(text) - optional == placeholders(english[key]) - optional, key


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_plain_and_whole(language: Catalogue) -> None:
    """No markup, no empty text, no space at an end; what is told in sentences ends as one."""
    for key, text in language.texts.items():
        assert text == text.strip() != "", key
        assert not re.search("[<>&]", text), key
        if key.endswith((".text", ".todo", ".lead", ".usable", ".over")):
            assert text.endswith((".", "?")), key


def test_english_texts_have_no_experts_words() -> None:
    """A finance person need know nothing of tokens."""
    texts_ = {key: text for key, text in catalogue("en").texts.items() if not key.startswith("scopes.")}
    plain = {key: Formatter().vformat(text, (), _Nothing()) for key, text in texts_.items()}
    assert {key: text for key, text in plain.items() if re.search(EXPERTS_WORDS, text, re.IGNORECASE)} == {}


class _Nothing(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_fault_has_its_texts(language: Catalogue) -> None:
    """A title, what happened, and what to do and whom to tell, for each fault and for nothing else."""
    told = {key.split(".")[1] for key in language.texts if key.startswith("faults.")}
    assert told == {fault.slug for fault in ConsentFault}
    titles = [language.texts[f"faults.{fault.slug}.title"] for fault in ConsentFault]
    assert len(set(titles)) == len(titles)
    for fault in ConsentFault:
        assert "contact" in placeholders(language.texts[f"faults.{fault.slug}.todo"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_documented_scope_has_words(language: Catalogue) -> None:
    """Each scope that Pleo documents is told in plain words, and no other has any."""
    known = {key.partition(".")[2] for key in language.texts if key.startswith("scopes.")}
    assert known == DOCUMENTED_SCOPES
    assert set(DEFAULT_CLIENT.scopes) <= known
    for scope in DOCUMENTED_SCOPES:
        assert ":" not in scope or scope not in language.scope(scope)
        assert "<" not in language.scope(scope)


def test_an_unknown_scope_is_shown_as_it_is() -> None:
    """What has no words is not kept from who is asked for it."""
    assert catalogue("en").scope("new-things:write") == "<code>new-things:write</code>"
    assert catalogue("en").scope("<b>:x") == "<code>&lt;b&gt;:x</code>"


def test_values_are_escaped_and_markup_is_kept() -> None:
    """What is put into a text cannot become a part of the page, unless we made it."""
    language = Catalogue("en", {"a": '{x} isn\'t "{y}" < {z}'})
    said = language.say("a", x="<script>{y}", y=Markup("<b>1</b>"), z='"')
    assert said == "&lt;script&gt;{y} isn&#39;t &#34;<b>1</b>&#34; &lt; &#34;"


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "26 November 2026, 09:05 UTC"), ("de", "26. November 2026, 09:05 Uhr (UTC)")],
)
def test_instants_are_told_in_the_language(language: str, said: str) -> None:
    """Day, month by name, year and time, and the same for programs."""
    shown = catalogue(language).instant(1795683900.9)
    assert shown == f'<time datetime="2026-11-26T09:05:00Z">{said}</time>'
    assert len({catalogue(language).instant(30.5 * 86400 * month) for month in range(12)}) == 12


# --- before


def instant(at: float) -> str:
    """An instant as a reader of English sees it."""
    return unescape(re.sub("<[^>]*>", "", catalogue("en").instant(at)))


async def test_the_page_says_who_asks_for_what_and_what_happens_next(pleo: Sandbox, tmp_path: Path) -> None:
    """Who, for which company, each scope in words, where it goes, until when, whom to ask."""
    who = {"organisation": "Müller & Söhne", "contact": "it@mueller.example"}
    scopes = ["companies:read", "vendors:write", "unheard-of:read"]
    async with running_proxy(pleo, tmp_path, consent=who, pleo={"scopes": scopes}) as proxy:
        await proxy.add_tenant("acme", company=COMPANIES["acme"])
        answer = await Browser(proxy).get(await proxy.link("acme"))
        text = shown_text(answer)
        assert answer.status == 200
        assert "Access to Pleo for Müller & Söhne" in text
        assert f"acme, which at Pleo is the company {COMPANIES['acme']}" in text
        assert (
            "See the company's name, country and currency Add, change and archive vendors unheard-of:read"
            in text
        )
        assert "You go on to 127.0.0.1 and log in there." in text
        assert "within 15 minutes" in text
        assert "You can take the access back at Pleo at any time" in text
        assert f"The link works once, until {instant(pleo.now() + LINK_LIFETIME_S)}." in text
        assert '<a href="mailto:it@mueller.example">it@mueller.example</a>' in answer.body.decode()


async def test_what_is_not_set_is_said_sensibly(proxy: Proxy) -> None:
    """Without a name and a contact the page names its host and the sender; an unsettled company is open."""
    await proxy.add_tenant("initech")
    text = shown_text(await Browser(proxy).get(await proxy.link("initech")))
    assert "because the team at 127.0.0.1 would like" in text
    assert "Please tell the person who sent you the link." in text
    assert "initech: the company that you choose at Pleo" in text
    assert "Questions to" not in text


async def test_a_contact_that_is_no_address_is_text(pleo: Sandbox, tmp_path: Path) -> None:
    """A telephone number, or what only looks like an address, makes no link, and nothing of it is markup."""
    for number, contact in enumerate(("+45 1234 5678", "Ann <ann@example.com>", "a@b?subject=x", "<b>@c")):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with running_proxy(pleo, folder, consent={"contact": contact}) as proxy:
            await proxy.add_tenant("acme")
            page = await Browser(proxy).get(await proxy.link("acme"))
            assert f"Please tell {contact}." in shown_text(page)
            assert b"mailto:" not in page.body
            assert b"<b>" not in page.body


async def test_opening_the_page_uses_up_nothing_and_begins_nothing(proxy: Proxy) -> None:
    """Scanners and previews may open a link as often as they like: nothing is stored, logged or spent."""
    await proxy.add_tenant("initech")
    link, before = await proxy.link("initech"), len(proxy.facts)
    pages = {
        re.sub("continue=[0-9a-f]+", "", (await Browser(proxy).get(link)).body.decode()) for _ in range(20)
    }
    assert len(pages) == 1
    stored = await proxy.app.store.snapshot()
    assert stored.flows == ()
    assert [each.used_at for each in stored.links if each.tenant == "initech"] == [None]
    assert proxy.facts[before:] == []
    assert is_connected_page(await Browser(proxy).connect(link, "initech"), "initech")


async def test_a_scanner_that_follows_the_page_spoils_nothing(proxy: Proxy) -> None:
    """Even one that keeps cookies and goes on to Pleo leaves the link to the person."""
    await proxy.add_tenant("initech")
    link = await proxy.link("initech")
    for _ in range(3):
        await Browser(proxy).open(link)
    assert is_connected_page(await Browser(proxy).connect(link, "initech"), "initech")


async def test_nobody_is_sent_to_pleo_without_having_seen_the_page(proxy: Proxy) -> None:
    """Without the cookie of the page, or with another's proof or none, no flow begins; the way back shows."""
    await proxy.add_tenant("initech")
    link, other = await proxy.link("initech"), Browser(proxy)
    others_way = await other.read(link)
    person = Browser(proxy)
    way = await person.read(link)
    cookie = person.cookies["pleo_proxy_browser"]
    assert way.endswith(f"?continue={proof_of(Secret(cookie))}")
    without = Browser(proxy)
    for browser, url in (
        (without, way),
        (person, others_way),
        (person, f"{link}?continue="),
        (person, f"{link}?continue={cookie}"),
        (person, f"{way}0"),
        (person, f"{link}?continue=%ed%b0%80%ff"),
    ):
        page = await browser.get(url)
        assert is_page_of(page, ConsentFault.PAGE_SKIPPED)
        assert '<a class="button" href="?"' in page.body.decode()
    assert not any(isinstance(fact, LinkOpened) and fact.tenant == "initech" for fact in proxy.facts)
    assert (await proxy.app.store.snapshot()).flows == ()
    assert (await person.get(way)).status == 303


async def test_a_page_repeats_no_secret(proxy: Proxy) -> None:
    """Neither the link's token nor the browser's cookie stands in a page, and no address leaks from one."""
    await proxy.add_tenant("initech")
    link, browser = await proxy.link("initech"), Browser(proxy)
    answers = [
        await browser.get(link),
        await browser.get(f"{link}?continue=x"),
        await browser.get(f"{link}x"),
    ]
    for answer in answers:
        text = answer.body.decode()
        assert link.rpartition("/")[2] not in text
        assert browser.cookies["pleo_proxy_browser"] not in text
        assert answer.header("Referrer-Policy") == "no-referrer"
        assert answer.header("Cache-Control") == "no-store"


# --- after


async def test_the_result_says_for_which_company_it_worked(proxy: Proxy) -> None:
    """The company by its name and id, the tenant, and what is possible now."""
    await proxy.add_tenant("initech")
    page = await Browser(proxy).connect(await proxy.link("initech"), "initech")
    text = shown_text(page)
    assert "It worked: Initech Ltd is connected" in text
    assert f"Initech Ltd ({COMPANIES['initech']})" in text
    assert "What the team at 127.0.0.1 can do now" in text
    assert text.count("See tags and their groups") == 1
    assert "Asked for, and not granted" not in text


@pytest.mark.parametrize(
    "fault",
    [
        None,
        ApiFault("status", "/v1/companies/", status=500),
        # A request that was cut off is sent once more.
        ApiFault("drop", "/v1/companies/", times=2),
    ],
    ids=["scope", "status", "drop"],
)
async def test_without_a_name_the_company_is_told_by_its_id(proxy: Proxy, fault: ApiFault | None) -> None:
    """A name that Pleo does not give, or may not give us, keeps nobody from being connected."""
    await proxy.add_tenant("initech")
    asked = proxy.pleo.counters.api_requests
    if fault is None:
        proxy.pleo.switches.granted_scopes = ("users:read",)
    else:
        proxy.pleo.api_faults.append(replace(fault))
    text = shown_text(await Browser(proxy).connect(await proxy.link("initech"), "initech"))
    assert "It worked: initech is connected" in text
    assert f"Company{COMPANIES['initech']} Known here as" in text
    if fault is None:
        assert proxy.pleo.counters.api_requests == asked + 1, "a name was asked for that is not ours to know"


async def test_nobody_waits_long_for_a_name(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that takes its time is done without."""
    await proxy.add_tenant("initech")
    monkeypatch.setattr("proxy.provider._NAME_S", 0.3)
    proxy.pleo.api_faults.append(ApiFault("delay", "/v1/companies/", seconds=20))
    async with asyncio.timeout(10):
        text = shown_text(await Browser(proxy).connect(await proxy.link("initech"), "initech"))
    assert "It worked: initech is connected" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<img src=x>&amp;", "&lt;img src=x&gt;&amp;amp;"),
        ("x" * 5000, "<strong>" + "x" * 100 + "</strong>"),
        ("Ä {tenant} {0.__class__}", "<strong>Ä {tenant} {0.__class__}</strong>"),
        ("two\nlines", "<h1>It worked: initech"),
        ("\u202eevil", "<h1>It worked: initech"),
        ("  ", "<h1>It worked: initech"),
    ],
)
async def test_a_companys_name_is_only_text(proxy: Proxy, name: str, shown: str) -> None:
    """What people call their company is escaped, bounded, on one line, and in the reader's direction."""
    await proxy.add_tenant("initech")
    proxy.pleo.world.companies[COMPANIES["initech"]].name = name
    browser = Browser(proxy)
    page = (await browser.connect(await proxy.link("initech"), "initech")).body.decode()
    assert shown in page
    assert "<img" not in page
    assert len(browser.cookies["pleo_proxy_result"]) < 3500


async def test_fewer_scopes_than_asked_are_told(proxy: Proxy) -> None:
    """What was granted and what was not stand apart, with what that means."""
    await proxy.add_tenant("initech")
    proxy.pleo.switches.granted_scopes = ("companies:read", "users:read")
    text = shown_text(await Browser(proxy).connect(await proxy.link("initech"), "initech"))
    granted, _, missing = text.partition("Asked for, and not granted")
    assert "See employees" in granted
    assert "See employees" not in missing
    assert "See tax codes" not in granted
    assert "See tax codes" in missing
    assert "ask the person who sent you the link for a new link" in missing


async def test_a_wrong_company_is_explained_and_the_link_works_on(proxy: Proxy) -> None:
    """Which company was expected, which was chosen, what to do; then the same link connects the right one."""
    link, browser = await proxy.link("acme"), Browser(proxy)
    ends = proxy.pleo.now() + LINK_LIFETIME_S
    page = await browser.connect(link, "globex")
    text = shown_text(page)
    assert is_page_of(page, ConsentFault.WRONG_COMPANY)
    assert f"The link is foracme ({COMPANIES['acme']})" in text
    assert f"Chosen at PleoGlobex GmbH ({COMPANIES['globex']})" in text
    assert "Log out at Pleo" in text
    assert f"goes on working until {instant(ends)}" in text
    assert is_connected_page(await browser.connect(link, "acme"), "acme")


async def test_a_used_link_says_when_it_was_used(proxy: Proxy) -> None:
    """Of the link, and of a second browser that comes back with it: when, for whom, and whom to tell."""
    await proxy.add_tenant("initech")
    link, late = await proxy.link("initech"), Browser(proxy)
    proxy.pleo.advance(3600)
    at_pleo = await late.open(link)
    used_at = proxy.pleo.now()
    assert is_connected_page(await Browser(proxy).connect(link, "initech"), "initech")
    proxy.pleo.advance(300)
    for page in (await Browser(proxy).get(link), await late.come_back(await late.decide(at_pleo, "initech"))):
        assert is_page_of(page, ConsentFault.LINK_USED)
        text = shown_text(page)
        assert f"initech was connected with it on {instant(used_at)}." in text
        assert "If it was not, tell the person who sent you the link at once." in text
        assert "goes on working" not in text
        assert "expired meanwhile" not in text


async def test_an_expired_link_says_until_when_it_worked(proxy: Proxy) -> None:
    """And whom to ask for a new one."""
    link, ends = await proxy.link("acme"), proxy.pleo.now() + LINK_LIFETIME_S
    proxy.pleo.advance(LINK_LIFETIME_S + 60)
    text = shown_text(await Browser(proxy).get(link))
    assert f"It worked until {instant(ends)}." in text
    assert "Ask the person who sent you the link for a new one." in text


async def test_a_failure_after_the_links_end_says_that_a_new_one_is_needed(proxy: Proxy) -> None:
    """Nobody is told to open a link again that has expired while they were at Pleo."""
    link, browser = await proxy.link("acme"), Browser(proxy)
    proxy.pleo.advance(LINK_LIFETIME_S - 60)
    at_pleo = await browser.open(link)
    proxy.pleo.advance(120)
    text = shown_text(await browser.come_back(await browser.decide(at_pleo, "acme", "deny")))
    assert "The link has expired meanwhile. Ask the person who sent you the link for a new one." in text
    assert "goes on working" not in text


# --- the reference


def told_by(proxy: Proxy, reference: str) -> list[str]:
    """Events in the log that have a reference."""
    return [line["event"] for line in proxy.lines() if line.get("reference") == reference]


async def test_one_reference_tells_the_whole_story_of_a_link(proxy: Proxy) -> None:
    """The pages of a link, from the first to the last, the log, and the tenant's page all name it alike."""
    await proxy.add_tenant("initech")
    operator = await logged_in(proxy)
    made = await operator.submit("/tenants/initech/connect")
    [link] = re.findall(r'class="link" href="([^"]+)"', made.body.decode())
    browser = Browser(proxy)
    pages = [await browser.get(link), await browser.connect(link, "initech", "deny")]
    pages += [await browser.connect(link, "initech"), await browser.get(link)]
    [reference] = {reference_on(page) for page in pages}
    assert told_by(proxy, reference) == [
        "connect.link_created",
        "connect.link_opened",
        "grant.consent_failed",
        "connect.link_opened",
        "grant.connected",
        "connect.link_refused",
    ]
    assert reference in shown_text(await operator.get("/tenants/initech"))


async def test_each_failure_is_found_by_the_reference_on_its_page(proxy: Proxy) -> None:
    """Whatever the page says, the operator who is told its reference finds why, and for whom."""
    browser, link = Browser(proxy), await proxy.link("acme")
    lost = f"{proxy.admin_url}/connect/lost"
    cases: list[tuple[Answer, str | None]] = [
        (await browser.get(lost), None),
        (await browser.get(f"{link}?continue=x"), None),
        (await browser.get(f"{proxy.admin_url}/oauth/result"), None),
        (await browser.come_back(f"{proxy.admin_url}/oauth/callback"), None),
        (await browser.come_back(f"{proxy.admin_url}/oauth/callback"), None),
        (await browser.connect(link, "acme", "deny"), "acme"),
        (await browser.connect(link, "globex"), "acme"),
    ]
    proxy.pleo.advance(LINK_LIFETIME_S)
    cases.append((await browser.get(link), "acme"))
    for page, tenant in cases:
        [line] = [
            line
            for line in proxy.lines()
            if line.get("reference") == reference_on(page) and line.get("reason") in reasons_of(page)
        ]
        assert line["tenant"] == tenant


def reasons_of(page: Answer) -> set[str]:
    return {fault.slug for fault in ConsentFault if is_page_of(page, fault)}


@pytest.mark.parametrize(
    ("fault", "errors"),
    [
        (ConsentFault.DENIED, ["access_denied"]),
        (ConsentFault.PLEO_UNAVAILABLE, ["server_error", "temporarily_unavailable"]),
        (
            ConsentFault.NOT_SET_UP,
            ["invalid_request", "invalid_scope", "unauthorized_client", "unsupported_response_type"],
        ),
        (
            ConsentFault.CANCELLED,
            ["interaction_required", "login_required", "account_selection_required", "consent_required"],
        ),
        (ConsentFault.PLEO_REFUSED, ["other", ""]),
    ],
    ids=lambda given: getattr(given, "slug", ""),
)
def test_errors_of_a_callback_are_told_by_whose_fault_they_are(
    fault: ConsentFault, errors: list[str]
) -> None:
    """The person's, Pleo's or ours: each is known to the standards, and has a page of its own."""
    for error in errors:
        assert oauth.known_callback_error(error) == (error or "other")
        assert consents.fault_of_callback(error) is fault


@pytest.mark.parametrize("outcome", Outcome)
def test_a_failed_exchange_is_told_by_whose_fault_it_is(outcome: Outcome) -> None:
    """Ours, if Pleo does not take our registration; nobody's, if Pleo is away; else it is tried again."""
    told = {
        Outcome.CLIENT_REJECTED: ConsentFault.NOT_SET_UP,
        Outcome.NOT_SENT: ConsentFault.PLEO_UNAVAILABLE,
        Outcome.UNAVAILABLE: ConsentFault.PLEO_UNAVAILABLE,
    }
    failure = TokenFailure(outcome, "x")
    assert consents.fault_of_exchange(failure) is told.get(outcome, ConsentFault.PLEO_REFUSED)


def test_references_can_be_told_on_the_telephone() -> None:
    """Eight letters of an alphabet in which none looks like another, the same for the same link."""
    made = {consents.new_reference() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(REFERENCE, each) for each in made)
    assert consents.reference_of("00" * 32) == "AAAA-AAAA"
    assert consents.reference_of("ffffffffff" + "00" * 27) == "7777-7777"


@pytest.mark.parametrize(
    "fault", [None, *ConsentFault], ids=lambda fault: fault.slug if fault else "connected"
)
def test_an_ending_survives_its_way_through_the_browser(fault: ConsentFault | None) -> None:
    """All that a page tells comes back as it was."""
    ending = Ending("AAAA-AAAA", fault, "acme", "c", "Näme", "e", ("a:b",), ("c:d",), 1.5, 2.5)
    assert consents.ending_of(ending.as_bytes()) == ending
    assert consents.ending_of(Ending("x", fault).as_bytes()) == Ending("x", fault)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"1", b'{"fault":null}', b'{"fault":"x"}', b"\xff"])
def test_what_is_no_ending_is_refused(data: bytes) -> None:
    """A result of another version is none."""
    with pytest.raises(ValueError, match=r".*"):
        consents.ending_of(data)


# --- all pages


async def pages_of(proxy: Proxy) -> dict[str, Answer]:
    """Every authoriser's page in its longest form."""
    await proxy.add_tenant("initech")
    vault, now = proxy.app.admin[SERVICES].vault, proxy.pleo.now()
    found = {}
    for tenant in ("acme", "initech"):
        found[f"connect-{tenant}"] = await Browser(proxy).get(await proxy.link(tenant))
    long = Ending("AAAA-AAAA", None, "acme", COMPANIES["globex"], "Globex GmbH", COMPANIES["acme"])
    long = replace(long, granted=("users:read",), missing=("unheard-of:write",), at=now, usable_until=now)
    for ending in (long, *(replace(long, fault=fault) for fault in ConsentFault)):
        for each in (ending, replace(ending, at=None, usable_until=None, company_name=None)):
            browser = Browser(proxy)
            browser.cookies["pleo_proxy_result"] = as_cookie(each, vault)
            name = each.fault.slug if each.fault else "connected"
            found[f"{name}-{each.at}"] = await browser.get(f"{proxy.admin_url}/oauth/result")
    return found


SILENT_ATTRIBUTES = {
    *("aria-hidden", "charset", "class", "content", "datetime", "href", "id", "lang", "name", "rel"),
}
"""In which nothing stands that is read to anybody."""
VALUES = [*COMPANIES.values(), "Globex GmbH", "acme", "initech", "127.0.0.1", "unheard-of:write"]


async def test_no_text_of_a_page_is_outside_the_catalogue(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a catalogue without a single letter, no page has any, but for names, ids and the reference."""
    english = catalogue("en").texts
    mute = {
        key: "".join(
            "·" * len(text) + (f"{{{name}}}" if name else "") for text, name, _, _ in Formatter().parse(value)
        )
        for key, value in english.items()
    }
    monkeypatch.setattr(texts, "catalogue", lambda language: Catalogue(language, mute))
    for name, page in (await pages_of(proxy)).items():
        text = re.sub(REFERENCE, "", re.sub(r"^<!doctype html>", "", page.body.decode()))
        for value in VALUES:
            text = text.replace(value, "")
        assert "··" in text, name
        assert re.findall(r"[^\W\d_]+", re.sub("<[^>]*>", "", text)) == [], name
        for _, attributes in Tags(text).tags:
            assert attributes.keys() <= SILENT_ATTRIBUTES, name


@pytest.mark.parametrize("language", texts.LANGUAGES)
async def test_pages_are_in_the_language_of_the_setting(pleo: Sandbox, tmp_path: Path, language: str) -> None:
    """One setting for all pages, told to the browser too; what the browser likes better changes nothing."""
    async with running_proxy(pleo, tmp_path, consent={"language": language}) as proxy:
        await proxy.add_tenant("acme", company=COMPANIES["acme"])
        link = await proxy.link("acme")
        page = await Browser(proxy).get(link, headers={"Accept-Language": "fr, da;q=0.9"})
        assert f'<html lang="{language}">' in page.body.decode()
        assert f">{catalogue(language).texts['connect.go']}</a>" in page.body.decode()
        result = await Browser(proxy).connect(link, "globex")
        assert catalogue(language).texts["faults.wrong-company.title"] in shown_text(result)


ADDRESSES = r"(/style\.css)?|\?(continue=[0-9a-f]{64})?"


async def test_pages_are_built_for_all_readers(proxy: Proxy) -> None:
    """One first heading, none skipped, a main part, a language, a title; no script or foreign address."""
    for name, page in (await pages_of(proxy)).items():
        tags = Tags(page.body.decode())
        order = [tag for tag, _ in tags.tags]
        assert order.count("h1") == order.count("main") == order.count("title") == 1, name
        assert next(tag for tag in order if re.fullmatch("h[1-6]", tag)) == "h1", name
        assert not {"h3", "h4", "script", "style", "form", "img", "iframe", "object"} & set(order), name
        assert [attributes.get("lang") for attributes in tags.all("html")] == ["en"]
        for tag, attributes in tags.tags:
            assert not [each for each in attributes if each == "style" or each.startswith("on")], (name, tag)
            assert re.fullmatch(ADDRESSES, attributes.get("href") or ""), name
        assert [each for each in tags.all("meta") if each.get("name") == "viewport"]


async def test_a_page_that_began_nothing_sets_no_result(proxy: Proxy) -> None:
    """The first page sets the cookie of the browser and no other."""
    page = await Browser(proxy).get(await proxy.link("acme"))
    assert [morsel.key for morsel in set_cookies(page)] == ["pleo_proxy_browser"]


# --- afterwards, for the operator


async def test_the_tenants_page_tells_what_became_of_its_links(proxy: Proxy) -> None:
    """Open, used or expired, each with its instant and reference, the newest first; of no other tenant."""
    await proxy.add_tenant("initech")
    expired = await proxy.link("initech")
    first = reference_on(await Browser(proxy).get(expired))
    proxy.pleo.advance(LINK_LIFETIME_S / 2)
    used = await proxy.link("initech")
    second = reference_on(await Browser(proxy).connect(used, "initech"))
    proxy.pleo.advance(LINK_LIFETIME_S / 2)
    still_open = await proxy.link("initech")
    third = reference_on(await Browser(proxy).get(still_open))
    operator = await logged_in(proxy)
    text = shown_text(await operator.get("/tenants/initech"))
    told = re.findall(rf"({REFERENCE}) (used|expired|open until) 20", text)
    assert told == [(third, "open until"), (second, "used"), (first, "expired")]
    others = shown_text(await operator.get("/tenants/acme"))
    assert not [reference for reference in (first, second, third) if reference in others]
    for link in (expired, used, still_open):
        assert link.rpartition("/")[2] not in text


def refusals(facts: Iterable[Fact]) -> list[str]:
    return [fact.reason for fact in facts if isinstance(fact, LinkRefused | ConsentFailed)]


async def test_what_befalls_who_has_a_link_is_logged_once(proxy: Proxy) -> None:
    """A result is told to the log when it comes, and not when it is shown."""
    browser, link = Browser(proxy), await proxy.link("acme")
    await browser.connect(link, "acme", "deny")
    for _ in range(3):
        await browser.get(f"{proxy.admin_url}/oauth/result")
    assert refusals(proxy.facts) == ["denied"]
