"""The operator's listener: health, metrics, consent flow, pages and JSON API.

Apart from the callers' listener in every way: other port, own authentication, nothing shared but the
services that :class:`~proxy.admin.services.Services` names. ``/connect/…`` and ``/oauth/…`` are for
authorisers, who have a link and no account; ``/problems/…`` explains refusals to anyone; everything else is
behind :func:`proxy.admin.access.require`. The parts, each importing only those before it: ``token``,
``lockout``, ``sso``, ``desk`` and ``sessions`` (who somebody is), ``words``, ``charts``, ``history``,
``ways``, ``remedies``, ``links`` and ``results`` (what pages say and draw), ``consent_pages``, which puts
those of authorisers together, ``services``, ``answers``, ``cookies``, ``forms`` and ``sites`` (what requests
and answers share), ``access``, the pages in ``login``, ``consent``, ``overview``, ``trail_page``,
``tenant_page``, ``settings_page`` and ``pages``, ``shapes`` and ``operations`` (what programs give and get),
operations in ``health``, ``api``, ``lookups``, ``explaining`` and ``live_stream``, the page of the last in
``live_page``, ``openapi``, which describes operations, and ``connections``.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from proxy.admin import (
    api,
    consent,
    explaining,
    health,
    live_page,
    live_stream,
    login,
    lookups,
    openapi,
    overview,
    pages,
    settings_page,
    tenant_page,
    trail_page,
)
from proxy.admin.answers import add_protection, answer_faults
from proxy.admin.connections import HeadLimits, Listener
from proxy.admin.operations import Operation
from proxy.admin.services import SERVICES, Services
from proxy.admin.sites import check_host, check_site

__all__ = ["HeadLimits", "Listener", "Services", "admin_app", "all_operations"]

_FORM_BYTES = 64 * 1024
_PAGES = (consent, login, overview, tenant_page, trail_page, live_page, settings_page, pages)
_API = (health, api, lookups, live_stream, explaining)


def admin_app(services: Services) -> web.Application:
    """The application that answers on the operator's listener."""
    app = web.Application(middlewares=[answer_faults, check_host, check_site], client_max_size=_FORM_BYTES)
    app.on_response_prepare.append(add_protection)
    app[SERVICES] = services
    live_stream.prepare(app)
    for module in _PAGES:
        app.add_routes(module.routes())
    app.add_routes(operation.route() for operation in all_operations())
    return app


def all_operations() -> list[Operation[Any, Any]]:
    """All operations that programs are offered, that which describes them included."""
    others = [operation for module in _API for operation in module.operations()]
    return [*others, openapi.describing(others)]
