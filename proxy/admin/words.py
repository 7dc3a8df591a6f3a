"""What pages say of tenants and their grants: states, ages and shares, in words. Pure.

A state is a word and a tone; the tone is a colour, which never stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from proxy import listing
from proxy.listing import span
from proxy.model import Grant, GrantState, Outcome, Tenant
from proxy.telemetry.families import BUCKETS_S

_MINUTE_S = 60.0


class Tone(StrEnum):
    """How good a state is, as a class of the style sheet."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    OFF = "off"
    """Nothing is wrong, and nothing works."""


@dataclass(frozen=True, slots=True)
class Health:
    """How it stands with a tenant, and what to do about it."""

    word: str
    tone: Tone
    remedy: str = ""

    @property
    def needs_attention(self) -> bool:
        """Whether an operator should look at it."""
        return self.tone in (Tone.WARN, Tone.BAD)


_DISABLED = Health("disabled", Tone.OFF, "Callers are refused until it is enabled.")
_WITHOUT_TOKENS = {
    GrantState.NONE: Health("not connected", Tone.WARN, "Make a connect link and send it to the company."),
    GrantState.NEEDS_REAUTH: Health(
        "needs re-authentication", Tone.BAD, "Pleo ended the authorisation. Make a connect link."
    ),
    GrantState.REVOKED: Health("revoked", Tone.BAD, "Make a connect link to connect it again."),
}
_AFTER_FAILURE = {
    Outcome.CLIENT_REJECTED: "Pleo does not accept the registration: correct pleo.client_id or its secret.",
    Outcome.NOT_SENT: "Pleo was not reached: look at the network. It is tried again.",
    Outcome.UNAVAILABLE: "Pleo was not available. It is tried again.",
    Outcome.UNKNOWN: "Pleo gave no usable answer. It is tried again.",
}


def health(tenant: Tenant, grant: Grant | None, *, now: float, warn_s: float) -> Health:
    """How it stands with a tenant.

    :param warn_s: how long before the end of a refresh token it is time to ask for a new consent.
    """
    if not tenant.enabled:
        return _DISABLED
    state = listing.state(grant)
    if grant is None or state in _WITHOUT_TOKENS:
        return _WITHOUT_TOKENS.get(state, _WITHOUT_TOKENS[GrantState.NONE])
    if state is GrantState.UNVERIFIED:
        return Health("restored, not tried yet", Tone.WARN, "It came from a backup. Refresh it now.")
    if grant.last_outcome in _AFTER_FAILURE:
        return Health("last refresh failed", Tone.WARN, _AFTER_FAILURE[grant.last_outcome])
    if grant.refresh_expires_at is not None and grant.refresh_expires_at - now <= warn_s:
        return Health("ends soon", Tone.WARN, "Make a connect link before the authorisation ends.")
    return Health("refreshing" if state is GrantState.REFRESHING else "connected", Tone.GOOD)


def ago(at: float | None, now: float) -> str:
    """How long ago an instant was."""
    return "never" if at is None else f"{span(max(0.0, now - at))} ago"


def token_age(grant: Grant | None, now: float) -> str:
    """Age of the access token against its lifetime."""
    if grant is None or grant.issued_at is None or grant.access_expires_at is None:
        return "none"
    lifetime = span(max(0.0, grant.access_expires_at - grant.issued_at))
    unit = lifetime.partition(" ")[2]
    if now >= grant.access_expires_at:
        return f"expired {ago(grant.access_expires_at, now)}, lived {lifetime}"
    return f"{span(max(0.0, now - grant.issued_at)).removesuffix(f' {unit}')} of {lifetime}"


def until_reauth(grant: Grant | None, now: float) -> str:
    """Days until somebody must consent again, known or assumed, if the grant is not kept alive till then."""
    if grant is None or grant.refresh_expires_at is None:
        return "now"
    left_s = grant.refresh_expires_at - now
    return "now" if left_s <= 0 else span(left_s)


def share(part: float, whole: float) -> str:
    """A part in percent, and never 0 % of what is there."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 10 else f"{max(percent, 0.1):.1f} %"


def per_minute(count: float, span_s: float) -> str:
    """A mean rate; of less than a minute it is none."""
    rate = count / max(span_s / _MINUTE_S, 1.0)
    return f"{rate:.0f}" if rate >= 10 or not rate else f"{rate:.1f}" if rate >= 0.1 else "under 0.1"


def took(seconds: float | None) -> str:
    """How long something takes, to two figures or so; ``inf`` is beyond what is told apart."""
    if seconds is None:
        return "—"
    if seconds == inf:
        return f"over {BUCKETS_S[-1]:.0f} s"
    if seconds < 0.001:
        return "under 1 ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"
