"""What operators are told unasked, and when: troubles found in the state of things, each told once.

Pure: what is wrong now is compared with what was said before. That works from states and not from facts, so
it holds for what other processes saw and for what happened while nobody ran, and a restart repeats nothing.
Must never deliver anything, which is :mod:`proxy.notifications`' part, nor hold a secret.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from proxy.model import Grant, GrantState, Outcome, Tenant

GATHER_S = 5.0
"""What is found within so long is told together: when Pleo ends many authorisations, that is one message. And
what is over by then is not told at all."""
FLAP_S = 600.0
"""What is said to be over and comes back is not told again before: a store that comes and goes is one
trouble."""


class Kind(StrEnum):
    """What a message is about."""

    NEEDS_REAUTH = "needs_reauth"
    """Pleo ended a tenant's authorisation; its callers are refused until somebody connects it anew."""
    ENDS_SOON = "ends_soon"
    """A tenant's authorisation ends within days unless a refresh works before."""
    CLIENT_REJECTED = "client_rejected"
    """Pleo refused the OAuth client itself, so no tenant's tokens are renewed."""
    STORE_LOST = "store_lost"
    """The store has not answered for a while."""
    RECOVERED = "recovered"
    """A trouble that was told is over."""
    TEST = "test"
    """An operator asked for it."""


@dataclass(frozen=True, slots=True, order=True)
class Trouble:
    """One thing that can be wrong."""

    kind: Kind
    tenant: str | None = None
    """Whose it is; ``None`` where it is everybody's."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell."""

    kind: Kind
    tenant: str | None
    since: float
    """When the proxy found the trouble, also where it is over now."""
    ends_at: float | None = None
    """When the authorisation ends that ends soon."""
    was: Kind | None = None
    """Of :attr:`Kind.RECOVERED`: what is over."""

    @property
    def trouble(self) -> Trouble:
        """What it tells of."""
        return Trouble(self.was or self.kind, self.tenant)


