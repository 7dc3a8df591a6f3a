"""``serve`` and ``check``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import click
import uvloop

from proxy import app, config, groundwork, hardening, listening, wiring, workers
from proxy.cli.allocation import keep_large_blocks, spare_the_collector
from proxy.cli.ending import exit_code_of, keep_texts_back
from proxy.cli.inputs import config_option, load_settings
from proxy.config import Settings
from proxy.exchange import RUN
from proxy.keyservice import open_service
from proxy.model import Secret
from proxy.notifications import channels_of
from proxy.telemetry import fan_out
from proxy.telemetry.canary import Canary
from proxy.telemetry.live import Live
from proxy.telemetry.logs import LogSink
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.relay import Hub, Spoke
from proxy.workers import Supervisor

UnixSockets = Mapping[Path, socket.socket]
"""By their paths; the supervisor's, which each worker gets a descriptor of."""


@click.command()
@config_option
def serve(config_path: Path | None) -> None:
    """Run the proxy until SIGTERM or SIGINT, then drain."""
    settings = load_settings(config_path, check_references=True)
    for folder in _state_folders(settings):
        hardening.check_folder(folder)
    wiring.exporter(settings, os.environ, time.time, Canary())  # before workers would each find it wanting
    if settings.listen.workers == 1:
        keep_large_blocks()
        uvloop.run(_serve(settings))
    else:
        sys.exit(asyncio.run(_supervise(settings, config_path)))


def _state_folders(settings: Settings) -> list[Path]:
    """Where files are kept that others must not exchange."""
    database = settings.store.url.path
    folders = [settings.store.state_dir, *([database.absolute().parent] if database is not None else [])]
    return list(dict.fromkeys(folders))


async def _serve(settings: Settings) -> None:
    metrics = Metrics()
    log = log_sink(settings)
    live = Live(log)
    emit = log.report = fan_out(log, metrics, *live.sinks)
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        stack.callback(live.close)
        running = await app.start(
            settings, os.environ, emit=emit, metrics=metrics, stack=stack, canary=log.canary, live=live
        )
        log.canary.watch("admin.token", *filter(None, [running.generated_admin_token]))
        _show_once(running.generated_admin_token)
        spare_the_collector()
        await stop.wait()


async def _supervise(settings: Settings, config_path: Path | None) -> int:
    stop = stop_signal()
    emit = log_sink(settings)
    async with AsyncExitStack() as stack:
        workers.check_ports(settings)
        generated, keys = await groundwork.prepare(settings, os.environ, stack, emit)
        sockets = listening.unix_sockets(settings, stack.enter_context(ExitStack()))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pleo-proxy-"))
        handover = _Handover(keys.reveal())
        work = partial(
            _work, handover=handover, config_path=config_path, counts=Path(folder), sockets=sockets
        )
        supervisor = Supervisor(settings.listen.workers, work, emit, stop_s=workers.stop_s(settings))
        return await supervisor.run(stop, on_ready=lambda: _show_once(generated))


class _Handover:
    """The key ring on its way to a worker.

    It goes through the pipe by which multiprocessing starts a process, and is never written anywhere.
    """

    def __init__(self, text: str) -> None:
        self.keys = Secret(text)

    def __reduce__(self) -> tuple[type[_Handover], tuple[str]]:
        return _Handover, (self.keys.reveal(),)


def _work(
    number: int,
    ready: Connection,
    *,
    handover: _Handover,
    config_path: Path | None,
    counts: Path,
    sockets: UnixSockets,
) -> None:
    """A worker's life, from its start in a process of its own."""

    def run() -> None:
        hardening.close_to_others()
        settings = load_settings(config_path, check_references=True)
        settings = settings.model_copy(update={"vault": config.Vault(keys=handover.keys)})
        keep_large_blocks()
        uvloop.run(_serve_with_others(settings, number, ready, counts, sockets))

    keep_texts_back()
    sys.exit(exit_code_of(run))


async def _serve_with_others(
    settings: Settings, number: int, ready: Connection, counts: Path, sockets: UnixSockets
) -> None:
    stop = stop_signal()
    workers.stop_with_parent(stop)
    metrics = Metrics(counts / str(number))
    metrics.add_up(lambda: [counts / str(other) for other in range(settings.listen.workers)])
    log = log_sink(settings, worker=number)
    live = Live(log)
    emit = log.report = fan_out(log, metrics, *live.sinks)
    async with AsyncExitStack() as stack:
        stack.callback(metrics.close)
        stack.callback(live.close)
        relay = Spoke(counts, number, live) if number else Hub(counts, settings.listen.workers, live)
        stack.callback(relay.close)
        await app.start(
            settings,
            os.environ,
            emit=emit,
            metrics=metrics,
            stack=stack,
            worker=number,
            canary=log.canary,
            live=live,
            unix_sockets=sockets,
            rates=counts / "rates",
        )
        spare_the_collector()
        ready.send(True)
        await stop.wait()


def _show_once(token: Secret | None) -> None:
    if token is not None:
        # On standard error, so that it gets into no log file that collects standard output.
        click.echo(f"Admin token, shown this once: {token.reveal()}", err=True)


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def log_sink(settings: Settings, *, worker: int | None = None) -> LogSink:
    """The log on standard output, in the configured format or the one that fits where it goes."""
    stream = sys.stdout.buffer
    log_format = settings.log.format or ("console" if stream.isatty() else "json")
    canary = Canary(RUN.encode())
    return LogSink(stream, log_format=log_format, level=settings.log.level, worker=worker, canary=canary)


@click.command()
@config_option
def check(config_path: Path | None) -> None:
    """Check the whole configuration and print what to enter into Pleo's registration form."""
    settings = load_settings(config_path, check_references=True)
    if settings.vault.key_service is not None:
        open_service(settings.vault.key_service)  # asks nobody, but finds a missing extra
    for folder in _state_folders(settings):
        hardening.check_folder(folder)
    listed = [
        f"directory {folder}: other users can list it; run `chmod 700 {folder}`"
        for folder in _state_folders(settings)
        if hardening.is_listed_by_others(folder)
    ]
    for listener in settings.listen.proxy:
        listening.caller_tls(listener, lambda _fact: None)
    channels_of(settings, os.environ, time.time)
    wiring.exporter(settings, os.environ, time.time, Canary())
    for warning in [*config.warnings(settings), *listed]:
        click.echo(f"Warning: {warning}", err=True)
    sheet = config.registration_sheet(settings)
    width = max(len(label) for label, _ in sheet)
    click.echo(f"The configuration is valid. Registration at Pleo ({settings.pleo.environment}):\n")
    for label, value in sheet:
        click.echo(f"  {label:<{width}}  {value}")
