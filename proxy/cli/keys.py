"""``keys generate|list``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from proxy import keyring
from proxy.cli.inputs import config_option, json_option, load_settings
from proxy.cli.output import print_rows
from proxy.config import FileRef, resolve
from proxy.errors import UsageError
from proxy.vault import Vault


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
    """Write a new key file with one key, readable by its owner only. An existing file is never touched."""
    if path is None:
        ref = load_settings(config_path).vault.keys
        if not isinstance(ref, FileRef):
            raise UsageError("vault.keys names no file; say where to write the key with --file FILE")
        path = ref.path
    keyring.generate(path, key_id)
    click.echo(f"Wrote {path}. Keep a copy apart from the database: without it the stored tokens are lost.")


@keys.command(name="list")
@json_option
@config_option
def list_(config_path: Path | None, *, as_json: bool) -> None:
    """List the ids of the key ring; keys themselves are never shown."""
    ref = load_settings(config_path).vault.keys
    if isinstance(ref, FileRef):
        vault = Vault(keyring.read(ref.path))
    else:
        vault = Vault(resolve(ref, os.environ, item="vault.keys"))
    rows = [{"id": key_id, "seals": number == 0} for number, key_id in enumerate(vault.key_ids)]
    print_rows(rows, as_json=as_json, empty="")
