"""What operators see of their tenants: the overview, and the page of each tenant."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import lifecycle
from proxy.admin import overview, words
from proxy.admin.ways import CallersDoor, ways_of
from proxy.admin.words import Tone
from proxy.facts import RequestFinished
from proxy.model import DAY_S, Grant, GrantState, Outcome, Policy, Preset, Sealed, Tenant
from proxy.telemetry.metrics import Metrics
from proxy.tenants import checked
from tests.harness import Proxy
from tests.operator_browser import Browser, Markup, logged_in, shown_text

NOW = 1_000_000.0
WARN_S = 14 * DAY_S
GOOD = Grant(
    "acme",
    GrantState.CONNECTED,
    3,
    company="00000000-0000-4000-8000-000000000001",
    scopes=("users:read",),
    access=Sealed("a"),
    refresh=Sealed("r"),
    issued_at=NOW - 240,
    access_expires_at=NOW + 660,
    refresh_expires_at=NOW + 58 * DAY_S,
    last_refreshed_at=NOW - 240,
    last_outcome=Outcome.GRANTED,
)


# --- words


@pytest.mark.parametrize(
    ("tenant", "grant", "word", "tone"),
    [
        (Tenant("acme"), GOOD, "connected", Tone.GOOD),
        (Tenant("acme"), replace(GOOD, state=GrantState.REFRESHING), "refreshing", Tone.GOOD),
        (Tenant("acme"), None, "not connected", Tone.WARN),
        (
            Tenant("acme"),
            replace(GOOD, state=GrantState.NEEDS_REAUTH),
            "needs re-authentication",
            Tone.BAD,
        ),
        (Tenant("acme"), replace(GOOD, state=GrantState.REVOKED), "revoked", Tone.BAD),
        (Tenant("acme"), replace(GOOD, state=GrantState.UNVERIFIED), "restored, not tried yet", Tone.WARN),
        (Tenant("acme"), replace(GOOD, last_outcome=Outcome.NOT_SENT), "last refresh failed", Tone.WARN),
        (Tenant("acme"), replace(GOOD, refresh_expires_at=NOW + WARN_S), "ends soon", Tone.WARN),
        (Tenant("acme"), replace(GOOD, refresh_expires_at=NOW + WARN_S + 1), "connected", Tone.GOOD),
        (Tenant("acme", enabled=False), replace(GOOD, state=GrantState.REVOKED), "disabled", Tone.OFF),
    ],
)
def test_how_it_stands_is_a_word_and_a_tone(
    tenant: Tenant, grant: Grant | None, word: str, tone: Tone
) -> None:
    """Each state has a word of its own; what needs somebody says what to do."""
    found = words.health(tenant, grant, now=NOW, warn_s=WARN_S)
    assert (found.word, found.tone) == (word, tone)
    assert found.needs_attention == (tone in {Tone.WARN, Tone.BAD})
    assert bool(found.remedy) == (tone is not Tone.GOOD)


@pytest.mark.parametrize("state", GrantState)
@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_every_state_has_a_word(state: GrantState, outcome: Outcome | None) -> None:
    """There is no state and no outcome that the pages cannot speak of."""
    assert words.health(
        Tenant("a"), replace(GOOD, state=state, last_outcome=outcome), now=NOW, warn_s=WARN_S
    ).word


def test_a_token_is_told_by_its_age_and_its_lifetime() -> None:
    """Also one that has expired, and none at all."""
    assert words.token_age(GOOD, NOW) == "4 of 15 minutes"
    assert words.token_age(GOOD, NOW - 239) == "under a minute of 15 minutes"
    assert words.token_age(GOOD, NOW - 180) == "1 minute of 15 minutes"
    assert words.token_age(GOOD, NOW + 660) == "expired under a minute ago, lived 15 minutes"
    assert words.token_age(replace(GOOD, issued_at=None), NOW) == "none"
    assert words.token_age(None, NOW) == "none"


def test_the_days_until_a_new_consent_are_told() -> None:
    """Where there is nothing left, it is now."""
    assert words.until_reauth(GOOD, NOW) == "58 days"
    assert words.until_reauth(GOOD, NOW + 58 * DAY_S) == "now"
    assert words.until_reauth(lifecycle.revoked(GOOD), NOW) == "now"
    assert words.until_reauth(None, NOW) == "now"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 0, "0 %"), (0, 9, "0 %"), (1, 9, "11 %"), (1, 30, "3.3 %"), (1, 100_000, "0.1 %"), (9, 9, "100 %")],
)
def test_a_share_is_never_nothing_of_something(part: float, whole: float, text: str) -> None:
    """One failure of many still shows."""
    assert words.share(part, whole) == text


@pytest.mark.parametrize(
    ("count", "span_s", "text"),
    [(0, 600, "0"), (5, 1, "5.0"), (31, 600, "3.1"), (1, 6000, "under 0.1"), (6000, 60, "6000")],
)
def test_a_rate_is_a_mean_over_a_minute_at_least(count: float, span_s: float, text: str) -> None:
    """The first request after a start is no flood."""
    assert words.per_minute(count, span_s) == text


# --- ways

PLAIN = CallersDoor("127.0.0.1:8080")


def curls(tenant: Tenant, *doors: CallersDoor, host: str = "proxy.internal") -> dict[str, list[str]]:
    return {way.how: shlex.split(way.curl) for way in ways_of(checked(tenant), doors, host=host)}


def test_out_of_the_box_there_are_path_and_header() -> None:
    """Each is a line that a shell takes as it stands."""
    assert curls(Tenant("acme"), PLAIN) == {
        "path": ["curl", "http://127.0.0.1:8080/acme/v2/employees"],
        "header": ["curl", "-H", "X-Pleo-Tenant: acme", "http://127.0.0.1:8080/v2/employees"],
    }


def test_further_routes_have_lines_of_their_own() -> None:
    """Hosts with the listener's port and scheme, networks, and legacy keys, of which none is shown."""
    tenant = Tenant("acme", hosts=("acme.internal",), networks=("10.0.0.0/8",), legacy_keys=("ab" * 32,))
    found = curls(tenant, CallersDoor("10.1.1.1:8443", is_tls=True))
    assert found["host name acme.internal"] == ["curl", "https://acme.internal:8443/v2/employees"]
    assert found["from the network 10.0.0.0/8"] == ["curl", "https://10.1.1.1:8443/v2/employees"]
    assert found["legacy key"] == ["curl", "-u", "LEGACY_KEY:", "https://10.1.1.1:8443/v2/employees"]
    assert "abab" not in str(found)


