"""Policies over real sockets: what Pleo gets of what one refuses, what the log says, and who else suffers."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from proxy.admission import Admission, Admitted, Allowances
from proxy.config import Settings
from proxy.errors import PolicyRefused, RateLimited
from proxy.facts import PolicyWouldRefuse
from proxy.model import GrantState, Policy, Preset, Tenant, Unblocked
from proxy.rates import Rates
from proxy.sandbox import COMPANIES, Sandbox
from proxy.target import parse
from tests.harness import Answer, Proxy, running_proxy, until

ACME, GLOBEX = COMPANIES["acme"], COMPANIES["globex"]
JSON = {"Content-Type": "application/json"}


async def enforce(proxy: Proxy, policy: Policy, trial: Policy | None = None, name: str = "acme") -> None:
    """Have a policy in force for a tenant, and one on trial."""
    await proxy.add_tenant(name, company=COMPANIES[name], policy=policy, trial=trial)


def refused(answer: Answer, name: str = "policy-refused") -> str:
    """The detail of a refusal."""
    assert answer.headers, answer
    assert (answer.header("Content-Type"), answer.json()["type"].rpartition("/")[2]) == (
        "application/problem+json",
        name,
    ), answer.body
    return str(answer.json()["detail"])


def carried_out(proxy: Proxy) -> int:
    """Requests that reached Pleo whole. One whose body breaks off is none: Pleo cannot act on it."""
    return sum(1 for request in proxy.pleo.api_requests if request.status)


# --- who, and what


async def test_callers_from_elsewhere_are_refused(proxy: Proxy) -> None:
    """A policy with networks lets in nobody else, whatever route claims the request."""
    await enforce(proxy, Policy(callers=("10.0.0.0/8", "::1/128")))
    before = carried_out(proxy)
    for headers in ({}, {"X-Pleo-Tenant": "acme"}, {"X-Forwarded-For": "10.0.0.1"}):
        answer = await proxy.get("/acme/v2/employees", headers=headers)
        assert answer.status == 403
        assert "from 127.0.0.1" in refused(answer)
    assert carried_out(proxy) == before
    await enforce(proxy, Policy(callers=("127.0.0.0/8",)))
    assert (await proxy.get("/acme/v2/employees")).status == 200


@pytest.mark.parametrize(
    ("caller", "let_in"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd00::1%eth0", True),
        ("11.0.0.1", False),
        ("::1", False),
        ("uid:0 pid:1", False),
        ("unknown behind 10.0.0.1", False),
    ],
)
def test_which_callers_a_policy_lets_in(caller: str, *, let_in: bool) -> None:
    """An address counts in each of its spellings; who has none is in no network."""
    tenant = Tenant("acme", policy=Policy(callers=("10.0.0.0/8", "fd00::/8")))
    admission = gates()
    if let_in:
        ask(admission, tenant, caller).leave()
    else:
        with pytest.raises(PolicyRefused):
            ask(admission, tenant, caller)


def test_a_tenant_that_is_no_more_takes_no_memory() -> None:
    """Its gate is forgotten; a new tenant of its name begins anew."""
    admission = gates()
    ask(admission, Tenant("acme", policy=Policy(concurrency=1)))
    with pytest.raises(RateLimited):
        ask(admission, Tenant("acme", policy=Policy(concurrency=1)))
    admission.forget(["acme", "never-called"])
    assert admission._gates == {}
    ask(admission, Tenant("acme", policy=Policy(concurrency=1)))


def gates() -> Admission:
    """Ways in without a proxy around them."""
    return Admission(Allowances(None, None, 100, 1000), Rates(), lambda _: None, lambda: 0.0)


def ask(admission: Admission, tenant: Tenant, caller: str = "127.0.0.1") -> Admitted:
    return admission.admit(tenant, "1", "GET", parse(b"/v2/employees", 99), caller)


def test_a_name_that_is_cut_between_pieces_is_seen() -> None:
    """Of a large body each piece is looked at with the end of the one before."""
    admitted = ask(gates(), Tenant("acme", company=ACME))
    inspection = admitted.inspection()
    assert inspection is not None
    inspection.piece(b'{"compan')
    with pytest.raises(PolicyRefused, match="cannot be looked into"):
        inspection.piece(b'yId":"')


async def test_an_operators_rules_hold(proxy: Proxy) -> None:
    """Rules that allow take the preset's place, and rules that deny go first."""
    await enforce(proxy, Policy(allow=("GET /v2/**", "* /v1/vendors**"), deny=("DELETE,PUT /v1/vendors/*",)))
    assert (await proxy.get("/acme/v2/employees")).status == 200
    assert (await proxy.call("POST", "/acme/v1/vendors:search", data=b"{}", headers=JSON)).status == 200
    assert "outside what the policy allows" in refused(await proxy.get("/acme/v1/companies"))
    assert "denied by the rule" in refused(await proxy.call("PUT", "/acme/v1/Vendors/1/", data=b"{}"))


