"""``docs/lifecycle.md``: what each event makes of each state, found by asking :mod:`proxy.lifecycle`."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace

from proxy import lifecycle, pairs
from proxy.lifecycle import Lease, Takeover
from proxy.model import Grant, GrantState, Outcome, Secret
from proxy.oauth import TokenPair
from proxy.vault import Vault

_VAULT = Vault(Secret("k1:" + b64encode(bytes(32)).decode()))
_LIFETIMES = pairs.Lifetimes(900, 60 * 86400)
_NOW, _OWNER = 1_800_000_000.0, "instance/0"
_LEASE, _TAKEOVER = Lease(_OWNER, _NOW + 40), Takeover(300, 0)


def _pair(generation: int) -> lifecycle.NewPair:
    tokens = TokenPair(Secret("access"), Secret(f"refresh-{generation}"), 900)
    return pairs.seal_pair(
        _VAULT, tokens, tenant="acme", generation=generation, now=_NOW, lifetimes=_LIFETIMES
    )


_FRESH = lifecycle.connected(_pair(1), tenant="acme", company="c", scopes=(), generation=1)


def _in(state: GrantState) -> Grant | None:
    """A grant in this state."""
    match state:
        case GrantState.NONE:
            return None
        case GrantState.CONNECTED:
            return _FRESH
        case GrantState.REFRESHING:
            return lifecycle.begin_refresh(_FRESH, before=_FRESH, at=_NOW, lease=_LEASE, takeover=_TAKEOVER)
        case GrantState.UNVERIFIED:
            return _begin(replace(_FRESH, state=GrantState.UNVERIFIED))  # it stays that while it is tried
        case GrantState.NEEDS_REAUTH:
            return _refused(_in(GrantState.REFRESHING))
        case GrantState.REVOKED:
            return lifecycle.revoked(_FRESH)


def _refused(grant: Grant | None) -> Grant | None:
    return lifecycle.not_granted(grant, before=_FRESH, outcome=Outcome.REFUSED, owner=_OWNER)


def _begin(grant: Grant | None) -> Grant | None:
    return lifecycle.begin_refresh(grant, before=_FRESH, at=_NOW, lease=_LEASE, takeover=_TAKEOVER)


def _consent(grant: Grant | None) -> Grant | None:
    generation = lifecycle.next_generation(grant)
    return lifecycle.connected(
        _pair(generation), tenant="acme", company="c", scopes=(), generation=generation
    )


EVENTS: dict[str, Callable[[Grant | None], Grant | None]] = {
    "a person consents": _consent,
    "a refresh begins": _begin,
    "Pleo grants a pair": lambda grant: lifecycle.granted(grant, _pair(2), before=_FRESH),
    "Pleo refuses for good": _refused,
    "it fails otherwise": lambda grant: lifecycle.not_granted(
        grant, before=_FRESH, outcome=Outcome.UNAVAILABLE, owner=_OWNER
    ),
    "its process dies": lambda grant: None if grant is None else lifecycle.after_cut_off(grant),
    "an operator revokes": lifecycle.revoked,
}
"""What can befall a grant, in words, and the rule that decides."""

_HEAD = """# The life of a grant

Made from `proxy/lifecycle.py` by asking it; do not edit. What the states mean for callers is in the
[handbook](operating.md#states-of-a-grant), and why a refresh goes as it does in
[how refreshing works](refreshing.md).

![The states of a grant and what leads from one to another](lifecycle.svg)

"""


_FOOT = """An empty cell: nothing changes. A refresh of tokens that the grant no longer has changes nothing in
any state, whatever comes of it. An `unverified` grant was restored from a backup, and stays that until a
refresh works.

"""


def _after(state: GrantState, event: str) -> GrantState:
    grant = EVENTS[event](_in(state))
    return GrantState.NONE if grant is None else grant.state


def arrows() -> dict[tuple[str, str], list[str]]:
    """What leads from one state to another, by events."""
    found: dict[tuple[str, str], list[str]] = {}
    for state in GrantState:
        for event in EVENTS:
            after = _after(state, event)
            if after is not state:
                found.setdefault((state.value, after.value), []).append(event)
    return found


def render() -> str:
    """The whole page."""
    rows = [f"| {' | '.join(['in state', *EVENTS])} |\n", f"|{'---|' * (len(EVENTS) + 1)}\n"]
    for state in GrantState:
        cells = [f"`{_after(state, event).value}`" for event in EVENTS]
        cells = ["" if cell == f"`{state.value}`" else cell for cell in cells]
        rows.append(f"| {' | '.join([f'`{state.value}`', *cells])} |\n")
    return f"{_HEAD}{_FOOT}{''.join(rows)}"
