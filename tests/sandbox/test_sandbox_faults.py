"""Faults on demand, holds and outages, of the token endpoint and of the API."""

from __future__ import annotations

import asyncio
import time
from typing import Literal
from urllib.parse import urlsplit

import aiohttp
import pytest

from proxy.sandbox import ApiFault, Sandbox, TokenFault, TokenState
from tests.sandbox.sandbox_driver import SECRET, Clock, Driver, basic

BROKEN = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)


# Token endpoint


@pytest.mark.parametrize("committed", [False, True])
async def test_token_connection_dropped(driver: Driver, committed: bool) -> None:
    """A connection dropped before the rotation leaves the pair good; one dropped after it leaves it dead."""
    driver.sandbox.switches.reuse_kills_family = False
    pair = driver.sandbox.grant("acme")
    driver.sandbox.token_faults.append(TokenFault("drop", committed=committed))
    with pytest.raises(BROKEN):
        await driver.refresh(pair.refresh_token)
    assert (await driver.refresh(pair.refresh_token)).status == (400 if committed else 200)
    assert sum(driver.sandbox.counters.refreshes.values()) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_token_status(driver: Driver, status: int) -> None:
    """A status on demand comes with its Retry-After, and the pair stays good."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.token_faults.append(TokenFault("status", status=status, retry_after="7"))
    answer = await driver.refresh(pair.refresh_token)
    assert (answer.status, answer.headers["Retry-After"]) == (status, "7")
    assert (await driver.refresh(pair.refresh_token)).status == 200


async def test_token_html(driver: Driver) -> None:
    """A 200 with HTML is no answer of the token endpoint."""
    driver.sandbox.token_faults.append(TokenFault("html"))
    answer = await driver.refresh(driver.sandbox.grant("acme").refresh_token)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


async def test_token_broken_json(driver: Driver) -> None:
    """A 200 with half a JSON text after the rotation is an answer that was lost."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.token_faults.append(TokenFault("broken_json", committed=True))
    with pytest.raises(ValueError, match="unexpected end"):
        _ = (await driver.refresh(pair.refresh_token)).json
    assert driver.sandbox.counters.refreshes_of(pair.company_id) == 1


async def test_token_answer_without_refresh_token(driver: Driver) -> None:
    """Where the answer has no refresh token, the old one stays good and the old access token dies."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.token_faults.append(TokenFault("no_refresh_token"))
    answer = (await driver.refresh(pair.refresh_token)).json
    assert "refresh_token" not in answer
    assert (await driver.call("GET", "/v1/introspect", pair.access_token)).status == 401
    assert (await driver.call("GET", "/v1/introspect", answer["access_token"])).status == 200
    assert (await driver.refresh(pair.refresh_token)).status == 200


async def test_token_answer_without_expires_in(driver: Driver) -> None:
    """The answer's life can be missing."""
    driver.sandbox.token_faults.append(TokenFault("no_expires_in"))
    assert "expires_in" not in (await driver.refresh(driver.sandbox.grant("acme").refresh_token)).json


async def test_token_answer_with_a_tiny_life(driver: Driver) -> None:
    """The answer's life can be tiny."""
    driver.sandbox.token_faults.append(TokenFault("expires_in", seconds=1))
    assert (await driver.refresh(driver.sandbox.grant("acme").refresh_token)).json["expires_in"] == 1


async def test_token_fault_for_one_grant_type(driver: Driver) -> None:
    """A fault of refreshes waits for one, and codes are exchanged meanwhile."""
    driver.sandbox.token_faults.append(TokenFault("status", grant="refresh_token"))
    tokens = (await driver.exchange(await driver.code())).json
    assert (await driver.refresh(tokens["refresh_token"])).status == 503


