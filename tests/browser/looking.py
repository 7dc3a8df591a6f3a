"""What is wrong with how a page looks: findings of axe-core, weak contrast, and what is too wide."""

from __future__ import annotations

from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Page, ViewportSize

WIDE, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
BETWEEN = (700, 1089, 1240)
"""Widths in pixels at which a page is laid out in other ways."""
_OVERFLOW = "() => document.scrollingElement.scrollWidth - innerWidth"
_STICKS_OUT = """() => {
    const main = document.querySelector('main');
    const edge = main.getBoundingClientRect().right - parseFloat(getComputedStyle(main).paddingRight);
    const out = [...main.querySelectorAll('*')].find((each) => each.getBoundingClientRect().right > edge + 1);
    return out && `${out.tagName} ${out.textContent.trim().slice(0, 40)}`;
}"""
_WEAK = """() => {
    const lightness = (colour) => {
        const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (!colour.endsWith(', 0)')) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const weak = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own) continue;
        const [one, other] = [getComputedStyle(element).color, ground(element)].map(lightness);
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) weak.push(`${element.tagName} ${element.textContent.trim()} ${ratio}`);
    }
    return weak;
}"""
"""Texts with less contrast than WCAG 2.2 asks for (success criterion 1.4.3), also where axe is not sure."""
_AXE_IS_THERE = "() => 'axe' in window"
_AXE = "() => axe.run(document, {resultTypes: ['violations']})"


async def faults_of_width(page: Page) -> list[str]:
    """What is too wide for the page as it is shown now."""
    faults = []
    if (overflow := await page.evaluate(_OVERFLOW)) > 0:
        faults.append(f"{overflow} px must be scrolled sideways")
    if out := await page.evaluate(_STICKS_OUT):
        faults.append(f"sticks out of its frame: {out}")
    return faults


async def faults_of_look(page: Page) -> list[str]:
    """Everything that is wrong with the page as it is shown now."""
    faults = await faults_of_width(page)
    faults += [f"weak contrast: {text}" for text in await page.evaluate(_WEAK)]
    if not await page.evaluate(_AXE_IS_THERE):
        await page.evaluate(AXE_SCRIPT)
    return faults + [_told(violation) for violation in (await page.evaluate(_AXE))["violations"]]


def _told(violation: dict[str, Any]) -> str:
    places = ", ".join(str(node["target"]) for node in violation["nodes"])
    return f"{violation['impact']} {violation['id']}: {violation['help']}: {places}"
