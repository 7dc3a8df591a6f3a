"""From a request to its tenant, and the rules by which a set of tenants may be saved.

The rules are pure. :class:`Directory` is the set of tenants in force: an immutable index that is swapped
whole, so that a request sees one state of the world. Never guesses: a request that routes of two tenants
claim is refused, and one that no route claims has no tenant.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from proxy import certificates, credentials, headers, policy
from proxy.addresses import Network
from proxy.arrival import Arrival, address_of
from proxy.errors import TenantAmbiguous, TenantDisabled, TenantError, TenantUnknown
from proxy.facts import TenantsLoaded
from proxy.headers import Fields
from proxy.model import TENANT_NAME, Secret, Tenant
from proxy.oauth import company_id
from proxy.target import Target

_LIKE_A_VERSION = re.compile(r"v\d+(-[a-z0-9]+)?")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")

_MAPPED_IPV4 = ipaddress.IPv6Network("::ffff:0:0/96")


def hash_legacy_key(key: Secret) -> str:
    """How a legacy key is stored: SHA-256 in hex. The keys are long random strings, so no salt is needed."""
    return hashlib.sha256(b"legacy-key\0" + key.reveal().encode()).hexdigest()


def checked(tenant: Tenant, *, ceiling: int | None = None) -> Tenant:
    """The tenant in canonical form: host names and company in lower case, networks in CIDR notation.

    :param ceiling: most requests a minute that Pleo takes.
    :raises TenantError: a name, company, host, network or policy that is none; the text names item and value.
    """
    if not TENANT_NAME.fullmatch(tenant.name):
        raise TenantError(
            f"tenant name {tenant.name!r}: use 1 to 63 of a-z, 0-9 and '-', not beginning with '-'"
        )
    if _LIKE_A_VERSION.fullmatch(tenant.name):
        raise TenantError(
            f"tenant name {tenant.name!r} looks like an API version and would hide Pleo's paths; "
            "choose another name"
        )
    return replace(
        tenant,
        company=None if tenant.company is None else _company(tenant),
        policy=policy.checked(tenant.policy, ceiling=ceiling),
        trial=None if tenant.trial is None else policy.checked(tenant.trial, ceiling=ceiling),
        hosts=_unique(_host(tenant.name, host) for host in tenant.hosts),
        networks=_unique(str(_network(tenant.name, network)) for network in tenant.networks),
        legacy_keys=_unique(tenant.legacy_keys),
        certificates=_unique(_certificate(tenant.name, name) for name in tenant.certificates),
        shared_keys=_unique(tenant.shared_keys),
    )


def check_together(tenants: Mapping[str, Tenant]) -> None:
    """Refuse a set of tenants in which one route could claim a request for two of them.

    :raises TenantError: the text shows both routes.
    """
    for kind, shown in _CLAIMED_ONCE.items():
        owner: dict[str, str] = {}
        for tenant in tenants.values():
            for value in getattr(tenant, kind):
                other = owner.setdefault(value, tenant.name)
                if other != tenant.name:
                    raise TenantError(
                        f"{shown.format(value)} is claimed by tenant {other!r} and by tenant "
                        f"{tenant.name!r}; remove it from one of them"
                    )
    _check_networks(tenants)


_CLAIMED_ONCE = {
    "hosts": "host {!r}",
    "legacy_keys": "the same legacy key",
    "certificates": "certificate {!r}",
    "shared_keys": "the same shared key",
}
"""Fields of a tenant whose values are nobody else's, and how one is told of: no key is, nor its hash."""


def _check_networks(tenants: Mapping[str, Tenant]) -> None:
    # In order of first address, a network that overlaps an earlier one begins before that one's end.
    reaching: Claim | None = None
    for claim in _network_claims(tenants):
        if reaching is not None and reaching.overlaps(claim) and reaching.tenant != claim.tenant:
            raise TenantError(
                f"network {reaching.network} of tenant {reaching.tenant.name!r} overlaps network "
                f"{claim.network} of tenant {claim.tenant.name!r}; narrow one of them"
            )
        if reaching is None or not reaching.overlaps(claim) or claim.last > reaching.last:
            reaching = claim


@dataclass(frozen=True, slots=True)
class Claim:
    """A tenant's network as a range of addresses."""

    first: tuple[int, int]
    """IP version and first address, so that IPv4 and IPv6 sort apart."""
    last: tuple[int, int]
    network: Network
    tenant: Tenant

    def overlaps(self, later: Claim) -> bool:
        """Whether the range reaches into ``later``, which does not begin before it."""
        return self.last >= later.first


