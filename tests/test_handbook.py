"""The twelve questions of the handbook: each has a command, and each command prints what the page shows."""

from __future__ import annotations

import re

from tests.handbook import ANSWER, PAGE, answered, timeless


async def test_the_answers_are_what_the_commands_print() -> None:
    """Beside a proxy to which things happened, every command of the page prints what stands below it."""
    page = PAGE.read_text()
    assert timeless(await answered(page)) == timeless(page), (
        "make it anew: .venv/bin/python -m tests.handbook"
    )


def test_each_of_twelve_questions_has_one_command_and_an_answer() -> None:
    """Twelve headings are questions, with one command that has an output of at least one line."""
    _, *sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    assert len(sections) == 12
    for section in sections:
        assert section.partition("\n")[0].endswith("?")
        (answer,) = ANSWER.finditer(section)
        assert answer["output"].strip(), section
        assert section.count("```sh\n") == 1, "a command that the test would not run"


def test_what_differs_between_runs_is_left_aside_and_nothing_else() -> None:
    """Instants, durations, ids, ports and widths are no difference; words, numbers and statuses are."""
    shown = "2  2026-11-26T17:04:49+00:00  acme 503  4.6 ms  proxy:5b57c0f40e030e1b/0  127.0.0.1:15408\n"
    later = "31 2026-11-27T01:14:40+00:00 acme 503 12 ms proxy:aa57c0f40e030e1b/0 127.0.0.1:8081\n"
    assert timeless(shown) == timeless(later)
    for word, other in (("acme", "globex"), ("503", "502"), ("/0", "/0 x")):
        assert timeless(shown) != timeless(later.replace(word, other))
    assert timeless("12     10.20.0.7  2026-11-26T17:04:49.8Z") != timeless(
        "13     10.20.0.7  2026-11-26T17:04:49.8Z"
    )
