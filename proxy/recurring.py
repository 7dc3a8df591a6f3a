"""What callers repeat is worked out once; what they never repeat costs hardly more for it.

A memory of the latest questions alone would be filled, and emptied, by a tool that sends another number with
each request. So an answer is kept when its question comes the second time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_Question = TypeVar("_Question", bound=Hashable)
_Answer = TypeVar("_Answer")


class Recurring(Generic[_Question, _Answer]):
    """The answers of a pure function.

    :param answer: gets the question, and whether its answer is going to be kept. What it raises is not kept.
    :param most: how many answers are kept; all of them are dropped when one more comes.
    """

    __slots__ = ("_answer", "_known", "_most", "_seen")

    def __init__(self, answer: Callable[[_Question, bool], _Answer], most: int) -> None:
        self._answer = answer
        self._most = most
        self._known: dict[_Question, _Answer] = {}
        self._seen: set[int] = set()
        """Hashes of questions that came once. Two with one hash cost an answer kept early, no wrong one."""

    def __call__(self, question: _Question) -> _Answer:
        """The answer."""
        known = self._known.get(question)
        return self._ask(question) if known is None else known

    def _ask(self, question: _Question) -> _Answer:
        mark = hash(question)
        recurs = mark in self._seen
        answer = self._answer(question, recurs)
        if recurs:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[question] = answer
        else:
            if len(self._seen) >= 8 * self._most:
                self._seen.clear()
            self._seen.add(mark)
        return answer
