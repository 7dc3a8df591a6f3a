"""Token buckets by name, which the processes that serve the same ports share.

A bucket is kept as the instant at which it will be full again (the "theoretical arrival time" of the generic
cell rate algorithm, ITU-T I.371): one number, so that taking from it is one comparison and one store. Without
a file the numbers are this process's own. Two processes that take at the same instant may both get the last
token of a bucket; nothing else is lost for want of a lock. Knows nothing of tenants.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

_SLOTS = 1 << 17
"""Names that have a bucket each; more than any number of tenants that one machine serves."""
_PROBES = 64
_NUMBER_BYTES = 8


@dataclass(frozen=True, slots=True)
class Rate:
    """How many in a minute, and how many of them at once."""

    interval_s: float
    """Between two tokens that come in."""
    burst: int
    """Tokens in a full bucket."""

    @classmethod
    def of(cls, per_minute: int, ceiling: int | None = None) -> Rate:
        """A fifth of a minute's requests may come at once, since tools work in bursts.

        :param ceiling: never exceeded in any minute, wherever it begins; the burst counts towards it.
        """
        burst = max(1, per_minute // 5)
        if ceiling is not None:
            burst = max(1, min(burst, ceiling - per_minute))
            per_minute = max(1, min(per_minute, ceiling - burst))
        return cls(60.0 / per_minute, burst)


class Rates:
    """The buckets.

    :param path: the file that processes share; it is made if it is absent.
    """

    def __init__(self, path: Path | None = None) -> None:
        size = 2 * _SLOTS * _NUMBER_BYTES
        descriptor = -1
        if path is not None:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(descriptor, size)  # pages that nobody writes to take no memory
        try:
            self._map = mmap.mmap(descriptor, size)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        view = memoryview(self._map)
        self._names = view[: size // 2].cast("Q")
        self._full_at = view[size // 2 :].cast("d")

    def take(self, name: str, rate: Rate, now: float) -> float:
        """Take one token from the bucket of ``name``.

        :param now: seconds of a clock that all processes share and that never goes back.
        :returns: 0, or in how many seconds there will be one; then nothing was taken.
        """
        slot = self._slot(name)
        full_at = self._full_at[slot]
        most = rate.interval_s * rate.burst
        if not now <= full_at <= now + most + rate.interval_s:
            full_at = now  # full for a while, or of a slower rate
        wait_s = full_at + rate.interval_s - now - most
        if wait_s > 1e-9:
            return wait_s
        self._full_at[slot] = full_at + rate.interval_s
        return 0.0

    def close(self) -> None:
        """Let go of the file."""
        self._names.release()
        self._full_at.release()
        self._map.close()

    def _slot(self, name: str) -> int:
        mark = int.from_bytes(blake2b(name.encode(), digest_size=_NUMBER_BYTES).digest(), "big") or 1
        first = mark % _SLOTS
        names = self._names
        for probe in range(_PROBES):
            slot = (first + probe) % _SLOTS
            if names[slot] == mark:
                return slot
            if not names[slot]:
                names[slot] = mark
                if names[slot] == mark:  # else another process was faster with another name
                    return slot
        names[first] = mark  # no room: somebody loses a bucket, which begins full again
        self._full_at[first] = 0.0
        return first
