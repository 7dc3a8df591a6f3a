"""Facts as Prometheus metrics, named by convention with their units.

Counting happens on the main path, so it is one addition to a plain number each
(:mod:`~proxy.telemetry.tally`); names, help and buckets come in at a scrape.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.facts import (
    AdminLockedOut,
    AdminLoggedIn,
    AdminLoginFailed,
    Fact,
    LineWithheld,
    PolicyWouldRefuse,
    Refreshed,
    RefreshFailed,
    RequestFinished,
)
from proxy.model import Outcome
from proxy.telemetry import tally
from proxy.telemetry.tally import Key, Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets; +Inf follows."""
_SUM = len(BUCKETS_S) + 1
"""Place of a histogram's sum, behind its buckets."""

_REQUESTS = "pleo_proxy_requests"
_RETRIED = "pleo_proxy_requests_retried"
_REFRESHES = "pleo_proxy_refreshes"
_RESPONSES = "pleo_proxy_upstream_responses"
_THROTTLED = "pleo_proxy_upstream_throttled"
_LOGINS = "pleo_proxy_admin_logins"
_TRIALS = "pleo_proxy_policy_would_refuse"
_SECONDS = "pleo_proxy_request_duration_seconds"
_UPSTREAM_SECONDS = "pleo_proxy_upstream_duration_seconds"
_WITHHELD = "pleo_proxy_log_lines_withheld"
_UNDER_WAY = "pleo_proxy_under_way"
_LEFT = "pleo_proxy_refresh_token_left_seconds"
_SINCE = "since"
"""When counting began; no metric, since Prometheus knows that by itself."""

_COUNTERS = {
    _REQUESTS: (
        "Requests by tenant and outcome: answered, caller_left, upstream_broke_off, cut_by_stop, refusals.",
        ("tenant", "outcome"),
    ),
    _RETRIED: ("Requests that were sent a second time after a 401.", ()),
    _REFRESHES: ("Token refreshes by outcome.", ("outcome",)),
    _LOGINS: ("Logins to the operator's pages and wrong tokens there, by outcome.", ("outcome",)),
    _RESPONSES: ("Answers of Pleo that were passed on, by class of status.", ("status_class",)),
    _TRIALS: ("Requests that passed and that a policy on trial would refuse.", ("tenant", "rule")),
    _WITHHELD: ("Log lines that were not written, since they would have carried a secret.", ()),
    _THROTTLED: ("Those with which Pleo asks for fewer requests, by status.", ("status",)),
}
_HISTOGRAMS = {
    _SECONDS: ("From a request's head to the end of its answer.", ("tenant",)),
    _UPSTREAM_SECONDS: ("From sending a request to Pleo to the head of the answer passed on.", ()),
}

THROTTLING = (429, 503)
"""Statuses that usually come with ``Retry-After``."""

Gauges = Callable[[], Mapping[str, float]]

NO_FAILURES = frozenset({"answered", "caller_left"})
"""Outcomes of requests that failed at nobody's hands but the caller's, if at all."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of one tenant."""

    requests: int
    failed: int
    """Those that the proxy refused, or that got no whole answer."""


NO_TRAFFIC = Traffic(0, 0)


@dataclass(frozen=True, slots=True)
class TrafficSince:
    """What was counted of requests since an instant."""

    since: float
    by_tenant: Mapping[str, Traffic]


class _Histogram:
    """Where the buckets and the sum of one series are."""

    __slots__ = ("_first", "_tally")

    def __init__(self, numbers: Tally, name: str, *labels: str) -> None:
        self._tally = numbers
        self._first = numbers.row(_SUM + 1, name, *labels)

    def observe(self, seconds: float) -> None:
        self._tally.add(self._first + bisect_left(BUCKETS_S, seconds))
        self._tally.add(self._first + _SUM, seconds)


