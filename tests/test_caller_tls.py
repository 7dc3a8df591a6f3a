"""TLS on a callers' listener, with the documented commands, callers' certificates, and files that change."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest

from proxy.caller_tls import CallerTls, TlsFiles, context_of
from proxy.errors import OperatorError
from proxy.facts import CertificateFailed, CertificateReloaded, Fact, HandshakeFailed
from proxy.sandbox import COMPANIES, ApiFault, Sandbox
from tests.command import Cli, serving, write_config
from tests.harness import Answer, Proxy, free_port, running_proxy, until
from tests.test_upstream import on_both_loops

ROOT = Path(__file__).parent.parent
NAME = "pleo-proxy.internal"


def documented(certificate_of: str = "") -> list[str]:
    """The commands of the handbook; those for a caller alone, for another name than ``erp``."""
    page = (ROOT / "docs" / "operating.md").read_text()
    part = page.partition("<!-- run by a test: certificates begin -->")[2]
    part = part.partition("<!-- run by a test: certificates end -->")[0]
    own, callers = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    return [callers.replace("erp", certificate_of)] if certificate_of else [own, callers]


def run(folder: Path, *scripts: str) -> None:
    """Run shell commands in ``folder``."""
    for script in scripts:
        subprocess.run(["sh", "-e", "-c", script], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documented commands make, a second caller's certificate, and one of a strange CA."""
    folder = tmp_path_factory.mktemp("certificates")
    run(folder, *documented(), *documented("crm"))
    strange = folder / "strange"
    strange.mkdir()
    run(strange, *documented())
    return folder


@pytest.fixture
def files(issued: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(issued, tmp_path / "tls"))


def entry(files: Path, **more: str) -> dict[str, str]:
    """A listener with the documented certificate."""
    tls = {"tls_certificate": str(files / "proxy.pem"), "tls_key": str(files / "proxy.key")}
    return {"address": "127.0.0.1:0", **tls, **more}


def trusting(files: Path, caller: str = "") -> ssl.SSLContext:
    """The TLS of a caller that trusts the documented CA, and has the certificate of ``caller``."""
    context = ssl.create_default_context(cafile=str(files / "ca.pem"))
    if caller:
        context.load_cert_chain(files / f"{caller}.pem", files / f"{caller}.key")
    return context


@asynccontextmanager
async def secured(
    folder: Path, *entries: dict[str, str] | str, **limits: float
) -> AsyncIterator[tuple[Proxy, Sandbox]]:
    """A proxy with these listeners; acme has the name of the certificate ``erp``, globex asks for none."""
    async with (
        Sandbox() as pleo,
        running_proxy(pleo, folder, listen={"proxy": list(entries)}, limits=limits) as proxy,
    ):
        await proxy.add_tenant("acme", certificates=("san:dns:erp.acme.internal",))
        await proxy.add_tenant("globex")
        for name in ("acme", "globex"):
            await proxy.connect(name)
        yield proxy, pleo


async def call(
    proxy: Proxy,
    path: str,
    context: ssl.SSLContext | None,
    *,
    at: int = 0,
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
) -> Answer:
    """One request on a connection of its own, over TLS if there is a context."""
    scheme = "http" if context is None else "https"
    url = f"{scheme}://{proxy.app.proxy_addresses[at]}{path}"
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
        session.request(
            "GET" if data is None else "POST",
            url,
            ssl=context or True,
            server_hostname=NAME if context else None,
            headers=headers,
            data=None if data is None else io.BytesIO(data),
            allow_redirects=False,
        ) as answer,
    ):
        return Answer(answer.status, list(answer.headers.items()), await answer.read())


def last_reason(proxy: Proxy) -> str:
    """Why the last handshake failed."""
    return str(proxy.lines(HandshakeFailed.event)[-1]["reason"])


@on_both_loops
async def test_requests_are_served_over_tls(files: Path, tmp_path: Path) -> None:
    """Large bodies pass both ways, and references in answers lead back to https."""
    async with secured(tmp_path, entry(files)) as (proxy, pleo):
        context = trusting(files)
        assert (await call(proxy, "/globex/v2/employees", context)).status == 200
        body = os.urandom(1_000_000)
        echoed = await call(proxy, "/globex/v1/sandbox/echo", context, data=body)
        assert echoed.json()["bodySha256"] == hashlib.sha256(body).hexdigest()
        large = await call(proxy, "/globex/v1/sandbox/bytes?size=1000000", context)
        assert len(large.body) == 1_000_000
        pleo.api_faults.append(ApiFault("redirect", location=f"{pleo.api_url}/v2/x"))
        moved = await call(proxy, "/globex/v2/employees", context)
        assert moved.header("Location") == f"https://{proxy.app.proxy_addresses[0]}/globex/v2/x"


