"""A key ring whose keys a key service has wrapped: to plain lines, and back.

A plain line of the ring reads ``KEYID:BASE64``, a wrapped one ``KEYID:SERVICE-URL:BASE64``. Which service
opens a line is told by the line, so a ring may hold keys of several. Reads and writes no file;
:mod:`proxy.vault` gets plain lines only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from contextlib import suppress

from proxy.errors import KeyRingError
from proxy.keyservice import KeyService, context_of, open_service
from proxy.model import Secret

_WRAPPED = re.compile(r"\s*([^:#\s]+):([a-z][a-z0-9-]*://\S+):([\w-]+={0,2})\s*", re.ASCII)

Open = Callable[[str], KeyService]


def services_of(ring: Secret) -> dict[str, str | None]:
    """By key id, the service that wrapped the key; ``None`` for a plain one."""
    found: dict[str, str | None] = {}
    for number, line in _lines(ring):
        wrapped = _parse(line, number)
        found[wrapped[0] if wrapped else _plain_id(line)] = wrapped[1] if wrapped else None
    return found


def unwrapped(ring: Secret, *, only: str | None = None, opened: Open = open_service) -> Secret:
    """``ring`` with plain lines only; comments stay where they are.

    :param only: the service that is to wrap all keys, if one is: then a plain line is refused.
    :raises KeyServiceError: a service cannot be reached, or refuses.
    :raises KeyRingError: a line is malformed.
    """
    services: dict[str, KeyService] = {}

    def plain(line: str, number: int) -> str:
        wrapped = _parse(line, number)
        if wrapped is None:
            if only is not None:
                raise KeyRingError(
                    f"key ring, line {number}: the key is not wrapped, although vault.key_service is {only}; "
                    "run `pleo-proxy keys rewrap`"
                )
            return line
        key_id, url, data = wrapped
        if url not in services:
            services[url] = opened(url)
        return f"{key_id}:{services[url].unwrap(data, context_of(key_id)).reveal()}"

    return _each_line(ring, plain)


def wrapped(ring: Secret, service: str, *, opened: Open = open_service) -> Secret:
    """``ring``, whose lines must be plain, with every key wrapped by the service at the URL ``service``.

    :raises KeyServiceError: it cannot be reached, or refuses.
    """
    keeper = opened(service)

    def wrap(line: str, _number: int) -> str:
        key_id, _, key = line.strip().partition(":")
        done = keeper.wrap(Secret(key), context_of(key_id))
        return f"{key_id}:{done.service}:{base64.urlsafe_b64encode(done.data).decode()}"

    return _each_line(ring, wrap)


def _each_line(ring: Secret, change: Callable[[str, int], str]) -> Secret:
    keys = dict(_lines(ring))
    lines = enumerate(ring.reveal().splitlines(), 1)
    end = "\n" if ring.reveal().endswith("\n") else ""
    return Secret("\n".join(change(keys[n], n) if n in keys else line for n, line in lines) + end)


def _lines(ring: Secret) -> list[tuple[int, str]]:
    """The lines that hold keys, with their numbers."""
    lines = enumerate(ring.reveal().splitlines(), 1)
    return [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]


def _parse(line: str, number: int) -> tuple[str, str, bytes] | None:
    if "://" not in line:
        return None
    match = _WRAPPED.fullmatch(line)
    if match is not None:
        with suppress(binascii.Error):
            return match[1], match[2], base64.b64decode(match[3].encode(), altchars=b"-_", validate=True)
    raise KeyRingError(
        f"key ring, line {number}: neither KEYID:BASE64 nor KEYID:SERVICE-URL:BASE64; restore it"
    )


def _plain_id(line: str) -> str:
    return line.strip().partition(":")[0]
