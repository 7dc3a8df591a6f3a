"""The configuration: found, read, laid over by the environment, checked as a whole, and documented."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from operator import attrgetter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import (
    Address,
    CallerListener,
    CredentialRef,
    EnvRef,
    FileRef,
    SecretRef,
    Settings,
    SocketPath,
    TenantEntry,
    find,
    load,
    load_tenants_file,
    loading,
    reference,
    registration_sheet,
    resolve,
    secret_refs,
    settings_table,
    warnings,
)
from proxy.config.listeners import parse_listener
from proxy.config.values import Rule
from proxy.errors import ConfigurationError, UsageError
from proxy.model import Origin, Policy, Preset, Secret

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "config" / "example.toml"
PLANTED = "plp_planted0secret"
SSO = '[admin]\nsso_header = "X-Email"\n'

MINIMAL = {"pleo": {"client_id": "ours", "client_secret": {"env": "S"}}}
IDENTITY = '[pleo]\nclient_id = "ours"\nclient_secret = { env = "S" }\n'
CUSTOM = (
    IDENTITY + 'environment = "custom"\napi_url = "https://api.test"\n'
    'authorize_url = "https://auth.test/authorize"\ntoken_url = "https://auth.test/token"\n'
)


def settings(tmp_path: Path, text: str = "", environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of ``text`` beneath a registration that is in order."""
    path = tmp_path / "config.toml"
    path.write_text(text if "[pleo]" in text else IDENTITY + text)
    return load(path, environ or {})


def mistakes(
    tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, *, check_references: bool = False
) -> list[str]:
    """What :func:`load` finds wrong with ``text``."""
    path = tmp_path / "config.toml"
    path.write_text(text if "[pleo]" in text else IDENTITY + text)
    with pytest.raises(ConfigurationError) as caught:
        load(path, environ or {}, check_references=check_references)
    assert caught.value.source == str(path)
    assert caught.value.exit_code == 2
    assert all("\n" not in line for line in caught.value.mistakes)
    return caught.value.mistakes


# --- finding the file


def test_find_prefers_the_option(tmp_path: Path) -> None:
    """``--config`` wins over ``$PLEO_PROXY_CONFIG``."""
    option, variable = tmp_path / "option.toml", tmp_path / "variable.toml"
    option.touch()
    variable.touch()
    assert find(option, {"PLEO_PROXY_CONFIG": str(variable)}) == option
    assert find(None, {"PLEO_PROXY_CONFIG": str(variable)}) == variable


def test_find_falls_back_to_the_system_then_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name, the system's file counts, and the one in the working directory where there is none."""
    system = tmp_path / "system.toml"
    monkeypatch.setattr(loading, "SYSTEM_FILE", system)
    monkeypatch.chdir(tmp_path)
    Path("config.toml").touch()
    assert find(None, {"PLEO_PROXY_CONFIG": ""}) == Path("config.toml")
    system.touch()
    assert find(None, {}) == system


@pytest.mark.parametrize(
    ("explicit", "environ", "source"),
    [
        pytest.param(Path("/nowhere/a.toml"), {}, "--config /nowhere/a.toml", id="option"),
        pytest.param(None, {"PLEO_PROXY_CONFIG": "/nowhere/b.toml"}, "$PLEO_PROXY_CONFIG", id="variable"),
    ],
)
def test_find_refuses_a_named_file_that_is_missing(
    explicit: Path | None, environ: Mapping[str, str], source: str
) -> None:
    """A file that was named and does not exist is never passed over for another one."""
    with pytest.raises(UsageError, match="no such file; correct the path") as caught:
        find(explicit, environ)
    assert source in str(caught.value)


def test_find_names_the_places_it_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to read, the error says where a file may be, and what to copy there."""
    monkeypatch.setattr(loading, "SYSTEM_FILE", tmp_path / "none.toml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        find(None, {})
    for place in ("--config", "$PLEO_PROXY_CONFIG", "none.toml", "./config.toml", "config/example.toml"):
        assert place in str(caught.value)


def test_find_accepts_an_environment_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in the environment alone suffice, as in a container."""
    monkeypatch.setattr(loading, "SYSTEM_FILE", tmp_path / "none.toml")
    monkeypatch.chdir(tmp_path)
    environ = {"PLEO_PROXY__PLEO__CLIENT_ID": "ours", "PLEO_PROXY__PLEO__CLIENT_SECRET__ENV": "S"}
    assert find(None, environ) is None
    assert load(None, environ).pleo.client_id == "ours"


# --- values


def test_defaults_are_those_of_the_contract() -> None:
    """What is not set has the documented default."""
    found = Settings.model_validate(MINIMAL)
    assert found.listen.proxy == (CallerListener(Address("127.0.0.1", 8080)),)
    assert found.listen.admin == Address("127.0.0.1", 8081)
    assert found.pleo.scopes == ("companies:read", "users:read")
    assert found.store.sqlite_path == Path("/var/lib/pleo-proxy/proxy.db")
    assert found.vault.keys == FileRef(Path("/var/lib/pleo-proxy/keys"))
    assert found.admin.token is None
    assert found.limits.replay_memory == 1024**2
    assert found.redirect_uri == "http://127.0.0.1:8081/oauth/callback"


@pytest.mark.parametrize(
    ("environment", "api", "authorize", "token"),
    [
        pytest.param(
            "production",
            "https://external.pleo.io",
            "https://auth.pleo.io/oauth/authorize",
            "https://auth.pleo.io/oauth/token",
            id="production",
        ),
        pytest.param(
            "staging",
            "https://external.staging.pleo.io",
            "https://auth.staging.pleo.io/oauth/authorize",
            "https://auth.staging.pleo.io/oauth/token",
            id="staging",
        ),
    ],
)
def test_environment_settles_the_endpoints(
    tmp_path: Path, environment: str, api: str, authorize: str, token: str
) -> None:
    """Pleo's own addresses follow from the environment's name."""
    found = settings(tmp_path, f'{IDENTITY}environment = "{environment}"\n')
    assert str(found.api_origin) == api
    assert found.authorize_endpoint == authorize
    assert found.token_endpoint == token


def test_custom_endpoints_are_taken_as_given(tmp_path: Path) -> None:
    """A custom environment has the three addresses that the file gives; http is fine on loopback."""
    text = CUSTOM.replace("https://api.test", "http://[::1]:9100")
    found = settings(tmp_path, text)
    assert found.api_origin == Origin("http", "::1", 9100)
    assert found.token_endpoint == "https://auth.test/token"


