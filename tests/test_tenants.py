"""Which tenant a request belongs to, and which sets of tenants may be saved; never a guess."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.arrival import Arrival
from proxy.errors import (
    PolicyRefused,
    Refusal,
    TargetRefused,
    TenantAmbiguous,
    TenantDisabled,
    TenantError,
    TenantUnknown,
)
from proxy.headers import Fields, Headers
from proxy.model import Policy, Preset, Secret, Tenant
from proxy.target import parse
from proxy.tenants import Directory, Resolved, check_together, checked, hash_legacy_key

COMPANY = "3f2c8f2e-0000-4000-8000-0123456789ab"


def named(*tenants: Tenant) -> dict[str, Tenant]:
    """Tenants by name."""
    return {tenant.name: tenant for tenant in tenants}


# --- one tenant by itself


@pytest.mark.parametrize(
    "name", ["a", "0", "acme", "acme-2", "a-", "v", "version1", "v1x", "v1-beta-2", "x" * 63]
)
def test_good_names(name: str) -> None:
    """Lower-case letters, digits and hyphens, beginning with none, up to 63 characters."""
    assert checked(Tenant(name)) == Tenant(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "A", "a_b", "a.b", "a/b", "a b", "é", "a\n", "٣", "x" * 64], ids=repr
)
def test_bad_names(name: str) -> None:
    """Any other name is refused, and shown."""
    with pytest.raises(TenantError) as caught:
        checked(Tenant(name))
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["v0", "v1", "v12", "v1-beta", "v2-rc1"])
def test_names_like_a_version(name: str) -> None:
    """A name like an API version would hide Pleo's own paths."""
    with pytest.raises(TenantError, match="looks like an API version"):
        checked(Tenant(name))


def test_the_canonical_form() -> None:
    """Company and hosts in lower case, networks in CIDR notation, nothing twice, the rest as it was."""
    given_ = Tenant(
        "acme",
        company=f" {COMPANY.upper()} ",
        enabled=False,
        policy=Policy(Preset.EXPORTS),
        hosts=("Acme.Example.", " acme.example", "b.example"),
        networks=(" 10.0.0.0/255.0.0.0", "10.0.0.0/8", "192.0.2.1", "2001:DB8:0::/32"),
        legacy_keys=("k1", "k2", "k1"),
    )
    made = checked(given_)
    assert made == Tenant(
        "acme",
        company=COMPANY,
        enabled=False,
        policy=Policy(Preset.EXPORTS),
        hosts=("acme.example", "b.example"),
        networks=("10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"),
        legacy_keys=("k1", "k2"),
    )
    assert checked(made) == made


WRONG = {
    "company-not-a-uuid": ({"company": "acme"}, "company 'acme' is not a UUID"),
    "company-empty": ({"company": ""}, "company '' is not a UUID"),
    "host-with-port": ({"hosts": ("a.example:80",)}, "host 'a.example:80' is not a host name"),
    "host-with-scheme": ({"hosts": ("http://a.example",)}, "is not a host name"),
    "host-empty": ({"hosts": ("",)}, "host '' is not a host name"),
    "host-is-an-address": ({"hosts": ("10.0.0.1",)}, "host '10.0.0.1' is not a host name"),
    "host-is-an-ipv6-address": ({"hosts": ("::1",)}, "is not a host name"),
    "host-with-underscore": ({"hosts": ("a_b",)}, "is not a host name"),
    "host-with-hyphen-first": ({"hosts": ("-a.example",)}, "is not a host name"),
    "host-with-empty-label": ({"hosts": ("a..example",)}, "is not a host name"),
    "host-label-too-long": ({"hosts": ("x" * 64 + ".example",)}, "is not a host name"),
    "host-too-long": ({"hosts": (".".join(["x" * 50] * 6),)}, "is not a host name"),
    "second-host-counts": ({"hosts": ("a.example", "*")}, "host '*' is not a host name"),
    "network-with-host-bits": ({"networks": ("10.0.0.1/8",)}, "network '10.0.0.1/8' is not in CIDR notation"),
    "network-of-words": ({"networks": ("lan",)}, "network 'lan' is not in CIDR notation"),
    "network-too-long-a-prefix": ({"networks": ("10.0.0.0/33",)}, "is not in CIDR notation"),
    "network-that-no-caller-is-in": (
        {"networks": ("::ffff:10.0.0.0/104",)},
        "network '::ffff:10.0.0.0/104' has no effect",
    ),
    "certificate-of-no-kind": ({"certificates": ("erp.example",)}, "certificate 'erp.example' is no name"),
    "second-network-counts": ({"networks": ("10.0.0.0/8", "")}, "network '' is not in CIDR notation"),
}


