"""``/settings``: the settings as they are in force, and where each comes from; secrets by their place.

Who may change something can have the configuration read again here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from aiohttp import web

from proxy.admin.access import actor_of, require
from proxy.admin.answers import page
from proxy.admin.services import SERVICES
from proxy.config import Report
from proxy.errors import ConfigurationError, OperatorError
from proxy.model import Role


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [
        web.get("/settings", require(Role.VIEWER)(_settings)),
        web.post("/settings/reload", require(Role.OPERATOR)(_reload)),
    ]


async def _settings(request: web.Request) -> web.Response:
    return _page(request)


async def _reload(request: web.Request) -> web.Response:
    """The page with what is in force now, and above it what came of reading the configuration again."""
    try:
        report = await request.app[SERVICES].reload_configuration(actor_of(request).user)
    except ConfigurationError as error:
        return _page(request, status=409, fault=f"{error.source} has mistakes:", mistakes=error.mistakes)
    except OperatorError as error:
        return _page(request, status=502, fault=f"{error}.")
    return _page(request, report=report)


def _page(
    request: web.Request,
    *,
    status: int = 200,
    report: Report | None = None,
    fault: str | None = None,
    mistakes: Sequence[str] = (),
) -> web.Response:
    by_section = groupby(request.app[SERVICES].settings, key=lambda setting: setting.key.partition(".")[0])
    sections = [(section, list(settings)) for section, settings in by_section]
    return page(
        "settings.html",
        status=status,
        actor=actor_of(request),
        sections=sections,
        report=report,
        fault=fault,
        mistakes=mistakes,
    )