def test_keys_follow_the_state_directory(tmp_path: Path) -> None:
    """The generated key ring is in the state directory unless the file says otherwise."""
    assert settings(tmp_path, '[store]\nstate_dir = "/srv/p"').vault.keys == FileRef(Path("/srv/p/keys"))
    explicit = settings(tmp_path, '[store]\nstate_dir = "/srv/p"\n[vault]\nkeys = { credential = "ring" }')
    assert explicit.vault.keys == CredentialRef("ring")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        pytest.param("sqlite:///var/lib/x.db", "/var/lib/x.db", id="absolute"),
        pytest.param("sqlite:////var/lib/x.db", "/var/lib/x.db", id="absolute-four-slashes"),
        pytest.param("sqlite:state/x.db", "state/x.db", id="relative"),
    ],
)
def test_store_url_names_a_file(tmp_path: Path, url: str, path: str) -> None:
    """Three and four slashes are absolute, none is relative to the working directory."""
    assert settings(tmp_path, f'[store]\nurl = "{url}"').store.sqlite_path == Path(path)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param("65536", 65536, id="bytes"),
        pytest.param('"64 KiB"', 65536, id="kib"),
        pytest.param('"64kib"', 65536, id="lower-case-without-space"),
        pytest.param('"1 GiB"', 1024**3, id="gib"),
        pytest.param('"512"', 512, id="text-without-unit"),
    ],
)
def test_sizes_have_units(tmp_path: Path, size: str, expected: int) -> None:
    """A size is a number of bytes or text with a binary unit."""
    assert settings(tmp_path, f"[limits]\nbody_bytes = {size}").limits.body_bytes == expected


VALUES_OF_KEYS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["a:1", "unix:/a", "uid:1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
KEYS_OF_LISTENERS = st.sampled_from(
    ["address", "tenant", "mode", "group", "peers", "tls_key", "client_ca", "x"]
)


@given(VALUES_OF_KEYS | st.dictionaries(KEYS_OF_LISTENERS, VALUES_OF_KEYS, max_size=4))
def test_whatever_a_listener_is_it_is_one_or_breaks_a_rule(value: object) -> None:
    """No value of TOML or JSON leads to anything but a listener that can be shown, or a rule and remedy."""
    told = "none;"
    try:
        found = parse_listener(value)
    except Rule as rule:
        told = str(rule)
    else:
        assert parse_listener(str(found)).address == found.address
    assert ";" in told


def test_the_files_of_tls_must_be_there_when_they_are_needed(tmp_path: Path) -> None:
    """Commands beside the proxy do without them; ``check`` and ``serve`` name the key that names no file."""
    text = (
        f'[listen]\nproxy = {{ address = "a:1", tls_certificate = "{tmp_path}/c", tls_key = "{tmp_path}/k", '
        f'client_ca = "{tmp_path}/ca" }}'
    )
    (listener,) = settings(tmp_path, text).listen.proxy
    assert (listener.certificate, listener.client_certificates) == (tmp_path / "c", "required")
    for name, key in (("", "tls_certificate"), ("c", "tls_key"), ("k", "client_ca")):
        (tmp_path / (name or "x")).touch()
        found = mistakes(tmp_path, text, check_references=True)
        assert any(f"{key} names no file that is there" in line for line in found), found


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ("", True),
        (', client_ca = "x"', False),
        (', client_ca = "x", client_certificates = "optional"', True),
    ],
)
def test_a_listener_that_asks_for_certificates_needs_no_firewall(
    tmp_path: Path, more: str, warned: bool
) -> None:
    """Whoever has no password is warned of; who must show a certificate has one."""
    text = f'[listen]\nproxy = {{ address = "0.0.0.0:1", tls_certificate = "c", tls_key = "k"{more} }}'
    found = [line for line in warnings(settings(tmp_path, text)) if "listen.proxy" in line]
    assert bool(found) is warned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("unix:/run/a.sock", SocketPath(Path("/run/a.sock")), id="unix"),
        pytest.param("[::1]:8080", Address("::1", 8080), id="ipv6"),
        pytest.param("0.0.0.0:0", Address("0.0.0.0", 0), id="any-port"),
        pytest.param("LocalHost:80", Address("localhost", 80), id="name"),
    ],
)
def test_addresses_are_parsed(tmp_path: Path, text: str, expected: Address | SocketPath) -> None:
    """A listener's address is host and port, with IPv6 in brackets."""
    assert settings(tmp_path, f'[listen]\nproxy = ["{text}"]').listen.proxy == (CallerListener(expected),)
    assert str(expected) == text.lower()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("127.8.8.8", True, id="ipv4"),
        pytest.param("::1", True, id="ipv6"),
        pytest.param("localhost", True, id="localhost"),
        pytest.param("a.localhost", True, id="below-localhost"),
        pytest.param("0.0.0.0", False, id="wildcard"),
        pytest.param("localhost.example.com", False, id="look-alike"),
    ],
)
def test_loopback_is_this_machine_only(host: str, expected: bool) -> None:
    """Whether other machines can connect decides what is refused and warned of."""
    assert Address(host, 80).is_loopback is expected


