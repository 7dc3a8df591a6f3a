"""``/settings``: the settings as they are in force, and where each comes from; secrets by their place."""

from __future__ import annotations

from itertools import groupby

from aiohttp import web

from proxy.admin.access import actor_of, require
from proxy.admin.answers import page
from proxy.admin.services import SERVICES
from proxy.model import Role


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [web.get("/settings", require(Role.VIEWER)(_settings))]


async def _settings(request: web.Request) -> web.Response:
    by_section = groupby(request.app[SERVICES].settings, key=lambda setting: setting.key.partition(".")[0])
    sections = [(section, list(settings)) for section, settings in by_section]
    return page("settings.html", actor=actor_of(request), sections=sections)
