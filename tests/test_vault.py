"""Sealing: what was sealed opens in its place with its key, and nowhere else."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy import vault
from proxy.errors import KeyRingError
from proxy.model import Sealed, Secret
from proxy.vault import (
    CHECK_PLACE,
    Place,
    SealedValueError,
    Vault,
    is_same_value,
    key_id_of,
    new_key_line,
)

PLANTED = "planted-0secret"
LINE = f"k1:{base64.urlsafe_b64encode(bytes(range(32))).decode()}"
OTHER_KEY = f"k1:{base64.urlsafe_b64encode(bytes(32)).decode()}"
SECOND = f"k2:{base64.urlsafe_b64encode(bytes(range(32, 64))).decode()}"
HERE = Place("grants", "acme", "refresh", 7)


def ring(*lines: str) -> Vault:
    """A vault with these key lines."""
    return Vault(Secret("\n".join(lines)))


VAULT = ring(LINE, SECOND)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PLACES = st.builds(Place, TEXTS, TEXTS, TEXTS, st.integers(0, 2**63))


@given(TEXTS, PLACES)
def test_what_is_sealed_opens(text: str, place: Place) -> None:
    """Any text opens in its place, and no two sealings of it are alike."""
    sealed = VAULT.seal(Secret(text), place)
    assert VAULT.open(sealed, place) == Secret(text)
    assert VAULT.seal(Secret(text), place) != sealed


def test_a_sealed_value_shows_version_and_key_only() -> None:
    """The value reads v1, the key's id and base64url of nonce, ciphertext and tag."""
    version, key_id, text = VAULT.seal(Secret(PLANTED), HERE).split(".")
    assert (version, key_id) == ("v1", "k1")
    raw = base64.b64decode(text, altchars=b"-_", validate=True)
    assert len(raw) == 12 + len(PLANTED) + 16
    assert PLANTED.encode() not in raw


@given(st.data())
def test_any_changed_character_refuses(data: st.DataObject) -> None:
    """A sealed value of which a character was changed, removed or added does not open."""
    sealed = VAULT.seal(Secret(data.draw(st.text("ab", max_size=9))), HERE)
    at = data.draw(st.integers(0, len(sealed) - 1))
    put = data.draw(st.sampled_from("ABab01-_=.+/!\n \0é") | st.characters(exclude_categories=["Cs"]))
    put = data.draw(st.sampled_from([put, "", sealed[at] + put, put + sealed[at]]))
    changed = sealed[:at] + put + sealed[at + 1 :]
    assume(changed != sealed)
    with pytest.raises(SealedValueError):
        VAULT.open(Sealed(changed), HERE)


@given(st.integers(0, 12 + 9 + 16 - 1), st.integers(1, 255))
def test_any_changed_byte_refuses(at: int, flip: int) -> None:
    """A changed byte of nonce, ciphertext or tag does not open."""
    head, _, text = VAULT.seal(Secret("nine char"), HERE).rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(text))
    raw[at] ^= flip
    with pytest.raises(SealedValueError, match="damaged"):
        VAULT.open(Sealed(f"{head}.{base64.urlsafe_b64encode(raw).decode()}"), HERE)


@pytest.mark.parametrize("kept", range(12 + 1 + 16))
def test_a_shortened_value_refuses(kept: int) -> None:
    """A value cut anywhere, even within its nonce, does not open."""
    head, _, text = VAULT.seal(Secret("x"), HERE).rpartition(".")
    cut = base64.urlsafe_b64encode(base64.urlsafe_b64decode(text)[:kept]).decode()
    with pytest.raises(SealedValueError, match="damaged"):
        VAULT.open(Sealed(f"{head}.{cut}"), HERE)


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param(replace(HERE, table="flows"), id="other-table"),
        pytest.param(replace(HERE, tenant="globex"), id="other-tenant"),
        pytest.param(replace(HERE, column="access"), id="other-column"),
        pytest.param(replace(HERE, generation=8), id="other-generation"),
        pytest.param(Place("grantsacme", "", "refresh", 7), id="parts-moved-left"),
        pytest.param(Place("grant", "sacme", "refresh", 7), id="parts-moved-right"),
        pytest.param(Place("grants", "refresh", "acme", 7), id="parts-exchanged"),
        pytest.param(Place("grants", "acme", "refresh7", 0), id="generation-moved"),
    ],
)
def test_a_moved_value_refuses(elsewhere: Place) -> None:
    """A value copied to another table, tenant, column or generation does not open."""
    sealed = VAULT.seal(Secret(PLANTED), HERE)
    with pytest.raises(SealedValueError, match="moved from another place"):
        VAULT.open(sealed, elsewhere)


