"""Logging in to the operator's pages: sessions, roles, forms that count, tries that do not."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.login import path_of_ours
from proxy.errors import StoreUnavailable
from proxy.facts import AdminLockedOut, AdminLoggedIn, AdminLoggedOut, AdminLoginFailed, LinkCreated
from proxy.model import GrantState, Role
from proxy.sandbox import Sandbox
from tests.harness import ADMIN_TOKEN, Proxy, running_proxy
from tests.operator_browser import OWN_PAGE, SESSION, Browser, Markup, ask, logged_in, shown_text

VIEWER_TOKEN = "viewer-token-of-the-tests"
CONNECT = "/tenants/acme/connect"
API_CONNECT = "/api/v1/tenants/acme/connect"
CHANGES = [
    CONNECT,
    API_CONNECT,
    "/logout",
    *(f"/tenants/acme/{action}" for action in ("refresh", "disable", "revoke")),
    *(f"/api/v1/tenants/acme/{action}" for action in ("refresh", "disable")),
    "/api/v1/grants/acme/revoke",
]
"""What changes something. The rest of the routes that do are walked over below."""


@pytest.fixture
async def proxy(pleo: Sandbox, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy with a tenant that nobody has connected yet."""
    async with running_proxy(pleo, tmp_path) as running:
        await running.add_tenant("acme")
        yield running


def fail_with(error: Exception) -> Any:
    async def failing(*_args: object) -> None:
        raise error

    return failing


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- the login


async def test_pages_lead_to_the_login_and_back(proxy: Proxy) -> None:
    """Whoever is not logged in is asked for the token, and gets to the page they wanted."""
    browser = Browser(proxy)
    asked = await browser.get(f"{CONNECT}?a=b%20c")
    assert asked.status == 303
    location = asked.header("Location")
    assert location == f"/login?next={quote(CONNECT + '?a=b%20c', safe='')}"
    form = Markup((await browser.get(location)).body.decode())
    assert [each["action"] for each in form.all("form")] == ["/login"]
    fields = {field["name"]: field for field in form.all("input")}
    assert fields["next"]["value"] == f"{CONNECT}?a=b%20c"
    assert (fields["token"]["type"], fields["token"].get("value")) == ("password", None)
    entered = await browser.log_in(back=f"{CONNECT}?a=b%20c")
    assert (entered.status, entered.header("Location")) == (303, f"{CONNECT}?a=b%20c")
    assert (await browser.get(CONNECT)).status == 200


async def test_what_was_to_be_changed_is_asked_for_on_its_page(proxy: Proxy) -> None:
    """A form of a session that is over leads to the login, and that to the form's page, or to the first."""
    pages = {CONNECT: CONNECT, "/tenants/acme/refresh": "/tenants/acme", "/logout": "/"}
    for path, back in pages.items():
        answer = await Browser(proxy).send("POST", path)
        assert (answer.status, answer.header("Location")) == (303, f"/login?next={quote(back, safe='')}")


