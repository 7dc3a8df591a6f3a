"""nginx: ``proxy_pass`` with a fixed header and a JSON access log."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.interface import CREDENTIAL, Peer, Site
from benchmarks.processes import output_of, program
from benchmarks.upstream import user_directive


def _command(site: Site) -> list[str]:
    config = site.folder / "nginx.conf"
    config.write_text(_config(site))
    return [str(site.program), "-p", str(site.folder), "-e", str(site.folder / "stderr"), "-c", str(config)]


def _config(site: Site) -> str:
    folder = site.folder
    verify = (
        ""
        if site.upstream.authority is None
        else f"""
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate {site.upstream.authority};
      proxy_ssl_name 127.0.0.1;"""
    )
    return f"""
{user_directive()}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  log_format line escape=json '{{"timestamp":"$time_iso8601","request_id":"$request_id",'
    '"caller":"$remote_addr","method":"$request_method","path":"$uri","status":$status,"bytes_in":$request_length,'
    '"bytes_out":$body_bytes_sent,"duration":$request_time,"upstream_status":"$upstream_status",'
    '"upstream":"$upstream_header_time"}}';
  access_log {site.log} line;
  keepalive_timeout 600;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/answers;
  fastcgi_temp_path {folder}/x;
  uwsgi_temp_path {folder}/x;
  scgi_temp_path {folder}/x;
  upstream api {{ server 127.0.0.1:{site.upstream.port}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{site.port} backlog=4096;
    location / {{
      proxy_pass {site.upstream.scheme}://api;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_buffers 16 16k;
      proxy_max_temp_file_size 0;
      proxy_set_header Connection "";
      proxy_set_header Authorization "{CREDENTIAL}";{verify}
    }}
  }}
}}
"""


def _version(path: Path) -> str:
    return output_of([str(path), "-v"]).split("/")[-1].split()[0]


PEER = Peer(
    name="nginx",
    title="nginx",
    remark="fixed header, JSON access log",
    remedy="apt-get install nginx",
    find=lambda: program("nginx"),
    command=_command,
    version=_version,
)
