"""The life of a grant: when its token may be used, and what each event makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import lifecycle
from proxy.lifecycle import After401, Lease, NewPair, Schedule, Standing, Takeover, Windows
from proxy.model import Grant, GrantState, Outcome, Sealed

WINDOWS = Windows(advisory=0.8, advisory_jitter=0.1, mandatory_s=30.0, mandatory=0.05, keep_alive=0.5)
DAY = 86400.0


def plan(
    lifetime: float, *, draw: float = 0.0, windows: Windows = WINDOWS, issued_at: float = 0.0
) -> Schedule:
    """The plan of a token with this lifetime and a refresh token of 60 days."""
    return lifecycle.schedule(
        windows,
        issued_at=issued_at,
        expires_at=issued_at + lifetime,
        refresh_expires_at=issued_at + 60 * DAY,
        draw=draw,
    )


# --- when a token may be used


@pytest.mark.parametrize(
    ("lifetime", "draw", "expected"),
    [
        pytest.param(900.0, 0.0, (720.0, 870.0, 900.0), id="quarter-hour"),
        pytest.param(900.0, 0.5, (765.0, 870.0, 900.0), id="quarter-hour-jittered"),
        pytest.param(3600.0, 0.0, (2880.0, 3570.0, 3600.0), id="hour"),
        pytest.param(60.0, 0.0, (48.0, 57.0, 60.0), id="minute-has-its-fraction"),
        pytest.param(1.0, 0.0, (0.8, 0.95, 1.0), id="second"),
        pytest.param(0.0, 0.5, (0.0, 0.0, 0.0), id="born-expired"),
    ],
)
def test_a_tokens_schedule(lifetime: float, draw: float, expected: tuple[float, float, float]) -> None:
    """Due from 80 % with jitter; callers wait in the last 30 seconds or 5 %, whichever is shorter."""
    made = plan(lifetime, draw=draw)
    assert (made.advisory_at, made.mandatory_at, made.expires_at) == pytest.approx(expected)
    assert made.keep_alive_at == 30 * DAY


FRACTIONS = st.floats(0, 1)
ANY_WINDOWS = st.builds(Windows, FRACTIONS, FRACTIONS, st.floats(0, 1e6), FRACTIONS, FRACTIONS)
INSTANTS = st.floats(0, 4e9)
DRAWS = st.floats(0, 1, exclude_max=True)


@given(ANY_WINDOWS, INSTANTS, st.floats(-1e4, 1e9), DRAWS)
def test_the_moments_of_a_token_are_in_order(
    windows: Windows, issued_at: float, lifetime: float, draw: float
) -> None:
    """Advisory, then mandatory, then the end, for any settings, lifetime and draw, even a negative one."""
    made = plan(lifetime, draw=draw, windows=windows, issued_at=issued_at)
    assert made.advisory_at <= made.mandatory_at <= made.expires_at == issued_at + lifetime


@given(st.floats(1, 1e9), DRAWS, INSTANTS)
def test_the_windows_are_as_wide_as_set(lifetime: float, draw: float, issued_at: float) -> None:
    """The mandatory window is never wider than either bound, and the advisory one never before 80 %."""
    made = plan(lifetime, draw=draw, issued_at=issued_at)
    slack = 1e-6 + math.ulp(issued_at + lifetime) * 4
    assert made.expires_at - made.mandatory_at == pytest.approx(min(30.0, lifetime * 0.05), abs=slack)
    assert made.advisory_at == pytest.approx(issued_at + lifetime * (0.8 + 0.1 * draw), abs=slack)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(-1.0, Standing.FRESH, id="clock-set-back"),
        pytest.param(719.9, Standing.FRESH, id="before-advisory"),
        pytest.param(720.0, Standing.DUE, id="at-advisory"),
        pytest.param(869.9, Standing.DUE, id="before-mandatory"),
        pytest.param(870.0, Standing.LAST_MOMENTS, id="at-mandatory"),
        pytest.param(899.9, Standing.LAST_MOMENTS, id="before-the-end"),
        pytest.param(900.0, Standing.EXPIRED, id="at-the-end"),
        pytest.param(9999.0, Standing.EXPIRED, id="after-the-end"),
    ],
)
def test_standing(now: float, expected: Standing) -> None:
    """Each moment of the schedule begins the next standing; from the end on, a token is never injected."""
    assert lifecycle.standing(plan(900.0), now) is expected


@given(ANY_WINDOWS, st.floats(0, 1e6), DRAWS, st.lists(st.floats(-10, 2e6), min_size=2))
def test_a_token_never_gets_better(
    windows: Windows, lifetime: float, draw: float, instants: list[float]
) -> None:
    """As time goes by, the standing only falls, and it is EXPIRED exactly from the end on."""
    made = plan(lifetime, draw=draw, windows=windows)
    standings = [lifecycle.standing(made, now) for now in sorted(instants)]
    assert [standing.value for standing in standings] == sorted(standing.value for standing in standings)
    for now in instants:
        assert (lifecycle.standing(made, now) is Standing.EXPIRED) is (now >= made.expires_at)


@pytest.mark.parametrize(
    ("now", "used", "expected"),
    [
        pytest.param(719.0, True, None, id="fresh"),
        pytest.param(720.0, True, "expiring", id="used-and-due"),
        pytest.param(899.0, True, "expiring", id="used-in-its-last-moments"),
        pytest.param(900.0, True, None, id="used-and-expired"),
        pytest.param(720.0, False, None, id="idle-and-due"),
        pytest.param(30 * DAY - 1, False, None, id="idle-for-long"),
        pytest.param(30 * DAY, False, "keep_alive", id="idle-too-long"),
        pytest.param(30 * DAY, True, "keep_alive", id="used-too-long-ago"),
        pytest.param(90 * DAY, False, "keep_alive", id="refresh-token-assumed-dead"),
    ],
)
def test_refresh_ahead(now: float, used: bool, expected: str | None) -> None:
    """A used token is refreshed before its end; an idle grant only well before its refresh token's end."""
    assert lifecycle.refresh_ahead(plan(900.0), now, used=used) == expected


