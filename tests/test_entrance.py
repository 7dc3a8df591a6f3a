"""Listeners that know whose callers they are for: by address, and by the user behind a Unix socket."""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.config import Settings
from proxy.entrance import Peers
from proxy.errors import OperatorError
from proxy.facts import RequestAmbiguous, TenantMissing
from proxy.model import Secret
from proxy.sandbox import Sandbox
from proxy.tenants import hash_legacy_key
from tests.harness import Answer, Proxy, running_proxy, settings_for


@asynccontextmanager
async def behind(
    pleo: Sandbox, folder: Path, *entries: str | dict[str, Any], **listen: object
) -> AsyncIterator[Proxy]:
    """A proxy with these listeners and the tenants acme and globex, both connected."""
    async with running_proxy(pleo, folder, listen={"proxy": list(entries), **listen}) as proxy:
        for name in ("acme", "globex"):
            await proxy.add_tenant(name)
            await proxy.connect(name)
        yield proxy


async def over(path: Path, target: str, headers: Mapping[str, str] | None = None) -> Answer:
    """One request of a caller over a Unix socket, as ``curl --unix-socket`` sends it."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get(f"http://localhost{target}", headers=headers) as answer,
    ):
        return Answer(answer.status, [], await answer.read())


def tenant_in_the_log(proxy: Proxy) -> str | None:
    """Of the request that was finished last."""
    found = proxy.lines("request.finished")[-1]["tenant"]
    return None if found is None else str(found)


async def test_a_listener_of_its_own_leads_to_its_tenant(pleo: Sandbox, tmp_path: Path) -> None:
    """What comes in at an address that names a tenant is that tenant's, and elsewhere nothing changes."""
    entry = {"address": "127.0.0.1:0", "tenant": "acme"}
    async with behind(pleo, tmp_path, "127.0.0.1:0", entry) as proxy:
        common, own = (f"http://{address}" for address in proxy.app.proxy_addresses)
        async with proxy.session.get(f"{own}/v2/employees") as answer:
            assert (answer.status, tenant_in_the_log(proxy)) == (200, "acme")
        async with proxy.session.get(f"{own}/acme/v2/employees") as answer:
            assert answer.status == 200
        async with proxy.session.get(f"{common}/v2/employees") as answer:
            assert answer.status == 404
        async with proxy.session.get(f"{common}/globex/v2/employees") as answer:
            assert (answer.status, tenant_in_the_log(proxy)) == (200, "globex")


async def test_another_tenants_request_at_a_listener_is_refused_and_logged(
    pleo: Sandbox, tmp_path: Path
) -> None:
    """A request that the listener and another route give to two tenants reaches neither; the log has both."""
    entry = {"address": "127.0.0.1:0", "tenant": "acme"}
    async with behind(pleo, tmp_path, entry) as proxy:
        sent = len(pleo.api_requests)
        answer = await proxy.get("/globex/v2/employees", headers={"X-Request-Id": "r-1"})
        assert (answer.status, answer.json()["title"]) == (400, "More than one tenant claims this request")
        assert len(pleo.api_requests) == sent
        (line,) = proxy.lines(RequestAmbiguous.event)
        assert line["request_id"] == "r-1"
        assert line["claims"] == ["path prefix says 'globex'", "listener says 'acme'"]
        assert line["caller"] == "127.0.0.1"


async def test_a_claim_of_many_tenants_is_a_short_line(pleo: Sandbox, tmp_path: Path) -> None:
    """However many keys of how many tenants a request has, the log names eight claims and no key."""
    async with running_proxy(pleo, tmp_path) as proxy:
        for number in range(12):
            key = hash_legacy_key(Secret(f"plp_key-{number}"))
            await proxy.add_tenant(f"t{number}", legacy_keys=(key,))
        keys = [b64encode(f"plp_key-{number}:".encode()) for number in range(12)]
        lines = b"".join(b"Authorization: Basic %b\r\n" % key for key in keys)
        answer = await proxy.raw(
            b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + lines + b"\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 400 ")
        (line,) = proxy.lines(RequestAmbiguous.event)
        assert line["claims"] == [f"legacy key says 't{number}'" for number in range(8)]
        assert b"plp_key" not in proxy.log.getvalue()


