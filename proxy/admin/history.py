"""What happened to a tenant's tokens and authorisation, as sentences made of records of the trail. Pure.

A record may be of any version, or tampered with: whatever it holds, it becomes text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxy import listing
from proxy.admin.words import Tone
from proxy.audit import as_row
from proxy.chain import Record
from proxy.model import Outcome

REFRESHES: Final = ("token.refreshed", "token.refresh_failed")
"""Events of the trail that tell of refreshes."""
AUTHORISATIONS: Final = (
    "connect.link_created",
    "connect.link_opened",
    "grant.connected",
    "grant.consent_failed",
    "grant.scopes_missing",
    "grant.needs_reauth",
    "grant.revoked",
)
"""Those that tell of consents, and of their end."""

_BEGUN_BY: Final = {
    "expiring": "ahead of the old ones' end",
    "expired": "after the old ones had ended",
    "rejected": "after Pleo had answered 401",
    "keep_alive": "to keep the authorisation alive",
    "asked": "as an operator asked",
    "restored": "for the first time after a restore",
}
_FAILED: Final = {
    Outcome.REFUSED: "Pleo refused: the authorisation is over",
    Outcome.CLIENT_REJECTED: "Pleo does not accept the proxy's registration",
    Outcome.NOT_SENT: "Pleo was not reached",
    Outcome.UNAVAILABLE: "Pleo was not available",
    Outcome.UNKNOWN: "Pleo gave no usable answer",
}
_ENDED: Final = {
    "lost_answer": "an answer of Pleo's with new tokens was lost",
    "stale_backup": "Pleo had replaced the tokens that a backup had",
}


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened."""

    at: str | None
    tone: Tone
    text: str


def told(record: Record) -> Told:
    """A record in words."""
    row = as_row(record)
    sentence = _SENTENCES.get(row["event"])
    tone, text = (Tone.OFF, row["event"]) if sentence is None else sentence(row["details"], row["actor"])
    return Told(listing.instant(record.entry.at), tone, text)


Sentence = Callable[[Mapping[str, Any], str], tuple[Tone, str]]


def _refreshed(details: Mapping[str, Any], _actor: str) -> tuple[Tone, str]:
    reason = _word(details, "reason")
    return Tone.GOOD, f"New tokens {_BEGUN_BY.get(reason, reason)}, generation {_word(details, 'generation')}"


def _refresh_failed(details: Mapping[str, Any], _actor: str) -> tuple[Tone, str]:
    outcome = _word(details, "outcome")
    said = _FAILED.get(Outcome(outcome), outcome) if outcome in set(Outcome) else outcome
    is_over = outcome in {Outcome.REFUSED, Outcome.CLIENT_REJECTED}
    return Tone.BAD if is_over else Tone.WARN, f"No new tokens: {said} ({_word(details, 'error')})"


def _link_created(details: Mapping[str, Any], actor: str) -> tuple[Tone, str]:
    return Tone.OFF, f"{details.get('user') or actor} made a connect link"


def _link_opened(_details: Mapping[str, Any], _actor: str) -> tuple[Tone, str]:
    return Tone.OFF, "Somebody opened the connect link"


def _connected(details: Mapping[str, Any], _actor: str) -> tuple[Tone, str]:
    return Tone.GOOD, f"Connected: a person consented, generation {_word(details, 'generation')}"


def _consent_failed(details: Mapping[str, Any], _actor: str) -> tuple[Tone, str]:
    error = details.get("error")
    return Tone.WARN, f"A consent failed: {_word(details, 'reason')}{f' ({error})' if error else ''}"


def _scopes_missing(details: Mapping[str, Any], _actor: str) -> tuple[Tone, str]:
    scopes = details.get("scopes")
    missing = ", ".join(map(str, scopes)) if isinstance(scopes, list) else str(scopes)
    return Tone.WARN, f"Less was consented to than was asked for; missing: {missing}"


def _needs_reauth(details: Mapping[str, Any], _actor: str) -> tuple[Tone, str]:
    reason = _word(details, "reason")
    return (
        Tone.BAD,
        f"Needs re-authentication: {_ENDED.get(reason, f'Pleo ended the authorisation ({reason})')}",
    )


def _revoked(details: Mapping[str, Any], actor: str) -> tuple[Tone, str]:
    # Who erases them notes it; the proxy, which then has none, records it with the generation.
    was_found = "generation" in details
    return Tone.BAD, "Without tokens: callers are refused" if was_found else f"{actor} erased the tokens"


_SENTENCES: Final[Mapping[str, Sentence]] = {
    "token.refreshed": _refreshed,
    "token.refresh_failed": _refresh_failed,
    "connect.link_created": _link_created,
    "connect.link_opened": _link_opened,
    "grant.connected": _connected,
    "grant.consent_failed": _consent_failed,
    "grant.scopes_missing": _scopes_missing,
    "grant.needs_reauth": _needs_reauth,
    "grant.revoked": _revoked,
}


def _word(details: Mapping[str, Any], name: str) -> str:
    return str(details.get(name, "?"))
