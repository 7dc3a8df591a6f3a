"""The JSON API is what its OpenAPI document says, and the document says all of it."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from proxy.admin import all_operations
from proxy.admin.operations import Operation
from proxy.cli import cli
from proxy.model import Policy, Preset, Role
from proxy.sandbox import Sandbox
from tests import api_page
from tests.harness import ADMIN_TOKEN, Answer, Proxy, running_proxy
from tests.operator_browser import ask, logged_in
from tests.test_house_rules import all_commands, section_titles

OPERATIONS = all_operations()
BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
DOCUMENT: dict[str, Any] = api_page.description()


def name_of(operation: Operation[Any, Any]) -> str:
    return operation.id


def test_the_document_is_one() -> None:
    """A validator of OpenAPI 3.1 takes it, and no two operations have one name or one place."""
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []
    for key in ([one.id for one in OPERATIONS], [(one.method, one.path) for one in OPERATIONS]):
        assert len(set(key)) == len(key)


def test_the_committed_document_is_up_to_date() -> None:
    """It is what the declarations make."""
    assert api_page.DESCRIPTION.read_text() == api_page.render_description()


def test_the_page_is_up_to_date() -> None:
    """It is made of the same declarations, and has each operation under a heading of its own."""
    page = api_page.PAGE.read_text()
    assert page == api_page.render_page()
    titles = section_titles(page, r"`([A-Z]+) (/\S*)`")
    assert titles == [(one.method, one.path) for one in OPERATIONS]


def is_for_programs(path: str) -> bool:
    return path.startswith("/api/") or path in {"/healthz", "/readyz", "/metrics"}


def undeclared(proxy: Proxy) -> set[tuple[str, str]]:
    """Routes for programs that no operation declares, HEAD aside, which comes with GET."""
    found = {
        (route.method, route.resource.canonical)
        for route in proxy.app.admin.router.routes()
        if route.resource is not None and is_for_programs(route.resource.canonical)
    }
    declared = {(one.method, one.path) for one in OPERATIONS}
    return {(method, path) for method, path in found if method != "HEAD"} ^ declared


async def test_every_route_is_declared(proxy: Proxy) -> None:
    """No route for programs is without a declaration, and none is declared that is not there."""
    assert undeclared(proxy) == set()


async def test_a_route_without_a_declaration_is_seen(proxy: Proxy) -> None:
    """What is added past the declarations, by any method, does not pass for documented."""
    router = proxy.app.admin.router
    router._frozen = False

    async def surprise(_: web.Request) -> web.Response:
        return web.Response()

    router.add_route("PATCH", "/api/v1/surprise", surprise)
    assert undeclared(proxy) == {("PATCH", "/api/v1/surprise")}


async def test_the_running_proxy_shows_the_committed_document(proxy: Proxy) -> None:
    """To everyone, letter by letter."""
    answer = await ask(proxy, "GET", "/api/v1/openapi.json")
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json")
    assert answer.body.decode() == api_page.DESCRIPTION.read_text()


async def sent(proxy: Proxy, line: str) -> Answer:
    """What a line of curl is answered."""
    words = shlex.split(line.replace("$PLEO_PROXY_ADMIN_TOKEN", ADMIN_TOKEN))
    assert words.pop(0) == "curl"
    given: dict[str, list[str]] = {"-X": ["GET"], "-H": [], "-d": []}
    path = ""
    while words:
        word = words.pop(0)
        if word in given:
            given[word].append(words.pop(0))
        else:
            path = word.removeprefix(api_page.ADMIN_URL)
    headers = dict(field.split(": ", 1) for field in given["-H"])
    data = given["-d"][0] if given["-d"] else None
    return await ask(proxy, given["-X"][-1], path, headers=headers, data=data)


ENDING = [one for one in OPERATIONS if one.media_type != "text/event-stream"]
"""The others are read in ``tests/test_live.py``."""


@pytest.mark.parametrize("operation", ENDING, ids=name_of)
async def test_the_examples_work(proxy: Proxy, operation: Operation[Any, Any]) -> None:
    """Each line of curl on the page does what the operation is for."""
    proxy.let_reload()
    answer = await sent(proxy, api_page.curl(operation))
    assert answer.status == operation.status, answer.body
    assert (answer.header("Content-Type") or "").startswith(operation.media_type)


# --- faults


@dataclass(frozen=True)
class Fault:
    """A request with something wrong, and what it is answered."""

    method: str
    path: str
    status: int
    detail: str | None = None
    body: bytes | None = None
    content_type: str | None = None


def question(body: bytes, detail: str, path: str = "/api/v1/explain") -> Fault:
    return Fault("POST", path, 400, detail, body, "application/json")


FAULTS = {
    "no-such-path": Fault("GET", "/api/v1/nothing", 404),
    "no-path": Fault("GET", "/api/v1/", 404),
    "no-tenant": Fault("GET", "/api/v1/tenants/nobody", 404, "There is no tenant 'nobody'."),
    "no-grant": Fault("GET", "/api/v1/grants/nobody", 404, "There is no tenant 'nobody'."),
    "no-policy": Fault("GET", "/api/v1/tenants/x/policy", 404, "There is no tenant 'x'."),
    "no-such-method": Fault("DELETE", "/api/v1/tenants", 405),
    "no-such-parameter": Fault("GET", "/api/v1/tenants?x=1", 400, "x: Extra inputs"),
    "too-few": Fault("GET", "/api/v1/audit?most=0", 400, "most: Input should be greater"),
    "too-many": Fault("GET", "/api/v1/audit?most=1001", 400, "most: Input should be less"),
    "no-number": Fault("GET", "/api/v1/audit?most=ten", 400, "most: Input should be a valid integer"),
    "twice": Fault("GET", "/api/v1/audit?most=1&most=2", 400, "most: Input should be a valid integer"),
    "two-tenants": Fault("GET", "/api/v1/audit?tenant=a&tenant=b", 400, "tenant: Input should be a valid"),
    "in-the-query": question(b'{"path": "/"}', "x: Extra inputs", "/api/v1/explain?x=1"),
    "malformed": question(b"{", "the body: Invalid JSON"),
    "no-unicode": question(b'{"path": "\xff"}', "the body: Invalid JSON"),
    "empty": question(b"", "the body: Invalid JSON"),
    "no-object": question(b"[]", "the body: Input should be an object"),
    "incomplete": question(b"{}", "path: Field required"),
    "wrong-type": question(b'{"path": 1}', "path: Input should be a valid string"),
    "no-such-member": question(b'{"path": "/", "x": 1}', "x: Extra inputs"),
    "form": Fault(
        "POST",
        "/api/v1/explain",
        415,
        "Send the body with `Content-Type: application/json`.",
        b"path=/",
        "application/x-www-form-urlencoded",
    ),
    "too-large": Fault("POST", "/api/v1/explain", 413, None, b" " * 65537, "application/json"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_faults_are_problem_documents(proxy: Proxy, name: str) -> None:
    """Whatever is wrong: RFC 9457, with what is wrong and no word of what came."""
    fault = FAULTS[name]
    headers = {**BEARER, "Content-Type": fault.content_type} if fault.content_type else BEARER
    answer = await ask(proxy, fault.method, fault.path, headers=headers, data=fault.body)
    assert answer.status == fault.status
    assert answer.header("Content-Type") == "application/problem+json"
    shown = answer.json()
    assert (shown["type"], shown["status"], bool(shown["title"])) == ("about:blank", fault.status, True)
    assert shown.get("detail", "").startswith(fault.detail or "")
    assert answer.header("Allow") == ("GET,HEAD" if fault.status == 405 else None)


async def test_many_mistakes_make_a_short_answer(proxy: Proxy) -> None:
    """Of a body full of mistakes the first ten are named, and what they hold is not."""
    body = json.dumps({f"m{number}": "not-shown" for number in range(3000)}).encode()
    answer = await ask(
        proxy, "POST", "/api/v1/explain", headers={**BEARER, "Content-Type": "application/json"}, data=body
    )
    assert answer.status == 400
    assert answer.json()["detail"].count(";") == 9
    assert b"not-shown" not in answer.body


async def test_a_body_that_does_not_come_is_not_waited_for(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who announces a question and keeps it to themselves gets 408."""
    monkeypatch.setattr("proxy.admin.operations._BODY_S", 0.05)
    host, _, port = proxy.app.admin_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    fields = ["Host: localhost", f"Authorization: Bearer {ADMIN_TOKEN}", "Content-Type: application/json"]
    head = "\r\n".join(["POST /api/v1/explain HTTP/1.1", *fields, "Content-Length: 20", "", ""])
    writer.write(head.encode() + b'{"path"')
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nContent-Type: application/problem+json\r\n" in answer


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/api/v1/openapi.json"])
async def test_what_is_for_everyone_takes_any_query(proxy: Proxy, path: str) -> None:
    """Load balancers and scrapers add what they like, and nothing depends on it."""
    assert (await ask(proxy, "GET", f"{path}?probe=1&probe=2")).status == 200


