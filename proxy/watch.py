"""The watch over a running proxy: keeps it in step with the store, and knows how the two get on.

Takes up what others stored, starts due refreshes, keeps house, and says whether the proxy is ready and what
operators are to be told of. Opens and closes nothing; no request waits for it. Built and run by
:mod:`proxy.app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from proxy import listening, notices, wiring
from proxy.caller_tls import CallerTls
from proxy.config import Settings
from proxy.errors import StoreUnavailable
from proxy.exchange import Exchange
from proxy.explain import Explainer
from proxy.facts import Emit, StoreFailed, StoreRecovered, TaskCrashed, TenantMissing
from proxy.model import Clock, Grant, Tenant
from proxy.notices import Survey
from proxy.places import innermost_place
from proxy.readings import Readings
from proxy.store import Store
from proxy.telemetry.audit import AuditSink
from proxy.telemetry.metrics import Metrics
from proxy.tenants import Directory, loaded
from proxy.tokens import Tokens

_WATCH_S = 0.5
"""Pause between looks at the store and at due refreshes: others' changes are to show within a second."""
_HOUSEKEEPING_S = 60.0


@dataclass
class Watch:
    """What is in force of what is stored, and whether the store can be had."""

    settings: Settings
    store: Store
    tokens: Tokens
    exchange: Exchange
    audit: AuditSink
    emit: Emit
    clock: Clock
    warns: bool
    """This process is the one that warns of grants' ends, of all that serve together."""
    serving: bool = False
    """Everything is built, and the doors are open."""
    _store_down_since: float | None = None
    _behind: bool = False
    """The store has something that is not taken up: it could not be read, and tells of it once only."""
    _missing: set[tuple[str, str]] = field(default_factory=set)

    async def run(self, metrics: Metrics, readings: Readings, tls: Sequence[CallerTls]) -> None:
        """Go on until cancelled; what one round of it meets, the next makes good.

        :param tls: of the callers' listeners, whose files may have changed.
        """
        next_housekeeping = monotonic()
        while True:
            slept = monotonic()
            await asyncio.sleep(_WATCH_S)
            metrics.woke_late(max(0.0, monotonic() - slept - _WATCH_S))
            try:
                metrics.note(readings.gauges())
                metrics.follow(readings.totals())
                for each in tls:
                    each.take_up_changes()
                if await self.store.changed() or self._behind:
                    await self.take_up()
                await self.store.ping()
                self._store_works()
                await self.tokens.refresh_due()
                if monotonic() >= next_housekeeping:
                    next_housekeeping = monotonic() + _HOUSEKEEPING_S
                    await self.keep_house()
            except StoreUnavailable as error:
                self._store_fails(error)
            except Exception as error:  # noqa: BLE001 - the watch must go on whatever one round of it met
                self.emit(TaskCrashed("watch", type(error).__name__, innermost_place(error)))

    async def keep_house(self) -> None:
        """Forget what is over, and warn of what comes to its end.

        :raises StoreUnavailable: it is done the next time.
        """
        now = self.clock()
        await self.store.sweep(now)
        await self.store.sessions.sweep(now - self.settings.admin.session_idle_s)
        if self.warns:
            self.tokens.warn_of_ends()

    # --- what is stored

    async def take_up(self) -> None:
        """Have in force the tenants and grants that are stored now.

        :raises StoreUnavailable: what is in force stays.
        """
        self.audit.look()
        self._behind = True
        self.set_tenants(await self.store.tenants())
        await self.tokens.load()
        self._behind = False

    def change(self, settings: Settings) -> None:
        """Go by other settings."""
        self.settings = settings
        tenants = self.exchange.directory.tenants
        self._look_for_named(tenants)
        self.exchange.directory = Directory(tenants, settings.listen.default_tenant)

    def connected(self, tenant: Tenant, grant: Grant) -> None:
        """Have in force what a consent has just stored."""
        self.set_tenants({**self.exchange.directory.tenants, tenant.name: tenant})
        self.tokens.take(grant)

    def set_tenants(self, tenants: Mapping[str, Tenant]) -> None:
        """Have these tenants in force, and no others."""
        before = self.exchange.directory.tenants
        self._look_for_named(tenants)
        if before == tenants:
            return
        self.exchange.directory = Directory(tenants, self.settings.listen.default_tenant)
        self.exchange.admission.forget([name for name in before if name not in tenants])
        self.emit(loaded(before, tenants))

    def _look_for_named(self, tenants: Mapping[str, Tenant]) -> None:
        """Say of tenants that settings name whether they are missing."""
        missing = {named for named in listening.tenants_named(self.settings) if named[1] not in tenants}
        for setting, name in sorted(missing - self._missing):
            self.emit(TenantMissing(setting, name))
        self._missing = missing

    # --- how things are

    def serves_host(self, host: str) -> bool:
        """Whether callers may use this name in ``Host``."""
        return wiring.serves_host(self.settings, self.exchange.directory, host)

    def explainer(self, grants: Mapping[str, Grant]) -> Explainer:
        """What tells what would become of a request, with these grants."""
        return wiring.explainer(self.settings, self.exchange.directory, grants, self.tokens.check)

    def store_is_up(self) -> bool:
        """Whether the store answered when it was asked last."""
        return self._store_down_since is None

    def not_ready(self) -> str | None:
        """Why the proxy is not ready for requests, or ``None``."""
        if self.exchange.draining:
            return "draining"
        if not self.serving:
            return "starting"
        return None if self.store_is_up() else "store unavailable"

    def survey(self) -> Survey:
        """What operators may have to be told of."""
        down_s = None if self._store_down_since is None else monotonic() - self._store_down_since
        tenants = self.exchange.directory.tenants
        return notices.survey(self.clock(), self.tokens.held.grants(), tenants, store_down_s=down_s)

    def _store_fails(self, error: StoreUnavailable) -> None:
        self.tokens.refresher.note_outage()
        if self._store_down_since is None:
            self._store_down_since = monotonic()
            self.emit(StoreFailed("watch", error.detail))

    def _store_works(self) -> None:
        if self._store_down_since is not None:
            self.emit(StoreRecovered(round(monotonic() - self._store_down_since, 3)))
            self._store_down_since = None
