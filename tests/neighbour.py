"""Other processes on the machine of the proxy, as tests need them: one that reads, one without powers.

``python -m tests.neighbour read UID PATH…`` becomes the user UID (0: stays who it is, without capabilities)
and prints as JSON what came of reading each path: the number of bytes or names, or the system's word for why
not. ``python -m tests.neighbour powerless COMMAND…`` runs a command without capabilities, so that root is a
user like others.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

NOBODY = 65534
_PR_CAPBSET_DROP = 24
_CAPABILITIES = 64
ROOT = Path(__file__).parent.parent


def outcomes(uid: int, *paths: Path) -> dict[str, str]:
    """What came of reading each path as the user ``uid``; with 0 as this user, without powers."""
    command = [*(() if uid else POWERLESS), sys.executable, "-m", "tests.neighbour", "read", str(uid)]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, check=True, cwd=ROOT)
    tried: dict[str, str] = json.loads(done.stdout)
    return tried


POWERLESS = (sys.executable, "-m", "tests.neighbour", "powerless")
"""Before a command that is to have no capabilities."""


def _read(path: str) -> str:
    """One look at a file or folder; memory is read where the process must have some."""
    try:
        if Path(path).is_dir():
            return f"{len(os.listdir(path))} names"  # noqa: PTH208 - as an intruder would
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return f"{len(os.read(descriptor, 4096))} bytes"
        finally:
            os.close(descriptor)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _give_up_powers() -> None:
    """Leave nothing in the set from which ``exec`` gives root its capabilities; others have none."""
    prctl = ctypes.CDLL(None).prctl
    for capability in range(_CAPABILITIES):
        prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def main(role: str, *words: str) -> None:
    """One of the two roles."""
    if role == "powerless":
        _give_up_powers()
        os.execv(words[0], words)
    uid, paths = int(words[0]), words[1:]
    if uid:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    sys.stdout.write(json.dumps({path: _read(path) for path in paths}))


if __name__ == "__main__":
    main(*sys.argv[1:])
