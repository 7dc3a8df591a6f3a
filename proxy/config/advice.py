"""What an operator should know of settings that are valid: warnings, and what to tell Pleo. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from urllib.parse import urlsplit

from proxy.addresses import is_loopback
from proxy.config.listeners import tcp_addresses
from proxy.config.settings import Settings

_READ_WRITE = ("accounts", "export-jobs", "tax-codes", "vendors")
_COMMON = {f"{resource}:{permission}" for resource in _READ_WRITE for permission in ("read", "write")} | {
    "companies:read",
    "export-items:read",
    "test:test",
    "users:read",
}
SCOPES = {
    "production": _COMMON | {"tag-group:read", "tag-group:write"},
    "staging": _COMMON | {"tag-groups:read", "tag-groups:write"},
}
"""The scopes that Pleo documents. Others give a warning only, since Pleo adds to them."""


def warnings(settings: Settings) -> list[str]:
    """One line for each setting that is valid and probably not what was meant, or deserves a second look."""
    return [
        *_scope_warnings(settings),
        *_listener_warnings(settings),
        *_public_url_warnings(settings),
        *_sign_on_warnings(settings),
    ]


def _scope_warnings(settings: Settings) -> list[str]:
    environment = settings.pleo.environment
    known = SCOPES.get(environment, set())
    found = []
    for scope in settings.pleo.scopes:
        if not known or scope in known:
            continue
        near = get_close_matches(scope, sorted(known), n=1, cutoff=0.8)
        remedy = (
            f'did you mean "{near[0]}"?' if near else "make sure that Pleo granted it to the OAuth client"
        )
        found.append(f'pleo.scopes: "{scope}" is not among the scopes documented for {environment}; {remedy}')
    return found


def _listener_warnings(settings: Settings) -> list[str]:
    listen = settings.listen
    found = [
        f"listen.proxy = {address}: other machines can connect, and callers have no passwords; let a "
        "firewall admit only the machines whose tools may use the API"
        for listener in listen.proxy
        for address in tcp_addresses([listener])
        if not address.is_loopback
        and (listener.client_ca is None or listener.client_certificates == "optional")
    ]
    if not listen.admin.is_loopback:
        found.append(
            f"listen.admin = {listen.admin}: other machines can connect, and it speaks plain HTTP; let "
            "only a TLS terminator reach it, since tokens and logins pass through"
        )
    return found


def _public_url_warnings(settings: Settings) -> list[str]:
    url = settings.listen.public_url
    host = urlsplit(url).hostname or ""
    if settings.pleo.environment == "custom" or not is_loopback(host):
        return []
    found = [f"listen.public_url = {url}: {_ONLY_THIS_MACHINE}"]
    if url.startswith("http:") and host != "localhost":
        found.append(f"listen.public_url = {url}: {_PLAIN_HTTP}")
    return found


def _sign_on_warnings(settings: Settings) -> list[str]:
    proxies = settings.admin.sso_proxies or ()
    if not any(network.is_loopback for network in proxies):
        return []
    return [_NAMES_ITSELF]


_NAMES_ITSELF = (
    "admin.sso_proxies: every program on this machine can name itself a user; make sure that no other users "
    "are on it, or let the authenticating proxy connect from an address of its own"
)


_ONLY_THIS_MACHINE = (
    "only a browser on this machine can follow a connect link; set the https address under which authorisers "
    "reach the admin listener"
)
_PLAIN_HTTP = (
    "Pleo documents plain http for localhost only; write http://localhost with the port, or make sure that "
    "Pleo accepted this redirect URI"
)


def registration_sheet(settings: Settings) -> list[tuple[str, str]]:
    """What Pleo's form for partners asks, in its order: question and answer, "(fill in)" where unset."""
    pleo = settings.pleo
    blank = "(fill in)"
    return [
        ("App name", pleo.app_name),
        ("App URI", pleo.app_url or blank),
        ("Logo URI", pleo.logo_url or blank),
        ("Terms of service URI", pleo.terms_url or blank),
        ("Privacy policy URI", pleo.privacy_url or blank),
        ("Initiation URI", pleo.initiation_url or blank),
        ("Settings URI", pleo.settings_url or blank),
        ("Redirect URIs", settings.redirect_uri),
        ("Scopes", " ".join(pleo.scopes)),
        ("PKCE support", "yes, S256"),
    ]
