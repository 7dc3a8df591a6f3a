"""mitmproxy in its reverse mode, with a header rule; what many reach for first. Optional."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.interface import CREDENTIAL, Peer, Site
from benchmarks.processes import output_of, program


def _command(site: Site) -> list[str]:
    options = {
        "listen_host": "127.0.0.1",
        "listen_port": str(site.port),
        "confdir": str(site.folder),
        "modify_headers": f"/~q/Authorization/{CREDENTIAL}",
        "connection_strategy": "lazy",
        "http2": "false",
        "flow_detail": "0",
    }
    if site.upstream.authority is not None:
        options["ssl_verify_upstream_trusted_ca"] = str(site.upstream.authority)
    sets = [text for name, value in options.items() for text in ("--set", f"{name}={value}")]
    return [str(site.program), "--quiet", "--mode", f"reverse:{site.upstream.url}", *sets]


def _version(path: Path) -> str:
    return output_of([str(path), "--version"]).split()[1]


PEER = Peer(
    name="mitmproxy",
    title="mitmproxy",
    remark="mitmdump, one header rule",
    remedy="make bench installs it (mitmproxy)",
    find=lambda: program("mitmdump"),
    command=_command,
    version=_version,
)
