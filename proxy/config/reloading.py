"""What a changed configuration comes to: what is taken up at run time, and what waits for a restart. Pure.

Every key is in exactly one of two classes. A table is taken up as a whole or not at all: the rules of a table
are between its keys, and half a registration at Pleo would send one environment's secret to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from proxy.config.in_force import InForce, in_force
from proxy.config.mistakes import keys_of, lines
from proxy.config.secret_refs import CredentialRef, EnvRef, FileRef, resolve
from proxy.config.sections import Section
from proxy.config.settings import Settings
from proxy.errors import ConfigurationError, OperatorError

_CONNECTIONS = "connections to Pleo are made with it"
_STORE = "the store is opened with it"
_TRACES = "what makes and sends traces is built at a start"
_RING = "the key ring is read at a start only"
NEEDS_RESTART: Mapping[str, str] = {
    "listen.proxy": "sockets are opened at a start",
    "listen.admin": "its socket is opened at a start",
    "listen.public_url": "consents under way come back to it",
    "listen.workers": "processes are started at a start",
    "pleo.environment": _CONNECTIONS,
    "pleo.api_url": _CONNECTIONS,
    "pleo.authorize_url": "it belongs to pleo.environment",
    "pleo.token_url": _CONNECTIONS,
    "pleo.ca_file": _CONNECTIONS,
    "pleo.http_proxy": _CONNECTIONS,
    "pleo.http_proxy_credentials": _CONNECTIONS,
    "pleo.private_networks": _CONNECTIONS,
    "store.url": _STORE,
    "store.state_dir": _STORE,
    "log.format": "lines that are shown live are of one format",
    **dict.fromkeys(
        ("tracing.endpoint", "tracing.headers", "tracing.sample_ratio", "tracing.service_name"), _TRACES
    ),
    "tracing.timeout_s": _TRACES,
    "vault.keys": _RING,
    "vault.key_service": _RING,
}
"""Keys whose change waits for a restart, and why."""
AT_RUN_TIME = frozenset(
    {
        *("listen.hosts", "listen.trusted_proxies", "listen.default_tenant"),
        *("pleo.client_id", "pleo.client_secret", "pleo.client_secret_previous", "pleo.client_auth"),
        *("pleo.scopes", "pleo.app_name", "pleo.app_url", "pleo.logo_url", "pleo.terms_url"),
        *("pleo.privacy_url", "pleo.initiation_url", "pleo.settings_url"),
        *("admin.token", "admin.viewer_token", "admin.session_idle_s", "admin.session_max_s"),
        *("admin.sso_header", "admin.sso_proxies", "admin.sso_operators", "admin.sso_viewers"),
        "audit.keep_days",
        *("consent.organisation", "consent.contact", "consent.language"),
        "log.level",
        *("notify.webhook_url", "notify.webhook_secret", "notify.smtp_url", "notify.smtp_password"),
        *("notify.mail_from", "notify.mail_to", "notify.command", "notify.repeat_s", "notify.store_down_s"),
        *("refresh.advisory", "refresh.advisory_jitter", "refresh.mandatory_s", "refresh.mandatory"),
        *("refresh.wait_s", "refresh.timeout_s", "refresh.default_expires_in_s"),
        *("refresh.refresh_lifetime_days", "refresh.warn_days", "refresh.keep_alive"),
        *("refresh.forced_hold_s", "refresh.backoff_s", "refresh.backoff_max_s", "refresh.takeover_s"),
        "refresh.client_rejected_pause_s",
        *("limits.head_bytes", "limits.headers", "limits.target_bytes", "limits.body_bytes"),
        *("limits.replay_memory", "limits.replay_disk", "limits.tenant_requests_per_minute"),
        *("limits.tenant_concurrency", "limits.connections", "limits.idle_s", "limits.head_s"),
        *("limits.upstream_connect_s", "limits.upstream_total_s", "limits.drain_s"),
    }
)
"""Keys that a reload puts in force. A key is here once :mod:`proxy.retune` does so, and a test shows it."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings as they are in force."""

    settings: Settings
    """With the secrets themselves in the place of references, save the vault's."""
    shown: tuple[InForce, ...]
    """For people: with the references."""
    source: str
    """The file that they came from, or ``the environment``."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload came to."""

    configuration: Configuration
    """In force from now on; what was in force before where there are mistakes."""
    changed: tuple[str, ...] = ()
    """Keys with another value from now on."""
    needs_restart: tuple[str, ...] = ()
    """Keys that were changed and keep their value until a restart."""
    mistakes: tuple[str, ...] = ()
    """Why nothing was taken up."""
    at: float = 0.0
    """When it began, as an instant."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a reload came to, for whoever asked for it."""

    source: str
    changed: tuple[str, ...]
    needs_restart: Mapping[str, str]
    """Changed keys that keep their value until a restart, and why."""
    mistakes: tuple[str, ...] = ()
    """Of the configuration: nothing of it was taken up."""
    unreached: tuple[str, ...] = ()
    """Processes that did not take it up."""


