"""A notification as a signed POST: Standard Webhooks 1.0.0 (symmetric signatures, ``v1``).

Sends to the one URL that the operator wrote and follows no redirect. Neither what the receiver answers nor
what a library says of it goes anywhere but for the status.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import aiohttp

from proxy.model import Clock, Secret
from proxy.notifications.channels import TIMEOUT_S, DeliveryError
from proxy.notifications.messages import Message

PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
"""What Standard Webhooks allows a key to have."""


class Signer:
    """Signs with one secret.

    :raises ValueError: ``secret`` is not ``whsec_`` with 24 to 64 bytes in base64
    """

    def __init__(self, secret: Secret) -> None:
        text = secret.reveal()
        try:
            key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not text.startswith(PREFIX) or len(key) not in _KEY_BYTES:
            raise ValueError("not a secret of Standard Webhooks") from None
        self._key = Secret(text)

    def headers(self, message_id: str, at: int, body: bytes) -> dict[str, str]:
        """The three fields by which a receiver tells that it is us, and that it is now."""
        key = base64.b64decode(self._key.reveal().removeprefix(PREFIX))
        signed = b".".join([message_id.encode(), str(at).encode(), body])
        signature = base64.b64encode(hmac.digest(key, signed, sha256)).decode()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(at),
            "webhook-signature": f"v1,{signature}",
        }


@dataclass(frozen=True, slots=True)
class Webhook:
    """The channel."""

    url: str
    signer: Signer
    clock: Clock
    trust: Callable[[], ssl.SSLContext] = ssl.create_default_context

    @property
    def name(self) -> str:
        return "webhook"

    async def deliver(self, message: Message) -> None:
        body = message.as_json()
        # The time of the try, since receivers refuse what is old (replays); the id stays.
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "pleo-proxy",
            **self.signer.headers(message.id, int(self.clock()), body),
        }
        try:
            status = await self._post(body, headers)
        except TimeoutError:
            raise DeliveryError("timeout") from None
        except aiohttp.ClientSSLError:
            raise DeliveryError("tls_failed") from None
        except (aiohttp.ClientError, OSError):
            raise DeliveryError("unreachable") from None
        if not 200 <= status < 300:
            raise DeliveryError(f"status_{status}")

    async def _post(self, body: bytes, headers: dict[str, str]) -> int:
        # A few times a day: a connection of its own each time leaves nothing behind.
        connector = aiohttp.TCPConnector(ssl=self.trust(), force_close=True)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            session.post(self.url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status