@pytest.mark.parametrize(
    ("held", "rejected", "forced_at", "expected"),
    [
        pytest.param(2, 1, None, After401.USE_NEWER, id="newer-held"),
        pytest.param(2, 1, 99.0, After401.USE_NEWER, id="newer-held-just-forced"),
        pytest.param(1, 2, None, After401.USE_NEWER, id="other-generation"),
        pytest.param(2, 2, None, After401.REFRESH, id="same-never-forced"),
        pytest.param(2, 2, 40.0, After401.REFRESH, id="same-forced-a-hold-ago"),
        pytest.param(2, 2, 39.0, After401.REFRESH, id="same-forced-long-ago"),
        pytest.param(2, 2, 40.1, After401.PASS_THROUGH, id="same-forced-within-the-hold"),
        pytest.param(2, 2, 100.0, After401.PASS_THROUGH, id="same-forced-just-now"),
    ],
)
def test_after_401(held: int, rejected: int, forced_at: float | None, expected: After401) -> None:
    """Generations are compared first; only an equal one is refreshed, unless a forced refresh just was."""
    decision = lifecycle.after_401(held=held, rejected=rejected, forced_at=forced_at, now=100.0, hold_s=60.0)
    assert decision is expected


def test_after_401_takes_the_epoch_for_a_time() -> None:
    """A forced refresh at instant 0 of a test's clock is not taken for none."""
    decision = lifecycle.after_401(held=2, rejected=2, forced_at=0.0, now=1.0, hold_s=60.0)
    assert decision is After401.PASS_THROUGH


