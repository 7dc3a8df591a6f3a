"""What metrics read of the running parts: how things are now, and what parts count by themselves.

Reads memory only and changes nothing, so a scrape never waits and never depends on store or vault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.exchange import Exchange
from proxy.listener import CallerServer
from proxy.store import Journal
from proxy.telemetry import families
from proxy.telemetry.audit import AuditSink
from proxy.telemetry.families import Numbers
from proxy.tokens import Tokens
from proxy.tracing import Exporter
from proxy.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Reloads:
    """What came of reading the configuration."""

    succeeded: bool
    """The last time."""
    read_at: float
    """When what is in force was read."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The parts of one process that are read."""

    exchange: Exchange
    tokens: Tokens
    server: CallerServer
    upstream: Upstream
    journal: Journal
    audit: AuditSink
    store_is_up: Callable[[], bool]
    reloads: Callable[[], Reloads]
    exporter: Exporter | None = None

    def gauges(self) -> Numbers:
        """As of now, by name and labels; see :data:`proxy.telemetry.families.GAUGES`."""
        held, pool, kept = self.tokens.held, self.upstream.stats, self.exchange.kept
        idle, reloads = pool["connections_idle"], self.reloads()
        return {
            **{(families.GRANTS, state): count for state, count in held.states().items()},
            **{(families.USABLE, tenant): float(usable) for tenant, usable in held.usable().items()},
            **{(families.REFRESH_LEFT, tenant): left for tenant, left in held.refresh_left_s().items()},
            (families.ACCESS_LEFT,): held.access_left_s(),
            (families.UNDER_WAY, "requests"): self.exchange.under_way,
            (families.UNDER_WAY, "waiting_for_refresh"): self.tokens.waiting,
            (families.UNDER_WAY, "refreshes"): self.tokens.refreshes_under_way,
            (families.POOL, "busy"): pool["connections_open"] - idle,
            (families.POOL, "idle"): idle,
            (families.CALLERS,): len(self.server.connections),
            (families.REPLAY, "memory"): kept.memory_bytes,
            (families.REPLAY, "disk"): kept.disk_bytes,
            (families.JOURNAL,): len(self.journal.outstanding),
            (families.STORE_UP,): float(self.store_is_up()),
            (families.CONFIG_OK,): float(reloads.succeeded),
            (families.CONFIG_AT,): reloads.read_at,
            (families.AUDIT_WAITING,): self.audit.waiting,
            (families.TRACES_WAITING,): 0 if self.exporter is None else self.exporter.waiting,
        }

    def totals(self) -> Mapping[str, float]:
        """Counted since this process began, by name of a counter without labels."""
        pool = self.upstream.stats
        return {
            families.NOT_REPEATED: self.exchange.not_repeated,
            families.REPLAY_LOST: self.exchange.kept.given_up,
            families.LEASE_WAITS: self.tokens.refresher.lease_waits,
            families.CONNECTS: pool["connects_total"],
            families.STALE_RETRIES: pool["stale_retries_total"],
            families.AUDIT_DROPPED: self.audit.dropped,
            families.SPANS_EXPORTED: 0 if self.exporter is None else self.exporter.exported,
            families.SPANS_DROPPED: 0 if self.exporter is None else self.exporter.dropped,
        }
