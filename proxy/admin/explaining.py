"""``POST /api/v1/explain``: what would become of a request, for who looks; nothing is sent or changed."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.admin.access import require
from proxy.admin.answers import data, problem
from proxy.admin.services import SERVICES
from proxy.errors import QuestionError
from proxy.explain import Question
from proxy.model import Role


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [web.post("/api/v1/explain", require(Role.VIEWER)(_explain))]


class _Asked(BaseModel):
    """The question as JSON; members as the options of ``pleo-proxy explain``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    path: str
    method: str = "GET"
    caller: str = Field("127.0.0.1", alias="from")
    host: str | None = None
    headers: tuple[str, ...] = ()
    listener: str | None = None
    certificates: tuple[str, ...] = ()


async def _explain(request: web.Request) -> web.Response:
    try:
        asked = _Asked.model_validate_json(await request.read())
    except ValidationError as error:
        return problem(400, "Bad Request", _mistakes(error))
    services = request.app[SERVICES]
    explainer = services.explainer(await services.store.grants())
    try:
        return data(explainer.explain(Question(**asked.model_dump())))
    except QuestionError as error:
        return problem(400, "Bad Request", str(error))


def _mistakes(error: ValidationError) -> str:
    """Each wrong member and why, never with what it holds."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in found)
