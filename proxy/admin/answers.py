"""What all answers of the operator's listener share: protective headers, problem documents, page frame."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jinja2
import orjson
from aiohttp import web

from proxy.admin.services import SERVICES
from proxy.errors import StoreUnavailable
from proxy.facts import TaskCrashed

PROTECTION = {
    # Instead of names and versions of libraries.
    "Server": "pleo-proxy",
    # No script but where _SCRIPTED says so, nothing from elsewhere, in no frame.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # No address of a page leaks by a Referer.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    # No window of another site holds ours, and none of its pages embeds an answer.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # For browsers that know no frame-ancestors.
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""On every answer, whoever gives it."""
_SCRIPTED = PROTECTION["Content-Security-Policy"] + "; script-src 'self'; connect-src 'self'"
"""Of a page with a script: ours, from our origin, and none in the page itself."""
_POLICY = web.ResponseKey("policy", str)

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("proxy.admin"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def add_protection(_request: web.Request, response: web.StreamResponse) -> None:
    """Protective headers on every answer, also on those that aiohttp gives without asking a handler."""
    response.headers.update(PROTECTION)
    policy = response.get(_POLICY)
    if policy is not None:
        response.headers["Content-Security-Policy"] = policy


@web.middleware
async def answer_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A problem document for what no handler answered; a defect becomes a plain 500 and one log line."""
    try:
        return await handler(request)
    except web.HTTPException as http:
        response = problem(http.status, http.reason)
        if "Allow" in http.headers:
            response.headers["Allow"] = http.headers["Allow"]
        return response
    except StoreUnavailable as unavailable:
        return problem(unavailable.status, unavailable.title)
    except Exception as error:  # noqa: BLE001 - whatever it is, its text must not reach the page
        where = traceback.extract_tb(error.__traceback__)[-1]
        resource = request.match_info.route.resource
        # The pattern, not the path: a path of this listener may hold a link's token.
        task = f"admin {request.method} {resource.canonical if resource is not None else '?'}"
        place = f"{Path(where.filename).name}:{where.lineno}"
        request.app[SERVICES].emit(TaskCrashed(task, type(error).__name__, place))
        return problem(500, "Internal error")


def page(name: str, *, status: int = 200, has_script: bool = False, **values: Any) -> web.Response:  # noqa: ANN401 - template values
    """A page from the template ``name``; with ``actor``, it says who is logged in, and offers to log out.

    :param has_script: the template names a script of ours, and the browser is to run it.
    """
    text = _templates.get_template(name).render({"actor": None, **values})
    response = web.Response(text=text, status=status, content_type="text/html")
    if has_script:
        response[_POLICY] = _SCRIPTED
    return response


def data(value: Any, *, status: int = 200) -> web.Response:  # noqa: ANN401 - anything that is JSON
    """``value`` as JSON."""
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, status=status, content_type="application/json")


def problem(status: int, title: str, detail: str | None = None) -> web.Response:
    """A problem document (RFC 9457) of the generic type."""
    value = {"type": "about:blank", "title": title, "status": status}
    if detail is not None:
        value["detail"] = detail
    body = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, status=status, content_type="application/problem+json")
