"""A whole proxy before a simulated Pleo, in one process, on real sockets, with a log that tests can read."""

from __future__ import annotations

import asyncio
import io
import json
import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
from yarl import URL

from proxy import app, config
from proxy.admin.services import SERVICES
from proxy.authorize import create_link
from proxy.config import Settings
from proxy.config.reloading import Report
from proxy.exchange import RUN
from proxy.facts import Fact, LineWithheld
from proxy.model import Clock, Tenant
from proxy.sandbox import DEFAULT_CLIENT, Sandbox, Visit, approve
from proxy.telemetry import fan_out
from proxy.telemetry.canary import Canary
from proxy.telemetry.live import Live
from proxy.telemetry.logs import LogSink
from proxy.telemetry.metrics import Metrics
from proxy.tenants import check_together, checked

ADMIN_TOKEN = "admin-token-of-the-tests"
Raw = list[tuple[str, str]]


@dataclass
class Answer:
    """What a caller got."""

    status: int
    headers: Raw
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Proxy:
    """The running proxy and everything around it."""

    app: app.App
    pleo: Sandbox
    settings: Settings
    session: aiohttp.ClientSession
    log: io.BytesIO
    metrics: Metrics
    facts: list[Fact] = field(default_factory=list)
    withheld: list[Fact] = field(default_factory=list)
    """What is to be withheld in this run."""
    _waiting: list[tuple[type[Fact], asyncio.Future[Fact]]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://{self.app.proxy_addresses[0]}"

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.app.proxy_addresses[0].rpartition(":")
        return host, int(port)

    @property
    def admin_url(self) -> str:
        return self.settings.listen.public_url

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Log lines as objects, of one event or all."""
        parsed = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in parsed if event is None or line["event"] == event]

    def seen(self, fact: Fact) -> None:
        self.facts.append(fact)
        for waiting in list(self._waiting):
            kind, future = waiting
            if isinstance(fact, kind) and not future.done():
                future.set_result(fact)
                self._waiting.remove(waiting)

    async def next_fact(self, kind: type[Fact], timeout_s: float = 10) -> Fact:
        """The next fact of this kind that is reported from now on."""
        future: asyncio.Future[Fact] = asyncio.get_running_loop().create_future()
        self._waiting.append((kind, future))
        async with asyncio.timeout(timeout_s):
            return await future

    def let_reload(self) -> None:
        """Give it a configuration that can be read again and is as it was; its settings came from nowhere."""

        async def reload() -> Report:
            return Report("config.toml", (), {})

        object.__setattr__(self.app.admin[SERVICES], "reload", reload)

    async def add_tenant(self, name: str, **fields: Any) -> Tenant:
        """Add a tenant as the command line would, and have it in force."""
        tenant = checked(Tenant(name, **fields))

        def edit(stored: Mapping[str, Tenant]) -> Mapping[str, Tenant]:
            wanted = {**stored, name: tenant}
            check_together(wanted)
            return wanted

        await self.app.store.edit_tenants(edit)
        await self.app.watch.take_up()
        return tenant

    async def link(self, name: str) -> str:
        """A fresh connect link for the tenant."""
        url, _ = await create_link(self.app.store, name, public_url=self.admin_url, now=self.pleo.now())
        return url.reveal()

    async def connect(self, name: str, company: str | None = None) -> Visit:
        """Consent for the tenant as a person in a browser does; the company is the tenant's namesake."""
        return await approve(await self.link(name), company=company or name)

    async def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, data: Any = None
    ) -> Answer:
        """One request of a caller, without any header that it did not ask for but Host."""
        async with self.session.request(
            method,
            URL(self.base_url + path, encoded=True),  # the path is sent as it stands
            headers=headers,
            data=data,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answer:
            body = await answer.read()
            raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.raw_headers]
            return Answer(answer.status, raw, body)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes on a new connection and read until the proxy closes it."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(data)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


def settings_for(pleo: Sandbox, state_dir: Path, /, **sections: Mapping[str, Any]) -> Settings:
    """Settings for a proxy before ``pleo``; each keyword lays a section's keys over the defaults here."""
    admin_port = free_port()
    data: dict[str, dict[str, Any]] = {
        "listen": {
            "proxy": "127.0.0.1:0",
            "admin": f"127.0.0.1:{admin_port}",
            "public_url": f"http://127.0.0.1:{admin_port}",
        },
        "pleo": {
            "environment": "custom",
            "client_id": DEFAULT_CLIENT.client_id,
            "client_secret": DEFAULT_CLIENT.client_secret,
            "scopes": list(DEFAULT_CLIENT.scopes),
            "api_url": pleo.api_url,
            "authorize_url": pleo.authorize_url,
            "token_url": pleo.token_url,
        },
        "store": {"url": f"sqlite://{state_dir}/proxy.db", "state_dir": str(state_dir)},
        "admin": {"token": ADMIN_TOKEN},
    }
    for name, keys in sections.items():
        data[name] = {**data.get(name, {}), **keys}
    return Settings.model_validate(data)


def free_port() -> int:
    """A port that nothing listens on now, and that the kernel gives to no connection meanwhile.

    From below those that Linux takes for outgoing connections (``ip_local_port_range``), and at random, so
    that test runs beside each other hardly ever choose the same.
    """
    while True:
        port = _any.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


_any = random.SystemRandom()


@asynccontextmanager
async def running_proxy(
    pleo: Sandbox, state_dir: Path, /, *, clock: Clock | None = None, **sections: Mapping[str, Any]
) -> AsyncIterator[Proxy]:
    """A proxy before ``pleo``, on the sandbox's clock if no other, drained and closed at the end."""
    settings = settings_for(pleo, state_dir, **sections)
    pleo.add_redirect_uri(settings.redirect_uri)
    log, metrics = io.BytesIO(), Metrics()
    async with AsyncExitStack() as stack:
        proxy: Proxy | None = None
        early: list[Fact] = []

        def seen(fact: Fact) -> None:
            early.append(fact) if proxy is None else proxy.seen(fact)

        sink = LogSink(log, log_format="json", level="debug", canary=Canary(RUN.encode()))
        emit = sink.report = fan_out(sink, metrics, seen)
        now = clock or pleo.now
        live = Live(sink)
        running = await app.start(
            config.configuration(settings, {}, "the test"),
            {},
            emit=emit,
            metrics=metrics,
            stack=stack,
            clock=now,
            canary=sink.canary,
            live=live,
            log=lambda log: sink.tell_from(log.level),
        )
        # Closed first, so that the drain meets no idle connection.
        session = await stack.enter_async_context(
            aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
        )
        proxy = Proxy(running, pleo, settings, session, log, metrics, early)
        yield proxy
    withheld = [fact for fact in proxy.facts if isinstance(fact, LineWithheld)]
    assert withheld == proxy.withheld, "a line of an ordinary run was taken for one with a secret"


async def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Wait until ``condition()`` is true; fails after ``timeout_s``, so that it is never mere luck."""
    ends = monotonic() + timeout_s
    while not condition():
        assert monotonic() < ends, "the condition did not come true in time"
        await asyncio.sleep(0.005)
