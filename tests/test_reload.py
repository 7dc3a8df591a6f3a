"""A changed configuration in a running proxy: each setting reaches its part, and nothing else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from proxy.config import Configuration, Report, Settings, configuration
from proxy.config.reloading import AT_RUN_TIME
from proxy.errors import ConfigurationError, OperatorError
from proxy.facts import ConfigReloadAsked, ConfigReloaded, ConfigReloadFailed, TaskCrashed, TenantMissing
from proxy.model import Role, Secret
from proxy.reload import Reloader
from proxy.sandbox import DEFAULT_CLIENT, Sandbox
from tests.harness import ADMIN_TOKEN, Proxy, running_proxy, until
from tests.operator_browser import Browser, ask, logged_in, shown_text
from tests.receivers import SECRET, http_receiver

EMPLOYEES = "/acme/v2/employees"
OTHER_TOKEN = "another-token-of-the-tests"


@dataclass
class Changing:
    """A running proxy, and the configuration that its next reload reads."""

    proxy: Proxy
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    fault: Exception | None = None

    def __post_init__(self) -> None:
        app = self.proxy.app

        async def take_up(outcome: Any) -> tuple[str, ...]:
            await app.reloaded(outcome)
            return ()

        self.reloader = Reloader(app.configuration, self.load, take_up, app._emit, self.proxy.pleo.now)
        app._services.reload = self.reloader.reload

    def load(self) -> Configuration:
        if self.fault is not None:
            raise self.fault
        settings = self.proxy.settings
        tables = {name: _keys(section) for name, section in settings}
        for name, keys in self.sections.items():
            tables[name] |= keys
        return configuration(Settings.model_validate(tables), {}, "config.toml")

    async def to(self, **sections: Mapping[str, Any]) -> Report:
        """Have these laid over what the proxy was started with."""
        self.sections = {name: dict(keys) for name, keys in sections.items()}
        return await self.reloader.reload()


def _keys(section: Any) -> dict[str, Any]:
    return {key: getattr(section, key) for key in section.model_fields_set}


@pytest.fixture
def changing(proxy: Proxy) -> Changing:
    """With the tenants acme and globex, both connected."""
    return Changing(proxy)


Probe = Callable[[Any], Any]


def entrance(app: Any) -> Any:
    return app._doors._doors[0]._protocol.args[1]


def proof(app: Any) -> Any:
    return app._parts.provider._proof.registration


def lanes(app: Any) -> Any:
    return [lane._channel for lane in app._parts.operators.herald._courier._lanes]


def shown(key: str) -> Probe:
    return lambda app: next(row.value for row in app._services.settings if row.key == key)


SHEET = ("app_name", "app_url", "logo_url", "terms_url", "privacy_url", "initiation_url", "settings_url")
CASES: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Probe]]] = {
    "hosts": (
        {"listen": {"hosts": ["new.test"]}},
        {"listen.hosts": lambda app: (app.watch.serves_host("new.test"), app._services.hosts)},
    ),
    "callers": (
        {"listen": {"trusted_proxies": ["10.1.0.0/16"], "default_tenant": "acme"}},
        {
            "listen.trusted_proxies": lambda app: entrance(app).trusted,
            "listen.default_tenant": lambda app: app.exchange.directory._default,
        },
    ),
    "registration": (
        {
            "pleo": {
                "client_id": "x",
                "client_secret": "y",
                "client_secret_previous": "z",
                "client_auth": "post",
            }
        },
        {
            "pleo.client_id": lambda app: (proof(app).client_id, app._parts.authorize.settings.client_id),
            "pleo.client_secret": lambda app: proof(app).client_secret,
            "pleo.client_secret_previous": lambda app: proof(app).client_secret_previous,
            "pleo.client_auth": lambda app: proof(app).client_auth,
        },
    ),
    "scopes": (
        {"pleo": {"scopes": ["companies:read"]}},
        {"pleo.scopes": lambda app: app._parts.authorize.settings.scopes},
    ),
    "sheet": (
        {"pleo": {"app_name": "x", **dict.fromkeys(SHEET[1:], "https://x.test")}},
        {f"pleo.{key}": shown(f"pleo.{key}") for key in SHEET},
    ),
    "tokens": (
        {"admin": {"token": OTHER_TOKEN, "viewer_token": "a-viewers-token"}},
        {
            "admin.token": lambda app: app._parts.tokens.role_of(Secret(OTHER_TOKEN)),
            "admin.viewer_token": lambda app: app._services.desk._tokens.digest(Role.VIEWER),
        },
    ),
    "sessions": (
        {"admin": {"session_idle_s": 400, "session_max_s": 500}},
        {
            "admin.session_idle_s": lambda app: (
                app._services.sessions.limits.idle_s,
                app.watch.settings.admin.session_idle_s,
            ),
            "admin.session_max_s": lambda app: app._services.sessions.limits.max_s,
        },
    ),
    "single-sign-on": (
        {
            "admin": {
                "sso_header": "X-Email",
                "sso_proxies": ["10.0.0.1/32"],
                "sso_operators": ["a@x.test"],
                "sso_viewers": ["b@x.test"],
            }
        },
        {
            "admin.sso_header": lambda app: app._services.sso and app._services.sso.header,
            "admin.sso_proxies": lambda app: (
                app._services.sso and app._services.sso.user("10.0.0.1", ["a@x.test"])
            ),
            "admin.sso_operators": lambda app: app._services.sso and app._services.sso.identity("a@x.test"),
            "admin.sso_viewers": lambda app: app._services.sso and app._services.sso.identity("b@x.test"),
        },
    ),
    "audit": ({"audit": {"keep_days": 5}}, {"audit.keep_days": lambda app: app._audit.keep_s}),
    "log": (
        {"log": {"level": "error"}},
        {"log.level": lambda app: app._log.__closure__[0].cell_contents._shown},
    ),
    "consent": (
        {"consent": {"organisation": "Example Ltd", "contact": "it@x.test", "language": "de"}},
        {
            "consent.organisation": lambda app: app._parts.authorize.settings.asker.organisation,
            "consent.contact": lambda app: app._parts.authorize.settings.asker.contact,
            "consent.language": lambda app: app._parts.authorize.settings.asker.language,
        },
    ),
    "webhook": (
        {"notify": {"webhook_url": "https://hook.test/x", "webhook_secret": SECRET}},
        {"notify.webhook_url": lanes, "notify.webhook_secret": lanes},
    ),
    "mail": (
        {
            "notify": {
                "smtp_url": "smtp://ann@127.0.0.1:1",
                "smtp_password": "p",
                "mail_from": "a@x.test",
                "mail_to": ["b@x.test"],
            }
        },
        {
            "notify.smtp_url": lambda app: [lane.server.host for lane in lanes(app)],
            "notify.smtp_password": lambda app: [lane.server.password for lane in lanes(app)],
            "notify.mail_from": lambda app: [lane.sender for lane in lanes(app)],
            "notify.mail_to": lambda app: [lane.to for lane in lanes(app)],
        },
    ),
    "command": ({"notify": {"command": ["/bin/true"]}}, {"notify.command": lanes}),
    "notices": (
        {"notify": {"repeat_s": 77, "store_down_s": 7}},
        {
            "notify.repeat_s": lambda app: app._parts.operators.herald._watch.rules.repeat_s,
            "notify.store_down_s": lambda app: app._parts.operators.herald._watch.rules.store_down_s,
        },
    ),
    "refresh": (
        {
            "refresh": {
                "advisory": 0.5,
                "advisory_jitter": 0.2,
                "mandatory_s": 3,
                "mandatory": 0.01,
                "wait_s": 4,
                "timeout_s": 5,
                "default_expires_in_s": 66,
                "refresh_lifetime_days": 7,
                "warn_days": 3,
                "keep_alive": 0.25,
                "forced_hold_s": 8,
                "backoff_s": 0.5,
                "backoff_max_s": 9,
                "takeover_s": 10,
                "client_rejected_pause_s": 11,
            }
        },
        {
            "refresh.advisory": lambda app: app.tokens.held.windows.advisory,
            "refresh.advisory_jitter": lambda app: app.tokens.held.windows.advisory_jitter,
            "refresh.mandatory_s": lambda app: app.tokens.held.windows.mandatory_s,
            "refresh.mandatory": lambda app: app.tokens.held.windows.mandatory,
            "refresh.wait_s": lambda app: app.tokens.rules.wait_s,
            "refresh.timeout_s": lambda app: (
                app._parts.provider._timeout.total,
                app.tokens.refresher.lease_s,
            ),
            "refresh.default_expires_in_s": lambda app: (
                app.tokens.refresher.lifetimes,
                app._parts.authorize.lifetimes,
            ),
            "refresh.refresh_lifetime_days": lambda app: app.tokens.refresher.lifetimes.refresh_s,
            "refresh.warn_days": lambda app: (
                app.tokens.rules.warn_s,
                app._services.warn_s,
                app._parts.operators.herald._watch.rules.warn_s,
            ),
            "refresh.keep_alive": lambda app: app.tokens.held.windows.keep_alive,
            "refresh.forced_hold_s": lambda app: app.tokens.rules.forced_hold_s,
            "refresh.backoff_s": lambda app: app.tokens.rules.backoff_s,
            "refresh.backoff_max_s": lambda app: app.tokens.rules.backoff_max_s,
            "refresh.takeover_s": lambda app: app.tokens.refresher.takeover_s,
            "refresh.client_rejected_pause_s": lambda app: app.tokens.rules.client_rejected_pause_s,
        },
    ),
    "limits": (
        {
            "limits": {
                "head_bytes": 9000,
                "headers": 50,
                "target_bytes": 8500,
                "body_bytes": 5000,
                "replay_memory": 1000,
                "replay_disk": 2000,
                "tenant_requests_per_minute": 77,
                "tenant_concurrency": 3,
                "connections": 55,
                "idle_s": 21,
                "head_s": 22,
                "upstream_connect_s": 23,
                "upstream_total_s": 24,
                "drain_s": 0.1,
            }
        },
        {
            "limits.head_bytes": lambda app: (
                app.server.limits.head_bytes,
                app.exchange.upstream._limits.head_bytes,
            ),
            "limits.headers": lambda app: (
                app.server.limits.headers,
                app._parts.operators.listener.limits.headers,
            ),
            "limits.target_bytes": lambda app: (
                app.exchange.limits.target_bytes,
                app.server.limits.target_bytes,
                app._parts.operators.listener.limits.target_bytes,
            ),
            "limits.body_bytes": lambda app: app.exchange.admission._allowances.body_bytes,
            "limits.replay_memory": lambda app: app.exchange.limits.replay_memory,
            "limits.replay_disk": lambda app: app.exchange.limits.replay_disk,
            "limits.tenant_requests_per_minute": lambda app: (
                app.exchange.admission._allowances.requests_per_minute
            ),
            "limits.tenant_concurrency": lambda app: app.exchange.admission._allowances.concurrency,
            "limits.connections": lambda app: app.server.limits.connections,
            "limits.idle_s": lambda app: (
                app.server.limits.idle_s,
                app.exchange.upstream._limits.idle_s,
                app._parts.operators.listener.limits.idle_s,
            ),
            "limits.head_s": lambda app: app.server.limits.head_s,
            "limits.upstream_connect_s": lambda app: (
                app.exchange.upstream._dialer.connect_s,
                app._parts.provider._timeout.connect,
            ),
            "limits.upstream_total_s": lambda app: app.exchange.upstream._limits.total_s,
            "limits.drain_s": lambda app: app.configuration.settings.limits.drain_s,
        },
    ),
}
"""Settings to change together, and where each of them is in the running parts."""


def parts_of(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("case", CASES)
async def test_each_setting_reaches_its_parts(changing: Changing, case: str) -> None:
    """What is said to be taken up is, wherever it is used; and back again by the next reload."""
    sections, probes = CASES[case]
    app = changing.proxy.app
    before = {key: probe(app) for key, probe in probes.items()}
    report = await changing.to(**sections)
    assert (set(report.changed), report.needs_restart, report.mistakes) == (set(probes), {}, ())
    after = {key: probe(app) for key, probe in probes.items()}
    for key in probes:
        if case in {"refresh", "limits", "sessions", "hosts"}:
            pairs = zip(parts_of(before[key]), parts_of(after[key]), strict=True)
            assert all(old != new for old, new in pairs), key
        assert before[key] != after[key], key
    await changing.to()
    again = {key: probe(app) for key, probe in probes.items()}
    if case != "log":  # which the harness begins with a level that is not the settings'
        assert str(again) == str(before)
    assert (await changing.proxy.get(EMPLOYEES)).status == 200


def test_every_setting_that_is_taken_up_is_looked_for() -> None:
    """No key is among those of a reload without a case above that finds it in the running proxy."""
    assert {key for _, probes in CASES.values() for key in probes} == AT_RUN_TIME


# --- whole or not at all


async def test_a_configuration_with_mistakes_is_not_taken_up(changing: Changing) -> None:
    """All stays as it is; the mistakes are reported, and the metric tells until a reload succeeds."""
    proxy, mistake = changing.proxy, "limits.headers = 0: must be at least 1; remove it for the default 100"
    before = proxy.app.configuration
    changing.fault = ConfigurationError("config.toml", [mistake])
    report = await changing.to(log={"level": "error"})
    assert (report.changed, report.mistakes) == ((), (mistake,))
    assert proxy.app.configuration is before
    assert proxy.facts[-1] == ConfigReloadFailed("the test", (mistake,))
    assert b"\npleo_proxy_config_last_reload_successful 0.0\n" in proxy.metrics.render()
    changing.fault = None
    assert (await changing.to()).mistakes == ()
    assert b"\npleo_proxy_config_last_reload_successful 1.0\n" in proxy.metrics.render()


async def test_what_only_shows_in_use_is_not_taken_up_in_half(changing: Changing) -> None:
    """Two tokens that are the same are found when the parts are made: before anything was changed."""
    tokens = changing.proxy.app._parts.tokens
    report = await changing.to(admin={"viewer_token": ADMIN_TOKEN}, limits={"headers": 50})
    assert report.mistakes == ("admin.viewer_token: must differ from admin.token; choose another one",)
    assert changing.proxy.app.server.limits.headers == 100
    assert tokens.digest(Role.VIEWER) is None
    assert changing.reloader.configuration is changing.proxy.app.configuration
    assert (await changing.to(limits={"headers": 50})).changed == ("limits.headers",)


async def test_a_defect_while_it_is_read_keeps_what_is_in_force(changing: Changing) -> None:
    """It is told by its type and place, and its text, which may hold anything, is not."""
    changing.fault = RuntimeError("a secret text")
    report = await changing.to(limits={"headers": 50})
    assert "a secret text" not in repr(report)
    assert "please report it" in report.mistakes[0]
    assert isinstance(changing.proxy.facts[-2], TaskCrashed)
    assert changing.proxy.app.server.limits.headers == 100


async def test_what_needs_a_restart_is_named_and_the_rest_taken_up(changing: Changing) -> None:
    """The report, the log and the page agree on what is in force."""
    proxy = changing.proxy
    report = await changing.to(listen={"workers": 3, "proxy": "127.0.0.1:9"}, limits={"headers": 50})
    assert report.changed == ("limits.headers",)
    assert report.needs_restart.keys() == {"listen.workers", "listen.proxy"}
    assert proxy.facts[-1] == ConfigReloaded(
        "config.toml", ("limits.headers",), ("listen.proxy", "listen.workers")
    )
    text = shown_text(await (await logged_in(proxy)).get("/settings"))
    assert "listen.workers 1 default" in text
    assert "limits.headers 50 file" in text


async def test_two_reloads_at_once_come_one_after_the_other(changing: Changing) -> None:
    """The second reads anew, so what was written meanwhile is in force in the end."""
    reading, most = 0, 0
    real = changing.load

    def load() -> Configuration:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        sleep(0.05)  # as a slow disk
        reading -= 1
        return real()

    changing.reloader._load = load
    first = asyncio.create_task(changing.to(limits={"headers": 50}))
    second = asyncio.create_task(changing.to(limits={"headers": 51}))
    await asyncio.gather(first, second)
    assert most == 1
    assert changing.proxy.app.server.limits.headers == 51


# --- what callers see of it


async def test_reloads_under_load_cost_no_request(changing: Changing) -> None:
    """Limits, windows, hosts and the log change again and again under callers' requests: each is answered."""
    proxy, going, statuses = changing.proxy, True, list[int]()
    proxy.pleo.switches.rate_limit_per_minute = None

    async def call() -> None:
        while going:
            statuses.append((await proxy.get(f"{EMPLOYEES}?limit=1")).status)

    callers = [asyncio.create_task(call()) for _ in range(8)]
    for number in range(30):
        report = await changing.to(
            limits={"headers": 50 + number, "idle_s": 30 + number, "tenant_concurrency": 100 + number},
            refresh={"advisory": 0.5 + number / 100},
            listen={"hosts": [f"h{number}.test"]},
            log={"level": ("debug", "info")[number % 2]},
        )
        assert {"limits.headers", "listen.hosts"} <= set(report.changed)
    going = False
    await asyncio.gather(*callers)
    assert len(statuses) > 30
    assert set(statuses) == {200}


