"""A browser that is watched: whatever a page complains of, asks elsewhere or does not get is a finding.

By the whole context, so that windows which a page opens are watched, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import (
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    Response,
    WebError,
    WebSocket,
)

from tests.harness import until

_BREACH = "reportBreachOfPolicy"
_LISTEN = f"""document.addEventListener('securitypolicyviolation', (event) =>
    window.{_BREACH}(`${{event.effectiveDirective}} forbids ${{event.blockedURI}}`))"""
_NOT_LOADED = "Failed to load resource:"
"""How the console begins what :class:`Watch` hears of from the request or the answer."""
_NAVIGATIONS = 5
"""Most, one after another, that a page is waited for."""


class Kind(StrEnum):
    """What is wrong with a page."""

    CONSOLE = "complaint on the console"
    SCRIPT = "error of a script"
    ELSEWHERE = "request to another host"
    POLICY = "breach of the content security policy"
    FAILED = "request without an answer"
    REFUSED = "load that was refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass
class Watch:
    """Everything that was wrong so far."""

    hosts: frozenset[str]
    """Hosts with ports that pages may ask."""
    findings: list[Finding] = field(default_factory=list)

    async def expected(self, *kinds: Kind) -> list[str]:
        """Wait for findings of these kinds, which a test is about; they are forgotten then."""
        await until(lambda: set(kinds) <= {finding.kind for finding in self.findings})
        texts = [finding.text for finding in self.findings if finding.kind in kinds]
        self.findings[:] = [finding for finding in self.findings if finding.kind not in kinds]
        return texts

    def _note(self, kind: Kind, text: str) -> None:
        self.findings.append(Finding(kind, text))

    def hear_console(self, said: ConsoleMessage) -> None:
        if said.type in {"error", "warning", "assert"} and not said.text.startswith(_NOT_LOADED):
            self._note(Kind.CONSOLE, said.text)

    def hear_script(self, error: WebError) -> None:
        self._note(Kind.SCRIPT, str(error.error))

    def hear_request(self, request: Request) -> None:
        self._check_host(request.url)

    def hear_failure(self, request: Request) -> None:
        # The browser gave it up itself, since the page was left.
        if request.failure != "net::ERR_ABORTED":
            self._note(Kind.FAILED, f"{request.url} {request.failure}")

    def hear_answer(self, response: Response) -> None:
        # A page may say that something is not there; what it consists of must be.
        if response.status >= 400 and not _is_page(response.request):
            self._note(Kind.REFUSED, f"{response.url} {response.status}")

    def hear_page(self, page: Page) -> None:
        page.on("websocket", self.hear_socket)

    def hear_socket(self, socket: WebSocket) -> None:
        self._check_host(socket.url)

    def hear_breach(self, _source: dict[str, Any], text: str) -> None:
        self._note(Kind.POLICY, text)

    def _check_host(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"about", "data", "blob"} and parts.netloc not in self.hosts:
            self._note(Kind.ELSEWHERE, url)


@asynccontextmanager
async def watching(context: BrowserContext, origins: Iterable[str]) -> AsyncIterator[Watch]:
    """Watch all pages of ``context``, which may ask ``origins`` alone; a finding fails it at the end."""
    watch = Watch(frozenset(urlsplit(origin).netloc for origin in origins))
    await context.expose_binding(_BREACH, watch.hear_breach)
    await context.add_init_script(_LISTEN)
    context.on("page", watch.hear_page)
    context.on("console", watch.hear_console)
    context.on("weberror", watch.hear_script)
    context.on("request", watch.hear_request)
    context.on("requestfailed", watch.hear_failure)
    context.on("response", watch.hear_answer)
    yield watch
    await settled(context)
    assert not watch.findings, "\n".join(map(str, watch.findings))


async def settled(context: BrowserContext) -> None:
    """Wait until all that pages have reported by now has been heard: their answer comes after it."""
    await asyncio.gather(*map(_answered, context.pages))


async def _answered(page: Page) -> None:
    for _ in range(_NAVIGATIONS):
        # A page that is being left does not answer; that it leads to does.
        with suppress(Error):
            await page.evaluate("() => null")
            return


def _is_page(request: Request) -> bool:
    """Whether it is for a page as a whole, and for no part of one."""
    if not request.is_navigation_request():
        return False
    try:
        return request.frame.parent_frame is None
    except Error:  # a window that is about to open
        return True
