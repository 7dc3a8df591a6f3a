"""The table of traces for OpenTelemetry. No I/O."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from proxy.addresses import is_loopback
from proxy.config.secret_refs import SecretRef, SecretSetting
from proxy.config.sections import Section
from proxy.config.values import Kind, Rule, Seconds, Text, parse_web_url, refuse_bool


def _parse_collector(value: str) -> str:
    parse_web_url(value)
    if urlsplit(value).path in ("", "/"):
        raise Rule("must have the path too, since nothing is added to it; write https://HOST:4318/v1/traces")
    return value


CollectorUrl = Annotated[str, AfterValidator(_parse_collector), Kind("URL")]
Ratio = Annotated[float, BeforeValidator(refuse_bool), Field(ge=0, le=1), Kind("fraction")]


class Tracing(Section):
    """Where traces are sent, and how many."""

    endpoint: CollectorUrl | None = Field(
        default=None,
        description="Where spans are posted (OTLP over HTTP, protobuf), such as "
        "`http://127.0.0.1:4318/v1/traces`. It may be a private address: no token goes there. Needs the "
        "extra `otel`. Absent: no traces are made, and what callers send of theirs goes to Pleo as it came.",
    )
    headers: Annotated[SecretSetting | None, Kind("secret", secret=True)] = Field(
        default=None,
        validate_default=True,
        description="Header fields that the collector wants, as `name=value,name=value` with values "
        "percent-encoded, which is the form of `OTEL_EXPORTER_OTLP_HEADERS`.",
    )
    sample_ratio: Ratio = Field(
        default=0.1,
        description="Which part of the traces that begin here is recorded; a caller's is, where the caller "
        "records it. A tenth shows what is usual, and a recorded request costs twice the time of another.",
    )
    service_name: Text | None = Field(
        default=None,
        description="The service that spans are of. Absent: `OTEL_SERVICE_NAME` if that is set, else "
        "`pleo-proxy`.",
    )
    timeout_s: Seconds = Field(
        default=10.0, description="How long the collector may take to answer: OpenTelemetry's default."
    )

    @field_validator("headers")
    @classmethod
    def _is_kept_private(cls, headers: SecretRef | None, info: ValidationInfo) -> SecretRef | None:
        url: str | None = info.data.get("endpoint", "wrong")
        if headers is None or url == "wrong":
            return headers
        if url is None:
            raise Rule("has no effect without tracing.endpoint; remove it, or set that")
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise Rule("would go in clear, since tracing.endpoint is http; use https there, or remove it")
        return headers
