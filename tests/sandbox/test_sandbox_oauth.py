"""The token endpoint's rules: codes, client authentication, rotation, reuse, expiry and introspection."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import pytest

from proxy.sandbox import COMPANIES, OAuthClient, Sandbox
from proxy.sandbox.faults import ClientAuth, RefusalError
from tests.sandbox.sandbox_driver import REDIRECT_URI, SECRET, VERIFIER, Answer, Clock, Driver, basic

ACME = COMPANIES["acme"]


async def live(driver: Driver, token: str) -> bool:
    """Whether the API accepts a token."""
    return (await driver.call("GET", "/v1/introspect", token)).status == 200


# Codes


async def test_code_for_tokens(driver: Driver) -> None:
    """A code gives a pair, its life and the granted scopes, and is not to be cached."""
    answer = await driver.exchange(await driver.code())
    assert answer.status == 200
    assert set(answer.json) == {"access_token", "refresh_token", "expires_in", "token_type", "scope"}
    assert (answer.json["expires_in"], answer.json["scope"]) == (900, "users:read companies:read")
    assert answer.headers["Cache-Control"] == "no-store"
    assert driver.sandbox.counters.code_exchanges == 1


async def test_code_replay_kills_its_tokens(driver: Driver) -> None:
    """A code that is used again is refused, and what it gave is dead."""
    code = await driver.code()
    tokens = (await driver.exchange(code)).json
    answer = await driver.exchange(code)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert not await live(driver, tokens["access_token"])
    assert (await driver.refresh(tokens["refresh_token"])).json["error"] == "invalid_grant"


async def test_code_expires(driver: Driver) -> None:
    """A code lives for sixty seconds."""
    code = await driver.code()
    driver.sandbox.advance(60)
    assert (await driver.exchange(code)).json["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"code_verifier": "x" * 43}, id="wrong-verifier"),
        pytest.param({"code_verifier": ""}, id="empty-verifier"),
        pytest.param({"redirect_uri": REDIRECT_URI + "/"}, id="redirect-uri"),
        pytest.param({"code": "pleo_code_guess"}, id="unknown-code"),
    ],
)
async def test_code_is_bound(driver: Driver, changes: dict[str, str]) -> None:
    """A code is bound to its verifier and redirect URI."""
    code = await driver.code()
    answer = await driver.exchange(**({"code": code} | changes))
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(("verifier", "status"), [({}, 200), ({"code_verifier": VERIFIER}, 400)])
async def test_code_without_a_challenge(driver: Driver, verifier: dict[str, str], status: int) -> None:
    """Where a switch allows a request without a challenge, its code goes without a verifier."""
    driver.sandbox.switches.require_pkce = False
    answer = await driver.authorize({"code_challenge": None, "code_challenge_method": None})
    form = {"redirect_uri": REDIRECT_URI, "code": answer.returned["code"]} | verifier
    assert (await driver.token({"grant_type": "authorization_code", **form})).status == status


async def test_form_of_the_answer(driver: Driver) -> None:
    """By switches the answer leaves the scopes out and spells the token type differently."""
    driver.sandbox.switches.scope_in_answer = False
    driver.sandbox.switches.token_type = "bearer"
    answer = (await driver.exchange(await driver.code())).json
    assert "scope" not in answer
    assert answer["token_type"] == "bearer"


async def test_fewer_scopes_than_asked(driver: Driver) -> None:
    """By a switch consent grants fewer scopes than were asked for."""
    driver.sandbox.switches.granted_scopes = ("users:read",)
    assert (await driver.exchange(await driver.code())).json["scope"] == "users:read"


async def test_second_consent(driver: Driver) -> None:
    """By a switch a new consent kills the company's earlier tokens."""
    driver.sandbox.switches.reconsent_kills_family = True
    first = driver.sandbox.grant("acme")
    await driver.exchange(await driver.code())
    assert not await live(driver, first.access_token)


# The request


@pytest.mark.parametrize(
    ("form", "error"),
    [
        pytest.param({}, "invalid_request", id="empty"),
        pytest.param({"grant_type": "password"}, "unsupported_grant_type", id="grant-type"),
        pytest.param({"grant_type": "refresh_token"}, "invalid_request", id="no-refresh-token"),
        pytest.param({"grant_type": "authorization_code"}, "invalid_request", id="no-code"),
    ],
)
async def test_malformed_requests(driver: Driver, form: dict[str, str], error: str) -> None:
    """A form without what its grant needs is refused by the right name."""
    answer = await driver.token(form)
    assert (answer.status, answer.json["error"]) == (400, error)


async def test_json_is_no_form(driver: Driver) -> None:
    """The token endpoint takes forms only."""
    answer = await driver.send(
        "POST",
        driver.sandbox.token_url,
        json={"grant_type": "refresh_token", "refresh_token": "x"},
        headers=basic("sandbox-client", SECRET),
    )
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")