async def test_a_login_is_told(proxy: Proxy) -> None:
    """The log has who, with which role, how and from where, and nothing of token or session."""
    browser = await logged_in(proxy)
    [line] = proxy.lines("admin.login")
    found = {name: line[name] for name in ("level", "user", "role", "by", "peer")}
    assert found == {
        "level": "info",
        "user": "operator",
        "role": "operator",
        "by": "token",
        "peer": "127.0.0.1",
    }
    log = proxy.log.getvalue().decode()
    assert ADMIN_TOKEN not in log
    assert browser.cookies[SESSION] not in log


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"token="),
        ("application/x-www-form-urlencoded", b"token=wrong"),
        ("application/x-www-form-urlencoded", f"Token={ADMIN_TOKEN}".encode()),
        ("application/x-www-form-urlencoded", f"token={ADMIN_TOKEN}x".encode()),
        ("application/x-www-form-urlencoded", f"token=wrong&token={ADMIN_TOKEN}".encode()),
        ("application/x-www-form-urlencoded", b"token=\xff"),
        ("application/x-www-form-urlencoded; charset=nothing", b"token=a"),
        ("application/x-www-form-urlencoded; charset=unicode_escape", b"token=\\ud800"),
        ("application/json", b'{"token": "x"}'),
        ("multipart/form-data", b"token"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nbroken"),
        ("text/plain", f"token={ADMIN_TOKEN}".encode()),
    ],
)
async def test_a_form_without_the_token_logs_nobody_in(proxy: Proxy, content_type: str, body: bytes) -> None:
    """Whatever is sent in its place, the page comes again with 403, and that is no defect of the proxy."""
    browser = Browser(proxy)
    answer = await browser.send("POST", "/login", body, {"Content-Type": content_type})
    assert answer.status == 403
    assert "That is not an admin token." in shown_text(answer)
    assert browser.cookies == {}
    assert ADMIN_TOKEN not in answer.body.decode()
    [line] = proxy.lines("admin.login_failed")
    assert (line["level"], line["by"], line["peer"]) == ("warning", "form", "127.0.0.1")
    assert proxy.lines("task.crashed") == []


async def test_spaces_around_a_pasted_token_do_not_matter(proxy: Proxy) -> None:
    """A line end that was copied with it is no reason to fail."""
    assert (await Browser(proxy).log_in(f" {ADMIN_TOKEN}\n")).status == 303


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="another-site"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, id="a-sibling-domain"),
        pytest.param({"Sec-Fetch-Site": "none"}, id="no-page"),
        pytest.param({"Sec-Fetch-Site": "", "Origin": "https://evil.example"}, id="another-origin"),
        pytest.param({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}, id="contradiction"),
        pytest.param({"Origin": "null"}, id="hidden-origin"),
        pytest.param({}, id="nothing-told"),
    ],
)
async def test_no_page_of_another_site_logs_anybody_in(proxy: Proxy, headers: dict[str, str]) -> None:
    """Login CSRF: a right token in a form of another site's page begins no session."""
    answer = await ask(proxy, "POST", "/login", headers=headers, data={"token": ADMIN_TOKEN})
    assert answer.status == 403
    assert answer.header("Set-Cookie") is None
    assert not any(isinstance(fact, AdminLoggedIn) for fact in proxy.facts)


async def test_no_page_means_no_login(proxy: Proxy) -> None:
    """Where the browser says that no page was it, our own origin beside that makes it none of ours."""
    headers = {"Sec-Fetch-Site": "none", "Origin": proxy.admin_url}
    assert (await ask(proxy, "POST", "/login", headers=headers, data={"token": ADMIN_TOKEN})).status == 403


@pytest.mark.parametrize("origin", ["null", "own", None])
async def test_our_own_form_is_known_by_what_browsers_say(proxy: Proxy, origin: str | None) -> None:
    """With ``no-referrer`` browsers hide even our own origin; old ones send no ``Sec-Fetch-Site``."""
    headers = {} if origin is None else {"Origin": origin if origin != "own" else proxy.admin_url}
    if origin != "own":
        headers |= OWN_PAGE
    answer = await ask(proxy, "POST", "/login", headers=headers, data={"token": ADMIN_TOKEN})
    assert answer.status == 303


@pytest.mark.parametrize(
    "path",
    ["/", "/tenants/acme/connect", "/a?b=c&d=/e", "/%2F%2Fevil.example", "/a//b", "/loginx", "/a:b@c"],
)
def test_a_path_of_ours_is_where_the_login_leads(path: str) -> None:
    """What starts with one slash and stays in plain ASCII can only be an address of this listener."""
    assert path_of_ours(path) == path


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "https://evil.example",
        "https:/evil.example",
        "javascript:alert(1)",
        "evil",
        " /",
        "/ä",
        "/a\r\nSet-Cookie: x=y",
        "/a\\b",
        "/" + "a" * 2000,
        "/login",
        "/login?next=/login",
        "/logout",
    ],
)
def test_nothing_else_is(wanted: str) -> None:
    """No open redirect, and no circle."""
    assert path_of_ours(wanted) == "/"


