"""What became of notifications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from proxy.facts.fact import Fact, Level


@dataclass(slots=True)
class NotifySent(Fact):
    """A notification arrived where one of the channels leads."""

    event: ClassVar[str] = "notify.sent"
    channel: str
    kind: str
    message: str
    """Its id, the same on each channel."""
    tries: int


@dataclass(slots=True)
class NotifyFailed(Fact):
    """A notification did not arrive; ``error`` is the proxy's own word for why."""

    event: ClassVar[str] = "notify.failed"
    level: ClassVar[Level] = "warning"
    channel: str
    kind: str
    message: str
    error: str
    tries: int
    retry_in_s: float | None
    """``None``: it is given up."""


@dataclass(slots=True)
class NotifyHeldBack(Fact):
    """A trouble came back so soon after it was said to be over that it is not told again yet."""

    event: ClassVar[str] = "notify.held_back"
    kind: str
    tenant: str | None