@on_both_loops
async def test_tls_is_new_and_speaks_http_1_1(files: Path, tmp_path: Path) -> None:
    """Nothing older than TLS 1.2 is spoken, and of protocols offered HTTP/1.1 is chosen."""
    async with secured(tmp_path, entry(files)) as (proxy, _):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(files)
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            reader, writer = await asyncio.open_connection(*proxy.address, ssl=context, server_hostname=NAME)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
            writer.write(b"GET /globex/v2/employees HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
            writer.close()
    server = context_of("x", TlsFiles(files / "proxy.pem", files / "proxy.key"))
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    assert server.options & ssl.OP_NO_RENEGOTIATION
    assert server.options & ssl.OP_NO_COMPRESSION


@on_both_loops
async def test_a_certificate_leads_to_its_tenant_and_to_no_other(files: Path, tmp_path: Path) -> None:
    """With the certificate of acme a request is acme's, whatever its path says; another one's is not."""
    async with secured(tmp_path, entry(files, client_ca=str(files / "ca.pem"))) as (proxy, pleo):
        erp, crm = trusting(files, "erp"), trusting(files, "crm")
        for path in ("/v2/employees", "/acme/v2/employees"):
            answer = await call(proxy, path, erp)
            assert answer.status == 200
            assert {row["companyId"] for row in answer.json()["data"]} == {COMPANIES["acme"]}
        before = len(pleo.api_requests)
        other = await call(proxy, "/globex/v2/employees", erp)
        assert (other.status, other.json()["type"].rpartition("/")[2]) == (400, "tenant-ambiguous")
        wrong = await call(proxy, "/acme/v2/employees", crm)
        assert (wrong.status, wrong.json()["type"].rpartition("/")[2]) == (403, "policy-refused")
        assert "this connection has another certificate" in wrong.json()["detail"]
        assert (await call(proxy, "/v2/employees", crm)).status == 404
        assert len(pleo.api_requests) == before
        assert (await call(proxy, "/globex/v2/employees", crm)).status == 200


@on_both_loops
async def test_without_a_good_certificate_there_is_no_connection(files: Path, tmp_path: Path) -> None:
    """None, one of a strange CA, and one for servers are refused in the handshake, and the log says why."""
    run(files, *[each.replace("clientAuth", "serverAuth") for each in documented("www")])
    async with secured(tmp_path, entry(files, client_ca=str(files / "ca.pem"))) as (proxy, _):
        strange = trusting(files)
        strange.load_cert_chain(files / "strange" / "erp.pem", files / "strange" / "erp.key")
        for context, reason in (
            (trusting(files), "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
            (strange, "CERTIFICATE_VERIFY_FAILED"),
            (trusting(files, "www"), "CERTIFICATE_VERIFY_FAILED"),
        ):
            with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
                await call(proxy, "/globex/v2/employees", context)
            assert last_reason(proxy) == reason
        assert not proxy.lines("request.finished")
        assert not proxy.lines("task.crashed")
        assert proxy.lines(HandshakeFailed.event)[-1]["caller"] == "127.0.0.1"


@on_both_loops
async def test_optional_certificates_let_in_who_has_none(files: Path, tmp_path: Path) -> None:
    """Where certificates are optional, only tenants that ask for one ask for one, on every listener."""
    optional = entry(files, client_ca=str(files / "ca.pem"), client_certificates="optional")
    async with secured(tmp_path, optional, "127.0.0.1:0", entry(files)) as (proxy, _):
        assert (await call(proxy, "/globex/v2/employees", trusting(files))).status == 200
        assert (await call(proxy, "/v2/employees", trusting(files, "erp"))).status == 200
        for at, context in ((0, trusting(files)), (1, None), (2, trusting(files, "erp"))):
            answer = await call(proxy, "/acme/v2/employees", context, at=at)
            assert answer.status == 403
            assert "this connection has no certificate" in answer.json()["detail"]


@on_both_loops
async def test_no_field_stands_for_a_certificate(files: Path, tmp_path: Path) -> None:
    """What reverse proxies write of certificates is a caller's word here, and no proof."""
    async with secured(tmp_path, "127.0.0.1:0") as (proxy, _):
        pem = (files / "erp.pem").read_text().replace("\n", "%0A")
        for name in ("X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "Client-Cert", "X-SSL-Client-S-DN"):
            answer = await call(proxy, "/acme/v2/employees", None, headers={name: pem})
            assert answer.status == 403


@on_both_loops
async def test_plain_http_on_the_port_of_tls_ends(files: Path, tmp_path: Path) -> None:
    """A caller that speaks plain HTTP there, or nothing that is TLS, is cut, and the next one is served."""
    async with secured(tmp_path, entry(files)) as (proxy, _):
        for sent, reason in (
            (b"GET /globex/v2/employees HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP_REQUEST"),
            (b"\x00" * 64, "WRONG_VERSION_NUMBER"),
        ):
            assert b"HTTP/1.1" not in await proxy.raw(sent)
            await until(lambda: proxy.lines(HandshakeFailed.event))
            assert last_reason(proxy) == reason
        assert (await call(proxy, "/globex/v2/employees", trusting(files))).status == 200
        assert not proxy.lines("task.crashed")


@on_both_loops
async def test_tls_on_the_port_of_plain_http_ends(files: Path, tmp_path: Path) -> None:
    """A caller that begins with TLS there is told at once, and the next one is served."""
    async with secured(tmp_path, "127.0.0.1:0") as (proxy, _):
        with pytest.raises(aiohttp.ClientError):
            await call(proxy, "/globex/v2/employees", trusting(files))
        assert (await call(proxy, "/globex/v2/employees", None)).status == 200


@on_both_loops
async def test_a_slow_handshake_is_cut(files: Path, tmp_path: Path) -> None:
    """Who connects and says nothing is cut after limits.head_s, and was in nobody's way."""
    async with secured(tmp_path, entry(files), head_s=0.3) as (proxy, _):
        started = monotonic()
        reading = asyncio.create_task(proxy.raw(b""))
        assert (await call(proxy, "/globex/v2/employees", trusting(files))).status == 200
        assert await reading == b""
        assert monotonic() - started < 5
        await until(lambda: proxy.lines(HandshakeFailed.event))
        assert last_reason(proxy) == "timeout"


@on_both_loops
async def test_handshakes_under_way_are_counted(files: Path, tmp_path: Path) -> None:
    """No more than limits.connections are under way at once; who comes then is cut off."""
    async with secured(tmp_path, entry(files), connections=3, head_s=30) as (proxy, _):
        waiting = [await asyncio.open_connection(*proxy.address) for _ in range(3)]
        reader, writer = await asyncio.open_connection(*proxy.address)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        for _, each in (*waiting, (reader, writer)):
            each.close()
        await until(lambda: len(proxy.lines(HandshakeFailed.event)) == 3)
        assert (await call(proxy, "/globex/v2/employees", trusting(files))).status == 200


@on_both_loops
async def test_a_stop_waits_for_no_handshake(files: Path, tmp_path: Path) -> None:
    """Who has connected and not said a word does not hold up the end."""
    async with secured(tmp_path, entry(files), head_s=60) as (proxy, _):
        _, writer = await asyncio.open_connection(*proxy.address)
        await call(proxy, "/globex/v2/employees", trusting(files))
        started = monotonic()
    assert monotonic() - started < 3
    writer.close()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@on_both_loops
async def test_an_answer_that_breaks_off_does_not_look_whole(
    files: Path, tmp_path: Path, version: bytes
) -> None:
    """Where an upstream breaks off, the caller's connection ends without the goodbye of TLS."""
    async with secured(tmp_path, entry(files)) as (proxy, pleo):
        pleo.api_faults.append(ApiFault("drop", stage="mid_body", chunked=True))
        reader, writer = await asyncio.open_connection(
            *proxy.address, ssl=trusting(files), server_hostname=NAME
        )
        writer.write(b"GET /globex/v2/employees HTTP/%b\r\nHost: localhost\r\n\r\n" % version)
        head = await reader.readuntil(b"\r\n\r\n")
        assert (b"chunked" in head) is (version == b"1.1")
        got, error = b"", None
        try:
            while piece := await reader.read(65536):
                got += piece
        except (ConnectionError, ssl.SSLError) as caught:
            error = caught
        assert error is not None if version == b"1.0" else not got.endswith(b"0\r\n\r\n")
        writer.close()


@on_both_loops
async def test_a_refusal_reaches_a_caller_that_goes_on_sending(files: Path, tmp_path: Path) -> None:
    """Over TLS too, what still comes of a refused body is read for a while, and the answer is not lost."""
    async with secured(tmp_path, entry(files), body_bytes=1000, replay_memory=1000) as (proxy, _):
        reader, writer = await asyncio.open_connection(
            *proxy.address, ssl=trusting(files), server_hostname=NAME
        )
        head = b"POST /globex/v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n"
        writer.write(head + bytes(100_000))
        await until(lambda: proxy.lines("request.finished"))
        writer.write(bytes(100_000))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
        await until(lambda: not proxy.app.server.connections)
        writer.close()


@on_both_loops
async def test_an_idle_connection_ends_though_nobody_says_goodbye(files: Path, tmp_path: Path) -> None:
    """A caller that has gone silent holds no connection of TLS for longer than the others."""
    async with secured(tmp_path, entry(files), idle_s=0.5) as (proxy, _):
        raw = socket.create_connection(proxy.address)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting(files).wrap_bio(incoming, outgoing, server_hostname=NAME)
        await asyncio.to_thread(shake_hands, raw, client, incoming, outgoing)
        await until(lambda: proxy.app.server.connections)
        # Neither read nor closed from here on.
        await until(lambda: not proxy.app.server.connections)
        raw.close()


def shake_hands(
    raw: socket.socket, client: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> None:
    """A handshake by hand, after which nothing is read."""
    while True:
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            raw.sendall(outgoing.read())
            incoming.write(raw.recv(65536))
        else:
            raw.sendall(outgoing.read())
            return


def fingerprint(address: tuple[str, int], files: Path) -> str:
    """Of the certificate that a listener shows."""
    with (
        socket.create_connection(address, timeout=5) as plain,
        trusting(files).wrap_socket(plain, server_hostname=NAME) as secure,
    ):
        return hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()


@on_both_loops
async def test_new_files_are_taken_up_and_broken_ones_are_not(files: Path, tmp_path: Path) -> None:
    """New connections get a renewed certificate without a restart; what cannot be used changes nothing."""
    async with secured(tmp_path, entry(files)) as (proxy, _):
        shown = asyncio.to_thread(fingerprint, proxy.address, files)
        first = await shown
        reader, writer = await asyncio.open_connection(
            *proxy.address, ssl=trusting(files), server_hostname=NAME
        )
        run(files, "mv proxy.key old.key; mv proxy.pem old.pem", documented()[0].split("\n", 2)[2])
        await proxy.next_fact(CertificateReloaded)
        second = await asyncio.to_thread(fingerprint, proxy.address, files)
        assert second != first
        (files / "proxy.pem").write_text("nonsense")
        await proxy.next_fact(CertificateFailed)
        assert await asyncio.to_thread(fingerprint, proxy.address, files) == second
        # The connection of before goes on.
        writer.write(b"GET /globex/v2/employees HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        (line,) = proxy.lines(CertificateFailed.event)
        assert "are no certificate in PEM and its key" in line["problem"]


def test_a_failure_is_told_once_until_the_files_change(files: Path) -> None:
    """Looking again at files that are as they were says nothing, and costs no context."""
    told: list[Fact] = []
    tls = CallerTls("x", TlsFiles(files / "proxy.pem", files / "proxy.key"), told.append)
    first = tls.context
    tls.take_up_changes()
    assert (told, tls.context) == ([], first)
    (files / "proxy.key").unlink()
    for _ in range(3):
        tls.take_up_changes()
    assert [type(fact) for fact in told] == [CertificateFailed]
    assert tls.context is first


def test_new_cas_are_taken_up(files: Path) -> None:
    """The CAs of callers' certificates are looked at like the certificate."""
    told: list[Fact] = []
    tls = CallerTls("x", TlsFiles(files / "proxy.pem", files / "proxy.key", files / "ca.pem"), told.append)
    (files / "ca.pem").write_bytes((files / "strange" / "ca.pem").read_bytes() + b"\n")
    tls.take_up_changes()
    assert [type(fact) for fact in told] == [CertificateReloaded]
    (certificate,) = tls.context.get_ca_certs(binary_form=True)
    assert certificate == ssl.PEM_cert_to_DER_cert((files / "strange" / "ca.pem").read_text())


BROKEN = {
    "no-key": ("rm proxy.key", "proxy.key: No such file or directory"),
    "key-for-others": ("chmod 644 proxy.key", "has mode 0644, so others can reach the key; run `chmod 640"),
    "key-that-the-group-writes": ("chmod 660 proxy.key", "has mode 0660"),
    "key-of-another": ("cp erp.key proxy.key", "are no certificate in PEM and its key"),
    "key-with-a-passphrase": (
        "mv proxy.key plain; openssl pkey -in plain -aes128 -passout pass:x -out proxy.key; chmod 600 *.key",
        "without a passphrase",
    ),
    "no-certificate": ("rm proxy.pem", "are no certificate in PEM and its key"),
    "no-pem": ("echo nonsense > proxy.pem", "are no certificate in PEM and its key"),
    "no-ca": ("rm ca.pem", "holds no certificates of CAs"),
    "ca-no-pem": ("echo nonsense > ca.pem", "holds no certificates of CAs"),
}


@pytest.mark.parametrize(("script", "told"), BROKEN.values(), ids=BROKEN)
def test_files_that_make_no_tls(files: Path, script: str, told: str) -> None:
    """Each is one line that names the listener, the file, and what to do; nothing is asked on a terminal."""
    run(files, script)
    with pytest.raises(OperatorError, match=r"\Alisten\.proxy 127\.0\.0\.1:1: ") as caught:
        context_of("127.0.0.1:1", TlsFiles(files / "proxy.pem", files / "proxy.key", files / "ca.pem"))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_its_group_may_read_is_taken(files: Path) -> None:
    """Debian's ssl-cert group and systemd's credentials look like this."""
    run(files, "chmod 640 proxy.key")
    context_of("x", TlsFiles(files / "proxy.pem", files / "proxy.key"))


@pytest.mark.parametrize("program", ["serve", "check"])
def test_broken_files_are_one_line_of_the_program(tmp_path: Path, files: Path, program: str) -> None:
    """``serve`` and ``check`` end with that line."""
    (files / "proxy.pem").write_text("nonsense")
    cli = Cli(write_config(tmp_path, listen={"proxy": [entry(files)]}))
    ran = cli(program)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "are no certificate in PEM and its key" in ran.err


async def test_curl_with_the_documented_certificates(pleo: Sandbox, tmp_path: Path, files: Path) -> None:
    """The handbook's curl works with a real ``serve``, and without its certificate it does not."""
    port = free_port()
    listener: dict[str, Any] = entry(files, client_ca=str(files / "ca.pem"))
    listener["address"] = f"127.0.0.1:{port}"
    config = write_config(tmp_path, pleo, listen={"proxy": [listener], "hosts": [NAME]})
    async with serving(config) as serve:
        await serve.command("tenants", "add", "acme", "--certificate", "san:dns:erp.acme.internal")
        await serve.connect("acme")
        url = f"https://{NAME}:{port}/v2/employees"
        known = (
            "--resolve",
            f"{NAME}:{port}:127.0.0.1",
            "--cacert",
            "ca.pem",
            "-sS",
            "-o",
            "answer",
            "-w",
            "%{http_code}",
        )
        own = ("--cert", "erp.pem", "--key", "erp.key")
        await serve.process.event("tenants.loaded")
        await until(lambda: len(serve.process.lines("grant.connected")) == 1)
        status = await asyncio.to_thread(curl, files, *known, *own, url)
        assert status == "200", (files / "answer").read_text()
        assert await asyncio.to_thread(curl, files, *known, url) != "200"
        assert (
            serve.process.lines("tls.handshake_failed")[-1]["reason"] == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
        )


def curl(folder: Path, *arguments: str) -> str:
    """What curl prints."""
    return subprocess.run(
        ["curl", *arguments], cwd=folder, check=False, capture_output=True, text=True
    ).stdout
