"""``explain`` and its API: what is said of a request is what a running proxy does with it."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from proxy import lifecycle, wiring
from proxy.config import Settings
from proxy.credentials import hash_shared_key
from proxy.errors import PolicyRefused, QuestionError
from proxy.explain import Question
from proxy.model import Policy, Preset, Secret, Tenant, Unblocked
from proxy.sandbox import COMPANIES, Sandbox
from proxy.tenants import Directory, hash_legacy_key
from tests.command import Cli, write_config
from tests.harness import ADMIN_TOKEN, Answer, Proxy, running_proxy
from tests.operator_browser import ask

ACME, GLOBEX = COMPANIES["acme"], COMPANIES["globex"]
BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
VIEWER_TOKEN = "viewer-token-of-the-tests"
LEGACY_KEY = "plp_old_key_of_acme"
SHARED_KEY = "shared-key-of-the-tests-0123456789"
KEY_OF_ACME = "Authorization: Basic " + base64.b64encode(f"{LEGACY_KEY}:".encode()).decode()


@pytest.fixture
async def world(pleo: Sandbox, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy with tenants of every kind, behind which Pleo answers for acme and globex."""
    async with running_proxy(
        pleo,
        tmp_path,
        listen={"hosts": ["proxy.internal"]},
        limits={"head_bytes": 16 * 1024},
        admin={"token": ADMIN_TOKEN, "viewer_token": VIEWER_TOKEN},
    ) as running:
        trial = Policy(Preset.READ_ONLY, deny=("GET /v1/vendors",))
        await running.add_tenant(
            "acme",
            company=ACME,
            hosts=("acme.internal",),
            legacy_keys=(hash_legacy_key(Secret(LEGACY_KEY)),),
            trial=trial,
        )
        await running.add_tenant(
            "globex",
            company=GLOBEX,
            policy=Policy(Preset.READ_ONLY, deny=("* /v1/vendors/**",), body_bytes=10),
        )
        for name in ("acme", "globex"):
            assert (await running.connect(name)).status == 200
        await running.add_tenant("off", enabled=False)
        await running.add_tenant("fresh")
        await running.add_tenant("ended", company=ACME)
        assert (await running.connect("ended", "acme")).status == 200
        await running.app.store.edit_grant("ended", lifecycle.revoked)
        await running.app.watch.take_up()
        await running.add_tenant("keyed", shared_keys=(hash_shared_key(Secret(SHARED_KEY)),))
        await running.add_tenant("shown", certificates=("san:dns:tool.internal",))
        await running.add_tenant("far", policy=Policy(callers=("10.0.0.0/8",)))
        await running.add_tenant(
            "picky", policy=Policy(allow=("GET /v1/expenses",), unblock=tuple(Unblocked))
        )
        yield running


async def asked(proxy: Proxy, question: Question, **options: Any) -> dict[str, Any]:
    """What the API says of a request."""
    answer = await post(proxy, body_of(question), **options)
    assert answer.status == 200, answer.body
    told: dict[str, Any] = answer.json()
    return told


async def post(proxy: Proxy, body: Any, token: str = ADMIN_TOKEN) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return await ask(proxy, "POST", "/api/v1/explain", headers=headers, data=data)


def body_of(question: Question) -> dict[str, Any]:
    body = {
        "path": question.path,
        "method": question.method,
        "from": question.caller,
        "host": question.host,
        "headers": list(question.headers),
        "certificates": list(question.certificates),
    }
    return {name: value for name, value in body.items() if value is not None}


@dataclass(frozen=True)
class Got:
    """What a running proxy did with a request."""

    status: int
    problem: dict[str, Any] | None
    sent: Any


async def tried(proxy: Proxy, question: Question) -> Got:
    """Send the request, with as much of a body as it announces and Pleo could want."""
    before = len(proxy.pleo.api_requests)
    answer = await proxy.raw(question.lines() + b"\r\n" + b"{}   "[: 5 if with_body(question) else 0])
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    is_ours = b"application/problem+json" in head
    reached = list(proxy.pleo.api_requests)[before:]
    return Got(status, json.loads(body) if is_ours else None, reached[-1] if reached else None)


def with_body(question: Question) -> bool:
    return any(line.lower().startswith("content-length: 5") for line in question.headers)


