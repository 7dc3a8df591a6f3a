"""The recipes of ``docs/logs.md`` ask for fields that there are, and find what they are for."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from itertools import groupby
from pathlib import Path

import pytest

from proxy.facts import Fact, GrantNeedsReauth, RefreshFailed, RequestFinished
from proxy.model import Outcome
from proxy.telemetry.logs import LogSink
from tests.harness import Proxy
from tests.test_documents import blocks, commands

LOGS = Path(__file__).parent.parent / "docs" / "logs.md"
FIELDS = {field.name for kind in Fact.__subclasses__() for field in fields(kind)}
EVENTS = {kind.event for kind in Fact.__subclasses__()}
COMMON = {"timestamp", "level", "event"}
RARE = (
    RequestFinished(
        "c65805841e5b6f69ecf0c72d51d7fe22", "acme", "GET", "/acme/v1", 429, "answered", 429, 2000.0, 1200.0
    ),
    RefreshFailed("acme", 3, "expired", Outcome.UNAVAILABLE, "http_503", 3.0, 1.0),
    GrantNeedsReauth("acme", 3, "invalid_grant"),
)
"""What an ordinary run does not bring, and the recipes look for."""


def programs() -> Iterator[list[str]]:
    """The options and the program of each call of jq, without the file."""
    for block in blocks(LOGS):
        for line in commands(block) if block.language == "sh" else ():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            for is_operator, words in groupby(lexer, key=lambda word: set(word) <= set(";&|()<>")):
                call = [word for word in words if word != "proxy.log"]
                if not is_operator and call[0] == "jq":
                    yield call[1:]


def queries() -> Iterator[str]:
    """The LogQL of the page."""
    yield from (block.text.strip() for block in blocks(LOGS) if block.language == "logql")


PROGRAMS = list(programs())
QUERIES = list(queries())


def test_recipes_are_found() -> None:
    """For each way of keeping a log there are some."""
    assert len(PROGRAMS) >= 12
    assert len(QUERIES) >= 5


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda call: call[-1][:60])
def test_a_program_asks_for_fields_and_events_that_there_are(program: list[str]) -> None:
    """A field that was renamed makes a recipe that finds nothing, and says nothing."""
    text = program[-1]
    asked = set(re.findall(r"(?<![\w)\"])\.([a-z_]+)", text))
    asked |= {name.strip() for taken in re.findall(r"\{([^}]*)\}", text) for name in taken.split(",")}
    assert asked
    assert asked <= FIELDS | COMMON
    assert set(re.findall(r'\.event == "([^"]*)"', text)) <= EVENTS


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_loki_asks_for_fields_and_events_that_there_are(query: str) -> None:
    """What it compares, unwraps and groups by is in the lines."""
    pipeline = re.sub(r"\{[^}]*\}", "", query)
    asked = set(re.findall(r"\b([a-z_]+)\s*(?:=~|!=|>=|<=|=|>|<)", pipeline))
    asked |= set(re.findall(r"\bunwrap ([a-z_]+)", pipeline))
    asked |= {
        name.strip() for group in re.findall(r"\bby \(([^)]*)\)", pipeline) for name in group.split(",")
    }
    assert asked or "| json" in query
    assert asked <= FIELDS | COMMON
    assert set(re.findall(r'\bevent="([^"]*)"', query)) <= EVENTS
    assert re.findall(r"\{([^}]*)\}", query) == ['job="pleo-proxy"']
    assert query.count("(") == query.count(")")


async def test_every_program_finds_what_it_is_for(proxy: Proxy) -> None:
    """Over the log of a run, a line that is none in its midst, each has something to say and no complaint."""
    assert (await proxy.get("/acme/v2/employees")).status == 200
    assert (await proxy.get("/nobody/v2/employees")).status == 404
    proxy.pleo.revoke_access("acme")
    assert (await proxy.get("/acme/v2/employees")).status == 200
    rare = io.BytesIO()
    sink = LogSink(rare, log_format="json", level="info")
    for fact in RARE:
        sink(fact)
    sink.flush()
    lines = [json.dumps(line) for line in proxy.lines()] + rare.getvalue().decode().splitlines()
    found = {program[-1]: found_by(program, lines) for program in PROGRAMS}
    assert [text for text, output in found.items() if not output] == []


def found_by(program: list[str], lines: list[str]) -> str:
    jq = shutil.which("jq")
    if jq is None:  # as above, the fields that it asks for are checked all the same
        return "not run"
    noise = ["Admin token, shown this once: not-json"] if "R" in program[0] else []
    done = subprocess.run(
        [jq, *program], input="\n".join([*noise, *lines]), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), program
    return done.stdout