@given(st.text(alphabet="/\\\\.:@?#%25ax \t\r\n\x00ä\u2028", max_size=12) | st.text(max_size=20))
def test_whatever_is_wanted_the_login_stays_at_home(wanted: str) -> None:
    """Read as browsers do, who drop tabs and line ends and take a backslash for a slash, it is our origin."""
    found = path_of_ours(wanted)
    browsers = found.strip().translate({ord("\\"): "/", ord("\t"): None, ord("\r"): None, ord("\n"): None})
    assert found == browsers
    parts = urlsplit(urljoin("https://proxy.example.com/login", browsers))
    assert (parts.scheme, parts.netloc) == ("https", "proxy.example.com")


@pytest.mark.parametrize("way", ["query", "form", "session"])
async def test_the_login_redirects_to_no_other_site(proxy: Proxy, way: str) -> None:
    """Neither by the address of the login page, nor by its form, nor for who is logged in already."""
    evil = "//evil.example/x"
    browser = Browser(proxy) if way != "session" else await logged_in(proxy)
    if way == "form":
        assert (await browser.log_in(back=evil)).header("Location") == "/"
    else:
        answer = await browser.get(f"/login?next={quote(evil)}")
        assert b"evil" not in answer.body
        assert answer.header("Location") == ("/" if way == "session" else None)


async def test_a_link_from_elsewhere_does_not_ask_those_who_are_logged_in(proxy: Proxy) -> None:
    """A Strict cookie does not come along with another site's link, so a page of ours asks once more."""
    browser = await logged_in(proxy)
    kept, browser.cookies = browser.cookies, {}
    from_elsewhere = {"Sec-Fetch-Site": "cross-site"}
    first = await browser.get(CONNECT, headers=from_elsewhere)
    assert first.status == 303
    location = first.header("Location")
    assert location is not None
    between = await browser.get(location, headers=from_elsewhere)
    assert between.status == 200
    [refresh] = [meta for meta in Markup(between.body.decode()).all("meta") if meta.get("http-equiv")]
    content = refresh["content"]
    assert content is not None
    assert re.fullmatch(r"0; url=/login\?next=/tenants/acme/connect", content)
    browser.cookies = kept
    again = await browser.get(content.partition("url=")[2])
    assert (again.status, again.header("Location")) == (303, CONNECT)


# --- sessions


@pytest.mark.parametrize("public_url", ["https://pleo-proxy.example.com", None])
async def test_the_cookie_of_a_session_is_as_narrow_as_can_be(
    pleo: Sandbox, tmp_path: Path, public_url: str | None
) -> None:
    """For this host alone, out of reach of scripts and of other sites; encrypted, save on loopback."""
    listen = {} if public_url is None else {"public_url": public_url}
    async with running_proxy(pleo, tmp_path, listen=listen) as proxy:
        browser = await logged_in(proxy)
        [field] = browser.set_cookies
        value, *attributes = field.split("; ")
        name = SESSION if public_url is None else f"__Host-{SESSION}"
        assert re.fullmatch(rf"{name}=[A-Za-z0-9_-]{{43}}", value)
        secure = set() if public_url is None else {"Secure"}
        assert set(attributes) == {"HttpOnly", "Path=/", "SameSite=Strict", "Max-Age=43200"} | secure
        assert (await browser.get("/")).status == 200


async def test_the_store_has_only_hashes_of_a_session(proxy: Proxy, tmp_path: Path) -> None:
    """Whoever reads the database finds neither the cookie nor the token nor its plain hash."""
    browser = await logged_in(proxy)
    id_ = browser.cookies[SESSION]
    session = await proxy.app.store.sessions.get(hashlib.sha256(id_.encode()).hexdigest())
    assert session is not None
    assert (session.user, session.role) == ("operator", Role.OPERATOR)
    stored = b"".join((tmp_path / name).read_bytes() for name in ("proxy.db", "proxy.db-wal"))
    assert session.id.encode() in stored
    for secret in (id_, ADMIN_TOKEN, hashlib.sha256(ADMIN_TOKEN.encode()).hexdigest()):
        assert secret.encode() not in stored


