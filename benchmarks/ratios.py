"""The statistics: ratios within rounds, and what a row of them comes to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.rounds import Measurement

TIMES, TO = "\u00d7", "\u2013"
"""The signs for a factor and for a range."""

Figure = Callable[[Measurement], float]
"""Which figure of a measurement is meant."""


@dataclass(frozen=True)
class Spread:
    """Median and range of a figure over the rounds."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """:raises ValueError: there are none."""
    if not values:
        raise ValueError("no values")
    return Spread(median(values), min(values), max(values))


def ratios(ours: Sequence[Measurement], theirs: Sequence[Measurement], figure: Figure) -> list[float]:
    """Ours ÷ theirs, round by round.

    :raises ValueError: the rounds are not the same.
    """
    return [figure(mine) / figure(other) for mine, other in zip(ours, theirs, strict=True)]


def differences(ours: Sequence[Measurement], theirs: Sequence[Measurement], figure: Figure) -> list[float]:
    """Ours less theirs, round by round.

    :raises ValueError: the rounds are not the same.
    """
    return [figure(mine) - figure(other) for mine, other in zip(ours, theirs, strict=True)]
