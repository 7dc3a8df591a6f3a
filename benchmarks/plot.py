"""A plot of ratios as SVG: one row for each proxy, a dot for the median, a line for the range. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.ratios import TIMES, Spread

_WIDTH, _ROW, _TOP, _BOTTOM, _LEFT, _RIGHT = 860, 30, 64, 46, 330, 110
_FACE = 'font-family="system-ui, sans-serif" role="img"'
_INK, _GREY, _PALE, _OURS = "#1f2328", "#59636e", "#d8dee4", "#c2185b"


@dataclass(frozen=True)
class Row:
    """One proxy."""

    label: str
    ratio: Spread
    ours: bool = False


def render(title: str, axis: str, rows: Sequence[Row]) -> str:
    """The plot; ratios are on a logarithmic scale, on which equal factors are equal lengths.

    :raises ValueError: no rows, or a ratio that is not above zero.
    """
    if not rows or any(row.ratio.low <= 0 for row in rows):
        raise ValueError("a plot of ratios needs rows above zero")
    height = _TOP + _ROW * len(rows) + _BOTTOM
    scale = _Scale(min(row.ratio.low for row in rows), max(row.ratio.high for row in rows))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" {_FACE}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(20, 30, title, size=16, weight="600"),
        *_grid(scale, height),
        *(part for number, row in enumerate(rows) for part in _row(scale, number, row)),
        _text(_LEFT, height - 12, axis, colour=_GREY),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    """From ratios to pixels, over whole powers of two."""

    def __init__(self, low: float, high: float) -> None:
        self.first = math.floor(math.log2(low))
        self.last = max(math.ceil(math.log2(high)), self.first + 1)

    def x(self, ratio: float) -> float:
        part = (math.log2(ratio) - self.first) / (self.last - self.first)
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 1)

    def ticks(self) -> Iterator[float]:
        yield from (2.0**power for power in range(self.first, self.last + 1))


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    for tick in scale.ticks():
        x = scale.x(tick)
        yield f'<line x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{height - _BOTTOM}" stroke="{_PALE}"/>'
        yield _text(x, height - _BOTTOM + 16, f"{tick:g}{TIMES}", colour=_GREY, anchor="middle")


def _row(scale: _Scale, number: int, row: Row) -> Iterator[str]:
    y = _TOP + _ROW * number + _ROW // 2
    colour = _OURS if row.ours else _INK
    low, middle, high = (scale.x(each) for each in (row.ratio.low, row.ratio.median, row.ratio.high))
    yield _text(
        _LEFT - 14, y + 4, row.label, colour=colour, anchor="end", weight="600" if row.ours else "400"
    )
    yield f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
    yield f'<circle cx="{middle}" cy="{y}" r="5" fill="{colour}"/>'
    yield _text(high + 12, y + 4, f"{row.ratio.median:.3g}{TIMES}", colour=colour)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 13,
    colour: str = _INK,
    anchor: str = "start",
    weight: str = "400",
) -> str:
    return (
        f'<text x="{x}" y="{y}" fill="{colour}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
