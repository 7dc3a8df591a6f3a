"""Counts facts, and renders the numbers for a scrape.

Counting happens on the main path, so it is an addition to a plain number or two for each thing that is told
(:mod:`~proxy.telemetry.tally`); names, help and buckets (:mod:`~proxy.telemetry.families`) come in at a
scrape.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from proxy.facts import (
    AdminLockedOut,
    AdminLoggedIn,
    AdminLoginFailed,
    Fact,
    LineWithheld,
    NotifyFailed,
    NotifyHeldBack,
    NotifySent,
    PolicyWouldRefuse,
    Refreshed,
    RefreshFailed,
    RequestCrashed,
    RequestFinished,
    TaskCrashed,
)
from proxy.model import Outcome
from proxy.telemetry import families, tally
from proxy.telemetry.families import Numbers
from proxy.telemetry.tally import Follower, Key, Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
THROTTLING = (429, 503)
"""Statuses that usually come with ``Retry-After``."""
_SINCE = "since"
"""When counting began; no metric, since Prometheus knows that by itself."""
REASONS = ("expiring", "expired", "rejected", "keep_alive", "asked", "restored")
"""What begins a refresh."""
CHANNELS = ("webhook", "mail", "command")
"""By which notifications go."""
_CLASSES = {status: f"{status // 100}xx" for status in range(200, 600)}
_OTHER = "other"
"""Class of a status that HTTP does not know (RFC 9110 section 15), and that is passed on all the same."""

NO_FAILURES = frozenset({"answered", "caller_left"})
"""Outcomes of requests that failed at nobody's hands but the caller's, if at all."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of one tenant."""

    requests: int
    failures: Mapping[str, int]
    """Those that the proxy refused, or that got no whole answer, by outcome, the most frequent first."""

    @property
    def failed(self) -> int:
        """All that failed."""
        return sum(self.failures.values())


NO_TRAFFIC = Traffic(0, {})


@dataclass(frozen=True, slots=True)
class TrafficSince:
    """What was counted of requests since an instant."""

    since: float
    by_tenant: Mapping[str, Traffic]


def _traffic(outcomes: Counter[str]) -> Traffic:
    failures = {outcome: count for outcome, count in outcomes.most_common() if outcome not in NO_FAILURES}
    return Traffic(outcomes.total(), failures)


_COUNTED: Mapping[type[Fact], Callable[[Any], Key]] = {
    Refreshed: lambda fact: (families.REFRESHES, Outcome.GRANTED.value, fact.reason),
    RefreshFailed: lambda fact: (families.REFRESHES, fact.outcome.value, fact.reason),
    AdminLoggedIn: lambda _fact: (families.LOGINS, "granted"),
    AdminLoginFailed: lambda _fact: (families.LOGINS, "refused"),
    AdminLockedOut: lambda _fact: (families.LOGINS, "locked_out"),
    PolicyWouldRefuse: lambda fact: (families.TRIALS, fact.tenant, fact.rule),
    LineWithheld: lambda _fact: (families.WITHHELD,),
    RequestCrashed: lambda _fact: (families.DEFECTS, "request"),
    TaskCrashed: lambda _fact: (families.DEFECTS, "task"),
    NotifySent: lambda fact: (families.NOTIFICATIONS, fact.channel, "delivered"),
    NotifyHeldBack: lambda _fact: (families.NOTIFY_HELD_BACK,),
}
"""Facts of which each is one more of a counter, whose key is told by the fact."""


class _Histogram:
    """Where the buckets and the sum of one series are."""

    __slots__ = ("_bounds", "_first", "_sum", "_tally")

    def __init__(self, numbers: Tally, name: str, *labels: str) -> None:
        self._tally = numbers
        self._bounds = families.HISTOGRAMS[name][2]
        places = len(self._bounds) + 2
        self._first = numbers.row(places, name, *labels)
        self._sum = self._first + places - 1

    def observe(self, seconds: float) -> None:
        self._tally.observe(self._first + bisect_left(self._bounds, seconds), self._sum, seconds)


