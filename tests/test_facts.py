"""Facts: no secret has a place in one, and each has a name of its own."""

from __future__ import annotations

import pickle
import re
from dataclasses import fields

import pytest

from proxy import facts
from proxy.facts import Fact
from proxy.model import Secret
from proxy.places import innermost_place

PLANTED = "a planted text"

FACTS = [
    fact
    for fact in vars(facts).values()
    if isinstance(fact, type) and issubclass(fact, Fact) and fact is not Fact
]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.event)
def test_facts_hold_no_secret(fact: type[Fact]) -> None:
    """No fact has a field for a secret, sealed or not, since every fact ends up in a log."""
    assert all(str(field.type) not in ("Secret", "Sealed", "Grant") for field in fields(fact))


def test_event_names_are_unique() -> None:
    """One event name stands for one kind of fact."""
    events = [fact.event for fact in FACTS]
    assert len(events) == len(set(events)) > 10


def test_innermost_place_tells_where_and_nothing_else() -> None:
    """A crash is told by file and line of this package, and by no text of the exception."""
    with pytest.raises(TypeError) as caught:
        pickle.dumps(Secret(PLANTED))
    assert re.fullmatch(r"model\.py:\d+", innermost_place(caught.value))
    assert innermost_place(ValueError(PLANTED)) == "outside the package"