@given(PLACES, PLACES, st.sampled_from(["k1", "k2"]), st.sampled_from(["k1", "k2"]))
def test_no_two_places_share_associated_data(one: Place, other: Place, id1: str, id2: str) -> None:
    """The bytes that bind a value differ wherever place or key id differ."""
    same = vault._associated(id1, one) == vault._associated(id2, other)
    assert same is ((id1, one) == (id2, other))


@given(st.tuples(*[st.text("ab", max_size=3)] * 3), st.data())
def test_shifting_text_between_parts_changes_the_place(
    parts: tuple[str, str, str], data: st.DataObject
) -> None:
    """Parts that give the same text when put together still give different associated data."""
    text = "".join(parts)
    first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    moved = (text[:first], text[first:second], text[second:])
    assume(moved != parts)
    assert vault._associated("k", Place(*parts, 1)) != vault._associated("k", Place(*moved, 1))


# --- keys


def test_the_first_key_seals_and_all_open() -> None:
    """After a new key was put first, it seals, and what the old one sealed still opens."""
    before, after = ring(LINE), ring(SECOND, LINE)
    old, new = before.seal(Secret("old"), HERE), after.seal(Secret("new"), HERE)
    assert new.startswith("v1.k2.")
    assert after.open(old, HERE) == Secret("old")
    assert after.open(new, HERE) == Secret("new")
    assert after.key_ids == ("k2", "k1")
    with pytest.raises(SealedValueError, match="sealed with key 'k2', which is not in the key ring"):
        before.open(new, HERE)


def test_a_key_of_the_same_id_does_not_open() -> None:
    """Another key under the same id is told as damage, not mistaken for the right one."""
    with pytest.raises(SealedValueError, match="another key of the same id"):
        ring(OTHER_KEY).open(VAULT.seal(Secret("x"), HERE), HERE)


def test_the_key_id_is_bound() -> None:
    """A value relabelled with another id does not open, even if both ids hold the same key."""
    twin = ring(LINE, LINE.replace("k1", "k9"))
    sealed = twin.seal(Secret("x"), HERE)
    with pytest.raises(SealedValueError):
        twin.open(Sealed(sealed.replace("v1.k1.", "v1.k9.")), HERE)


@pytest.mark.parametrize("sealed", ["", "x", "v2.k1.AAAA", "V1.k1.AAAA", ".k1.AAAA", PLANTED])
def test_an_unknown_version_refuses(sealed: str) -> None:
    """What does not begin with v1 is of a format that is not known, and is not shown."""
    with pytest.raises(SealedValueError, match="format that this version does not know") as caught:
        VAULT.open(Sealed(sealed), HERE)
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize("key_id", ["K1", "", "k 1", "<script>", "k1\n", "x" * 33], ids=repr)
def test_a_foreign_key_id_is_not_shown(key_id: str) -> None:
    """An id that no ring could have is shown as a question mark."""
    with pytest.raises(SealedValueError, match=r"sealed with key '\?'") as caught:
        VAULT.open(Sealed(f"v1.{key_id}.AAAA"), HERE)
    assert caught.value.problem == str(caught.value)


def test_lines_that_hold_no_key_are_passed_over() -> None:
    """Blank lines and comments may stand anywhere, and white space around a line does not matter."""
    text = f"# the ring\n\n  {LINE}  \r\n\t\n  # old\n{SECOND}"
    assert Vault(Secret(text)).key_ids == ("k1", "k2")


