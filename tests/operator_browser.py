"""An operator at a browser, before the operator's listener: cookies, and the headers that browsers add."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from typing import Any

from yarl import URL

from tests.harness import ADMIN_TOKEN, Answer, Proxy

SESSION = "pleo_proxy_session"
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
"""What a browser says of a request that a page of ours made."""


async def ask(
    proxy: Proxy,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    data: Any = None,
    at: str | None = None,
) -> Answer:
    """One request to the operator's listener, or to the listener ``at`` an address."""
    url = URL(f"http://{at or proxy.app.admin_address}{path}", encoded=True)
    async with proxy.session.request(
        method, url, headers=headers, data=data, allow_redirects=False
    ) as response:
        raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
        return Answer(response.status, raw, await response.read())


class Markup(HTMLParser):
    """What a page contains."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def shown_text(answer: Answer) -> str:
    """What a reader of the page sees."""
    return " ".join(unescape(re.sub("<[^>]*>", "", answer.body.decode())).split())


class Browser:
    """Keeps cookies and tells of its own pages, as browsers do."""

    def __init__(self, proxy: Proxy, headers: Mapping[str, str] | None = None) -> None:
        self.proxy = proxy
        self.headers = dict(headers or {})
        self.cookies: dict[str, str] = {}
        self.set_cookies: list[str] = []
        """Fields of the last answer."""

    async def send(
        self, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request with the cookies; those of the answer are kept."""
        sent = {**self.headers, **OWN_PAGE, **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await ask(self.proxy, method, path, headers=sent, data=data)
        self.set_cookies = [value for name, value in answer.headers if name.lower() == "set-cookie"]
        for field in self.set_cookies:
            for name, morsel in SimpleCookie(field).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        return answer

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.send("GET", path, **options)

    async def log_in(self, token: str = ADMIN_TOKEN, back: str = "/", **options: Any) -> Answer:
        """Send the form of the login page."""
        return await self.send("POST", "/login", {"token": token, "next": back}, **options)

    async def csrf(self, path: str = "/") -> str:
        """The token that the forms of this session carry."""
        fields = Markup((await self.get(path)).body.decode()).all("input")
        found = {field["value"] for field in fields if field["name"] == "csrf"}
        (token,) = found
        assert token is not None
        return token

    async def submit(self, path: str, page: str | None = None, **fields: str) -> Answer:
        """Send a form of ours to ``path``, with the token of ``page``."""
        return await self.send("POST", path, {"csrf": await self.csrf(page or "/"), **fields})


async def logged_in(proxy: Proxy, token: str = ADMIN_TOKEN) -> Browser:
    """A browser with a session."""
    browser = Browser(proxy)
    answer = await browser.log_in(token)
    assert answer.status == 303, answer.body
    return browser
