"""The pictures in the documents: one of each page, of the right size, and the page that shows them."""

from __future__ import annotations

from base64 import b64encode

from playwright.async_api import BrowserContext, ViewportSize

from tests.browser.screenshots import DOCUMENT, LONGEST, PICTURES, SIZES, document, names, picture, size_of

ANEW = "run `make screenshots`, and look at what it made"
MOST_BYTES = 3_000_000
"""Of all: whoever clones the repository gets them."""


def test_each_page_has_its_pictures_and_nothing_else_has() -> None:
    """On a screen and on a phone; a page that is gone leaves none."""
    assert {path.name for path in PICTURES.iterdir()} == names().keys(), ANEW


def test_pictures_have_the_width_of_what_they_show() -> None:
    """A whole screen, at least as high and no longer than somebody looks at."""
    for name, (_, size, _) in names().items():
        width, height = size_of(PICTURES / name)
        assert width == SIZES[size]["width"], name
        assert SIZES[size]["height"] <= height <= LONGEST, name


def test_pictures_are_small() -> None:
    """All of them together."""
    assert sum(path.stat().st_size for path in PICTURES.iterdir()) < MOST_BYTES


def test_one_page_shows_them_all() -> None:
    """Each under what it is."""
    assert DOCUMENT.read_text() == document(), ANEW


PIXEL = """async (png) => {
    const answer = await fetch(`data:image/png;base64,${png}`);
    const shown = await createImageBitmap(await answer.blob());
    const context = new OffscreenCanvas(shown.width, shown.height).getContext('2d');
    context.drawImage(shown, 0, 0);
    const at = (x, y) => [...context.getImageData(x, y, 1, 1).data];
    return [shown.width, shown.height, at(10, 10), at(10, 60), at(99, 60)];
}"""


async def test_a_picture_is_what_the_page_shows(browser: BrowserContext) -> None:
    """Few colours exactly, and of too many the nearest that are kept."""
    page, canvas = await browser.new_page(), await browser.new_page()
    for ground, tolerance in (
        ("rgb(0, 0, 255)", 0),
        ("linear-gradient(90deg, rgb(255 0 0), rgb(0 255 0))", 3),
    ):
        await page.set_content(
            f"<body style='margin: 0; background: rgb(18 52 86)'><div style='height: 50px'></div>"
            f"<div style='height: 50px; background: {ground}'></div>"
        )
        made = await picture(page, canvas, ViewportSize(width=600, height=100))
        await canvas.goto("about:blank")
        width, height, above, left, right = await canvas.evaluate(PIXEL, b64encode(made).decode())
        assert (width, height, above) == (600, 100, [18, 52, 86, 255])
        expected = ([0, 0, 255], [0, 0, 255]) if tolerance == 0 else ([251, 4, 0], [213, 42, 0])
        for found, wanted in zip((left, right), expected, strict=True):
            assert max(abs(one - other) for one, other in zip(found, wanted, strict=False)) <= tolerance