async def test_get_is_refused(driver: Driver) -> None:
    """Tokens are not given for GET."""
    assert (await driver.send("GET", driver.sandbox.token_url)).status == 405


# Client authentication


def credentials(kind: str, secret: str = SECRET) -> dict[str, Any]:
    """The parts of a refresh request that authenticate the client."""
    form = {"grant_type": "refresh_token"}
    posted = {"client_id": "sandbox-client", "client_secret": secret}
    return {
        "basic": {"data": form, "headers": basic("sandbox-client", secret)},
        "post": {"data": form | posted},
        "both": {"data": form | posted, "headers": basic("sandbox-client", secret)},
        "none": {"data": form},
    }[kind]


@pytest.mark.parametrize(
    ("mode", "kind", "accepted"),
    [
        ("basic", "basic", True),
        ("basic", "post", False),
        ("basic", "none", False),
        ("post", "post", True),
        ("post", "basic", False),
        ("either", "basic", True),
        ("either", "post", True),
        ("either", "none", False),
    ],
)
async def test_client_authentication(driver: Driver, mode: ClientAuth, kind: str, accepted: bool) -> None:
    """The client authenticates in the way that the switch allows, and in no other."""
    driver.sandbox.switches.client_auth = mode
    parts = credentials(kind)
    parts["data"]["refresh_token"] = driver.sandbox.grant("acme").refresh_token
    answer = await driver.send("POST", driver.sandbox.token_url, **parts)
    if accepted:
        assert answer.status == 200
    else:
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize("mode", ["basic", "post", "either"])
async def test_both_methods_at_once(driver: Driver, mode: ClientAuth) -> None:
    """Two methods of client authentication in one request are an invalid request, and nothing rotates."""
    driver.sandbox.switches.client_auth = mode
    pair = driver.sandbox.grant("acme")
    parts = credentials("both")
    parts["data"]["refresh_token"] = pair.refresh_token
    answer = await driver.send("POST", driver.sandbox.token_url, **parts)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert await live(driver, pair.access_token)


async def test_wrong_secret(driver: Driver) -> None:
    """A wrong secret is an invalid client and does no harm to the grant."""
    pair = driver.sandbox.grant("acme")
    form = {"grant_type": "refresh_token", "refresh_token": pair.refresh_token}
    answer = await driver.token(form, secret="wrong")
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert (await driver.refresh(pair.refresh_token)).status == 200


async def test_basic_is_form_decoded() -> None:
    """Id and secret in HTTP Basic are form-encoded."""
    client = OAuthClient("id:1", "a+b %é", (REDIRECT_URI,), ("users:read",))
    async with Sandbox(client=client, clock=Clock()) as sandbox, aiohttp.ClientSession() as session:
        driver = Driver(sandbox, session)
        form = {"grant_type": "refresh_token", "refresh_token": sandbox.grant("acme").refresh_token}
        statuses = [
            (await driver.send("POST", sandbox.token_url, data=form, headers=headers)).status
            for headers in (
                basic("id:1", "a+b %é"),
                basic(quote_plus("id:1"), quote_plus("a+b %é")),
            )
        ]
    assert statuses == [401, 200]


# Rotation


async def test_rotation_kills_both_at_once(driver: Driver) -> None:
    """A refresh gives a new pair, and the old access and refresh tokens are dead."""
    old = driver.sandbox.grant("acme")
    new = (await driver.refresh(old.refresh_token)).json
    assert await live(driver, new["access_token"])
    assert not await live(driver, old.access_token)
    assert driver.sandbox.counters.refreshes == {(ACME, 1): 1}


@pytest.mark.parametrize("kills", [True, False])
async def test_reuse(driver: Driver, kills: bool) -> None:
    """A rotated refresh token is refused, and by a switch its whole family dies."""
    driver.sandbox.switches.reuse_kills_family = kills
    old = driver.sandbox.grant("acme")
    new = (await driver.refresh(old.refresh_token)).json
    answer = await driver.refresh(old.refresh_token)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert await live(driver, new["access_token"]) is not kills
    assert driver.sandbox.counters.reuse_attempts == 1


async def test_expired_refresh_token_kills_the_family(driver: Driver) -> None:
    """An expired refresh token, even a rotated one, takes every token of its family along."""
    driver.sandbox.switches.reuse_kills_family = False
    old = driver.sandbox.grant("acme")
    driver.sandbox.advance(59 * 86400)
    new = (await driver.refresh(old.refresh_token)).json
    driver.sandbox.advance(86400)
    assert (await driver.refresh(old.refresh_token)).json["error"] == "invalid_grant"
    assert (await driver.refresh(new["refresh_token"])).json["error"] == "invalid_grant"
    assert not await live(driver, new["access_token"])


