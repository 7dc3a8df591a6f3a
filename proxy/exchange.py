"""The main path: one request in, one authorised request out, one answer back. Start reading here.

``accept → guard → resolve tenant → check policy → obtain token → forward → (401: replace token, send once
more) → respond``, top to bottom in :meth:`Exchange._answer`. The order is the security argument: recognise,
authorise, check the destination, clean the headers, then inject. That a request is sent twice at most shows
in the absence of a loop.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import NamedTuple

from aiohttp import web

from proxy import guard, headers, policy, problems, target
from proxy.errors import (
    BodyTooLarge,
    HeadTooLarge,
    InternalError,
    LoopDetected,
    Overloaded,
    Refusal,
    TargetRefused,
)
from proxy.facts import Emit, RequestCrashed, RequestFinished, innermost_place
from proxy.headers import Fields, Headers
from proxy.intake import CallerBody
from proxy.model import Origin
from proxy.replay import ReplayBody
from proxy.response import CallerResponse
from proxy.tenants import Directory, Resolved
from proxy.tokens import AccessToken, Tokens
from proxy.upstream import Answer, BrokenOff, Upstream

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=~@-]{1,128}")
_RUN = secrets.token_hex(10)
_numbers = itertools.count()
CALLER_LEFT = 499
"""Status in the log for a caller that left before an answer began (nginx's convention)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may be, in bytes and seconds (the ``[limits]`` settings)."""

    target_bytes: int
    head_bytes: int
    body_bytes: int
    replay_memory: int
    replay_disk: int
    idle_s: float


class _Outgoing(NamedTuple):
    """The request as Pleo gets it, less the credential."""

    method: bytes
    target: bytes
    fields: Headers
    body: ReplayBody | None

    @property
    def cannot_be_sent_again(self) -> str:
        """Why not, where it cannot."""
        return self.body.lost_because if self.body is not None else ""


@dataclass(slots=True)
class _Record:
    """What is known of one request so far, for the log line at its end."""

    request_id: str
    started: float
    path: str = ""
    tenant: str | None = None
    status: int = CALLER_LEFT
    outcome: str = "caller_left"
    upstream_status: int | None = None
    upstream_s: float | None = None
    retried: bool = False
    not_repeated: str = ""
    generation: int | None = None
    intake: CallerBody | None = None
    body: ReplayBody | None = None
    response: CallerResponse | None = None

    @property
    def body_is_held_back(self) -> bool:
        """The caller has its body still, and waits to hear whether to send it."""
        return self.intake is not None and self.intake.is_held_back


@dataclass(slots=True)
class Exchange:
    """Answers callers' requests; a handler for ``aiohttp.web.Server``."""

    tokens: Tokens
    upstream: Upstream
    origin: Origin
    limits: Limits
    public_url: str
    emit: Emit
    is_configured_host: Callable[[str], bool]
    directory: Directory
    """Tenants in force; swapped whole when they change."""
    draining: bool = False
    """The proxy is about to stop: each answer is the last of its connection."""
    under_way: int = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens, and report it once."""
        record = _Record(_request_id(request), perf_counter())
        self.under_way += 1
        try:
            return await self._answer(request, record)
        except Refusal as refusal:
            return await self._refuse(request, refusal, record)
        except web.RequestPayloadError:
            return await self._refuse(request, TargetRefused("the body's framing is malformed"), record)
        except ConnectionError:
            return self._break_off(record, "caller_left")
        except asyncio.CancelledError:
            record.outcome = "cut_by_stop" if self.draining else "caller_left"
            raise
        except BrokenOff:
            return self._break_off(record, "upstream_broke_off")
        except Exception as error:  # noqa: BLE001 - a defect must cost one request, not the connection's task
            self.emit(RequestCrashed(record.request_id, type(error).__name__, innermost_place(error)))
            return await self._refuse(request, InternalError(), record)
        finally:
            self.under_way -= 1
            if record.intake is not None:
                record.intake.close()
            if record.body is not None:
                record.body.close()
            self.emit(self._finished(request, record))

    async def _answer(self, request: web.BaseRequest, record: _Record) -> CallerResponse:
        # Accept: what is asked for, and does it mean one thing only?
        fields = Fields(request.raw_headers)
        guard.check_framing(
            request.version,
            transfer_encoding=request.headers.get("Transfer-Encoding"),
            content_length=request.headers.get("Content-Length"),
            has_body=request.body_exists,
        )
        asked = target.parse(
            request.raw_path.encode("utf-8", "surrogateescape"), max_bytes=self.limits.target_bytes
        )
        record.path = asked.path.decode("ascii")
        if getattr(request.protocol, "over_limit", False):
            raise Overloaded("limits.connections is reached", retry_after_s=5)
        if sum(len(name) + len(value) for name, value in fields) > self.limits.head_bytes:
            raise HeadTooLarge(
                f"the header section is larger than limits.head_bytes ({self.limits.head_bytes})"
            )

        # Guard: is it for us, and not from a web page or from ourselves?
        authority = guard.authority_of(fields, asked, http_1_1=request.version >= (1, 1))
        host = guard.host_name(authority) if authority is not None else ""
        if authority is not None:
            guard.check_host(host, self.is_configured_host)
        guard.check_browser(fields, authority)
        if headers.passed_here_before(fields):
            raise LoopDetected("Via already names this proxy")

        # Resolve the tenant, then ask its policy.
        resolved = self.directory.resolve(asked, fields, host=host, caller=request.remote or "")
        tenant = resolved.tenant
        record.tenant = tenant.name
        policy.check(tenant, request.method, resolved.target.decoded)

        # Obtain the token before the body is asked for: a tenant without one costs no upload.
        token = await self.tokens.current(tenant.name)
        record.body = self._body(request, record)
        cleaned = headers.for_upstream(
            fields,
            host=self.origin.authority.encode(),
            version=b"%d.%d" % request.version,
            keep_expect=record.body_is_held_back,
        )
        outgoing = _Outgoing(request.method.encode(), resolved.target.raw, cleaned, record.body)

        # Forward; after a 401 replace the token and send the same request once more.
        answer = await self._send(outgoing, token, record)
        try:
            if answer.status == 401:
                newer = await self.tokens.replace(tenant.name, token)
                if newer is not None and not (lost := outgoing.cannot_be_sent_again):
                    answer.abort()
                    record.retried = True
                    answer = await self._send(outgoing, newer, record)
                elif newer is not None:
                    record.not_repeated = lost
            return await self._respond(request, resolved, authority, answer, record)
        finally:
            answer.abort()  # does nothing to an answer that was read to its end

    async def _send(self, outgoing: _Outgoing, token: AccessToken, record: _Record) -> Answer:
        started = perf_counter()
        # Invariant 1: the engine has one origin and follows no redirect, so the token goes nowhere else.
        answer = await self.upstream.send(
            outgoing.method,
            outgoing.target,
            headers.inject(outgoing.fields, token.value),
            outgoing.body,
            wait_for_continue=record.body_is_held_back,
        )
        record.upstream_s = perf_counter() - started
        record.upstream_status = answer.status
        record.generation = token.generation
        return answer

    async def _respond(
        self,
        request: web.BaseRequest,
        resolved: Resolved,
        authority: str | None,
        answer: Answer,
        record: _Record,
    ) -> CallerResponse:
        base_url = f"{request.scheme}://{authority or _own_address(request)}{resolved.prefix}"
        fields = headers.for_caller(
            answer.headers, upstream=self.origin, base_url=base_url, request_id=record.request_id
        )
        if record.not_repeated:
            fields.append(problems.not_repeated(record.not_repeated))
        # Trailers (RFC 9110 section 6.5) need chunks, which an answer with a length has not.
        whole = answer.take_all() if answer.body_complete and not answer.trailers else None
        # A caller that was never told to go on may send its body or not, so nothing can come after it.
        close = self.draining or record.body_is_held_back
        response = CallerResponse(answer.status, answer.reason, fields, body=whole, close=close)
        record.response, record.status, record.outcome = response, answer.status, "answered"
        await response.prepare(request)
        if whole is None:
            async for chunk in answer.chunks():
                await response.write(chunk)
            await response.write_eof(
                trailers=headers.trailers_for_caller(answer.trailers, answer.headers)
                if answer.trailers
                else ()
            )
        return response

    def _body(self, request: web.BaseRequest, record: _Record) -> ReplayBody | None:
        if not request.body_exists:
            return None
        length = request.content_length
        if length is not None and length > self.limits.body_bytes:
            raise BodyTooLarge(f"the body has {length} bytes; limits.body_bytes is {self.limits.body_bytes}")
        expects = request.version >= (1, 1) and headers.expects_continue(request.raw_headers)
        record.intake = CallerBody(
            request.content,
            idle_s=self.limits.idle_s,
            ask=partial(_say_continue, request) if expects else None,
        )
        return ReplayBody(
            record.intake,
            length=length,
            memory_bytes=self.limits.replay_memory,
            disk_bytes=self.limits.replay_disk,
            body_bytes=self.limits.body_bytes,
        )

    def refuse_malformed(self, request: web.BaseRequest, refusal: Refusal) -> CallerResponse:
        """The answer to what is no request: nothing of it can be relied on, so the connection ends."""
        record = _Record(_new_request_id(), perf_counter())
        response = self._refusal(refusal, record, close=True)
        self.emit(self._finished(request, record))
        return response

    async def _refuse(self, request: web.BaseRequest, refusal: Refusal, record: _Record) -> CallerResponse:
        """The proxy's own answer, or a visibly broken connection where an answer had begun."""
        if record.response is not None and record.response.prepared:
            return self._break_off(record, refusal.name)
        record.tenant = refusal.tenant = refusal.tenant or record.tenant
        record.path = record.path or _loggable_path(request)
        # What is malformed, or left unread, could be taken for another request than it was meant to be.
        close = self.draining or isinstance(refusal, TargetRefused) or not request.content.is_eof()
        response = self._refusal(refusal, record, close=close)
        try:
            await response.prepare(request)
        except ConnectionError:
            record.outcome = "caller_left"
        return response

    def _refusal(self, refusal: Refusal, record: _Record, *, close: bool) -> CallerResponse:
        body = problems.document(refusal, public_url=self.public_url, request_id=record.request_id)
        fields = problems.fields(refusal, body, request_id=record.request_id)
        response = CallerResponse(refusal.status, b"", fields, body=body, close=close)
        record.response, record.status, record.outcome = response, refusal.status, refusal.name
        return response

    def _break_off(self, record: _Record, outcome: str) -> CallerResponse:
        record.outcome = outcome
        response = record.response or CallerResponse(CALLER_LEFT, b"", [], close=True)
        response.break_off()
        return response

    def _finished(self, request: web.BaseRequest, record: _Record) -> RequestFinished:
        return RequestFinished(
            request_id=record.request_id,
            tenant=record.tenant,
            method=request.method,
            path=record.path,
            status=record.status,
            outcome=record.outcome,
            upstream_status=record.upstream_status,
            duration_ms=round((perf_counter() - record.started) * 1000, 3),
            upstream_ms=None if record.upstream_s is None else round(record.upstream_s * 1000, 3),
            retried=record.retried,
            generation=record.generation,
            bytes_in=record.body.received if record.body is not None else 0,
            bytes_out=record.response.body_bytes if record.response is not None else 0,
            caller=request.remote or "unix",
        )


def _request_id(request: web.BaseRequest) -> str:
    """The caller's ``X-Request-Id`` if it is harmless in a log and a header, else a new one."""
    given = [value for name, value in request.raw_headers if name.lower() == headers.REQUEST_ID]
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0].decode("ascii")
    return _new_request_id()


def _new_request_id() -> str:
    """Unique among all processes and runs; not a secret, so a number counts up in it."""
    return f"{_RUN}{next(_numbers):012x}"


def _say_continue(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _own_address(request: web.BaseRequest) -> str:
    """Where the caller connected to, for references in the answer to a request without ``Host``."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return Origin("http", name[0], name[1]).authority if name else ""


def _loggable_path(request: web.BaseRequest) -> str:
    """The path of a target that was refused, in printable ASCII and bounded, without its query."""
    return request.raw_path.partition("?")[0][:512].encode("ascii", "backslashreplace").decode("ascii")
