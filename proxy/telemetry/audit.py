"""Facts as records of the audit trail: which of them, how, and the task that writes them.

:class:`AuditSink` takes facts and never waits: on the way of a request it does next to nothing. What it took
is written by a task of its own, about once a second, in batches. While the store is away it waits in memory,
which is bounded; what did not fit is told by a record with a count. Refusals that are alike come as one
record a minute with a count, so that a flood of them costs neither memory nor rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from time import monotonic
from typing import Any

from proxy import facts
from proxy.audit import AuditError, Ledger, unwritten
from proxy.chain import Entry, Mark, as_details
from proxy.errors import REFUSALS, StoreUnavailable
from proxy.facts import Emit, Fact, RequestFinished
from proxy.model import Clock
from proxy.places import innermost_place
from proxy.telemetry import fan_out
from proxy.telemetry.canary import Canary

DECISIONS = frozenset(refusal.name for refusal in REFUSALS if refusal.status < 500)
"""Refusals that were decided about a caller. The others are outages, of which log and metrics tell."""


def _is_decision(fact: RequestFinished) -> bool:
    return fact.outcome in DECISIONS


def _changed_something(fact: facts.TenantsLoaded) -> bool:
    return bool(fact.added or fact.changed or fact.removed)


@dataclass(frozen=True, slots=True)
class Rule:
    """How facts of one type become records."""

    omits: tuple[str, ...] = ()
    """Fields that are of no use here."""
    folds: tuple[str, ...] = ()
    """Facts of one minute that agree in these and in the tenant are one record, with these and a count."""
    keeps: str | None = None
    """Of these the one that is one of few words, and tells what happened where the rest is too various."""
    only: Callable[[Any], bool] | None = None


AUDITED: Mapping[type[Fact], Rule] = {
    RequestFinished: Rule(folds=("outcome", "caller"), keeps="outcome", only=_is_decision),
    facts.RequestAmbiguous: Rule(folds=("claims", "caller")),
    facts.PolicyWouldRefuse: Rule(folds=("rule", "caller"), keeps="rule"),
    facts.HandshakeFailed: Rule(folds=("reason", "listener", "caller"), keeps="reason"),
    facts.CertificateReloaded: Rule(),
    facts.AddressRefused: Rule(folds=("host", "address")),
    facts.Refreshed: Rule(omits=("duration_ms", "waiters")),
    facts.RefreshFailed: Rule(omits=("duration_ms", "retry_in_s")),
    facts.ClientSecretFellBack: Rule(),
    facts.GrantConnected: Rule(),
    facts.ConsentFailed: Rule(),
    facts.ScopesMissing: Rule(),
    facts.GrantNeedsReauth: Rule(),
    facts.GrantRevoked: Rule(),
    facts.SealedValueFailed: Rule(folds=("column", "problem"), keeps="column"),
    facts.LineWithheld: Rule(folds=("withheld",), keeps="withheld"),
    facts.LinkCreated: Rule(),
    facts.LinkOpened: Rule(),
    facts.AdminLoggedIn: Rule(),
    facts.AdminLoginFailed: Rule(folds=("by", "peer"), keeps="by"),
    facts.AdminLockedOut: Rule(),
    facts.AdminLoggedOut: Rule(),
    facts.TenantsLoaded: Rule(only=_changed_something),
    facts.ConfigReloadAsked: Rule(),
    facts.ConfigReloaded: Rule(),
    facts.ConfigReloadFailed: Rule(),
    facts.ProxyStarted: Rule(),
    facts.ProxyDraining: Rule(),
}
"""What is recorded, with all fields but those that a rule omits."""

NOT_AUDITED: Mapping[type[Fact], str] = {
    facts.CircuitOpened: "an outage",
    facts.CircuitClosed: "an outage",
    facts.RequestTraced: "its request.finished is what counts",
    facts.RequestCrashed: "a defect",
    facts.TracesLost: "an outage",
    facts.TracesTaken: "an outage",
    facts.TaskCrashed: "a defect",
    facts.RefreshStarted: "its end is recorded",
    facts.GrantEndsSoon: "a warning",
    facts.CertificateFailed: "an outage: the old one stays in use",
    facts.TenantMissing: "a setting, and nobody did it",
    facts.JournalFailed: "an outage",
    facts.JournalReplayed: "where a pair was found, not what anybody did",
    facts.LinkRefused: "anybody can cause it, and it changes nothing",
    facts.StoreFailed: "an outage, in which nothing could be recorded",
    facts.StoreRecovered: "an outage",
    facts.WorkerStarted: "each worker's proxy.started is recorded",
    facts.WorkerDied: "an outage",
    facts.NotifySent: "of what it tells, the cause is recorded",
    facts.NotifyFailed: "an outage",
    facts.NotifyHeldBack: "nothing was told",
    facts.ProxyStopped: "its beginning is recorded; then the trail is closed",
    facts.AuditAnchored: "it is made of the trail",
    facts.AuditFailed: "it is of the trail itself",
}
"""What is not, and why. Every fact is here or above."""

_WRITE_S = 1.0
"""Pause between two batches."""
_PRUNE_S = 3600.0
_ANCHOR_S = 3600.0
_FOLD_S = 60.0
_MOST_WAITING = 10_000
"""Entries in memory, some 5 MB. At ten a second that is a quarter of an hour without the store."""
_MOST_FOLDS = 1_000
"""Different refusals of one minute; what is beyond is counted by the proxy's own words alone."""
_BATCH = 1_000
_MOST_ITEMS = 20
"""Of a list in a record: a first start loads every tenant there is."""
_OTHERS = "others"


