"""The listeners of callers: an address alone, or a table of what belongs to one (``listen.proxy``).

Pure. Texts of a :class:`Rule` never quote the value that they refuse.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from proxy.config.values import Address, Kind, Rule, as_list, parse_address, parse_path
from proxy.model import TENANT_NAME

_UNIX = "unix:"
_SOCKET_MODE = 0o600
"""This user only, until the table says who else may connect."""
_PATH_BYTES = 107
"""``sun_path`` in ``unix(7)``, less the zero at its end."""
_PEER = re.compile(r"(uid|gid):(\d{1,10})")
_ID_MOST = 2**32 - 2
"""The highest number of a user or group on Linux; the one above means "no change"."""
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")


@dataclass(frozen=True, slots=True)
class SocketPath:
    """Where a listener's Unix socket is."""

    path: Path

    is_loopback = True

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"


@dataclass(frozen=True, slots=True)
class CallerListener:
    """One entry of ``listen.proxy``."""

    address: Address | SocketPath
    tenant: str | None = None
    """Whose callers connect here."""
    mode: int = _SOCKET_MODE
    """Of the socket's file."""
    group: str | None = None
    """Of the socket's file: a name or a number."""
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    """Users and primary groups that a Unix socket lets in; all if there are none of both."""
    certificate: Path | None = None
    """Of TLS, with its key; both or none."""
    key: Path | None = None
    client_ca: Path | None = None
    """CAs of the certificates that callers must show; ``None`` where none is asked for."""
    client_certificates: Literal["required", "optional"] = "required"

    @property
    def files(self) -> dict[str, Path]:
        """What must be there when it starts, by key."""
        given = {"tls_certificate": self.certificate, "tls_key": self.key, "client_ca": self.client_ca}
        return {key: path for key, path in given.items() if path is not None}

    def __str__(self) -> str:
        return str(self.address)


def parse_listener(value: object) -> CallerListener:
    """A listener of an address, or of a table; anything else raises :class:`Rule`."""
    if isinstance(value, CallerListener):
        return value
    if not isinstance(value, dict):
        return CallerListener(_parse_place(value))
    _check_keys(value)
    fields: dict[str, Any] = {}
    for key, given in value.items():
        fields |= _KEYS[key](given)
    extra = sorted(_FOR_UNIX & value.keys())
    if extra and isinstance(fields["address"], Address):
        raise Rule(f'{extra[0]} is for Unix sockets only; remove it, or write address = "unix:/PATH"')
    _check_tls(value.keys(), is_unix=not isinstance(fields["address"], Address))
    return CallerListener(**fields)


def _check_tls(keys: Collection[object], *, is_unix: bool) -> None:
    if is_unix and (extra := sorted(_FOR_TLS.intersection(keys))):
        raise Rule(f"{extra[0]} is not for Unix sockets, which nobody can listen in on; remove it")
    if ("tls_certificate" in keys) != ("tls_key" in keys):
        raise Rule("tls_certificate and tls_key belong together; add the other, or remove this one")
    if "client_ca" in keys and "tls_certificate" not in keys:
        raise Rule("client_ca has no effect without TLS; add tls_certificate and tls_key, or remove it")
    if "client_certificates" in keys and "client_ca" not in keys:
        raise Rule("client_certificates has no effect without client_ca; add that, or remove it")


def _check_keys(table: dict[str, object]) -> None:
    for key in table:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(_KEYS)}"
            raise Rule(f"a listener's table has an unknown key; {remedy}")
    if "address" not in table:
        raise Rule('a listener\'s table must have an address; add address = "HOST:PORT"')


def _parse_place(value: object) -> Address | SocketPath:
    if not isinstance(value, str) or not value.startswith(_UNIX):
        return parse_address(value)
    path = value.removeprefix(_UNIX)
    if not path.startswith("/") or not path.isprintable() or path.endswith("/"):
        raise Rule('a Unix socket must have a full path; write for example "unix:/run/pleo-proxy/acme.sock"')
    if len(os.fsencode(path)) > _PATH_BYTES:
        raise Rule(f"the path of a Unix socket must have at most {_PATH_BYTES} bytes; choose a shorter one")
    return SocketPath(Path(path))


def _parse_tenant(value: object) -> dict[str, Any]:
    if not isinstance(value, str) or not TENANT_NAME.fullmatch(value):
        raise Rule("tenant must be a tenant's name: 1 to 63 of a-z, 0-9 and '-'; correct it")
    return {"tenant": value}


def _parse_mode(value: object) -> dict[str, Any]:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise Rule('mode must be the file\'s permissions in octal, as text; write for example "0660"')
    return {"mode": int(value, 8)}


def _parse_group(value: object) -> dict[str, Any]:
    if not isinstance(value, str) or not _GROUP.fullmatch(value) or _is_too_large(value):
        raise Rule("group must be the name or the number of a group, as text; correct it")
    return {"group": value}


def _is_too_large(text: str) -> bool:
    return text.isdecimal() and int(text) > _ID_MOST


def _parse_peers(value: object) -> dict[str, Any]:
    given = as_list(value)
    texts = given if isinstance(given, list) else []
    peers = [_PEER.fullmatch(text) for text in texts if isinstance(text, str)]
    found = [(peer[1], int(peer[2])) for peer in peers if peer is not None]
    if not found or len(found) != len(texts) or any(number > _ID_MOST for _, number in found):
        raise Rule('peers must be users or groups by number; write for example ["uid:1001", "gid:50"]')
    return {
        "uids": tuple(number for kind, number in found if kind == "uid"),
        "gids": tuple(number for kind, number in found if kind == "gid"),
    }


def _parse_client_certificates(value: object) -> dict[str, Any]:
    if value not in ("required", "optional"):
        raise Rule('client_certificates must be "required" or "optional"; remove it for the first')
    return {"client_certificates": value}


def _path_of(field: str) -> Callable[[object], dict[str, Any]]:
    return lambda value: {field: parse_path(value)}


_KEYS: dict[str, Callable[[object], dict[str, Any]]] = {
    "address": lambda value: {"address": _parse_place(value)},
    "tenant": _parse_tenant,
    "mode": _parse_mode,
    "group": _parse_group,
    "peers": _parse_peers,
    "tls_certificate": _path_of("certificate"),
    "tls_key": _path_of("key"),
    "client_ca": _path_of("client_ca"),
    "client_certificates": _parse_client_certificates,
}
_FOR_TLS = {"tls_certificate", "tls_key", "client_ca", "client_certificates"}
_FOR_UNIX = {"mode", "group", "peers"}


def _refuse_clashes(listeners: tuple[CallerListener, ...]) -> tuple[CallerListener, ...]:
    for number, one in enumerate(listeners):
        for other in listeners[:number]:
            if _clash(one.address, other.address):
                raise Rule("two entries have the same address, which only one can listen on; remove one")
    return listeners


def _clash(one: Address | SocketPath, other: Address | SocketPath) -> bool:
    if isinstance(one, Address) and isinstance(other, Address):
        return one.clashes_with(other)
    return one == other


def tcp_addresses(listeners: Iterable[CallerListener]) -> list[Address]:
    """The addresses of those that are no Unix sockets."""
    return [each.address for each in listeners if isinstance(each.address, Address)]


CallerListeners = Annotated[
    tuple[Annotated[CallerListener, PlainValidator(parse_listener), Kind("HOST:PORT")], ...],
    BeforeValidator(lambda value: [value] if isinstance(value, dict) else as_list(value)),
    AfterValidator(_refuse_clashes),
    Field(min_length=1),
    Kind("HOST:PORT, unix:/PATH or a table, or a list of them", many=True),
]
