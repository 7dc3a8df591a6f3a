"""The kinds of value that settings have: each parsed once, refused with its rule and a remedy.

Pure. A :class:`Rule` never quotes the value it refuses, so that it may be shown whatever the value was.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from proxy.addresses import Network, is_ip_literal, is_loopback, widens
from proxy.model import TENANT_NAME, Origin


class Rule(ValueError):  # noqa: N818 - it is the rule that the value breaks, and is raised as such
    """A value breaks a rule. The text is "rule; remedy" and holds nothing of the value."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What documents call a type, and what the readers of the file and the environment must know of it."""

    text: str
    secret: bool = False
    """The value is never shown."""
    many: bool = False
    """A list; one string counts as a list of one, and a variable separates by commas."""
    size: bool = False
    """Bytes, shown with a unit."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener binds. ``host`` is without brackets; port 0 is any free port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def clashes_with(self, other: Address) -> bool:
        """Whether the two cannot both be bound: same port, and same or all interfaces."""
        if self.port == 0 or self.port != other.port:
            return False
        hosts = {"127.0.0.1" if host == "localhost" else host for host in (self.host, other.host)}
        return len(hosts) == 1 or not hosts.isdisjoint({"0.0.0.0", "::"})

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_T = TypeVar("_T")

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.IGNORECASE)


def _is_host(host: str) -> bool:
    return is_ip_literal(host) or (len(host) <= 253 and _HOST_NAME.fullmatch(host) is not None)


def parse_address(value: object) -> Address:
    """``HOST:PORT`` or ``[IPV6]:PORT`` as an address; anything else raises :class:`Rule`."""
    if isinstance(value, Address):
        return value
    match = (
        re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", value)
        if isinstance(value, str)
        else None
    )
    if match is None:
        raise Rule('must be "HOST:PORT"; write for example "127.0.0.1:8080", "0.0.0.0:8080" or "[::1]:8080"')
    bracketed, plain, port = match.groups()
    host = (bracketed or plain).lower()
    if bracketed is not None and not (":" in host and is_ip_literal(host)):
        raise Rule('brackets are for IPv6 addresses only; write for example "[::1]:8080"')
    if not _is_host(host):
        raise Rule('the host must be an IP address or a name; for all interfaces write "0.0.0.0" or "[::]"')
    if int(port) > 65535:
        raise Rule("the port must be at most 65535; choose a lower one (0 takes any free port)")
    return Address(host, int(port))


_UNITS = {"B": 1, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}


def parse_size(value: object) -> int:
    """A number of bytes, or text such as ``"64 MiB"``, as bytes; anything else raises :class:`Rule`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"\s*([0-9]{1,15})\s*([a-zA-Z]*)\s*", value) if isinstance(value, str) else None
    unit = _UNITS.get((match[2] or "B").upper()) if match else None
    if match is None or unit is None:
        raise Rule('must be bytes, or a whole number of KiB, MiB or GiB; write for example 65536 or "64 KiB"')
    return int(match[1]) * unit


def show_size(size: int) -> str:
    """The inverse of :func:`parse_size`, in the largest unit that leaves a whole number."""
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)


def _split(value: str) -> SplitResult:
    """The URL's parts, after the checks that every URL of the configuration must pass."""
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise Rule("must be a URL in ASCII without spaces; write for example https://proxy.example.com")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, 0
    if port == 0:
        raise Rule("must be a URL with a valid host and port; write https://HOST or https://HOST:PORT")
    if parts.scheme not in {"http", "https"} or not host or not _is_host(host):
        raise Rule("must be an http or https URL with a host; write for example https://proxy.example.com")
    if "@" in parts.netloc:
        raise Rule("must hold no user name or password; remove everything up to the @")
    return parts


def parse_web_url(value: str) -> str:
    """Any http or https URL, as it is; else raises :class:`Rule`."""
    _split(value)
    return value


def parse_endpoint(value: str) -> str:
    """A URL that secrets are sent to: https unless loopback, without query and fragment."""
    parts = _split(value)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise Rule("must be https, since secrets pass through it; http is for loopback addresses only")
    if "?" in value or "#" in value:
        raise Rule("must have no query and no fragment; remove everything from the ? or # on")
    return value


def parse_base(value: str) -> str:
    """A URL of scheme, host and port only, https unless loopback; else raises :class:`Rule`."""
    parts = _split(parse_endpoint(value))
    if parts.path:
        raise Rule("must end after host and port; remove the path or the slash at the end")
    return value


def parse_http_proxy(value: str) -> str:
    """``http://HOST:PORT`` of an HTTP proxy on the way out; else raises :class:`Rule`."""
    if value.partition("://")[2].rpartition("@")[1]:
        raise Rule("must hold no user name or password; give them as pleo.http_proxy_credentials")
    parts = _split(value)
    if parts.scheme != "http" or parts.port is None or parts.path or "?" in value or "#" in value:
        raise Rule("must be http://HOST:PORT and no more; write for example http://proxy.internal:3128")
    return value


def origin_of(url: str) -> Origin:
    """Scheme, host and port of a URL that passed :func:`parse_endpoint`."""
    parts = urlsplit(url)
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    return Origin(scheme, parts.hostname or "", parts.port or (443 if scheme == "https" else 80))


def _parse_host_name(value: str) -> str:
    if is_ip_literal(value.strip("[]")) or value.lower() == "localhost":
        raise Rule("has no effect, since IP addresses and localhost are always accepted; remove it")
    if not _is_host(value):
        raise Rule("must be a host name without port, scheme or wildcard; write for example proxy.internal")
    return value.lower()


