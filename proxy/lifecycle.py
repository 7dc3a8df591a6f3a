"""The life of a grant as pure decisions: no I/O, no clock, nothing remembered.

Two halves. The first says when a token may be used and when it is to be refreshed. The second turns events
into the next :class:`~proxy.model.Grant`, for the store to apply atomically: each takes the grant as it is
stored and returns it unchanged where the event no longer concerns it (another generation came first).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeGuard

from proxy.model import Grant, GrantState, Outcome, Sealed
from proxy.vault import is_same_value

VERIFY_WITHIN_S = 60.0
"""Over so long the first refreshes of restored grants are spread, so that thousands do not come at once."""
RETRY_AFTER_MOST_S = 3600.0
"""A slip in somebody's ``Retry-After`` must not keep a tenant out for days."""


@dataclass(frozen=True, slots=True)
class Windows:
    """When a token is refreshed ahead of its end (the ``[refresh]`` settings)."""

    advisory: float
    """Fraction of the lifetime after which a refresh is due while callers may go on with the old token."""
    advisory_jitter: float
    """Fraction of the lifetime over which that moment is spread, so that tenants do not come at once."""
    mandatory_s: float
    mandatory: float
    """Callers wait in the last ``mandatory_s`` seconds or this fraction, whichever is shorter: a minute's
    token would otherwise be refused for half its life."""
    keep_alive: float
    """Fraction of the refresh token's life after which an idle grant is refreshed."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The instants at which one access token changes its standing."""

    advisory_at: float
    mandatory_at: float
    expires_at: float
    keep_alive_at: float


class Standing(Enum):
    """How good an access token is at an instant."""

    FRESH = auto()
    DUE = auto()
    """Refresh now; the token still serves if that fails or takes long."""
    LAST_MOMENTS = auto()
    """Callers wait for the refresh, but the token is still good if it fails."""
    EXPIRED = auto()
    """Never injected (invariant 7)."""


class After401(Enum):
    """What to do when Pleo refused a token."""

    USE_NEWER = auto()
    """The stored generation is newer than the refused one: send again with it, refresh nothing."""
    REFRESH = auto()
    PASS_THROUGH = auto()
    """The token is the fruit of a forced refresh moments ago, so another would not cure it."""


def schedule(
    windows: Windows, *, issued_at: float, expires_at: float, refresh_expires_at: float, draw: float
) -> Schedule:
    """The plan for one token.

    :param draw: random number in [0, 1) that places the advisory moment within the jitter.
    """
    lifetime = max(0.0, expires_at - issued_at)
    last = min(windows.mandatory_s, lifetime * windows.mandatory)
    mandatory_at = expires_at - last
    advisory_at = issued_at + lifetime * (windows.advisory + windows.advisory_jitter * draw)
    return Schedule(
        advisory_at=min(advisory_at, mandatory_at),
        mandatory_at=mandatory_at,
        expires_at=expires_at,
        keep_alive_at=issued_at + (refresh_expires_at - issued_at) * windows.keep_alive,
    )


def schedule_unverified(now: float, *, draw: float) -> Schedule:
    """The plan for a token that came back from a backup: never used, and replaced at first use or soon.

    Pleo may have ended it since, and its first use would tell nothing that the refresh does not.

    :param draw: random number in [0, 1) that places the refresh within :data:`VERIFY_WITHIN_S`.
    """
    return Schedule(
        advisory_at=now, mandatory_at=now, expires_at=now, keep_alive_at=now + VERIFY_WITHIN_S * draw
    )


def standing(plan: Schedule, now: float) -> Standing:
    """How good the token is at ``now``."""
    if now >= plan.expires_at:
        return Standing.EXPIRED
    if now >= plan.mandatory_at:
        return Standing.LAST_MOMENTS
    return Standing.DUE if now >= plan.advisory_at else Standing.FRESH


def refresh_ahead(plan: Schedule, now: float, *, used: bool, asked: bool = False) -> str | None:
    """Why a refresh that no caller waits for is due at ``now``, or ``None``.

    A token that nobody used is left to expire, since each refresh is a risk; the grant itself is kept alive
    well before its refresh token's end (invariant 8).

    :param asked: an operator asked for one.
    """
    if asked:
        return "asked"
    if now >= plan.keep_alive_at:
        return "keep_alive"
    if used and plan.advisory_at <= now < plan.expires_at:
        return "expiring"
    return None


