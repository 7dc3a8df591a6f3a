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
from dataclasses import dataclass, field
from time import perf_counter

from proxy import forwarded, guard, headers, problems, target, trace_context
from proxy.admission import Admission, Admitted
from proxy.arrival import Arrival
from proxy.errors import InternalError, Refusal, TargetRefused, TenantAmbiguous
from proxy.facts import Emit, RequestAmbiguous, RequestCrashed, RequestFinished
from proxy.headers import Fields
from proxy.held import AccessToken
from proxy.intake import CallerBody, CallerRequest
from proxy.model import Origin
from proxy.places import innermost_place
from proxy.replay import HeldBody, Kept, ReplayBody
from proxy.response import CallerResponse
from proxy.tenants import Directory, Resolved
from proxy.tokens import Tokens
from proxy.trace_context import Tracer
from proxy.upstream import Answer, BrokenOff, Upstream

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=~@-]{1,128}")
RUN = secrets.token_hex(10)
"""Begins the id of each request that has none of its caller's."""
_numbers = itertools.count()
_CLAIMS_MOST = 8
"""In a log line: a caller may send as many keys as a head holds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may be, in bytes (the ``[limits]`` settings)."""

    target_bytes: int
    replay_memory: int
    replay_disk: int


class _Record:
    """What is known of one request so far: the fact that is reported at its end, and what that ends."""

    __slots__ = ("admitted", "body", "fact", "intake", "not_repeated", "response", "started", "trace")

    def __init__(self, request: CallerRequest, tracer: Tracer | None) -> None:
        self.started = perf_counter()
        fields = request.head.fields
        self.fact = RequestFinished(
            _request_id(fields), method=request.head.method, caller=request.line.arrival.caller
        )
        # Looked at only where there is one: nearly no caller traces.
        parent = trace_context.parent_of(fields) if fields.values(trace_context.PARENT) else None
        if parent is not None:
            self.fact.trace_id = parent.trace_id
        self.trace = None if tracer is None else tracer.begin(parent, request.line.arrival.scheme)
        if self.trace is not None:
            self.fact.trace_id = self.trace.trace_id
        self.intake = request.body
        self.admitted: Admitted | None = None
        self.body: HeldBody | ReplayBody | None = None
        self.response: CallerResponse | None = None
        self.not_repeated = ""

    @property
    def body_is_held_back(self) -> bool:
        """The caller has its body still, and waits to hear whether to send it."""
        return self.intake is not None and self.intake.is_held_back

    @property
    def cannot_be_sent_again(self) -> str:
        """Why not, where it cannot."""
        return self.body.lost_because if self.body is not None else ""


