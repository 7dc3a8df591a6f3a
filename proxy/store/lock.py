"""One ``serve`` at a time on a SQLite store.

Two of them would both refresh the same grants, and Pleo ends the tokens of whoever comes second. Commands
that run beside ``serve`` need no lock: they change tenants and grants in transactions.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from proxy.errors import StoreError
from proxy.store.connection import make_parent


class ServeLock:
    """Held from :meth:`acquire` until :meth:`close`, or until the process dies, however it dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: Path) -> ServeLock:
        """Take the lock of the store at ``path``: a file beside it with ``.serve.lock`` added to its name.

        :raises StoreError: another process holds it, or the file cannot be used.
        """
        make_parent(path)
        file = path.with_name(f"{path.name}.serve.lock")
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(file, error) from error
        try:
            # On a file of its own: flock on the database would meet SQLite's locks on some file systems.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise StoreError(
                f"store {path}: {holder} serves it already: stop that one, or give this one another store.url"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise _unusable(file, error) from error
        return cls(descriptor)

    def close(self) -> None:
        """Release the lock; closing twice is fine. The file stays: removing it would race with a newcomer."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def __enter__(self) -> ServeLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _holder(descriptor: int) -> str:
    """Who wrote itself into the lock file; it may not have come to that yet."""
    text = os.pread(descriptor, 32, 0).strip()
    return f"process {int(text)}" if text.isdigit() else "another process"


def _unusable(file: Path, error: OSError) -> StoreError:
    return StoreError(
        f"lock {file}: it cannot be taken ({os.strerror(error.errno or 0)}): "
        "let the user of pleo-proxy read and write it, or correct store.url"
    )
