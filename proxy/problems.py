"""The proxy's own answers: RFC 9457 problem documents with ``Proxy-Status`` (RFC 9209). Pure.

The only place where a refusal becomes bytes, so that nobody mistakes one for an answer from Pleo.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.errors import NeedsReauth, Refusal
from proxy.headers import Field, Headers


def problem_url(public_url: str, name: str) -> str:
    """The page that explains a problem type, which is also its ``type``."""
    return f"{public_url}/problems/{name}"


def reconnect_url(public_url: str, tenant: str) -> str:
    """The operator's page from which a tenant is connected again; it asks for a login."""
    return f"{public_url}/tenants/{tenant}/connect"


def document(refusal: Refusal, *, public_url: str, request_id: str) -> bytes:
    """The problem document of a refusal (RFC 9457 section 3.1)."""
    body: dict[str, Any] = {
        "type": problem_url(public_url, refusal.name),
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
        "tenant": refusal.tenant,
        "request_id": request_id,
        "action": refusal.action,
    }
    if isinstance(refusal, NeedsReauth) and refusal.tenant is not None:
        body["reconnect_url"] = reconnect_url(public_url, refusal.tenant)
    return orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)


def fields(refusal: Refusal, body: bytes, *, request_id: str) -> Headers:
    """The header fields that go with the document."""
    headers: Headers = [
        (b"Content-Type", b"application/problem+json"),
        (b"Content-Length", str(len(body)).encode()),
        (b"Cache-Control", b"no-store"),
        (b"Proxy-Status", f"pleo-proxy; error={refusal.proxy_error}".encode()),
        (b"X-Request-Id", request_id.encode()),
    ]
    if refusal.retry_after_s is not None:
        headers.append((b"Retry-After", str(refusal.retry_after_s).encode()))
    return headers


def not_repeated(reason: str) -> Field:
    """What is added to a 401 of Pleo that a new token would have cured (RFC 9209 section 2.1.4)."""
    details = f"{reason}, so the request was not sent again; the token is renewed: send it again"
    return (b"Proxy-Status", f'pleo-proxy; details="{details}"'.encode("ascii"))
