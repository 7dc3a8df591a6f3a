"""The operator's listener over real sockets: health, metrics, JSON API, pages, and what protects them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from proxy import __version__, admin
from proxy.admin.remedies import FOR_OPERATORS
from proxy.authorize import LINK_LIFETIME_S
from proxy.cli import cli
from proxy.config import Settings
from proxy.config.mistakes import keys_of
from proxy.errors import REFUSALS, Refusal, StoreUnavailable
from proxy.facts import AdminLoggedIn, LinkCreated, StoreFailed, StoreRecovered
from proxy.model import GrantState, Outcome, Policy, Preset
from proxy.sandbox import COMPANIES, DEFAULT_CLIENT, Sandbox
from tests.harness import ADMIN_TOKEN, Answer, Proxy, running_proxy, until
from tests.operator_browser import OWN_PAGE, Markup, ask, logged_in, shown_text
from tests.test_house_rules import all_commands, options_of

BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
API = [
    ("GET", "/api/v1/tenants"),
    ("GET", "/api/v1/grants"),
    ("POST", "/api/v1/tenants/acme/connect"),
    ("POST", "/api/v1/explain"),
]
PAGES = ["/login", "/style.css", "/problems/needs-reauth", "/problems", "/oauth/result", "/live.js"]
"""Those for which nobody has to log in."""
OPERATORS_PAGES = [
    "/",
    "/tenants/acme",
    "/tenants/acme/connect",
    "/tenants/acme/revoke",
    "/audit",
    "/settings",
    "/live",
]
MARKUP = [path for path in PAGES if "." not in path]
PROTECTION = {
    "Server": "pleo-proxy",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

SCRIPTED = {
    "/live": PROTECTION["Content-Security-Policy"] + "; script-src 'self'; connect-src 'self'",
}
"""Pages with a script of ours, and what they allow instead."""
STREAMS = {"/api/v1/live"}
"""Routes whose answers have no end; see ``tests/test_live.py``."""


async def get(proxy: Proxy, path: str, **options: Any) -> Answer:
    return await ask(proxy, "GET", path, **options)


async def send(proxy: Proxy, data: bytes) -> bytes:
    """Bytes on a new connection to the operator's listener, and all that comes back until it is closed."""
    host, _, port = proxy.app.admin_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def metrics(proxy: Proxy) -> dict[tuple[str, str], float]:
    """Samples by name and labels, the labels as ``key=value`` in the order of their keys."""
    answer = await get(proxy, "/metrics")
    assert answer.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (
            sample.name,
            ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def fail_with(error: Exception) -> Any:
    async def failing(*_args: object) -> None:
        raise error

    return failing


# --- health


async def test_a_running_process_is_healthy(proxy: Proxy) -> None:
    """/healthz answers for a supervisor, to GET and to HEAD."""
    answer = await get(proxy, "/healthz")
    assert (answer.status, answer.json()) == (200, {"status": "ok"})
    assert (await ask(proxy, "HEAD", "/healthz")).status == 200


async def test_a_proxy_is_ready_before_its_first_tenant(pleo: Sandbox, tmp_path: Path) -> None:
    """A new installation passes its load balancer's check, so that it can be connected at all."""
    async with running_proxy(pleo, tmp_path) as proxy:
        answer = await get(proxy, "/readyz")
        assert (answer.status, answer.json()) == (200, {"status": "ready"})


async def test_readiness_follows_the_store(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store does not work /readyz is 503 and /healthz is not, and both heal by themselves."""
    with monkeypatch.context() as patch:
        patch.setattr(proxy.app.store, "ping", fail_with(StoreUnavailable("not shown")))
        await proxy.next_fact(StoreFailed)
        answer = await get(proxy, "/readyz")
        assert (answer.status, answer.json()) == (503, {"status": "not ready", "reason": "store unavailable"})
        assert (await get(proxy, "/healthz")).status == 200
    await until(lambda: any(isinstance(fact, StoreRecovered) for fact in proxy.facts))
    assert (await get(proxy, "/readyz")).status == 200


async def test_a_draining_proxy_is_not_ready(proxy: Proxy) -> None:
    """A load balancer learns of a stop before the listener closes."""
    proxy.app.exchange.draining = True
    answer = await get(proxy, "/readyz")
    assert (answer.status, answer.json()) == (503, {"status": "not ready", "reason": "draining"})


# --- metrics


async def test_metrics_count_requests_by_tenant_and_outcome(proxy: Proxy) -> None:
    """Answers and refusals are told apart, and so are tenants."""
    for path in ("/acme/v2/employees", "/acme/v1/companies", "/globex/v2/employees"):
        assert (await proxy.get(path)).status == 200
    await proxy.add_tenant("initech", policy=Policy(Preset.READ_ONLY))
    assert (await proxy.call("POST", "/initech/v1/vendors")).status == 403
    assert (await proxy.get("/initech/v2/employees")).status == 503
    found = await metrics(proxy)
    assert {key: value for key, value in found.items() if key[0] == "pleo_proxy_requests_total"} == {
        ("pleo_proxy_requests_total", "outcome=answered,status_class=2xx,tenant=acme"): 2,
        ("pleo_proxy_requests_total", "outcome=answered,status_class=2xx,tenant=globex"): 1,
        ("pleo_proxy_requests_total", "outcome=policy-refused,status_class=4xx,tenant=initech"): 1,
        ("pleo_proxy_requests_total", "outcome=needs-reauth,status_class=5xx,tenant=initech"): 1,
    }
    assert found["pleo_proxy_request_duration_seconds_count", "tenant=acme"] == 2
    assert found["pleo_proxy_upstream_duration_seconds_count", ""] == 3
    assert found["pleo_proxy_build_info", f"version={__version__}"] == 1


async def test_callers_cannot_invent_metric_labels(proxy: Proxy) -> None:
    """Requests for tenants that do not exist share one empty label."""
    for name in ("nobody", "noone", "%7Bx%3D%221%22%7D"):
        assert (await proxy.get(f"/{name}/v2/employees")).status == 404
    assert (await proxy.get("/v2/employees", headers={"X-Pleo-Tenant": "nobody"})).status == 404
    found = await metrics(proxy)
    assert found["pleo_proxy_requests_total", "outcome=tenant-unknown,status_class=4xx,tenant="] == 4
    tenants = {key[1] for key in found if key[0] == "pleo_proxy_request_duration_seconds_count"}
    assert tenants == {"tenant="}


async def test_metrics_count_refreshes_by_outcome(proxy: Proxy) -> None:
    """Every outcome has its series from the start; a refresh counts once, under what came of it."""

    def refreshes(found: Mapping[tuple[str, str], float]) -> dict[str, float]:
        name = "pleo_proxy_refreshes_total"
        counted = {outcome.value: 0.0 for outcome in Outcome}
        for key, value in found.items():
            if key[0] == name:
                counted[key[1].split(",")[0].removeprefix("outcome=")] += value
        return counted

    assert refreshes(await metrics(proxy)) == {outcome.value: 0 for outcome in Outcome}
    proxy.pleo.revoke_access("acme")
    assert (await proxy.get("/acme/v2/employees")).status == 200
    proxy.pleo.revoke("globex")
    await proxy.get("/globex/v2/employees")
    found = await metrics(proxy)
    counted = {outcome.value: 0 for outcome in Outcome} | {"granted": 1, "refused": 1}
    assert refreshes(found) == counted
    assert found["pleo_proxy_refreshes_total", "outcome=granted,reason=rejected"] == 1
    assert found["pleo_proxy_requests_retried_total", ""] == 1


async def test_metrics_show_grants_by_state_and_what_is_under_way(proxy: Proxy) -> None:
    """Gauges are read at the scrape and have a series for each state."""
    async with proxy.pleo.hold_api("/v2/employees") as gate:
        waiting = asyncio.create_task(proxy.get("/acme/v2/employees"))
        await gate.arrived()
        found = await metrics(proxy)
    assert (await waiting).status == 200
    grants = {key[1]: value for key, value in found.items() if key[0] == "pleo_proxy_grants"}
    assert grants == {f"state={state}": 2 * (state == GrantState.CONNECTED) for state in GrantState}
    assert found["pleo_proxy_under_way", "kind=requests"] == 1
    assert found["pleo_proxy_under_way", "kind=refreshes"] == 0


# --- the JSON API


@pytest.mark.parametrize(("method", "path"), API)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {ADMIN_TOKEN}x",
        f"Bearer {ADMIN_TOKEN[:-1]}",
        f"Basic {ADMIN_TOKEN}",
        ADMIN_TOKEN,
        "Bearer \xff",
    ],
)
async def test_the_api_takes_nothing_but_the_admin_token(
    proxy: Proxy, method: str, path: str, authorization: str | None
) -> None:
    """Without it every address of the API answers 401 with a challenge, and does nothing."""
    field = "" if authorization is None else f"Authorization: {authorization}\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{field}\r\n"
    answer = await send(proxy, head.encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'\r\nWWW-Authenticate: Bearer realm="pleo-proxy admin"\r\n' in answer
    assert b"\r\nContent-Type: application/problem+json\r\n" in answer
    assert b"acme" not in answer
    assert not any(isinstance(fact, LinkCreated) for fact in proxy.facts)
    assert proxy.lines("task.crashed") == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_of_the_token_is_compared_without_regard_to_case(proxy: Proxy, scheme: str) -> None:
    """RFC 9110 section 11.1: a scheme's name has no case."""
    answer = await get(proxy, "/api/v1/tenants", headers={"Authorization": f"{scheme} {ADMIN_TOKEN}"})
    assert answer.status == 200


async def test_tenants_are_listed_with_the_documented_fields(proxy: Proxy) -> None:
    """One object for each tenant, by name, with its routes in words and no key."""
    await proxy.add_tenant(
        "initech",
        enabled=False,
        policy=Policy(Preset.EXPORTS),
        hosts=("initech.internal",),
        networks=("10.7.0.0/16",),
        legacy_keys=("0123456789abcdef" * 4,),
    )
    answer = await get(proxy, "/api/v1/tenants", headers=BEARER)
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json")
    rows = answer.json()
    assert [row["name"] for row in rows] == ["acme", "globex", "initech"]
    assert rows[0] == {
        "name": "acme",
        "company": COMPANIES["acme"],
        "enabled": True,
        "state": "connected",
        "routes": ["path: /acme", "header: X-Pleo-Tenant: acme"],
        "preset": "full",
    }
    assert rows[2] == {
        "name": "initech",
        "company": None,
        "enabled": False,
        "state": "none",
        "routes": [
            "path: /initech",
            "header: X-Pleo-Tenant: initech",
            "host: initech.internal",
            "network: 10.7.0.0/16",
            "legacy-key: sha256 0123456789ab",
        ],
        "preset": "exports",
    }


async def test_grants_are_listed_with_the_documented_fields(proxy: Proxy) -> None:
    """One object for each tenant, also for those without a grant; instants are ISO 8601 in UTC."""
    await proxy.add_tenant("initech")
    rows = (await get(proxy, "/api/v1/grants", headers=BEARER)).json()
    grant = await proxy.app.store.grant("acme")
    assert grant is not None

    def instant(at: float | None) -> str:
        assert at is not None
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")

    assert rows[0] == {
        "tenant": "acme",
        "state": "connected",
        "generation": 1,
        "company": COMPANIES["acme"],
        "scopes": list(DEFAULT_CLIENT.scopes),
        "access_expires_at": instant(grant.access_expires_at),
        "refresh_expires_at": instant(grant.refresh_expires_at),
        "last_refreshed_at": instant(grant.last_refreshed_at),
        "last_outcome": "granted",
    }
    assert rows[2] == {
        "tenant": "initech",
        "state": "none",
        "generation": 0,
        "company": None,
        "scopes": [],
        "access_expires_at": None,
        "refresh_expires_at": None,
        "last_refreshed_at": None,
        "last_outcome": None,
    }


async def test_no_listing_holds_a_secret(proxy: Proxy) -> None:
    """Neither a token nor its sealed form leaves through the API."""
    secrets = set(proxy.pleo.authority.secrets_issued())
    for grant in (await proxy.app.store.grants()).values():
        secrets |= {str(grant.access), str(grant.refresh)}
    for path in ("/api/v1/tenants", "/api/v1/grants", "/metrics"):
        text = (await get(proxy, path, headers=BEARER)).body.decode()
        assert not [secret for secret in secrets if secret in text]


async def test_a_connect_link_is_made_for_a_tenant(proxy: Proxy) -> None:
    """POST answers 201 with a link that works, and the log tells of it without the link."""
    answer = await ask(proxy, "POST", "/api/v1/tenants/acme/connect", headers=BEARER)
    assert answer.status == 201
    made = answer.json()
    assert made.keys() == {"tenant", "url", "expires_at"}
    assert made["tenant"] == "acme"
    lifetime = datetime.fromisoformat(made["expires_at"]).timestamp() - proxy.pleo.now()
    assert LINK_LIFETIME_S - 60 < lifetime <= LINK_LIFETIME_S
    assert (await get(proxy, URL(made["url"]).path)).status == 200
    assert [line["tenant"] for line in proxy.lines("connect.link_created")] == ["acme"]
    assert made["url"].rpartition("/")[2] not in proxy.log.getvalue().decode()


async def test_no_link_is_made_for_an_unknown_tenant(proxy: Proxy) -> None:
    """404 with a problem document that names the tenant asked for."""
    answer = await ask(proxy, "POST", "/api/v1/tenants/nobody/connect", headers=BEARER)
    assert (answer.status, answer.header("Content-Type")) == (404, "application/problem+json")
    assert answer.json()["detail"] == "There is no tenant 'nobody'."


async def test_the_api_says_when_the_store_is_not_available(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with the fixed text; what the database said stays out of it."""
    monkeypatch.setattr(proxy.app.store, "tenants", fail_with(StoreUnavailable("disk I/O error")))
    answer = await get(proxy, "/api/v1/tenants", headers=BEARER)
    assert answer.status == 503
    assert answer.json() == {"type": "about:blank", "title": StoreUnavailable.title, "status": 503}


# --- pages


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
async def test_each_problem_type_has_a_page(proxy: Proxy, refusal: type[Refusal]) -> None:
    """The address in a problem document's ``type`` says what it means and what to do."""
    answer = await get(proxy, f"/problems/{refusal.name}")
    assert (answer.status, answer.header("Content-Type")) == (200, "text/html; charset=utf-8")
    text = shown_text(answer)
    assert "`" not in text
    told = FOR_OPERATORS[refusal.name]
    for part in (refusal.name, str(refusal.status), refusal.title, refusal.action, refusal.__doc__, told):
        assert part is not None
        assert part.replace("`", "") in text


async def test_all_problem_types_are_listed(proxy: Proxy) -> None:
    """For everyone, each with its status and sentence, and a link that works; and none is without remedy."""
    answer = await get(proxy, "/problems")
    links = [link["href"] or "" for link in Markup(answer.body.decode()).all("a")]
    found = [link.removeprefix("/problems/") for link in links]
    assert sorted(found) == sorted(refusal.name for refusal in REFUSALS) == sorted(FOR_OPERATORS)
    text = shown_text(answer)
    for refusal in REFUSALS:
        assert f"{refusal.status} {refusal.name}{refusal.title}" in text
    assert "/problems" in [
        link["href"] for link in Markup((await get(proxy, "/problems/overloaded")).body.decode()).all("a")
    ]


def test_what_operators_are_told_to_use_is_there() -> None:
    """Commands and settings that the pages name exist."""
    commands = {words for words, _ in all_commands(cli)}
    options = {option for _, command in all_commands(cli) for option in options_of(command)}
    for text in FOR_OPERATORS.values():
        assert set(re.findall(r"--[a-z-]+", text)) <= options
        for code in re.findall(r"`([^`]+)`", text):
            if code.startswith("pleo-proxy "):
                assert any(code.startswith(words) for words in commands - {"pleo-proxy"}), code
            elif re.fullmatch(r"[a-z]+\.[a-z_]+", code) and code not in {"store.failed", "request.crashed"}:
                assert code in keys_of(Settings), code


@pytest.mark.parametrize("name", ["nothing", "about:blank", "..%2Foverview", "<script>", "Needs-Reauth", ""])
async def test_an_unknown_problem_type_has_none(proxy: Proxy, name: str) -> None:
    """404, and nothing of the address is repeated."""
    answer = await get(proxy, f"/problems/{name}")
    assert (answer.status, answer.json()) == (
        404,
        {"type": "about:blank", "title": "Not Found", "status": 404},
    )


async def test_the_problem_type_that_a_caller_gets_leads_to_its_page(proxy: Proxy) -> None:
    """``type`` in an answer of the proxy is an address that works."""
    problem = (await proxy.get("/nobody/v2/employees")).json()
    assert problem["type"].startswith(proxy.admin_url)
    page = await get(proxy, URL(problem["type"]).path)
    assert problem["title"] in page.body.decode()


async def test_the_overview_leads_on(proxy: Proxy) -> None:
    """It says who is logged in; each address on it works."""
    operator = await logged_in(proxy)
    answer = await operator.get("/")
    assert answer.status == 200
    assert "operator" in shown_text(answer)
    for link in Markup(answer.body.decode()).all("a"):
        assert link["href"] is not None
        assert (await operator.get(link["href"])).status == 200


async def test_an_operator_makes_a_link_that_works(proxy: Proxy) -> None:
    """The page shows the link once, and following it connects the tenant again."""
    operator = await logged_in(proxy)
    page = "/tenants/acme/connect"
    answer = await operator.submit(page, page)
    assert answer.status == 200
    [link] = [each for each in Markup(answer.body.decode()).all("a") if each.get("class") == "link"]
    url = link["href"]
    assert url is not None
    assert unescape(answer.body.decode()).count(url) == 2
    assert (await get(proxy, URL(url).path)).status == 200
    [line] = proxy.lines("connect.link_created")
    assert (line["tenant"], line["user"]) == ("acme", "operator")


async def test_no_page_makes_a_link_for_an_unknown_tenant(proxy: Proxy) -> None:
    """The page says that there is no such tenant, to whoever is logged in."""
    operator = await logged_in(proxy)
    answer = await operator.submit("/tenants/nobody/connect")
    assert answer.status == 404
    assert "There is no tenant of this name." in answer.body.decode()


async def test_a_name_in_an_address_is_only_text(proxy: Proxy) -> None:
    """Whatever stands where a tenant's name should stand does not become part of the page."""
    operator = await logged_in(proxy)
    strange = await operator.get("/tenants/%3Cscript%3Ealert(1)%3C%2Fscript%3E%FF%00/connect")
    assert strange.status == 200
    assert b"<script" not in strange.body.lower()


async def test_an_oversize_form_is_refused(proxy: Proxy) -> None:
    """A body over 64 KiB is not read to its end, token or not."""
    form = {"filler": "x" * 65536, "token": ADMIN_TOKEN}
    answer = await ask(proxy, "POST", "/login", headers=OWN_PAGE, data=form)
    assert (answer.status, answer.json()["status"]) == (413, 413)
    assert not any(isinstance(fact, AdminLoggedIn) for fact in proxy.facts)


# --- what protects them


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 400 if path == "/oauth/result" else 200) for path in PAGES),
        ("GET", "/", 303),
        ("GET", "/tenants/acme/connect", 303),
        ("POST", "/login", 403),
        ("POST", "/logout", 303),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/api/v1/tenants", 401),
        ("GET", "/connect/unknown", 404),
        ("GET", "/oauth/callback", 303),
        ("GET", "/nothing", 404),
        ("GET", "//healthz", 404),
        ("POST", "/healthz", 405),
        ("DELETE", "/", 405),
        ("HEAD", "/connect/unknown", 405),
        ("OPTIONS", "/tenants/acme/connect", 405),
        ("POST", "/tenants/acme/connect", 303),
    ],
)
async def test_every_answer_is_protected(proxy: Proxy, method: str, path: str, status: int) -> None:
    """No script, frame, sniffing, referrer or cache, whatever the answer is."""
    answer = await ask(proxy, method, path)
    assert answer.status == status
    for name, value in PROTECTION.items():
        assert [v for n, v in answer.headers if n.lower() == name.lower()] == [value]


