"""The C library's habits with memory are changed where it lets us, and nowhere else."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from proxy.cli.allocation import keep_large_blocks


class Library:
    """A C library whose mallopt is recorded."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.calls.append((parameter, value))
        return 1


def test_large_blocks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at once is not mapped from the kernel each time, and little that is free is kept."""
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert keep_large_blocks()
    values = dict(library.calls)
    assert values.keys() == {-3, -1}
    assert values[-3] > 256 * 1024
    assert values[-1] <= 16 * 1024 * 1024


@pytest.mark.parametrize("library", [object(), None], ids=["without-mallopt", "no-library"])
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    """Where there is no such switch, the proxy serves as it is."""

    def load(_: object) -> object:
        if library is None:
            raise OSError("no such library")
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert not keep_large_blocks()


def test_glibc_takes_the_values() -> None:
    """The real library has the switch and accepts them."""
    assert keep_large_blocks() is (platform.libc_ver()[0] == "glibc")


def test_what_was_made_at_the_start_is_not_collected() -> None:
    """Objects of the start are set aside, and what comes later is collected less often than by default."""
    program = (
        "import gc; from proxy.cli.allocation import spare_the_collector; before = gc.get_threshold()[0]; "
        "spare_the_collector(); assert gc.get_freeze_count() > 10_000; assert gc.get_threshold()[0] > before"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
