"""The chain of the audit trail: whatever is done to it without its key is found and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.chain import (
    START,
    Chain,
    Entry,
    Finding,
    Mark,
    Problem,
    Record,
    Verifier,
    as_details,
    entry_bytes,
)

CHAIN, OTHER = Chain(bytes(range(32))), Chain(bytes(32))
NOW = 1_750_000_000.25

entries = st.builds(
    Entry,
    at=st.floats(allow_nan=False, allow_infinity=False, width=64),
    event=st.sampled_from(["tenant.added", "request.finished"]),
    tenant=st.none() | st.text(max_size=3),
    actor=st.text(max_size=5),
    details=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=2).map(
        as_details
    ),
)
chains = st.lists(entries, min_size=1, max_size=12).map(lambda made: CHAIN.extended(START, made))


def entry(number: int) -> Entry:
    """An entry that no other is like."""
    return Entry(NOW + number, "tenant.added", "acme", "os:ann", as_details({"number": number}))


def chain_of(length: int, chain: Chain = CHAIN) -> list[Record]:
    """A chain of so many records."""
    return chain.extended(START, [entry(number) for number in range(1, length + 1)])


def head_of(records: Sequence[Record], chain: Chain = CHAIN) -> str:
    """The mark of the newest of them."""
    last = records[-1]
    return chain.marked("head", Mark(last.number, last.link, NOW))


def verified(records: Sequence[Record], head: str | None, **options: Any) -> list[Finding]:
    """What is found, records coming in pages of two."""
    verifier = Verifier(CHAIN, head, **options)
    for begin in range(0, len(records), 2):
        verifier.take(records[begin : begin + 2])
    return verifier.finish()


def named(findings: Sequence[Finding]) -> list[tuple[int, Problem]]:
    """Which records, and how."""
    return [(finding.number, finding.problem) for finding in findings]


# --- in order


@given(chains)
def test_a_chain_as_it_was_made_is_in_order(records: list[Record]) -> None:
    """Nothing is found where nothing was done."""
    assert verified(records, head_of(records)) == []
    assert [record.number for record in records] == list(range(1, len(records) + 1))


@given(entries, entries)
def test_no_two_entries_are_the_same_bytes(one: Entry, other: Entry) -> None:
    """What is hashed tells every field from every other."""
    assert (entry_bytes(one) == entry_bytes(other)) == (repr(one) == repr(other))


def test_fields_run_into_each_other_nowhere() -> None:
    """Text that moves from one field to the next, or no tenant instead of an empty one, is another entry."""
    base = Entry(NOW, "ab", "c", "d", "{}")
    others = [
        replace(base, event="a", tenant="bc"),
        replace(base, tenant="", actor="cd"),
        replace(base, tenant=None),
        replace(base, tenant=""),
        replace(base, actor="", details="d{}"),
    ]
    assert len({entry_bytes(each) for each in [base, *others]}) == 6


def test_an_empty_chain_is_in_order() -> None:
    """Before the first record there is a mark and nothing else."""
    assert verified([], CHAIN.marked("head", START)) == []


def test_a_chain_that_was_extended_later_goes_on() -> None:
    """Records that are added in several goes make one chain."""
    first = chain_of(3)
    after = Mark(3, first[-1].link, NOW)
    records = [*first, *CHAIN.extended(after, [entry(4), entry(5)])]
    assert records == chain_of(5)
    assert verified(records, head_of(records)) == []


# --- any single change, deletion, swap, truncation, insertion, duplicate

CHANGES: dict[str, Callable[[Record], Record]] = {
    "at": lambda record: replace(record, entry=replace(record.entry, at=record.entry.at + 1)),
    "event": lambda record: replace(record, entry=replace(record.entry, event="x")),
    "tenant": lambda record: replace(record, entry=replace(record.entry, tenant="globex")),
    "no-tenant": lambda record: replace(record, entry=replace(record.entry, tenant=None)),
    "actor": lambda record: replace(record, entry=replace(record.entry, actor="os:eve")),
    "details": lambda record: replace(record, entry=replace(record.entry, details="{}")),
    "previous": lambda record: replace(record, previous=bytes(31) + b"\x01"),
    "link": lambda record: replace(record, link=bytes(32)),
    "empty-link": lambda record: replace(record, link=b""),
    "made-anew": lambda record: OTHER.extended(
        Mark(record.number - 1, record.previous, 0), [replace(record.entry, actor="os:eve")]
    )[0],
}


@pytest.mark.parametrize("change", CHANGES)
@given(data=st.data())
def test_a_changed_record_is_named(change: str, data: st.DataObject) -> None:
    """Whichever field of whichever record is changed, that record is found and no other."""
    records = chain_of(data.draw(st.integers(1, 12)))
    place = data.draw(st.integers(0, len(records) - 1))
    head = head_of(records)
    records[place] = CHANGES[change](records[place])
    assert named(verified(records, head)) == [(place + 1, Problem.CHANGED)]


@given(st.data())
def test_a_missing_record_is_named(data: st.DataObject) -> None:
    """A gap is told by the first record that is not there; at the end it is an end that was cut off."""
    records = chain_of(data.draw(st.integers(2, 12)))
    begin = data.draw(st.integers(0, len(records) - 1))
    end = data.draw(st.integers(begin + 1, len(records)))
    left = [*records[:begin], *records[end:]]
    problem = Problem.CUT_OFF if end == len(records) else Problem.MISSING
    assert named(verified(left, head_of(records))) == [(begin + 1, problem)]


@given(st.data())
def test_swapped_records_are_named(data: st.DataObject) -> None:
    """Two records that stand under each other's number are both found, with the number that is theirs."""
    records = chain_of(data.draw(st.integers(2, 12)))
    one, other = sorted(
        data.draw(st.lists(st.integers(0, len(records) - 1), min_size=2, max_size=2, unique=True))
    )
    head = head_of(records)
    records[one], records[other] = (
        replace(records[other], number=one + 1),
        replace(records[one], number=other + 1),
    )
    found = verified(records, head)
    assert named(found) == [(one + 1, Problem.REORDERED), (other + 1, Problem.REORDERED)]
    assert f"is in truth record {other + 1}" in found[0].detail


