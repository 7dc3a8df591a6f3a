"""The composition root: builds everything in the order of the layers, and owns its life from start to drain.

Nothing here decides about a request or a token. What starts is stopped in reverse order, whatever fails in
between.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic

from aiohttp import web

from proxy import __version__, known_secrets, listening, recovery, wiring
from proxy.admin import Listener, Services, admin_app
from proxy.admin import token as admin_token
from proxy.admin.desk import TokenDesk
from proxy.admin.sessions import Sessions
from proxy.admission import Admission
from proxy.audit import Ledger
from proxy.authorize import Authorize
from proxy.config import Configuration, Log, Reloaded, Report
from proxy.exchange import Exchange
from proxy.facts import (
    ConfigReloaded,
    ConfigReloadFailed,
    Emit,
    ProxyDraining,
    ProxyStarted,
    ProxyStopped,
)
from proxy.groundwork import keep_others_out, open_vault, recover
from proxy.listener import CallerServer
from proxy.model import DAY_S, Clock, Role, Secret
from proxy.rates import Rates
from proxy.readings import Readings, Reloads
from proxy.retune import OperatorsParts, Parts, take_up
from proxy.store import Journal, Store, instance_name, journal_path, open_store
from proxy.telemetry import fan_out
from proxy.telemetry.audit import AuditSink
from proxy.telemetry.canary import Canary
from proxy.telemetry.crashes import crash_reporter
from proxy.telemetry.live import Live
from proxy.telemetry.logs import LogSink
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.trend import Trend
from proxy.tenants import Directory
from proxy.tokens import Tokens
from proxy.tracing import Exporter
from proxy.vault import Vault
from proxy.watch import Watch

_LAST_REQUEST_S = 1.0
"""At a stop an idle connection may send one more request for so long; its answer says that it is the last."""


class App:
    """A running proxy; made by :func:`start`, ended by :meth:`stop`."""

    def __init__(
        self,
        configuration: Configuration,
        emit: Emit,
        clock: Clock,
        stack: AsyncExitStack,
        *,
        canary: Canary,
        live: Live,
        log: Callable[[Log], None],
        reload: Callable[[], Awaitable[Report]] | None,
        worker: int | None,
        exporter: Exporter | None,
    ) -> None:
        self._canary = canary
        self._live = live
        self._log = log
        self._reload = reload
        self.configuration = configuration
        """In force."""
        settings = configuration.settings
        self._reloads = Reloads(succeeded=True, read_at=clock())
        self._worker = worker
        self._is_first = worker in (None, 0)
        self._audit = AuditSink(clock, keep_s=settings.audit.keep_days * DAY_S, canary=canary)
        self._exporter = exporter
        self._emit = fan_out(emit, self._audit, *filter(None, [exporter]))
        self._clock = clock
        self._stack = stack
        self._doors = listening.Doors()
        self.generated_admin_token: Secret | None = None
        """Set at the first start if the configuration has none; to be shown once."""
        self.proxy_addresses: tuple[str, ...] = ()
        self.admin_address = ""
        self.admin: web.Application
        self.trend: Trend
        self.store: Store
        self.tokens: Tokens
        self.exchange: Exchange
        self.server: CallerServer
        self.watch: Watch
        self._metrics: Metrics
        self._readings: Readings
        self._parts: Parts
        self._services: Services

    # --- start

    async def build(
        self,
        environ: Mapping[str, str],
        metrics: Metrics,
        rates: Rates,
        sockets: Mapping[Path, socket.socket] | None,
    ) -> None:
        """Make every part, lowest layer first, and open the listeners.

        :param sockets: Unix sockets of callers that are open already; ``None`` to open them here.
        :raises OperatorError: whatever keeps the proxy from serving, in one line with its remedy.
        """
        settings = self.configuration.settings
        vault, journal, owner = await self._open_store(environ)
        if self._exporter is not None:
            self._exporter.begin(wiring.spans(settings, environ, owner), self._emit)
            self._stack.push_async_callback(self._exporter.close)
        context = wiring.tls_context(settings.pleo.ca_file)
        through = wiring.http_proxy(settings, environ)
        provider = wiring.provider(settings, environ, context, through, self._emit)
        self._stack.push_async_callback(provider.close)
        upstream = wiring.upstream(settings, context, through, self._emit)
        self._stack.push_async_callback(upstream.close)

        store = self.store
        refresher = wiring.refresher(
            settings,
            store,
            journal,
            vault=vault,
            provider=provider,
            emit=self._emit,
            clock=self._clock,
            owner=owner,
        )
        self.tokens = Tokens(store, vault, refresher, wiring.refresh_rules(settings), self._emit, self._clock)
        await self.tokens.load()
        self.exchange = Exchange(
            self.tokens,
            upstream,
            settings.api_origin,
            wiring.exchange_limits(settings),
            settings.listen.public_url,
            self._emit,
            lambda host: self.watch.serves_host(host),  # noqa: PLW0108 - the watch is made after it
            Admission(wiring.allowances(settings), rates, self._emit, monotonic),
            Directory({}, settings.listen.default_tenant),
            tracer=wiring.tracer(settings, self._clock),
        )
        self.watch = Watch(
            settings, store, self.tokens, self.exchange, self._audit, self._emit, self._clock, self._is_first
        )
        self.watch.set_tenants(await store.tenants())
        self._metrics = metrics
        metrics.begin(self._clock())

        authorize = Authorize(
            store,
            vault,
            provider,
            wiring.authorization(settings),
            refresher.lifetimes,
            self._emit,
            self._clock,
            self.watch.connected,
        )
        tokens = wiring.admin_tokens(settings, environ)
        listener = None
        if self._is_first:
            listener = await self._listen_to_operators(authorize, tokens, metrics, vault)
        self._listen_to_callers(sockets)
        self._readings = Readings(
            self.exchange,
            self.tokens,
            self.server,
            upstream,
            journal,
            self._audit,
            self.watch.store_is_up,
            lambda: self._reloads,
            self._exporter,
        )
        metrics.watch(self._readings.gauges)
        if settings.admin.token is None:
            # Last, since it is shown once: a start that fails must not use it up unseen.
            digest, self.generated_admin_token = admin_token.generated(settings.store.state_dir)
            tokens.take(Role.OPERATOR, digest)
        operators = None
        if listener is not None:
            herald = wiring.herald(settings, environ, self._clock, self.watch.survey, self._emit)
            self._stack.push_async_callback(herald.close)
            operators = OperatorsParts(self._services, listener, herald)
        self._parts = Parts(
            self.watch,
            provider,
            upstream,
            authorize,
            self.server,
            self._doors,
            tokens,
            self._audit,
            self._canary,
            self._log,
            self._emit,
            self._clock,
            operators,
        )
        self.watch.serving = True
        self._emit(
            ProxyStarted(
                __version__,
                self.proxy_addresses,
                self.admin_address,
                str(settings.api_origin),
                len(self.exchange.directory.tenants),
            )
        )

    async def _open_store(self, environ: Mapping[str, str]) -> tuple[Vault, Journal, str]:
        """Open what is kept, and make good what a former run left; also by which name it holds leases."""
        settings = self.configuration.settings
        if self._worker is None:
            keep_others_out(settings, self._stack)
        self.store = store = open_store(settings.store.url)
        self._stack.push_async_callback(store.close)
        vault = await open_vault(settings, environ, store)
        known_secrets.watch_secrets(self._canary, settings, environ, vault)
        state_dir = settings.store.state_dir
        owner = f"{instance_name(state_dir)}/{self._worker or 0}"
        ledger = Ledger(store.trail, vault, f"proxy:{owner}", self._clock)
        self._audit.begin(ledger, self._emit, prunes=self._is_first)
        self._stack.push_async_callback(self._audit.close)
        if self._worker is None:
            await recover(settings, store, self._emit)
        journal = Journal.open(journal_path(state_dir, self._worker))
        self._stack.push_async_callback(journal.close)
        if self._worker is not None:
            # The others are serving: only what the one left whose place this takes.
            await recovery.replay(journal, store, self._emit)
            await recovery.settle_attempts(store, lambda holder: holder == owner)
        return vault, journal, owner

    async def _listen_to_operators(
        self, authorize: Authorize, tokens: admin_token.AdminTokens, metrics: Metrics, vault: Vault
    ) -> Listener:
        self._services = services = Services(
            public_url=self.configuration.settings.listen.public_url,
            store=self.store,
            authorize=authorize,
            hosts=self.configuration.settings.listen.hosts,
            desk=TokenDesk(tokens, self._emit, self._clock),
            sessions=Sessions(
                self.store.sessions, tokens, wiring.session_limits(self.configuration.settings), self._clock
            ),
            sso=wiring.single_sign_on(self.configuration.settings),
            render_metrics=metrics.render,
            traffic=metrics.traffic,
            trend=self._follow_trend(metrics),
            live=self._live,
            doors=lambda: self._doors.shown,
            settings=self.configuration.shown,
            warn_s=self.tokens.rules.warn_s,
            not_ready=self.watch.not_ready,
            explainer=self.watch.explainer,
            vault=vault,
            take_up=self.watch.take_up,
            reload=self._reload,
            emit=self._emit,
            clock=self._clock,
        )
        self.admin = admin_app(services)
        address = self.configuration.settings.listen.admin
        try:
            listener = await Listener.open(
                self.admin, address.host, address.port, wiring.head_limits(self.configuration.settings)
            )
        except OSError as error:
            raise listening.cannot_listen("listen.admin", address, error) from None
        self._stack.push_async_callback(listener.close)
        self.admin_address = listening.shown(listener.name)
        return listener

    def _follow_trend(self, metrics: Metrics) -> Trend:
        self.trend = Trend(metrics.sources(), self._clock, self._emit)
        following = asyncio.create_task(self.trend.run(), name="trend")

        async def stop() -> None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

        self._stack.push_async_callback(stop)
        return self.trend

    def _listen_to_callers(self, sockets: Mapping[Path, socket.socket] | None) -> None:
        settings = self.configuration.settings
        self.server = CallerServer(self.exchange, wiring.accept_limits(settings))
        self._stack.callback(self.server.stop_sweeping)
        if sockets is None:
            sockets = listening.unix_sockets(settings, self._stack.enter_context(ExitStack()))
        self._stack.callback(self._doors.close)
        self._doors.open(settings, self.server, sockets, self._emit, shared=self._worker is not None)
        self.proxy_addresses = self._doors.addresses

    # --- run

    async def follow(self) -> None:
        """Keep in step with the store, until it is cancelled."""
        await self.watch.run(self._metrics, self._readings, self._doors.tls)

    async def reloaded(self, outcome: Reloaded) -> None:
        """Put in force what a reload came to, and report it.

        :raises OperatorError: it cannot be put in force, and nothing has changed.
        """
        configuration = outcome.configuration
        if outcome.mistakes:
            self._reloads = replace(self._reloads, succeeded=False)
            self._emit(ConfigReloadFailed(configuration.source, outcome.mistakes))
            return
        take_up(self._parts, self.configuration.settings, configuration)
        self.configuration = configuration
        self._reloads = Reloads(succeeded=True, read_at=outcome.at)
        self._emit(ConfigReloaded(configuration.source, outcome.changed, outcome.needs_restart))

    # --- stop

    async def drain(self) -> int:
        """Stop accepting, let what is under way finish within ``limits.drain_s``; returns requests cut.

        A connection that is busy ends with its next answer, so that no caller meets a closed door in the
        middle of a request; refreshes are waited for even longer, since cutting one could lose a grant.
        """
        drain_s = self.configuration.settings.limits.drain_s
        ends = monotonic() + drain_s
        self._emit(ProxyDraining(self.exchange.under_way, self.tokens.refreshes_under_way, drain_s))
        self.exchange.draining = True
        self._doors.close()
        await self._doors.all_inside()
        lingers = min(ends, monotonic() + _LAST_REQUEST_S)
        # Polled, since an event would cost every request, and this runs once.
        while (self.exchange.under_way and monotonic() < ends) or (  # noqa: ASYNC110
            self.server.connections and monotonic() < lingers
        ):
            await asyncio.sleep(0.01)
        self.server.close_idle()
        cut = self.exchange.under_way
        await self.server.cut_all()
        await self.tokens.close(max(ends - monotonic(), self.configuration.settings.refresh.timeout_s))
        if self._parts.operators is not None:
            await self._parts.operators.herald.close()
        if self._exporter is not None:
            await self._exporter.close()
        await self._audit.close()
        return cut


async def start(
    configuration: Configuration,
    environ: Mapping[str, str],
    *,
    emit: Emit,
    metrics: Metrics,
    stack: AsyncExitStack,
    clock: Clock = time.time,
    worker: int | None = None,
    canary: Canary | None = None,
    live: Live | None = None,
    unix_sockets: Mapping[Path, socket.socket] | None = None,
    rates: Path | None = None,
    log: Callable[[Log], None] = lambda _: None,
    reload: Callable[[], Awaitable[Report]] | None = None,
) -> App:
    """A running proxy; what it opened is closed when ``stack`` is, after a drain.

    :param worker: number of this process among several workers; ``None`` if it serves alone.
    :param canary: told of each secret as it becomes live; the log's, so that it knows what to withhold.
    :param live: the log's lines, for who watches.
    :param unix_sockets: of a worker, by their paths; one that serves alone makes its own.
    :param log: told of other settings of the log.
    :param reload: what operators ask for to have the configuration read again; ``None`` if it was read from
        nowhere.
    :param rates: the file by which the workers share what tenants may still send.
    :raises OperatorError: it cannot serve; one line says why and what to do.
    """
    asyncio.get_running_loop().set_exception_handler(crash_reporter(emit))
    canary, live = canary or Canary(), live or Live(LogSink(None, log_format="json", level="info"))
    app = App(
        configuration,
        emit,
        clock,
        stack,
        canary=canary,
        live=live,
        log=log,
        reload=reload,
        worker=worker,
        exporter=wiring.exporter(configuration.settings, environ, clock, canary),
    )
    buckets = Rates(rates)
    stack.callback(buckets.close)
    await app.build(environ, metrics, buckets, unix_sockets)
    watching = asyncio.create_task(app.follow(), name="watch")

    async def stop() -> None:
        # First, so that no refresh begins that nobody would wait for.
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        emit(ProxyStopped(await app.drain()))

    stack.push_async_callback(stop)
    return app
