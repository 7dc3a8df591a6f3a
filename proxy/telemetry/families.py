"""The metrics by name, with help, labels and buckets, and how a scrape is made of bare numbers.

Knows nothing of facts and counts nothing (:mod:`~proxy.telemetry.metrics` does). Units are in the names; the
values of labels are the project's own words or names of tenants, so that no caller can make a series.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.telemetry.tally import Key

Numbers = Mapping[Key, float]
"""Values by name and the values of its labels."""

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets for what Pleo takes; +Inf follows."""
SHORT_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
"""For what the proxy takes: tens of microseconds while nothing has to be waited for."""

REQUESTS = "pleo_proxy_requests"
RETRIED = "pleo_proxy_requests_retried"
NOT_REPEATED = "pleo_proxy_requests_not_repeated"
REFRESHES = "pleo_proxy_refreshes"
LEASE_WAITS = "pleo_proxy_lease_waits"
RESPONSES = "pleo_proxy_upstream_responses"
THROTTLED = "pleo_proxy_upstream_throttled"
CONNECTS = "pleo_proxy_upstream_connections_opened"
STALE_RETRIES = "pleo_proxy_upstream_stale_retries"
LOGINS = "pleo_proxy_admin_logins"
TRIALS = "pleo_proxy_policy_would_refuse"
REPLAY_LOST = "pleo_proxy_replay_given_up"
AUDIT_DROPPED = "pleo_proxy_audit_records_dropped"
WITHHELD = "pleo_proxy_log_lines_withheld"
DEFECTS = "pleo_proxy_defects"
SPANS_EXPORTED = "pleo_proxy_trace_spans_exported"
SPANS_DROPPED = "pleo_proxy_trace_spans_dropped"
NOTIFICATIONS = "pleo_proxy_notifications"
NOTIFY_FAILED_TRIES = "pleo_proxy_notification_failed_tries"
NOTIFY_HELD_BACK = "pleo_proxy_notifications_held_back"
COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    REQUESTS: (
        "Requests that ended, by tenant, class of the status sent, and outcome: answered, or why not.",
        ("tenant", "status_class", "outcome"),
    ),
    RETRIED: ("Requests that were sent a second time after a 401.", ()),
    NOT_REPEATED: ("401s that were passed on, since the body could not be sent again.", ()),
    REFRESHES: ("Token refreshes by outcome and by what began them.", ("outcome", "reason")),
    LEASE_WAITS: ("Refreshes that waited for what another process's refresh came to.", ()),
    LOGINS: ("Logins to the operator's pages and wrong tokens there, by outcome.", ("outcome",)),
    RESPONSES: ("Answers of Pleo that were passed on, by class of status.", ("status_class",)),
    TRIALS: ("Requests that passed and that a policy on trial would refuse.", ("tenant", "rule")),
    WITHHELD: ("Log lines that were not written, since they would have carried a secret.", ()),
    THROTTLED: ("Those with which Pleo asks for fewer requests, by status.", ("status",)),
    CONNECTS: ("Connections to Pleo's API that were opened.", ()),
    STALE_RETRIES: ("Requests sent again because Pleo had closed the idle connection.", ()),
    REPLAY_LOST: ("Bodies too large to be kept for a second sending, or whose disk failed.", ()),
    DEFECTS: ("Defects of the proxy met by requests, and by its own tasks.", ("met_by",)),
    SPANS_EXPORTED: ("Spans that the collector took.", ()),
    SPANS_DROPPED: ("Spans that the collector did not get.", ()),
    NOTIFICATIONS: ("Notifications that ended, by channel and outcome.", ("channel", "outcome")),
    NOTIFY_FAILED_TRIES: ("Tries to deliver a notification that did not work.", ("channel",)),
    NOTIFY_HELD_BACK: ("Troubles that came back too soon to be told again.", ()),
    AUDIT_DROPPED: ("Audit records that were lost, since too many waited.", ()),
}

