"""Who is logged in to the operator's pages: sessions begun, found again, ended.

A session's id is 256 random bits in a cookie. The store has its SHA-256, so whoever reads the store can take
over no session. What a session was opened with is stored as a hash under the id as key: the session ends
when the token is changed, and the store gives no way to guess at tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from proxy.admin.sso import Identity
from proxy.admin.token import AdminTokens
from proxy.model import AdminSession, Clock, Role, Secret
from proxy.store import AdminSessions

_ID_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9_-]{43}")
_TOUCH_S = 60.0
"""Between writes of when a session was last seen."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session lives, in seconds: without a request, and in all."""

    idle_s: float
    max_s: float


class Sessions:
    """Begins, finds and ends sessions. Every method raises :class:`proxy.errors.StoreUnavailable`."""

    def __init__(
        self, store: AdminSessions, tokens: AdminTokens, limits: SessionLimits, clock: Clock
    ) -> None:
        self.limits = limits
        self._store = store
        self._tokens = tokens
        self._clock = clock

    async def begin(self, identity: Identity, *, by_sso: bool, instead_of: Secret | None) -> Secret:
        """A session with an id of its own, whatever id the browser came with; the old one ends."""
        if instead_of is not None:
            await self._store.remove(_key(instead_of))
        id_ = Secret(secrets.token_urlsafe(_ID_BYTES))
        evidence = _of_sso(identity) if by_sso else self._of_token(identity.role)
        now = self._clock()
        await self._store.add(
            AdminSession(_key(id_), identity.role, identity.user, _proof(id_, evidence), now, now)
        )
        return id_

    async def find(
        self, id_: Secret, signed_on: Identity | None, *, is_use: bool = True
    ) -> AdminSession | None:
        """The session, if it is in force.

        :param signed_on: whom single sign-on names in this request. A session that began with it lasts for
            as long as it names the same user, with the same role.
        """
        session = await self._store.get(_key(id_))
        now = self._clock()
        if session is None or self._is_over(session, now):
            return None
        evidence = [self._of_token(session.role)]
        if signed_on == Identity(session.user, session.role):
            evidence.append(_of_sso(signed_on))
        if not any(hmac.compare_digest(session.proof, _proof(id_, each)) for each in evidence):
            return None
        if is_use and now - session.seen_at >= _TOUCH_S:
            await self._store.touch(session.id, now)
        return session

    async def end(self, id_: Secret) -> None:
        """End the session."""
        await self._store.remove(_key(id_))

    def _is_over(self, session: AdminSession, now: float) -> bool:
        return now - session.seen_at >= self.limits.idle_s or now - session.created_at >= self.limits.max_s

    def _of_token(self, role: Role) -> str:
        return f"token {self._tokens.digest(role)}"


def session_id(value: str) -> Secret | None:
    """The id in a cookie, if it could be one of ours."""
    return Secret(value) if _ID.fullmatch(value) else None


def csrf_token(id_: Secret) -> str:
    """What a form of this session's pages carries (the synchroniser token): no other site can know it."""
    return _hmac(id_, "csrf")


def _of_sso(identity: Identity) -> str:
    return f"sso {identity.role} {identity.user}"


def _key(id_: Secret) -> str:
    return hashlib.sha256(id_.reveal().encode()).hexdigest()


def _proof(id_: Secret, evidence: str) -> str:
    return _hmac(id_, f"proof {evidence}")


def _hmac(id_: Secret, text: str) -> str:
    return hmac.new(id_.reveal().encode(), text.encode(), "sha256").hexdigest()
