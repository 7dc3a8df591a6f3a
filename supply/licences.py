"""The licences of all packages that the program runs with, extras included, as a page of the documents."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from supply.locks import EXTRAS, ROOT, RUN, normal, read

PAGE = ROOT / "docs" / "licences.md"

ACCEPTED = {
    # Keep the notice; that is all.
    "MIT", "MIT License", "MIT-0", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD License",
    "Public Domain",
    "PSF-2.0", "Python Software Foundation License",
    # The same, and a licence of patents.
    "Apache-2.0", "Apache Software License", "Apache License, Version 2.0",
    # Changes to its own files would have to be published; they are used unchanged.
    "MPL-2.0", "Mozilla Public License 2.0", "MPL 2.0",
}  # fmt: skip
"""As packages declare them: SPDX names, or those of the classifiers."""

_HEAD = """\
# Licences

What pleo-proxy runs with, and under which licence each package says that it is. `make licences` makes this
page from the lock files, and the tests fail for a licence that is not on the list of `supply/licences.py`.
pleo-proxy itself is under the [MIT licence](../LICENSE).
"""


@dataclass(frozen=True, slots=True, order=True)
class Licensed:
    """A package and its licence as it declares it."""

    name: str
    version: str
    licence: str


def declared(names: Iterable[str]) -> list[Licensed]:
    """What the installed packages of these names declare, sorted; what is not installed is not among them."""
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--with-system", "--format=json"]
    done = subprocess.run([*command, "--packages", *names], capture_output=True, check=True, text=True)  # noqa: S603 - a fixed program
    rows = json.loads(done.stdout)
    return sorted(Licensed(normal(row["Name"]), row["Version"], row["License"]) for row in rows)


def unaccepted(licence: str) -> list[str]:
    """The parts of a licence expression that are not accepted, whichever of them one could choose."""
    parts = [part.strip() for part in re.split(r"\s(?:AND|OR)\s|[;()]", licence)]
    return [part for part in parts if part and part not in ACCEPTED]


def page() -> str:
    """The page, made from the lock files and the packages that are installed.

    :raises ValueError: a package of the lock file is not installed, or in another version.
    """
    locked, running = read(EXTRAS), read(RUN)
    packages = declared(locked)
    if {each.name: each.version for each in packages} != {
        name: each.version for name, each in locked.items()
    }:
        raise ValueError(f"what is installed is not what {EXTRAS.name} says; `make .venv/dev` installs that")
    lines = ["| package | version | licence | comes with |", "|---|---|---|---|"]
    for each in packages:
        comes = "the proxy" if each.name in running else "an extra (`postgres`, `aws`, `otel`)"
        lines.append(f"| {each.name} | {each.version} | {each.licence} | {comes} |")
    return _HEAD + "\n" + "\n".join(lines) + "\n"
