"""How the callers of a tenant reach the proxy: base URLs, and command lines to copy. Pure.

Keys and certificates stand in them by names in capitals: the proxy has none that it could show.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.model import Tenant
from proxy.policy import rules_of

_EXAMPLES = ("/v2/employees", "/v1/companies", "/v1/introspect")
_EVERYWHERE = {"0.0.0.0", "[::]"}
_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class CallersDoor:
    """Where callers connect."""

    address: str
    """``HOST:PORT`` or ``unix:/PATH``."""
    is_tls: bool = False
    tenant: str | None = None
    """Whose callers alone connect here."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way in."""

    how: str
    base_url: str
    curl: str


def ways_of(tenant: Tenant, doors: Iterable[CallersDoor], *, host: str) -> list[Way]:
    """All ways by which requests of ``tenant`` come in.

    :param host: a name of this machine, for doors that listen on all of its addresses.
    """
    return [way for door in doors for way in _ways_through(tenant, door, host)]


def _ways_through(tenant: Tenant, door: CallersDoor, host: str) -> list[Way]:
    if door.tenant not in (None, tenant.name):
        return []
    options = _proofs(tenant)
    if door.address.startswith(_UNIX):
        options = ["--unix-socket", door.address.removeprefix(_UNIX), *options]
        base = "http://localhost"
    else:
        base = _base(door, host)

    def way(how: str, base_url: str, *more: str) -> Way:
        command = shlex.join(["curl", *options, *more, base_url + _example(tenant)])
        return Way(how, base_url, command)

    if door.tenant is not None:
        return [way(f"its own listener, {door.address}", base)]
    _, _, port = base.partition("://")[2].rpartition(":")
    found = [
        way("path", f"{base}/{tenant.name}"),
        way("header", base, "-H", f"X-Pleo-Tenant: {tenant.name}"),
    ]
    if door.address.startswith(_UNIX):
        return found
    scheme = base.partition("://")[0]
    found += [way(f"host name {name}", f"{scheme}://{name}:{port}") for name in tenant.hosts]
    found += [way(f"from the network {network}", base) for network in tenant.networks]
    found += [way("legacy key", base, "-u", "LEGACY_KEY:")] if tenant.legacy_keys else []
    return found


def _base(door: CallersDoor, host: str) -> str:
    at, _, port = door.address.rpartition(":")
    if at in _EVERYWHERE:
        at = f"[{host}]" if ":" in host else host
    return f"{'https' if door.is_tls else 'http'}://{at}:{port}"


def _proofs(tenant: Tenant) -> list[str]:
    """What each caller of the tenant must show, on every way."""
    certificate = ["--cert", "CERTIFICATE.pem", "--key", "KEY.pem"] if tenant.certificates else []
    key = ["-H", "X-Pleo-Proxy-Key: SHARED_KEY"] if tenant.shared_keys else []
    return [*certificate, *key]


def _example(tenant: Tenant) -> str:
    """A path that the tenant's policy lets through, if there is one among a few."""
    rules = rules_of(tenant.policy)
    return next((path for path in _EXAMPLES if not rules.verdict("GET", path).fault), _EXAMPLES[0])
