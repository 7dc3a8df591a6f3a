"""Every page as it looks to axe-core, by contrast and by width: on a screen and a phone, by day and night."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Template
from jinja2.meta import find_referenced_templates
from playwright.async_api import BrowserContext

from proxy.admin import answers
from tests.browser.looking import BETWEEN, PHONE, SCHEMES, WIDE, faults_of_look, faults_of_width
from tests.browser.scene import scene
from tests.browser.tour import STOPS, tour
from tests.browser.watching import watching

TEMPLATES = Path(str(files("proxy.admin").joinpath("templates")))
FAULTY = {
    "<p>Nothing is wrong here</p>": [],
    "<div style='width: 5000px; height: 1px'></div>": [
        "3728 px must be scrolled sideways",
        "sticks out of its frame",
    ],
    "<p style='color: #bbb; background: #ccc'>pale</p>": ["weak contrast", "serious color-contrast"],
    "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>": ["critical image-alt"],
    "<input name='nameless'>": ["critical label"],
    "<a href='/'></a>": ["serious link-name"],
    "<h3>Two levels down</h3>": ["moderate heading-order"],
}
"""What has faults, and how they are told."""


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the templates that pages are made of, one after another."""
    names: list[str] = []
    real = answers._templates.get_template

    def get(name: str, parent: str | None = None, values: Any = None) -> Template:
        if parent is None:
            names.append(name)
        return real(name, parent, values)

    monkeypatch.setattr(answers._templates, "get_template", get)
    return names


def pages() -> set[str]:
    """Templates that are pages, and no part of one."""
    sources = {path.name: path.read_text() for path in TEMPLATES.glob("*.html")}
    parts = {
        part
        for text in sources.values()
        for part in find_referenced_templates(answers._templates.parse(text))
    }
    return sources.keys() - parts


async def test_every_page_can_be_used_by_everybody(
    browser: BrowserContext, tmp_path: Path, rendered: list[str]
) -> None:
    """At each stop, by day and by night, wide and narrow, nothing is wrong; and no page is left out."""
    faults: list[str] = []
    stops: list[str] = []
    seen: set[str] = set()
    async with scene(tmp_path) as proxy, watching(browser, (proxy.admin_url, proxy.pleo.auth_url)):
        page = await browser.new_page()
        async for name in tour(page, proxy):
            stops.append(name)
            seen.add(rendered[-1])
            for width in BETWEEN:
                await page.set_viewport_size({"width": width, "height": WIDE["height"]})
                faults += [f"{name}, {width} px: {fault}" for fault in await faults_of_width(page)]
            for size in (WIDE, PHONE):
                await page.set_viewport_size(size)
                for scheme in SCHEMES:
                    await page.emulate_media(color_scheme=scheme)
                    found = await faults_of_look(page)
                    faults += [f"{name}, {size['width']} px, {scheme}: {fault}" for fault in found]
    assert faults == []
    assert stops == list(STOPS)
    assert pages() - seen == set(), "templates that the walk leaves out"


async def test_faults_of_look_are_found(browser: BrowserContext) -> None:
    """What is looked for is found where it is, and only there."""
    page = await browser.new_page()
    await page.set_viewport_size(WIDE)
    found = {}
    for text in FAULTY:
        await page.set_content(f"<!doctype html><html lang=en><title>x</title><main><h1>x</h1>{text}</main>")
        found[text] = [told.partition(":")[0] for told in await faults_of_look(page)]
    assert found == FAULTY