REQUESTS: dict[str, Question] = {
    "by-prefix": Question("/acme/v2/employees"),
    "query": Question("/acme/v2/employees?limit=1"),
    "by-host": Question("/v2/employees", host="acme.internal"),
    "by-host-and-port": Question("/v2/employees", host="ACME.internal:8080"),
    "by-header": Question("/v2/employees", headers=("X-Pleo-Tenant: globex",)),
    "by-legacy-key": Question("/v2/employees", headers=(KEY_OF_ACME,)),
    "by-two-routes": Question("/acme/v2/employees", headers=("X-Pleo-Tenant: acme", KEY_OF_ACME)),
    "configured-host": Question("/acme/v1/companies", host="proxy.internal"),
    "absolute-form": Question("http://acme.internal/v1/companies", host="proxy.internal"),
    "prefix-alone": Question("/acme"),
    "search": Question("/globex/v1/vendors:search", "POST", headers=("Content-Length: 5",)),
    "head-method": Question("/acme/v2/employees", "HEAD"),
    "options": Question("/acme/v2/employees", "OPTIONS", headers=("Max-Forwards: 3",)),
    "hop-by-hop": Question(
        "/acme/v2/employees",
        headers=(
            "Connection: X-Mine", "X-Mine: 1", "Keep-Alive: 5", "Cookie: a=b", "Accept: */*", "TE: gzip",
            "Forwarded: for=10.0.0.1", "X-Twice: 1", "X-Twice: 2", "X_Pleo_Tenant: acme",
            "Accept: text/plain",
        ),
    ),
    "refused-by-trial-alone": Question("/acme/v1/vendors", "POST", headers=("Content-Length: 5",)),
    "own-company": Question(f"/acme/v2/employees?company_id={ACME}"),
    "legacy-path-that-is-allowed": Question("/picky/v1/expenses"),
    "unknown-prefix": Question("/nobody/v2/employees"),
    "no-route": Question("/v2/employees"),
    "unknown-in-header": Question("/v2/employees", headers=("X-Pleo-Tenant: nobody",)),
    "tenant-header-twice": Question("/", headers=("X-Pleo-Tenant: acme", "X-Pleo-Tenant: acme")),
    "routes-disagree": Question("/acme/v2/employees", headers=("X-Pleo-Tenant: globex",)),
    "three-routes-disagree": Question("/globex/v1/x", host="acme.internal", headers=(KEY_OF_ACME,)),
    "disabled": Question("/off/v2/employees"),
    "never-connected": Question("/fresh/v2/employees"),
    "revoked": Question("/ended/v2/employees"),
    "no-shared-key": Question("/keyed/v2/employees"),
    "wrong-shared-key": Question("/keyed/v2/employees", headers=("X-Pleo-Proxy-Key: wrong",)),
    "shared-key-twice": Question("/keyed/v1/x", headers=("X-Pleo-Proxy-Key: a", "X-Pleo-Proxy-Key: b")),
    "right-shared-key": Question("/keyed/v2/employees", headers=(f"X-Pleo-Proxy-Key: {SHARED_KEY}",)),
    "no-certificate": Question("/shown/v2/employees"),
    "callers-network": Question("/far/v2/employees"),
    "outside-preset": Question("/globex/v1/things", "POST"),
    "denied": Question("/globex/v1/vendors/7"),
    "blocked": Question("/acme/v1/installations/me", "DELETE"),
    "blocked-in-disguise": Question("/acme/v1//Installations/me;x/", "DELETE"),
    "trace": Question("/acme/v1/companies", "TRACE"),
    "outside-allowed": Question("/picky/v1/companies"),
    "legacy-path": Question("/acme/v1/expenses?pageOffset=0"),
    "legacy-path-without-version": Question("/employees", host="acme.internal"),
    "legacy-path-not-connected": Question("/fresh/teams"),
    "another-company": Question(f"/acme/v2/employees?company_id={GLOBEX}"),
    "body-too-large": Question("/globex/v1/vendors:search", "POST", headers=("Content-Length: 11",)),
    "encoded-body": Question(
        "/acme/v1/vendors:search", "POST", headers=("Content-Length: 5", "Content-Encoding: gzip")
    ),
    "dot-segment": Question("/acme/v1/../v2/employees"),
    "encoded-slash": Question("/acme/v1%2Femployees"),
    "bad-escape": Question("/acme/v1/a%zzb"),
    "method-parameter": Question("/acme/v1/x?_method=DELETE"),
    "space-in-path": Question("/acme/v1/a b"),
    "letter-beyond-ascii": Question("/acme/v1/ä"),
    "no-slash": Question("acme/v1/x"),
    "asterisk": Question("*", "OPTIONS"),
    "target-too-long": Question("/acme/" + "a" * 8300),
    "head-too-large": Question("/acme/v1/x", headers=("X: " + "a" * 17_000,)),
    "too-many-fields": Question("/acme/v1/x", headers=tuple(f"X-{n}: a" for n in range(120))),
    "small-letters": Question("/acme/v1/x", "get"),
    "connect": Question("acme.internal:443", "CONNECT"),
    "foreign-host": Question("/acme/v1/x", host="evil.example"),
    "malformed-host": Question("/acme/v1/x", host="a b"),
    "empty-host": Question("/acme/v1/x", host=""),
    "two-hosts": Question("/acme/v1/x", host="127.0.0.1", headers=("host: 127.0.0.1",)),
    "absolute-foreign-host": Question("http://evil.example/acme/v1/x"),
    "origin": Question("/acme/v1/x", headers=("Origin: https://evil.example",)),
    "cross-site": Question("/acme/v1/x", headers=("Sec-Fetch-Site: cross-site",)),
    "loop": Question("/acme/v1/x", headers=("Via: 1.1 pleo-proxy",)),
    "last-forwarding": Question("/acme/v1/x", "OPTIONS", headers=("Max-Forwards: 0",)),
    "two-lengths": Question("/acme/v1/x", "POST", headers=("Content-Length: 5", "Content-Length: 5")),
    "cl.te": Question(
        "/acme/v1/x", "POST", headers=("Content-Length: 5", "Transfer-Encoding: chunked")
    ),
    "bad-field-name": Question("/acme/v1/x", headers=("X Y: 1",)),
    "folded-line": Question("/acme/v1/x", headers=(" X: 1",)),
}  # fmt: skip


