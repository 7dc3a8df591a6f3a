"""What befell the processes as a whole, and what they met by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from proxy.facts.fact import Fact, Level


@dataclass(slots=True)
class ProxyStarted(Fact):
    """Both listeners accept connections."""

    event: ClassVar[str] = "proxy.started"
    version: str
    proxy: tuple[str, ...]
    admin: str
    upstream: str
    tenants: int


@dataclass(slots=True)
class WorkerStarted(Fact):
    """One of several worker processes serves."""

    event: ClassVar[str] = "worker.started"
    number: int
    pid: int


@dataclass(slots=True)
class WorkerDied(Fact):
    """A worker process ended unasked; its callers' connections are cut, and another takes its place."""

    event: ClassVar[str] = "worker.died"
    level: ClassVar[Level] = "error"
    number: int
    exit_code: int
    """Negative: the number of the signal that ended it."""
    restart_in_s: float


@dataclass(slots=True)
class ConfigReloaded(Fact):
    """A changed configuration was read, and what of it can be taken up at run time is in force."""

    event: ClassVar[str] = "config.reloaded"
    source: str
    changed: tuple[str, ...]
    """Keys with another value from now on."""
    needs_restart: tuple[str, ...]
    """Keys that were changed and keep their value until a restart."""


@dataclass(slots=True)
class ConfigReloadFailed(Fact):
    """The configuration was read again and has mistakes; nothing of it was taken up."""

    event: ClassVar[str] = "config.reload_failed"
    level: ClassVar[Level] = "error"
    source: str
    mistakes: tuple[str, ...]
    """Each with item, value, rule and remedy, and no secret among them."""


@dataclass(slots=True)
class ProxyDraining(Fact):
    """A stop was asked for: no new connections; what is under way is finished, bounded by ``drain_s``."""

    event: ClassVar[str] = "proxy.draining"
    requests: int
    refreshes: int
    drain_s: float


@dataclass(slots=True)
class ProxyStopped(Fact):
    """The last event of a run; ``requests_cut`` counts what the drain time did not suffice for."""

    event: ClassVar[str] = "proxy.stopped"
    requests_cut: int


@dataclass(slots=True)
class TaskCrashed(Fact):
    """A defect of the proxy met by one of its own tasks. ``error`` is the exception's type."""

    event: ClassVar[str] = "task.crashed"
    level: ClassVar[Level] = "error"
    task: str
    error: str
    where: str


@dataclass(slots=True)
class LineWithheld(Fact):
    """A line would have carried a secret, and was not written: a defect of the proxy."""

    event: ClassVar[str] = "log.line_withheld"
    level: ClassVar[Level] = "error"
    withheld: str
    """The event that the line was to tell of."""


@dataclass(slots=True)
class CertificateReloaded(Fact):
    """The files of a listener's certificate have changed, and new connections get the new one."""

    event: ClassVar[str] = "tls.certificate_reloaded"
    listener: str


@dataclass(slots=True)
class CertificateFailed(Fact):
    """The files of a listener's certificate have changed, and cannot be used; the old one stays in use."""

    event: ClassVar[str] = "tls.certificate_failed"
    level: ClassVar[Level] = "error"
    listener: str
    problem: str
