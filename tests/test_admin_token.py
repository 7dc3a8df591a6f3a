"""The tokens of the operator's listener: generated once, kept as hashes, told apart by role."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from proxy import wiring
from proxy.admin.token import AdminTokens, digest_of, generated
from proxy.config import Settings
from proxy.errors import ConfigurationError, OperatorError
from proxy.model import Role, Secret

FILE = "admin-token.sha256"
CONFIG = {"pleo": {"client_id": "a", "client_secret": "b"}}


def test_a_generated_token_is_kept_as_its_hash_alone(tmp_path: Path) -> None:
    """256 random bits, shown once; the file is its owner's, and the next start finds the same hash."""
    state = tmp_path / "new" / "state"
    before = os.umask(0)
    try:
        digest, token = generated(state)
    finally:
        os.umask(before)
    assert token is not None
    assert len(token.reveal()) == 43
    assert digest == hashlib.sha256(token.reveal().encode()).hexdigest()
    assert (state / FILE).read_text() == f"{digest}\n"
    assert stat.S_IMODE((state / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert generated(state) == (digest, None)
    assert [path.name for path in state.iterdir()] == [FILE]


def test_no_two_tokens_are_alike(tmp_path: Path) -> None:
    """Each installation has its own."""
    assert len({generated(tmp_path / str(number))[0] for number in range(50)}) == 50


def test_a_removed_hash_makes_a_new_token(tmp_path: Path) -> None:
    """Who lost the token gets another one, and the lost one is worth nothing."""
    lost, _ = generated(tmp_path)
    (tmp_path / FILE).unlink()
    digest, token = generated(tmp_path)
    assert token is not None
    assert digest != lost


@pytest.mark.parametrize("content", [b"", b"\n", b"0" * 63, b"0" * 65, b"Z" * 64, b"\xff" * 64])
def test_a_damaged_hash_is_named_with_its_remedy(tmp_path: Path, content: bytes) -> None:
    """A file that holds no hash lets nobody in, and is not silently made anew."""
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(OperatorError, match=r"admin-token\.sha256: (damaged|not text); ") as caught:
        generated(tmp_path)
    assert str(caught.value).count("\n") == 0
    assert (tmp_path / FILE).read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The line says what to set instead."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OperatorError, match=r"set store\.state_dir to a directory of the proxy's user, or admin\.token"
    ):
        generated(tmp_path / "file")


def test_a_token_gives_its_role_and_no_other() -> None:
    """Whatever else is shown gives none; before any is set, none is right."""
    tokens = AdminTokens()
    assert tokens.role_of(Secret("")) is None
    tokens.take(Role.OPERATOR, digest_of(Secret("one")))
    tokens.take(Role.VIEWER, digest_of(Secret("two")))
    assert tokens.role_of(Secret("one")) is Role.OPERATOR
    assert tokens.role_of(Secret("two")) is Role.VIEWER
    for wrong in ("", "One", "one ", "onetwo", "\udcff", digest_of(Secret("one"))):
        assert tokens.role_of(Secret(wrong)) is None


def test_both_roles_with_one_token_are_a_mistake() -> None:
    """Nobody takes a token for the harmless one that is not."""
    admin = {"token": "the-same-token", "viewer_token": "the-same-token"}
    settings = Settings.model_validate({**CONFIG, "admin": admin})
    with pytest.raises(ConfigurationError, match=r"viewer_token: must differ from admin\.token") as caught:
        wiring.admin_tokens(settings, {})
    assert "the-same-token" not in str(caught.value)


def test_tokens_come_from_where_the_settings_say() -> None:
    """Both may be references; what is absent gives no role."""
    admin = {"token": {"env": "A"}, "viewer_token": {"env": "B"}}
    settings = Settings.model_validate({**CONFIG, "admin": admin})
    tokens = wiring.admin_tokens(settings, {"A": "one", "B": "two"})
    assert [tokens.role_of(Secret(text)) for text in ("one", "two")] == [Role.OPERATOR, Role.VIEWER]
    none = wiring.admin_tokens(Settings.model_validate(CONFIG), {})
    assert none.digest(Role.OPERATOR) is none.digest(Role.VIEWER) is None
