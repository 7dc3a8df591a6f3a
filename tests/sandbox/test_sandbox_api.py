"""The API's gate, its collections, and the probes that show what travelled."""

from __future__ import annotations

import asyncio
import hashlib
import re
from io import BytesIO
from typing import Literal
from urllib.parse import urlsplit

import pytest

from proxy.sandbox import API_KEYS, COMPANIES, Sandbox, TokenState, deterministic_bytes, fingerprint
from tests.sandbox.sandbox_driver import Answer, Driver, basic

ACME, GLOBEX = COMPANIES["acme"], COMPANIES["globex"]


# The gate


def dead_token(sandbox: Sandbox, kind: str) -> str:
    """An ``Authorization`` value whose token is dead in one way."""
    pair = sandbox.grant("acme")
    if kind == "expired":
        sandbox.advance(900)
    elif kind == "revoked":
        sandbox.revoke_access("acme")
    elif kind == "rotated":
        sandbox.authority.refresh(pair.refresh_token)
    token = "guess" if kind == "unknown" else pair.access_token
    return f"Bearer {token}"


@pytest.mark.parametrize("kind", ["expired", "revoked", "rotated", "unknown"])
async def test_dead_tokens(driver: Driver, kind: str) -> None:
    """Every dead token gets the same 401, is counted, and its state is recorded."""
    headers = {"Authorization": dead_token(driver.sandbox, kind)}
    answer = await driver.send("GET", driver.sandbox.api_url + "/v1/companies", headers=headers)
    assert (answer.status, answer.json) == (401, {"type": "UNAUTHORIZED", "message": "JWT is expired"})
    assert driver.sandbox.counters.dead_token_requests == {kind: 1}
    assert driver.sandbox.api_requests[-1].token is TokenState(kind)


async def test_missing_token(driver: Driver) -> None:
    """Without a credential even an unknown path is 401."""
    answer = await driver.send("GET", driver.sandbox.api_url + "/nowhere")
    assert answer.status == 401
    assert driver.sandbox.counters.dead_token_requests == {"missing": 1}


async def test_empty_unauthorized_body(driver: Driver) -> None:
    """By switches a 401 has no body and names the scheme."""
    driver.sandbox.switches.unauthorized_body = "empty"
    driver.sandbox.switches.www_authenticate = True
    answer = await driver.call("GET", "/v1/companies", "guess")
    assert (answer.status, answer.body) == (401, b"")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_refused_before_the_body(driver: Driver) -> None:
    """By a switch a dead token is refused while the request's body is still on its way."""
    driver.sandbox.switches.early_refusal = True
    url = urlsplit(driver.sandbox.api_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(b"POST /v1/vendors HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    await writer.wait_closed()


async def test_continue_is_sent(driver: Driver) -> None:
    """A caller that waits for 100 (Continue) gets it before it sends the body."""
    url = urlsplit(driver.sandbox.api_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/companies"),
        ("GET", "/v3/export-jobs"),
        ("POST", "/v1/vendors:search"),
        ("POST", "/v0/tax-codes:search"),
        ("GET", "/v0/tags"),
    ],
)
async def test_missing_scope(driver: Driver, method: str, path: str) -> None:
    """A token without the call's scope is refused by 403."""
    token = driver.sandbox.grant("acme", ("users:read",)).access_token
    answer = await driver.call(method, path, token, json={} if method == "POST" else None)
    assert (answer.status, answer.json["type"]) == (403, "ACCESS_DENIED")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("GET", f"/v3/export-jobs?company_id={GLOBEX}", None, id="query"),
        pytest.param("GET", f"/v2/employees?companyId={GLOBEX}", None, id="query-camel"),
        pytest.param("GET", f"/v2/employees?companyId={ACME}&companyId={GLOBEX}", None, id="repeated"),
        pytest.param("POST", "/v1/vendors", {"companyId": GLOBEX, "name": "X"}, id="body"),
        pytest.param("GET", f"/v1/companies/{GLOBEX}", None, id="path"),
    ],
)
async def test_another_company(driver: Driver, method: str, path: str, body: object) -> None:
    """Another company's id is refused by 403 wherever it stands."""
    answer = await driver.call(method, path, driver.sandbox.grant("acme").access_token, json=body)
    assert (answer.status, answer.json["type"]) == (403, "ACCESS_DENIED")


