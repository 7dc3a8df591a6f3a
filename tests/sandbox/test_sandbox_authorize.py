"""The authorise endpoint, its consent page and the browser that uses it."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.sandbox import COMPANIES, Sandbox, approve
from tests.sandbox.sandbox_driver import CHALLENGE, REDIRECT_URI, Driver


async def landing(sandbox: Sandbox) -> str:
    """A redirect URI that answers 404: what follows the redirect is not the sandbox's matter."""
    uri = f"{sandbox.control_url}/landing"
    sandbox.add_redirect_uri(uri)
    return uri


async def test_the_page_is_shown(driver: Driver) -> None:
    """A valid request shows a page with the scopes, the companies and both buttons."""
    answer = await driver.send("GET", driver.link())
    page = answer.body.decode()
    assert answer.status == 200
    assert all(text in page for text in ("users:read", "Acme ApS", "Globex GmbH", "Approve", "Deny"))


async def test_the_page_escapes(driver: Driver) -> None:
    """What the page repeats of the request is escaped, and the request itself is not in the page."""
    page = (await driver.send("GET", driver.link(state="<script>"))).body.decode()
    assert "<script>" not in page
    assert "code_challenge" not in page


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"client_id": "somebody"}, id="client"),
        pytest.param({"client_id": None}, id="no-client"),
        pytest.param({"redirect_uri": REDIRECT_URI + "/"}, id="redirect-uri-longer"),
        pytest.param({"redirect_uri": REDIRECT_URI + "?x=1"}, id="redirect-uri-query"),
        pytest.param({"redirect_uri": "https://evil.example/"}, id="redirect-uri-foreign"),
        pytest.param({"redirect_uri": None}, id="no-redirect-uri"),
    ],
)
async def test_untrusted_requests_are_not_redirected(driver: Driver, changes: dict[str, str | None]) -> None:
    """A bad client or redirect URI gets an error page and no redirect."""
    answer = await driver.authorize(changes)
    assert answer.status == 400
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"response_type": "token"}, "unsupported_response_type", id="response-type"),
        pytest.param({"scope": "users:read everything"}, "invalid_scope", id="unknown-scope"),
        pytest.param({"scope": None}, "invalid_scope", id="no-scope"),
        pytest.param({"code_challenge_method": "plain"}, "invalid_request", id="plain"),
        pytest.param({"code_challenge_method": None}, "invalid_request", id="method-absent-means-plain"),
        pytest.param({"code_challenge": None}, "invalid_request", id="no-challenge"),
        pytest.param({"code_challenge": CHALLENGE[:-1]}, "invalid_request", id="short-challenge"),
        pytest.param({"urn_pleo_params_oauth_subject": "acme"}, "invalid_request", id="subject"),
    ],
)
async def test_other_faults_are_redirected(
    driver: Driver, changes: dict[str, str | None], error: str
) -> None:
    """Every other fault goes back to the client with its error and the state."""
    answer = await driver.authorize(changes)
    assert answer.status == 302
    assert answer.headers["Location"].startswith(REDIRECT_URI + "?")
    assert (answer.returned["error"], answer.returned["state"]) == (error, "s&=1 ")


async def test_repeated_parameter(driver: Driver) -> None:
    """A parameter that is given twice is an invalid request."""
    answer = await driver.send("GET", driver.link() + "&state=other")
    assert answer.returned["error"] == "invalid_request"


async def test_misspelt_path(driver: Driver) -> None:
    """The British spelling of the endpoint does not exist."""
    answer = await driver.send("GET", driver.sandbox.auth_url + "/oauth/authorise")
    assert answer.status == 404


async def test_redirect_keeps_a_query(driver: Driver) -> None:
    """A registered redirect URI's own query is kept."""
    driver.sandbox.add_redirect_uri("https://app.example/cb?tenant=1")
    answer = await driver.authorize({"redirect_uri": "https://app.example/cb?tenant=1"})
    assert answer.headers["Location"].startswith("https://app.example/cb?tenant=1&code=")


async def test_denied_by_header(driver: Driver) -> None:
    """The header that skips the page can deny as well."""
    answer = await driver.authorize(decision="deny")
    assert answer.returned["error"] == "access_denied"


async def test_company_by_header(driver: Driver) -> None:
    """The header names the company that consents."""
    headers = {"X-Sandbox-Consent": "approve", "X-Sandbox-Company": "initech"}
    code = (await driver.send("GET", driver.link(), headers=headers)).returned["code"]
    await driver.exchange(code)
    assert driver.sandbox.authority.current(COMPANIES["initech"]) is not None


