"""A proxied exchange as one assertion: who sends what, and who must get what, in order, byte for byte.

``caller >> b"…"`` sends; ``upstream << b"…"`` says what must have arrived there. Peers are scripted, the
proxy is whole and real, and every message crosses a socket. A play fails with both transcripts side by side:
at the first message that differs, and also when something arrived that the play does not mention. The
``Date`` that every final answer to a caller must have, and that no play can know, is taken out of it.
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from proxy import app, config, lifecycle, pairs
from proxy.config import Settings
from proxy.facts import Fact
from proxy.model import Secret, Tenant
from proxy.oauth import TokenPair
from proxy.telemetry import fan_out
from proxy.telemetry.metrics import Metrics
from tests import log_watch
from tests.harness import until

PATIENCE_S = 5.0
"""How long a message may take to arrive before the play says that it never did."""


@dataclass(frozen=True)
class Step:
    """One line of a play."""

    actor: Actor
    kind: str
    """``>>`` the actor sends, ``<<`` it gets, ``!`` it does something to its connection."""
    data: bytes


class Actor:
    """Someone at the other end of a socket of the proxy."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __rshift__(self, data: bytes) -> Step:
        return Step(self, ">>", data)

    def __lshift__(self, data: bytes) -> Step:
        return Step(self, "<<", data)

    def leaves(self) -> Step:
        """The actor cuts its connection."""
        return Step(self, "!", b"leaves")

    def sees_the_end(self) -> Step:
        """The proxy ended the connection and nothing more came."""
        return Step(self, "!", b"sees the end")


caller = Actor("caller")
second_caller = Actor("second caller")
upstream = Actor("upstream")
provider = Actor("provider")


@dataclass
class _Pipe:
    """One connection of an actor."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set on a server's side when the proxy has ended the connection."""
    head: bytes = b""
    """A head that was given out alone, since its body is held back."""

    async def message(self) -> bytes:
        """One whole HTTP message, its framing kept; where 100 is expected head and body are two."""
        if self.head:
            head, self.head = self.head, b""
            return await self._body(head.lower())
        head = await self.reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 1"):
            return head
        if b"expect: 100-continue" in head.lower():
            self.head = head
            return head
        return head + await self._body(head.lower())

    async def _body(self, head: bytes) -> bytes:
        if b"transfer-encoding: chunked" in head:
            body = b""
            # The last chunk, and trailers if there are any.
            while not re.search(rb"(\A|\r\n)0\r\n([^\r\n]+\r\n)*\r\n\Z", body):
                body += await self.reader.readuntil(b"\r\n")
            return body
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        return await self.reader.readexactly(int(length[1])) if length else b""


@dataclass
class _Server:
    """A scripted server: what it gets waits in a queue with the connection that it came on."""

    arrived: asyncio.Queue[tuple[bytes, _Pipe]] = field(default_factory=asyncio.Queue)
    pipe: _Pipe | None = None
    listener: asyncio.Server | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> Self:
        self.listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    @property
    def url(self) -> str:
        assert self.listener is not None
        host, port = self.listener.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        pipe = _Pipe(reader, writer)
        try:
            while True:
                self.arrived.put_nowait((await pipe.message(), pipe))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            pipe.ended.set()
            self.tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        assert self.listener is not None
        self.listener.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@dataclass
