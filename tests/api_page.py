"""``docs/openapi.json`` and ``docs/api.md``: the operations for programs, as a document and for readers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import orjson

from proxy.admin import all_operations, openapi
from proxy.admin.operations import JSON, Operation

DESCRIPTION = Path(__file__).parent.parent / "docs" / "openapi.json"
PAGE = DESCRIPTION.with_name("api.md")
ADMIN_URL = "http://127.0.0.1:8081"
_HEAD = """\
# JSON API

<!-- Made from the operations themselves; to make it anew: .venv/bin/python -m tests.test_documents -->

{about}

[`openapi.json`](openapi.json) says all of this for machines (OpenAPI 3.1); a running proxy answers with the
same at `GET /api/v1/openapi.json`. The examples take the token from the environment, and go to `listen.admin`
as it is by default. Beside what stands under each operation there are
[refusals of all](#refusals-of-all-operations).

| operation | role | |
|---|---|---|
"""


def description() -> dict[str, Any]:
    """The OpenAPI document of all operations."""
    return openapi.document(all_operations())


def render_description() -> str:
    """The whole of ``docs/openapi.json``."""
    return orjson.dumps(description(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def render_page() -> str:
    """The whole of ``docs/api.md``."""
    document, all_ = description(), all_operations()
    parts = [_HEAD.format(about=document["info"]["description"])]
    for operation in all_:
        anchor = heading(operation).strip("`").lower().translate({ord(char): None for char in "/{}."})
        link = f"[{heading(operation)}](#{anchor.replace(' ', '-')})"
        parts[0] += f"| {link} | {operation.role or 'none'} | {operation.summary} |\n"
        shown = document["paths"][operation.path][operation.method.lower()]
        parts.append(_section(operation, shown))
    parts.append("## Refusals of all operations\n")
    rows = [
        f"| {status} | {told['description']} | {', '.join(_of(status, all_))} |"
        for status, told in document["components"]["responses"].items()
    ]
    parts.append("\n".join(["| status | when | of |", "|---|---|---|", *rows]) + "\n")
    parts.append("## Types\n")
    parts += [_type(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(parts)


def heading(operation: Operation[Any, Any]) -> str:
    """Under which the page has an operation."""
    return f"`{operation.method} {operation.path}`"


def curl(operation: Operation[Any, Any]) -> str:
    """A line to try it with."""
    words = ["curl", "-N"] if operation.media_type == "text/event-stream" else ["curl"]
    if operation.method != "GET":
        words += ["-X", operation.method]
    if operation.role is not None:
        words.append('-H "Authorization: Bearer $PLEO_PROXY_ADMIN_TOKEN"')
    words.append(ADMIN_URL + operation.path.format(tenant="acme"))
    if operation.has_body:
        body = {
            name: field.examples[0] for name, field in operation.asks.model_fields.items() if field.examples
        }
        words += [f"-H 'Content-Type: {JSON}'", "-d", shlex.quote(json.dumps(body))]
    return " ".join(words)


def _section(operation: Operation[Any, Any], shown: dict[str, Any]) -> str:
    said = f"{operation.summary}. {operation.description}".strip()
    role = "For everyone." if operation.role is None else f"Takes the role {operation.role}."
    parts = [f"## {heading(operation)}\n", f"{said} {role}\n"]
    if shown.get("parameters"):
        rows = [f"| `{one['name']}` | {one['in']} | {one['description']} |" for one in shown["parameters"]]
        parts.append("\n".join(["| parameter | in | meaning |", "|---|---|---|", *rows]) + "\n")
    if operation.has_body:
        parts.append(f"The body is JSON: {_kind(shown['requestBody']['content'][JSON]['schema'])}.\n")
    parts.append(f"```sh\n{curl(operation)}\n```\n")
    own = {status: told for status, told in shown["responses"].items() if "$ref" not in told}
    rows = [_answer(status, told) for status, told in sorted(own.items())]
    parts.append("\n".join(["| status | body | when |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _of(status: str, all_: list[Operation[Any, Any]]) -> list[str]:
    """Which operations a refusal is common to."""
    having = [one for one in all_ if int(status) in openapi.common_refusals(one)]
    if len(having) == len(all_):
        return ["all"]
    if having == [one for one in all_ if one.role is not None]:
        return ["all that take a role"]
    return [f"`{one.method} {one.path}`" for one in having]


def _answer(status: str, told: dict[str, Any]) -> str:
    ((media_type, content),) = told["content"].items()
    kind = _kind(content["schema"]) if media_type != "text/plain" else "text"
    return f"| {status} | {kind} | {told['description']} |"


def _type(name: str, schema: dict[str, Any]) -> str:
    parts = [f"### `{name}`\n", f"{schema.get('description', '').replace(chr(10), ' ')}\n"]
    if "enum" in schema:
        parts.append(f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.\n")
    else:
        members = schema["properties"].items()
        rows = [f"| `{key}` | {_kind(told)} | {_meaning(told)} |" for key, told in members]
        parts.append("\n".join(["| member | type | meaning |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _meaning(schema: dict[str, Any]) -> str:
    inner = [one["description"] for one in schema.get("anyOf", []) if "description" in one]
    return str(schema.get("description", inner[0] if inner else ""))


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    match schema:
        case {"$ref": ref}:
            name = ref.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": kinds}:
            return " or ".join(map(_kind, kinds))
        case {"enum": values} | {"const": values}:
            return " or ".join(f"`{value}`" for value in ([values] if isinstance(values, str) else values))
        case {"type": "array", "items": items}:
            return f"list of {_kind(items)}"
        case {"type": kind}:
            return str(kind)
        case _:
            return "anything"
