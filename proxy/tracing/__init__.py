"""Traces of requests for OpenTelemetry: facts as spans, sent to a collector (``[tracing]``).

Nothing here is on a request's way but the putting of a fact into a bounded queue. The parts, each importing
only those before it: ``spans`` (facts as OpenTelemetry's spans, and these as bytes; the one module that needs
the extra ``otel``, loaded when it is used), ``collector`` (posts them), ``exporter`` (queue and task).

The collector is where the operator wrote, which may be a private address: it gets neither token nor client
secret. A span holds no header, no body and no query, and the canary looks at it as at a line of the log.
"""

from __future__ import annotations

from proxy.tracing.collector import Collector, RefusedError, parse_headers
from proxy.tracing.exporter import Exporter, require_extra

__all__ = ["Collector", "Exporter", "RefusedError", "parse_headers", "require_extra"]
