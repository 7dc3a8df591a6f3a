"""The connection to the collector: OTLP 1.x over HTTP, in protobuf.

Sends to the one URL that the operator wrote and follows no redirect. Of the answer only the status counts,
and how long to wait; no text of it goes anywhere.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

import aiohttp

from proxy.model import Secret

_AGAIN = {429, 502, 503, 504}
"""After these the same may be sent again (OTLP specification, "OTLP/HTTP Response")."""
_HEADER = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*([\x21-\x2b\x2d-\x7e][\x20-\x2b\x2d-\x7e]*)")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class RefusedError(Exception):
    """The collector did not take it; the text is a word of the proxy's own.

    :param again_s: the same may be sent again, after so long at the least; ``None`` where it may not.
    """

    def __init__(self, word: str, *, again_s: float | None = 0.0) -> None:
        super().__init__(word)
        self.again_s = again_s


def parse_headers(secret: Secret) -> dict[str, Secret]:
    """The fields that the collector wants, from ``name=value,name=value`` with values percent-encoded.

    It is the form of OpenTelemetry's own variables, so that what is in one of those can be named as it is.

    :raises ValueError: it is not of that form.
    """
    headers = {}
    for part in secret.reveal().split(","):
        match = _HEADER.fullmatch(part)
        value = unquote(match[2].rstrip()) if match else ""
        if match is None or not _VALUE.fullmatch(value):
            raise ValueError("not name=value,name=value") from None
        headers[match[1]] = Secret(value)
    return headers


@dataclass(slots=True)
class Collector:
    """Where spans are sent."""

    url: str
    headers: dict[str, Secret]
    timeout_s: float
    trust: Callable[[], ssl.SSLContext] = ssl.create_default_context
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    async def take(self, body: bytes) -> None:
        """Send an ``ExportTraceServiceRequest``.

        :raises RefusedError: it was not taken.
        """
        headers = {name: secret.reveal() for name, secret in self.headers.items()}
        try:
            async with self._open().post(
                self.url,
                data=body,
                headers={**headers, "Content-Type": "application/x-protobuf", "User-Agent": "pleo-proxy"},
                allow_redirects=False,
            ) as answer:
                status, retry_after = answer.status, answer.headers.get("Retry-After", "")
        except TimeoutError:
            raise RefusedError("timeout") from None
        except aiohttp.ClientSSLError:
            raise RefusedError("tls_failed") from None
        except (aiohttp.ClientError, OSError):
            raise RefusedError("unreachable") from None
        if not 200 <= status < 300:
            again_s = float(retry_after) if re.fullmatch(r"[0-9]{1,4}", retry_after) else 0.0
            raise RefusedError(f"status_{status}", again_s=again_s if status in _AGAIN else None)

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self.trust(), limit=1)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self.timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session