async def test_a_login_gives_a_new_session_and_ends_the_old(proxy: Proxy) -> None:
    """Session fixation: an id that was planted before is not taken up, and one of before is worth nothing."""
    browser = Browser(proxy)
    planted = "A" * 43
    browser.cookies[SESSION] = planted
    await browser.log_in()
    first = browser.cookies[SESSION]
    assert first != planted
    await browser.log_in()
    assert browser.cookies[SESSION] not in {planted, first}
    for id_ in (planted, first):
        other = Browser(proxy)
        other.cookies[SESSION] = id_
        assert (await other.get("/")).status == 303


@pytest.mark.parametrize("value", ["", "x", "A" * 43, "A" * 44, "é" * 43, "A" * 42 + "\\"])
async def test_a_cookie_that_is_no_session_is_nobody(proxy: Proxy, value: str) -> None:
    """It is not looked for where it cannot be ours, and counts as no try at a token."""
    for _ in range(12):
        headers = {"Cookie": f"{SESSION}={value}"}
        assert (await ask(proxy, "GET", "/", headers=headers)).status == 303
    assert not any(isinstance(fact, AdminLoginFailed) for fact in proxy.facts)


@pytest.mark.parametrize(("pause_s", "status"), [(1799, 200), (1801, 303)])
async def test_an_idle_session_ends(proxy: Proxy, pause_s: float, status: int) -> None:
    """After half an hour without a request the token is asked for again."""
    browser = await logged_in(proxy)
    proxy.pleo.advance(pause_s)
    assert (await browser.get("/")).status == status


async def test_a_session_in_use_ends_after_its_longest_time(proxy: Proxy) -> None:
    """Twelve hours after the login it is over, however busy it was."""
    browser = await logged_in(proxy)
    for _ in range(12 * 3 - 1):
        proxy.pleo.advance(1200)
        assert (await browser.get("/")).status == 200
    proxy.pleo.advance(1201)
    assert (await browser.get("/")).status == 303


