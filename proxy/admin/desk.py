"""Where tokens are shown: looked at unless too many wrong ones came, and every wrong one reported."""

from __future__ import annotations

from math import ceil
from typing import Literal

from proxy.admin.lockout import Lockout
from proxy.admin.token import AdminTokens
from proxy.facts import AdminLockedOut, AdminLoginFailed, Emit
from proxy.model import Clock, Role, Secret


class TooManyFailures(Exception):  # noqa: N818 - what happened, and no defect
    """A token was not looked at, right or wrong."""

    def __init__(self, retry_in_s: float) -> None:
        super().__init__("too many wrong tokens")
        self.retry_after_s = ceil(retry_in_s)
        """For ``Retry-After``: whole seconds, and no less than it takes."""


class TokenDesk:
    """Tells the role of whoever shows a token."""

    def __init__(self, tokens: AdminTokens, emit: Emit, clock: Clock) -> None:
        self._tokens = tokens
        self._emit = emit
        self._clock = clock
        self._lockout = Lockout()

    def role_of(self, given: Secret, *, peer: str, by: Literal["form", "bearer"]) -> Role | None:
        """The role that the token gives; ``None`` for a wrong one.

        :raises TooManyFailures: after too many wrong ones none is looked at.
        """
        now = self._clock()
        if (wait_s := self._lockout.wait_s(peer, now)) is not None:
            raise TooManyFailures(wait_s)
        role = self._tokens.role_of(given)
        if role is None:
            self._note_failure(peer, by, now)
        else:
            self._lockout.succeeded(peer, now)
        return role

    def is_still_right(self, token: Secret) -> bool:
        """Whether a token that was right gives a role still; of no consequence if it does not."""
        return self._tokens.role_of(token) is not None

    def _note_failure(self, peer: str, by: Literal["form", "bearer"], now: float) -> None:
        was_everywhere = self._lockout.is_everywhere(now)
        self._lockout.failed(peer, now)
        self._emit(AdminLoginFailed(by, peer))
        wait_s = self._lockout.wait_s(peer, now)
        is_everywhere = self._lockout.is_everywhere(now)
        if wait_s is not None or is_everywhere != was_everywhere:
            self._emit(AdminLockedOut(peer, is_everywhere, round(wait_s or 0.0, 3)))
