"""What every store promises, whichever database keeps it: one more parameter tests one more store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NoReturn

import pytest

from proxy.errors import StoreUnavailable, TenantError
from proxy.model import (
    Flow,
    Grant,
    GrantState,
    Link,
    Outcome,
    Policy,
    Preset,
    Sealed,
    Tenant,
    Unblocked,
)
from proxy.store import (
    LINK_KEPT_S,
    Content,
    LinkSpent,
    Snapshot,
    Store,
    StoreNotEmpty,
    TenantGone,
)
from tests.store.conftest import Opener

NOW = 1_750_000_000.25


@pytest.fixture
async def acme(store: Store) -> Tenant:
    """A tenant that is stored already."""
    return (await save(store, Tenant("acme")))["acme"]


async def save(store: Store, *tenants: Tenant) -> dict[str, Tenant]:
    return await store.edit_tenants(lambda _: {tenant.name: tenant for tenant in tenants})


def connected(tenant: str = "acme", generation: int = 1) -> Grant:
    return Grant(tenant, GrantState.CONNECTED, generation, refresh=Sealed(f"sealed-{generation}"))


def next_generation(grant: Grant | None) -> Grant:
    return connected(generation=grant.generation + 1 if grant else 1)


def link(id_: str = "link", tenant: str = "acme", expires_at: float = NOW + 900) -> Link:
    return Link(id_, tenant, created_at=NOW, expires_at=expires_at)


def flow(id_: str = "flow", tenant: str = "acme", expires_at: float = NOW + 600) -> Flow:
    return Flow(id_, "link", tenant, "browser", Sealed("verifier"), created_at=NOW, expires_at=expires_at)


class RefusedError(Exception):
    """What an edit raises in these tests."""


def refuse(*_: object) -> NoReturn:
    raise RefusedError


# Tenants


async def test_a_new_store_is_empty(store: Store) -> None:
    """Nothing is made up where nothing was stored."""
    assert await store.tenants() == {}
    assert await store.grants() == {}
    assert await store.grant("acme") is None
    assert await store.link("link") is None
    assert await store.key_check() is None


FULL_POLICY = Policy(
    Preset.READ_ONLY,
    allow=("GET /v1/**", "PUT,POST /v1/vendors"),
    deny=("* /v1/subscriptions/**",),
    unblock=tuple(Unblocked),
    callers=("10.0.0.0/8", "::1/128"),
    pin_company=False,
    requests_per_minute=60,
    concurrency=4,
    body_bytes=1000,
)
"""No field as by default."""


async def test_tenants_come_back_as_they_went_in(store: Store, open_again: Opener) -> None:
    """Every field survives, routes in their order, and tenants come in the order of their names."""
    full = Tenant(
        "zeta",
        company="4dd2b7c5-7c1e-4c39-9b1f-0d7a1c5f4a11",
        enabled=False,
        policy=FULL_POLICY,
        trial=Policy(pin_company=False),
        hosts=("z.example", "a.example"),
        networks=("10.0.0.0/8", "::1/128"),
        legacy_keys=("f" * 64, "0" * 64),
        certificates=("subject:CN=erp", "san:dns:erp.example"),
        shared_keys=("e" * 64, "1" * 64),
    )
    bare = Tenant("acme")
    returned = await save(store, full, bare)

    for tenants in (returned, await store.tenants(), await (await open_again()).tenants()):
        assert list(tenants.items()) == [("acme", bare), ("zeta", full)]


@pytest.mark.parametrize("preset", Preset)
async def test_every_preset_can_be_stored(store: Store, preset: Preset) -> None:
    """No preset of the model is unknown to the store."""
    await save(store, Tenant("acme", policy=Policy(preset)))
    assert (await store.tenants())["acme"].policy == Policy(preset)


async def test_a_change_of_policy_alone_is_a_change(store: Store) -> None:
    """Each of the two policies is written though nothing else of the tenant changed."""
    await save(store, Tenant("acme"))
    for changed in (Tenant("acme", trial=FULL_POLICY), Tenant("acme", policy=FULL_POLICY), Tenant("acme")):
        await save(store, changed)
        assert (await store.tenants())["acme"] == changed


async def test_an_edit_sees_what_is_stored_and_changes_only_that(store: Store) -> None:
    """A changed tenant keeps its grant, and so does one that the edit left alone."""
    await save(store, Tenant("acme", hosts=("a.example",)), Tenant("beta"))
    for name in ("acme", "beta"):
        await store.edit_grant(name, lambda _, name=name: connected(name))  # type: ignore[misc]

    def disable_acme(tenants: Mapping[str, Tenant]) -> Mapping[str, Tenant]:
        return {**tenants, "acme": replace(tenants["acme"], enabled=False)}

    await store.edit_tenants(disable_acme)

    assert await store.tenants() == {
        "acme": Tenant("acme", enabled=False, hosts=("a.example",)),
        "beta": Tenant("beta"),
    }
    assert await store.grants() == {"acme": connected("acme"), "beta": connected("beta")}


async def test_an_edit_of_tenants_that_raises_writes_nothing(store: Store, acme: Tenant) -> None:
    """The refusal comes out unchanged and the tenants are as they were."""
    with pytest.raises(RefusedError):
        await store.edit_tenants(refuse)
    assert await store.tenants() == {"acme": acme}


async def test_a_removed_tenant_takes_everything_with_it(store: Store, acme: Tenant) -> None:
    """A tenant that is added again under the same name starts with nothing."""
    await store.edit_grant("acme", next_generation)
    await store.add_link(link())
    await store.add_flow(flow())

    await save(store)
    await save(store, acme)

    assert await store.grants() == {}
    assert await store.link("link") is None
    assert await store.take_flow("flow", "browser", NOW) is None


async def test_a_route_can_move_from_one_tenant_to_another(store: Store) -> None:
    """One edit may take a host from a tenant and give it to another, in either order of names."""
    for giver, taker in (("acme", "beta"), ("beta", "acme")):
        await save(store, Tenant(giver, hosts=("h.example",)), Tenant(taker))
        tenants = await save(store, Tenant(giver), Tenant(taker, hosts=("h.example",)))
        assert await store.tenants() == tenants


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param({"hosts": ("h.example",)}, id="host"),
        pytest.param({"legacy_keys": ("0123456789abcdef" * 4,)}, id="legacy-key"),
        pytest.param({"certificates": ("san:dns:erp.example",)}, id="certificate"),
        pytest.param({"shared_keys": ("0123456789abcdef" * 4,)}, id="shared-key"),
    ],
)
async def test_the_store_itself_refuses_a_route_of_two_tenants(
    store: Store, claim: dict[str, tuple[str, ...]]
) -> None:
    """A defect in the rules above cannot store a route that would give one tenant's token to another."""
    first = Tenant("acme", **claim)  # type: ignore[arg-type] # each case gives a kind of route
    await save(store, first)

    with pytest.raises(TenantError, match=r"beta: .* is claimed twice") as refusal:
        await save(store, first, replace(first, name="beta"))

    assert "0123456789abcdef" not in str(refusal.value)
    assert await store.tenants() == {"acme": first}


