"""What the operator's listener needs of the rest of the proxy, handed in by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from proxy.admin.desk import TokenDesk
from proxy.admin.sessions import Sessions
from proxy.admin.sso import SingleSignOn
from proxy.admin.ways import CallersDoor
from proxy.authorize import Authorize, create_link
from proxy.explain import Explainer
from proxy.facts import Emit, LinkCreated
from proxy.model import Clock, Grant, Secret
from proxy.store import Store
from proxy.telemetry.metrics import TrafficSince


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a handler may use."""

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
    doors: Callable[[], Sequence[CallersDoor]]
    """Where callers connect; none before the proxy has begun to listen there."""
    warn_s: float
    """How long before the end of a refresh token an operator is warned."""
    not_ready: Callable[[], str | None]
    """Why the proxy is not ready for requests, or ``None``."""
    explainer: Callable[[Mapping[str, Grant]], Explainer]
    """For the tenants in force and these grants."""
    emit: Emit
    clock: Clock

    async def make_link(self, tenant: str, user: str) -> tuple[Secret, float]:
        """A one-time connect link for ``tenant``, made by ``user``, and when it expires.

        :raises TenantGone: there is no such tenant.
        """
        url, link = await create_link(self.store, tenant, public_url=self.public_url, now=self.clock())
        self.emit(LinkCreated(tenant, link.expires_at, user))
        return url, link.expires_at


SERVICES = web.AppKey("services", Services)
