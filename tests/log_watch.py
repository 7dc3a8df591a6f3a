"""Every log line of a test run, held to the schema: of sinks in this process, and of each ``serve`` started.

``tests/conftest.py`` has it on for all tests. A ``serve`` whose lines could not be looked at is a fault, too.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

from proxy.facts import Fact
from proxy.telemetry.logs import LogSink, _JsonLine
from tests import log_schema

_MOST_WAITING = 10_000
"""Lines that are looked at later: a test may go on for hours."""
_IN_A_SHELL = re.compile(r"(?:pleo-proxy|-m proxy)\s+serve\b")


@dataclass
class _Output:
    """What a ``serve`` writes, and how much of it was looked at."""

    process: subprocess.Popen[Any]
    file: BinaryIO
    rest: bytes = b""

    def lines(self) -> list[bytes]:
        """Whole lines since the last call; one that a kill cut short is none."""
        *lines, self.rest = (self.rest + self.file.read()).split(b"\n")
        return lines


class Watch:
    """What was logged since the last look, and what is wrong with it."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._outputs: list[_Output] = []
        self._found: list[str] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """See every line that is rendered and every process that is started, as long as the block lasts."""
        render, start = _JsonLine.__call__, subprocess.Popen.__init__

        def rendering(sink: _JsonLine, fact: Fact) -> tuple[bytes, bytes]:
            head, body = render(sink, fact)
            self._lines.append(head + body)
            if len(self._lines) >= _MOST_WAITING:
                self._found = self.faults()
            return head, body

        def starting(popen: subprocess.Popen[Any], args: Any, *others: Any, **options: Any) -> None:
            start(popen, args, *others, **options)
            if is_serve(args):
                self._started(popen, args, options.get("stdout"))

        with (
            mock.patch.object(_JsonLine, "__call__", rendering),
            mock.patch.object(subprocess.Popen, "__init__", starting),
        ):
            yield

    def faults(self) -> list[str]:
        """What is wrong with what came since the last call, each with its line."""
        lines, self._lines = self._lines, []
        found, self._found = self._found, []
        for output in list(self._outputs):
            # Asked before it is read, so that nothing comes after the last look.
            has_ended = output.process.returncode is not None
            lines += output.lines()
            if has_ended:
                self._forget(output)
        return found + [fault for line in lines if (fault := _fault(line)) is not None]

    def close(self) -> None:
        """Look at nothing any more."""
        for output in list(self._outputs):
            self._forget(output)

    def _forget(self, output: _Output) -> None:
        output.file.close()
        self._outputs.remove(output)

    def _started(self, popen: subprocess.Popen[Any], args: Any, stdout: Any) -> None:
        if isinstance(stdout, int) and stdout >= 0 and os.isatty(stdout):
            return  # a terminal gets lines for people
        if _is_for_people(args):
            return
        name = getattr(stdout, "name", None)
        if isinstance(name, str):
            self._outputs.append(_Output(popen, Path(name).open("rb")))  # noqa: SIM115 - in _forget
        else:
            self._found.append(
                f"{args}: nobody holds its log lines to the schema; have it write them to a file"
            )


def sink() -> LogSink:
    """For proxies whose log no test reads: makes every line, and keeps none."""
    return LogSink(_Nowhere(), log_format="json", level="debug")


class _Nowhere(io.BytesIO):
    def write(self, data: Any, /) -> int:
        return len(data)


def is_serve(args: Any) -> bool:
    """Whether a process that is started so logs as ``serve`` does."""
    words = _words(args)
    return "serve" in words or any(_IN_A_SHELL.search(word) for word in words)


def _words(args: Any) -> Sequence[str]:
    return [os.fsdecode(word) for word in ([args] if isinstance(args, str | bytes | os.PathLike) else args)]


def _is_for_people(args: Any) -> bool:
    """Whether its configuration has lines for people."""
    words = _words(args)
    if "--config" not in words:
        return False
    config = Path(words[words.index("--config") + 1])
    settings = tomllib.loads(config.read_text()) if config.exists() else {}
    return bool(settings.get("log", {}).get("format") == "console")


def _fault(line: bytes) -> str | None:
    try:
        log_schema.check(json.loads(line))
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        return f"{line.decode(errors='backslashreplace').rstrip()}: {type(error).__name__}: {error}"
    return None
