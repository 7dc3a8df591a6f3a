"""Plays of the main path: each test is one exchange, byte for byte, from all sides."""

from __future__ import annotations

import errno
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.facts import RequestFinished, RequestTraced
from tests.playbook import (
    Stage,
    caller,
    http,
    provider,
    refresh_request,
    second_caller,
    stage,
    token_answer,
    upstream,
)


@pytest.fixture
async def theatre(tmp_path: Path) -> AsyncIterator[Stage]:
    """A proxy between scripted peers."""
    async with stage(tmp_path) as built:
        yield built


def asked(target: bytes = b"/acme/v2/employees", method: bytes = b"GET", fields: bytes = b"") -> bytes:
    """A caller's request with the request id r-1."""
    return b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: r-1\r\n%b\r\n" % (method, target, fields)


def sent(
    theatre: Stage,
    token: bytes,
    target: bytes = b"/v2/employees",
    method: bytes = b"GET",
    fields: bytes = b"",
) -> bytes:
    """The same request as the upstream gets it."""
    return (
        b"%b %b HTTP/1.1\r\nHost: %b\r\nX-Request-Id: r-1\r\n%bVia: 1.1 pleo-proxy\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % (method, target, theatre.upstream_host, fields, token)
    )


def answered(status: bytes, body: bytes = b"", fields: bytes = b"") -> bytes:
    """An answer as the caller gets it."""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\nX-Request-Id: r-1\r\n\r\n%b" % (
        status,
        fields,
        len(body),
        body,
    )


def finished(theatre: Stage) -> RequestFinished:
    """The last finished request."""
    return [fact for fact in theatre.facts if isinstance(fact, RequestFinished)][-1]


async def test_a_fresh_token_is_injected_and_all_else_kept(theatre: Stage) -> None:
    """Order, spelling, duplicates and odd values of the caller's fields reach the upstream as they came."""
    fields = b"aCCept: */*\r\nX-Odd:  two  spaces \r\nX-Dup: 1\r\nx-dup: 2\r\nX-Bytes: caf\xc3\xa9\r\n"
    kept = b"aCCept: */*\r\nX-Odd: two  spaces\r\nX-Dup: 1\r\nx-dup: 2\r\nX-Bytes: caf\xc3\xa9\r\n"
    await theatre.play(
        caller >> asked(b"/acme/v1/things:search?b=2&a=1&a=%7E+x", fields=fields),
        upstream << sent(theatre, b"at-1", b"/v1/things:search?b=2&a=1&a=%7E+x", fields=kept),
        upstream >> http(b"200 Fine", b"[]", b"X-PLEO: a\r\nX-Dup: 1\r\nx-dup: 2\r\n"),
        caller << answered(b"200 Fine", b"[]", b"X-PLEO: a\r\nX-Dup: 1\r\nx-dup: 2\r\n"),
    )


async def test_what_an_answer_says_to_pages_and_their_cookies_stay_behind(theatre: Stage) -> None:
    """What would let pages read an answer of Pleo, or keep a session, does not reach the caller."""
    said = b"Access-Control-Allow-Origin: *\r\nSet-Cookie: s=1\r\nX-A: 1\r\nset-cookie: t=2\r\n"
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"200 OK", b"[]", said),
        caller << answered(b"200 OK", b"[]", b"X-A: 1\r\n"),
    )


