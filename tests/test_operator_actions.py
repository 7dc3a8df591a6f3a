"""What operators do to tenants on the pages and by the API: the same as on the command line, and recorded."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy import lifecycle
from proxy.errors import StoreUnavailable
from proxy.model import GrantState
from tests.harness import ADMIN_TOKEN, Answer, Proxy, until
from tests.operator_browser import Markup, ask, logged_in, shown_text

BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
EMPLOYEES = "/acme/v2/employees"
API = {
    "refresh": "/api/v1/tenants/{}/refresh",
    "enable": "/api/v1/tenants/{}/enable",
    "disable": "/api/v1/tenants/{}/disable",
    "revoke": "/api/v1/grants/{}/revoke",
}


async def do(proxy: Proxy, action: str, tenant: str, way: str) -> Answer:
    """An action by the API, or by its form on the tenant's page."""
    if way == "api":
        return await ask(proxy, "POST", API[action].format(tenant), headers=BEARER)
    return await (await logged_in(proxy)).submit(f"/tenants/{tenant}/{action}")


async def recorded(proxy: Proxy, event: str) -> list[tuple[str | None, str, dict[str, Any]]]:
    """Records of the audit trail: tenant, who, and what."""
    await proxy.app._audit.close()
    records = await proxy.app.store.trail.newest(10, None, event)
    return [(each.entry.tenant, each.entry.actor, json.loads(each.entry.details)) for each in records]


WAYS = pytest.mark.parametrize("way", ["api", "page"])


@WAYS
async def test_a_refresh_brings_a_new_pair_and_is_recorded(proxy: Proxy, way: str) -> None:
    """The answer comes when the tokens are new, and says so; the trail has who asked."""
    answer = await do(proxy, "refresh", "acme", way)
    if way == "api":
        assert (answer.status, answer.json()["tenant"], answer.json()["generation"]) == (200, "acme", 2)
    else:
        assert (answer.status, answer.header("Location")) == (303, "/tenants/acme?done=refreshed")
    assert [line["reason"] for line in proxy.lines("token.refresh_started")] == ["asked"]
    assert [entry[:2] for entry in await recorded(proxy, "grant.refresh_asked")] == [
        ("acme", "admin:operator")
    ]


@WAYS
async def test_a_refresh_that_fails_says_why(proxy: Proxy, way: str) -> None:
    """In the words of the command line, and the page stays usable."""
    proxy.pleo.revoke("acme")
    answer = await do(proxy, "refresh", "acme", way)
    assert answer.status == 502
    text = answer.json()["detail"] if way == "api" else shown_text(answer)
    assert "failed: refused: its tokens are erased; to connect it again: pleo-proxy connect acme" in text


@WAYS
async def test_a_disabled_tenant_refuses_at_once_until_it_is_enabled(proxy: Proxy, way: str) -> None:
    """The next request counts, without a wait for the watch; its grant is kept."""
    answer = await do(proxy, "disable", "acme", way)
    refused = await proxy.get(EMPLOYEES)
    assert (refused.status, refused.json()["type"].rpartition("/")[2]) == (403, "tenant-disabled")
    if way == "api":
        assert (answer.status, answer.json()["name"], answer.json()["enabled"]) == (200, "acme", False)
    else:
        assert (answer.status, answer.header("Location")) == (303, "/tenants/acme?done=disabled")
    answer = await do(proxy, "enable", "acme", way)
    assert answer.status == (200 if way == "api" else 303)
    assert (await proxy.get(EMPLOYEES)).status == 200
    assert await recorded(proxy, "tenant.changed") == [
        ("acme", "admin:operator", {"enabled": {"old": True, "new": False}}),
        ("acme", "admin:operator", {"enabled": {"old": False, "new": True}}),
    ]


@WAYS
async def test_revoking_erases_the_tokens_at_once(proxy: Proxy, way: str) -> None:
    """The next request of a caller gets 503, and another tenant notices nothing."""
    answer = await do(proxy, "revoke", "acme", way)
    if way == "api":
        assert (answer.status, answer.json()["state"]) == (200, "revoked")
    else:
        assert (answer.status, answer.header("Location")) == (303, "/tenants/acme?done=revoked")
    grant = await proxy.app.store.grant("acme")
    assert grant is not None
    assert (grant.state, grant.access, grant.refresh) == (GrantState.REVOKED, None, None)
    assert (await proxy.get(EMPLOYEES)).status == 503
    assert (await proxy.get("/globex/v2/employees")).status == 200
    assert [entry[:2] for entry in await recorded(proxy, "grant.revoked") if entry[1][0] == "a"] == [
        ("acme", "admin:operator")
    ]


