"""When to leave an upstream alone that gives no answers (a circuit breaker, M. Nygard, "Release It!").

Pure decisions; the clock is handed in. Closed, all requests go. After :data:`FAILURES` in a row that got no
answer the circuit is open: nothing goes for a while, which spares callers the wait and the upstream the rush.
Then one request goes as the probe. Its answer closes the circuit; its failure opens it for twice as long.
"""

from __future__ import annotations

from collections.abc import Callable

FAILURES = 5
"""So many in a row are no accident of one connection, and callers have not waited for long."""
OPEN_S = 5.0
"""About what a restart of a server or a failover takes; nobody minds a refusal of that length."""
OPEN_MOST_S = 60.0
"""Once the upstream is back, callers are at most a minute behind."""
PROBE_S = 1.0
"""What a caller is told to wait while the probe is under way: most answers come sooner."""

ORDINARY = 0
"""The ticket of a request that is no probe."""


class Breaker:
    """Each request gets a ticket from :meth:`admit` and hands it back when it is known how it ended."""

    __slots__ = ("_clock", "_open_s", "_opened_at", "_probe", "_tickets", "_until", "failures")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.failures = 0
        """Without an answer since the last one. At 0 nothing has to be asked here."""
        self._clock = clock
        self._open_s = 0.0  # for how long it was opened last; 0: it is closed
        self._until = 0.0
        self._opened_at = 0.0
        # The probe under way by its ticket, which counts up: one of a former time must not end the next one.
        self._probe = ORDINARY
        self._tickets = ORDINARY

    @property
    def is_open(self) -> bool:
        """No request but a probe is let through."""
        return self._open_s > 0

    def refused_for(self) -> float:
        """Seconds for which requests are refused; 0 if one may go."""
        if not self.is_open:
            return 0.0
        left_s = self._until - self._clock()
        if left_s > 0:
            return left_s
        return PROBE_S if self._probe else 0.0

    def admit(self) -> int:
        """The ticket of a request that may go, as :meth:`refused_for` said; the probe's if it is one."""
        if not self.is_open:
            return ORDINARY
        self._tickets += 1
        self._probe = self._tickets
        return self._probe

    def answered(self) -> float | None:
        """An answer came, whatever its status, and closes the circuit; returns how long it was open."""
        self.failures = 0
        if not self.is_open:
            return None
        self._open_s = 0.0
        self._probe = ORDINARY
        return self._clock() - self._opened_at

    def failed(self, ticket: int) -> float | None:
        """The request got no answer; returns for how long the circuit opened, if it did."""
        self.failures += 1
        if not self.is_open:
            if self.failures < FAILURES:
                return None
            self._opened_at = self._clock()
            return self._open(OPEN_S)
        if ticket == ORDINARY or ticket != self._probe:
            return None  # it began before the circuit opened, and tells nothing new
        return self._open(min(self._open_s * 2, OPEN_MOST_S))

    def withdrawn(self, ticket: int) -> None:
        """The request ended for reasons of its own: of a probe, the next one takes the place."""
        if ticket == self._probe:
            self._probe = ORDINARY

    def _open(self, seconds: float) -> float:
        self._open_s = seconds
        self._until = self._clock() + seconds
        self._probe = ORDINARY
        return seconds
