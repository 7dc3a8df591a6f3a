"""What happened to a tenant's tokens and authorisation, in words and on its page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin import history
from proxy.admin.words import Tone
from proxy.audit import EVENTS
from proxy.chain import Entry, Record
from proxy.facts import GrantNeedsReauth, RefreshFailed
from proxy.model import Outcome
from proxy.telemetry.audit import AUDITED
from proxy.telemetry.metrics import REASONS
from tests.harness import Proxy
from tests.operator_browser import Markup, logged_in, shown_text


def told(event: str, details: Any, actor: str = "proxy:x/0") -> history.Told:
    """What becomes of a record."""
    entry = Entry(1e9, event, "acme", actor, details if isinstance(details, str) else json.dumps(details))
    return history.told(Record(1, bytes(32), entry, bytes(32)))


@pytest.mark.parametrize(
    ("event", "details", "tone", "text"),
    [
        (
            "token.refreshed",
            {"generation": 4, "reason": "expiring"},
            Tone.GOOD,
            "New tokens ahead of the old ones' end, generation 4",
        ),
        (
            "token.refresh_failed",
            {"outcome": "not_sent", "error": "connect"},
            Tone.WARN,
            "No new tokens: Pleo was not reached (connect)",
        ),
        (
            "token.refresh_failed",
            {"outcome": "refused", "error": "invalid_grant"},
            Tone.BAD,
            "No new tokens: Pleo refused: the authorisation is over (invalid_grant)",
        ),
        (
            "token.refresh_failed",
            {"outcome": "client_rejected", "error": "invalid_client"},
            Tone.BAD,
            "No new tokens: Pleo does not accept the proxy's registration (invalid_client)",
        ),
        ("token.refresh_failed", {"outcome": "new", "error": "x"}, Tone.WARN, "No new tokens: new (x)"),
        ("connect.link_created", {"user": "ann"}, Tone.OFF, "ann made a connect link"),
        ("connect.link_created", {}, Tone.OFF, "os:ann made a connect link"),
        ("connect.link_opened", {}, Tone.OFF, "Somebody opened the connect link"),
        ("grant.connected", {"generation": 1}, Tone.GOOD, "Connected: a person consented, generation 1"),
        (
            "grant.consent_failed",
            {"reason": "wrong-company", "error": None},
            Tone.WARN,
            "A consent failed: wrong-company",
        ),
        (
            "grant.consent_failed",
            {"reason": "refused", "error": "access_denied"},
            Tone.WARN,
            "A consent failed: refused (access_denied)",
        ),
        (
            "grant.scopes_missing",
            {"scopes": ["users:read", "x"]},
            Tone.WARN,
            "Less was consented to than was asked for; missing: users:read, x",
        ),
        (
            "grant.needs_reauth",
            {"reason": "invalid_grant"},
            Tone.BAD,
            "Needs re-authentication: Pleo ended the authorisation (invalid_grant)",
        ),
        (
            "grant.needs_reauth",
            {"reason": "lost_answer"},
            Tone.BAD,
            "Needs re-authentication: an answer of Pleo's with new tokens was lost",
        ),
        ("grant.revoked", {}, Tone.BAD, "os:ann erased the tokens"),
        ("grant.revoked", {"generation": 2}, Tone.BAD, "Without tokens: callers are refused"),
    ],
)
def test_a_record_is_told_in_words(event: str, details: Any, tone: Tone, text: str) -> None:
    """With the reason or the outcome, and a colour for how good it is."""
    found = told(event, details, "os:ann")
    assert (found.tone, found.text) == (tone, text)
    assert found.at == "2001-09-09T01:46:40+00:00"


def test_every_event_and_word_has_its_sentence() -> None:
    """What is asked of the trail is recorded, and none of the proxy's own words is shown as it is."""
    known = {fact.event for fact in AUDITED} | EVENTS
    wanted = {*history.REFRESHES, *history.AUTHORISATIONS}
    assert wanted == history._SENTENCES.keys()
    assert wanted <= known
    assert history._BEGUN_BY.keys() == set(REASONS)
    assert history._FAILED.keys() == set(Outcome) - {Outcome.GRANTED}


@given(
    st.sampled_from([*history.REFRESHES, *history.AUTHORISATIONS, "other"]),
    st.text()
    | st.dictionaries(
        st.sampled_from(["reason", "outcome", "scopes", "generation", "error", "user"]),
        st.none()
        | st.integers()
        | st.text()
        | st.lists(st.integers())
        | st.dictionaries(st.text(), st.none()),
    ),
)
def test_whatever_a_record_holds_is_told(event: str, details: Any) -> None:
    """One of another version, or one that was tampered with, does not break the page."""
    assert told(event, details).text


async def test_the_page_of_a_tenant_has_its_history(proxy: Proxy) -> None:
    """Refreshes apart from consents, of this tenant alone, the newest first, with links to all of them."""
    operator = await logged_in(proxy)
    assert (await operator.submit("/tenants/acme/refresh")).status == 303
    proxy.app._emit(RefreshFailed("acme", 2, "expiring", Outcome.UNAVAILABLE, "503", 12.0, 30.0))
    proxy.app._emit(GrantNeedsReauth("acme", 2, "invalid_grant"))
    proxy.app._emit(GrantNeedsReauth("globex", 2, "lost_answer"))
    await proxy.app._audit.close()
    answer = await operator.get("/tenants/acme")
    text = shown_text(answer)
    assert "lost" not in text
    assert (
        text.index("Needs re-authentication: Pleo ended")
        < text.index("Connected: a person consented, generation 1")
        < text.index("No new tokens: Pleo was not available (503)")
        < text.index("New tokens as an operator asked, generation 2")
    )
    links = [link["href"] or "" for link in Markup(answer.body.decode()).all("a")]
    found = [link for link in links if link.startswith("/audit?")]
    assert len(found) == 2
    for link, event in zip(found, ("grant.connected", "token.refreshed"), strict=True):
        assert event in shown_text(await operator.get(link))
    assert f"?tenant=acme&event={history.REFRESHES[0]}" in found[1]


async def test_a_tenant_without_history_says_so(proxy: Proxy) -> None:
    """An empty list would tell nothing."""
    await proxy.add_tenant("initech")
    text = shown_text(await (await logged_in(proxy)).get("/tenants/initech"))
    assert "Nothing is recorded: neither a consent nor a link." in text
    assert "No refresh is recorded." in text


async def test_the_history_is_bounded(proxy: Proxy) -> None:
    """A tenant that is refreshed all day has a page that can be read; the newest are on it."""
    for number in range(30):
        proxy.app._emit(RefreshFailed("acme", 1, "expiring", Outcome.UNKNOWN, f"e{number}", 1.0, 1.0))
    await proxy.app._audit.close()
    text = shown_text(await (await logged_in(proxy)).get("/tenants/acme"))
    assert [f"(e{number})" in text for number in (29, 22, 21)] == [True, True, False]