# --- mistakes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            '[listen]\nproxy = "8080"', 'listen.proxy[0] = "8080": must be "HOST:PORT"', id="no-host"
        ),
        pytest.param('[listen]\nproxy = "*:80"', "the host must be an IP address or a name", id="wildcard"),
        pytest.param('[listen]\nproxy = "a:70000"', "the port must be at most 65535", id="port-too-high"),
        pytest.param('[listen]\nproxy = "[a]:80"', "brackets are for IPv6", id="brackets"),
        pytest.param("[listen]\nproxy = []", "listen.proxy = []: must not be empty", id="no-address"),
        pytest.param(
            '[listen]\nproxy = ["a:1", "a:1"]', "two entries have the same address", id="address-twice"
        ),
        pytest.param(
            '[listen]\nproxy = ["0.0.0.0:1", { address = "127.0.0.1:1", tenant = "acme" }]',
            "two entries have the same address",
            id="address-within",
        ),
        pytest.param(
            '[listen]\nproxy = ["unix:/a", { address = "unix:/a", tenant = "acme" }]',
            "two entries have the same address",
            id="socket-twice",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "127.0.0.1:1", tenat = "acme" }',
            "listen.proxy[0] = …: a listener's table has an unknown key; did you mean tenant?",
            id="listener-key",
        ),
        pytest.param(
            "[listen]\nproxy = { zzz = 1 }", "unknown key; known are address", id="listener-far-key"
        ),
        pytest.param('[listen]\nproxy = { tenant = "acme" }', "must have an address", id="listener-nowhere"),
        pytest.param(
            '[listen]\nproxy = { address = "a:1", tenant = "Acme" }', "tenant must be", id="listener-tenant"
        ),
        pytest.param(
            '[listen]\nproxy = { address = "a:1", tenant = "" }', "tenant must be", id="listener-tenant-empty"
        ),
        pytest.param(
            '[listen]\nproxy = { address = "a:1", mode = "0660" }',
            "is for Unix sockets only",
            id="mode-of-tcp",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "unix:/a", mode = "rw" }', "mode must be", id="listener-mode"
        ),
        pytest.param(
            '[listen]\nproxy = { address = "unix:/a", mode = 660 }', "mode must be", id="listener-mode-number"
        ),
        pytest.param(
            '[listen]\nproxy = { address = "unix:/a", group = "4294967295" }',
            "group must be",
            id="group-number",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "unix:/a", group = "a b" }', "group must be", id="group-name"
        ),
        pytest.param('[listen]\nproxy = { address = "unix:/a", peers = [] }', "peers must be", id="no-peers"),
        pytest.param(
            '[listen]\nproxy = { address = "unix:/a", peers = ["uid:1", 2] }',
            "peers must be",
            id="peer-number",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "unix:/a", peers = "user:acme" }',
            "peers must be",
            id="peer-by-name",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "unix:/a", peers = "uid:4294967295" }',
            "peers must be",
            id="peer-high",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "a:1", tls_key = "k" }', "belong together", id="tls-key-alone"
        ),
        pytest.param(
            '[listen]\nproxy = { address = "a:1", tls_certificate = "c" }',
            "belong together",
            id="tls-cert-alone",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "a:1", client_ca = "c" }',
            "no effect without TLS",
            id="client-ca-alone",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "a:1", tls_certificate = "c", tls_key = "k", '
            'client_certificates = "optional" }',
            "no effect without client_ca",
            id="client-certificates-alone",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "a:1", tls_certificate = "c", tls_key = "k", client_ca = "c", '
            'client_certificates = "maybe" }',
            'must be "required" or "optional"',
            id="client-certificates-other",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "a:1", tls_certificate = "~/c", tls_key = "k" }',
            "~ is not expanded",
            id="tls-home",
        ),
        pytest.param(
            '[listen]\nproxy = { address = "unix:/a", tls_certificate = "c", tls_key = "k" }',
            "tls_certificate is not for Unix sockets",
            id="tls-over-unix",
        ),
        pytest.param('[listen]\nproxy = "unix:a"', "must have a full path", id="socket-relative"),
        pytest.param('[listen]\nproxy = "unix:/a/"', "must have a full path", id="socket-directory"),
        pytest.param(f'[listen]\nproxy = "unix:/{"a" * 107}"', "at most 107 bytes", id="socket-long"),
        pytest.param(
            '[listen]\ntrusted_proxies = "10.0.0.1/8"',
            "without bits beyond its length",
            id="proxies-host-bits",
        ),
        pytest.param(
            '[listen]\ntrusted_proxies = "proxy"', "must be a network in CIDR notation", id="proxies-name"
        ),
        pytest.param('[listen]\ntrusted_proxies = ["::/0"]', "must not be everybody", id="proxies-everybody"),
        pytest.param('[listen]\ndefault_tenant = "Acme"', "must be a tenant's name", id="default-tenant"),
        pytest.param('[listen]\nadmin = "127.0.0.1:8080"', "must not share the port", id="same-address"),
        pytest.param('[listen]\nadmin = "0.0.0.0:8080"', "must not share the port", id="all-interfaces"),
        pytest.param(
            '[listen]\nproxy = "127.0.0.1:8081"',
            'listen.admin = "127.0.0.1:8081" (the default): must not share the port',
            id="same-as-default",
        ),
        pytest.param('[listen]\npublic_url = "http://x.test"', "must be https", id="public-url-http"),
        pytest.param(
            '[listen]\npublic_url = "https://x.test/"', "must end after host", id="public-url-slash"
        ),
        pytest.param('[listen]\npublic_url = "https://x.test?"', "no query", id="public-url-query"),
        pytest.param('[listen]\npublic_url = "x.test"', "http or https URL", id="public-url-no-scheme"),
        pytest.param('[listen]\npublic_url = "https://x:y"', "valid host and port", id="public-url-port"),
        pytest.param('[listen]\npublic_url = "https://x:0"', "valid host and port", id="public-url-port-0"),
        pytest.param('[listen]\npublic_url = "https://[x"', "valid host and port", id="public-url-bracket"),
        pytest.param('[listen]\nhosts = ["localhost"]', "has no effect", id="host-without-effect"),
        pytest.param('[listen]\nhosts = ["10.0.0.1"]', "has no effect", id="host-is-address"),
        pytest.param('[listen]\nhosts = ["a.test:80"]', "without port", id="host-with-port"),
        pytest.param('[listen]\nhosts = ["a.test", "A.test"]', "an entry is repeated", id="host-twice"),
        pytest.param("[listen]\nworkers = 65", "at most 64", id="workers"),
        pytest.param('[listen]\nworkers = 2\nproxy = "[::1]:0"', "needs a fixed port", id="workers-port-0"),
        pytest.param("[admin]\nsession_idle_s = 60", "must be at least 300", id="session-idle-short"),
        pytest.param(
            "[admin]\nsession_idle_s = 900\nsession_max_s = 600",
            "admin.session_max_s = 600: must not be less than admin.session_idle_s (900)",
            id="session-max-short",
        ),
        pytest.param(
            "[admin]\nsession_idle_s = 50000",
            "admin.session_max_s = 43200 (the default): must not be less than",
            id="session-idle-long",
        ),
        pytest.param(
            '[admin]\nsso_proxies = ["127.0.0.1/32"]', "no effect without admin.sso_header", id="sso-proxies"
        ),
        pytest.param(
            '[admin]\nsso_operators = ["a@b.test"]', "no effect without admin.sso_header", id="sso-operators"
        ),
        pytest.param(
            '[admin]\nsso_viewers = ["a@b.test"]', "no effect without admin.sso_header", id="sso-viewers"
        ),
        pytest.param(SSO, "admin.sso_proxies is missing: admin.sso_header needs it", id="sso-no-proxies"),
        pytest.param(
            IDENTITY + '[consent]\nlanguage = "fr"',
            "must be one of de, en; choose one",
            id="consent-language",
        ),
        pytest.param(
            IDENTITY + f'[consent]\norganisation = "{"x" * 121}"',
            "must have at most 120 characters, since it stands in sentences",
            id="consent-long",
        ),
        pytest.param(
            IDENTITY + '[consent]\ncontact = "a\\nb"', "must be text on one line", id="consent-two-lines"
        ),
        pytest.param(SSO + "sso_proxies = []", "admin.sso_header needs it", id="sso-empty-proxies"),
        pytest.param(
            SSO + 'sso_proxies = ["10.0.0.0/8"]', "admin.sso_header lets nobody in", id="sso-nobody"
        ),
        pytest.param(SSO + 'sso_proxies = ["0.0.0.0/0"]', "must not be everybody", id="sso-all-ipv4"),
        pytest.param(SSO + 'sso_proxies = ["::/0"]', "must not be everybody", id="sso-all-ipv6"),
        pytest.param(SSO + 'sso_proxies = ["10.0.0.1/8"]', "must be a network", id="sso-host-bits"),
        pytest.param(SSO + 'sso_operators = ["ann"]', "must be an address", id="sso-no-address"),
        pytest.param(SSO + 'sso_operators = ["*"]', "must be an address", id="sso-everybody"),
        pytest.param(SSO + 'sso_operators = ["a*@b.test"]', "must be an address", id="sso-wildcard"),
        pytest.param(
            SSO + 'sso_operators = ["a@b.test"]\nsso_viewers = ["A@B.test"]',
            "gains nothing here",
            id="sso-both-lists",
        ),
        pytest.param('[admin]\nsso_header = "X Email"', "must be the name of a header", id="sso-header"),
        pytest.param(IDENTITY + 'environment = "prod"', 'did you mean "production"?', id="environment"),
        pytest.param(IDENTITY + "scopes = []", "pleo.scopes = []: must not be empty", id="no-scopes"),
        pytest.param(IDENTITY + 'scopes = ["a:b c:d"]', "one to an entry", id="scopes-in-one"),
        pytest.param(IDENTITY + 'scopes = ["a:b", "a:b"]', "an entry is repeated", id="scope-twice"),
        pytest.param(IDENTITY + 'app_name = ""', 'pleo.app_name = "": must be text', id="empty-text"),
        pytest.param(
            IDENTITY + 'api_url = "https://a.test"',
            'has no effect unless pleo.environment = "custom"',
            id="api",
        ),
        pytest.param(IDENTITY + 'ca_file = "ca.pem"', "has no effect unless", id="ca-without-custom"),
        pytest.param(
            IDENTITY + 'environment = "custom"', "pleo.token_url is missing", id="custom-incomplete"
        ),
        pytest.param(
            CUSTOM.replace("api.test", "api.test/v1"), "must end after host and port", id="api-path"
        ),
        pytest.param(CUSTOM.replace("https://api", "http://api"), "must be https", id="api-http"),
        pytest.param(
            re.sub(r"https://(api|auth)\.test", "http://localhost", CUSTOM) + 'ca_file = "x"',
            "none of the three URLs is https",
            id="ca-without-tls",
        ),
        pytest.param(
            IDENTITY + 'http_proxy = "http://u:p@proxy.test:3128"',
            'pleo.http_proxy = "http://…@proxy.test:3128": must hold no user name or password',
            id="http-proxy-with-credentials",
        ),
        pytest.param(
            IDENTITY + 'http_proxy = "proxy.test:3128"', "http or https URL", id="http-proxy-no-scheme"
        ),
        pytest.param(IDENTITY + 'http_proxy = "https://p.test:1"', "http://HOST:PORT", id="http-proxy-tls"),
        pytest.param(IDENTITY + 'http_proxy = "http://p.test"', "http://HOST:PORT", id="http-proxy-no-port"),
        pytest.param(IDENTITY + 'http_proxy = "http://p.test:1/"', "http://HOST:PORT", id="http-proxy-path"),
        pytest.param(
            re.sub(r"https://(api|auth)\.test", "http://localhost", CUSTOM)
            + 'http_proxy = "http://p.test:3128"',
            "tokens would cross the network in clear",
            id="http-proxy-for-plain-http",
        ),
        pytest.param(
            IDENTITY + 'http_proxy_credentials = { env = "P" }',
            "has no effect without pleo.http_proxy",
            id="http-proxy-credentials-alone",
        ),
        *(
            pytest.param(f"{IDENTITY}[notify]\n{text}", rule, id=f"notify-{case}")
            for case, text, rule in (
                ("unsigned", 'webhook_url = "https://a.test/"', "notify.webhook_url needs it"),
                ("secret-alone", 'webhook_secret = "x"', "has no effect without notify.webhook_url"),
                ("hook-scheme", 'webhook_url = "ftp://a.test/"\nwebhook_secret = "x"', "http or https URL"),
                ("smtp-scheme", 'smtp_url = "https://a.test"', "must be smtp:// (STARTTLS) or smtps://"),
                ("smtp-path", 'smtp_url = "smtp://a.test/x"', "must be smtp:// (STARTTLS) or smtps://"),
                ("smtp-port", 'smtp_url = "smtp://a.test:0"', "must be smtp:// (STARTTLS) or smtps://"),
                ("smtp-port-high", 'smtp_url = "smtp://a.test:65536"', "must be smtp:// (STARTTLS)"),
                (
                    "smtp-password-in-url",
                    'smtp_url = "smtp://u:p@a.test"',
                    'notify.smtp_url = "smtp://…@a.test": must be smtp:// (STARTTLS) or smtps://',
                ),
                ("smtp-no-sender", 'smtp_url = "smtp://a.test"', "write the address that e-mail is to"),
                ("smtp-no-recipient", 'smtp_url = "smtp://a.test"', "write who gets the e-mail"),
                ("sender-alone", 'mail_from = "a@b.test"', "has no effect without notify.smtp_url"),
                ("recipient-alone", 'mail_to = "a@b.test"', "has no effect without notify.smtp_url"),
                ("no-password", 'smtp_url = "smtp://u@a.test"', "the user in notify.smtp_url needs it"),
                (
                    "password-without-user",
                    'smtp_url = "smtp://a.test"\nsmtp_password = "x"',
                    "has no effect without a user in notify.smtp_url",
                ),
                ("password-alone", 'smtp_password = "x"', "has no effect without notify.smtp_url"),
                (
                    "address",
                    'smtp_url = "smtp://a.test"\nmail_from = "Ops <a@b.test>"',
                    "must be an e-mail address and nothing around it",
                ),
                ("command", 'command = ["told"]', "must begin with a program's absolute path"),
                ("command-nul", 'command = ["/told", "a\\u0000b"]', "must hold no NUL character"),
                ("repeat", "repeat_s = 59", "notify.repeat_s = 59"),
            )
        ),
        *(
            pytest.param(f"{IDENTITY}[tracing]\n{text}", rule, id=f"tracing-{case}")
            for case, text, rule in (
                ("scheme", 'endpoint = "grpc://c.test:4317/x"', "must be an http or https URL"),
                ("no-path", 'endpoint = "http://c.test:4318"', "write https://HOST:4318/v1/traces"),
                ("root", 'endpoint = "http://c.test:4318/"', "must have the path too"),
                ("user", 'endpoint = "http://u:p@c.test/x"', "must hold no user name or password"),
                ("headers-alone", 'headers = "a=b"', "has no effect without tracing.endpoint"),
                (
                    "headers-in-clear",
                    'endpoint = "http://c.test/x"\nheaders = "a=b"',
                    "would go in clear, since tracing.endpoint is http; use https there",
                ),
                ("ratio", "sample_ratio = 1.1", "tracing.sample_ratio = 1.1"),
                ("ratio-negative", "sample_ratio = -0.1", "tracing.sample_ratio = -0.1"),
                ("ratio-bool", "sample_ratio = true", "must be a number"),
                ("service", 'service_name = ""', "must be text on one line"),
                ("timeout", "timeout_s = 0", "tracing.timeout_s = 0"),
            )
        ),
        pytest.param(
            IDENTITY + 'private_networks = ["10.0.0.0/8"]',
            'has no effect unless pleo.environment = "custom"',
            id="networks-without-custom",
        ),
        pytest.param(
            CUSTOM + 'private_networks = ["10.0.0.0/8"]\nhttp_proxy = "http://p.test:3128"',
            "has no effect with pleo.http_proxy",
            id="networks-with-http-proxy",
        ),
        pytest.param(
            CUSTOM.replace("api.test", "10.0.0.1").replace("auth.test", "pleo.localhost")
            + 'private_networks = ["10.0.0.0/8"]',
            "name no host",
            id="networks-without-names",
        ),
        pytest.param(
            CUSTOM + 'private_networks = ["10.0.0.1/8"]',
            'pleo.private_networks[0] = "10.0.0.1/8": must be a network in CIDR notation',
            id="network-with-host-bits",
        ),
        pytest.param(CUSTOM + "private_networks = [10]", "must be a network", id="network-as-number"),
        pytest.param(CUSTOM + 'private_networks = ["intra"]', "must be a network", id="network-name"),
        pytest.param(CUSTOM + 'private_networks = ["fe80::1%eth0"]', "must be a network", id="network-zone"),
        pytest.param(
            CUSTOM + 'private_networks = ["8.8.8.0/24"]', "public addresses are always", id="network-public"
        ),
        pytest.param(
            CUSTOM + 'private_networks = ["10.0.0.1", "10.0.0.1/32"]',
            "an entry is repeated",
            id="network-twice",
        ),
        pytest.param(
            '[store]\nurl = "postgresql://h"', "must be postgresql://USER@HOST", id="postgres-no-name"
        ),
        pytest.param('[store]\nurl = "postgresql://h:65536/d"', "must be postgresql://", id="postgres-port"),
        pytest.param('[store]\nurl = "postgresql://h /d"', "without spaces", id="postgres-space"),
        pytest.param('[store]\nurl = "mysql://h/d"', "must be sqlite:///ABSOLUTE", id="another-database"),
        pytest.param('[store]\nurl = "sqlite::memory:"', "would lose every authorisation", id="memory"),
        pytest.param('[store]\nurl = "sqlite://host/x.db"', "must name a file", id="sqlite-host"),
        pytest.param('[store]\nurl = "sqlite:///"', "must name a file", id="sqlite-no-file"),
        pytest.param('[store]\nurl = "/var/x.db"', "must be sqlite:///ABSOLUTE", id="sqlite-no-scheme"),
        pytest.param('[store]\nstate_dir = "~/p"', "~ is not expanded", id="tilde"),
        pytest.param('[log]\nlevel = "warn"', 'did you mean "warning"?', id="level"),
        pytest.param("[refresh]\nadvisory = 1", "refresh.advisory = 1: must be less than 1", id="fraction"),
        pytest.param("[refresh]\nadvisory = 0.0", "refresh without end", id="advisory-zero"),
        pytest.param("[refresh]\nadvisory = 0.97", "must begin after refresh.advisory", id="mandatory-first"),
        pytest.param(
            "[refresh]\nadvisory_jitter = 0.3", "must end within the lifetime", id="jitter-too-long"
        ),
        pytest.param("[refresh]\nbackoff_s = 90", "must not be below refresh.backoff_s", id="backoff"),
        pytest.param("[refresh]\nwait_s = true", "replace true or false", id="number-is-bool"),
        pytest.param("[refresh]\nwait_s = inf", "must", id="infinite"),
        pytest.param("[refresh]\nwait_s = nan", "must", id="not-a-number"),
        pytest.param("[limits]\nheaders = 0", "limits.headers = 0: must be at least 1", id="count-zero"),
        pytest.param('[limits]\nbody_bytes = "64 MB"', "KiB, MiB or GiB", id="decimal-unit"),
        pytest.param("[limits]\nbody_bytes = -1", "limits.body_bytes = -1: must be bytes", id="negative"),
        pytest.param(
            '[limits]\nhead_bytes = "4 KiB"', "must not exceed limits.head_bytes", id="target-in-head"
        ),
        pytest.param(
            '[limits]\nreplay_memory = "65 MiB"',
            'limits.replay_disk = "64 MiB" (the default): must not be below limits.replay_memory (65 MiB)',
            id="memory-over-disk",
        ),
        pytest.param("[limits]\nupstream_total_s = 5", "upstream_connect_s", id="total-below-connect"),
        pytest.param("limits = 3\n" + IDENTITY, "limits: must be a table; write [limits]", id="not-a-table"),
        pytest.param("[listn]\n", "listn: unknown key; did you mean [listen]?", id="unknown-table"),
        pytest.param("[log]\nlevle = 1", "log.levle: unknown key; did you mean log.level?", id="unknown-key"),
        pytest.param('[log]\nscopes = "a"', "did you mean pleo.scopes?", id="key-in-wrong-table"),
        pytest.param("[log]\n'a\\nb' = 1", "log.", id="key-with-line-break"),
    ],
)
def test_a_mistake_is_named_with_its_rule(tmp_path: Path, text: str, expected: str) -> None:
    """Each mistake is one line with the key, its value, the rule and a remedy."""
    found = mistakes(tmp_path, text)
    assert any(expected in line for line in found), found
    assert all(";" in line for line in found)