async def test_credentials_and_hop_by_hop_fields_of_the_caller_stay_behind(theatre: Stage) -> None:
    """Nothing that a caller sends can accompany, replace or remove the injected credential."""
    fields = (
        b"Authorization: Basic cGxwX29sZDo=\r\nauthorization: Bearer mine\r\nCookie: a=b\r\n"
        b"X_Pleo_Tenant: globex\r\nConnection: keep-alive, X-Drop, Authorization, Host\r\nX-Drop: 1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\n"
        b"X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-HTTP-Method-Override: DELETE\r\n"
    )
    await theatre.play(
        caller >> asked(fields=fields),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


async def test_a_401_leads_to_one_refresh_and_the_same_request_once_more(theatre: Stage) -> None:
    """After a 401 the token is replaced and the request is sent again with the same body."""
    body = b'{"a":1}'
    head = b"Content-Type: application/json\r\nContent-Length: 7\r\n"
    await theatre.play(
        caller >> asked(method=b"POST", fields=head) + body,
        upstream << sent(theatre, b"at-1", method=b"POST", fields=head) + body,
        upstream >> http(b"401 Unauthorized", b"{}"),
        provider << refresh_request(theatre, "rt-1"),
        provider >> token_answer("at-2", "rt-2"),
        upstream << sent(theatre, b"at-2", method=b"POST", fields=head) + body,
        upstream >> http(b"201 Created", b"{}"),
        caller << answered(b"201 Created", b"{}"),
    )
    fact = finished(theatre)
    assert (fact.retried, fact.generation, fact.upstream_status, fact.bytes_in) == (True, 2, 201, 7)


TOLD = (
    b'Proxy-Status: pleo-proxy; details="%b, so the request was not sent again; '
    b'the token is renewed: send it again"\r\n'
)


@pytest.mark.parametrize("disk", ["too-small", "full"])
async def test_a_401_whose_body_is_lost_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    """Beyond the limits of replay a 401 is passed on with the reason; the next try has a new token."""
    if disk == "too-small":
        limits, why = (
            {"replay_memory": 2, "replay_disk": 4},
            b"the body is larger than limits.replay_disk (4 bytes)",
        )
    else:
        limits, why = {"replay_memory": 2}, b"the body could not be kept, since the proxy's disk failed"

        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("tempfile.TemporaryFile", fail)
    head = b"Content-Length: 5\r\n"
    async with stage(tmp_path, limits=limits) as theatre:
        await theatre.play(
            caller >> asked(method=b"POST", fields=head) + b"12345",
            upstream << sent(theatre, b"at-1", method=b"POST", fields=head) + b"12345",
            upstream >> http(b"401 Unauthorized", b"no", b"WWW-Authenticate: Bearer\r\n"),
            provider << refresh_request(theatre, "rt-1"),
            provider >> token_answer("at-2", "rt-2"),
            caller << b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 2\r\n"
            b"X-Request-Id: r-1\r\n" + TOLD % why + b"\r\nno",
        )
        assert finished(theatre).retried is False
        await theatre.play(
            caller >> asked(method=b"POST", fields=head) + b"12345",
            upstream << sent(theatre, b"at-2", method=b"POST", fields=head) + b"12345",
            upstream >> http(b"200 OK"),
            caller << answered(b"200 OK"),
        )


async def test_the_second_401_is_passed_through_and_so_is_the_next(theatre: Stage) -> None:
    """A 401 that a fresh token does not cure goes to the caller; for a minute nothing is refreshed."""
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"401 Unauthorized"),
        provider << refresh_request(theatre, "rt-1"),
        provider >> token_answer("at-2", "rt-2"),
        upstream << sent(theatre, b"at-2"),
        upstream >> http(b"401 Unauthorized", b"still"),
        caller << answered(b"401 Unauthorized", b"still"),
        caller >> asked(),
        upstream << sent(theatre, b"at-2"),
        upstream >> http(b"401 Unauthorized", b"again"),
        caller << answered(b"401 Unauthorized", b"again"),
    )
    theatre.clock.now += 61
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-2"),
        upstream >> http(b"401 Unauthorized"),
        provider << refresh_request(theatre, "rt-2"),
        provider >> token_answer("at-3", "rt-3"),
        upstream << sent(theatre, b"at-3"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


async def test_a_401_for_an_older_generation_refreshes_nothing(theatre: Stage) -> None:
    """Two requests in flight with one dead token cost one refresh: the later 401 finds a newer generation."""
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
    )
    first = theatre.upstream.pipe
    await theatre.play(
        second_caller >> asked(b"/acme/v1/companies"),
        upstream << sent(theatre, b"at-1", b"/v1/companies"),
        upstream >> http(b"401 Unauthorized"),
        provider << refresh_request(theatre, "rt-1"),
        provider >> token_answer("at-2", "rt-2"),
        upstream << sent(theatre, b"at-2", b"/v1/companies"),
        upstream >> http(b"200 OK"),
        second_caller << answered(b"200 OK"),
    )
    theatre.upstream.pipe = first
    await theatre.play(
        upstream >> http(b"401 Unauthorized"),
        upstream << sent(theatre, b"at-2"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_token", "invalid_refresh_token"])
async def test_a_terminal_refusal_is_answered_locally_from_then_on(theatre: Stage, error: str) -> None:
    """After Pleo refused the refresh token, calls get 503 with a reconnect link and reach nobody."""
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"401 Unauthorized"),
        provider << refresh_request(theatre, "rt-1"),
        provider >> http(b"400 Bad Request", b'{"error":"%b"}' % error.encode()),
    )
    problem = b'"reconnect_url":"http://127.0.0.1:8081/tenants/acme/connect"'
    first = await theatre.receive(caller)
    assert first.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert problem in first
    await theatre.play(caller >> asked())
    again = await theatre.receive(caller)
    assert problem in again
    assert finished(theatre).outcome == "needs-reauth"
    stored = await theatre.app.store.grant("acme")
    assert stored is not None
    assert (stored.state.value, stored.access, stored.refresh) == ("needs_reauth", None, None)


