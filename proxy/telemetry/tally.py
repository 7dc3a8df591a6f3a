"""Named numbers that cost next to nothing to change, and that several processes add up.

A :class:`Tally` is a table of floats, in memory or in a file mapped into memory. With a file, a process that
takes the place of another goes on where it ended, so a sum over all files never falls. Knows nothing of what
is counted.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

Key = tuple[str, ...]
"""Name of a series and the values of its labels."""

_FIRST_CAPACITY = 1024
_FLOAT_BYTES = 8


class Tally:
    """Numbers by key, each changed by one process only.

    :param path: the file for the numbers; their keys are beside it in ``path`` with ``.keys`` added.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._rows: dict[Key, tuple[int, int]] = {}
        """Index of the first number, and how many there are."""
        self._used = 0
        self._map: mmap.mmap | None = None
        self._values: Any = array("d", bytes(_FIRST_CAPACITY * _FLOAT_BYTES))
        """An array, or a view of the mapped file as floats: what they share is all that is used."""
        self._file: int | None = None
        self._keys: int | None = None
        if path is not None:
            self._open(path)

    def index(self, *key: str) -> int:
        """Where the number of ``key`` is; it begins at 0."""
        row = self._rows.get(key)
        return row[0] if row is not None else self.row(1, *key)

    def row(self, width: int, *key: str) -> int:
        """Where the first of the ``width`` numbers of ``key`` is; they stand side by side and begin at 0."""
        known = self._rows.get(key)
        if known is not None:
            return known[0]
        first = self._used
        while first + width > len(self._values):
            self._grow()
        # The key is written first: a number without a key would be counted for nothing.
        if self._keys is not None:
            os.write(self._keys, orjson.dumps((width, *key)) + b"\n")
        self._rows[key] = (first, width)
        self._used = first + width
        return first

    def add(self, index: int, amount: float = 1.0) -> None:
        """Change the number at ``index``."""
        self._values[index] += amount

    def observe(self, place: int, total: int, amount: float) -> None:
        """Count one at ``place``, and add ``amount`` at ``total``; one call, since requests pay for it."""
        values = self._values
        values[place] += 1.0
        values[total] += amount

    def set(self, index: int, value: float) -> None:
        """Put ``value`` in the place of the number at ``index``."""
        self._values[index] = value

    def items(self) -> Iterable[tuple[Key, float]]:
        """All numbers by their keys; those of a row by its key and their place in it."""
        rows = ((width, key) for key, (_, width) in self._rows.items())
        return list(zip(_keys_of(rows), self._values, strict=False))

    def rows_after(self, count: int) -> list[tuple[Key, int]]:
        """Keys and where their first number is, of all rows but the first ``count``, in their order."""
        return [(key, first) for key, (first, _) in islice(self._rows.items(), count, None)]

    def numbers(self) -> Sequence[float]:
        """All numbers as they are now; to be used at once, since rows that come may move them."""
        return self._values  # type: ignore[no-any-return]  # an array or a view, which both are one

    def close(self) -> None:
        """Let go of the file; the numbers stay in it."""
        if self._map is not None:
            self._values.release()
            self._map.close()
        for descriptor in (self._file, self._keys):
            if descriptor is not None:
                os.close(descriptor)
        self._map = self._file = self._keys = None

    def _open(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        keys_path = _keys_path(path)
        for width, key in _read_keys(keys_path):
            self._rows[key] = (self._used, width)
            self._used += width
        self._keys = os.open(keys_path, flags | os.O_APPEND, 0o600)
        capacity = max(_FIRST_CAPACITY, os.fstat(self._file).st_size // _FLOAT_BYTES)
        self._map_file(capacity)

    def _map_file(self, capacity: int) -> None:
        assert self._file is not None
        os.ftruncate(self._file, capacity * _FLOAT_BYTES)
        self._map = mmap.mmap(self._file, capacity * _FLOAT_BYTES)
        self._values = memoryview(self._map).cast("d")

    def _grow(self) -> None:
        capacity = len(self._values) * 2
        if self._map is None:
            self._values.extend([0.0] * (capacity - len(self._values)))
            return
        self._values.release()
        self._map.close()
        self._map_file(capacity)


class Follower:
    """The rows and numbers of another process's tally; what was read of its keys is not read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self._used = 0
        self._rows: list[tuple[Key, int]] = []
        self._numbers = array("d")

    def rows_after(self, count: int) -> list[tuple[Key, int]]:
        """As :meth:`Tally.rows_after`, with all that has come since the last time; reads the files."""
        with suppress(FileNotFoundError), _keys_path(self._path).open("rb") as file:
            file.seek(self._read_bytes)
            whole, end, _ = file.read().rpartition(b"\n")
            self._read_bytes += len(whole) + len(end)
            for line in whole.split(b"\n") if end else []:
                width, *key = orjson.loads(line)
                self._rows.append((tuple(key), self._used))
                self._used += width
            self._numbers = array("d")
            self._numbers.frombytes(self._path.read_bytes()[: self._used * _FLOAT_BYTES])
        return self._rows[count:]

    def numbers(self) -> Sequence[float]:
        """The numbers of all rows, as they were when rows were asked for last."""
        return self._numbers


def read(path: Path) -> list[tuple[Key, float]]:
    """The numbers in a file that another process may be changing."""
    keys = _keys_of(_read_keys(_keys_path(path)))
    try:
        numbers = array("d")
        numbers.frombytes(path.read_bytes()[: len(keys) * _FLOAT_BYTES])
    except FileNotFoundError:
        return []
    return list(zip(keys, numbers, strict=False))


def _keys_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.keys")


def _keys_of(rows: Iterable[tuple[int, Key]]) -> list[Key]:
    """The keys of single numbers, in the order in which these stand."""
    return [key if width == 1 else (*key, str(place)) for width, key in rows for place in range(width)]


def _read_keys(path: Path) -> list[tuple[int, Key]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = [orjson.loads(line) for line in lines[:-1]]  # what has no line end is not all there yet
    return [(width, tuple(key)) for width, *key in rows]
