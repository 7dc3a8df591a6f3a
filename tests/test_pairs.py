"""A token pair on its way between provider, store and memory: sealed with its times, and opened again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy import lifecycle, pairs
from proxy.lifecycle import NewPair
from proxy.model import Grant, GrantState, Sealed, Secret
from proxy.oauth import TokenPair
from proxy.pairs import Lifetimes, OpenedPair
from proxy.vault import Place, SealedValueError, Vault, new_key_line

VAULT = Vault(Secret(new_key_line("k1")))
LIFETIMES = Lifetimes(default_access_s=840.0, refresh_s=5_000_000.0)
ACCESS, REFRESH = Secret("the-access-token"), Secret("the-refresh-token")
WHOLE = TokenPair(ACCESS, REFRESH, 900.0)


def sealed(pair: TokenPair = WHOLE, *, generation: int = 4, old_refresh: Secret | None = None) -> NewPair:
    """``pair`` sealed for acme at instant 100."""
    return pairs.seal_pair(
        VAULT,
        pair,
        tenant="acme",
        generation=generation,
        now=100.0,
        lifetimes=LIFETIMES,
        old_refresh=old_refresh,
    )


def grant(pair: NewPair, *, tenant: str = "acme", generation: int = 4) -> Grant:
    """A stored grant with ``pair``."""
    return lifecycle.connected(pair, tenant=tenant, company="c", scopes=(), generation=generation)


def test_a_pair_opens_as_it_was_sealed() -> None:
    """Both tokens come out of the stored grant of the same tenant and generation."""
    assert pairs.open_pair(VAULT, grant(sealed())) == OpenedPair(ACCESS, REFRESH)


def test_the_times_of_a_pair() -> None:
    """Lifetimes count from the given instant: the answer's own, and the assumed one of a refresh token."""
    made = sealed()
    assert (made.issued_at, made.access_expires_at, made.refresh_expires_at) == (100.0, 1000.0, 5_000_100.0)


def test_a_missing_lifetime_gets_the_default() -> None:
    """Without ``expires_in`` the configured lifetime is assumed."""
    assert sealed(replace(WHOLE, expires_in_s=None)).access_expires_at == 940.0


@pytest.mark.parametrize(
    ("new", "old", "kept"),
    [
        pytest.param(REFRESH, Secret("old"), REFRESH, id="new-one-wins"),
        pytest.param(None, Secret("old"), Secret("old"), id="old-one-is-kept"),
    ],
)
def test_the_refresh_token_that_is_kept(new: Secret | None, old: Secret, kept: Secret) -> None:
    """A new refresh token replaces the old one; without one the old one is sealed again, for a new place."""
    made = sealed(replace(WHOLE, refresh=new), old_refresh=old)
    opened = pairs.open_pair(VAULT, grant(made))
    assert opened is not None
    assert opened.refresh == kept


def test_a_first_pair_without_refresh_token_is_a_defect() -> None:
    """The consent flow refuses such an answer, so that sealing it would be our own mistake."""
    with pytest.raises(AssertionError):
        sealed(replace(WHOLE, refresh=None))


@pytest.mark.parametrize(
    "moved",
    [
        pytest.param(grant(sealed(), generation=5), id="later-generation"),
        pytest.param(grant(sealed(generation=5)), id="earlier-generation"),
        pytest.param(grant(sealed(), tenant="globex"), id="other-tenant"),
        pytest.param(
            replace(grant(sealed()), access=sealed().refresh, refresh=sealed().access), id="exchanged"
        ),
        pytest.param(
            replace(grant(sealed()), refresh=sealed(generation=3).refresh), id="half-of-an-old-pair"
        ),
        pytest.param(replace(grant(sealed()), access=Sealed("v1.k1.AAAA")), id="damaged"),
        pytest.param(replace(grant(sealed()), access=None), id="access-missing"),
        pytest.param(replace(grant(sealed()), refresh=None), id="refresh-missing"),
        pytest.param(replace(grant(sealed()), issued_at=None), id="start-missing"),
        pytest.param(replace(grant(sealed()), access_expires_at=None), id="end-missing"),
        pytest.param(replace(grant(sealed()), refresh_expires_at=None), id="end-of-refresh-missing"),
    ],
)
def test_a_pair_that_is_not_whole_and_in_place_raises(moved: Grant) -> None:
    """A pair of another tenant, column or generation, or half a pair, is never taken for "no tokens"."""
    with pytest.raises(SealedValueError):
        pairs.open_pair(VAULT, moved)


def test_a_grant_without_tokens_has_no_pair() -> None:
    """Only a grant without either token has none."""
    assert pairs.open_pair(VAULT, Grant("acme", GrantState.NEEDS_REAUTH, 4)) is None


def test_places_of_tokens() -> None:
    """Each column of each generation is a place of its own."""
    assert pairs.place("acme", "access", 4) == Place("grants", "acme", "access", 4)


@pytest.mark.parametrize(
    ("pair", "missing"),
    [
        pytest.param(WHOLE, (), id="nothing"),
        pytest.param(replace(WHOLE, expires_in_s=None), ("expires_in missing",), id="lifetime"),
        pytest.param(replace(WHOLE, refresh=None), ("refresh_token missing",), id="refresh-token"),
        pytest.param(
            TokenPair(ACCESS, None, None), ("expires_in missing", "refresh_token missing"), id="both"
        ),
    ],
)
def test_what_an_answer_lacked(pair: TokenPair, missing: tuple[str, ...]) -> None:
    """What had to be assumed is reported."""
    assert pairs.missing_from(pair) == missing


def test_nothing_shows_a_token() -> None:
    """Neither the sealed nor the opened form shows a token."""
    made = sealed()
    shown = f"{made!r} {pairs.open_pair(VAULT, grant(made))!r}"
    assert ACCESS.reveal() not in shown
    assert REFRESH.reveal() not in shown