@pytest.mark.parametrize(
    ("failures", "retry_after_s", "expected"),
    [
        pytest.param(1, None, 2.0, id="first"),
        pytest.param(2, None, 4.0, id="second"),
        pytest.param(5, None, 32.0, id="fifth"),
        pytest.param(6, None, 60.0, id="bounded"),
        pytest.param(10**6, None, 60.0, id="bounded-without-overflow"),
        pytest.param(1, 45.0, 45.0, id="retry-after-is-longer"),
        pytest.param(6, 45.0, 60.0, id="retry-after-is-shorter"),
        pytest.param(1, 300.0, 300.0, id="retry-after-beyond-the-bound"),
        pytest.param(1, 0.0, 2.0, id="retry-after-zero"),
    ],
)
def test_backoff(failures: int, retry_after_s: float | None, expected: float) -> None:
    """Doubles from the first pause up to the longest, and never ends before Retry-After."""
    waited = lifecycle.backoff_s(failures, first_s=2.0, most_s=60.0, retry_after_s=retry_after_s)
    assert waited == expected


# --- what events make of a grant

PAIR = NewPair(Sealed("access'"), Sealed("refresh'"), 1000.0, 1900.0, 9000.0)


def grant(state: GrantState = GrantState.CONNECTED, **changes: object) -> Grant:
    """A grant of generation 3 with tokens."""
    made = Grant(
        tenant="acme",
        state=state,
        generation=3,
        company="c",
        scopes=("x",),
        access=Sealed("access"),
        refresh=Sealed("refresh"),
        issued_at=100.0,
        access_expires_at=1000.0,
        refresh_expires_at=5000.0,
        last_refreshed_at=100.0,
        last_outcome=Outcome.GRANTED,
    )
    return replace(made, **changes)  # type: ignore[arg-type] # each test gives fields of Grant


LEASE = Lease("p", 540.0)
AT_ONCE, PATIENT = Takeover(0.0, 0.0), Takeover(300.0, 0.0)


def under_way(**changes: object) -> Grant:
    """A grant that the process ``p`` has been refreshing since 500."""
    started: dict[str, object] = {"attempted_at": 500.0, "lease_owner": "p", "lease_until": 540.0}
    return grant(GrantState.REFRESHING, **(started | changes))


def tokenless(state: GrantState) -> Grant:
    """A grant whose tokens were erased."""
    return grant(state, access=None, refresh=None, access_expires_at=None, refresh_expires_at=None)


def test_begin_writes_the_attempt_ahead() -> None:
    """Before a refresh is sent, the grant says so, and nothing else of it has changed."""
    begun = lifecycle.begin_refresh(
        grant(refresh_asked_at=1.0), before=grant(), at=500.0, lease=LEASE, takeover=AT_ONCE
    )
    assert begun == under_way()


def test_an_attempt_without_an_answer_is_remembered_as_lost() -> None:
    """A refresh that was cut off counts as lost until a new pair comes, whatever fails in between."""
    cut_off = under_way(attempted_at=400.0, lease_until=440.0, lease_owner="another")
    assert (
        lifecycle.begin_refresh(cut_off, before=cut_off, at=439.9, lease=LEASE, takeover=AT_ONCE) is cut_off
    )
    begun = lifecycle.begin_refresh(cut_off, before=cut_off, at=440.0, lease=LEASE, takeover=AT_ONCE)
    assert begun == under_way(attempted_at=440.0, answer_lost=True, last_outcome=Outcome.UNKNOWN)
    failed = lifecycle.not_granted(begun, before=cut_off, outcome=Outcome.NOT_SENT, owner="p")
    assert failed == grant(last_outcome=Outcome.NOT_SENT, answer_lost=True)
    healed = lifecycle.granted(failed, PAIR, before=cut_off)
    assert healed is not None
    assert not healed.answer_lost


def test_granted_replaces_everything_at_once() -> None:
    """A new pair takes the place of tokens and times together, one generation further."""
    got = lifecycle.granted(under_way(), PAIR, before=grant())
    assert got == grant(
        generation=4,
        access=PAIR.access,
        refresh=PAIR.refresh,
        issued_at=1000.0,
        access_expires_at=1900.0,
        refresh_expires_at=9000.0,
        last_refreshed_at=1000.0,
    )


def test_refused_erases_the_tokens() -> None:
    """A terminal refusal ends the grant and leaves neither token, while company and scopes are kept."""
    before = under_way()
    after = lifecycle.not_granted(before, before=grant(), outcome=Outcome.REFUSED, owner="p")
    assert after == replace(tokenless(GrantState.NEEDS_REAUTH), last_outcome=Outcome.REFUSED)


