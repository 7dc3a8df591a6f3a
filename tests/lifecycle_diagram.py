"""The states of a grant as a picture: boxes at places that were chosen, arrows that the rules say. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

Point = tuple[float, float]
_WIDTH, _HEIGHT, _BOX = 920, 590, (150.0, 46.0)
_PLACES: dict[str, Point] = {
    "none": (105, 60),
    "unverified": (105, 250),
    "connected": (440, 160),
    "refreshing": (810, 160),
    "needs_reauth": (810, 470),
    "revoked": (330, 470),
}
_BENDS: dict[tuple[str, str], float] = {
    ("connected", "refreshing"): -46,
    ("refreshing", "connected"): -46,
    ("connected", "revoked"): -34,
    ("revoked", "connected"): -34,
    ("unverified", "needs_reauth"): 40,
}
"""How far the middle of an arrow is moved to its left, in pixels, so that arrows keep apart."""
_BY_LOOK = {"a person consents": "c", "an operator revokes": "r"}
"""Events that lead from nearly every state: told by the look of their arrows, not by a label on each."""
_STYLE = """
svg { color-scheme: light dark; font: 14px system-ui, sans-serif; }
.page { fill: #fff } text { fill: #1f2328; text-anchor: middle }
rect.s { fill: #eef2ff; stroke: #3f51b5; stroke-width: 1.5 } .name { font-weight: 600 }
path.a { fill: none; stroke: #59636e; stroke-width: 1.6 } .h { fill: #59636e }
path.c { stroke: #1a7f37; stroke-dasharray: 9 5 } .hc { fill: #1a7f37 }
path.r { stroke: #b3261e; stroke-dasharray: 2 5; stroke-linecap: round } .hr { fill: #b3261e }
.l { font-size: 12.5px; paint-order: stroke; stroke: #fff; stroke-width: 5px } .k { text-anchor: start }
@media (prefers-color-scheme: dark) {
 .page { fill: #1e2129 } text { fill: #e6e8ee }
 rect.s { fill: #2c3350; stroke: #9fa8da } .l { stroke: #1e2129 }
 path.a { stroke: #a8b0bd } .h { fill: #a8b0bd }
 path.c { stroke: #5fd07f } .hc { fill: #5fd07f } path.r { stroke: #ff8a80 } .hr { fill: #ff8a80 }
}
"""


def render(arrows: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """The picture of what leads from one state to another, by events in words.

    :raises KeyError: a state has no place yet.
    """
    states = dict.fromkeys(state for pair in arrows for state in pair)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        "<title>The states of a grant and what leads from one to another</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>',
        *(line for pair, events in arrows.items() for line in _arrows(pair, events)),
        *(line for state in states for line in _box(state)),
        *_key(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _arrows(pair: tuple[str, str], events: Sequence[str]) -> Iterator[str]:
    """One arrow for events that have a look of their own, and one with labels for the others."""
    labels = [event for event in events if event not in _BY_LOOK]
    looks = [_BY_LOOK[event] for event in events if event in _BY_LOOK]
    bend = _BENDS.get(pair, 0.0)
    if labels:
        yield from _arrow(pair, "", bend, labels)
    for number, look in enumerate(looks, 1 if labels else 0):
        yield from _arrow(pair, look, bend - math.copysign(30 * number, -bend or -1), [])


def _arrow(pair: tuple[str, str], look: str, bend: float, labels: Sequence[str]) -> Iterator[str]:
    (x1, y1), (x2, y2) = (_PLACES[state] for state in pair)
    length = math.hypot(x2 - x1, y2 - y1)
    # To the left of the way, as it is seen on a page whose y grows downwards.
    middle = (x1 + x2) / 2 + (y2 - y1) / length * bend, (y1 + y2) / 2 - (x2 - x1) / length * bend
    # A quadratic curve goes through the point half-way between its chord and its control point.
    control = 2 * middle[0] - (x1 + x2) / 2, 2 * middle[1] - (y1 + y2) / 2
    start, end = _edge((x1, y1), control), _edge((x2, y2), control)
    yield f'<path class="a {look}" d="M{_xy(start)} Q{_xy(control)} {_xy(end)}"/>'
    yield f'<path class="h{look}" d="{_head(control, end)}"/>'
    for number, label in enumerate(labels):
        y = middle[1] + 4 + (number - (len(labels) - 1) / 2) * 16
        yield f'<text class="l" x="{middle[0]:.0f}" y="{y:.0f}">{escape(label)}</text>'


def _edge(centre: Point, towards: Point) -> Point:
    """Where the line from the centre of a box leaves the box, a little outside."""
    dx, dy = towards[0] - centre[0], towards[1] - centre[1]
    half = _BOX[0] / 2 + 3, _BOX[1] / 2 + 3
    scale = min(half[0] / abs(dx) if dx else math.inf, half[1] / abs(dy) if dy else math.inf)
    return centre[0] + dx * scale, centre[1] + dy * scale


def _head(control: Point, end: Point) -> str:
    angle = math.atan2(end[1] - control[1], end[0] - control[0])
    corners = [
        (end[0] - 10 * math.cos(angle + turn), end[1] - 10 * math.sin(angle + turn)) for turn in (0.42, -0.42)
    ]
    return f"M{_xy(end)} L{_xy(corners[0])} L{_xy(corners[1])} Z"


def _box(state: str) -> Iterator[str]:
    x, y = _PLACES[state]
    yield (
        f'<rect class="s" x="{x - _BOX[0] / 2:.0f}" y="{y - _BOX[1] / 2:.0f}" '
        f'width="{_BOX[0]:.0f}" height="{_BOX[1]:.0f}" rx="10"/>'
    )
    yield f'<text class="name" x="{x:.0f}" y="{y + 5:.0f}">{escape(state)}</text>'


def _key() -> Iterator[str]:
    for number, (event, look) in enumerate(_BY_LOOK.items()):
        x, y = 40 + 260 * number, _HEIGHT - 30
        yield f'<path class="a {look}" d="M{x},{y} L{x + 56},{y}"/>'
        yield f'<text class="l k" x="{x + 66}" y="{y + 4}">{escape(event)}</text>'


def _xy(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"
