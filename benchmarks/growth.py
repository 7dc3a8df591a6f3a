"""``python -m benchmarks.growth``: what grows with the number of tenants (``docs/scaling.md``)."""

from __future__ import annotations

import asyncio
import tempfile
import time
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks import accounting, ours, tenants, upstream
from benchmarks.machine import cores
from benchmarks.rounds import Bench
from proxy import lifecycle, pairs
from proxy.lifecycle import Windows
from proxy.model import Grant, Secret, Tenant
from proxy.oauth import TokenFailure, TokenPair
from proxy.refresher import Refresher
from proxy.store import Content, Journal, open_store
from proxy.tokens import RefreshRules, Tokens
from proxy.vault import Vault

COUNTS = (1, 10_000, 100_000)
REFRESHES = 2000
"""At once, to see how many a second one process carries out."""
_PROVIDER_S = 0.05


@dataclass(frozen=True)
class Grown:
    """One row."""

    tenants: int
    start_s: float
    memory_mb: float
    called_mb: float
    request_us: float
    reload_s: float
    """To read all grants again, as a process does when another has changed one."""
    database_mb: float


def measure(bench: Bench, count: int) -> Grown:
    """One proxy with so many connected tenants, each called in turn."""
    folder = bench.new_folder(f"growth-{count}")
    names = [f"t{number}" for number in range(count)]
    with ours.serving(folder, bench.upstream.plain, bench.proxy_cores, names=names) as serving:
        idle = accounting.memory_mb(serving.pid)
        # Long enough for every tenant to be called.
        tenants.cost_us(bench, serving, count, seconds=max(4, count // 10_000))
        request_us = tenants.cost_us(bench, serving, count, seconds=4)
        called = accounting.memory_mb(serving.pid)
        return Grown(
            count,
            serving.started_s,
            idle,
            called,
            request_us,
            asyncio.run(_reload_s(folder / "proxy.db")),
            (folder / "proxy.db").stat().st_size / 1e6,
        )


async def _reload_s(path: Path) -> float:
    store = open_store(path)
    try:
        began = time.perf_counter()
        await store.grants()
        return time.perf_counter() - began
    finally:
        await store.close()


class _Provider:
    """Grants what it is asked for, after as long as Pleo takes."""

    async def refresh(self, refresh: Secret) -> TokenPair | TokenFailure:
        await asyncio.sleep(_PROVIDER_S)
        return TokenPair(Secret("access"), refresh, 900)


async def refreshes_per_second(folder: Path) -> tuple[float, float]:
    """With all grants due at once: refreshes a second, and CPU time of one in µs; all on disk."""
    now = [1_800_000_000.0]
    vault = Vault(Secret("k1:" + b64encode(bytes(32)).decode()))
    lifetimes = pairs.Lifetimes(900, 60 * 86400)
    grants: dict[str, Grant] = {}
    for number in range(REFRESHES):
        name = f"t{number}"
        pair = TokenPair(Secret("access"), Secret(f"refresh-{number}"), 900)
        sealed = pairs.seal_pair(vault, pair, tenant=name, generation=1, now=now[0], lifetimes=lifetimes)
        grants[name] = lifecycle.connected(sealed, tenant=name, company="c", scopes=(), generation=1)
    store, journal = open_store(folder / "proxy.db"), Journal.open(folder / "journal-0.log")
    await store.edit_content(lambda _: Content({name: Tenant(name) for name in grants}, grants, None))
    refresher = Refresher(
        store,
        journal,
        vault,
        _Provider(),
        lifetimes,
        lambda _: None,
        lambda: now[0],
        asyncio.sleep,
        "benchmark/0",
        lease_s=40,
        takeover_s=300,
    )
    rules = RefreshRules(Windows(0.8, 0.1, 30, 0.05, 0.5), 10, 60, 1, 60, 60)
    tokens = Tokens(store, vault, refresher, rules, lambda _: None, lambda: now[0])
    await tokens.load()
    for name in grants:
        await tokens.current(name)
    now[0] += 850
    began, cpu = time.perf_counter(), time.process_time()
    await tokens.refresh_due()
    while tokens.refreshes_under_way:  # noqa: ASYNC110 - an event would cost what is measured
        await asyncio.sleep(0.01)
    took, used = time.perf_counter() - began, time.process_time() - cpu
    await store.close()
    await journal.close()
    return REFRESHES / took, used / REFRESHES * 1e6


@click.command()
def main() -> None:
    """Measure 1, 10,000 and 100,000 tenants, and refreshing; takes about two minutes."""
    load_cores, proxy_cores = cores()
    with tempfile.TemporaryDirectory(prefix="pleo-proxy-growth-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "upstream"
        folder.mkdir()
        with upstream.serving(folder, load_cores) as server:
            bench = Bench(
                Path(name), server, load_cores, proxy_cores, lambda line: click.echo(line, err=True)
            )
            rows = [measure(bench, count) for count in COUNTS]
        (Path(name) / "refreshing").mkdir()
        rate, cost_us = asyncio.run(refreshes_per_second(Path(name) / "refreshing"))
    heads = "tenants, start, memory idle, memory once called, CPU of a request, reading all grants, database"
    click.echo(f"| {heads.replace(', ', ' | ')} |\n|{'---|' * 7}")
    for row in rows:
        click.echo(
            f"| {row.tenants:,} | {row.start_s:.1f} s | {row.memory_mb:.0f} MB | {row.called_mb:.0f} MB "
            f"| {row.request_us:.0f} µs | {row.reload_s:.2f} s | {row.database_mb:.1f} MB |"
        )
    click.echo(f"\nRefreshing: {rate:.0f} a second, {cost_us:.0f} µs of CPU time each.")


if __name__ == "__main__":
    main()
