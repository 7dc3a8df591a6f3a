"""``reload``: have the running proxy read its configuration again; and what ``serve`` does then."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic

import click

from proxy import beacon, config, wiring
from proxy.beacon import Beacon
from proxy.cli.inputs import config_option, json_option, load_settings
from proxy.cli.output import print_json
from proxy.config import Configuration, Report
from proxy.errors import ConfigurationError
from proxy.notifications import channels_of
from proxy.reload import Reloader
from proxy.telemetry.canary import Canary


def loader(config_path: Path | None) -> Callable[[], Configuration]:
    """What reads the configuration, now and at each reload from the same place, and checks it wholly.

    :raises UsageError: there is none.
    """
    path = config.find(config_path, os.environ)
    return lambda: load(path)


def load(path: Path | None) -> Configuration:
    """The configuration, with all that it names read and tried.

    :raises ConfigurationError: with all mistakes, or the first of what only shows when it is tried.
    """
    settings = config.load(path, os.environ, check_references=True)
    loaded = config.configuration(settings, os.environ, str(path) if path is not None else "the environment")
    wiring.admin_tokens(loaded.settings, os.environ)
    channels_of(loaded.settings, os.environ, time.time)
    wiring.exporter(loaded.settings, os.environ, time.time, Canary())
    return loaded


@contextmanager
def hangups() -> Iterator[asyncio.Event]:
    """An event that SIGHUP sets while the block lasts, so that none is lost before all is built.

    After it SIGHUP is ignored: where a handler is taken away, at the end of a loop or of Python, the default
    is in force, which ends the process.
    """
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(told.set))
    try:
        yield told
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


@asynccontextmanager
async def reloading(reloader: Reloader, lit: Beacon, told: asyncio.Event) -> AsyncIterator[None]:
    """Reload whenever it is told, one after the other, and leave the report for ``pleo-proxy reload``."""

    async def run() -> None:
        while True:
            await told.wait()
            told.clear()
            # Taken before anything is read: who asks after this waits for the next one.
            began = monotonic()
            lit.tell(await reloader.reload(), began=began)

    running = asyncio.create_task(run(), name="reload")
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@click.command()
@config_option
@json_option
def reload(config_path: Path | None, as_json: bool) -> None:
    """Have the running proxy read its configuration again, and print what came of it.

    Nothing is interrupted. A configuration with mistakes is not taken up; what needs a restart is named and
    keeps its value until then. The same as SIGHUP, which systemd sends at `systemctl reload`.
    """
    settings = load_settings(config_path)
    report = asyncio.run(beacon.ask(settings.store.state_dir))
    if as_json:
        print_json(asdict(report))
    elif not report.mistakes:
        _print(report)
    if report.mistakes:
        raise ConfigurationError(report.source, [*report.mistakes, "nothing was taken up; correct them all"])
    if report.unreached:
        raise click.ClickException("; ".join(report.unreached) + "; restart the proxy")


def _print(report: Report) -> None:
    click.echo(f"{report.source} was read again.")
    click.echo(f"In force now: {', '.join(report.changed) or 'nothing that was not'}.")
    for key, why in report.needs_restart.items():
        click.echo(f"Warning: {key} keeps its value until a restart: {why}", err=True)