async def test_a_revocation_asks_first(proxy: Proxy) -> None:
    """To open its address changes nothing: it says what follows, and offers to do it or to go back."""
    operator = await logged_in(proxy)
    answer = await operator.get("/tenants/acme/revoke")
    assert "Its tokens are erased here" in shown_text(answer)
    assert len(Markup(answer.body.decode()).all("button")) == 2
    assert (await proxy.get(EMPLOYEES)).status == 200


@WAYS
@pytest.mark.parametrize("action", API)
async def test_nothing_is_done_to_a_tenant_that_is_not_there(proxy: Proxy, way: str, action: str) -> None:
    """The answer is 404, and the tenants are as they were."""
    before = await proxy.app.store.tenants()
    answer = await do(proxy, action, "nobody", way)
    assert answer.status == 404
    assert await proxy.app.store.tenants() == before


@WAYS
@pytest.mark.parametrize("action", ["refresh", "revoke"])
async def test_what_was_never_connected_is_told_so(proxy: Proxy, way: str, action: str) -> None:
    """A conflict with how things stand, with the remedy; the page offers neither."""
    await proxy.add_tenant("initech")
    answer = await do(proxy, action, "initech", way)
    assert answer.status == 409
    assert "initech" in (answer.json()["detail"] if way == "api" else shown_text(answer))
    page = Markup((await (await logged_in(proxy)).get("/tenants/initech")).body.decode())
    assert not [form for form in page.all("form") if (form["action"] or "").endswith(action)]
    assert not [link for link in page.all("a") if (link["href"] or "").endswith(action)]


@WAYS
async def test_what_has_lost_its_tokens_has_none_to_refresh(proxy: Proxy, way: str) -> None:
    """It is told at once, with the state: nobody waits for a refresh that cannot come."""
    await proxy.app.store.edit_grant("acme", lifecycle.revoked)
    answer = await do(proxy, "refresh", "acme", way)
    assert answer.status == 409
    text = answer.json()["detail"] if way == "api" else shown_text(answer)
    assert "has no tokens to refresh (state revoked)" in text


async def test_a_page_offers_what_can_be_done(proxy: Proxy) -> None:
    """A tenant in use can be disabled, and a disabled one enabled, never both."""
    operator = await logged_in(proxy)

    async def offered() -> list[str | None]:
        page = Markup((await operator.get("/tenants/acme")).body.decode())
        return [form["action"] for form in page.all("form")]

    assert await offered() == ["/logout", "/tenants/acme/refresh", "/tenants/acme/disable"]
    await operator.submit("/tenants/acme/disable")
    assert await offered() == ["/logout", "/tenants/acme/refresh", "/tenants/acme/enable"]


async def test_what_was_done_is_told_in_words_of_the_pages_own(proxy: Proxy) -> None:
    """Nobody can make a page say anything by its address."""
    operator = await logged_in(proxy)
    assert "The tokens are new." in shown_text(await operator.get("/tenants/acme?done=refreshed"))
    assert "zebra" not in shown_text(await operator.get("/tenants/acme?done=zebra"))


async def test_a_change_that_could_not_be_taken_up_is_taken_up_later(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails right after the change: the watch makes up for it, though nobody else did anything."""
    monkeypatch.setattr(proxy.app.watch, "set_tenants", fails_once(proxy))
    answer = await do(proxy, "disable", "acme", "api")
    assert answer.status == 503
    assert (await proxy.get(EMPLOYEES)).status == 200
    watch = asyncio.create_task(proxy.app.follow())
    await until(lambda: not proxy.app.exchange.directory.tenants["acme"].enabled)
    watch.cancel()


def fails_once(proxy: Proxy) -> Any:
    real = proxy.app.watch.set_tenants
    calls: list[Any] = []

    def set_tenants(tenants: Any) -> None:
        calls.append(tenants)
        if len(calls) == 1:
            raise StoreUnavailable("gone for a moment")
        real(tenants)

    return set_tenants