async def test_own_company(driver: Driver) -> None:
    """The caller's own company id is accepted."""
    token = driver.sandbox.grant("acme").access_token
    assert (await driver.call("GET", f"/v2/employees?company_id={ACME}", token)).status == 200


async def test_api_key(driver: Driver) -> None:
    """A legacy key as HTTP Basic user name is accepted, unless the switch says no."""
    url = driver.sandbox.api_url + "/v1/introspect"
    answer = await driver.send("GET", url, headers=basic(API_KEYS["globex"], ""))
    assert answer.json["data"]["authMethod"] == "API_KEY"
    assert answer.json["data"]["subjectURN"] == f"urn:pleo:company:{GLOBEX}"
    driver.sandbox.switches.api_keys = False
    assert (await driver.send("GET", url, headers=basic(API_KEYS["globex"], ""))).status == 401


async def test_two_credentials_are_none(driver: Driver) -> None:
    """Two Authorization fields are refused, even if one of them is good."""
    url = urlsplit(driver.sandbox.api_url)
    token = driver.sandbox.grant("acme").access_token
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    fields = f"Authorization: Bearer {token}\r\nAuthorization: Basic eDo=\r\n"
    writer.write(f"GET /v1/companies HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    await writer.wait_closed()


async def test_rate_limit(driver: Driver) -> None:
    """The request past the limit is 429 with Retry-After; another token and the next minute are free."""
    driver.sandbox.switches.rate_limit_per_minute = 3
    token = driver.sandbox.grant("acme").access_token
    answers = [await driver.call("GET", "/v1/introspect", token) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["Retry-After"] == "60"
    other = driver.sandbox.grant("acme").access_token
    assert (await driver.call("GET", "/v1/introspect", other)).status == 200
    driver.sandbox.advance(60)
    assert (await driver.call("GET", "/v1/introspect", token)).status == 200


async def test_rate_limit_is_600_by_default(driver: Driver) -> None:
    """600 requests a minute pass, the next does not."""
    token = driver.sandbox.grant("acme").access_token
    statuses = [(await driver.call("GET", "/v1/introspect", token)).status for _ in range(601)]
    assert statuses == [200] * 600 + [429]


@pytest.mark.parametrize(("form", "value"), [("date", "Fri, 15 Jan 2027 08:01:00 GMT"), ("none", None)])
async def test_forms_of_retry_after(driver: Driver, form: Literal["date", "none"], value: str | None) -> None:
    """By a switch Retry-After is a date, or absent."""
    driver.sandbox.switches.rate_limit_per_minute = 0
    driver.sandbox.switches.retry_after = form
    answer = await driver.call("GET", "/v1/introspect", driver.sandbox.grant("acme").access_token)
    assert (answer.status, answer.headers.get("Retry-After")) == (429, value)


async def test_rate_limit_by_company(driver: Driver) -> None:
    """By a switch all tokens of a company share one limit."""
    driver.sandbox.switches.rate_limit_per_minute = 1
    driver.sandbox.switches.rate_limit_by = "company"
    tokens = [driver.sandbox.grant(company).access_token for company in ("acme", "acme", "globex")]
    statuses = [(await driver.call("GET", "/v1/introspect", token)).status for token in tokens]
    assert statuses == [200, 429, 200]


# Calls


async def call(driver: Driver, method: str, path: str, body: object = None) -> Answer:
    """A call of acme with every scope."""
    family = driver.sandbox.authority.current(ACME)
    token = family.access_token if family else driver.sandbox.grant("acme").access_token
    return await driver.call(method, path, token, json=body)


async def test_introspect(driver: Driver) -> None:
    """The credential's own company, client and scopes are told."""
    token = driver.sandbox.grant("acme", ("users:read",)).access_token
    assert (await driver.call("GET", "/v1/introspect", token)).json == {
        "data": {
            "authMethod": "OAUTH",
            "clientId": "sandbox-client",
            "scope": "users:read",
            "applicationName": "Sandbox application",
            "subjectURN": f"urn:pleo:company:{ACME}",
        }
    }


async def test_content_type_and_unknown_paths(driver: Driver) -> None:
    """Answers have the documented content type; unknown paths are 404, wrong methods 405."""
    unknown = await call(driver, "GET", "/v9/nothing")
    assert (unknown.status, unknown.json["type"]) == (404, "NOT_FOUND")
    assert unknown.headers["Content-Type"] == "application/json;charset=UTF-8"
    assert (await call(driver, "DELETE", "/v1/companies")).status == 405


async def test_head(driver: Driver) -> None:
    """HEAD answers as GET would, without the body."""
    answer = await call(driver, "HEAD", "/v1/companies")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize("step", ["after", "offset"])
async def test_pages_forward(driver: Driver, step: str) -> None:
    """Following the pages, by cursor or by offset, shows each record once and in order."""
    seen: list[str] = []
    where = ""
    while True:
        body = (await call(driver, "GET", f"/v2/employees?limit=25{where}")).json
        seen += [row["id"] for row in body["data"]]
        pagination = body["pagination"]
        assert re.fullmatch(r"[A-Z2-7=~]+", pagination["endCursor"])
        assert pagination["hasPreviousPage"] is bool(where)
        if not pagination["hasNextPage"]:
            break
        where = f"&after={pagination['endCursor']}" if step == "after" else f"&offset={len(seen)}"
    assert seen == list(driver.sandbox.world.companies[ACME].employees)
    assert pagination["total"] == 57


async def test_pages_backward(driver: Driver) -> None:
    """``before`` gives the page that ends where the cursor stands."""
    last = (await call(driver, "GET", "/v2/employees?limit=10&offset=20")).json["pagination"]
    body = (await call(driver, "GET", f"/v2/employees?limit=10&before={last['startCursor']}")).json
    ids = list(driver.sandbox.world.companies[ACME].employees)
    assert [row["id"] for row in body["data"]] == ids[10:20]
    assert body["pagination"]["currentRequestPagination"]["before"] == last["startCursor"]


async def test_sorting(driver: Driver) -> None:
    """Several sorting keys each have their order."""
    path = "/v2/employees?limit=100&sorting_keys=lastName&sorting_keys=code"
    rows = (await call(driver, "GET", path + "&sorting_order=DESC&sorting_order=ASC")).json["data"]
    expected = sorted(
        sorted(rows, key=lambda row: row["code"]), key=lambda row: row["lastName"], reverse=True
    )
    assert rows == expected


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "after=0",
        "after=AA&offset=1",
        "sorting_keys=nope",
        "sorting_order=UP",
    ],
)
async def test_bad_paging(driver: Driver, query: str) -> None:
    """Malformed paging parameters are 400."""
    assert (await call(driver, "GET", f"/v2/employees?{query}")).status == 400


