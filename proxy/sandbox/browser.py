"""The authoriser's browser: opens a link, uses the consent page, and follows the redirects back.

It reads the page's HTML and submits its form, or follows its one link, so that the page itself is used. It
keeps cookies and sends the ``Sec-Fetch-*`` fields of a browser that navigates. Must never print what it
visits: the addresses hold codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Literal
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

_MAX_STEPS = 20


@dataclass(frozen=True, slots=True)
class Visit:
    """Where the browser ended."""

    status: int
    text: str
    url: str
    history: tuple[str, ...]
    """Every address that was requested, in order, ``url`` last."""


@dataclass(slots=True)
class _Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)
    choices: dict[str, dict[str, str]] = field(default_factory=dict)
    """For each select: the option's text by its value."""


class _Forms(HTMLParser):
    """Collects the forms of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Form] = []
        self.links: list[str] = []
        self._form: _Form | None = None
        self._select = ""
        self._option = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "form":
            self._form = _Form(values.get("action", ""), values.get("method", "get").lower())
            self.forms.append(self._form)
        if self._form is None:
            return
        name, value = values.get("name", ""), values.get("value", "")
        submits = tag == "button" and values.get("type", "submit") == "submit"
        if submits or (tag == "input" and values.get("type") == "submit"):
            self._form.buttons.append((name, value))
        elif tag == "input" and name:
            self._form.fields[name] = value
        elif tag == "select":
            self._select = name
            self._form.choices[name] = {}
        elif tag == "option" and self._select:
            self._option = value
            self._form.choices[self._select][value] = ""
            if "selected" in values or self._select not in self._form.fields:
                self._form.fields[self._select] = value

    def handle_data(self, data: str) -> None:
        if self._form is not None and self._option:
            self._form.choices[self._select][self._option] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = ""
        elif tag == "option":
            self._option = ""


async def approve(
    link: str,
    *,
    company: str | None = None,
    decision: Literal["approve", "deny"] = "approve",
    session: aiohttp.ClientSession | None = None,
) -> Visit:
    """Opens ``link`` and decides on the consent page that it leads to.

    ``company`` is a company's id or name as the page lists it, or a slug of the sandbox; ``None`` leaves what
    the page preselects. A page with a single form on the way to the consent page is submitted as it is, and
    the only link of one without a form is followed, if it stays on its host. Where no consent page comes, the
    visit ends with the page that was reached.

    Raises:
        ValueError: the consent page does not offer that company.
        aiohttp.ClientError: an address could not be reached.
    """
    if session is not None:
        return await _walk(session, link, company, decision)
    jar = aiohttp.CookieJar(unsafe=True, treat_as_secure_origin=URL(link).origin())
    async with aiohttp.ClientSession(cookie_jar=jar) as own:
        return await _walk(own, link, company, decision)


async def _walk(session: aiohttp.ClientSession, link: str, company: str | None, decision: str) -> Visit:
    visit = await _navigate(session, "GET", link, {}, initiator=None, before=())
    for _ in range(_MAX_STEPS):
        page = _Forms()
        page.feed(visit.text)
        if visit.status != 200:
            return visit
        onward = _only_link(page, visit.url)
        if onward is not None:
            visit = await _navigate(session, "GET", onward, {}, initiator=visit.url, before=visit.history)
            continue
        if len(page.forms) != 1:
            return visit
        form = page.forms[0]
        consent = "consent_id" in form.fields
        values = _choose(form, company, decision) if consent else _press(form)
        target = urljoin(visit.url, form.action)
        visit = await _navigate(
            session, form.method.upper(), target, values, initiator=visit.url, before=visit.history
        )
        if consent:
            return visit
    raise RuntimeError("The pages lead nowhere.")


def _only_link(page: _Forms, url: str) -> str | None:
    here = urlsplit(url).netloc
    targets = [urljoin(url, link) for link in page.links]
    onward = [target for target in targets if urlsplit(target).netloc == here]
    return onward[0] if len(onward) == 1 and not page.forms else None


def _press(form: _Form) -> dict[str, str]:
    values = dict(form.fields)
    if form.buttons and form.buttons[0][0]:
        values[form.buttons[0][0]] = form.buttons[0][1]
    return values


def _choose(form: _Form, company: str | None, decision: str) -> dict[str, str]:
    values = dict(form.fields)
    if company is not None:
        values["company"] = _option(form.choices["company"], company)
    if ("decision", decision) not in form.buttons:
        raise ValueError(f"The consent page has no button for {decision!r}.")
    return {**values, "decision": decision}


def _option(options: dict[str, str], company: str) -> str:
    for value, text in options.items():
        if company in (value, text) or text.lower().split()[0] == company.lower():
            return value
    raise ValueError(f"The consent page does not offer the company {company!r}.")


async def _navigate(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    values: dict[str, str],
    *,
    initiator: str | None,
    before: tuple[str, ...],
) -> Visit:
    """One navigation with its redirects, each a request of its own as in a browser."""
    chain: list[str] = []
    for _ in range(_MAX_STEPS):
        if method == "GET" and values:
            url, values = str(URL(url).with_query(values)), {}
        chain.append(url)
        headers = _headers(method, initiator, chain)
        data = values if method == "POST" else None
        async with session.request(
            method, URL(url, encoded=True), data=data, headers=headers, allow_redirects=False
        ) as response:
            text = await response.text(errors="replace")
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or location is None:
                return Visit(response.status, text, url, (*before, *chain))
            if response.status in (301, 302, 303):
                method, values = "GET", {}
            url = urljoin(url, location)
    raise RuntimeError("The redirects lead nowhere.")


def _headers(method: str, initiator: str | None, chain: list[str]) -> dict[str, str]:
    headers = {
        "Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": _site(initiator, chain),
        "Sec-Fetch-User": "?1",
    }
    if method == "POST" and initiator is not None:
        headers["Origin"] = str(URL(initiator).origin())
    return headers


def _site(initiator: str | None, chain: list[str]) -> str:
    """The relation that a browser reports: the farthest of all addresses in the chain."""
    if initiator is None:
        return "none"
    start = urlsplit(initiator)
    hops = [urlsplit(url) for url in chain]
    if all((hop.scheme, hop.netloc) == (start.scheme, start.netloc) for hop in hops):
        return "same-origin"
    # A site is a scheme and a registrable domain; with the sandbox's bare hosts that is the host itself.
    if all((hop.scheme, hop.hostname) == (start.scheme, start.hostname) for hop in hops):
        return "same-site"
    return "cross-site"