# --- who may


async def test_roles_are_those_of_the_document(pleo: Sandbox, tmp_path: Path) -> None:
    """With each role's token, and with none: let in where the document lists the role, and nowhere else."""
    tokens = {Role.OPERATOR: ADMIN_TOKEN, Role.VIEWER: "viewer-token-of-the-tests", None: None}
    admin = {"token": ADMIN_TOKEN, "viewer_token": tokens[Role.VIEWER]}
    async with running_proxy(pleo, tmp_path, admin=admin) as proxy:
        for operation in ENDING:
            shown = DOCUMENT["paths"][operation.path][operation.method.lower()]
            for role, token in tokens.items():
                headers = {} if token is None else {"Authorization": f"Bearer {token}"}
                path = operation.path.format(tenant="acme")
                answer = await ask(proxy, operation.method, path, headers=headers)
                listed = [one["token"] for one in shown["security"] if "token" in one]
                may = not shown["security"] or any(role in roles for roles in listed)
                refusal = 403 if token else 401
                assert (answer.status == refusal) != may, (operation.id, role, answer.status)


@pytest.mark.parametrize("operation", ENDING, ids=name_of)
async def test_sessions_need_what_the_document_says(proxy: Proxy, operation: Operation[Any, Any]) -> None:
    """From a page the token of its forms goes with exactly those operations that list it."""
    browser = await logged_in(proxy)
    path = operation.path.format(tenant="acme")
    shown = DOCUMENT["paths"][operation.path][operation.method.lower()]
    needs = any("form" in one for one in shown["security"])
    assert ((await browser.send(operation.method, path)).status == 403) == needs
    form = {DOCUMENT["components"]["securitySchemes"]["form"]["name"]: await browser.csrf()}
    assert (await browser.send(operation.method, path, None, form)).status != 403