def test_all_mistakes_come_together(tmp_path: Path) -> None:
    """Missing keys, wrong values, broken relations, unknown keys and variables are told in one go."""
    text = "[pleo]\n[listen]\nworkers = 0\n[limits]\nreplay_memory = 1e9\nreplay_disk = 1\n[lgo]\n"
    environ = {"PLEO_PROXY__LOG__LEVLE": "info", "PLEO_PROXY__ADMIN__TOKEN__ENV": "NONE"}
    found = mistakes(tmp_path, text, environ, check_references=True)
    items = {re.split("[ :]", line)[0] for line in found}
    assert items == {
        "PLEO_PROXY__LOG__LEVLE",
        "admin.token",
        "lgo",
        "limits.replay_memory",
        "listen.workers",
        "pleo.client_id",
        "pleo.client_secret",
    }


def test_a_missing_table_names_the_keys_it_lacks(tmp_path: Path) -> None:
    """An empty file is told which keys to add, and how."""
    path = tmp_path / "empty.toml"
    path.touch()
    with pytest.raises(ConfigurationError) as caught:
        load(path, {})
    assert caught.value.mistakes == [
        'pleo.client_id is missing: it is required; add client_id = "…" to [pleo]',
        'pleo.client_secret is missing: it is required; add client_secret = { env = "NAME" } to [pleo]',
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            f"[pleo]\nclient_secret = {PLANTED}\n", "line 2, column 17: not valid TOML", id="no-quotes"
        ),
        pytest.param(f'a = "{PLANTED}', "not valid TOML", id="open-quote"),
        pytest.param(f"[pleo]\n[pleo]\n# {PLANTED}", "line 2, column 6: a key or table is given", id="twice"),
    ],
)
def test_a_syntax_error_has_a_place(tmp_path: Path, text: str, expected: str) -> None:
    """TOML that cannot be read is told by line and column, without quoting the file."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(path, {})
    assert expected in str(caught.value)
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize("kind", ["directory", "latin-1"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, kind: str) -> None:
    """A directory, or another encoding, is a mistake and not a crash."""
    path = tmp_path / "config.toml"
    if kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b'a = "\xe9"')
    with pytest.raises(ConfigurationError, match=r"directory|UTF-8"):
        load(path, {})


# --- the environment


@pytest.mark.parametrize(
    ("name", "value", "item", "expected"),
    [
        pytest.param(
            "LISTEN__PROXY", "[::1]:80", "listen.proxy", (CallerListener(Address("::1", 80)),), id="ipv6"
        ),
        pytest.param(
            "LISTEN__PROXY",
            "a:1, b:2",
            "listen.proxy",
            tuple(CallerListener(Address(name, port)) for name, port in (("a", 1), ("b", 2))),
            id="commas",
        ),
        pytest.param("PLEO__SCOPES", '["a:b", "c:d"]', "pleo.scopes", ("a:b", "c:d"), id="json-list"),
        pytest.param("PLEO__SCOPES", "['a:b']", "pleo.scopes", ("a:b",), id="toml-list"),
        pytest.param("LISTEN__HOSTS", "", "listen.hosts", (), id="empty-list"),
        pytest.param("LIMITS__HEADERS", "7", "limits.headers", 7, id="number"),
        pytest.param("LIMITS__BODY_BYTES", "1 MiB", "limits.body_bytes", 1024**2, id="size"),
        pytest.param("REFRESH__ADVISORY", "0.5", "refresh.advisory", 0.5, id="fraction"),
        pytest.param("LISTEN__WORKERS", "1", "listen.workers", 1, id="workers"),
        pytest.param("STORE__STATE_DIR", "/x", "store.state_dir", Path("/x"), id="path"),
        pytest.param("ADMIN__TOKEN", PLANTED, "admin.token", Secret(PLANTED), id="secret"),
        pytest.param("ADMIN__TOKEN", '{"env": "X"}', "admin.token", EnvRef("X"), id="json-reference"),
        pytest.param("ADMIN__TOKEN", '{env = "X"}', "admin.token", EnvRef("X"), id="toml-reference"),
        pytest.param("ADMIN__TOKEN__ENV", "X", "admin.token", EnvRef("X"), id="env-suffix"),
        pytest.param("ADMIN__TOKEN__FILE", "/x", "admin.token", FileRef(Path("/x")), id="file-suffix"),
        pytest.param("ADMIN__TOKEN__CREDENTIAL", "x", "admin.token", CredentialRef("x"), id="credential"),
    ],
)
def test_a_variable_sets_a_key(tmp_path: Path, name: str, value: str, item: str, expected: object) -> None:
    """Every kind of value can be given as a variable."""
    found = settings(tmp_path, "", {f"PLEO_PROXY__{name}": value})
    assert attrgetter(item)(found) == expected


def test_a_variable_wins_over_the_file(tmp_path: Path) -> None:
    """The environment replaces what the file says, a reference as a whole."""
    environ = {"PLEO_PROXY__LOG__LEVEL": "debug", "PLEO_PROXY__PLEO__CLIENT_SECRET__FILE": "/s"}
    found = settings(tmp_path, '[log]\nlevel = "error"', environ)
    assert found.log.level == "debug"
    assert found.pleo.client_secret == FileRef(Path("/s"))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({"LOG__LEVLE": "x"}, "did you mean PLEO_PROXY__LOG__LEVEL?", id="misspelt"),
        pytest.param({"log__level": "info"}, "did you mean PLEO_PROXY__LOG__LEVEL?", id="lower-case"),
        pytest.param({"LOG__LEVEL__ENV": "X"}, "unknown variable", id="reference-to-no-secret"),
        pytest.param({"PLEO": "{}"}, "unknown variable", id="whole-table"),
        pytest.param({"ADMIN__TOKEN": "x", "ADMIN__TOKEN__ENV": "X"}, "set by both", id="given-twice"),
        pytest.param({"ADMIN__TOKEN__ENV": "X", "ADMIN__TOKEN__FILE": "X"}, "set by both", id="two-places"),
        pytest.param({"PLEO__SCOPES": "[a:b]"}, "neither JSON nor TOML", id="bad-list"),
        pytest.param(
            {"LOG__LEVEL": "loud"}, 'log.level (from PLEO_PROXY__LOG__LEVEL) = "loud"', id="variable-is-named"
        ),
    ],
)
def test_a_mistaken_variable_is_named(tmp_path: Path, environ: Mapping[str, str], expected: str) -> None:
    """Mistakes in the environment name the variable, so that it can be found."""
    found = mistakes(tmp_path, "", {f"PLEO_PROXY__{name}": value for name, value in environ.items()})
    assert len(found) == 1
    assert expected in found[0]


# --- secrets


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        pytest.param(f"[pleo]\nclient_id = 1\nclient_secret = ['{PLANTED}']\n", {}, id="list"),
        pytest.param(f"[pleo]\nclient_secret = {{ value = '{PLANTED}' }}\n", {}, id="unknown-reference"),
        pytest.param(f"[pleo]\nclient_secret = {{ env = '{PLANTED}=x' }}\n", {}, id="value-for-name"),
        pytest.param(f"[pleo]\nclient_secert = '{PLANTED}'\n", {}, id="misspelt-key"),
        pytest.param(f"client_secret = '{PLANTED}'\n[pleo]\n", {}, id="misplaced-key"),
        pytest.param(f"pleo = '{PLANTED}'\n# [pleo]", {}, id="not-a-table"),
        pytest.param(f"[log]\nlevel = {{ env = '{PLANTED}' }}", {}, id="reference-elsewhere"),
        pytest.param(f"[store]\nurl = 'postgresql://u:{PLANTED}@h'", {}, id="password-in-store-url"),
        pytest.param(f"[store]\nurl = 'postgresql:u:{PLANTED}@h/d'", {}, id="password-without-slashes"),
        pytest.param(f"[store]\nurl = 'postgresql://u:a/{PLANTED}@h/d'", {}, id="password-with-slash"),
        pytest.param(f"[store]\nurl = 'postgresql://h/d?password={PLANTED}'", {}, id="password-in-query"),
        pytest.param(
            "", {"PLEO_PROXY__STORE__URL": f"postgres://u:{PLANTED}@h/#"}, id="password-in-variable"
        ),
        pytest.param(f"[listen]\npublic_url = 'https://u:{PLANTED}@h'", {}, id="password-in-url"),
        pytest.param(f"[vault]\nkeys = 3\n[admin]\ntoken = ['{PLANTED}']", {}, id="token"),
        pytest.param("", {"PLEO_PROXY__PLEO__CLIENT_SECERT": PLANTED}, id="misspelt-variable"),
        pytest.param("", {"PLEO_PROXY__ADMIN__TOKEN": f"{{{PLANTED}}}"}, id="broken-json"),
        pytest.param(
            "",
            {"PLEO_PROXY__ADMIN__TOKEN": PLANTED, "PLEO_PROXY__ADMIN__TOKEN__ENV": "X"},
            id="variable-twice",
        ),
    ],
)
def test_no_mistake_shows_a_secret(tmp_path: Path, text: str, environ: Mapping[str, str]) -> None:
    """Wherever a secret was put by mistake, its text is in no message, nor in what an exception chains."""
    path = tmp_path / "config.toml"
    path.write_text(text if "[pleo]" in text else IDENTITY + text)
    with pytest.raises(ConfigurationError) as caught:
        load(path, environ, check_references=True)
    assert PLANTED not in f"{caught.value}{caught.value!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_database_password_is_hidden(tmp_path: Path) -> None:
    """A password in the store's URL is taken out of what is shown, and kept in the type for secrets."""
    found = settings(tmp_path, f"[store]\nurl = 'postgresql://u:{PLANTED}%2F@h:5433/d?sslmode=require'")
    assert str(found.store.url) == "postgresql://u@h:5433/d?sslmode=require"
    assert found.store.url.password == Secret(f"{PLANTED}/")
    assert PLANTED not in f"{found!r}{found}{found.store.url!r}"
    with pytest.raises(ConfigurationError, match="for a store in a SQLite file"):
        _ = found.store.sqlite_path


