"""``GET /api/v1/openapi.json``: the operations as an OpenAPI 3.1 document, made of their declarations.

Pure but for the one handler. For everyone, as the pages about refusals are: it says what the code says, and
nothing of this installation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue

from proxy import __version__
from proxy.admin.access import CSRF_HEADER, SESSION_COOKIE
from proxy.admin.operations import JSON, Operation, adapter_of
from proxy.admin.shapes import Nothing, Problem
from proxy.admin.sites import SAFE
from proxy.model import TENANT_NAME, Role

PATH = "/api/v1/openapi.json"
PROBLEM_JSON = "application/problem+json"
_REFERENCE = "#/components/schemas/{model}"
_OF_ALL = {
    400: "A parameter, the body or the `Host` is not as it should be; the detail says which.",
    421: "It was sent to a name that is not the proxy's.",
}
_OF_GUARDED = {
    401: "No token and no session, or a wrong one.",
    403: "The role does not suffice, or a page of another site sent it.",
    429: "Too many wrong tokens came, so that none is looked at; `Retry-After` says for how long.",
    503: "The store is not available.",
}
_OF_BODIES = {
    408: "The body did not come in time.",
    413: "The body is larger than 64 KiB.",
    415: "The body is not said to be `application/json`.",
}
_FIELDS = {401: "WWW-Authenticate", 429: "Retry-After"}
_ABOUT = """\
What operators see and do, for programs. They send an admin token as bearer; pages of the proxy's own use
their session, and with all but GET the token of its forms. The role viewer sees everything, the role operator
changes things too. Where there is GET, there is HEAD. Refusals are problem documents (RFC 9457)."""
_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "`admin.token` or `admin.viewer_token`.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": f"What the login gives. Over https the cookie is `__Host-{SESSION_COOKIE}`.",
    },
    "form": {
        "type": "apiKey",
        "in": "header",
        "name": CSRF_HEADER,
        "description": "The token of the session's forms, with all but GET and HEAD.",
    },
}

Operations = Sequence[Operation[Any, Any]]


def describing(others: Operations) -> Operation[Any, Any]:
    """The operation that answers with the document of all ``others``, and of itself."""

    @cache
    def made() -> dict[str, Any]:
        return document([*others, operation])

    async def show(_request: web.Request, _: Nothing) -> dict[str, Any]:
        return made()

    operation: Operation[Any, Any] = Operation(
        id="showDescription",
        method="GET",
        path=PATH,
        role=None,
        summary="Show this description",
        handler=show,
        answer=dict[str, Any],
    )
    return operation


def document(operations: Operations) -> dict[str, Any]:
    """The OpenAPI document of ``operations``."""
    schemas, definitions = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "pleo-proxy", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/", "description": "The operator's listener, `listen.public_url`."}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": _SCHEMES,
            "responses": {
                str(status): _refusal(text, _FIELDS.get(status))
                for status, text in sorted((_OF_ALL | _OF_GUARDED | _OF_BODIES).items())
            },
        },
    }


Schemas = dict[tuple[Any, JsonSchemaMode], JsonSchemaValue]


class _Plain(GenerateJsonSchema):
    """Without titles, which say no more than the names of members."""

    def field_title_should_be_set(self, _schema: Any) -> bool:  # noqa: ANN401 - pydantic's own type
        return False


def _schemas(operations: Operations) -> tuple[Schemas, dict[str, Any]]:
    """The schema of each type in use, and the definitions that they refer to."""
    wanted: list[tuple[Any, JsonSchemaMode]] = [(Problem, "serialization")]
    for operation in operations:
        wanted.append((operation.answer, "serialization"))
        if operation.has_body:
            wanted.append((operation.asks, "validation"))
    inputs = [(kind, mode, adapter_of(kind)) for kind, mode in dict.fromkeys(wanted)]
    made, shared = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE, schema_generator=_Plain)
    return made, shared["$defs"]


def _described(operation: Operation[Any, Any], schemas: Schemas) -> dict[str, Any]:
    answer = {operation.media_type: {"schema": schemas[operation.answer, "serialization"]}}
    shown: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
    if operation.description:
        shown["description"] = operation.description
    shown["security"] = security(operation)
    if parameters := _parameters(operation):
        shown["parameters"] = parameters
    if operation.has_body:
        schema = schemas[operation.asks, "validation"]
        shown["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    shown["responses"] = {
        str(operation.status): {"description": "Done.", "content": answer},
        **{str(status): {"description": text, "content": answer} for status, text in operation.also.items()},
        **{str(status): _refusal(text) for status, text in operation.refuses.items()},
        **{
            str(status): {"$ref": f"#/components/responses/{status}"}
            for status in common_refusals(operation)
            if status not in operation.also and status not in operation.refuses
        },
    }
    return shown


def common_refusals(operation: Operation[Any, Any]) -> dict[int, str]:
    """What every operation of its kind may be refused with, and when."""
    guarded = {} if operation.role is None else _OF_GUARDED
    return _OF_ALL | guarded | (_OF_BODIES if operation.has_body else {})


def security(operation: Operation[Any, Any]) -> list[dict[str, list[str]]]:
    """What lets somebody in, one of them; each with the role that it takes (OpenAPI 3.1 section 4.8.30)."""
    if operation.role is None:
        return []
    roles = [role.value for role in Role if role.includes(operation.role)]
    session: dict[str, list[str]] = {"session": roles}
    if operation.method not in SAFE:
        session["form"] = []
    return [{"token": roles}, session]


def _parameters(operation: Operation[Any, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": "The tenant's name.",
            "schema": {"type": "string", "pattern": f"^{TENANT_NAME.pattern}$"},
            "example": "acme",
        }
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    if operation.method == "GET":
        schema = adapter_of(operation.asks).json_schema(schema_generator=_Plain)
        found += [_parameter(name, member) for name, member in schema["properties"].items()]
    return found


def _parameter(name: str, member: dict[str, Any]) -> dict[str, Any]:
    """A member of what a ``GET`` is given. One that is not there is not in the query, which knows no null."""
    description = member.pop("description", "")
    kinds = [kind for kind in member.pop("anyOf", []) if kind != {"type": "null"}]
    told = {key: value for key, value in member.items() if value is not None}
    schema = {**told, **(kinds[0] if kinds else {})}
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _refusal(text: str, field: str | None = None) -> dict[str, Any]:
    content = {PROBLEM_JSON: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}}
    shown: dict[str, Any] = {"description": text}
    if field is not None:
        shown["headers"] = {field: {"required": True, "schema": {"type": "string"}}}
    return {**shown, "content": content}
