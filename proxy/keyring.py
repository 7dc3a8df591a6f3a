"""The key ring where it lives: read, refused if others could read it, generated at the first start.

Only this module reads and writes key files; :mod:`proxy.envelope` unwraps their keys where a service wrapped
them, and :mod:`proxy.vault` gets the text. A key is never generated beside a store that was sealed with
another: that would turn a missing file into lost tokens.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from proxy import envelope
from proxy.config import FileRef, SecretRef, resolve
from proxy.errors import KeyRingError
from proxy.model import Secret
from proxy.vault import new_key_line

FIRST_KEY_ID = "k1"


def read_or_generate(
    ref: SecretRef, environ: Mapping[str, str], *, store_is_sealed: bool, service: str | None = None
) -> Secret:
    """The text of the key ring, its keys unwrapped; a file that does not exist is generated with mode 0600.

    :param store_is_sealed: the store holds a check value, so a missing file is a fault and not a first start.
    :param service: URL of the service that is to wrap the keys, if one is.
    :raises KeyRingError: missing, unreadable, readable by others, or not wrapped although it is to be.
    :raises KeyServiceError: the service cannot be reached, or refuses.
    :raises ConfigurationError: a variable or credential that is not there.
    """
    if isinstance(ref, FileRef) and not _exists(ref.path):
        if store_is_sealed:
            raise KeyRingError(
                f"key file {ref.path} is missing, and the store was sealed with it; restore it from a backup"
            )
        generate(ref.path, FIRST_KEY_ID, service=service)
    return envelope.unwrapped(given(ref, environ), only=service)


def given(ref: SecretRef, environ: Mapping[str, str]) -> Secret:
    """The text of the key ring as it stands in its place, its keys wrapped if they are.

    :raises KeyRingError: a file that is missing, unreadable, or readable by others.
    :raises ConfigurationError: a variable or credential that is not there.
    """
    return read(ref.path) if isinstance(ref, FileRef) else resolve(ref, environ, item="vault.keys")


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


def generate(path: Path, key_id: str, *, service: str | None = None) -> None:
    """Write a new key file with one key, mode 0600, on disk before this returns.

    :param service: URL of the service that is to wrap the key, if one is.
    :raises KeyRingError: it exists already, or cannot be written.
    :raises KeyServiceError: the service cannot be reached, or refuses.
    """
    ring = Secret(f"{new_key_line(key_id)}\n")
    if service is not None:
        ring = envelope.wrapped(ring, service)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, ring)
        _sync_folder(path)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():  # and not: its directory is a file
            raise KeyRingError(f"key file {path} exists already; nothing was changed") from None
        raise _unwritable(path, error) from None


def rewrap(path: Path, service: str | None) -> int:
    """Have every key of a file wrapped by ``service``, or by none; returns how many there are.

    The new file is written beside the old one, read back from there and opened, and takes its place only
    then: at every moment there is one that opens. Both hold the same keys, so nothing has to be sealed anew.

    :raises KeyRingError: the file cannot be read, written or opened, or was changed meanwhile.
    :raises KeyServiceError: a service cannot be reached, or refuses. The file is as it was.
    """
    path = path.resolve()  # a link stays one
    before = read(path)
    keys = envelope.unwrapped(before)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        _write_new(beside, keys if service is None else envelope.wrapped(keys, service), like=path.stat())
        try:
            _check_new(beside, path, keys, before, service)
            beside.rename(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_folder(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    return len(envelope.services_of(keys))


def _check_new(beside: Path, path: Path, keys: Secret, before: Secret, service: str | None) -> None:
    if envelope.unwrapped(read(beside), only=service) != keys:
        raise KeyRingError(f"key file {path}: rewrapped, its keys would not open; it stays as it was")
    if read(path) != before:
        raise KeyRingError(f"key file {path} was changed meanwhile, and stays so; run this again")


def _write_new(path: Path, ring: Secret, *, like: os.stat_result | None = None) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        if like is not None and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file, like.st_uid, like.st_gid)  # root may do this for the proxy's user
        stream.write(ring.reveal())
        stream.flush()
        os.fsync(file)


def _sync_folder(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # the name too must outlive a power cut
    finally:
        os.close(directory)


def _unwritable(path: Path, error: OSError) -> KeyRingError:
    return KeyRingError(f"key file {path}: {error.strerror}; choose a directory that can be written")
