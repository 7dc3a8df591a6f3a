"""The composition root: builds everything in the order of the layers, and owns its life from start to drain.

Nothing here decides about a request or a token. What starts is stopped in reverse order, whatever fails in
between.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from time import monotonic

from aiohttp import web

from proxy import __version__, listening, notices, recovery, wiring
from proxy.admin import Listener, Services, admin_app
from proxy.admin import token as admin_token
from proxy.admin.desk import TokenDesk
from proxy.admin.sessions import Sessions
from proxy.admin.ways import CallersDoor
from proxy.admission import Admission
from proxy.audit import Ledger
from proxy.authorize import Authorize
from proxy.caller_tls import CallerTls
from proxy.config import InForce, Settings, in_force
from proxy.door import Door
from proxy.errors import StoreUnavailable
from proxy.exchange import Exchange
from proxy.explain import Explainer
from proxy.facts import (
    Emit,
    ProxyDraining,
    ProxyStarted,
    ProxyStopped,
    StoreFailed,
    StoreRecovered,
    TaskCrashed,
    TenantMissing,
)
from proxy.groundwork import LEASE_MARGIN_S, keep_others_out, open_vault, recover
from proxy.listener import CallerServer
from proxy.model import DAY_S, Clock, Grant, Role, Secret, Tenant
from proxy.notices import Survey
from proxy.notifications import Herald
from proxy.places import innermost_place
from proxy.rates import Rates
from proxy.readings import Readings
from proxy.refresher import Refresher
from proxy.store import Journal, Store, instance_name, journal_path, open_store
from proxy.telemetry import fan_out
from proxy.telemetry.audit import AuditSink
from proxy.telemetry.canary import Canary
from proxy.telemetry.crashes import crash_reporter
from proxy.telemetry.metrics import Metrics
from proxy.tenants import Directory, loaded
from proxy.tokens import Tokens
from proxy.vault import Vault

_WATCH_S = 0.5
"""Pause between looks at the store and at due refreshes: others' changes are to show within a second."""
_HOUSEKEEPING_S = 60.0
_LAST_REQUEST_S = 1.0
"""At a stop an idle connection may send one more request for so long; its answer says that it is the last."""


