"""``pleo-proxy settings``: what the page of settings shows, for a terminal and for programs."""

from __future__ import annotations

from pathlib import Path

from proxy.config.mistakes import keys_of
from proxy.config.settings import Settings
from tests.command import Cli, write_config

SECRET = "not-to-be-seen-7c1d"


def configured(folder: Path) -> Cli:
    return Cli(write_config(folder, pleo={"client_secret": SECRET}, limits={"idle_s": 77}))


def test_all_settings_are_listed(tmp_path: Path) -> None:
    """Each once, in the order of the file, with its value, its source and what it means."""
    rows = configured(tmp_path).done("settings", "--json").json()
    assert [row["key"] for row in rows] == list(keys_of(Settings))
    by_key = {row["key"]: row for row in rows}
    assert (by_key["limits.idle_s"]["value"], by_key["limits.idle_s"]["source"]) == ("77", "file")
    assert by_key["limits.head_s"]["source"] == "default"
    assert by_key["limits.head_s"]["meaning"]


def test_what_nobody_has_set_can_be_left_out(tmp_path: Path) -> None:
    """With ``--changed`` a file's and a variable's settings are listed, and no default."""
    variable = "PLEO_PROXY__LIMITS__HEAD_S"
    ran = configured(tmp_path).done("settings", "--changed", environ={variable: "8"})
    rows = {line.split()[0]: line.split() for line in ran.out.splitlines()}
    assert rows["limits.idle_s"] == ["limits.idle_s", "77", "file"]
    assert rows["limits.head_s"] == ["limits.head_s", "8", variable]
    assert "limits.drain_s" not in rows


def test_a_secret_is_shown_by_its_place(tmp_path: Path) -> None:
    """Whatever form the listing has."""
    cli = configured(tmp_path)
    for options in ([], ["--changed"], ["--json"]):
        ran = cli.done("settings", *options)
        assert "given as text, which is not shown" in ran.out
        assert SECRET not in ran.out + ran.err
