"""OAuth messages: what is sent is what the RFCs and Pleo ask for, and answers are judged by their fields."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import oauth
from proxy.model import Outcome, Secret
from proxy.oauth import AuthorizationRequest, GrantedAccess, TokenFailure, TokenPair

COMPANY = "3f2c8f2e-0000-4000-8000-0123456789ab"


def body(**answer: Any) -> bytes:
    """An answer as JSON."""
    return json.dumps(answer).encode()


def pair(**answer: Any) -> TokenPair:
    """What a successful answer with a bearer token is read as."""
    read = oauth.read_token_answer(200, body(**{"access_token": "a", "token_type": "bearer", **answer}))
    assert isinstance(read, TokenPair)
    return read


def failure(status: int, answer: bytes, retry_after: str | None = None) -> TokenFailure:
    """What an answer without tokens is read as."""
    read = oauth.read_token_answer(status, answer, retry_after=retry_after)
    assert isinstance(read, TokenFailure)
    return read


# --- the authorisation request


def authorization_query(company: str | None = None, endpoint: str = "https://auth.example/authorize") -> str:
    """The query of an authorisation URL whose every value needs care."""
    request = AuthorizationRequest(
        endpoint=endpoint,
        client_id="our id&+",
        redirect_uri="https://proxy.example/oauth/callback?x=1&y=ü",
        scopes=("companies:read", "users:read"),
        state=Secret("st~a+t/e="),
        verifier=Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        company=company,
    )
    url = oauth.authorization_url(request)
    assert url.startswith(endpoint)
    assert "#" not in url
    return urlsplit(url).query


EXPECTED = [
    ("response_type", "code"),
    ("client_id", "our id&+"),
    ("redirect_uri", "https://proxy.example/oauth/callback?x=1&y=ü"),
    ("scope", "companies:read users:read"),
    ("state", "st~a+t/e="),
    # The challenge of RFC 7636 appendix B, whose verifier is used here.
    ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
    ("code_challenge_method", "S256"),
]


def test_the_authorization_url_has_exactly_the_documented_parameters() -> None:
    """RFC 6749 section 4.1.1 and RFC 7636 section 4.3, each parameter once, each value intact."""
    query = authorization_query()
    assert parse_qsl(query, strict_parsing=True) == EXPECTED
    assert "dBjftJeZ4CVP" not in query


def test_a_settled_company_is_preselected() -> None:
    """A company that is known adds Pleo's own parameter and nothing else."""
    subject = ("urn_pleo_params_oauth_subject", f"urn:pleo:company:{COMPANY}")
    assert parse_qsl(authorization_query(COMPANY), strict_parsing=True) == [*EXPECTED, subject]


def test_an_endpoints_own_query_is_kept() -> None:
    """A query of the endpoint stays, as RFC 6749 section 3.1 asks."""
    query = authorization_query(endpoint="https://auth.example/authorize?tenant=x")
    assert parse_qsl(query) == [("tenant", "x"), *EXPECTED]


def test_verifiers_are_long_legal_and_never_alike() -> None:
    """A verifier has 64 of the unreserved characters (RFC 7636 section 4.1) and is new each time."""
    unreserved = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
    verifiers = [oauth.new_verifier().reveal() for _ in range(50)]
    assert {len(verifier) for verifier in verifiers} == {64}
    assert set("".join(verifiers)) <= unreserved
    assert len(set(verifiers)) == 50


# --- forms and credentials


def test_the_code_form() -> None:
    """RFC 6749 section 4.1.3 and RFC 7636 section 4.5, without credentials of the OAuth client."""
    form = oauth.code_form(code=Secret("c"), verifier=Secret("v"), redirect_uri="https://p/cb")
    assert form == [
        ("grant_type", "authorization_code"),
        ("code", "c"),
        ("redirect_uri", "https://p/cb"),
        ("code_verifier", "v"),
    ]


def test_the_refresh_form() -> None:
    """RFC 6749 section 6, without scope: what was granted is asked for again."""
    form = oauth.refresh_form(Secret("r"))
    assert form == [("grant_type", "refresh_token"), ("refresh_token", "r")]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(TEXTS.filter(bool), TEXTS), min_size=1, max_size=5))
def test_forms_survive_encoding(form: list[tuple[str, str]]) -> None:
    """Any form comes out of decoding as it was, in order, from plain ASCII."""
    encoded = oauth.encode_form(form)
    assert encoded.isascii()
    assert parse_qsl(encoded.decode(), keep_blank_values=True, strict_parsing=True) == form


def decoded_credentials(header: str) -> list[str]:
    """Id and secret as a server reads them (RFC 6749 section 2.3.1, RFC 7617)."""
    scheme, _, encoded = header.partition(" ")
    assert scheme == "Basic"
    return [
        unquote_plus(part) for part in base64.b64decode(encoded, validate=True).decode("ascii").split(":")
    ]