async def test_invalid_client_touches_no_grant(theatre: Stage) -> None:
    """Where Pleo refuses our registration, callers hear that tokens are not to be had, and the pair stays."""
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"401 Unauthorized"),
        provider << refresh_request(theatre, "rt-1"),
        provider >> http(b"401 Unauthorized", b'{"error":"invalid_client"}'),
    )
    answer = await theatre.receive(caller)
    assert b"503 Service Unavailable" in answer
    assert b"/problems/provider-unavailable" in answer
    assert b"Retry-After: 60\r\n" in answer
    stored = await theatre.app.store.grant("acme")
    assert stored is not None
    assert (stored.state.value, stored.generation) == ("connected", 1)
    assert stored.refresh is not None
    # After the pause the same refresh token is tried again and everything goes on.
    theatre.clock.now += 61
    await theatre.play(
        caller >> asked(),
        provider << refresh_request(theatre, "rt-1"),
        provider >> token_answer("at-2", "rt-2"),
        upstream << sent(theatre, b"at-2"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


async def test_an_expired_token_is_never_sent(theatre: Stage) -> None:
    """A request that meets an expired token waits for the refresh and goes out with the new one."""
    theatre.clock.now += 901
    await theatre.play(
        caller >> asked(),
        provider << refresh_request(theatre, "rt-1"),
        provider >> token_answer("at-2", "rt-2"),
        upstream << sent(theatre, b"at-2"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


async def test_a_token_in_its_advisory_window_still_serves_where_the_refresh_fails(theatre: Stage) -> None:
    """At 80 % of its life a token is refreshed; if Pleo cannot, the old one goes on until it expires."""
    theatre.clock.now += 900 * 0.8
    await theatre.play(
        caller >> asked(),
        provider << refresh_request(theatre, "rt-1"),
        provider >> http(b"503 Service Unavailable", b"", b"Retry-After: 300\r\n"),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
        # Retry-After is obeyed: no other refresh yet.
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )
    theatre.clock.now += 181
    await theatre.play(caller >> asked())
    assert b"Retry-After: 119\r\n" in await theatre.receive(caller)


async def test_a_chunked_answer_streams_on_in_chunks(theatre: Stage) -> None:
    """Where the end of an answer is not known yet, its parts go on as they come, in chunks."""
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    )
    head = await theatre.receive_head(caller)
    assert head == b"HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\nTransfer-Encoding: chunked\r\n\r\n"
    await theatre.play(upstream >> b"0\r\n\r\n", caller << b"3\r\nabc\r\n0\r\n\r\n")


async def test_a_chunked_answer_that_is_at_hand_whole_gets_a_length(theatre: Stage) -> None:
    """Chunks are framing of one connection: a short answer that came at once goes on with its length."""
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        caller << b"HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\nContent-Length: 3\r\n\r\nabc",
    )


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: X-Hop\r\nTrailer: Digest\r\n\r\n"
TRAILERS = b"Digest: sha-256=x\r\nX-Hop: 1\r\nSet-Cookie: a=b\r\nAge: 9\r\ndIGEST: y\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([CHUNKED + b"3\r\nabc\r\n0\r\n" + TRAILERS + b"\r\n"], id="whole"),
        pytest.param([CHUNKED + b"3\r\nabc\r\n", b"0\r\n" + TRAILERS + b"\r\n"], id="streamed"),
    ],
)
async def test_trailers_of_an_answer_are_passed_on(theatre: Stage, pieces: list[bytes]) -> None:
    """What follows the body follows it to the caller, less what must not be said there."""
    await theatre.play(caller >> asked(), upstream << sent(theatre, b"at-1"), upstream >> pieces[0])
    head = await theatre.receive_head(caller)
    assert head == b"HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\nTransfer-Encoding: chunked\r\n\r\n"
    end = b"3\r\nabc\r\n0\r\nDigest: sha-256=x\r\ndIGEST: y\r\n\r\n"
    got = b""
    for piece in pieces[1:]:
        got = await theatre.receive_exactly(caller, len(b"3\r\nabc\r\n"))
        await theatre.play(upstream >> piece)
    got += await theatre.receive_exactly(caller, len(end) - len(got))
    assert got == end
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


