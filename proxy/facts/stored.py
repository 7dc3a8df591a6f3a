"""What is stored, and whether it could be: store, journal, audit trail, tenants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from proxy.facts.fact import Fact, Level


@dataclass(slots=True)
class JournalFailed(Fact):
    """A new pair could not be recorded in the journal; the store is asked to keep it all the same."""

    event: ClassVar[str] = "journal.failed"
    level: ClassVar[Level] = "error"
    tenant: str
    error: str


@dataclass(slots=True)
class JournalReplayed(Fact):
    """A pair that a former run had received and not saved was found in the journal at the start."""

    event: ClassVar[str] = "journal.replayed"
    tenant: str
    generation: int
    """Of the pair."""
    taken: bool
    """The store has it now; else the tenant was connected anew, or removed, or it was saved already."""


@dataclass(slots=True)
class StoreFailed(Fact):
    """The store did not carry out an operation; ``error`` is the proxy's own word for the kind of failure."""

    event: ClassVar[str] = "store.failed"
    level: ClassVar[Level] = "error"
    operation: str
    error: str


@dataclass(slots=True)
class StoreRecovered(Fact):
    """The store works again after it failed."""

    event: ClassVar[str] = "store.recovered"
    down_s: float


@dataclass(slots=True)
class AuditAnchored(Fact):
    """How far the audit trail has come, for whoever keeps logs where the trail's database is not."""

    event: ClassVar[str] = "audit.anchored"
    number: int
    """Of the newest record that this process wrote."""
    link: str
    """Its link, in hex: ``pleo-proxy audit verify --anchor NUMBER:LINK`` holds the trail to it."""


@dataclass(slots=True)
class AuditFailed(Fact):
    """The audit trail cannot be extended or pruned, or its end was tampered with; ``problem`` says what."""

    event: ClassVar[str] = "audit.failed"
    level: ClassVar[Level] = "error"
    problem: str


@dataclass(slots=True)
class TenantsLoaded(Fact):
    """The tenants in force were read from the store, at start or after a change."""

    event: ClassVar[str] = "tenants.loaded"
    tenants: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(slots=True)
class TenantMissing(Fact):
    """A setting names a tenant that the store does not have; what it is for is refused until it is added."""

    event: ClassVar[str] = "tenants.missing"
    level: ClassVar[Level] = "warning"
    setting: str
    tenant: str
