"""OAuth 2.0 messages as data: what is sent to Pleo's authorisation server and what its answers mean.

Pure, built on oauthlib for encoding and PKCE. Opens no connection and keeps no state. An answer is judged by
its status and its ``error`` field only, never by searching text, and no text of the provider is passed on.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard
from urllib.parse import quote_plus

from oauthlib.common import add_params_to_uri, urlencode
from oauthlib.oauth2 import WebApplicationClient

from proxy.model import Outcome, Secret

COMPANY_URN = "urn:pleo:company:"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# Pleo's documentation, and what an integrator saw, spell one fact in three ways.
_TERMINAL = frozenset({"invalid_grant", "invalid_token", "invalid_refresh_token"})
# Our registration or our request is wrong: no grant is to blame, and asking again does not help.
_CLIENT_REJECTED = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "invalid_request",
        "invalid_scope",
        "unsupported_grant_type",
    },
)
_TRANSIENT = frozenset({"server_error", "temporarily_unavailable", "slow_down"})
# RFC 6749 section 4.1.2.1: what the provider may put into the callback.
_NAME_LENGTH = 100
"""Of a company: what fits on a page and into a cookie."""
_CALLBACK_ERRORS = (
    frozenset({"access_denied", "invalid_scope", "unauthorized_client", "unsupported_response_type"})
    | {"invalid_request", "server_error", "temporarily_unavailable"}
    # OpenID Connect Core section 3.1.2.6: the person did not finish.
    | {"interaction_required", "login_required", "account_selection_required", "consent_required"}
)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A usable token answer (RFC 6749 section 5.1)."""

    access: Secret
    refresh: Secret | None
    """``None`` where the answer has none: the old one stays in use (RFC 6749 section 6)."""
    expires_in_s: float | None
    """Lifetime of the access token; ``None`` where the answer has none or no sensible one."""


@dataclass(frozen=True, slots=True)
class TokenFailure:
    """An answer, or the lack of one, that brought no tokens."""

    outcome: Outcome
    error: str
    """A known error code of the provider, or the proxy's own word for what happened."""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class GrantedAccess:
    """What ``GET /v1/introspect`` says was really granted."""

    company: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """Everything that goes into the URL to which the authoriser's browser is sent."""

    endpoint: str
    client_id: str
    redirect_uri: str
    scopes: Sequence[str]
    state: Secret
    verifier: Secret
    company: str | None


def new_verifier() -> Secret:
    """A PKCE code verifier of 64 characters (RFC 7636 section 4.1)."""
    return Secret(WebApplicationClient("").create_code_verifier(64))


def authorization_url(request: AuthorizationRequest) -> str:
    """The authorisation request (RFC 6749 section 4.1.1) with an S256 challenge (RFC 7636 section 4.3).

    A company that is already settled is preselected on Pleo's page (a parameter of Pleo's own).
    """
    challenge = WebApplicationClient("").create_code_challenge(request.verifier.reveal(), "S256")
    params = [
        ("response_type", "code"),
        ("client_id", request.client_id),
        ("redirect_uri", request.redirect_uri),
        ("scope", " ".join(request.scopes)),
        ("state", request.state.reveal()),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ]
    if request.company is not None:
        params.append(("urn_pleo_params_oauth_subject", COMPANY_URN + request.company))
    return str(add_params_to_uri(request.endpoint, params))


