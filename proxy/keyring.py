"""The key ring where it lives: read, refused if others could read it, generated at the first start.

Only this module reads and writes key files; :mod:`proxy.vault` gets their text. A key is never generated
beside a store that was sealed with another: that would turn a missing file into lost tokens.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from proxy.config import FileRef, SecretRef, resolve
from proxy.errors import KeyRingError
from proxy.model import Secret
from proxy.vault import new_key_line

FIRST_KEY_ID = "k1"


def read_or_generate(ref: SecretRef, environ: Mapping[str, str], *, store_is_sealed: bool) -> Secret:
    """The text of the key ring; a file that does not exist is generated with mode 0600.

    :param store_is_sealed: the store holds a check value, so a missing file is a fault and not a first start.
    :raises KeyRingError: missing, unreadable, or readable by others.
    :raises ConfigurationError: a variable or credential that is not there.
    """
    if not isinstance(ref, FileRef):
        return resolve(ref, environ, item="vault.keys")
    if not _exists(ref.path):
        if store_is_sealed:
            raise KeyRingError(
                f"key file {ref.path} is missing, and the store was sealed with it; restore it from a backup"
            )
        generate(ref.path, FIRST_KEY_ID)
    return read(ref.path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a directory on the way that may not be searched, a name too long
        raise KeyRingError(f"key file {path}: {error.strerror}; let the proxy's user reach it") from None


def read(path: Path) -> Secret:
    """The text of a key file.

    :raises KeyRingError: it cannot be read, or others than its owner can read or change it.
    """
    try:
        with path.open("rb") as file:
            # The open file is asked, not the path, so that it cannot be exchanged in between.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyRingError(
                    f"key file {path} has mode {mode:04o}, so others can reach it; run `chmod 600 {path}`"
                )
            return Secret(file.read().decode("utf-8"))
    except FileNotFoundError:
        raise KeyRingError(
            f"key file {path} does not exist; restore it from a backup, or make one with "
            "`pleo-proxy keys generate`"
        ) from None
    except OSError as error:
        raise KeyRingError(f"key file {path}: {error.strerror}; let the proxy's user read it") from None
    except UnicodeDecodeError:
        raise KeyRingError(f"key file {path} is not text; put it back from your backup") from None


def generate(path: Path, key_id: str) -> None:
    """Write a new key file with one key, mode 0600, on disk before this returns.

    :raises KeyRingError: it exists already, or cannot be written.
    """
    line = new_key_line(key_id)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, f"{line}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the name too must outlive a power cut
        finally:
            os.close(directory)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():  # and not: its directory is a file
            raise KeyRingError(f"key file {path} exists already; nothing was changed") from None
        raise KeyRingError(
            f"key file {path}: {error.strerror}; choose a directory that can be written"
        ) from None
