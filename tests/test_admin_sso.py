"""Single sign-on by a header: whom it is believed from, whom it names, and what they may do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.admin.sso import Identity, SingleSignOn
from proxy.facts import AdminLoggedIn
from proxy.model import Role
from proxy.sandbox import Sandbox
from tests.harness import Proxy, running_proxy
from tests.operator_browser import SESSION, Browser, ask, shown_text

HEADER = "X-Auth-Request-Email"
SETTINGS: Mapping[str, Any] = {
    "sso_header": HEADER,
    "sso_proxies": ["127.0.0.1/32"],
    "sso_operators": ["Ann@Example.com"],
    "sso_viewers": ["*@example.com"],
}


def sign_on(*proxies: str) -> SingleSignOn:
    networks = map(ip_network, proxies or ("10.0.0.0/8",))
    return SingleSignOn(HEADER, networks, ("ann@example.com",), ("*@example.com",))


@asynccontextmanager
async def with_sso(pleo: Sandbox, folder: Path, **admin: Any) -> AsyncIterator[Proxy]:
    """A proxy that believes this machine, and has a tenant."""
    async with running_proxy(
        pleo, folder, admin={"token": "a-token-for-single-sign-on", **SETTINGS, **admin}
    ) as proxy:
        await proxy.add_tenant("acme")
        yield proxy


def as_user(proxy: Proxy, user: str) -> Browser:
    return Browser(proxy, {HEADER: user})


@pytest.mark.parametrize(
    ("peer", "is_believed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("not an address", False),
    ],
)
def test_the_header_is_believed_from_configured_networks_alone(peer: str, is_believed: bool) -> None:
    """Whoever else sends it is nobody."""
    assert (sign_on().user(peer, ["ann@example.com"]) is not None) is is_believed


def test_networks_may_be_of_either_version() -> None:
    """An IPv6 network is asked about IPv6 peers, and the other way round, without a complaint."""
    both = sign_on("fd00::/8", "10.0.0.0/8")
    assert both.user("fd00::5", ["ann@example.com"]) == both.user("10.0.0.5", ["ann@example.com"])
    assert both.user("fe00::5", ["ann@example.com"]) is None


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="absent"),
        pytest.param(["ann@example.com", "ann@example.com"], id="twice"),
        pytest.param(["eve@evil.com, ann@example.com"], id="appended"),
        pytest.param([""], id="empty"),
        pytest.param(["   "], id="blank"),
        pytest.param(["ann@example.com\x00"], id="control"),
        pytest.param(["ann @example.com"], id="space"),
        pytest.param([f"{'a' * 250}@example.com"], id="too-long"),
    ],
)
def test_what_is_not_one_user_is_none(values: list[str]) -> None:
    """A header that could have been put together by two senders names nobody."""
    assert sign_on().user("10.1.2.3", values) is None


@pytest.mark.parametrize(
    ("user", "role"),
    [
        ("ann@example.com", Role.OPERATOR),
        ("bob@example.com", Role.VIEWER),
        ("eve@evil.com", None),
        ("ann@example.com.evil.com", None),
        ("ann@sub.example.com", None),
        ("example.com", None),
        ("*@example.com", Role.VIEWER),
        ("ann", None),
    ],
)
def test_a_users_role_follows_from_the_lists(user: str, role: Role | None) -> None:
    """An address is compared whole, a domain to its last label; who is in both lists is an operator."""
    found = sign_on().identity(user)
    assert found == (None if role is None else Identity(user, role))


async def test_a_user_whom_the_proxy_names_is_logged_in_unasked(pleo: Sandbox, tmp_path: Path) -> None:
    """The login leads on at once, and the session has the user's name and role."""
    async with with_sso(pleo, tmp_path) as proxy:
        ann = as_user(proxy, "ANN@example.com")
        asked = await ann.get("/tenants/acme/connect")
        assert (asked.status, asked.header("Location")) == (303, "/login?next=%2Ftenants%2Facme%2Fconnect")
        entered = await ann.get("/login?next=%2Ftenants%2Facme%2Fconnect")
        assert (entered.status, entered.header("Location")) == (303, "/tenants/acme/connect")
        assert "ann@example.com, operator" in shown_text(await ann.get("/"))
        made = await ann.submit("/tenants/acme/connect")
        assert made.status == 200
        [login] = [fact for fact in proxy.facts if isinstance(fact, AdminLoggedIn)]
        assert (login.user, login.role, login.by) == ("ann@example.com", Role.OPERATOR, "sso")
        assert [line["user"] for line in proxy.lines("connect.link_created")] == ["ann@example.com"]


