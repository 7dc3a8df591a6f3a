"""An operation of the JSON API: its route, and all that is said of it to others, declared once.

What comes in is read by the type that the OpenAPI document shows for it, and what goes out is made by the
type that is shown for the answer, so that neither can differ from the document. What an operation could not
do becomes a problem document (RFC 9457) here, and nowhere else. Who may ask is for :mod:`proxy.admin.access`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy.admin.access import require
from proxy.admin.answers import data, problem
from proxy.admin.shapes import Nothing
from proxy.errors import ConfigurationError, OperatorError, QuestionError, TenantError
from proxy.model import Role
from proxy.store import TenantGone

Asked = TypeVar("Asked", bound=BaseModel)
Answered = TypeVar("Answered")

JSON = "application/json"
_BODY_S = 10.0
"""A question is one packet; who sends it for longer holds a connection."""
_MOST_MISTAKES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[Asked, Answered]):
    """What one method does at one path."""

    id: str
    """``operationId`` of the OpenAPI document."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    role: Role | None
    """What it takes; ``None`` where it is for everyone."""
    summary: str
    handler: Callable[[web.Request, Asked], Awaitable[Answered | web.StreamResponse]]
    """An answer of the declared type is sent as such; a response goes out as it is."""
    answer: type[Answered]
    status: int = 200
    description: str = ""
    asks: type[Asked] = Nothing  # type: ignore[assignment] # mypy takes no default for what is generic
    """What it is given: in the query of a ``GET``, else as the body."""
    media_type: str = JSON
    """Of the answer. Where it is another, the answer is a response of the handler's own."""
    refuses: Mapping[int, str] = field(default_factory=dict)
    """Problem documents beyond those that every operation may answer with: the status, and when."""
    also: Mapping[int, str] = field(default_factory=dict)
    """Other statuses of an answer of the same type, and when."""

    @property
    def has_body(self) -> bool:
        """Whether what it is given comes as the body of the request."""
        return self.method != "GET" and self.asks is not Nothing

    def route(self) -> web.RouteDef:
        """The route, behind its role."""
        serve = self._serve if self.role is None else require(self.role)(self._serve)
        # As RFC 9110 section 9.3.2 wants it, HEAD is answered wherever GET is.
        return web.get(self.path, serve) if self.method == "GET" else web.route(self.method, self.path, serve)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.has_body and request.content_type != JSON:
            return problem(415, "Unsupported Media Type", f"Send the body with `Content-Type: {JSON}`.")
        try:
            answered = await self.handler(request, await self._read(request))
        except TenantGone:
            return problem(404, "Not Found", f"There is no tenant {request.match_info['tenant']!r}.")
        except OperatorError as error:
            status = _status_of(error)
            return problem(status, status.phrase, str(error))
        if isinstance(answered, web.StreamResponse):
            return answered
        shown = adapter_of(self.answer).dump_python(answered, mode="json", by_alias=True, exclude_unset=True)
        return data(shown, status=self.status)

    async def _read(self, request: web.Request) -> Asked:
        """What the request gives.

        :raises QuestionError: it is not what the operation asks for.
        :raises HTTPRequestTimeout: the body did not come in time.
        :raises HTTPRequestEntityTooLarge: it is larger than any question.
        """
        # Who watches, or balances load, may add what it likes.
        query = {} if self.role is None else _once(request)
        try:
            if not self.has_body:
                return self.asks.model_validate(query)
            Nothing.model_validate(query)
            return self.asks.model_validate_json(await _body(request))
        except ValidationError as error:
            raise QuestionError(_mistakes(error)) from None


_adapters: dict[object, TypeAdapter[Any]] = {}


def adapter_of(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a type, with parameters or without
    """What reads, checks and writes values of a type; made once for each."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


def _status_of(error: OperatorError) -> HTTPStatus:
    match error:
        case QuestionError():
            return HTTPStatus.BAD_REQUEST
        case TenantError() | ConfigurationError():
            return HTTPStatus.CONFLICT
        case _:
            return HTTPStatus.BAD_GATEWAY


def _once(request: web.Request) -> dict[str, Any]:
    """The parameters of the query; one that came several times as a list, which no type here takes."""
    query = request.query
    return {name: query.getall(name) if len(query.getall(name)) > 1 else query[name] for name in query}


def _mistakes(error: ValidationError) -> str:
    """Each wrong member and why, never with what it holds."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_MISTAKES]
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in found)