def code_form(*, code: Secret, verifier: Secret, redirect_uri: str) -> list[tuple[str, str]]:
    """The form that exchanges a code (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""
    return [
        ("grant_type", "authorization_code"),
        ("code", code.reveal()),
        ("redirect_uri", redirect_uri),
        ("code_verifier", verifier.reveal()),
    ]


def refresh_form(refresh: Secret) -> list[tuple[str, str]]:
    """The form that refreshes (RFC 6749 section 6)."""
    return [("grant_type", "refresh_token"), ("refresh_token", refresh.reveal())]


def encode_form(form: list[tuple[str, str]]) -> bytes:
    """``application/x-www-form-urlencoded`` bytes."""
    return str(urlencode(form)).encode()


def basic_credentials(client_id: str, client_secret: Secret) -> str:
    """``Authorization`` of the OAuth client; id and secret form-encoded first (RFC 6749 section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret.reveal())}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def read_token_answer(
    status: int, body: bytes, *, retry_after: str | None = None
) -> TokenPair | TokenFailure:
    """What a token endpoint's answer means (RFC 6749 sections 5.1 and 5.2).

    :param retry_after: the answer's ``Retry-After``; only its seconds form is understood.
    """
    answer = _json_object(body)
    if status == 200:
        pair = _read_pair(answer)
        return pair or TokenFailure(Outcome.UNKNOWN, "unusable_answer")
    if status == 429 or status >= 500:
        return TokenFailure(Outcome.UNAVAILABLE, f"http_{status}", _seconds(retry_after))
    match answer.get("error"):
        case str(error) if error in _TERMINAL:
            return TokenFailure(Outcome.REFUSED, error)
        case str(error) if error in _CLIENT_REJECTED:
            return TokenFailure(Outcome.CLIENT_REJECTED, error)
        case str(error) if error in _TRANSIENT:
            return TokenFailure(Outcome.UNAVAILABLE, error, _seconds(retry_after))
        case _:  # also an "error" that is an object, as many servers send it
            return TokenFailure(Outcome.UNKNOWN, f"http_{status}_without_known_error")


def read_granted_access(body: bytes) -> GrantedAccess | None:
    """Company and scopes from an answer of ``GET /v1/introspect``; ``None`` if it names no company."""
    data = _json_object(body).get("data")
    if not isinstance(data, dict):
        return None
    company = _company_of(str(data.get("subjectURN", "")))
    if company is None:
        return None
    scope = data.get("scope")
    scopes = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else []
    return GrantedAccess(company, tuple(str(item) for item in scopes))


def read_company_name(body: bytes) -> str | None:
    """A company's name from an answer of ``GET /v1/companies/{id}``; ``None`` if it cannot be shown."""
    data = _json_object(body).get("data")
    name = data.get("name") if isinstance(data, dict) else None
    if not isinstance(name, str) or not name.isprintable():
        return None
    return name.strip()[:_NAME_LENGTH] or None


def company_id(text: str) -> str | None:
    """``text`` as a company's UUID in lower case, or ``None`` if it is none."""
    lower = text.strip().lower()
    return lower if _UUID.fullmatch(lower) else None


def _company_of(subject_urn: str) -> str | None:
    return company_id(subject_urn[len(COMPANY_URN) :]) if subject_urn.startswith(COMPANY_URN) else None


def known_callback_error(error: str) -> str:
    """A callback's ``error`` if it is one of the standards', else ``"other"``: no foreign text."""
    return error if error in _CALLBACK_ERRORS else "other"


def _read_pair(answer: dict[str, Any]) -> TokenPair | None:
    access, refresh = answer.get("access_token"), answer.get("refresh_token")
    if not _is_token(access):
        return None
    return TokenPair(
        access=Secret(access),
        refresh=Secret(refresh) if _is_token(refresh) else None,
        expires_in_s=_positive(answer.get("expires_in")),
    )


def _is_token(value: object) -> TypeGuard[str]:
    # RFC 6749 appendix A.12: visible ASCII. Anything else could not be sent in a header field.
    return isinstance(value, str) and bool(re.fullmatch(r"[\x21-\x7e]+", value))


def _positive(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 < number < 10**9 else None


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and re.fullmatch("[0-9]{1,6}", retry_after) else None


def _json_object(body: bytes) -> dict[str, Any]:
    # Read as leniently as can be: a pair that was issued must not be lost for a number that is too large, or
    # a letter in another encoding, elsewhere in the answer.
    try:
        value = json.loads(body.decode("utf-8-sig", "replace"), parse_int=float)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
