"""The name of this instance, by which it knows its own leases again after a restart.

Random, made once and kept in ``store.state_dir``; it tells nothing of the machine.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from proxy.errors import StoreError

_NAME = re.compile(r"[0-9a-f]{16}")


def instance_name(state_dir: Path) -> str:
    """The instance's name.

    :raises StoreError: it can be neither read nor made, or the file holds something else.
    """
    path = state_dir / "instance"
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{secrets.token_hex(8)}\n")
                file.flush()
                os.fsync(file.fileno())
        name = path.read_text().strip()
    except OSError as error:
        raise StoreError(
            f"instance name {path}: it cannot be used ({os.strerror(error.errno or 0)}): "
            "set store.state_dir to a directory of the proxy's user"
        ) from None
    if not _NAME.fullmatch(name):
        raise StoreError(f"instance name {path}: it does not hold 16 hexadecimal digits: remove the file")
    return name