async def test_the_store_leaves_overlapping_networks_to_the_rules(store: Store) -> None:
    """Overlap is no matter of equal values, so it is refused where tenants are checked, not by an index."""
    tenants = await save(
        store, Tenant("acme", networks=("10.0.0.0/8",)), Tenant("beta", networks=("10.0.0.0/8",))
    )
    assert await store.tenants() == tenants


async def test_a_tenant_under_another_name_is_a_defect(store: Store, acme: Tenant) -> None:
    """The mapping's name and the tenant's own must agree, or a grant could end up with the wrong one."""
    with pytest.raises(ValueError, match="stands under the name"):
        await store.edit_tenants(lambda _: {"beta": acme})
    assert await store.tenants() == {"acme": acme}


# Grants


@pytest.mark.parametrize("outcome", [None, *Outcome])
@pytest.mark.parametrize("state", GrantState)
async def test_grants_come_back_as_they_went_in(
    store: Store, acme: Tenant, state: GrantState, outcome: Outcome | None
) -> None:
    """Every field survives, for every state and outcome of the model."""
    grant = Grant(
        "acme",
        state,
        generation=2**40,
        company="4dd2b7c5-7c1e-4c39-9b1f-0d7a1c5f4a11",
        scopes=("users:read", "companies:read"),
        access=Sealed("v1.k1.access"),
        refresh=Sealed("v1.k1.refresh"),
        issued_at=NOW,
        access_expires_at=NOW + 0.1,
        refresh_expires_at=NOW + 0.2,
        last_refreshed_at=NOW + 0.3,
        last_outcome=outcome,
        attempted_at=NOW + 0.4,
        lease_owner="0123456789abcdef/1",
        lease_until=NOW + 0.5,
        refresh_asked_at=NOW + 0.6,
        answer_lost=True,
    )
    assert await store.edit_grant("acme", lambda _: grant) == grant
    assert await store.grant("acme") == grant
    assert await store.grants() == {"acme": grant}