def test_an_inline_secret_is_hidden(tmp_path: Path) -> None:
    """A secret in the file is accepted, and carried in the one type that never shows itself."""
    found = settings(tmp_path, f"[pleo]\nclient_id = 'ours'\nclient_secret = '{PLANTED}'\n")
    assert found.pleo.client_secret == Secret(PLANTED)
    assert PLANTED not in f"{found!r}{found}"


def test_references_are_opened(tmp_path: Path) -> None:
    """A variable, a file without its last newline, a systemd credential and inline text give the secret."""
    (tmp_path / "name").write_text(PLANTED + "\r\n")
    environ = {"S": PLANTED, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    refs: list[SecretRef] = [EnvRef("S"), FileRef(tmp_path / "name"), CredentialRef("name"), Secret(PLANTED)]
    assert {resolve(ref, environ) for ref in refs} == {Secret(PLANTED)}


def test_a_docker_secret_is_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd's directory, credentials are where Docker mounts secrets."""
    monkeypatch.setattr(secret_refs, "DOCKER_SECRETS", tmp_path)
    (tmp_path / "name").write_text(PLANTED)
    assert resolve(CredentialRef("name"), {}) == Secret(PLANTED)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        pytest.param('{ env = "NONE" }', "the variable NONE is not set; set it", id="variable-unset"),
        pytest.param('{ env = "EMPTY" }', "the variable EMPTY is empty", id="variable-empty"),
        pytest.param('{ file = "none" }', "the file none does not exist; create it", id="file-missing"),
        pytest.param('{ file = "empty" }', "the file empty is empty", id="file-empty"),
        pytest.param('{ file = "binary" }', "is not text in UTF-8", id="file-binary"),
        pytest.param('{ file = "." }', "cannot be read", id="file-is-directory"),
        pytest.param('{ credential = "none" }', "run/none does not exist", id="credential-missing"),
        pytest.param('{ credential = "../x" }', "a plain name, not a path", id="credential-path"),
        pytest.param('{ file = "~/x" }', "~ is not expanded", id="file-tilde"),
        pytest.param("{ }", "must be one of { env", id="no-place"),
        pytest.param('{ env = "A", file = "b" }', "must be one of { env", id="two-places"),
        pytest.param('""', "must be one of { env", id="empty-text"),
    ],
)
def test_a_secret_that_cannot_be_had_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ref: str, expected: str
) -> None:
    """Where asked to, loading names each secret that is missing, with its key and what to do."""
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n")
    Path("binary").write_bytes(b"\xff")
    environ = {"S": "x", "EMPTY": "", "CREDENTIALS_DIRECTORY": "run"}
    found = mistakes(tmp_path, f"[admin]\ntoken = {ref}", environ, check_references=True)
    assert len(found) == 1
    assert found[0].startswith("admin.token = …: ")
    assert expected in found[0]


