"""What operators are told unasked: which troubles, gathered, once, and that they are over."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from proxy.model import DAY_S, Grant, GrantState, Outcome, Sealed
from proxy.notices import FLAP_S, GATHER_S, Kind, Notice, Rules, Survey, Trouble, Watch

RULES = Rules(warn_s=14 * DAY_S, store_down_s=60.0, repeat_s=DAY_S)
NOW = 1_800_000_000.0
WELL = Grant(
    "acme",
    GrantState.CONNECTED,
    3,
    access=Sealed("a"),
    refresh=Sealed("r"),
    refresh_expires_at=NOW + 60 * DAY_S,
    last_refreshed_at=NOW - 100,
    last_outcome=Outcome.GRANTED,
)
DEAD = replace(WELL, state=GrantState.NEEDS_REAUTH, access=None, refresh=None, last_outcome=Outcome.REFUSED)
ENDING = replace(WELL, refresh_expires_at=NOW + 3 * DAY_S, last_outcome=Outcome.UNAVAILABLE)
REJECTED = replace(WELL, last_outcome=Outcome.CLIENT_REJECTED)


class Stage:
    """A watch and the time; how things stand is given for each look."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.watch = Watch(rules)
        self.now = NOW

    def look(self, *grants: Grant, down_s: float | None = None, after_s: float = 0.0) -> list[Notice]:
        self.now += after_s
        down_since = None if down_s is None else self.now - down_s
        return self.watch.look(Survey(self.now, {each.tenant: each for each in grants}, down_since))

    def told(self, *grants: Grant, down_s: float | None = None) -> list[tuple[Kind, str | None]]:
        """What is told when this lasts for the time of gathering."""
        first = self.look(*grants, down_s=down_s)
        second = self.look(*grants, down_s=None if down_s is None else down_s + GATHER_S, after_s=GATHER_S)
        return [(each.kind, each.tenant) for each in [*first, *second]]


@pytest.mark.parametrize(
    ("grant", "kind", "tenant"),
    [
        pytest.param(DEAD, Kind.NEEDS_REAUTH, "acme", id="needs-reauth"),
        pytest.param(ENDING, Kind.ENDS_SOON, "acme", id="ends-soon"),
        pytest.param(REJECTED, Kind.CLIENT_REJECTED, None, id="client-rejected"),
    ],
)
def test_each_trouble_of_a_grant_is_told_once_and_so_is_its_end(
    grant: Grant, kind: Kind, tenant: str | None
) -> None:
    """A trouble is told after the gathering, not again while it lasts, and then that it is over, once."""
    stage = Stage()
    assert stage.told(grant) == [(kind, tenant)]
    assert stage.told(grant) == []
    over = replace(WELL, last_refreshed_at=stage.now + 1)
    assert stage.told(over) == [(Kind.RECOVERED, tenant)]
    assert stage.told(over) == []
    stage.look(over, after_s=FLAP_S)
    assert stage.watch.records == {}


@pytest.mark.parametrize(
    "grant",
    [
        pytest.param(WELL, id="well"),
        pytest.param(replace(WELL, refresh_expires_at=NOW + 14 * DAY_S + 60), id="ends-later"),
        pytest.param(replace(WELL, refresh_expires_at=None), id="end-unknown"),
        pytest.param(replace(WELL, last_outcome=Outcome.UNAVAILABLE), id="a-refresh-failed"),
        pytest.param(replace(DEAD, state=GrantState.REVOKED), id="revoked-on-purpose"),
        pytest.param(replace(DEAD, state=GrantState.REVOKED, refresh_expires_at=NOW), id="no-tokens-to-end"),
    ],
)
def test_what_is_no_trouble_is_not_told(grant: Grant) -> None:
    """Nothing is told of grants that work, nor of what operators did themselves."""
    assert Stage().told(grant) == []


def test_a_lost_store_is_told_after_a_while_and_when_it_is_back() -> None:
    """A store that is away for a moment is no trouble; one that is away longer is told, and its return."""
    stage = Stage()
    assert stage.told(down_s=RULES.store_down_s - GATHER_S - 1) == []
    assert stage.told(down_s=RULES.store_down_s) == [(Kind.STORE_LOST, None)]
    assert stage.told() == [(Kind.RECOVERED, None)]


def test_a_store_that_fails_again_for_a_moment_has_not_recovered_twice() -> None:
    """While the store is away anew, though not for long, nobody is told that it is back."""
    stage = Stage()
    assert stage.told(down_s=100) == [(Kind.STORE_LOST, None)]
    assert stage.told(down_s=1) == []


def test_what_is_over_within_the_gathering_is_not_told() -> None:
    """A trouble that does not last as long as others are gathered is nothing to tell, nor is its end."""
    stage = Stage()
    assert stage.look(DEAD) == []
    assert stage.told(WELL) == []
    assert stage.watch.records == {}
    assert stage.look(DEAD) == [], "the gathering begins anew"