def after_401(*, held: int, rejected: int, forced_at: float | None, now: float, hold_s: float) -> After401:
    """Invariants 2 and 3.

    :param held: generation in use now.
    :param rejected: generation of the token that Pleo refused.
    :param forced_at: when a forced refresh brought the held generation; ``None`` if another kind did.
    :param hold_s: how long a forced refresh's token is not refreshed again.
    """
    if held != rejected:
        return After401.USE_NEWER
    if forced_at is not None and now - forced_at < hold_s:
        return After401.PASS_THROUGH
    return After401.REFRESH


def backoff_s(failures: int, *, first_s: float, most_s: float, retry_after_s: float | None) -> float:
    """How long to leave the provider alone after ``failures`` in a row; ``Retry-After`` counts to an hour."""
    own = min(most_s, first_s * 2.0 ** min(failures - 1, 16))
    return max(own, min(retry_after_s or 0.0, RETRY_AFTER_MOST_S))


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to refresh a grant, of one process for a time."""

    owner: str
    until: float


@dataclass(frozen=True, slots=True)
class Takeover:
    """When another's lease that has run out is taken over."""

    patience_s: float
    """How long its owner has to come back and save what it may have."""
    steady_since: float
    """The store works since then: the owner has that long from then on."""


def begin_refresh(
    grant: Grant | None,
    *,
    before: Grant,
    at: float,
    lease: Lease,
    takeover: Takeover,
    if_asked: bool = False,
) -> Grant | None:
    """Write-ahead (invariant 5) under a lease (invariant 4): a refresh of ``before`` is about to be sent.

    While another process holds the lease nobody else may begin. One that has run out was cut off before its
    answer was saved, which counts as lost.

    :param if_asked: begin only while an operator's question stands: of several processes that have seen it
        one is to refresh, also where its refresh fails before the others look.
    """
    if not is_same_pair(grant, before) or is_reserved(grant, at=at, owner=lease.owner, takeover=takeover):
        return grant
    if if_asked and grant.refresh_asked_at is None and grant.attempted_at is None:
        return grant
    return replace(
        after_cut_off(grant),
        # What came back from a backup stays in doubt until a refresh has worked.
        state=GrantState.UNVERIFIED if grant.state is GrantState.UNVERIFIED else GrantState.REFRESHING,
        refresh_asked_at=None,
        attempted_at=at,
        lease_owner=lease.owner,
        lease_until=lease.until,
    )


def is_reserved(grant: Grant, *, at: float, owner: str, takeover: Takeover) -> bool:
    """Whether somebody else than ``owner`` is refreshing ``grant``, or may have a pair for it.

    Its owner may have died with Pleo's answer in its journal, or be unable to reach the store: whoever tried
    with the old token then would end the grant.
    """
    if grant.lease_until is None:
        return False
    if grant.lease_owner == owner:
        return at < grant.lease_until
    return at < max(grant.lease_until, takeover.steady_since) + takeover.patience_s


def renewed(grant: Grant | None, *, before: Grant, lease: Lease) -> Grant | None:
    """The refresh of ``before`` takes longer, and its owner keeps the lease, if it still has it."""
    if not is_same_pair(grant, before) or grant.lease_owner != lease.owner:
        return grant
    return replace(grant, lease_until=lease.until)


def after_cut_off(grant: Grant) -> Grant:
    """``grant`` without the attempt that is noted in it, whose process is gone and whose answer is lost."""
    if grant.attempted_at is None:
        return grant
    return replace(
        _without_attempt(grant),
        state=GrantState.CONNECTED if grant.state is GrantState.REFRESHING else grant.state,
        last_outcome=Outcome.UNKNOWN,
        answer_lost=True,
    )


@dataclass(frozen=True, slots=True)
class NewPair:
    """A sealed token pair with its times."""

    access: Sealed
    refresh: Sealed
    issued_at: float
    access_expires_at: float
    refresh_expires_at: float


