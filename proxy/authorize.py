"""The consent flow: a one-time link, a browser sent to Pleo, and the grant that comes back.

Authorisation code with PKCE (RFC 6749 section 4.1, RFC 7636), ``state`` bound to one browser (RFC 9700
section 4.7). A link stays good until a consent succeeded or it expires, so that a mail scanner that opens it,
or a second try, spoils nothing; a ``state`` works once. What is stored: hashes of link token, state and
browser cookie, and the sealed verifier.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from proxy import lifecycle, oauth, pairs
from proxy.errors import ConsentFault, ConsentRefused, StoreUnavailable
from proxy.facts import (
    ConsentFailed,
    Emit,
    GrantConnected,
    LinkOpened,
    ScopesMissing,
)
from proxy.model import (
    Clock,
    Flow,
    Grant,
    Link,
    Secret,
    Tenant,
)
from proxy.oauth import GrantedAccess, TokenFailure, TokenPair
from proxy.store import LinkSpent, Notes, Store, TenantGone
from proxy.vault import Place, SealedValueError, Vault

LINK_LIFETIME_S = 24 * 3600.0
"""A day: long enough for a person at the customer to read mail, short for a link that opens a door."""
FLOW_LIFETIME_S = 15 * 60.0
"""From opening the link to coming back from Pleo, with time for a login there."""
_TOKEN_BYTES = 32


class AsksProvider(Protocol):
    """The part of :class:`proxy.provider.Provider` that is needed here."""

    async def exchange(self, code: Secret, verifier: Secret) -> TokenPair | TokenFailure:
        """Turn an authorisation code into a token pair."""

    async def granted_access(self, access: Secret) -> GrantedAccess | None:
        """Company and scopes of a new token."""


@dataclass(frozen=True, slots=True)
class AuthorizationSettings:
    """Our registration, as the authorisation request needs it."""

    endpoint: str
    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """A flow that has begun: where to send the browser, and the cookie that binds it."""

    url: str
    browser: Secret


@dataclass(frozen=True, slots=True)
class Connected:
    """A consent that led to a stored grant."""

    tenant: str
    company: str
    missing_scopes: tuple[str, ...]


async def create_link(
    store: Store,
    tenant: str,
    *,
    public_url: str,
    now: float,
    lifetime_s: float = LINK_LIFETIME_S,
    notes: Notes = tuple,
) -> tuple[Secret, Link]:
    """A new one-time link for ``tenant``: its URL, which is a secret, and what is stored of it.

    :param notes: what the audit trail is to have of it.

    :raises TenantGone: there is no such tenant.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    link = Link(_hash("link", token), tenant, created_at=now, expires_at=now + lifetime_s)
    await store.add_link(link, notes)
    return Secret(f"{public_url}/connect/{token}"), link


