"""What a command that changes something leaves in the audit trail: what was done, and by whom.

A note is stored in the transaction of the change. Then it is put into the chain, if the command has the key
ring; else the next proxy that runs does that.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from proxy import audit
from proxy.audit import AuditError, Recorder
from proxy.chain import Note
from proxy.cli.inputs import open_ring, with_store
from proxy.config import Settings
from proxy.errors import OperatorError, StoreUnavailable
from proxy.store import Store
from proxy.vault import Vault

T = TypeVar("T")


def recorder_of(settings: Settings) -> Recorder:
    """Makes notes in the name of who runs this command."""
    return Recorder(_actor(), time.time, _ring(settings), _context(os.environ))


def with_recorded_store(
    config_path: Path | None, work: Callable[[Store, Settings, Recorder], Awaitable[T]]
) -> T:
    """As :func:`proxy.cli.inputs.with_store`, for a command that changes something."""

    async def run(store: Store, settings: Settings) -> T:
        recorder = recorder_of(settings)
        try:
            return await work(store, settings, recorder)
        finally:
            await link(store, recorder)

    return with_store(config_path, run)


async def link(store: Store, recorder: Recorder, *notes: Note) -> None:
    """Put what was noted, and ``notes``, into the chain, if that can be done now: the command is done."""
    with suppress(StoreUnavailable, AuditError):
        await audit.record(store, recorder, *notes)


def _ring(settings: Settings) -> Vault | None:
    try:
        return open_ring(settings)
    except OperatorError:
        return None  # before the first start there is none, and a credential is for the service alone


def _actor() -> str:
    uid = os.getuid()
    try:
        return f"os:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"os:{uid}"


def _context(environ: Mapping[str, str]) -> dict[str, str]:
    # Taken at its word, which the one who runs sudo could forge.
    sudo_user = environ.get("SUDO_USER")
    return {"sudo_user": sudo_user} if sudo_user else {}
