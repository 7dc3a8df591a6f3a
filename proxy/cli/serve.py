"""``serve`` and ``check``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import click
import uvloop

from proxy import app, config
from proxy.cli.inputs import config_option, load_settings
from proxy.config import Settings
from proxy.model import Emit
from proxy.telemetry import fan_out
from proxy.telemetry.logs import LogSink
from proxy.telemetry.metrics import Metrics


@click.command()
@config_option
def serve(config_path: Path | None) -> None:
    """Run the proxy until SIGTERM or SIGINT, then drain."""
    settings = load_settings(config_path, check_references=True)
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    metrics = Metrics()
    emit = fan_out(log_sink(settings), metrics)
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        running = await app.start(settings, os.environ, emit=emit, metrics=metrics, stack=stack)
        if running.generated_admin_token is not None:
            # On standard error, so that it gets into no log file that collects standard output.
            token = running.generated_admin_token.reveal()
            click.echo(f"Admin token, shown this once: {token}", err=True)
        await stop.wait()


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def log_sink(settings: Settings) -> Emit:
    """The log on standard output, in the configured format or the one that fits where it goes."""
    stream = sys.stdout.buffer
    log_format = settings.log.format or ("console" if stream.isatty() else "json")
    return LogSink(stream, log_format=log_format, level=settings.log.level)


@click.command()
@config_option
def check(config_path: Path | None) -> None:
    """Check the whole configuration and print what to enter into Pleo's registration form."""
    settings = load_settings(config_path, check_references=True)
    for warning in config.warnings(settings):
        click.echo(f"Warning: {warning}", err=True)
    sheet = config.registration_sheet(settings)
    width = max(len(label) for label, _ in sheet)
    click.echo(f"The configuration is valid. Registration at Pleo ({settings.pleo.environment}):\n")
    for label, value in sheet:
        click.echo(f"  {label:<{width}}  {value}")