async def test_a_change_of_policy_holds_from_the_next_request_on(proxy: Proxy) -> None:
    """No request of after the change is judged by the policy of before."""
    assert (await proxy.get("/acme/v1/companies")).status == 200
    await enforce(proxy, Policy(Preset.EXPORTS, deny=("GET /v1/companies",)))
    assert (await proxy.get("/acme/v1/companies")).status == 403
    await enforce(proxy, Policy())
    assert (await proxy.get("/acme/v1/companies")).status == 200


async def test_what_ends_the_installation_marks_the_grant(proxy: Proxy) -> None:
    """Unblocked, DELETE /v1/installations/me reaches Pleo, and its 204 tells that the grant is dead."""
    await enforce(proxy, Policy(unblock=(Unblocked.INSTALLATION,)))
    refreshes = sum(proxy.pleo.counters.refreshes.values())
    assert (await proxy.call("DELETE", "/acme/v1/installations/me")).status == 204
    stored = await proxy.app.store.grant("acme")
    assert stored is not None
    assert (stored.state, stored.access, stored.refresh) == (GrantState.REVOKED, None, None)
    assert proxy.lines("grant.revoked")[0]["tenant"] == "acme"
    assert refused(await proxy.get("/acme/v2/employees"), "needs-reauth")
    assert sum(proxy.pleo.counters.refreshes.values()) == refreshes
    assert (await proxy.get("/globex/v2/employees")).status == 200


async def test_a_consent_that_came_meanwhile_is_not_marked(proxy: Proxy) -> None:
    """What ended the tokens of one generation says nothing of a later one."""
    before = await proxy.app.store.grant("acme")
    assert before is not None
    await proxy.connect("acme")
    await proxy.app.tokens.note_revoked("acme", before.generation)
    assert (await proxy.get("/acme/v2/employees")).status == 200
    stored = await proxy.app.store.grant("acme")
    assert stored is not None
    assert stored.state is GrantState.CONNECTED


# --- which company


FOREIGN_TARGETS = [
    f"/acme/v2/employees?company_id={GLOBEX}",
    f"/acme/v2/employees?company_id={ACME}&company_id={GLOBEX}",
    f"/acme/v2/employees?COMPANY_ID={GLOBEX}",
    f"/acme/v2/employees?companyId[]={GLOBEX}",
    f"/acme/v2/employees?%63ompany%5Fid={GLOBEX}",
    f"/acme/v2/employees?a=1;company_id={GLOBEX}",
    f"/acme/v2/employees?company_id={ACME},{GLOBEX}",
]


@pytest.mark.parametrize("target", FOREIGN_TARGETS)
async def test_another_company_in_the_query_is_refused(proxy: Proxy, target: str) -> None:
    """However it is spelt, Pleo never sees it; the tenant's own company passes."""
    before = carried_out(proxy)
    assert "names another company" in refused(await proxy.get(target))
    assert carried_out(proxy) == before
    assert (await proxy.get(f"/acme/v2/employees?company_id={ACME}")).status == 200


