"""The consent flow: a one-time link, a browser sent to Pleo, and the grant that comes back.

Authorisation code with PKCE (RFC 6749 section 4.1, RFC 7636), ``state`` bound to one browser (RFC 9700
section 4.7). A link stays good until a consent succeeded or it expires, so that a mail scanner that opens it,
or a second try, spoils nothing; a ``state`` works once. Only a browser that has shown the page of the link
can begin a flow, so nobody is sent to Pleo without having been told who asks. What is stored: hashes of link
token, state and browser cookie, and the sealed verifier.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from proxy import consents, lifecycle, oauth, pairs
from proxy.chain import Note
from proxy.consents import Ending, Invitation
from proxy.errors import ConsentFault, ConsentRefused, StoreUnavailable
from proxy.facts import (
    ConsentFailed,
    Emit,
    GrantConnected,
    LinkOpened,
    LinkRefused,
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
from proxy.store import LinkSpent, Store, TenantGone
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

    async def company_name(self, access: Secret, granted: GrantedAccess) -> str | None:
        """The name of the company of a new token, if it can be had."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, as authorisers are told, and in which language."""

    organisation: str | None = None
    contact: str | None = None
    language: str = "en"


@dataclass(frozen=True, slots=True)
class AuthorizationSettings:
    """Our registration, as the authorisation request needs it, and who asks."""

    endpoint: str
    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]
    asker: Asker = Asker()


@dataclass(frozen=True, slots=True)
class Begun:
    """A flow that has begun: where to send the browser, and the cookie that binds it."""

    url: str
    browser: Secret


