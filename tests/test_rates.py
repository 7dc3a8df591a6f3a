"""Token buckets: never more than was agreed, in no minute; shared by processes, and by no two names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rates import Rate, Rates


@pytest.fixture
def rates() -> Iterator[Rates]:
    made = Rates()
    yield made
    made.close()


@pytest.mark.parametrize("per_minute", [1, 5, 60, 500, 550, 599, 600])
def test_no_minute_has_more_than_the_ceiling(per_minute: int, rates: Rates) -> None:
    """Wherever a minute begins, at most 600 pass in it, and hardly less than agreed."""
    rate, now = Rate.of(per_minute, 600), 0.0
    passed: list[float] = []
    while now < 300 and len(passed) < 4000:
        wait_s = rates.bucket("acme", rate).take(now)
        if not wait_s:
            passed.append(now)
        now += wait_s
    for first, start in enumerate(passed):
        assert sum(1 for at in passed[first : first + 700] if at < start + 60) <= 600
    assert len(passed) >= min(per_minute, 599) * 5 - 5


@given(st.lists(st.floats(0, 20), max_size=200), st.integers(1, 900))
def test_a_bucket_is_never_overdrawn(pauses: list[float], per_minute: int) -> None:
    """In any span no more pass than the burst and what came in meanwhile."""
    rates, rate, now = Rates(), Rate.of(per_minute), 1000.0
    passed: list[float] = []
    for pause in pauses:
        now += pause
        if not rates.bucket("acme", rate).take(now):
            passed.append(now)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            came_in = (passed[last] - start) / rate.interval_s
            assert last - first + 1 <= rate.burst + came_in + 1e-6
    rates.close()


def test_who_waits_as_long_as_told_gets_one(rates: Rates) -> None:
    """The answer is the time after which the next one passes, and not sooner."""
    rate = Rate.of(60)
    taken = [rates.bucket("acme", rate).take(5.0) for _ in range(13)]
    assert taken[:12] == [0.0] * 12
    assert taken[12] == pytest.approx(1.0)
    assert rates.bucket("acme", rate).take(5.99)
    assert not rates.bucket("acme", rate).take(6.01)


def test_one_names_bucket_is_no_others(rates: Rates) -> None:
    """A tenant at its limit takes nothing from another."""
    rate = Rate.of(1)
    assert not rates.bucket("acme", rate).take(0.5)
    assert rates.bucket("acme", rate).take(0.5)
    assert not rates.bucket("globex", rate).take(0.5)


def test_thousands_of_names_have_a_bucket_each(rates: Rates) -> None:
    """Names whose places collide keep apart."""
    rate = Rate.of(1)
    names = [f"t{number}" for number in range(20_000)]
    assert not any(rates.bucket(name, rate).take(1.0) for name in names)
    assert all(rates.bucket(name, rate).take(1.0) for name in names)


def test_a_full_table_refuses_nobody() -> None:
    """With more names than places some begin with a full bucket again; none is refused for it."""
    made, rate = Rates(), Rate.of(1)
    assert not any(made.bucket(f"t{number}", rate).take(1.0) for number in range(140_000))
    made.close()


def test_another_rate_holds_at_once(rates: Rates) -> None:
    """A tenant whose rate was raised need not wait for what its old one made of the bucket."""
    slow, fast = Rate.of(1), Rate.of(600)
    rates.bucket("acme", slow).take(1.0)
    assert rates.bucket("acme", slow).take(1.0) == pytest.approx(60)
    assert not rates.bucket("acme", fast).take(1.0)


ANOTHER_PROCESS = """
import sys
from pathlib import Path
from proxy.rates import Rate, Rates
rates = Rates(Path(sys.argv[1]))
print(sum(not rates.bucket("acme", Rate.of(50)).take(1.0) for _ in range(8)))
"""


def test_processes_share_their_buckets(tmp_path: Path) -> None:
    """What one process took, no other can take."""
    path = tmp_path / "rates"
    ours = Rates(path)
    assert sum(not ours.bucket("acme", Rate.of(50)).take(1.0) for _ in range(7)) == 7
    ran = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, str(path)], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) == 3
    assert ours.bucket("acme", Rate.of(50)).take(1.0)
    assert path.stat().st_mode & 0o777 == 0o600
    ours.close()
