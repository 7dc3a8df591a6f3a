"""All settings together: the one source of the documented table and of the names of variables. No I/O."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from proxy.config.authorisers import Consent
from proxy.config.notify import Notify
from proxy.config.operators import Admin
from proxy.config.secret_refs import FileRef
from proxy.config.sections import ENDPOINTS, Audit, Endpoints, Listen, Log, Pleo, Section, Store, Vault
from proxy.config.tracing import Tracing
from proxy.config.tuning import Limits, Refresh
from proxy.config.values import Rule, origin_of
from proxy.model import Origin

PLEO_CEILING = 600
"""Requests a minute beyond which Pleo answers 429."""
PLEO_ADVICE = 500
"""What Pleo advises to stay below."""


class Settings(Section):
    """The whole configuration, checked and immutable; made by :func:`proxy.config.load`."""

    listen: Listen = Listen()
    pleo: Pleo
    store: Store = Store()
    vault: Vault = Field(default=Vault(), validate_default=True)
    admin: Admin = Admin()
    consent: Consent = Consent()
    audit: Audit = Audit()
    log: Log = Log()
    notify: Notify = Notify()
    tracing: Tracing = Tracing()
    refresh: Refresh = Refresh()
    limits: Limits = Limits()

    @field_validator("vault")
    @classmethod
    def _keys_follow_the_state_dir(cls, vault: Vault, info: ValidationInfo) -> Vault:
        store: Store | None = info.data.get("store")
        if store is None or "keys" in vault.model_fields_set:
            return vault
        followed = vault.model_copy(update={"keys": FileRef(store.state_dir / "keys")})
        followed.model_fields_set.discard("keys")  # nobody has set it
        return followed

    @field_validator("limits")
    @classmethod
    def _rate_is_within_pleos(cls, limits: Limits, info: ValidationInfo) -> Limits:
        pleo: Pleo | None = info.data.get("pleo")
        rate = limits.tenant_requests_per_minute
        if pleo is not None and pleo.environment != "custom" and rate is not None and rate > PLEO_CEILING:
            raise Rule(
                f"tenant_requests_per_minute must not exceed the {PLEO_CEILING} that Pleo takes; lower it"
            )
        return limits

    @property
    def rate_ceiling(self) -> int | None:
        """Requests that Pleo takes in a minute, where that is known."""
        return None if self.pleo.environment == "custom" else PLEO_CEILING

    @property
    def tenant_requests_per_minute(self) -> int | None:
        """What a tenant may send in a minute if its policy says nothing; ``None`` for any number."""
        default = None if self.pleo.environment == "custom" else PLEO_ADVICE
        return self.limits.tenant_requests_per_minute or default

    @property
    def endpoints(self) -> Endpoints:
        """The three addresses in force."""
        pleo = self.pleo
        if pleo.environment != "custom":
            return ENDPOINTS[pleo.environment]
        return Endpoints(pleo.api_url or "", pleo.authorize_url or "", pleo.token_url or "")

    @property
    def api_origin(self) -> Origin:
        """The only origin that access tokens are sent to."""
        return origin_of(self.endpoints.api)

    @property
    def authorize_endpoint(self) -> str:
        """Where an authoriser's browser is sent (RFC 6749 section 3.1)."""
        return self.endpoints.authorize

    @property
    def token_endpoint(self) -> str:
        """Where codes and refresh tokens are redeemed (RFC 6749 section 3.2)."""
        return self.endpoints.token

    @property
    def redirect_uri(self) -> str:
        """Where Pleo sends the browser back; must be registered at Pleo letter by letter."""
        return f"{self.listen.public_url}/oauth/callback"
