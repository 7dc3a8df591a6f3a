"""Code blocks of README and tutorial are run, each by a test; where there is no way, it is said why."""

from __future__ import annotations

import re

import pytest

from tests.command import ROOT
from tests.test_house_rules import checks_in
from tests.walkthrough import _LEFT_OUT, _SET_UP, PAGE, blocks, same, walked

README = ROOT / "README.md"
RUN = {
    "How callers say which tenant they are": "test_documents.py::test_the_five_ways_to_name_a_tenant",
    "Connect the first real tenant, on staging": "test_documents.py::test_the_first_real_tenant",
    "What a refusal looks like": "test_documents.py::"
    "test_a_tenant_that_was_never_connected_gets_the_readmes_example",
}
"""Headings of the README, and what runs every block below them."""
RUN_ELSEWHERE = {
    "pleo-proxy demo: a simulated Pleo": "test_documents.py::test_the_demos_lines_are_quoted",
}
"""Single blocks, by how they begin."""
NOT_RUN = {
    "make run ": "`make test` is what runs this; `make run` starts the demo, which test_process.py starts",
    "# before: fetch a token": "nobody has the first command; the second is the first of five ways",
    " legacy tool ": "a picture",
}
"""What no test runs, by how it begins, and why."""


def below(heading: str, page: str) -> list[str]:
    """The texts of the blocks under a heading, up to the next one."""
    fenced = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    # A comment in a block looks like a heading, and is none.
    bare = fenced.sub(lambda block: re.sub(r"(?m)^#", "\0", block[0]), page)
    _, _, rest = bare.partition(f"## {heading}\n")
    part = re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0].replace("\0", "#")
    return [found["text"] for found in blocks(part)]


def test_every_block_of_the_readme_is_run_or_it_is_said_why_not() -> None:
    """Each block stands under a heading whose blocks a test runs, or begins as one that is accounted for."""
    page = README.read_text()
    run = [text for heading in RUN for text in below(heading, page)]
    assert all(below(heading, page) for heading in RUN)
    known = (*RUN_ELSEWHERE, *NOT_RUN)
    unknown = [
        found["text"]
        for found in blocks(page)
        if found["text"] not in run and not found["text"].startswith(known)
    ]
    assert unknown == [], "have a test run it, or say here why none can"
    texts = [found["text"] for found in blocks(page)]
    assert [start for start in known if not any(text.startswith(start) for text in texts)] == []


@pytest.mark.parametrize("named", sorted({*RUN.values(), *RUN_ELSEWHERE.values()}))
def test_what_runs_a_block_is_there(named: str) -> None:
    """The tests that are named above exist."""
    file, _, name = named.partition("::")
    assert name in {check.name for check in checks_in(ROOT / "tests" / file)}


def test_a_new_block_is_seen() -> None:
    """The reader of blocks finds those of a heading, ends at the next, and takes no comment for one."""
    page = "## A\n\n```sh\n# not a heading\none\n```\n\n```json\n{}\n```\n\n## B\n\n```sh\ntwo\n```\n"
    assert below("A", page) == ["# not a heading\none\n", "{}\n"]
    assert below("B", page) == ["two\n"]


async def test_the_tutorial_works_as_it_stands() -> None:
    """Its commands are run in order, with real servers, and print what it shows."""
    page = PAGE.read_text()
    now, ran = await walked(page)
    assert same(now) == same(page), "make it anew: .venv/bin/python -m tests.walkthrough"
    shown = [
        line for found in blocks(page) if found["language"] == "sh" for line in found["text"].splitlines()
    ]
    # What was not run is what sets this up.
    assert [line for line in shown if line not in ran] == [_SET_UP]
    assert set(_LEFT_OUT) < set(shown)


def test_the_tutorial_takes_ten_minutes() -> None:
    """It has few enough commands, and a word of each step's reading, for a person's ten minutes.

    By 200 words a minute, and 15 s for each command and each thing to do in a browser or an editor.
    """
    page = PAGE.read_text().partition("## What is different")[0]
    commands = [
        line for found in blocks(page) if found["language"] == "sh" for line in found["text"].splitlines()
    ]
    words = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL).split()
    setting_up_s, by_hand = 120, 3
    assert setting_up_s + 15 * (len(commands) + by_hand) + 60 * len(words) / 200 < 600
