"""The operator's token: given in the configuration, or generated once and kept as a hash."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from proxy.errors import OperatorError
from proxy.model import Secret

_TOKEN_BYTES = 32


def checker(token: Secret) -> Callable[[Secret], bool]:
    """Compares with a configured token in constant time."""
    return _checker(_digest(token))


def generated(state_dir: Path) -> tuple[Callable[[Secret], bool], Secret | None]:
    """The check for the token generated in ``state_dir``, and the token itself at the first start only.

    What is kept is its SHA-256: the token has 256 random bits, so no salt is needed.

    :raises OperatorError: the file cannot be read or written.
    """
    path = state_dir / "admin-token.sha256"
    try:
        if path.exists():
            digest = path.read_text("ascii").strip()
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise OperatorError(
                    f"admin token file {path}: damaged; remove it, and the next start prints a new token"
                )
            return _checker(digest), None
        token = Secret(secrets.token_urlsafe(_TOKEN_BYTES))
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as stream:
            stream.write(_digest(token) + "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise OperatorError(
            f"admin token file {path}: {reason}; set store.state_dir to a directory of the proxy's user, "
            "or admin.token to a token of yours"
        ) from None
    return _checker(_digest(token)), token


def _checker(digest: str) -> Callable[[Secret], bool]:
    return lambda given: hmac.compare_digest(_digest(given), digest)


def _digest(token: Secret) -> str:
    # "surrogatepass": a token in a header may hold any byte, and a wrong one is refused, never a defect.
    return hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).hexdigest()