def granted(grant: Grant | None, pair: NewPair, *, before: Grant) -> Grant | None:
    """A refresh of ``before`` brought ``pair``, sealed for the next generation. The old pair is gone.

    Whoever holds the lease by now: what Pleo issued is the truth.
    """
    if not is_same_pair(grant, before):
        return grant
    return replace(
        _without_attempt(grant),
        state=GrantState.CONNECTED,
        generation=grant.generation + 1,
        access=pair.access,
        refresh=pair.refresh,
        issued_at=pair.issued_at,
        access_expires_at=pair.access_expires_at,
        refresh_expires_at=pair.refresh_expires_at,
        last_refreshed_at=pair.issued_at,
        last_outcome=Outcome.GRANTED,
        refresh_asked_at=None,
        answer_lost=False,
    )


def not_granted(grant: Grant | None, *, before: Grant, outcome: Outcome, owner: str) -> Grant | None:
    """A refresh of ``before`` by ``owner`` failed. Only a terminal refusal takes anything from the grant.

    That an answer was lost is kept through later failures that say nothing of the tokens (invariant 6). Who
    no longer has the lease changes nothing: another may be about to save the pair that made this one fail.
    """
    if not is_same_pair(grant, before) or grant.lease_owner != owner:
        return grant
    if outcome is Outcome.REFUSED:
        return _without_tokens(replace(grant, state=GrantState.NEEDS_REAUTH, last_outcome=outcome))
    state = GrantState.CONNECTED if grant.state is GrantState.REFRESHING else grant.state
    lost = grant.answer_lost or outcome is Outcome.UNKNOWN
    return replace(_without_attempt(grant), state=state, last_outcome=outcome, answer_lost=lost)


def connected(pair: NewPair, *, tenant: str, company: str, scopes: tuple[str, ...], generation: int) -> Grant:
    """A person consented: a grant of ``generation`` (:func:`next_generation`), whatever was there before."""
    return Grant(
        tenant=tenant,
        state=GrantState.CONNECTED,
        generation=generation,
        company=company,
        scopes=scopes,
        access=pair.access,
        refresh=pair.refresh,
        issued_at=pair.issued_at,
        access_expires_at=pair.access_expires_at,
        refresh_expires_at=pair.refresh_expires_at,
        last_refreshed_at=pair.issued_at,
        last_outcome=Outcome.GRANTED,
    )


def ask_for_refresh(grant: Grant | None, at: float) -> Grant | None:
    """An operator asks whoever serves for a refresh now. What is asked or under way is not asked again."""
    if grant is None or grant.refresh is None or grant.refresh_asked_at is not None:
        return grant
    if grant.lease_until is not None and at < grant.lease_until:
        return grant
    return replace(grant, refresh_asked_at=at)


def withdraw_question(grant: Grant | None, at: float) -> Grant | None:
    """Nobody took up what was asked at ``at``, so that no refresh comes of it later, unexpected."""
    if grant is None or grant.refresh_asked_at != at:
        return grant
    return replace(grant, refresh_asked_at=None)


def revoked(grant: Grant | None) -> Grant | None:
    """The operator ended the grant: its tokens are erased."""
    if grant is None or grant.state is GrantState.REVOKED:
        return grant
    return _without_tokens(replace(grant, state=GrantState.REVOKED))


def next_generation(grant: Grant | None) -> int:
    """The generation that a new pair of this grant gets; never used twice for one tenant."""
    return 1 if grant is None else grant.generation + 1


def is_same_pair(grant: Grant | None, before: Grant) -> TypeGuard[Grant]:
    """Whether ``grant`` still has the token pair of ``before``.

    Sealed values differ even where generations agree, as they do for a tenant that was removed, added again
    and connected anew: then what was begun for the old grant must not touch the new one. A value that was
    sealed anew with another key is still the same.
    """
    return (
        grant is not None
        and grant.generation == before.generation
        and is_same_value(grant.refresh, before.refresh)
    )


def _without_tokens(grant: Grant) -> Grant:
    return replace(
        _without_attempt(grant),
        access=None,
        refresh=None,
        access_expires_at=None,
        refresh_expires_at=None,
        refresh_asked_at=None,
        answer_lost=False,
    )


def _without_attempt(grant: Grant) -> Grant:
    return replace(grant, attempted_at=None, lease_owner=None, lease_until=None)
