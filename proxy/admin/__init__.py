"""The operator's listener: health, metrics, consent flow, pages and JSON API.

Apart from the callers' listener in every way: other port, own authentication, nothing shared but the services
that :class:`~proxy.admin.services.Services` names. ``/connect/…`` and ``/oauth/…`` are for authorisers, who
have a link and no account; ``/problems/…`` explains refusals to anyone; ``/api/v1/…`` takes the admin token.
"""

from __future__ import annotations

import logging

from aiohttp import web

from proxy.admin import api, consent, health, pages
from proxy.admin.answers import add_protection, answer_faults
from proxy.admin.services import SERVICES, Services

__all__ = ["Services", "admin_app"]

# aiohttp would log the text of malformed requests, which may hold a link's token or a code.
_silent = logging.getLogger("proxy.admin.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


def admin_app(services: Services) -> web.Application:
    """The application that answers on the operator's listener."""
    app = web.Application(
        middlewares=[answer_faults], handler_args={"logger": _silent}, client_max_size=64 * 1024
    )
    app.on_response_prepare.append(add_protection)
    app[SERVICES] = services
    for module in (health, consent, pages, api):
        app.add_routes(module.routes())
    return app
