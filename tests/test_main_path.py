"""The main job over real sockets with a simulated Pleo: seen from the caller, from Pleo, and from the log."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import StoreUnavailable
from proxy.model import Policy, Preset, Secret
from proxy.sandbox import API_KEYS, COMPANIES, ApiFault, Sandbox, TokenFault, fingerprint
from proxy.tenants import hash_legacy_key
from tests.harness import ADMIN_TOKEN, Proxy, free_port, running_proxy, until

ACME = COMPANIES["acme"]
GLOBEX = COMPANIES["globex"]


def company_of(proxy_answer_body: bytes) -> set[str]:
    """The companies whose data an answer holds."""
    return {row["companyId"] for row in json.loads(proxy_answer_body)["data"]}


async def test_a_request_without_credentials_gets_the_companys_data(proxy: Proxy) -> None:
    """A plain GET under a tenant's prefix gets that company's employees, and each tenant its own."""
    for tenant, company in (("acme", ACME), ("globex", GLOBEX)):
        answer = await proxy.get(f"/{tenant}/v2/employees")
        assert answer.status == 200
        assert company_of(answer.body) == {company}


# --- resolving


async def test_every_kind_of_route_leads_to_its_tenant(proxy: Proxy) -> None:
    """Path prefix, host, header and legacy key each name the tenant, and Pleo gets the same path."""
    key = "plp_old_key_of_acme"
    await proxy.add_tenant(
        "acme",
        company=ACME,
        hosts=("acme.proxy.internal",),
        legacy_keys=(hash_legacy_key(Secret(key)),),
    )
    basic = base64.b64encode(f"{key}:".encode()).decode()
    port = proxy.address[1]
    ways: list[tuple[str, dict[str, str]]] = [
        ("/acme/v2/employees", {}),
        ("/v2/employees", {"Host": f"acme.proxy.internal:{port}"}),
        ("/v2/employees", {"X-Pleo-Tenant": "acme"}),
        ("/v2/employees", {"Authorization": f"Basic {basic}"}),
        ("/acme/v2/employees", {"X-Pleo-Tenant": "acme", "Authorization": f"Basic {basic}"}),
    ]
    for path, headers in ways:
        answer = await proxy.get(path, headers=headers)
        assert answer.status == 200, (path, headers, answer.body)
        assert company_of(answer.body) == {ACME}
        request = proxy.pleo.api_requests[-1]
        assert request.target == "/v2/employees"
        assert len(request.header("Authorization")) == 1
        assert request.header("X-Pleo-Tenant") == []
    assert key.encode() not in proxy.log.getvalue()


async def test_a_callers_network_leads_to_its_tenant(pleo: Sandbox, tmp_path: Path) -> None:
    """A caller whose address is in a tenant's network needs to name nothing."""
    async with running_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme", networks=("127.0.0.0/8",))
        await proxy.connect("acme")
        answer = await proxy.get("/v2/employees?limit=1")
        assert (answer.status, company_of(answer.body)) == (200, {ACME})


async def test_routes_that_disagree_are_refused_and_reach_nobody(proxy: Proxy) -> None:
    """A request that two tenants' routes claim is never guessed."""
    before = len(proxy.pleo.api_requests)
    answer = await proxy.get("/acme/v2/employees", headers={"X-Pleo-Tenant": "globex"})
    assert answer.status == 400
    assert answer.json()["type"].endswith("/problems/tenant-ambiguous")
    assert "acme" in answer.json()["detail"]
    assert "globex" in answer.json()["detail"]
    assert len(proxy.pleo.api_requests) == before


