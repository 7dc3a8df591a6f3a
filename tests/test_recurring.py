"""The memory of what callers repeat: nothing wrong, nothing large, and nothing lost to what comes once."""

from __future__ import annotations

import pytest

from proxy.recurring import Recurring


def test_an_answer_is_kept_from_the_second_time_on() -> None:
    """What comes once is worked out and forgotten; what recurs is worked out twice in all."""
    asked: list[tuple[str, bool]] = []

    def answer(question: str, recurs: bool) -> str:
        asked.append((question, recurs))
        return question.upper()

    memory = Recurring(answer, 10)
    assert [memory(question) for question in "abaaab"] == list("ABAAAB")
    assert asked == [("a", False), ("b", False), ("a", True), ("b", True)]


def test_what_comes_once_drives_nothing_out() -> None:
    """A flood of questions that never recur leaves the answers where they are."""
    asked: list[int] = []

    def answer(question: int, _recurs: bool) -> int:
        asked.append(question)
        return question

    memory = Recurring(answer, 4)
    for question in (1, 1, *range(100, 1000), 1):
        assert memory(question) == question
    assert asked.count(1) == 2
    assert len(memory._seen) <= 32


def test_the_memory_is_bounded() -> None:
    """More questions that recur than there is room for make it begin anew."""

    def answer(question: int, _recurs: bool) -> int:
        return question

    memory = Recurring(answer, 4)
    for question in range(100):
        assert memory(question) == memory(question) == question
        assert len(memory._known) <= 4


def test_a_refusal_is_not_kept() -> None:
    """What raised once is asked again."""

    def answer(question: str, _recurs: bool) -> str:
        raise ValueError(question)

    memory = Recurring(answer, 4)
    for _ in range(3):
        with pytest.raises(ValueError, match="a"):
            memory("a")
    assert not memory._known
