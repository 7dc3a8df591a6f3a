"""What all ways to tell somebody have in common."""

from __future__ import annotations

from typing import Protocol

from proxy.notifications.messages import Message

TIMEOUT_S = 15.0
"""Bound on one try, as Standard Webhooks advises for webhooks (15 to 30 seconds)."""


class DeliveryError(Exception):
    """A try that did not work; the text is a word of the proxy's own, and nothing that the other end said."""


class Channel(Protocol):
    """One way to tell somebody."""

    @property
    def name(self) -> str:
        """``webhook``, ``mail`` or ``command``."""

    async def deliver(self, message: Message) -> None:
        """Try once.

        :raises DeliveryError: it did not work, or took longer than :data:`TIMEOUT_S`
        """
