"""How many wrong tokens are looked at, and from whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.desk import TokenDesk, TooManyFailures
from proxy.admin.lockout import MOST_OF_ALL, MOST_OF_ONE, WINDOW_S, Lockout
from proxy.admin.token import AdminTokens, digest_of
from proxy.facts import AdminLockedOut, AdminLoginFailed, Fact
from proxy.model import Role, Secret

NOW = 1_750_000_000.0
RIGHT, WRONG = Secret("right"), Secret("wrong")


def fail(lockout: Lockout, peer: str, times: int, *, at: float = NOW) -> None:
    for _ in range(times):
        lockout.failed(peer, at)


def test_the_eleventh_try_within_a_minute_waits() -> None:
    """Ten wrong tokens of one address are looked at; then it waits until the first is a minute old."""
    lockout = Lockout()
    for number in range(MOST_OF_ONE):
        assert lockout.wait_s("10.0.0.1", NOW + number) is None
        lockout.failed("10.0.0.1", NOW + number)
    assert lockout.wait_s("10.0.0.1", NOW + 10) == WINDOW_S - 10
    assert lockout.wait_s("10.0.0.1", NOW + WINDOW_S - 0.5) == 0.5
    assert lockout.wait_s("10.0.0.1", NOW + WINDOW_S) is None


def test_another_address_does_not_wait() -> None:
    """Whoever guesses locks out nobody else."""
    lockout = Lockout()
    fail(lockout, "10.0.0.1", MOST_OF_ONE)
    assert lockout.wait_s("10.0.0.1", NOW) == WINDOW_S
    assert lockout.wait_s("10.0.0.2", NOW) is None


def test_failures_that_are_spread_out_are_looked_at_for_ever() -> None:
    """Nobody is locked out for good: nine a minute may go on."""
    lockout = Lockout()
    for number in range(200):
        assert lockout.wait_s("10.0.0.1", NOW + number * 6.7) is None
        lockout.failed("10.0.0.1", NOW + number * 6.7)


def test_a_right_token_forgives_nothing() -> None:
    """Who knows one token gets no more tries at the other one by it."""
    lockout = Lockout()
    fail(lockout, "10.0.0.1", MOST_OF_ONE - 1)
    lockout.succeeded("10.0.0.1", NOW)
    assert lockout.wait_s("10.0.0.1", NOW) is None
    fail(lockout, "10.0.0.1", 1)
    assert lockout.wait_s("10.0.0.1", NOW) == WINDOW_S


def test_many_addresses_together_are_bounded_too() -> None:
    """A hundred wrong tokens a minute are looked at in all; an address with a right one lately goes on."""
    lockout = Lockout()
    lockout.succeeded("10.9.9.9", NOW - 3600)
    lockout.succeeded("10.8.8.8", NOW - 90_000)
    for number in range(MOST_OF_ALL):
        assert not lockout.is_everywhere(NOW)
        lockout.failed(f"10.0.{number}.1", NOW)
    assert lockout.is_everywhere(NOW)
    assert lockout.wait_s("10.1.1.1", NOW + 20) == WINDOW_S - 20
    assert lockout.wait_s("10.8.8.8", NOW) == WINDOW_S
    assert lockout.wait_s("10.9.9.9", NOW) is None
    assert lockout.wait_s("10.1.1.1", NOW + WINDOW_S) is None


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("", "10.0.0.1", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, is_same: bool) -> None:
    """A network of 64 bits is one holder's (RFC 6177); an IPv4 address is itself in either spelling."""
    lockout = Lockout()
    fail(lockout, one, MOST_OF_ONE)
    assert (lockout.wait_s(other, NOW) is not None) is is_same


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 30))))
def test_never_more_than_ten_of_one_address_in_a_minute(tries: list[tuple[int, float]]) -> None:
    """Whatever the rhythm, no minute sees more than ten looks at wrong tokens of one address."""
    lockout, now = Lockout(), NOW
    looked: dict[str, list[float]] = {}
    for peer, pause in tries:
        now += pause
        name = f"10.0.0.{peer}"
        if lockout.wait_s(name, now) is None:
            lockout.failed(name, now)
            looked.setdefault(name, []).append(now)
    for instants in looked.values():
        for first, eleventh in zip(instants, instants[MOST_OF_ONE:], strict=False):
            assert eleventh - first >= WINDOW_S - 1e-6


def test_what_is_remembered_is_bounded() -> None:
    """Floods from ever new addresses take no more memory than a flood from a thousand."""
    lockout = Lockout()
    for number in range(5000):
        lockout.failed(f"10.{number >> 8}.{number & 255}.1", NOW)
        lockout.succeeded(f"11.{number >> 8}.{number & 255}.1", NOW)
    assert len(lockout._of_one) == len(lockout._known) == 1024
    assert len(lockout._of_all) == MOST_OF_ALL


def desk() -> tuple[TokenDesk, list[Fact]]:
    """A desk with one right token, at a time that stands still, and what it reports."""
    tokens, facts = AdminTokens(), list[Fact]()
    tokens.take(Role.OPERATOR, digest_of(RIGHT))
    return TokenDesk(tokens, facts.append, lambda: NOW), facts


def test_a_lockout_is_reported_once() -> None:
    """Ten wrong tokens are ten facts and one more; what is not looked at leaves none."""
    at, facts = desk()
    for _ in range(MOST_OF_ONE):
        assert at.role_of(WRONG, peer="10.0.0.1", by="bearer") is None
    for _ in range(3):
        with pytest.raises(TooManyFailures) as caught:
            at.role_of(RIGHT, peer="10.0.0.1", by="form")
        assert caught.value.retry_after_s == 60
    failure = AdminLoginFailed("bearer", "10.0.0.1")
    assert facts == [failure] * MOST_OF_ONE + [AdminLockedOut("10.0.0.1", False, WINDOW_S)]


def test_a_lockout_of_strangers_is_reported_once() -> None:
    """Also where the last of the hundred came from an address that goes on, for its right token before."""
    at, facts = desk()
    assert at.role_of(RIGHT, peer="10.9.9.9", by="form") is Role.OPERATOR
    for number in range(MOST_OF_ALL - 1):
        at.role_of(WRONG, peer=f"10.0.{number}.1", by="bearer")
    for _ in range(3):
        assert at.role_of(WRONG, peer="10.9.9.9", by="bearer") is None
    assert [fact for fact in facts if isinstance(fact, AdminLockedOut)] == [
        AdminLockedOut("10.9.9.9", True, 0.0)
    ]
    with pytest.raises(TooManyFailures):
        at.role_of(RIGHT, peer="10.1.1.1", by="bearer")
    assert at.role_of(RIGHT, peer="10.9.9.9", by="bearer") is Role.OPERATOR