async def agree(proxy: Proxy, question: Question) -> str:
    """Hold what is said of a request to what is done with it; returns what came of it."""
    question = replace(question, headers=(*question.headers, "Connection: close"))
    told = await asked(proxy, question)
    got = await tried(proxy, question)
    assert told["forwarded"] is (got.problem is None), (question, told, got)
    if got.problem is None:
        sends = told["sends"]
        assert got.sent.target.partition("?")[0] == sends["path"]
        added = [line.partition(":")[0] for line in sends["added"]]
        names = [name for name, _ in got.sent.headers]
        assert sorted(map(str.lower, names)) == sorted(map(str.lower, [*sends["passed_on"], *added]))
        assert told["refusal"] is None
        return "forwarded"
    assert got.sent is None
    said = dict(told["refusal"])
    name = said.pop("name")
    assert said == {key: value for key, value in got.problem.items() if key != "request_id"}, question
    assert got.status == said["status"]
    assert told["tenant"] == got.problem["tenant"]
    assert told["sends"] is None
    return str(name)


async def test_what_is_said_is_what_is_done(world: Proxy) -> None:
    """For good requests and refused ones of every kind: verdict, type, detail, tenant, what goes up."""
    outcomes = {name: await agree(world, question) for name, question in REQUESTS.items()}
    assert {outcomes[name] for name in list(REQUESTS)[:16]} == {"forwarded"}
    assert set(outcomes.values()) == {
        "forwarded", "tenant-unknown", "tenant-ambiguous", "tenant-disabled", "needs-reauth",
        "policy-refused", "browser-refused", "host-refused", "target-refused", "target-too-long",
        "head-too-large", "body-too-large", "loop-detected",
    }  # fmt: skip


