"""How commands print at a terminal and elsewhere: colours, words, bars, and nothing that a terminal obeys."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy import config, pairs
from proxy.cli.output import print_record, print_rows
from proxy.groundwork import open_vault
from proxy.lifecycle import connected, revoked
from proxy.model import Grant, Secret, Tenant
from proxy.oauth import TokenPair
from proxy.store import open_store
from tests.command import Cli, write_config
from tests.terminal import at_terminal
from tests.test_loglines import HOSTILE


def always(grant: Grant) -> Callable[[Grant | None], Grant]:
    """An edit that stores ``grant`` whatever was there."""
    return lambda _: grant


@pytest.fixture
def ours(tmp_path: Path) -> Cli:
    """A store with a tenant that is connected, one that is revoked and disabled, and one that is neither."""
    ours = Cli(write_config(tmp_path))
    settings = config.load(ours.config, {})

    async def fill() -> None:
        store = open_store(settings.store.url)
        vault = await open_vault(settings, {}, store)
        tenants = [Tenant("acme"), Tenant("globex", enabled=False), Tenant("initech")]
        await store.edit_tenants(lambda _: {tenant.name: tenant for tenant in tenants})
        for name, given in (("acme", "first"), ("globex", "second")):
            pair = pairs.seal_pair(
                vault,
                TokenPair(Secret(f"planted-access-{given}"), Secret(f"planted-refresh-{given}"), 900),
                tenant=name,
                generation=1,
                now=time.time(),
                lifetimes=pairs.Lifetimes(900, 5_000_000),
            )
            grant = connected(pair, tenant=name, company="c", scopes=("users:read",), generation=1)
            await store.edit_grant(name, always(grant))
        await store.edit_grant("globex", revoked)
        await store.close()

    asyncio.run(fill())
    return ours


@pytest.mark.parametrize("columns", [400, 40], ids=["table", "blocks"])
def test_states_are_words_and_colours_at_a_terminal(columns: int, ours: Cli) -> None:
    """A state has a colour at a terminal, in a table and in blocks, and is the same word everywhere."""
    with at_terminal("tenants", "list", "--config", str(ours.config), columns=columns) as terminal:
        assert terminal.ended() == 0
    for shown in ("\x1b[32mconnected", "\x1b[31mrevoked", "\x1b[33mnone", "\x1b[1;31mno"):
        assert shown in terminal.written
    for word in ("connected", "revoked", "none"):
        assert word in ours.done("tenants", "list").out
    assert "\x1b" not in ours.done("tenants", "list").out


@pytest.mark.parametrize(
    ("columns", "gone"),
    [
        (140, []),
        (100, ["scopes"]),
        (90, ["scopes", "generation"]),
        (80, ["scopes", "generation", "company"]),
    ],
)
def test_a_table_does_without_its_lesser_columns_first(columns: int, gone: list[str], ours: Cli) -> None:
    """On a narrower terminal a table loses the columns that matter least, says which, and stays a table."""
    with at_terminal("grants", "list", "--config", str(ours.config), columns=columns) as terminal:
        assert terminal.ended() == 0
    lines = terminal.plain.splitlines()
    assert [name for name in ("scopes", "generation", "company") if name not in lines[0] + lines[1]] == gone
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["acme", "connected"],
        ["globex", "revoked"],
        ["initech", "none"],
    ]
    assert lines[5:] == ([f"Too wide for this terminal, and in --json: {', '.join(gone)}."] if gone else [])


def test_instants_are_distances_at_a_terminal_only(ours: Cli) -> None:
    """People see how long a token holds; a file or a program gets the instant."""
    with at_terminal("grants", "list", "--config", str(ours.config), columns=400) as terminal:
        assert terminal.ended() == 0
    (row,) = [line for line in terminal.plain.splitlines() if line.startswith("acme")]
    assert re.search(r"in 14 minutes +in 57 days +under a minute ago", row)
    assert re.search(r"^acme .*T\d\d:\d\d:\d\d\+00:00", ours.done("grants", "list").out, re.MULTILINE)


def test_one_grant_is_coloured_too(ours: Cli) -> None:
    """What is shown of one thing has the colours of the table, and none without a terminal."""
    with at_terminal("grants", "show", "acme", "--config", str(ours.config)) as terminal:
        assert terminal.ended() == 0
    assert "\x1b[32mconnected" in terminal.written
    assert terminal.plain == ours.done("grants", "show", "acme").out


def test_no_colour_is_shown_to_who_wants_none(ours: Cli) -> None:
    """``NO_COLOR`` counts."""
    arguments = ("grants", "list", "--config", str(ours.config))
    with at_terminal(*arguments, columns=400, environ={"NO_COLOR": "1"}) as terminal:
        assert terminal.ended() == 0
    assert "connected" in terminal.written
    assert "\x1b[32m" not in terminal.written


def test_what_is_shown_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    """Values are shown with escapes, and never taken for markup, in tables and in blocks."""
    row = {"state": HOSTILE, "routes": [HOSTILE, "[bold]x[/bold] :smile:"], "scopes": []}
    print_rows([row], as_json=False, empty="")
    print_record(row, as_json=False)
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n"))
    assert out.count(r"\x1b]0;mine") == 4
    assert "[]" not in out
    assert out.count("[bold]x[/bold] :smile:") == 2


@pytest.mark.parametrize(
    ("arguments", "titles", "counted"),
    [
        (("keys", "rotate"), ["Sealing with k2"], "1/1"),
        (("backup", "FILE"), ["Reading, writing, recording"], "3/3"),
        (("restore", "FILE", "--yes"), ["Restoring grants"], "2/2"),
        (
            ("migrate-store", "STORE", "TARGET"),
            ["Opening tokens", "Copying the audit trail", "Opening what was written"],
            "2/2",
        ),
        (("migrate-store", "STORE", "TARGET"), ["Copying the audit trail"], "1/1"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_long_work_has_a_bar_at_a_terminal(
    arguments: tuple[str, ...], titles: list[str], counted: str, ours: Cli, tmp_path: Path
) -> None:
    """A bar shows how far the work is where somebody looks, goes when it is done, and is nowhere else."""
    ours.done("backup", str(tmp_path / "FILE"))
    if arguments[0] == "keys":
        keys, more = tmp_path / "state" / "keys", tmp_path / "more"
        ours.done("keys", "generate", "--file", str(more), "--id", "k2")
        keys.write_text(more.read_text() + keys.read_text())
    words = {
        "FILE": str(tmp_path / "FILE"),
        "STORE": str(config.load(ours.config, {}).store.url),
        "TARGET": f"sqlite://{tmp_path}/target/terminal.db",
    }
    arguments = tuple(words.get(each, each) for each in arguments)
    with at_terminal(*arguments, "--config", str(ours.config)) as terminal:
        assert terminal.ended() == 0, terminal.written
    assert [title for title in titles if title not in terminal.plain] == []
    assert counted in terminal.plain
    assert "\x1b[2K" in terminal.written.rpartition(counted)[2], "the bar is wiped away"
    ran = ours.done(*(each.replace("terminal.db", "pipe.db") for each in arguments))
    assert ran.err == ""
