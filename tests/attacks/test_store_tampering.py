"""Somebody who can write the database, but has no key, changes rows behind the proxy's back.

The oracle: a request of a tenant reaches Pleo with that tenant's own token or not at all, and a tenant that
is not served any more is told of in the log by its name; what does not open is kept as it is. A row that is
put back whole, as it was before, cannot be told from the newest one: then Pleo refuses what it has replaced.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ConsentFault, StoreUnavailable
from proxy.sandbox import COMPANIES, Sandbox
from tests.harness import Answer, Proxy, running_proxy, until
from tests.postgres import Server
from tests.test_consent import Browser, is_page_of

TENANTS = ("acme", "globex")
Row = dict[str, Any]


@dataclass(frozen=True)
class Raw:
    """A store's database, past the store."""

    settings: dict[str, str]
    """What to give as ``[store]``."""
    execute: Callable[[str], list[list[str]]]

    def grant(self, tenant: str) -> Row:
        """A tenant's row of ``grants`` as texts."""
        columns = ("generation", "state", "company", "access", "refresh", "issued_at", "access_expires_at")
        fields = ", ".join(f"coalesce(CAST({column} AS TEXT), '')" for column in columns)
        (found,) = self.execute(f"SELECT {fields} FROM grants WHERE tenant = '{tenant}'")
        return dict(zip(columns, found, strict=True))

    def put(self, tenant: str, **values: Any) -> None:
        """Overwrite columns of a tenant's row of ``grants``."""
        changes = ", ".join(f"{name} = {literal(value)}" for name, value in values.items())
        self.execute(f"UPDATE grants SET {changes} WHERE tenant = '{tenant}'")


def literal(value: Any) -> str:
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


@pytest.fixture(params=["sqlite", "postgresql"])
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> Raw:
    """The database of a store that the tests' proxy makes when it first starts."""
    if request.param == "sqlite":
        path = tmp_path / "proxy.db"

        def in_sqlite(statement: str) -> list[list[str]]:
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                return [list(map(str, row)) for row in db.execute(statement)]

        return Raw({"url": f"sqlite://{path}"}, in_sqlite)
    url: str = request.getfixturevalue("database")
    server: Server = request.getfixturevalue("postgres")

    def in_postgres(statement: str) -> list[list[str]]:
        lines = server.psql(url.rpartition("/")[2], statement).stdout.splitlines()
        return [line.split("|") for line in lines]

    return Raw({"url": url}, in_postgres)


async def connected(proxy: Proxy) -> None:
    for name in TENANTS:
        await proxy.add_tenant(name)
        assert (await proxy.connect(name)).status == 200


async def asked(proxy: Proxy) -> dict[str, Answer]:
    """One request for each tenant, and that no token went out with another tenant's request."""
    before = len(proxy.pleo.api_requests)
    answers = {
        name: await proxy.get(f"/{name}/v2/employees?limit=1", headers={"X-Request-Id": name})
        for name in TENANTS
    }
    for request in list(proxy.pleo.api_requests)[before:]:
        (tenant,) = request.header("X-Request-Id") or [""]
        assert request.company_id in (COMPANIES[tenant], None), f"{tenant}'s request with another's token"
    for name, answer in answers.items():
        if answer.status == 200:
            assert {row["companyId"] for row in answer.json()["data"]} == {COMPANIES[name]}
    return answers


def outcome(answer: Answer) -> str:
    return "served" if answer.status == 200 else str(answer.json()["type"]).rpartition("/")[2]


def cut(text: str, most: int) -> str:
    return text[:most]


def flipped(text: str) -> str:
    """One letter of the sealed value's last part is another."""
    at = len(text) - 20
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