@pytest.mark.parametrize(("changes", "told"), WRONG.values(), ids=WRONG)
def test_wrong_routes(changes: Mapping[str, object], told: str) -> None:
    """A company, host or network that is none is refused, with tenant and value named."""
    with pytest.raises(TenantError) as caught:
        checked(replace(Tenant("acme"), **changes))  # type: ignore[arg-type] # each case gives fields of Tenant
    assert told in str(caught.value)
    assert "tenant 'acme'" in str(caught.value)


@pytest.mark.parametrize("field", ["policy", "trial"])
def test_a_wrong_rule_is_refused_before_it_is_in_force(field: str) -> None:
    """Also in a policy that is only on trial, which would be promoted as it is."""
    with pytest.raises(TenantError, match="rule 'nonsense' is not METHODS PATH"):
        checked(replace(Tenant("acme"), **{field: Policy(deny=("nonsense",))}))  # type: ignore[arg-type] # both are policies


# --- sets of tenants

SHARED = {
    "same-host": ({"hosts": ("a.example",)}, {"hosts": ("b.example", "a.example")}, "host 'a.example'"),
    "same-certificate": (
        {"certificates": ("san:dns:a.example",)},
        {"certificates": ("san:dns:a.example",)},
        "certificate 'san:dns:a.example'",
    ),
    "same-shared-key": ({"shared_keys": ("k" * 64,)}, {"shared_keys": ("k" * 64,)}, "the same shared key"),
    "same-legacy-key": ({"legacy_keys": ("k" * 64,)}, {"legacy_keys": ("k" * 64,)}, "the same legacy key"),
    "same-network": (
        {"networks": ("10.0.0.0/8",)},
        {"networks": ("10.0.0.0/8",)},
        "overlaps network 10.0.0.0/8",
    ),
    "network-within": ({"networks": ("10.0.0.0/8",)}, {"networks": ("10.1.0.0/16",)}, "network 10.1.0.0/16"),
    "behind-a-nested-one": (
        {"networks": ("10.0.0.0/8", "10.1.0.0/16")},
        {"networks": ("10.2.0.0/16",)},
        "network 10.0.0.0/8",
    ),
    "everything": ({"networks": ("0.0.0.0/0",)}, {"networks": ("192.0.2.1/32",)}, "network 0.0.0.0/0"),
    "ipv6-within": ({"networks": ("2001:db8::/32",)}, {"networks": ("2001:db8:1::/48",)}, "2001:db8:1::/48"),
}


