"""What a key service is to the proxy: two methods, whoever carries them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from proxy.model import Secret


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A key of the ring that only a key service can unwrap: safe to store beside what it seals."""

    service: str
    """URL of the very key that wrapped it, which may be more exact than the one that was asked."""
    data: bytes


class KeyService(Protocol):
    """Holds a key that never leaves it, and wraps and unwraps keys of the ring with it.

    ``context`` is bound to what is wrapped: it does not unwrap with another, and shows in the service's log.
    """

    def wrap(self, key: Secret, context: Mapping[str, str]) -> Wrapped:
        """``key`` wrapped.

        :raises KeyServiceError: the service cannot be reached, or refuses.
        """

    def unwrap(self, data: bytes, context: Mapping[str, str]) -> Secret:
        """The key that was wrapped as ``data`` with the same context.

        :raises KeyServiceError: the service cannot be reached, or refuses.
        """
