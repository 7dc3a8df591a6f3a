"""``tail``: the log for people, from one instance or many."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import click
from rich.console import Console
from rich.text import Text

from proxy.cli.completion import tenant_names
from proxy.cli.following import Arrived, Source, arrived, wait
from proxy.cli.inputs import When
from proxy.cli.output import print_rows
from proxy.errors import UsageError
from proxy.loglines import LEVELS, STATUS, Counting, Folding, Line, Pick, Repeats, printable

_LOOK_S = 0.25
"""Pause between looks at files; a repetition is told after it, too."""
_LEVEL_STYLES = {"debug": "dim", "info": "green", "warning": "yellow", "error": "bold red"}
_STATUS_STYLES = {"1": "cyan", "2": "green", "3": "cyan", "4": "yellow", "5": "bold red"}
_TELL_S = 5.0
"""A repetition that goes on is told so often."""
_HEAD = ("timestamp", "level", "event", "tenant")
_REQUEST = ("method", "path", "status", "outcome")
_LESSER = ("upstream_ms", "generation", "bytes_in", "bytes_out")
"""Fields of ``request.finished``: what speaks for itself, and what ``--json`` still has."""
_INSTANT = "%Y-%m-%dT%H:%M:%S.%f"
"""How log lines have instants, so that they sort as texts."""
Span: TypeAlias = tuple[str, str]
"""Text and its style."""


class _Status(click.ParamType[str]):
    """A status or a class of them."""

    name = "status"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        """The status as it was given."""
        if not STATUS.fullmatch(str(value)):
            self.fail(f"{value!r} is neither a status (401) nor a class of them (5xx)", param, ctx)
        return str(value)


@click.command()
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written to FILE, also after rotation.")
@click.option(
    "--since",
    type=When(),
    metavar="WHEN",
    help="Lines from then on: an age (90s, 15m, 2h, 3d) or an instant (2026-01-31T14:00, in UTC).",
)
@click.option(
    "--tenant",
    "tenants",
    multiple=True,
    shell_complete=tenant_names,
    metavar="NAME",
    help="Lines about it. Repeatable.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="EVENT",
    help="As request.finished or token.*. Repeatable.",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=_Status(),
    metavar="STATUS",
    help="Requests answered with it: 401, or 5xx for all of a class. Repeatable.",
)
@click.option("--level", type=click.Choice(LEVELS), help="Lines of this level and above.")
@click.option("--request-id", "request_ids", multiple=True, metavar="ID", help="One request. Repeatable.")
@click.option("--all", "every", is_flag=True, help="Show each line; nothing is folded.")
@click.option(
    "--count",
    "counted",
    multiple=True,
    metavar="FIELD",
    help="Count the lines by what this field says, the most frequent first. Repeatable.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Pass the matching lines on as they are; print counts as JSON."
)
def tail(
    files: tuple[Path, ...],
    since: datetime | None,
    counted: tuple[str, ...],
    *,
    follow: bool,
    every: bool,
    as_json: bool,
    **picks: Any,  # noqa: ANN401
) -> None:
    """Show the JSON log of one or many instances for people to read.

    Reads each FILE, which may be a pipe, or standard input, and puts their lines in the order of time. With
    -f it begins with the last ten lines of each, or with --since.

    Lines that repeat the one before them (the same event, tenant, outcome and status) are counted. What is no
    JSON is shown too, unless lines are picked. Ctrl-C ends it.

    With --count it shows how many lines there are of each kind instead, and when the first and the last of
    them were written.
    """
    if counted and (follow or every):
        raise UsageError(f"--count is of what there is; leave out {'--follow' if follow else '--all'}")
    if not files and (sys.stdin is None or sys.stdin.isatty()):  # None: it was closed for us
        raise UsageError("there is no log to read; name a FILE, or pipe the log in")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal of another encoding is no reason to end.
        sys.stdout.reconfigure(errors="backslashreplace")
    names = _names(files)
    sources = [Source(path, name, follow=follow) for path, name in zip(files or [None], names, strict=True)]
    try:
        if follow and since is None:
            for source in sources:
                source.skip_old()
        width = max(map(len, names)) if len(names) > 1 else 0
        screen: _Screen
        if counted:
            screen = _Counts(counted, as_json=as_json)
        else:
            screen = _Json() if as_json else _Columns(is_folding=not every, source_width=width)
        _show(sources, Pick(**picks), "" if since is None else since.strftime(_INSTANT), screen)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        _leave_output()
    finally:
        for source in sources:
            source.close()


def _show(sources: Sequence[Source], pick: Pick, since: str, screen: _Screen) -> None:
    """Show lines until all sources have ended.

    :raises BrokenPipeError: nobody reads any more.
    """
    told_at = time.monotonic()
    while True:
        came = False
        for each in arrived(sources):
            came = True
            if each.instant >= since and pick.takes(each.line):
                screen.show(each)
        has_ended = all(source.ended for source in sources)
        if has_ended or not came or time.monotonic() - told_at > _TELL_S:
            screen.tell_repeats()
            told_at = time.monotonic()
        if has_ended:
            screen.end()
        sys.stdout.flush()
        if has_ended:
            return
        if not wait(sources, _output(), _LOOK_S):
            raise BrokenPipeError


def _names(files: Sequence[Path]) -> list[str]:
    """What each source is called: its file's name where that tells it from the others."""
    short = {path.name for path in files}
    texts = [path.name if len(short) == len(files) else str(path) for path in files] or ["-"]
    return [printable(text) for text in texts]


