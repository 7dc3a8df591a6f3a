"""This proxy as an operator runs it: a real ``serve`` with tenants whose grants are already in the store.

The grants are sealed and stored as a consent would have left them, with a token that outlives the run, so
that what is measured is a request and not a refresh.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.peers import CREDENTIAL
from benchmarks.processes import BenchmarkError, environment, free_port, running, wait_until_listening
from benchmarks.upstream import Endpoint
from proxy import config, groundwork, lifecycle, pairs
from proxy.errors import ConfigurationError
from proxy.model import DAY_S, Policy, Preset, Secret, Tenant
from proxy.oauth import TokenPair
from proxy.store import Store, open_store
from proxy.vault import Vault

PROGRAM = Path(sys.executable).with_name("pleo-proxy")
TENANT = "acme"
TITLE = "pleo-proxy"
REMARK = "tenant, policy, metrics, JSON log"


@dataclass(frozen=True)
class Serving:
    """A running proxy."""

    url: str
    pid: int
    started_s: float
    """From starting the process until it accepted connections."""


def settings_for(
    folder: Path, upstream: Endpoint, *, workers: int = 1, port: int | None = None
) -> dict[str, dict[str, object]]:
    """The configuration, as the tables of the file; everything that is not named is as it comes."""
    pleo: dict[str, object] = {
        "environment": "custom",
        "client_id": "benchmark",
        "client_secret": "benchmark",
        "api_url": upstream.url,
        # Nobody listens there: a run that needed a refresh would fail.
        "authorize_url": "http://127.0.0.1:9/authorize",
        "token_url": "http://127.0.0.1:9/token",
    }
    if upstream.authority is not None:
        pleo["ca_file"] = str(upstream.authority)
    listen: dict[str, object] = {
        "proxy": f"127.0.0.1:{port or free_port()}",
        "admin": f"127.0.0.1:{free_port()}",
    }
    if workers != 1:
        listen["workers"] = workers
    return {
        "listen": listen,
        "pleo": pleo,
        "store": {"url": f"sqlite://{folder}/proxy.db", "state_dir": str(folder)},
        "admin": {"token": "benchmark"},
        "log": {"format": "json"},
    }


@contextmanager
def serving(
    folder: Path,
    upstream: Endpoint,
    cores: Sequence[int],
    *,
    names: Sequence[str] = (TENANT,),
    workers: int = 1,
) -> Iterator[Serving]:
    """The proxy before ``upstream`` with these tenants connected, for as long as the block lasts.

    :raises BenchmarkError: it does not start.
    """
    port = free_port()
    path = folder / "config.toml"
    path.write_text(_toml(settings_for(folder, upstream, workers=workers, port=port)))
    connect(path, names)
    command = [str(PROGRAM), "serve", "--config", str(path)]
    began = time.perf_counter()
    with running(command, cores=cores, folder=folder) as process:
        wait_until_listening(port, process, folder)
        yield Serving(f"http://127.0.0.1:{port}", process.pid, time.perf_counter() - began)


def connect(config_path: Path, names: Sequence[str]) -> None:
    """Add the tenants to the store of this configuration, each with a grant.

    :raises BenchmarkError: the configuration is not accepted.
    """
    try:
        settings = config.load(config_path, environment())
    except ConfigurationError as error:
        raise BenchmarkError(f"our own configuration is not accepted: {error}") from None
    store = open_store(settings.store.sqlite_path)

    async def fill() -> None:
        try:
            await _fill(store, await groundwork.open_vault(settings, environment(), store), names)
        finally:
            await store.close()

    asyncio.run(fill())


async def _fill(store: Store, vault: Vault, names: Sequence[str]) -> None:
    pair = TokenPair(Secret(CREDENTIAL.removeprefix("Bearer ")), Secret("benchmark"), 30 * DAY_S)
    lifetimes = pairs.Lifetimes(default_access_s=900, refresh_s=60 * DAY_S)
    tenants, grants = {}, {}
    for name in names:
        sealed = pairs.seal_pair(vault, pair, tenant=name, generation=1, now=time.time(), lifetimes=lifetimes)
        tenants[name] = Tenant(name, policy=Policy(Preset.ACCOUNTING))
        grants[name] = lifecycle.connected(sealed, tenant=name, company="benchmark", scopes=(), generation=1)
    # In one transaction: with one for each, a hundred thousand take minutes.
    await store.edit_content(lambda stored: replace(stored, tenants=tenants, grants=grants))


def _toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    """A configuration file; strings and numbers of JSON are those of TOML."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )
