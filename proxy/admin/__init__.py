"""The operator's listener: health, metrics, consent flow, pages and JSON API.

Apart from the callers' listener in every way: other port, own authentication, nothing shared but the services
that :class:`~proxy.admin.services.Services` names. ``/connect/…`` and ``/oauth/…`` are for authorisers, who
have a link and no account; ``/problems/…`` explains refusals to anyone; ``/api/v1/…`` takes the admin token.
"""

from __future__ import annotations

from aiohttp import web

from proxy.admin import api, consent, health, pages
from proxy.admin.answers import protect
from proxy.admin.services import SERVICES, Services

__all__ = ["Services", "admin_app"]


def admin_app(services: Services) -> web.Application:
    """The application that answers on the operator's listener."""
    app = web.Application(middlewares=[protect], client_max_size=64 * 1024)
    app[SERVICES] = services
    for module in (health, consent, pages, api):
        app.add_routes(module.routes())
    return app