def _output() -> int | None:
    try:
        return sys.stdout.fileno()
    except io.UnsupportedOperation:  # no file of the system's, as when another program calls this one
        return None


def _leave_output() -> None:
    """Have what is still to be written, at the end of the process too, go nowhere: its reader has left."""
    output = _output()
    if output is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, output)
        os.close(nowhere)


class _Screen(Protocol):
    """Where lines go."""

    def show(self, arrived: Arrived) -> None:
        """Show a line, or count it."""

    def tell_repeats(self) -> None:
        """Tell what was counted."""

    def end(self) -> None:
        """All lines have come."""


class _Counts:
    """How many lines there are of each kind, once all have come."""

    def __init__(self, fields: Sequence[str], *, as_json: bool) -> None:
        self._counting = Counting(fields)
        self._as_json = as_json

    def show(self, arrived: Arrived) -> None:
        self._counting.add(arrived.line)

    def tell_repeats(self) -> None:
        pass

    def end(self) -> None:
        fields = " or ".join(self._counting.fields)
        print_rows(self._counting.rows(), as_json=self._as_json, empty=f"No such line has a field {fields}.")


class _Json:
    """Lines as they came; on a terminal with escapes for what it might obey."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()

    def show(self, arrived: Arrived) -> None:
        line = arrived.line
        if line.fields is not None:
            sys.stdout.buffer.write((line.harmless_json if self._is_terminal else line.raw) + b"\n")

    def tell_repeats(self) -> None:
        sys.stdout.buffer.flush()

    def end(self) -> None:
        pass


class _Columns:
    """Lines as columns, coloured on a terminal."""

    def __init__(self, *, is_folding: bool, source_width: int) -> None:
        """``source_width`` is 0 where there is only one source."""
        self._console = Console() if sys.stdout.isatty() else None
        self._folding = Folding() if is_folding else None
        self._source_width = source_width

    def show(self, arrived: Arrived) -> None:
        if self._folding is None:
            self._print(self._columns(arrived.line, arrived.source))
            return
        for shown in self._folding.add(arrived.line, arrived.source):
            if isinstance(shown, Repeats):
                self._print(self._repeats(shown))
            else:
                self._print(self._columns(shown, arrived.source))

    def tell_repeats(self) -> None:
        if self._folding is not None:
            for repeats in self._folding.told():
                self._print(self._repeats(repeats))

    def end(self) -> None:
        pass

    def _columns(self, line: Line, source: str) -> list[Span]:
        name = [(f"{source:<{self._source_width}} ", "magenta")] if self._source_width else []
        if line.fields is None:
            return [*name, (line.plain, "dim")]
        level = line.text("level")
        return [
            (f"{self._time(line)} ", "dim"),
            *name,
            (f"{level:<7} ", _LEVEL_STYLES.get(level, "")),
            (f"{line.text('event'):<22} ", "bold"),
            (f"{line.text('tenant') or '-':<12} ", "cyan"),
            *_details(line),
        ]

    def _repeats(self, repeats: Repeats) -> list[Span]:
        return [
            (f"{self._time(repeats.last)} ", "dim"),
            (" " * (self._source_width + 1) if self._source_width else "", ""),
            (f"… and {repeats.count} more like it", "dim italic"),
        ]

    def _time(self, line: Line) -> str:
        instant = line.timestamp or "-"
        return instant[11:23] if self._console is not None else instant

    def _print(self, spans: Sequence[Span]) -> None:
        text = "".join(text for text, _ in spans).rstrip()
        if self._console is not None:
            with self._console.capture() as captured:
                self._console.print(Text.assemble(*spans), end="", soft_wrap=True, highlight=False)
            text = captured.get().rstrip(" ")
        sys.stdout.write(text + "\n")


def _details(line: Line) -> Iterator[Span]:
    """What a line tells beside the columns that all have."""
    is_request = line.text("event") == "request.finished"
    told: tuple[str, ...] = _HEAD
    if is_request:
        told += (*_REQUEST, "duration_ms", *_LESSER)
        style = _STATUS_STYLES.get(line.text("status")[:1], "")
        yield (f"{line.text('method')} {line.text('path')} ", "")
        yield (f"{line.text('status')} {line.text('outcome')} ", style)
        yield (f"{line.text('duration_ms')} ms ", "")
    for name, value in (line.fields or {}).items():
        if name not in told and value not in (None, [], "") and not (is_request and value is False):
            text = line.text(name)
            yield (f"{printable(name)}=", "dim")
            yield (f'"{text}" ' if " " in text else f"{text} ", "")
