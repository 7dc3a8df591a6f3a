"""Real processes: what is seen beside a running one, and how it starts, drains, dies and comes back."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import stat
import time
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.sandbox import COMPANIES, Gate, Sandbox, approve
from tests.command import ROOT, Cli, Process, Serving, clean_environ, run, serving, started, write_config
from tests.harness import ADMIN_TOKEN, free_port, running_proxy, until

STOP_SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)


@pytest.fixture
def config(pleo: Sandbox, tmp_path: Path) -> Path:
    """A configuration for a proxy before ``pleo``."""
    return write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN})


@pytest.fixture
def hasty(pleo: Sandbox, tmp_path: Path) -> Path:
    """The same with a drain of a third of a second."""
    return write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN}, limits={"drain_s": 0.3})


async def add_acme(serve: Serving) -> None:
    """The tenant acme, connected."""
    await serve.command("tenants", "add", "acme")
    await serve.connect("acme")


def check_end(process: Process, *, cut: int = 0) -> None:
    """The last line of the log says that all ended as it should, and nothing was complained of."""
    assert process.err == ""
    for line in process.lines():
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None
    last = process.lines()[-1]
    assert (last["event"], last["requests_cut"]) == ("proxy.stopped", cut)


async def arrival(gate: Gate) -> None:
    """A request has come to the gate."""
    async with asyncio.timeout(20):
        await gate.arrived()


# --- beside a running process


async def is_seen_after(serve: Serving, path: str, status: int) -> float:
    """Seconds until a caller's request for ``path`` is answered with ``status``."""
    began = time.monotonic()
    while await serve.get(path) != status:
        assert time.monotonic() - began < 2, f"{path} does not become {status}"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_changes_are_seen_within_a_second(config: Path) -> None:
    """What commands do beside ``serve`` is in force about a second later, consent at once."""
    async with serving(config) as serve:
        assert await serve.get("/acme/v2/employees") == 404
        steps = [
            (("tenants", "add", "acme"), 503, "none"),
            ((), 200, "connected"),
            (("tenants", "disable", "acme"), 403, "connected"),
            (("tenants", "enable", "acme"), 200, "connected"),
            (("grants", "revoke", "acme"), 503, "revoked"),
        ]
        for arguments, status, state in steps:
            if arguments:
                await serve.command(*arguments)
                assert await is_seen_after(serve, "/acme/v2/employees", status) < 1.5
            else:
                await serve.connect("acme")
                assert await serve.get("/acme/v2/employees") == status
            assert (await serve.listed("grants", "list"))["acme"]["state"] == state
        assert (await serve.listed("tenants", "list"))["acme"]["company"] == COMPANIES["acme"]
        await serve.connect("acme")
        assert await serve.get("/acme/v2/employees") == 200
        assert (await serve.listed("grants", "list"))["acme"]["generation"] == 2
        await serve.command("tenants", "remove", "acme")
        assert await is_seen_after(serve, "/acme/v2/employees", 404) < 1.5
        await serve.stop()
        assert [line["generation"] for line in serve.process.lines("grant.revoked")] == [1]
        check_end(serve.process)


async def test_a_company_is_settled_by_the_first_consent(config: Path) -> None:
    """A link works once, and a second one refuses another company and leaves the first connected."""
    async with serving(config) as serve:
        await serve.command("tenants", "add", "acme")
        link = (await serve.command("connect", "acme")).out.strip()
        visits = [await approve(link, company="acme") for _ in range(2)]
        assert [visit.status for visit in visits] == [200, 410]
        link = (await serve.command("connect", "acme")).out.strip()
        assert (await approve(link, company="globex")).status == 409
        assert await serve.get("/acme/v2/employees") == 200
        assert (await serve.listed("grants", "list"))["acme"]["company"] == COMPANIES["acme"]
        await serve.stop()


# --- start


