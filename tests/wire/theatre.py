"""The proxy before a recorder, in this process and on uvloop as in production, and callers of any manners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from proxy import app, config, lifecycle, pairs
from proxy.config import Settings
from proxy.facts import Fact, RequestCrashed, RequestFinished, TaskCrashed
from proxy.model import Secret, Tenant
from proxy.oauth import TokenPair
from proxy.telemetry import fan_out
from proxy.telemetry.metrics import Metrics
from tests import log_watch
from tests.wire.messages import Malformed, Message, Reader
from tests.wire.recorder import Recorder

PATIENCE_S = 10.0
"""How long something may take that must happen."""
TENANT = "acme"
T = TypeVar("T")


def on_uvloop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a play on the loop of production, whose transports differ from asyncio's in details."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


@dataclass
class Theatre:
    """The running proxy, its upstream, and what it reported."""

    app: app.App
    recorder: Recorder
    crashes: list[Fact] = field(default_factory=list)
    finished: list[RequestFinished] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.app.proxy_addresses[0].rpartition(":")
        return host, int(port)

    def check(self) -> None:
        """Nothing crashed, and nothing reached the upstream that is malformed or has a wrong credential."""
        assert not self.crashes, self.crashes
        assert not self.recorder.findings, "\n".join(self.recorder.findings)


def settings_before(recorder: Recorder, folder: Path, **limits: object) -> Settings:
    """Settings of a proxy before ``recorder``, its state in ``folder``; nothing answers as provider."""
    return Settings.model_validate(
        {
            "listen": {"proxy": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "pleo": {
                "environment": "custom",
                "client_id": "id",
                "client_secret": "secret",
                "api_url": recorder.url,
                "authorize_url": "http://127.0.0.1:9/authorize",
                "token_url": "http://127.0.0.1:9/token",
            },
            "store": {"url": f"sqlite://{folder}/proxy.db", "state_dir": str(folder)},
            "admin": {"token": "admin"},
            "limits": {"drain_s": 1, **limits},
        }
    )


@asynccontextmanager
async def theatre(folder: Path, recorder: Recorder | None = None, **limits: object) -> AsyncIterator[Theatre]:
    """A proxy with the tenant acme, whose access token is ``at-1``; keywords are ``[limits]``."""
    crashes: list[Fact] = []
    finished: list[RequestFinished] = []

    def seen(fact: Fact) -> None:
        if isinstance(fact, RequestFinished):
            finished.append(fact)
        elif isinstance(fact, RequestCrashed | TaskCrashed):
            crashes.append(fact)

    async with AsyncExitStack() as stack:
        upstream = await (recorder or Recorder()).start()
        stack.push_async_callback(upstream.stop)
        settings = settings_before(upstream, folder, **limits)
        emit = fan_out(log_watch.sink(), seen)
        running = await app.start(
            config.configuration(settings, {}, "the test"), {}, emit=emit, metrics=Metrics(), stack=stack
        )
        await _connect(running)
        yield Theatre(running, upstream, crashes, finished)


async def _connect(running: app.App) -> None:
    await running.store.edit_tenants(lambda stored: {**stored, TENANT: Tenant(TENANT)})
    sealed = pairs.seal_pair(
        running.tokens.vault,
        TokenPair(Secret("at-1"), Secret("rt-1"), 86400.0),
        tenant=TENANT,
        generation=1,
        now=running._clock(),
        lifetimes=running.tokens.refresher.lifetimes,
    )
    grant = lifecycle.connected(sealed, tenant=TENANT, company="c", scopes=(), generation=1)
    await running.store.edit_grant(TENANT, lambda _: grant)
    await running.watch.take_up()


@dataclass
class Heard:
    """What a caller got on one connection."""

    answers: list[Message]
    """Whole answers, interim ones aside."""
    partial: Message | None
    """An answer whose head came and whose end did not."""
    raw: bytes
    ended: bool
    """The other side ended the connection."""
    was_reset: bool
    malformed: str = ""

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]


async def converse(
    address: tuple[str, int],
    pieces: Iterable[bytes],
    enough: Callable[[list[int]], bool],
    *,
    heads: Iterable[bool] = (),
    patience_s: float = PATIENCE_S,
) -> Heard:
    """Send pieces, and listen until there is enough, the connection has ended, or patience has.

    :param enough: asked with the statuses of the whole answers so far.
    :param heads: for each request whether it is a HEAD.
    """
    reader, writer = await asyncio.open_connection(*address)
    sending = asyncio.ensure_future(_send(writer, pieces))
    try:
        return await _listen(reader, enough, heads, patience_s)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


def until_end(_statuses: list[int]) -> bool:
    """For :func:`converse`: never enough before the other side ends the connection."""
    return False


def answers(count: int) -> Callable[[list[int]], bool]:
    """For :func:`converse`: so many answers are enough."""
    return lambda statuses: len(statuses) >= count


async def _send(writer: asyncio.StreamWriter, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)  # so that the other side, on this loop, can read what there is


async def _listen(
    reader: asyncio.StreamReader,
    enough: Callable[[list[int]], bool],
    heads: Iterable[bool],
    patience_s: float,
) -> Heard:
    parser = Reader("answer")
    parser.bodiless = list(heads)
    heard = Heard([], None, b"", ended=False, was_reset=False)
    pieces = []
    try:
        async with asyncio.timeout(patience_s):
            while not enough([one.status for one in parser.done if one.status >= 200]):
                data = await reader.read(262144)
                pieces.append(data)
                if not data:
                    heard.ended = True
                    parser.end()
                    break
                parser.feed(data)
    except TimeoutError:
        pass
    except ConnectionError:
        heard.ended = heard.was_reset = True
    except Malformed as error:
        heard.malformed = str(error)
    heard.answers = [one for one in parser.done if one.status >= 200]
    heard.partial = parser.begun
    heard.raw = b"".join(pieces)
    return heard