async def test_a_listener_of_a_tenant_that_does_not_exist(pleo: Sandbox, tmp_path: Path) -> None:
    """It is warned of at the start and when the tenant is removed; its requests are refused by that name."""
    entry = {"address": "127.0.0.1:0", "tenant": "initech"}
    async with behind(pleo, tmp_path, entry, default_tenant="hooli") as proxy:
        missing = [fact for fact in proxy.facts if isinstance(fact, TenantMissing)]
        assert [(fact.setting, fact.tenant) for fact in missing] == [
            ("listen.default_tenant", "hooli"),
            ("listen.proxy", "initech"),
        ]
        answer = await proxy.get("/acme/v2/employees")
        assert answer.status == 404
        assert "'initech', which is no tenant here" in answer.json()["detail"]
        await proxy.add_tenant("initech")
        assert (await proxy.get("/v2/employees")).status == 503
        await proxy.app.store.edit_tenants(lambda stored: {n: t for n, t in stored.items() if n != "initech"})
        await proxy.app.watch.take_up()
        assert len(proxy.lines(TenantMissing.event)) == 3


async def test_a_unix_socket_serves_its_tenant_and_names_the_caller(pleo: Sandbox, tmp_path: Path) -> None:
    """Over a Unix socket the log has the user and process that called, as the kernel tells them."""
    path = tmp_path / "acme.sock"
    async with behind(pleo, tmp_path, "127.0.0.1:0", {"address": f"unix:{path}", "tenant": "acme"}) as proxy:
        assert proxy.app.proxy_addresses[1] == f"unix:{path}"
        answer = await over(path, "/v2/employees", {"X-Forwarded-For": "203.0.113.5"})
        assert answer.status == 200, answer.body
        line = proxy.lines("request.finished")[-1]
        assert (line["tenant"], line["caller"]) == ("acme", f"uid:{os.getuid()} pid:{os.getpid()}")
    assert not path.exists()


async def test_a_unix_socket_without_a_tenant_goes_by_the_other_routes(pleo: Sandbox, tmp_path: Path) -> None:
    """A plain path is an entry too; ``Host`` is judged there as elsewhere."""
    path = tmp_path / "all.sock"
    async with behind(pleo, tmp_path, "127.0.0.1:0", f"unix:{path}") as proxy:
        assert (await over(path, "/globex/v2/employees")).status == 200
        assert (await over(path, "/v2/employees")).status == 404
        refused = await over(path, "/globex/v2/employees", {"Host": "evil.example"})
        assert refused.status == 421
        assert proxy.lines("request.finished")[-1]["caller"].startswith("uid:")


@pytest.mark.parametrize(
    ("peers", "status"),
    [
        pytest.param([f"uid:{os.getuid()}"], 200, id="this-user"),
        pytest.param(["uid:4242", f"gid:{os.getgid()}"], 200, id="this-group"),
        pytest.param(["uid:4242"], 403, id="another-user"),
        pytest.param(["gid:4242"], 403, id="another-group"),
    ],
)
async def test_only_the_named_users_are_served(
    pleo: Sandbox, tmp_path: Path, peers: list[str], status: int
) -> None:
    """A user of the machine that the listener does not name gets 403, whatever it asks for."""
    path = tmp_path / "acme.sock"
    entry = {"address": f"unix:{path}", "tenant": "acme", "peers": peers}
    async with behind(pleo, tmp_path, "127.0.0.1:0", entry):
        for target in ("/v2/employees", "/nonsense"):
            answer = await over(path, target)
            assert answer.status == (status if status == 403 or target != "/nonsense" else 404)
            if status == 403:
                assert f"uid {os.getuid()}" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("peers", "let_in"),
    [
        (Peers(), True),
        (Peers(uids=frozenset({7})), True),
        (Peers(gids=frozenset({8})), True),
        (Peers(uids=frozenset({8}), gids=frozenset({7})), False),
        (Peers(uids=frozenset({6})), False),
        (Peers(gids=frozenset({9})), False),
    ],
    ids=str,
)
def test_peers(peers: Peers, let_in: bool) -> None:
    """A user is let in by its number or its group's, and everyone where nobody is named."""
    assert peers.let_in(7, 8) is let_in
    assert not Peers(uids=frozenset({7})).let_in(-1, -1)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        pytest.param({"address": "unix:/nonexistent/x.sock"}, "its directory does not exist", id="directory"),
        pytest.param({"group": "no-such-group"}, "there is no group 'no-such-group'", id="group"),
        pytest.param({"address": "unix:{folder}/file"}, "a file that is no socket", id="file"),
        pytest.param({"address": "unix:{folder}/live"}, "a program listens there", id="live"),
    ],
)
async def test_a_socket_that_cannot_be_made_is_one_clear_line(
    pleo: Sandbox, tmp_path: Path, entry: dict[str, str], told: str
) -> None:
    """The start fails and says which listener, why, and what to do."""
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(tmp_path / "live"))
        live.listen()
        full = {"address": f"unix:{tmp_path}/x.sock", **entry}
        full["address"] = full["address"].replace("{folder}", str(tmp_path))
        with pytest.raises(OperatorError) as caught:
            async with running_proxy(pleo, tmp_path, listen={"proxy": full}):
                pass
        assert str(caught.value).startswith(f"listen.proxy {full['address']}: ")
        assert told in str(caught.value)