async def test_accounting_entries(driver: Driver) -> None:
    """Entries are searched, read one by one, and have receipts on another host."""
    found = (
        await call(driver, "POST", "/v1/accounting-entries:search?limit=2", {"statuses": ["ready_to_export"]})
    ).json
    entry = found["data"][0]
    assert {row["status"] for row in found["data"]} == {"ready_to_export"}
    assert (await call(driver, "GET", f"/v1/accounting-entries/{entry['id']}")).json["data"] == entry
    receipts = (await call(driver, "GET", f"/v1/accounting-entries/{entry['id']}/receipts")).json["data"]
    assert receipts[0]["url"].startswith("https://files.example/")


async def test_another_companys_record_is_unknown(driver: Driver) -> None:
    """The id of another company's record is 404."""
    foreign = next(iter(driver.sandbox.world.companies[GLOBEX].employees))
    assert (await call(driver, "GET", f"/v2/employees/{foreign}")).status == 404


async def test_vendor_life(driver: Driver) -> None:
    """A vendor is made, changed, archived, activated and found; its code is taken from then on."""
    values = {"companyId": ACME, "name": "Quiet Lamps", "code": "Q1"}
    created = await call(driver, "POST", "/v1/vendors", values)
    path = f"/v1/vendors/{created.json['data']['id']}"
    assert created.status == 201
    assert (await call(driver, "POST", "/v1/vendors", values)).status == 409
    assert (await call(driver, "PUT", path, {"name": "Loud Lamps"})).json["data"]["name"] == "Loud Lamps"
    assert (await call(driver, "POST", path + ":archive")).json["data"]["status"] == "archived"
    found = await call(driver, "POST", "/v1/vendors:search", {"name": "loud", "status": "archived"})
    assert found.json["pagination"]["total"] == 1
    assert (await call(driver, "POST", path + ":activate")).json["data"]["status"] == "active"
    assert (await call(driver, "GET", path)).json["data"]["name"] == "Loud Lamps"