def test_standard_base64_is_read_too() -> None:
    """A key made with another tool, in which + and / stand for - and _, is the same key."""
    raw = bytes([0xFB, 0xFF] * 16)
    urlsafe, standard = base64.urlsafe_b64encode(raw).decode(), base64.b64encode(raw).decode()
    assert urlsafe != standard
    sealed = ring(f"k:{standard}").seal(Secret("x"), HERE)
    assert ring(f"k:{urlsafe}").open(sealed, HERE) == Secret("x")


SHORT = base64.urlsafe_b64encode(b"x" * 31).decode()
LONG = base64.urlsafe_b64encode(b"x" * 33).decode()
MALFORMED = {
    "no-key": ("", "holds no key"),
    "only-comments": ("# k1:AAAA\n", "holds no key"),
    "no-colon": (f"{LINE}\nk2", "line 2: not KEYID:BASE64"),
    "no-id": (LINE.removeprefix("k1"), "line 1: not KEYID:BASE64"),
    "upper-case-id": (LINE.upper(), "line 1: not KEYID:BASE64"),
    "dot-in-id": (f"k.1{LINE[2:]}", "line 1: not KEYID:BASE64"),
    "id-too-long": ("k" * 33 + LINE[2:], "line 1: not KEYID:BASE64"),
    "id-twice": (f"\n{LINE}\n{LINE}", "line 3: id 'k1' is used twice"),
    "too-short": (f"k1:{SHORT}", "line 1: the key has 31 bytes instead of 32"),
    "too-long": (f"k1:{LONG}", "line 1: the key has 33 bytes instead of 32"),
    "empty-key": ("k1:", "line 1: the key has 0 bytes"),
    "not-base64": (f"{LINE[:20]}!{LINE[20:]}", "line 1: the key is not base64"),
    "space-in-key": (f"k1: {LINE[3:]}", "line 1: the key is not base64"),
    "padding-missing": (LINE.rstrip("="), "line 1: the key is not base64"),
    "not-ascii": ("k1:ä", "line 1: the key is not base64"),
}


