"""A listening Unix socket and its file: made with the mode it is to have, taken over from the dead, removed.

Knows nothing of who connects. Never takes a file away from a program that still listens on it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from proxy.door import BACKLOG


@contextmanager
def listening(path: Path, *, mode: int, gid: int | None) -> Iterator[socket.socket]:
    """A socket that listens at ``path`` until the end of the block, which removes its file.

    :param gid: the group that the file is given, if another than this process's.
    :raises OSError: it cannot be listened on; ``EADDRINUSE`` if somebody else does, ``EEXIST`` if the file is
        no socket.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _bind(sock, path)
        mine = path.stat()
        try:
            # Nobody can connect before it listens, so there is no moment with another mode.
            path.chmod(mode)
            if gid is not None:
                os.chown(path, -1, gid)
            sock.listen(BACKLOG)
            yield sock
        finally:
            _remove(path, mine)
    finally:
        sock.close()


def _bind(sock: socket.socket, path: Path) -> None:
    try:
        sock.bind(str(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "not a socket") from None
        if _somebody_listens(path):
            raise
        path.unlink()
        sock.bind(str(path))


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # its queue is full, or it is not ours to ask
    return True


def _remove(path: Path, mine: os.stat_result) -> None:
    """Unless another program has put its own there meanwhile."""
    with suppress(OSError):
        found = path.lstat()
        if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            path.unlink()