async def test_required_fields(driver: Driver) -> None:
    """A missing field is 422, a body that is no JSON object 400."""
    assert (await call(driver, "POST", "/v1/vendors", {"companyId": ACME})).status == 422
    assert (await call(driver, "POST", "/v1/vendors", [])).status == 400


async def test_tax_codes(driver: Driver) -> None:
    """Tax codes are made, read, changed, searched and deleted."""
    values = {"companyId": ACME, "archived": False, "name": "New", "rate": 0.1, "type": "inclusive"}
    path = f"/v0/tax-codes/{(await call(driver, 'POST', '/v0/tax-codes', values)).json['data']['id']}"
    await call(driver, "PUT", path, values | {"type": "reverse"})
    found = await call(driver, "POST", "/v0/tax-codes:search", {"type": "reverse"})
    assert [row["name"] for row in found.json["data"]] == ["Reverse charge, EU services", "New"]
    assert (await call(driver, "GET", path)).json["data"]["type"] == "reverse"
    assert (await call(driver, "DELETE", path)).status == 204
    assert (await call(driver, "GET", path)).status == 404


async def test_tags(driver: Driver) -> None:
    """A tag group gets a tag, which is listed with its group and found by text until the group is deleted."""
    group = await call(driver, "POST", "/v0/tag-groups", {"archived": False, "code": "G", "name": "New"})
    path = f"/v0/tag-groups/{group.json['data']['id']}"
    tag = await call(driver, "POST", path + "/tags", {"archived": False, "code": "T", "name": "Zebra"})
    tag_path = f"/v0/tags/{tag.json['data']['id']}"
    assert (await call(driver, "GET", path + "/tags")).json["data"] == [tag.json["data"]]
    await call(driver, "PUT", tag_path, {"archived": True, "code": "T"})
    assert (await call(driver, "GET", path + "/tags")).json["data"] == []
    assert (await call(driver, "GET", "/v0/tags?text_search=zebra")).json["pagination"]["total"] == 1
    assert (await call(driver, "DELETE", path)).json is True
    assert (await call(driver, "GET", tag_path)).status == 404
    assert len((await call(driver, "GET", "/v0/tag-groups")).json["data"]) == 2


async def test_chart_of_accounts(driver: Driver) -> None:
    """Accounts are made one by one and in batches, listed and searched."""
    batch = {"companyId": ACME, "accounts": [{"name": "A", "code": "9001"}, {"name": "B", "code": "9002"}]}
    assert (await call(driver, "POST", "/v1/chart-of-accounts/batch", batch)).status == 201
    await call(driver, "POST", "/v1/chart-of-accounts", {"companyId": ACME, "name": "C", "code": "9003"})
    found = await call(driver, "POST", "/v1/chart-of-accounts:search", {"codes": ["9002", "9003"]})
    assert [row["name"] for row in found.json["data"]] == ["B", "C"]
    assert (await call(driver, "GET", "/v1/chart-of-accounts")).json["pagination"]["total"] == 15


