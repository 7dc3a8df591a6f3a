"""The bill of materials: what ``requirements.lock`` installs, as CycloneDX; the same lock, the same file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from supply.locks import ROOT, RUN

FILE = ROOT / "build" / "sbom.cdx.json"


def write(output: Path) -> None:
    """Write it, validated against CycloneDX's own schema.

    :raises subprocess.CalledProcessError: the tool failed, and has said why.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    # It warns that a lock file does not say which package needs which.
    tool = [sys.executable, "-W", "ignore::UserWarning", "-m", "cyclonedx_py", "requirements", str(RUN)]
    about = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--validate"]
    subprocess.run([*tool, *about, "--output-format", "JSON", "--output-file", str(output)], check=True)  # noqa: S603 - a fixed program
