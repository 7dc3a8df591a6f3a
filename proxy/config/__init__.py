"""The configuration: found, read, checked as a whole, and explained.

:func:`find` and :func:`load` give :class:`Settings`, or every mistake at once; :func:`resolve` opens a secret
that a setting refers to. A secret is kept in :class:`proxy.model.Secret` only and never shown; the only
environment read is the one handed in. The parts, each importing only those before it: ``values``,
``listeners``, ``secret_refs`` and ``store_url`` (kinds of value), ``sections``, ``notify``, ``tracing``,
``operators``, ``tuning`` and ``settings`` (the model), ``mistakes`` (in words), ``environment`` (variables),
``loading``, ``tenants_file``, ``advice``, ``in_force``, ``reloading`` and ``reference``.
"""

from __future__ import annotations

from proxy.config.advice import registration_sheet, warnings
from proxy.config.in_force import InForce, in_force
from proxy.config.listeners import CallerListener, SocketPath, tcp_addresses
from proxy.config.loading import FILE_VARIABLE, find, load
from proxy.config.notify import Notify
from proxy.config.operators import Admin
from proxy.config.reference import reference, settings_table
from proxy.config.reloading import Configuration, Reloaded, Report, configuration, reloaded, report
from proxy.config.secret_refs import CredentialRef, EnvRef, FileRef, SecretRef, resolve
from proxy.config.sections import Audit, Endpoints, Listen, Log, Pleo, Store, Vault
from proxy.config.settings import Settings
from proxy.config.tenants_file import TenantEntry, load_tenants_file
from proxy.config.tuning import Limits, Refresh
from proxy.config.values import Address

__all__ = [
    "FILE_VARIABLE",
    "Address",
    "Admin",
    "Audit",
    "CallerListener",
    "Configuration",
    "CredentialRef",
    "Endpoints",
    "EnvRef",
    "FileRef",
    "InForce",
    "Limits",
    "Listen",
    "Log",
    "Notify",
    "Pleo",
    "Refresh",
    "Reloaded",
    "Report",
    "SecretRef",
    "Settings",
    "SocketPath",
    "Store",
    "TenantEntry",
    "Vault",
    "configuration",
    "find",
    "in_force",
    "load",
    "load_tenants_file",
    "reference",
    "registration_sheet",
    "reloaded",
    "report",
    "resolve",
    "settings_table",
    "tcp_addresses",
    "warnings",
]