@pytest.mark.parametrize(("one", "other", "told"), SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("turned", [False, True], ids=["as-given", "other-way-round"])
def test_routes_shared_by_two_tenants(
    one: Mapping[str, object], other: Mapping[str, object], told: str, *, turned: bool
) -> None:
    """Two tenants that one request could reach by one route are refused together, both named."""
    pair = [replace(Tenant("acme"), **one), replace(Tenant("globex"), **other)]  # type: ignore[arg-type]
    with pytest.raises(TenantError) as caught:
        check_together(named(*(reversed(pair) if turned else pair)))
    assert told in str(caught.value)
    assert "'acme'" in str(caught.value)
    assert "'globex'" in str(caught.value)
    assert "k" * 9 not in str(caught.value)


def test_routes_of_one_tenant_may_overlap() -> None:
    """Within one tenant nothing is ambiguous, and neighbours of different tenants do not overlap."""
    check_together(
        named(
            Tenant("acme", hosts=("a.example",), networks=("10.0.0.0/9", "10.1.0.0/16", "10.1.2.0/24")),
            Tenant("globex", hosts=("b.example",), networks=("10.128.0.0/9", "::/0")),
        )
    )


# Networks that often touch, nest or repeat: 32 addresses of each version, which as numbers are the same.
FIRST = 0x0A000000
VERSIONS = st.sampled_from([(ipaddress.IPv4Network, 32), (ipaddress.IPv6Network, 128)])
NETWORKS = st.builds(
    lambda version, at, size: str(version[0]((FIRST + at, version[1] - size), strict=False)),
    VERSIONS,
    st.integers(0, 31),
    st.integers(0, 5),
)
SETS = st.lists(st.lists(NETWORKS, max_size=4), max_size=4).map(
    lambda lists: named(*(Tenant(f"t{n}", networks=tuple(networks)) for n, networks in enumerate(lists)))
)


def overlap(tenants: Mapping[str, Tenant]) -> bool:
    """Whether any two networks of different tenants overlap, by looking at each pair."""
    return any(
        a.version == b.version and a.overlaps(b)
        for one in tenants.values()
        for other in tenants.values()
        if one.name != other.name
        for a in map(ipaddress.ip_network, one.networks)
        for b in map(ipaddress.ip_network, other.networks)
    )


@settings(max_examples=500)
@given(SETS)
def test_overlaps_are_found_exactly_where_they_are(tenants: dict[str, Tenant]) -> None:
    """A set is refused if and only if two networks of different tenants overlap."""
    try:
        check_together(tenants)
    except TenantError:
        assert overlap(tenants)
    else:
        assert not overlap(tenants)


# --- requests


def resolve(
    directory: Directory,
    path: bytes = b"/v1",
    fields: Headers | None = None,
    *,
    host: str = "127.0.0.1",
    caller: str = "198.51.100.9",
    listener: str | None = None,
    certificate: tuple[str, ...] = (),
) -> Resolved:
    """The tenant of a request that by itself says nothing of one."""
    arrival = Arrival(caller, listener=listener, certificate=certificate)
    return directory.resolve(parse(path, max_bytes=999), Fields(fields or []), host, arrival)


def by_network(directory: Directory, caller: str) -> str | None:
    """The name of the tenant that a caller's address leads to."""
    try:
        return resolve(directory, caller=caller).tenant.name
    except TenantUnknown:
        return None


ADDRESSES = st.builds(
    lambda version, at: str(version(FIRST + at)),
    st.sampled_from([ipaddress.IPv4Address, ipaddress.IPv6Address]),
    st.integers(-2, 33),
)


def without_overlap(tenants: Mapping[str, Tenant]) -> dict[str, Tenant]:
    """The tenants, less each network that overlaps one of another tenant before it."""
    kept: dict[str, Tenant] = {}
    for tenant in tenants.values():
        kept[tenant.name] = replace(tenant, networks=())
        for network in tenant.networks:
            more = replace(kept[tenant.name], networks=(*kept[tenant.name].networks, network))
            if not overlap({**kept, tenant.name: more}):
                kept[tenant.name] = more
    return kept


@settings(max_examples=300)
@given(SETS.map(without_overlap), st.lists(ADDRESSES, min_size=1, max_size=20))
def test_the_callers_network_is_found_as_by_looking_at_each(
    tenants: dict[str, Tenant], callers: list[str]
) -> None:
    """In any set that may be saved, an address leads to the tenant with a network that holds it, or none."""
    check_together(tenants)
    directory = Directory(tenants)
    for caller in callers:
        address = ipaddress.ip_address(caller)
        holders = {
            tenant.name
            for tenant in tenants.values()
            if any(address in ipaddress.ip_network(network) for network in tenant.networks)
        }
        assert len(holders) < 2
        assert by_network(directory, caller) == (holders.pop() if holders else None)


KEY, OTHER_KEY = Secret("plp_key-of-acme"), Secret("pls_key-of-globex")
ACME = Tenant(
    "acme",
    hosts=("acme.example",),
    networks=("10.1.0.0/16", "2001:db8::/32"),
    legacy_keys=(hash_legacy_key(KEY),),
)
GLOBEX = Tenant(
    "globex",
    hosts=("globex.example",),
    networks=("10.2.0.0/16",),
    legacy_keys=(hash_legacy_key(OTHER_KEY),),
)
CLOSED = Tenant("closed", enabled=False, hosts=("closed.example",))
DIRECTORY = Directory(named(ACME, GLOBEX, CLOSED))


def basic(user: Secret | str, password: str = "", scheme: str = "Basic") -> tuple[bytes, bytes]:
    """HTTP Basic credentials as a legacy tool sends them."""
    text = user.reveal() if isinstance(user, Secret) else user
    return b"Authorization", f"{scheme} {base64.b64encode(f'{text}:{password}'.encode()).decode()}".encode()


TENANT_ACME = (b"X-Pleo-Tenant", b"acme")
TENANT_GLOBEX = (b"X-Pleo-Tenant", b"globex")


def test_by_path_prefix() -> None:
    """The tenant's name in front of the path names it, and Pleo gets the path without."""
    found = resolve(DIRECTORY, b"/acme/v2/employees?x=%2F")
    assert (found.tenant, found.prefix) == (ACME, "/acme")
    assert found.target.raw == b"/v2/employees?x=%2F"
    assert found.target.decoded == "/v2/employees"


WITHOUT_PREFIX: dict[str, dict[str, str | Headers]] = {
    "host": {"host": "acme.example"},
    "header": {"fields": [TENANT_ACME]},
    "header-in-other-letters": {"fields": [(b"x-PLEO-tenant", b" acme ")]},
    "legacy-key": {"fields": [basic(KEY)]},
    "legacy-key-with-password": {"fields": [basic(KEY, "x:y")]},
    "legacy-key-scheme-in-other-letters": {"fields": [basic(KEY, scheme="bAsIc")]},
    "network": {"caller": "10.1.255.255"},
    "network-seen-through-ipv6": {"caller": "::ffff:10.1.0.0"},
    "ipv6-network": {"caller": "2001:db8::1"},
    "ipv6-network-with-zone": {"caller": "2001:db8::1%eth0"},
    "listener": {"listener": "acme"},
    "all-agree": {
        "fields": [TENANT_ACME, basic(KEY)],
        "host": "acme.example",
        "caller": "10.1.2.3",
        "listener": "acme",
    },
}


@pytest.mark.parametrize("route", WITHOUT_PREFIX.values(), ids=WITHOUT_PREFIX)
def test_by_another_route(route: dict[str, str | Headers]) -> None:
    """Each other route leads to its tenant alone, and the target stays as it is."""
    found = resolve(DIRECTORY, b"/v1/x", **route)  # type: ignore[arg-type] # each case gives parameters
    assert (found.tenant, found.prefix, found.target.raw) == (ACME, "", b"/v1/x")


@pytest.mark.parametrize("route", WITHOUT_PREFIX.values(), ids=WITHOUT_PREFIX)
def test_routes_that_agree(route: dict[str, str | Headers]) -> None:
    """Several routes to one tenant are no ambiguity, and the path prefix is still removed."""
    found = resolve(DIRECTORY, b"/acme/v1/x", **route)  # type: ignore[arg-type] # each case gives parameters
    assert (found.tenant, found.prefix, found.target.raw) == (ACME, "/acme", b"/v1/x")


@pytest.mark.parametrize("route", WITHOUT_PREFIX.values(), ids=WITHOUT_PREFIX)
def test_routes_that_disagree(route: dict[str, str | Headers]) -> None:
    """A request that routes of two tenants claim is refused, and the detail names both."""
    with pytest.raises(TenantAmbiguous) as caught:
        resolve(DIRECTORY, b"/globex/v1/x", **route)  # type: ignore[arg-type] # each case gives parameters
    assert "path prefix says 'globex'" in caught.value.detail
    assert "says 'acme'" in caught.value.detail
    assert caught.value.tenant is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([TENANT_GLOBEX, basic(KEY)], id="header-against-key"),
        pytest.param([basic(KEY), basic(OTHER_KEY)], id="two-legacy-keys"),
        pytest.param([basic(OTHER_KEY), basic(KEY)], id="two-legacy-keys-other-order"),
    ],
)
def test_fields_that_disagree(fields: Headers) -> None:
    """Neither the first nor the last of two claims wins."""
    with pytest.raises(TenantAmbiguous):
        resolve(DIRECTORY, fields=fields)


