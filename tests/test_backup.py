"""The file of a backup, and what a restore makes of a store that has gone on since."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy import backup, lifecycle, pairs
from proxy.backup import BackupError, Restored
from proxy.model import ROUTE_FIELDS, Grant, GrantState, Outcome, Policy, Preset, Secret, Tenant, Unblocked
from proxy.oauth import TokenPair
from proxy.pairs import Lifetimes
from proxy.store import Content
from proxy.vault import Vault, new_key_line

VAULT = Vault(Secret(new_key_line("k1")))
COMPANY = "0a0ac3e0-5b1d-4c1e-9f53-6d1f6f3a7c01"
POLICY = Policy(
    Preset.EXPORTS, ("GET /v1/a",), ("* /b",), (Unblocked.INSTALLATION,), ("::1/128",), False, 60, 4, 1000
)
TENANT = Tenant(
    "acme",
    COMPANY,
    enabled=False,
    policy=POLICY,
    trial=Policy(),
    **{field: (f"{field} 1", f"{field} 2") for field in ROUTE_FIELDS},
)


def grant(generation: int, *, issued_at: float, tenant: str = "acme", vault: Vault = VAULT) -> Grant:
    """A connected grant."""
    pair = pairs.seal_pair(
        vault,
        TokenPair(Secret(f"access {generation}"), Secret(f"refresh {generation}"), 900),
        tenant=tenant,
        generation=generation,
        now=issued_at,
        lifetimes=Lifetimes(900, 9000),
    )
    return lifecycle.connected(pair, tenant=tenant, company=COMPANY, scopes=("a", "b"), generation=generation)


def content(*grants: Grant) -> Content:
    """A store with these grants and their tenants."""
    tenants = {each.tenant: replace(TENANT, name=each.tenant) for each in grants}
    return Content(tenants, {each.tenant: each for each in grants}, VAULT.seal_check())


EMPTY = Content({}, {}, None)


def restored(stored: Content, saved: Content) -> Restored:
    """What a restore makes of ``stored``, with nobody to watch it."""
    return backup.restored(stored, saved, VAULT, progress=lambda _done, _total: None)


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(EMPTY, id="empty"),
        pytest.param(content(grant(3, issued_at=10.5)), id="connected"),
        pytest.param(
            content(Grant("acme", GrantState.REVOKED, 2, last_outcome=Outcome.GRANTED)), id="revoked"
        ),
    ],
)
def test_a_file_holds_what_was_stored(stored: Content) -> None:
    """What is read is what was written, with the moment at which it was."""
    assert backup.read(backup.written(stored, VAULT, at=1.5), VAULT) == (stored, 1.5)


def test_no_byte_can_be_changed_unseen() -> None:
    """Each byte of a file counts: changed or cut off, and the file is refused."""
    whole = backup.written(content(grant(1, issued_at=10.0)), VAULT, at=1.5)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        with pytest.raises(BackupError):
            backup.read(bytes(changed), VAULT)
        with pytest.raises(BackupError):
            backup.read(whole[:place], VAULT)


def test_only_who_has_the_key_can_make_one() -> None:
    """A file with a right SHA-256 made with another key, of the same id or another, is refused."""
    for key_id, problem in (("k1", "another key of the same id"), ("k9", "not in the key ring")):
        other = Vault(Secret(new_key_line(key_id)))
        with pytest.raises(BackupError, match=problem):
            backup.read(backup.written(EMPTY, other, at=1.0), VAULT)


def test_tenants_whose_tokens_do_not_open_are_named() -> None:
    """They are said all at once, before anything is changed."""
    other = Vault(Secret(new_key_line("gone")))
    saved = content(
        grant(1, issued_at=1.0),
        *(grant(1, issued_at=1.0, tenant=name, vault=other) for name in ("globex", "initech")),
    )
    with pytest.raises(
        BackupError, match=r"tokens of globex, initech .*'gone', which is not in the key ring"
    ):
        restored(EMPTY, saved)


@pytest.mark.parametrize(
    ("held", "saved", "generation", "state"),
    [
        pytest.param(None, grant(5, issued_at=10.0), 6, "unverified", id="none-stored"),
        pytest.param(grant(5, issued_at=10.0), grant(5, issued_at=10.0), 5, "connected", id="the-same"),
        pytest.param(grant(9, issued_at=20.0), grant(5, issued_at=10.0), 9, "connected", id="newer-stored"),
        pytest.param(grant(1, issued_at=20.0), grant(5, issued_at=10.0), 1, "connected", id="added-again"),
        pytest.param(grant(2, issued_at=5.0), grant(5, issued_at=10.0), 6, "unverified", id="older-stored"),
        pytest.param(
            grant(9, issued_at=20.0, vault=Vault(Secret(new_key_line("gone")))),
            grant(5, issued_at=10.0),
            10,
            "unverified",
            id="stored-does-not-open",
        ),
        pytest.param(
            replace(grant(9, issued_at=20.0), company="another"),
            grant(5, issued_at=10.0),
            10,
            "unverified",
            id="of-another-company",
        ),
        pytest.param(
            lifecycle.revoked(grant(5, issued_at=10.0)),
            grant(5, issued_at=10.0),
            5,
            "revoked",
            id="revoked-since",
        ),
        pytest.param(None, lifecycle.revoked(grant(5, issued_at=10.0)), 6, "revoked", id="revoked-before"),
    ],
)
def test_of_two_grants_the_newer_counts_and_generations_never_go_back(
    held: Grant | None, saved: Grant | None, generation: int, state: str
) -> None:
    """A pair from the file is used only where the store has no newer one, beyond all generations of both."""
    assert saved is not None
    stored = EMPTY if held is None else content(held)
    made = restored(stored, content(saved)).content.grants["acme"]
    assert (made.generation, made.state.value) == (generation, state)
    if made.access is not None:
        assert pairs.open_pair(VAULT, made) is not None


def test_what_was_under_way_is_not_restored() -> None:
    """Attempts, leases and questions of the time of the backup are over."""
    busy = replace(
        grant(5, issued_at=10.0),
        state=GrantState.REFRESHING,
        attempted_at=1.0,
        lease_owner="a/0",
        lease_until=2.0,
        refresh_asked_at=3.0,
        answer_lost=True,
    )
    made = restored(EMPTY, content(busy)).content.grants["acme"]
    assert made.state is GrantState.UNVERIFIED
    assert (made.attempted_at, made.lease_owner, made.lease_until, made.refresh_asked_at) == (None,) * 4


def test_a_restore_tells_how_far_it_is() -> None:
    """Each grant counts, from none of them to all, whether it is restored or kept."""
    stored = content(grant(9, issued_at=99.0))
    saved = content(grant(3, issued_at=1.0), grant(4, issued_at=1.0, tenant="globex"))
    told: list[tuple[int, int]] = []
    backup.restored(stored, saved, VAULT, progress=lambda *each: told.append(each))
    assert told == [(0, 2), (1, 2), (2, 2)]