@pytest.mark.parametrize("name", ["invalid_grant", "invalid_token", "invalid_refresh_token"])
async def test_names_of_a_refusal(driver: Driver, name: RefusalError) -> None:
    """The error of a refused refresh has the name that the switch says."""
    driver.sandbox.switches.refusal_error = name
    driver.sandbox.switches.refusal_status = 401
    answer = await driver.refresh("pleo_rt_guess")
    assert (answer.status, answer.json["error"]) == (401, name)


async def test_parallel_refreshes(driver: Driver) -> None:
    """Of many refreshes with one token that arrive together exactly one wins."""
    driver.sandbox.switches.reuse_kills_family = False
    pair = driver.sandbox.grant("acme")
    async with driver.sandbox.hold_token_endpoint() as gate:
        tasks = [asyncio.create_task(driver.refresh(pair.refresh_token)) for _ in range(10)]
        await gate.arrived(10)
    answers = await asyncio.gather(*tasks)
    assert sorted(answer.status for answer in answers) == [200] + [400] * 9
    assert driver.sandbox.counters.refreshes_of(ACME) == 1
    assert driver.sandbox.counters.refresh_attempts[ACME, 1] == 10


async def test_companies_are_apart(driver: Driver) -> None:
    """What happens to one company's grant leaves the others alone."""
    acme, globex = driver.sandbox.grant("acme"), driver.sandbox.grant("globex")
    await driver.refresh(acme.refresh_token)
    driver.sandbox.revoke("acme")
    assert await live(driver, globex.access_token)


async def test_an_access_token_is_no_refresh_token(driver: Driver) -> None:
    """Neither token does the other's work."""
    pair = driver.sandbox.grant("acme")
    assert (await driver.refresh(pair.access_token)).json["error"] == "invalid_grant"
    assert not await live(driver, pair.refresh_token)


async def test_long_tokens(driver: Driver) -> None:
    """By a switch tokens are as long as the JWTs that were seen, and still work."""
    driver.sandbox.switches.token_bytes = 1100
    pair = driver.sandbox.grant("acme")
    assert 1400 < len(pair.access_token) < 1600
    assert await live(driver, pair.access_token)


# Death by control


async def test_revoke_access(driver: Driver) -> None:
    """Revoked access leaves the refresh token good."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.revoke_access(ACME)
    assert not await live(driver, pair.access_token)
    assert (await driver.refresh(pair.refresh_token)).status == 200


async def test_revoke(driver: Driver) -> None:
    """A revoked company has no good token left."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.revoke(ACME)
    assert not await live(driver, pair.access_token)
    assert (await driver.refresh(pair.refresh_token)).json["error"] == "invalid_grant"


async def test_rotated_client_secret(driver: Driver) -> None:
    """A new client secret kills refresh tokens and the old secret, but no access token."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.rotate_client_secret("next")
    form = {"grant_type": "refresh_token", "refresh_token": pair.refresh_token}
    assert await live(driver, pair.access_token)
    assert (await driver.token(form)).json["error"] == "invalid_client"
    assert (await driver.token(form, secret="next")).json["error"] == "invalid_grant"


async def test_every_secret_is_known_to_tests(driver: Driver) -> None:
    """The authority lists each code and token there ever was, so that outputs can be searched for them."""
    code = await driver.code()
    tokens = (await driver.exchange(code)).json
    expected = {code, tokens["access_token"], tokens["refresh_token"], SECRET}
    assert expected <= driver.sandbox.authority.secrets_issued()


# Introspection


async def introspect(driver: Driver, token: str, secret: str = SECRET) -> Answer:
    """The introspection endpoint's answer."""
    url = driver.sandbox.token_url + "/introspect"
    return await driver.send("POST", url, data={"token": token}, headers=basic("sandbox-client", secret))


async def test_introspection_of_a_live_token(driver: Driver) -> None:
    """A live token is described, with its company as subject."""
    answer = await introspect(driver, driver.sandbox.grant("acme").access_token)
    names = {"active", "sub", "exp", "iat", "client_id", "aud", "iss", "jti"}
    assert set(answer.json) == names | {"urn:pleo:params:oauth:subject_urn"}
    assert answer.json["urn:pleo:params:oauth:subject_urn"] == f"urn:pleo:company:{ACME}"
    assert answer.json["exp"] - answer.json["iat"] == 900


async def test_introspection_of_a_dead_token(driver: Driver) -> None:
    """Of a dead token nothing is told but that it is dead."""
    token = driver.sandbox.grant("acme").access_token
    driver.sandbox.advance(900)
    assert (await introspect(driver, token)).json == {"active": False}


async def test_introspection_asks_for_the_client(driver: Driver) -> None:
    """Introspection needs the client's secret."""
    answer = await introspect(driver, driver.sandbox.grant("acme").access_token, "wrong")
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")
