"""What the benchmark wants to know of another proxy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.upstream import Endpoint

CREDENTIAL = "Bearer benchmark-token"
"""What every proxy puts into ``Authorization``."""


@dataclass(frozen=True)
class Site:
    """Where a peer is to run."""

    program: Path
    folder: Path
    """Its own, for configuration and logs; gone afterwards."""
    port: int
    """Where it is to listen, on 127.0.0.1."""
    upstream: Endpoint
    """Where it sends requests; verified where it speaks TLS."""

    @property
    def log(self) -> Path:
        """The access log: the harness empties files of this name between runs."""
        return self.folder / "access.log"


@dataclass(frozen=True)
class Peer:
    """One proxy of others, and how it is set up here."""

    name: str
    """By which ``--peers`` and the scenarios call it."""
    title: str
    remark: str
    """How it is configured, in a few words."""
    remedy: str
    """How to get it, where it is missing."""
    find: Callable[[], Path | None]
    """The program that must exist."""
    command: Callable[[Site], list[str]]
    """Writes its configuration and returns what to start."""
    version: Callable[[Path], str]
