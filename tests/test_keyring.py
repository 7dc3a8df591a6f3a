"""The key file: generated once, refused if others could read it, never replaced beside a sealed store."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from proxy import keyring
from proxy.config import EnvRef, FileRef
from proxy.errors import ConfigurationError, KeyRingError
from proxy.model import Secret
from proxy.vault import Vault, new_key_line


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the key file is to be."""
    return tmp_path / "state" / "keys"


def test_the_first_start_generates_a_file_for_its_owner_only(path: Path) -> None:
    """A missing file is made, with one usable key, readable by nobody else, its directory closed too."""
    text = keyring.read_or_generate(FileRef(path), {}, store_is_sealed=False)
    assert Vault(text).key_ids == (keyring.FIRST_KEY_ID,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == text.reveal()
    assert path.read_text().endswith("\n")


def test_the_second_start_reads_what_the_first_made(path: Path) -> None:
    """A file that exists is read as it is, whether the store is sealed or not."""
    first = keyring.read_or_generate(FileRef(path), {}, store_is_sealed=False)
    assert keyring.read_or_generate(FileRef(path), {}, store_is_sealed=True) == first
    assert keyring.read_or_generate(FileRef(path), {}, store_is_sealed=False) == first


def test_no_key_is_generated_beside_a_sealed_store(path: Path) -> None:
    """A missing file is a fault once the store was sealed with it, and nothing is written."""
    with pytest.raises(KeyRingError, match="is missing, and the store was sealed with it"):
        keyring.read_or_generate(FileRef(path), {}, store_is_sealed=True)
    assert not path.parent.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o444, 0o777], ids=oct)
def test_a_file_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    """Any right of group or others is refused, with the command that puts it right."""
    keyring.generate(path, "k1")
    path.chmod(mode)
    with pytest.raises(KeyRingError, match=f"chmod 600 {path}") as caught:
        keyring.read(path)
    assert f"mode {mode:04o}" in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400], ids=oct)
def test_a_file_for_its_owner_only_is_read(path: Path, mode: int) -> None:
    """Read-only for the owner is good enough."""
    keyring.generate(path, "k1")
    path.chmod(mode)
    assert Vault(keyring.read(path)).key_ids == ("k1",)


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    """Generating onto a file, even an empty one, changes nothing."""
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(KeyRingError, match="exists already; nothing was changed"):
        keyring.generate(path, "k1")
    assert path.read_text() == "mine"


def test_a_dangling_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """A link that someone has put in the file's place does not lead the key elsewhere."""
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyRingError):
        keyring.read_or_generate(FileRef(path), {}, store_is_sealed=False)
    assert not (tmp_path / "elsewhere").exists()


def test_what_cannot_be_read_is_told_in_one_line(path: Path) -> None:
    """A missing file, a directory, and bytes that are no text are each told with the path."""
    with pytest.raises(KeyRingError, match=f"{path} does not exist; restore it"):
        keyring.read(path)
    path.mkdir(parents=True, mode=0o700)
    with pytest.raises(KeyRingError, match=f"{path}: Is a directory"):
        keyring.read(path)
    binary = path / "binary"
    binary.touch(mode=0o600)
    binary.write_bytes(b"k1:\xff")
    with pytest.raises(KeyRingError, match="is not text"):
        keyring.read(binary)


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "new"])
def test_a_path_that_cannot_be_reached_is_told(tmp_path: Path, *, sealed: bool) -> None:
    """A path that the system refuses to look up is the operator's fault, not a crash, nor a first start."""
    unreachable = tmp_path / ("x" * 300)
    with pytest.raises(KeyRingError, match="File name too long"):
        keyring.read_or_generate(FileRef(unreachable), {}, store_is_sealed=sealed)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Where the file cannot be written, the text says so and what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(KeyRingError, match="choose a directory that can be written"):
        keyring.generate(tmp_path / "file" / "keys", "k1")


def test_a_bad_key_id_writes_nothing(path: Path) -> None:
    """The id is judged before anything is made."""
    with pytest.raises(KeyRingError):
        keyring.generate(path, "K 1")
    assert not path.parent.exists()


def test_a_ring_from_the_environment_is_resolved_and_never_generated() -> None:
    """A variable is read; a missing one is a mistake in the configuration, at a first start too."""
    line = new_key_line("k7")
    text = keyring.read_or_generate(EnvRef("KEYS"), {"KEYS": line}, store_is_sealed=False)
    assert text == Secret(line)
    with pytest.raises(ConfigurationError, match=r"vault\.keys"):
        keyring.read_or_generate(EnvRef("KEYS"), {}, store_is_sealed=False)


def test_no_refusal_shows_a_key(path: Path) -> None:
    """The text of a refused file is in no message."""
    keyring.generate(path, "k1")
    key = path.read_text().strip().partition(":")[2]
    path.chmod(0o644)
    with pytest.raises(KeyRingError) as caught:
        keyring.read(path)
    assert key not in str(caught.value)
