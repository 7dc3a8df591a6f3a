"""Requests that try to be two tenants' at once.

The oracle: Pleo sees a request only with the token of the one tenant that every unambiguous route of it
names, and sees nothing of a request that names two, none, or one that could be read in two ways.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

import pytest

from proxy.model import Secret
from proxy.sandbox import COMPANIES
from proxy.tenants import hash_legacy_key
from tests.harness import Proxy

ACME, GLOBEX, NOBODY = frozenset({"acme"}), frozenset({"globex"}), frozenset[str]()
BOTH = ACME | GLOBEX
COMBINATIONS = 1500
KEYS = {"acme": "plp_key_of_acme", "globex": "plp_key_of_globex"}


@dataclass(frozen=True)
class Part:
    """One part of a request, and whom it names by the rules that callers are told."""

    text: bytes
    names: frozenset[str] = NOBODY
    never: bool = False
    """It is malformed, or could be read in two ways, or names somebody unknown: no such request goes on."""


def never(text: bytes) -> Part:
    return Part(text, never=True)


PATHS = [
    Part(b"/acme/v2/employees", ACME),
    Part(b"/globex/v2/employees?x=/acme/../acme", GLOBEX),
    Part(b"/v2/employees"),
    Part(b"/%61cme/v2/employees", ACME),
    Part(b"/ACME/v2/employees"),
    Part(b"/acme;globex/v2/employees"),
    Part(b"/acme%20/v2/employees"),
    Part(b"/acme./v2/employees"),
    Part(b"//globex/v2/employees"),
    Part(b"/acme//globex/v2/employees", ACME),
    Part(b"/acme/globex/v2/employees", ACME),
    Part(b"/globex/%61cme/v2/employees", GLOBEX),
    never(b"/acme/../globex/v2/employees"),
    never(b"/acme/%2e%2e/globex/v2/employees"),
    never(b"/acme/.%2E/globex/v2/employees"),
    never(b"/acme/%252e%252e/globex/v2/employees"),
    never(b"/acme/%25%32%65%25%32%65/globex/v2/employees"),
    never(b"/acme\\..\\globex/v2/employees"),
    never(b"/acme/..\\globex/v2/employees"),
    never(b"/acme/%5c..%5cglobex/v2/employees"),
    never(b"/acme/..;/globex/v2/employees"),
    never(b"/acme/..;x=y/globex/v2/employees"),
    never(b"/acme/..%2fglobex/v2/employees"),
    never(b"/acme%2f..%2fglobex/v2/employees"),
    never(b"/acme/%c0%ae%c0%ae/globex/v2/employees"),
    never(b"/acme/%e0%80%ae%e0%80%ae/globex/v2/employees"),
    never(b"/acme/..%c0%afglobex/v2/employees"),
    never(b"/acme/%uff0e%uff0e/globex/v2/employees"),
    never(b"/acme/..%00/globex/v2/employees"),
    never(b"/acme/..%0d%0a/globex/v2/employees"),
    never(b"/./globex/v2/employees"),
    never(b"/acme/..#/globex/v2/employees"),
]
HOST = Part(b"Host: 127.0.0.1\r\n")
HOSTS = [
    HOST,
    Part(b"Host: acme.internal\r\n", ACME),
    Part(b"Host: globex.internal:8080\r\n", GLOBEX),
    Part(b"hOST: ACME.Internal.\r\n", ACME),
    Part(b"Host: 127.0.0.1\r\nX-Forwarded-Host: globex.internal\r\nX-Host: globex.internal\r\n"),
    Part(b"Host: 127.0.0.1\r\nForwarded: host=globex.internal\r\nHo_st: globex.internal\r\n"),
    never(b"Host: acme.internal\r\nHost: globex.internal\r\n"),
    never(b"Host: acme.internal\r\nHost: acme.internal\r\n"),
    never(b"Host: acme.internal\r\nHost : globex.internal\r\n"),
    never(b"Host: acme.internal, globex.internal\r\n"),
    never(b"Host: acme.internal globex.internal\r\n"),
    never(b"Host: acme.internal:80@globex.internal\r\n"),
    never(b"Host: globex.internal\x00.acme.internal\r\n"),
    never(b"Host: globex.internal/acme.internal\r\n"),
    never(b"Host:\r\n"),
    never(b""),
]
AUTHORITIES = [
    Part(b""),
    Part(b"http://127.0.0.1"),
    Part(b"http://acme.internal", ACME),
    Part(b"HTTPS://GLOBEX.internal:443", GLOBEX),
    never(b"http://acme.internal@globex.internal"),
    never(b"http://acme.internal\\@globex.internal"),
    never(b"http://acme.internal%40globex.internal"),
    never(b"http://"),
    never(b"ftp://globex.internal"),
    never(b"globex.internal"),
]
"""In front of the path: a target in absolute form, whose host replaces ``Host`` (RFC 9112 section 3.2.2)."""
TENANTS = [
    Part(b""),
    Part(b"X-Pleo-Tenant: acme\r\n", ACME),
    Part(b"x-PLEO-tenant:\tglobex \t\r\n", GLOBEX),
    Part(b"X_Pleo_Tenant: globex\r\nX-Pleo_Tenant: acme\r\n"),
    Part(b"X-Pleo-Tenants: globex\r\nX-Pleo-Tenan: globex\r\nPleo-Tenant: globex\r\n"),
    Part(b"Connection: X-Pleo-Tenant\r\nX-Pleo-Tenant: globex\r\n", GLOBEX),
    never(b"X-Pleo-Tenant: acme\r\nX-Pleo-Tenant: globex\r\n"),
    never(b"X-Pleo-Tenant: acme\r\nx-pleo-tenant: acme\r\n"),
    never(b"X-Pleo-Tenant: acme, globex\r\n"),
    never(b"X-Pleo-Tenant: acme;globex\r\n"),
    never(b"X-Pleo-Tenant : globex\r\n"),
    never(b"X-Pleo-Tenant\t: globex\r\n"),
    never(b"X-Pleo-Tenant: acme\r\n globex\r\n"),
    never(b"X-Pleo-Tenant: globex\x00\r\n"),
    never(b"X-Pleo-Tenant: acme\x0bglobex\r\n"),
    never(b"X-Pleo-Tenant: acme\nX-Pleo-Tenant: globex\r\n"),
    never(b"X-Pleo-Tenant: acme\rX-Pleo-Tenant: globex\r\n"),
    never(b"X-Pleo-Tenant\x00: globex\r\n"),
    never(b"X-Pleo-Tenant: GLOBEX\r\n"),
    never(b'X-Pleo-Tenant: "globex"\r\n'),
    never(b"X-Pleo-Tenant: %67lobex\r\n"),
    never(b"X-Pleo-Tenant: globe\xd1\x85\r\n"),
    never(b"X-Pleo-Tenant:\r\n"),
]


def basic(user: str, *, scheme: str = "Basic", password: str = "") -> bytes:
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    return f"Authorization: {scheme} {credentials}\r\n".encode()


CREDENTIALS = [
    Part(b""),
    Part(basic(KEYS["acme"]), ACME),
    Part(basic(KEYS["globex"], scheme="bAsIc", password="x"), GLOBEX),
    Part(basic(KEYS["acme"]) + basic(KEYS["globex"]), BOTH),
    Part(basic(f"{KEYS['globex']}\0") + basic(KEYS["globex"].upper())),
    Part(b"Proxy-" + basic(KEYS["globex"])),
]

PLAIN = (PATHS[2], HOST, AUTHORITIES[0], TENANTS[0], CREDENTIALS[0])
"""Names nobody."""


@dataclass(frozen=True)
class Asked:
    """A request made of parts."""

    parts: tuple[Part, ...]

    @property
    def names(self) -> frozenset[str]:
        """Whom it names; the host of a target in absolute form takes the place of that in ``Host``."""
        path, host, authority, *others = self.parts
        hosts = authority if authority.text else host
        return frozenset().union(*(part.names for part in (path, hosts, *others)))

    @property
    def owner(self) -> str | None:
        """The tenant whose request it is, if it is one's."""
        if any(part.never for part in self.parts) or len(self.names) != 1:
            return None
        return next(iter(self.names))

    def sent(self, number: int) -> bytes:
        path, host, authority, *others = (part.text for part in self.parts)
        return b"GET %b%b HTTP/1.1\r\n%bX-Request-Id: n-%d\r\nConnection: close\r\n%b\r\n" % (
            authority,
            path,
            host,
            number,
            b"".join(others),
        )


