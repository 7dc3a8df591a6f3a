"""``docs/questions.md``: an operator's questions, answered by commands beside a proxy to which things happen.

``python -m tests.handbook`` runs the commands of the page and puts what they print below them. The test runs
them again, and compares what does not depend on the moment.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from proxy import config as configuration
from proxy.sandbox import ApiFault, Sandbox
from proxy.sandbox.world import COMPANIES
from proxy.store import open_store
from tests.command import PROGRAM, ROOT, Serving, clean_environ, serving, write_config
from tests.harness import ADMIN_TOKEN, running_proxy, until

PAGE = ROOT / "docs" / "questions.md"
ANSWER = re.compile(r"```sh\n(?P<command>pleo-proxy .*)\n```\n\n```text\n(?P<output>(?s:.*?))```\n")
Shell = Callable[[str], Awaitable[str]]
_DAY_S = 86400.0
_ERP, _PAYROLL = "10.20.0.7", "10.20.0.9"
"""Where two tools of acme call from, as the load balancer says."""


@asynccontextmanager
async def situation(folder: Path) -> AsyncIterator[Shell]:
    """A proxy that has been through something; gives what runs a command of the page beside it."""
    async with Sandbox() as pleo:
        config = write_config(
            folder,
            pleo,
            listen={"trusted_proxies": ["127.0.0.1/32"]},
            admin={"token": ADMIN_TOKEN},
        )
        await _weeks_ago(pleo, folder / "state")
        await _shell(
            folder,
            "pleo-proxy keys generate --file new --id k2 && cat state/keys >> new && mv new state/keys",
        )
        (folder / "proxy.log").symlink_to(folder / "serve" / "stdout")
        async with serving(config) as serve:
            await _befall(serve, pleo, folder)
            yield lambda line: _shell(folder, line)
            await serve.stop()


async def _weeks_ago(pleo: Sandbox, state: Path) -> None:
    """Initech was connected three weeks ago, and nobody has called for it since."""
    scopes = {"scopes": ["companies:read", "users:read"]}
    async with running_proxy(pleo, state, clock=lambda: time.time() - 21 * _DAY_S, pleo=scopes) as proxy:
        await proxy.add_tenant("initech")
        assert (await proxy.connect("initech")).status == 200


async def _befall(serve: Serving, pleo: Sandbox, folder: Path) -> None:
    """What an operator will ask about."""
    await _recorded(serve, "proxy.started")
    for tenant in ("acme", "globex"):
        await _changed(serve, "tenants", "add", tenant, "--preset", "read-only")
        await serve.connect(tenant, tenant)
        await _recorded(serve, "grant.connected", tenant)
    await serve.command("keys", "rotate")
    await serve.command("backup", str(folder / "backup"))

    for caller, times in ((_ERP, 5), (_PAYROLL, 2)):
        for _ in range(times):
            assert await _call(serve, "/acme/v2/employees", caller) == 200
    assert await _call(serve, "/acme/v1/expenses", _PAYROLL) == 403
    pleo.revoke_access(COMPANIES["acme"])
    assert await _call(serve, "/acme/v2/employees", _ERP) == 200
    pleo.revoke(COMPANIES["globex"])
    assert await _call(serve, "/globex/v2/employees", "10.30.0.4", "erp-4711") == 503
    await _recorded(serve, "grant.needs_reauth", "globex")

    for fault, status in (
        (ApiFault("status", "/v1/vendors", status=500, times=1), 500),
        (ApiFault("drop", "/v1/vendors", times=None), 502),
    ):
        pleo.api_faults.append(fault)
        assert await _call(serve, "/acme/v1/vendors", _ERP) == status
    pleo.api_faults.clear()
    pleo.api_faults.append(ApiFault("status", "/v0/tags", status=429, retry_after="7"))
    assert await _call(serve, "/acme/v0/tags", _ERP) == 429
    await _changed(serve, "policy", "set", "acme", "--rate", "5")
    assert [await _call(serve, "/acme/v2/employees", _ERP) for _ in range(3)] == [200, 429, 429]


async def _call(serve: Serving, path: str, caller: str, request_id: str = "") -> int:
    headers = {"X-Forwarded-For": caller} | ({"X-Request-Id": request_id} if request_id else {})
    async with serve.session.get(serve.base_url + path, headers=headers) as answer:
        await answer.read()
        return answer.status


async def _changed(serve: Serving, *arguments: str) -> None:
    """Change tenants by a command, and see that it is in force."""
    loads = len(serve.process.lines("tenants.loaded"))
    await serve.command(*arguments)
    await until(lambda: len(serve.process.lines("tenants.loaded")) > loads)


async def _recorded(serve: Serving, event: str, tenant: str | None = None) -> None:
    """The audit trail has it, so that what a command records next stands behind it."""
    store = open_store(configuration.load(serve.cli.config, {}).store.url)
    try:
        async with asyncio.timeout(20):
            # Another process writes it.
            while not await store.trail.newest(1, tenant, event, since=time.time() - 3600):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        await store.close()


async def _shell(folder: Path, line: str) -> str:
    """What a command prints, run as the page shows it."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", line),
        cwd=folder,
        env={
            **clean_environ(),
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            "PLEO_PROXY_CONFIG": str(folder / "config.toml"),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert not err, (line, err)
    return out.decode()


async def answered(page: str) -> str:
    """The page with what its commands print now."""
    with tempfile.TemporaryDirectory(prefix="pleo-proxy-handbook-") as name:
        folder = Path(name)
        async with situation(folder) as shell:
            parts, end = [], 0
            for found in ANSWER.finditer(page):
                output = await shell(found["command"])
                parts += [page[end : found.start("output")], _as_shown(output, folder)]
                end = found.end("output")
    return "".join([*parts, page[end:]])


def _as_shown(output: str, folder: Path) -> str:
    """What a command printed, without what says more of this machine than of the answer."""
    text = output.replace(f"os:{getpass.getuser()}", "os:ann").replace(str(folder), "/var/lib/pleo-proxy")
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def timeless(text: str) -> str:
    """A page less what is another at each run: instants, durations, ids, ports, widths of columns."""
    for pattern, word in (
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)", "INSTANT"),
        (r"\b\d+(?:\.\d+)? ms\b", "SPAN"),
        (r"\bproxy:[\w.-]+/\d+", "INSTANCE"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
        (r"\b[0-9a-f]{32,}\b", "ID"),
        (r"\b[0-9A-Z]{4}-[0-9A-Z]{4}\b", "REFERENCE"),
        (r"[ \t]+", " "),
        # Of a record, which a moment's delay of another one changes.
        (r"(?m)^\d+ (?=INSTANT)", "NUMBER "),
    ):
        text = re.sub(pattern, word, text)
    return text


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(answered(PAGE.read_text())))
