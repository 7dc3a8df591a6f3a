"""The authoriser's way: ``/connect/TOKEN`` → Pleo → ``/oauth/callback`` → a plain result page.

The callback answers with a redirect to ``/oauth/result``, so that no code or state stays in the address bar,
the history or a bookmark. What that page shows comes from a cookie with one of a few known words.
"""

from __future__ import annotations

import re

from aiohttp import web

from proxy.admin.answers import page
from proxy.admin.services import SERVICES, Services
from proxy.errors import ConsentFault, ConsentRefused
from proxy.model import Secret

_RESULT_COOKIE = "pleo_proxy_result"
_RESULT_LIFETIME_S = 600
_RESULT = re.compile(r"(connected|[a-z-]+)\.([a-z0-9-]{0,63})")
_FAULTS = {fault.slug: fault for fault in ConsentFault}


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [
        # HEAD is what mail scanners and chat previews send; it must not begin anything.
        web.get("/connect/{token}", _connect, allow_head=False),
        web.get("/oauth/callback", _callback, allow_head=False),
        web.get("/oauth/result", _result),
    ]


async def _connect(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    try:
        begun = await services.authorize.begin(Secret(request.match_info["token"]), _browser(request))
    except ConsentRefused as refused:
        return _fault_page(refused.fault)
    response = web.Response(status=303, headers={"Location": begun.url})
    _set_cookie(response, services, _browser_cookie(services), begun.browser.reveal(), max_age=3600)
    return response


async def _callback(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    try:
        connected = await services.authorize.finish(request.query, _browser(request))
    except ConsentRefused as refused:
        result = f"{refused.fault.slug}."
    else:
        result = f"connected.{connected.tenant}"
    response = web.Response(status=303, headers={"Location": f"{services.public_url}/oauth/result"})
    _set_cookie(response, services, _RESULT_COOKIE, result, max_age=_RESULT_LIFETIME_S)
    return response


async def _result(request: web.Request) -> web.Response:
    match = _RESULT.fullmatch(request.cookies.get(_RESULT_COOKIE, ""))
    if match is None:
        return _fault_page(ConsentFault.STATE_UNKNOWN)
    if match[1] == "connected":
        return page("connected.html", tenant=match[2])
    return _fault_page(_FAULTS.get(match[1], ConsentFault.STATE_UNKNOWN))


def _fault_page(fault: ConsentFault) -> web.Response:
    return page("not_connected.html", status=fault.status, title=fault.title, text=fault.text)


def _browser(request: web.Request) -> Secret | None:
    value = request.cookies.get(_browser_cookie(request.app[SERVICES]))
    return Secret(value) if value else None


def _browser_cookie(services: Services) -> str:
    # "__Host-" makes browsers refuse the cookie from a sibling domain, and needs https.
    return "__Host-pleo_proxy_browser" if _is_https(services) else "pleo_proxy_browser"


def _is_https(services: Services) -> bool:
    return services.public_url.startswith("https://")


def _set_cookie(response: web.Response, services: Services, name: str, value: str, *, max_age: int) -> None:
    # Lax: the way back from Pleo is a top-level navigation from another site, which Strict would cut off.
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        path="/",
        httponly=True,
        secure=_is_https(services),
        samesite="Lax",
    )
