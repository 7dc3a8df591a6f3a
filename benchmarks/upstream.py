"""The server that all proxies stand before: nginx with fixed answers, plain and over TLS.

A body that is sent is read to its end before the answer begins, as an API does that parses it: nginx would
else answer at once, and a proxy that stops there would look fast.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import certificates
from benchmarks.processes import BenchmarkError, free_port, program, running, wait_until_listening

SMALL = "/v2/employees"
"""GET: 1 KB of JSON."""
LARGE = "/v2/export-items"
"""GET: 1 MiB."""
ACCEPTS = "/v2/vendors"
"""POST: the answer of :data:`SMALL`."""
ACCEPTS_AND_ANSWERS_MUCH = "/v2/tags"
"""POST: 10 MiB."""
ECHOES = "/v2/introspect"
"""GET: the credential that arrived."""
MIB = 1 << 20


@dataclass(frozen=True)
class Endpoint:
    """Where a proxy sends its requests."""

    port: int
    authority: Path | None = None
    """CA certificates by which to verify it, where it speaks TLS."""

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "http" if self.authority is None else "https"

    @property
    def url(self) -> str:
        """Scheme, address and port."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Upstream:
    """The running server."""

    plain: Endpoint
    tls: Endpoint


@contextmanager
def serving(folder: Path, cores: Sequence[int]) -> Iterator[Upstream]:
    """The upstream, for as long as the block lasts.

    :raises BenchmarkError: there is no nginx.
    """
    nginx = program("nginx")
    if nginx is None:
        raise BenchmarkError("nginx is missing")
    made = certificates.make(folder)
    (folder / "1mib").write_bytes(_json(MIB))
    (folder / "10mib").write_bytes(_json(10 * MIB))
    upstream = Upstream(Endpoint(free_port()), Endpoint(free_port(), made.authority))
    config = folder / "nginx.conf"
    config.write_text(_config(folder, upstream, made, inner=free_port()))
    command = [str(nginx), "-p", str(folder), "-e", str(folder / "stderr"), "-c", str(config)]
    with running(command, cores=cores, folder=folder) as process:
        wait_until_listening(upstream.plain.port, process, folder)
        yield upstream


def _json(size: int) -> bytes:
    """A JSON document of this size."""
    entry = {"id": "3f2c8f2e-6b1d-4f0e-9b57-1f6f3a9d2c11", "email": "a@example.com", "active": True}
    text = json.dumps({"data": [entry] * (size // 100)}).encode()[: size - 2]
    return b'"' + text.replace(b'"', b"'").ljust(size - 2) + b'"'


def user_directive() -> str:
    """nginx's ``user``, which it heeds only when it is started as root: then it may read what root wrote."""
    return "user root;" if os.geteuid() == 0 else ""


def _config(folder: Path, upstream: Upstream, made: certificates.Certificates, *, inner: int) -> str:
    return f"""
{user_directive()}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_timeout 600;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_buffer_size 11m;
  client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/answers;
  fastcgi_temp_path {folder}/x;
  uwsgi_temp_path {folder}/x;
  scgi_temp_path {folder}/x;
  sendfile on;
  tcp_nopush on;
  default_type application/json;
  proxy_http_version 1.1;
  proxy_method GET;
  proxy_pass_request_body off;
  proxy_set_header Connection "";
  proxy_set_header Content-Length "";
  proxy_max_temp_file_size 0;
  ssl_certificate {made.certificate};
  ssl_certificate_key {made.key};
  ssl_session_cache shared:tls:8m;
  upstream inner {{ server 127.0.0.1:{inner}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{upstream.plain.port} backlog=4096;
    listen 127.0.0.1:{upstream.tls.port} ssl backlog=4096;
    location {SMALL} {{ return 200 {_quoted(_json(1024))}; }}
    location {LARGE} {{ alias {folder}/1mib; }}
    location {ECHOES} {{ return 200 $http_authorization; }}
    location {ACCEPTS} {{ proxy_pass http://inner{SMALL}; }}
    location {ACCEPTS_AND_ANSWERS_MUCH} {{ proxy_pass http://inner/10mib; }}
  }}
  server {{
    listen 127.0.0.1:{inner} backlog=4096;
    location {SMALL} {{ return 200 {_quoted(_json(1024))}; }}
    location /10mib {{ alias {folder}/10mib; }}
  }}
}}
"""


def _quoted(text: bytes) -> str:
    """In single quotes: the document has quotes of its own of both kinds, and no dollar sign."""
    return "'" + text.decode().replace("'", "\\'") + "'"
