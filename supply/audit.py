"""Known vulnerabilities of the locked packages; where nobody could be asked, that plain word, never "none".

Sends names and versions of the packages to the advisory service, nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from enum import IntEnum
from typing import Any, NamedTuple

from supply.locks import EXTRAS, read

SERVICE = "https://api.osv.dev/v1/query"
"""OSV, where the Python Packaging Advisory Database is published."""
_ANSWER_S = 10
_ALL_S = 120.0
"""For some fifty packages; a service that is slower is as good as none."""


class Exit(IntEnum):
    """How it ended, for whoever called."""

    NONE_KNOWN = 0
    VULNERABLE = 1
    NOT_CHECKED = 2


class Verdict(NamedTuple):
    """What is to be said, and how the program ends."""

    exit: Exit
    lines: list[str]


def audit(service: str = SERVICE, *, within_s: float = _ALL_S) -> Verdict:
    """Ask ``service`` about every package that the program runs with, extras included."""
    tool = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(EXTRAS),
        "--disable-pip",
        "--require-hashes",
    ]
    ask = ["--vulnerability-service", "osv", "--osv-url", service, "--timeout", str(_ANSWER_S)]
    shape = ["--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program
            [*tool, *ask, *shape], capture_output=True, check=False, text=True, timeout=within_s
        )
    except subprocess.TimeoutExpired:
        return _not_checked(service)
    return judge(done.stdout, service)


def judge(report: str, service: str) -> Verdict:
    """What pip-audit's report means; anything that is no whole report means that nothing was checked."""
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return _not_checked(service)
    checked = {package["name"] for package in packages if "vulns" in package}
    found = [
        f"{package['name']} {package['version']}: {hole['id']}"
        f" (mended in {', '.join(hole['fix_versions']) or 'no version yet'})"
        for package in packages
        for hole in package.get("vulns", ())
    ]
    unchecked = sorted(read(EXTRAS).keys() - checked)
    if unchecked:
        found.append(f"not checked: {', '.join(unchecked)}")
        return Verdict(Exit.NOT_CHECKED, found)
    if found:
        return Verdict(Exit.VULNERABLE, found)
    return Verdict(Exit.NONE_KNOWN, [f"{len(checked)} packages checked, no known vulnerability"])


def _not_checked(service: str) -> Verdict:
    return Verdict(
        Exit.NOT_CHECKED, [f"{service} could not be reached or gave no answer: nothing was checked"]
    )
