"""The tables of ``docs/conformance.md``: each row is shown by a test, argued away, or owned up to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.test_house_rules import ROOT, checks_in

PAGE = (ROOT / "docs" / "conformance.md").read_text()
LIMITS = (ROOT / "docs" / "limits.md").read_text()
COLUMNS = ["section", "asks", "met by", "shown by"]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


class Row(NamedTuple):
    """One requirement."""

    rfc: str
    section: str
    asks: str
    met_by: str
    shown_by: str


def rows(text: str) -> Iterator[Row]:
    """The rows of all tables, with the RFC of the heading that they stand under."""
    rfc = ""
    for line in text.splitlines():
        if line.startswith("#"):
            rfc = (re.findall(r"RFC (\d+)", line) or [""])[0]
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells != COLUMNS:
            assert len(cells) == len(COLUMNS), line
            yield Row(rfc, *cells)


ROWS = list(rows(PAGE))


def is_settled(row: Row) -> bool:
    """A test shows it, or the row says that it does not apply."""
    return bool(_TEST.search(row.shown_by)) or row.shown_by.startswith("Does not apply")


def departs(row: Row) -> bool:
    return "Departs" in row.shown_by


def test_the_tables_are_read() -> None:
    """Both kinds of requirements are there in number, so that a slip of the editor hides no table."""
    counts = {rfc: sum(row.rfc == rfc for row in ROWS) for rfc in ("9700", "9110", "9112")}
    assert counts["9700"] >= 40
    assert counts["9110"] >= 50
    assert counts["9112"] >= 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.rfc}-{row.section}")
def test_each_requirement_is_met_or_argued(row: Row) -> None:
    """No cell is empty, and the last names a test that exists, or says why there is none."""
    assert all(row)
    assert is_settled(row) or departs(row)
    for file, name in _TEST.findall(row.shown_by):
        assert name in {check.name for check in checks_in(ROOT / file)}, f"{file}::{name}"


def test_departures_are_owned_up_to() -> None:
    """Each row that departs from its RFC is named by RFC and section among the limits, and no other is."""
    section = LIMITS.partition("## Departures from the RFCs\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"RFC (\d+)\s+section ([\d.]*\d)", section))
    assert named == {(row.rfc, row.section) for row in ROWS if departs(row)}


def test_a_row_that_shows_nothing_is_seen() -> None:
    """A requirement without a test and without an argument does not pass for one that is met."""
    bad = Row("9110", "1", "be good", "trying", "see the code")
    assert not is_settled(bad)
    assert not departs(bad)


# --- the threat model

THREATS = (ROOT / "docs" / "threat-model.md").read_text()
THREAT_COLUMNS = ["", "threat", "what is done", "shown by"]


def threats(text: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of the tables of threats, with the boundary that they stand under."""
    boundary = ""
    for line in text.splitlines():
        if line.startswith("## "):
            boundary = line[3:]
        cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split(" | ")]
        if re.match(r"\| [STRIDE] \| ", line):
            assert len(cells) == len(THREAT_COLUMNS), line
            yield boundary, cells


THREAT_ROWS = list(threats(THREATS))


@pytest.mark.parametrize(("boundary", "cells"), THREAT_ROWS, ids=lambda value: str(value)[:50])
def test_each_threat_has_a_test(boundary: str, cells: list[str]) -> None:
    """No cell is empty, and the last names tests that exist."""
    assert boundary[0].isdigit()
    assert all(cells)
    named = _TEST.findall(cells[-1])
    assert named, cells
    for file, name in named:
        assert name in {check.name for check in checks_in(ROOT / file)}, f"{file}::{name}"


def test_each_boundary_is_gone_through() -> None:
    """Every boundary of the picture has its table, and those with a service have all kinds of threats."""
    kinds: dict[str, set[str]] = {}
    for boundary, cells in THREAT_ROWS:
        kinds.setdefault(boundary[0], set()).add(cells[0])
    assert sorted(kinds) == [str(number) for number in range(1, 8)]
    assert all(kinds[number] == set("STRIDE") for number in "1345")
    assert len(THREAT_ROWS) > 60