def test_what_callers_must_prove_is_in_every_line() -> None:
    """A shared key and a certificate, by names in capitals."""
    tenant = Tenant("acme", shared_keys=("ab" * 32,), certificates=("san:dns:erp.internal",))
    for line in curls(tenant, PLAIN).values():
        assert line[1:5] == ["--cert", "CERTIFICATE.pem", "--key", "KEY.pem"]
        assert "X-Pleo-Proxy-Key: SHARED_KEY" in line


def test_a_listener_of_its_own_needs_no_route_and_anothers_is_no_way() -> None:
    """The line through the tenant's listener has neither path nor header."""
    own, others = CallersDoor("127.0.0.1:9001", tenant="acme"), CallersDoor("127.0.0.1:9002", tenant="globex")
    assert list(curls(Tenant("acme"), own, others).values()) == [
        ["curl", "http://127.0.0.1:9001/v2/employees"]
    ]


def test_a_unix_socket_is_reached_by_its_path() -> None:
    """By curl's option for it; a host name would lead elsewhere."""
    tenant = Tenant("acme", hosts=("acme.internal",))
    found = curls(tenant, CallersDoor("unix:/run/pleo proxy/all.sock"))
    assert found["path"] == [
        "curl",
        "--unix-socket",
        "/run/pleo proxy/all.sock",
        "http://localhost/acme/v2/employees",
    ]
    assert set(found) == {"path", "header"}


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        ("0.0.0.0:80", "proxy.internal", "http://proxy.internal:80"),
        ("[::]:80", "::1", "http://[::1]:80"),
        ("[fd00::1]:80", "x", "http://[fd00::1]:80"),
    ],
)
def test_an_address_for_all_addresses_is_told_as_one_that_works(
    address: str, host: str, expected: str
) -> None:
    """The name by which the operator's pages are reached is this machine's too."""
    assert ways_of(Tenant("acme"), [CallersDoor(address)], host=host)[1].base_url == expected


def test_the_example_is_one_that_the_policy_lets_through() -> None:
    """Else whoever copies it is refused at once."""
    tenant = Tenant("acme", policy=Policy(preset=Preset.FULL, deny=("* /v2/**",)))
    assert curls(tenant, PLAIN)["path"] == ["curl", "http://127.0.0.1:8080/acme/v1/companies"]


@given(st.text(min_size=1))
def test_whatever_a_socket_is_called_a_shell_takes_it_as_one_word(path: str) -> None:
    """Nothing in a line to copy is run by the shell."""
    [way, _] = ways_of(Tenant("acme"), [CallersDoor(f"unix:/{path}")], host="x")
    assert shlex.split(way.curl)[2] == f"/{path}"


