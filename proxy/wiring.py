"""The settings as the parts understand them: who gets which of them, and what the rest of a part is made of.

One function for each part that :mod:`proxy.app` builds. Starts nothing and opens nothing but the file of
certificates.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from proxy import certificates, listening
from proxy.admin import HeadLimits
from proxy.admin.sessions import SessionLimits
from proxy.admin.sso import SingleSignOn
from proxy.admin.token import AdminTokens, digest_of
from proxy.admission import Allowances
from proxy.arrival import Arrival, address_of
from proxy.authorize import Asker, AuthorizationSettings
from proxy.config import (
    Address,
    Settings,
    resolve,
)
from proxy.config.values import origin_of
from proxy.errors import ConfigurationError, OperatorError, QuestionError
from proxy.exchange import Limits
from proxy.explain import Bounds, Explainer, Question
from proxy.facts import Emit
from proxy.lifecycle import Windows
from proxy.listener import AcceptLimits
from proxy.model import DAY_S, Clock, Grant, HttpProxy, Role
from proxy.notices import Rules, Survey
from proxy.notifications import Herald, channels_of
from proxy.pairs import Lifetimes
from proxy.provider import Provider, Registration
from proxy.refresher import Refresher
from proxy.store import Journal, Store
from proxy.telemetry.canary import Canary
from proxy.tenants import Directory
from proxy.tokens import RefreshRules
from proxy.trace_context import Tracer
from proxy.tracing import Collector, Exporter, parse_headers, require_extra
from proxy.upstream import Upstream
from proxy.vault import Vault

if TYPE_CHECKING:
    from proxy.tracing.spans import Spans

LEASE_MARGIN_S = 10.0
"""What a refresh may take beside the provider's time-out: reading, sealing, saving on a slow disk."""


def http_proxy(settings: Settings, environ: Mapping[str, str]) -> HttpProxy | None:
    """The HTTP proxy on the way to Pleo, if there is one.

    :raises ConfigurationError: its credentials are not where the settings say.
    """
    pleo = settings.pleo
    if pleo.http_proxy is None:
        return None
    credentials = None
    if pleo.http_proxy_credentials is not None:
        credentials = resolve(pleo.http_proxy_credentials, environ, item="pleo.http_proxy_credentials")
    at = origin_of(pleo.http_proxy)
    return HttpProxy(at.host, at.port, credentials)


def provider(
    settings: Settings,
    environ: Mapping[str, str],
    context: ssl.SSLContext,
    through: HttpProxy | None,
    emit: Emit,
) -> Provider:
    """The client of the token endpoint.

    :raises ConfigurationError: a client secret is not where the settings say.
    """
    return Provider(
        registration(settings, environ),
        api=settings.api_origin,
        ssl_context=context,
        connect_s=settings.limits.upstream_connect_s,
        timeout_s=settings.refresh.timeout_s,
        emit=emit,
        http_proxy=through,
        private_networks=settings.pleo.private_networks,
    )


def registration(settings: Settings, environ: Mapping[str, str]) -> Registration:
    """Our registration at Pleo, with which tokens are asked for.

    :raises ConfigurationError: a client secret is not where the settings say.
    """
    pleo = settings.pleo
    secret = resolve(pleo.client_secret, environ, item="pleo.client_secret")
    previous = None
    if pleo.client_secret_previous is not None:
        previous = resolve(pleo.client_secret_previous, environ, item="pleo.client_secret_previous")
    return Registration(
        pleo.client_id, secret, pleo.client_auth, settings.token_endpoint, settings.redirect_uri, previous
    )


def upstream(settings: Settings, context: ssl.SSLContext, through: HttpProxy | None, emit: Emit) -> Upstream:
    """The engine that speaks to the API."""
    api, limits = settings.api_origin, settings.limits
    return Upstream(
        api,
        ssl_context=context if api.scheme == "https" else None,
        connect_s=limits.upstream_connect_s,
        idle_s=limits.idle_s,
        total_s=limits.upstream_total_s,
        head_bytes=limits.head_bytes,
        http_proxy=through,
        private_networks=settings.pleo.private_networks,
        emit=emit,
    )


