"""A sealed value opens in the place and with the very text that it was sealed with, and in no other case.

``check`` takes a program of small changes to the text and to the place, and carries it out on a sealed one.
"""

from __future__ import annotations

import base64
import string
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.model import Sealed, Secret
from proxy.vault import Place, SealedValueError, Vault

SECRET = Secret("pleo_rt_0123456789abcdef")
LINES = [f"k{number}:{base64.b64encode(bytes(range(number, number + 32))).decode()}" for number in (1, 2)]
VAULT = Vault(Secret("\n".join(LINES)))
HERE = Place("grants", "acme", "refresh", 7)
SEALED = VAULT.seal(SECRET, HERE)
LATER, GLOBEX = replace(HERE, generation=8), replace(HERE, tenant="globex")
OTHERS = [
    (VAULT.seal(SECRET, LATER), LATER, SECRET),
    (VAULT.seal(Secret("pleo_rt_of_globex"), GLOBEX), GLOBEX, Secret("pleo_rt_of_globex")),
    (Vault(Secret("\n".join(reversed(LINES)))).seal(SECRET, HERE), HERE, SECRET),
]
"""Sealed by who has the keys, for these places: the only texts beside the first that may open."""
ALPHABET = string.ascii_letters + string.digits + "-_=.+/ \n\0é"

SEEDS = [
    bytes(program) for program in ((), (0, 5, 9), (1, 2, 3), (2, 4, 4), (3, 30, 1), (4, 9, 0), (6, 1, 1))
]


def at_of(text: str, number: int) -> int:
    return number * len(text) // 256


def replaced(text: str, at: int, value: int) -> str:
    return text[:at] + ALPHABET[value % len(ALPHABET)] + text[at + 1 :]


def spliced(text: str, at: int, value: int) -> str:
    """The beginning of this sealed value, and the end of another one."""
    other = OTHERS[value % len(OTHERS)][0]
    return text[:at] + other[at:]


CHANGES = (
    replaced,
    lambda text, at, value: text[:at] + ALPHABET[value % len(ALPHABET)] + text[at:],
    lambda text, at, value: text[:at] + text[at + 1 + value % 8 :],
    lambda text, at, _: text[:at],
    spliced,
    lambda text, at, _: text[:at] + text[at:].swapcase(),
)


def run(program: bytes) -> tuple[str, Place]:
    """The text and the place that a program of three bytes each makes of the sealed value."""
    text, place = str(SEALED), HERE
    for step in range(0, len(program) - 2, 3):
        what, where, value = program[step : step + 3]
        if what % 8 < len(CHANGES):
            text = CHANGES[what % 8](text, at_of(text, where), value)
        elif what % 8 == 6:
            place = replace(place, generation=place.generation + value - 128)
        else:
            part = ("table", "tenant", "column")[where % 3]
            place = replace(place, **{part: getattr(place, part) + ALPHABET[value % len(ALPHABET)]})
    return text, place


def judge(text: str, place: Place) -> None:
    """Hold the oracle to one text and one place."""
    for good, its_place, secret in [(SEALED, HERE, SECRET), *OTHERS]:
        if (text, place) == (good, its_place):
            assert VAULT.open(Sealed(text), place) == secret
            return
    with pytest.raises(SealedValueError) as refused:
        VAULT.open(Sealed(text), place)
    shown = str(refused.value)
    assert SECRET.reveal() not in shown
    assert shown.isprintable()
    assert len(shown) < 120


def check(data: bytes) -> None:
    """The input is a program, or a text of its own."""
    if data[:1] == b"\xff":
        judge(data[1:].decode("utf-8", "surrogateescape"), HERE)
    else:
        judge(*run(data))


@settings(max_examples=400)
@given(st.binary(max_size=18) | st.binary(max_size=40).map(lambda text: b"\xff" + text))
def test_no_change_opens(program: bytes) -> None:
    """Whatever is done to text and place, what opens is what was sealed there."""
    check(program)


@given(st.text(max_size=30), st.sampled_from(["v1.k1.", "v1.k2.", "v1.", "", "v2.k1."]))
def test_no_text_of_a_strangers_opens(text: str, head: str) -> None:
    """Without the key nobody makes a text that opens."""
    assume(head + text not in {SEALED, *(other for other, _, _ in OTHERS)})
    with pytest.raises(SealedValueError):
        VAULT.open(Sealed(head + text), HERE)


def test_the_unchanged_opens() -> None:
    """The empty program changes nothing, so that the oracle can fail."""
    assert run(b"") == (SEALED, HERE)
    assert VAULT.open(SEALED, HERE) == SECRET