HOOLI = Tenant("hooli", certificates=("san:dns:erp.hooli.example", "sha256:" + "ab" * 32))
WITH_CERTIFICATES = Directory(
    named(ACME, HOOLI, Tenant("initech", certificates=("subject:CN=initech",)), CLOSED)
)


def test_by_certificate() -> None:
    """Any name of the caller's certificate leads to the tenant that has it, and so has to be there."""
    for name in HOOLI.certificates:
        found = resolve(
            WITH_CERTIFICATES, certificate=("sha256:00", "subject:CN=x", "san:dns:x.example", name)
        )
        assert (found.tenant, found.prefix) == (HOOLI, "")
    with pytest.raises(TenantUnknown, match="a certificate that is not known"):
        resolve(WITH_CERTIFICATES, certificate=("sha256:00", "san:dns:crm.hooli.example"))
    assert resolve(WITH_CERTIFICATES, b"/acme/v1", certificate=("sha256:00",)).tenant == ACME
    for path in (b"/hooli/v1", b"/hooli/"):
        with pytest.raises(PolicyRefused, match="has no certificate"):
            resolve(WITH_CERTIFICATES, path)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        pytest.param(b"/acme/v1", ("san:dns:erp.hooli.example",), id="against-a-path"),
        pytest.param(b"/v1", ("san:dns:erp.hooli.example", "subject:CN=initech"), id="two-names-of-one"),
    ],
)
def test_certificates_that_disagree(path: bytes, names: tuple[str, ...]) -> None:
    """A certificate of one tenant reaches no other, and one with names of two reaches neither."""
    with pytest.raises(TenantAmbiguous, match="certificate says 'hooli'"):
        resolve(WITH_CERTIFICATES, path, certificate=names)