async def test_looking_at_pages_writes_once_a_minute(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is loaded again and again costs no write each time."""
    browser = await logged_in(proxy)
    sessions = proxy.app.store.sessions
    touches: list[float] = []
    touch = sessions.touch

    async def counted(id_: str, at: float) -> None:
        touches.append(at)
        await touch(id_, at)

    monkeypatch.setattr(sessions, "touch", counted)
    for _ in range(5):
        await browser.get("/")
    assert touches == []
    proxy.pleo.advance(61)
    for _ in range(5):
        await browser.get("/")
    assert len(touches) == 1


async def test_housekeeping_forgets_sessions_that_are_over(proxy: Proxy) -> None:
    """They do not pile up in the store."""
    browser = await logged_in(proxy)
    key = hashlib.sha256(browser.cookies[SESSION].encode()).hexdigest()
    proxy.pleo.advance(1801)
    await proxy.app.watch.keep_house()
    assert await proxy.app.store.sessions.get(key) is None


async def test_a_session_outlives_a_restart_but_not_its_token(pleo: Sandbox, tmp_path: Path) -> None:
    """A changed admin token ends what was opened with the old one, and nothing else has to be done."""
    async with running_proxy(pleo, tmp_path) as proxy:
        cookies = (await logged_in(proxy)).cookies

    async def status(token: str) -> int:
        async with running_proxy(pleo, tmp_path, admin={"token": token}) as proxy:
            browser = Browser(proxy)
            browser.cookies = dict(cookies)
            return (await browser.get("/")).status

    assert await status(ADMIN_TOKEN) == 200
    assert await status("another-token-of-the-tests") == 303


async def test_without_the_store_nobody_is_logged_in(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages say what is wrong and ask for no token in vain; the session is there again with the store."""
    browser = await logged_in(proxy)
    with monkeypatch.context() as patch:
        patch.setattr(proxy.app.store.sessions, "get", fail_with(StoreUnavailable("disk I/O error")))
        answer = await browser.get("/")
        assert (answer.status, answer.json()["title"]) == (503, StoreUnavailable.title)
        assert b"disk" not in answer.body
    assert (await browser.get("/")).status == 200


async def test_logging_out_ends_the_session_for_good(proxy: Proxy) -> None:
    """The cookie is taken back, and whoever kept it gets nowhere; the log says who left."""
    browser = await logged_in(proxy)
    kept = dict(browser.cookies)
    answer = await browser.submit("/logout")
    assert answer.status == 200
    assert SESSION not in browser.cookies
    browser.cookies = kept
    assert (await browser.get("/")).status == 303
    [fact] = [fact for fact in proxy.facts if isinstance(fact, AdminLoggedOut)]
    assert (fact.user, fact.role, fact.peer) == ("operator", Role.OPERATOR, "127.0.0.1")


async def test_a_program_has_no_session_to_end(proxy: Proxy) -> None:
    """Logging out with a bearer is a mistake, and said to be one."""
    answer = await ask(proxy, "POST", "/logout", headers=bearer(ADMIN_TOKEN))
    assert answer.status == 400


# --- what forms must carry


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("kind", ["none", "empty", "wrong", "anothers", "anothers-header"])
async def test_no_change_without_the_token_of_this_sessions_forms(proxy: Proxy, path: str, kind: str) -> None:
    """CSRF: a session alone changes nothing; another session's token does not fit."""
    await proxy.connect("acme")
    browser, other = await logged_in(proxy), await logged_in(proxy)
    anothers = await other.csrf()
    form = {"none": {}, "empty": {"csrf": ""}, "wrong": {"csrf": "0" * 64}, "anothers": {"csrf": anothers}}
    headers = {"X-CSRF-Token": anothers} if kind == "anothers-header" else {}
    data = {"csrf": await browser.csrf()} if kind == "anothers-header" else form[kind]
    answer = await browser.send("POST", path, data, headers)
    assert answer.status == 403
    assert not any(isinstance(fact, LinkCreated | AdminLoggedOut) for fact in proxy.facts)
    assert (await proxy.app.store.tenants())["acme"].enabled
    grant = await proxy.app.store.grant("acme")
    assert grant is not None
    assert (grant.state, grant.generation) == (GrantState.CONNECTED, 1)
    assert (await browser.get("/")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="another-site"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, id="a-sibling-domain"),
        pytest.param({"Origin": "https://evil.example"}, id="another-origin"),
        pytest.param({"Sec-Fetch-Site": "none"}, id="no-page"),
    ],
)
@pytest.mark.parametrize("path", CHANGES)
async def test_no_change_by_a_page_of_another_site(proxy: Proxy, path: str, headers: dict[str, str]) -> None:
    """Even with the right token of the form the request is refused, if the browser tells of another site."""
    await proxy.connect("acme")
    browser = await logged_in(proxy)
    answer = await browser.send("POST", path, {"csrf": await browser.csrf()}, headers)
    assert answer.status == 403
    assert not any(isinstance(fact, LinkCreated | AdminLoggedOut) for fact in proxy.facts)
    assert (await proxy.app.store.tenants())["acme"].enabled
    grant = await proxy.app.store.grant("acme")
    assert grant is not None
    assert (grant.state, grant.generation) == (GrantState.CONNECTED, 1)


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}],
)
@pytest.mark.parametrize(("method", "path"), [("POST", API_CONNECT), ("GET", "/api/v1/tenants")])
async def test_no_page_of_another_site_uses_the_api(
    proxy: Proxy, method: str, path: str, headers: dict[str, str]
) -> None:
    """A bearer that some page got hold of is refused when a browser sends it, for reading too."""
    answer = await ask(proxy, method, path, headers={**bearer(ADMIN_TOKEN), **headers})
    assert answer.status == 403
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control-")]
    assert b"acme" not in answer.body


