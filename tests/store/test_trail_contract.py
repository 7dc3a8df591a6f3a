"""What every store promises of its audit trail, whichever database keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from proxy.chain import START, Chain, Entry, Mark, Note, Record, Verifier, as_details
from proxy.model import Grant, GrantState, Link, Sealed, Tenant
from proxy.store import Content, Extension, Marks, Snapshot, Standing, Store, StoreNotEmpty
from tests.store.conftest import Opener

CHAIN = Chain(bytes(range(32)))
KEY = Sealed("sealed")
BEGUN = CHAIN.marked("head", START)


def entry(number: int, tenant: str | None = "acme", event: str = "tenant.added") -> Entry:
    """An entry that no other is like."""
    return Entry(1000.0 + number, event, tenant, "os:ann", as_details({"number": number, "text": "é ∑"}))


def note(number: int) -> Note:
    """A note of it."""
    return Note(entry(number), "k1", f"tag {number}")


def adding(*entries: Entry) -> object:
    """An edit that adds the notes and then ``entries``."""

    def edit(standing: Standing) -> Extension | None:
        head = CHAIN.read_mark("head", standing.marks.head or "")
        assert head is not None
        new = [*(each.entry for each in standing.notes), *entries]
        records = CHAIN.extended(head, new)
        if not records:
            return None
        last = records[-1]
        return Extension(records, CHAIN.marked("head", Mark(last.number, last.link, 1.0)))

    return edit


async def extend(store: Store, *numbers: int) -> None:
    """Add entries with these numbers."""
    await store.trail.extend(adding(*(entry(number) for number in numbers)))  # type: ignore[arg-type]


async def read(store: Store) -> list[Record]:
    """All records."""
    found: list[Record] = []
    await store.trail.read(lambda _, page: found.extend(page))
    return found


def findings(records: Sequence[Record], marks: Marks) -> object:
    """What is wrong with them."""
    verifier = Verifier(CHAIN, marks.head, marks.pruned)
    verifier.take(records)
    return verifier.finish()


async def test_a_trail_begins_once(store: Store, open_again: Opener) -> None:
    """Of two that begin it one does, and both are told what holds."""
    assert await store.trail.marks() == Marks()
    assert await store.trail.begin(KEY, BEGUN) == Marks(KEY, BEGUN)
    other = await open_again()
    assert await other.trail.begin(Sealed("other"), "other") == Marks(KEY, BEGUN)
    assert await read(other) == []


async def test_records_come_back_as_they_went_in(store: Store, open_again: Opener) -> None:
    """Every field, through another connection too, in pages and in their order."""
    await store.trail.begin(KEY, BEGUN)
    await extend(store, 1, 2)
    await store.trail.extend(adding(entry(3, None), entry(4, "globex", "grant.revoked")))  # type: ignore[arg-type]
    for opened in (store, await open_again()):
        records = await read(opened)
        wanted = [entry(1), entry(2), entry(3, None), entry(4, "globex", "grant.revoked")]
        assert [record.entry for record in records] == wanted
        assert findings(records, await opened.trail.marks()) == []
        assert await opened.trail.page(0) == records
        assert await opened.trail.page(2) == records[2:]
        assert await opened.trail.newest(2, None, None) == records[2:]
        assert await opened.trail.newest(9, "acme", None) == records[:2]
        assert await opened.trail.newest(9, None, "grant.revoked") == records[3:]
        assert await opened.trail.newest(9, None, {"grant.revoked", "nothing"}) == records[3:]
        assert await opened.trail.newest(9, "acme", {"grant.revoked", records[0].entry.event}) == records[:2]
        assert await opened.trail.newest(9, None, ()) == []
        assert await opened.trail.newest(9, None, None, since=records[2].entry.at) == records[2:]
        assert await opened.trail.newest(1, None, None, since=records[2].entry.at) == records[3:]
        assert await opened.trail.newest(2, None, None, before=4) == records[1:3]
        assert await opened.trail.newest(9, "acme", None, before=2) == records[:1]
        assert await opened.trail.newest(9, None, None, before=1) == []


async def test_a_long_trail_is_read_whole(store: Store) -> None:
    """More records than fit one page, each once."""
    await store.trail.begin(KEY, BEGUN)
    await extend(store, *range(1, 2502))
    pages: list[int] = []
    marks = await store.trail.read(lambda _, page: pages.append(len(page)))
    assert pages == [1000, 1000, 501]
    assert findings(await read(store), marks) == []


async def test_many_writers_make_one_chain(store: Store, open_again: Opener) -> None:
    """Through two connections at once, no number is taken twice and none is left out."""
    await store.trail.begin(KEY, BEGUN)
    other = await open_again()
    await asyncio.gather(*(extend(each, number) for number, each in enumerate([store, other] * 25)))
    records = await read(store)
    assert [record.number for record in records] == list(range(1, 51))
    assert findings(records, await store.trail.marks()) == []


async def test_notes_go_with_their_change_or_not_at_all(store: Store, open_again: Opener) -> None:
    """A note is stored where something changes, and taken into the chain once, in order."""
    await store.trail.begin(KEY, BEGUN)
    other = await open_again()
    await store.edit_tenants(lambda _: {"acme": Tenant("acme")}, lambda: [note(1)])
    await store.edit_grant("acme", lambda _: Grant("acme", GrantState.CONNECTED, 1), lambda: [note(2)])
    await store.add_link(Link("link", "acme", 0.0, 1.0), lambda: [note(3)])
    await store.edit_content(lambda content: replace(content, grants={}), lambda: [note(4)])
    # Where nothing changes, and where the edit refuses, there is nothing to note.
    await store.edit_tenants(lambda stored: stored, lambda: [note(9)])
    await store.edit_grant("acme", lambda grant: grant, lambda: [note(9)])
    with pytest.raises(ZeroDivisionError):
        await store.edit_tenants(lambda _: {"globex": Tenant("globex")}, lambda: [1 / 0])  # type: ignore[list-item]
    assert set(await store.tenants()) == {"acme"}

    assert await store.trail.noted() == 4
    assert await other.changed()
    assert (await store.snapshot()).notes == tuple(map(note, (1, 2, 3, 4)))
    await asyncio.gather(extend(store), extend(other))
    assert await store.trail.noted() == 0
    assert [record.entry for record in await read(store)] == [entry(number) for number in (1, 2, 3, 4)]


async def test_an_extension_that_is_refused_takes_no_notes(store: Store) -> None:
    """What raises, or has nothing to add, leaves everything as it is."""
    await store.trail.begin(KEY, BEGUN)
    await store.edit_tenants(lambda _: {"acme": Tenant("acme")}, lambda: [note(1)])
    await store.trail.extend(lambda _: None)
    with pytest.raises(ZeroDivisionError):
        await store.trail.extend(lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    assert await store.trail.noted() == 1
    assert await store.trail.marks() == Marks(KEY, BEGUN)


async def test_the_oldest_are_pruned_up_to_the_first_that_stays(store: Store) -> None:
    """Times decide, in the order of the numbers; the rest verifies from the mark."""
    await store.trail.begin(KEY, BEGUN)
    await extend(store, 1, 2, 9, 3)
    seen: list[int] = []

    def edit(standing: Standing, oldest: Sequence[Record]) -> Extension:
        seen.extend(record.number for record in oldest)
        head = CHAIN.read_mark("head", standing.marks.head or "")
        assert head is not None
        assert standing.last == Mark(head.number, head.link, 0.0)
        (record,) = CHAIN.extended(head, [entry(10)])
        last = oldest[-1]
        return Extension(
            [record],
            CHAIN.marked("head", Mark(record.number, record.link, 1.0)),
            CHAIN.marked("pruned", Mark(last.number, last.link, 1.0)),
        )

    assert await store.trail.prune(1000.0, 100, edit) == 0
    assert await store.trail.prune(1004.0, 1, edit) == 1
    assert await store.trail.prune(1004.0, 100, edit) == 1
    assert await store.trail.prune(1004.0, 100, edit) == 0
    assert seen == [1, 2]
    records = await read(store)
    assert [record.number for record in records] == [3, 4, 5, 6]
    assert findings(records, await store.trail.marks()) == []


async def test_the_chains_key_is_sealed_anew_in_its_place(store: Store) -> None:
    """Where there is none nothing is made up; the marks stay."""
    await store.trail.reseal_key(lambda _: Sealed("never"))
    assert await store.trail.marks() == Marks()
    await store.trail.begin(KEY, BEGUN)
    await store.trail.reseal_key(lambda key: Sealed(f"{key} anew"))
    assert await store.trail.marks() == Marks(Sealed("sealed anew"), BEGUN)


async def test_a_trail_is_copied_with_its_store(store: Store, open_again: Opener) -> None:
    """Records page by page, then marks and notes with the rest; a trail with marks is never mixed."""
    records = CHAIN.extended(START, [entry(1), entry(2)])
    marks = Marks(KEY, CHAIN.marked("head", Mark(2, records[1].link, 1.0)), "pruned")
    await store.trail.copy_in(records)
    held = Snapshot(Content({"acme": Tenant("acme")}, {}, None), (), (), marks, (note(3),))
    await store.fill(held)
    other = await open_again()
    assert await other.snapshot() == held
    assert await read(other) == records
    await store.edit_tenants(lambda _: {})
    with pytest.raises(StoreNotEmpty):
        await store.fill(Snapshot(Content({}, {}, None), (), ()))
