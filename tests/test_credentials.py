"""What callers must prove where a tenant asks for it: a shared key, a certificate, or both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import credentials
from proxy.arrival import Arrival
from proxy.credentials import check, hash_shared_key
from proxy.errors import PolicyRefused, TargetRefused, TenantError
from proxy.headers import Fields
from proxy.model import Secret, Tenant
from proxy.sandbox import Sandbox
from tests.harness import Proxy, running_proxy

KEY, NEXT_KEY = "a-key-of-acme-0123456789", "the next key of acme, 2027"
WITH_KEYS = Tenant("acme", shared_keys=(hash_shared_key(Secret(KEY)), hash_shared_key(Secret(NEXT_KEY))))
WITH_NAMES = Tenant("acme", certificates=("san:dns:erp.example", "subject:CN=erp"))


def let_in(tenant: Tenant, *keys: str, certificate: tuple[str, ...] = ()) -> None:
    """Ask for a request with these keys and this certificate."""
    fields = Fields([(b"X-Pleo-Proxy-Key", key.encode("latin-1")) for key in keys])
    check(tenant, fields, Arrival("127.0.0.1", certificate=certificate))


@pytest.mark.parametrize("key", [KEY, NEXT_KEY, f"  {KEY} "], ids=["first", "second", "with-white-space"])
def test_any_of_the_keys_lets_in(key: str) -> None:
    """While keys are changed, the old one and the new one count."""
    let_in(WITH_KEYS, key)


@pytest.mark.parametrize(
    "key",
    [KEY[:-1], KEY + "x", KEY.upper(), "", hash_shared_key(Secret(KEY)), "\xff" * 20],
    ids=["cut", "longer", "other-letters", "empty", "its-hash", "not-ascii"],
)
def test_any_other_key_keeps_out(key: str) -> None:
    """A wrong key is refused by the header's name, and shown to nobody."""
    with pytest.raises(PolicyRefused, match="X-Pleo-Proxy-Key; it is not one of them") as caught:
        let_in(WITH_KEYS, key)
    assert caught.value.tenant == "acme"
    assert not key or key not in caught.value.detail


def test_a_key_must_be_sent_once() -> None:
    """None is refused, and two are, even if one of them, or both, would do."""
    with pytest.raises(PolicyRefused, match="X-Pleo-Proxy-Key; it is missing"):
        let_in(WITH_KEYS)
    with pytest.raises(TargetRefused, match="is sent 2 times"):
        let_in(WITH_KEYS, KEY, KEY)


@given(st.text(max_size=40), st.booleans())
def test_only_a_stored_key_lets_in(key: str, is_stored: bool) -> None:
    """Whatever is sent lets in if and only if it is, less white space around it, a key that was stored."""
    sent = key.encode("utf-8")
    tenant = Tenant(
        "acme", shared_keys=(credentials._hash(sent.strip() if is_stored else b"x" + sent.strip()),)
    )
    fields = Fields([(b"x-pleo-proxy-key", sent)])
    try:
        check(tenant, fields, Arrival("127.0.0.1"))
    except PolicyRefused:
        assert not is_stored
    else:
        assert is_stored


