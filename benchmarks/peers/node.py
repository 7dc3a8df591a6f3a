"""Node: ``http-proxy-3``, the maintained descendant of the usual ``http-proxy``."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.peers.interface import CREDENTIAL, Peer, Site
from benchmarks.processes import STORAGE, output_of, program

MODULES = STORAGE / "node" / "node_modules"
_SOURCE = Path(__file__).with_name("reverse_proxy.cjs")


def _find() -> Path | None:
    return program("node") if (MODULES / "http-proxy-3" / "package.json").is_file() else None


def _command(site: Site) -> list[str]:
    authority = str(site.upstream.authority or "")
    program_and_script = [str(site.program), str(_SOURCE)]
    return [*program_and_script, str(MODULES), str(site.port), site.upstream.url, authority, CREDENTIAL]


def _version(path: Path) -> str:
    package = json.loads((MODULES / "http-proxy-3" / "package.json").read_text())
    return f"{package['version']}, Node {output_of([str(path), '--version']).strip().removeprefix('v')}"


PEER = Peer(
    name="node",
    title="Node http-proxy-3",
    remark="fixed header, no log",
    remedy="apt-get install nodejs npm; make bench installs the rest",
    find=_find,
    command=_command,
    version=_version,
)
