"""The program at a terminal: a real process whose standard streams are a pseudo-terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.command import PROGRAM, ROOT, clean_environ

PATIENCE_S = 20
STYLES = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """What a process wrote to its terminal, and what is typed there."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self.written = ""

    @property
    def plain(self) -> str:
        """What was written, without colours."""
        return STYLES.sub("", self.written).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: str) -> None:
        """Read on until ``text`` stands there, colours aside."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.plain:
            assert self._reads(deadline), f"no {text!r} in {self.written!r}"

    def ended(self) -> int:
        """Read on to the end; returns the exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._reads(deadline):
            pass
        return self.process.wait(PATIENCE_S)

    def _reads(self, deadline: float) -> bool:
        readable, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        assert readable, f"nothing more came after {self.written!r}"
        try:
            data = os.read(self._master, 1 << 16)
        except OSError as error:
            if error.errno == errno.EIO:  # as Linux tells that nobody has the terminal open
                return False
            raise
        self.written += data.decode("utf-8", "backslashreplace")
        return bool(data)


@contextmanager
def at_terminal(
    *arguments: str, columns: int = 200, environ: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[Terminal]:
    """The program at a terminal of its own; it does not outlive the block."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        cwd=cwd,
        env={**clean_environ(), "TERM": "xterm-256color", **(environ or {})},
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)
