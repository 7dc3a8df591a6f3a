"""The circuit breaker as a state machine: a table of lives, and what holds in every one."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from proxy.upstream.breaker import FAILURES, OPEN_MOST_S, OPEN_S, ORDINARY, PROBE_S, Breaker


class Clock:
    """A clock that tests move."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


LIVES = {
    "answers-only": "a a a",
    "four-failures": "f f f f ok",
    "an-answer-starts-the-count-anew": "f f f f a f f f f ok",
    "five-failures": "f f f f f no",
    "refused-to-the-last-moment": "f f f f f +4.99 no",
    "one-probe-at-a-time": "f f f f f +5 probe no no",
    "an-answer-to-the-probe-closes": "f f f f f +5 probe a ok ok",
    "closed-again-it-counts-anew": "f f f f f +5 probe a f f f f ok f no",
    "a-failed-probe-opens-for-longer": "f f f f f +5 probe pf no +9.99 no +0.02 probe no",
    "doubled-up-to-a-minute": (
        "f f f f f +5 probe pf +10 probe pf +20 probe pf +40 probe pf +59.99 no +0.02 probe pf +59.99 no "
        "+0.02 probe"
    ),
    "a-cancelled-probe-lets-the-next-one-go": "f f f f f +5 probe pw ok",
    "late-failures-change-nothing": "f f f f f f f +5 probe f no pf no",
    "a-late-answer-closes": "f f f f f a ok",
    "a-probe-that-fails-after-a-late-answer-is-one-failure": "f f f f f +5 probe a pf ok ok",
    "cancelled-requests-do-not-count": "f f f f w w w w ok",
}
"""f: an ordinary request fails; a: an answer comes; w: one is cancelled; pf, pw: the probe fails, or is; ok,
no and probe: what the next request is told; +n: n seconds pass."""


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_life_of_a_circuit(life: str) -> None:
    """Each step of the table leaves the circuit as the table says."""
    clock = Clock()
    breaker = Breaker(clock)
    probe = ORDINARY
    for number, step in enumerate(life.split()):
        match step:
            case "f":
                breaker.failed(ORDINARY)
            case "w":
                breaker.withdrawn(ORDINARY)
            case "a":
                breaker.answered()
            case "pf":
                breaker.failed(probe)
            case "pw":
                breaker.withdrawn(probe)
            case "ok":
                assert breaker.refused_for() == 0, (number, step)
            case "no":
                assert breaker.refused_for() > 0, (number, step)
            case "probe":
                assert breaker.refused_for() == 0, (number, step)
                probe = breaker.admit()
                assert probe != ORDINARY
            case _:
                clock.now += float(step)


def test_what_is_reported() -> None:
    """Opening tells for how long, closing how long it was open in all; nothing else tells anything."""
    clock = Clock()
    breaker = Breaker(clock)
    assert [breaker.failed(ORDINARY) for _ in range(FAILURES)] == [None] * (FAILURES - 1) + [OPEN_S]
    clock.now += OPEN_S
    probe = breaker.admit()
    assert breaker.refused_for() == PROBE_S
    assert breaker.failed(probe) == 2 * OPEN_S
    clock.now += 2 * OPEN_S
    breaker.admit()
    assert breaker.answered() == 3 * OPEN_S
    assert breaker.answered() is None


class Circuit(RuleBasedStateMachine):
    """Requests begin, end and are cancelled in any order while time passes."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(self.clock)
        self.probes: set[int] = set()
        self.refuses_until = 0.0

    @rule(target=tickets)
    def begins(self) -> int:
        if self.breaker.refused_for():
            return ORDINARY  # as one that began before
        ticket = self.breaker.admit()
        if ticket:
            assert not self.probes, "two probes at once"
            assert self.clock.now >= self.refuses_until, "a probe went too early"
            self.probes.add(ticket)
        return ticket

    @rule(ticket=consumes(tickets))
    def fails(self, ticket: int) -> None:
        was_open = self.breaker.is_open
        opened_s = self.breaker.failed(ticket)
        assert not (was_open and opened_s) or ticket in self.probes, "a late failure prolonged it"
        if opened_s is not None:
            assert OPEN_S <= opened_s <= OPEN_MOST_S
            self.refuses_until = self.clock.now + opened_s
        self.probes.discard(ticket)

    @rule(_=consumes(tickets))
    def is_answered(self, _: int) -> None:
        self.breaker.answered()
        self.probes.clear()
        assert not self.breaker.is_open
        assert self.breaker.failures == 0
        assert self.breaker.refused_for() == 0

    @rule(ticket=consumes(tickets))
    def is_cancelled(self, ticket: int) -> None:
        self.breaker.withdrawn(ticket)
        self.probes.discard(ticket)

    @rule(seconds=st.floats(0.1, 70))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def is_never_stuck(self) -> None:
        """Without a probe under way, a request goes as soon as the time is over."""
        refused_s = self.breaker.refused_for()
        if not self.probes:
            assert refused_s == pytest.approx(
                max(0.0, self.refuses_until - self.clock.now) * self.breaker.is_open
            )

    @invariant()
    def opens_only_after_failures(self) -> None:
        """A circuit is open only while nothing but failures came."""
        assert not self.breaker.is_open or self.breaker.failures >= FAILURES


TestCircuit = Circuit.TestCase
