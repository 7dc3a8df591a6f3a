"""``notify``: whether notifications arrive."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import click

from proxy.cli.inputs import config_option, load_settings
from proxy.errors import ConfigurationError, OperatorError
from proxy.notifications import Channel, DeliveryError, Message, channels_of, trial_message


@click.group()
def notify() -> None:
    """Notifications of troubles, by webhook, e-mail and command."""


@notify.command()
@config_option
def test(config_path: Path | None) -> None:
    """Send a test notification once on every channel of the configuration, and print what came of it.

    The running proxy has no part in it. Ends with 1 if a channel failed.
    """
    settings = load_settings(config_path)
    channels = channels_of(settings, os.environ, time.time)
    if not channels:
        raise ConfigurationError(
            "notify", ["there is no channel; set notify.webhook_url, notify.smtp_url or notify.command"]
        )
    message = trial_message(at=time.time(), public_url=settings.listen.public_url)
    failed = [name for name, error in asyncio.run(_try_all(channels, message)) if error is not None]
    if failed:
        raise OperatorError(f"not delivered: {', '.join(failed)}; what each word means is in docs/logs.md")


async def _try_all(channels: Sequence[Channel], message: Message) -> list[tuple[str, str | None]]:
    results = []
    for channel in channels:
        error = await _try(channel, message)
        click.echo(f"{channel.name}: {'delivered' if error is None else f'failed ({error})'}")
        results.append((channel.name, error))
    return results


async def _try(channel: Channel, message: Message) -> str | None:
    try:
        await channel.deliver(message)
    except DeliveryError as error:
        return str(error)
    return None
