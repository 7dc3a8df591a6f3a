"""``docs/log-schema.json`` describes every line of the log, and nothing else."""

from __future__ import annotations

import io
import json
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from jsonschema import Draft202012Validator

from proxy.facts import Fact, RequestFinished
from proxy.telemetry.logs import LogSink
from tests import log_schema
from tests.harness import Proxy

# By name, since the class that a dataclass with slots was made of lives on until it is collected.
FACTS = list({fact.event: fact for fact in Fact.__subclasses__()}.values())
DOCUMENT: dict[str, Any] = json.loads(log_schema.SCHEMA.read_text())
WHOLE = Draft202012Validator(DOCUMENT)


def sample(hint: Any, *, full: bool) -> Any:
    """A value of a type: everything that may be there, or as little as can be."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return inner[-1 if full else 0]
    if origin is tuple:
        return tuple(sample(inner[0], full=full) for _ in range(2)) if full else ()
    if inner:
        if not full and NoneType in inner:
            return None
        return sample(next(one for one in inner if one is not NoneType), full=full)
    return sample_of(hint, full=full)


def sample_of(kind: Any, *, full: bool) -> Any:
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        values = {field.name: sample(hints[field.name], full=full) for field in fields(kind)}
        return kind(**values)  # type: ignore[operator] # it is a class
    if issubclass(kind, Enum):
        return list(kind)[-1 if full else 0]
    return {str: "text", int: 7, float: 1.5, bool: full}[kind]


def line_of(kind: type[Fact], *, full: bool, worker: int | None = None) -> dict[str, Any]:
    hints = get_type_hints(kind)
    stream = io.BytesIO()
    sink = LogSink(stream, log_format="json", level="debug", worker=worker)
    sink(kind(**{field.name: sample(hints[field.name], full=full) for field in fields(kind)}))
    sink.flush()
    parsed: dict[str, Any] = json.loads(stream.getvalue())
    return parsed


def test_the_schema_is_up_to_date() -> None:
    """It is what the facts and the page about them make."""
    assert log_schema.SCHEMA.read_text() == log_schema.render(), (
        "make it anew: .venv/bin/python -m tests.test_documents"
    )


def test_the_schema_is_one() -> None:
    """A validator takes it, and it has every event once."""
    Draft202012Validator.check_schema(DOCUMENT)
    assert list(DOCUMENT["$defs"]) == [kind.event for kind in FACTS]
    assert [one["$ref"] for one in DOCUMENT["oneOf"]] == [f"#/$defs/{kind.event}" for kind in FACTS]


@pytest.mark.parametrize("full", [True, False], ids=["all-said", "little-said"])
@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.event)
def test_every_facts_line_is_valid(kind: type[Fact], full: bool) -> None:
    """Of one process and of a worker; and no line is valid with a field more, or one less."""
    one = Draft202012Validator(DOCUMENT["$defs"][kind.event])
    for line in (line_of(kind, full=full), line_of(kind, full=full, worker=3)):
        assert WHOLE.is_valid(line)
        assert not one.is_valid(line | {"surprise": 1})
        for name in line.keys() - {"worker"}:
            assert not one.is_valid({key: value for key, value in line.items() if key != name})


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.event)
def test_the_schema_says_what_fields_mean(kind: type[Fact]) -> None:
    """Almost every field has the sentence of the page; a tenant needs none."""
    properties = DOCUMENT["$defs"][kind.event]["properties"]
    bare = {field.name for field in fields(kind) if not properties[field.name].get("description")}
    assert bare <= {"tenant"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", "200"), ("retried", 1), ("tenant", 5), ("level", "warning"), ("timestamp", "yesterday")],
)
def test_a_line_that_is_not_valid_is_seen(name: str, value: object) -> None:
    """What holds the whole suite's lines to the schema finds a wrong one, also after many right ones."""
    line = line_of(RequestFinished, full=True)
    for _ in range(2):
        log_schema.check(line)
    with pytest.raises(AssertionError):
        log_schema.check(line | {name: value})


async def test_lines_of_a_running_proxy_are_valid(proxy: Proxy) -> None:
    """Answers, refusals and refreshes of a whole proxy; the harness does the same for every other test."""
    assert (await proxy.get("/acme/v2/employees")).status == 200
    assert (await proxy.get("/nobody/v2/employees")).status == 404
    proxy.pleo.revoke_access("acme")
    assert (await proxy.get("/acme/v2/employees")).status == 200
    lines = proxy.lines()
    assert {"request.finished", "token.refreshed", "grant.connected"} <= {line["event"] for line in lines}
    for line in lines:
        assert WHOLE.is_valid(line), line
