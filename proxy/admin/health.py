"""``/healthz``, ``/readyz`` and ``/metrics``: for load balancers, supervisors and Prometheus."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from proxy.admin.answers import data
from proxy.admin.operations import Operation
from proxy.admin.services import SERVICES
from proxy.admin.shapes import Health, Nothing, Readiness
from proxy.telemetry.metrics import CONTENT_TYPE


def operations() -> list[Operation[Any, Any]]:
    """Operations of this module."""
    return [
        Operation(
            id="showHealth",
            method="GET",
            path="/healthz",
            role=None,
            summary="Tell whether the process answers",
            handler=_healthz,
            answer=Health,
        ),
        Operation(
            id="showReadiness",
            method="GET",
            path="/readyz",
            role=None,
            summary="Tell whether the proxy serves requests",
            handler=_readyz,
            answer=Readiness,
            also={503: "It does not, for the reason that is told."},
        ),
        Operation(
            id="showMetrics",
            method="GET",
            path="/metrics",
            role=None,
            summary="Show the metrics",
            description="In Prometheus' text format.",
            handler=_metrics,
            answer=str,
            media_type="text/plain",
        ),
    ]


async def _healthz(_request: web.Request, _: Nothing) -> Health:
    return Health(status="ok")


async def _readyz(request: web.Request, _: Nothing) -> Readiness | web.Response:
    reason = request.app[SERVICES].not_ready()
    if reason is not None:
        return data({"status": "not ready", "reason": reason}, status=503)
    return Readiness(status="ready")


async def _metrics(request: web.Request, _: Nothing) -> web.Response:
    body = request.app[SERVICES].render_metrics()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