def test_a_disabled_tenant_is_so_before_it_asks_for_credentials() -> None:
    """A tenant that is off says that, whatever its callers would have to prove."""
    off = Directory(named(replace(HOOLI, enabled=False)))
    with pytest.raises(TenantDisabled):
        resolve(off, b"/hooli/v1")


def routed(name: str, routes: Mapping[str, Any]) -> Tenant:
    """A tenant with these fields."""
    return Tenant(name, **routes)


ONCE = ("hosts", "legacy_keys", "certificates", "shared_keys")
FEW = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=2).map(tuple)
SAVED = st.lists(st.fixed_dictionaries(dict.fromkeys(ONCE, FEW)), max_size=3).map(
    lambda rows: named(*(routed(f"t{n}", row) for n, row in enumerate(rows)))
)


@settings(max_examples=300)
@given(SAVED)
def test_in_a_set_that_may_be_saved_no_value_is_two_tenants(tenants: dict[str, Tenant]) -> None:
    """A set is refused if and only if a value of one kind is two tenants'; else each leads to one at most."""
    owners = {
        (kind, value): [tenant.name for tenant in tenants.values() if value in getattr(tenant, kind)]
        for kind in ONCE
        for value in "abcd"
    }
    try:
        check_together(tenants)
    except TenantError:
        assert any(len(names) > 1 for names in owners.values())
        return
    assert all(len(names) < 2 for names in owners.values())
    directory = Directory({name: replace(t, shared_keys=()) for name, t in tenants.items()})
    for value in "abcd":
        for kind, request in (("hosts", {"host": value}), ("certificates", {"certificate": (value,)})):
            claimed = owners[kind, value]
            try:
                found = [resolve(directory, **request).tenant.name]
            except TenantUnknown:
                found = []
            except PolicyRefused as refusal:  # a tenant that asks for a certificate beside
                found = [refusal.tenant or ""]
            assert found == claimed


