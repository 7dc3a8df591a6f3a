"""Settings from environment variables: ``PLEO_PROXY__SECTION__KEY``, which wins over the file. Pure.

A list is JSON, or separated by commas. A secret is the text itself, a reference in JSON or TOML, or one more
part in the name: ``PLEO_PROXY__PLEO__CLIENT_SECRET__FILE=PATH``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from proxy.config.mistakes import did_you_mean, field_at, keys_of, kind_of
from proxy.config.values import Kind, Rule

PREFIX = "PLEO_PROXY__"
REFERENCES = ("env", "file", "credential")


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """What the environment sets, by dotted key."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """Which variable set the key."""
    mistakes: list[str] = field(default_factory=list)


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return PREFIX + key.replace(".", "__").upper()


def read_environment(model: type[BaseModel], environ: Mapping[str, str]) -> FromEnvironment:
    """All settings of ``model`` that ``environ`` holds, and all mistakes in names and forms of variables."""
    known = _variables(model)
    result = FromEnvironment()
    for name in sorted(name for name in environ if name.upper().startswith(PREFIX)):
        if name not in known:
            near = did_you_mean(name.upper(), {each: each for each in known if each != name})
            result.mistakes.append(f"{name}: unknown variable; {near}")
            continue
        key, reference, kind = known[name]
        if key in result.origins:
            result.mistakes.append(
                f"{key}: set by both {result.origins[key]} and {name}; remove one of the two variables"
            )
            continue
        try:
            value = environ[name] if reference else _value(environ[name], kind)
        except Rule as rule:
            result.mistakes.append(f"{key} (from {name}): {rule}")
            continue
        result.origins[key] = name
        result.values[key] = {reference: value} if reference else value
    return result


def _variables(model: type[BaseModel]) -> dict[str, tuple[str, str, Kind]]:
    """Every variable there is: the key it sets, the kind of reference in its name, the kind of its value."""
    known: dict[str, tuple[str, str, Kind]] = {}
    for key in keys_of(model):
        found = field_at(model, tuple(key.split(".")))
        kind = kind_of(found) if found else Kind("text")
        known[variable(key)] = (key, "", kind)
        if kind.secret:
            known |= {variable(f"{key}.{each}"): (key, each, kind) for each in REFERENCES}
    return known


def _value(text: str, kind: Kind) -> object:
    stripped = text.strip()
    # "[::1]:8080" is an address, so a list must close its bracket too.
    is_structure = (stripped[:1], stripped[-1:]) in {("[", "]"), ("{", "}")}
    if (kind.many or kind.secret) and is_structure:
        return _structure(stripped)
    if kind.many:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _structure(text: str) -> object:
    """A list or table in JSON or TOML; the parsers' own texts are dropped, since they may quote a secret."""
    try:
        parsed: object = json.loads(text)
    except ValueError:
        try:
            parsed = tomllib.loads(f"value = {text}")["value"]
        except ValueError:
            raise Rule("neither JSON nor TOML; check brackets, quotes and commas") from None
    return parsed