async def test_trailers_are_dropped_where_there_are_no_chunks(theatre: Stage) -> None:
    """A caller that speaks HTTP/1.0 gets the answer without its trailers."""
    await theatre.play(
        caller >> asked().replace(b"HTTP/1.1", b"HTTP/1.0"),
        upstream << sent(theatre, b"at-1").replace(b"Via: 1.1", b"Via: 1.0"),
        upstream >> CHUNKED + b"3\r\nabc\r\n0\r\n" + TRAILERS + b"\r\n",
    )
    got = await theatre.until_end(caller)
    assert got == b"HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\nConnection: close\r\n\r\nabc"


async def test_a_chunked_request_reaches_the_upstream_chunked(theatre: Stage) -> None:
    """A request body without a length is sent on in chunks."""
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    fields = b"Transfer-Encoding: chunked\r\n"
    await theatre.play(
        caller >> asked(method=b"POST", fields=fields) + chunks,
        upstream
        << sent(theatre, b"at-1", method=b"POST")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


async def test_an_answer_that_breaks_off_never_looks_whole(theatre: Stage) -> None:
    """An upstream that leaves in the middle of a body becomes a connection that is cut in the middle."""
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        upstream.leaves(),
    )
    got = await theatre.until_end(caller)
    assert got.endswith(b"\r\n\r\nabc")
    assert b"Content-Length: 10\r\n" in got
    assert finished(theatre).outcome == "upstream_broke_off"


async def test_a_caller_that_leaves_cancels_the_upstream_request(theatre: Stage) -> None:
    """When the caller goes, the upstream's connection is closed instead of waited for."""
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        caller.leaves(),
        upstream.sees_the_end(),
    )
    await theatre.quiet()
    assert (finished(theatre).outcome, finished(theatre).status) == ("caller_left", 499)


async def test_redirects_are_not_followed_and_point_at_the_proxy(theatre: Stage) -> None:
    """A 3xx goes back to the caller; a Location at the upstream's origin becomes the proxy's."""
    origin = b"http://" + theatre.upstream_host
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"302 Found", b"", b"Location: " + origin + b"/v2/employees?x=1\r\n"),
        caller << answered(b"302 Found", b"", b"Location: http://127.0.0.1/acme/v2/employees?x=1\r\n"),
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(b"307 Temporary Redirect", b"", b"Location: https://evil.example/\r\n"),
        caller << answered(b"307 Temporary Redirect", b"", b"Location: https://evil.example/\r\n"),
    )


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable"])
async def test_throttling_passes_untouched(theatre: Stage, status: bytes) -> None:
    """Pleo's word for "slow down" is the caller's to obey: it is neither hidden nor repeated."""
    fields = b"Retry-After: 7\r\nX-RateLimit-Remaining: 0\r\n"
    await theatre.play(
        caller >> asked(),
        upstream << sent(theatre, b"at-1"),
        upstream >> http(status, b"{}", fields),
        caller << answered(status, b"{}", fields),
    )
    assert finished(theatre).upstream_status == int(status[:3])


async def test_head_and_bodiless_answers_keep_the_connection(theatre: Stage) -> None:
    """HEAD, 204 and 304 have no body whatever their fields say, and the connection goes on."""
    await theatre.play(caller >> asked(method=b"HEAD"), upstream << sent(theatre, b"at-1", method=b"HEAD"))
    await theatre.play(upstream >> b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    assert await theatre.receive_head(caller) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-Request-Id: r-1\r\n\r\n"
    )
    for status in (b"204 No Content", b"304 Not Modified"):
        await theatre.play(
            caller >> asked(),
            upstream << sent(theatre, b"at-1"),
            upstream >> b"HTTP/1.1 %b\r\n\r\n" % status,
            caller << b"HTTP/1.1 %b\r\nX-Request-Id: r-1\r\n\r\n" % status,
        )