def test_resolve_names_the_setting() -> None:
    """A secret that is opened late still tells which setting asked for it."""
    with pytest.raises(ConfigurationError, match=r"pleo\.client_secret: the variable NONE is not set"):
        resolve(EnvRef("NONE"), {}, item="pleo.client_secret")


def test_secrets_are_needed_only_when_asked_for(tmp_path: Path) -> None:
    """A shell without the secrets can still load the configuration; key rings may be generated later."""
    path = tmp_path / "config.toml"
    path.write_text(IDENTITY + '[vault]\nkeys = { file = "none-yet" }')
    load(path, {})
    load(path, {"S": "x"}, check_references=True)
    with pytest.raises(ConfigurationError, match="the variable S is not set"):
        load(path, {}, check_references=True)


def test_an_http_proxy_may_be_on_this_machine_for_plain_http(tmp_path: Path) -> None:
    """What does not leave the machine needs no TLS, with a proxy or without; credentials are secret."""
    local = re.sub(r"https://(api|auth)\.test", "http://localhost", CUSTOM)
    pair = 'http_proxy = "http://127.0.0.1:3128"\nhttp_proxy_credentials = "user:pass-word"'
    for text in (local, CUSTOM, IDENTITY):
        found = settings(tmp_path, text + pair).pleo
        assert found.http_proxy == "http://127.0.0.1:3128"
        assert "pass-word" not in repr(found)


