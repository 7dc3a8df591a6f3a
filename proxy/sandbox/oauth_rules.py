"""OAuth requests as values: what the authorise endpoint accepts, PKCE, and client authentication.

Pure functions. They must never issue, store or look up a token; :mod:`proxy.sandbox.authority` does that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

from .faults import ClientAuth, Switches

SUBJECT_PREFIX = "urn:pleo:company:"
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # RFC 7636 section 4.2: base64url of a SHA-256 digest
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 section 4.1


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """A registration as the partner form makes it."""

    client_id: str
    client_secret: str = field(repr=False)
    redirect_uris: tuple[str, ...]
    scopes: tuple[str, ...]


class OAuthError(Exception):
    """A refusal of the token endpoint, RFC 6749 section 5.2."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


class PageRefusal(Exception):  # noqa: N818 - an answer of the authorise endpoint, not a fault of the sandbox
    """An authorise request that must not be redirected: the redirect target itself is not trusted."""


class RedirectRefusal(Exception):  # noqa: N818 - as above
    """An authorise request that is refused through the redirect URI, RFC 6749 section 4.1.2.1."""

    def __init__(self, request: ReturnAddress, error: str, description: str) -> None:
        super().__init__(error)
        self.location = request.location(error=error, error_description=description)


@dataclass(frozen=True, slots=True)
class ReturnAddress:
    """Where the authoriser's browser goes back to, with the state that must be echoed."""

    redirect_uri: str
    state: str | None

    def location(self, **params: str) -> str:
        """The redirect URI with ``params`` and the state added to whatever query it has."""
        if self.state is not None:
            params["state"] = self.state
        parts = urlsplit(self.redirect_uri)
        query = "&".join(filter(None, (parts.query, urlencode(params))))
        return urlunsplit(parts._replace(query=query))


@dataclass(frozen=True, slots=True)
class AuthorizeRequest:
    """A valid authorise request."""

    back: ReturnAddress
    scopes: tuple[str, ...]
    challenge: str | None
    company_id: str | None
    """The company that the subject URN preselects."""


def check_authorize(
    params: Sequence[tuple[str, str]],
    client: OAuthClient,
    company_ids: Collection[str],
    switches: Switches,
) -> AuthorizeRequest:
    """Checks an authorise request.

    Raises:
        PageRefusal: the client id or the redirect URI is wrong, so nothing may be sent to that URI.
        RedirectRefusal: anything else is wrong.
    """
    values = dict(params)
    if values.get("client_id") != client.client_id:
        raise PageRefusal("The client_id is not registered.")
    redirect_uri = values.get("redirect_uri")
    if redirect_uri not in client.redirect_uris:  # exact match, RFC 9700 section 2.1
        raise PageRefusal("The redirect_uri is not one of the client's registered redirect URIs.")
    back = ReturnAddress(redirect_uri, values.get("state"))
    repeated = [name for name, count in Counter(name for name, _ in params).items() if count > 1]
    if repeated:  # RFC 6749 section 3.1
        raise RedirectRefusal(back, "invalid_request", f"Repeated parameter: {repeated[0]}")
    if values.get("response_type") != "code":
        raise RedirectRefusal(back, "unsupported_response_type", "Only response_type=code is supported.")
    scopes = tuple(values.get("scope", "").split())
    if not scopes or not set(scopes) <= set(client.scopes):
        raise RedirectRefusal(back, "invalid_scope", "A scope is missing or not registered for the client.")
    return AuthorizeRequest(
        back=back,
        scopes=scopes,
        challenge=_challenge(values, back, required=switches.require_pkce),
        company_id=_subject(values, back, company_ids),
    )


def _challenge(values: dict[str, str], back: ReturnAddress, *, required: bool) -> str | None:
    challenge = values.get("code_challenge")
    if challenge is None:
        if required:
            raise RedirectRefusal(back, "invalid_request", "code_challenge is required.")
        return None
    # RFC 7636 section 4.3: an absent method means plain, which Pleo refuses.
    if values.get("code_challenge_method") != "S256":
        raise RedirectRefusal(back, "invalid_request", "code_challenge_method must be S256.")
    if not _CHALLENGE.fullmatch(challenge):
        raise RedirectRefusal(back, "invalid_request", "code_challenge is not a base64url SHA-256 digest.")
    return challenge


def _subject(values: dict[str, str], back: ReturnAddress, company_ids: Collection[str]) -> str | None:
    subject = values.get("urn_pleo_params_oauth_subject")
    if subject is None:
        return None
    company_id = subject.removeprefix(SUBJECT_PREFIX)
    # What Pleo does with a subject it does not know is undocumented; refusing shows the mistake.
    if company_id == subject or company_id not in company_ids:
        raise RedirectRefusal(
            back, "invalid_request", "urn_pleo_params_oauth_subject names no known company."
        )
    return company_id


def verifier_matches(challenge: str | None, verifier: str | None) -> bool:
    """RFC 7636 section 4.6; a verifier without a challenge does not match either (RFC 9700 section 2.1.1)."""
    if challenge is None or verifier is None:
        return challenge is None and verifier is None
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii") == challenge


def client_credentials(authorization: str | None, form: dict[str, str], mode: ClientAuth) -> tuple[str, str]:
    """The client id and secret of a request to the token endpoint.

    Raises:
        OAuthError: both methods in one request (``invalid_request``), or none or the wrong one
            (``invalid_client``).
    """
    if authorization is not None and "client_secret" in form:  # RFC 6749 section 2.3: one method at most
        raise OAuthError("invalid_request", "More than one client authentication method was used.")
    if authorization is not None and mode in ("basic", "either"):
        client_id, secret = basic_credentials(authorization)
        if form.get("client_id", client_id) != client_id:
            raise OAuthError("invalid_request", "client_id differs between header and form.")
        return client_id, secret
    if authorization is None and mode in ("post", "either") and "client_secret" in form:
        return form.get("client_id", ""), form["client_secret"]
    raise OAuthError("invalid_client", "Client authentication is missing or of the wrong kind.", status=401)


def basic_credentials(authorization: str) -> tuple[str, str]:
    """Client id and secret from HTTP Basic; both are form-decoded (RFC 6749 section 2.3.1).

    Raises:
        OAuthError: the header is not HTTP Basic (``invalid_client``).
    """
    user, password = parse_basic(authorization) or ("", "")
    if not user:
        raise OAuthError("invalid_client", "The Authorization header is not HTTP Basic.", status=401)
    return unquote_plus(user), unquote_plus(password)


def parse_basic(authorization: str) -> tuple[str, str] | None:
    """User name and password of an HTTP Basic header (RFC 7617), or ``None``."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None
