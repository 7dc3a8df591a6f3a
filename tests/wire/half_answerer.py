"""A program: an upstream that begins each answer and never ends it, until somebody kills it."""

from __future__ import annotations

import asyncio
import sys


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    framing = b"Transfer-Encoding: chunked" if b"/chunks " in head else b"Content-Length: 1000000"
    writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n5\r\nhello\r\n" % framing)
    await reader.read()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
