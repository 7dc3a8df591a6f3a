"""The authorisation server's memory and rules: consents, codes, token families, rotation, reuse, expiry.

No I/O, and the clock is handed in. No method awaits, so each is atomic on one event loop: of two parallel
refreshes with one token exactly one wins. It must never put a token, code or secret in an error's text.
"""

from __future__ import annotations

import hmac
import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from .counters import Counters
from .faults import Switches
from .oauth_rules import SUBJECT_PREFIX, AuthorizeRequest, OAuthClient, OAuthError, verifier_matches

CONSENT_LIFETIME_S = 600.0


class TokenState(StrEnum):
    """What the API finds a bearer token to be."""

    LIVE = "live"
    ROTATED = "rotated"
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What one issue or rotation hands out. ``refresh_token`` is the old one if it was kept."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
    scopes: tuple[str, ...]
    company_id: str
    generation: int


@dataclass(slots=True)
class Family:
    """One authorisation: all the tokens that descend from one consent."""

    company_id: str
    scopes: tuple[str, ...]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    generation: int = 0
    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)


@dataclass(slots=True)
class _Issued:
    family: Family
    kind: Literal["access", "refresh"]
    generation: int
    issued_at: float
    expires_at: float
    state: TokenState = TokenState.LIVE
    jti: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bearer token, judged."""

    state: TokenState
    company_id: str | None = None
    scopes: tuple[str, ...] = ()
    generation: int = 0


@dataclass(slots=True)
class _Code:
    request: AuthorizeRequest
    company_id: str
    expires_at: float
    spent: bool = False
    family: Family | None = None


class Authority:
    """The simulated authorisation server, without its sockets."""

    def __init__(
        self,
        client: OAuthClient,
        *,
        access_lifetime_s: float,
        refresh_lifetime_s: float,
        now: Callable[[], float],
        switches: Switches,
        counters: Counters,
    ) -> None:
        self.client = client
        self.access_lifetime_s = access_lifetime_s
        self.refresh_lifetime_s = refresh_lifetime_s
        self.families: list[Family] = []
        self._now = now
        self._switches = switches
        self._counters = counters
        self._consents: dict[str, tuple[AuthorizeRequest, float]] = {}
        self._codes: dict[str, _Code] = {}
        self._issued: dict[str, _Issued] = {}
        self._secrets: set[str] = {client.client_secret}

    # Consent and code

    def open_consent(self, request: AuthorizeRequest) -> str:
        """Keeps a request while a person decides; the id is good for one decision."""
        consent_id = secrets.token_urlsafe(24)
        self._consents[consent_id] = (request, self._now() + CONSENT_LIFETIME_S)
        return consent_id

    def close_consent(self, consent_id: str) -> AuthorizeRequest | None:
        """The request that a consent id stands for, once."""
        request, expires_at = self._consents.pop(consent_id, (None, 0.0))
        return request if self._now() < expires_at else None

    def approve(self, request: AuthorizeRequest, company_id: str) -> str:
        """The location that carries a fresh code back to the client."""
        code = f"pleo_code_{secrets.token_urlsafe(24)}"
        self._secrets.add(code)
        self._codes[code] = _Code(request, company_id, self._now() + self._switches.code_lifetime_s)
        return request.back.location(code=code)

    def exchange(self, code: str, redirect_uri: str | None, verifier: str | None) -> TokenPair:
        """Tokens for a code.

        Raises:
            OAuthError: the code is unknown, spent, expired or was issued for something else.
        """
        record = self._codes.get(code)
        if record is None:
            raise OAuthError("invalid_grant", "The code is not known.")
        if record.spent:
            # RFC 6749 section 4.1.2: deny, and revoke the tokens that were issued from the code.
            self._counters.code_replays += 1
            if record.family is not None:
                self._kill(record.family)
            raise OAuthError("invalid_grant", "The code was used before.")
        # Any presentation spends the code: a wrong verifier means that somebody else holds it.
        record.spent = True
        if self._now() >= record.expires_at:
            raise OAuthError("invalid_grant", "The code has expired.")
        if redirect_uri != record.request.back.redirect_uri:
            raise OAuthError("invalid_grant", "redirect_uri differs from the authorise request's.")
        if not verifier_matches(record.request.challenge, verifier):
            raise OAuthError("invalid_grant", "code_verifier does not match the code_challenge.")
        self._counters.code_exchanges += 1
        record.family, pair = self._found(record.company_id, record.request.scopes)
        return pair

    def issue(self, company_id: str, scopes: tuple[str, ...]) -> TokenPair:
        """Tokens of a new family, as if a person had consented; for tests that are not about consent."""
        return self._found(company_id, scopes)[1]

    def _found(self, company_id: str, scopes: tuple[str, ...]) -> tuple[Family, TokenPair]:
        if self._switches.reconsent_kills_family:
            self.revoke(company_id)
        cap = self._switches.granted_scopes
        family = Family(company_id, scopes if cap is None else tuple(s for s in scopes if s in cap))
        self.families.append(family)
        return family, self._rotate(family, keep_refresh=False)

    # Refresh

    def refresh(self, token: str, *, keep_refresh: bool = False) -> TokenPair:
        """The next pair of a family; every earlier token of it is dead at once.

        ``keep_refresh`` rotates the access token only, for the answer without a ``refresh_token``.

        Raises:
            OAuthError: the token is unknown, expired, rotated or revoked; the family may be dead after it.
        """
        record = self._issued.get(token)
        if record is None or record.kind != "refresh":
            raise self._refusal("The refresh token is not known.")
        key = (record.family.company_id, record.generation)
        self._counters.refresh_attempts[key] += 1
        if record.state is TokenState.ROTATED:
            self._counters.reuse_attempts += 1
        if self._now() >= record.expires_at:
            self._kill(record.family)
            raise self._refusal("The refresh token has expired; the authorisation is revoked.")
        if record.state is TokenState.ROTATED:
            if self._switches.reuse_kills_family:
                self._kill(record.family)
            raise self._refusal("The refresh token was used before.")
        if record.state is not TokenState.LIVE:
            raise self._refusal("The refresh token was revoked.")
        self._counters.refreshes[key] += 1
        return self._rotate(record.family, keep_refresh=keep_refresh)

    def _refusal(self, description: str) -> OAuthError:
        self._counters.refused_refreshes += 1
        return OAuthError(self._switches.refusal_error, description, status=self._switches.refusal_status)

    def _rotate(self, family: Family, *, keep_refresh: bool) -> TokenPair:
        family.generation += 1
        self._mark((family.access_token,), TokenState.ROTATED)
        family.access_token = self._mint(family, "access", self.access_lifetime_s)
        if not keep_refresh:
            self._mark((family.refresh_token,), TokenState.ROTATED)
            family.refresh_token = self._mint(family, "refresh", self.refresh_lifetime_s)
        return TokenPair(
            access_token=family.access_token,
            refresh_token=family.refresh_token,
            expires_in=int(self.access_lifetime_s),
            scopes=family.scopes,
            company_id=family.company_id,
            generation=family.generation,
        )

    def _mint(self, family: Family, kind: Literal["access", "refresh"], lifetime_s: float) -> str:
        prefix = "pleo_at_" if kind == "access" else "pleo_rt_"
        token = prefix + secrets.token_urlsafe(self._switches.token_bytes)
        self._secrets.add(token)
        now = self._now()
        self._issued[token] = _Issued(family, kind, family.generation, now, now + lifetime_s)
        return token

    # Death

    def _mark(self, tokens: Iterable[str], state: TokenState) -> None:
        for token in tokens:
            record = self._issued.get(token)
            if record is not None and record.state is TokenState.LIVE:
                record.state = state

    def _kill(self, family: Family) -> None:
        self._mark((family.access_token, family.refresh_token), TokenState.REVOKED)

    def revoke_access(self, company_id: str) -> None:
        """The company's access tokens die; its refresh tokens stay good."""
        self._mark((f.access_token for f in self._of(company_id)), TokenState.REVOKED)

    def revoke(self, company_id: str) -> None:
        """Every token of the company dies."""
        for family in self._of(company_id):
            self._kill(family)

    def rotate_client_secret(self, secret: str) -> None:
        """A new client secret: refresh tokens die with the old one, access tokens expire in their time."""
        self.client = replace(self.client, client_secret=secret)
        self._secrets.add(secret)
        self._mark((f.refresh_token for f in self.families), TokenState.REVOKED)

    def add_redirect_uri(self, uri: str) -> None:
        """Registers one more redirect URI."""
        if uri not in self.client.redirect_uris:
            self.client = replace(self.client, redirect_uris=(*self.client.redirect_uris, uri))

    # Questions

    def authenticate(self, client_id: str, client_secret: str) -> None:
        """Checks client credentials.

        Raises:
            OAuthError: ``invalid_client``.
        """
        known = hmac.compare_digest(client_id.encode(), self.client.client_id.encode())
        if not (known and hmac.compare_digest(client_secret.encode(), self.client.client_secret.encode())):
            raise OAuthError("invalid_client", "Client id or secret is wrong.", status=401)

    def judge(self, access_token: str) -> Verdict:
        """What the API may think of a bearer token."""
        record = self._issued.get(access_token)
        if record is None or record.kind != "access":
            return Verdict(TokenState.UNKNOWN)
        return Verdict(self._state(record), record.family.company_id, record.family.scopes, record.generation)

    def introspect(self, token: str, issuer: str) -> dict[str, object]:
        """The answer of RFC 7662 with Pleo's subject claim; nothing but ``active`` for a dead token."""
        record = self._issued.get(token)
        if record is None or self._state(record) is not TokenState.LIVE:
            return {"active": False}
        subject = SUBJECT_PREFIX + record.family.company_id
        return {
            "active": True,
            "sub": subject,
            "exp": int(record.expires_at),
            "iat": int(record.issued_at),
            "client_id": self.client.client_id,
            "aud": self.client.client_id,
            "iss": issuer,
            "jti": record.jti,
            "urn:pleo:params:oauth:subject_urn": subject,
        }

    def current(self, company_id: str) -> Family | None:
        """The company's newest family, dead or alive."""
        return next(reversed(self._of(company_id)), None)

    def alive(self, family: Family) -> bool:
        """Whether the family can still be refreshed."""
        return self._state(self._issued[family.refresh_token]) is TokenState.LIVE

    def secrets_issued(self) -> frozenset[str]:
        """Every client secret, code and token there ever was: what no output of a product may contain."""
        return frozenset(self._secrets)

    def _of(self, company_id: str) -> list[Family]:
        return [family for family in self.families if family.company_id == company_id]

    def _state(self, record: _Issued) -> TokenState:
        if record.state is TokenState.LIVE and self._now() >= record.expires_at:
            return TokenState.EXPIRED
        return record.state
