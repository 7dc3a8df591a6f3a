"""The refresh journal: token pairs that Pleo has issued and the store has not taken yet, in a local file.

A pair is sealed, appended and synced to the disk before the store is asked to keep it (invariant 5), so that
neither a crash nor a store that is away loses it. Replaying is idempotent: the store compares before it takes
a pair. The file is empty whenever nothing is outstanding.

Each record is a line of its CRC-32, its length and a JSON object. A last record that was torn by a crash
fails one of the three and is cut off; it was never relied on.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from proxy.errors import StoreError
from proxy.lifecycle import NewPair
from proxy.model import Sealed

_COMPACT_BYTES = 1 << 20
"""Beyond this size settled records are dropped from the file even while others are outstanding."""

_Result = TypeVar("_Result")


class JournalUnavailable(Exception):  # noqa: N818 - a state of the disk that callers act on
    """A record could not be written; the message is the system's word for why."""


class JournalInUse(StoreError):  # noqa: N818 - as JournalUnavailable
    """Another process has the journal open."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A pair that Pleo issued in place of the pair that a grant had, all of it sealed."""

    tenant: str
    generation: int
    """Of the pair that it replaces."""
    replaced: Sealed
    """The refresh token that was used, as it stands in the store."""
    pair: NewPair


class Journal:
    """One file of one process. Made by :meth:`open`; closed by who opened it."""

    def __init__(self, path: Path, descriptor: int, outstanding: list[Issued]) -> None:
        self.path = path
        self._file = descriptor
        self._outstanding: dict[int, Issued] = dict(enumerate(outstanding))
        self._next = len(outstanding)
        # One thread, so that records are written in the order in which they come.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open or create the journal, and recover what is outstanding; blocks for a moment.

        :raises JournalInUse: another process has it open.
        :raises StoreError: the file cannot be used.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            records, valid = _read(descriptor)
            os.ftruncate(descriptor, valid)
            os.lseek(descriptor, 0, os.SEEK_END)
            _sync_folder(path)
        except BlockingIOError:
            os.close(descriptor)
            raise JournalInUse(
                f"journal {path}: another process uses it: give each instance a store.state_dir of its own"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise _unusable(path, error) from None
        return cls(path, descriptor, records)

    @property
    def outstanding(self) -> dict[int, Issued]:
        """Records by their numbers that nobody has settled, in the order in which they were issued."""
        return dict(self._outstanding)

    async def append(self, issued: Issued) -> int:
        """Record a pair; it is on the disk when this returns its number.

        :raises JournalUnavailable: it is not.
        """
        number, self._next = self._next, self._next + 1
        await self._run(lambda: self._write(number, issued))
        return number

    async def settle(self, number: int) -> None:
        """The store has taken the record, or has no place for it any more. Settling twice is fine.

        Not synced: what is replayed once more changes nothing.
        """
        with suppress(JournalUnavailable):  # then the record is replayed at the next start, to no effect
            await self._run(lambda: self._drop(number))

    async def close(self) -> None:
        """Finish what was begun, and let go of the file."""
        self._thread.shutdown(wait=True)
        os.close(self._file)

    async def _run(self, job: Callable[[], _Result]) -> _Result:
        def guarded() -> _Result:
            try:
                return job()
            except OSError as error:
                raise JournalUnavailable(os.strerror(error.errno or 0)) from None

        # Shielded: whoever is cancelled while it waits must not leave a record half written.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, guarded))

    # What follows runs on the thread, which alone changes the file and what is known of it.

    def _write(self, number: int, issued: Issued) -> None:
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            _write_all(self._file, _record(issued))
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)  # so that the next record does not stand behind half of this one
            raise
        self._outstanding[number] = issued

    def _drop(self, number: int) -> None:
        self._outstanding.pop(number, None)
        remaining = self._outstanding.values()
        if not remaining:
            os.ftruncate(self._file, 0)
        elif os.fstat(self._file).st_size > _COMPACT_BYTES:
            # Over a second file: at every moment one of the two has all that is outstanding.
            beside = self.path.with_name(f"{self.path.name}.new")
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(descriptor, b"".join(map(_record, remaining)))
            os.fsync(descriptor)
            beside.rename(self.path)
            _sync_folder(self.path)
            os.close(self._file)
            self._file = descriptor


def journals_in(state_dir: Path) -> list[Path]:
    """The journals that processes of an instance have left or are using."""
    return sorted(state_dir.glob("journal-*.log"))


def journal_path(state_dir: Path, worker: int | None) -> Path:
    """Where the journal of a worker is; one that serves alone is worker 0."""
    return state_dir / f"journal-{worker or 0}.log"


def _record(issued: Issued) -> bytes:
    body = orjson.dumps(asdict(issued))
    return b"%08x %d %b\n" % (zlib.crc32(body), len(body), body)


def _read(descriptor: int) -> tuple[list[Issued], int]:
    """The whole records at the beginning of the file, and where they end."""
    data = b""
    while piece := os.pread(descriptor, 1 << 20, len(data)):
        data += piece
    records, valid = [], 0
    while (end := data.find(b"\n", valid)) >= 0:
        issued = _parse(data[valid:end])
        if issued is None:
            break
        records.append(issued)
        valid = end + 1
    return records, valid


def _parse(line: bytes) -> Issued | None:
    crc, _, rest = line.partition(b" ")
    length, _, body = rest.partition(b" ")
    if not length.isdigit() or int(length) != len(body) or crc != b"%08x" % zlib.crc32(body):
        return None
    fields = orjson.loads(body)
    return Issued(**(fields | {"pair": NewPair(**fields["pair"])}))


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(path: Path) -> None:
    """A file is found after a crash only if its folder was synced too."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"journal {path}: it cannot be used ({os.strerror(error.errno or 0)}): "
        "let the user of pleo-proxy read and write it, or correct store.state_dir"
    )
