"""A proxy as operators know it: tenants in every state, and some traffic, on a clock that stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.model import DAY_S, Grant, GrantState, Outcome, Policy, Preset
from proxy.sandbox import ApiFault, Sandbox
from tests.harness import Proxy, running_proxy

START = datetime(2026, 3, 12, 7, 40, tzinfo=UTC).timestamp()
COMPANY = "6b1f0c52-1d0e-4c5e-9a53-2f1c8f6e7d0{}"
WHO = {"organisation": "Nordlys Accounting ApS", "contact": "it@nordlys.example"}
CONNECTED = {"acme": "acme", "brightside": "globex", "globex": "globex", "initech": "initech"}
"""Tenants that are connected for good, and the company of the sandbox that stands behind each."""


def lost(tenant: str, number: int, state: GrantState, outcome: Outcome | None) -> Grant:
    """A grant whose tokens are gone, as it is left in the store."""
    return Grant(
        tenant,
        state,
        generation=number * 211,
        company=COMPANY.format(number),
        scopes=("companies:read", "users:read"),
        last_refreshed_at=START - number * 3.4 * DAY_S,
        last_outcome=outcome,
    )


@asynccontextmanager
async def scene(folder: Path, **sections: Mapping[str, Any]) -> AsyncIterator[Proxy]:
    """A proxy before a simulated Pleo, as it is on a Thursday morning."""
    async with (
        Sandbox(clock=lambda: START) as pleo,
        running_proxy(pleo, folder, clock=pleo.now, consent=WHO, **sections) as proxy,
    ):
        await _tenants(proxy)
        await _traffic(proxy)
        yield proxy


async def _tenants(proxy: Proxy) -> None:
    await proxy.add_tenant(
        "acme",
        hosts=("acme.pleo-proxy.internal",),
        trial=Policy(preset=Preset.EXPORTS, requests_per_minute=120),
    )
    await proxy.add_tenant("brightside", networks=("10.20.0.0/16",), policy=Policy(preset=Preset.ACCOUNTING))
    for name in ("globex", "initech", "hooli", "umbrella"):
        await proxy.add_tenant(name)
    await proxy.add_tenant("stark-export", enabled=False)
    await proxy.add_tenant("wayne")
    for name, company in CONNECTED.items():
        visit = await proxy.connect(name, company)
        assert visit.status == 200, visit.text
    await proxy.app.store.edit_grant(
        "hooli", lambda _: lost("hooli", 1, GrantState.NEEDS_REAUTH, Outcome.REFUSED)
    )
    await proxy.app.store.edit_grant("umbrella", lambda _: lost("umbrella", 2, GrantState.REVOKED, None))
    await proxy.app.store.edit_grant("initech", _ends_soon)
    await proxy.app.watch.take_up()


def _ends_soon(grant: Grant | None) -> Grant | None:
    assert grant is not None
    return replace(grant, refresh_expires_at=START + 9.6 * DAY_S)


async def _traffic(proxy: Proxy) -> None:
    paths = ("/v2/employees", "/v1/companies", "/v2/vendors", "/v2/tax-codes?limit=20")
    for minute in range(12):
        proxy.pleo.advance(60)
        for tenant, most in (("acme", 9), ("brightside", 4), ("globex", 2), ("initech", 1)):
            for number in range((minute * 7 + most) % (most + 1)):
                await proxy.get(f"/{tenant}{paths[number % len(paths)]}")
    await proxy.get("/hooli/v2/employees")
    await proxy.get("/umbrella/v2/employees")
    await proxy.get("/stark-export/v1/export-jobs")
    await proxy.call("DELETE", "/brightside/v2/vendors/1")
    proxy.pleo.api_faults.append(ApiFault("status", path="/v2/vendors", status=500))
    await proxy.get("/acme/v2/vendors")
