"""A proxy as most people write it with aiohttp: a catch-all route and a ``ClientSession``. A program."""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, TCPConnector, web

PORT, TARGET, AUTHORITY, CREDENTIAL = sys.argv[1:5]
SESSION = web.AppKey("session", ClientSession)
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-encoding"}


async def _session(app: web.Application) -> AsyncIterator[None]:
    context = ssl.create_default_context(cafile=AUTHORITY) if AUTHORITY else True
    connector = TCPConnector(limit=0, ssl=context)
    async with ClientSession(connector=connector, auto_decompress=False) as session:
        app[SESSION] = session
        yield


async def _forward(request: web.Request) -> web.StreamResponse:
    headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP | {"host"}}
    headers["Authorization"] = CREDENTIAL
    body = request.content if request.body_exists else None
    async with request.app[SESSION].request(
        request.method, TARGET + request.path_qs, headers=headers, data=body, allow_redirects=False
    ) as answer:
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


def _main() -> None:
    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(_session)
    app.router.add_route("*", "/{tail:.*}", _forward)
    web.run_app(app, host="127.0.0.1", port=int(PORT), print=None, backlog=4096)


if __name__ == "__main__":
    _main()