class App:
    """A running proxy; made by :func:`start`, ended by :meth:`stop`."""

    def __init__(
        self,
        settings: Settings,
        emit: Emit,
        clock: Clock,
        stack: AsyncExitStack,
        *,
        canary: Canary,
        worker: int | None,
    ) -> None:
        self._canary = canary
        self._settings = settings
        self._worker = worker
        self._audit = AuditSink(clock, keep_s=settings.audit.keep_days * DAY_S, canary=canary)
        self._emit = fan_out(emit, self._audit)
        self._clock = clock
        self._stack = stack
        self._doors: list[Door] = []
        self._callers_doors: list[CallersDoor] = []
        self._tls: list[CallerTls] = []
        self._store_down_since: float | None = None
        self._ready = False
        self._behind = False
        """The store has something that is not taken up: it could not be read, and tells of it once only."""
        self._missing: set[tuple[str, str]] = set()
        self.generated_admin_token: Secret | None = None
        """Set at the first start if the configuration has none; to be shown once."""
        self.proxy_addresses: tuple[str, ...] = ()
        self.admin_address = ""
        self.admin: web.Application
        self.store: Store
        self.tokens: Tokens
        self._in_force: list[InForce]
        self.exchange: Exchange
        self.server: CallerServer
        self._metrics: Metrics
        self._readings: Readings
        self._herald: Herald

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
        settings = self._settings
        if self._worker is None:
            keep_others_out(settings, self._stack)
        self.store = store = open_store(settings.store.url)
        self._stack.push_async_callback(store.close)
        vault = await open_vault(settings, environ, store)
        wiring.watch_secrets(self._canary, settings, environ, vault)
        state_dir = settings.store.state_dir
        owner = f"{instance_name(state_dir)}/{self._worker or 0}"
        ledger = Ledger(store.trail, vault, f"proxy:{owner}", self._clock)
        self._audit.begin(ledger, self._emit, prunes=self._worker in (None, 0))
        self._stack.push_async_callback(self._audit.close)
        if self._worker is None:
            await recover(settings, store, self._emit)
        journal = Journal.open(journal_path(state_dir, self._worker))
        self._stack.push_async_callback(journal.close)
        if self._worker is not None:
            # The others are serving: only what the one left whose place this takes.
            await recovery.replay(journal, store, self._emit)
            await recovery.settle_attempts(store, lambda holder: holder == owner)

        context = wiring.tls_context(settings.pleo.ca_file)
        through = wiring.http_proxy(settings, environ)
        provider = wiring.provider(settings, environ, context, through, self._emit)
        self._stack.push_async_callback(provider.close)
        upstream = wiring.upstream(settings, context, through, self._emit)
        self._stack.push_async_callback(upstream.close)

        lifetimes = wiring.lifetimes(settings)
        refresher = Refresher(
            store,
            journal,
            vault,
            provider,
            lifetimes,
            self._emit,
            self._clock,
            asyncio.sleep,
            owner,
            lease_s=settings.refresh.timeout_s + LEASE_MARGIN_S,
            takeover_s=settings.refresh.takeover_s,
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
            self._is_configured_host,
            Admission(wiring.allowances(settings), rates, self._emit, monotonic),
            Directory({}, settings.listen.default_tenant),
        )
        self._set_tenants(await store.tenants())
        self._metrics = metrics
        metrics.begin(self._clock())

        authorize = Authorize(
            store,
            vault,
            provider,
            wiring.authorization(settings),
            lifetimes,
            self._emit,
            self._clock,
            self._connected,
        )
        tokens = wiring.admin_tokens(settings, environ)
        if self._worker in (None, 0):
            self._in_force = in_force(settings, environ)
            await self._listen_to_operators(authorize, tokens, metrics, vault)
        self._listen_to_callers(sockets)
        self._readings = Readings(
            self.exchange, self.tokens, self.server, upstream, journal, self._audit, self._store_is_up
        )
        metrics.watch(self._readings.gauges)
        if settings.admin.token is None:
            # Last, since it is shown once: a start that fails must not use it up unseen.
            digest, self.generated_admin_token = admin_token.generated(settings.store.state_dir)
            tokens.take(Role.OPERATOR, digest)
        if self._worker in (None, 0):
            self._herald = wiring.herald(settings, environ, self._clock, self._survey, self._emit)
            self._stack.push_async_callback(self._herald.close)
        self._ready = True
        self._emit(
            ProxyStarted(
                __version__,
                self.proxy_addresses,
                self.admin_address,
                str(settings.api_origin),
                len(self.exchange.directory.tenants),
            )
        )

    async def _listen_to_operators(
        self, authorize: Authorize, tokens: admin_token.AdminTokens, metrics: Metrics, vault: Vault
    ) -> None:
        services = Services(
            public_url=self._settings.listen.public_url,
            store=self.store,
            authorize=authorize,
            hosts=self._settings.listen.hosts,
            desk=TokenDesk(tokens, self._emit, self._clock),
            sessions=Sessions(
                self.store.sessions, tokens, wiring.session_limits(self._settings), self._clock
            ),
            sso=wiring.single_sign_on(self._settings),
            render_metrics=metrics.render,
            traffic=metrics.traffic,
            doors=lambda: self._callers_doors,
            settings=self._in_force,
            warn_s=self.tokens.rules.warn_s,
            not_ready=self._not_ready,
            explainer=self._explainer,
            vault=vault,
            reload=self.reload,
            emit=self._emit,
            clock=self._clock,
        )
        self.admin = admin_app(services)
        address = self._settings.listen.admin
        try:
            listener = await Listener.open(
                self.admin, address.host, address.port, wiring.head_limits(self._settings)
            )
        except OSError as error:
            raise listening.cannot_listen("listen.admin", address, error) from None
        self._stack.push_async_callback(listener.close)
        self.admin_address = listening.shown(listener.name)

    def _listen_to_callers(self, sockets: Mapping[Path, socket.socket] | None) -> None:
        settings = self._settings
        self.server = CallerServer(self.exchange, wiring.accept_limits(settings))
        self._stack.callback(self.server.stop_sweeping)
        if sockets is None:
            sockets = listening.unix_sockets(settings, self._stack.enter_context(ExitStack()))
        for listener in settings.listen.proxy:
            protocol = self.server.behind(listening.entrance(settings, listener))
            tls = listening.caller_tls(listener, self._emit)
            lock = None if tls is None else listening.lock(settings, listener, tls, self._emit)
            self._tls += [tls] if tls is not None else []
            shared = self._worker is not None
            for door in listening.doors(listener, protocol, sockets, lock, reuse_port=shared):
                self._stack.callback(door.close)
                self._doors.append(door)
                name = listening.shown(door.name)
                self._callers_doors.append(CallersDoor(name, tls is not None, listener.tenant))
        self.proxy_addresses = tuple(door.address for door in self._callers_doors)

    # --- run

    async def watch(self) -> None:
        """Follow the store's changes, start due refreshes, keep house; runs until it is cancelled."""
        next_housekeeping = monotonic()
        while True:
            slept = monotonic()
            await asyncio.sleep(_WATCH_S)
            self._metrics.woke_late(max(0.0, monotonic() - slept - _WATCH_S))
            try:
                self._metrics.note(self._readings.gauges())
                self._metrics.follow(self._readings.totals())
                for tls in self._tls:
                    tls.take_up_changes()
                if await self.store.changed() or self._behind:
                    await self.reload()
                await self.store.ping()
                self._store_works()
                await self.tokens.refresh_due()
                if monotonic() >= next_housekeeping:
                    next_housekeeping = monotonic() + _HOUSEKEEPING_S
                    await self.keep_house()
            except StoreUnavailable as error:
                self._store_fails(error)
            except Exception as error:  # noqa: BLE001 - the watch must go on whatever one round of it met
                self._emit(TaskCrashed("watch", type(error).__name__, innermost_place(error)))

    async def keep_house(self) -> None:
        """Forget what is over, and warn of what comes to its end.

        :raises StoreUnavailable: it is done the next time.
        """
        now = self._clock()
        await self.store.sweep(now)
        await self.store.sessions.sweep(now - self._settings.admin.session_idle_s)
        if self._worker in (None, 0):
            self.tokens.warn_of_ends()

    async def reload(self) -> None:
        """Take up the tenants and grants that are stored now.

        :raises StoreUnavailable: what is in force stays.
        """
        self._audit.look()
        self._behind = True
        self._set_tenants(await self.store.tenants())
        await self.tokens.load()
        self._behind = False

    def _connected(self, tenant: Tenant, grant: Grant) -> None:
        self._set_tenants({**self.exchange.directory.tenants, tenant.name: tenant})
        self.tokens.take(grant)

    def _set_tenants(self, tenants: Mapping[str, Tenant]) -> None:
        before = self.exchange.directory.tenants
        missing = {named for named in listening.tenants_named(self._settings) if named[1] not in tenants}
        for setting, name in sorted(missing - self._missing):
            self._emit(TenantMissing(setting, name))
        self._missing = missing
        if before == tenants:
            return
        self.exchange.directory = Directory(tenants, self._settings.listen.default_tenant)
        self.exchange.admission.forget([name for name in before if name not in tenants])
        self._emit(loaded(before, tenants))

    def _is_configured_host(self, host: str) -> bool:
        return wiring.serves_host(self._settings, self.exchange.directory, host)

    def _explainer(self, grants: Mapping[str, Grant]) -> Explainer:
        return wiring.explainer(self._settings, self.exchange.directory, grants, self.tokens.check)

    def _store_is_up(self) -> bool:
        return self._store_down_since is None

    def _not_ready(self) -> str | None:
        if self.exchange.draining:
            return "draining"
        if not self._ready:
            return "starting"
        return None if self._store_is_up() else "store unavailable"

    def _survey(self) -> Survey:
        down_s = None if self._store_down_since is None else monotonic() - self._store_down_since
        tenants = self.exchange.directory.tenants
        return notices.survey(self._clock(), self.tokens.held.grants(), tenants, store_down_s=down_s)

    def _store_fails(self, error: StoreUnavailable) -> None:
        self.tokens.refresher.note_outage()
        if self._store_down_since is None:
            self._store_down_since = monotonic()
            self._emit(StoreFailed("watch", error.detail))

    def _store_works(self) -> None:
        if self._store_down_since is not None:
            self._emit(StoreRecovered(round(monotonic() - self._store_down_since, 3)))
            self._store_down_since = None

    # --- stop

    async def drain(self) -> int:
        """Stop accepting, let what is under way finish within ``limits.drain_s``; returns requests cut.

        A connection that is busy ends with its next answer, so that no caller meets a closed door in the
        middle of a request; refreshes are waited for even longer, since cutting one could lose a grant.
        """
        drain_s = self._settings.limits.drain_s
        ends = monotonic() + drain_s
        self._emit(ProxyDraining(self.exchange.under_way, self.tokens.refreshes_under_way, drain_s))
        self.exchange.draining = True
        for door in self._doors:
            door.close()
            await door.all_inside()
        lingers = min(ends, monotonic() + _LAST_REQUEST_S)
        # Polled, since an event would cost every request, and this runs once.
        while (self.exchange.under_way and monotonic() < ends) or (  # noqa: ASYNC110
            self.server.connections and monotonic() < lingers
        ):
            await asyncio.sleep(0.01)
        self.server.close_idle()
        cut = self.exchange.under_way
        await self.server.cut_all()
        await self.tokens.close(max(ends - monotonic(), self._settings.refresh.timeout_s))
        if self._worker in (None, 0):
            await self._herald.close()
        await self._audit.close()
        return cut