def test_private_networks_are_those_of_a_custom_environment(tmp_path: Path) -> None:
    """Networks and single addresses, as a list or by a variable, wherever one of the two URLs has a name."""
    text = CUSTOM.replace("auth.test", "127.0.0.1")
    expected = (ip_network("10.20.0.0/16"), ip_network("fd12::7"))
    found = settings(tmp_path, text + 'private_networks = ["10.20.0.0/16", "fd12::7"]')
    assert found.pleo.private_networks == expected
    variable = {"PLEO_PROXY__PLEO__PRIVATE_NETWORKS": "10.20.0.0/16, fd12::7"}
    assert settings(tmp_path, text, variable).pleo.private_networks == expected
    assert settings(tmp_path, IDENTITY).pleo.private_networks == ()


def test_a_missing_ca_file_is_a_mistake(tmp_path: Path) -> None:
    """Where references are checked, the CA file must be there."""
    found = mistakes(tmp_path, CUSTOM + 'ca_file = "none.pem"', {"S": "x"}, check_references=True)
    assert found == ['pleo.ca_file = "none.pem": there is no such file; create it, or correct the path']
    (tmp_path / "ca.pem").touch()
    settings(tmp_path, CUSTOM + f'ca_file = "{tmp_path / "ca.pem"}"')


# --- advice


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            IDENTITY + 'scopes = ["tag-groups:read"]', 'did you mean "tag-group:read"?', id="prod-tag"
        ),
        pytest.param(
            IDENTITY + 'environment = "staging"\nscopes = ["tag-group:read"]',
            'did you mean "tag-groups:read"?',
            id="staging-tag",
        ),
        pytest.param(
            IDENTITY + 'scopes = ["new:read"]', "make sure that Pleo granted it", id="unknown-scope"
        ),
        pytest.param('[listen]\nproxy = "0.0.0.0:80"', "callers have no passwords", id="proxy-open"),
        pytest.param('[listen]\nadmin = "10.0.0.1:80"', "let only a TLS terminator", id="admin-open"),
        pytest.param(
            f'{SSO}sso_proxies = ["10.0.0.1", "127.0.0.0/8"]\nsso_viewers = ["a@b.test"]',
            "every program on this machine can name itself",
            id="sso-loopback",
        ),
        pytest.param("", "only a browser on this machine", id="public-url-loopback"),
        pytest.param("", "plain http for localhost only", id="public-url-no-localhost"),
    ],
)
def test_a_doubtful_setting_is_warned_of(tmp_path: Path, text: str, expected: str) -> None:
    """What is valid and probably not meant is told, but not refused."""
    assert [line for line in warnings(settings(tmp_path, text)) if expected in line]


def test_a_sound_configuration_has_no_warnings(tmp_path: Path) -> None:
    """Nothing is said where nothing is to be said."""
    assert warnings(settings(tmp_path, '[listen]\npublic_url = "https://proxy.example.com"')) == []
    assert warnings(settings(tmp_path, CUSTOM + 'scopes = ["any:thing"]')) == []
    sso = f'{SSO}sso_proxies = ["10.0.0.1"]\nsso_viewers = ["a@b.test"]\n'
    assert warnings(settings(tmp_path, sso + CUSTOM)) == []


