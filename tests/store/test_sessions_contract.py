"""What every store promises of sessions on the operator's pages, whichever database keeps it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.errors import StoreUnavailable
from proxy.model import AdminSession, Role
from proxy.store import Store
from tests.store.conftest import Opener
from tests.store.test_store_contract import NOW

SESSION = AdminSession("id", Role.VIEWER, "ann@example.com", "proof", created_at=NOW, seen_at=NOW + 1)


async def test_a_session_comes_back_as_it_went_in(store: Store, open_again: Opener) -> None:
    """Every field survives, and another process finds it too."""
    await store.sessions.add(SESSION)
    assert await store.sessions.get("id") == SESSION
    assert await (await open_again()).sessions.get("id") == SESSION
    assert await store.sessions.get("other") is None


async def test_a_session_that_was_seen_is_not_made_older(store: Store) -> None:
    """Of two that were seen at about the same time the later counts, in whatever order they are written."""
    await store.sessions.add(SESSION)
    await store.sessions.touch("id", NOW + 90)
    await store.sessions.touch("id", NOW + 60)
    assert await store.sessions.get("id") == replace(SESSION, seen_at=NOW + 90)


async def test_a_session_that_ended_stays_ended(store: Store) -> None:
    """It is removed once, and a request that was under way does not bring it back."""
    await store.sessions.add(SESSION)
    assert await store.sessions.remove("id")
    assert not await store.sessions.remove("id")
    await store.sessions.touch("id", NOW + 60)
    assert await store.sessions.get("id") is None


async def test_sessions_that_were_not_seen_for_long_are_swept(store: Store) -> None:
    """The instant itself is not before it; other sessions stay."""
    later = replace(SESSION, id="later", seen_at=NOW + 2)
    await store.sessions.add(SESSION)
    await store.sessions.add(later)
    await store.sessions.sweep(NOW + 1)
    assert await store.sessions.get("id") == SESSION
    await store.sessions.sweep(NOW + 2)
    assert await store.sessions.get("id") is None
    assert await store.sessions.get("later") == later


async def test_a_role_that_is_not_known_is_no_session(store: Store) -> None:
    """A newer program's role is not guessed."""
    await store.sessions.add(replace(SESSION, role="owner"))  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable, match="the role of a session"):
        await store.sessions.get("id")
