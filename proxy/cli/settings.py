"""``settings``: what is in force, and where each value comes from."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from proxy.cli.inputs import config_option, json_option, load_settings
from proxy.cli.output import print_rows
from proxy.config import in_force


@click.command()
@click.option("--changed", is_flag=True, help="Only those that somebody has set.")
@json_option
@config_option
def settings(config_path: Path | None, *, changed: bool, as_json: bool) -> None:
    """List all settings as a `serve` that starts now has them, and where each comes from.

    A secret is shown by its place. What a running proxy has is on its page of settings.
    """
    found = in_force(load_settings(config_path), os.environ)
    rows = [asdict(setting) for setting in found if not (changed and setting.is_default)]
    if not as_json:
        for row in rows:
            del row["meaning"]  # sentences make no column
    print_rows(rows, as_json=as_json, empty="", lesser=("source",))