@given(st.data())
def test_lines_in_another_order_are_named(data: st.DataObject) -> None:
    """Records with their own numbers that come in another order are found."""
    records = chain_of(data.draw(st.integers(2, 12)))
    shuffled = data.draw(st.permutations(records))
    assume(list(shuffled) != records)
    assert Problem.REORDERED in {finding.problem for finding in verified(shuffled, head_of(records))}


@given(st.data())
def test_a_record_that_stands_twice_is_named(data: st.DataObject) -> None:
    """A copy of a record behind it, or in the place of another one, is found."""
    records = chain_of(data.draw(st.integers(2, 12)))
    source = data.draw(st.integers(0, len(records) - 1))
    behind = data.draw(st.integers(source + 1, len(records)))
    assert named(verified([*records[:behind], records[source], *records[behind:]], head_of(records))) == [
        (source + 1, Problem.REORDERED)
    ]
    target = data.draw(st.integers(0, len(records) - 1))
    assume(target != source)
    head = head_of(records)
    records[target] = replace(records[source], number=target + 1)
    assert named(verified(records, head)) == [(target + 1, Problem.REORDERED)]


@given(st.data())
def test_an_inserted_record_is_named(data: st.DataObject) -> None:
    """A record that was made without the key, with the numbers behind it moved on, is found."""
    records = chain_of(data.draw(st.integers(1, 8)))
    place = data.draw(st.integers(0, len(records)))
    previous = records[place - 1].link if place else START.link
    forged = OTHER.extended(Mark(place, previous, 0), [entry(99)])
    moved = [replace(record, number=record.number + 1) for record in records[place:]]
    found = verified([*records[:place], *forged, *moved], head_of(records))
    assert (place + 1, Problem.CHANGED) == named(found)[0]


@given(st.data())
def test_history_of_two_times_is_found(data: st.DataObject) -> None:
    """Genuine records of a chain that was put back and went on another way do not fit together."""
    old = chain_of(data.draw(st.integers(2, 8)))
    place = data.draw(st.integers(0, len(old) - 2))
    after = Mark(place, old[place - 1].link if place else START.link, 0)
    new = CHAIN.extended(after, [entry(100 + number) for number in range(len(old) - place)])
    mixed = [*old[: place + 1], *new[1:]]
    assert (place + 2, Problem.FORKED) in named(verified(mixed, head_of(mixed)))


def test_a_record_beyond_the_mark_is_found() -> None:
    """Who puts an old mark back must remove what came after it, and then it is found by an anchor alone."""
    records = chain_of(5)
    old = head_of(records[:3])
    assert named(verified(records, old)) == [(4, Problem.MARK)]
    assert verified(records[:3], old) == []
    anchors = {5: records[4].link}
    assert named(verified(records[:3], old, anchors=anchors)) == [(5, Problem.ANCHOR)]
    assert verified(records, head_of(records), anchors=anchors) == []
    assert named(verified(records, head_of(records), anchors={5: bytes(32)})) == [(5, Problem.ANCHOR)]


