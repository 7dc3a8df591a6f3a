"""What is measured, as data."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import upstream
from benchmarks.load import Request
from benchmarks.upstream import MIB

OURS = "ours"
DIRECT = "direct"
"""The upstream itself, without a proxy before it."""


@dataclass(frozen=True)
class Scenario:
    """One kind of request under one kind of load, for several proxies in turn."""

    name: str
    """By which ``--scenarios`` calls it."""
    title: str
    request: Request
    connections: int
    peers: tuple[str, ...]
    tls: bool = False
    """To the upstream."""


_FIELD = ("nginx", "haproxy", "envoy", "go", "caddy", "node", "naive", "mitmproxy")
_STRONG = ("nginx", "envoy", "go")
_GET = Request(upstream.SMALL)

SCENARIOS = (
    Scenario("get", "GET, 1 KB answer, 64 connections", _GET, 64, _FIELD),
    Scenario(
        "unlike",
        "The same, each request with another target and another header",
        Request(upstream.SMALL, unlike=True),
        64,
        _STRONG,
    ),
    Scenario(
        "tls", "GET, 1 KB answer, 64 connections, over TLS to the upstream", _GET, 64, _STRONG, tls=True
    ),
    Scenario("post", "POST, 1 KB body, 64 connections", Request(upstream.ACCEPTS, "POST", 1024), 64, _STRONG),
    Scenario("many", "GET, 1 KB answer, 512 connections", _GET, 512, _STRONG),
    Scenario("latency", "GET, 1 KB answer, 1 connection", _GET, 1, (DIRECT, *_STRONG)),
    Scenario("large", "GET, 1 MiB answer, 16 connections", Request(upstream.LARGE), 16, _STRONG),
    Scenario(
        "upload",
        "POST, 10 MiB body, 8 connections",
        Request(upstream.ACCEPTS, "POST", 10 * MIB),
        8,
        _STRONG,
    ),
)
MEMORY, TENANTS, WORKERS = "memory", "tenants", "workers"
"""What is measured of ours alone, not in rounds with others."""
NAMES = (*(scenario.name for scenario in SCENARIOS), MEMORY, TENANTS, WORKERS)
QUICK = (("get",), ("nginx", "envoy", "go", "naive"))
"""Scenarios and peers of ``--quick``."""