@pytest.mark.parametrize("how", ["field", "header"])
async def test_a_session_uses_the_api_with_the_token_of_its_forms(proxy: Proxy, how: str) -> None:
    """Pages may send it as a field or as a header."""
    browser = await logged_in(proxy)
    token = await browser.csrf()
    assert (await browser.get("/api/v1/tenants")).status == 200
    data, headers = ({"csrf": token}, {}) if how == "field" else (None, {"X-CSRF-Token": token})
    assert (await browser.send("POST", API_CONNECT, data, headers)).status == 201


# --- roles


async def viewer_proxy(pleo: Sandbox, folder: Path) -> Any:
    """What :func:`running_proxy` gives, with both tokens."""
    return running_proxy(pleo, folder, admin={"token": ADMIN_TOKEN, "viewer_token": VIEWER_TOKEN})


PUBLIC = {
    "/healthz", "/readyz", "/metrics", "/connect/{token}", "/oauth/callback", "/oauth/result",
    "/login", "/style.css", "/live.js", "/problems", "/problems/{name}", "/api/v1/openapi.json",
}  # fmt: skip
"""Routes for which nobody has to log in. A new line here is a line to review."""


def guarded_routes(proxy: Proxy) -> list[tuple[str, str]]:
    """Method and path of every route of the application that is not public."""
    found = [
        (route.method, route.resource.canonical)
        for route in proxy.app.admin.router.routes()
        if route.resource is not None
    ]
    assert {path for _, path in found} >= PUBLIC
    return [(method, path.format(tenant="acme")) for method, path in found if path not in PUBLIC]


async def test_every_route_is_public_by_decision_or_asks_who_is_there(proxy: Proxy) -> None:
    """Whatever is added later is closed, unless it is added to a list."""
    routes = guarded_routes(proxy)
    assert len(routes) >= 9
    for method, path in routes:
        answer = await ask(proxy, method, path)
        assert answer.status == (401 if path.startswith("/api/") else 303), (method, path)
        wrong = await ask(proxy, method, path, headers={"Cookie": f"{SESSION}={'A' * 43}"})
        assert wrong.status == answer.status, (method, path)


async def test_a_viewer_sees_everything_and_changes_nothing(pleo: Sandbox, tmp_path: Path) -> None:
    """Every GET answers, and every method that changes something is refused: as bearer and with a session."""
    async with await viewer_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme")
        browser = await logged_in(proxy, VIEWER_TOKEN)
        csrf = await browser.csrf()
        for method, path in guarded_routes(proxy):
            if path in {"/logout", "/api/v1/live"}:  # it has no end; tests/test_live.py reads it as a viewer
                continue
            # Explaining changes nothing, so it is refused for what is asked alone: this is no question.
            expected = 200 if method in {"GET", "HEAD"} else 415 if path == "/api/v1/explain" else 403
            data = None if expected == 200 else {"csrf": csrf}
            answer = await ask(proxy, method, path, headers=bearer(VIEWER_TOKEN))
            assert answer.status == expected, (method, path)
            assert (await browser.send(method, path, data)).status == expected, (method, path)
        assert not any(isinstance(fact, LinkCreated) for fact in proxy.facts)
        page = Markup((await browser.get(CONNECT)).body.decode())
        assert [form["action"] for form in page.all("form")] == ["/logout"]
        assert (await browser.submit("/logout")).status == 200


async def test_a_refused_viewer_is_told_why(pleo: Sandbox, tmp_path: Path) -> None:
    """The answer names the role that is missing, and the user, in the form that fits."""
    async with await viewer_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme")
        problem = await ask(proxy, "POST", API_CONNECT, headers=bearer(VIEWER_TOKEN))
        text = "This takes the role operator; viewer is a viewer."
        assert (problem.status, problem.json()["detail"]) == (403, text)
        assert text in shown_text(await (await logged_in(proxy, VIEWER_TOKEN)).submit(CONNECT))