# --- three surfaces, one set of actions

EVERYWHERE: dict[str, tuple[set[str], set[str], set[str]]] = {
    "see all tenants": ({"GET /"}, {"listTenants", "listGrants"}, {"tenants list", "grants list"}),
    "see the traffic": ({"GET /"}, {"showTraffic"}, {"tail"}),
    "see a tenant": (
        {"GET /tenants/{tenant}"},
        {"showTenant", "showGrant", "showPolicy"},
        {"tenants show", "grants show", "policy show"},
    ),
    "connect": (
        {"GET /tenants/{tenant}/connect", "POST /tenants/{tenant}/connect"},
        {"connectTenant"},
        {"connect"},
    ),
    "refresh now": ({"POST /tenants/{tenant}/refresh"}, {"refreshTokens"}, {"grants refresh"}),
    "serve": ({"POST /tenants/{tenant}/enable"}, {"enableTenant"}, {"tenants enable"}),
    "pause": ({"POST /tenants/{tenant}/disable"}, {"disableTenant"}, {"tenants disable"}),
    "revoke": (
        {"GET /tenants/{tenant}/revoke", "POST /tenants/{tenant}/revoke"},
        {"revokeGrant"},
        {"grants revoke"},
    ),
    "see the audit trail": ({"GET /audit"}, {"listAuditRecords"}, {"audit list"}),
    "watch": ({"GET /live"}, {"watchLive"}, {"tail"}),
    "see the settings": ({"GET /settings"}, {"listSettings"}, {"settings"}),
    "reload": ({"POST /settings/reload"}, {"reloadConfiguration"}, {"reload"}),
}
"""What operators see and do: on pages, by operations, by commands."""
ONLY_PAGES = {
    "GET /login", "POST /login", "POST /logout",  # programs have a token, commands the store
    "GET /style.css", "GET /live.js", "GET /problems", "GET /problems/{name}",
    "GET /connect/{token}", "GET /oauth/callback", "GET /oauth/result",  # for authorisers
}  # fmt: skip
NOT_ON_PAGES = {
    "showHealth", "showReadiness", "showMetrics",  # for monitoring
    "showDescription",
    "explainRequest",  # a command has it, too
}  # fmt: skip