PIECES: dict[str, Sequence[str]] = {
    "prefix": ["/acme", "/globex", "/fresh", "/off", "/far", "/nobody", ""],
    "path": [
        "/v2/employees", "/v1/vendors", "/v1/vendors/7", "/expenses", "/v1/companies/balance", "/v1/%2e%2e/x",
        "/v1/subscriptions/7/secret", "/", "//evil.example/v1/x", "/v1/x;y?a=1", f"/v1/x?companyId={GLOBEX}",
    ],
    "method": ["GET", "GET", "POST", "DELETE", "OPTIONS"],
    "host": ["127.0.0.1", "acme.internal", "localhost:1", "evil.example", "[::1]"],
}  # fmt: skip
FIELDS = [
    "X-Pleo-Tenant: acme", "X-Pleo-Tenant: globex", KEY_OF_ACME, "Content-Length: 5", "Cookie: a",
    "Accept: */*", "Origin: http://acme.internal", "Max-Forwards: 1", "Connection: Accept",
    "X-Forwarded-For: 10.1.1.1",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_said_of_any_mixture_is_what_is_done(world: Proxy, seed: int) -> None:
    """Routes, policies and what the door looks for, thrown together, are explained as they are served."""
    draw = random.Random(seed)
    outcomes = set()
    for _ in range(60):
        parts = {name: draw.choice(choices) for name, choices in PIECES.items()}
        question = Question(
            parts["prefix"] + parts["path"],
            parts["method"],
            host=parts["host"],
            headers=tuple(draw.sample(FIELDS, draw.randrange(4))),
        )
        outcomes.add(await agree(world, question))
    assert len(outcomes) > 4


FORWARDED = {
    "network": (("X-Forwarded-For: 10.1.1.1",), "forwarded"),
    "network-by-the-standard": (("Forwarded: for=10.1.1.1;proto=https",), "forwarded"),
    "host": (("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: acme.internal"), "forwarded"),
    "own-hosts-name": (("X-Forwarded-For: 10.1.1.1", "X-Forwarded-Host: proxy.example"), "forwarded"),
    "foreign-host": (("X-Forwarded-For: 10.1.1.1", "X-Forwarded-Host: evil.example"), "host-refused"),
    "another-network": (("X-Forwarded-For: 192.0.2.1",), "tenant-unknown"),
    "nobody-told": ((), "tenant-unknown"),
    "two-callers": (("X-Forwarded-For: 10.1.1.1", "Forwarded: for=10.1.1.2"), "target-refused"),
}


async def test_what_a_trusted_proxy_says_counts_as_it_does(pleo: Sandbox, tmp_path: Path) -> None:
    """Who the caller is, and for which host the request is, is taken from where the main path takes it."""
    behind = {"trusted_proxies": ["127.0.0.0/8"], "hosts": ["proxy.example"]}
    async with running_proxy(pleo, tmp_path, listen=behind) as proxy:
        await proxy.add_tenant("acme", company=ACME, hosts=("acme.internal",), networks=("10.0.0.0/8",))
        await proxy.connect("acme")
        for name, (fields, outcome) in FORWARDED.items():
            assert await agree(proxy, Question("/v2/employees", headers=fields)) == outcome, name
        told = await asked(proxy, Question("/v2/employees", headers=FORWARDED["network"][0]))
        assert told["caller"] == "10.1.1.1"
        refused = Question("/v2/employees", host="evil.example", headers=FORWARDED["host"][0])
        assert await agree(proxy, refused) == "host-refused"
        elsewhere = Question("/v2/employees", caller="192.0.2.9", headers=FORWARDED["network"][0])
        assert (await asked(proxy, elsewhere))["refusal"]["name"] == "tenant-unknown"


def test_each_listener_is_asked_about_as_it_is_set(tmp_path: Path) -> None:
    """A tenant's own listener leads to it, a certificate counts where TLS is, and the first is meant else."""
    (tmp_path / "x.pem").touch()
    tls = {name: str(tmp_path / "x.pem") for name in ("tls_certificate", "tls_key", "client_ca")}
    settings = Settings.model_validate(
        {
            "listen": {
                "proxy": [
                    f"unix:{tmp_path}/callers.sock",
                    "127.0.0.1:8080",
                    {"address": "127.0.0.1:8081", "tenant": "acme"},
                    {"address": "127.0.0.1:8443", **tls},
                ],
                "admin": "127.0.0.1:8090",
            },
            "pleo": {"client_id": "x", "client_secret": "y", "environment": "staging"},
            "store": {"url": f"sqlite://{tmp_path}/proxy.db", "state_dir": str(tmp_path)},
        }
    )
    tenants = [Tenant("acme"), Tenant("tool", certificates=("san:dns:tool.internal",))]
    directory = Directory({tenant.name: tenant for tenant in tenants})
    explainer = wiring.explainer(settings, directory, {}, lambda _: None)

    def told(question: Question) -> tuple[str | None, list[str], bool]:
        found = explainer.explain(question)
        return found["tenant"], [each["route"] for each in found["routes"]], found["forwarded"]

    shown = Question("/v1/x", certificates=("san:dns:TOOL.internal",))
    assert told(shown) == (None, [], False)
    assert told(replace(shown, listener="127.0.0.1:8443")) == ("tool", ["certificate"], True)
    assert told(replace(shown, listener="127.0.0.1:8081")) == ("acme", ["listener"], True)
    assert told(Question("/tool/v1/x", listener="127.0.0.1:8443")) == ("tool", ["path prefix"], False)
    with pytest.raises(
        QuestionError, match=r"there: 127\.0\.0\.1:8080, 127\.0\.0\.1:8081, 127\.0\.0\.1:8443"
    ):
        told(Question("/v1/x", listener=f"unix:{tmp_path}/callers.sock"))
    with pytest.raises(QuestionError, match="no IP address"):
        told(Question("/v1/x", caller="10.0.0.0/8"))


def test_who_listens_on_unix_sockets_alone_is_told_so(tmp_path: Path) -> None:
    """There is nothing to ask about, and the error says why."""
    settings = Settings.model_validate(
        {
            "listen": {"proxy": f"unix:{tmp_path}/callers.sock"},
            "pleo": {"client_id": "x", "client_secret": "y", "environment": "staging"},
        }
    )
    explainer = wiring.explainer(settings, Directory({}), {}, lambda _: None)
    with pytest.raises(QuestionError, match="none, for Unix sockets cannot be asked about"):
        explainer.explain(Question("/v1/x"))


async def test_asking_changes_nothing_and_counts_nothing(world: Proxy) -> None:
    """No token of a bucket is taken, Pleo hears nothing, and store, log and metrics are as they were."""
    await world.add_tenant("acme", company=ACME, policy=Policy(requests_per_minute=1, concurrency=1))
    before = (await world.app.store.tenants(), await world.app.store.grants())
    facts, reached, metrics = len(world.facts), len(world.pleo.api_requests), world.metrics.render()
    for _ in range(5):
        assert (await asked(world, Question("/acme/v2/employees")))["forwarded"]
        assert not (await asked(world, Question("/acme/expenses")))["forwarded"]
    assert (await world.app.store.tenants(), await world.app.store.grants()) == before
    assert (len(world.facts), len(world.pleo.api_requests)) == (facts, reached)
    assert requests_in(world.metrics.render()) == requests_in(metrics)
    assert (await world.get("/acme/v2/employees")).status == 200
    assert (await world.get("/acme/v2/employees")).status == 429


def requests_in(rendered: bytes) -> list[str]:
    """What the metrics say of requests and policies."""
    lines = rendered.decode().splitlines()
    return [line for line in lines if line.startswith(("pleo_proxy_requests", "pleo_proxy_policy"))]


async def test_both_policies_are_told_with_the_rule_that_decides(world: Proxy) -> None:
    """The one in force and the one on trial each have a verdict of their own."""
    told = await asked(world, Question("/acme/v1/vendors"))
    assert told["policy"] == {"verdict": "allowed", "rule": "the preset 'full'", "detail": None}
    assert told["trial"] == {
        "verdict": "refused",
        "rule": "the rule 'GET /v1/vendors'",
        "detail": "GET /v1/vendors is denied by the rule 'GET /v1/vendors'",
    }
    told = await asked(world, Question("/acme/v2/employees"))
    assert told["trial"]["rule"] == "the preset 'read-only'"
    told = await asked(world, Question("/far/v1/expenses"))
    assert told["policy"] == {
        "verdict": "refused", "rule": None, "detail": "the policy lets no callers in from 127.0.0.1",
    }  # fmt: skip
    assert (await asked(world, Question("/nobody/")))["policy"] is None


async def test_a_path_of_the_old_api_is_answered_with_todays(world: Proxy) -> None:
    """A caller gets the pointer in a refusal that says what to do, unless a rule allows the path."""
    answer = await world.get("/acme/v1/expenses?pageOffset=0&pageSize=50")
    problem = answer.json()
    assert (answer.status, problem["type"].rpartition("/")[2]) == (403, "policy-refused")
    assert problem["detail"].startswith(
        "GET /v1/expenses is of Pleo's old API, today POST /v1/accounting-ent"
    )
    assert problem["action"].startswith("Have the tool call what the detail names")
    assert (problem["title"], problem["tenant"]) == (PolicyRefused.title, "acme")
    before = len(world.pleo.api_requests)
    await world.add_tenant("acme", policy=Policy(allow=("GET /v1/expenses",)), trial=Policy())
    assert (await world.get("/acme/v1/expenses")).header("Proxy-Status") is None
    assert len(world.pleo.api_requests) == before + 1
    assert [line["rule"] for line in world.lines("policy.would_refuse")] == ["legacy"] * 2


async def test_routes_and_grant_are_told(world: Proxy) -> None:
    """Every route that claims the request with its tenant, and the tenant's grant as the listing has it."""
    told = await asked(world, Question("/acme/v1/x", host="acme.internal", headers=(KEY_OF_ACME,)))
    assert told["routes"] == [
        {"route": "path prefix", "tenant": "acme"},
        {"route": "host", "tenant": "acme"},
        {"route": "legacy key", "tenant": "acme"},
    ]
    assert (told["grant"]["tenant"], told["grant"]["state"]) == ("acme", "connected")
    told = await asked(world, Question("/acme/v1/x", headers=("X-Pleo-Tenant: globex",)))
    assert [each["tenant"] for each in told["routes"]] == ["acme", "globex"]
    assert told["grant"] is None
    told = await asked(world, Question("/ended/v1/x"))
    assert (told["grant"]["state"], told["refusal"]["name"]) == ("revoked", "needs-reauth")
    assert told["refusal"]["reconnect_url"] == f"{world.admin_url}/tenants/ended/connect"


async def test_a_default_tenant_is_told_as_the_route(pleo: Sandbox, tmp_path: Path) -> None:
    """Where nothing claims the request, the setting that names its tenant does."""
    async with running_proxy(pleo, tmp_path, listen={"default_tenant": "acme"}) as proxy:
        await proxy.add_tenant("acme")
        told = await asked(proxy, Question("/v2/employees"))
        assert told["routes"] == [{"route": "listen.default_tenant", "tenant": "acme"}]


async def test_what_goes_up_is_told_by_names(world: Proxy) -> None:
    """What stays behind, what is added and what passes, and never what a caller's header holds."""
    told = await asked(
        world,
        Question(
            "/acme/v2/employees?secret=1",
            headers=(KEY_OF_ACME, "Cookie: sesame", "X-Api-Key: sesame", "Connection: close"),
        ),
    )
    assert told["sends"] == {
        "to": str(world.settings.api_origin),
        "path": "/v2/employees",
        "removed_prefix": "/acme",
        "passed_on": ["X-Api-Key"],
        "stripped": ["Host", "Authorization", "Cookie", "Connection"],
        "added": [
            f"Host: {world.settings.api_origin.authority}",
            "Via: 1.1 pleo-proxy",
            "Authorization: Bearer, with the access token of the tenant",
        ],
    }
    assert "sesame" not in json.dumps(told)
    assert told["not_asked"] == ["how many requests come in a minute or are under way", "Pleo"]
    with_a_body = await asked(world, Question("/acme/v1/x", "POST", headers=("Content-Length: 5",)))
    assert "what the body holds" in with_a_body["not_asked"][0]


async def test_an_expectation_goes_up_with_a_body_that_waits(world: Proxy) -> None:
    """A caller that holds its body back until it is asked has its ``Expect`` passed on, and told so."""
    question = Question(
        "/acme/v1/vendors:search",
        "POST",
        headers=("Content-Length: 2", "Expect: 100-continue", "Connection: close"),
    )
    told = await asked(world, question)
    reader, writer = await asyncio.open_connection(*world.address)
    async with asyncio.timeout(10):
        writer.write(question.lines() + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
        writer.write(b"{}")
        assert b"HTTP/1.1 200 " in await reader.read()
    writer.close()
    assert world.pleo.api_requests[-1].header("Expect") == ["100-continue"]
    assert told["sends"]["passed_on"] == ["Content-Length", "Expect"]


SECRETS = (LEGACY_KEY, SHARED_KEY, KEY_OF_ACME.rpartition(" ")[2], "wrong-secret")


@pytest.mark.parametrize(
    "question",
    [
        Question("/acme/v2/employees", headers=(KEY_OF_ACME,)),
        Question("/globex/v2/employees", headers=(KEY_OF_ACME,)),
        Question("/keyed/v2/employees", headers=(f"X-Pleo-Proxy-Key: {SHARED_KEY}",)),
        Question("/keyed/v2/employees", headers=("X-Pleo-Proxy-Key: wrong-secret",)),
        Question("/v2/employees", headers=("Authorization: Bearer wrong-secret",)),
        Question("/acme/v2/employees", headers=("Authorization wrong-secret",)),
        Question("/acme/v2/employees", headers=("Authorization: wrong-secret\r\n",)),
        Question("/acme/v2/employees", headers=("Author ization: wrong-secret",)),
    ],
)
async def test_no_secret_of_a_header_is_shown(world: Proxy, question: Question) -> None:
    """Neither of a good request nor of a refused one, nor of one that is none."""
    answer = await post(world, body_of(question))
    assert not [secret for secret in SECRETS if secret.encode() in answer.body]


# --- the API


async def test_a_viewer_may_ask(world: Proxy) -> None:
    """It changes nothing, so whoever sees everything may; nobody else."""
    told = await asked(world, Question("/acme/v2/employees"), token=VIEWER_TOKEN)
    assert told["forwarded"]
    assert (await post(world, {"path": "/"}, token="wrong")).status == 401


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body: Invalid JSON"),
        (b"[]", "the body: "),
        ({}, "path: Field required"),
        ({"path": 7}, "path: Input should be a valid string"),
        ({"path": "/", "headers": [7]}, "headers.0: Input should be a valid string"),
        ({"path": "/", "from": "acme"}, "caller 'acme' is no IP address; give one such as 10.1.2.3"),
        ({"path": "/", "listener": "0.0.0.0:1"}, "listener '0.0.0.0:1' is not in listen.proxy; there: 127"),
        ({"path": "/", "certificates": ["tool"]}, "a certificate is not named so: write san:dns:NAME"),
        ({"path": "/", "headers": ["secret"]}, "header 2 is not 'Name: value' on one line; correct it"),
        ({"path": "/", "headers": ["a: b\nc: secret"]}, "header 2 is not 'Name: value' on one line"),
        ({"path": "/", "headers": ["a: €"]}, "header 2 is not 'Name: value' on one line"),
        ({"path": "/ HTTP/1.1\r\na: b"}, "method and path must be on one line; remove the line break"),
        ({"path": "/", "method": "GET /\n"}, "method and path must be on one line; remove the line break"),
        ({"path": "/", "metod": "secret"}, "metod: Extra inputs are not permitted"),
    ],
)
async def test_what_is_no_question_is_told_so(proxy: Proxy, body: Any, said: str) -> None:
    """The answer is 400 and names the member; what it holds is not repeated where it could be a secret."""
    answer = await post(proxy, body)
    assert (answer.status, answer.header("Content-Type")) == (400, "application/problem+json")
    assert answer.json()["detail"].startswith(said)
    assert b"secret" not in answer.body