REFUSED: list[Any] = [
    pytest.param("/nobody/v2/employees", {}, 404, "tenant-unknown", id="unknown-tenant"),
    pytest.param("/v2/employees", {}, 404, "tenant-unknown", id="no-route"),
    pytest.param("/v2/employees", {"X-Pleo-Tenant": "x"}, 404, "tenant-unknown", id="unknown-in-header"),
    pytest.param("/acme/v1/../v2/employees", {}, 400, "target-refused", id="dot-segment"),
    pytest.param("/acme/v1/%2e%2e/v2/employees", {}, 400, "target-refused", id="encoded-dot-segment"),
    pytest.param("/acme/v1%2Femployees", {}, 400, "target-refused", id="encoded-slash"),
    pytest.param("/acme/v1/a%5Cb", {}, 400, "target-refused", id="backslash"),
    pytest.param("/acme/v1/a%00b", {}, 400, "target-refused", id="control-character"),
    pytest.param("/acme/v1/a%zzb", {}, 400, "target-refused", id="bad-escape"),
    pytest.param("/acme/" + "a" * 9000, {}, 414, "target-too-long", id="target-too-long"),
    pytest.param("/acme/v1/x", {"X": "a" * 70_000}, 431, "head-too-large", id="field-too-large"),
    pytest.param(
        "/acme/v1/x", {f"X-{n}": "a" * 900 for n in range(80)}, 431, "head-too-large", id="head-too-large"
    ),
    pytest.param(
        "/acme/v1/x", {f"X-{n}": "a" for n in range(120)}, 431, "head-too-large", id="too-many-fields"
    ),
    pytest.param("/acme/v1/x", {"Host": "evil.example"}, 421, "host-refused", id="foreign-host"),
    pytest.param(
        "/acme/v1/x", {"Origin": "https://evil.example"}, 403, "browser-refused", id="foreign-origin"
    ),
    pytest.param("/acme/v1/x", {"Origin": "null"}, 403, "browser-refused", id="null-origin"),
    pytest.param("/acme/v1/x", {"Sec-Fetch-Site": "cross-site"}, 403, "browser-refused", id="cross-site"),
    pytest.param("/acme/v1/x", {"Via": "1.1 pleo-proxy"}, 508, "loop-detected", id="loop"),
]