async def test_a_bare_grant_comes_back_bare(store: Store, acme: Tenant) -> None:
    """What is absent stays absent, and is not an empty text or a zero."""
    grant = Grant("acme", GrantState.NONE, 0)
    await store.edit_grant("acme", lambda _: grant)
    assert await store.grant("acme") == grant


async def test_an_edit_of_a_grant_sees_what_is_stored(store: Store, acme: Tenant) -> None:
    """The first edit sees no grant, the next one what the first has stored, and ``None`` removes it."""
    seen: list[Grant | None] = []

    def advance(grant: Grant | None) -> Grant | None:
        seen.append(grant)
        return next_generation(grant) if len(seen) < 3 else None

    for _ in range(3):
        await store.edit_grant("acme", advance)

    assert seen == [None, connected(generation=1), connected(generation=2)]
    assert await store.grant("acme") is None


async def test_an_unchanged_grant_is_not_written(store: Store, open_again: Opener, acme: Tenant) -> None:
    """A comparison that fails costs no commit, which others would have to react to."""
    stored = await store.edit_grant("acme", next_generation)
    other = await open_again()

    assert await store.edit_grant("acme", lambda grant: grant) == stored
    assert not await other.changed()


async def test_an_edit_of_a_grant_that_raises_writes_nothing(store: Store, acme: Tenant) -> None:
    """The refusal comes out unchanged and the grant is as it was."""
    stored = await store.edit_grant("acme", next_generation)
    with pytest.raises(RefusedError):
        await store.edit_grant("acme", refuse)
    assert await store.grant("acme") == stored


async def test_nothing_is_stored_for_a_tenant_that_is_gone(store: Store) -> None:
    """A grant, link or flow without tenant is refused by name, and no edit is asked."""
    for attempt in (
        store.edit_grant("gone", refuse),
        store.connect("gone", refuse, link="link", at=NOW),
        store.add_link(link(tenant="gone")),
        store.add_flow(flow(tenant="gone")),
    ):
        with pytest.raises(TenantGone, match="tenant gone does not exist") as refusal:
            await attempt
        assert refusal.value.tenant == "gone"
    assert await store.grants() == {}
    assert await store.link("link") is None


async def test_a_grant_of_another_tenant_is_a_defect(store: Store, acme: Tenant) -> None:
    """A grant is never stored under a tenant that it was not made for."""
    with pytest.raises(ValueError, match="cannot be stored for tenant acme"):
        await store.edit_grant("acme", lambda _: connected("beta"))
    assert await store.grants() == {}


async def test_concurrent_edits_lose_no_update(store: Store, open_again: Opener, acme: Tenant) -> None:
    """Edits through two connections at once come one after the other."""
    other = await open_again()
    await asyncio.gather(*(each.edit_grant("acme", next_generation) for each in [store, other] * 25))
    assert await store.grant("acme") == connected(generation=50)


async def test_consent_settles_company_and_grant_at_once(store: Store) -> None:
    """Tenant and grant are edited in one step, and the tenant's routes stay."""
    before = Tenant("acme", hosts=("b.example", "a.example"), networks=("10.0.0.0/8",))
    await save(store, before, Tenant("beta", hosts=("c.example",)))

    def settle(tenant: Tenant, grant: Grant | None) -> tuple[Tenant, Grant]:
        assert (tenant, grant) == (before, None)
        return replace(tenant, company="c1"), connected()

    await store.add_link(link())
    settled = await store.connect("acme", settle, link="link", at=NOW)

    assert await store.link("link") == replace(link(), used_at=NOW)
    assert settled == (replace(before, company="c1"), connected())
    assert ((await store.tenants())["acme"], await store.grant("acme")) == settled
    assert list(await store.tenants()) == ["acme", "beta"]


async def test_consent_that_is_refused_changes_neither(store: Store) -> None:
    """Neither a refusal by the edit nor one by the database leaves half a consent."""
    tenants = await save(store, Tenant("acme"), Tenant("beta", hosts=("taken.example",)))

    await store.add_link(link())
    consent = partial(store.connect, "acme", link="link", at=NOW)
    with pytest.raises(RefusedError):
        await consent(refuse)
    with pytest.raises(TenantError):
        await consent(lambda tenant, _: (replace(tenant, hosts=("taken.example",)), connected()))
    with pytest.raises(ValueError, match="cannot be stored"):
        await consent(lambda tenant, _: (replace(tenant, company="c1"), connected("beta")))

    assert await store.tenants() == tenants
    assert await store.grants() == {}
    assert await store.link("link") == link()


# Links and flows


def settled(tenant: Tenant, _grant: Grant | None) -> tuple[Tenant, Grant]:
    """What a consent stores for acme."""
    return tenant, connected()