def test_claims_are_told_once_each() -> None:
    """A request with one key many times makes no long story of it, and tells no key."""
    with pytest.raises(TenantAmbiguous) as caught:
        resolve(DIRECTORY, b"/globex/v1", [basic(KEY)] * 50, caller="10.1.2.3")
    assert caught.value.claims == (
        "path prefix says 'globex'",
        "legacy key says 'acme'",
        "caller network says 'acme'",
    )


def test_a_disabled_tenant_does_not_resolve_ambiguity() -> None:
    """That one of two claiming tenants is switched off does not give the request to the other."""
    with pytest.raises(TenantAmbiguous):
        resolve(DIRECTORY, b"/acme/v1", host="closed.example")


@pytest.mark.parametrize("route", [b"/closed/v1", b"/v1"], ids=["by-path", "by-host"])
def test_a_disabled_tenant_is_refused(route: bytes) -> None:
    """A request for a tenant that is switched off says so and whose it is."""
    with pytest.raises(TenantDisabled) as caught:
        resolve(DIRECTORY, route, host="closed.example")
    assert caught.value.tenant == "closed"


NOBODYS: dict[str, tuple[bytes, dict[str, str | Headers]]] = {
    "nothing": (b"/v1", {}),
    "root": (b"/", {}),
    "unknown-prefix": (b"/nobody/v1", {}),
    "prefix-upper-case": (b"/Acme/v1", {}),
    "prefix-with-parameter": (b"/acme;x/v1", {}),
    "prefix-further-on": (b"/v1/acme", {}),
    "name-begins-alike": (b"/acme2/v1", {}),
    "unknown-host": (b"/v1", {"host": "other.example"}),
    "host-under-a-tenants": (b"/v1", {"host": "x.acme.example"}),
    "unknown-key": (b"/v1", {"fields": [basic("plp_other")]}),
    "key-as-password": (b"/v1", {"fields": [basic("", KEY.reveal())]}),
    "key-as-bearer": (b"/v1", {"fields": [(b"Authorization", b"Bearer plp_key-of-acme")]}),
    "key-not-base64": (b"/v1", {"fields": [(b"Authorization", b"Basic plp_key-of-acme")]}),
    "key-not-utf-8": (b"/v1", {"fields": [(b"Authorization", b"Basic /////w==")]}),
    "stored-hash-as-key": (b"/v1", {"fields": [basic(hash_legacy_key(KEY))]}),
    "tenant-header-with-underscores": (b"/v1", {"fields": [(b"X_Pleo_Tenant", b"acme")]}),
    "address-beside-the-network": (b"/v1", {"caller": "10.3.0.0"}),
    "no-address": (b"/v1", {"caller": ""}),
    "forwarded-address-is-not-believed": (b"/v1", {"fields": [(b"X-Forwarded-For", b"10.1.0.1")]}),
}


@pytest.mark.parametrize(("path", "route"), NOBODYS.values(), ids=NOBODYS)
def test_requests_of_nobody(path: bytes, route: dict[str, str | Headers]) -> None:
    """A request that no route claims has no tenant, and the detail tells what was looked at."""
    with pytest.raises(TenantUnknown) as caught:
        resolve(DIRECTORY, path, **route)  # type: ignore[arg-type] # each case gives parameters
    assert "lead to none" in caught.value.detail
    assert "plp_" not in caught.value.detail


@pytest.mark.parametrize("name", [b"nobody", b"", b"ACME", b"acme,globex", b"acm\xe9"], ids=repr)
def test_a_header_that_names_no_tenant_is_refused(name: bytes) -> None:
    """A wrong name in X-Pleo-Tenant is not passed over, even where another route would serve."""
    with pytest.raises(TenantUnknown, match="the X-Pleo-Tenant header names"):
        resolve(DIRECTORY, b"/acme/v1", [(b"X-Pleo-Tenant", name)])


def test_a_tenant_header_is_sent_once() -> None:
    """Two X-Pleo-Tenant fields are refused, even if they agree."""
    with pytest.raises(TargetRefused):
        resolve(DIRECTORY, fields=[TENANT_ACME, TENANT_ACME])


