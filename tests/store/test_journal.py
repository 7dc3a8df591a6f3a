"""The refresh journal: what it said it has it has, after a crash at any byte, and nothing twice."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path

import pytest

from proxy.errors import StoreError
from proxy.lifecycle import NewPair
from proxy.model import Sealed
from proxy.store import Issued, Journal, JournalUnavailable, journal_path, journals_in


def issued(number: int) -> Issued:
    """A record that tells its number everywhere."""
    pair = NewPair(
        Sealed(f"v1.k1.access-{number}"), Sealed(f"v1.k1.refresh-{number}"), number, number + 1.5, number + 2
    )
    return Issued(f"tenant-{number}", number, Sealed(f"v1.k1.old-{number}"), pair)


async def reopened(path: Path) -> list[Issued]:
    """What another process finds."""
    journal = Journal.open(path)
    try:
        return list(journal.outstanding.values())
    finally:
        await journal.close()


async def test_what_is_recorded_is_found_again(tmp_path: Path) -> None:
    """Records come back whole and in their order; settled ones do not."""
    path = journal_path(tmp_path, None)
    journal = Journal.open(path)
    numbers = [await journal.append(issued(number)) for number in range(4)]
    await journal.settle(numbers[1])
    await journal.close()
    # Not dropped from the file while others are outstanding; replaying it changes nothing.
    assert await reopened(path) == [issued(number) for number in range(4)]
    assert journals_in(tmp_path) == [path]


async def test_the_file_is_empty_when_nothing_is_outstanding(tmp_path: Path) -> None:
    """No old pair lingers on the disk."""
    path = tmp_path / "journal-0.log"
    journal = Journal.open(path)
    numbers = [await journal.append(issued(number)) for number in range(3)]
    for number in numbers:
        await journal.settle(number)
        await journal.settle(number)
    assert path.stat().st_size == 0
    await journal.close()


async def test_a_record_torn_at_any_byte_is_left_out(tmp_path: Path) -> None:
    """Whatever part of the last record a crash left, the ones before it are found, and the file goes on."""
    path = tmp_path / "journal-0.log"
    journal = Journal.open(path)
    await journal.append(issued(1))
    whole = path.stat().st_size
    await journal.append(issued(2))
    await journal.close()
    data = path.read_bytes()
    for end in range(whole, len(data)):
        path.write_bytes(data[:end])
        assert await reopened(path) == [issued(1)]
        assert path.stat().st_size == whole
    damaged = bytearray(data)
    damaged[-10] ^= 1
    path.write_bytes(damaged)
    again = Journal.open(path)
    await again.append(issued(3))
    await again.close()
    assert await reopened(path) == [issued(1), issued(3)]


async def test_a_record_is_on_the_disk_before_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced after the record was written and before append returns."""
    path = tmp_path / "journal-0.log"
    journal = Journal.open(path)
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(path.stat().st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    await journal.append(issued(1))
    assert synced == [path.stat().st_size]
    await journal.close()


async def test_a_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that does not fit is said not to be there, and the next one stands behind whole ones."""
    path = tmp_path / "journal-0.log"
    journal = Journal.open(path)
    await journal.append(issued(1))
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if len(data) > 20:
            return real(descriptor, data[:20])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(JournalUnavailable, match="No space left"):
            await journal.append(issued(2))
    await journal.append(issued(3))
    await journal.close()
    assert await reopened(path) == [issued(1), issued(3)]


async def test_settling_beside_an_append_loses_nothing(tmp_path: Path) -> None:
    """A file that is emptied just then does not take the record along that is being written."""
    path = tmp_path / "journal-0.log"
    journal = Journal.open(path)
    first = await journal.append(issued(1))
    await asyncio.gather(journal.append(issued(2)), journal.settle(first))
    await journal.close()
    assert issued(2) in await reopened(path)


async def test_a_long_journal_is_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settled records go even while one stays, and that one is found at every moment."""
    monkeypatch.setattr("proxy.store.journal._COMPACT_BYTES", 2000)
    path = tmp_path / "journal-0.log"
    journal = Journal.open(path)
    await journal.append(issued(0))
    for number in range(1, 60):
        await journal.settle(await journal.append(issued(number)))
        assert path.stat().st_size < 3000
    await journal.close()
    assert (await reopened(path))[0] == issued(0)


async def test_a_journal_has_one_user(tmp_path: Path) -> None:
    """Two processes with one state_dir are told so."""
    path = tmp_path / "journal-0.log"
    journal = Journal.open(path)
    with pytest.raises(StoreError, match=r"another process uses it.*store\.state_dir"):
        Journal.open(path)
    await journal.close()


async def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    """The file and a folder made for it are the proxy's user's alone."""
    journal = Journal.open(tmp_path / "state" / "journal-0.log")
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700
    await journal.close()


def test_an_unusable_place_is_named(tmp_path: Path) -> None:
    """One line with the path and the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"journal .*/file/journal-0\.log: it cannot be used .*state_dir"):
        Journal.open(tmp_path / "file" / "journal-0.log")