TRANSIENT = [Outcome.CLIENT_REJECTED, Outcome.NOT_SENT, Outcome.UNAVAILABLE, Outcome.UNKNOWN]


@pytest.mark.parametrize("outcome", TRANSIENT)
def test_any_other_failure_takes_nothing(outcome: Outcome) -> None:
    """After a failure that is not terminal the grant is connected as before, with the outcome noted."""
    before = under_way()
    after = lifecycle.not_granted(before, before=grant(), outcome=outcome, owner="p")
    assert after == grant(last_outcome=outcome, answer_lost=outcome is Outcome.UNKNOWN)


@pytest.mark.parametrize("state", [GrantState.REVOKED, GrantState.NEEDS_REAUTH])
def test_a_failure_that_comes_late_brings_nothing_back(state: GrantState) -> None:
    """A failure does not change a grant that has ended meanwhile, nor a state other than refreshing."""
    ended = tokenless(state)
    assert lifecycle.not_granted(ended, before=grant(), outcome=Outcome.UNAVAILABLE, owner="p") is ended


def test_who_lost_the_lease_takes_nothing() -> None:
    """A refusal after another took over may be that other's success, which is about to be saved."""
    taken_over = under_way(lease_owner="another")
    for outcome in Outcome:
        assert lifecycle.not_granted(taken_over, before=grant(), outcome=outcome, owner="p") is taken_over
    mine = lifecycle.granted(under_way(), PAIR, before=grant())
    assert lifecycle.granted(taken_over, PAIR, before=grant()) == mine


def test_a_lease_is_renewed_by_its_owner_only() -> None:
    """It moves on for as long as its refresh is under way, and for nobody else."""
    longer = Lease("p", 580.0)
    assert lifecycle.renewed(under_way(), before=grant(), lease=longer) == under_way(lease_until=580.0)
    for other in (under_way(lease_owner="another"), grant(), grant(generation=9), None):
        assert lifecycle.renewed(other, before=grant(), lease=longer) is other


def test_anothers_lease_is_not_taken_over_at_once() -> None:
    """Its owner may come back with a pair in its journal; the time for that begins anew after an outage."""
    run_out = under_way(lease_owner="another", lease_until=400.0)

    def begun(at: float, takeover: Takeover) -> Grant | None:
        return lifecycle.begin_refresh(run_out, before=grant(), at=at, lease=LEASE, takeover=takeover)

    assert begun(699.9, PATIENT) is run_out
    assert begun(700.0, PATIENT) is not run_out
    assert begun(700.0, Takeover(300.0, steady_since=401.0)) is run_out
    assert begun(701.0, Takeover(300.0, steady_since=401.0)) is not run_out


def test_ones_own_attempt_is_nobody_elses() -> None:
    """A process that was cut off knows when its lease has run out, and need not wait for itself."""
    own = under_way(lease_until=400.0)
    begun = lifecycle.begin_refresh(own, before=grant(), at=500.0, lease=LEASE, takeover=PATIENT)
    assert begun == under_way(answer_lost=True, last_outcome=Outcome.UNKNOWN)


@pytest.mark.parametrize("state", [GrantState.NEEDS_REAUTH, GrantState.REVOKED])
def test_a_grant_without_tokens_is_not_refreshed(state: GrantState) -> None:
    """No refresh begins for a grant that has no refresh token."""
    ended = tokenless(state)
    assert lifecycle.begin_refresh(ended, before=grant(), at=500.0, lease=LEASE, takeover=AT_ONCE) is ended


def test_revoked_erases_the_tokens() -> None:
    """The operator's end of a grant leaves neither token, and doing it twice changes nothing."""
    after = lifecycle.revoked(under_way())
    assert after == tokenless(GrantState.REVOKED)
    assert lifecycle.revoked(after) is after
    assert lifecycle.revoked(None) is None


