"""Caddy: ``reverse_proxy`` with a fixed header and a JSON access log."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.interface import CREDENTIAL, Peer, Site
from benchmarks.processes import output_of, program


def _command(site: Site) -> list[str]:
    config = site.folder / "Caddyfile"
    config.write_text(_config(site))
    return [str(site.program), "run", "--adapter", "caddyfile", "--config", str(config)]


def _config(site: Site) -> str:
    authority = site.upstream.authority
    tls = "" if authority is None else f"tls_trust_pool file {authority}"
    return f"""
{{
  admin off
  persist_config off
  auto_https off
  log {{
    level ERROR
  }}
}}
http://127.0.0.1:{site.port} {{
  log {{
    output file {site.log} {{
      roll_disabled
    }}
    format json
    level INFO
  }}
  reverse_proxy {site.upstream.url} {{
    header_up Authorization "{CREDENTIAL}"
    transport http {{
      keepalive_idle_conns_per_host 512
      compression off
      {tls}
    }}
  }}
}}
"""


def _version(path: Path) -> str:
    return output_of([str(path), "version"]).split()[0].removeprefix("v")


PEER = Peer(
    name="caddy",
    title="Caddy",
    remark="fixed header, JSON access log",
    remedy="make bench installs it (caddyserver)",
    find=lambda: program("caddy"),
    command=_command,
    version=_version,
)
