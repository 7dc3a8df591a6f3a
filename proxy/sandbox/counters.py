"""What the sandbox has counted, for tests and for ``GET /control/state``. Flat values; never a token."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Totals since the sandbox was made."""

    token_requests: int = 0
    """Requests to the token endpoint, refused and dropped ones included."""
    code_exchanges: int = 0
    """Codes that were exchanged for tokens."""
    code_replays: int = 0
    """Codes that were presented a second time."""
    refresh_attempts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By company id and generation of the presented refresh token: every attempt that named a known token."""
    refreshes: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By company id and generation that was refreshed: rotations that were carried out."""
    reuse_attempts: int = 0
    """Refresh tokens that were presented after they had been rotated away."""
    refused_refreshes: int = 0
    """Refresh requests that ended in a terminal refusal."""
    rejected_clients: int = 0
    """Requests with a wrong client id or secret."""
    introspections: int = 0
    """Requests to the authorisation server's introspection endpoint."""
    api_requests: int = 0
    """Requests to the API listener."""
    api_introspections: int = 0
    """Requests to ``GET /v1/introspect`` that were answered."""
    dead_token_requests: Counter[str] = field(default_factory=Counter)
    """API requests refused for their token, by the token's state."""
    rate_limited: int = 0
    """API requests answered 429 by the rate limit."""

    def refreshes_of(self, company_id: str) -> int:
        """Rotations of all generations of a company."""
        return sum(count for (company, _), count in self.refreshes.items() if company == company_id)

    def as_json(self) -> dict[str, object]:
        """All counters, with company and generation as nested keys."""
        values: dict[str, object] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if name in ("refresh_attempts", "refreshes"):
                value = _nested(value)
            elif isinstance(value, Counter):
                value = dict(value)
            values[name] = value
        return values


def _nested(counts: Counter[tuple[str, int]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (company, generation), count in sorted(counts.items()):
        nested.setdefault(company, {})[str(generation)] = count
    return nested