def test_consent_makes_a_whole_grant() -> None:
    """A consent gives a connected grant of the given generation with nothing left of an earlier one."""
    made = lifecycle.connected(PAIR, tenant="acme", company="c2", scopes=("y",), generation=8)
    assert made == Grant(
        "acme",
        GrantState.CONNECTED,
        8,
        "c2",
        ("y",),
        PAIR.access,
        PAIR.refresh,
        issued_at=1000.0,
        access_expires_at=1900.0,
        refresh_expires_at=9000.0,
        last_refreshed_at=1000.0,
        last_outcome=Outcome.GRANTED,
        attempted_at=None,
    )


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(None, 1, id="first"),
        pytest.param(grant(), 4, id="reconnected"),
        pytest.param(tokenless(GrantState.REVOKED), 4, id="after-revocation"),
    ],
)
def test_next_generation(before: Grant | None, expected: int) -> None:
    """Generations go on across reconnections, so that none is ever used twice."""
    assert lifecycle.next_generation(before) == expected


Event = Callable[[Grant | None, Grant], Grant | None]
EVENTS: dict[str, Event] = {
    "begin": lambda stored, before: lifecycle.begin_refresh(
        stored, before=before, at=7.0, lease=Lease("p", 8.0), takeover=AT_ONCE
    ),
    "granted": lambda stored, before: lifecycle.granted(stored, PAIR, before=before),
    **{
        outcome.value: lambda stored, before, outcome=outcome: lifecycle.not_granted(  # type: ignore[misc]
            stored, before=before, outcome=outcome, owner="p"
        )
        for outcome in [*TRANSIENT, Outcome.REFUSED]
    },
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(grant(generation=2), id="older"),
        pytest.param(grant(generation=4), id="newer"),
        pytest.param(grant(refresh=Sealed("of the tenant's former life")), id="same-generation-other-pair"),
    ],
)
@pytest.mark.parametrize("state", GrantState)
def test_an_event_about_another_pair_changes_nothing(event: Event, before: Grant, state: GrantState) -> None:
    """What was begun for another pair returns the grant as it is stored."""
    for stored in (grant(state), tokenless(state)):
        assert event(stored, before) is stored


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_an_event_about_no_grant_makes_none(event: Event) -> None:
    """Where no grant is stored any more, no event brings one back."""
    assert event(None, grant()) is None


STEPS = st.lists(st.tuples(st.sampled_from([*EVENTS, "revoked", "consent"]), st.integers(0, 8)), max_size=12)


def _step(before: Grant | None, name: str, generation: int) -> Grant | None:
    if name == "revoked":
        return lifecycle.revoked(before)
    if name == "consent":
        following = lifecycle.next_generation(before)
        return lifecycle.connected(PAIR, tenant="acme", company="c", scopes=(), generation=following)
    return EVENTS[name](before, grant(generation=generation, refresh=PAIR.refresh))


@given(st.none() | st.just(grant()), STEPS)
def test_a_grants_life(state: Grant | None, steps: list[tuple[str, int]]) -> None:
    """Through any events, generations only rise, each new pair has a new one, and ended grants hold none."""
    for name, generation in steps:
        after = _step(state, name, generation)
        if after is None:
            assert state is None
            continue
        assert after.generation >= (state.generation if state else 0)
        if state is not None and after.access != state.access and after.access is not None:
            assert after.generation == state.generation + 1
        assert (after.access is None) is (after.refresh is None)
        if after.state in (GrantState.NEEDS_REAUTH, GrantState.REVOKED):
            assert after.access is None
        if after.state is GrantState.REFRESHING:
            assert after.attempted_at is not None
        state = after


def test_every_field_of_a_grant_is_set_by_a_consent() -> None:
    """A field that is added to Grant must be thought of where a consent makes a new one."""
    made = lifecycle.connected(PAIR, tenant="acme", company="c", scopes=("x",), generation=1)
    unset = {field.name for field in fields(Grant) if getattr(made, field.name) is None}
    assert unset == {"attempted_at", "lease_owner", "lease_until", "refresh_asked_at"}


# --- what an operator asks for, and what came back from a backup