def report(outcome: Reloaded, unreached: Iterable[str] = ()) -> Report:
    """What is told of a reload."""
    waiting = {key: why_not_taken_up(key) for key in outcome.needs_restart}
    source = outcome.configuration.source
    return Report(source, outcome.changed, waiting, outcome.mistakes, tuple(unreached))


def configuration(settings: Settings, environ: Mapping[str, str], source: str) -> Configuration:
    """Settings that were just loaded, with their secrets read, so that all that uses them has the same.

    :raises ConfigurationError: a secret is not where the settings say.
    """
    opened = {
        name: section.model_copy(update=dict(_secrets(name, section, environ)))
        for name, section in _sections(settings)
        if name != "vault"  # its keys are the vault's to read, and may yet be generated
    }
    return Configuration(settings.model_copy(update=opened), tuple(in_force(settings, environ)), source)


def _secrets(name: str, section: Section, environ: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    for key, value in section:
        if isinstance(value, EnvRef | FileRef | CredentialRef):
            yield key, resolve(value, environ, item=f"{name}.{key}")


def _sections(settings: Settings) -> Iterator[tuple[str, Section]]:
    for name, section in settings:
        assert isinstance(section, Section)
        yield name, section


def reloaded(old: Configuration, new: Configuration, *, at: float) -> Reloaded:
    """What becomes of ``old`` where ``new`` was read."""
    before, after = dict(_sections(old.settings)), dict(_sections(new.settings))
    differing = [
        f"{table}.{key}"
        for table, section in before.items()
        for key in type(section).model_fields
        if getattr(section, key) != getattr(after[table], key)
    ]
    waiting = {key.partition(".")[0] for key in differing if _waits(key, after)}
    tables = {name: section if name in waiting else after[name] for name, section in before.items()}
    try:
        # The rules of each table hold, since each is one that was checked; these are between tables.
        settings = Settings.model_validate(tables)
    except ValidationError as error:
        mistakes = [
            f"{line} (until a restart {_listed(waiting)} stays as it is)"
            for line in lines(error, Settings, {})
        ]
        return Reloaded(old, mistakes=tuple(mistakes), at=at)
    shown = [
        row if row.key.partition(".")[0] in waiting else newer
        for row, newer in zip(old.shown, new.shown, strict=True)
    ]
    return Reloaded(
        replace(new, settings=settings, shown=tuple(shown)),
        tuple(key for key in differing if key.partition(".")[0] not in waiting),
        tuple(key for key in differing if key.partition(".")[0] in waiting),
        at=at,
    )


def _waits(key: str, after: Mapping[str, Section]) -> bool:
    # Without one given a token is generated, which is shown once, on the terminal of who starts the proxy.
    is_to_be_generated = key == "admin.token" and getattr(after["admin"], "token", None) is None
    return key in NEEDS_RESTART or is_to_be_generated


def _listed(tables: set[str]) -> str:
    return ", ".join(f"[{name}]" for name in sorted(tables))


def why_not_taken_up(key: str) -> str:
    """Why a changed key waits for a restart, in a few words."""
    alone = "without it a token is generated, which a start shows" if key == "admin.token" else None
    return NEEDS_RESTART.get(key) or alone or f"[{key.partition('.')[0]}] is taken up as a whole"


def failed(old: Configuration, error: OperatorError, *, at: float) -> Reloaded:
    """What was read has mistakes, or could not be read, so ``old`` stays."""
    mistakes = error.mistakes if isinstance(error, ConfigurationError) else [str(error)]
    return Reloaded(old, mistakes=tuple(mistakes), at=at)


def unclassed() -> list[str]:
    """Keys that are in neither class, or in both."""
    return [key for key in keys_of(Settings) if (key in AT_RUN_TIME) == (key in NEEDS_RESTART)]
