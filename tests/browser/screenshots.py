"""Pictures of every page for the documents: ``make screenshots`` writes them and the page that shows them.

Each is an 8-bit PNG of at most 256 colours, a third of the size of what the browser writes.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import zlib
from base64 import b64decode, b64encode
from pathlib import Path
from struct import pack, unpack
from typing import Any

from playwright.async_api import FloatRect, Page, ViewportSize

from tests.browser.browsers import CHROMIUM, chromium
from tests.browser.looking import PHONE, WIDE
from tests.browser.scene import scene
from tests.browser.tour import STOPS, tour
from tests.browser.watching import watching

DOCS = Path(__file__).parent.parent.parent / "docs"
PICTURES, DOCUMENT = DOCS / "screenshots", DOCS / "screenshots.md"
SIZES = {"desktop": WIDE, "phone": PHONE}
BY_NIGHT = ("overview", "tenant", "live", "authoriser")
"""Stops that are pictured in the dark, too."""
LONGEST = 2200
"""Pixels of height. Of what goes on longer nothing new is seen below."""
PORTS = {"proxy": "127.0.0.1:8080", "admin": "127.0.0.1:8081", "public_url": "http://127.0.0.1:8081"}
"""As in all documents."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = 256

_INDEXED = """async ([png, most]) => {
    const picture = await createImageBitmap(new Blob([Uint8Array.from(atob(png), (c) => c.charCodeAt(0))]));
    const canvas = new OffscreenCanvas(picture.width, picture.height);
    const context = canvas.getContext('2d');
    context.drawImage(picture, 0, 0);
    const pixels = new Uint32Array(context.getImageData(0, 0, picture.width, picture.height).data.buffer);
    const counts = new Map();
    for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) || 0) + 1);
    const colours = [...counts.keys()].sort((one, other) => counts.get(other) - counts.get(one));
    const parts = (colour) => [colour & 255, (colour >> 8) & 255, (colour >> 16) & 255];
    const distance = (one, other) => parts(one).reduce(
        (sum, part, place) => sum + (part - parts(other)[place]) ** 2, 0);
    let kept = [], least = 0;
    do {
        kept = [];
        for (const colour of colours) {
            if (kept.every((each) => distance(each, colour) > least)) kept.push(colour);
            if (kept.length > most) break;
        }
        least = least * 2 || 1;
    } while (kept.length > most);
    const index = new Map(kept.map((colour, place) => [colour, place]));
    for (const colour of colours) {
        if (index.has(colour)) continue;
        const nearest = kept.reduce(
            (one, other) => distance(other, colour) < distance(one, colour) ? other : one);
        index.set(colour, index.get(nearest));
    }
    let text = '';
    const places = Uint8Array.from(pixels, (pixel) => index.get(pixel));
    for (let at = 0; at < places.length; at += 8192) {
        text += String.fromCharCode(...places.subarray(at, at + 8192));
    }
    return [picture.width, picture.height, kept.flatMap(parts), btoa(text)];
}"""
"""Width, height, palette and pixels of a picture: of colours that are hardly different the most frequent."""


def png(width: int, height: int, palette: bytes, places: bytes) -> bytes:
    """A picture whose pixels are places in ``palette`` (PNG, third edition, colour type 3)."""
    rows = b"".join(b"\0" + places[at : at + width] for at in range(0, len(places), width))
    header = pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return SIGNATURE + b"".join(
        pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    head = picture.read_bytes()[:24]
    assert head.startswith(SIGNATURE), picture
    width, height = unpack(">II", head[16:])
    return width, height


def names() -> dict[str, tuple[str, str, str]]:
    """File of each picture, and what it shows: stop, size and scheme."""
    pictures = {f"{stop}-{size}": (stop, size, "light") for stop in STOPS for size in SIZES}
    dark = {f"{stop}-{size}-dark": (stop, size, "dark") for stop in BY_NIGHT for size in SIZES}
    return {f"{name}.png": shown for name, shown in (pictures | dark).items()}


def document() -> str:
    """The page that shows all of them."""
    parts = [_HEAD]
    for stop, title in STOPS.items():
        parts.append(f"## {title}\n")
        for scheme in ("", "-dark") if stop in BY_NIGHT else ("",):
            night = " by night" if scheme else ""
            parts.append(f"![{title}, on a screen{night}](screenshots/{stop}-desktop{scheme}.png)")
            parts.append(f"![{title}, on a phone{night}](screenshots/{stop}-phone{scheme}.png)\n")
    return "\n".join(parts)


_HEAD = """# What people see

Every page, on a screen and on a phone, as `make screenshots` finds it with tenants in each state. The
companies are made up, and so is the Pleo that they are connected to. Long pages are cut.
"""


async def picture(page: Page, canvas: Page, size: ViewportSize) -> bytes:
    """The page as a whole, or its upper part."""
    await page.set_viewport_size(size)
    height = await page.evaluate("() => document.documentElement.scrollHeight")
    clip = FloatRect(x=0, y=0, width=size["width"], height=max(size["height"], min(height, LONGEST)))
    taken = await page.screenshot(clip=clip, full_page=True, animations="disabled")
    width, height, palette, places = await canvas.evaluate(_INDEXED, [b64encode(taken).decode(), COLOURS])
    return png(width, height, bytes(palette), b64decode(places))


async def take(folder: Path, listen: dict[str, Any]) -> None:
    """Walk past every page and write its pictures."""
    wanted = names()
    with tempfile.TemporaryDirectory(prefix="pleo-proxy-") as state:
        async with (
            scene(Path(state), listen=listen) as proxy,
            chromium(CHROMIUM, {}) as browser,
            watching(browser, (proxy.admin_url, proxy.pleo.auth_url)),
        ):
            canvas, page = await browser.new_page(), await browser.new_page()
            async for stop in tour(page, proxy):
                for name, (shown, size, scheme) in wanted.items():
                    if shown == stop:
                        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                        (folder / name).write_bytes(await picture(page, canvas, SIZES[size]))


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.png"):
        old.unlink()
    asyncio.run(take(PICTURES, PORTS))
    DOCUMENT.write_text(document())
    total = sum(path.stat().st_size for path in PICTURES.iterdir())
    sys.stdout.write(f"{len(names())} pictures, {total // 1024} KiB\n")