@dataclass(slots=True)
class Exchange:
    """Answers callers' requests."""

    tokens: Tokens
    upstream: Upstream
    origin: Origin
    limits: Limits
    """In force; swapped whole, and read once by each request."""
    public_url: str
    emit: Emit
    is_configured_host: Callable[[str], bool]
    admission: Admission
    directory: Directory
    """Tenants in force; swapped whole when they change."""
    draining: bool = False
    """The proxy is about to stop: each answer is the last of its connection."""
    under_way: int = 0
    not_repeated: int = 0
    """401s, since the start, that were passed on because the body could not be sent again."""
    kept: Kept = field(default_factory=Kept)
    tracer: Tracer | None = None
    """Begins a part of a trace for each request, where traces are made."""
    _host: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._host = self.origin.authority.encode()

    async def __call__(self, request: CallerRequest) -> bool:
        """Answer one request, whatever happens, and report it once.

        :returns: whether another request may come on the connection.
        """
        record = _Record(request, self.tracer)
        self.under_way += 1
        try:
            await self._answer(request, record)
        except Refusal as refusal:
            self._refuse(request, refusal, record)
        except ConnectionError:
            self._break_off(record, "caller_left")
        except asyncio.CancelledError:
            record.fact.outcome = "cut_by_stop" if self.draining else "caller_left"
            raise
        except BrokenOff:
            self._break_off(record, "upstream_broke_off")
        except Exception as error:  # noqa: BLE001 - a defect must cost one request, not the connection's task
            self.emit(RequestCrashed(record.fact.request_id, type(error).__name__, innermost_place(error)))
            self._refuse(request, InternalError(), record)
        finally:
            self.under_way -= 1
            self._finish(record)
        return record.response is not None and record.response.persists

    async def _answer(self, request: CallerRequest, record: _Record) -> None:
        # Accept: what is asked for, and does it mean one thing only?
        method, raw_target, http_1_1, fields = request.head
        limits = self.limits  # once: they may be changed while this waits
        wanted = target.parse(raw_target, limits.target_bytes)
        record.fact.path = wanted.shown
        arrival = request.line.arrival
        if arrival.trusted is not None or request.line.unwelcome is not None:
            arrival = self._told_by_proxy(request, wanted.authority, record)

        # Guard: is it for us, and not from a web page or from ourselves?
        authority, host = guard.admit(fields, arrival.authority or wanted.authority, http_1_1)
        guard.check_host(host, self.is_configured_host)
        if method == "OPTIONS":
            fields = guard.one_hop_less(fields)

        # Resolve the tenant, then ask its policy.
        resolved = self.directory.resolve(wanted, fields, host, arrival)
        tenant = resolved.tenant
        record.fact.tenant = tenant.name
        admitted = record.admitted = self._admit(request, resolved, record.fact)

        # Obtain the token before the body is asked for: a tenant without one costs no upload.
        token = await self.tokens.current(tenant.name)
        if request.body is not None:
            record.body = self._body(request.body, fields, admitted, limits)

        # Forward what is clean; after a 401 replace the token and send the same request once more.
        trace = record.trace
        cleaned = headers.upstream_lines(
            fields if trace is None else trace.without_theirs(fields),
            self._host,
            b"1.1" if http_1_1 else b"1.0",
            record.body_is_held_back,
        )
        answer = await self._send(method, resolved.target, cleaned, token, record)
        try:
            if answer.status == 401:
                newer = await self.tokens.replace(tenant.name, token)
                if newer is not None and not (lost := record.cannot_be_sent_again):
                    answer.abort()
                    record.fact.retried = True
                    answer = await self._send(method, resolved.target, cleaned, newer, record)
                elif newer is not None:
                    record.not_repeated = lost

            if admitted.revokes and 200 <= answer.status < 300:
                await self.tokens.note_revoked(tenant.name, token.generation)

            # Respond: in one write what is here already, then the rest as it comes.
            base_url = f"{arrival.scheme}://{authority or request.line.own_address()}{resolved.prefix}"
            response = self._response(answer, base_url, record)
            response.begin(request)
            if not response.is_whole:
                async for piece in answer.chunks():
                    await response.write(piece)
                response.end(headers.trailers_that_pass(answer.trailers, answer.headers))
        finally:
            answer.abort()  # does nothing to an answer that was read to its end

    def _told_by_proxy(self, request: CallerRequest, absolute: str | None, record: _Record) -> Arrival:
        """What a trusted proxy in front says of a request, if those of the connection are served at all.

        The host that it tells stands for ``Host``, which must be one of ours all the same: the proxy may pass
        on what it says as a page of a rebound name has made it up.
        """
        head = request.head
        arrival = forwarded.behind(request.line.arrival, head.fields)
        record.fact.caller = arrival.caller
        if request.line.unwelcome is not None:
            raise request.line.unwelcome.with_traceback(None)
        if arrival.authority is not None:
            guard.check_host(guard.admit(head.fields, absolute, head.http_1_1).host, self.is_configured_host)
        return arrival

    def _admit(self, request: CallerRequest, resolved: Resolved, fact: RequestFinished) -> Admitted:
        admitted = self.admission.admit(
            resolved.tenant, fact.request_id, fact.method, resolved.target, fact.caller
        )
        if request.body is not None:
            try:
                admitted.check_announced(request.head.fields, request.body.length)
            except Refusal:
                admitted.leave()
                raise
        return admitted

    async def _send(
        self, method: str, asked: target.Target, cleaned: bytes, token: AccessToken, record: _Record
    ) -> Answer:
        started, trace = perf_counter(), record.trace
        if trace is not None:
            cleaned += trace.send(asked.shown, _ms_since(record.started))
        # Invariant 1: the engine has one origin and follows no redirect, so the token goes nowhere else.
        answer = await self.upstream.send(
            method.encode(),
            asked.raw,
            headers.inject(cleaned, token.value),
            record.body,
            record.body_is_held_back,
        )
        if trace is not None:
            trace.answered(_ms_since(record.started), answer.status)
        fact = record.fact
        fact.upstream_ms = _ms_since(started)
        fact.upstream_status = answer.status
        fact.generation = token.generation
        return answer

    def _response(self, answer: Answer, base_url: str, record: _Record) -> CallerResponse:
        fields = headers.for_caller(
            answer.headers, upstream=self.origin, base_url=base_url, request_id=record.fact.request_id
        )
        if record.not_repeated:
            self.not_repeated += 1
            fields.append(problems.not_repeated(record.not_repeated))
        # Trailers (RFC 9110 section 6.5) need chunks, which an answer with a length has not.
        whole = answer.take_all() if answer.body_complete and not answer.trailers else None
        # A caller that was never told to go on may send its body or not, so nothing can come after it.
        close = self.draining or record.body_is_held_back
        record.fact.status, record.fact.outcome = answer.status, "answered"
        record.response = CallerResponse(answer.status, answer.reason, fields, body=whole, close=close)
        return record.response

    def _body(
        self, body: CallerBody, fields: Fields, admitted: Admitted, limits: Limits
    ) -> HeldBody | ReplayBody:
        def trailers() -> bytes:
            return headers.lines(headers.trailers_that_pass(body.trailers, fields))

        if body.has_arrived and body.unread <= min(limits.replay_memory, admitted.body_bytes):
            content = body.take()
            admitted.check_whole(content)
            return HeldBody(content, length=body.length, trailers=trailers())
        return ReplayBody(
            body,
            length=body.length,
            memory_bytes=limits.replay_memory,
            disk_bytes=limits.replay_disk,
            body_bytes=admitted.body_bytes,
            trailers=trailers,
            inspection=admitted.inspection(),
            kept=self.kept,
        )

    def refuse_unreadable(self, request: CallerRequest, refusal: Refusal) -> None:
        """Answer what is no request: nothing of it can be relied on, so the connection ends."""
        record = _Record(request, self.tracer)
        self._refuse(request, refusal, record)
        self._finish(record)

    def _refuse(self, request: CallerRequest, refusal: Refusal, record: _Record) -> None:
        """The proxy's own answer, or a visibly broken connection where an answer had begun."""
        if record.response is not None and record.response.begun:
            self._break_off(record, refusal.name)
            return
        fact = record.fact
        fact.tenant = refusal.tenant = refusal.tenant or fact.tenant
        fact.path = fact.path or target.loggable_path(request.head.target)
        if isinstance(refusal, TenantAmbiguous):
            self.emit(RequestAmbiguous(fact.request_id, refusal.claims[:_CLAIMS_MOST], fact.caller))
        body = problems.document(refusal, public_url=self.public_url, request_id=fact.request_id)
        fields = problems.fields(refusal, body, request_id=fact.request_id)
        # What is malformed could be taken for another request than it was meant to be.
        close = self.draining or isinstance(refusal, TargetRefused)
        response = CallerResponse(refusal.status, b"", fields, body=body, close=close)
        record.response, fact.status, fact.outcome = response, refusal.status, refusal.name
        try:
            response.begin(request)
        except ConnectionError:
            fact.outcome = "caller_left"

    def _break_off(self, record: _Record, outcome: str) -> None:
        record.fact.outcome = outcome
        if record.response is not None:
            record.response.break_off()

    def _finish(self, record: _Record) -> None:
        fact = record.fact
        fact.duration_ms = _ms_since(record.started)
        if record.response is not None:
            fact.bytes_out = record.response.body_bytes
        if record.body is not None:
            fact.bytes_in = record.body.received
            record.body.close()
        if record.intake is not None:
            record.intake.close()
        if record.admitted is not None:
            record.admitted.leave()
        self.emit(fact)
        if record.trace is not None and record.trace.sampled:
            self.emit(record.trace.told(fact))


def _request_id(fields: Fields) -> str:
    """The caller's ``X-Request-Id`` if it is harmless in a log and a header, else a new one.

    A new one is unique among all processes and runs; it is no secret, so a number counts up in it.
    """
    given = fields.values(headers.REQUEST_ID)
    if given and len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0].decode("ascii")
    return f"{RUN}{next(_numbers):012x}"


def _ms_since(started: float) -> float:
    return int((perf_counter() - started) * 1_000_000) / 1000
