"""The authoriser's way: the page of a link → Pleo → ``/oauth/callback`` → the page with the result.

``GET /connect/TOKEN`` tells who asks for what, and begins nothing: mail scanners, link previews and whatever
else opens links before people do get the page, and use up nothing. The way on is a link to the same address
with ``?continue=``, and not a form, since browsers hold ``form-action`` against the redirect to Pleo as well.
It is relative, so that the page does not repeat the token, and carries a proof that this browser was shown
the page. A program that follows it nevertheless begins a flow that ends by itself; the link stays good.

The callback answers with a redirect to ``/oauth/result``, so that no code or state stays in the address bar,
the history or a bookmark. What the pages say is put together in :mod:`proxy.admin.consent_pages`.
"""

from __future__ import annotations

import re

from aiohttp import web

from proxy import authorize
from proxy.admin import consent_pages, results
from proxy.admin.cookies import cookie, set_cookie
from proxy.admin.services import SERVICES
from proxy.consents import Ending
from proxy.model import Secret

_BROWSER_COOKIE = "pleo_proxy_browser"
_RESULT_COOKIE = "pleo_proxy_result"
_BROWSER_LIFETIME_S = 3600
_RESULT_LIFETIME_S = 600
_BROWSER = re.compile(r"[A-Za-z0-9_-]{43}")
_GO = "continue"


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [
        web.get("/connect/{token}", _connect, allow_head=False),
        web.get("/oauth/callback", _callback, allow_head=False),
        web.get("/oauth/result", _result),
    ]


async def _connect(request: web.Request) -> web.Response:
    return await (_go_on(request) if _GO in request.query else _ask(request))


async def _ask(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    found = await services.authorize.look(Secret(request.match_info["token"]))
    if isinstance(found, Ending):
        return consent_pages.ending_page(services, found)
    browser = _browser(request) or authorize.new_browser()
    response = consent_pages.connect_page(services, found, f"?{_GO}={authorize.proof_of(browser)}")
    _bind(request, response, browser)
    return response


async def _go_on(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    token, proof = Secret(request.match_info["token"]), request.query[_GO]
    begun = await services.authorize.begin(token, _browser(request), proof)
    if isinstance(begun, Ending):
        return consent_pages.ending_page(services, begun)
    response = web.Response(status=303, headers={"Location": begun.url})
    _bind(request, response, begun.browser)
    return response


async def _callback(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    ending = await services.authorize.finish(request.query, _browser(request))
    response = web.Response(status=303, headers={"Location": f"{services.public_url}/oauth/result"})
    value = results.as_cookie(ending, services.vault)
    set_cookie(response, services, _RESULT_COOKIE, value, max_age=_RESULT_LIFETIME_S, same_site="Lax")
    return response


async def _result(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    ending = results.of_cookie(cookie(request, _RESULT_COOKIE), services.vault)
    return consent_pages.ending_page(services, ending or services.authorize.refuse_result())


def _bind(request: web.Request, response: web.Response, browser: Secret) -> None:
    set_cookie(
        response,
        request.app[SERVICES],
        _BROWSER_COOKIE,
        browser.reveal(),
        max_age=_BROWSER_LIFETIME_S,
        # As the result's: the way back from Pleo is a navigation from another site, which Strict cuts off.
        same_site="Lax",
    )


def _browser(request: web.Request) -> Secret | None:
    value = cookie(request, _BROWSER_COOKIE)
    # Only a value of our making is taken up: it is random, and safe to set again.
    return Secret(value) if _BROWSER.fullmatch(value) else None
