"""``POST /api/v1/explain``: what would become of a request, for who looks; nothing is sent or changed."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from proxy import explain
from proxy.admin.operations import Operation
from proxy.admin.services import SERVICES
from proxy.admin.shapes import Explanation, Question
from proxy.model import Role


def operations() -> list[Operation[Any, Any]]:
    """Operations of this module."""
    return [
        Operation(
            id="explainRequest",
            method="POST",
            path="/api/v1/explain",
            role=Role.VIEWER,
            summary="Explain what would become of a request",
            description="Nobody is called, and nothing is changed or counted.",
            asks=Question,
            handler=_explain,
            answer=Explanation,
        )
    ]


async def _explain(request: web.Request, asked: Question) -> Explanation:
    services = request.app[SERVICES]
    explainer = services.explainer(await services.store.grants())
    return Explanation.model_validate(explainer.explain(explain.Question(**asked.model_dump())))