def test_a_question_is_noted_once_and_answered_by_a_new_pair() -> None:
    """Asking again changes nothing; beginning takes the question away, and so does any new pair."""
    asked = lifecycle.ask_for_refresh(grant(), 400.0)
    assert asked == grant(refresh_asked_at=400.0)
    assert lifecycle.ask_for_refresh(asked, 401.0) is asked
    assert asked is not None
    begun = lifecycle.begin_refresh(
        asked, before=grant(), at=500.0, lease=LEASE, takeover=AT_ONCE, if_asked=True
    )
    assert begun == under_way()
    got = lifecycle.granted(asked, PAIR, before=grant())
    assert got is not None
    assert got.refresh_asked_at is None


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(None, id="no-grant"),
        pytest.param(tokenless(GrantState.REVOKED), id="no-tokens"),
        pytest.param(under_way(), id="under-way"),
    ],
)
def test_a_question_is_not_noted_where_it_has_no_sense(stored: Grant | None) -> None:
    """Nothing to refresh, or a refresh that will answer it already."""
    assert lifecycle.ask_for_refresh(stored, 500.0) is stored


def test_a_refresh_that_was_cut_off_can_be_asked_for() -> None:
    """Where the lease has run out, nobody may be at it."""
    left = under_way(lease_until=400.0)
    assert lifecycle.ask_for_refresh(left, 500.0) == under_way(lease_until=400.0, refresh_asked_at=500.0)


def test_a_question_that_was_answered_is_not_begun_again() -> None:
    """Of two that saw a question the second finds it gone, and sends nothing, though the first failed."""

    def begun(stored: Grant) -> Grant | None:
        return lifecycle.begin_refresh(
            stored, before=grant(), at=500.0, lease=LEASE, takeover=AT_ONCE, if_asked=True
        )

    failed = grant(last_outcome=Outcome.UNAVAILABLE)
    assert begun(failed) is failed
    # One whose process died is taken over, or nobody would ever end it.
    cut_off = under_way(lease_owner="another", lease_until=400.0)
    assert begun(cut_off) is not cut_off


def test_only_the_own_question_is_withdrawn() -> None:
    """What another operator asked since stands."""
    asked = grant(refresh_asked_at=400.0)
    assert lifecycle.withdraw_question(asked, 400.0) == grant()
    assert lifecycle.withdraw_question(asked, 399.0) is asked
    assert lifecycle.withdraw_question(None, 400.0) is None


def test_a_question_comes_before_all_other_reasons() -> None:
    """It needs neither use nor age."""
    assert lifecycle.refresh_ahead(plan(900.0), 0.0, used=False, asked=True) == "asked"


def test_a_restored_grant_stays_in_doubt_until_a_refresh_has_worked() -> None:
    """Attempts, failures and crashes leave it unverified; a pair verifies it, and a refusal ends it."""
    doubtful = grant(GrantState.UNVERIFIED)
    begun = lifecycle.begin_refresh(doubtful, before=doubtful, at=500.0, lease=LEASE, takeover=AT_ONCE)
    assert begun is not None
    assert begun.state is GrantState.UNVERIFIED
    assert lifecycle.after_cut_off(begun).state is GrantState.UNVERIFIED
    for outcome, state in (
        (Outcome.UNAVAILABLE, GrantState.UNVERIFIED),
        (Outcome.UNKNOWN, GrantState.UNVERIFIED),
        (Outcome.REFUSED, GrantState.NEEDS_REAUTH),
    ):
        after = lifecycle.not_granted(begun, before=doubtful, outcome=outcome, owner="p")
        assert after is not None
        assert after.state is state
    got = lifecycle.granted(begun, PAIR, before=doubtful)
    assert got is not None
    assert got.state is GrantState.CONNECTED


@given(INSTANTS, DRAWS, st.floats(0, 1e6))
def test_an_unverified_token_is_never_used(now: float, draw: float, later: float) -> None:
    """From the moment at which it is held it counts as expired, and its refresh comes within a minute."""
    made = lifecycle.schedule_unverified(now, draw=draw)
    assert lifecycle.standing(made, now + later) is Standing.EXPIRED
    assert now <= made.keep_alive_at <= now + lifecycle.VERIFY_WITHIN_S
    assert lifecycle.refresh_ahead(made, now + 60.1 + math.ulp(now) * 4, used=False) == "keep_alive"
