"""``keys generate|list|rewrap|rotate``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from proxy import config, envelope, keyring, rotation
from proxy.cli.inputs import config_option, json_option, load_settings, open_ring, with_store
from proxy.cli.output import print_rows, progress_bar
from proxy.cli.recording import link, recorder_of
from proxy.config import FileRef, Settings
from proxy.errors import OperatorError, UsageError
from proxy.rotation import Rotated
from proxy.store import Store


@click.group()
def keys() -> None:
    """The vault's key ring, with which stored tokens are sealed."""


@keys.command()
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write it.  [default: the file that vault.keys names]",
)
@click.option("--id", "key_id", default=keyring.FIRST_KEY_ID, show_default=True, help="The key's id.")
@config_option
def generate(path: Path | None, key_id: str, config_path: Path | None) -> None:
    """Write a new key file with one key, readable by its owner only. An existing file is never touched.

    The key is wrapped by `vault.key_service` if the configuration names one.
    """
    service = None
    if path is None or config_path is not None or _is_configured():
        settings = load_settings(config_path)
        service, path = settings.vault.key_service, path or _file_of(settings)
    keyring.generate(path, key_id, service=service)
    how = "" if service is None else f", the key wrapped by {service}"
    click.echo(
        f"Wrote {path}{how}. Keep a copy apart from the database: without it the stored tokens are lost."
    )


def _is_configured() -> bool:
    """Whether there is a configuration at all: the first key may be made before it."""
    try:
        config.find(None, os.environ)
    except UsageError:
        return bool(os.environ.get(config.FILE_VARIABLE))  # it names a file that is missing, and is to say so
    return True


def _file_of(settings: Settings) -> Path:
    ref = settings.vault.keys
    if not isinstance(ref, FileRef):
        raise UsageError("vault.keys names no file; name the file of keys with --file FILE")
    return ref.path


@keys.command(name="list")
@json_option
@config_option
def list_(config_path: Path | None, *, as_json: bool) -> None:
    """List the ids of the key ring, what wraps each key, and how many stored values it seals.

    A key that seals none may be taken out of the ring. Keys themselves are never shown.
    """

    async def work(store: Store, settings: Settings) -> list[dict[str, Any]]:
        ring = open_ring(settings).key_ids
        services = envelope.services_of(keyring.given(settings.vault.keys, os.environ))
        values = await rotation.values_by_key(store)
        return [
            {
                "id": key_id,
                "seals": key_id == ring[0],
                "in_ring": key_id in ring,
                "wrapped_by": services.get(key_id),
                "values": values[key_id],
            }
            for key_id in [*ring, *sorted(values.keys() - set(ring))]
        ]

    print_rows(with_store(config_path, work), as_json=as_json, empty="")


@keys.command()
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file of keys.  [default: the file that vault.keys names]",
)
@click.option("--plain", is_flag=True, help="Have no service wrap them any more.")
@config_option
def rewrap(path: Path | None, config_path: Path | None, *, plain: bool) -> None:
    """Have the keys of a file wrapped by the service that `vault.key_service` names.

    For plain keys, and for keys that another service, or another key of it, has wrapped. The keys stay the
    same, so nothing stored changes, and a running proxy goes on. The new file is read back and opened before
    it takes the place of the old one. Copies of the old file still open with what opened it.
    """
    settings = load_settings(config_path)
    service = None if plain else settings.vault.key_service
    if service is None and not plain:
        raise UsageError(
            "vault.key_service is not set; set it, or give --plain to have no service wrap the keys"
        )
    path = path or _file_of(settings)
    count = keyring.rewrap(path, service)
    how = "are wrapped by no service now" if service is None else f"are wrapped by {service} now"
    click.echo(f"{count} keys in {path} {how}.")


@keys.command()
@config_option
def rotate(config_path: Path | None) -> None:
    """Seal all that is stored anew with the first key of the ring.

    Requests and refreshes go on meanwhile. Every running proxy must have been started with this ring. Can be
    stopped at any time, and goes on where it stopped when it is run again.
    """

    async def work(store: Store, settings: Settings) -> Rotated:
        vault, recorder = open_ring(settings), recorder_of(settings)
        with progress_bar(f"Sealing with {vault.key_ids[0]}") as progress:
            done = await rotation.rotate(
                store, vault, pause=asyncio.sleep, progress=progress, patience_s=rotation.PATIENCE_S
            )
        told = {"grants": done.resealed, "busy": len(done.busy), "refused": len(done.refused)}
        await link(store, recorder, recorder("keys.rotated", key=vault.key_ids[0], **told))
        return done

    done = with_store(config_path, work)
    click.echo(f"Sealed {done.resealed} grants anew.")
    if done.refused:
        tenant, problem = next(iter(done.refused.items()))
        raise OperatorError(
            f"the tokens of {len(done.refused)} tenants do not open, {tenant} first: {problem}; "
            "put the missing key back into the ring, or connect these tenants again"
        )
    if done.busy:
        raise OperatorError(
            f"a refresh of {len(done.busy)} tenants is noted as under way and does not end ({done.busy[0]} "
            "first); start `pleo-proxy serve` if none runs, then run this again"
        )