def test_what_is_found_together_is_told_together() -> None:
    """Tenants that get into trouble within the gathering are told at one moment, all of them."""
    stage = Stage()
    globex = replace(DEAD, tenant="globex")
    assert stage.look(DEAD) == []
    assert stage.look(DEAD, globex, after_s=GATHER_S / 2) == []
    told = stage.look(DEAD, globex, after_s=GATHER_S / 2)
    assert [(each.tenant, each.since) for each in told] == [("acme", NOW), ("globex", NOW + GATHER_S / 2)]


def test_what_lasts_is_told_again_after_the_time_for_it() -> None:
    """A trouble that lasts is told again a day later, with the same beginning."""
    stage = Stage()
    stage.told(DEAD)
    assert stage.look(DEAD, after_s=DAY_S - 1) == []
    assert stage.look(DEAD, after_s=1) == []
    again = stage.look(DEAD, after_s=GATHER_S)
    assert [(each.kind, each.since) for each in again] == [(Kind.NEEDS_REAUTH, NOW)]


def test_what_comes_and_goes_is_not_told_each_time() -> None:
    """What was said to be over and comes back waits for its time; if it is over by then, nothing is told."""
    stage = Stage()
    assert stage.told(down_s=100) == [(Kind.STORE_LOST, None)]
    assert stage.told() == [(Kind.RECOVERED, None)]
    held_back = []
    for _ in range(2):
        assert stage.look(down_s=100) == []
        held_back.append(stage.watch.held_back)
    assert held_back == [(Trouble(Kind.STORE_LOST),), ()], "it came back once"
    assert stage.told() == []
    began = stage.now
    assert stage.told(down_s=100) == []
    assert stage.look(down_s=700, after_s=FLAP_S) == []
    told = stage.look(down_s=700, after_s=GATHER_S)
    assert [each.kind for each in told] == [Kind.STORE_LOST]
    assert told[0].since == began, "it began anew"


def test_what_comes_back_after_its_time_is_not_held_back() -> None:
    """What is found for the first time, or again when it may be told, is told and not held back."""
    stage = Stage()
    stage.look(DEAD)
    assert stage.watch.held_back == ()
    stage.told(DEAD)
    stage.told(replace(WELL, last_refreshed_at=stage.now + 1))
    stage.look(DEAD, after_s=FLAP_S)
    assert stage.watch.held_back == ()


def test_a_refresh_that_did_not_reach_pleo_does_not_end_a_rejection() -> None:
    """That Pleo takes the OAuth client again is told when a refresh worked, not when one was not sent."""
    stage = Stage()
    stage.told(REJECTED)
    assert stage.told(replace(WELL, last_outcome=Outcome.NOT_SENT, last_refreshed_at=stage.now)) == []
    assert stage.told(replace(WELL, last_refreshed_at=NOW - 1)) == [], "it worked before"
    assert stage.told(replace(WELL, last_refreshed_at=stage.now)) == [(Kind.RECOVERED, None)]


@pytest.mark.parametrize("gone", [(), (replace(DEAD, state=GrantState.REVOKED),)], ids=["removed", "revoked"])
def test_a_tenant_that_is_gone_has_not_recovered(gone: tuple[Grant, ...]) -> None:
    """Removing or revoking a tenant in trouble ends the matter without a word."""
    stage = Stage()
    stage.told(DEAD)
    assert stage.told(*gone) == []
    assert stage.watch.records == {}


def test_a_rejection_without_any_tenant_left_is_forgotten() -> None:
    """With the last tenant a rejection of the OAuth client goes too."""
    stage = Stage()
    stage.told(REJECTED)
    assert stage.told() == []
    assert stage.watch.records == {}


def test_a_grant_from_a_backup_is_neither_well_nor_gone() -> None:
    """A restored grant has not recovered until it was refreshed."""
    stage = Stage()
    stage.told(DEAD)
    assert stage.told(replace(WELL, state=GrantState.UNVERIFIED)) == []
    assert stage.told(WELL) == [(Kind.RECOVERED, "acme")]


def test_an_ending_grant_that_ends_has_not_recovered() -> None:
    """A grant that was to end soon and needs a new consent now is one trouble more and none less."""
    stage = Stage()
    stage.told(ENDING)
    assert stage.told(DEAD) == [(Kind.NEEDS_REAUTH, "acme")]
    assert list(stage.watch.records) == [Trouble(Kind.NEEDS_REAUTH, "acme")]


def test_when_it_ends_and_what_it_was_are_told() -> None:
    """A notice says when an authorisation ends, and of a recovery what is over and since when it was."""
    stage = Stage()
    stage.look(ENDING)
    (ends,) = stage.look(ENDING, after_s=GATHER_S)
    assert (ends.ends_at, ends.was, ends.trouble) == (
        NOW + 3 * DAY_S,
        None,
        Trouble(Kind.ENDS_SOON, "acme"),
    )
    stage.look(WELL)
    (over,) = stage.look(WELL, after_s=GATHER_S)
    assert (over.was, over.since, over.trouble) == (Kind.ENDS_SOON, NOW, ends.trouble)
    assert not math.isnan(over.since)