async def start(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    emit: Emit,
    metrics: Metrics,
    stack: AsyncExitStack,
    clock: Clock = time.time,
    worker: int | None = None,
    canary: Canary | None = None,
    unix_sockets: Mapping[Path, socket.socket] | None = None,
    rates: Path | None = None,
) -> App:
    """A running proxy; what it opened is closed when ``stack`` is, after a drain.

    :param worker: number of this process among several workers; ``None`` if it serves alone.
    :param canary: told of each secret as it becomes live; the log's, so that it knows what to withhold.
    :param unix_sockets: of a worker, by their paths; one that serves alone makes its own.
    :param rates: the file by which the workers share what tenants may still send.
    :raises OperatorError: it cannot serve; one line says why and what to do.
    """
    asyncio.get_running_loop().set_exception_handler(crash_reporter(emit))
    app = App(settings, emit, clock, stack, canary=canary or Canary(), worker=worker)
    buckets = Rates(rates)
    stack.callback(buckets.close)
    await app.build(environ, metrics, buckets, unix_sockets)
    watching = asyncio.create_task(app.watch(), name="watch")

    async def stop() -> None:
        # First, so that no refresh begins that nobody would wait for.
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        emit(ProxyStopped(await app.drain()))

    stack.push_async_callback(stop)
    return app