async def test_limits_hold_for_the_next_request_of_an_open_connection(changing: Changing) -> None:
    """A tool that keeps its connection for days is bounded by what is in force, not by what was."""
    reader, writer = await asyncio.open_connection(*changing.proxy.address)
    head = f"GET {EMPLOYEES} HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n\r\n".encode()

    async def status() -> bytes:
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        return answer.split(b" ")[1]

    assert await status() == b"200"
    await changing.to(limits={"headers": 3})
    assert await status() == b"431"
    writer.close()


async def test_a_request_is_judged_by_the_limits_of_its_begin(changing: Changing) -> None:
    """While it waits for a token other limits come into force: its body may have what it might at first."""
    proxy = changing.proxy
    gate = proxy.pleo.hold_token_endpoint()
    proxy.pleo.advance(901)  # the token is over, so the request waits before its body is taken
    waiting = asyncio.create_task(
        proxy.call("POST", "/acme/v1/vendors:search", data=b"{" + b" " * 900 + b"}")
    )
    async with asyncio.timeout(10):
        await gate.arrived()
    await changing.to(limits={"body_bytes": 100, "replay_memory": 10, "replay_disk": 10})
    # Another request of the tenant, by which its way in is made anew.
    other = asyncio.create_task(proxy.get(EMPLOYEES))
    await until(lambda: proxy.app.exchange.under_way == 2)
    gate.release()
    assert (await other).status == 200
    assert (await waiting).status != 413
    assert (await proxy.call("POST", "/acme/v1/vendors:search", data=b"{" + b" " * 900 + b"}")).status == 413


