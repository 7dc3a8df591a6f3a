"""A proxy as operators know it: tenants in every state and an hour of traffic, on a clock of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.model import DAY_S, Grant, Policy, Preset
from proxy.sandbox import ApiFault, Sandbox
from tests.harness import Proxy, running_proxy
from tests.operator_browser import logged_in

START = datetime(2026, 3, 12, 8, 36, tzinfo=UTC).timestamp()
MINUTES = 62
WHO = {"organisation": "Nordlys Accounting ApS", "contact": "it@nordlys.example"}
CALLERS = {"acme": 4, "brightside": 2, "globex": 1, "initech": 1}
"""Tenants with callers, and how many requests a minute there are of each on average."""
PATHS = ("/v2/employees", "/v1/companies", "/v3/export-jobs", "/v1/chart-of-accounts?limit=20")


@asynccontextmanager
async def scene(folder: Path, **sections: Mapping[str, Any]) -> AsyncIterator[Proxy]:
    """A proxy before a simulated Pleo, as it is on a Thursday morning."""
    async with (
        Sandbox(clock=lambda: START) as pleo,
        running_proxy(pleo, folder, clock=pleo.now, consent=WHO, **sections) as proxy,
    ):
        await _tenants(proxy)
        for minute in range(MINUTES):
            if minute in _EVENTS:
                await _EVENTS[minute](proxy)
            await _calls(proxy, minute)
            pleo.advance(60)
            await proxy.app.trend.sample()
        yield proxy


async def _tenants(proxy: Proxy) -> None:
    trial = Policy(preset=Preset.READ_ONLY, requests_per_minute=5000)
    await proxy.add_tenant("acme", hosts=("acme.pleo-proxy.internal",), trial=trial)
    await proxy.add_tenant("brightside", networks=("10.20.0.0/16",), policy=Policy(preset=Preset.READ_ONLY))
    for name in ("globex", "hooli", "initech", "umbrella", "wayne"):
        await proxy.add_tenant(name)
    await proxy.add_tenant("stark-export", enabled=False)
    for name, company in (
        ("acme", "acme"),
        ("brightside", "globex"),
        ("globex", "globex"),
        ("hooli", "initech"),
        ("umbrella", "globex"),
    ):
        visit = await proxy.connect(name, company)
        assert visit.status == 200, visit.text


async def _calls(proxy: Proxy, minute: int) -> None:
    for place, (tenant, mean) in enumerate(CALLERS.items()):
        for number in range((minute * (7 + place) + place) % (2 * mean + 1)):
            await proxy.get(f"/{tenant}{PATHS[(minute + number) % len(PATHS)]}")


async def _hooli_is_lost(proxy: Proxy) -> None:
    proxy.pleo.revoke("initech")
    await proxy.get("/hooli/v2/employees")


async def _umbrella_is_revoked(proxy: Proxy) -> None:
    operator = await logged_in(proxy)
    answer = await operator.submit("/tenants/umbrella/revoke")
    assert answer.status == 303, answer.body


async def _initech_is_connected(proxy: Proxy) -> None:
    visit = await proxy.connect("initech", "initech")
    assert visit.status == 200, visit.text


async def _initech_ends_soon(proxy: Proxy) -> None:
    def ends_soon(grant: Grant | None) -> Grant | None:
        assert grant is not None
        return replace(grant, refresh_expires_at=START + 9.6 * DAY_S)

    await proxy.app.store.edit_grant("initech", ends_soon)
    await proxy.app.watch.take_up()


async def _some_are_refused(proxy: Proxy) -> None:
    for path in ("/hooli/v2/employees", "/umbrella/v2/employees", "/stark-export/v1/export-jobs"):
        await proxy.get(path)
    for _ in range(3):
        await proxy.call("DELETE", "/brightside/v1/vendors/1")
    await proxy.call("POST", "/acme/v0/tags")


async def _pleo_stumbles(proxy: Proxy) -> None:
    proxy.pleo.api_faults.append(ApiFault("drop", path="/v3/export-jobs", times=4))
    for _ in range(4):
        await proxy.get("/acme/v3/export-jobs")


_EVENTS: Mapping[int, Callable[[Proxy], Awaitable[None]]] = {
    4: _umbrella_is_revoked,
    9: _hooli_is_lost,
    11: _initech_is_connected,
    30: _some_are_refused,
    41: _pleo_stumbles,
    58: _some_are_refused,
    MINUTES - 1: _initech_ends_soon,
}