def example_of(path: str) -> str:
    """An address of a route."""
    return path.format(tenant="acme", name="needs-reauth", token="t" * 43)


async def test_every_route_is_protected(proxy: Proxy) -> None:
    """Whatever routes there are: to strangers, to operators and to programs, with right and wrong methods."""
    operator = await logged_in(proxy)
    paths = {example_of(r.resource.canonical) for r in proxy.app.admin.router.routes() if r.resource}
    assert len(paths) >= 14
    assert paths >= SCRIPTED.keys() | STREAMS
    for path in sorted(paths - {"/logout"} - STREAMS):
        for method in ("GET", "POST", "DELETE"):
            answers = [
                await ask(proxy, method, path),
                await operator.send(method, path),
                await ask(proxy, method, path, headers=BEARER),
                await ask(proxy, method, path, headers={"Origin": "https://evil.example"}),
                await ask(proxy, method, path, headers={"Host": "evil.example"}),
            ]
            for answer in answers:
                expected = dict(PROTECTION)
                if answer.status == 200 and path in SCRIPTED:
                    expected["Content-Security-Policy"] = SCRIPTED[path]
                for name, value in expected.items():
                    assert [v for n, v in answer.headers if n.lower() == name.lower()] == [value], path
                assert not [n for n, _ in answer.headers if n.lower().startswith("access-control")], path