async def test_names_are_served_as_they_are_now(changing: Changing) -> None:
    """A host that was added is served, one that was removed is refused; so at the operator's listener."""
    proxy, named = changing.proxy, {"Host": "new.test"}
    assert (await proxy.get(EMPLOYEES, headers=named)).status == 421
    await changing.to(listen={"hosts": ["new.test"]})
    assert (await proxy.get(EMPLOYEES, headers=named)).status == 200
    assert (await ask(proxy, "GET", "/healthz", headers=named)).status == 200
    await changing.to()
    assert (await proxy.get(EMPLOYEES, headers=named)).status == 421
    assert (await ask(proxy, "GET", "/healthz", headers=named)).status == 421


async def test_a_default_tenant_that_is_missing_is_told(changing: Changing) -> None:
    """As at a start; and what no route claims is its own as soon as the setting says so."""
    proxy = changing.proxy
    assert (await proxy.get("/v2/employees")).status == 404
    await changing.to(listen={"default_tenant": "nobody"})
    assert TenantMissing("listen.default_tenant", "nobody") in proxy.facts
    await changing.to(listen={"default_tenant": "acme"})
    assert (await proxy.get("/v2/employees")).status == 200


async def test_a_tenants_concurrency_is_counted_on(changing: Changing) -> None:
    """Who is inside at a reload counts for the limit that is in force after it."""
    proxy = changing.proxy
    gate = proxy.pleo.hold_api()
    waiting = asyncio.create_task(proxy.get(EMPLOYEES))
    async with asyncio.timeout(10):
        await gate.arrived()
    await changing.to(limits={"tenant_concurrency": 1})
    assert (await proxy.get(EMPLOYEES)).status == 429
    gate.release()
    assert (await waiting).status == 200
    assert (await proxy.get(EMPLOYEES)).status == 200