# --- the command


@pytest.fixture
def beside(world: Proxy, tmp_path: Path) -> Cli:
    """The command line with the store of the running proxy."""
    folder = tmp_path / "command"
    folder.mkdir()
    store = {"url": f"sqlite://{tmp_path}/proxy.db", "state_dir": str(tmp_path)}
    return Cli(write_config(folder, world.pleo, store=store, listen={"hosts": ["proxy.internal"]}))


ARGUMENTS: list[tuple[str, tuple[str, ...], str]] = [
    ("by-prefix", ("/acme/v2/employees",), ""),
    ("search", ("-X", "POST", "/globex/v1/vendors:search", "-H", "Content-Length: 5"), ""),
    ("by-host", ("/v2/employees", "--host", "acme.internal", "--from", "127.0.0.1"), ""),
    ("by-legacy-key", ("/v2/employees", "-H", "-"), f"{KEY_OF_ACME}\r\n\n"),
    ("never-connected", ("/fresh/v2/employees",), ""),
    ("revoked", ("/ended/v2/employees",), ""),
    ("legacy-path", ("/acme/v1/expenses?pageOffset=0",), ""),
    ("foreign-host", ("/acme/v1/x", "--host", "evil.example"), ""),
]


async def test_the_command_says_what_the_api_says(world: Proxy, beside: Cli) -> None:
    """Beside a running proxy, with its exit code: 0 what would be forwarded, 1 what would be refused."""
    for name, arguments, stdin in ARGUMENTS:
        told = await asked(world, REQUESTS[name])
        ran = await asyncio.to_thread(beside, "explain", *arguments, "--json", stdin=stdin)
        said = ran.json()
        for one in (told, said):
            for problem in filter(None, [one["refusal"]]):
                del problem["type"]  # the two have another listen.public_url
                problem.pop("reconnect_url", None)
        assert said == told, name
        assert (ran.code, ran.err) == (0 if told["forwarded"] else 1, ""), name