def test_the_newest_record_is_the_marked_one() -> None:
    """Another genuine record in its place is found."""
    records = chain_of(3)
    other = [*records[:2], *CHAIN.extended(Mark(2, records[1].link, 0), [entry(9)])]
    assert named(verified(other, head_of(records))) == [(3, Problem.FORKED)]


def test_another_chain_is_told_from_a_damaged_one() -> None:
    """What was made with another key is said once, not for each record."""
    records = chain_of(3, OTHER)
    assert named(verified(records, head_of(records, OTHER))) == [(0, Problem.FOREIGN_KEY)]


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "null", '{"number": "x"}'])
def test_a_mark_that_is_gone_or_unreadable_is_found(text: str | None) -> None:
    """Without it nobody knows how many records there should be."""
    assert named(verified(chain_of(2), text)) == [(0, Problem.MARK)]


@pytest.mark.parametrize("field", ["number", "link", "at", "mac"])
def test_a_changed_mark_is_found(field: str) -> None:
    """No field of a mark can be changed without the key, nor can one kind stand for another."""
    records = chain_of(2)
    text = head_of(records)
    changed = {
        "number": text.replace('"number": 2', '"number": 1'),
        "link": text.replace(records[1].link.hex(), records[0].link.hex()),
        "at": text.replace(str(NOW), "1.0"),
        "mac": text[:-3] + ('0"}' if text[-3] != "0" else '1"}'),
    }[field]
    assert changed != text
    assert (0, Problem.MARK) in named(verified(records, changed))
    assert CHAIN.read_mark("pruned", text) is None


# --- pruned


@given(st.data())
def test_what_was_pruned_is_not_missing(data: st.DataObject) -> None:
    """The chain verifies from the first record that is left, and only from there."""
    records = chain_of(data.draw(st.integers(2, 12)))
    kept = data.draw(st.integers(1, len(records) - 1))
    last = records[kept - 1]
    pruned = CHAIN.marked("pruned", Mark(last.number, last.link, NOW))
    head = head_of(records)
    assert verified(records[kept:], head, pruned=pruned) == []
    if len(records) - kept > 1:
        found = verified(records[kept + 1 :], head, pruned=pruned)
        assert named(found) == [(kept + 1, Problem.MISSING)]
    assert verified(records[kept - 1 :], head, pruned=pruned) != []
    without = named(verified(records[kept:], head))
    assert without == [(1, Problem.MISSING)]
    changed = named(verified(records[kept:], head, pruned=pruned.replace("at", "as")))
    assert changed == [(0, Problem.MARK)]


def test_anchors_of_what_was_pruned_are_said_not_to_be_checked() -> None:
    """Of the newest pruned record the link is known; of those before nothing is."""
    records = chain_of(5)
    pruned = CHAIN.marked("pruned", Mark(2, records[1].link, NOW))
    anchors = {1: bytes(32), 2: records[1].link, 4: records[3].link}
    verifier = Verifier(CHAIN, head_of(records), pruned, anchors)
    verifier.take(records[2:])
    assert verifier.finish() == []
    assert verifier.unchecked == (1,)
    assert named(verified(records[2:], head_of(records), pruned=pruned, anchors={2: bytes(32)})) == [
        (2, Problem.ANCHOR)
    ]


def test_the_first_break_is_named() -> None:
    """What is about to be pruned is looked at first: its start, its order, its gaps and its links."""
    records = chain_of(4)
    assert CHAIN.first_break(START, records) is None
    assert CHAIN.first_break(START, records[1:]) == 2
    assert CHAIN.first_break(START, [records[0], records[2]]) == 3
    assert CHAIN.first_break(START, [records[0], CHANGES["at"](records[1]), *records[2:]]) == 2
    assert CHAIN.first_break(Mark(1, bytes(32), 0), records[1:]) == 2


def test_a_trail_that_is_all_wrong_fills_no_memory() -> None:
    """Findings are kept to a number, and so is the work to explain them."""
    records = [replace(record, link=bytes(32)) for record in chain_of(1500)]
    assert len(verified(records, head_of(chain_of(1500)))) == 1000


def test_a_key_of_another_length_is_no_key() -> None:
    """A chain is made with 32 bytes or not at all."""
    with pytest.raises(ValueError, match="32 bytes"):
        Chain(b"short")