async def test_an_answer_that_no_handler_gave_is_protected_too(proxy: Proxy) -> None:
    """An expectation that aiohttp itself refuses carries the same headers."""
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: wonders\r\nConnection: close\r\n\r\n"
    answer = await send(proxy, head)
    assert answer.startswith(b"HTTP/1.1 417 ")
    for name, value in PROTECTION.items():
        assert f"\r\n{name}: {value}\r\n".encode() in answer


async def test_a_refused_method_names_the_allowed_ones(proxy: Proxy) -> None:
    """405 comes with ``Allow`` (RFC 9110 section 15.5.6)."""
    assert (await ask(proxy, "DELETE", "/tenants/acme/connect")).header("Allow") == "GET,HEAD,POST"


@pytest.mark.parametrize("path", [*MARKUP, *OPERATORS_PAGES, "/connect/unknown"])
async def test_a_page_has_no_script_no_inline_style_and_nothing_from_elsewhere(
    proxy: Proxy, path: str
) -> None:
    """What the policy forbids is not tried, so that no page relies on a browser's leniency."""
    operator = await logged_in(proxy)
    answer = await (operator.get(path) if path in OPERATORS_PAGES else get(proxy, path))
    tags = Markup(answer.body.decode()).tags
    assert tags
    forbidden = {"style", "iframe", "object", "embed", "base", *(() if path in SCRIPTED else ("script",))}
    assert not forbidden & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert tag != "script" or attributes == {"src": f"{path}.js", "defer": None}
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action"):
            assert re.match(r"/(?!/)|#main$|$", attributes.get(name) or ""), attributes