async def create_link(
    store: Store,
    tenant: str,
    *,
    public_url: str,
    now: float,
    lifetime_s: float = LINK_LIFETIME_S,
    notes: Callable[[Link], Iterable[Note]] = lambda _: (),
) -> tuple[Secret, Link]:
    """A new one-time link for ``tenant``: its URL, which is a secret, and what is stored of it.

    :param notes: what the audit trail is to have of it.
    :raises TenantGone: there is no such tenant.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    link = Link(_hash("link", token), tenant, created_at=now, expires_at=now + lifetime_s)
    noted = tuple(notes(link))
    await store.add_link(link, lambda: noted)
    return Secret(f"{public_url}/connect/{token}"), link


@dataclass(slots=True)
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

    async def look(self, link_token: Secret) -> Invitation | Ending:
        """What a link asks for, or why it leads nowhere. Begins nothing and stores nothing.

        Mail scanners and link previews open links before the person does, and follow what they find.
        """
        link_id = _hash("link", link_token.reveal())
        try:
            link, tenant = await self._usable_link(link_id)
        except ConsentRefused as refused:
            return self._refused(consents.reference_of(link_id), refused)
        return Invitation(
            consents.reference_of(link_id), tenant.name, tenant.company, self.settings.scopes, link.expires_at
        )

    async def begin(self, link_token: Secret, browser: Secret | None, proof: str) -> Begun | Ending:
        """Start a flow for the browser that has shown the page of a link.

        :param browser: the cookie that came with the page. One cookie serves several flows side by side.
        :param proof: what the page gave to go on with: :func:`proof_of` the cookie.
        """
        link_id = _hash("link", link_token.reveal())
        reference = consents.reference_of(link_id)
        if browser is None or not _is_proof(proof, browser):
            return self._refused(reference, ConsentRefused(ConsentFault.PAGE_SKIPPED))
        try:
            return Begun(await self._begin(link_id, browser), browser)
        except ConsentRefused as refused:
            return self._refused(reference, refused)

    def refuse_result(self) -> Ending:
        """What somebody is told who asks for a result and has none."""
        return self._refused(consents.new_reference(), ConsentRefused(ConsentFault.STATE_UNKNOWN))

    def _refused(self, reference: str, refused: ConsentRefused) -> Ending:
        ending = Ending(reference, refused.fault, **refused.told)
        self.emit(LinkRefused(ending.tenant, refused.fault.slug, reference))
        return ending

    async def _usable_link(self, link_id: str) -> tuple[Link, Tenant]:
        try:
            link = _usable(await self.store.link(link_id), self.clock())
            tenant = (await self.store.tenants()).get(link.tenant)
        except StoreUnavailable:
            raise ConsentRefused(ConsentFault.STORE_FAILED) from None
        if tenant is None:
            raise ConsentRefused(ConsentFault.LINK_UNKNOWN)
        return link, tenant

    async def _begin(self, link_id: str, browser: Secret) -> str:
        link, tenant = await self._usable_link(link_id)
        now = self.clock()
        state, verifier = Secret(secrets.token_urlsafe(_TOKEN_BYTES)), oauth.new_verifier()
        flow_id = _hash("state", state.reveal())
        flow = Flow(
            id=flow_id,
            link=link.id,
            tenant=tenant.name,
            browser=_hash("browser", browser.reveal()),
            verifier=self.vault.seal(verifier, verifier_place(tenant.name, flow_id)),
            created_at=now,
            expires_at=now + FLOW_LIFETIME_S,
        )
        try:
            await self.store.add_flow(flow)
        except TenantGone:
            raise ConsentRefused(ConsentFault.LINK_UNKNOWN) from None
        except StoreUnavailable:
            raise ConsentRefused(ConsentFault.STORE_FAILED) from None
        self.emit(LinkOpened(tenant.name, consents.reference_of(link.id)))
        ours = self.settings
        request = oauth.AuthorizationRequest(
            ours.endpoint, ours.client_id, ours.redirect_uri, ours.scopes, state, verifier, tenant.company
        )
        return oauth.authorization_url(request)

    async def finish(self, query: Mapping[str, str], browser: Secret | None) -> Ending:
        """Take up a browser that came back from Pleo: to a stored grant, or to whatever kept it from one.

        :param query: the callback's parameters (RFC 6749 sections 4.1.2 and 4.1.2.1).
        """
        ending, error = Ending(consents.new_reference()), None
        try:
            flow = await self._take_flow(query, browser)
            ending = replace(ending, reference=consents.reference_of(flow.link), tenant=flow.tenant)
            link = await self.store.link(flow.link)
            ending = replace(ending, usable_until=consents.usable_until(link, self.clock()))
            ending = await self._connect(ending, flow, link, query)
        except ConsentRefused as refused:
            ending, error = replace(ending, fault=refused.fault, **refused.told), refused.error
        except StoreUnavailable as unavailable:
            ending, error = replace(ending, fault=ConsentFault.STORE_FAILED), unavailable.detail
        if ending.fault is not None:
            self.emit(ConsentFailed(ending.tenant, ending.fault.slug, error, ending.reference))
        return ending

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

    async def _connect(
        self, ending: Ending, flow: Flow, link: Link | None, query: Mapping[str, str]
    ) -> Ending:
        if "error" in query:
            error = oauth.known_callback_error(query["error"])
            raise ConsentRefused(consents.fault_of_callback(error), error)
        if not query.get("code"):
            raise ConsentRefused(ConsentFault.PLEO_REFUSED, "no_code")
        # Judged as of when it was opened: a link must not expire while its authoriser is at Pleo.
        _usable(link, flow.created_at)
        try:
            verifier = self.vault.open(flow.verifier, verifier_place(flow.tenant, flow.id))
        except SealedValueError:
            raise ConsentRefused(ConsentFault.STATE_UNKNOWN) from None
        started = self.clock()
        pair = await self.provider.exchange(Secret(query["code"]), verifier)
        if isinstance(pair, TokenFailure):
            raise ConsentRefused(consents.fault_of_exchange(pair), pair.error)
        if pair.refresh is None:
            raise ConsentRefused(ConsentFault.PLEO_REFUSED, "no_refresh_token")
        # Invariant 11: what was granted, and for which company, is asked before anything is stored.
        access = await self.provider.granted_access(pair.access)
        if access is None:
            raise ConsentRefused(ConsentFault.NOT_VERIFIED)
        ending = await self._keep(ending, flow, pair, access, started)
        # The name comes last: what it is asked with is stored by now, or thrown away after.
        return replace(ending, company_name=await self.provider.company_name(pair.access, access))

    async def _keep(
        self, ending: Ending, flow: Flow, pair: TokenPair, access: GrantedAccess, started: float
    ) -> Ending:
        """Store what was granted and put it in force, or find that it is for another company."""
        ending = replace(ending, company=access.company)
        try:
            tenant, grant = await self._store(flow, pair, access, started)
        except ConsentRefused as refused:
            if refused.fault is not ConsentFault.WRONG_COMPANY:
                raise
            return replace(ending, fault=refused.fault, **refused.told)
        self.connected(tenant, grant)
        asked = self.settings.scopes
        granted = tuple(scope for scope in asked if scope in access.scopes)
        missing = tuple(scope for scope in asked if scope not in access.scopes)
        self.emit(
            GrantConnected(tenant.name, grant.generation, access.company, access.scopes, ending.reference)
        )
        if missing:
            self.emit(ScopesMissing(tenant.name, missing))
        return replace(ending, granted=granted, missing=missing, usable_until=None)

    async def _store(
        self, flow: Flow, pair: TokenPair, access: GrantedAccess, started: float
    ) -> tuple[Tenant, Grant]:
        def settle(tenant: Tenant, grant: Grant | None) -> tuple[Tenant, Grant]:
            if tenant.company not in (None, access.company):
                raise ConsentRefused(ConsentFault.WRONG_COMPANY, expected=tenant.company)
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
            # Another browser was faster, so this raises what the link has become.
            _usable(await self.store.link(flow.link), flow.created_at)
            raise ConsentRefused(ConsentFault.LINK_UNKNOWN) from None
        except TenantGone:
            raise ConsentRefused(ConsentFault.LINK_UNKNOWN) from None


def _usable(link: Link | None, now: float) -> Link:
    if link is None:
        raise ConsentRefused(ConsentFault.LINK_UNKNOWN)
    if link.used_at is not None:
        raise ConsentRefused(ConsentFault.LINK_USED, tenant=link.tenant, at=link.used_at)
    if now >= link.expires_at:
        raise ConsentRefused(ConsentFault.LINK_EXPIRED, tenant=link.tenant, at=link.expires_at)
    return link


def new_browser() -> Secret:
    """The cookie of a browser that has none yet."""
    return Secret(secrets.token_urlsafe(_TOKEN_BYTES))


def proof_of(browser: Secret) -> str:
    """What only a page that was shown in this browser can know: a hash of its cookie, and no secret.

    So no link and no page of somebody else begins a flow here (RFC 9700 section 4.7).
    """
    return _hash("page", browser.reveal())


def _is_proof(proof: str, browser: Secret) -> bool:
    return hmac.compare_digest(proof_of(browser).encode(), proof.encode("utf-8", "replace"))


def verifier_place(tenant: str, flow_id: str) -> Place:
    """Where the verifier of a flow is stored."""
    return Place("flows", tenant, f"verifier {flow_id}", 0)


def _hash(kind: str, secret: str) -> str:
    """How one-time values are stored: random 256-bit values need no salt, only to be told apart by kind."""
    return hashlib.sha256(f"{kind}\0{secret}".encode()).hexdigest()
