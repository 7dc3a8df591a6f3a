"""Receivers of notifications: an HTTP server, and an SMTP server that does what RFC 5321 asks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SECRET = "whsec_" + base64.b64encode(b"a key of thirty-two bytes, fixed").decode()


@dataclass
class Hook:
    """What an HTTP server got, and what it answers."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    """For the next requests; 204 when there are no more."""
    hangs: bool = False
    got: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        if self.hangs:
            await self.released.wait()
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 307 else None)


@asynccontextmanager
async def http_receiver() -> AsyncIterator[Hook]:
    """An HTTP server on loopback, any path."""
    hook = Hook()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hook.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    hook.url = f"http://{host}:{port}/hook"
    try:
        yield hook
    finally:
        hook.released.set()
        await runner.cleanup()


def is_signed(headers: Mapping[str, str], body: bytes, secret: str = SECRET) -> bool:
    """What a receiver does, written from the text of Standard Webhooks alone."""
    got = {name.lower(): value for name, value in headers.items()}
    key = base64.b64decode(secret.split("_", 1)[1])
    signed = f"{got['webhook-id']}.{got['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(each, f"v1,{expected}") for each in got["webhook-signature"].split(" "))


@dataclass
class MailBox:
    """What an SMTP server got, and how it behaves."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    starttls: bool = False
    login: str | None = None
    """``\\0user\\0password``, which it asks for."""
    says: dict[str, str] = field(default_factory=dict)
    """Answers to commands, other than the usual."""
    refuses: str | None = None
    """A recipient that it does not take."""
    hangs_at: str | None = None
    mails: list[tuple[str, list[str], str]] = field(default_factory=list)
    in_clear: list[str] = field(default_factory=list)
    """Commands that came without TLS."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(self, reader, writer)
        session.say("220 receiver")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            verb = line.split(" ")[0].split(":")[0].upper()
            if not session.secured:
                self.in_clear.append(line)
            if verb == self.hangs_at:
                await asyncio.Event().wait()
            if verb in self.says:
                session.say(self.says[verb])
            elif verb == "QUIT":
                session.say("221 bye")
                return
            else:
                handle = getattr(session, f"on_{verb.lower()}", session.on_other)
                await handle(line)


class _Session:
    """One connection to an SMTP server."""

    def __init__(self, box: MailBox, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.box, self.reader, self.writer = box, reader, writer
        self.secured = writer.get_extra_info("sslcontext") is not None
        self.sender = ""
        self.to: list[str] = []

    def say(self, text: str) -> None:
        self.writer.write(f"{text}\r\n".encode())

    async def on_other(self, _line: str) -> None:
        self.say("250 ok")

    async def on_ehlo(self, _line: str) -> None:
        offers = ["STARTTLS"] if self.box.starttls and not self.secured else []
        names = ["receiver", *offers, *(["AUTH PLAIN"] if self.box.login else [])]
        for name in names[:-1]:
            self.say(f"250-{name}")
        self.say(f"250 {names[-1]}")

    async def on_starttls(self, _line: str) -> None:
        assert self.box.tls is not None
        self.say("220 go ahead")
        await self.writer.start_tls(self.box.tls)
        self.secured = True

    async def on_auth(self, line: str) -> None:
        given = base64.b64decode(line.split(" ")[2]).decode()
        self.say("235 welcome" if given == self.box.login else "535 no")

    async def on_mail(self, line: str) -> None:
        self.sender, self.to = line.split("<")[1].split(">", maxsplit=1)[0], []
        self.say("250 ok")

    async def on_rcpt(self, line: str) -> None:
        address = line.split("<")[1].split(">", maxsplit=1)[0]
        if address == self.box.refuses:
            self.say("550 no such user")
        else:
            self.to.append(address)
            self.say("250 ok")

    async def on_data(self, _line: str) -> None:
        self.say("354 go on")
        text = (await self.reader.readuntil(b"\r\n.\r\n")).decode()
        self.box.mails.append((self.sender, self.to, text))
        self.say("250 taken")


@asynccontextmanager
async def smtp_receiver(box: MailBox) -> AsyncIterator[MailBox]:
    """An SMTP server on loopback; with ``box.tls`` and without ``box.starttls`` TLS from the start."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await box.serve(reader, writer)

    context = None if box.starttls else box.tls
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