async def test_subscriptions(driver: Driver) -> None:
    """A subscription's secret is told by its own call only."""
    values = {"url": "https://hook.example/", "eventTypes": ["export-job.created"]}
    created = await call(driver, "POST", "/v1/subscriptions", values)
    path = f"/v1/subscriptions/{created.json['data']['id']}"
    secret = (await call(driver, "GET", path + "/secret")).json["data"]["secret"]
    assert secret.startswith("whsec_")
    for answer in (created, await call(driver, "GET", path), await call(driver, "GET", "/v1/subscriptions")):
        assert secret not in answer.body.decode()
    assert (await call(driver, "DELETE", path)).status == 204


async def test_deleting_the_installation_kills_every_token(driver: Driver) -> None:
    """The installation that consent leaves can be activated; deleting it revokes all the company's tokens."""
    tokens = (await driver.exchange(await driver.code())).json
    token = tokens["access_token"]
    other = driver.sandbox.grant("globex").access_token
    assert (await driver.call("GET", "/v1/installations/me", token)).json["data"]["status"] == "AUTHORIZED"
    activated = await driver.call("POST", "/v1/installations/me:activate", token)
    assert activated.json["data"]["status"] == "ACTIVATED"
    assert (await driver.call("DELETE", "/v1/installations/me", token)).status == 204
    assert (await driver.call("GET", "/v1/installations/me", token)).status == 401
    assert (await driver.refresh(tokens["refresh_token"])).json["error"] == "invalid_grant"
    assert (await driver.call("GET", "/v1/introspect", other)).status == 200


# Export jobs


async def new_job(driver: Driver) -> Answer:
    """A job of two entries."""
    entries = list(driver.sandbox.world.companies[ACME].accounting_entries)[:2]
    return await call(driver, "POST", "/v3/export-jobs", {"companyId": ACME, "accountingEntryIds": entries})


async def event(driver: Driver, job_id: str, name: str) -> int:
    """The status that an event gets."""
    return (await call(driver, "POST", "/v3/export-job-events", {"jobId": job_id, "event": name})).status


async def test_export_job_life(driver: Driver) -> None:
    """A job is started, its items are reported, and it is completed; then the next one may come."""
    job = (await new_job(driver)).json["data"]
    path = f"/v3/export-jobs/{job['id']}"
    assert (job["status"], job["numberOfItems"], job["expiresIn"]) == ("pending", 2, 3600)
    assert await event(driver, job["id"], "completed") == 409
    assert await event(driver, job["id"], "started") == 204
    items = (await call(driver, "GET", path + "/items")).json["data"]
    updates = [
        {"accountingEntryId": items[0]["accountingEntryId"], "status": "successful"},
        {"accountingEntryId": GLOBEX, "status": "successful"},
    ]
    updated = (await call(driver, "PUT", path + "/items", updates)).json
    assert updated["data"][0]["status"] == "successful"
    assert updated["errors"][0]["type"] == "ACCOUNTING_ENTRY_DOES_NOT_EXIST"
    assert await event(driver, job["id"], "completed_with_errors") == 204
    assert (await call(driver, "GET", path)).json["data"]["status"] == "completed_with_errors"
    assert (await call(driver, "PUT", path + "/items", updates)).status == 409
    assert (await new_job(driver)).status == 201


async def test_one_export_job_at_a_time(driver: Driver) -> None:
    """A second job beside an unfinished one is a conflict."""
    await new_job(driver)
    answer = await new_job(driver)
    assert (answer.status, answer.json["type"]) == (409, "EXPORT_ALREADY_IN_PROGRESS")


async def test_export_job_expires(driver: Driver) -> None:
    """An hour after its last update a job has failed, its items are abandoned, and the next may come."""
    driver.sandbox.authority.access_lifetime_s = 86400
    job_id = (await new_job(driver)).json["data"]["id"]
    driver.sandbox.advance(3599)
    assert await event(driver, job_id, "started") == 204
    driver.sandbox.advance(3599)
    path = f"/v3/export-jobs/{job_id}"
    assert (await call(driver, "GET", path)).json["data"]["status"] == "in_progress"
    driver.sandbox.advance(1)
    job = (await call(driver, "GET", path)).json["data"]
    assert (job["status"], job["failureReasonType"]) == ("failed", "job_expired")
    items = (await call(driver, "GET", path + "/items?status=abandoned")).json["data"]
    assert len(items) == 2
    assert (await new_job(driver)).status == 201