async def test_faults_wear_off(driver: Driver) -> None:
    """A fault strikes as often as it was asked to, one without end strikes until it is removed."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.token_faults.extend(
        [TokenFault("status", times=2), TokenFault("status", status=500, times=None)]
    )
    statuses = [(await driver.refresh(pair.refresh_token)).status for _ in range(4)]
    driver.sandbox.token_faults.clear()
    statuses.append((await driver.refresh(pair.refresh_token)).status)
    assert statuses == [503, 503, 500, 500, 200]


@pytest.mark.parametrize("committed", [False, True])
async def test_token_requests_are_held(driver: Driver, committed: bool) -> None:
    """A held request has taken effect or not, as the hold says, and is answered when it is released."""
    pair = driver.sandbox.grant("acme")
    async with driver.sandbox.hold_token_endpoint(committed=committed) as gate:
        task = asyncio.create_task(driver.refresh(pair.refresh_token))
        await gate.arrived()
        assert (driver.sandbox.counters.refreshes_of(pair.company_id) == 1) is committed
    assert (await task).status == 200


async def test_a_caller_that_left_is_served(driver: Driver) -> None:
    """A request whose caller gave up takes effect all the same: the server rotated, nobody heard."""
    pair = driver.sandbox.grant("acme")
    held = driver.sandbox.hold_token_endpoint()
    answered = driver.sandbox.hold_token_endpoint(committed=True)
    task = asyncio.create_task(driver.refresh(pair.refresh_token))
    await held.arrived()
    task.cancel()
    held.release()
    await answered.arrived()
    answered.release()
    assert driver.sandbox.counters.refreshes_of(pair.company_id) == 1


@pytest.mark.parametrize("committed", [False, True])
async def test_token_delay(driver: Driver, committed: bool) -> None:
    """A delay keeps a request waiting for at least as long as was asked."""
    driver.sandbox.token_faults.append(TokenFault("delay", committed=committed, seconds=0.05))
    started = time.monotonic()
    answer = await driver.refresh(driver.sandbox.grant("acme").refresh_token)
    assert answer.status == 200
    assert time.monotonic() - started > 0.049


# API


async def test_api_requests_are_judged_when_served(driver: Driver) -> None:
    """A token that is rotated away while its request is on the way gives a 401: no fault of the caller."""
    pair = driver.sandbox.grant("acme")
    async with driver.sandbox.hold_api("^/v2/") as gate:
        task = asyncio.create_task(driver.call("GET", "/v2/employees", pair.access_token))
        await gate.arrived()
        on_arrival = driver.sandbox.api_requests[-1].token
        await driver.refresh(pair.refresh_token)
    assert (await task).status == 401
    served = driver.sandbox.api_requests[-1].token
    assert (on_arrival, served) == (TokenState.LIVE, TokenState.ROTATED)


async def test_api_hold_by_path(driver: Driver) -> None:
    """A hold lets other paths pass."""
    pair = driver.sandbox.grant("acme")
    async with driver.sandbox.hold_api("^/v2/"):
        assert (await driver.call("GET", "/v1/companies", pair.access_token)).status == 200


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_api_status_by_route(driver: Driver, status: int) -> None:
    """A status on demand strikes the route and method that it is meant for."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.api_faults.append(ApiFault("status", "^/v1/vendors", method="POST", status=status))
    assert (await driver.call("GET", "/v1/companies", pair.access_token)).status == 200
    answer = await driver.call("POST", "/v1/vendors:search", pair.access_token, json={})
    assert answer.status == status


async def test_api_redirect(driver: Driver) -> None:
    """A redirect on demand leads to another host."""
    driver.sandbox.api_faults.append(ApiFault("redirect"))
    answer = await driver.call("GET", "/v1/companies", driver.sandbox.grant("acme").access_token)
    assert (answer.status, answer.headers["Location"]) == (302, "https://files.example/elsewhere")