@pytest.mark.parametrize(
    ("client_id", "secret", "encoded"),
    [
        pytest.param("id", "secret", "id:secret", id="plain"),
        pytest.param("a:b", "c:d", "a%3Ab:c%3Ad", id="colon"),
        pytest.param("a%3Ab", "100%", "a%253Ab:100%25", id="percent"),
        pytest.param("a b", "c+d", "a+b:c%2Bd", id="space-and-plus"),
        pytest.param("é", "p\u00e4ss\U0001f511", "%C3%A9:p%C3%A4ss%F0%9F%94%91", id="non-ascii"),
        pytest.param("a/b", "c=&d", "a%2Fb:c%3D%26d", id="slash-and-ampersand"),
    ],
)
def test_basic_credentials_are_form_encoded_first(client_id: str, secret: str, encoded: str) -> None:
    """Id and secret are form-encoded before they are joined (RFC 6749 section 2.3.1)."""
    header = oauth.basic_credentials(client_id, Secret(secret))
    assert header == "Basic " + base64.b64encode(encoded.encode()).decode()


@given(TEXTS, TEXTS)
def test_basic_credentials_can_be_read_back(client_id: str, secret: str) -> None:
    """No id or secret, whatever it is made of, can shift the colon between them."""
    assert decoded_credentials(oauth.basic_credentials(client_id, Secret(secret))) == [client_id, secret]


# --- successful answers (RFC 6749 section 5.1)


def test_a_whole_answer() -> None:
    """Access token, refresh token and lifetime; unknown members are passed over."""
    read = pair(access_token="a.b-c_d~e+f/g=", refresh_token="r", expires_in=900, scope="x", more={"y": [1]})
    assert read == TokenPair(Secret("a.b-c_d~e+f/g="), Secret("r"), 900.0)


EXPIRES_IN = {
    "integer": (900, 900.0),
    "float": (899.5, 899.5),
    "number-as-string": ("900", 900.0),
    "one-second": (1, 1.0),
    "missing": (..., None),
    "null": (None, None),
    "zero": (0, None),
    "negative": (-1, None),
    "absurdly-long": (10**9, None),
    "huge": (10**30, None),
    "text": ("soon", None),
    "empty-text": ("", None),
    "nan-as-text": ("nan", None),
    "infinity-as-text": ("inf", None),
    "true": (True, None),
    "list": ([900], None),
    "object": ({"s": 900}, None),
}


@pytest.mark.parametrize(("sent", "lifetime"), EXPIRES_IN.values(), ids=EXPIRES_IN)
def test_expires_in(sent: object, lifetime: float | None) -> None:
    """A sensible lifetime is taken, as number or text; any other is as good as none, and no fault."""
    read = pair() if sent is ... else pair(expires_in=sent)
    assert read.expires_in_s == lifetime


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'\xef\xbb\xbf{"access_token":"at","refresh_token":"rt"}', id="byte-order-mark"),
        pytest.param(b'{"access_token":"at","refresh_token":"rt","note":"caf\xe9"}', id="another-encoding"),
        pytest.param(b'{"access_token":"at","refresh_token":"rt","expires_in":1e400}', id="number-too-large"),
        pytest.param(b'{"access_token":"at","refresh_token":"rt","x":%b}' % (b"9" * 5000), id="many-digits"),
        pytest.param(b'{"access_token":"at","refresh_token":"rt","x":NaN}', id="no-number"),
        pytest.param(b'{"access_token":"at","refresh_token":"rt","x":"\\ud800"}', id="half-a-letter"),
    ],
)
def test_no_pair_is_lost_for_what_else_an_answer_holds(body: bytes) -> None:
    """Pleo has ended the old pair, so that a new one is taken wherever it can be read at all."""
    answer = oauth.read_token_answer(200, body)
    assert isinstance(answer, TokenPair)
    assert (answer.access, answer.refresh, answer.expires_in_s) == (Secret("at"), Secret("rt"), None)


@pytest.mark.parametrize(
    "refresh",
    [None, "", 17, ["r"], "with space", "ümlaut", "new\nline"],
    ids=["null", "empty", "number", "list", "space", "non-ascii", "newline"],
)
def test_an_unusable_refresh_token_is_none(refresh: object) -> None:
    """Without a refresh token of visible ASCII the answer has none, and the old one stays in use."""
    assert pair(refresh_token=refresh).refresh is None
    assert pair().refresh is None


