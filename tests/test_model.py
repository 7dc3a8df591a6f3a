"""The nouns: above all that a secret never shows itself, whatever is done to what holds it."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass
from typing import Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import (
    Grant,
    GrantState,
    Origin,
    Outcome,
    Secret,
    Tenant,
)

PLANTED = "planted-0secret"


@dataclass(frozen=True)
class Holder:
    """Anything that holds a secret."""

    name: str
    secret: Secret


def _fail_with(secret: Secret) -> None:
    raise ValueError(secret)


def _traceback_with_locals(secret: Secret) -> str:
    try:
        _fail_with(secret)
    except ValueError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return ""


SHOWINGS: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "format": lambda secret: format(secret, ">40"),
    "f-string": lambda secret: f"{secret} {secret!r} {secret!s} {secret:s}",
    "percent-s": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - the old way has to hold too
    "str-format": "{0} {0!r} {0:20}".format,
    "list": lambda secret: str([secret]),
    "dict-value": lambda secret: str({"token": secret}),
    "dict-key": lambda secret: str({secret: 1}),
    "dataclass": lambda secret: repr(Holder("x", secret)),
    "pprint": lambda secret: pprint.pformat({"holder": Holder("x", secret)}),
    "exception": lambda secret: f"{ValueError(secret)} {ValueError(secret)!r}",
    "traceback-with-locals": _traceback_with_locals,
    "json-default-str": lambda secret: json.dumps({"token": secret}, default=str),
    "json-default-repr": lambda secret: json.dumps([Holder("x", secret)], default=repr),
    "orjson-default-str": lambda secret: orjson.dumps({"token": secret}, default=str).decode(),
}


@pytest.mark.parametrize("show", SHOWINGS.values(), ids=SHOWINGS)
def test_a_secret_never_shows_itself(show: Callable[[Secret], str]) -> None:
    """No way to turn a secret into text gives any part of it, nor its length."""
    shown = show(Secret(PLANTED))
    assert "planted" not in shown
    assert "0secret" not in shown
    assert "Secret(***)" in shown
    assert shown.replace(" ", "") == show(Secret("x")).replace(" ", "")


def test_a_secret_never_shows_itself_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """A logged secret, as argument, message or within an exception, is a fixed text."""
    secret = Secret(PLANTED)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").info("token %s of %r", secret, Holder("x", secret))
        logging.getLogger("test").info(secret)
        try:
            _fail_with(secret)
        except ValueError:
            logging.getLogger("test").exception("failed")
    assert caplog.text.count("Secret(***)") >= 4
    assert "planted" not in caplog.text


def _pickled_by(protocol: int) -> Callable[[Secret], object]:
    return lambda secret: pickle.dumps(Holder("x", secret), protocol)


LEAVINGS: dict[str, Callable[[Secret], object]] = {
    **{f"pickle-{n}": _pickled_by(n) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "asdict": lambda secret: asdict(Holder("x", secret)),
    "json": json.dumps,
    "orjson": orjson.dumps,
    "orjson-dataclass": lambda secret: orjson.dumps(Holder("x", secret)),
}


@pytest.mark.parametrize("leave", LEAVINGS.values(), ids=LEAVINGS)
def test_a_secret_is_never_serialised(leave: Callable[[Secret], object]) -> None:
    """What would write a secret somewhere else is refused, and the refusal does not show it."""
    with pytest.raises(TypeError) as caught:
        leave(Secret(PLANTED))
    assert "planted" not in str(caught.value)


def test_a_secret_has_no_attributes_to_look_through() -> None:
    """There is no ``__dict__`` by which a debugger or a serialiser would find the value."""
    assert not hasattr(Secret(PLANTED), "__dict__")


@given(st.text(), st.text())
def test_secrets_are_equal_if_their_values_are(one: str, other: str) -> None:
    """Equality and hash follow the value, non-ASCII text included."""
    assert Secret(one) == Secret(one)
    assert hash(Secret(one)) == hash(Secret(one))
    assert (Secret(one) == Secret(other)) is (one == other)
    assert (Secret(one) != Secret(other)) is (one != other)
    assert Secret(one).reveal() == one
    assert bool(Secret(one)) is bool(one)


def test_a_secret_equals_no_plain_text() -> None:
    """A secret is not equal to its own value, nor does it hash like it."""
    assert Secret(PLANTED) != PLANTED
    assert hash(Secret(PLANTED)) != hash(PLANTED)
    assert PLANTED not in {Secret(PLANTED), Secret("other")}


@pytest.mark.parametrize(
    ("scheme", "host", "port", "authority"),
    [
        pytest.param("https", "external.pleo.io", 443, "external.pleo.io", id="default-port-of-https"),
        pytest.param("http", "external.pleo.io", 80, "external.pleo.io", id="default-port-of-http"),
        pytest.param("https", "external.pleo.io", 80, "external.pleo.io:80", id="https-on-80"),
        pytest.param("http", "127.0.0.1", 443, "127.0.0.1:443", id="http-on-443"),
        pytest.param("https", "::1", 443, "[::1]", id="ipv6-default-port"),
        pytest.param("http", "::1", 8080, "[::1]:8080", id="ipv6-with-port"),
    ],
)
def test_authority_of_an_origin(
    scheme: Literal["http", "https"], host: str, port: int, authority: str
) -> None:
    """``Host`` names the port only where it is not the scheme's default, and puts IPv6 in brackets."""
    origin = Origin(scheme, host, port)
    assert origin.authority == authority
    assert str(origin) == f"{scheme}://{authority}"


def test_the_nouns_are_frozen() -> None:
    """A tenant or grant that is in use cannot be changed under the one who uses it."""
    with pytest.raises(FrozenInstanceError):
        Tenant("acme").enabled = False  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Grant("acme", GrantState.CONNECTED, 1).generation = 2  # type: ignore[misc]


def test_grant_states_and_outcomes_are_the_documented_words() -> None:
    """Listings, metrics and logs show exactly these words."""
    states = {"none", "connected", "refreshing", "unverified", "needs_reauth", "revoked"}
    assert {state.value for state in GrantState} == states
    outcomes = {"granted", "refused", "client_rejected", "not_sent", "unavailable", "unknown"}
    assert {outcome.value for outcome in Outcome} == outcomes
