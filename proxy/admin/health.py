"""``/healthz``, ``/readyz`` and ``/metrics``: for load balancers, supervisors and Prometheus."""

from __future__ import annotations

from aiohttp import web

from proxy.admin.answers import data
from proxy.admin.services import SERVICES
from proxy.telemetry.metrics import CONTENT_TYPE


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [web.get("/healthz", _healthz), web.get("/readyz", _readyz), web.get("/metrics", _metrics)]


async def _healthz(_request: web.Request) -> web.Response:
    return data({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    reason = request.app[SERVICES].not_ready()
    if reason is not None:
        return data({"status": "not ready", "reason": reason}, status=503)
    return data({"status": "ready"})


async def _metrics(request: web.Request) -> web.Response:
    body = request.app[SERVICES].render_metrics()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