@dataclass(slots=True)
class _Fold:
    """Facts that are one record."""

    at: float
    fact: Fact
    count: int = 1


class AuditSink:
    """Takes facts in; :meth:`begin` starts writing them, :meth:`close` writes what is left.

    :param keep_s: how long records are kept by who begins with ``prunes``.
    :param canary: knows the secrets that no record may hold.
    """

    def __init__(self, clock: Clock, *, keep_s: float, canary: Canary | None = None) -> None:
        self._clock = clock
        self.keep_s = keep_s
        self._canary = canary or Canary()
        self._actor = "proxy"
        self._waiting: deque[Entry] = deque()
        self._folds: dict[tuple[object, ...], _Fold] = {}
        self._dropped = 0
        self.dropped = 0
        """Records that were lost since the start; the trail tells of them as soon as it is written again."""
        self._ledger: Ledger | None = None
        self._emit = fan_out()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._look = True
        self._failing = False
        self._newest: Mark | None = None
        self._anchored_at = self._pruned_at = monotonic()

    def __call__(self, fact: Fact) -> None:
        """Take one fact."""
        if type(fact) is RequestFinished and fact.outcome == "answered":
            return  # nearly all that is ever reported: everything else may take its time
        rule = AUDITED.get(type(fact))
        if rule is None or (rule.only is not None and not rule.only(fact)):
            return
        if rule.folds:
            self._fold(fact, rule)
        else:
            self._enqueue(self._entry(self._clock(), fact, rule))

    # --- in

    def _fold(self, fact: Fact, rule: Rule) -> None:
        key = (type(fact), getattr(fact, "tenant", None), *(getattr(fact, name) for name in rule.folds))
        if key not in self._folds and len(self._folds) >= _MOST_FOLDS:
            kept = (getattr(fact, name) if name == rule.keeps else _OTHERS for name in rule.folds)
            key = (type(fact), None, *kept)
        fold = self._folds.get(key)
        if fold is None:
            self._folds[key] = _Fold(self._clock(), fact)
        else:
            fold.count += 1

    def _unfold(self, *, at_once: bool) -> None:
        """Move the folds whose minute is over to what waits; all of them if ``at_once``."""
        over = self._clock() - _FOLD_S
        for key, fold in list(self._folds.items()):
            if at_once or fold.at <= over:
                del self._folds[key]
                _, tenant, *values = key
                rule = AUDITED[type(fold.fact)]
                details = {**dict(zip(rule.folds, values, strict=True)), "count": fold.count}
                first = getattr(fold.fact, "request_id", None)
                details |= {} if first is None else {"first_request_id": first}
                self._enqueue(self._made(fold.at, fold.fact, tenant, details))

    def _entry(self, at: float, fact: Fact, rule: Rule) -> Entry:
        names = [field.name for field in fields(fact) if field.name not in ("tenant", *rule.omits)]
        details = {name: _bounded(getattr(fact, name)) for name in names}
        return self._made(at, fact, getattr(fact, "tenant", None), details)

    def _made(self, at: float, fact: Fact, tenant: object, details: Mapping[str, Any]) -> Entry:
        named = tenant if isinstance(tenant, str) else None
        text = as_details(details)
        if self._canary.finds(text.encode()):
            text = as_details({"withheld": True})  # the log's line is withheld too, and that is reported
        return Entry(at, fact.event, named, self._actor, text)

    def _enqueue(self, entry: Entry) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._drop(1)
        else:
            self._waiting.append(entry)

    def _drop(self, count: int) -> None:
        self._dropped += count
        self.dropped += count

    @property
    def waiting(self) -> int:
        """Records that are to be written; refusals of this minute, which may be one record, are none yet."""
        return len(self._waiting)

    # --- out

    def begin(self, ledger: Ledger, emit: Emit, *, prunes: bool) -> None:
        """Start the task that writes.

        :param emit: told what befalls the trail itself.
        :param prunes: whether this process removes what is older than is kept; one of several suffices.
        """
        self._ledger, self._emit, self._actor = ledger, emit, ledger.actor
        self._task = asyncio.create_task(self._run(prunes), name="audit")

    def look(self) -> None:
        """Somebody changed the store, and may have left a note in it."""
        self._look = True

    async def close(self) -> None:
        """Write what waits, once, and note the newest record where the trail is not."""
        if self._task is not None:
            self._stopping.set()
            await self._task
            self._task = None

    async def _run(self, prunes: bool) -> None:
        stopping = False
        while not stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_S):
                    await self._stopping.wait()
            # Asked once, so that what comes before a stop is in the last round however it falls.
            stopping = self._stopping.is_set()
            try:
                await self._round(prunes and not stopping, is_last=stopping)
            except Exception as error:  # noqa: BLE001 - it must go on whatever one round of it met
                self._emit(facts.TaskCrashed("audit", type(error).__name__, innermost_place(error)))

    async def _round(self, prunes: bool, *, is_last: bool) -> None:
        self._unfold(at_once=is_last)
        await self._write()
        if is_last or monotonic() - self._anchored_at >= _ANCHOR_S:
            self._anchor()
        if prunes and monotonic() - self._pruned_at >= _PRUNE_S:
            self._pruned_at = monotonic()
            await self._prune()

    async def _write(self) -> None:
        """Write what waits and what others noted, unless the store or the trail does not work."""
        assert self._ledger is not None
        while self._waiting or self._dropped or self._look:
            look, self._look = self._look, False
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            dropped, self._dropped = self._dropped, 0
            told = [unwritten(dropped, at=self._clock(), actor=self._actor)] if dropped else []
            try:
                newest = await self._ledger.append([*batch, *told])
            except (StoreUnavailable, AuditError) as error:
                self._failed(error)
            except Exception:
                self._dropped += dropped
                self._drop(len(batch))  # one of them may be what it stumbles over
                raise
            else:
                self._newest = newest or self._newest
                self._worked()
                continue
            # Not lost: tried again with the next batch. A store that took them and could not say so has them
            # twice, which is better than not at all.
            self._waiting.extendleft(reversed(batch))
            self._dropped += dropped
            self._look = look
            return

    async def _prune(self) -> None:
        assert self._ledger is not None
        try:
            await self._ledger.prune(self._clock() - self.keep_s)
        except StoreUnavailable:
            pass  # the next hour will do
        except AuditError as error:
            self._emit(facts.AuditFailed(str(error)))

    def _failed(self, error: StoreUnavailable | AuditError) -> None:
        if not self._failing:
            self._failing = True
            self._emit(facts.AuditFailed(error.detail if isinstance(error, StoreUnavailable) else str(error)))

    def _worked(self) -> None:
        self._failing = False
        assert self._ledger is not None
        if self._ledger.broken is not None:
            problem, self._ledger.broken = self._ledger.broken, None
            self._emit(facts.AuditFailed(f"{problem}; see `pleo-proxy audit verify`"))

    def _anchor(self) -> None:
        self._anchored_at = monotonic()
        newest, self._newest = self._newest, None
        if newest is not None:
            self._emit(facts.AuditAnchored(newest.number, newest.link.hex()))


def _bounded(value: object) -> object:
    if isinstance(value, tuple) and len(value) > _MOST_ITEMS:
        return [*value[:_MOST_ITEMS], f"and {len(value) - _MOST_ITEMS} more"]
    return value