async def admin_api(serve: Serving, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with serve.session.get(f"{serve.admin_url}/api/v1/tenants", headers=headers) as answer:
        return answer.status


async def test_a_first_start_makes_keys_and_an_admin_token(pleo: Sandbox, tmp_path: Path) -> None:
    """The key file is for its owner only; the token is shown once, on standard error, and works."""
    config = write_config(tmp_path, pleo)
    state = tmp_path / "state"
    async with serving(config, "first") as serve:
        await until(lambda: serve.process.err.endswith("\n"))
        shown = re.fullmatch(r"Admin token, shown this once: (\S{43})\n", serve.process.err)
        assert shown is not None, serve.process.err
        assert [await admin_api(serve, token) for token in (shown[1], "x" + shown[1], "x")] == [200, 401, 401]
        assert {stat.S_IMODE(file.stat().st_mode) for file in state.iterdir()} == {0o600}
        assert (state / "keys").read_text().startswith("k1:")
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        await serve.stop()
        first = serve.process
    async with serving(config, "second") as serve:
        assert await admin_api(serve, shown[1]) == 200
        await serve.stop()
        check_end(serve.process)
    secrets = [shown[1], (state / "keys").read_text().strip().partition(":")[2]]
    output = first.out + serve.process.out + serve.process.err
    assert not any(secret in output for secret in secrets)
    assert not any(shown[1].encode() in file.read_bytes() for file in state.iterdir())


@pytest.mark.parametrize("item", ["listen.proxy", "listen.admin"])
def test_a_port_in_use_is_one_line(item: str, tmp_path: Path) -> None:
    """The line names the setting and its variable; the admin token is not used up unseen."""
    key = item.partition(".")[2]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = Cli(write_config(tmp_path, listen={key: address}))("serve").refusal(1)
    assert line.startswith(f"{item} {address}: the port is in use; stop the program that uses it, or choose")
    assert line.endswith(f"with {item} or PLEO_PROXY__LISTEN__{key.upper()}")
    assert {file.name for file in (tmp_path / "state").iterdir()} == {
        "instance",
        "journal-0.log",
        "keys",
        "proxy.db",
        "proxy.db.serve.lock",
        "serve.pid",
    }


def test_an_address_of_another_machine_is_one_line(tmp_path: Path) -> None:
    """An address that this machine has not is named with the setting."""
    line = Cli(write_config(tmp_path, listen={"proxy": "192.0.2.1:0"}))("serve").refusal(1)
    assert line.startswith(
        "listen.proxy 192.0.2.1:0: this machine has no such address; correct it, or choose"
    )


async def test_a_store_is_served_once(config: Path, tmp_path: Path) -> None:
    """A second ``serve`` on the store of a running one ends with a line that names the first."""
    store = {"url": f"sqlite://{tmp_path}/state/proxy.db", "state_dir": f"{tmp_path}/other/state"}
    (tmp_path / "other").mkdir()
    other = write_config(tmp_path / "other", admin={"token": ADMIN_TOKEN}, store=store)
    async with serving(config) as serve:
        async with started("serve", "--config", str(other), folder=tmp_path / "second") as second:
            assert await second.ended() == 1
        assert second.out == ""
        assert second.err == (
            f"pleo-proxy: store {tmp_path}/state/proxy.db: process {serve.process.pid} serves it already: "
            "stop that one, or give this one another store.url\n"
        )
        assert await serve.get("/acme/v2/employees") == 404
        await serve.stop()
        check_end(serve.process)


MALFORMED = (
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthor ization: Bearer planted-secret\r\n\r\n",
    b"planted-secret\x01\r\n\r\n",
    b"GET /planted-secret\x00 HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nplanted-secret\r\n",
)


async def answer_to_malformed(address: tuple[str, int], request: bytes = MALFORMED[0]) -> int:
    """The status that a malformed request gets."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def test_malformed_requests_are_not_logged_as_they_came(config: Path) -> None:
    """What a library would print of a malformed request, secrets included, appears nowhere."""
    async with serving(config) as serve:
        admin = ("127.0.0.1", int(serve.admin_url.rpartition(":")[2]))
        for request in MALFORMED:
            assert await answer_to_malformed(serve.address, request) in {400, 404}
            assert await answer_to_malformed(admin, request) in {400, 405}
        await serve.stop()
        check_end(serve.process)
        assert "planted-secret" not in serve.process.out


async def test_a_defect_that_asyncio_meets_is_a_fact(pleo: Sandbox, tmp_path: Path) -> None:
    """What the event loop would print of a failed callback or task is a log line without its words."""

    async def fail() -> None:
        raise ValueError("planted-secret")

    loop = asyncio.get_running_loop()
    async with running_proxy(pleo, tmp_path) as proxy:
        loop.call_exception_handler({"message": "planted-secret"})
        task = asyncio.create_task(fail(), name="poor")
        await asyncio.wait({task})
        loop.call_exception_handler(
            {"message": "planted-secret", "task": task, "exception": task.exception()}
        )
        crashes = [(line["task"], line["error"], line["where"]) for line in proxy.lines("task.crashed")]
    assert crashes == [
        ("event loop", "NoneType", "event loop"),
        ("poor", "ValueError", "outside the package"),
    ]


# --- drain


async def is_refused(address: tuple[str, int]) -> bool:
    """Whether nobody accepts connections; looks again for as long as the listener may take to close."""
    ends = time.monotonic() + 2
    while time.monotonic() < ends:
        try:
            _, writer = await asyncio.open_connection(*address)
        except ConnectionRefusedError:
            return True
        writer.close()
        await asyncio.sleep(0.01)
    return False


@STOP_SIGNALS
async def test_a_request_under_way_is_finished(number: signal.Signals, pleo: Sandbox, config: Path) -> None:
    """After a stop signal new connections are refused, readiness is gone, and the caller gets its answer."""
    async with serving(config) as serve:
        await add_acme(serve)
        async with pleo.hold_api("/v2/employees") as gate:
            asking = asyncio.create_task(serve.get("/acme/v2/employees"))
            await arrival(gate)
            serve.process.signal(number)
            assert (await serve.process.event("proxy.draining"))["requests"] == 1
            assert await is_refused(serve.address)
            async with serve.session.get(f"{serve.admin_url}/readyz") as answer:
                assert (answer.status, (await answer.json())["reason"]) == (503, "draining")
            assert not serve.process.has_ended
            gate.release()
            assert await asking == 200
        assert await serve.process.ended() == 0
        check_end(serve.process)


async def ask_until_told_to_stop(address: tuple[str, int], pause_s: float, answers: list[int]) -> bytes:
    """Requests on one connection; returns what came after the answer that was the last."""
    reader, writer = await asyncio.open_connection(*address)
    last = False
    while not last:
        await asyncio.sleep(pause_s)
        writer.write(b"GET /acme/v1/introspect HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, head
        await reader.readexactly(int(length[1]))
        answers.append(int(head.split()[1]))
        last = b"connection: close\r\n" in head
    rest = await reader.read()
    writer.close()
    return rest


async def test_busy_connections_end_with_an_answer(pleo: Sandbox, config: Path) -> None:
    """Callers that pause little or not at all lose no request: the last answer says so, then it ends."""
    pleo.switches.rate_limit_per_minute = None
    async with serving(config) as serve:
        await add_acme(serve)
        answers: list[list[int]] = [[] for _ in range(8)]
        asking = [
            asyncio.create_task(ask_until_told_to_stop(serve.address, pause_s, each))
            for pause_s, each in zip([0.0, 0.0, 0.0, 0.05, 0.05, 0.05, 0.2, 0.2], answers, strict=True)
        ]
        await until(lambda: all(len(each) >= 3 for each in answers))
        serve.process.signal(signal.SIGTERM)
        assert await asyncio.gather(*asking) == [b""] * 8
        assert {status for each in answers for status in each} == {200}
        assert await serve.process.ended() == 0
        check_end(serve.process)
        served = serve.process.lines("request.finished")
        assert len(served) == sum(map(len, answers))


async def test_an_idle_connection_does_not_hold_up_the_stop(config: Path) -> None:
    """A caller that keeps a connection open and silent is waited for no longer than it takes to be sure."""
    async with serving(config) as serve:
        reader, writer = await asyncio.open_connection(*serve.address)
        writer.write(b"GET /acme/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 404 Not Found\r\n"
        began = time.monotonic()
        await serve.stop()
        assert time.monotonic() - began < 3
        await reader.read()
        writer.close()
        check_end(serve.process)


async def test_a_refresh_under_way_is_saved(pleo: Sandbox, config: Path) -> None:
    """A stop waits for a token that Pleo has issued already, and for the caller that waits for it."""
    async with serving(config) as serve:
        await add_acme(serve)
        pleo.revoke_access("acme")
        async with pleo.hold_token_endpoint(committed=True) as gate:
            asking = asyncio.create_task(serve.get("/acme/v2/employees"))
            await arrival(gate)
            assert (await serve.listed("grants", "list"))["acme"]["state"] == "refreshing"
            serve.process.signal(signal.SIGTERM)
            assert (await serve.process.event("proxy.draining"))["refreshes"] == 1
            gate.release()
            assert await asking == 200
        assert await serve.process.ended() == 0
        check_end(serve.process)
    grant = (await asyncio.to_thread(Cli(config).listed, "grants", "list"))["acme"]
    assert (grant["state"], grant["generation"]) == ("connected", 2)


async def test_a_refresh_outlives_the_drain(pleo: Sandbox, hasty: Path) -> None:
    """Callers are cut when their time is up; the refresh is not, and its token serves after the restart."""
    async with serving(hasty, "first") as serve:
        await add_acme(serve)
        pleo.revoke_access("acme")
        async with pleo.hold_token_endpoint(committed=True) as gate:
            asking = asyncio.create_task(serve.get("/acme/v2/employees"))
            await arrival(gate)
            serve.process.signal(signal.SIGTERM)
            await serve.process.event("request.finished")
            with pytest.raises(aiohttp.ClientError):
                await asking
            assert not serve.process.has_ended
            gate.release()
            assert await serve.process.ended() == 0
        check_end(serve.process, cut=1)
    async with serving(hasty, "second") as serve:
        assert await serve.get("/acme/v2/employees") == 200
        assert (await serve.listed("grants", "list"))["acme"]["generation"] == 2
        await serve.stop()


@STOP_SIGNALS
async def test_a_request_that_hangs_is_cut(number: signal.Signals, pleo: Sandbox, hasty: Path) -> None:
    """The stop takes no longer than ``drain_s`` allows; the cut request is counted and visibly broken off."""
    async with serving(hasty) as serve:
        await add_acme(serve)
        async with pleo.hold_api("/v2/employees") as gate:
            asking = asyncio.create_task(serve.get("/acme/v2/employees"))
            await arrival(gate)
            began = time.monotonic()
            serve.process.signal(number)
            assert await serve.process.ended() == 0
            assert 0.3 < time.monotonic() - began < 2
            with pytest.raises(aiohttp.ClientError):
                await asking
        check_end(serve.process, cut=1)


async def test_the_console_format_is_for_people(pleo: Sandbox, tmp_path: Path) -> None:
    """With ``log.format = "console"`` lines are aligned text, without colours where no terminal is."""
    config = write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN}, log={"format": "console"})
    async with started("serve", "--config", str(config), folder=tmp_path / "serve") as process:
        await until(lambda: "proxy.started" in process.out)
        process.signal(signal.SIGINT)
        assert await process.ended() == 0
    lines = process.out.splitlines()
    assert [re.sub(r"^\S+Z (\[info +\] \S+).*", r"\1", line) for line in lines] == [
        f"[info     ] {event}"
        for event in ("proxy.started", "proxy.draining", "audit.anchored", "proxy.stopped")
    ]
    assert "\x1b" not in process.out
    assert process.err == ""


# --- sudden death


async def test_a_grant_survives_a_kill(pleo: Sandbox, config: Path) -> None:
    """After ``kill -9`` in the middle of a request, a new process serves and refreshes the same grant."""
    async with serving(config, "first") as serve:
        await add_acme(serve)
        async with pleo.hold_api("/v2/employees") as gate:
            asking = asyncio.create_task(serve.get("/acme/v2/employees"))
            await arrival(gate)
            serve.process.signal(signal.SIGKILL)
            assert await serve.process.ended() == -signal.SIGKILL
            with pytest.raises(aiohttp.ClientError):
                await asking
    async with serving(config, "second") as serve:
        assert await serve.get("/acme/v2/employees") == 200
        pleo.revoke_access("acme")
        assert await serve.get("/acme/v2/employees") == 200
        assert (await serve.listed("grants", "list"))["acme"]["generation"] == 2
        await serve.stop()
        check_end(serve.process)
        assert [line["retried"] for line in serve.process.lines("request.finished")] == [False, True]


# --- sandbox and demo


async def test_the_sandbox_prints_the_settings_that_reach_it(tmp_path: Path) -> None:
    """What ``sandbox`` prints is a valid configuration of a Pleo that answers, until it is told to stop."""
    ports = ("--auth-port", "0", "--api-port", "0", "--control-port", "0")
    async with started("sandbox", *ports, "--access-lifetime", "60", folder=tmp_path) as process:
        await until(lambda: "# Controls" in process.out)
        control = re.search(r"curl (http://\S+)/$", process.out)
        assert control is not None
        (tmp_path / "config.toml").write_text(process.out)
        checked = await asyncio.to_thread(run, "check", "--config", str(tmp_path / "config.toml"))
        assert checked.code == 0, checked
        api = tomllib.loads(process.out)["pleo"]["api_url"]
        async with aiohttp.ClientSession() as session:
            for url, status in ((f"{control[1]}/control/state", 200), (f"{api}/v2/employees", 401)):
                async with session.get(url) as answer:
                    assert answer.status == status
        assert await answer_to_malformed(("127.0.0.1", int(api.rpartition(":")[2]))) == 400
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    assert process.err == ""


@pytest.mark.parametrize("option", ["--auth-port", "--api-port", "--control-port"])
def test_a_busy_port_of_the_sandbox_is_one_line(option: str) -> None:
    """The port is named, and the options that choose others."""
    ports = {"--auth-port": 0, "--api-port": 0, "--control-port": 0}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[option] = taken.getsockname()[1]
        words = [str(word) for pair in ports.items() for word in pair]
        line = run("sandbox", *words).refusal(1)
    assert str(ports[option]) in line
    assert option in line


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_busy_port_of_the_demo_is_one_line(option: str) -> None:
    """The port is named with the option that chooses another."""
    ports = {"--port": free_port(), "--admin-port": free_port()}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[option] = taken.getsockname()[1]
        words = [str(word) for pair in ports.items() for word in pair]
        line = run("demo", *words).refusal(1)
    assert line == f"port {ports[option]}: Address already in use; choose another with {option}"


def test_the_demo_needs_two_ports() -> None:
    """One port for both listeners is wrong usage."""
    line = run("demo", "--port", "4711", "--admin-port", "4711").refusal(2)
    assert line == "--port and --admin-port are both 4711; choose two ports"


async def shell(line: str) -> str:
    """What a command line of the guide prints in a shell at the root of the repository."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        line,
        cwd=ROOT,
        env=clean_environ(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, (line, out)
    return out.decode()


async def test_the_demo_does_what_its_guide_says(tmp_path: Path) -> None:
    """Every line of the guide works as printed, the log tells it, and nothing is left behind."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    ports = (str(free_port()), str(free_port()))
    async with started(
        *("demo", "--port", ports[0], "--admin-port", ports[1]),
        folder=tmp_path / "demo",
        environ={"TMPDIR": str(folder)},
    ) as process:
        await until(lambda: "Stop with Ctrl-C." in process.out)
        guide = [line.strip() for line in process.out.splitlines() if re.match(r"  [^# ]", line)]
        assert len(guide) == 6
        read, search, heal, end, link, consent = guide
        assert {row["companyId"] for row in data(await shell(read))} == {COMPANIES["acme"]}
        assert data(await shell(search))
        assert "HTTP/1.1 200 OK\r\n" in await shell(heal)
        refused = await shell(end)
        assert '"status":503' in refused
        assert f'"reconnect_url":"http://127.0.0.1:{ports[1]}/tenants/globex/connect"' in refused
        assert re.fullmatch(rf"http://127\.0\.0\.1:{ports[1]}/connect/\S+\n", await shell(link))
        assert {row["companyId"] for row in data(await shell(consent))} == {COMPANIES["globex"]}
        assert list(folder.iterdir())
        process.signal(signal.SIGINT)
        assert await process.ended() == 0
    assert list(folder.iterdir()) == []
    assert process.err == ""
    finished = re.findall(r"request\.finished .* status=(\d+).*", process.out)
    assert finished == ["200", "200", "200", "503", "200"]
    assert re.findall(r"request\.finished +tenant=(\w+) .* retried=True", process.out) == ["acme"]
    assert max(len(line) for line in process.out.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)) < 160


def data(body: str) -> list[dict[str, Any]]:
    """The rows of an answer of Pleo."""
    rows: list[dict[str, Any]] = json.loads(body)["data"]
    return rows
