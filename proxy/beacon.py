"""Where a running ``serve`` shows that it runs, and what its last reload came to: files in the state folder.

By them a command finds the process, tells it with SIGHUP to reload, and gets the report. Holds no secret. The
kernel lets nobody but the same user, and root, send the signal.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from types import TracebackType

import orjson

from proxy.config import Report
from proxy.errors import OperatorError

PROCESS = "serve.pid"
REPORT = "reload.json"
PATIENCE_S = 60.0
"""For a report: longer than workers may take to answer."""
_LOOK_S = 0.02


class Beacon:
    """Lit from :meth:`light` until :meth:`close`, or until the process dies, however it dies."""

    def __init__(self, state_dir: Path, descriptor: int) -> None:
        self._state_dir = state_dir
        self._descriptor: int | None = descriptor

    @classmethod
    def light(cls, state_dir: Path) -> Beacon:
        """Show that this process serves with ``state_dir``.

        :raises OperatorError: another process does so already, or the file cannot be used.
        """
        path = state_dir / PROCESS
        descriptor = None
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError as error:
            if descriptor is not None:
                os.close(descriptor)
            if isinstance(error, BlockingIOError):
                process = running(state_dir)
                holder = "another process" if process is None else f"process {process}"
                raise OperatorError(
                    f"store.state_dir {state_dir}: {holder} serves with it already: stop that one, or give "
                    "this one a directory of its own"
                ) from None
            raise OperatorError(
                f"{path}: {error.strerror}; set store.state_dir to a directory of the proxy's user"
            ) from None
        return cls(state_dir, descriptor)

    def tell(self, report: Report, *, began: float) -> None:
        """Leave the report of a reload for who asked for it. A full disk costs the report, not the reload.

        :param began: when the reload began, by the monotonic clock, which all processes share.
        """
        path = self._state_dir / REPORT
        beside = path.with_name(f"{REPORT}.new")
        with suppress(OSError):
            beside.touch(0o600)
            beside.write_bytes(orjson.dumps({"began": began, **asdict(report)}))
            beside.replace(path)

    def close(self) -> None:
        """Go out; twice is fine. The files stay."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def __enter__(self) -> Beacon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def running(state_dir: Path) -> int | None:
    """The process that serves with ``state_dir``; ``None`` if none does.

    :raises OperatorError: the file cannot be read.
    """
    path = state_dir / PROCESS
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperatorError(f"{path}: {error.strerror}; run this as the user of the proxy") from None
    try:
        # A lock is given back by a process that dies, so a number that is left behind names nobody.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)


async def ask(state_dir: Path, *, patience_s: float = PATIENCE_S) -> Report:
    """Have the proxy that serves with ``state_dir`` reload, and wait for its report.

    :raises OperatorError: none serves, it must not be told, or it does not answer.
    """
    process = running(state_dir)
    if process is None:
        raise OperatorError(
            f"store.state_dir {state_dir}: no proxy serves with it; start one with `pleo-proxy serve` "
            "(a demo has no configuration to read again)"
        )
    asked = monotonic()
    try:
        os.kill(process, signal.SIGHUP)
    except ProcessLookupError:
        raise OperatorError(f"process {process} has just ended; look at its log") from None
    except PermissionError:
        raise OperatorError(
            f"process {process} is another user's; run this as the user of the proxy"
        ) from None
    ends = asked + patience_s
    while monotonic() < ends:
        if (found := _report(state_dir, since=asked)) is not None:
            return found
        await asyncio.sleep(_LOOK_S)
    raise OperatorError(f"process {process} gave no report within {patience_s:g} s; look at its log")


def _report(state_dir: Path, *, since: float) -> Report | None:
    try:
        told = orjson.loads((state_dir / REPORT).read_bytes())
        if told.pop("began") < since:
            return None
        many = {key: tuple(told[key]) for key in ("changed", "mistakes", "unreached")}
        return Report(told["source"], needs_restart=told["needs_restart"], **many)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # there is none yet
