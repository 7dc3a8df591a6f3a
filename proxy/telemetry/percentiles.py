"""Percentiles of what was only counted in buckets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf


def percentile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """An estimate of the value below which ``share`` of all values are; it lies in the right bucket.

    Within a bucket values are taken to be spread evenly, as Prometheus' ``histogram_quantile`` does.

    :param bounds: upper bounds of the buckets, rising; each bucket has its own bound in it.
    :param counts: how many values each has, and after them how many are beyond the last bound.
    :param share: more than 0, at most 1.
    :returns: ``inf`` where it is beyond the last bound, ``None`` where nothing was counted.
    """
    total = sum(counts)
    if total <= 0:
        return None
    wanted, below, lower = share * total, 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below += count
        lower = bound
    return inf