FOREIGN_BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "plain": (json.dumps({"companyId": GLOBEX}).encode(), JSON),
    "letter-case": (json.dumps({"COMPANY_ID": GLOBEX}).encode(), JSON),
    "nested": (json.dumps({"a": [{"filter": {"companyId": {"eq": GLOBEX}}}]}).encode(), JSON),
    "duplicate": (f'{{"companyId":"{GLOBEX}","companyId":"{ACME}"}}'.encode(), JSON),
    "escaped": (f'{{"\\u0063ompanyId":"{GLOBEX}"}}'.encode(), JSON),
    "utf-16": (json.dumps({"companyId": GLOBEX}).encode("utf-16"), JSON),
    "no-type": (json.dumps({"companyId": GLOBEX}).encode(), {}),
    "other-type": (json.dumps({"companyId": GLOBEX}).encode(), {"Content-Type": "image/png"}),
    "charset": (b"{}", {"Content-Type": "application/json; charset=utf-7"}),
    "compressed": (b"{}", {**JSON, "Content-Encoding": "gzip"}),
    "no-json": (f"{{companyId: '{GLOBEX}'}}".encode(), JSON),
    "after-white-space": (b" " * 200_000 + json.dumps({"companyId": GLOBEX}).encode(), JSON),
}


@pytest.mark.parametrize(("body", "headers"), FOREIGN_BODIES.values(), ids=FOREIGN_BODIES)
@pytest.mark.parametrize("way", ["whole", "slow", "chunked"])
async def test_another_company_in_a_body_is_refused(
    proxy: Proxy, body: bytes, headers: dict[str, str], way: str
) -> None:
    """However the body is written, and in whatever pieces it comes, no whole request of it reaches Pleo."""
    before = carried_out(proxy)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    framing = "Transfer-Encoding: chunked" if way == "chunked" else f"Content-Length: {len(body)}"
    reader, writer = await asyncio.open_connection(*proxy.address)
    writer.write(f"POST /acme/v1/vendors HTTP/1.1\r\nHost: localhost\r\n{head}{framing}\r\n\r\n".encode())
    if way == "whole":
        writer.write(body)
    else:
        half = len(body) // 2
        for piece in (body[:half], body[half:]):
            await asyncio.sleep(0.01)  # so that the pieces come apart; either way the answer is the same
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if way == "chunked" else piece)
        if way == "chunked":
            writer.write(b"0\r\n\r\n")
    async with asyncio.timeout(10):
        status = await reader.readline()
    writer.close()
    assert status == b"HTTP/1.1 403 Forbidden\r\n"
    assert carried_out(proxy) == before
    assert proxy.lines("request.finished")[-1]["outcome"] == "policy-refused"


@pytest.mark.parametrize("size", [10, 100_000, 900_000, 3_000_000])
async def test_a_body_that_names_no_other_company_arrives_whole(proxy: Proxy, size: int) -> None:
    """What is looked into is sent as it came, whatever its size."""
    document = {"name": "x" * size, "note": 'Company Inc. \u00e4 \\ "'}
    if size < 900_000:
        document["companyId"] = ACME
    body = json.dumps(document).encode()
    answer = await proxy.call("POST", "/acme/v1/vendors:search", data=BytesIO(body), headers=JSON)
    assert answer.status < 500, answer.body
    assert proxy.pleo.api_requests[-1].target == "/v1/vendors:search"
    assert proxy.lines("request.finished")[-1]["bytes_in"] == len(body)


async def test_a_large_body_that_seems_to_name_a_company_is_refused(proxy: Proxy) -> None:
    """Beyond limits.replay_memory no document is read as a whole; what could name a company is refused."""
    before = carried_out(proxy)
    body = json.dumps({"name": "x" * 2_000_000, "companyId": ACME}).encode()
    answer = await proxy.call("POST", "/acme/v1/vendors", data=BytesIO(body), headers=JSON)
    assert "larger than limits.replay_memory" in refused(answer)
    assert carried_out(proxy) == before


async def test_a_tenant_without_a_pin_may_name_any_company(proxy: Proxy) -> None:
    """With --no-pin-company Pleo alone decides."""
    await enforce(proxy, Policy(pin_company=False))
    await proxy.get(f"/acme/v2/employees?company_id={GLOBEX}")
    assert proxy.pleo.api_requests[-1].target == f"/v2/employees?company_id={GLOBEX}"
    headers = {**JSON, "Content-Encoding": "gzip"}
    await proxy.call("POST", "/acme/v1/vendors", data=b"\x1f\x8b", headers=headers)
    assert proxy.pleo.api_requests[-1].target == "/v1/vendors"


# --- how much