UNUSABLE = {
    "no-access-token": body(token_type="bearer", refresh_token="r"),
    "null-access-token": body(access_token=None),
    "empty-access-token": body(access_token=""),
    "number-as-access-token": body(access_token=12),
    "list-as-access-token": body(access_token=["a"]),
    "space-in-access-token": body(access_token="a b"),
    "header-injection": body(access_token="a\r\nX-Evil: 1"),
    "trailing-newline": body(access_token="a\n"),
    "non-ascii-access-token": body(access_token="ä"),
    "nul-in-access-token": body(access_token="a\0"),
    "delete-in-access-token": body(access_token="a\x7f"),
    "lone-surrogate": b'{"access_token": "\\ud800"}',
    "html": b"<html>access_token</html>",
    "empty": b"",
    "json-text": b'"access_token"',
    "json-list": b'[{"access_token": "a"}]',
    "json-null": b"null",
    "form-encoded": b"access_token=a&expires_in=900",
    "cut-off": b'{"access_token": "a"',
    "not-utf-8": b'{"access_token": "\xff"}',
    "too-deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "error-with-200": body(error="invalid_grant"),
}


@pytest.mark.parametrize("answer", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_success(answer: bytes) -> None:
    """A 200 without a token that could be sent in a header is an unknown outcome, never a refusal."""
    assert failure(200, answer) == TokenFailure(Outcome.UNKNOWN, "unusable_answer")


# --- error answers (RFC 6749 section 5.2)

ERRORS = {
    "invalid_grant": Outcome.REFUSED,
    "invalid_token": Outcome.REFUSED,
    "invalid_refresh_token": Outcome.REFUSED,
    "invalid_client": Outcome.CLIENT_REJECTED,
    "unauthorized_client": Outcome.CLIENT_REJECTED,
    "invalid_request": Outcome.CLIENT_REJECTED,
    "invalid_scope": Outcome.CLIENT_REJECTED,
    "unsupported_grant_type": Outcome.CLIENT_REJECTED,
    "server_error": Outcome.UNAVAILABLE,
    "temporarily_unavailable": Outcome.UNAVAILABLE,
    "slow_down": Outcome.UNAVAILABLE,
}


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(("error", "outcome"), ERRORS.items(), ids=ERRORS)
def test_errors_by_their_code(status: int, error: str, outcome: Outcome) -> None:
    """The ``error`` field decides, whatever the status among the client errors."""
    assert failure(status, body(error=error, error_description="x")) == TokenFailure(outcome, error)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize(
    "answer", [b"", b"<html>", body(error="invalid_grant")], ids=["empty", "html", "json"]
)
def test_too_many_requests_and_server_faults(status: int, answer: bytes) -> None:
    """429 and 5xx mean that Pleo is unavailable, even beside an error code that would be terminal."""
    assert failure(status, answer) == TokenFailure(Outcome.UNAVAILABLE, f"http_{status}")


NEVER_TERMINAL = {
    "in-the-description": body(error="other", error_description="invalid_grant: token revoked"),
    "in-another-field": body(message="invalid_grant", type="invalid_grant"),
    "in-plain-text": b"invalid_grant",
    "in-html": b"<title>invalid_grant</title>",
    "in-a-list": b'["invalid_grant"]',
    "nested": body(error={"code": "invalid_grant"}),
    "list-as-error": body(error=["invalid_grant"]),
    "number-as-error": body(error=400),
    "null-as-error": body(error=None),
    "upper-case": body(error="INVALID_GRANT"),
    "with-space": body(error="invalid_grant "),
    "longer": body(error="invalid_grant_type"),
    "empty": b"",
    "unknown-code": body(error="consent_required"),
    "access-denied": body(error="access_denied"),
}


@pytest.mark.parametrize("answer", NEVER_TERMINAL.values(), ids=NEVER_TERMINAL)
def test_text_is_never_searched(answer: bytes) -> None:
    """Only the ``error`` field with exactly a known code ends a grant; anything else is unknown."""
    assert failure(400, answer) == TokenFailure(Outcome.UNKNOWN, "http_400_without_known_error")


@pytest.mark.parametrize("status", [201, 204, 301, 302, 304, 404, 418])
def test_other_statuses_bring_no_tokens(status: int) -> None:
    """A token in any answer but a 200 is not used, and no grant is ended by it."""
    answer = failure(status, body(access_token="a", refresh_token="r"))
    assert answer == TokenFailure(Outcome.UNKNOWN, f"http_{status}_without_known_error")


RETRY_AFTER = {
    "seconds": ("120", 120.0),
    "zero": ("0", 0.0),
    "missing": (None, None),
    "date": ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    "negative": ("-1", None),
    "fraction": ("1.5", None),
    "absurd": ("99999999", None),
    "empty": ("", None),
    "infinity": ("inf", None),
}


@pytest.mark.parametrize(("sent", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER)
@pytest.mark.parametrize(
    ("status", "answer"),
    [
        pytest.param(429, b"", id="429"),
        pytest.param(503, b"", id="503"),
        pytest.param(400, body(error="slow_down"), id="slow-down"),
    ],
)
def test_retry_after(status: int, answer: bytes, sent: str | None, seconds: float | None) -> None:
    """Its seconds form is understood wherever Pleo is unavailable; any other form is passed over."""
    assert failure(status, answer, sent).retry_after_s == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
    | st.sampled_from(sorted(ERRORS)),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "access_token", "refresh_token", "expires_in", "x"]), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.integers(100, 599), JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_any_answer_is_read(status: int, answer: bytes) -> None:
    """Whatever comes back, it is read as tokens or as a failure whose text is none of the provider's."""
    read = oauth.read_token_answer(status, answer)
    if isinstance(read, TokenPair):
        assert status == 200
        assert read.access.reveal().isascii()
        return
    assert read.outcome in (Outcome.UNKNOWN, Outcome.UNAVAILABLE, Outcome.REFUSED, Outcome.CLIENT_REJECTED)
    ours = {"unusable_answer", f"http_{status}", f"http_{status}_without_known_error"}
    assert read.error in ours | ERRORS.keys()


