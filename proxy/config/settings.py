"""All settings together: the one source of the documented table and of the names of variables. No I/O."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from proxy.config.operators import Admin
from proxy.config.secret_refs import FileRef
from proxy.config.sections import ENDPOINTS, Endpoints, Listen, Log, Pleo, Section, Store, Vault
from proxy.config.tuning import Limits, Refresh
from proxy.config.values import origin_of
from proxy.model import Origin


class Settings(Section):
    """The whole configuration, checked and immutable; made by :func:`proxy.config.load`."""

    listen: Listen = Listen()
    pleo: Pleo
    store: Store = Store()
    vault: Vault = Field(default=Vault(), validate_default=True)
    admin: Admin = Admin()
    log: Log = Log()
    refresh: Refresh = Refresh()
    limits: Limits = Limits()

    @field_validator("vault")
    @classmethod
    def _keys_follow_the_state_dir(cls, vault: Vault, info: ValidationInfo) -> Vault:
        store: Store | None = info.data.get("store")
        if store is None or "keys" in vault.model_fields_set:
            return vault
        return Vault(keys=FileRef(store.state_dir / "keys"))

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