async def test_what_pages_do_programs_and_commands_do_too(proxy: Proxy) -> None:
    """Every page and form has its operation and its command; what is on one side only is a list to review."""
    pages = {
        f"{route.method} {route.resource.canonical}"
        for route in proxy.app.admin.router.routes()
        if route.resource is not None and not is_for_programs(route.resource.canonical)
    }
    on_pages, by_programs, by_commands = (
        {each for row in EVERYWHERE.values() for each in row[column]} for column in range(3)
    )
    assert {page for page in pages if not page.startswith("HEAD")} == on_pages | ONLY_PAGES
    assert {one.id for one in OPERATIONS} == by_programs | NOT_ON_PAGES
    known = {words.removeprefix("pleo-proxy ") for words, one in all_commands(cli) if not is_group(one)}
    assert by_commands <= known
    assert all(all(row) for row in EVERYWHERE.values())


def is_group(command: click.Command) -> bool:
    return isinstance(command, click.Group)


async def test_the_api_has_what_the_pages_show_of_a_tenant(proxy: Proxy) -> None:
    """The tenant, its grant, its policy and its refusals, each as the command line has it."""
    refused = await proxy.call("DELETE", "/acme/v1/installations/me")
    assert refused.status == 403
    answers = {
        path: (await ask(proxy, "GET", path, headers=BEARER)).json()
        for path in ("/api/v1/tenants/acme", "/api/v1/grants/acme", "/api/v1/tenants/acme/policy")
    }
    tenant, grant, policy = answers.values()
    assert (tenant["name"], tenant["state"], tenant["routes"][0]) == ("acme", "connected", "path: /acme")
    assert (grant["tenant"], grant["generation"]) == ("acme", 1)
    assert (policy["tenant"], policy["preset"], policy["trial"]) == ("acme", "full", None)
    settings = (await ask(proxy, "GET", "/api/v1/settings", headers=BEARER)).json()
    by_key = {setting["key"]: setting for setting in settings}
    assert by_key["admin.token"]["source"] == "file"
    assert ADMIN_TOKEN not in json.dumps(settings)


async def test_the_api_shows_a_policy_on_trial(proxy: Proxy) -> None:
    """Beside the one in force."""
    await proxy.add_tenant("globex", policy=Policy(Preset.FULL), trial=Policy(Preset.READ_ONLY))
    answer = await ask(proxy, "GET", "/api/v1/tenants/globex/policy", headers=BEARER)
    policy = answer.json()
    assert (policy["preset"], policy["trial"]["preset"]) == ("full", "read-only")


async def test_the_api_lists_the_trail(proxy: Proxy) -> None:
    """Newest records, of a tenant or an event, the oldest of them first; no more than asked for."""
    for action in ("disable", "enable", "disable"):
        assert (await ask(proxy, "POST", f"/api/v1/tenants/acme/{action}", headers=BEARER)).status == 200
    await proxy.app._audit.close()
    wanted = "/api/v1/audit?tenant=acme&event=tenant.changed"
    rows = (await ask(proxy, "GET", wanted, headers=BEARER)).json()
    assert [row["details"]["enabled"]["new"] for row in rows] == [False, True, False]
    assert {row["actor"] for row in rows} == {"admin:operator"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", rows[0]["at"])
    assert (await ask(proxy, "GET", f"{wanted}&most=1", headers=BEARER)).json() == rows[-1:]