async def test_a_stop_removes_the_socket_and_a_start_comes_back(pleo: Sandbox, tmp_path: Path) -> None:
    """One run after the other listens at the same path."""
    path = tmp_path / "acme.sock"
    for _ in range(2):
        async with running_proxy(pleo, tmp_path, listen={"proxy": f"unix:{path}"}):
            assert (await over(path, "/v1")).status == 404
        assert not path.exists()


# --- the default tenant


async def test_what_nothing_claims_is_the_default_tenants(pleo: Sandbox, tmp_path: Path) -> None:
    """A configured default is used where no route claims a request, and there only."""
    async with behind(pleo, tmp_path, "127.0.0.1:0", default_tenant="acme") as proxy:
        assert (await proxy.get("/v2/employees")).status == 200
        assert tenant_in_the_log(proxy) == "acme"
        assert (await proxy.get("/globex/v2/employees")).status == 200
        assert tenant_in_the_log(proxy) == "globex"
        unknown = await proxy.get("/v2/employees", headers={"X-Pleo-Tenant": "nobody"})
        assert unknown.status == 404
        twice = await proxy.get("/globex/v2/employees", headers={"X-Pleo-Tenant": "acme"})
        assert twice.status == 400
        await proxy.add_tenant("globex", enabled=False)
        assert (await proxy.get("/globex/v2/employees")).status == 403


async def test_an_unknown_key_is_not_the_default_tenants(pleo: Sandbox, tmp_path: Path) -> None:
    """Who sends a key that nobody has speaks for somebody, who is not guessed."""
    async with behind(pleo, tmp_path, "127.0.0.1:0", default_tenant="acme") as proxy:
        key = {"Authorization": f"Basic {b64encode(b'plp_of-somebody:').decode()}"}
        refused = await proxy.get("/v2/employees", headers=key)
        assert refused.status == 404
        assert "a legacy key that is not known" in refused.json()["detail"]
        assert (await proxy.get("/v2/employees", headers={"Authorization": "Bearer x"})).status == 200


def test_settings_of_listeners(pleo_settings: Settings) -> None:
    """Entries keep their order, and a table of an address alone is that address."""
    first, second = pleo_settings.listen.proxy
    assert (str(first), first.tenant, first.mode) == ("127.0.0.1:8090", "acme", 0o600)
    assert (str(second), second.mode, second.group) == ("unix:/run/x.sock", 0o660, "50")
    assert (second.uids, second.gids) == ((1001,), (50, 51))


@pytest.fixture
async def pleo_settings(pleo: Sandbox, tmp_path: Path) -> Settings:
    """Settings with one listener of each kind."""
    unix = {
        "address": "unix:/run/x.sock",
        "mode": "0660",
        "group": "50",
        "peers": ["uid:1001", "gid:50", "gid:51"],
    }
    entries = [{"address": "127.0.0.1:8090", "tenant": "acme"}, unix]
    return settings_for(pleo, tmp_path, listen={"proxy": entries})