async def test_a_tenant_at_its_rate_is_told_when_to_come_again(proxy: Proxy) -> None:
    """Beyond the rate 429 with Retry-After, at once and without Pleo; another tenant notices nothing."""
    await enforce(proxy, Policy(requests_per_minute=2))
    before = carried_out(proxy)
    assert (await proxy.get("/acme/v2/employees")).status == 200
    answer = await proxy.get("/acme/v2/employees")
    assert (answer.status, answer.header("Retry-After")) == (429, "30")
    refused(answer, "rate-limited")
    assert carried_out(proxy) == before + 1
    for _ in range(20):
        assert (await proxy.get("/globex/v2/employees?limit=1")).status == 200


async def test_what_is_refused_takes_nothing_from_the_rate(proxy: Proxy) -> None:
    """A request that the policy does not allow is not counted as one."""
    await enforce(proxy, Policy(Preset.READ_ONLY, requests_per_minute=2))
    for _ in range(5):
        assert (await proxy.call("POST", "/acme/v1/vendors", data=b"{}")).status == 403
    assert (await proxy.get("/acme/v2/employees")).status == 200


async def test_requests_under_way_are_limited(proxy: Proxy) -> None:
    """Beyond the number 429 at once; when one has ended, the next is let in; another tenant goes on."""
    await enforce(proxy, Policy(concurrency=2))
    async with proxy.pleo.hold_api("/v2/employees") as held:
        waiting = [asyncio.create_task(proxy.get("/acme/v2/employees")) for _ in range(2)]
        await held.arrived(2)
        answer = await proxy.get("/acme/v1/companies")
        assert answer.status == 429
        assert "2 requests of this tenant are under way" in refused(answer, "rate-limited")
        assert (await proxy.get("/globex/v1/companies")).status == 200
    assert [(await one).status for one in waiting] == [200, 200]
    assert (await proxy.get("/acme/v1/companies")).status == 200


