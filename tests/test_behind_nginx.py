"""The how-to for nginx: its configuration fits its settings, and works where there is an nginx."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from proxy.sandbox import ApiFault, Sandbox, approve
from tests.harness import Proxy, free_port, running_proxy
from tests.test_documents import blocks
from tests.test_house_rules import ROOT

PAGE = ROOT / "docs" / "how-to" / "nginx.md"
(CONFIG,) = (block.text for block in blocks(PAGE) if block.language == "nginx")
(SETTINGS,) = (block.text for block in blocks(PAGE) if block.language == "toml")
CALLERS, OPERATORS = "pleo-proxy.internal", "pleo-proxy.example.com"
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def test_the_two_files_of_the_page_fit_together() -> None:
    """Addresses and names of nginx's configuration are those of the proxy's settings."""
    for address in re.findall(r"server (127\S+);", CONFIG):
        assert f'"{address}"' in SETTINGS
    assert re.findall(r"server_name (\S+);", CONFIG) == [CALLERS, OPERATORS]
    assert f'hosts = ["{CALLERS}"]' in SETTINGS
    assert f'public_url = "https://{OPERATORS}"' in SETTINGS


@asynccontextmanager
async def behind_nginx(pleo: Sandbox, folder: Path) -> AsyncIterator[tuple[Proxy, int]]:
    """A proxy with the page's settings behind nginx with the page's configuration; gives nginx's port too."""
    port, proxy_port, admin_port = free_port(), free_port(), free_port()
    here = (
        CONFIG.replace("127.0.0.1:8080", f"127.0.0.1:{proxy_port}")
        .replace("127.0.0.1:8081", f"127.0.0.1:{admin_port}")
        .replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        .replace("/etc/nginx/tls", str(folder))
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{here} }}"
    )
    listen = {
        "proxy": f"127.0.0.1:{proxy_port}",
        "admin": f"127.0.0.1:{admin_port}",
        "public_url": f"https://{OPERATORS}:{port}",
        "hosts": [CALLERS],
        "trusted_proxies": ["127.0.0.1/32"],
    }
    async with running_proxy(pleo, folder / "state", listen=listen) as proxy:
        await proxy.add_tenant("acme")
        assert NGINX is not None
        process = await asyncio.create_subprocess_exec(
            *(NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", str(folder / "error.log"))
        )
        try:
            async with asyncio.timeout(20):
                while not await listens(port):
                    assert process.returncode is None, (folder / "error.log").read_text()
                    await asyncio.sleep(0.02)
            yield proxy, port
        finally:
            process.terminate()
            await process.wait()


async def listens(port: int) -> bool:
    """Whether anybody takes connections there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


class Here(AbstractResolver):
    """Every name is on this machine."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:  # noqa: ARG002
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def caller() -> aiohttp.ClientSession:
    """Somebody else than nginx, by address."""
    insecure = ssl.create_default_context()
    insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE
    connector = aiohttp.TCPConnector(resolver=Here(), ssl=insecure, local_addr=("127.0.0.2", 0))
    return aiohttp.ClientSession(connector=connector)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where nginx and the proxy have their files, the certificates among them."""
    (tmp_path / "state").mkdir(mode=0o700)
    certify = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    for name in (CALLERS, OPERATORS):
        files = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*certify.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


async def test_callers_and_authorisers_are_served_through_nginx(pleo: Sandbox, folder: Path) -> None:
    """Over TLS, told by their own addresses, with bodies and targets as sent; operators' pages stay inside.

    Where there is no nginx, the page has no other test than the one above.
    """
    if NGINX is None:
        return
    async with behind_nginx(pleo, folder) as (proxy, port), caller() as session:
        operators, base = f"https://{OPERATORS}:{port}", f"https://{CALLERS}:{port}"
        async with session.get(f"{base}/acme/v2/employees") as answer:
            assert (answer.status, (await answer.json(content_type=None))["type"]) == (
                503,
                f"{operators}/problems/needs-reauth",
            )
        visit = await approve(await proxy.link("acme"), company="acme", session=session)
        assert visit.status == 200, visit.text

        spoofed = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.8"}
        async with session.get(f"{base}/acme/v2/employees?limit=1", headers=spoofed) as answer:
            assert answer.status == 200
        assert proxy.lines("request.finished")[-1]["caller"] == "127.0.0.2"

        target = "/v1/vendors/a%7Eb;c?x=%2F&y"
        async with session.get(URL(f"{base}/acme{target}", encoded=True)):
            assert pleo.api_requests[-1].target == target
        await operators_see(session, operators)
        pleo.api_faults.append(ApiFault("redirect", location=f"{pleo.api_url}/v2/elsewhere"))
        async with session.get(f"{base}/acme/v2/employees", allow_redirects=False) as answer:
            assert answer.headers["Location"] == f"{base}/acme/v2/elsewhere"


async def operators_see(session: aiohttp.ClientSession, operators: str) -> None:
    """What authorisers need is open, what operators need is not, for one who is not inside."""
    for path, status in (("/healthz", 403), ("/", 403), ("/api/v1/tenants", 403), ("/style.css", 200)):
        async with session.get(operators + path) as answer:
            assert answer.status == status, path