REFUSED = "sealed-value-refused"
CHANGES: dict[str, tuple[Callable[[Row, Row], Row], str]] = {
    "anothers-access": (lambda _, other: {"access": other["access"]}, REFUSED),
    "anothers-refresh": (lambda _, other: {"refresh": other["refresh"]}, REFUSED),
    "anothers-pair": (lambda _, other: {"access": other["access"], "refresh": other["refresh"]}, REFUSED),
    "anothers-whole-row": (lambda _, other: other, REFUSED),
    "access-for-refresh": (lambda own, _: {"refresh": own["access"]}, REFUSED),
    "exchanged-columns": (lambda own, _: {"access": own["refresh"], "refresh": own["access"]}, REFUSED),
    "access-cut": (lambda own, _: {"access": cut(own["access"], -1)}, REFUSED),
    "refresh-cut": (lambda own, _: {"refresh": cut(own["refresh"], 30)}, REFUSED),
    "refresh-cut-to-its-head": (lambda own, _: {"refresh": cut(own["refresh"], 6)}, REFUSED),
    "access-emptied": (lambda *_: {"access": ""}, REFUSED),
    "refresh-emptied": (lambda *_: {"refresh": ""}, REFUSED),
    "access-erased": (lambda *_: {"access": None}, REFUSED),
    "refresh-erased": (lambda *_: {"refresh": None}, REFUSED),
    "byte-flipped": (lambda own, _: {"access": flipped(own["access"])}, REFUSED),
    "plain-text": (lambda *_: {"access": "pleo_at_of_the_attacker"}, REFUSED),
    "another-version": (lambda own, _: {"access": "v2" + own["access"][2:]}, REFUSED),
    "another-key": (lambda own, _: {"access": "v1.k9." + own["access"].rpartition(".")[2]}, REFUSED),
    "generation-up": (lambda own, _: {"generation": int(own["generation"]) + 1}, REFUSED),
    "generation-down": (lambda own, _: {"generation": int(own["generation"]) - 1}, REFUSED),
    "generation-negative": (lambda *_: {"generation": -1}, REFUSED),
    "company-of-another": (lambda _, other: {"company": other["company"]}, "served"),
    "state-refreshing": (lambda *_: {"state": "refreshing", "attempted_at": 1, "lease_owner": "x"}, "served"),
    "expired-by-decree": (lambda *_: {"access_expires_at": 1}, "served"),
    "expires-never": (lambda *_: {"access_expires_at": 9e12}, "served"),
    "refresh-expired-by-decree": (lambda *_: {"refresh_expires_at": 1}, "served"),
    "unverified-by-decree": (lambda *_: {"state": "unverified"}, "served"),
    "times-erased": (lambda *_: {"issued_at": None, "access_expires_at": None}, REFUSED),
    "end-erased": (lambda *_: {"refresh_expires_at": None}, REFUSED),
}
"""What is done to acme's row, given it and globex's, and what acme's callers get afterwards."""


IN_POSTGRESQL = {
    "anothers-pair",
    "anothers-whole-row",
    "refresh-cut",
    "byte-flipped",
    "refresh-erased",
    "generation-up",
    "times-erased",
    "expired-by-decree",
}
"""What opens and what does not is decided past the store, so that a part of the changes will do there."""


@pytest.mark.parametrize(
    ("raw", "change", "expected"),
    [
        pytest.param(kind, *case, id=f"{name}-in-{kind}")
        for name, case in CHANGES.items()
        for kind in ("sqlite", "postgresql")
        if kind == "sqlite" or name in IN_POSTGRESQL
    ],
    indirect=["raw"],
)
async def test_no_change_of_a_row_yields_another_tenants_token(
    pleo: Sandbox, tmp_path: Path, raw: Raw, change: Callable[[Row, Row], Row], expected: str
) -> None:
    """A changed grant is refused loudly and kept, or harmless; the other tenant notices nothing."""
    async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
        await connected(proxy)
    own, other = (raw.grant(name) for name in TENANTS)
    raw.put("acme", **change(own, other))
    changed = raw.grant("acme")
    async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
        answers = await asked(proxy)
        assert outcome(answers["globex"]) == "served"
        assert outcome(answers["acme"]) == expected
        if expected == REFUSED:
            (line,) = proxy.lines("vault.value_refused")
            assert (line["tenant"], line["level"]) == ("acme", "error")
            assert not proxy.lines("grant.needs_reauth")
            assert raw.grant("acme") == changed, "what does not open is kept, for somebody to look at"
    if expected == REFUSED:
        raw.put("acme", **{name: value or None for name, value in own.items()}, refresh_expires_at=9e12)
        async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
            assert outcome((await asked(proxy))["acme"]) == "served", "put back, it works again"


