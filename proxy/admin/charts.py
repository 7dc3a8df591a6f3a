"""Charts of requests: where their bars stand, and the same in words. Pure; ``charts.html`` draws them.

Each bar is all requests of a span, and in front of it those that failed. Sizes are in units of the drawing,
which is stretched to wherever it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.telemetry.trend import MINUTES, STEP, STEPS, Counted

HEIGHT = 40
_PITCH, _WIDTH = 4, 3
"""From bar to bar, and of one."""
_LEAST = 1.5
"""Of a bar that is not nothing: one request beside thousands still shows."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Requests of one span: its left edge, and the tops of all and of those that failed."""

    x: int
    all_y: float
    all_height: float
    failed_y: float
    failed_height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, ready to be drawn."""

    bars: tuple[Bar, ...]
    width: int
    told: str
    """What it shows, for who does not see it."""
    height: int = HEIGHT
    bar_width: int = _WIDTH


def of_minutes(minutes: Sequence[Counted]) -> Chart:
    """All requests of the last hour by the minute; the newest is at the right."""
    return _chart(minutes, MINUTES, "minute")


def of_steps(steps: Sequence[Counted]) -> Chart:
    """A tenant's requests of the last hour in spans of a few minutes."""
    return _chart(steps, STEPS, f"{STEP} minutes")


def _chart(counted: Sequence[Counted], slots: int, span: str) -> Chart:
    shown = counted[-slots:]
    most = max((each.requests for each in shown), default=0)
    begin = slots - len(shown)
    bars = tuple(_bar(begin + place, each, most) for place, each in enumerate(shown) if each.requests)
    failed = sum(each.failed for each in shown)
    total = sum(each.requests for each in shown)
    told = f"Requests of the last hour: {total}, at most {most} in {'one ' if span == 'minute' else ''}{span}"
    return Chart(bars, slots * _PITCH, f"{told}; {failed} failed")


def _bar(place: int, counted: Counted, most: int) -> Bar:
    whole = _height(counted.requests, most)
    failed = min(_height(counted.failed, most), whole)
    return Bar(place * _PITCH, _round(HEIGHT - whole), whole, _round(HEIGHT - failed), failed)


def _height(count: int, most: int) -> float:
    return _round(max(_LEAST, HEIGHT * count / most)) if count else 0.0


def _round(length: float) -> float:
    return round(length, 2)
