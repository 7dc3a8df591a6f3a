"""The proxy's own answers: problem documents that nobody can mistake for an answer from Pleo."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import problems
from proxy.errors import REFUSALS, NeedsReauth, Overloaded, Refusal, TenantUnknown

PUBLIC = "https://proxy.example"
EACH = [pytest.param(refusal, id=refusal.name) for refusal in REFUSALS]


def document(refusal: Refusal) -> dict[str, Any]:
    """The refusal's problem document, read."""
    read: dict[str, Any] = json.loads(problems.document(refusal, public_url=PUBLIC, request_id="r-1"))
    return read


@pytest.mark.parametrize("refusal", EACH)
def test_each_refusal_is_a_problem_document(refusal: type[Refusal]) -> None:
    """The members of RFC 9457 and ours, each from the place where it is decided."""
    read = document(refusal("the detail", tenant="acme"))
    reconnect = read.pop("reconnect_url", None)
    assert read == {
        "type": f"{PUBLIC}/problems/{refusal.name}",
        "title": refusal.title,
        "status": refusal.status,
        "detail": "the detail",
        "tenant": "acme",
        "request_id": "r-1",
        "action": refusal.action,
    }
    assert (reconnect is not None) is (refusal is NeedsReauth)


def test_a_dead_grant_tells_where_to_reconnect() -> None:
    """``reconnect_url`` is the operator's page of that tenant, and is left out where no tenant is known."""
    assert document(NeedsReauth(tenant="acme"))["reconnect_url"] == f"{PUBLIC}/tenants/acme/connect"
    assert "reconnect_url" not in document(NeedsReauth())


def test_no_tenant_is_told_as_null() -> None:
    """A refusal before a tenant was found says so."""
    assert document(TenantUnknown())["tenant"] is None


@pytest.mark.parametrize("refusal", EACH)
def test_the_fields_of_a_refusal(refusal: type[Refusal]) -> None:
    """Type, length, no caching, the reason of RFC 9209 and the request's id; nothing else."""
    assert problems.fields(refusal(), b"12345", request_id="r-1") == [
        (b"Content-Type", b"application/problem+json"),
        (b"Content-Length", b"5"),
        (b"Cache-Control", b"no-store"),
        (b"Proxy-Status", b"pleo-proxy; error=" + refusal.proxy_error.encode()),
        (b"X-Request-Id", b"r-1"),
    ]


@pytest.mark.parametrize("seconds", [0, 1, 300])
def test_a_waiting_time_is_told_in_seconds(seconds: int) -> None:
    """``Retry-After`` is there exactly where a refusal has a waiting time, 0 included."""
    fields = problems.fields(Overloaded(retry_after_s=seconds), b"", request_id="r")
    assert fields[-1] == (b"Retry-After", str(seconds).encode())


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_detail_is_one_json_string(detail: str) -> None:
    """Whatever a detail quotes from a request, the document stays one JSON object on one line."""
    body = problems.document(TenantUnknown(detail), public_url=PUBLIC, request_id="r")
    assert json.loads(body)["detail"] == (detail or TenantUnknown.title)
    assert body.endswith(b"}\n")
    assert body.count(b"\n") == 1
