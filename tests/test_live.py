"""The live view: lines of the log as they come, for a page and for programs, at no cost to requests."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin import live_page, live_stream
from proxy.facts import GrantNeedsReauth, GrantRevoked, LineWithheld, RequestFinished
from proxy.loglines import parsed
from proxy.model import Secret
from proxy.sandbox import Sandbox
from proxy.telemetry import fan_out, live, relay
from proxy.telemetry.live import Live
from proxy.telemetry.logs import RECENT, LogSink
from proxy.telemetry.relay import Hub, Spoke
from tests.harness import Proxy, running_proxy, until
from tests.operator_browser import Markup, ask, logged_in, shown_text
from tests.streams import BEARER, PATH, Stream, streaming, watching
from tests.test_admin_login import VIEWER_TOKEN, bearer
from tests.test_workers import Prepared, prepared, serving  # noqa: F401 - a fixture


def finished(number: int = 0, **fields: Any) -> RequestFinished:
    """A request that ended."""
    return RequestFinished(f"r{number}", **{"tenant": "acme", "status": 200, "outcome": "answered", **fields})


# --- the stream


async def test_a_request_through_the_proxy_is_seen(proxy: Proxy) -> None:
    """As the same line that the log has, byte for byte, with the id by which the answer names it."""
    async with watching(proxy) as stream:
        answer = await proxy.get("/acme/v2/employees")
        event = await stream.next()
        assert event.kind == "message"
        assert event.data.encode() in proxy.log.getvalue().splitlines()
        line = event.json()
        assert (line["event"], line["tenant"], line["status"]) == ("request.finished", "acme", 200)
        assert line["request_id"] == answer.header("X-Request-Id")


async def test_a_stream_is_protected_and_says_what_it_is(proxy: Proxy) -> None:
    """Not kept by anyone on the way, and with the headers that all answers have."""
    async with watching(proxy) as stream:
        fields = stream.response.headers
        assert fields["Content-Type"] == "text/event-stream"
        assert fields["Cache-Control"] == "no-store"
        assert fields["X-Content-Type-Options"] == "nosniff"
        assert "script" not in fields["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("?tenant=globex", ["/globex/v2/employees"]),
        ("?tenant=globex+acme", ["/acme/v2/employees", "/globex/v2/employees"]),
        ("?status=404", ["/nobody/v2/employees"]),
        ("?status=4xx", ["/nobody/v2/employees", "/acme/v2/../x"]),
        ("?status=4xx&tenant=", ["/nobody/v2/employees", "/acme/v2/../x"]),
        ("?event=request.*&status=200&tenant=acme", ["/acme/v2/employees"]),
        ("?event=token.*", []),
        ("?level=error", []),
    ],
)
async def test_lines_are_picked_as_tail_picks_them(proxy: Proxy, query: str, paths: list[str]) -> None:
    """Of one field any of what is named, and all fields that name something; nothing else comes."""
    async with watching(proxy, query) as stream, watching(proxy, "?event=grant.revoked") as other:
        for path in ("/acme/v2/employees", "/globex/v2/employees", "/nobody/v2/employees", "/acme/v2/../x"):
            await proxy.get(path)
        for path in paths:
            assert (await stream.line())["path"].startswith(path.partition("..")[0])
        proxy.app._emit(GrantRevoked("initech", 1))
        assert (await other.line())["event"] == "grant.revoked"
        # The other stream has had its line, so this one has looked too, or does within a look.
        with pytest.raises(TimeoutError):
            await stream.next(2 * live.LOOK_S)


@pytest.mark.parametrize(
    ("query", "item", "told"),
    [
        ("?status=6xx", "status", "A status is 401 or the like"),
        ("?status=40", "status", "A status is 401 or the like"),
        ("?status=401402", "status", "A status is 401 or the like"),
        ("?level=loud", "level", "A level is one of debug, info"),
        (f"?tenant={'a' * 201}", "tenant", "The tenant is too long"),
    ],
)
async def test_a_filter_that_can_take_nothing_is_refused(
    proxy: Proxy, query: str, item: str, told: str
) -> None:
    """By the API with a problem document that names it, and on the page in words, beside all lines."""
    answer = await ask(proxy, "GET", PATH + query, headers=BEARER)
    assert answer.status == 400
    assert answer.json()["detail"].startswith(f"{item}: ")
    shown = await (await logged_in(proxy)).get(f"/live{query}")
    assert shown.status == 400
    assert told in shown_text(shown)
    assert "proxy.started" in shown_text(shown)


async def test_head_has_no_stream(proxy: Proxy) -> None:
    """Where there is GET there is HEAD (RFC 9110 section 9.3.2), and it ends."""
    answer = await ask(proxy, "HEAD", PATH, headers=BEARER)
    assert (answer.status, answer.header("Content-Type")) == (200, "text/event-stream")


async def test_who_connects_again_gets_what_came_in_between(proxy: Proxy) -> None:
    """Once each, with ``Last-Event-ID`` (of which a browser thinks by itself) or ``after``."""
    async with watching(proxy) as stream:
        await proxy.get("/acme/v2/employees")
        event = await stream.next()
    assert event.id is not None
    for _ in range(3):
        await proxy.get("/globex/v2/employees")
    sent = [line["request_id"] for line in proxy.lines("request.finished") if line["tenant"] == "globex"]
    for query, more in (("", {"Last-Event-ID": event.id}), (f"?after={event.id}", {})):
        async with watching(proxy, query, headers={**BEARER, **more}) as stream:
            assert [(await stream.request())["request_id"] for _ in range(3)] == sent
    # What it saw last counts, not what the page was made with.
    async with watching(
        proxy, f"?after={event.id}", headers={**BEARER, "Last-Event-ID": "other-1"}
    ) as stream:
        assert (await stream.line())["event"] != "request.finished"


async def test_what_is_gone_in_between_is_counted(proxy: Proxy) -> None:
    """A reader that was away for longer than lines are kept is told how many it missed."""
    async with watching(proxy) as stream:
        proxy.app._emit(finished(0))
        event = await stream.next()
    for number in range(RECENT + 70):
        proxy.app._emit(finished(number))
    async with watching(proxy, headers={**BEARER, "Last-Event-ID": event.id}) as stream:
        left_out = await stream.next()
        assert left_out.kind == "left_out"
        # What is sent at one time is bounded, too.
        assert left_out.json() == {"lines": RECENT + 70 - live_stream.MOST_LINES}
        last = [await stream.line() for _ in range(live_stream.MOST_LINES)]
        assert last[-1]["request_id"] == f"r{RECENT + 69}"


async def test_more_streams_than_there_may_be_are_refused(proxy: Proxy) -> None:
    """Clearly, with when to come again; whoever leaves makes room."""
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(watching(proxy)) for _ in range(live_stream.MOST_STREAMS)]
        refused = await ask(proxy, "GET", PATH, headers=BEARER)
        assert (refused.status, refused.header("Retry-After")) == (503, "10")
        assert "8 live views open" in refused.json()["detail"]
        streams[0].response.close()
        opened = proxy.app.admin[live_stream.STREAMS]
        await until(lambda: opened.open < live_stream.MOST_STREAMS)
        async with watching(proxy):
            pass
    await until(lambda: opened.open == 0)


async def test_a_stream_ends_at_the_logout(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says why, so that a browser does not try again; another session's goes on."""
    monkeypatch.setattr(live_stream, "_CHECK_S", 0.1)
    mine, theirs = await logged_in(proxy), await logged_in(proxy)
    async with (
        watching(proxy, "?tenant=acme", headers=cookies_of(mine)) as stream,
        watching(proxy, "?tenant=acme", headers=cookies_of(theirs)) as other,
    ):
        assert (await mine.submit("/logout")).status == 200
        end = await stream.next()
        assert (end.kind, end.json()) == ("end", {"why": "You are logged out."})
        assert await stream.next_or_end() is None
        await proxy.get("/acme/v2/employees")
        assert (await other.line())["tenant"] == "acme"