async def test_old_connections_to_pleo_are_not_used_for_other_limits(changing: Changing) -> None:
    """What bounds an answer of Pleo is the connection's for life, so the next request gets another one."""
    upstream = changing.proxy.app.exchange.upstream
    opened = upstream.stats["connects_total"]
    await changing.proxy.get(EMPLOYEES)
    await changing.to(limits={"upstream_total_s": 200})
    await changing.proxy.get(EMPLOYEES)
    await changing.proxy.get(EMPLOYEES)
    assert upstream.stats["connects_total"] - opened in (1, 2)
    assert {connection.limits.total_s for connection in upstream._open} == {200}


async def test_a_busy_connection_takes_up_limits_after_its_request(changing: Changing) -> None:
    """The caller's, for its next request; and Pleo's gets no other one."""
    proxy = changing.proxy
    gate = proxy.pleo.hold_api()
    waiting = asyncio.create_task(proxy.get(EMPLOYEES))
    async with asyncio.timeout(10):
        await gate.arrived()
    [connection] = proxy.app.server.connections
    await changing.to(limits={"headers": 50, "upstream_total_s": 200})
    assert connection._limits.headers == 100
    gate.release()
    assert (await waiting).status == 200
    await until(lambda: connection._limits.headers == 50)
    await until(lambda: not proxy.app.exchange.upstream._open)


