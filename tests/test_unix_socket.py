"""The file of a Unix socket: its mode, who may take it over, and when it is removed."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from proxy.unix_socket import listening


def connects(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_file_is_there_with_its_mode_while_it_listens(tmp_path: Path, mode: int) -> None:
    """Whatever the umask, the file has the mode and the group that were asked for, and then it is gone."""
    path = tmp_path / "x.sock"
    before = os.umask(0o077)
    try:
        with listening(path, mode=mode, gid=os.getgid()):
            found = path.stat()
            assert (stat.S_IMODE(found.st_mode), found.st_gid) == (mode, os.getgid())
            assert connects(path)
    finally:
        os.umask(before)
    assert not path.exists()


def test_nobody_connects_before_the_mode_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that still has the mode that it was made with does not listen yet."""
    path, tried = tmp_path / "x.sock", []
    real = Path.chmod

    def chmod(self: Path, mode: int) -> None:
        tried.append(connects(self))
        real(self, mode)

    monkeypatch.setattr(Path, "chmod", chmod)
    with listening(path, mode=0o600, gid=None):
        assert tried == [False]


def test_the_file_of_a_dead_program_is_taken_over(tmp_path: Path) -> None:
    """What a killed run has left is no obstacle."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with listening(path, mode=0o600, gid=None):
        assert connects(path)


def test_the_file_of_a_living_program_is_left_alone(tmp_path: Path) -> None:
    """Where somebody listens the start fails, and whoever it is goes on."""
    path = tmp_path / "x.sock"
    with listening(path, mode=0o600, gid=None):
        with pytest.raises(OSError, match="in use") as caught, listening(path, mode=0o600, gid=None):
            pass
        assert caught.value.errno == errno.EADDRINUSE
        assert connects(path)


def test_a_program_with_a_full_queue_is_alive(tmp_path: Path) -> None:
    """That somebody takes nobody in just now does not mean that nobody listens."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(str(path))
        with pytest.raises(OSError, match="in use"), listening(path, mode=0o600, gid=None):
            pass
        for each in waiting:
            each.close()


def test_another_file_is_never_removed(tmp_path: Path) -> None:
    """A file that is no socket, also one that a link leads to, stays as it is."""
    path = tmp_path / "x.sock"
    path.write_text("precious")
    with pytest.raises(FileExistsError), listening(path, mode=0o600, gid=None):
        pass
    assert path.read_text() == "precious"


def test_the_file_of_a_successor_stays(tmp_path: Path) -> None:
    """If another program has put its own socket there meanwhile, the end of this one does not remove it."""
    path = tmp_path / "x.sock"
    with listening(path, mode=0o600, gid=None):
        path.unlink()
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(str(path))
        successor.listen()
    assert connects(path)
    successor.close()


def test_a_group_that_cannot_be_given_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails half-way leaves nothing behind."""
    path = tmp_path / "x.sock"

    def chown(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(os, "chown", chown)
    with pytest.raises(PermissionError), listening(path, mode=0o600, gid=0):
        pass
    assert not path.exists()