def lifetimes(settings: Settings) -> Lifetimes:
    """What to assume where Pleo does not tell."""
    return Lifetimes(settings.refresh.default_expires_in_s, settings.refresh.refresh_lifetime_days * DAY_S)


def refresh_rules(settings: Settings) -> RefreshRules:
    """When tokens are refreshed, and how patiently."""
    refresh = settings.refresh
    return RefreshRules(
        Windows(
            refresh.advisory,
            refresh.advisory_jitter,
            refresh.mandatory_s,
            refresh.mandatory,
            refresh.keep_alive,
        ),
        wait_s=refresh.wait_s,
        forced_hold_s=refresh.forced_hold_s,
        backoff_s=refresh.backoff_s,
        backoff_max_s=refresh.backoff_max_s,
        client_rejected_pause_s=refresh.client_rejected_pause_s,
        warn_s=refresh.warn_days * DAY_S,
    )


def refresher(
    settings: Settings,
    store: Store,
    journal: Journal,
    *,
    vault: Vault,
    provider: Provider,
    emit: Emit,
    clock: Clock,
    owner: str,
) -> Refresher:
    """What carries out one refresh.

    :param owner: the name under which this process holds leases.
    """
    return Refresher(
        store,
        journal,
        vault,
        provider,
        lifetimes(settings),
        emit,
        clock,
        asyncio.sleep,
        owner,
        lease_s=settings.refresh.timeout_s + LEASE_MARGIN_S,
        takeover_s=settings.refresh.takeover_s,
    )


def exchange_limits(settings: Settings) -> Limits:
    """What one request may be."""
    limits = settings.limits
    return Limits(
        limits.target_bytes,
        limits.replay_memory,
        limits.replay_disk,
    )


def allowances(settings: Settings) -> Allowances:
    """What tenants may do whose policy says nothing."""
    return Allowances(
        settings.tenant_requests_per_minute,
        settings.rate_ceiling,
        settings.limits.tenant_concurrency,
        settings.limits.body_bytes,
    )


def accept_limits(settings: Settings) -> AcceptLimits:
    """What a connection may do."""
    limits = settings.limits
    return AcceptLimits(
        limits.target_bytes,
        limits.head_bytes,
        limits.headers,
        limits.connections,
        limits.head_s,
        limits.idle_s,
    )


def authorization(settings: Settings) -> AuthorizationSettings:
    """Our registration, as the authorisation request needs it, and who asks."""
    consent = settings.consent
    return AuthorizationSettings(
        settings.authorize_endpoint,
        settings.pleo.client_id,
        settings.redirect_uri,
        settings.pleo.scopes,
        Asker(consent.organisation, consent.contact, consent.language),
    )


def admin_tokens(settings: Settings, environ: Mapping[str, str]) -> AdminTokens:
    """The tokens of the operator's listener that the configuration gives.

    :raises ConfigurationError: one is not where the settings say, or both are the same.
    """
    tokens = AdminTokens()
    given = {
        Role.OPERATOR: ("token", settings.admin.token),
        Role.VIEWER: ("viewer_token", settings.admin.viewer_token),
    }
    for role, (key, reference) in given.items():
        if reference is not None:
            tokens.take(role, digest_of(resolve(reference, environ, item=f"admin.{key}")))
    return tokens


def head_limits(settings: Settings) -> HeadLimits:
    """What a connection to the operator's listener may do."""
    return HeadLimits(settings.limits.target_bytes, settings.limits.headers, settings.limits.idle_s)


def session_limits(settings: Settings) -> SessionLimits:
    """How long somebody stays logged in to the operator's pages."""
    return SessionLimits(settings.admin.session_idle_s, settings.admin.session_max_s)


def single_sign_on(settings: Settings) -> SingleSignOn | None:
    """Whose word is taken for who a user is, if anybody's."""
    admin = settings.admin
    if admin.sso_header is None:
        return None
    return SingleSignOn(
        admin.sso_header, admin.sso_proxies or (), admin.sso_operators or (), admin.sso_viewers or ()
    )


def herald(
    settings: Settings,
    environ: Mapping[str, str],
    clock: Clock,
    survey: Callable[[], Survey],
    emit: Emit,
) -> Herald:
    """Who tells operators of troubles, from now on.

    :raises ConfigurationError: a channel cannot be what the settings say.
    """
    return Herald(
        channels_of(settings, environ, clock),
        survey,
        notice_rules(settings),
        emit,
        public_url=settings.listen.public_url,
        folder=settings.store.state_dir,
    )


