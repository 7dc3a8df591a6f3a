"""That a watched page which is not in order fails its test, in each way in which it can be out of order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from aiohttp import web
from playwright.async_api import BrowserContext

from tests.browser.watching import Kind, Watch, settled, watching
from tests.harness import until

_STRICT = "img-src 'none'; style-src 'self'"
_LISTEN = "new EventSource('/stream').onmessage = () => document.title = 'It came'"
_FAULTS: dict[str, tuple[str, set[Kind]]] = {
    "console.error": ("<script>console.error('oh')</script>", {Kind.CONSOLE}),
    "console.warn": ("<script>console.warn('oh')</script>", {Kind.CONSOLE}),
    "console.assert": ("<script>console.assert(false, 'oh')</script>", {Kind.CONSOLE}),
    "throw": ("<script>throw new Error('oh')</script>", {Kind.SCRIPT}),
    "rejection": ("<script>Promise.reject(new Error('oh'))</script>", {Kind.SCRIPT}),
    "image elsewhere": ("<img src='http://{elsewhere}/fine.svg'>", {Kind.ELSEWHERE}),
    "frame elsewhere": ("<iframe src='http://{elsewhere}/fine.svg'></iframe>", {Kind.ELSEWHERE}),
    "navigation elsewhere": ("<script>location = 'http://{elsewhere}/fine.svg'</script>", {Kind.ELSEWHERE}),
    "form elsewhere": (
        "<form action='http://{elsewhere}/fine.svg'></form><script>document.forms[0].submit()</script>",
        {Kind.ELSEWHERE},
    ),
    "socket elsewhere": ("<script>new WebSocket('ws://{elsewhere}/socket')</script>", {Kind.ELSEWHERE}),
    "redirect elsewhere": ("<img src='/redirect'>", {Kind.ELSEWHERE}),
    "against the policy": ("<img src='/fine.svg'>", {Kind.POLICY, Kind.CONSOLE, Kind.FAILED}),
    "style in an attribute": ("<p style='color: red'>", {Kind.POLICY, Kind.CONSOLE}),
    "closed connection": ("<img src='/closed'>", {Kind.FAILED}),
    "no stream": ("<script>new EventSource('/closed')</script>", {Kind.FAILED}),
    "404": ("<img src='/missing'>", {Kind.REFUSED}),
    "500": ("<script>fetch('/broken')</script>", {Kind.REFUSED}),
    "404 in a frame": ("<iframe src='/missing'></iframe>", {Kind.REFUSED}),
    "in order": (f"<img src='/fine.svg'><script>{_LISTEN}</script>", set()),
    "another window": ("<script>open('/complaint')</script>", {Kind.CONSOLE}),
}
"""Pages, and what is found on them; those on policy have :data:`_STRICT`."""


def _elsewhere(request: web.Request) -> str:
    return f"localhost:{request.url.port}"


async def _page(request: web.Request) -> web.Response:
    text, kinds = _FAULTS[request.query["name"]]
    body = "<!doctype html><title>A page</title>" + text.format(elsewhere=_elsewhere(request))
    fields = {"Content-Security-Policy": _STRICT} if Kind.POLICY in kinds else {}
    return web.Response(text=body, content_type="text/html", headers=fields)


async def _complaint(_request: web.Request) -> web.Response:
    return web.Response(text="<script>console.error('oh')</script>", content_type="text/html")


async def _picture(_request: web.Request) -> web.Response:
    return web.Response(text="<svg xmlns='http://www.w3.org/2000/svg'/>", content_type="image/svg+xml")


async def _redirect(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": f"http://{_elsewhere(request)}/fine.svg"})


async def _socket(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    return socket


async def _stream(request: web.Request) -> web.StreamResponse:
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    await stream.write(b"data: 1\n\n")
    await asyncio.Event().wait()  # until the page is left
    return stream


async def _closed(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _broken(_request: web.Request) -> web.Response:
    return web.Response(status=500)


_ROUTES = {
    "/page": _page,
    "/complaint": _complaint,
    "/fine.svg": _picture,
    "/redirect": _redirect,
    "/socket": _socket,
    "/stream": _stream,
    "/closed": _closed,
    "/broken": _broken,
}
"""What else is asked for is not there."""


@pytest.fixture
async def faulty() -> AsyncIterator[str]:
    """A site whose pages are out of order."""
    server = web.Application()
    server.add_routes([web.get(path, handler) for path, handler in _ROUTES.items()])
    runner = web.AppRunner(server, access_log=None, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_each_kind_of_finding_is_found(browser: BrowserContext, faulty: str) -> None:
    """Every way in which a page can be out of order is a finding of its kind, and of no other."""
    found: dict[str, set[Kind]] = {}
    async with watching(browser, [faulty]) as watch:
        for name, (_, kinds) in _FAULTS.items():
            page = await browser.new_page()
            await page.goto(f"{faulty}/page?name={name}", wait_until="commit")
            with suppress(AssertionError):
                await until(lambda kinds=kinds: kinds <= kinds_of(watch), 5)  # type: ignore[misc]
            await settled(browser)
            found[name] = kinds_of(watch)
            for each in browser.pages[1:]:
                await each.close()
            watch.findings.clear()
    assert found == {name: kinds for name, (_, kinds) in _FAULTS.items()}


def kinds_of(watch: Watch) -> set[Kind]:
    """What kinds of findings there are."""
    return {finding.kind for finding in watch.findings}


async def test_a_finding_fails_the_test_by_its_name(browser: BrowserContext, faulty: str) -> None:
    """Nobody has to look at what was found: it is judged at the end, even if it came last."""
    page = await browser.new_page()
    with pytest.raises(AssertionError, match=r"^load that was refused: http://[\d.:]+/missing 404$"):
        async with watching(browser, [faulty]):
            await page.goto(f"{faulty}/page?name=404")


async def test_what_is_expected_is_forgotten_and_nothing_else(browser: BrowserContext, faulty: str) -> None:
    """A test that is about a complaint takes it, and still fails by another."""
    page = await browser.new_page()
    with pytest.raises(AssertionError, match=r"^error of a script: .*oh"):  # noqa: PT012 - raised at its end
        async with watching(browser, [faulty]) as watch:
            await page.goto(f"{faulty}/page?name=throw")
            await page.goto(f"{faulty}/page?name=console.error")
            assert await watch.expected(Kind.CONSOLE) == ["oh"]


async def test_what_is_in_order_is_no_finding(browser: BrowserContext, faulty: str) -> None:
    """Loads from the own host, a page that is not there, and a stream that ends as its page is left."""
    page = await browser.new_page()
    async with watching(browser, [faulty]):
        answer = await page.goto(f"{faulty}/missing")
        assert answer is not None
        assert answer.status == 404
        await page.goto(f"{faulty}/page?name=in order")
        await page.wait_for_function("() => document.title === 'It came'")
        await page.goto(f"{faulty}/fine.svg")