class Stage:
    """The proxy with scripted peers around it; the tenant acme is connected with ``at-1`` and ``rt-1``."""

    app: app.App
    upstream: _Server
    provider: _Server
    clock: Clock
    facts: list[Fact]
    _callers: dict[str, _Pipe] = field(default_factory=dict)

    @property
    def upstream_host(self) -> bytes:
        return self.upstream.url.removeprefix("http://").encode()

    async def play(self, *steps: Step) -> None:
        """Carry out the steps in order; everything that arrives must be in the play."""
        happened: list[str] = []
        for number, step in enumerate(steps):
            got = await self._carry_out(step)
            happened.append(_shown(Step(step.actor, step.kind, got)))
            if got != step.data:
                _fail(steps[: number + 1], happened)
        for actor, server in ((upstream, self.upstream), (provider, self.provider)):
            while not server.arrived.empty():
                happened.append(_shown(actor << server.arrived.get_nowait()[0]))
        for name, pipe in self._callers.items():
            # Whatever the proxy has sent is here already or will never be part of this play.
            rest = bytes(pipe.reader._buffer)  # type: ignore[attr-defined] # asyncio offers no look
            if rest:
                happened.append(_shown(Actor(name) << rest))
        if len(happened) != len(steps):
            _fail(steps, happened)

    async def _carry_out(self, step: Step) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._act(step)
        except TimeoutError:
            return b"(nothing)"
        except asyncio.IncompleteReadError as error:
            return b"(broken off after) " + error.partial

    async def _act(self, step: Step) -> bytes:
        server = {"upstream": self.upstream, "provider": self.provider}.get(step.actor.name)
        match step.kind:
            case "<<":
                if server is None:
                    return _undated(await self._callers[step.actor.name].message())
                message, server.pipe = await server.arrived.get()
                return message
            case ">>":
                pipe = await self._caller(step.actor.name) if server is None else server.pipe
                assert pipe is not None, f"{step.actor.name} has no connection to send on"
                pipe.writer.write(step.data)
                await pipe.writer.drain()
                return step.data
            case _:
                return await self._to_connection(step, server)

    async def _to_connection(self, step: Step, server: _Server | None) -> bytes:
        pipe = self._callers.get(step.actor.name) if server is None else server.pipe
        assert pipe is not None
        if step.data == b"leaves":
            pipe.writer.close()
            return step.data
        if server is not None:
            await pipe.ended.wait()
            return step.data
        rest = await pipe.reader.read()
        return rest or step.data

    async def _caller(self, name: str) -> _Pipe:
        if name not in self._callers:
            host, _, port = self.app.proxy_addresses[0].rpartition(":")
            self._callers[name] = _Pipe(*await asyncio.open_connection(host, int(port)))
        return self._callers[name]

    async def receive(self, actor: Actor) -> bytes:
        """The next whole message that a caller gets, for what is not known to the last byte beforehand."""
        async with asyncio.timeout(PATIENCE_S):
            return _undated(await self._callers[actor.name].message())

    async def receive_head(self, actor: Actor) -> bytes:
        """The next head that a caller gets."""
        async with asyncio.timeout(PATIENCE_S):
            return _undated(await self._callers[actor.name].reader.readuntil(b"\r\n\r\n"))

    async def receive_exactly(self, actor: Actor, count: int) -> bytes:
        """The next bytes that a caller gets."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._callers[actor.name].reader.readexactly(count)

    async def until_end(self, actor: Actor) -> bytes:
        """All that a caller gets until the proxy ends its connection, whole or cut."""
        got = b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while piece := await self._callers[actor.name].reader.read(65536):
                    got += piece
        except ConnectionResetError:
            pass  # that is how a cut looks on a caller's side
        return _undated(got)

    async def quiet(self) -> None:
        """Wait until no request is under way."""
        await until(lambda: not self.app.exchange.under_way)

    def close_callers(self) -> None:
        for pipe in self._callers.values():
            pipe.writer.close()


@dataclass
class Clock:
    """A clock that tests move."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def stage(
    folder: Path,
    *,
    limits: Mapping[str, float] | None = None,
    pleo: Mapping[str, str] | None = None,
    listen: Mapping[str, object] | None = None,
    tracing: Mapping[str, object] | None = None,
    **refresh: float,
) -> AsyncIterator[Stage]:
    """A stage whose proxy takes ``[refresh]`` settings from the keywords."""
    up, auth = await _Server().start(), await _Server().start()
    settings = Settings.model_validate(
        {
            "listen": {"proxy": "127.0.0.1:0", "admin": "127.0.0.1:0", **(listen or {})},
            "pleo": {
                "environment": "custom",
                "client_id": "id",
                "client_secret": "secret",
                "client_auth": "post",
                "api_url": up.url,
                "authorize_url": f"{auth.url}/authorize",
                "token_url": f"{auth.url}/token",
                **(pleo or {}),
            },
            "store": {"url": f"sqlite://{folder}/proxy.db", "state_dir": str(folder)},
            "admin": {"token": "admin"},
            "refresh": {"advisory_jitter": 0, **refresh},
            "limits": limits or {},
            "tracing": tracing or {},
        }
    )
    clock, facts = Clock(), []  # type: tuple[Clock, list[Fact]]
    emit = fan_out(log_watch.sink(), facts.append)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(up.stop)
        stack.push_async_callback(auth.stop)
        running = await app.start(
            config.configuration(settings, {}, "the test"),
            {},
            emit=emit,
            metrics=Metrics(),
            stack=stack,
            clock=clock,
        )
        theatre = Stage(running, up, auth, clock, facts)
        await connect(theatre, "acme")
        stack.callback(theatre.close_callers)
        yield theatre


async def connect(theatre: Stage, name: str, expires_in_s: float = 900) -> None:
    """Store a grant for the tenant as a consent would, with the tokens ``at-1`` and ``rt-1``."""
    running = theatre.app
    await running.store.edit_tenants(lambda stored: {**stored, name: Tenant(name)})
    sealed = pairs.seal_pair(
        running.tokens.vault,
        TokenPair(Secret("at-1"), Secret("rt-1"), expires_in_s),
        tenant=name,
        generation=1,
        now=theatre.clock(),
        lifetimes=running.tokens.refresher.lifetimes,
    )
    grant = lifecycle.connected(sealed, tenant=name, company="c", scopes=(), generation=1)
    await running.store.edit_grant(name, lambda _: grant)
    await running.watch.take_up()


def refresh_request(theatre: Stage, refresh_token: str) -> bytes:
    """What the provider gets when ``refresh_token`` is used."""
    body = urlencode(
        [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", "id"),
            ("client_secret", "secret"),
        ]
    ).encode()
    host = theatre.provider.url.removeprefix("http://").encode()
    return (
        b"POST /token HTTP/1.1\r\nHost: %b\r\nUser-Agent: pleo-proxy\r\nAccept: application/json\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nAccept-Encoding: gzip, deflate\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (host, len(body), body)
    )


def token_answer(access: str, refresh: str, expires_in: int = 900) -> bytes:
    """The provider grants a new pair."""
    body = b'{"access_token":"%b","refresh_token":"%b","expires_in":%d,"token_type":"Bearer"}' % (
        access.encode(),
        refresh.encode(),
        expires_in,
    )
    return http(b"200 OK", body)


def http(status: bytes, body: bytes = b"", fields: bytes = b"") -> bytes:
    """An answer with a known length."""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields, len(body), body)


def _shown(step: Step) -> str:
    return f"{step.actor.name} {step.kind} {step.data!r}"


_DATE = re.compile(rb"(?<=\r\n)Date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n")


def _undated(answer: bytes) -> bytes:
    if not answer.startswith(b"HTTP/") or answer.startswith(b"HTTP/1.1 1"):
        return answer
    undated, dates = _DATE.subn(b"", answer)
    return undated if dates == 1 else b"(with %d Date fields) %b" % (dates, answer)


def _fail(expected: tuple[Step, ...], happened: list[str]) -> None:
    wanted = [_shown(step) for step in expected]
    diff = "\n".join(difflib.ndiff(wanted, happened))
    raise AssertionError(f"the play went otherwise (- in the play, + what happened):\n{diff}")