@pytest.mark.parametrize(("stage", "vendors"), [("before", 15), ("after", 16)])
async def test_api_connection_dropped(
    driver: Driver, stage: Literal["before", "after"], vendors: int
) -> None:
    """A connection is dropped before or after the call was carried out."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.api_faults.append(ApiFault("drop", stage=stage))
    with pytest.raises(BROKEN):
        await driver.call(
            "POST", "/v1/vendors", pair.access_token, json={"companyId": pair.company_id, "name": "New"}
        )
    assert len(driver.sandbox.world.companies[pair.company_id].vendors) == vendors
    assert driver.sandbox.api_requests[-1].status == 0


@pytest.mark.parametrize("chunked", [False, True])
async def test_api_body_broken_off(driver: Driver, chunked: bool) -> None:
    """A body that breaks off in the middle is visibly broken off, with either framing."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.api_faults.append(ApiFault("drop", stage="mid_body", chunked=chunked))
    headers = {"Authorization": f"Bearer {pair.access_token}"}
    async with driver.session.get(f"{driver.sandbox.api_url}/v2/employees", headers=headers) as response:
        assert response.status == 200
        assert await response.content.readany() != b""
        with pytest.raises(BROKEN):
            await response.content.read()


@pytest.mark.parametrize("stage", ["before", "after", "mid_body"])
async def test_api_delay(driver: Driver, stage: Literal["before", "after", "mid_body"]) -> None:
    """A call that is delayed at any stage takes as long as was asked and comes whole in the end."""
    pair = driver.sandbox.grant("acme")
    driver.sandbox.api_faults.append(ApiFault("delay", stage=stage, seconds=0.05))
    started = time.monotonic()
    answer = await driver.call("GET", "/v2/employees", pair.access_token)
    assert len(answer.json["data"]) == 20
    assert time.monotonic() - started > 0.049


async def test_api_call_held_after_it_was_carried_out(driver: Driver) -> None:
    """A hold can let the call take effect and keep back its answer."""
    pair = driver.sandbox.grant("acme")
    async with driver.sandbox.hold_api(stage="after") as gate:
        task = asyncio.create_task(driver.call("DELETE", "/v1/installations/me", pair.access_token))
        await gate.arrived()
        assert driver.sandbox.world.companies[pair.company_id].installation is None
    assert (await task).status == 204


async def test_a_caller_that_leaves_in_its_body(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """A caller that breaks off in its body is no error of the sandbox."""
    url = urlsplit(driver.sandbox.api_url)
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await driver.sandbox.stop()
    assert caplog.text == ""


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "stage": "mid_body"},
        {"kind": "redirect", "stage": "after"},
        {"kind": "status", "times": 0},
        {"kind": "status", "status": 99},
        {"kind": "delay", "seconds": -1},
    ],
)
def test_senseless_faults(fault: dict[str, object]) -> None:
    """A fault that cannot strike is refused when it is made."""
    with pytest.raises(ValueError, match=r"."):
        ApiFault(**fault)  # type: ignore[arg-type]


# Life


async def test_outage_at_the_same_address(driver: Driver) -> None:
    """A stopped sandbox refuses connections, and one started again has its addresses and its memory."""
    sandbox, pair = driver.sandbox, driver.sandbox.grant("acme")
    before = (sandbox.auth_url, sandbox.api_url, sandbox.control_url)
    await sandbox.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await driver.refresh(pair.refresh_token)
    await sandbox.start()
    assert (sandbox.auth_url, sandbox.api_url, sandbox.control_url) == before
    assert (await driver.refresh(pair.refresh_token)).status == 200


async def test_stop_ends_what_is_held() -> None:
    """Stopping does not wait for requests that are held."""
    async with aiohttp.ClientSession() as session:
        sandbox = Sandbox(clock=Clock())
        await sandbox.start()
        sandbox.hold_api()
        held = sandbox.hold_token_endpoint()
        form = {"grant_type": "refresh_token", "refresh_token": "x"}
        headers = basic("sandbox-client", SECRET)
        driver = Driver(sandbox, session)
        task = asyncio.create_task(driver.send("POST", sandbox.token_url, data=form, headers=headers))
        await held.arrived()
        started = time.monotonic()
        await sandbox.stop()
        assert time.monotonic() - started < 5
        await asyncio.gather(task, return_exceptions=True)


def test_no_address_before_start() -> None:
    """An address is known only once the system has chosen it."""
    with pytest.raises(RuntimeError, match="first start"):
        _ = Sandbox().api_url