@pytest.mark.parametrize(("text", "told"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_key_rings(text: str, told: str) -> None:
    """A malformed ring is refused with the line's number, and nothing of a key is shown."""
    with pytest.raises(KeyRingError) as caught:
        Vault(Secret(text))
    assert told in str(caught.value)
    assert LINE[5:20] not in str(caught.value)


@pytest.mark.parametrize("key_id", ["k1", "2026-10", "x" * 32])
def test_a_new_key_line_is_a_ring(key_id: str) -> None:
    """A generated line is a ring of one key, and never the same twice."""
    line = new_key_line(key_id)
    assert Vault(Secret(line)).key_ids == (key_id,)
    assert new_key_line(key_id) != line


@pytest.mark.parametrize("key_id", ["", "K1", "-k", "k:1", "k 1", "k1\n", "x" * 33, "é"], ids=repr)
def test_a_bad_key_id_is_refused(key_id: str) -> None:
    """An id that a ring could not hold is refused before a key is made."""
    with pytest.raises(KeyRingError, match="choose another"):
        new_key_line(key_id)


# --- the check value and the chain


def test_the_check_value_tells_the_right_ring() -> None:
    """A store's check value passes with any ring that holds its key, and with no other."""
    check = ring(LINE).seal_check()
    ring(SECOND, LINE).verify_check(check)
    for wrong, told in (
        (ring(SECOND), "sealed with key 'k1'"),
        (ring(OTHER_KEY), "another key of the same id"),
    ):
        with pytest.raises(KeyRingError, match="does not fit this store") as caught:
            wrong.verify_check(check)
        assert told in str(caught.value)


def test_a_token_is_no_check_value() -> None:
    """Only what was sealed for the check's own place passes as a check value."""
    with pytest.raises(KeyRingError):
        VAULT.verify_check(VAULT.seal(Secret("x"), replace(CHECK_PLACE, column="other")))


def test_chain_ids_follow_a_token_without_showing_it() -> None:
    """One token has one short id under one key; another token or key gives another."""
    chain = VAULT.chain_id(Secret(PLANTED))
    assert len(chain) == 12
    assert set(chain) <= set("0123456789abcdef")
    assert VAULT.chain_id(Secret(PLANTED)) == chain == ring(LINE).chain_id(Secret(PLANTED))
    assert VAULT.chain_id(Secret(PLANTED + "x")) != chain
    assert ring(SECOND, LINE).chain_id(Secret(PLANTED)) != chain


def test_a_vault_shows_no_key() -> None:
    """Neither repr nor attributes that are easily printed hold a key's text."""
    assert LINE[5:20] not in f"{VAULT} {VAULT!r} {VAULT.key_ids}"


# --- another key, and hashes with a key


@given(TEXTS, PLACES)
def test_a_value_sealed_anew_is_the_same_value(text: str, place: Place) -> None:
    """It has the first key, opens in its place without the old one, and is told from every other value."""
    old = ring(LINE).seal(Secret(text), place)
    new = ring(SECOND, LINE).reseal(old, place)
    assert (key_id_of(old), key_id_of(new)) == ("k1", "k2")
    assert ring(SECOND).open(new, place) == Secret(text)
    assert is_same_value(old, new)
    assert not is_same_value(new, ring(SECOND).seal(Secret(text), place))
    assert not is_same_value(old, ring(LINE).seal(Secret(text), place))


def test_sealing_anew_is_the_same_each_time() -> None:
    """So a run that is repeated changes nothing; and back with its first key a value is what it was."""
    old = ring(LINE).seal(Secret("x"), HERE)
    new = ring(SECOND, LINE).reseal(old, HERE)
    assert ring(SECOND, LINE).reseal(new, HERE) == new == ring(SECOND, LINE).reseal(old, HERE)
    assert ring(LINE, SECOND).reseal(new, HERE) == old


@pytest.mark.parametrize(
    ("keys", "place", "problem"),
    [
        pytest.param((SECOND,), HERE, "not in the key ring", id="key"),
        pytest.param((SECOND, LINE), replace(HERE, tenant="globex"), "moved", id="place"),
    ],
)
def test_what_does_not_open_is_not_sealed_anew(keys: tuple[str, ...], place: Place, problem: str) -> None:
    """A value of a key that is gone or of another place is refused, and not made to look sound."""
    sealed = ring(LINE).seal(Secret("x"), HERE)
    with pytest.raises(SealedValueError, match=problem):
        ring(*keys).reseal(sealed, place)


def test_no_value_is_the_same_as_none() -> None:
    """A grant without a token is not one with a token; two without are alike."""
    sealed = VAULT.seal(Secret("x"), HERE)
    assert is_same_value(None, None)
    assert not is_same_value(sealed, None)
    assert not is_same_value(None, sealed)


@pytest.mark.parametrize("text", ["", "v2.k1.AAAA", "k1", "v1"])
def test_what_is_no_sealed_value_has_no_key(text: str) -> None:
    """The id of the key is read from values of the known version only."""
    assert key_id_of(Sealed(text)) == ""


def test_a_hash_is_verified_by_who_has_the_key() -> None:
    """Other data, keys and rings are told apart; a key that is no longer the first still verifies."""
    key_id, tag = ring(LINE).authenticate(b"data")
    assert key_id == "k1"
    ring(SECOND, LINE).verify(b"data", key_id, tag)
    for other, data, problem in (
        (ring(LINE), b"Data", "changed"),
        (ring(OTHER_KEY), b"data", "another key of the same id"),
        (ring(SECOND), b"data", "'k1', which is not in the key ring"),
    ):
        with pytest.raises(SealedValueError, match=problem):
            other.verify(data, key_id, tag)
    with pytest.raises(SealedValueError, match=r"key '\?'"):
        VAULT.verify(b"data", "\n", tag)