WITH_DEFAULT = Directory(named(ACME, GLOBEX, CLOSED), default="globex")


@pytest.mark.parametrize("route", WITHOUT_PREFIX.values(), ids=WITHOUT_PREFIX)
def test_a_default_tenant_takes_nothing_from_a_route(route: dict[str, str | Headers]) -> None:
    """What a route claims is its tenant's, whatever the default is."""
    assert resolve(WITH_DEFAULT, b"/v1/x", **route).tenant == ACME  # type: ignore[arg-type] # parameters


def test_the_default_tenant_gets_what_nothing_claims() -> None:
    """And it gets it as it came. A default that does not exist, or is off, is told of."""
    found = resolve(WITH_DEFAULT, b"/v1/x")
    assert (found.tenant, found.prefix, found.target.raw) == (GLOBEX, "", b"/v1/x")
    with pytest.raises(TenantUnknown, match="default_tenant is 'nobody', which is no tenant here"):
        resolve(Directory(named(ACME), default="nobody"))
    with pytest.raises(TenantDisabled):
        resolve(Directory(named(CLOSED), default="closed"))
    with pytest.raises(TenantUnknown, match="lead to none"):
        resolve(WITH_DEFAULT, fields=[basic("plp_of-another-company")])


def test_the_hosts_of_all_tenants() -> None:
    """The guard learns which names callers may use, also of a tenant that is switched off."""
    assert set(DIRECTORY.hosts) == {"acme.example", "globex.example", "closed.example"}
    assert set(Directory({}).hosts) == set()


def test_a_directory_is_a_snapshot() -> None:
    """What happens to the mapping afterwards does not change the tenants in force."""
    tenants = named(ACME)
    directory = Directory(tenants)
    tenants.clear()
    assert directory.tenants == named(ACME)
    assert resolve(directory, b"/acme/v1").tenant == ACME


def test_legacy_keys_are_stored_as_hashes() -> None:
    """A key is kept as SHA-256 with a prefix of its own, so the stored text is no key."""
    assert hash_legacy_key(KEY) == hashlib.sha256(b"legacy-key\0plp_key-of-acme").hexdigest()


CLAIMS = st.tuples(
    st.sampled_from([b"/v1/x", b"/acme/v1", b"/globex/v1", b"/closed/v1"]),
    st.sampled_from(["127.0.0.1", "acme.example", "globex.example", "closed.example"]),
    st.sampled_from(["198.51.100.9", "10.1.0.1", "10.2.0.1"]),
    st.sampled_from([None, b"acme", b"globex", b"closed"]),
    st.sampled_from([None, KEY, OTHER_KEY]),
    st.sampled_from([None, "at-acme", "at-globex", "at-closed"]),
)
MEANT: dict[object, str] = {
    **dict.fromkeys([b"/acme/v1", "acme.example", "10.1.0.1", b"acme", KEY, "at-acme"], "acme"),
    **dict.fromkeys(
        [b"/globex/v1", "globex.example", "10.2.0.1", b"globex", OTHER_KEY, "at-globex"], "globex"
    ),
    **dict.fromkeys([b"/closed/v1", "closed.example", b"closed", "at-closed"], "closed"),
}


@given(CLAIMS)
def test_one_claim_decides_and_two_never_do(
    claims: tuple[bytes, str, str, bytes | None, Secret | None, str | None],
) -> None:
    """Over all combinations of routes: one tenant claimed is found, several are refused, none is unknown."""
    path, host, caller, header, key, listener = claims
    at = None if listener is None else listener.removeprefix("at-")
    fields = [] if header is None else [(b"X-Pleo-Tenant", header)]
    fields += [] if key is None else [basic(key)]
    meant = {MEANT[claim] for claim in claims if claim in MEANT}
    found: object
    try:
        found = resolve(DIRECTORY, path, fields, host=host, caller=caller, listener=at).tenant.name
    except Refusal as refusal:
        found = type(refusal)
    expected = TenantUnknown if not meant else TenantAmbiguous if len(meant) > 1 else meant.pop()
    assert found == (TenantDisabled if expected == "closed" else expected)