async def test_export_items(driver: Driver) -> None:
    """The entries of a job come with what an accounting system needs."""
    job_id = (await new_job(driver)).json["data"]["id"]
    rows = (await call(driver, "GET", f"/v3/export-items?job_id={job_id}")).json["data"]
    assert {"accountingEntryId", "accountingEntryLines", "amount", "user", "supplier"} <= set(rows[0])
    assert [
        job["id"] for job in (await call(driver, "GET", "/v3/export-jobs?status=pending")).json["data"]
    ] == [job_id]


# Probes and the record


async def test_echo_shows_what_came(driver: Driver) -> None:
    """The echo repeats target and body as they came, and a credential by its fingerprint only."""
    token = driver.sandbox.grant("acme").access_token
    headers = {"Authorization": f"Bearer {token}", "X-Mixed-Case": "1"}
    url = driver.sandbox.api_url + "/v1/sandbox/echo?a=%7E&b=x:y&b=%2f"
    answer = await driver.send("POST", url, data=b"\x00\xff", headers=headers)
    assert answer.json["target"] == "/v1/sandbox/echo?a=%7E&b=x:y&b=%2f"
    assert ["X-Mixed-Case", "1"] in answer.json["headers"]
    assert ["Authorization", fingerprint(f"Bearer {token}")] in answer.json["headers"]
    assert answer.json["body"] == "\x00\xff"
    assert answer.json["bodySha256"] == hashlib.sha256(b"\x00\xff").hexdigest()
    assert token not in answer.body.decode()


async def test_echo_of_a_big_body(driver: Driver) -> None:
    """Of a big body the echo tells length and hash, and repeats the beginning."""
    token = driver.sandbox.grant("acme").access_token
    body = deterministic_bytes(3_000_000)
    url, headers = driver.sandbox.api_url + "/v1/sandbox/echo", {"Authorization": f"Bearer {token}"}
    answer = (await driver.send("PUT", url, data=BytesIO(body), headers=headers)).json
    assert (answer["bodyLength"], len(answer["body"])) == (3_000_000, 65_536)
    assert answer["bodySha256"] == hashlib.sha256(body).hexdigest()


async def test_echo_of_an_encoded_body(driver: Driver) -> None:
    """A body with a content coding is not decoded."""
    token = driver.sandbox.grant("acme").access_token
    headers = {"Authorization": f"Bearer {token}", "Content-Encoding": "gzip"}
    url = driver.sandbox.api_url + "/v1/sandbox/echo"
    assert (await driver.send("POST", url, data=b"not gzip", headers=headers)).json["body"] == "not gzip"


@pytest.mark.parametrize("query", ["size=200000", "size=200000&chunked=1", "size=0"])
async def test_many_bytes(driver: Driver, query: str) -> None:
    """The bytes are as many as asked for, and the same each time, with either framing."""
    answer = await call(driver, "GET", f"/v1/sandbox/bytes?{query}")
    assert answer.body == deterministic_bytes(0 if query == "size=0" else 200_000)
    assert ("Transfer-Encoding" in answer.headers) is ("chunked" in query)


async def test_requests_are_recorded(driver: Driver) -> None:
    """What reached the API can be asserted on afterwards, without the token itself."""
    pair = driver.sandbox.grant("acme")
    await driver.call("POST", "/v1/vendors:search?limit=1", pair.access_token, json={})
    request = driver.sandbox.api_requests[-1]
    assert (request.method, request.target, request.status) == ("POST", "/v1/vendors:search?limit=1", 200)
    assert (request.token, request.company_id, request.generation) == (TokenState.LIVE, ACME, 1)
    assert (request.body_length, request.body_sha256) == (2, hashlib.sha256(b"{}").hexdigest())
    assert request.header("authorization") == [fingerprint(f"Bearer {pair.access_token}")]


def test_seeds_are_the_same_every_time() -> None:
    """Two sandboxes hold the same companies with the same data."""
    first, second = Sandbox().world.companies, Sandbox().world.companies
    assert first == second
    assert set(COMPANIES.values()) == set(first)