class Metrics:
    """Counts facts and renders them for a scrape.

    :param path: a file for the numbers, where several processes count; see :meth:`add_up`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._tally = Tally(path)
        self._path = path
        self._others: Callable[[], Iterable[Path]] = tuple
        self._registry = CollectorRegistry()
        self._registry.register(families.Counted(self._items))
        self._requests: dict[tuple[str, int, str], int] = {}
        """Where requests of a tenant with a status and an outcome are counted."""
        self._seconds: dict[str, _Histogram] = {}
        self._upstream_seconds = _Histogram(self._tally, families.UPSTREAM_SECONDS)
        self._own_seconds = _Histogram(self._tally, families.OWN_SECONDS)
        self._lag_seconds = _Histogram(self._tally, families.LAG_SECONDS)
        self._totals: dict[str, float] = {}
        self._begin_series()
        self._retried = self._tally.index(families.RETRIED)
        self._responses = {
            status: self._tally.index(families.RESPONSES, name) for status, name in _CLASSES.items()
        }
        self._throttled = {
            status: self._tally.index(families.THROTTLED, str(status)) for status in THROTTLING
        }

    def _begin_series(self) -> None:
        """At 0, so that the first event of its kind is an increase."""
        for name, (_, labels) in families.COUNTERS.items():
            if not labels:
                self._tally.index(name)
        for outcome in Outcome:
            for reason in REASONS:
                self._tally.index(families.REFRESHES, outcome.value, reason)
        for login in ("granted", "refused", "locked_out"):
            self._tally.index(families.LOGINS, login)
        for met_by in ("request", "task"):
            self._tally.index(families.DEFECTS, met_by)
        for channel in CHANNELS:
            self._tally.index(families.NOTIFY_FAILED_TRIES, channel)
            for end in ("delivered", "given_up", "dropped"):
                self._tally.index(families.NOTIFICATIONS, channel, end)

    # --- what is read, not told

    def watch(self, read: Callable[[], Numbers]) -> None:
        """Show at each scrape the gauges that ``read`` gives."""
        self._registry.register(families.Watched(lambda: families.combined(read(), self._of_others())))

    def note(self, gauges: Numbers) -> None:
        """Leave for another process's scrape what is read here."""
        for key, value in gauges.items():
            if families.is_shared(key[0]):
                self._tally.set(self._tally.index(*key), value)

    def follow(self, totals: Mapping[str, float]) -> None:
        """Count what parts of this process have counted by themselves since they began."""
        for name, total in totals.items():
            self._tally.add(self._tally.index(name), total - self._totals.get(name, 0.0))
            self._totals[name] = total

    def woke_late(self, seconds: float) -> None:
        """The event loop woke a task so much later than it was to."""
        self._lag_seconds.observe(seconds)

    def add_up(self, others: Callable[[], Iterable[Path]]) -> None:
        """From now on a scrape is made of this and of the files that ``others`` names."""
        self._others = others

    # --- what is told

    def __call__(self, fact: Fact) -> None:
        """Count one fact."""
        if type(fact) is RequestFinished:
            self._count_request(fact)
        elif type(fact) is NotifyFailed:
            self._count_failed_try(fact)
        elif (key_of := _COUNTED.get(type(fact))) is not None:
            self._add(*key_of(fact))

    def begin(self, now: float) -> None:
        """Counting begins, unless another process has begun with it whose place this one takes."""
        since = self._tally.index(_SINCE)
        if not dict(self._tally.items())[(_SINCE,)]:
            self._tally.set(since, now)

    def traffic(self) -> TrafficSince:
        """Requests by tenant, of all processes."""
        outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        for key, value in self._items().items():
            if key[0] == families.REQUESTS:
                _, tenant, _, outcome = key
                outcomes[tenant][outcome] += int(value)
        since = dict(self._tally.items()).get((_SINCE,), 0.0)
        return TrafficSince(since, {tenant: _traffic(counted) for tenant, counted in outcomes.items()})

    def sources(self) -> list[Tally | Follower]:
        """The numbers of this process and of all others, for who reads them again and again."""
        return [self._tally, *(Follower(path) for path in self._others() if path != self._path)]

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Let go of the file, if there is one."""
        self._tally.close()

    def _count_request(self, fact: RequestFinished) -> None:
        # A request of no tenant has the empty label, so that callers cannot invent label values.
        tenant = fact.tenant or ""
        numbers = self._tally
        key = (tenant, fact.status, fact.outcome)
        index = self._requests.get(key)
        if index is None:
            status_class = _CLASSES.get(fact.status, _OTHER)
            index = numbers.index(families.REQUESTS, tenant, status_class, fact.outcome)
            self._requests[key] = index
        numbers.add(index)
        seconds = self._seconds.get(tenant)
        if seconds is None:
            seconds = self._seconds[tenant] = _Histogram(numbers, families.SECONDS, tenant)
        seconds.observe(fact.duration_ms / 1000)
        if fact.upstream_ms is not None:
            self._upstream_seconds.observe(fact.upstream_ms / 1000)
            if not fact.retried:  # else the first sending, which is Pleo's time too, would be in the rest
                self._own_seconds.observe((fact.duration_ms - fact.upstream_ms) / 1000)
        if fact.retried:
            numbers.add(self._retried)
        status = fact.upstream_status
        if status is not None:
            index = self._responses.get(status)
            numbers.add(numbers.index(families.RESPONSES, _OTHER) if index is None else index)
            if status in THROTTLING:
                numbers.add(self._throttled[status])

    def _count_failed_try(self, fact: NotifyFailed) -> None:
        if fact.tries:
            self._add(families.NOTIFY_FAILED_TRIES, fact.channel)
        if fact.retry_in_s is None:  # what was dropped untried made room for others
            end = "given_up" if fact.tries else "dropped"
            self._add(families.NOTIFICATIONS, fact.channel, end)

    def _add(self, *key: str) -> None:
        self._tally.add(self._tally.index(*key))

    # --- over all processes

    def _of_others(self) -> Iterable[tuple[Key, float]]:
        for path in self._others():
            if path != self._path:
                yield from tally.read(path)

    def _items(self) -> Numbers:
        summed: dict[Key, float] = defaultdict(float, self._tally.items())
        for key, value in self._of_others():
            summed[key] += value
        return summed
