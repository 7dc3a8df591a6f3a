"""The URL of the store: a SQLite file or a PostgreSQL database, and a password apart from what may be shown.

Pure. ``str`` and ``repr`` of a :class:`StoreUrl` never hold the password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import PlainValidator

from proxy.config.values import Kind, Rule
from proxy.model import Secret


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where a store is. Made by :func:`parse_store_url`."""

    text: str
    """The URL, less its password."""
    path: Path | None = None
    """The file of a SQLite store; ``None`` for PostgreSQL."""
    password: Secret | None = None
    """Of a PostgreSQL URL that holds one; else the driver asks ``$PGPASSWORD`` and the password file."""

    def __str__(self) -> str:
        return self.text


def parse_store_url(value: object) -> StoreUrl:
    """``sqlite:…`` or ``postgresql://…`` as a URL of a store; anything else raises :class:`Rule`."""
    if isinstance(value, StoreUrl):
        return value
    if not isinstance(value, str) or not re.match(r"(sqlite|postgresql|postgres):", value):
        raise Rule(
            "must be sqlite:///ABSOLUTE/PATH, sqlite:RELATIVE/PATH or postgresql://USER@HOST/DATABASE; "
            "correct it"
        )
    return _sqlite(value) if value.startswith("sqlite:") else _postgresql(value)


def _sqlite(value: str) -> StoreUrl:
    # Three slashes are an empty authority and an absolute path, as in file:///etc (RFC 8089); four are what
    # people write who know SQLAlchemy, and mean the same file here.
    rest = value.removeprefix("sqlite:")
    path = Path("/" + rest.lstrip("/")) if rest.startswith("/") else Path(rest)
    if "?" in value or "#" in value or rest.startswith("~"):
        raise Rule("must be sqlite:///ABSOLUTE/PATH or sqlite:RELATIVE/PATH, nothing after; correct it")
    if ":memory:" in value:
        raise Rule("a store in memory would lose every authorisation at a restart; name a file")
    if value.endswith("/") or not path.name or (rest.startswith("//") and rest[2:3] != "/"):
        raise Rule("must name a file; write for example sqlite:///var/lib/pleo-proxy/proxy.db")
    return StoreUrl(value, path)


_POSTGRESQL = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)"
    r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<hosts>[^@/?#]*)(?P<rest>/[^@/?#]+(?P<query>\?[^#]*)?)"
)


def _postgresql(value: str) -> StoreUrl:
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise Rule("must be a URL in ASCII without spaces; escape what is not, for example a space as %20")
    match = _POSTGRESQL.fullmatch(value)
    if match is None or any(int(port) > 65535 for port in re.findall(r":(\d+)", match["hosts"])):
        raise Rule(
            "must be postgresql://USER@HOST/DATABASE, and a password with one of :/?#@ must have it escaped, "
            "for example / as %2F; correct it"
        )
    # One place for the password, so that there is one place to take it out of. passfile names a file.
    if re.search(r"[?&](?!passfile=)[^&=]*pass[^&=]*=", match["query"] or "", re.IGNORECASE):
        raise Rule("must not hold a password after the ?; give it before the @, or as PGPASSWORD")
    user = f"{match['user']}@" if match["user"] else ""
    password = Secret(unquote(match["password"])) if match["password"] else None
    return StoreUrl(f"{match['scheme']}{user}{match['hosts']}{match['rest']}", None, password)


StoreUrlSetting = Annotated[StoreUrl, PlainValidator(parse_store_url), Kind("URL")]
