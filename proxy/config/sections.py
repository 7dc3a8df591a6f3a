"""The tables that say who and where: listeners, Pleo, store, vault, log.

A rule between two settings stands on the later one, so that all broken rules are found in one pass. No I/O,
save that with the environment as validation context it is tried whether files and secrets can be had.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from proxy.addresses import Network, is_ip_literal, is_loopback
from proxy.config.listeners import CallerListener, CallerListeners, tcp_addresses
from proxy.config.secret_refs import FileRef, GeneratedSecret, SecretRef, SecretSetting
from proxy.config.store_url import StoreUrlSetting, parse_store_url
from proxy.config.values import (
    Address,
    BaseUrl,
    Count,
    Days,
    Endpoint,
    FilePath,
    HostNames,
    HttpProxyUrl,
    Kind,
    Networks,
    OneAddress,
    ProxyNetworks,
    Rule,
    Scopes,
    TenantName,
    Text,
    WebUrl,
    origin_of,
)
from proxy.errors import ConfigurationError
from proxy.facts import Level
from proxy.keyservice import check_url


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of one Pleo environment."""

    api: str
    authorize: str
    token: str


ENDPOINTS = {
    "production": Endpoints(
        "https://external.pleo.io",
        "https://auth.pleo.io/oauth/authorize",
        "https://auth.pleo.io/oauth/token",
    ),
    "staging": Endpoints(
        "https://external.staging.pleo.io",
        "https://auth.staging.pleo.io/oauth/authorize",
        "https://auth.staging.pleo.io/oauth/token",
    ),
}
"""Pleo's published addresses; ``custom`` has none and asks for all three."""