# --- tokens and secrets


async def test_a_corrected_secret_is_used_at_once(pleo: Sandbox, tmp_path: Path) -> None:
    """Refreshes that paused since Pleo refused the client go on with the next request, without the pause."""
    async with running_proxy(pleo, tmp_path) as proxy:
        changing = Changing(proxy)
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        await changing.to(pleo={"client_secret": "wrong-secret"})
        pleo.revoke_access("acme")
        assert (await proxy.get(EMPLOYEES)).status == 503
        report = await changing.to(pleo={"client_secret": DEFAULT_CLIENT.client_secret})
        assert report.changed == ("pleo.client_secret",)
        assert (await proxy.get(EMPLOYEES)).status == 200


async def test_a_secret_that_changes_under_a_refresh_is_asked_with_again(changing: Changing) -> None:
    """Pleo refuses the old secret after the new one is in force: the refresh succeeds all the same."""
    proxy, pleo = changing.proxy, changing.proxy.pleo
    await changing.to(pleo={"client_secret": "wrong-secret"})
    gate = pleo.hold_token_endpoint()
    pleo.revoke_access("acme")
    waiting = asyncio.create_task(proxy.get(EMPLOYEES))
    async with asyncio.timeout(10):
        await gate.arrived()
    await changing.to()
    gate.release()
    assert (await waiting).status == 200
    assert sum(pleo.counters.refreshes.values()) == 1