def _network_claims(tenants: Mapping[str, Tenant]) -> list[Claim]:
    claims = []
    for tenant in tenants.values():
        for text in tenant.networks:
            network = ipaddress.ip_network(text)
            first = (network.version, int(network.network_address))
            claims.append(Claim(first, (network.version, int(network.broadcast_address)), network, tenant))
    return sorted(claims, key=lambda claim: (claim.first, claim.last))


def _company(tenant: Tenant) -> str:
    company = company_id(tenant.company or "")
    if company is None:
        raise TenantError(
            f"tenant {tenant.name!r}: company {tenant.company!r} is not a UUID such as "
            "'3f2c8f2e-…'; copy it from Pleo, or leave it out and let the first consent settle it"
        )
    return company


def _host(tenant: str, host: str) -> str:
    lower = host.strip().lower().rstrip(".")
    if not _HOST.fullmatch(lower) or address_of(lower) is not None:
        raise TenantError(
            f"tenant {tenant!r}: host {host!r} is not a host name; give a name without port or scheme"
        )
    return lower


def _network(tenant: str, text: str) -> Network:
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError:
        raise TenantError(
            f"tenant {tenant!r}: network {text!r} is not in CIDR notation with zero host bits, "
            "such as '10.1.0.0/16'"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED_IPV4):
        raise TenantError(
            f"tenant {tenant!r}: network {text!r} has no effect, since callers from there count as IPv4; "
            "write it as an IPv4 network"
        )
    return network


def _certificate(tenant: str, text: str) -> str:
    try:
        return certificates.canonical(text)
    except ValueError as error:
        raise TenantError(f"tenant {tenant!r}: certificate {text!r} is no name of one; {error}") from None


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


Claimed = tuple[str, Tenant]
"""A kind of route, and the tenant that a request belongs to by it."""


class Resolved(NamedTuple):
    """The tenant of a request, and the request's target as Pleo gets it."""

    tenant: Tenant
    target: Target
    prefix: str
    """``/name`` where the path prefix was used and removed, else empty."""


