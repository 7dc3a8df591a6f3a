"""What other processes and users of this machine get to see of this one: nothing.

:func:`close_to_others` comes before anything else in every process of the program, since its environment may
hold secrets from the beginning and its memory soon does. Reads no setting and no secret; knows of nothing but
the errors.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import sys
from pathlib import Path

from proxy.errors import OperatorError, StoreError

_PR_SET_DUMPABLE = 4
"""From Linux's prctl.h."""


def close_to_others() -> None:
    """Make no core dumps, keep memory and environment from other processes, and files for their owner.

    A process that is not dumpable has ``/proc/PID/environ``, ``mem``, ``maps`` and ``fd`` closed to all
    processes without CAP_SYS_PTRACE, those of its own user too, and cannot be attached to by them. It gives
    no core to a handler behind a pipe either, for which the limit alone would not count (core(5)). Elsewhere
    than on Linux there is no such switch. ``exec`` switches it off again, so each program does this itself.

    :raises OperatorError: the system does not let it.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OperatorError(
            "prctl(PR_SET_DUMPABLE) is refused, so other processes could read secrets in memory; "
            "allow this call in the filter (seccomp) of the container or service"
        )


def check_folder(path: Path) -> None:
    """Refuse a folder for state in which others may write: they could put files of theirs in place of ours.

    Others who may only list it see names and sizes; what is in it is for its owner alone.

    :raises StoreError: group or others may write, or it cannot be looked at.
    """
    mode = _mode(path)
    if mode & 0o022:
        raise StoreError(
            f"directory {path} has mode {mode:04o}, so others can replace the files in it; run "
            f"`chmod 700 {path}`, or name a directory below it, which is then made with mode 0700"
        )


def is_listed_by_others(path: Path) -> bool:
    """Whether group or others may see which files are in a folder.

    :raises StoreError: it cannot be looked at.
    """
    return bool(_mode(path) & 0o055)


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return 0  # it is made with mode 0700 when it is needed
    except OSError as error:
        raise StoreError(f"directory {path}: {error.strerror}; let the proxy's user reach it") from None