@pytest.mark.parametrize(("path", "headers", "status", "name"), REFUSED)
async def test_a_bad_request_is_refused_with_a_problem_document(
    proxy: Proxy, path: str, headers: dict[str, str], status: int, name: str
) -> None:
    """Each refusal is an RFC 9457 document with Proxy-Status, in the log, and nothing reaches Pleo."""
    before = len(proxy.pleo.api_requests)
    answer = await proxy.get(path, headers=headers)
    assert answer.status == status
    assert answer.header("Content-Type") == "application/problem+json"
    proxy_status = answer.header("Proxy-Status")
    assert proxy_status is not None
    assert proxy_status.startswith("pleo-proxy; error=")
    problem = answer.json()
    assert problem["type"] == f"{proxy.admin_url}/problems/{name}"
    assert problem["status"] == status
    assert problem["request_id"] == answer.header("X-Request-Id")
    assert problem["title"]
    assert problem["detail"]
    assert problem["action"]
    assert len(proxy.pleo.api_requests) == before
    await until(lambda: proxy.lines("request.finished"))
    line = proxy.lines("request.finished")[-1]
    assert (line["status"], line["outcome"], line["request_id"]) == (status, name, problem["request_id"])
    # Of a head that the parser gave up on, not even the target counts as known.
    assert line["path"] in ("", path[:512])


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /acme/v1/x HTTP/1.1\r\n\r\n", id="missing-host"),
        pytest.param(b"GET /acme/v1/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two-hosts"),
        pytest.param(b"GET /acme/v1/x HTTP/1.1\r\nHost: a b\r\n\r\n", id="malformed-host"),
        pytest.param(b"GET acme HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", id="target-without-slash"),
        pytest.param(b"GET * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", id="asterisk"),
        pytest.param(b"GET /a#b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", id="fragment"),
        pytest.param(b"GET /acme/v1/x HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n", id="space-before-colon"),
        pytest.param(b"GET /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\n X: y\r\n\r\n", id="obs-fold"),
        pytest.param(
            b"POST /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="cl.te",
        ),
        pytest.param(
            b"POST /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n"
            b"Content-Length: 4\r\n\r\nabc",
            id="two-lengths",
        ),
        pytest.param(
            b"POST /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            id="bad-chunk-size",
        ),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="tls-on-a-plain-port"),
        pytest.param(b"hello\r\n\r\n", id="no-http"),
    ],
)
async def test_malformed_http_gets_400_and_a_closed_connection(proxy: Proxy, head: bytes) -> None:
    """What servers could read in two ways is refused as a whole, in the form of all refusals."""
    before = len(proxy.pleo.api_requests)
    answer = await proxy.raw(head + (b"" if head.endswith(b"\n") else b"\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer
    assert b"Content-Type: application/problem+json\r\n" in answer
    assert b"/problems/target-refused" in answer
    assert len(proxy.pleo.api_requests) == before


async def test_a_disabled_tenant_is_refused_and_keeps_its_grant(proxy: Proxy) -> None:
    """A tenant that is switched off answers 403; switched on again it works without a new consent."""
    await proxy.add_tenant("acme", company=ACME, enabled=False)
    answer = await proxy.get("/acme/v2/employees")
    assert (answer.status, answer.json()["tenant"]) == (403, "acme")
    assert answer.json()["type"].endswith("/problems/tenant-disabled")
    await proxy.add_tenant("acme", company=ACME)
    assert (await proxy.get("/acme/v2/employees")).status == 200


async def test_a_presets_limits_hold(proxy: Proxy) -> None:
    """A read-only tenant may read and search, and not write; the blocked endpoint is blocked for all."""
    await proxy.add_tenant("acme", company=ACME, policy=Policy(Preset.READ_ONLY))
    assert (await proxy.get("/acme/v2/employees")).status == 200
    assert (await proxy.call("POST", "/acme/v1/accounting-entries:search", data=b"{}")).status == 200
    refused = await proxy.call("POST", "/acme/v1/vendors", data=b"{}")
    assert (refused.status, refused.json()["type"].rpartition("/")[2]) == (403, "policy-refused")
    blocked = await proxy.call("DELETE", "/globex/v1/installations/me")
    assert blocked.status == 403
    assert proxy.pleo.api_requests[-1].method == "POST"
    assert (await proxy.get("/globex/v2/employees")).status == 200


# --- tokens


async def test_two_hundred_401s_at_once_cost_one_refresh(proxy: Proxy) -> None:
    """200 simultaneous requests with a token that Pleo has just revoked all get 200, for one refresh."""
    proxy.pleo.switches.rate_limit_per_minute = None
    proxy.pleo.revoke_access("acme")
    async with proxy.pleo.hold_api("/v2/employees") as gate:
        calls = [asyncio.create_task(proxy.get("/acme/v2/employees?limit=1")) for _ in range(100)]
        calls += [
            asyncio.create_task(proxy.call("POST", "/acme/v1/accounting-entries:search", data=b'{"limit":1}'))
            for _ in range(100)
        ]
        # The first hundred are at Pleo with the dead token before any of them is refused.
        await gate.arrived(100)
    answers = await asyncio.gather(*calls)
    assert [answer.status for answer in answers] == [200] * 200
    assert proxy.pleo.counters.refreshes_of(ACME) == 1
    assert proxy.pleo.counters.reuse_attempts == 0
    assert proxy.pleo.counters.dead_token_requests["revoked"] >= 100
    assert len(proxy.lines("token.refreshed")) == 1


async def test_an_expiring_token_is_refreshed_once_for_all_callers(proxy: Proxy) -> None:
    """When the token expires, fifty callers wait for one refresh and none meets a 401."""
    proxy.pleo.advance(901)
    answers = await asyncio.gather(*(proxy.get("/acme/v2/employees?limit=1") for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert proxy.pleo.counters.refreshes_of(ACME) == 1
    assert proxy.pleo.counters.dead_token_requests.total() == 0


async def test_a_token_in_use_is_refreshed_ahead_without_a_caller(proxy: Proxy) -> None:
    """A token that was used is refreshed at its advisory time by itself; an unused one is left alone."""
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
    proxy.pleo.advance(900 * 0.91)
    await until(lambda: proxy.lines("token.refreshed"))
    assert [line["tenant"] for line in proxy.lines("token.refreshed")] == ["acme"]
    assert proxy.lines("token.refresh_started")[0]["reason"] == "expiring"


async def test_an_idle_grant_is_kept_alive(proxy: Proxy) -> None:
    """Long before the refresh token's 60 days end, an idle grant is refreshed."""
    proxy.pleo.advance(31 * 86400)
    await until(lambda: len(proxy.lines("token.refreshed")) == 2)
    assert {line["reason"] for line in proxy.lines("token.refresh_started")} == {"keep_alive"}
    proxy.pleo.advance(31 * 86400)
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200


async def test_requests_wait_while_a_refresh_is_under_way(proxy: Proxy) -> None:
    """Pleo kills the old token at once when it rotates, so new requests wait for the new one."""
    proxy.pleo.advance(900 * 0.91)
    async with proxy.pleo.hold_token_endpoint(committed=True) as gate:
        call = asyncio.create_task(proxy.get("/acme/v2/employees?limit=1"))
        await gate.arrived()
        assert not call.done()
    assert (await call).status == 200
    assert proxy.pleo.counters.dead_token_requests.total() == 0


async def test_a_caller_that_leaves_does_not_cancel_the_refresh(proxy: Proxy) -> None:
    """The refresh that a caller caused goes on, and is saved, when that caller is gone."""
    proxy.pleo.advance(901)
    async with proxy.pleo.hold_token_endpoint(committed=True) as gate:
        call = asyncio.create_task(proxy.get("/acme/v2/employees"))
        await gate.arrived()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: proxy.app.exchange.under_way == 0)
    await until(lambda: proxy.lines("token.refreshed"))
    stored = await proxy.app.store.grant("acme")
    assert stored is not None
    assert stored.generation == 2
    assert (await proxy.get("/acme/v2/employees")).status == 200
    assert proxy.pleo.counters.refreshes_of(ACME) == 1


async def test_a_dead_grant_is_answered_at_once_and_heals_by_reconnecting(proxy: Proxy) -> None:
    """After Pleo ended a grant its calls get 503 with a reconnect link; others go on; a consent heals it."""
    await proxy.add_tenant(
        "globex", company=GLOBEX, policy=Policy(Preset.READ_ONLY), hosts=("globex.internal",)
    )
    proxy.pleo.revoke("globex")
    first = await proxy.get("/globex/v2/employees")
    assert first.status == 503
    problem = first.json()
    assert problem["type"].endswith("/problems/needs-reauth")
    assert problem["reconnect_url"] == f"{proxy.admin_url}/tenants/globex/connect"
    token_requests, api_requests = proxy.pleo.counters.token_requests, len(proxy.pleo.api_requests)
    for _ in range(5):
        assert (await proxy.get("/globex/v2/employees")).status == 503
    assert (proxy.pleo.counters.token_requests, len(proxy.pleo.api_requests)) == (
        token_requests,
        api_requests,
    )
    assert (await proxy.get("/acme/v2/employees")).status == 200
    assert proxy.lines("grant.needs_reauth")[0]["tenant"] == "globex"
    stored = await proxy.app.store.grant("globex")
    assert stored is not None
    assert (stored.access, stored.refresh) == (None, None)

    assert (await proxy.connect("globex")).status == 200
    assert (await proxy.get("/globex/v2/employees")).status == 200
    tenant = (await proxy.app.store.tenants())["globex"]
    assert (tenant.policy.preset, tenant.hosts) == (Preset.READ_ONLY, ("globex.internal",))


async def test_a_lost_answer_is_reported_as_such(proxy: Proxy) -> None:
    """If the answer to a refresh is lost and the next is refused, the log says so and not "revoked"."""
    proxy.pleo.revoke_access("acme")
    proxy.pleo.token_faults.append(TokenFault("drop", committed=True))
    answer = await proxy.get("/acme/v2/employees")
    assert answer.status == 503
    assert answer.json()["type"].endswith("/problems/provider-unavailable")
    assert proxy.lines("token.refresh_failed")[0]["outcome"] == "unknown"
    proxy.pleo.advance(2)
    assert (await proxy.get("/acme/v2/employees")).json()["type"].endswith("/problems/needs-reauth")
    assert proxy.lines("grant.needs_reauth")[0]["reason"] == "lost_answer"


async def test_a_dropped_refresh_that_pleo_never_saw_costs_nothing(proxy: Proxy) -> None:
    """If the request was lost before Pleo rotated, the one later retry brings the tenant back."""
    proxy.pleo.revoke_access("acme")
    proxy.pleo.token_faults.append(TokenFault("drop"))
    assert (await proxy.get("/acme/v2/employees")).status == 503
    proxy.pleo.advance(2)
    assert (await proxy.get("/acme/v2/employees")).status == 200


async def test_a_rotated_client_secret_touches_no_grant(proxy: Proxy) -> None:
    """invalid_client is the operator's fault: no grant changes, refreshes pause, live tokens go on."""
    proxy.pleo.rotate_client_secret("another")
    proxy.pleo.revoke_access("acme")
    answer = await proxy.get("/acme/v2/employees")
    assert (answer.status, answer.header("Retry-After")) == (503, "60")
    assert proxy.lines("token.refresh_failed")[0]["outcome"] == "client_rejected"
    attempts = proxy.pleo.counters.rejected_clients
    assert (await proxy.get("/acme/v2/employees")).status == 503
    assert proxy.pleo.counters.rejected_clients == attempts
    assert (await proxy.get("/globex/v2/employees")).status == 200
    for name in ("acme", "globex"):
        stored = await proxy.app.store.grant(name)
        assert stored is not None
        assert (stored.state.value, stored.refresh is not None) == ("connected", True)


async def test_a_pair_that_cannot_be_saved_is_not_used_and_not_lost(proxy: Proxy) -> None:
    """While the store takes nothing, a new pair waits; it is used when it is saved, and no grant is lost."""
    real = proxy.app.store.edit_grant
    calls = 0

    async def fails_once_at_saving(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreUnavailable("disk full")
        return await real(*args)

    proxy.app.store.edit_grant = fails_once_at_saving  # type: ignore[method-assign,assignment]
    proxy.pleo.revoke_access("acme")
    assert (await proxy.get("/acme/v2/employees")).status == 200
    assert [line["operation"] for line in proxy.lines("store.failed")] == ["save_grant"]
    stored = await real("acme", lambda grant: grant)
    assert stored is not None
    assert stored.generation == 2
    assert proxy.pleo.counters.refreshes_of(ACME) == 1


async def test_without_the_store_no_refresh_starts_and_live_tokens_serve(proxy: Proxy) -> None:
    """While the store is down, tokens in memory serve until they expire, and then the refusal says so."""

    async def down(*_: Any) -> Any:
        raise StoreUnavailable("gone")

    proxy.app.store.edit_grant = down  # type: ignore[method-assign,assignment]
    proxy.pleo.advance(900 * 0.91)
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
    proxy.pleo.advance(900)
    answer = await proxy.get("/acme/v2/employees?limit=1")
    assert answer.json()["type"].endswith("/problems/store-unavailable")
    assert proxy.pleo.counters.refreshes.total() == 0


async def test_a_sealed_value_that_does_not_open_is_loud_and_kept(pleo: Sandbox, tmp_path: Path) -> None:
    """A token that was moved to another tenant's row is refused with 503, logged, and not erased."""
    async with running_proxy(pleo, tmp_path) as proxy:
        for name in ("acme", "globex"):
            await proxy.add_tenant(name)
            await proxy.connect(name)
        stolen = await proxy.app.store.grant("globex")
        assert stolen is not None

        def swap(grant: Any) -> Any:
            return type(grant)(
                **{
                    field: getattr(stolen if field in ("access", "refresh") else grant, field)
                    for field in grant.__slots__
                }
            )

        await proxy.app.store.edit_grant("acme", swap)
    async with running_proxy(pleo, tmp_path) as proxy:
        answer = await proxy.get("/acme/v2/employees")
        assert answer.status == 503
        assert answer.json()["type"].endswith("/problems/sealed-value-refused")
        assert proxy.lines("vault.value_refused")[0]["tenant"] == "acme"
        assert (await proxy.get("/globex/v2/employees")).status == 200
        kept = await proxy.app.store.grant("acme")
        assert kept is not None
        assert kept.access == stolen.access


async def test_everything_is_there_after_a_restart(pleo: Sandbox, tmp_path: Path) -> None:
    """Tenants and grants outlive the process; the token in use goes on without a refresh."""
    async with running_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
    async with running_proxy(pleo, tmp_path) as proxy:
        assert (await proxy.get("/acme/v2/employees")).status == 200
        assert pleo.counters.refreshes.total() == 0


# --- bodies and the upstream


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_bodies_of_any_size_arrive_whole_also_after_a_401(proxy: Proxy, size: int) -> None:
    """A body reaches Pleo unchanged, and the same again after a 401."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    proxy.pleo.revoke_access("acme")
    answer = await proxy.call("POST", "/acme/v1/sandbox/echo", data=io.BytesIO(body))
    assert answer.status == 200
    assert answer.json()["bodySha256"] == hashlib.sha256(body).hexdigest()
    sent = [request for request in proxy.pleo.api_requests if request.target == "/v1/sandbox/echo"]
    assert [request.status for request in sent] == [401, 200]
    assert len({fingerprint(header) for request in sent for header in request.header("Authorization")}) == 2


async def test_a_large_answer_streams_through(proxy: Proxy) -> None:
    """Ten mebibytes come back byte for byte."""
    size = 10 * 1024 * 1024
    answer = await proxy.get(f"/acme/v1/sandbox/bytes?size={size}")
    assert len(answer.body) == size
    assert proxy.lines("request.finished")[-1]["bytes_out"] == size


async def test_a_body_over_the_limit_is_refused(pleo: Sandbox, tmp_path: Path) -> None:
    """With a length the refusal comes before anything is sent; without one the upload is broken off."""
    async with running_proxy(pleo, tmp_path, limits={"body_bytes": 1000}) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        answer = await proxy.call("POST", "/acme/v1/sandbox/echo", data=b"x" * 1001)
        assert (answer.status, answer.json()["type"].rpartition("/")[2]) == (413, "body-too-large")
        assert "1000" in answer.json()["detail"]

        async def chunks() -> Any:
            for _ in range(3):
                yield b"x" * 500

        answer = await proxy.call("POST", "/acme/v1/sandbox/echo", data=chunks())
        assert answer.status == 413
        assert all(request.status != 200 for request in pleo.api_requests if "echo" in request.target)
        assert (await proxy.call("POST", "/acme/v1/sandbox/echo", data=b"x" * 1000)).status == 200


async def test_an_unreachable_pleo_is_502(pleo: Sandbox, tmp_path: Path) -> None:
    """Nobody listens at the API's address: a problem document and Proxy-Status say so."""
    async with running_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
    async with running_proxy(pleo, tmp_path, pleo={"api_url": f"http://127.0.0.1:{free_port()}"}) as proxy:
        answer = await proxy.get("/acme/v2/employees")
        assert answer.status == 502
        assert answer.header("Proxy-Status") == "pleo-proxy; error=destination_unavailable"
        assert answer.json()["type"].endswith("/problems/upstream-unreachable")


async def test_a_slow_pleo_is_504(pleo: Sandbox, tmp_path: Path) -> None:
    """No answer within limits.idle_s: a problem document and Proxy-Status say so."""
    async with running_proxy(pleo, tmp_path, limits={"idle_s": 0.3}) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        async with pleo.hold_api("/v2/employees"):
            answer = await proxy.get("/acme/v2/employees")
        assert answer.status == 504
        assert answer.header("Proxy-Status") == "pleo-proxy; error=http_response_timeout"
        assert answer.json()["type"].endswith("/problems/upstream-timeout")


async def test_pleos_own_errors_pass_through_untouched(proxy: Proxy) -> None:
    """403, 429 with Retry-After and 5xx are Pleo's answers and come back as they are, without a refresh."""
    for status in (403, 429, 500, 503):
        proxy.pleo.api_faults.append(ApiFault("status", "^/v2/employees", status=status, retry_after="7"))
        answer = await proxy.get("/acme/v2/employees")
        assert answer.status == status
        assert answer.header("Proxy-Status") is None
        assert not answer.body.startswith(b'{"type":"http')
    assert proxy.pleo.counters.refreshes.total() == 0


# --- secrets


def files_and_key(state_dir: Path) -> tuple[bytes, str]:
    """All that is on disk but the key file, and the key."""
    files = b"".join(path.read_bytes() for path in state_dir.iterdir() if path.name != "keys")
    return files, (state_dir / "keys").read_text().strip().partition(":")[2]


async def test_no_secret_is_in_any_output(pleo: Sandbox, tmp_path: Path) -> None:
    """After a life with refreshes, failures and a revocation, no token, code, secret or key is anywhere."""
    pages: list[str] = []
    async with running_proxy(pleo, tmp_path) as proxy:
        for name in ("acme", "globex"):
            await proxy.add_tenant(name)
            visit = await proxy.connect(name)
            pages += [visit.text, visit.url]
        answers = [await proxy.get("/acme/v2/employees?limit=1")]
        pleo.revoke_access("acme")
        answers.append(await proxy.get("/acme/v2/employees?limit=1"))
        pleo.token_faults.append(TokenFault("html"))
        pleo.revoke_access("acme")
        answers.append(await proxy.get("/acme/v2/employees?limit=1"))
        pleo.revoke("globex")
        answers.append(await proxy.get("/globex/v2/employees"))
        visit = await proxy.connect("acme", company="globex")
        assert visit.status == 409
        pages += [visit.text, visit.url]
        for path in ("/metrics", "/", "/readyz", "/problems/needs-reauth", "/tenants/acme/connect"):
            async with proxy.session.get(proxy.admin_url + path) as page:
                pages.append(await page.text())
        bearer = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        for path in ("/api/v1/tenants", "/api/v1/grants"):
            async with proxy.session.get(proxy.admin_url + path, headers=bearer) as listing:
                pages.append(await listing.text())
        log = proxy.log.getvalue()
    files, keys = files_and_key(tmp_path)
    shown = {
        "log": log,
        "pages": "\n".join(pages).encode(),
        "answers": b"\n".join(answer.body + repr(answer.headers).encode() for answer in answers),
        "files": files,
    }
    issued = pleo.authority.secrets_issued()
    assert len(issued) > 10
    for secret in {*issued, *API_KEYS.values(), ADMIN_TOKEN, keys}:
        for where, output in shown.items():
            assert secret.encode() not in output, f"a secret is in the {where}"