async def test_a_caller_that_leaves_gives_its_place_back(proxy: Proxy) -> None:
    """However a request ends, it is no longer under way afterwards."""
    await enforce(proxy, Policy(concurrency=1))
    async with proxy.pleo.hold_api("/v2/employees") as held:
        _, writer = await asyncio.open_connection(*proxy.address)
        writer.write(b"GET /acme/v2/employees HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await held.arrived()
        writer.close()
        await until(lambda: [line["outcome"] for line in proxy.lines("request.finished")] == ["caller_left"])
        for _ in range(3):
            assert (await proxy.get("/acme/v1/companies")).status == 200
    big = await proxy.call("POST", "/acme/v1/vendors", data=b"x" * 100, headers={"Content-Encoding": "br"})
    assert big.status == 403
    assert (await proxy.get("/acme/v1/companies")).status == 200


async def test_a_body_has_the_tenants_size(proxy: Proxy) -> None:
    """An announced body is refused before it is sent, one in chunks as soon as it is too large."""
    await enforce(proxy, Policy(body_bytes=1000))
    assert (await proxy.call("POST", "/acme/v1/vendors:search", data=b" " * 998 + b"{}")).status == 200
    announced = await proxy.call("POST", "/acme/v1/vendors:search", data=b" " * 1001)
    assert announced.status == 413
    assert "this tenant's may have 1000" in refused(announced, "body-too-large")
    chunks = b"".join(b"1f4\r\n" + b"x" * 500 + b"\r\n" for _ in range(3)) + b"0\r\n\r\n"
    head = b"POST /acme/v1/vendors:search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    answer = await proxy.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_dead_grant_slows_no_other_tenant(proxy: Proxy) -> None:
    """While one tenant's callers wait for a provider that does not answer, another's are served as ever."""
    proxy.pleo.revoke_access("acme")
    async with proxy.pleo.hold_token_endpoint() as held:
        waiting = [asyncio.create_task(proxy.get("/acme/v2/employees")) for _ in range(50)]
        await held.arrived()
        async with asyncio.timeout(5):
            for _ in range(20):
                assert (await proxy.get("/globex/v2/employees?limit=1")).status == 200
        assert not any(one.done() for one in waiting)
    assert {(await one).status for one in waiting} == {200}


# --- on trial


async def test_a_policy_on_trial_refuses_nothing_and_tells_all(proxy: Proxy) -> None:
    """What each part of it would refuse passes, is logged with the rule, and counted."""
    trial = Policy(
        Preset.READ_ONLY, callers=("10.0.0.0/8",), requests_per_minute=1, concurrency=1, body_bytes=5
    )
    await enforce(proxy, Policy(), trial)
    assert (await proxy.get("/acme/v2/employees")).status == 200
    await enforce(proxy, Policy(), Policy(Preset.READ_ONLY))
    assert (await proxy.call("POST", "/acme/v1/vendors", data=b"{}", headers=JSON)).status < 500
    await enforce(proxy, Policy(), Policy(requests_per_minute=1))
    for _ in range(3):
        assert (await proxy.get("/acme/v2/employees")).status == 200
    await enforce(proxy, Policy(), Policy(body_bytes=5))
    await proxy.call("POST", "/acme/v1/vendors:search", data=b" " * 6)
    await enforce(proxy, Policy(pin_company=False), Policy())
    await proxy.get(f"/acme/v2/employees?company_id={GLOBEX}")
    await proxy.call(
        "POST", "/acme/v1/vendors", data=json.dumps({"companyId": GLOBEX}).encode(), headers=JSON
    )
    assert proxy.pleo.api_requests[-1].target == "/v1/vendors"
    lines = proxy.lines("policy.would_refuse")
    assert [line["rule"] for line in lines] == [
        "caller", "endpoint", "rate", "rate", "body", "company", "company",
    ]  # fmt: skip
    assert {line["tenant"] for line in lines} == {"acme"}
    assert lines[1]["detail"] == "POST /v1/vendors is outside the preset 'read-only'"
    finished = {line["request_id"] for line in proxy.lines("request.finished")}
    assert {line["request_id"] for line in lines} <= finished
    counted = proxy.metrics.render().decode()
    assert 'pleo_proxy_policy_would_refuse_total{rule="rate",tenant="acme"} 2.0' in counted


async def test_what_is_on_trial_takes_nothing_from_what_is_in_force(proxy: Proxy) -> None:
    """Each has a bucket of its own, and what both refuse is refused and told."""
    await enforce(proxy, Policy(requests_per_minute=2), Policy(requests_per_minute=2))
    assert (await proxy.get("/acme/v2/employees")).status == 200
    assert (await proxy.get("/acme/v2/employees")).status == 429
    assert len([fact for fact in proxy.facts if isinstance(fact, PolicyWouldRefuse)]) == 1


# --- Pleo's own numbers


@pytest.mark.parametrize(
    ("environment", "given", "expected", "ceiling"),
    [
        ("production", None, 500, 600),
        ("staging", None, 500, 600),
        ("production", 600, 600, 600),
        ("custom", None, None, None),
        ("custom", 9000, 9000, None),
    ],
)
def test_the_rate_by_environment(
    environment: str, given: int | None, expected: int | None, ceiling: int | None
) -> None:
    """500 a minute and never more than 600 at Pleo; whatever one likes elsewhere."""
    settings = Settings.model_validate(config(environment, given))
    assert (settings.tenant_requests_per_minute, settings.rate_ceiling) == (expected, ceiling)


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_a_rate_beyond_pleos_is_a_mistake(environment: str) -> None:
    """The settings say so, with the number."""
    with pytest.raises(ValueError, match="must not exceed the 600 that Pleo takes"):
        Settings.model_validate(config(environment, 601))


def config(environment: str, rate: int | None) -> dict[str, Any]:
    """Settings for an environment."""
    pleo: dict[str, Any] = {"environment": environment, "client_id": "id", "client_secret": "s"}
    if environment == "custom":
        pleo |= dict.fromkeys(("api_url", "authorize_url", "token_url"), "http://127.0.0.1:9")
    limits = {} if rate is None else {"tenant_requests_per_minute": rate}
    return {"pleo": pleo, "limits": limits}


async def test_the_settings_rate_holds_where_a_policy_has_none(pleo: Sandbox, tmp_path: Path) -> None:
    """limits.tenant_requests_per_minute and limits.tenant_concurrency are for every tenant."""
    limits = {"tenant_requests_per_minute": 2, "tenant_concurrency": 1}
    async with running_proxy(pleo, tmp_path, limits=limits) as proxy:
        for name in ("acme", "globex"):
            await proxy.add_tenant(name)
            await proxy.connect(name)
        assert (await proxy.get("/acme/v2/employees")).status == 200
        assert (await proxy.get("/acme/v2/employees")).status == 429
        await enforce(proxy, Policy(requests_per_minute=600, concurrency=3))
        for _ in range(5):
            assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