async def test_a_reload_interrupts_no_refresh(changing: Changing) -> None:
    """One is sent; windows, time-outs and the secret change; its pair is saved and used."""
    proxy, pleo = changing.proxy, changing.proxy.pleo
    pleo.revoke_access("acme")
    async with pleo.hold_token_endpoint(committed=True) as gate:
        waiting = asyncio.create_task(proxy.get(EMPLOYEES))
        await gate.arrived()
        await changing.to(
            refresh={"timeout_s": 20, "advisory": 0.5, "takeover_s": 5, "wait_s": 11},
            pleo={"client_secret_previous": "older-secret"},
        )
        gate.release()
        assert (await waiting).status == 200
    assert sum(pleo.counters.refreshes.values()) == 1
    assert (await proxy.app.store.grants())["acme"].generation == 2


async def test_tokens_that_are_held_are_planned_anew(changing: Changing) -> None:
    """With an earlier window a token that is in use is refreshed ahead, though no new one came first."""
    proxy, pleo = changing.proxy, changing.proxy.pleo
    await proxy.get(EMPLOYEES)
    pleo.advance(500)
    await proxy.app.tokens.refresh_due()
    assert not proxy.app.tokens.refreshes_under_way
    await changing.to(refresh={"advisory": 0.5, "advisory_jitter": 0})
    await proxy.app.tokens.refresh_due()
    await until(lambda: sum(pleo.counters.refreshes.values()) == 1)