class Directory:
    """The tenants in force, indexed by route."""

    def __init__(self, tenants: Mapping[str, Tenant], default: str | None = None) -> None:
        """``default``: name of the tenant of requests that nothing claims (``listen.default_tenant``)."""
        self.tenants = dict(tenants)
        self._default = default
        self._hosts = {host: tenant for tenant in tenants.values() for host in tenant.hosts}
        self._keys = {key: tenant for tenant in tenants.values() for key in tenant.legacy_keys}
        self._certificates = {name: tenant for tenant in tenants.values() for name in tenant.certificates}
        self._networks = _outermost(_network_claims(tenants))
        # Each tool has one key and one address, and asks again and again.
        self._by_legacy_key = lru_cache(maxsize=1024)(self._find_key)
        self._by_network = lru_cache(maxsize=1024)(self._find_network)

    @property
    def hosts(self) -> Iterable[str]:
        """Host names of all tenants, which callers may use in ``Host``."""
        return self._hosts.keys()

    def resolve(self, target: Target, fields: Fields, host: str, arrival: Arrival) -> Resolved:
        """Find the one tenant that claims a request.

        :param host: host of the request without port, in lower case.
        :raises TenantUnknown: no route claims it; the detail tells what was tried.
        :raises TenantAmbiguous: routes of different tenants claim it.
        :raises TenantDisabled: the operator switched the tenant off.
        :raises PolicyRefused: the tenant asks its callers for a key or a certificate, and this is none.
        """
        by_path = self.tenants.get(target.first_segment)
        claims = self._other_claims(fields, host, arrival)
        if by_path is not None:
            tenant = by_path
            claims = [("path prefix", by_path), *claims] if claims else claims
        elif claims:
            tenant = claims[0][1]
        else:
            tenant = self._nobodys(target, host, arrival, fields)
        if claims and any(other is not tenant for _, other in claims):
            named = tuple(dict.fromkeys(f"{how} says {other.name!r}" for how, other in claims))
            raise TenantAmbiguous(f"the routes disagree: {', '.join(named)}", claims=named)
        if not tenant.enabled:
            raise TenantDisabled(f"tenant {tenant.name!r} is disabled", tenant=tenant.name)
        if tenant.shared_keys or tenant.certificates:
            credentials.check(tenant, fields, arrival)
        if by_path is None:
            return Resolved(tenant, target, "")
        return Resolved(tenant, target.without_first_segment(), f"/{tenant.name}")

    def claims(self, target: Target, fields: Fields, host: str, arrival: Arrival) -> list[Claimed]:
        """Every route that claims a request; parameters and :class:`TenantUnknown` as :meth:`resolve`."""
        by_path = self.tenants.get(target.first_segment)
        others = self._other_claims(fields, host, arrival)
        return others if by_path is None else [("path prefix", by_path), *others]

    def _other_claims(self, fields: Fields, host: str, arrival: Arrival) -> list[Claimed]:
        claims: list[Claimed] = []
        if arrival.listener is not None:
            claims.append(("listener", self._configured(arrival.listener, "the listener is for")))
        if arrival.certificate:
            owners = map(self._certificates.get, arrival.certificate)
            claims += [("certificate", tenant) for tenant in owners if tenant is not None]
        if (by_host := self._hosts.get(host)) is not None:
            claims.append(("host", by_host))
        if fields.values(headers.TENANT):
            claims.append(("X-Pleo-Tenant", self._by_header(fields)))
        # All keys count: of two for two tenants, neither may be preferred.
        if self._keys:
            owners = map(self._by_legacy_key, fields.values(b"authorization"))
            claims += [("legacy key", tenant) for tenant in owners if tenant is not None]
        if self._networks and (by_network := self._by_network(arrival.caller)) is not None:
            claims.append(("caller network", by_network))
        return claims

    def _by_header(self, fields: Fields) -> Tenant:
        named = headers.single(fields, headers.TENANT) or ""
        tenant = self.tenants.get(named)
        if tenant is None:
            raise TenantUnknown(f"the X-Pleo-Tenant header names {named[:63]!r}, which is no tenant here")
        return tenant

    def _configured(self, name: str, what: str) -> Tenant:
        tenant = self.tenants.get(name)
        if tenant is None:
            raise TenantUnknown(f"{what} {name!r}, which is no tenant here; the operator adds it")
        return tenant

    def _nobodys(self, target: Target, host: str, arrival: Arrival, fields: Fields) -> Tenant:
        """The tenant of a request that nothing claims, if one is configured.

        Not of one with a legacy key that is not known: whoever sends it speaks for somebody else.
        """
        users = map(_basic_user, fields.values(b"authorization"))
        if self._default is None or any(user is not None for user in users):
            raise TenantUnknown(_what_was_tried(target, host, arrival, fields))
        return self._configured(self._default, "listen.default_tenant is")

    def _find_key(self, value: bytes) -> Tenant | None:
        """The tenant of a key, which is looked up by its hash.

        How long that takes tells nothing of a key: dictionaries compare by a hash with a secret of this
        process first, and what is compared then is a SHA-256, no part of which leads to the key.
        """
        user = _basic_user(value)
        return None if user is None else self._keys.get(hash_legacy_key(user))

    def _find_network(self, caller: str) -> Tenant | None:
        address = address_of(caller)
        if address is None:
            return None
        wanted: tuple[int, int] = (address.version, int(address))
        before = bisect_right(self._networks, wanted, key=lambda claim: claim.first)
        claim = self._networks[before - 1] if before else None
        return claim.tenant if claim is not None and claim.last >= wanted else None


def _outermost(claims: list[Claim]) -> list[Claim]:
    """Without the networks that lie within another (of the same tenant, or they had been refused)."""
    kept: list[Claim] = []
    for claim in claims:
        # Of two networks with one beginning the longer comes later, and a search finds the later one.
        if not kept or kept[-1].last < claim.last:
            kept.append(claim)
    return kept


def _basic_user(value: bytes) -> Secret | None:
    """The user name of HTTP Basic credentials (RFC 7617), in which a legacy tool sends its API key."""
    scheme, _, encoded = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user = base64.b64decode(encoded.strip(), validate=True).partition(b":")[0].decode()
    except (binascii.Error, ValueError):
        return None
    return Secret(user) if user else None


def _what_was_tried(target: Target, host: str, arrival: Arrival, fields: Fields) -> str:
    key = "a legacy key that is not known" if headers.values(fields, b"authorization") else "no legacy key"
    certificate = "a certificate that is not known, " if arrival.certificate else ""
    return (
        f"path prefix {target.first_segment[:63]!r}, host {host[:253]!r}, no X-Pleo-Tenant header, {key}, "
        f"{certificate}caller {arrival.caller} and a listener of no tenant lead to none"
    )


def loaded(before: Mapping[str, Tenant], tenants: Mapping[str, Tenant]) -> TenantsLoaded:
    """That ``tenants`` are in force in place of those ``before``, and what is different."""
    return TenantsLoaded(
        len(tenants),
        added=tuple(sorted(tenants.keys() - before.keys())),
        changed=tuple(sorted(n for n in tenants.keys() & before.keys() if tenants[n] != before[n])),
        removed=tuple(sorted(before.keys() - tenants.keys())),
    )
