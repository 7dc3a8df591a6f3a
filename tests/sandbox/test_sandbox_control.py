"""The controls' listener, as curl uses it."""

from __future__ import annotations

import re

import pytest

from proxy.sandbox import COMPANIES
from tests.sandbox.sandbox_driver import Driver

ACME = COMPANIES["acme"]


async def test_help(driver: Driver) -> None:
    """The help names each control with a line that can be copied."""
    text = (await driver.control("GET", "/")).body.decode()
    paths = set(re.findall(r"(/control/[a-z-]+)", text))
    assert len(paths) == 9
    assert f"curl -X POST {driver.sandbox.control_url}/control/revoke/acme" in text


async def test_state_holds_no_secret(driver: Driver) -> None:
    """The state tells generations, lives and counters, and no secret."""
    pair = driver.sandbox.grant("acme")
    await driver.refresh(pair.refresh_token)
    answer = await driver.control("GET", "/control/state")
    grant = answer.json["companies"]["acme"]["grants"][0]
    assert (grant["generation"], grant["access"], grant["refreshable"]) == (2, "live", True)
    assert answer.json["counters"]["refreshes"] == {ACME: {"1": 1}}
    text = answer.body.decode()
    assert not any(secret in text for secret in driver.sandbox.authority.secrets_issued())


@pytest.mark.parametrize("company", ["acme", ACME])
async def test_revoke_access(driver: Driver, company: str) -> None:
    """A company's access dies, by slug or id, and its refresh token stays good."""
    pair = driver.sandbox.grant("acme")
    assert (await driver.control("POST", f"/control/revoke-access/{company}")).status == 200
    assert (await driver.call("GET", "/v1/introspect", pair.access_token)).status == 401
    assert (await driver.refresh(pair.refresh_token)).status == 200


async def test_revoke(driver: Driver) -> None:
    """All tokens of a company die."""
    pair = driver.sandbox.grant("acme")
    await driver.control("POST", "/control/revoke/acme")
    assert (await driver.refresh(pair.refresh_token)).status == 400


async def test_advance(driver: Driver) -> None:
    """The clock moves by as much as is asked."""
    pair = driver.sandbox.grant("acme")
    assert (await driver.control("POST", "/control/advance?seconds=900")).json["now"] == 1_800_000_900
    assert (await driver.call("GET", "/v1/introspect", pair.access_token)).status == 401


async def test_rotate_secret(driver: Driver) -> None:
    """The client's secret is another from then on, and is not repeated in the answer."""
    answer = await driver.control("POST", "/control/rotate-secret", json={"secret": "next-secret"})
    assert answer.json == {"done": True}
    assert (await driver.refresh("x")).json["error"] == "invalid_client"


async def test_switches(driver: Driver) -> None:
    """Switches are read and set, lists and null included."""
    changes = {"client_auth": "either", "rate_limit_per_minute": None, "granted_scopes": ["users:read"]}
    answer = await driver.control("PATCH", "/control/switches", json=changes)
    assert answer.json.items() >= changes.items()
    assert (await driver.control("GET", "/control/switches")).json == answer.json
    assert driver.sandbox.switches.granted_scopes == ("users:read",)


async def test_wrong_switches_change_nothing(driver: Driver) -> None:
    """All mistakes are told at once, with what would be right, and no switch is set."""
    changes = {"client_auth": "none", "api_keys": 1, "nonsense": True, "www_authenticate": True}
    answer = await driver.control("PATCH", "/control/switches", json=changes)
    assert answer.status == 400
    assert answer.json["error"] == (
        "api_keys must be true or false; client_auth must be one of basic, post, either; "
        "nonsense is not known."
    )
    assert driver.sandbox.switches.www_authenticate is False


async def test_token_fault(driver: Driver) -> None:
    """A fault of the token endpoint strikes the next request."""
    await driver.control("POST", "/control/token-fault", json={"kind": "status", "status": 502})
    assert (await driver.refresh("x")).status == 502


async def test_api_fault_and_its_end(driver: Driver) -> None:
    """A fault of the API strikes until all faults are removed."""
    token = driver.sandbox.grant("acme").access_token
    fault = {"kind": "status", "path": "^/v1/", "times": None}
    assert (await driver.control("POST", "/control/api-fault", json=fault)).status == 200
    assert (await driver.call("GET", "/v1/companies", token)).status == 503
    await driver.control("DELETE", "/control/faults")
    assert (await driver.call("GET", "/v1/companies", token)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        pytest.param("POST", "/control/revoke/umbrella", None, 404, id="company"),
        pytest.param("POST", "/control/advance", None, 400, id="no-seconds"),
        pytest.param("POST", "/control/advance?seconds=-1", None, 400, id="backwards"),
        pytest.param("POST", "/control/advance?seconds=nan", None, 400, id="nan"),
        pytest.param("POST", "/control/rotate-secret", {"secret": ""}, 400, id="empty-secret"),
        pytest.param("POST", "/control/rotate-secret", None, 400, id="no-body"),
        pytest.param("POST", "/control/token-fault", {}, 400, id="no-kind"),
        pytest.param("POST", "/control/token-fault", {"kind": "explode"}, 400, id="unknown-kind"),
        pytest.param("POST", "/control/api-fault", {"kind": "drop", "path": "("}, 400, id="bad-pattern"),
        pytest.param("POST", "/control/api-fault", {"kind": "drop", "times": 0}, 400, id="never"),
        pytest.param("GET", "/control/advance", None, 405, id="method"),
        pytest.param("GET", "/control/nothing", None, 404, id="unknown"),
    ],
)
async def test_bad_input(driver: Driver, method: str, path: str, body: object, status: int) -> None:
    """Bad input gets a JSON error that says what is wrong."""
    answer = await driver.control(method, path, json=body)
    assert answer.status == status
    assert answer.json["error"]
