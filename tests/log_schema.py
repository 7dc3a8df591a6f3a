"""The JSON Schema of the log's lines, made of the facts and of what ``docs/logs.md`` says of their fields."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonschema import Draft202012Validator

from proxy.facts import Fact

SCHEMA = Path(__file__).parent.parent / "docs" / "log-schema.json"
_LOGS = SCHEMA.with_name("logs.md")
_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
_TIMESTAMP = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"


def render() -> str:
    """The whole file."""
    kinds = {fact.event: fact for fact in Fact.__subclasses__()}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of pleo-proxy's log",
        "description": "One object a line on standard output, with log.format = json; see docs/logs.md.",
        "oneOf": [{"$ref": f"#/$defs/{event}"} for event in kinds],
        "$defs": {event: _event(fact) for event, fact in kinds.items()},
    }
    return json.dumps(schema, indent=2) + "\n"


def _event(fact: type[Fact]) -> dict[str, Any]:
    said = _said(fact)
    hints = get_type_hints(fact)
    own = {}
    for field in fields(fact):
        own[field.name] = _type(hints[field.name])
        if said.get(field.name):
            own[field.name]["description"] = said[field.name]
    common = {
        "timestamp": {"type": "string", "pattern": _TIMESTAMP, "description": "ISO 8601, UTC."},
        "level": {"const": fact.level},
        "event": {"const": fact.event},
    }
    worker = {"worker": {"type": "integer", "minimum": 0, "description": "Where several serve, which one."}}
    return {
        "type": "object",
        "properties": {**common, **worker, **own},
        "required": [*common, *own],
        "additionalProperties": False,
    }


def _type(hint: Any) -> dict[str, Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, UnionType):
        return _either([_type(one) for one in inner])
    if origin is tuple:
        return {"type": "array", "items": _type(inner[0])}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [member.value for member in hint]}
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        inner_types = {field.name: _type(hints[field.name]) for field in fields(hint)}
        return {
            "type": "object",
            "properties": inner_types,
            "required": list(inner_types),
            "additionalProperties": False,
        }
    return {"type": _SCALARS[hint]}


def _either(kinds: list[dict[str, Any]]) -> dict[str, Any]:
    if all(kind.keys() == {"type"} for kind in kinds):
        return {"type": [kind["type"] for kind in kinds]}
    return {"anyOf": kinds}


def _said(fact: type[Fact]) -> dict[str, str]:
    """What the page says of each field, without its marks."""
    _, _, after = _LOGS.read_text().partition(f"### `{fact.event}` ({fact.level})\n")
    section = re.split(r"^#", after, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| ?(.*?) ?\|$", section, re.MULTILINE)
    return {name: re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("`", "") for name, text in rows}


@cache
def _validators() -> dict[str, Draft202012Validator]:
    definitions = json.loads(SCHEMA.read_text())["$defs"]
    return {event: Draft202012Validator(schema) for event, schema in definitions.items()}


_seen: set[tuple[object, ...]] = set()


def check(line: dict[str, Any]) -> None:
    """Hold one line to the schema; fails with what is wrong with it."""
    # Thousands of lines differ in nothing that the schema looks at; where it names values, these count.
    named = _validators()[line["event"]].schema["properties"]
    shape = tuple(
        (key, value if named.get(key, {}).keys() & {"enum", "const", "anyOf"} else _kind(value))
        for key, value in line.items()
        if key != "timestamp"
    )
    if shape in _seen and re.fullmatch(_TIMESTAMP, line["timestamp"]):
        return
    wrong = [error.message for error in _validators()[line["event"]].iter_errors(line)]
    assert not wrong, (line, wrong)
    _seen.add(shape)


def _kind(value: object) -> object:
    return (list, *map(type, value)) if isinstance(value, list) else type(value)
