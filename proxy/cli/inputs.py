"""What commands are given: ``--config``, ``--json``, instants, the settings, an open store."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from proxy import config, envelope, keyring
from proxy.config import Settings
from proxy.errors import TenantError
from proxy.store import Store, open_store
from proxy.vault import Vault

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """``--config FILE``, which every command that needs settings takes."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Configuration file. Default: $PLEO_PROXY_CONFIG, else /etc/pleo-proxy/config.toml, "
        "else ./config.toml.",
    )(command)


def json_option(command: Command) -> Command:
    """``--json``, which every listing takes."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


class When(click.ParamType[datetime]):
    """An instant, from an age or from a date."""

    name = "when"
    _UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401
        """The instant in UTC."""
        if isinstance(value, datetime):
            return value
        try:
            if age := re.fullmatch(r"([0-9]{1,6})([smhd])", str(value)):
                return datetime.now(UTC) - timedelta(**{self._UNITS[age[2]]: int(age[1])})
            given = datetime.fromisoformat(str(value))
            return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither an age (90s, 15m, 2h, 3d) nor an instant (2026-01-31T14:00, in UTC)",
                param,
                ctx,
            )


def load_settings(config_path: Path | None, *, check_references: bool = False) -> Settings:
    """The settings in force.

    :raises ConfigurationError: with all mistakes at once.
    """
    return config.load(config.find(config_path, os.environ), os.environ, check_references=check_references)


def open_ring(settings: Settings) -> Vault:
    """The vault with the key ring of the settings, which is never generated here.

    :raises KeyRingError: it is missing, malformed or open to others.
    :raises KeyServiceError: the service that wrapped its keys does not unwrap them.
    :raises ConfigurationError: a variable or credential that is not there.
    """
    given = keyring.given(settings.vault.keys, os.environ)
    return Vault(envelope.unwrapped(given, only=settings.vault.key_service))


def unknown_tenant(name: str, known: Iterable[str]) -> TenantError:
    """The error of a command for a tenant that does not exist."""
    return TenantError(
        f"there is no tenant {name!r}; known tenants: {', '.join(known) or 'none yet'}; "
        "to add one: pleo-proxy tenants add NAME"
    )


def with_store(config_path: Path | None, work: Callable[[Store, Settings], Awaitable[T]]) -> T:
    """Run ``work`` with the store of the settings, which works beside a running ``serve``."""

    async def run() -> T:
        settings = load_settings(config_path)
        store = open_store(settings.store.url)
        try:
            return await work(store, settings)
        finally:
            await store.close()

    return asyncio.run(run())
