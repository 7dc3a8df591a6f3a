"""One connection to the upstream: an ``asyncio.Protocol`` around httptools' response parser.

It carries one exchange at a time. It never decides whether a request is sent again and never opens
anything: that is :mod:`proxy.upstream.pool`. Whatever leaves doubt about where the next answer would begin
ends the connection, for an answer given to the wrong caller is the worst that can happen here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from proxy.errors import UpstreamTimeout, UpstreamUnreachable
from proxy.upstream.answer import Answer, BrokenOff, Headers
from proxy.upstream.upload import Body, Upload

HIGH_WATER = 256 * 1024
"""Unread body bytes above which reading from the upstream pauses; it resumes when the reader took them."""


class ClosedEarly(Exception):  # noqa: N818 - never leaves the package; the pool turns it into its decision
    """The connection ended before a byte of the answer; ``written`` if any of the request was."""

    def __init__(self, *, written: bool) -> None:
        super().__init__()
        self.written = written


class Silent(UpstreamTimeout):
    """The time ran out while the upstream had to answer, and not while a caller's body was awaited."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one exchange may take: silence and whole duration in seconds, head (or trailers) in bytes."""

    idle_s: float
    total_s: float
    head_bytes: int


class Connection(asyncio.Protocol):
    """The state machine of one connection: idle, or under way with one request and its answer."""

    def __init__(
        self,
        origin: str,
        limits: Limits,
        *,
        on_idle: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self._origin = origin
        self.limits = limits
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpResponseParser | None = None
        self._version = b""
        self.is_lost = False
        self.idle_until = 0.0
        """Event loop time after which the pool no longer uses the connection."""
        self.ends_at = math.inf
        """The same, however busy it is."""
        self.keep_alive_hint_s: float | None = None
        """``timeout`` of the upstream's ``Keep-Alive`` field, from its first answer."""

        # The exchange under way. `_head` says that there is one, and which: a caller that was cancelled late
        # compares it, lest it end the exchange of the next one.
        self._head: asyncio.Future[Answer] | None = None
        self._answer: Answer | None = None
        self._is_head_request = False
        self._began_at = 0.0
        self._active_at = 0.0
        # The answer as it is parsed.
        self._heard = False  # any byte of it: from here on nothing is ever sent again
        self._bare = 0  # bytes parsed since the last piece of head or body came out of them
        self._reason = b""
        self._fields: Headers = []
        self._done = False
        self._keep_alive = False
        self._extra = False  # more came than one answer
        self._left = 0  # bytes of a counted body that go past the parser
        self._may_persist = False
        self._reading_paused = False
        # The request as it is sent, if it has a body that was not at hand.
        self._upload: Upload | None = None
        self._writing_paused = False

    # --- what the pool and the answer ask for

    def begin(
        self, method: bytes, head: bytes, body: Body | None, *, wait_for_continue: bool = False
    ) -> asyncio.Future[Answer]:
        """Start an exchange; the future is done as soon as the head of the final answer is complete.

        With ``wait_for_continue`` the body is held back (RFC 9110 section 10.1.1). The future fails with
        :exc:`ClosedEarly`, with a refusal, or with whatever the body's iterator raised.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self._transport.is_closing():
            future.set_exception(ClosedEarly(written=False))
            return future
        self._head = future
        self._answer = self._upload = None
        self._is_head_request = method == b"HEAD"
        self._began_at = self._active_at = self._loop.time()
        self._heard = self._done = self._keep_alive = self._extra = False
        self._bare = self._left = 0
        if body is None:
            self._transport.write(head)
            return future
        self._upload = upload = Upload(head, body, self._transport, self._end)
        if self._writing_paused:
            upload.pause()
        if wait_for_continue:
            upload.hold()
        else:
            upload.start()
        return future

    def give_up(self, head: asyncio.Future[Answer]) -> None:
        """End the exchange that ``head`` belongs to, if it is still the one under way."""
        if self._head is head:
            self.abort()

    def abort(self) -> None:
        """End the exchange, and the connection with it, visibly incomplete for the upstream."""
        self._end(None)

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._active_at = self._loop.time()
            self._transport.resume_reading()

    def close(self) -> None:
        """Close in good order; for idle connections."""
        self._transport.close()

    @property
    def is_closing(self) -> bool:
        """Nothing more can be sent."""
        return self._transport.is_closing()

    def expire(self, now: float) -> None:
        """End the exchange if it exceeds its limits; called about once a second.

        Silence counts only while it is the upstream's: not while its answer waits for a slow reader, nor
        while the upload waits for the caller.
        """
        if self._head is None:
            if self._transport.is_closing():
                self._transport.abort()  # a peer that does not finish the closing handshake
        elif now - self._began_at > self.limits.total_s:
            kind = UpstreamTimeout if self._waits_for_caller else Silent
            self._end(kind(f"{self._origin} took longer than {self.limits.total_s:g} s"))
        elif not self._reading_paused and self._silence(now) > self.limits.idle_s:
            self._end(Silent(f"{self._origin} was silent for {self.limits.idle_s:g} s"))

    def _silence(self, now: float) -> float:
        """Seconds without progress that are the upstream's."""
        if self._upload is None:
            return now - self._active_at
        return 0.0 if self._waits_for_caller else now - max(self._active_at, self._upload.active_at)

    @property
    def _waits_for_caller(self) -> bool:
        return self._upload is not None and self._upload.waits_for_caller

    async def upload_ended(self) -> None:
        """Wait until no task of this connection reads from a request body any more."""
        if self._upload is not None:
            await self._upload.ended()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if self._head is None or parser is None:
            # Nobody asked. Often a 408 of a server that closes; never taken for the next answer.
            self._transport.abort()
            return
        self._active_at = self._loop.time()
        self._heard = True
        if self._left:
            self._take_counted(data)
            return
        self._bare += len(data)
        in_head = self._answer is None
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a defect of this module
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._done:
                self._end(UpstreamUnreachable(f"{self._origin} sent an answer that is not valid HTTP/1.1"))
                return
            self._extra = True
        if self._done:
            self._finish()
        elif in_head and self._answer is not None:
            self._left = _counted(self._answer.headers, self._answer.buffered)
        elif self._bare > self.limits.head_bytes:
            limit = self.limits.head_bytes
            self._end(UpstreamUnreachable(f"{self._origin} sent a head of more than {limit} bytes"))

    def _take_counted(self, data: bytes) -> None:
        """A piece of a body whose length is known: it needs no parser, which would copy it."""
        body = data if len(data) <= self._left else data[: self._left]
        self._left -= len(body)
        self._extra = len(body) < len(data)
        self.on_body(body)
        if not self._left:
            self._parser = httptools.HttpResponseParser(self)  # the other one waits for what it was not given
            self._keep_alive = self._may_persist
            self._done = True
            self._finish()

    def eof_received(self) -> None:
        # RFC 9112 section 6.3 rule 8: without another framing the body ends with the connection. A cut
        # connection cannot be told from a finished one here (section 9.8); that is the upstream's choice.
        if self._answer is not None and not _is_framed(self._answer.headers):
            self._done = True
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its text is shown to nobody
        self.is_lost = True
        if self._heard:
            self._end(UpstreamUnreachable(f"{self._origin} broke off in the head of its answer"))
        else:
            self._end(ClosedEarly(written=self._upload is None or self._upload.written))
        self._parser = None  # parser and protocol refer to each other
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._writing_paused = True
        if self._upload is not None:
            self._upload.pause()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._active_at = self._loop.time()
        if self._upload is not None:
            self._upload.resume()

    # --- callbacks of the parser

    def on_message_begin(self) -> None:
        self._extra = self._done
        self._reason = b""
        self._fields = []

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser = cast("httptools.HttpResponseParser", self._parser)
        status = parser.get_status_code()
        if self._upload is not None:
            if status == 100:
                self._upload.go_on()
            elif status >= 200:
                self._upload.drop()
        # RFC 9110 section 15.2: interim answers are ours to consume. After 101 the parser stops by itself.
        if status < 200 or self._done:
            return
        limit = self.limits.head_bytes
        if self._bare > limit and sum(len(name) + len(value) + 4 for name, value in self._fields) > limit:
            return  # data_received refuses it, as `_bare` stays where it is
        self._bare = 0
        # Valid inside a callback only; asked later it says no.
        self._may_persist = parser.should_keep_alive()
        if not self._version:
            self._learn_server(parser)
        self._answer = answer = Answer(self, status, self._reason, self._version, self._fields)
        self._fields = answer.trailers
        if self._is_head_request:
            # The parser does not know of HEAD (RFC 9110 section 9.3.2) and would wait for the body that the
            # framing announces: only if it announces none, on_message_complete allows reuse.
            self._done = True
        if self._head is not None and not self._head.done():
            self._head.set_result(answer)

    def on_body(self, body: bytes) -> None:
        self._bare = 0
        if self._answer is None or self._done:
            return
        if self._answer.feed(body) > HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._extra:
            self._done = True
            self._keep_alive = cast("httptools.HttpResponseParser", self._parser).should_keep_alive()

    def _learn_server(self, parser: httptools.HttpResponseParser) -> None:
        """What a server does not change between the answers of a connection is looked at once."""
        self._version = parser.get_http_version().encode()
        for name, value in self._fields:
            if len(name) == 10 and name.lower() == b"keep-alive":
                for parameter in value.split(b","):
                    key, _, seconds = parameter.strip().partition(b"=")
                    if key.lower() == b"timeout" and seconds.isdigit():
                        self.keep_alive_hint_s = float(seconds)

    # --- the end of an exchange

    def _finish(self) -> None:
        """The answer is whole: hand it over, and the connection back if nothing speaks against it."""
        answer = self._answer
        uploading = self._upload is not None and not self._upload.complete
        reusable = self._keep_alive and not self._extra and not uploading
        self._detach()
        self.resume_reading()
        if answer is not None:
            answer.end()
        if reusable:
            self._on_idle(self)
        elif uploading:
            # The request will never be complete, and must not look as if it were (RFC 9112 section 9.3).
            self._transport.abort()
        else:
            self._transport.close()

    def _end(self, error: BaseException | None) -> None:
        """The answer will not be whole: tell whoever waits for it, and close. Without an error: cancelled."""
        head, answer = self._head, self._answer
        self._detach()
        self._transport.abort()
        if answer is not None:
            answer.break_off(BrokenOff(f"the answer of {self._origin} broke off"))
        elif head is not None and not head.done():
            if error is None:
                head.cancel()
            else:
                head.set_exception(error)

    def _detach(self) -> None:
        self._head = self._answer = None
        if self._upload is not None and not self._upload.complete:
            self._upload.give_up()


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


def _is_framed(headers: Headers) -> bool:
    return any(name.lower() in _FRAMING for name, _ in headers)


def _counted(headers: Headers, arrived: int) -> int:
    """Bytes still to come of a body with a length (RFC 9112 section 6.2); 0 where it is framed otherwise."""
    framing = [(name.lower(), value) for name, value in headers if name.lower() in _FRAMING]
    if len(framing) != 1 or framing[0][0] != b"content-length" or not framing[0][1].isdigit():
        return 0
    return int(framing[0][1]) - arrived
