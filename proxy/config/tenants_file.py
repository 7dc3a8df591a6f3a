"""The file of ``tenants apply``: ``[[tenant]]`` tables with the keys that ``tenants add`` has as options.

Checks shapes only; whether names, networks and routes are fit to be saved is for :mod:`proxy.tenants`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from proxy.config.loading import read_toml
from proxy.config.mistakes import lines
from proxy.config.secret_refs import OpenedSecret
from proxy.config.sections import Section
from proxy.config.values import Count, Kind, Size, Text, as_list
from proxy.errors import ConfigurationError
from proxy.model import Policy, Preset, Secret, Unblocked

_AS_BY_DEFAULT = Policy()


@dataclass(frozen=True, slots=True)
class TenantEntry:
    """One ``[[tenant]]`` table, its keys resolved."""

    name: str
    company: str | None = None
    hosts: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    legacy_keys: tuple[Secret, ...] = ()
    certificates: tuple[str, ...] = ()
    shared_keys: tuple[Secret, ...] = ()
    policy: Policy = _AS_BY_DEFAULT
    trial: Policy | None = None
    enabled: bool = True


_Texts = Annotated[tuple[Text, ...], BeforeValidator(as_list), Kind("text, or a list", many=True)]
_Secrets = Annotated[
    tuple[OpenedSecret, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str | dict) else value),
    Kind("secret, or a list", secret=True),
]


class _Policy(Section):
    allow: _Texts = ()
    deny: _Texts = ()
    unblock: Annotated[
        tuple[Unblocked, ...], BeforeValidator(as_list), Kind("text, or a list", many=True)
    ] = ()
    callers: _Texts = ()
    pin_company: Annotated[bool, Field(strict=True), Kind("true or false")] = True
    requests_per_minute: Count | None = None
    concurrency: Count | None = None
    body_bytes: Size | None = None


class _Trial(_Policy):
    preset: Annotated[Preset, Kind("text")] = Preset.FULL


class _Table(Section):
    name: Text
    company: Text | None = None
    host: _Texts = ()
    network: _Texts = ()
    legacy_key: _Secrets = ()
    certificate: _Texts = ()
    shared_key: _Secrets = ()
    preset: Annotated[Preset, Kind("text")] = Preset.FULL
    enabled: Annotated[bool, Field(strict=True), Kind("true or false")] = True
    policy: _Policy = _Policy()
    trial: _Trial | None = None


class _File(Section):
    tenant: tuple[_Table, ...] = ()


def load_tenants_file(path: Path, environ: Mapping[str, str]) -> list[TenantEntry]:
    """The tenants of the TOML file at ``path``, in its order; keys may refer to ``environ``.

    Raises :class:`ConfigurationError` with all mistakes.
    """
    data = read_toml(path)
    if not data:
        nothing = "there is no [[tenant]] table; add one, or write `tenant = []` to mean no tenants at all"
        raise ConfigurationError(str(path), [nothing])
    names = _names(data)
    mistakes = _repeated_names(names)
    try:
        tables = _File.model_validate(data, context=environ).tenant
    except ValidationError as error:
        mistakes = [*mistakes, *lines(error, _File, names)]
    if mistakes:
        raise ConfigurationError(str(path), mistakes)
    return [_entry(table) for table in tables]


def _names(data: Mapping[str, object]) -> dict[str, str]:
    """The tables' names, where fit to be shown, so that a mistake is found without counting tables."""
    tables = data.get("tenant")
    found: dict[str, str] = {}
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        name = table.get("name") if isinstance(table, dict) else None
        if isinstance(name, str) and re.fullmatch(r"[a-z0-9-]{1,63}", name):
            found[f"tenant[{index}]"] = name
    return found


def _repeated_names(names: Mapping[str, str]) -> list[str]:
    return [
        f'tenant.name = "{name}": given {count} times; merge the tables, or rename one'
        for name, count in Counter(names.values()).items()
        if count > 1
    ]


def _entry(table: _Table) -> TenantEntry:
    return TenantEntry(
        name=table.name,
        company=table.company,
        hosts=table.host,
        networks=table.network,
        legacy_keys=table.legacy_key,
        certificates=table.certificate,
        shared_keys=table.shared_key,
        policy=Policy(table.preset, **table.policy.model_dump()),
        trial=None if table.trial is None else Policy(**table.trial.model_dump()),
        enabled=table.enabled,
    )