def _parse_tenant_name(value: str) -> str:
    if not TENANT_NAME.fullmatch(value):
        raise Rule("must be a tenant's name: 1 to 63 of a-z, 0-9 and '-'; correct it, or remove it")
    return value


def _parse_scope(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+:[A-Za-z0-9._-]+", value):
        raise Rule('must be RESOURCE:PERMISSION, one to an entry; write for example "companies:read"')
    return value


def _parse_network(value: object) -> Network:
    try:
        network = ipaddress.ip_network(value) if isinstance(value, str) else None
    except ValueError:
        network = None
    if network is None or "%" in str(value):
        raise Rule(
            "must be a network in CIDR notation without bits beyond its length, or one address; write for "
            'example "10.20.0.0/16" or "fd12::/48"'
        )
    return network


def _parse_private_network(value: object) -> Network:
    network = _parse_network(value)
    if not widens(network):
        raise Rule("has no effect, since public addresses are always allowed; remove it")
    return network


def _parse_proxy_network(value: object) -> Network:
    network = _parse_network(value)
    if network.prefixlen == 0:
        raise Rule("must not be everybody, since whoever is in it is believed; name the proxies in front")
    return network


def _parse_text(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise Rule("must be text on one line, and not empty; fill it in, or remove the key if it is optional")
    return value


def parse_path(value: object) -> Path:
    """A path as it is; anything else raises :class:`Rule`."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Rule('must be a path; write for example "/var/lib/pleo-proxy"')
    if value.startswith("~"):
        raise Rule("must be a plain path, since ~ is not expanded; write the directory in full")
    return Path(value)


def refuse_bool(value: object) -> object:
    """Any value but ``true`` and ``false``, which Python takes for numbers; else raises :class:`Rule`."""
    if isinstance(value, bool):
        raise Rule("must be a number; replace true or false with one")
    return value


def _parse_field_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", value):
        raise Rule("must be the name of a header field; write for example X-Auth-Request-Email")
    return value


def _parse_user_pattern(value: str) -> str:
    if not re.fullmatch(r"(?:\*|[^@*,\s]+)@[^@*,\s]+", value):
        raise Rule('must be an address, or "*@" and a domain; write for example "ann@example.com"')
    return value.casefold()


def as_list(value: object) -> object:
    """One string as a list of one, since a list of one is what people mean by it."""
    return [value] if isinstance(value, str) else value


def _refuse_repeats(values: tuple[_T, ...]) -> tuple[_T, ...]:
    if len(set(values)) != len(values):
        raise Rule("an entry is repeated, which has no effect; remove the repetition")
    return values


Text = Annotated[str, AfterValidator(_parse_text), Kind("text")]
FilePath = Annotated[Path, PlainValidator(parse_path), Kind("path")]
WebUrl = Annotated[str, AfterValidator(parse_web_url), Kind("URL")]
Endpoint = Annotated[str, AfterValidator(parse_endpoint), Kind("URL")]
BaseUrl = Annotated[str, AfterValidator(parse_base), Kind("URL without path")]
HttpProxyUrl = Annotated[str, AfterValidator(parse_http_proxy), Kind("http://HOST:PORT")]
OneAddress = Annotated[Address, PlainValidator(parse_address), Kind("HOST:PORT")]
HostNames = Annotated[
    tuple[Annotated[str, AfterValidator(_parse_host_name)], ...],
    BeforeValidator(as_list),
    AfterValidator(_refuse_repeats),
    Kind("list of host names", many=True),
]
FieldName = Annotated[str, AfterValidator(_parse_field_name), Kind("name of a header field")]
ProxyNetworks = Annotated[
    tuple[Annotated[Network, PlainValidator(_parse_proxy_network)], ...],
    BeforeValidator(as_list),
    AfterValidator(_refuse_repeats),
    Kind("list of networks", many=True),
]
TenantName = Annotated[str, AfterValidator(_parse_tenant_name), Kind("name of a tenant")]
UserPatterns = Annotated[
    tuple[Annotated[str, AfterValidator(_parse_user_pattern)], ...],
    BeforeValidator(as_list),
    AfterValidator(_refuse_repeats),
    Kind("list of addresses", many=True),
]
Scopes = Annotated[
    tuple[Annotated[str, AfterValidator(_parse_scope)], ...],
    BeforeValidator(as_list),
    AfterValidator(_refuse_repeats),
    Field(min_length=1),
    Kind("list of scopes", many=True),
]
Networks = Annotated[
    tuple[Annotated[Network, PlainValidator(_parse_private_network)], ...],
    BeforeValidator(as_list),
    AfterValidator(_refuse_repeats),
    Kind("list of networks", many=True),
]
Size = Annotated[int, BeforeValidator(parse_size), Kind('bytes, or text such as "64 MiB"', size=True)]
Count = Annotated[int, BeforeValidator(refuse_bool), Field(ge=1), Kind("whole number")]
Seconds = Annotated[float, BeforeValidator(refuse_bool), Field(gt=0, le=86400), Kind("seconds")]
Days = Annotated[float, BeforeValidator(refuse_bool), Field(gt=0, le=3650), Kind("days")]
Fraction = Annotated[float, BeforeValidator(refuse_bool), Field(ge=0, lt=1), Kind("fraction")]