def tracer(settings: Settings, clock: Clock) -> Tracer | None:
    """What begins traces, if any are made."""
    if settings.tracing.endpoint is None:
        return None
    # No secrets: random.getrandbits is ten times as quick as what would be fit for those.
    return Tracer(settings.tracing.sample_ratio, clock, random.getrandbits)


def exporter(settings: Settings, environ: Mapping[str, str], clock: Clock, canary: Canary) -> Exporter | None:
    """What sends traces, if any are made.

    :raises ConfigurationError: the collector's headers are not where the settings say, or none.
    :raises OperatorError: what it needs is not installed.
    """
    tracing = settings.tracing
    if tracing.endpoint is None:
        return None
    require_extra()
    headers = {}
    if tracing.headers is not None:
        try:
            headers = parse_headers(resolve(tracing.headers, environ, item="tracing.headers"))
        except ValueError:
            mistake = (
                "tracing.headers: must be name=value,name=value with values percent-encoded; write for "
                "example authorization=Bearer%20TOKEN into the place that it names"
            )
            raise ConfigurationError("tracing", [mistake]) from None
    canary.watch("tracing.headers, each", *headers.values())
    return Exporter(Collector(tracing.endpoint, headers, tracing.timeout_s), clock, canary.finds)


def spans(settings: Settings, environ: Mapping[str, str], instance: str) -> Spans:
    """What makes spans of facts; only where there is an :func:`exporter`."""
    from proxy.tracing.spans import Spans  # noqa: PLC0415 - needs an extra

    return Spans(
        settings.tracing.service_name or environ.get("OTEL_SERVICE_NAME") or "pleo-proxy",
        instance,
        api=settings.api_origin,
        provider=origin_of(settings.token_endpoint),
        bits=random.getrandbits,
    )


def notice_rules(settings: Settings) -> Rules:
    """When operators are told of troubles."""
    notify = settings.notify
    return Rules(settings.refresh.warn_days * DAY_S, notify.store_down_s, notify.repeat_s)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trust for connections to Pleo: the system's, and ``ca_file`` beside it.

    :raises OperatorError: the file cannot be read.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # RFC 9110 section 4.3.4: clients must not take the subject's common name for the server's.
    context.hostname_checks_common_name = False
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError):
            raise OperatorError(f"pleo.ca_file {ca_file}: cannot be read as PEM certificates") from None
    return context


def serves_host(settings: Settings, directory: Directory, host: str) -> bool:
    """Whether callers may use this name in ``Host``."""
    return host in settings.listen.hosts or host in directory.hosts


def explainer(
    settings: Settings,
    directory: Directory,
    grants: Mapping[str, Grant],
    check_token: Callable[[str], object],
) -> Explainer:
    """What tells what would become of a request."""
    limits = settings.limits
    return Explainer(
        Bounds(limits.target_bytes, limits.head_bytes, limits.headers),
        allowances(settings),
        settings.api_origin,
        settings.listen.public_url,
        directory,
        grants,
        partial(serves_host, settings, directory),
        partial(_arrival, settings),
        check_token,
    )


def _arrival(settings: Settings, question: Question) -> Arrival:
    """How a request that is only asked about comes in.

    :raises QuestionError: there is no such listener, or nobody has such an address or certificate.
    """
    by_tcp = {str(each.address): each for each in settings.listen.proxy if isinstance(each.address, Address)}
    listener = by_tcp.get(question.listener or next(iter(by_tcp), ""))
    if listener is None:
        known = ", ".join(by_tcp) or "none, for Unix sockets cannot be asked about"
        raise QuestionError(f"listener {question.listener!r} is not in listen.proxy; there: {known}")
    address = address_of(question.caller)
    if address is None:
        raise QuestionError(f"caller {question.caller[:63]!r} is no IP address; give one such as 10.1.2.3")
    try:
        shown = tuple(map(certificates.canonical, question.certificates))
    except ValueError as error:
        raise QuestionError(f"a certificate is not named so: {error}") from None
    return listening.entrance(settings, listener).arrival_from(question.caller, shown)
