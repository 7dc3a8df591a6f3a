"""The ``[notify]`` settings as channels. Opens secrets' places, and no connection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from proxy.addresses import is_loopback
from proxy.config import Settings, resolve
from proxy.errors import ConfigurationError
from proxy.model import Clock
from proxy.notifications.channels import Channel
from proxy.notifications.command import Command
from proxy.notifications.mail import Mail, MailServer
from proxy.notifications.webhook import Signer, Webhook

_PORTS = {"smtp": 587, "smtps": 465}
"""Of submission with STARTTLS (RFC 6409) and with TLS from the start (RFC 8314)."""


def channels_of(settings: Settings, environ: Mapping[str, str], clock: Clock) -> list[Channel]:
    """Every channel that is configured.

    :raises ConfigurationError: a secret is not where the settings say or is none of its kind, or the command
        is no program.
    """
    found = [_webhook(settings, environ, clock), _mail(settings, environ), _command(settings)]
    return [channel for channel in found if channel is not None]


def _webhook(settings: Settings, environ: Mapping[str, str], clock: Clock) -> Channel | None:
    notify = settings.notify
    if notify.webhook_url is None or notify.webhook_secret is None:
        return None
    secret = resolve(notify.webhook_secret, environ, item="notify.webhook_secret")
    try:
        return Webhook(notify.webhook_url, Signer(secret), clock)
    except ValueError:
        raise _mistake(
            "notify.webhook_secret: must be whsec_ and 24 to 64 random bytes in base64; make one with "
            '`echo "whsec_$(openssl rand -base64 32)"`, and give it to the receiver too'
        ) from None


def _mail(settings: Settings, environ: Mapping[str, str]) -> Channel | None:
    notify = settings.notify
    if notify.smtp_url is None or notify.mail_from is None:
        return None
    parts = urlsplit(notify.smtp_url)
    host = parts.hostname or ""
    password = None
    if notify.smtp_password is not None:
        password = resolve(notify.smtp_password, environ, item="notify.smtp_password")
    user = None if parts.username is None else unquote(parts.username)
    server = MailServer(
        host, parts.port or _PORTS[parts.scheme], parts.scheme == "smtps", is_loopback(host), user, password
    )
    return Mail(server, notify.mail_from, notify.mail_to or ())


def _command(settings: Settings) -> Channel | None:
    arguments = settings.notify.command
    if not arguments:
        return None
    if not os.access(arguments[0], os.X_OK) or os.path.isdir(arguments[0]):  # noqa: PTH112 - asks no more
        raise _mistake(
            f"notify.command {arguments[0]}: is no program that this user may start; correct the path, or "
            "make it executable"
        )
    return Command(arguments)


def _mistake(text: str) -> ConfigurationError:
    return ConfigurationError("notify", [text])