class Section(BaseModel):
    """What all tables of the configuration share: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )


_WORKERS_MOST = 64
"""Beyond it a slip of the finger is more likely than a machine of that size."""


class Listen(Section):
    """Where callers, operators and authorisers connect."""

    proxy: CallerListeners = Field(
        default=(CallerListener(Address("127.0.0.1", 8080)),),
        description="Where callers connect: one entry or a list; port 0 takes any free port. An entry is an "
        "address, `unix:/PATH`, or a table that says more of it, such as a tenant whose callers alone "
        'connect there (the handbook\'s "Listeners"). Loopback by default, since callers have no '
        "passwords.",
    )
    admin: OneAddress = Field(
        default=Address("127.0.0.1", 8081),
        validate_default=True,
        description="The operator's listener: pages, JSON API, health, metrics and the consent flow. "
        "Loopback by default, since it speaks plain HTTP; put TLS in front before opening it.",
    )
    public_url: BaseUrl = Field(
        default="http://127.0.0.1:8081",
        description="How an authoriser's browser reaches the admin listener: scheme, host and port. https "
        "unless loopback, as Pleo asks of redirect URIs; the default fits a trial on one "
        "machine.",
    )
    hosts: HostNames = Field(
        default=(),
        description="Further names that callers, and programs at the operator's listener, may use in "
        "`Host`. IP addresses and localhost always work, other names are refused as a defence against DNS "
        "rebinding.",
    )
    trusted_proxies: ProxyNetworks = Field(
        default=(),
        description="Networks of the proxies in front of this one, which say who the caller is in "
        "`Forwarded` or `X-Forwarded-For`. Nobody else is believed; by default nobody at all.",
    )
    default_tenant: TenantName | None = Field(
        default=None,
        description="Whose the requests are that no route claims. Absent, as by default, they are refused: a "
        "guess could serve one company's data to another.",
    )
    workers: Annotated[Count, Field(le=_WORKERS_MOST)] = Field(
        default=1,
        description="Processes that serve, sharing the ports. One suffices for thousands of requests a "
        "second; more use more cores.",
    )

    @field_validator("proxy")
    @classmethod
    def _files_are_there(
        cls, listeners: tuple[CallerListener, ...], info: ValidationInfo
    ) -> tuple[CallerListener, ...]:
        for listener in listeners:
            missing = [key for key, path in listener.files.items() if not path.is_file()]
            if missing and info.context is not None:
                raise Rule(f"{missing[0]} names no file that is there; create it, or correct the path")
        return listeners

    @field_validator("admin")
    @classmethod
    def _admin_is_apart(cls, admin: Address, info: ValidationInfo) -> Address:
        if any(admin.clashes_with(proxy) for proxy in tcp_addresses(info.data.get("proxy", ()))):
            raise Rule("must not share the port of listen.proxy; choose another port for one of them")
        return admin

    @field_validator("workers")
    @classmethod
    def _workers_know_their_port(cls, workers: int, info: ValidationInfo) -> int:
        proxies = tcp_addresses(info.data.get("proxy", ()))
        if workers > 1 and any(address.port == 0 for address in proxies):
            raise Rule("needs a fixed port in listen.proxy, since several processes share it; set one")
        return workers


class Pleo(Section):
    """The OAuth client as Pleo registered it, and which Pleo to talk to."""

    environment: Annotated[Literal["production", "staging", "custom"], Kind("text")] = Field(
        default="production",
        description="`production`, `staging`, or `custom` with the three URLs below. Pleo issues separate "
        "credentials for each environment.",
    )
    client_id: Text = Field(description="The OAuth client's id, from Pleo.")
    client_secret: SecretSetting = Field(description="The OAuth client's secret, from Pleo.")
    client_secret_previous: Annotated[SecretSetting | None, Kind("secret", secret=True)] = Field(
        default=None,
        description="The secret before the last change, tried where Pleo answers `invalid_client` to the "
        "other, so that a secret can be changed without an outage. Remove it afterwards.",
    )
    client_auth: Annotated[Literal["basic", "post"], Kind("text")] = Field(
        default="basic",
        description="How the OAuth client proves itself at the token endpoint: `basic`, which RFC 6749 "
        "section 2.3.1 prefers, or `post` (form fields). Change it if Pleo answers "
        "`invalid_client`.",
    )
    scopes: Scopes = Field(
        default=("companies:read", "users:read"),
        description="Scopes that authorisers are asked for. The default suffices to try a connection out. "
        "Some names differ by environment: `tag-group:…` in production is `tag-groups:…` in "
        "staging.",
    )
    app_name: Text = Field(
        default="pleo-proxy", description="The integration's name, for the registration sheet only."
    )
    app_url: WebUrl | None = Field(
        default=None, description="The integration's home page, for the registration sheet."
    )
    logo_url: WebUrl | None = Field(
        default=None, description="The integration's logo, for the registration sheet."
    )
    terms_url: WebUrl | None = Field(
        default=None, description="Terms of service, for the registration sheet."
    )
    privacy_url: WebUrl | None = Field(
        default=None, description="Privacy policy, for the registration sheet."
    )
    initiation_url: WebUrl | None = Field(
        default=None, description="The page where a customer starts connecting, for the registration sheet."
    )
    settings_url: WebUrl | None = Field(
        default=None,
        description="The page where a customer manages the connection, for the registration sheet.",
    )
    api_url: BaseUrl | None = Field(
        default=None,
        validate_default=True,
        description="Custom only: scheme, host and port of the API. https unless loopback.",
    )
    authorize_url: Endpoint | None = Field(
        default=None,
        validate_default=True,
        description="Custom only: the authorisation endpoint. https unless loopback.",
    )
    token_url: Endpoint | None = Field(
        default=None,
        validate_default=True,
        description="Custom only: the token endpoint. https unless loopback.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="Custom only: a PEM file of CA certificates to trust for the three, beside the system's.",
    )
    http_proxy: HttpProxyUrl | None = Field(
        default=None,
        description="The HTTP proxy through which Pleo is reached, where the network has one. It is asked "
        "for tunnels (CONNECT) and sees host and port only.",
    )
    http_proxy_credentials: Annotated[SecretSetting | None, Kind("secret", secret=True)] = Field(
        default=None, description="`user:password` for it, sent as Basic authentication."
    )
    private_networks: Networks = Field(
        default=(),
        description="Custom only: private networks where the API and the token endpoint may be. Names that "
        "lead there are refused by default, as a defence against DNS that lies. What a URL names itself "
        "(an IP address, localhost) needs no entry; a cloud's metadata address needs one of its own.",
    )

    @field_validator("api_url", "authorize_url", "token_url")
    @classmethod
    def _urls_are_for_custom(cls, url: str | None, info: ValidationInfo) -> str | None:
        environment = info.data.get("environment")
        if environment == "custom" and url is None:
            raise Rule('pleo.environment = "custom" needs it; add it, or choose production or staging')
        if environment in ENDPOINTS and url is not None:
            raise Rule('has no effect unless pleo.environment = "custom"; remove it, or change that')
        return url

    @field_validator("ca_file")
    @classmethod
    def _ca_has_effect(cls, ca_file: Path | None, info: ValidationInfo) -> Path | None:
        if ca_file is None:
            return None
        if info.data.get("environment") in ENDPOINTS:
            raise Rule('has no effect unless pleo.environment = "custom"; remove it, or change that')
        urls: Iterable[str | None] = [info.data.get(key) for key in ("api_url", "authorize_url", "token_url")]
        if all(url is not None and url.startswith("http:") for url in urls):
            raise Rule("has no effect, since none of the three URLs is https; remove it")
        if info.context is not None and not ca_file.is_file():
            raise Rule("there is no such file; create it, or correct the path")
        return ca_file

    @field_validator("http_proxy")
    @classmethod
    def _tokens_stay_encrypted(cls, http_proxy: str | None, info: ValidationInfo) -> str | None:
        urls: Iterable[str | None] = [info.data.get(key) for key in ("api_url", "token_url")]
        is_plain = any(url is not None and url.startswith("http:") for url in urls)
        if http_proxy is not None and is_plain and not is_loopback(origin_of(http_proxy).host):
            raise Rule(
                "must be on this machine, since tokens would cross the network in clear to pleo.api_url or "
                "pleo.token_url, which are plain http; remove it, or use https there"
            )
        return http_proxy

    @field_validator("http_proxy_credentials")
    @classmethod
    def _credentials_have_effect(cls, given: SecretRef | None, info: ValidationInfo) -> SecretRef | None:
        if given is not None and info.data.get("http_proxy", "wrong") is None:
            raise Rule("has no effect without pleo.http_proxy; remove it, or set that")
        return given

    @field_validator("private_networks")
    @classmethod
    def _private_networks_have_effect(
        cls, networks: tuple[Network, ...], info: ValidationInfo
    ) -> tuple[Network, ...]:
        if not networks:
            return networks
        if info.data.get("environment") in ENDPOINTS:
            raise Rule('has no effect unless pleo.environment = "custom"; remove it, or change that')
        if info.data.get("http_proxy") is not None:
            raise Rule("has no effect with pleo.http_proxy, which resolves names itself; remove one of them")
        hosts = [origin_of(url).host for key in ("api_url", "token_url") if (url := info.data.get(key))]
        if hosts and all(is_ip_literal(host) or is_loopback(host) for host in hosts):
            raise Rule("has no effect, since pleo.api_url and pleo.token_url name no host; remove it")
        return networks


class Store(Section):
    """Where grants and tenants are kept."""

    url: StoreUrlSetting = Field(
        default=parse_store_url("sqlite:///var/lib/pleo-proxy/proxy.db"),
        description="The database. `sqlite:///srv/x.db` is the absolute path `/srv/x.db`, `sqlite:x.db` is "
        "in the working directory. The default is where the FHS puts a service's state. "
        "`postgresql://USER@HOST/DATABASE` is for several machines; its password stands in the URL "
        "(`USER:PASSWORD@`, never shown), in `PGPASSWORD` or in PostgreSQL's password file.",
    )
    state_dir: FilePath = Field(
        default=Path("/var/lib/pleo-proxy"),
        description="Directory of the refresh journal, of generated keys and of the generated admin token's "
        "hash, on a disk that survives restarts; no two instances share one. The default is what systemd's "
        "`StateDirectory=pleo-proxy` creates.",
    )

    @property
    def sqlite_path(self) -> Path:
        """The database file that ``url`` names.

        :raises ConfigurationError: it names a PostgreSQL database.
        """
        if self.url.path is None:
            raise ConfigurationError(
                "store",
                [f"store.url = {self.url}: this is for a store in a SQLite file; use pg_dump and the like"],
            )
        return self.url.path


def _parse_key_service(url: str) -> str:
    try:
        check_url(url)
    except ValueError as error:
        raise Rule(str(error)) from None
    return url


class Vault(Section):
    """How stored tokens are sealed."""

    keys: GeneratedSecret = Field(
        default=FileRef(Path("/var/lib/pleo-proxy/keys")),
        description="The key ring. By default the file `keys` in `store.state_dir`. A file is generated with "
        "mode 0600 at the first start if absent, and refused if others can read it.",
    )
    key_service: Annotated[str, AfterValidator(_parse_key_service), Kind("URL of a key")] | None = Field(
        default=None,
        description="The key outside of this machine that wraps the keys of the ring, such as "
        "`aws-kms://eu-west-1/alias/pleo-proxy`. It is asked at a start only. With it a ring with a key that "
        "is not wrapped is refused. Absent: keys are kept as they are, which needs no service.",
    )


class Audit(Section):
    """The audit trail in the store."""

    keep_days: Days = Field(
        default=400.0,
        description="Records older than this are removed. The default is a year and some weeks to look back "
        "on it. A tenant in use all day makes some 120 records a day, of 300 bytes each.",
    )


class Log(Section):
    """What is written to standard output."""

    format: Annotated[Literal["json", "console"] | None, Kind("text")] = Field(
        default=None,
        description="`json` or `console`. Absent: console on a terminal, else JSON, one object a line.",
    )
    level: Annotated[Level, Kind("text")] = Field(
        default="info",
        description="`debug`, `info`, `warning` or `error`: what is less important is left out. The default "
        "shows one line for each request.",
    )
