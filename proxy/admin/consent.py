"""The authoriser's way: ``/connect/TOKEN`` → Pleo → ``/oauth/callback`` → a plain result page.

The callback answers with a redirect to ``/oauth/result``, so that no code or state stays in the address bar,
the history or a bookmark. What that page shows comes from a cookie with one of a few known words.
"""

from __future__ import annotations

import re

from aiohttp import web

from proxy.admin.answers import page
from proxy.admin.cookies import cookie, set_cookie
from proxy.admin.services import SERVICES
from proxy.errors import ConsentFault, ConsentRefused
from proxy.model import Secret

_BROWSER_COOKIE = "pleo_proxy_browser"
_RESULT_COOKIE = "pleo_proxy_result"
_BROWSER_LIFETIME_S = 3600
_RESULT_LIFETIME_S = 600
_BROWSER = re.compile(r"[A-Za-z0-9_-]{43}")
_CONNECTED = re.compile(r"connected\.([a-z0-9][a-z0-9-]{0,62})")
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
    # Lax, both cookies: the way back from Pleo is a navigation from another site, which Strict would cut off.
    set_cookie(
        response,
        services,
        _BROWSER_COOKIE,
        begun.browser.reveal(),
        max_age=_BROWSER_LIFETIME_S,
        same_site="Lax",
    )
    return response


async def _callback(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    try:
        connected = await services.authorize.finish(request.query, _browser(request))
    except ConsentRefused as refused:
        result = refused.fault.slug
    else:
        result = f"connected.{connected.tenant}"
    response = web.Response(status=303, headers={"Location": f"{services.public_url}/oauth/result"})
    set_cookie(response, services, _RESULT_COOKIE, result, max_age=_RESULT_LIFETIME_S, same_site="Lax")
    return response


async def _result(request: web.Request) -> web.Response:
    result = cookie(request, _RESULT_COOKIE)
    if connected := _CONNECTED.fullmatch(result):
        return page("connected.html", tenant=connected[1])
    return _fault_page(_FAULTS.get(result, ConsentFault.STATE_UNKNOWN))


def _fault_page(fault: ConsentFault) -> web.Response:
    return page("not_connected.html", status=fault.status, title=fault.title, text=fault.text)


def _browser(request: web.Request) -> Secret | None:
    value = cookie(request, _BROWSER_COOKIE)
    # Only a value of our making is taken up: it is random, and safe to set again.
    return Secret(value) if _BROWSER.fullmatch(value) else None
