"""aiohttp as most people write it: this project's Python and libraries, none of its ideas."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from benchmarks.peers.interface import CREDENTIAL, Peer, Site

_SOURCE = Path(__file__).with_name("naive_server.py")


def _command(site: Site) -> list[str]:
    authority = str(site.upstream.authority or "")
    return [str(site.program), str(_SOURCE), str(site.port), site.upstream.url, authority, CREDENTIAL]


def _version(_path: Path) -> str:
    return metadata.version("aiohttp")


PEER = Peer(
    name="naive",
    title="aiohttp, as most write it",
    remark="web.Application and ClientSession, no log",
    remedy="it is in this project's own environment",
    find=lambda: Path(sys.executable),
    command=_command,
    version=_version,
)