def test_no_template_can_show_what_the_policy_forbids() -> None:
    """The rule holds for the parts of templates that no test renders, and nothing is marked as safe."""
    templates = Path(admin.__file__).parent / "templates"
    texts = {path.name: path.read_text("utf-8").lower() for path in templates.iterdir()}
    assert {"frame.html", "style.css", "live.js"} <= texts.keys()
    scripts = [text.count("<script") for text in texts.values()]
    assert sum(scripts) == texts["live.html"].count('<script src="/live.js" defer></script>') == 1
    for text in texts.values():
        assert not re.search(
            r"<style|\sstyle=|\son\w+=|javascript:|\|\s*safe|autoescape|@import|url\("
            r"|innerhtml|outerhtml|insertadjacent|document\.write|eval\(|function\(|\.style",
            text,
        )
        assert "://" not in text


async def test_a_page_is_readable_without_sight_and_on_a_phone(proxy: Proxy) -> None:
    """Each has a language, a title, one heading, a viewport; each field has a label."""
    operator = await logged_in(proxy)
    for path in (*MARKUP, *OPERATORS_PAGES):
        answer = await (operator.get(path) if path in OPERATORS_PAGES else get(proxy, path))
        markup = Markup(answer.body.decode())
        assert markup.all("html") == [{"lang": "en"}]
        assert len(markup.all("title")) == len(markup.all("h1")) == len(markup.all("main")) == 1
        assert [meta["content"] for meta in markup.all("meta") if meta.get("name") == "viewport"]
        labelled = {label["for"] for label in markup.all("label")}
        inputs = [field for field in markup.all("input") if field["type"] != "hidden"]
        fields = [*inputs, *markup.all("select")]
        assert {field["id"] for field in fields} == labelled