async def test_a_line_to_copy_works(proxy: Proxy) -> None:
    """What the page shows reaches the tenant."""
    operator = await logged_in(proxy)
    text = shown_text(await operator.get("/tenants/acme"))
    url = f"{proxy.base_url}/acme/v2/employees"
    assert f"curl {url}" in text
    async with proxy.session.get(url) as answer:
        assert answer.status == 200


# --- the overview


def rows(markup: Markup) -> list[str]:
    """Names of the tenants on a page of the overview."""
    links = [link["href"] or "" for link in markup.all("a")]
    return [link.removeprefix("/tenants/") for link in links if link.startswith("/tenants/")]


async def overview_of(operator: Browser, query: str = "") -> list[str]:
    answer = await operator.get(f"/{query}")
    assert answer.status == 200
    return rows(Markup(answer.body.decode()))


async def test_the_overview_tells_how_it_stands_with_each_tenant(proxy: Proxy) -> None:
    """State in a word, last refresh, token, days left, requests, and the share of those that failed."""
    operator = await logged_in(proxy)
    for path, status in (("/acme/v2/employees", 200), ("/acme/v2/employees/../x", 400)):
        assert (await proxy.get(path)).status == status
    await proxy.get("/acme/v2/employees")
    await proxy.app.store.edit_grant("globex", lifecycle.revoked)
    text = shown_text(await operator.get("/"))
    assert "1 connected" in text
    assert "1 revoked" in text
    at = text.index("globex revoked")
    assert at < text.index("acme connected")
    assert "acme connected under a minute ago under a minute of 15 minutes 5" in text
    assert text.index("acme connected") < text.index(" days ")


async def test_failed_requests_are_counted_by_tenant(proxy: Proxy) -> None:
    """Refusals of the proxy count, answers of Pleo do not, and neither does another tenant's trouble."""
    await proxy.add_tenant("initech")
    for path in ("/acme/v2/employees", "/acme/v2/nothing-there", "/initech/v2/employees"):
        await proxy.get(path)
    counted = proxy.metrics.traffic().by_tenant
    assert (counted["acme"].requests, counted["acme"].failed) == (2, 0)
    assert (counted["initech"].requests, counted["initech"].failed) == (1, 1)
    text = shown_text(await (await logged_in(proxy)).get("/tenants/initech"))
    assert "1 failed (100 %): 1 needs-reauth." in text
    assert "0 failed (0 %)." in shown_text(await (await logged_in(proxy)).get("/tenants/acme"))


def test_failures_are_counted_by_their_outcome() -> None:
    """The most frequent first; what the caller or Pleo brought about is none."""
    metrics = Metrics()
    for outcome in ("rate-limited", "needs-reauth", "answered", "needs-reauth", "caller_left"):
        metrics(RequestFinished("id", "acme", outcome=outcome, status=503))
    traffic = metrics.traffic().by_tenant["acme"]
    assert (traffic.requests, traffic.failed) == (5, 3)
    assert list(traffic.failures.items()) == [("needs-reauth", 2), ("rate-limited", 1)]


async def test_a_reason_that_has_a_page_leads_there(proxy: Proxy) -> None:
    """A kind of refusal is explained; what is none has no page."""
    await proxy.add_tenant("initech")
    await proxy.get("/initech/v2/employees")
    proxy.metrics(RequestFinished("id", "initech", outcome="upstream_broke_off", status=200))
    text = (await (await logged_in(proxy)).get("/tenants/initech")).body.decode()
    assert '<a href="/problems/needs-reauth">needs-reauth</a>' in text
    assert "/problems/upstream_broke_off" not in text
    assert "upstream_broke_off" in text


def test_counting_began_once_whatever_process_goes_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A process that takes another's place goes on with its numbers, and with their beginning."""
    path = tmp_path_factory.mktemp("counted") / "0"
    first = Metrics(path)
    first.begin(100.0)
    first.close()
    second = Metrics(path)
    second.begin(200.0)
    assert second.traffic().since == 100.0
    assert b"\nsince" not in second.render()
    second.close()


async def test_tenants_are_filtered_by_name_company_and_state(proxy: Proxy) -> None:
    """The form's fields narrow the list; what was asked for stays in the form."""
    await proxy.add_tenant("initech", company="11111111-1111-4111-8111-111111111111")
    operator = await logged_in(proxy)
    assert await overview_of(operator) == ["initech", "acme", "globex"]
    assert await overview_of(operator, "?q=lob") == ["globex"]
    assert await overview_of(operator, "?q=ACME") == ["acme"]
    assert await overview_of(operator, "?q=11111111-1111") == ["initech"]
    assert await overview_of(operator, "?state=connected") == ["acme", "globex"]
    assert await overview_of(operator, "?state=attention") == ["initech"]
    assert await overview_of(operator, "?q=acme&state=attention") == []
    strange = await operator.get("/?q=%22%3E%3Cscript%3E&state=%22%3E%3Cscript%3E&page=%22%3E")
    assert b"<script" not in strange.body
    assert "Show all" in shown_text(strange)