@dataclass(frozen=True, slots=True)
class Survey:
    """How things stand at one moment."""

    at: float
    grants: Mapping[str, Grant]
    """Of tenants that are in use, by name."""
    store_down_since: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as a trouble, and how often one is told. Spans are seconds."""

    warn_s: float
    """How long before its end an authorisation ends soon."""
    store_down_s: float
    """How long the store is away before that is told."""
    repeat_s: float
    """A trouble that lasts is told again after this."""


@dataclass(slots=True)
class Record:
    """What was said of a trouble."""

    since: float | None
    """When it was found; ``None`` while it is over."""
    next_at: float
    """When it may be told, again where it was told before."""
    told: bool = False
    """The last word on it was that it is there."""


class Fate(StrEnum):
    """What became of a trouble that is not found any more."""

    OVER = "over"
    GONE = "gone"
    """What it was about is not there: nothing has recovered."""
    UNCLEAR = "unclear"
    """Nothing shows that it is over."""


@dataclass(slots=True)
class Watch:
    """Says what is to be told; remembers what was."""

    rules: Rules
    records: dict[Trouble, Record] = field(default_factory=dict)
    held_back: tuple[Trouble, ...] = ()
    """What the last look found to be back so soon after it was over that it is not told again yet."""
    _gathering_since: float | None = None

    def look(self, survey: Survey) -> list[Notice]:
        """What is to be told now, which counts as told from here on; usually nothing."""
        now, found = survey.at, troubles(survey, self.rules)
        back = [each for each in found if each in self.records and self.records[each].since is None]
        self.held_back = tuple(each for each in back if now < self.records[each].next_at)
        for trouble in found:
            record = self.records.setdefault(trouble, Record(now, next_at=now))
            record.since = now if record.since is None else record.since
        due = sorted([*self._present(now, found), *self._over(survey, found)], key=lambda each: each.trouble)
        if not due:
            self._gathering_since = None
            return []
        if self._gathering_since is None:
            self._gathering_since = now
        if now - self._gathering_since < GATHER_S:
            return []
        self._gathering_since = None
        for notice in due:
            self._note_told(notice, now)
        return due

    def _present(self, now: float, found: Mapping[Trouble, float | None]) -> Iterator[Notice]:
        for trouble, ends_at in found.items():
            record = self.records[trouble]
            if now >= record.next_at:
                yield Notice(trouble.kind, trouble.tenant, record.since or now, ends_at)

    def _over(self, survey: Survey, found: Collection[Trouble]) -> Iterator[Notice]:
        """What was told and is over; what nobody need hear of any more is forgotten on the way."""
        for trouble, record in list(self.records.items()):
            fate = None if trouble in found else fate_of(trouble, record, survey)
            if fate is Fate.GONE:
                del self.records[trouble]
            elif fate is Fate.OVER and record.told:
                yield Notice(Kind.RECOVERED, trouble.tenant, record.since or survey.at, was=trouble.kind)
            elif fate is Fate.OVER:
                record.since = None
                if survey.at >= record.next_at:
                    del self.records[trouble]

    def _note_told(self, notice: Notice, now: float) -> None:
        record = self.records[notice.trouble]
        if notice.kind is Kind.RECOVERED:
            record.told, record.since, record.next_at = False, None, now + FLAP_S
        else:
            record.told, record.next_at = True, now + self.rules.repeat_s


def survey(
    at: float, grants: Iterable[Grant], tenants: Mapping[str, Tenant], *, store_down_s: float | None
) -> Survey:
    """How things stand; of tenants that are switched off nothing counts."""
    in_use = {
        grant.tenant: grant
        for grant in grants
        if (tenant := tenants.get(grant.tenant)) is not None and tenant.enabled
    }
    return Survey(at, in_use, None if store_down_s is None else at - store_down_s)


def troubles(survey: Survey, rules: Rules) -> dict[Trouble, float | None]:
    """What is wrong, each with the time at which it ends by itself, if it is of that kind."""
    found: dict[Trouble, float | None] = {}
    for tenant, grant in survey.grants.items():
        ends_at = grant.refresh_expires_at
        if grant.state is GrantState.NEEDS_REAUTH:
            found[Trouble(Kind.NEEDS_REAUTH, tenant)] = None
        elif grant.refresh is not None and ends_at is not None and ends_at - survey.at < rules.warn_s:
            found[Trouble(Kind.ENDS_SOON, tenant)] = ends_at
        if grant.last_outcome is Outcome.CLIENT_REJECTED:
            found[Trouble(Kind.CLIENT_REJECTED)] = None
    down_since = survey.store_down_since
    if down_since is not None and survey.at - down_since >= rules.store_down_s:
        found[Trouble(Kind.STORE_LOST)] = None
    return found


def fate_of(trouble: Trouble, record: Record, survey: Survey) -> Fate:
    """What became of a trouble that is not found any more."""
    match trouble.kind:
        case Kind.STORE_LOST:
            return Fate.OVER if survey.store_down_since is None else Fate.UNCLEAR
        case Kind.CLIENT_REJECTED:
            # Only a refresh that worked shows it; one that did not reach Pleo shows nothing.
            worked = any(_worked_since(grant, record.since) for grant in survey.grants.values())
            return Fate.OVER if worked else Fate.UNCLEAR if survey.grants else Fate.GONE
        case Kind.NEEDS_REAUTH | Kind.ENDS_SOON:
            grant = survey.grants.get(trouble.tenant or "")
            is_well = grant is not None and grant.state in (GrantState.CONNECTED, GrantState.REFRESHING)
            # A grant from a backup is neither well nor ill until it was refreshed.
            is_open = grant is not None and grant.state is GrantState.UNVERIFIED
            return Fate.OVER if is_well else Fate.UNCLEAR if is_open else Fate.GONE
        case Kind.RECOVERED | Kind.TEST:
            return Fate.GONE
        case _:
            assert_never(trouble.kind)


def _worked_since(grant: Grant, since: float | None) -> bool:
    at = grant.last_refreshed_at
    return grant.last_outcome is Outcome.GRANTED and at is not None and (since is None or at >= since)