SECONDS = "pleo_proxy_request_duration_seconds"
UPSTREAM_SECONDS = "pleo_proxy_upstream_duration_seconds"
OWN_SECONDS = "pleo_proxy_own_duration_seconds"
LAG_SECONDS = "pleo_proxy_event_loop_lag_seconds"
HISTOGRAMS: Mapping[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {
    SECONDS: ("From a request's head to the end of its answer.", ("tenant",), BUCKETS_S),
    UPSTREAM_SECONDS: (
        "From sending a request to Pleo to the head of the answer passed on.",
        (),
        BUCKETS_S,
    ),
    OWN_SECONDS: (
        "The rest of answered requests: our own time, waiting for a refresh, and the bodies' time.",
        (),
        SHORT_BUCKETS_S,
    ),
    LAG_SECONDS: ("How late the event loop wakes a task that slept.", (), SHORT_BUCKETS_S),
}

GRANTS = "pleo_proxy_grants"
USABLE = "pleo_proxy_grant_usable"
ACCESS_LEFT = "pleo_proxy_access_token_left_seconds"
REFRESH_LEFT = "pleo_proxy_refresh_token_left_seconds"
UNDER_WAY = "pleo_proxy_under_way"
POOL = "pleo_proxy_upstream_connections"
CALLERS = "pleo_proxy_caller_connections"
REPLAY = "pleo_proxy_replay_bytes"
JOURNAL = "pleo_proxy_journal_records"
STORE_UP = "pleo_proxy_store_up"
AUDIT_WAITING = "pleo_proxy_audit_records_waiting"
TRACES_WAITING = "pleo_proxy_traces_waiting"
CONFIG_OK = "pleo_proxy_config_last_reload_successful"
CONFIG_AT = "pleo_proxy_config_last_reload_success_timestamp_seconds"
_BUILD = "pleo_proxy_build_info"


@dataclass(frozen=True, slots=True)
class Gauge:
    """Something that is read, and how several processes' readings make one."""

    help: str
    labels: tuple[str, ...] = ()
    over_workers: Literal["sum", "least", "same"] = "sum"
    """``same``: all processes follow the store, so one's reading is everybody's."""


GAUGES: Mapping[str, Gauge] = {
    GRANTS: Gauge("Grants by state.", ("state",), "same"),
    USABLE: Gauge("1 while the tenant's grant has tokens, 0 if a person must consent.", ("tenant",), "same"),
    ACCESS_LEFT: Gauge("Until the first access token that is in use expires.", (), "least"),
    REFRESH_LEFT: Gauge("Until the tenant's refresh token ends, known or assumed.", ("tenant",), "same"),
    UNDER_WAY: Gauge("What is under way now.", ("kind",)),
    POOL: Gauge("Connections to Pleo's API: busy with a request, or idle.", ("state",)),
    CALLERS: Gauge("Connections of callers."),
    REPLAY: Gauge("Bytes of bodies kept for a second sending.", ("place",)),
    JOURNAL: Gauge("Token pairs in the journal that the store does not have yet."),
    STORE_UP: Gauge("1 while the store works for every process, else 0.", (), "least"),
    CONFIG_OK: Gauge("1 unless the last reload of the configuration failed.", (), "least"),
    CONFIG_AT: Gauge("When the configuration in force was read.", (), "same"),
    AUDIT_WAITING: Gauge("Audit records in memory that the store does not have yet."),
    TRACES_WAITING: Gauge("Requests and refreshes whose spans are to be sent to the collector."),
}


def is_shared(name: str) -> bool:
    """Whether a scrape needs each process's reading of this gauge."""
    return GAUGES[name].over_workers != "same"


def combined(ours: Numbers, theirs: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    """One reading of several; ``theirs`` may hold other numbers too."""
    together = dict(ours)
    for key, value in theirs:
        gauge = GAUGES.get(key[0])
        if gauge is None:
            continue
        if key not in together:
            together[key] = value
        elif gauge.over_workers == "least":
            together[key] = min(together[key], value)
        else:
            together[key] += value
    return together


class Counted(Collector):
    """Numbers that were counted, as families of counters and histograms."""

    def __init__(self, items: Callable[[], Numbers]) -> None:
        self._items = items

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        by_name = _by_name(self._items())
        for name, (help_text, label_names) in COUNTERS.items():
            counter = CounterMetricFamily(name, help_text, labels=label_names)
            for labels, value in by_name[name].items():
                counter.add_metric(labels, value)
            yield counter
        for name, (help_text, label_names, bounds) in HISTOGRAMS.items():
            yield _histogram(
                HistogramMetricFamily(name, help_text, labels=label_names), bounds, by_name[name]
            )


def _histogram(
    family: HistogramMetricFamily, bounds: tuple[float, ...], numbers: Numbers
) -> HistogramMetricFamily:
    for labels in {key[:-1] for key in numbers}:
        total, buckets = 0.0, []
        for position, bound in enumerate([*map(str, bounds), "+Inf"]):
            total += numbers.get((*labels, str(position)), 0.0)
            buckets.append((bound, total))
        family.add_metric(labels, buckets, numbers.get((*labels, str(len(bounds) + 1)), 0.0))
    return family


class Watched(Collector):
    """What is read at the scrape, as families of gauges."""

    def __init__(self, read: Callable[[], Numbers]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        by_name = _by_name(self._read())
        for name, about in GAUGES.items():
            gauge = GaugeMetricFamily(name, about.help, labels=about.labels)
            for labels, value in by_name[name].items():
                if value != float("inf"):  # nothing is left to end
                    gauge.add_metric(labels, value)
            yield gauge
        build = GaugeMetricFamily(_BUILD, "Always 1; the version.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build


def _by_name(numbers: Numbers) -> Mapping[str, dict[Key, float]]:
    by_name: dict[str, dict[Key, float]] = defaultdict(dict)
    for key, value in numbers.items():
        by_name[key[0]][key[1:]] = value
    return by_name
