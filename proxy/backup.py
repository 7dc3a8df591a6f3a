"""Tenants and grants in one file, and what becomes of a store into which such a file is restored.

The tokens in it are sealed as they are in the store, so the file is worth nothing without the key ring. A
hash with a key of that ring covers all of it: a file that was changed, cut short or made by somebody else is
refused. It has three lines::

    pleo-proxy backup 1
    {"created_at": …, "sha256": …, "key": …, "hmac": …}
    {"key_check": …, "tenants": […], "grants": […]}

Restored tokens are in doubt, since Pleo ends a pair when it issues the next one. So a grant in the store
whose pair was issued no earlier than the file's stays, and what comes from the file is ``unverified``: its
access token is not used, and its first refresh shows whether it still holds.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from proxy import pairs
from proxy.errors import OperatorError
from proxy.model import ROUTE_FIELDS, Grant, GrantState, Outcome, Policy, Preset, Tenant, Unblocked
from proxy.store import Content
from proxy.vault import CHECK_PLACE, SealedValueError, Vault

_MAGIC = b"pleo-proxy backup "
_VERSION = b"1"


class BackupError(OperatorError):
    """A file that is no backup, or one that must not be restored; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore made of a store."""

    content: Content
    """As it is to be stored."""
    unverified: tuple[str, ...]
    """Tenants whose tokens came from the file."""
    kept: tuple[str, ...]
    """Tenants whose grant in the store is newer than the file's, or as new, and stays."""


# --- the file


def written(content: Content, vault: Vault, *, at: float) -> bytes:
    """The file that holds ``content``, which was read at ``at`` (seconds since the epoch)."""
    body = orjson.dumps(
        {
            "key_check": content.key_check,
            "tenants": [asdict(tenant) for tenant in content.tenants.values()],
            "grants": [asdict(grant) for grant in content.grants.values()],
        }
    )
    head = {"created_at": at, "sha256": hashlib.sha256(body).hexdigest()}
    key_id, tag = vault.authenticate(_authenticated(head, body))
    return b"\n".join([_MAGIC + _VERSION, orjson.dumps(head | {"key": key_id, "hmac": tag}), body, b""])


