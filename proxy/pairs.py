"""A grant's token pair between the provider, the store and memory: sealed with its times, and opened again.

Stateless. Every pair is sealed for one tenant, column and generation; a value that does not open raises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxy.lifecycle import NewPair
from proxy.model import Grant, Sealed, Secret
from proxy.oauth import TokenPair
from proxy.vault import Place, SealedValueError, Vault, key_id_of


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """What to assume where Pleo does not tell, in seconds (the ``[refresh]`` settings)."""

    default_access_s: float
    """For an answer without ``expires_in``."""
    refresh_s: float
    """Of a refresh token: Pleo says at least 60 days."""


@dataclass(frozen=True, slots=True)
class OpenedPair:
    """A pair as it is held in memory."""

    access: Secret
    refresh: Secret


def place(tenant: str, column: str, generation: int) -> Place:
    """Where a token of a grant is stored."""
    return Place("grants", tenant, column, generation)


def seal_pair(
    vault: Vault,
    pair: TokenPair,
    *,
    tenant: str,
    generation: int,
    now: float,
    lifetimes: Lifetimes,
    old_refresh: Secret | None = None,
) -> NewPair:
    """``pair`` sealed for ``generation``.

    :param old_refresh: kept where the answer brought no new refresh token (RFC 6749 section 6).
    """
    refresh = pair.refresh or old_refresh
    assert refresh is not None, "a first pair without a refresh token is refused by the consent flow"
    expires_in_s = lifetimes.default_access_s if pair.expires_in_s is None else pair.expires_in_s
    return NewPair(
        access=vault.seal(pair.access, place(tenant, "access", generation)),
        refresh=vault.seal(refresh, place(tenant, "refresh", generation)),
        issued_at=now,
        access_expires_at=now + expires_in_s,
        refresh_expires_at=now + lifetimes.refresh_s,
    )


def open_pair(vault: Vault, grant: Grant) -> OpenedPair | None:
    """The pair of a stored grant, or ``None`` where the grant has none.

    :raises SealedValueError: a value is there and does not open, or a part of the pair is missing.
    """
    if grant.access is None and grant.refresh is None:
        return None
    if grant.access is None or grant.refresh is None:
        raise SealedValueError("one half of the token pair is missing from the store")
    if None in (grant.issued_at, grant.access_expires_at, grant.refresh_expires_at):
        raise SealedValueError("the times of the token pair are missing from the store")
    return OpenedPair(
        access=vault.open(grant.access, place(grant.tenant, "access", grant.generation)),
        refresh=vault.open(grant.refresh, place(grant.tenant, "refresh", grant.generation)),
    )


def is_sealed_with(key_id: str, grant: Grant) -> bool:
    """Whether every token that ``grant`` has is sealed with this key."""
    return all(key_id_of(sealed) == key_id for sealed in (grant.access, grant.refresh) if sealed is not None)


def resealed(vault: Vault, grant: Grant) -> Grant:
    """``grant`` with its tokens sealed with the first key; they remain the same pair.

    :raises SealedValueError: one of them does not open.
    """

    def anew(sealed: Sealed | None, column: str) -> Sealed | None:
        if sealed is None:
            return None
        return vault.reseal(sealed, place(grant.tenant, column, grant.generation))

    return replace(grant, access=anew(grant.access, "access"), refresh=anew(grant.refresh, "refresh"))


def missing_from(pair: TokenPair) -> tuple[str, ...]:
    """Fields that a token answer should have had (invariant 10: defaults are used, and reported)."""
    absent = []
    if pair.expires_in_s is None:
        absent.append("expires_in missing")
    if pair.refresh is None:
        absent.append("refresh_token missing")
    return tuple(absent)
