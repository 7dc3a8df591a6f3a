"""What the operator's listener needs of the rest of the proxy, handed in by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from proxy import actions, listing
from proxy.admin.desk import TokenDesk
from proxy.admin.sessions import Sessions
from proxy.admin.sso import SingleSignOn
from proxy.admin.ways import CallersDoor
from proxy.audit import Recorder
from proxy.authorize import Authorize, create_link
from proxy.config import InForce, Report
from proxy.consents import reference_of
from proxy.errors import ConfigurationError, OperatorError
from proxy.explain import Explainer
from proxy.facts import ConfigReloadAsked, Emit, LinkCreated
from proxy.model import Clock, Grant, Secret
from proxy.store import Store
from proxy.telemetry.live import Live
from proxy.telemetry.metrics import TrafficSince
from proxy.telemetry.trend import Trend
from proxy.vault import Vault


@dataclass(slots=True)
class Services:
    """Everything that a handler may use. What the settings say of it is exchanged when they change."""

    public_url: str
    store: Store
    authorize: Authorize
    hosts: Collection[str]
    """Names by which the listener may be called, beside that of ``public_url``."""
    desk: TokenDesk
    sessions: Sessions
    sso: SingleSignOn | None
    render_metrics: Callable[[], bytes]
    traffic: Callable[[], TrafficSince]
    trend: Trend
    live: Live
    doors: Callable[[], Sequence[CallersDoor]]
    """Where callers connect; none before the proxy has begun to listen there."""
    settings: Sequence[InForce]
    warn_s: float
    """How long before the end of a refresh token an operator is warned."""
    not_ready: Callable[[], str | None]
    """Why the proxy is not ready for requests, or ``None``."""
    explainer: Callable[[Mapping[str, Grant]], Explainer]
    """For the tenants in force and these grants."""
    vault: Vault
    """Signs what the audit trail is to have."""
    take_up: Callable[[], Awaitable[None]]
    """Have in force what is stored now: a process is not told of what it stores itself."""
    reload: Callable[[], Awaitable[Report]] | None
    """Read the configuration anew in all processes; ``None`` if it was read from nowhere."""
    emit: Emit
    clock: Clock

    async def reload_configuration(self, user: str) -> Report:
        """Have the configuration read again, in the name of ``user``.

        :raises ConfigurationError: it has mistakes, and nothing of it was taken up.
        :raises OperatorError: it was read from nowhere, or a process did not take it up.
        """
        if self.reload is None:
            raise OperatorError("this proxy was started without a configuration that could be read again")
        self.emit(ConfigReloadAsked(user))
        report = await self.reload()
        if report.mistakes:
            raise ConfigurationError(report.source, list(report.mistakes))
        if report.unreached:
            raise OperatorError(f"{'; '.join(report.unreached)}; restart the proxy")
        return report

    async def make_link(self, tenant: str, user: str) -> tuple[Secret, float]:
        """A one-time connect link for ``tenant``, made by ``user``, and when it expires.

        :raises TenantGone: there is no such tenant.
        """
        url, link = await create_link(self.store, tenant, public_url=self.public_url, now=self.clock())
        self.emit(LinkCreated(tenant, listing.instant(link.expires_at), user, reference_of(link.id)))
        return url, link.expires_at

    async def switch(self, tenant: str, user: str, *, enabled: bool) -> None:
        """As :func:`proxy.actions.switch`, in the name of ``user``."""
        await actions.switch(self.store, self._recorder(user), tenant, enabled=enabled)
        await self.take_up()

    async def revoke(self, tenant: str, user: str) -> None:
        """As :func:`proxy.actions.revoke`, in the name of ``user``."""
        await actions.revoke(self.store, self._recorder(user), tenant)
        await self.take_up()

    async def refresh(self, tenant: str, user: str) -> None:
        """Refresh the tokens of ``tenant`` now, and wait for the outcome.

        Raises as :func:`proxy.actions.ask_for_refresh` and :func:`proxy.actions.refreshed`.
        """
        before = await actions.ask_for_refresh(self.store, self._recorder(user), tenant)
        await self.take_up()
        await actions.refreshed(self.store, before)

    def _recorder(self, user: str) -> Recorder:
        return Recorder(f"admin:{user}", self.clock, self.vault)


SERVICES = web.AppKey("services", Services)