@dataclass(frozen=True, slots=True)
class Authorize:
    """Carries consent flows from the link to the stored grant."""

    store: Store
    vault: Vault
    provider: AsksProvider
    settings: AuthorizationSettings
    lifetimes: pairs.Lifetimes
    emit: Emit
    clock: Clock
    connected: Callable[[Tenant, Grant], None]
    """Told what is stored now, so that callers are served at once."""

    async def begin(self, link_token: Secret, browser: Secret | None) -> Begun:
        """Start a flow for the browser that opened a link.

        :param browser: the cookie of an earlier flow in this browser, kept so that two flows can run side by
            side in it.
        :raises ConsentRefused: the link is unknown, used or expired, or the store does not work.
        """
        browser = browser or Secret(secrets.token_urlsafe(_TOKEN_BYTES))
        try:
            return Begun(await self._begin(link_token, browser), browser)
        except TenantGone:
            raise ConsentRefused(ConsentFault.LINK_UNKNOWN) from None
        except StoreUnavailable:
            raise ConsentRefused(ConsentFault.STORE_FAILED) from None

    async def _begin(self, link_token: Secret, browser: Secret) -> str:
        now = self.clock()
        link = _usable(await self.store.link(_hash("link", link_token.reveal())), now)
        tenant = (await self.store.tenants()).get(link.tenant)
        if tenant is None:
            raise TenantGone(link.tenant)
        state, verifier = Secret(secrets.token_urlsafe(_TOKEN_BYTES)), oauth.new_verifier()
        flow_id = _hash("state", state.reveal())
        await self.store.add_flow(
            Flow(
                id=flow_id,
                link=link.id,
                tenant=tenant.name,
                browser=_hash("browser", browser.reveal()),
                verifier=self.vault.seal(verifier, verifier_place(tenant.name, flow_id)),
                created_at=now,
                expires_at=now + FLOW_LIFETIME_S,
            )
        )
        self.emit(LinkOpened(tenant.name))
        ours = self.settings
        request = oauth.AuthorizationRequest(
            ours.endpoint, ours.client_id, ours.redirect_uri, ours.scopes, state, verifier, tenant.company
        )
        return oauth.authorization_url(request)

    async def finish(self, query: Mapping[str, str], browser: Secret | None) -> Connected:
        """Take up a browser that came back from Pleo.

        :param query: the callback's parameters (RFC 6749 sections 4.1.2 and 4.1.2.1).
        :raises ConsentRefused: whatever kept the flow from ending in a stored grant.
        """
        flow = None
        try:
            flow = await self._take_flow(query, browser)
            return await self._connect(flow, query)
        except ConsentRefused as refused:
            fault, error = refused.fault, refused.error
        except StoreUnavailable as unavailable:
            fault, error = ConsentFault.STORE_FAILED, unavailable.detail
        self.emit(ConsentFailed(flow.tenant if flow else None, fault.slug, error))
        raise ConsentRefused(fault)

    async def _take_flow(self, query: Mapping[str, str], browser: Secret | None) -> Flow:
        state = query.get("state")
        if not state or browser is None:
            raise ConsentRefused(ConsentFault.STATE_UNKNOWN)
        # Taken, not read: of two callbacks with one state, only one goes on.
        flow = await self.store.take_flow(
            _hash("state", state), _hash("browser", browser.reveal()), self.clock()
        )
        if flow is None:
            raise ConsentRefused(ConsentFault.STATE_UNKNOWN)
        return flow

    async def _connect(self, flow: Flow, query: Mapping[str, str]) -> Connected:
        if "error" in query:
            error = oauth.known_callback_error(query["error"])
            denied = error == "access_denied"
            raise ConsentRefused(ConsentFault.DENIED if denied else ConsentFault.PLEO_REFUSED, error)
        if not query.get("code"):
            raise ConsentRefused(ConsentFault.PLEO_REFUSED, "no_code")
        # Judged as of when it was opened: a link must not expire while its authoriser is at Pleo.
        _usable(await self.store.link(flow.link), flow.created_at)
        try:
            verifier = self.vault.open(flow.verifier, verifier_place(flow.tenant, flow.id))
        except SealedValueError:
            raise ConsentRefused(ConsentFault.STATE_UNKNOWN) from None
        started = self.clock()
        pair = await self.provider.exchange(Secret(query["code"]), verifier)
        if isinstance(pair, TokenFailure):
            raise ConsentRefused(ConsentFault.PLEO_REFUSED, pair.error)
        if pair.refresh is None:
            raise ConsentRefused(ConsentFault.PLEO_REFUSED, "no_refresh_token")
        # Invariant 11: what was granted, and for which company, is asked before anything is stored.
        access = await self.provider.granted_access(pair.access)
        if access is None:
            raise ConsentRefused(ConsentFault.NOT_VERIFIED)
        tenant, grant = await self._store(flow, pair, access, started)
        self.connected(tenant, grant)
        missing = tuple(scope for scope in self.settings.scopes if scope not in access.scopes)
        self.emit(GrantConnected(tenant.name, grant.generation, access.company, access.scopes))
        if missing:
            self.emit(ScopesMissing(tenant.name, missing))
        return Connected(tenant.name, access.company, missing)

    async def _store(
        self, flow: Flow, pair: TokenPair, access: GrantedAccess, started: float
    ) -> tuple[Tenant, Grant]:
        def settle(tenant: Tenant, grant: Grant | None) -> tuple[Tenant, Grant]:
            if tenant.company not in (None, access.company):
                raise ConsentRefused(ConsentFault.WRONG_COMPANY)
            generation = lifecycle.next_generation(grant)
            sealed = pairs.seal_pair(
                self.vault,
                pair,
                tenant=tenant.name,
                generation=generation,
                now=started,
                lifetimes=self.lifetimes,
            )
            return replace(tenant, company=access.company), lifecycle.connected(
                sealed,
                tenant=tenant.name,
                company=access.company,
                scopes=access.scopes,
                generation=generation,
            )

        try:
            # Of two browsers that opened one link, one gets past this; a wrong company leaves the link good.
            return await self.store.connect(flow.tenant, settle, link=flow.link, at=flow.created_at)
        except LinkSpent:
            raise ConsentRefused(ConsentFault.LINK_USED) from None
        except TenantGone:
            raise ConsentRefused(ConsentFault.LINK_UNKNOWN) from None


def _usable(link: Link | None, now: float) -> Link:
    if link is None:
        raise ConsentRefused(ConsentFault.LINK_UNKNOWN)
    if link.used_at is not None:
        raise ConsentRefused(ConsentFault.LINK_USED)
    if now >= link.expires_at:
        raise ConsentRefused(ConsentFault.LINK_EXPIRED)
    return link


def verifier_place(tenant: str, flow_id: str) -> Place:
    """Where the verifier of a flow is stored."""
    return Place("flows", tenant, f"verifier {flow_id}", 0)


def _hash(kind: str, secret: str) -> str:
    """How one-time values are stored: random 256-bit values need no salt, only to be told apart by kind."""
    return hashlib.sha256(f"{kind}\0{secret}".encode()).hexdigest()
