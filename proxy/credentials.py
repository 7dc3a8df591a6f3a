"""What callers of a tenant must prove where its operator asks for more than a place on the network. Pure.

A shared key or a certificate keeps others out, whatever route has led to the tenant.
"""

from __future__ import annotations

import hashlib
import hmac

from proxy import headers
from proxy.arrival import Arrival
from proxy.errors import PolicyRefused, TenantError
from proxy.headers import Fields
from proxy.model import Secret, Tenant

_SHORTEST_KEY = 16
"""Characters. A hash of less could be turned back by who has a copy of the store."""
_HEADER = "X-Pleo-Proxy-Key"


def hash_shared_key(key: Secret) -> str:
    """How a shared key is stored: SHA-256 in hex. Without a salt, since keys are to be long and random.

    :raises TenantError: it is too short, or is nothing that a header can hold.
    """
    text = key.reveal()
    if len(text) < _SHORTEST_KEY:
        raise TenantError(
            f"a shared key must have at least {_SHORTEST_KEY} characters; make one: openssl rand -hex 32"
        )
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise TenantError(
            "a shared key must be of ASCII letters, digits and signs, so that a header holds it; make one: "
            "openssl rand -hex 32"
        )
    return _hash(text.encode())


def _hash(key: bytes) -> str:
    return hashlib.sha256(b"shared-key\0" + key).hexdigest()


def check(tenant: Tenant, fields: Fields, arrival: Arrival) -> None:
    """Let in a caller that proves what its tenant asks for.

    :raises TargetRefused: the header with the key is sent more than once.
    :raises PolicyRefused: a key or certificate is missing, or is none of the tenant's.
    """
    if tenant.shared_keys:
        _check_key(tenant, fields)
    if tenant.certificates and not set(tenant.certificates) & set(arrival.certificate):
        had = "another certificate" if arrival.certificate else "no certificate"
        raise PolicyRefused(
            f"callers of tenant {tenant.name!r} connect with one of its TLS certificates, to a listener that "
            f"asks for one (client_ca in listen.proxy); this connection has {had}",
            tenant=tenant.name,
        )


def _check_key(tenant: Tenant, fields: Fields) -> None:
    given = headers.single(fields, headers.SHARED_KEY)
    hashed = None if given is None else _hash(given.encode("latin-1"))
    # Each is compared, and as a whole: how long it takes tells nothing of which one, or how much of it, fits.
    fits = [hashed is not None and hmac.compare_digest(hashed, stored) for stored in tenant.shared_keys]
    if not any(fits):
        what = "is missing" if given is None else "is not one of them"
        raise PolicyRefused(
            f"callers of tenant {tenant.name!r} send one of its shared keys as {_HEADER}; it {what}",
            tenant=tenant.name,
        )
