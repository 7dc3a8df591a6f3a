"""Cookies of the operator's listener: for this host alone, out of reach of scripts, encrypted on the way."""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from proxy.admin.services import SERVICES, Services


def cookie(request: web.Request, name: str) -> str:
    """The value of a cookie that :func:`set_cookie` set; empty where there is none."""
    return request.cookies.get(_full_name(request.app[SERVICES], name), "")


def set_cookie(
    response: web.Response,
    services: Services,
    name: str,
    value: str,
    *,
    max_age: int,
    same_site: Literal["Strict", "Lax"],
) -> None:
    """Set a cookie, for ``max_age`` seconds; 0 takes it back."""
    response.set_cookie(
        _full_name(services, name),
        value,
        max_age=max_age,
        path="/",
        httponly=True,
        secure=_is_https(services),
        samesite=same_site,
    )


def _full_name(services: Services, name: str) -> str:
    # "__Host-" makes browsers refuse the cookie from a sibling domain, and needs https.
    return f"__Host-{name}" if _is_https(services) else name


def _is_https(services: Services) -> bool:
    return services.public_url.startswith("https://")
