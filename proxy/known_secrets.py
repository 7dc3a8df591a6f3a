"""Which secrets of the settings the log's canary is to know, in all forms in which they are sent.

Reads them where the settings say that they are, and gives them to nobody but the canary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.config import CredentialRef, EnvRef, FileRef, Settings, resolve
from proxy.config.sections import Section
from proxy.model import Secret
from proxy.telemetry.canary import Canary, as_sent
from proxy.vault import Vault


def watch_secrets(canary: Canary, settings: Settings, environ: Mapping[str, str], vault: Vault) -> None:
    """Have ``canary`` know the secrets of the settings, and whatever ``vault`` seals or opens.

    :raises ConfigurationError: a secret is not where the settings say.
    """
    canary.watch_vault(vault)
    watch_settings(canary, settings, environ)
    database = settings.store.url.password
    if database is not None:
        canary.watch("store.url", database)


def watch_settings(
    canary: Canary, settings: Settings, environ: Mapping[str, str], former: Settings | None = None
) -> None:
    """Have ``canary`` know the secrets of the settings.

    :param former: those that were in force a moment ago, and may still be in use.
    :raises ConfigurationError: a secret is not where the settings say.
    """
    before = {} if former is None else dict(_secrets_of(former, environ))
    now = dict(_secrets_of(settings, environ))
    for item in before.keys() | now.keys():
        canary.watch(item, *now.get(item, ()), *before.get(item, ()))


def _secrets_of(settings: Settings, environ: Mapping[str, str]) -> Iterator[tuple[str, list[Secret]]]:
    """Each secret of the settings by its key, in the forms in which it is sent."""
    for name, section in settings:
        if not isinstance(section, Section) or name == "vault":
            continue  # the vault's keys are the vault's
        for key, value in section:
            if isinstance(value, EnvRef | FileRef | CredentialRef | Secret):
                item = f"{name}.{key}"
                secret = resolve(value, environ, item=item)
                yield item, [secret, as_sent(settings.pleo.client_id, secret), as_sent(None, secret)]
