"""``GET /api/v1/live``: the log's lines as server-sent events, for the live page and for ``curl -N``.

Each stream is a reader of :class:`proxy.telemetry.live.Live` with a number of its own: it comes for what is
new a few times a second, so a browser that does not read keeps nothing but its own task waiting. It ends with
the session or token that it was opened with, and at a stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import orjson
from aiohttp import web
from aiohttp_sse import EventSourceResponse

from proxy.admin.access import is_still_welcome
from proxy.admin.answers import problem
from proxy.admin.operations import Operation
from proxy.admin.services import SERVICES
from proxy.admin.shapes import LiveEvent, LiveQuery
from proxy.errors import StoreUnavailable
from proxy.loglines import Pick
from proxy.model import Role
from proxy.telemetry.live import LOOK_S, Live

PATH = "/api/v1/live"
MOST_STREAMS = 8
"""At one time. Each costs a thousandth of a processor while little happens; operators are few."""
MOST_LINES = 50
"""Of one look, so 200 a second: nobody reads more, and the proxy has other things to do."""
_CHECK_S = 2.0
"""Pause between two looks at who it is that reads."""
_PING_S = 15.0
"""So that terminators in front, which end what is silent for a minute, see that it lives."""
_SEND_S = 20.0
"""What is not taken for so long has no reader."""
_RETRY_AFTER_S = 10


class Streams:
    """Which streams are open, and that they are to end."""

    def __init__(self) -> None:
        self.open = 0
        self.closing = asyncio.Event()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """While a stream is open."""
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


STREAMS = web.AppKey("streams", Streams)


def prepare(app: web.Application) -> None:
    """What an application with streams needs: they are counted, and end when it is shut down."""
    streams = app[STREAMS] = Streams()

    async def end_all(_app: web.Application) -> None:
        streams.closing.set()

    app.on_shutdown.append(end_all)


def operations() -> list[Operation[Any, Any]]:
    """Operations of this module."""
    return [
        Operation(
            id="watchLive",
            method="GET",
            path=PATH,
            role=Role.VIEWER,
            summary="Watch the log's lines as they come",
            description="As server-sent events without an end: `message` has a line of the log as it stands "
            "there, with an `id` to go on from; `left_out` says how many `lines` were too many; `end` says "
            "why it ends. It begins with what comes next. `pleo-proxy tail` picks by the same rules.",
            asks=LiveQuery,
            handler=_live,
            answer=LiveEvent,
            media_type="text/event-stream",
            refuses={
                503: "The store is not available; or as many streams are open as there may be, and "
                "`Retry-After` says when to come again."
            },
        )
    ]


def pick_of(query: LiveQuery) -> Pick:
    """Which lines a query asks for, as the options of ``pleo-proxy tail``."""
    named = (query.tenant, query.event, query.status)
    tenants, events, statuses = (tuple((each or "").split()) for each in named)
    return Pick(tenants, events, statuses, level=query.level or None)


async def _live(request: web.Request, asked: LiveQuery) -> web.StreamResponse:
    streams, live, pick = request.app[STREAMS], request.app[SERVICES].live, pick_of(asked)
    if request.method == "HEAD":
        return web.Response(content_type="text/event-stream")
    if streams.open >= MOST_STREAMS:
        return _refused()
    response = EventSourceResponse(ping_interval=_PING_S, send_timeout=_SEND_S)
    # Whoever reads may leave at any time, or stop reading.
    with streams.one_more(), suppress(ConnectionError, TimeoutError):
        # First, so that what came before somebody watched is before the newest.
        await live.look_everywhere()
        # What a browser that connects again has seen last counts more than what its page was made with.
        number = live.number_of(request.headers.get("Last-Event-ID") or asked.after)
        if request.transport is not None:
            await response.prepare(request)
            async with response:
                await _follow(request, response, live, pick, number)
    # The other answer reaches nobody.
    return response if response.prepared and request.transport is not None else web.Response()


def _refused() -> web.Response:
    detail = f"There are {MOST_STREAMS} live views open, and no more are served at one time. Close one."
    response = problem(503, "Service Unavailable", detail)
    response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response


async def _follow(
    request: web.Request, response: EventSourceResponse, live: Live, pick: Pick, number: int
) -> None:
    """Send what comes until it is to end. A browser tries again after a stop, and not after a logout."""
    closing = request.app[STREAMS].closing
    # At once, so that whoever connects sees that it works, and where to go on if it breaks.
    await response.send("{}", id=live.mark(number), event="begin")
    check_at = monotonic() + _CHECK_S
    while request.transport is not None:
        live.look()
        number = await _send_new(response, live, pick, number)
        if closing.is_set():
            return
        if monotonic() >= check_at:
            check_at = monotonic() + _CHECK_S
            if not await _is_welcome(request):
                await response.send('{"why":"You are logged out."}', event="end")
                return
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await closing.wait()


async def _send_new(response: EventSourceResponse, live: Live, pick: Pick, number: int) -> int:
    """Send what is wanted of what is new, and how much is left out; returns the number to go on from."""
    glimpse = live.since(number)
    wanted = [each for each in glimpse.lines if pick.takes(each.line)]
    sent = wanted[-MOST_LINES:]
    left_out = glimpse.left_out + len(wanted) - len(sent)
    if left_out:
        count = orjson.dumps({"lines": left_out}).decode()
        await response.send(count, event="left_out")
    for each in sent:
        await response.send(each.line.raw.decode(), id=live.mark(each.number))
    return glimpse.upto


async def _is_welcome(request: web.Request) -> bool:
    try:
        return await is_still_welcome(request)
    except StoreUnavailable:
        return True  # an outage is when people want to see; it is asked again soon