async def test_a_link_works_exactly_once(store: Store, open_again: Opener, acme: Tenant) -> None:
    """Of many who open it at once, through two connections, one gets in, and when is kept."""
    other = await open_again()
    await store.add_link(link())
    assert await store.link("link") == link()

    used = await asyncio.gather(
        *(each.connect("acme", settled, link="link", at=NOW) for each in [store, other] * 25),
        return_exceptions=True,
    )

    assert [type(result) for result in used].count(LinkSpent) == 49
    assert await store.grant("acme") == connected()
    assert await store.link("link") == replace(link(), used_at=NOW)


async def test_a_link_works_until_it_expires(store: Store, acme: Tenant) -> None:
    """At the instant of its expiry it is over, and an attempt then does not use it up."""
    await store.add_link(link(expires_at=NOW))
    for spent in ("link", "other"):
        with pytest.raises(LinkSpent):
            await store.connect("acme", refuse, link=spent, at=NOW)
    assert await store.link("link") == link(expires_at=NOW)
    await store.connect("acme", settled, link="link", at=NOW - 0.001)


async def test_a_tenants_links_are_known_until_they_are_forgotten(store: Store, acme: Tenant) -> None:
    """Used, expired and open ones, the newest first, and of no other tenant."""
    await store.edit_tenants(lambda stored: {**stored, "beta": Tenant("beta")})
    old, new = link("old", expires_at=NOW - 1), replace(link("z-new"), created_at=NOW + 1)
    for each in (old, new, link("others", tenant="beta"), link("used")):
        await store.add_link(each)
    await store.connect("acme", settled, link="used", at=NOW)

    assert await store.links("acme") == [new, old, replace(link("used"), used_at=NOW)]
    assert await store.links("beta") == [link("others", tenant="beta")]
    assert await store.links("gone") == []


async def test_a_flow_is_taken_exactly_once(store: Store, open_again: Opener, acme: Tenant) -> None:
    """Of many callbacks with one state, through two connections, one gets the flow."""
    other = await open_again()
    await store.add_flow(flow())

    taken = await asyncio.gather(*(each.take_flow("flow", "browser", NOW) for each in [store, other] * 25))

    assert [each for each in taken if each] == [flow()]


async def test_a_flow_is_left_for_its_own_browser(store: Store, acme: Tenant) -> None:
    """Another browser, or a late one, neither gets the flow nor spoils it."""
    await store.add_flow(flow(expires_at=NOW))
    assert await store.take_flow("flow", "another", NOW - 1) is None
    assert await store.take_flow("flow", "browser", NOW) is None
    assert await store.take_flow("other", "browser", NOW - 1) is None
    assert await store.take_flow("flow", "browser", NOW - 0.001) == flow(expires_at=NOW)


async def test_a_sweep_deletes_only_what_is_over(store: Store, acme: Tenant) -> None:
    """Expired flows go at once; an expired link stays for a day, so that its holder learns what happened."""
    await store.add_flow(flow("over", expires_at=NOW))
    await store.add_flow(flow("open", expires_at=NOW + 1))
    await store.add_link(link("long over", expires_at=NOW - LINK_KEPT_S))
    await store.add_link(link("over", expires_at=NOW - LINK_KEPT_S + 1))

    await store.sweep(NOW)

    assert await store.take_flow("over", "browser", NOW - 1) is None
    assert await store.take_flow("open", "browser", NOW) is not None
    assert await store.link("long over") is None
    assert await store.link("over") is not None


# The store as a whole


async def full(store: Store) -> Snapshot:
    """A store that holds something of each kind, and what that is."""
    tenants = await save(store, Tenant("acme", company="c1", hosts=("a.example",)), Tenant("beta"))
    await store.edit_grant("acme", next_generation)
    await store.add_link(link("link 2"))
    await store.add_link(link())
    await store.connect("acme", lambda tenant, _: (tenant, connected()), link="link", at=NOW)
    await store.add_flow(flow())
    await store.set_key_check(Sealed("check"))
    return Snapshot(
        Content(tenants, {"acme": connected()}, Sealed("check")),
        (replace(link(), used_at=NOW), link("link 2")),
        (flow(),),
    )


async def test_a_snapshot_holds_all_that_is_stored(store: Store) -> None:
    """Nothing is left out, and taking one changes nothing."""
    empty = Snapshot(Content({}, {}, None), (), ())
    assert await store.snapshot() == empty
    held = await full(store)
    assert await store.snapshot() == held
    assert await store.snapshot() == held