async def test_without_a_viewers_token_there_is_no_viewer(proxy: Proxy) -> None:
    """An empty or absent setting lets nobody in."""
    assert (await ask(proxy, "GET", "/api/v1/tenants", headers=bearer(VIEWER_TOKEN))).status == 401
    assert (await Browser(proxy).log_in(VIEWER_TOKEN)).status == 403


# --- too many wrong tokens


async def test_too_many_wrong_tokens_are_not_looked_at(proxy: Proxy) -> None:
    """After ten within a minute even the right one gets 429, as bearer too; later it works again."""
    browser = Browser(proxy)
    for number in range(10):
        if number % 2:
            assert (await browser.log_in("wrong")).status == 403
        else:
            answer = await ask(proxy, "GET", "/api/v1/tenants", headers=bearer("wrong"))
            assert answer.status == 401
    page = await browser.log_in()
    problem = await ask(proxy, "GET", "/api/v1/tenants", headers=bearer(ADMIN_TOKEN))
    for answer in (page, problem):
        assert answer.status == 429
        assert 1 <= int(answer.header("Retry-After") or 0) <= 61
    assert browser.cookies == {}
    assert problem.header("Content-Type") == "application/problem+json"
    assert sum(isinstance(fact, AdminLoginFailed) for fact in proxy.facts) == 10
    [locked] = [fact for fact in proxy.facts if isinstance(fact, AdminLockedOut)]
    assert (locked.peer, locked.everywhere) == ("127.0.0.1", False)
    proxy.pleo.advance(61)
    assert (await browser.log_in()).status == 303
    assert (await ask(proxy, "GET", "/api/v1/tenants", headers=bearer(ADMIN_TOKEN))).status == 200


async def test_a_lockout_touches_no_session_and_no_other_address(proxy: Proxy) -> None:
    """Who is logged in goes on, and so does a program at another address."""
    browser = await logged_in(proxy)
    for _ in range(10):
        await Browser(proxy).log_in("wrong")
    assert (await Browser(proxy).log_in()).status == 429
    assert (await browser.get("/")).status == 200
    assert (await browser.submit(CONNECT)).status == 200
    host, _, port = proxy.app.admin_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=("127.0.0.2", 0))
    head = f"GET /api/v1/tenants HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_logins_are_counted(proxy: Proxy) -> None:
    """The metric tells right tokens, wrong ones and lockouts apart."""
    await logged_in(proxy)
    for _ in range(11):
        await Browser(proxy).log_in("wrong")
    text = (await ask(proxy, "GET", "/metrics")).body.decode()
    found = dict(re.findall(r'^pleo_proxy_admin_logins_total\{outcome="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert found == {"granted": "1.0", "refused": "10.0", "locked_out": "1.0"}


# --- names


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8081", 200),
        ("localhost", 200),
        ("LOCALHOST:8081", 200),
        ("192.0.2.7", 200),
        ("pleo-proxy.example.com", 200),
        ("Pleo-Proxy.Example.Com.", 200),
        ("monitoring.internal", 200),
        ("evil.example", 421),
        ("pleo-proxy.example.com.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("a b", 400),
        ("user@localhost", 400),
        ("", 400),
    ],
)
async def test_only_our_own_names_are_answered(pleo: Sandbox, tmp_path: Path, host: str, status: int) -> None:
    """DNS rebinding: a page's own name that leads here is refused before anything else is looked at."""
    listen = {"public_url": "https://pleo-proxy.example.com", "hosts": ["monitoring.internal"]}
    async with running_proxy(pleo, tmp_path, listen=listen) as proxy:
        for path in ("/healthz", "/login", "/api/v1/tenants"):
            answer = await ask(proxy, "GET", path, headers={"Host": host, **bearer(ADMIN_TOKEN)})
            assert answer.status == status
