"""Whatever the token endpoint answers, the outcome is a documented one, tokens are taken from every success
that holds them and from nothing else, and no other part of the bytes shows anywhere.

Tokens are looked for by a JSON reader that is not the one of the proxy, and is stricter.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.facts import RefreshFailed
from proxy.model import Outcome
from proxy.oauth import TokenFailure, TokenPair, read_granted_access, read_token_answer

STATUSES = (200, 400, 401, 403, 404, 429, 500, 503, 201, 204, 302, 418)
CODES = {
    *("invalid_grant", "invalid_token", "invalid_refresh_token", "invalid_client", "unauthorized_client"),
    *("invalid_request", "invalid_scope", "unsupported_grant_type"),
    *("server_error", "temporarily_unavailable", "slow_down"),
}
"""Error codes of RFC 6749 section 5.2 and of Pleo, which alone are passed on."""
OWN = re.compile(r"unusable_answer|http_[0-9]{3}(_without_known_error)?")

SEEDS = [
    bytes([number]) + body
    for number in (0, 1, 5)
    for body in (
        b'\x00{"access_token":"a","refresh_token":"r","expires_in":900,"token_type":"Bearer"}',
        b'\x02120{"error":"invalid_grant","error_description":"the token abc was revoked"}',
        b'\x00{"error":{"code":"invalid_client"}}',
        b'\x00{"data":{"scope":"a b","subjectURN":"urn:pleo:company:0a0ac3e0-5b1d-4c1e-9f53-6d1f6f3a7c01"}}',
        b"\x00<html>invalid_grant</html>",
    )
]


def members(body: bytes) -> dict[str, Any] | None:
    """Those of a JSON object; ``None`` where a strict reader finds none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else {}


def is_token(value: object) -> bool:
    """RFC 6749 appendix A.12."""
    return isinstance(value, str) and value != "" and all("!" <= char <= "~" for char in value)


def judge(status: int, body: bytes, retry_after: str | None) -> None:
    """Hold the oracle to one answer."""
    answer = read_token_answer(status, body, retry_after=retry_after)
    found = members(body)
    if isinstance(answer, TokenPair):
        assert status == 200
        judge_pair(answer, body, found)
    else:
        judge_failure(status, answer, found, retry_after)
    access = read_granted_access(body)
    if access is not None:
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", access.company)
        assert found is None or access.company in str(found["data"]["subjectURN"]).lower()


def judge_pair(pair: TokenPair, body: bytes, found: dict[str, Any] | None) -> None:
    tokens = [pair.access.reveal(), *([pair.refresh.reveal()] if pair.refresh else [])]
    assert all(map(is_token, tokens))
    if found is not None:
        given_ = [found.get("access_token"), found.get("refresh_token")]
        assert tokens == [token for token in given_ if is_token(token)]
    else:
        # Not quite JSON; but each token stands in it as it was taken, escapes aside.
        assert b"\\" in body or all(f'"{token}"'.encode() in body for token in tokens)
    assert pair.expires_in_s is None or 0 < pair.expires_in_s < 10**9
    shown = repr(pair) + str(pair)
    assert not [token for token in tokens if len(token) > 12 and token in shown]


def judge_failure(
    status: int, failure: TokenFailure, found: dict[str, Any] | None, retry_after: str | None
) -> None:
    assert isinstance(failure.outcome, Outcome)
    assert failure.outcome is not Outcome.GRANTED
    assert failure.error in CODES or OWN.fullmatch(failure.error), failure
    assert not (status == 200 and found and is_token(found.get("access_token"))), "a pair was thrown away"
    wait_s = failure.retry_after_s
    if wait_s is not None:
        assert math.isfinite(wait_s)
        assert f"{wait_s:.0f}" == (str(retry_after).lstrip("0") or "0")
    if failure.outcome is Outcome.REFUSED:
        # The only outcome that erases tokens: never but for what the server said in so many words.
        assert failure.error in ("invalid_grant", "invalid_token", "invalid_refresh_token")
        assert found is None or found.get("error") == failure.error
        assert status not in (200, 429)
        assert status < 500
    fact = RefreshFailed("acme", 1, "expiring", failure.outcome, failure.error, 1.0, 1.0)
    assert fact.error == failure.error


def check(data: bytes) -> None:
    """The first byte chooses the status, the second how much is Retry-After, the rest is the body."""
    status = STATUSES[data[0] % len(STATUSES)] if data else 200
    size = data[1] % 16 if len(data) > 1 else 0
    retry_after = data[2 : 2 + size].decode("latin-1") if size else None
    judge(status, data[2 + size :], retry_after)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(sorted(CODES)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["access_token", "refresh_token", "expires_in", "error", "error_description", "data"])
OBJECTS = st.dictionaries(NAMES | st.text(max_size=9), VALUES | st.from_regex(r"[!-~]+"), max_size=6)
BODIES = OBJECTS.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)


@settings(max_examples=400)
@given(
    st.sampled_from(STATUSES) | st.integers(100, 599),
    BODIES,
    st.none() | st.text(max_size=9) | st.integers(0, 10**7).map(str),
)
@example(200, b'{"access_token":"a","access_token":"b"}', None)
@example(200, b'{"access_token":"a","expires_in":1e400}', None)
@example(200, b'{"access_token":"a","x":NaN}', None)
@example(200, b'\xef\xbb\xbf{"access_token":"a","x":"\xff","y":"\\ud800"}', None)
@example(200, b'{"access_token":"a","expires_in":' + b"9" * 5000 + b"}", None)
@example(400, b"[" * 100_000, None)
@example(429, b"{}", "\u0661\u0662")
def test_any_answer_is_one_of_the_documented_outcomes(
    status: int, body: bytes, retry_after: str | None
) -> None:
    """Tokens come of a success that holds them, the end of a grant of the words for it only."""
    judge(status, body, retry_after)