async def test_a_changed_admin_token_ends_what_began_with_the_old_one(changing: Changing) -> None:
    """Sessions and bearers of the old token are over, the new one works, and a generated one stays."""
    browser = await logged_in(changing.proxy)
    assert (await browser.get("/settings")).status == 200
    await changing.to(admin={"token": OTHER_TOKEN})
    assert (await browser.get("/settings")).status == 303
    assert (await reload_by_api(changing, ADMIN_TOKEN)).status == 401
    assert (await reload_by_api(changing, OTHER_TOKEN)).status == 200


async def test_a_generated_token_outlives_reloads(pleo: Sandbox, tmp_path: Path) -> None:
    """It is in no configuration, so no reload takes it away."""
    async with running_proxy(pleo, tmp_path, admin={"token": None}) as proxy:
        changing = Changing(proxy)
        token = proxy.app.generated_admin_token
        assert token is not None
        assert (await changing.to(limits={"headers": 50})).changed == ("limits.headers",)
        assert (await reload_by_api(changing, token.reveal())).status == 200


async def test_secrets_of_before_and_after_are_withheld(changing: Changing) -> None:
    """The old client secret may still be on its way to Pleo, so no line may hold it, nor the new one."""
    canary = changing.proxy.app._canary
    new = "a-Brand-New-Client-Secret-0123456789"
    assert not canary.finds(new.encode())
    await changing.to(pleo={"client_secret": new})
    assert canary.finds(new.encode())
    assert canary.finds(DEFAULT_CLIENT.client_secret.encode())
    await changing.to(pleo={"client_secret": new, "client_id": "other"})
    assert not canary.finds(DEFAULT_CLIENT.client_secret.encode())


async def test_notifications_go_to_the_new_receiver(changing: Changing) -> None:
    """From none to one: what is amiss is told there; and from one to none: nobody looks any more."""
    proxy = changing.proxy
    async with http_receiver() as hook:
        await changing.to(notify={"webhook_url": hook.url, "webhook_secret": SECRET})
        proxy.pleo.revoke(proxy.pleo.grant("acme").company_id)
        proxy.pleo.revoke_access("acme")
        assert (await proxy.get(EMPLOYEES)).status == 503
        await until(lambda: hook.bodies)
        await changing.to()
        assert proxy.app._parts.operators is not None
        assert proxy.app._parts.operators.herald._task is None


# --- who asks for it


async def reload_by_api(changing: Changing, token: str) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    return await ask(changing.proxy, "POST", "/api/v1/reload", headers=headers)


