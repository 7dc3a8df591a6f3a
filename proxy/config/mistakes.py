"""Mistakes in words: each one line of item, value, rule and remedy. Pure.

A value is shown only where its key is known and not secret, since what stands at a misspelt or misplaced key
may be a secret; and never with the text of a foreign exception, which may quote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from proxy.config.listeners import CallerListener
from proxy.config.secret_refs import CredentialRef, EnvRef, FileRef
from proxy.config.store_url import StoreUrl
from proxy.config.values import Address, Kind, Rule, show_size

Loc = tuple[int | str, ...]


def kind_of(field: FieldInfo) -> Kind:
    """How documents and readers see the type of ``field``."""
    pending: list[Any] = [*field.metadata, field.annotation]
    while pending:
        found = pending.pop(0)
        if isinstance(found, Kind):
            return found
        pending += [*getattr(found, "__metadata__", ()), *get_args(found)]
    return Kind("text")


def dotted(loc: Loc) -> str:
    """``("listen", "hosts", 0)`` as ``listen.hosts[0]``; keys that TOML would quote are quoted."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += "." + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part))
    return text.removeprefix(".")


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of ``model`` in dotted form, in the order of the file."""
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            yield prefix + name
        else:
            yield from keys_of(section, f"{prefix}{name}.")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a table, or an array of tables; ``None`` for a plain key."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def field_at(model: type[BaseModel], loc: Loc) -> FieldInfo | None:
    """The field that ``loc`` leads to; ``None`` where there is none, or where it leads to a table."""
    current: type[BaseModel] | None = model
    field: FieldInfo | None = None
    for part in loc:
        if isinstance(part, int):
            continue
        if current is None:
            break
        field = current.model_fields.get(part)
        current = section_of(field) if field else None
    return None if current is not None else field


def did_you_mean(word: str, known: Mapping[str, str]) -> str:
    """A remedy that names the nearest of ``known`` (what is compared: what is shown)."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {known[near[0]]}?" if near else "remove it"


def toml(value: object) -> str:
    """A setting's value as TOML would have it; ``""`` for ``None``, which TOML has not."""
    match value:
        case None:
            return ""
        case tuple() | list():
            return "[" + ", ".join(toml(each) for each in value) + "]"
        case EnvRef() | FileRef() | CredentialRef():
            return str(value)
        case str() | Path() | Address() | CallerListener() | StoreUrl():
            return json.dumps(str(value))
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return json.dumps(value, default=str)


def default_of(field: FieldInfo) -> str:
    """The default of ``field`` as TOML, sizes with their unit; ``""`` where there is none."""
    if field.is_required():
        return ""
    default: object = field.get_default()
    if isinstance(default, int) and kind_of(field).size:
        return toml(show_size(default))
    if isinstance(default, tuple) and len(default) == 1 and isinstance(default[0], CallerListener):
        return toml(default[0])
    return toml(default)


def shown(value: object, field: FieldInfo) -> str:
    """A mistaken value for a message: short, on one line, without passwords."""
    if kind_of(field).secret or isinstance(value, dict):
        return "…"
    text = re.sub(r"(:?//|:).*@", r"\1…@", toml(value))
    text = re.sub(r"(?<=[?&])([^&=]*pass[^&=]*=)[^&\"]*", r"\1…", text, flags=re.IGNORECASE)
    return text if len(text) <= 80 else text[:79] + "…"


def lines(error: ValidationError, model: type[BaseModel], notes: Mapping[str, str]) -> list[str]:
    """All mistakes that validating ``model`` found.

    ``notes`` tells more of a key and what is below it, such as the environment variable that set it.
    """
    found = []
    for details in error.errors(include_url=False):
        item = dotted(details["loc"])
        note = next((note for key, note in notes.items() if _is_at_or_below(item, key)), "")
        found.append((f"{item} ({note})" if note else item) + _rest(details, model, item))
    return found


def _is_at_or_below(item: str, key: str) -> bool:
    return item == key or item.startswith((f"{key}[", f"{key}."))


def _rest(details: ErrorDetails, model: type[BaseModel], item: str) -> str:
    loc = details["loc"]
    if details["type"] == "extra_forbidden":
        return f": unknown key; {_nearest_key(item, model)}"
    field = field_at(model, loc)
    if field is None:
        return f": {_of_tables(details, model, item)}"
    if details["type"] == "missing":
        return f" is missing: it is required; {_how_to_add(field, item)}"
    rule = _rule(details, field)
    if details["input"] is None:
        return f" is missing: {rule}"
    if not field.is_required() and details["input"] == field.get_default():
        return f" = {default_of(field)} (the default): {rule}"
    return f" = {shown(details['input'], field)}: {rule}"


def _of_tables(details: ErrorDetails, model: type[BaseModel], item: str) -> str:
    """What is wrong with a table as such, or between two."""
    reason = details.get("ctx", {}).get("error")
    if isinstance(reason, Rule):
        return str(reason)
    return f"must be a table; write {_heading(item, model)} with its keys below"


def _nearest_key(item: str, model: type[BaseModel]) -> str:
    keys = list(keys_of(model))
    sections = {
        name: _heading(name, model) for name, field in model.model_fields.items() if section_of(field)
    }
    last = item.rpartition(".")[2]
    elsewhere = next((key for key in keys if key.rpartition(".")[2] == last), None)
    if elsewhere is not None:
        return f"did you mean {elsewhere}?"
    near = did_you_mean(item, {key: key for key in keys} if "." in item else sections)
    return near if near != "remove it" else did_you_mean(last, {key.rpartition(".")[2]: key for key in keys})


def _heading(item: str, model: type[BaseModel]) -> str:
    name = item.partition("[")[0]
    field = model.model_fields.get(name)
    return f"[[{name}]]" if field and get_origin(field.annotation) is tuple else f"[{name}]"


def _how_to_add(field: FieldInfo, item: str) -> str:
    section, _, key = item.rpartition(".")
    value = '{ env = "NAME" }' if kind_of(field).secret else '"…"'
    return f"add {key} = {value}" + (f" to [{section}]" if section.isalpha() else "")


_BOUNDS = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must not be empty",
}


def _rule(details: ErrorDetails, field: FieldInfo) -> str:
    """Rule and remedy. Only texts of this package are passed on, and bounds, which are its own numbers."""
    context = details.get("ctx", {})
    reason = context.get("error")
    if isinstance(reason, Rule):
        return str(reason)
    default = default_of(field)
    remedy = f"remove it for the default {default}" if default else "see config/example.toml"
    if details["type"] in {"literal_error", "enum"}:
        words = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        near = get_close_matches(str(details["input"]), words, n=1, cutoff=0.5)
        rule = "must be " + " or ".join(f'"{word}"' for word in words)
        return f'{rule}; did you mean "{near[0]}"?' if near else f"{rule}; {remedy}"
    bound = _BOUNDS.get(details["type"])
    if bound is not None:
        numbers = {name: toml(value) for name, value in context.items()}
        return f"{bound.format(**numbers)}; {remedy}"
    return f"must have the type {kind_of(field).text!r}; {remedy}"
