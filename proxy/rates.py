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
        self.names = view[: size // 2].cast("Q")
        self.full_at = view[size // 2 :].cast("d")

    def bucket(self, name: str, rate: Rate) -> Bucket:
        """The bucket of ``name``, which is one and the same in all processes."""
        return Bucket(self, name, rate)

    def close(self) -> None:
        """Let go of the file."""
        self.names.release()
        self.full_at.release()
        self._map.close()

    def slot(self, mark: int) -> int:
        """Where the bucket of a name with this hash is."""
        first = mark % _SLOTS
        names = self.names
        for probe in range(_PROBES):
            slot = (first + probe) % _SLOTS
            if names[slot] == mark:
                return slot
            if not names[slot]:
                names[slot] = mark
                if names[slot] == mark:  # else another process was faster with another name
                    return slot
        names[first] = mark  # no room: somebody loses a bucket, which begins full again
        self.full_at[first] = 0.0
        return first


class Bucket:
    """One token bucket; made by :meth:`Rates.bucket`."""

    __slots__ = ("_interval_s", "_mark", "_most_s", "_rates", "_slot")

    def __init__(self, rates: Rates, name: str, rate: Rate) -> None:
        self._rates = rates
        self._mark = int.from_bytes(blake2b(name.encode(), digest_size=_NUMBER_BYTES).digest(), "big") or 1
        self._slot = rates.slot(self._mark)
        self._interval_s = rate.interval_s
        self._most_s = rate.interval_s * rate.burst

    def take(self, now: float) -> float:
        """Take one token.

        :param now: seconds of a clock that all processes share and that never goes back.
        :returns: 0, or in how many seconds there will be one; then nothing was taken.
        """
        rates, slot, interval_s, most_s = self._rates, self._slot, self._interval_s, self._most_s
        if rates.names[slot] != self._mark:  # somebody else's by now
            slot = self._slot = rates.slot(self._mark)
        full_at: float = rates.full_at[slot]
        if not now <= full_at <= now + most_s + interval_s:
            full_at = now  # full for a while, or of a slower rate
        wait_s = full_at + interval_s - now - most_s
        if wait_s > 1e-9:
            return wait_s
        rates.full_at[slot] = full_at + interval_s
        return 0.0
