"""HAProxy: a fixed header and a JSON access log on standard output."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.interface import CREDENTIAL, Peer, Site
from benchmarks.processes import output_of, program


def _command(site: Site) -> list[str]:
    config = site.folder / "haproxy.cfg"
    config.write_text(_config(site))
    return [str(site.program), "-db", "-f", str(config)]


def _config(site: Site) -> str:
    authority = site.upstream.authority
    tls = "" if authority is None else f" ssl verify required ca-file {authority} verifyhost 127.0.0.1"
    return f"""
global
  nbthread 1
  maxconn 8192
  log stdout format raw local0
defaults
  mode http
  log global
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  http-reuse always
  log-format '{{"timestamp":"%tr","caller":"%ci","method":"%HM","path":"%HPO","status":%ST,"bytes_out":%B,\
"bytes_in":%U,"duration_ms":%Ta,"upstream_ms":%Tr}}'
frontend callers
  bind 127.0.0.1:{site.port} backlog 4096
  http-request set-header Authorization "{CREDENTIAL}"
  default_backend api
backend api
  server api 127.0.0.1:{site.upstream.port} pool-max-conn 512{tls}
"""


def _version(path: Path) -> str:
    return output_of([str(path), "-v"]).split()[2]


PEER = Peer(
    name="haproxy",
    title="HAProxy",
    remark="fixed header, JSON access log",
    remedy="apt-get install haproxy",
    find=lambda: program("haproxy"),
    command=_command,
    version=_version,
)
