"""An attacker's web site, and a name of theirs that turns to the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web

SITE = "evil.example"
REBOUND = {"rebound.example": "127.0.0.2", "rebound.localhost": "127.0.0.2"}
"""Names that lead to a :class:`Relay`. The second is trustworthy to browsers, as names with TLS are."""
PLAIN_NAME, PLAIN_ADDRESS = "proxy.internal", "192.0.2.7"
"""Where the proxy could be in a network: for requests to either a browser leaves out ``Sec-Fetch-Site``."""

NAMES = {SITE: "127.0.0.1", PLAIN_NAME: "127.0.0.1", PLAIN_ADDRESS: "127.0.0.1", **REBOUND}
"""Where each of them is, to the browser."""

_PAGES: Mapping[str, str] = {
    "/": '<!doctype html><title>A page</title><body><script src="/attacks.js"></script>',
    "/refresh": '<meta http-equiv="refresh" content="0; url={to}">',
    "/reporting": '<img src="/none.png">',
}


@asynccontextmanager
async def attackers_site() -> AsyncIterator[int]:
    """The attacker's server on loopback; gives its port."""
    server = web.Application()
    server.router.add_route("*", "/{path:.*}", _answer)
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _answer(request: web.Request) -> web.Response:
    to = request.query.get("to", "")
    # Closed, so that what comes next is a connection to where the name leads then.
    fields = {"Connection": "close"}
    if request.path == "/attacks.js":
        script = Path(__file__).with_name("attacks.js").read_text()
        return web.Response(text=script, content_type="text/javascript", headers=fields)
    if request.path.startswith("/bounce/"):
        status = int(request.path.rpartition("/")[2])
        return web.Response(status=status, headers={**fields, "Location": to})
    if request.path == "/reporting":
        # A browser reports what a page was kept from, wherever the page says.
        fields["Content-Security-Policy"] = f"img-src 'none'; report-uri {to}"
    if request.path in _PAGES:
        text = _PAGES[request.path].format(to=to)
        return web.Response(text=text, content_type="text/html", headers=fields)
    return web.Response(status=404, headers=fields)


class Relay:
    """Where an attacker's name leads: to ``port`` on loopback, which the attacker changes.

    To a browser it makes no difference whether the name gets another address or its address another owner.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        """Listen on ``port`` of the address of the :data:`REBOUND` names."""
        server = await asyncio.start_server(self._serve, "127.0.0.2", port)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Browsers connect ahead of time; where to is settled when they send something.
        first = await reader.read(65536)
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        back.write(first)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()