async def test_the_api_answers_with_the_report(changing: Changing) -> None:
    """What changed and what waits; it is in the audit trail with who asked."""
    changing.sections = {"limits": {"headers": 50}, "vault": {"keys": "k"}}
    answer = await reload_by_api(changing, ADMIN_TOKEN)
    assert answer.json() == {
        "source": "config.toml",
        "changed": ["limits.headers"],
        "needs_restart": [{"key": "vault.keys", "why": "the key ring is read at a start only"}],
    }
    assert ConfigReloadAsked("operator") in changing.proxy.facts
    await changing.proxy.app._audit.close()
    records = await changing.proxy.app.store.trail.newest(10, None, None)
    told = {record.entry.event: record.entry.details for record in records}
    assert "operator" in told["config.reload_asked"]
    assert "limits.headers" in told["config.reloaded"]


async def test_the_api_says_what_is_wrong(changing: Changing) -> None:
    """A conflict with all mistakes; and where nothing can be read again, that."""
    changing.fault = ConfigurationError("config.toml", ["one mistake", "another mistake"])
    answer = await reload_by_api(changing, ADMIN_TOKEN)
    assert answer.status == 409
    assert "one mistake" in answer.json()["detail"]
    assert "another mistake" in answer.json()["detail"]
    changing.proxy.app._services.reload = None
    assert (await reload_by_api(changing, ADMIN_TOKEN)).status == 502


async def test_a_process_that_does_not_take_it_up_is_named(changing: Changing) -> None:
    """By the API and on the page."""

    async def unreached() -> Report:
        return Report("config.toml", ("log.level",), {}, (), ("worker 1: no answer within 20 s",))

    changing.proxy.app._services.reload = unreached
    answer = await reload_by_api(changing, ADMIN_TOKEN)
    assert (answer.status, "worker 1: no answer" in answer.json()["detail"]) == (502, True)
    browser = await logged_in(changing.proxy)
    page = await browser.submit("/settings/reload", "/settings")
    assert (page.status, "worker 1: no answer" in shown_text(page)) == (502, True)


async def test_the_page_has_a_button_for_it(changing: Changing) -> None:
    """It shows what changed, what waits and why, or every mistake."""
    browser = await logged_in(changing.proxy)
    changing.sections = {"limits": {"headers": 50}, "listen": {"admin": "127.0.0.1:9"}}
    text = shown_text(await browser.submit("/settings/reload", "/settings"))
    assert "config.toml was read again. In force now: limits.headers." in text
    assert "listen.admin: its socket is opened at a start" in text
    assert "limits.headers 50 file" in text
    changing.fault = ConfigurationError("config.toml", ["one <b>mistake</b>", "another mistake"])
    answer = await browser.submit("/settings/reload", "/settings")
    text = shown_text(answer)
    assert answer.status == 409
    assert "config.toml has mistakes: one <b>mistake</b> another mistake Nothing was taken up." in text
    changing.fault = OperatorError("the file is away")
    assert "the file is away" in shown_text(await browser.submit("/settings/reload", "/settings"))


async def test_only_operators_may_have_it_read(changing: Changing) -> None:
    """Neither a viewer, nor a form without the session's token, nor somebody who is not logged in."""
    await changing.to(admin={"viewer_token": "a-viewers-token"})
    seen = len(changing.proxy.facts)
    viewer = await logged_in(changing.proxy, "a-viewers-token")
    assert "Read the configuration again" not in shown_text(await viewer.get("/settings"))
    assert (await viewer.submit("/settings/reload", "/")).status == 403
    operator = await logged_in(changing.proxy)
    assert "Read the configuration again" in shown_text(await operator.get("/settings"))
    assert (await operator.send("POST", "/settings/reload", {"csrf": "wrong"})).status == 403
    assert (await Browser(changing.proxy).send("POST", "/settings/reload", {})).status == 303
    assert (await reload_by_api(changing, "a-viewers-token")).status == 403
    kinds = {type(fact) for fact in changing.proxy.facts[seen:]}
    assert not kinds & {ConfigReloadAsked, ConfigReloaded, ConfigReloadFailed}
