"""Other settings put in force in the running parts of one process, all at once.

What can fail is made before anything is changed, and nothing is awaited between the first change and the
last, so that a request meets old settings or new ones. Interrupts nothing: what is under way goes on by what
it began with. Opens nothing, closes nothing, and decides nothing about what may be taken up
(:mod:`proxy.config.reloading` does).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy import known_secrets, wiring
from proxy.admin import Listener, Services
from proxy.admin.token import AdminTokens
from proxy.authorize import Authorize
from proxy.config import Configuration, Log, Settings
from proxy.facts import Emit
from proxy.listener import CallerServer
from proxy.listening import Doors
from proxy.model import DAY_S, Clock, Role
from proxy.notifications import Channel, Herald, channels_of
from proxy.provider import Provider
from proxy.telemetry.audit import AuditSink
from proxy.telemetry.canary import Canary
from proxy.upstream import Upstream
from proxy.watch import Watch


@dataclass(frozen=True, slots=True)
class OperatorsParts:
    """What only the process with the operator's listener has."""

    services: Services
    listener: Listener
    herald: Herald


@dataclass(frozen=True, slots=True)
class Parts:
    """The running parts that settings are put into."""

    watch: Watch
    provider: Provider
    upstream: Upstream
    authorize: Authorize
    server: CallerServer
    doors: Doors
    tokens: AdminTokens
    audit: AuditSink
    canary: Canary
    log: Callable[[Log], None]
    emit: Emit
    clock: Clock
    operators: OperatorsParts | None


def take_up(parts: Parts, former: Settings, new: Configuration) -> None:
    """Put ``new`` in force in the place of ``former``.

    :raises OperatorError: it cannot be; then nothing has changed.
    """
    settings = new.settings
    registration = wiring.registration(settings, {})
    tokens = _admin_tokens(settings, parts.tokens)
    channels = channels_of(settings, {}, parts.clock) if settings.notify != former.notify else None

    # From here on nothing fails and nothing waits.
    known_secrets.watch_settings(parts.canary, settings, {}, former)
    parts.log(settings.log)
    parts.audit.keep_s = settings.audit.keep_days * DAY_S
    parts.tokens.change(tokens)
    parts.provider.change(
        registration,
        connect_s=settings.limits.upstream_connect_s,
        timeout_s=settings.refresh.timeout_s,
    )
    if settings.pleo != former.pleo:
        parts.watch.tokens.resume()
    _put_into_main_path(parts, settings)
    if parts.operators is not None:
        _put_into_listener(parts.operators, new, channels)


def _admin_tokens(settings: Settings, former: AdminTokens) -> AdminTokens:
    """The tokens that are given; where none is for the operator, the generated one stays.

    :raises ConfigurationError: two are the same.
    """
    tokens = wiring.admin_tokens(settings, {})
    generated = former.digest(Role.OPERATOR)
    if settings.admin.token is None and generated is not None:
        tokens.take(Role.OPERATOR, generated)
    return tokens


def _put_into_main_path(parts: Parts, settings: Settings) -> None:
    limits, watch = settings.limits, parts.watch
    tokens, exchange = watch.tokens, watch.exchange
    watch.change(settings)
    parts.upstream.change(
        connect_s=limits.upstream_connect_s,
        idle_s=limits.idle_s,
        total_s=limits.upstream_total_s,
        head_bytes=limits.head_bytes,
    )
    tokens.change(wiring.refresh_rules(settings))
    refresher = tokens.refresher
    refresher.lease_s = settings.refresh.timeout_s + wiring.LEASE_MARGIN_S
    refresher.takeover_s = settings.refresh.takeover_s
    refresher.lifetimes = parts.authorize.lifetimes = wiring.lifetimes(settings)
    parts.authorize.settings = wiring.authorization(settings)
    exchange.limits = wiring.exchange_limits(settings)
    exchange.admission.change(wiring.allowances(settings))
    parts.server.change(wiring.accept_limits(settings))
    parts.doors.fit(settings, parts.server, parts.emit)


def _put_into_listener(operators: OperatorsParts, new: Configuration, channels: list[Channel] | None) -> None:
    settings, services = new.settings, operators.services
    services.hosts = settings.listen.hosts
    services.sso = wiring.single_sign_on(settings)
    services.settings = new.shown
    services.warn_s = wiring.refresh_rules(settings).warn_s
    services.sessions.limits = wiring.session_limits(settings)
    operators.listener.limits = wiring.head_limits(settings)
    operators.herald.change(wiring.notice_rules(settings), channels)
