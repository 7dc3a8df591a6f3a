"""A reader of server-sent events (WHATWG HTML section 9.2), as curl and browsers are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from tests.harness import ADMIN_TOKEN, Proxy

BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
PATH = "/api/v1/live"


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    kind: str
    data: str
    id: str | None

    def json(self) -> Any:
        return json.loads(self.data)


class Stream:
    """An open stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, timeout_s: float = 10) -> Event:
        """The next event; fails at the end of the stream."""
        event = await self.next_or_end(timeout_s)
        assert event is not None, "the stream has ended"
        return event

    async def next_or_end(self, timeout_s: float = 10) -> Event | None:
        """The next event, or ``None`` at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(timeout_s):
            while line := await self.response.content.readline():
                name, _, value = line.decode().rstrip("\r\n").partition(":")
                if name:
                    fields[name] = value.removeprefix(" ")
                elif line.strip() == b"" and "data" in fields:
                    return Event(fields.get("event", "message"), fields["data"], fields.get("id"))
        return None

    async def line(self, timeout_s: float = 10) -> dict[str, Any]:
        """The next line of the log."""
        event = await self.next(timeout_s)
        assert event.kind == "message", event
        line: dict[str, Any] = event.json()
        return line

    async def request(self) -> dict[str, Any]:
        """The next line about a request."""
        while (line := await self.line())["event"] != "request.finished":
            pass
        return line


@asynccontextmanager
async def streaming(
    session: aiohttp.ClientSession, base_url: str, query: str = "", headers: Mapping[str, str] = BEARER
) -> AsyncIterator[Stream]:
    """A stream that has begun."""
    url = URL(f"{base_url}{PATH}{query}", encoded=True)
    # aiohttp's own time-out would end a long test.
    async with session.get(url, headers=headers, timeout=aiohttp.ClientTimeout()) as response:
        assert response.status == 200, await response.text()
        stream = Stream(response)
        assert (await stream.next()).kind == "begin"
        yield stream


def watching(proxy: Proxy, query: str = "", **options: Any) -> Any:
    """A stream of a proxy in this process."""
    return streaming(proxy.session, f"http://{proxy.app.admin_address}", query, **options)
