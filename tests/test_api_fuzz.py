"""The running API before schemathesis: generated requests, right and wrong ones, held to its own document.

Every check that schemathesis has is on, over real sockets, before a simulated Pleo. ``make api-fuzz`` goes on
for about ``SECONDS``, each time with another seed.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from aiohttp import web
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import StopReason, events, from_schema
from schemathesis.schemas import BaseSchema

from proxy.admin import all_operations
from proxy.admin.answers import data
from proxy.admin.live_stream import STREAMS
from proxy.admin.operations import Operation
from proxy.sandbox import Sandbox
from tests import api_page
from tests.harness import ADMIN_TOKEN, Proxy, running_proxy

SEED = int(os.environ.get("API_FUZZ_SEED", "6"))
EXAMPLES = 20 + 2 * int(os.environ.get("API_FUZZ_S", "0"))
"""Of right and of wrong requests for each operation; a second does for two of each, or so."""
LAST = "revokeGrant"
"""What ends what the others need."""
CONNECTED, NEVER = ("acme", "globex"), "never"
PATHS = [
    "/acme/v2/employees",
    "/globex/v1/vendors?limit=1",
    "/v2/employees",
    "/acme/../x",
    "/never/v1/vendors",
]
CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
}


@dataclass
class Tried:
    """What came of a run."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By operation and status."""
    checks: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    """The check, and what it found."""
    ended: list[StopReason] = field(default_factory=list)


def configuration(url: str, examples: int) -> SchemathesisConfig:
    """All checks on, and names that are there often enough that more comes of it than 404."""
    tenant = {"dictionary": "tenants", "probability": 0.7}
    return SchemathesisConfig.from_dict(
        {
            "base-url": url,
            "seed": SEED,
            "dictionaries": {
                "tenants": {"values": [*CONNECTED, NEVER]},
                "paths": {"values": PATHS},
            },
            "parameters": {"path.tenant": tenant, "query.tenant": tenant},
            "operations": [
                {
                    "include-name": "POST /api/v1/explain",
                    "parameters": {"body.path": {"dictionary": "paths", "probability": 0.7}},
                    # No schema says which listeners there are, nor all of how certificates are named.
                    "checks": {"positive_data_acceptance": {"expected-statuses": ["200", "400"]}},
                },
            ],
            "auth": {"openapi": {"token": {"bearer": ADMIN_TOKEN}}},
            "generation": {
                "mode": "all",
                "max-examples": examples,
                "no-shrink": True,
                "deterministic": "API_FUZZ_S" not in os.environ,
                "database": "none",
            },
            "cache": {"enabled": False},
            "workers": 1,
        }
    )


def run(
    proxy: Proxy, choose: Callable[[BaseSchema], BaseSchema], tried: Tried, examples: int = EXAMPLES
) -> None:
    """Send what is to be sent to the chosen operations, one request after the other."""
    settings = configuration(f"http://{proxy.app.admin_address}", examples)
    described = schemathesis.openapi.from_dict(api_page.description(), config=settings)
    for event in from_schema(choose(described)).execute():
        match event:
            case events.ScenarioFinished():
                note(tried, event)
            case events.NonFatalError() | events.FatalError():
                tried.failures.append(("run", repr(event)))
            case events.EngineFinished():
                tried.ended.append(event.stop_reason)


def note(tried: Tried, event: events.ScenarioFinished) -> None:
    for interaction in event.recorder.interactions.values():
        if interaction.response is not None:
            tried.answers[event.label or "", interaction.response.status_code] += 1
    for id_, checks in event.recorder.checks.items():
        for check in checks:
            tried.checks[check.name] += 1
            if check.failure_info is not None:
                sent = event.recorder.cases[id_].value.as_curl_command()
                tried.failures.append((check.name, f"{event.label}: {check.failure_info.failure}\n{sent}"))


@asynccontextmanager
async def live(pleo: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """A proxy with connected tenants and one that never was, which looks at any number of wrong tokens."""
    monkeypatch.setattr("proxy.admin.lockout.MOST_OF_ONE", 1 << 30)
    monkeypatch.setattr("proxy.admin.lockout.MOST_OF_ALL", 1 << 30)
    async with running_proxy(pleo, folder) as proxy:
        await proxy.add_tenant(NEVER)
        for name in CONNECTED:
            await proxy.add_tenant(name)
            assert (await proxy.connect(name)).status == 200
        proxy.let_reload()
        # Else a stream would have no end; so it ends after its first look.
        proxy.app.admin[STREAMS].closing.set()
        yield proxy


async def test_the_api_does_what_its_document_says(
    pleo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every generated request is answered as the document says, and each operation does its work."""
    tried = Tried()
    async with live(pleo, tmp_path, monkeypatch) as proxy:
        await asyncio.to_thread(run, proxy, lambda all_: all_.exclude(operation_id=LAST), tried)
        await asyncio.to_thread(run, proxy, lambda all_: all_.include(operation_id=LAST), tried)
    assert "\n\n".join(text for _, text in tried.failures) == "", f"API_FUZZ_SEED={SEED}"
    assert tried.ended == [StopReason.COMPLETED] * 2
    assert tried.checks.keys() >= CHECKS
    for operation in all_operations():
        done = tried.answers[f"{operation.method} {operation.path}", operation.status]
        assert done > 2, f"{operation.id} was hardly tried"


Serve = Callable[[Operation[Any, Any], web.Request], Any]


async def _crash(_operation: Operation[Any, Any], _request: web.Request) -> web.Response:
    raise RuntimeError


async def _undeclared_status(_operation: Operation[Any, Any], _request: web.Request) -> web.Response:
    return data([], status=202)


async def _undeclared_type(_operation: Operation[Any, Any], _request: web.Request) -> web.Response:
    return web.Response(text="[]", content_type="text/html")


async def _undeclared_shape(_operation: Operation[Any, Any], _request: web.Request) -> web.Response:
    return data([{"tenant": "acme", "surprise": 1}])


async def _take_anything(operation: Operation[Any, Any], _request: web.Request) -> Any:
    return operation.asks()


BREACHES: dict[str, tuple[str, Any, str]] = {
    "not_a_server_error": ("Operation._serve", _crash, "listGrants"),
    "status_code_conformance": ("Operation._serve", _undeclared_status, "listGrants"),
    "content_type_conformance": ("Operation._serve", _undeclared_type, "listGrants"),
    "response_schema_conformance": ("Operation._serve", _undeclared_shape, "listGrants"),
    "negative_data_rejection": ("Operation._read", _take_anything, "listAuditRecords"),
    "ignored_auth": ("require", lambda _role: lambda handler: handler, "listGrants"),
}


@pytest.mark.parametrize("check", BREACHES)
async def test_a_breach_is_seen(
    pleo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """An API that crashes, answers otherwise, takes nonsense or asks for no token does not pass."""
    name, broken, operation = BREACHES[check]
    monkeypatch.setattr(f"proxy.admin.operations.{name}", broken)
    tried = Tried()
    async with live(pleo, tmp_path, monkeypatch) as proxy:
        await asyncio.to_thread(run, proxy, lambda all_: all_.include(operation_id=operation), tried, 3)
    assert check in {name for name, _ in tried.failures}