def test_tokens_do_not_show_in_what_was_read() -> None:
    """The repr of a pair holds none of its tokens."""
    assert "planted" not in repr(pair(access_token="planted-a", refresh_token="planted-r"))


# --- what was granted


CALLBACK_ERRORS = (
    "access_denied",
    "invalid_request",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_response_type",
)


def introspected(**data: Any) -> GrantedAccess | None:
    """What an introspection answer with ``data`` is read as."""
    return oauth.read_granted_access(body(data=data))


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        pytest.param("companies:read  users:read", ("companies:read", "users:read"), id="text"),
        pytest.param(["companies:read", "users:read"], ("companies:read", "users:read"), id="list"),
        pytest.param("", (), id="empty"),
        pytest.param(None, (), id="null"),
        pytest.param({"a": 1}, (), id="object"),
    ],
)
def test_granted_access(scope: object, scopes: tuple[str, ...]) -> None:
    """Company and scopes, the scopes as text or as a list."""
    read = introspected(scope=scope, subjectURN=f"urn:pleo:company:{COMPANY.upper()}", more=1)
    assert read == GrantedAccess(COMPANY, scopes)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(body(data=None), id="null-data"),
        pytest.param(body(data=[{"subjectURN": f"urn:pleo:company:{COMPANY}"}]), id="list-as-data"),
        pytest.param(body(subjectURN=f"urn:pleo:company:{COMPANY}"), id="not-in-data"),
        pytest.param(body(data={"scope": "x"}), id="no-subject"),
        pytest.param(body(data={"subjectURN": None}), id="null-subject"),
        pytest.param(body(data={"subjectURN": f"urn:pleo:employee:{COMPANY}"}), id="subject-of-another-kind"),
        pytest.param(body(data={"subjectURN": f"urn:pleo:company:{COMPANY}x"}), id="longer-id"),
        pytest.param(body(data={"subjectURN": "urn:pleo:company:"}), id="no-id"),
        pytest.param(body(data={"subjectURN": f"urn:pleo:company:urn:pleo:company:{COMPANY}"}), id="twice"),
    ],
)
def test_no_company_is_ever_guessed(answer: bytes) -> None:
    """An answer that does not name a company in the documented place grants nothing."""
    assert oauth.read_granted_access(answer) is None


@given(st.uuids())
def test_company_ids_in_any_spelling(company: object) -> None:
    """A UUID is one in either letter case and with white space around it, and comes out in lower case."""
    assert oauth.company_id(f" {str(company).upper()}\n") == str(company)


@pytest.mark.parametrize(
    "text", ["", "x", COMPANY[:-1], COMPANY + "0", COMPANY.replace("-", ""), f"{{{COMPANY}}}"]
)
def test_what_is_no_company_id(text: str) -> None:
    """Any other form of a UUID, or none, is no company's id."""
    assert oauth.company_id(text) is None


@pytest.mark.parametrize("error", CALLBACK_ERRORS)
def test_known_callback_errors(error: str) -> None:
    """The seven codes of RFC 6749 section 4.1.2.1 are passed on."""
    assert oauth.known_callback_error(error) == error


@pytest.mark.parametrize("error", ["", "ACCESS_DENIED", "<script>", "access_denied ", "invalid_grant"])
def test_foreign_callback_errors(error: str) -> None:
    """Any other text of a callback is only "other"."""
    assert oauth.known_callback_error(error) == "other"


def test_scope_is_separated_by_spaces() -> None:
    """Scopes are one parameter (RFC 6749 section 3.3)."""
    assert parse_qs(authorization_query())["scope"] == ["companies:read users:read"]
