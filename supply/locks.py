"""A lock file as values: which packages, in which versions, with which hashes. Reads the file, no more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUN = ROOT / "requirements.lock"
"""What the program needs to run."""
EXTRAS = ROOT / "requirements-extras.lock"
"""The same with all extras."""
DEVELOP = ROOT / "requirements-dev.lock"

_ENTRY = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)(?:\s*;[^\\]*)?")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pinned:
    """One package of a lock file."""

    name: str
    """As PEP 503 normalises it."""
    version: str
    hashes: frozenset[str]
    """SHA-256 of each file that may be installed for it, in hex."""


def read(path: Path) -> dict[str, Pinned]:
    """The packages of a lock file by name.

    :raises ValueError: a line is neither a package with a version and hashes, nor a comment.
    """
    text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE)
    entries = [pinned(entry) for line in text.replace("\\\n", " ").splitlines() if (entry := line.strip())]
    found = {entry.name: entry for entry in entries}
    if len(found) != len(entries):
        raise ValueError(f"{path.name}: a package is named twice")
    return found


def pinned(entry: str) -> Pinned:
    """One entry, its lines joined.

    :raises ValueError: it is anything but a package with one version and hashes.
    """
    requirement, *options = re.split(r"\s+(?=--)", entry)
    matched = _ENTRY.fullmatch(requirement)
    hashes = [_HASH.fullmatch(option) for option in options]
    if matched is None or not hashes or None in hashes:
        raise ValueError(f"not a package with one version and hashes: {entry[:80]!r}")
    return Pinned(
        normal(matched[1]), matched[2], frozenset(found[1] for found in hashes if found is not None)
    )


def normal(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