def test_registration_sheet_answers_the_form(tmp_path: Path) -> None:
    """The sheet has every question of Pleo's form, and says what is left to fill in."""
    sheet = dict(registration_sheet(settings(tmp_path, IDENTITY + 'terms_url = "https://x.test/terms"')))
    assert sheet == {
        "App name": "pleo-proxy",
        "App URI": "(fill in)",
        "Logo URI": "(fill in)",
        "Terms of service URI": "https://x.test/terms",
        "Privacy policy URI": "(fill in)",
        "Initiation URI": "(fill in)",
        "Settings URI": "(fill in)",
        "Redirect URIs": "http://127.0.0.1:8081/oauth/callback",
        "Scopes": "companies:read users:read",
        "PKCE support": "yes, S256",
    }


# --- the files and the documentation


@pytest.mark.parametrize("name", ["example", "staging", "production"])
def test_shipped_files_load(name: str) -> None:
    """What is shipped to be edited is in order."""
    load(ROOT / "config" / f"{name}.toml", {})


def example_lines(pattern: str) -> list[tuple[str, str, str]]:
    """Section, key and value of the lines of the example whose beginning matches ``pattern``."""
    section, found = "", []
    for line in EXAMPLE.read_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif setting := re.match(rf"{pattern}(\w+) = (.+)", line):
            found.append((section, setting[1], setting[2]))
    return found


def test_the_example_has_every_key_once() -> None:
    """Nothing is missing from the example, and nothing stands there twice."""
    keys = [f"{section}.{key}" for section, key, _ in example_lines("(?:# ?)?")]
    model = [f"{name}.{key}" for name, field in Settings.model_fields.items() for key in section_keys(name)]
    assert sorted(keys) == sorted(model)


def section_keys(section: str) -> list[str]:
    """The keys of one table of the model."""
    annotation = Settings.model_fields[section].annotation
    assert annotation is not None
    return list(annotation.model_fields)


def test_the_examples_defaults_are_the_defaults() -> None:
    """A line ``#key = value`` states the real default, and only keys without one are mere examples."""
    text = re.sub(r"(?m)^#(\w+ = )", r"\1", EXAMPLE.read_text())
    given, plain = Settings.model_validate(tomllib.loads(text)), load(EXAMPLE, {})
    assert given == plain
    assert len(example_lines("#")) > 30
    for section, key, _ in example_lines("# "):
        assert getattr(getattr(plain, section), key) is None, f"{section}.{key} has a default"


def test_the_examples_examples_are_valid() -> None:
    """The lines ``# key = value`` of the example load when their # is removed."""
    text = re.sub(r"(?m)^# (\w+ = )", r"\1", EXAMPLE.read_text())
    Settings.model_validate(tomllib.loads(text.replace("[pleo]", '[pleo]\nenvironment = "custom"')))


def test_every_setting_has_a_meaning() -> None:
    """No row of the table is without a description that ends as a sentence."""
    rows = settings_table(Settings).splitlines()[2:]
    assert len(rows) == sum(len(section_keys(name)) for name in Settings.model_fields)
    assert [row for row in rows if not row.endswith(". |")] == []


def test_the_documentation_is_up_to_date() -> None:
    """``docs/configuration.md`` is what the model says."""
    assert (ROOT / "docs" / "configuration.md").read_text() == reference(), (
        "write it anew: .venv/bin/python -c "
        '"from pathlib import Path; from proxy.config import reference; '
        "Path('docs/configuration.md').write_text(reference())\""
    )


# --- the tenants' file


def test_the_tenants_example_loads() -> None:
    """The shipped example has every key, and its legacy key comes from the environment."""
    found = load_tenants_file(ROOT / "config" / "tenants.example.toml", {"GLOBEX_LEGACY_KEY": PLANTED})
    assert found == [
        TenantEntry("acme"),
        TenantEntry(
            "globex",
            company="6f0c2a52-8d0e-4a57-9c35-3a1a1f1f6b10",
            hosts=("globex.pleo-proxy.internal",),
            networks=("10.20.0.0/16", "fd00:20::/64"),
            legacy_keys=(Secret(PLANTED),),
            policy=Policy(
                Preset.READ_ONLY,
                deny=("* /v1/installations/**",),
                callers=("10.20.0.0/16",),
                requests_per_minute=120,
            ),
            enabled=True,
        ),
    ]
    assert PLANTED not in repr(found)


def test_one_value_is_a_list_of_one(tmp_path: Path) -> None:
    """A single host, network or legacy key needs no brackets."""
    path = tmp_path / "tenants.toml"
    path.write_text(f'[[tenant]]\nname = "a"\nhost = "h"\nnetwork = "10.0.0.0/8"\nlegacy_key = "{PLANTED}"\n')
    (entry,) = load_tenants_file(path, {})
    assert (entry.hosts, entry.networks, entry.legacy_keys) == (("h",), ("10.0.0.0/8",), (Secret(PLANTED),))


def test_no_tenants_must_be_said(tmp_path: Path) -> None:
    """An empty file is a mistake, since it would remove every tenant; an empty array says it on purpose."""
    path = tmp_path / "tenants.toml"
    path.touch()
    with pytest.raises(ConfigurationError, match=r"tenant = \[\]"):
        load_tenants_file(path, {})
    path.write_text("tenant = []")
    assert load_tenants_file(path, {}) == []


def test_mistakes_in_the_tenants_file_come_together(tmp_path: Path) -> None:
    """Each table's mistakes are listed with the tenant's name, and no legacy key is shown."""
    path = tmp_path / "tenants.toml"
    path.write_text(
        f"""
        [[tenants]]
        [[tenant]]
        name = "acme"
        hosts = ["{PLANTED}"]
        preset = "read_only"
        enabled = "yes"
        [[tenant]]
        name = "acme"
        legacy_key = [{{ env = "NONE" }}, ["{PLANTED}"]]
        [[tenant]]
        host = 3
        """
    )
    with pytest.raises(ConfigurationError) as caught:
        load_tenants_file(path, {})
    assert PLANTED not in str(caught.value)
    assert [re.split("; | {", line)[0] for line in caught.value.mistakes] == [
        'tenant.name = "acme": given 2 times',
        'tenant[0].preset (acme) = "read_only": must be "read-only" or "exports" or "accounting" or "full"',
        "tenant[0].enabled (acme) = \"yes\": must have the type 'true or false'",
        "tenant[0].hosts (acme): unknown key",
        "tenant[1].legacy_key[0] (acme) = …: the variable NONE is not set",
        "tenant[1].legacy_key[1] (acme) = …: must be one of",
        "tenant[2].name is missing: it is required",
        "tenant[2].host = 3: must have the type 'text, or a list'",
        "tenants: unknown key",
    ]


def test_a_tenant_table_that_is_no_array_is_told_so(tmp_path: Path) -> None:
    """``[tenant]`` for ``[[tenant]]`` is a likely slip, and the remedy names the right form."""
    path = tmp_path / "tenants.toml"
    path.write_text('[tenant]\nname = "a"')
    with pytest.raises(ConfigurationError, match=r"write \[\[tenant\]\]"):
        load_tenants_file(path, {})