async def test_browser_approves(sandbox: Sandbox, driver: Driver) -> None:
    """The browser walks from the link over the page back to the client, which gets code and state."""
    visit = await approve(driver.link(redirect_uri=await landing(sandbox)), company="globex")
    assert len(visit.history) == 3
    assert visit.url == visit.history[-1]
    assert visit.url.startswith(f"{sandbox.control_url}/landing?code=")
    assert visit.url.endswith("state=s%26%3D1+")
    assert visit.status == 404


async def test_browser_denies(sandbox: Sandbox, driver: Driver) -> None:
    """Deny sends the error, its description and the state back."""
    visit = await approve(driver.link(redirect_uri=await landing(sandbox)), decision="deny")
    assert "error=access_denied&error_description=" in visit.url
    assert "state=" in visit.url


@pytest.mark.parametrize(
    ("links", "followed"),
    [
        ('<a href="?go=1">on</a> <a href="mailto:a@b.test">ask</a>', True),
        ('<a href="?go=1">on</a> <a href="/other">or there</a>', False),
        ('<a href="http://other.test/">away</a>', False),
        ("nothing", False),
    ],
    ids=["one", "two", "elsewhere", "none"],
)
async def test_browser_reads_on_where_there_is_one_way(links: str, *, followed: bool) -> None:
    """A page before the consent is left by its only link, if that stays on the host."""

    async def show(request: web.Request) -> web.Response:
        text = "there" if request.query else links
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/start", show)
    async with TestServer(app) as server:
        visit = await approve(str(server.make_url("/start")))
    assert visit.text == ("there" if followed else links)
    assert len(visit.history) == 1 + followed


async def test_browser_stops_at_an_error_page(driver: Driver) -> None:
    """Without a consent page the visit ends where it came to."""
    visit = await approve(driver.link(client_id="somebody"))
    assert (visit.status, len(visit.history)) == (400, 1)


@pytest.mark.parametrize("company", ["globex", "Globex GmbH", COMPANIES["globex"]])
async def test_browser_chooses_the_company(sandbox: Sandbox, driver: Driver, company: str) -> None:
    """The company can be named by slug, name or id."""
    uri = await landing(sandbox)
    visit = await approve(driver.link(redirect_uri=uri), company=company)
    await driver.exchange(visit.url.split("code=")[1].split("&")[0], redirect_uri=uri)
    assert sandbox.authority.current(COMPANIES["globex"]) is not None


async def test_browser_refuses_an_unknown_company(driver: Driver) -> None:
    """A company that the page does not offer cannot be chosen."""
    with pytest.raises(ValueError, match="does not offer"):
        await approve(driver.link(), company="umbrella")


async def test_subject_preselects(sandbox: Sandbox, driver: Driver) -> None:
    """The subject URN preselects its company on the page."""
    uri = await landing(sandbox)
    subject = f"urn:pleo:company:{COMPANIES['initech']}"
    visit = await approve(driver.link(redirect_uri=uri, urn_pleo_params_oauth_subject=subject))
    await driver.exchange(visit.url.split("code=")[1].split("&")[0], redirect_uri=uri)
    assert sandbox.authority.current(COMPANIES["initech"]) is not None


async def test_a_consent_is_decided_once(sandbox: Sandbox, driver: Driver) -> None:
    """A consent id is good for one decision."""
    page = (await driver.send("GET", driver.link())).body.decode()
    form = {
        "consent_id": page.split('name="consent_id" value="')[1].split('"')[0],
        "company": COMPANIES["acme"],
        "decision": "approve",
    }
    url = f"{sandbox.auth_url}/oauth/authorize/decision"
    statuses = [(await driver.send("POST", url, data=form)).status for _ in range(2)]
    assert statuses == [303, 400]


async def test_a_consent_grows_too_old(sandbox: Sandbox, driver: Driver) -> None:
    """A decision that comes after ten minutes is refused."""
    page = (await driver.send("GET", driver.link())).body.decode()
    form = {"consent_id": page.split('name="consent_id" value="')[1].split('"')[0], "decision": "approve"}
    sandbox.advance(600)
    answer = await driver.send("POST", f"{sandbox.auth_url}/oauth/authorize/decision", data=form)
    assert answer.status == 400