class Metrics:
    """Counts facts and renders them for a scrape.

    :param path: a file for the numbers, where several processes count; see :meth:`add_up`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._tally = Tally(path)
        self._path = path
        self._others: Callable[[], Iterable[Path]] = tuple
        self._registry = CollectorRegistry()
        self._registry.register(_Counted(self._items))
        self._seconds: dict[str, _Histogram] = {}
        self._upstream_seconds = _Histogram(self._tally, _UPSTREAM_SECONDS)
        self._retried = self._tally.index(_RETRIED)
        self._tally.index(_WITHHELD)
        for outcome in Outcome:
            self._tally.index(_REFRESHES, outcome.value)
        for login in ("granted", "refused", "locked_out"):
            self._tally.index(_LOGINS, login)
        self._responses = {
            status: self._tally.index(_RESPONSES, f"{status // 100}xx") for status in range(200, 600)
        }
        self._throttled = {status: self._tally.index(_THROTTLED, str(status)) for status in THROTTLING}

    def watch(self, grants: Gauges, under_way: Gauges, seconds_left: Callable[[], float | None]) -> None:
        """Add what is read at each scrape."""
        self._registry.register(_Watched(grants, lambda: self._under_way_of_all(under_way()), seconds_left))

    def note_under_way(self, under_way: Mapping[str, float]) -> None:
        """Leave for another process's scrape what is under way here."""
        for kind, count in under_way.items():
            self._tally.set(self._tally.index(_UNDER_WAY, kind), count)

    def add_up(self, others: Callable[[], Iterable[Path]]) -> None:
        """From now on a scrape is the sum of this and of the files that ``others`` names."""
        self._others = others

    def __call__(self, fact: Fact) -> None:
        """Count one fact."""
        match fact:
            case RequestFinished():
                self._count_request(fact)
            case Refreshed():
                self._add(_REFRESHES, Outcome.GRANTED.value)
            case RefreshFailed():
                self._add(_REFRESHES, fact.outcome.value)
            case AdminLoggedIn():
                self._add(_LOGINS, "granted")
            case AdminLoginFailed():
                self._add(_LOGINS, "refused")
            case AdminLockedOut():
                self._add(_LOGINS, "locked_out")
            case PolicyWouldRefuse():
                self._add(_TRIALS, fact.tenant, fact.rule)
            case LineWithheld():
                self._add(_WITHHELD)
            case _:
                pass

    def begin(self, now: float) -> None:
        """Counting begins, unless another process has begun with it whose place this one takes."""
        since = self._tally.index(_SINCE)
        if not dict(self._tally.items())[(_SINCE,)]:
            self._tally.set(since, now)

    def traffic(self) -> TrafficSince:
        """Requests by tenant, of all processes."""
        counted: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for key, value in self._items().items():
            if key[0] == _REQUESTS:
                _, tenant, outcome = key
                counted[tenant][0] += value
                counted[tenant][1] += 0.0 if outcome in NO_FAILURES else value
        since = dict(self._tally.items()).get((_SINCE,), 0.0)
        return TrafficSince(
            since, {name: Traffic(int(all_), int(failed)) for name, (all_, failed) in counted.items()}
        )

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
        numbers.add(numbers.index(_REQUESTS, tenant, fact.outcome))
        seconds = self._seconds.get(tenant)
        if seconds is None:
            seconds = self._seconds[tenant] = _Histogram(numbers, _SECONDS, tenant)
        seconds.observe(fact.duration_ms / 1000)
        if fact.upstream_ms is not None:
            self._upstream_seconds.observe(fact.upstream_ms / 1000)
        if fact.retried:
            numbers.add(self._retried)
        if fact.upstream_status is not None:
            self._count_response(fact.upstream_status)

    def _count_response(self, status: int) -> None:
        index = self._responses.get(status)
        if index is None:  # none that HTTP knows of (RFC 9110 section 15), and passed on all the same
            index = self._tally.index(_RESPONSES, "other")
        self._tally.add(index)
        if status in self._throttled:
            self._tally.add(self._throttled[status])

    def _add(self, *key: str) -> None:
        self._tally.add(self._tally.index(*key))

    def _under_way_of_all(self, ours: Mapping[str, float]) -> Mapping[str, float]:
        theirs = self._summed({})
        return {kind: count + theirs.get((_UNDER_WAY, kind), 0.0) for kind, count in ours.items()}

    def _items(self) -> Mapping[Key, float]:
        return self._summed(dict(self._tally.items()))

    def _summed(self, ours: Mapping[Key, float]) -> Mapping[Key, float]:
        summed: dict[Key, float] = defaultdict(float, ours)
        for path in self._others():
            if path != self._path:
                for key, value in tally.read(path):
                    summed[key] += value
        return summed


class _Counted(Collector):
    """The numbers of the tallies as metric families."""

    def __init__(self, items: Callable[[], Mapping[Key, float]]) -> None:
        self._items = items

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        by_name: dict[str, dict[Key, float]] = defaultdict(dict)
        for key, value in self._items().items():
            by_name[key[0]][key[1:]] = value
        for name, (help_text, label_names) in _COUNTERS.items():
            counter = CounterMetricFamily(name, help_text, labels=label_names)
            for labels, value in by_name[name].items():
                counter.add_metric(labels, value)
            yield counter
        for name, (help_text, label_names) in _HISTOGRAMS.items():
            yield _histogram(name, help_text, label_names, by_name[name])


def _histogram(
    name: str, help_text: str, label_names: tuple[str, ...], numbers: Mapping[Key, float]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, help_text, labels=label_names)
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    for labels in {key[:-1] for key in numbers}:
        total, buckets = 0.0, []
        for position, bound in enumerate(bounds):
            total += numbers.get((*labels, str(position)), 0.0)
            buckets.append((bound, total))
        family.add_metric(labels, buckets, numbers.get((*labels, str(_SUM)), 0.0))
    return family


class _Watched(Collector):
    """What is not counted but read."""

    def __init__(self, grants: Gauges, under_way: Gauges, seconds_left: Callable[[], float | None]) -> None:
        self._seconds_left = seconds_left
        self._grants = grants
        self._under_way = under_way

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        grants = GaugeMetricFamily("pleo_proxy_grants", "Grants by state.", labels=("state",))
        for state, count in self._grants().items():
            grants.add_metric((state,), count)
        yield grants
        left = GaugeMetricFamily(_LEFT, "Until the first refresh token ends, known or assumed.")
        if (seconds := self._seconds_left()) is not None:
            left.add_metric((), seconds)
        yield left
        under_way = GaugeMetricFamily(_UNDER_WAY, "What is under way now.", labels=("kind",))
        for kind, count in self._under_way().items():
            under_way.add_metric((kind,), count)
        yield under_way
        build = GaugeMetricFamily("pleo_proxy_build_info", "Always 1; the version.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build