def asked() -> Iterator[Asked]:
    """Each part beside what names nobody and beside what names a tenant; then combinations at random."""
    kinds: Sequence[Sequence[Part]] = (PATHS, HOSTS, AUTHORITIES, TENANTS, CREDENTIALS)
    named = [(*PLAIN[:3], TENANTS[1], PLAIN[4]), (*PLAIN[:3], TENANTS[2], PLAIN[4]), (PATHS[0], *PLAIN[1:])]
    for base, (at, kind) in product([PLAIN, *named], enumerate(kinds)):
        yield from (Asked((*base[:at], part, *base[at + 1 :])) for part in kind)
    random = Random(5)
    for _ in range(COMBINATIONS):
        # Mostly parts that could be served, or nearly all would be refused for one bad part or another.
        yield Asked(
            tuple(
                random.choice([part for part in kind if not part.never or random.random() < 0.1])
                for kind in kinds
            )
        )


async def status_of(proxy: Proxy, data: bytes) -> int:
    answer = await proxy.raw(data)
    assert answer.startswith(b"HTTP/1.1 "), (data, answer)
    return int(answer[9:12])


async def test_pleo_sees_a_request_with_its_own_tenants_token_or_not_at_all(proxy: Proxy) -> None:
    """However a request spells and combines what tells its tenant, only its one owner's token is sent."""
    proxy.pleo.switches.rate_limit_per_minute = None
    for name in ("acme", "globex"):
        key = hash_legacy_key(Secret(KEYS[name]))
        await proxy.add_tenant(name, company=COMPANIES[name], hosts=(f"{name}.internal",), legacy_keys=(key,))
    proxy.pleo.api_requests.clear()
    every = list(asked())
    for start in range(0, len(every), 40):
        batch = enumerate(every[start : start + 40], start)
        await asyncio.gather(*(status_of(proxy, one.sent(number)) for number, one in batch))
    seen = {request.header("X-Request-Id")[0]: request for request in proxy.pleo.api_requests}
    assert len(seen) == len(proxy.pleo.api_requests)
    wrong = []
    for number, one in enumerate(every):
        request = seen.get(f"n-{number}")
        company = None if one.owner is None else COMPANIES[one.owner]
        if (request.company_id if request else None) != company:
            wrong.append((one.sent(number), one.owner, request))
    assert not wrong, wrong[:5]
    owners = Counter(one.owner for one in every)
    assert min(owners["acme"], owners["globex"]) > 100, "the attacks are all refused for some other reason"
    for request in seen.values():
        assert len(request.header("Authorization")) == 1
        assert not any(key in repr(request.headers) for key in KEYS.values())


@pytest.mark.parametrize(
    "line", [b"X-Pleo-Tenant: globex", b"Host: globex.internal", b"X-Forwarded-Host: globex.internal"]
)
async def test_no_trailer_names_a_tenant(proxy: Proxy, line: bytes) -> None:
    """What comes behind a body changes nothing about whose request it was, and does not go on."""
    await proxy.add_tenant("globex", company=COMPANIES["globex"], hosts=("globex.internal",))
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"2\r\n{}\r\n0\r\n%b\r\n\r\n" % line
    assert await status_of(proxy, head % b"/acme/v1/sandbox/echo" + body) == 200
    assert proxy.pleo.api_requests[-1].company_id == COMPANIES["acme"]
    before = len(proxy.pleo.api_requests)
    assert await status_of(proxy, head % b"/v1/sandbox/echo" + body) == 404
    assert len(proxy.pleo.api_requests) == before
