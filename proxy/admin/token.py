"""The tokens of the operator's listener: given in the configuration, or generated once and kept as a hash."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from proxy.errors import ConfigurationError, OperatorError
from proxy.model import Role, Secret

_TOKEN_BYTES = 32


class AdminTokens:
    """Hashes of the tokens by role. Empty at first: then no token is right."""

    def __init__(self) -> None:
        self._digests: dict[Role, str] = {}

    def take(self, role: Role, digest: str) -> None:
        """Let the token with this hash have a role.

        :raises ConfigurationError: it has another one already.
        """
        if digest in self._digests.values():
            raise ConfigurationError(
                "admin", ["admin.viewer_token: must differ from admin.token; choose another one"]
            )
        self._digests[role] = digest

    def change(self, others: AdminTokens) -> None:
        """Have the tokens that ``others`` has. What was opened with one that is no more, ends."""
        self._digests = dict(others._digests)

    def role_of(self, given: Secret) -> Role | None:
        """Whose token this is. All are compared, in constant time, so that the time tells nothing."""
        found = None
        digest = digest_of(given)
        for role, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = role
        return found

    def digest(self, role: Role) -> str | None:
        """Hash of the token that has a role now."""
        return self._digests.get(role)


def digest_of(token: Secret) -> str:
    """What is kept of a token: its SHA-256. One of 256 random bits needs no salt."""
    # "surrogatepass": a token in a header may hold any byte, and a wrong one is refused, never a defect.
    return hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).hexdigest()


def generated(state_dir: Path) -> tuple[str, Secret | None]:
    """Hash of the token generated in ``state_dir``, and the token itself at the first start only.

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
            return digest, None
        token = Secret(secrets.token_urlsafe(_TOKEN_BYTES))
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as stream:
            stream.write(digest_of(token) + "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise OperatorError(
            f"admin token file {path}: {reason}; set store.state_dir to a directory of the proxy's user, "
            "or admin.token to a token of yours"
        ) from None
    return digest_of(token), token