async def test_two_exchanged_tenants_are_both_refused(pleo: Sandbox, tmp_path: Path, raw: Raw) -> None:
    """With the pairs of two tenants exchanged neither is served, whether at a start or while it runs."""
    async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
        await connected(proxy)
        own, other = (raw.grant(name) for name in TENANTS)
        raw.put("acme", **other)
        raw.put("globex", **own)
        await proxy.app.watch.take_up()
        assert len(proxy.lines("vault.value_refused")) == 2
        assert {outcome(answer) for answer in (await asked(proxy)).values()} == {REFUSED}
    async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
        assert {outcome(answer) for answer in (await asked(proxy)).values()} == {REFUSED}


async def test_a_state_that_is_not_known_stops_the_start(pleo: Sandbox, tmp_path: Path, raw: Raw) -> None:
    """What a word means that this version does not know is not guessed; the line names the tenant."""
    async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
        await connected(proxy)
    raw.put("acme", state="trusted")
    with pytest.raises(StoreUnavailable, match="the state of acme's grant is 'trusted'"):
        async with running_proxy(pleo, tmp_path, store=raw.settings):
            pass


@pytest.mark.parametrize("running", [False, True], ids=["at-a-start", "while-it-runs"])
async def test_an_older_row_put_back_ends_in_a_loud_refusal(
    pleo: Sandbox, tmp_path: Path, raw: Raw, *, running: bool
) -> None:
    """A rollback cannot be found here; Pleo has replaced the tokens, refuses them, and the log says so."""
    async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
        await connected(proxy)
        older = raw.grant("acme")
        pleo.revoke_access("acme")
        assert outcome((await asked(proxy))["acme"]) == "served"
        await until(lambda: raw.grant("acme")["generation"] == "2")
        if running:
            raw.put("acme", **older)
            await proxy.app.watch.take_up()
            await rolled_back(proxy)
    if not running:
        raw.put("acme", **older)
        async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
            await rolled_back(proxy)


async def rolled_back(proxy: Proxy) -> None:
    answers = await asked(proxy)
    assert outcome(answers["acme"]) == "needs-reauth"
    assert [line["tenant"] for line in proxy.lines("grant.needs_reauth")] == ["acme"]
    assert proxy.pleo.counters.reuse_attempts == 1
    assert outcome(answers["globex"]) == "served"
    assert (await proxy.connect("acme")).status == 200
    assert outcome((await asked(proxy))["acme"]) == "served"


async def test_a_tenant_whose_company_was_changed_keeps_its_own_token(
    pleo: Sandbox, tmp_path: Path, raw: Raw
) -> None:
    """The company in the tenants' table decides what a consent may bring, not whose token is sent."""
    async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
        await connected(proxy)
        raw.execute(f"UPDATE tenants SET company = '{COMPANIES['globex']}' WHERE name = 'acme'")
        await proxy.app.watch.take_up()
        answer = await proxy.get("/acme/v2/employees?limit=1", headers={"X-Request-Id": "acme"})
        assert outcome(answer) in ("served", "policy-refused")
        if answer.status == 200:
            assert proxy.pleo.api_requests[-1].company_id == COMPANIES["acme"]
        assert (await proxy.connect("acme", company="acme")).status == 409


async def test_a_link_that_was_made_unused_again_opens_no_settled_tenant(
    pleo: Sandbox, tmp_path: Path, raw: Raw
) -> None:
    """A used or expired link whose row was put back lets the tenant's own company in, and no other."""
    async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
        await connected(proxy)
        raw.execute("UPDATE links SET used_at = NULL, expires_at = 9e12")
        raw.execute("UPDATE links SET tenant = 'acme'")
        assert (await proxy.connect("acme", company="globex")).status == 409
        assert {outcome(answer) for answer in (await asked(proxy)).values()} == {"served"}


async def test_a_verifier_of_another_flow_is_refused(pleo: Sandbox, tmp_path: Path, raw: Raw) -> None:
    """A flow whose sealed verifier was exchanged or moved to another tenant connects nothing."""

    async with running_proxy(pleo, tmp_path, store=raw.settings) as proxy:
        await connected(proxy)
        before = {name: raw.grant(name) for name in TENANTS}
        browser = Browser(proxy)
        back = await browser.decide(await browser.open(await proxy.link("acme")), "globex")
        raw.execute("UPDATE flows SET tenant = 'globex'")
        assert is_page_of(await browser.come_back(back), ConsentFault.STATE_UNKNOWN)
        assert {name: raw.grant(name) for name in TENANTS} == before
