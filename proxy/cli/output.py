"""How commands print: JSON for programs, tables and lines for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

_STATE_STYLES = {"connected": "green", "refreshing": "cyan", "needs_reauth": "bold red", "revoked": "red"}


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


def print_rows(rows: Sequence[dict[str, Any]], *, as_json: bool, empty: str) -> None:
    """A listing: JSON for programs, a table for people, or a block for each row on a narrow terminal.

    :param empty: what to do when there is nothing.
    """
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        click.echo(empty, err=True)
        return
    # Not on a terminal: no width to fit, so no cell is cut in a file or a pipe.
    console = Console(width=None if sys.stdout.isatty() else 500)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    unbounded = console.options.update(max_width=10_000)
    if console.measure(table, options=unbounded).maximum <= console.width:
        console.print(table)
        return
    for number, row in enumerate(rows):
        if number:
            click.echo()
        print_record(row, as_json=False)


def print_record(record: dict[str, Any], *, as_json: bool) -> None:
    """One thing in full."""
    if as_json:
        print_json(record)
        return
    width = max(len(name) for name in record)
    for name, value in record.items():
        lines = value if isinstance(value, list) else [value]
        for number, line in enumerate(lines or [None]):
            label = name.replace("_", " ") if number == 0 else ""
            click.echo(f"{label:<{width}}  {_plain(line)}")


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


def _cell(name: str, value: object) -> str:
    text = "\n".join(map(_plain, value)) if isinstance(value, list) else _plain(value)
    if name == "state":
        style = _STATE_STYLES.get(text, "yellow")
        return f"[{style}]{text}[/]"
    return text.replace("[", r"\[")


def _plain(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