async def test_a_session_begins_once_and_by_no_scanner(pleo: Sandbox, tmp_path: Path) -> None:
    """Who asks for the login again has their session still; a HEAD, as previews send it, begins none."""
    async with with_sso(pleo, tmp_path) as proxy:
        ann = as_user(proxy, "ann@example.com")
        assert (await ann.send("HEAD", "/login")).status == 405
        assert ann.cookies == {}
        for _ in range(3):
            assert (await ann.get("/login")).status == 303
        assert sum(isinstance(fact, AdminLoggedIn) for fact in proxy.facts) == 1


async def test_a_change_by_single_sign_on_takes_the_token_of_the_form(pleo: Sandbox, tmp_path: Path) -> None:
    """The authenticating proxy adds the header to what any page makes the browser send, so it does not do."""
    async with with_sso(pleo, tmp_path) as proxy:
        ann = as_user(proxy, "ann@example.com")
        for path in ("/tenants/acme/connect", "/api/v1/tenants/acme/connect"):
            assert (await ann.send("POST", path)).status in {303, 401}
        await ann.get("/login")
        for path in ("/tenants/acme/connect", "/api/v1/tenants/acme/connect"):
            assert (await ann.send("POST", path)).status == 403
        assert proxy.lines("connect.link_created") == []


async def test_a_viewer_by_single_sign_on_changes_nothing(pleo: Sandbox, tmp_path: Path) -> None:
    """The role of the list holds, with a right form too."""
    async with with_sso(pleo, tmp_path) as proxy:
        bob = as_user(proxy, "bob@example.com")
        await bob.get("/login")
        assert "bob@example.com, viewer" in shown_text(await bob.get("/"))
        assert (await bob.submit("/tenants/acme/connect")).status == 403
        assert proxy.lines("connect.link_created") == []


async def test_a_session_of_single_sign_on_ends_with_the_header(pleo: Sandbox, tmp_path: Path) -> None:
    """The cookie is worth nothing without the header, nor with another user in it."""
    async with with_sso(pleo, tmp_path) as proxy:
        ann = as_user(proxy, "ann@example.com")
        await ann.get("/login")
        assert (await ann.get("/")).status == 200
        for headers in ({}, {HEADER: "bob@example.com"}, {HEADER: "eve@evil.com"}):
            thief = Browser(proxy, headers)
            thief.cookies = dict(ann.cookies)
            assert (await thief.get("/")).status == 303
        assert (await ann.get("/")).status == 200


async def test_a_user_who_is_in_no_list_is_told_so(pleo: Sandbox, tmp_path: Path) -> None:
    """The login says whom single sign-on names, and asks for a token."""
    async with with_sso(pleo, tmp_path) as proxy:
        answer = await as_user(proxy, "eve@evil.com").get("/login")
        assert answer.status == 200
        assert "you are eve@evil.com" in shown_text(answer)
        assert answer.header("Set-Cookie") is None


async def test_a_header_from_elsewhere_is_ignored(pleo: Sandbox, tmp_path: Path) -> None:
    """From an address that is not the authenticating proxy's, the login asks for a token as ever."""
    async with with_sso(pleo, tmp_path, sso_proxies=["10.0.0.1/32"]) as proxy:
        eve = as_user(proxy, "ann@example.com")
        answer = await eve.get("/login")
        assert answer.status == 200
        assert "ann@example.com" not in shown_text(answer)
        assert eve.cookies == {}


async def test_a_header_that_came_twice_is_ignored(pleo: Sandbox, tmp_path: Path) -> None:
    """An authenticating proxy that adds its header to one that a browser sent names nobody."""
    async with with_sso(pleo, tmp_path) as proxy:
        twice = CIMultiDict([(HEADER, "ann@example.com"), (HEADER, "eve@evil.com")])
        answer = await ask(proxy, "GET", "/login", headers=twice)
        assert answer.status == 200
        assert "example.com" not in shown_text(answer)
        assert (await ask(proxy, "GET", "/login", headers={HEADER: "ann@example.com"})).status == 303


async def test_without_the_setting_no_header_names_anybody(proxy: Proxy) -> None:
    """Single sign-on is off unless it is configured."""
    eve = as_user(proxy, "ann@example.com")
    assert (await eve.get("/login")).status == 200
    assert eve.cookies == {}


async def test_a_token_works_beside_single_sign_on(pleo: Sandbox, tmp_path: Path) -> None:
    """When the authenticating proxy is down, an operator gets in past it."""
    async with with_sso(pleo, tmp_path) as proxy:
        operator = Browser(proxy)
        assert (await operator.log_in("a-token-for-single-sign-on")).status == 303
        assert (await operator.get("/")).status == 200
        assert SESSION in operator.cookies
