"""Processes of a run: found, pinned to a core, waited for, and ended whatever happens.

Each gets a process group of its own, so that Ctrl-C reaches this program only, which then ends them all with
their children.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
STORAGE = ROOT / ".bench"
"""Where peers are installed and built; not part of the project."""
START_S = 30.0
END_S = 5.0


class BenchmarkError(Exception):
    """What keeps the benchmark from running, in words for who started it."""


def program(name: str) -> Path | None:
    """The program that was installed for the benchmarks, or the system's."""
    path = os.pathsep.join(
        [str(STORAGE / "venv" / "bin"), os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    )
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def output_of(
    command: Sequence[str], *, timeout_s: float = 60, environ: Mapping[str, str] | None = None
) -> str:
    """What a command that must succeed prints, its standard error included.

    :raises BenchmarkError: it fails, does not exist, or takes longer than ``timeout_s``.
    """
    try:
        done = subprocess.run(  # noqa: S603 - commands are this package's own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(environ),
            timeout=timeout_s,
            text=True,
            errors="replace",
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{command[0]} did not end within {timeout_s:g} s") from None
    except OSError as error:
        raise BenchmarkError(f"{command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        last = done.stdout.strip().splitlines()[-3:]
        raise BenchmarkError(f"{command[0]} failed: {' / '.join(last) or done.returncode}")
    return done.stdout


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without proxies before loopback and without settings of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("PLEO_")
    }
    return {**kept, **(more or {})}


def pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """The command, held to the cores.

    :raises BenchmarkError: there is no ``taskset`` (util-linux).
    """
    taskset = shutil.which("taskset")
    if taskset is None:
        raise BenchmarkError("taskset is missing; install util-linux")
    return [taskset, "--cpu-list", ",".join(map(str, cores)), *command]


@contextmanager
def running(
    command: Sequence[str],
    *,
    cores: Sequence[int],
    folder: Path,
    environ: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on the cores; its output goes to ``stdout`` and ``stderr`` in ``folder``.

    It and its children have ended when the block is left. Output files are opened for appending, so that
    :func:`drop_logs` can empty them under a process that goes on writing.
    """
    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
        process = subprocess.Popen(  # noqa: S603 - commands are this package's own
            pinned(command, cores),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=environment(environ),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process, signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
    finally:
        # Also after an orderly end: a child may have outlived its parent.
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, number)


def wait_until_listening(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return as soon as ``port`` accepts connections.

    :raises BenchmarkError: the process ended before, or 30 s have passed; with the last of what it said.
    """
    gives_up = time.monotonic() + START_S
    while time.monotonic() < gives_up and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    said = [line for name in ("stderr", "stdout") for line in last_lines(folder / name)]
    name = folder.name.partition("-")[2] or folder.name
    raise BenchmarkError(f"{name} does not listen: {' / '.join(said) or 'it said nothing'}")


def last_lines(path: Path, count: int = 3) -> list[str]:
    """The end of a text file."""
    return path.read_text("utf-8", "replace").strip().splitlines()[-count:]


def drop_logs(folder: Path) -> None:
    """Empty the logs below ``folder``, so that no run fills the disk."""
    for path in folder.rglob("*"):
        if path.name in {"stdout", "access.log"} and path.is_file():
            os.truncate(path, 0)