def cookies_of(browser: Any) -> dict[str, str]:
    """What a browser sends with an event source of its page."""
    pairs = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    return {"Cookie": pairs, "Sec-Fetch-Site": "same-origin"}


async def test_who_leaves_before_the_stream_begins_is_no_defect(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one page after the other is opened."""
    left = asyncio.Event()
    monkeypatch.setattr(proxy.app._live, "look_everywhere", left.wait)
    opened = proxy.app.admin[live_stream.STREAMS]
    host, _, port = proxy.app.admin_address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {BEARER['Authorization']}\r\n\r\n"
    writer.write(head.encode())
    await until(lambda: opened.open == 1)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    left.set()
    await until(lambda: opened.open == 0)
    assert (await ask(proxy, "GET", "/healthz")).status == 200
    assert proxy.lines("task.crashed") == []


async def test_a_stream_keeps_no_session_alive(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that nobody looks at ends with its session, idle."""
    monkeypatch.setattr(live_stream, "_CHECK_S", 0.1)
    browser = await logged_in(proxy)
    async with watching(proxy, "?event=none", headers=cookies_of(browser)) as stream:
        idle_s = proxy.settings.admin.session_idle_s
        proxy.pleo.advance(idle_s / 2)
        with pytest.raises(TimeoutError):
            await stream.next(0.6)
        proxy.pleo.advance(idle_s / 2)
        assert (await stream.next()).kind == "end"


async def test_a_stream_outlasts_an_outage_of_the_store(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody can say who is logged in, whoever was goes on to see what goes wrong."""
    monkeypatch.setattr(live_stream, "_CHECK_S", 0.1)
    browser = await logged_in(proxy)
    async with watching(proxy, "?event=grant.revoked", headers=cookies_of(browser)) as stream:
        await proxy.app.store.close()
        with pytest.raises(TimeoutError):
            await stream.next(0.6)
        proxy.app._emit(GrantRevoked("acme", 1))
        assert (await stream.line())["tenant"] == "acme"


@pytest.mark.parametrize("headers", [{}, bearer("wrong"), {"Cookie": "pleo_proxy_session=" + "A" * 43}])
async def test_a_stream_is_for_who_has_a_role(proxy: Proxy, headers: dict[str, str]) -> None:
    """Nobody else gets a line."""
    answer = await ask(proxy, "GET", PATH, headers=headers)
    assert answer.status == 401
    assert answer.header("Content-Type") == "application/problem+json"


async def test_a_viewer_may_watch(pleo: Sandbox, tmp_path: Path) -> None:
    """It changes nothing."""
    async with (
        running_proxy(pleo, tmp_path, admin={"token": "t" * 32, "viewer_token": VIEWER_TOKEN}) as proxy,
        watching(proxy, headers=bearer(VIEWER_TOKEN)),
    ):
        pass


async def test_a_page_of_another_site_gets_no_stream(proxy: Proxy) -> None:
    """Not with a session that the browser sends along, either."""
    browser = await logged_in(proxy)
    foreign = {**cookies_of(browser), "Sec-Fetch-Site": "cross-site"}
    assert (await ask(proxy, "GET", PATH, headers=foreign)).status == 403


async def test_a_stop_does_not_wait_for_streams(pleo: Sandbox, tmp_path: Path) -> None:
    """They see the drain and end with the listener, also one that is not read."""
    async with AsyncExitStack() as stack:
        async with running_proxy(pleo, tmp_path) as proxy:
            session = await stack.enter_async_context(type(proxy.session)())
            base = f"http://{proxy.app.admin_address}"
            stream = await stack.enter_async_context(streaming(session, base, "?event=proxy.*"))
            await stack.enter_async_context(streaming(session, base))
            began = monotonic()
        assert monotonic() - began < 4
        assert [(await stream.line())["event"] for _ in range(2)] == ["proxy.draining", "proxy.stopped"]
        assert await stream.next_or_end() is None


async def test_a_reader_that_does_not_read_holds_up_nobody(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut after a while; meanwhile requests are served, and others see them."""
    monkeypatch.setattr(live_stream, "_SEND_S", 1.0)
    host, _, port = proxy.app.admin_address.rpartition(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.setblocking(False)
        await asyncio.get_running_loop().sock_connect(deaf, (host, int(port)))
        head = f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {BEARER['Authorization']}\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(deaf, head.encode())
        opened = proxy.app.admin[live_stream.STREAMS]
        await until(lambda: opened.open == 1)
        began = monotonic()
        number = 0
        while opened.open and monotonic() - began < 20:
            for _ in range(50):
                number += 1
                proxy.app._emit(finished(number, path="/" + "x" * 6000))
            await asyncio.sleep(0.05)
        assert opened.open == 0
    assert len(proxy.app._live._lines) <= RECENT
    async with watching(proxy, "?tenant=globex") as stream:
        assert (await proxy.get("/globex/v2/employees")).status == 200
        assert (await stream.line())["tenant"] == "globex"


async def test_no_line_with_a_secret_goes_out(proxy: Proxy) -> None:
    """What the log withholds is not seen either; that it was is."""
    secret = "mZ4-Secret_Of.The~Tests+0123456789"
    proxy.app._canary.watch("test", Secret(secret))
    proxy.withheld.append(LineWithheld("request.finished"))
    async with watching(proxy) as stream:
        proxy.app._emit(finished(1, path=f"/x/{secret}"))
        proxy.app._emit(finished(2))
        assert [(await stream.line())["event"] for _ in range(2)] == ["log.line_withheld", "request.finished"]


# --- the page


async def test_the_page_has_the_last_lines_without_a_script(proxy: Proxy) -> None:
    """The newest first, picked as the stream is; what a line holds is only text."""
    await proxy.get("/acme/v2/employees")
    await proxy.get("/nobody/<script>alert(1)</script>")
    operator = await logged_in(proxy)
    page = await operator.get("/live?event=request.finished")
    text = shown_text(page)
    [line] = [line for line in proxy.lines("request.finished") if line["status"] == 200]
    assert f"GET /acme/v2/employees 127.0.0.1 {line['request_id']} acme 200 answered" in text
    assert text.index("404 tenant-unknown") < text.index("200 answered")
    assert b"<script>alert" not in page.body
    assert "404" not in shown_text(await operator.get("/live?status=2xx"))
    assert "Nothing like that has come" in shown_text(await operator.get("/live?tenant=nobody-at-all"))
    markup = Markup(page.body.decode())
    [view] = [each for each in markup.all("div") if each.get("id") == "live"]
    assert (view["data-stream"] or "").startswith(f"{PATH}?event=request.finished&after=")


async def test_the_script_goes_on_where_the_page_ended(proxy: Proxy) -> None:
    """The page names the stream that has what comes after it, and nothing twice."""
    operator = await logged_in(proxy)
    await proxy.get("/acme/v2/employees")
    page = await operator.get("/live")
    await proxy.get("/globex/v2/employees")
    [view] = [each for each in Markup(page.body.decode()).all("div") if each.get("id") == "live"]
    query = (view["data-stream"] or "").removeprefix(PATH)
    async with watching(proxy, query, headers=cookies_of(operator)) as stream:
        assert (await stream.line())["tenant"] == "globex"


@pytest.mark.parametrize(
    ("fields", "tone", "result"),
    [
        ({"event": "request.finished", "status": 503, "outcome": "needs-reauth"}, "bad", "503 needs-reauth"),
        ({"event": "request.finished", "status": 404, "outcome": "answered"}, "warn", "404 answered"),
        ({"event": "request.finished", "status": 200, "outcome": "answered"}, "", "200 answered"),
        (
            {"event": "request.finished", "status": 200, "outcome": "answered", "retried": True},
            "",
            "200 answered, sent twice",
        ),
        ({"event": "x", "level": "error", "reason": "r", "n": 3.0, "no": None}, "bad", "reason r, n 3"),
        (
            {"event": "x", "level": "warning", "list": ["a", "b"], "empty": [], "off": False},
            "warn",
            "list a b",
        ),
    ],
)
def test_a_row_tells_a_request_or_an_event(fields: dict[str, Any], tone: str, result: str) -> None:
    """The colour is by the status or the level, and never alone."""
    row = live_page.row_of(parsed(json.dumps({"level": "info", **fields}).encode()))
    assert (row.tone, row.result) == (tone, result)


@given(
    st.dictionaries(
        st.sampled_from(["event", "status", "level", "duration_ms", "path", "x"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()),
    )
)
def test_a_row_is_made_of_whatever_a_line_holds(fields: dict[str, Any]) -> None:
    """No line of the log keeps the page from being shown."""
    live_page.row_of(parsed(json.dumps(fields).encode()))


# --- lines and numbers


def lines_of(glimpse: live.Glimpse) -> list[str]:
    return [each.line.text("request_id") for each in glimpse.lines]


@given(st.lists(st.integers(0, 300) | st.sampled_from(["look", "read"]), max_size=30))
def test_every_line_is_read_or_counted(steps: list[int | str]) -> None:
    """Whatever comes between two looks and however late the reader is, nothing is lost uncounted."""
    log = LogSink(io.BytesIO(), log_format="json", level="info")
    view, total = Live(log), 0
    number, read, left_out = view.number_of(None), list[str](), 0
    for step in [*steps, "read"]:
        if isinstance(step, int):
            for _ in range(step):
                log(finished(total))
                total += 1
        else:
            view.look()
        if step == "read":
            glimpse = view.since(number)
            number, left_out = glimpse.upto, left_out + glimpse.left_out
            read += lines_of(glimpse)
    assert len(read) + left_out == total
    assert read == sorted(set(read), key=lambda each: int(each[1:]))
    assert not read or not steps or read[-1] == f"r{total - 1}"


def test_a_mark_leads_back_to_its_place() -> None:
    """One of another run, or of none, leads to the oldest line that is kept, and no mark to the newest."""
    log = LogSink(io.BytesIO(), log_format="json", level="info")
    view = Live(log)
    for number in range(5):
        log(finished(number))
    view.look()
    assert view.number_of(view.mark(3)) == 3
    assert view.number_of(None) == 5
    for mark in ("", "x", "00000000-3", view.mark(3).replace("3", "²"), view.mark(3) + "9" * 5000, "-3"):
        found = view.number_of(mark)
        assert lines_of(view.since(found)) == [f"r{number}" for number in range(5)]
        assert view.since(found).left_out == 0
    assert view.number_of(view.mark(9)) == 5


async def test_requests_are_seen_though_the_log_leaves_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only while somebody watches, and never in the log; the rest of the time nothing is made of them."""
    monkeypatch.setattr(live, "_UNWATCHED_S", 0.2)
    stream = io.BytesIO()
    log = LogSink(stream, log_format="json", level="warning")
    view = Live(log)
    emit = fan_out(log, *view.sinks)
    emit(finished(1))
    view.look()
    assert lines_of(view.recent()) == []
    emit(finished(2))
    emit(GrantNeedsReauth("acme", 3, "invalid_grant"))
    view.look()
    assert [each.line.text("event") for each in view.recent().lines] == [
        "request.finished",
        "grant.needs_reauth",
    ]
    assert b"request.finished" not in stream.getvalue()
    [beside] = view.sinks
    assert isinstance(beside, LogSink)
    await until(lambda: not beside.tells("error"))
    emit(finished(4))
    view.look()
    assert lines_of(view.recent()).count("r4") == 0
    view.close()


def test_a_log_for_people_is_watched_as_json() -> None:
    """Always, since such a log is slow anyway: the page has what was before it was opened."""
    log = LogSink(io.BytesIO(), log_format="console", level="info")
    view = Live(log)
    fan_out(log, *view.sinks)(finished(1))
    view.look()
    assert lines_of(view.recent()) == ["r1"]


def test_a_log_that_is_fit_needs_nothing_beside_it() -> None:
    """No fact is told twice."""
    assert Live(LogSink(io.BytesIO(), log_format="json", level="debug")).sinks == ()


# --- several workers


class Worker:
    """A worker's log and what shows it."""

    def __init__(self, number: int) -> None:
        self.log = LogSink(io.BytesIO(), log_format="json", level="info", worker=number)
        self.view = Live(self.log)


@contextmanager
def two_workers(folder: Path) -> Iterator[tuple[Worker, Hub, Worker, Spoke]]:
    """The one that shows, and the other."""
    ours, theirs = Worker(0), Worker(1)
    with closing(Hub(folder, 2, ours.view)) as hub, closing(Spoke(folder, 1, theirs.view)) as spoke:
        yield ours, hub, theirs, spoke


async def test_lines_of_another_worker_come_while_somebody_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was before comes with the first call, what comes by itself after it, and then it stops."""
    monkeypatch.setattr(relay, "FORGET_S", 0.6)
    with two_workers(tmp_path) as (ours, _, theirs, spoke):
        theirs.log(finished(1))
        await ours.view.look_everywhere()
        assert lines_of(ours.view.recent()) == ["r1"]
        theirs.log(finished(2))
        await until(lambda: lines_of(ours.view.recent()) == ["r1", "r2"])
        await until(lambda: spoke._next is None)
        theirs.log(finished(3))
        await asyncio.sleep(0)
        assert len(theirs.log.recent) == 1
        await ours.view.look_everywhere()
        assert lines_of(ours.view.recent()) == ["r1", "r2", "r3"]


async def test_the_sockets_are_for_nobody_else(tmp_path: Path) -> None:
    """Only the proxy's own user can write to them, wherever the folder is."""
    with two_workers(tmp_path):
        modes = [(tmp_path / f"live-{number}").stat().st_mode & 0o777 for number in (0, 1)]
    assert modes == [0o600, 0o600]


async def test_what_a_full_socket_does_not_take_is_kept_or_counted(tmp_path: Path) -> None:
    """A hub that does not read holds up nobody, and every line comes or is counted when it does again."""
    with two_workers(tmp_path) as (ours, hub, theirs, spoke):
        number, loop, total = ours.view.number_of(None), asyncio.get_running_loop(), 5 * RECENT
        hub._call()
        await until(lambda: spoke._called_at)
        loop.remove_reader(hub._socket.fileno())
        for each in range(total):
            theirs.log(finished(each, path="/" + "x" * 3000))
            if each % 100 == 99:
                await asyncio.sleep(0)
                spoke._send(is_answer=False)
        assert spoke._unsent
        loop.add_reader(hub._socket.fileno(), hub._read)

        def came() -> int:
            glimpse = ours.view.since(number)
            return len(glimpse.lines) + glimpse.left_out

        await until(lambda: came() == total)
        assert lines_of(ours.view.recent())[-1] == f"r{total - 1}"


async def test_a_worker_that_does_not_answer_holds_up_the_page_for_a_moment(tmp_path: Path) -> None:
    """One that is gone has no lines, and one that takes its place is called like it."""
    ours = Worker(0)
    with closing(Hub(tmp_path, 2, ours.view)):
        began = monotonic()
        await ours.view.look_everywhere()
        assert monotonic() - began < 10 * relay.ANSWER_S
        for number in (1, 2):
            theirs = Worker(1)
            with closing(Spoke(tmp_path, 1, theirs.view)):
                theirs.log(finished(number))
                await ours.view.look_everywhere()
        assert lines_of(ours.view.recent()) == ["r1", "r2"]


async def test_a_page_waits_for_no_worker_that_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there as soon as the last of them has, also if there is nothing to tell."""
    monkeypatch.setattr(relay, "ANSWER_S", 60)
    with two_workers(tmp_path) as (ours, _, _, _):
        async with asyncio.timeout(5):
            await ours.view.look_everywhere()
            await ours.view.look_everywhere()


async def test_a_line_that_no_datagram_takes_is_counted(tmp_path: Path) -> None:
    """It does not keep the others from coming."""
    with two_workers(tmp_path) as (ours, _, theirs, _):
        number = ours.view.number_of(None)
        for each, length in enumerate((1, 1_000_000, 1)):
            theirs.log(finished(each, path="/" + "x" * length))
        await ours.view.look_everywhere()
        await until(lambda: lines_of(ours.view.recent()) == ["r0", "r2"])
        assert ours.view.since(number).left_out == 1


async def test_requests_of_all_workers_are_seen(prepared: Prepared) -> None:  # noqa: F811 - the fixture
    """Whichever worker a request comes to, the stream of the one that operators reach has it."""
    async with serving(prepared) as serve:
        async with streaming(serve.session, serve.admin_url, "?event=request.finished") as stream:
            sent = 20
            assert (
                await asyncio.gather(*(serve.get("/acme/v2/employees?limit=1") for _ in range(sent)))
                == [200] * sent
            )
            seen = await lines_from_all(stream, sent)
            logged = serve.process.lines("request.finished")
            assert sorted(line["request_id"] for line in seen) == sorted(
                line["request_id"] for line in logged
            )
            assert {line["worker"] for line in seen} == {0, 1}
        began = monotonic()
        await serve.stop()
        assert monotonic() - began < 10
        assert serve.process.err == ""


async def lines_from_all(stream: Stream, count: int) -> list[dict[str, Any]]:
    """As many lines, whichever worker they are from."""
    return [await stream.line() for _ in range(count)]
