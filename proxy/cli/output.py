"""How commands print: JSON for programs, tables and lines for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from proxy import listing
from proxy.loglines import printable

_STYLES: dict[tuple[str, object], str] = {
    ("state", "connected"): "green",
    ("state", "refreshing"): "cyan",
    ("state", "needs_reauth"): "bold red",
    ("state", "revoked"): "red",
    ("state", "none"): "yellow",
    ("state", "unverified"): "yellow",
    ("enabled", False): "bold red",
    ("last_outcome", "granted"): "green",
    ("last_outcome", "refused"): "bold red",
    ("last_outcome", "client_rejected"): "bold red",
    ("last_outcome", "not_sent"): "yellow",
    ("last_outcome", "unavailable"): "yellow",
    ("last_outcome", "unknown"): "yellow",
}
"""Colours of what an operator looks for first; the words say the same where there are none."""
_INSTANT = "_at"
"""Ends the name of a field that is an instant."""


def warn_of_arguments(item: str, remedy: str) -> None:
    """Say that a secret stood where every user of the machine can read it; it is too late for this one."""
    click.echo(
        f"Warning: {item} holds a secret, and the arguments of a command can be read by every user of this "
        f"machine while it runs; {remedy}",
        err=True,
    )


def print_json(value: Any) -> None:  # noqa: ANN401 - anything that is JSON
    """``value`` as indented JSON on standard output."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_rows(
    rows: Sequence[dict[str, Any]], *, as_json: bool, empty: str, lesser: Sequence[str] = ()
) -> None:
    """A listing: JSON for programs, a table for people, or a block for each row on a narrow terminal.

    :param empty: what to do when there is nothing.
    :param lesser: columns without which a table fits a narrower terminal; the first of them goes first.
    """
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        click.echo(empty, err=True)
        return
    at_terminal = sys.stdout.isatty()
    # Not on a terminal: no width to fit, so no cell is cut in a file or a pipe.
    console = Console(width=None if at_terminal else 500)
    now = time.time() if at_terminal else None
    for count in range(len(lesser) + 1):
        left_out = lesser[:count]
        table = _table(rows, [name for name in rows[0] if name not in left_out], now)
        if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
            console.print(table)
            if left_out:
                click.echo(f"Too wide for this terminal, and in --json: {', '.join(left_out)}.", err=True)
            return
    for number, row in enumerate(rows):
        if number:
            click.echo()
        print_record(row, as_json=False)


def _table(rows: Sequence[dict[str, Any]], names: Sequence[str], now: float | None) -> Table:
    """These columns; instants by how far they are from ``now``, where that is given."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        is_instant = now is not None and name.endswith(_INSTANT)
        table.add_column(
            name.removesuffix(_INSTANT).replace("_", "\n") if is_instant else name.replace("_", " "),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text("\n").join(_cell(name, row[name], now)) for name in names))
    return table


def _cell(name: str, value: object, now: float | None) -> list[Text]:
    if now is not None and name.endswith(_INSTANT) and isinstance(value, str):
        return [Text(listing.distance(datetime.fromisoformat(value).timestamp(), now))]
    return _lines(name, value)


def print_record(record: dict[str, Any], *, as_json: bool) -> None:
    """One thing in full."""
    if as_json:
        print_json(record)
        return
    console = Console()
    width = max(len(name) for name in record)
    for name, value in record.items():
        for number, line in enumerate(_lines(name, value)):
            label = name.replace("_", " ") if number == 0 else ""
            console.print(Text(f"{label:<{width}}  ").append_text(line), soft_wrap=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where that is a terminal; gives what is to be told how many of how many."""
    with Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(name: str, value: object) -> list[Text]:
    """A field as it is shown, a line for each of several values."""
    if isinstance(value, list) and value:
        return [line for each in value for line in _lines(name, each)]
    style = _STYLES.get((name, value), "") if isinstance(value, str | bool) else ""
    return [Text(_plain(value), style)]


def _plain(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case []:
            return "-"
        case _:
            return printable(str(value))