def read(data: bytes, vault: Vault) -> tuple[Content, float]:
    """The content of a file, checked as a whole, and when it was read from its store.

    :raises BackupError: it is no backup, of another version, damaged, changed, or of another key ring.
    """
    lines = data.split(b"\n")
    if not lines[0].startswith(_MAGIC):
        raise BackupError(
            "this file is no backup of pleo-proxy; name the file that `pleo-proxy backup` wrote"
        )
    if lines[0] != _MAGIC + _VERSION:
        raise BackupError("this backup is in a format that this version does not know; upgrade pleo-proxy")
    if len(lines) != 4 or lines[3]:
        raise BackupError("this backup is cut short, or something was added to it; take another copy")
    try:
        head = orjson.loads(lines[1])
        key_id, tag = str(head.pop("key")), str(head.pop("hmac"))
        created_at, sha256 = float(head["created_at"]), str(head["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackupError("the head of this backup is damaged; take another copy") from None
    if hashlib.sha256(lines[2]).hexdigest() != sha256:
        raise BackupError("this backup is damaged: its SHA-256 does not fit; take another copy")
    try:
        vault.verify(_authenticated(head, lines[2]), key_id, tag)
    except SealedValueError as error:
        raise BackupError(
            f"this backup cannot be trusted: it was {error.problem}; put the key ring back that was used "
            "when it was made, or take another copy"
        ) from None
    return _content(orjson.loads(lines[2])), created_at


def save(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all, for its owner only; on the disk when this returns.

    :raises BackupError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # the name too must outlive a power cut
        finally:
            os.close(folder)
    except OSError as error:
        raise BackupError(
            f"backup {path}: it cannot be written ({os.strerror(error.errno or 0)}); choose another place"
        ) from None


def load(path: Path) -> bytes:
    """The bytes of the file at ``path``.

    :raises BackupError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BackupError(
            f"backup {path}: it cannot be read ({os.strerror(error.errno or 0)}); name the file that "
            "`pleo-proxy backup` wrote, and let the proxy's user read it"
        ) from None


def _authenticated(head: Mapping[str, Any], body: bytes) -> bytes:
    return _MAGIC + _VERSION + b"\n" + orjson.dumps(head, option=orjson.OPT_SORT_KEYS) + b"\n" + body


def _content(body: dict[str, Any]) -> Content:
    """What was written, back as values: its authenticity is proven, so its form is what was written."""
    tenants = [_tenant(row) for row in body["tenants"]]
    grants = [_grant(row) for row in body["grants"]]
    return Content(
        {tenant.name: tenant for tenant in tenants},
        {grant.tenant: grant for grant in grants},
        body["key_check"],
    )


def _tenant(row: dict[str, Any]) -> Tenant:
    # A list that the file does not have is of a kind of route that came later than the file.
    lists = {name: tuple(row.get(name, ())) for name in ROUTE_FIELDS}
    policies = {name: None if row[name] is None else _policy(row[name]) for name in ("policy", "trial")}
    return Tenant(**(row | lists | policies))


def _policy(row: dict[str, Any]) -> Policy:
    lists = {name: tuple(row[name]) for name in ("allow", "deny", "callers")}
    words = {
        "preset": Preset(row["preset"]),
        "unblock": tuple(Unblocked(word) for word in row["unblock"]),
    }
    return Policy(**(row | lists | words))


def _grant(row: dict[str, Any]) -> Grant:
    outcome = row["last_outcome"]
    return Grant(
        **(
            row
            | {
                "state": GrantState(row["state"]),
                "scopes": tuple(row["scopes"]),
                "last_outcome": None if outcome is None else Outcome(outcome),
            }
        )
    )


# --- what a restore makes of a store


def check(content: Content, vault: Vault) -> None:
    """Whether ``vault`` opens every sealed value of ``content``.

    :raises BackupError: it does not; the tenants are named.
    """
    if content.key_check is not None:
        try:
            vault.open(content.key_check, CHECK_PLACE)
        except SealedValueError as error:
            raise BackupError(
                f"the key check of this backup was {error.problem}; put back the key ring that was used then"
            ) from None
    failing = {
        grant.tenant: problem for grant in content.grants.values() if (problem := _fault(vault, grant))
    }
    if failing:
        tenant, problem = next(iter(failing.items()))
        raise BackupError(
            f"the key ring does not open the tokens of {', '.join(failing)} in this backup ({tenant}: "
            f"{problem}); put the missing key back into the ring"
        )


def restored(
    stored: Content, saved: Content, vault: Vault, *, progress: Callable[[int, int], None]
) -> Restored:
    """What the store is to hold: the tenants of the file, and of each grant the newer of the two.

    A grant from the file gets a generation beyond both, and is sealed anew for it: no generation is ever used
    for two pairs, whatever a running process or a journal remembers of it.

    :param progress: told how many grants of how many are done.
    :raises BackupError: the vault does not open a value of the file.
    """
    check(saved, vault)
    grants: dict[str, Grant] = {}
    unverified, kept = [], []
    for number, (tenant, grant) in enumerate(saved.grants.items()):
        progress(number, len(saved.grants))
        held = stored.grants.get(tenant)
        if held is not None and _is_newer(held, grant) and _fault(vault, held) is None:
            grants[tenant] = held
            kept.append(tenant)
        else:
            grants[tenant] = _in_doubt(vault, grant, held)
            if grant.refresh is not None:
                unverified.append(tenant)
    progress(len(saved.grants), len(saved.grants))
    return Restored(
        Content(saved.tenants, grants, stored.key_check or vault.seal_check()), tuple(unverified), tuple(kept)
    )


def _is_newer(held: Grant, saved: Grant) -> bool:
    # By time and not by generation, which begins anew for a tenant that was removed and added again.
    return held.company == saved.company and (held.issued_at or 0.0) >= (saved.issued_at or 0.0)


def _in_doubt(vault: Vault, saved: Grant, held: Grant | None) -> Grant:
    generation = max(saved.generation, held.generation if held else 0) + 1
    grant = replace(
        saved,
        generation=generation,
        attempted_at=None,
        lease_owner=None,
        lease_until=None,
        refresh_asked_at=None,
    )
    pair = pairs.open_pair(vault, saved)
    if pair is None:
        return grant
    return replace(
        grant,
        state=GrantState.UNVERIFIED,
        access=vault.seal(pair.access, pairs.place(saved.tenant, "access", generation)),
        refresh=vault.seal(pair.refresh, pairs.place(saved.tenant, "refresh", generation)),
        answer_lost=False,
    )


def _fault(vault: Vault, grant: Grant) -> str | None:
    try:
        pairs.open_pair(vault, grant)
    except SealedValueError as error:
        return error.problem
    return None
