"""Facts as Prometheus metrics, named by convention with their units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.model import Fact, Outcome, Refreshed, RefreshFailed, RequestFinished

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counts facts and renders them for a scrape."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "pleo_proxy_requests",
            "Requests by tenant and outcome (answered, caller_left, upstream_broke_off, or a refusal).",
            ("tenant", "outcome"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "pleo_proxy_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ("tenant",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._upstream_seconds = Histogram(
            "pleo_proxy_upstream_duration_seconds",
            "From sending a request to Pleo to the head of the answer that was passed on.",
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._retried = Counter(
            "pleo_proxy_requests_retried",
            "Requests that were sent a second time after a 401.",
            registry=self._registry,
        )
        self._refreshes = Counter(
            "pleo_proxy_refreshes", "Token refreshes by outcome.", ("outcome",), registry=self._registry
        )
        for outcome in Outcome:
            self._refreshes.labels(outcome.value)

    def watch(
        self, grants: Callable[[], Mapping[str, int]], under_way: Callable[[], Mapping[str, int]]
    ) -> None:
        """Add what is read at each scrape."""
        self._registry.register(_Gauges(grants, under_way))

    def __call__(self, fact: Fact) -> None:
        """Count one fact."""
        match fact:
            case RequestFinished():
                # A request of no tenant has the empty label, so that callers cannot invent label values.
                tenant = fact.tenant or ""
                self._requests.labels(tenant, fact.outcome).inc()
                self._seconds.labels(tenant).observe(fact.duration_ms / 1000)
                if fact.upstream_ms is not None:
                    self._upstream_seconds.observe(fact.upstream_ms / 1000)
                if fact.retried:
                    self._retried.inc()
            case Refreshed():
                self._refreshes.labels(Outcome.GRANTED.value).inc()
            case RefreshFailed():
                self._refreshes.labels(fact.outcome.value).inc()
            case _:
                pass

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(
        self, grants: Callable[[], Mapping[str, int]], under_way: Callable[[], Mapping[str, int]]
    ) -> None:
        self._grants = grants
        self._under_way = under_way

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        grants = GaugeMetricFamily("pleo_proxy_grants", "Grants by state.", labels=("state",))
        for state, count in self._grants().items():
            grants.add_metric((state,), count)
        yield grants
        under_way = GaugeMetricFamily("pleo_proxy_under_way", "What is under way now.", labels=("kind",))
        for kind, count in self._under_way().items():
            under_way.add_metric((kind,), count)
        yield under_way
        build = GaugeMetricFamily("pleo_proxy_build_info", "Always 1; the version.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build