async def test_pipelined_requests_are_answered_in_order(theatre: Stage) -> None:
    """Two requests sent at once get their answers one after the other."""
    await theatre.play(
        caller >> asked(b"/acme/v1/a") + asked(b"/acme/v1/b"),
        upstream << sent(theatre, b"at-1", b"/v1/a"),
        upstream >> http(b"200 OK", b"a"),
        caller << answered(b"200 OK", b"a"),
        upstream << sent(theatre, b"at-1", b"/v1/b"),
        upstream >> http(b"200 OK", b"b"),
        caller << answered(b"200 OK", b"b"),
    )


async def test_an_http_1_0_caller_without_host_is_served_and_closed(theatre: Stage) -> None:
    """HTTP/1.0 needs no Host and gets no chunks: the end of the connection ends the body."""
    await theatre.play(
        caller >> b"GET /acme/v2/employees HTTP/1.0\r\nX-Request-Id: r-1\r\n\r\n",
        upstream << sent(theatre, b"at-1").replace(b"Via: 1.1", b"Via: 1.0"),
        upstream >> b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )
    got = await theatre.until_end(caller)
    assert got == (
        b"HTTP/1.1 200 OK\r\nX-Request-Id: r-1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    )


EXPECTS = b"Content-Length: 2\r\nExpect: 100-continue\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_expect_100_continue_is_honoured_end_to_end(theatre: Stage) -> None:
    """A caller that waits before it sends its body is told to go on when the upstream says so."""
    await theatre.play(
        caller >> asked(method=b"POST", fields=EXPECTS),
        upstream << sent(theatre, b"at-1", method=b"POST", fields=EXPECTS),
        upstream >> CONTINUE,
        caller << CONTINUE,
        caller >> b"hi",
        upstream << b"hi",
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
        # The connections go on, both.
        caller >> asked(method=b"POST", fields=b"Content-Length: 2\r\n") + b"ho",
        upstream << sent(theatre, b"at-1", method=b"POST", fields=b"Content-Length: 2\r\n") + b"ho",
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


async def test_a_stale_token_is_found_before_the_body_is_asked_for(theatre: Stage) -> None:
    """With Expect: 100-continue a 401 costs no upload: the body goes up once, with the new token."""
    await theatre.play(
        caller >> asked(method=b"POST", fields=EXPECTS),
        upstream << sent(theatre, b"at-1", method=b"POST", fields=EXPECTS),
        upstream >> http(b"401 Unauthorized"),
        provider << refresh_request(theatre, "rt-1"),
        provider >> token_answer("at-2", "rt-2"),
        upstream << sent(theatre, b"at-2", method=b"POST", fields=EXPECTS),
        upstream >> CONTINUE,
        caller << CONTINUE,
        caller >> b"hi",
        upstream << b"hi",
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )
    assert (finished(theatre).retried, finished(theatre).bytes_in) == (True, 2)


async def test_a_401_after_the_body_was_asked_for_is_repeated_without_waiting(theatre: Stage) -> None:
    """A caller is told to go on once; the second time the body is at hand and follows its head at once."""
    await theatre.play(
        caller >> asked(method=b"POST", fields=EXPECTS),
        upstream << sent(theatre, b"at-1", method=b"POST", fields=EXPECTS),
        upstream >> CONTINUE,
        caller << CONTINUE,
        caller >> b"hi",
        upstream << b"hi",
        upstream >> http(b"401 Unauthorized"),
        provider << refresh_request(theatre, "rt-1"),
        provider >> token_answer("at-2", "rt-2"),
        upstream << sent(theatre, b"at-2", method=b"POST", fields=EXPECTS),
        upstream << b"hi",
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


async def test_an_answer_before_the_body_means_that_the_body_is_never_asked_for(theatre: Stage) -> None:
    """A final answer in place of 100 ends the request, and the connection: the body may come or not."""
    await theatre.play(
        caller >> asked(method=b"POST", fields=EXPECTS),
        upstream << sent(theatre, b"at-1", method=b"POST", fields=EXPECTS),
        upstream >> http(b"200 OK", b"early"),
        caller
        << b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Request-Id: r-1\r\nConnection: close\r\n\r\nearly",
        upstream.sees_the_end(),
        caller.sees_the_end(),
    )
    assert (finished(theatre).status, finished(theatre).bytes_in) == (200, 0)


async def test_an_upstream_that_never_says_100_gets_the_body_all_the_same(
    theatre: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that knows nothing of the expectation costs a pause, and no more."""
    monkeypatch.setattr("proxy.upstream.upload.CONTINUE_S", 0.05)
    fields = b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
    head = sent(theatre, b"at-1", method=b"POST", fields=b"Expect: 100-continue\r\n")
    await theatre.play(
        caller >> asked(method=b"POST", fields=fields),
        upstream << head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n",
        caller << CONTINUE,
        caller >> b"2\r\nhi\r\n0\r\n\r\n",
        upstream << b"2\r\nhi\r\n0\r\n\r\n",
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
    )


@pytest.mark.parametrize(
    ("request_of", "version"),
    [
        pytest.param(b"Content-Length: 2\r\nExpect: 200-ok\r\n", b"1.1", id="unknown-expectation"),
        pytest.param(b"Content-Length: 2\r\nExpect: 100-continue\r\n", b"1.0", id="http-1.0"),
        pytest.param(b"Expect: 100-continue\r\n", b"1.1", id="without-body"),
        pytest.param(b"Content-Length: 0\r\nExpect: 100-continue\r\n", b"1.1", id="empty-body"),
    ],
)
async def test_an_expectation_that_nobody_waits_for_stays_behind(
    theatre: Stage, request_of: bytes, version: bytes
) -> None:
    """Only 100-continue, with a body and over HTTP/1.1, is waited for (RFC 9110 section 10.1.1)."""
    kept, _, _ = request_of.partition(b"Expect")
    body = b"hi" if b"2" in kept else b""
    head = asked(method=b"POST", fields=request_of).replace(b"HTTP/1.1", b"HTTP/" + version)
    expected = sent(theatre, b"at-1", method=b"POST", fields=kept)
    await theatre.play(
        caller >> head + body,
        upstream << expected.replace(b"Via: 1.1", b"Via: " + version) + body,
        upstream >> http(b"200 OK"),
    )
    assert (await theatre.receive(caller)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_refusal_comes_before_the_body_is_asked_for(theatre: Stage) -> None:
    """With Expect: 100-continue, a request that will be refused costs no upload."""
    fields = b"Content-Length: 2\r\nExpect: 100-continue\r\n"
    await theatre.play(caller >> asked(b"/nobody/v1/x", b"POST", fields))
    got = await theatre.until_end(caller)
    assert got.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"Connection: close\r\n" in got


async def test_a_gzip_body_is_neither_decoded_nor_asked_for(theatre: Stage) -> None:
    """Encoded bodies pass both ways as they are, and no Accept-Encoding is added."""
    packed = b"\x1f\x8b not really gzip"
    fields = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(packed)
    await theatre.play(
        caller >> asked(method=b"PUT", fields=fields) + packed,
        upstream << sent(theatre, b"at-1", method=b"PUT", fields=fields) + packed,
        upstream >> http(b"200 OK", packed, b"Content-Encoding: gzip\r\n"),
        caller << answered(b"200 OK", packed, b"Content-Encoding: gzip\r\n"),
    )


async def test_a_loop_is_detected(theatre: Stage) -> None:
    """A request that already passed through this proxy is refused with 508."""
    await theatre.play(caller >> asked(fields=b"Via: 1.0 fred, 1.1 pleo-proxy\r\n"))
    assert (await theatre.receive(caller)).startswith(b"HTTP/1.1 508 Loop Detected\r\n")
    await theatre.play(caller >> asked(fields=b"Via: 1.1 other\r\n"))
    assert (await theatre.upstream.arrived.get())[0].count(b"Via: ") == 2


async def test_max_forwards_is_counted_for_options_alone(theatre: Stage) -> None:
    """OPTIONS goes on with one forwarding less, and with none left no further; a GET keeps its number."""
    await theatre.play(
        caller >> asked(method=b"OPTIONS", fields=b"Max-Forwards: 2\r\n"),
        upstream << sent(theatre, b"at-1", method=b"OPTIONS", fields=b"Max-Forwards: 1\r\n"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
        caller >> asked(fields=b"Max-Forwards: 0\r\n"),
        upstream << sent(theatre, b"at-1", fields=b"Max-Forwards: 0\r\n"),
        upstream >> http(b"200 OK"),
        caller << answered(b"200 OK"),
        caller >> asked(method=b"OPTIONS", fields=b"Max-Forwards: 0\r\n"),
    )
    assert (await theatre.receive(caller)).startswith(b"HTTP/1.1 403 Forbidden\r\n")


@pytest.mark.parametrize("given", [b"a b", b'a"b', b"x" * 129, b"caf\xc3\xa9"])
async def test_a_request_id_that_could_break_a_log_is_replaced(theatre: Stage, given: bytes) -> None:
    """Only a harmless X-Request-Id is taken up; in place of another the caller gets a fresh one."""
    await theatre.play(
        caller >> b"GET /acme/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: %b\r\n\r\n" % given
    )
    _, theatre.upstream.pipe = await theatre.upstream.arrived.get()
    await theatre.play(upstream >> http(b"200 OK"))
    answer = await theatre.receive(caller)
    assert f"X-Request-Id: {finished(theatre).request_id}\r\n".encode() in answer
    assert re.fullmatch(r"[0-9a-f]{32}", finished(theatre).request_id)


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        pytest.param(b"Content-Length: 10\r\n", b"12345", id="content-length"),
        pytest.param(b"Content-Length: 100000\r\n", b"12345", id="streamed"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"5\r\n12345\r\n", id="chunked"),
        pytest.param(b"Content-Length: 10\r\n", b"", id="nothing"),
    ],
)
async def test_a_body_that_stays_away_is_cut(tmp_path: Path, framing: bytes, body: bytes) -> None:
    """A caller that sends no byte of its body for limits.idle_s is refused, and no whole request goes up."""
    async with stage(tmp_path, limits={"idle_s": 0.2}) as theatre:
        await theatre.play(caller >> asked(method=b"POST", fields=framing) + body)
        got = await theatre.until_end(caller)
        assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"Connection: close\r\n" in got
        assert b"the body did not arrive: no byte for 0.2 s (limits.idle_s)" in got
        assert (finished(theatre).outcome, finished(theatre).bytes_in) == ("target-refused", 5 if body else 0)
        assert theatre.upstream.arrived.empty()


async def test_trace_context_goes_through_as_it_came(theatre: Stage) -> None:
    """W3C Trace Context: a trace that a caller begins is not broken."""
    fields = (
        b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
        b"tracestate: rojo=00f067aa0ba902b7\r\nTraceState: congo=t61rcWkgMzE, vendor@x=1\r\n"
    )
    await theatre.play(
        caller >> asked(fields=fields),
        upstream << sent(theatre, b"at-1", fields=fields),
        upstream >> http(b"200 OK", b"[]", b"traceresponse: 00-4bf92f3577b34da6a3ce929d0e0e4736--01\r\n"),
        caller << answered(b"200 OK", b"[]", b"traceresponse: 00-4bf92f3577b34da6a3ce929d0e0e4736--01\r\n"),
    )
    assert finished(theatre).trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_a_trace_that_is_none_goes_through_too_and_is_not_believed(theatre: Stage) -> None:
    """What is no valid trace context is a field like any other, and no text of a caller's in the log."""
    fields = b"traceparent: 00-AAAA-secret-01\r\ntracestate: =;=\r\n"
    await theatre.play(
        caller >> asked(fields=fields),
        upstream << sent(theatre, b"at-1", fields=fields),
        upstream >> http(b"200 OK", b"[]"),
        caller << answered(b"200 OK", b"[]"),
    )
    assert finished(theatre).trace_id is None


async def test_where_traces_are_made_the_upstreams_parent_is_our_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's ``traceparent`` gives way to one that comes before the credential; all else is as ever."""
    monkeypatch.setattr(random, "getrandbits", lambda length: 2**length - 1)
    of_caller = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
    ours = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-%b-01\r\n" % (b"f" * 16)
    kept = b"A: 1\r\nTracestate: a=1\r\n"
    async with stage(tmp_path, tracing={"endpoint": "http://127.0.0.1:9/v1/traces"}) as theatre:
        with_ours = sent(theatre, b"at-1", fields=kept).replace(b"Authorization:", ours + b"Authorization:")
        await theatre.play(
            caller >> asked(fields=of_caller + kept),
            upstream << with_ours,
            upstream >> http(b"200 OK", b"[]"),
            caller << answered(b"200 OK", b"[]"),
        )
    (traced,) = [fact for fact in theatre.facts if isinstance(fact, RequestTraced)]
    assert traced.request is finished(theatre)
    assert traced.request.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (traced.parent_id, traced.span_id) == ("00f067aa0ba902b7", "f" * 16)
    assert [(send.path, send.status) for send in traced.sends] == [("/v2/employees", 200)]