async def test_a_defect_is_a_plain_500_and_one_log_line(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the exception's text nor the token in the address is shown or logged; the place is logged."""
    monkeypatch.setattr(proxy.app.store, "link", fail_with(RuntimeError("text with a secret")))
    answer = await get(proxy, "/connect/token-of-a-link")
    assert answer.status == 500
    assert answer.json() == {"type": "about:blank", "title": "Internal error", "status": 500}
    for name, value in PROTECTION.items():
        assert answer.header(name) == value
    [line] = proxy.lines("task.crashed")
    assert (line["level"], line["task"]) == ("error", "admin GET /connect/{token}")
    assert line["error"] == "RuntimeError"
    assert re.fullmatch(r"test_admin\.py:\d+", line["where"])
    log = proxy.log.getvalue().decode()
    assert "secret" not in log
    assert "token-of-a-link" not in log
    assert (await get(proxy, "/healthz")).status == 200


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /connect/of-a-link HTTP/9.9.9",
        b"G@T /connect/of-a-link HTTP/1.1",
        b"GET /connect/of-a-link\xff HTTP/1.1",
    ],
    ids=["version", "method", "target"],
)
async def test_a_malformed_request_is_refused_and_not_logged(
    proxy: Proxy, request_line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be parsed may hold a link all the same, so its text is in no log that goes anywhere."""
    caplog.set_level(logging.DEBUG)
    answer = await send(proxy, request_line + b"\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"of-a-link" not in answer
    assert b"\r\nContent-Type: application/problem+json\r\n" in answer
    for name, value in PROTECTION.items():
        assert f"\r\n{name}: {value}\r\n".encode() in answer
    assert "of-a-link" not in proxy.log.getvalue().decode()
    # pytest listens to loggers that have no way out, too; what reaches a console has one.
    heard = [record for record in caplog.records if logging.getLogger(record.name).propagate]
    assert "of-a-link" not in "".join(logging.Formatter().format(record) for record in heard)


async def test_the_two_listeners_share_no_address(proxy: Proxy) -> None:
    """Nothing of the operator's listener answers callers, and no tenant answers on the operator's."""
    callers = proxy.app.proxy_addresses[0]
    link = URL(await proxy.link("acme")).path
    for path in (
        *PAGES,
        *OPERATORS_PAGES[1:],
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/tenants",
        "/oauth/callback",
        link,
    ):
        answer = await get(proxy, path, at=callers, headers=BEARER)
        assert answer.status == 404, path
        assert answer.json()["type"].endswith("/problems/tenant-unknown")
    assert (await get(proxy, "/acme/healthz", at=callers)).status == 404
    assert proxy.pleo.api_requests[-1].target == "/healthz"
    before = len(proxy.pleo.api_requests)
    for path in ("/acme/v2/employees", "/v2/employees", "/acme/v1/introspect"):
        answer = await get(proxy, path, headers={"X-Pleo-Tenant": "acme"})
        assert (answer.status, answer.json()["type"]) == (404, "about:blank")
    assert len(proxy.pleo.api_requests) == before
