"""What was told, in a file, so that a restart neither repeats it nor forgets to tell when it is over.

Holds names of tenants and times, nothing else. A file that is not there or cannot be read costs a repetition,
and so does one that cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson

from proxy.notices import Kind, Record, Trouble

FILE = "notified.json"


def read(folder: Path) -> dict[Trouble, Record]:
    """What was told before; nothing where nobody knows."""
    try:
        rows = orjson.loads((folder / FILE).read_bytes())
        return {
            Trouble(Kind(kind), None if tenant is None else str(tenant)): Record(
                float(since), float(next_at), told=True
            )
            for kind, tenant, since, next_at in rows
        }
    except (OSError, ValueError, TypeError):
        return {}


def write(folder: Path, told: Mapping[Trouble, Record]) -> None:
    """Keep what was told and is not over."""
    rows = [
        (trouble.kind.value, trouble.tenant, record.since, record.next_at)
        for trouble, record in sorted(told.items())
    ]
    beside = folder / f"{FILE}.new"
    with suppress(OSError):
        beside.touch(0o600)
        beside.write_bytes(orjson.dumps(rows))
        beside.replace(folder / FILE)
