"""A tenant's connect links as its page shows them: of each the reference, and whether it was used. No secret.

A link's URL is shown once, to who made it; what is stored is a hash of its token.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy import listing
from proxy.admin.words import Tone
from proxy.consents import reference_of
from proxy.model import Link


@dataclass(frozen=True, slots=True)
class LinkRow:
    """One link."""

    reference: str
    """As the authoriser's pages and the log show it."""
    word: str
    tone: Tone
    at: str | None
    """When it was used or expired, or when it will expire."""
    created_at: str | None


def link_row(link: Link, now: float) -> LinkRow:
    """A link as it stands at ``now``."""
    if link.used_at is not None:
        word, tone, at = "used", Tone.GOOD, link.used_at
    elif now >= link.expires_at:
        word, tone, at = "expired", Tone.OFF, link.expires_at
    else:
        word, tone, at = "open until", Tone.WARN, link.expires_at
    created = listing.instant(link.created_at)
    return LinkRow(reference_of(link.id), word, tone, listing.instant(at), created)