async def test_an_empty_store_can_be_filled(store: Store, open_again: Opener) -> None:
    """What a snapshot holds is there afterwards, to the last field, others are told, and it works once."""
    held = Snapshot(
        Content({"acme": Tenant("acme", hosts=("a.example",))}, {"acme": connected()}, Sealed("check")),
        (replace(link(), used_at=NOW), link("link 2")),
        (flow(),),
    )
    other = await open_again()
    await store.fill(held)
    assert await other.changed()
    assert await other.snapshot() == held
    with pytest.raises(StoreNotEmpty):
        await store.fill(held)


async def test_the_content_is_edited_at_once(store: Store, open_again: Opener) -> None:
    """Tenants, grants and key check change together, for others to see, and a refusal changes nothing."""
    other = await open_again()
    before = (await full(store)).content
    assert await other.changed()

    def restore(found: Content) -> Content:
        assert found == before
        tenants = {"acme": Tenant("acme"), "gamma": Tenant("gamma", hosts=("a.example",))}
        return Content(tenants, {"gamma": connected("gamma")}, Sealed("other"))

    after = await store.edit_content(restore)

    assert after == restore(before) == await other.content()
    assert await other.changed()
    with pytest.raises(RefusedError):
        await store.edit_content(refuse)
    assert await store.content() == after


async def test_flows_get_the_verifiers_that_an_edit_gives_them(store: Store, acme: Tenant) -> None:
    """Nothing but the verifier changes."""
    for name in ("one", "two"):
        await store.add_flow(flow(name))
    after = await store.edit_flows(lambda found: replace(found, verifier=Sealed(f"anew {found.id}")))
    assert after == [replace(flow(name), verifier=Sealed(f"anew {name}")) for name in ("one", "two")]
    assert await store.take_flow("two", "browser", NOW) == after[1]


async def test_a_fill_that_fails_writes_nothing(store: Store) -> None:
    """A snapshot that contradicts itself leaves the store empty."""
    broken = Content({"acme": Tenant("acme")}, {"acme": connected("beta")}, Sealed("check"))
    with pytest.raises(ValueError, match="cannot be stored"):
        await store.fill(Snapshot(broken, (link(),), ()))
    assert await store.snapshot() == Snapshot(Content({}, {}, None), (), ())


async def test_a_store_that_holds_a_tenant_is_not_filled(store: Store, acme: Tenant) -> None:
    """Filling never mixes, and a refusal writes nothing."""
    held = Snapshot(Content({"beta": Tenant("beta")}, {}, Sealed("check")), (), ())
    with pytest.raises(StoreNotEmpty):
        await store.fill(held)
    assert await store.snapshot() == Snapshot(Content({"acme": acme}, {}, None), (), ())


async def test_the_key_check_is_set_once(store: Store, open_again: Opener) -> None:
    """Of two first starts one sets it; it changes only for who names what it replaces."""
    first, second = Sealed("first"), Sealed("second")
    await store.set_key_check(first)
    await (await open_again()).set_key_check(second)
    assert await store.key_check() == first

    await store.set_key_check(Sealed("third"), replacing=second)
    assert await store.key_check() == first
    await store.set_key_check(second, replacing=first)
    assert await store.key_check() == second


async def test_the_key_check_replaces_nothing_in_a_new_store(store: Store) -> None:
    """What should be replaced must be there."""
    await store.set_key_check(Sealed("second"), replacing=Sealed("first"))
    assert await store.key_check() is None


async def test_changed_tells_of_the_commits_of_others(store: Store, open_again: Opener) -> None:
    """Another connection's commit is told once; our own commits and sweeps are not told."""
    other = await open_again()
    assert not await store.changed()

    await save(other, Tenant("acme"))
    assert await store.changed()
    assert not await store.changed()

    await store.edit_grant("acme", next_generation)
    await store.sweep(NOW)
    assert not await store.changed()
    assert await other.changed()


async def test_a_closed_store_refuses(store: Store) -> None:
    """Each call after the end is an outage with a name; closing again is none."""
    await store.ping()
    await store.close()
    await store.close()
    for call in (store.tenants(), store.edit_grant("acme", refuse), store.ping(), store.changed()):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call


async def test_what_was_begun_before_closing_is_finished(store: Store, open_again: Opener) -> None:
    """A store that is closed while edits wait for their turn carries them out first."""
    await save(store, Tenant("acme"))
    edits = [asyncio.create_task(store.edit_grant("acme", next_generation)) for _ in range(10)]
    await asyncio.sleep(0)  # lets each of them start
    await store.close()
    await asyncio.gather(*edits)
    assert await (await open_again()).grant("acme") == connected(generation=10)
