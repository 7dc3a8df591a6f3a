"""Sources of lines, one step at a time: what comes between two looks at a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.cli.following import Source, arrived, wait
from proxy.errors import UsageError


def lines_of(source: Source) -> list[bytes]:
    """What has come by now."""
    return [each.line.raw for each in arrived([source])]


def test_the_last_lines_of_a_rotated_file_come_before_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written between the look at the end of a file and its rotation is not lost."""
    path, read = tmp_path / "log", os.read
    path.write_bytes(b"one\n")
    source = Source(path, "log", follow=True)
    assert lines_of(source) == [b"one"]

    def rotated_meanwhile(descriptor: int, count: int) -> bytes:
        data = read(descriptor, count)
        if not data and not (tmp_path / "old").exists():
            with path.open("ab") as file:
                file.write(b"two\n")
            path.rename(tmp_path / "old")
            path.write_bytes(b"three\n")
        return data

    monkeypatch.setattr(os, "read", rotated_meanwhile)
    assert lines_of(source) + lines_of(source) == [b"two", b"three"]
    source.close()


def test_a_file_between_two_names_is_waited_for(tmp_path: Path) -> None:
    """As long as nothing has the name, or what has it may not be read, the old file is followed on."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    source = Source(path, "log", follow=True)
    path.rename(tmp_path / "old")
    assert lines_of(source) == []
    (tmp_path / "old").write_bytes(b"late\n")
    assert lines_of(source) == [b"late"]
    path.write_bytes(b"new\n")
    assert lines_of(source) == [b"new"]
    source.close()


def test_a_file_that_is_not_followed_ends(tmp_path: Path) -> None:
    """Without following, a file ends where it ends, and a line without an end is one."""
    path = tmp_path / "log"
    path.write_bytes(b"one\n\n \ntwo")
    source = Source(path, "log", follow=False)
    assert (lines_of(source), source.ended, source.waits_on) == ([b"one", b"two"], True, None)
    source.close()


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_old_lines_are_skipped_but_the_last(end: bytes, tmp_path: Path) -> None:
    """A file that is followed begins with its last ten lines, ended or not; a short one with its first."""
    path = tmp_path / "log"
    for count in (3, 10, 11, 30_000):
        path.write_bytes(b"\n".join(b"%d" % number for number in range(count)) + end + b"\n" * (not end))
        source = Source(path, "log", follow=True)
        source.skip_old()
        assert lines_of(source) == [b"%d" % number for number in range(max(0, count - 10), count)]
        source.close()


def test_who_reads_is_asked_for(tmp_path: Path) -> None:
    """Waiting tells whether the reader of the output has gone, and lasts no longer than it may."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    source = Source(path, "log", follow=True)
    reader, writer = os.pipe()
    assert wait([source], writer, 0.0)
    assert wait([source], None, 0.0)
    os.close(reader)
    assert not wait([source], writer, 60.0)
    os.close(writer)
    source.close()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A source that cannot be read is told with what to do."""
    with pytest.raises(UsageError, match="No such file or directory; name a file"):
        Source(tmp_path / "none", "none", follow=True)


def test_a_pipe_has_no_old_lines_to_skip(tmp_path: Path) -> None:
    """With a pipe, following begins with what comes first, and ends with the pipe."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    os.write(end, b"".join(b"%d\n" % number for number in range(12)))
    source = Source(path, "pipe", follow=True)
    source.skip_old()
    assert len(lines_of(source)) == 12
    assert source.waits_on is not None
    os.close(end)
    assert (lines_of(source), source.ended) == ([], True)
    source.close()