def many(count: int) -> Mapping[str, Tenant]:
    return {name: Tenant(name) for name in (f"tenant-{number:04}" for number in range(count))}


async def test_a_thousand_tenants_come_a_page_at_a_time_and_quickly(proxy: Proxy) -> None:
    """A hundred on each page, none twice, and each page within 200 ms."""
    await proxy.app.store.edit_tenants(lambda _: many(1000))
    operator = await logged_in(proxy)
    seen: list[str] = []
    took_s = []
    for number in range(1, 11):
        began = perf_counter()
        seen += await overview_of(operator, f"?page={number}")
        took_s.append(perf_counter() - began)
    assert seen == sorted(many(1000))
    assert overview.PAGE_ROWS == 100
    assert sorted(took_s)[5] < 0.2


@pytest.mark.parametrize("number", ["0", "-1", "3", "99999999999999", "x", "%C2%B2", ""])
async def test_a_page_that_is_not_there_is_the_nearest(proxy: Proxy, number: str) -> None:
    """No number leads to an error, and the links to other pages keep the filter."""
    await proxy.app.store.edit_tenants(lambda _: many(150))
    operator = await logged_in(proxy)
    found = await operator.get(f"/?q=tenant&page={number}")
    assert found.status == 200
    markup = Markup(found.body.decode())
    assert len(rows(markup)) == (50 if number == "3" else 100)
    [link] = [each["href"] for each in markup.all("a") if each.get("rel") in {"next", "prev"}]
    assert link == ("/?q=tenant&page=1" if number == "3" else "/?q=tenant&page=2")


async def test_without_tenants_the_overview_says_how_to_begin(proxy: Proxy) -> None:
    """An empty table would tell nothing."""
    await proxy.app.store.edit_tenants(lambda _: {})
    assert "pleo-proxy tenants add NAME" in shown_text(await (await logged_in(proxy)).get("/"))


# --- the page of a tenant


async def test_the_page_of_a_tenant_tells_its_grant_and_policies(proxy: Proxy) -> None:
    """The policy in force, and beside it what differs on trial."""
    await proxy.add_tenant(
        "acme", policy=Policy(deny=("GET /v1/users",)), trial=Policy(preset=Preset.READ_ONLY)
    )
    text = shown_text(await (await logged_in(proxy)).get("/tenants/acme"))
    assert "acme connected" in text
    assert "preset full read-only" in text
    assert "deny GET /v1/users none" in text
    assert "pin company yes the same" in text
    assert "users:read" in text
    assert "Generation 1" in text


async def test_last_refusals_are_told_with_their_reasons(proxy: Proxy) -> None:
    """As the audit trail has them: alike ones of a minute once, with a count and a request's id."""
    for _ in range(3):
        assert (await proxy.call("DELETE", "/acme/v1/installations/me")).status == 403
    await proxy.app._audit.close()
    text = shown_text(await (await logged_in(proxy)).get("/tenants/acme"))
    [id_, *_] = [line["request_id"] for line in proxy.lines("request.finished") if line["status"] == 403]
    assert f"policy-refused to 127.0.0.1, 3 times within a minute; first request {id_}" in text
    assert "No rule refused anything" in shown_text(await (await logged_in(proxy)).get("/tenants/globex"))


async def test_there_is_no_page_of_a_tenant_that_is_not_there(proxy: Proxy) -> None:
    """Whatever stands in the address is only text."""
    operator = await logged_in(proxy)
    for name in ("nobody", "%3Cscript%3E%FF%00", "acme%2Fconnect"):
        answer = await operator.get(f"/tenants/{name}")
        assert answer.status == 404
        assert b"<script" not in answer.body


async def test_no_page_shows_a_secret(proxy: Proxy) -> None:
    """Neither tokens nor whole hashes of keys."""
    await proxy.add_tenant("acme", legacy_keys=("ab" * 32,), shared_keys=("cd" * 32,))
    operator = await logged_in(proxy)
    grant = await proxy.app.store.grant("acme")
    assert grant is not None
    for path in ("/", "/tenants/acme"):
        body = (await operator.get(path)).body.decode()
        for secret in (grant.access, grant.refresh, "ab" * 32, "cd" * 32):
            assert secret is not None
            assert secret not in body
