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
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import click
import uvloop

from proxy import app, beacon, config, groundwork, hardening, listening, workers
from proxy.beacon import Beacon
from proxy.cli.allocation import keep_large_blocks, spare_the_collector
from proxy.cli.ending import exit_code_of, keep_texts_back
from proxy.cli.handover import Handover
from proxy.cli.inputs import config_option
from proxy.cli.reloading import hangups, loader, reloading
from proxy.config import Configuration, Log, Reloaded, Settings
from proxy.errors import OperatorError
from proxy.exchange import RUN
from proxy.facts import TaskCrashed
from proxy.keyservice import open_service
from proxy.model import Secret
from proxy.places import innermost_place
from proxy.reload import Load, Reloader
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
    """Run the proxy until SIGTERM or SIGINT, then drain; at SIGHUP read the configuration again."""
    # Until there is somebody to hear it: what is read now is the newest.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    load = loader(config_path)
    loaded = load()
    for folder in _state_folders(loaded.settings):
        hardening.check_folder(folder)
    if loaded.settings.listen.workers == 1:
        keep_large_blocks()
        uvloop.run(_serve(loaded, load))
    else:
        sys.exit(asyncio.run(_supervise(loaded, load)))


def _state_folders(settings: Settings) -> list[Path]:
    """Where files are kept that others must not exchange."""
    database = settings.store.url.path
    folders = [settings.store.state_dir, *([database.absolute().parent] if database is not None else [])]
    return list(dict.fromkeys(folders))


async def _serve(loaded: Configuration, load: Load) -> None:
    metrics = Metrics()
    log = log_sink(loaded.settings)
    live = Live(log)
    emit = log.report = fan_out(log, metrics, *live.sinks)
    stop = stop_signal()

    async def take_up(outcome: Reloaded) -> tuple[str, ...]:
        await running.reloaded(outcome)
        return ()

    reloader = Reloader(loaded, load, take_up, emit, time.time)
    async with AsyncExitStack() as stack:
        told = stack.enter_context(hangups())
        stack.callback(live.close)
        lit = stack.enter_context(Beacon.light(loaded.settings.store.state_dir))
        running = await app.start(
            loaded,
            os.environ,
            emit=emit,
            metrics=metrics,
            stack=stack,
            canary=log.canary,
            live=live,
            log=partial(_change, log),
            reload=reloader.reload,
        )
        log.canary.watch("admin.token", *filter(None, [running.generated_admin_token]))
        _show_once(running.generated_admin_token)
        spare_the_collector()
        await stack.enter_async_context(reloading(reloader, lit, told))
        await stop.wait()


async def _supervise(loaded: Configuration, load: Load) -> int:
    settings = loaded.settings
    stop = stop_signal()
    emit = log_sink(settings)

    async def take_up(outcome: Reloaded) -> list[str]:
        given = _with_keys(outcome.configuration, keys)
        if not outcome.mistakes:
            supervisor.change(work(Handover(given)), stop_s=workers.stop_s(given.settings))
            _change(emit, given.settings.log)
        return await supervisor.hand_out(Handover(replace(outcome, configuration=given)))

    async with AsyncExitStack() as stack:
        told = stack.enter_context(hangups())
        workers.check_ports(settings)
        lit = stack.enter_context(Beacon.light(settings.store.state_dir))
        generated, keys = await groundwork.prepare(settings, os.environ, stack, emit)
        sockets = listening.unix_sockets(settings, stack.enter_context(ExitStack()))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pleo-proxy-"))

        def work(handover: Handover[Configuration]) -> workers.Work:
            return partial(_work, handover=handover, counts=Path(folder), sockets=sockets)

        first = work(Handover(_with_keys(loaded, keys)))
        supervisor = Supervisor(settings.listen.workers, first, emit, stop_s=workers.stop_s(settings))
        reloader = Reloader(loaded, load, take_up, emit, time.time)
        await stack.enter_async_context(reloading(reloader, lit, told))
        return await supervisor.run(stop, on_ready=lambda: _show_once(generated))


def _with_keys(configuration: Configuration, keys: Secret) -> Configuration:
    """As workers get it: with the key ring itself, so that none of them asks a key service."""
    vault = config.Vault(keys=keys)
    return replace(configuration, settings=configuration.settings.model_copy(update={"vault": vault}))


def _work(
    number: int,
    supervisor: Connection,
    *,
    handover: Handover[Configuration],
    counts: Path,
    sockets: UnixSockets,
) -> None:
    """A worker's life, from its start in a process of its own."""

    def run() -> None:
        hardening.close_to_others()
        # A hangup is told to all processes of a terminal; the supervisor hands on what it comes to.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        keep_large_blocks()
        uvloop.run(_serve_with_others(handover.what, number, supervisor, counts, sockets))

    keep_texts_back()
    sys.exit(exit_code_of(run))


async def _serve_with_others(
    configuration: Configuration, number: int, supervisor: Connection, counts: Path, sockets: UnixSockets
) -> None:
    settings = configuration.settings
    stop = stop_signal()
    workers.stop_with_parent(stop)

    async def take(handed: Handover[Reloaded]) -> str | None:
        try:
            await running.reloaded(handed.what)
        except OperatorError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - it must go on serving with what it has
            emit(TaskCrashed("reload", type(error).__name__, innermost_place(error)))
            return "internal error; its log says where"
        return None

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
        running = await app.start(
            configuration,
            os.environ,
            emit=emit,
            metrics=metrics,
            stack=stack,
            worker=number,
            canary=log.canary,
            live=live,
            unix_sockets=sockets,
            rates=counts / "rates",
            log=partial(_change, log),
            reload=lambda: beacon.ask(settings.store.state_dir),
        )
        spare_the_collector()
        supervisor.send(True)
        taking = workers.take_from(supervisor, take)
        await stop.wait()
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


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
    canary = Canary(RUN.encode())
    log_format = _format_of(settings.log)
    return LogSink(stream, log_format=log_format, level=settings.log.level, worker=worker, canary=canary)


def _change(sink: LogSink, log: Log) -> None:
    sink.tell_from(log.level)


def _format_of(log: Log) -> Literal["json", "console"]:
    return log.format or ("console" if sys.stdout.buffer.isatty() else "json")


@click.command()
@config_option
def check(config_path: Path | None) -> None:
    """Check the whole configuration and print what to enter into Pleo's registration form."""
    settings = loader(config_path)().settings
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
    for warning in [*config.warnings(settings), *listed]:
        click.echo(f"Warning: {warning}", err=True)
    sheet = config.registration_sheet(settings)
    width = max(len(label) for label, _ in sheet)
    click.echo(f"The configuration is valid. Registration at Pleo ({settings.pleo.environment}):\n")
    for label, value in sheet:
        click.echo(f"  {label:<{width}}  {value}")