def test_the_command_knows_the_default_tenant(tmp_path: Path) -> None:
    """A request that nothing claims is the tenant's that the settings name."""
    cli = Cli(write_config(tmp_path, listen={"default_tenant": "acme"}))
    cli.done("tenants", "add", "acme")
    told = cli("explain", "/v2/employees", "--json").json()
    assert (told["tenant"], told["refusal"]["name"]) == ("acme", "needs-reauth")


async def test_the_command_tells_people_in_a_few_lines(beside: Cli) -> None:
    """What becomes of it, by which routes and rules, and what to do; of what goes up, names alone."""
    ran = await asyncio.to_thread(beside, "explain", "/acme/v2/employees", "-H", KEY_OF_ACME)
    lines = dict(part for part in (line.split("  ", 1) for line in ran.out.splitlines()) if len(part) == 2)
    assert lines["would be"].strip() == "forwarded"
    assert lines["policy"].strip() == "allowed by the preset 'full'"
    assert lines["on trial"].strip() == "allowed by the preset 'read-only'"
    assert lines["grant"].strip().startswith("connected, generation 1, access token until 20")
    assert "Authorization" in ran.out
    assert not [secret for secret in SECRETS if secret in ran.out + ran.err]
    assert ran.err == (
        "Warning: -H Authorization holds a secret, and the arguments of a command can be read by every user "
        "of this machine while it runs; give such headers with `-H -` on standard input\n"
    )
    refused = await asyncio.to_thread(beside, "explain", "/acme/expenses")
    assert refused.code == 1
    assert "refused with 403 policy-refused" in refused.out
    assert "GET /expenses is of Pleo's old API, today POST /v1/accounting-entries:search" in refused.out
    assert "what to do" in refused.out
    assert "/problems/policy-refused" in refused.out


async def test_the_command_says_whether_a_refresh_comes_first(world: Proxy, beside: Cli) -> None:
    """An access token that has ended is no refusal; tokens of which a part is missing are."""
    await world.app.store.edit_grant("acme", lambda grant: grant and replace(grant, access_expires_at=60.0))
    ran = await asyncio.to_thread(beside, "explain", "/acme/v2/employees")
    assert "access token ended 1970-01-01T00:01:00+00:00: refreshed first" in ran.out
    assert ran.code == 0
    await world.app.store.edit_grant("acme", lambda grant: grant and replace(grant, access=None))
    ran = await asyncio.to_thread(beside, "explain", "/acme/v2/employees")
    assert (ran.code, "refused with 503 sealed-value-refused" in ran.out) == (1, True)


async def test_a_command_that_is_no_question_ends_with_2(beside: Cli) -> None:
    """One line says what is wrong, and repeats no header."""
    ran = await asyncio.to_thread(beside, "explain", "/acme/v1/x", "-H", "Authorization hidden")
    assert ran.refusal() == "header 2 is not 'Name: value' on one line; correct it"
    ran = await asyncio.to_thread(beside, "explain", "/acme/v1/x", "--from", "acme")
    assert "caller 'acme' is no IP address" in ran.refusal()