def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stored key is compared as a whole, also behind one that fits."""
    compared: list[str] = []

    def digest(one: str, other: str) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr("proxy.credentials.hmac.compare_digest", digest)
    let_in(WITH_KEYS, KEY)
    assert compared == list(WITH_KEYS.shared_keys)


def test_keys_are_stored_as_hashes_of_their_own() -> None:
    """The hash of a shared key is no legacy key's, and not the key's own SHA-256."""
    assert hash_shared_key(Secret(KEY)) == hashlib.sha256(b"shared-key\0" + KEY.encode()).hexdigest()


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("short-key-012345"[:15], "at least 16 characters"),
        ("ø" * 16, "must be of ASCII"),
        (" " + "k" * 16, "must be of ASCII"),
        ("k" * 16 + "\n", "must be of ASCII"),
    ],
)
def test_keys_that_cannot_be_one(key: str, told: str) -> None:
    """A key that is too short, or that no header can hold, is refused, and not shown."""
    with pytest.raises(TenantError, match=told) as caught:
        hash_shared_key(Secret(key))
    assert key.strip() not in str(caught.value)


CERTIFICATES: dict[str, tuple[tuple[str, ...], str]] = {
    "one-of-them": (("sha256:00", "san:dns:erp.example"), ""),
    "another-of-them": (("subject:CN=erp",), ""),
    "another": (("san:dns:crm.example",), "has another certificate"),
    "none": ((), "has no certificate"),
}


@pytest.mark.parametrize(("certificate", "told"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_tenant_with_certificates_asks_for_one_of_them(certificate: tuple[str, ...], told: str) -> None:
    """No other certificate will do, and the refusal says what the caller needs."""
    if not told:
        let_in(WITH_NAMES, certificate=certificate)
        return
    with pytest.raises(PolicyRefused, match=told) as caught:
        let_in(WITH_NAMES, certificate=certificate)
    assert "client_ca in listen.proxy" in caught.value.detail


def test_a_tenant_may_ask_for_both() -> None:
    """Where a key and a certificate are set, neither alone is enough."""
    both = Tenant("acme", shared_keys=WITH_KEYS.shared_keys, certificates=WITH_NAMES.certificates)
    let_in(both, KEY, certificate=("subject:CN=erp",))
    with pytest.raises(PolicyRefused):
        let_in(both, KEY)
    with pytest.raises(PolicyRefused):
        let_in(both, certificate=("subject:CN=erp",))


# --- over real sockets


async def answered(proxy: Proxy, path: str, headers: Mapping[str, str]) -> int:
    """The status of a request."""
    return (await proxy.get(path, headers=headers)).status


@pytest.mark.parametrize("route", ["path", "header", "network"])
async def test_a_shared_key_is_asked_for_whatever_leads_to_the_tenant(
    pleo: Sandbox, tmp_path: Path, route: str
) -> None:
    """By each route the key is needed; another tenant's is none; and Pleo and the log never see one."""
    other = "a-key-of-globex-0123456789"
    async with running_proxy(pleo, tmp_path) as proxy:
        networks = ("127.0.0.1/32",) if route == "network" else ()
        await proxy.add_tenant("acme", shared_keys=(hash_shared_key(Secret(KEY)),), networks=networks)
        await proxy.add_tenant("globex", shared_keys=(hash_shared_key(Secret(other)),))
        await proxy.connect("acme")
        path = "/acme/v2/employees" if route == "path" else "/v2/employees"
        by = {"X-Pleo-Tenant": "acme"} if route == "header" else {}
        before = len(pleo.api_requests)
        assert await answered(proxy, path, by) == 403
        assert await answered(proxy, path, {**by, "X-Pleo-Proxy-Key": other}) == 403
        assert await answered(proxy, path, {**by, "X_Pleo_Proxy_Key": KEY}) == 403
        assert await answered(proxy, path, {**by, "Authorization": f"Bearer {KEY}"}) == 403
        assert len(pleo.api_requests) == before
        assert await answered(proxy, path, {**by, "X-Pleo-Proxy-Key": KEY, "x_pleo-proxy_key": KEY}) == 200
        assert KEY not in str(pleo.api_requests[-1].headers)
        assert KEY.encode() not in proxy.log.getvalue()
        refused = proxy.lines("request.finished")[0]
        assert (refused["outcome"], refused["tenant"]) == ("policy-refused", "acme")


async def test_a_key_does_not_choose_a_tenant(pleo: Sandbox, tmp_path: Path) -> None:
    """A shared key proves, and does not lead: without a route a request has no tenant."""
    async with running_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme", shared_keys=(hash_shared_key(Secret(KEY)),))
        assert await answered(proxy, "/v2/employees", {"X-Pleo-Proxy-Key": KEY}) == 404
