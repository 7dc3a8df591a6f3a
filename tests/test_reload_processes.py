"""Reloads of real processes: by signal, command and API, alone and with workers, at bad moments too."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy import beacon
from proxy.beacon import Beacon
from proxy.config import Report
from proxy.errors import OperatorError
from proxy.sandbox import DEFAULT_CLIENT, Sandbox
from tests.command import Cli, Process, Serving, run, serving, started, write_config
from tests.harness import ADMIN_TOKEN, until
from tests.test_workers import Prepared, prepared
from tests.test_workers import serving as serving_with_workers

__all__ = ["prepared"]
EMPLOYEES = "/acme/v2/employees"


@pytest.fixture
def config(pleo: Sandbox, tmp_path: Path) -> Path:
    """A configuration whose client secret is in a file."""
    pleo.switches.rate_limit_per_minute = None
    (tmp_path / "secret").write_text(DEFAULT_CLIENT.client_secret)
    secret = {"client_secret": {"file": f"{tmp_path}/secret"}}
    return write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN}, pleo=secret, limits={"headers": 90})


def change(config: Path, old: str, new: str) -> None:
    """Put another line into the file, as an operator's editor does: at once."""
    text = config.read_text()
    assert old in text
    beside = config.with_suffix(".new")
    beside.write_text(text.replace(old, new))
    beside.replace(config)


async def reloaded(process: Process, event: str = "config.reloaded", count: int = 1) -> list[dict[str, Any]]:
    """The lines of an event, as soon as there are so many."""
    await until(lambda: len(process.lines(event)) >= count or process.has_ended, 20)
    assert not process.has_ended, process.err
    return process.lines(event)


async def reload_command(serve: Serving, *arguments: str) -> Any:
    return await asyncio.to_thread(serve.cli, "reload", *arguments)


async def test_a_hangup_has_the_configuration_read_again(config: Path) -> None:
    """What may change is in force, what needs a restart is named, and the process goes on."""
    async with serving(config) as serve:
        assert await serve.get("/nobody") == 404
        change(config, "headers = 90", "headers = 91")
        change(config, "[limits]", '[log]\nlevel = "warning"\n[store]\n[limits]'.replace("[store]\n", ""))
        serve.process.signal(signal.SIGHUP)
        await until((config.parent / "state" / "reload.json").exists)
        # The line itself is of level info, and comes after the level has changed.
        assert serve.process.lines("config.reloaded") == []
        assert await serve.get("/nobody") == 404
        assert len(serve.process.lines("request.finished")) == 1
        change(config, 'level = "warning"', 'level = "info"')
        change(config, "127.0.0.1:0", "127.0.0.1:1")
        serve.process.signal(signal.SIGHUP)
        (line,) = await reloaded(serve.process)
        assert (line["changed"], line["needs_restart"]) == (["log.level"], ["listen.proxy"])
        assert line["source"] == str(config)
        await serve.stop()


async def test_the_command_prints_the_report(config: Path) -> None:
    """What is in force now, what waits and why, as text and as JSON; and it waits for it to be in force."""
    async with serving(config) as serve:
        change(config, "headers = 90", "headers = 91")
        change(config, "127.0.0.1:0", "127.0.0.1:1")
        ran = await reload_command(serve)
        assert ran.code == 0
        assert ran.out == f"{config} was read again.\nIn force now: limits.headers.\n"
        assert ran.err == (
            "Warning: listen.proxy keeps its value until a restart: sockets are opened at a start\n"
        )
        ran = await reload_command(serve, "--json")
        assert ran.json() == {
            "source": str(config),
            "changed": [],
            "needs_restart": {"listen.proxy": "sockets are opened at a start"},
            "mistakes": [],
            "unreached": [],
        }
        assert "In force now: nothing that was not." in (await reload_command(serve)).out
        assert len(serve.process.lines("config.reloaded")) == 3
        await serve.stop()


async def test_a_broken_file_keeps_what_is_in_force(config: Path) -> None:
    """The command says what is wrong, as check does; a hangup says so in the log; callers notice nothing."""
    async with serving(config) as serve:
        change(config, "headers = 90", "headers = 0\nheads = 1")
        ran = await reload_command(serve)
        checked = await asyncio.to_thread(serve.cli, "check")
        assert (ran.code, ran.err) == (2, checked.err)
        assert serve.process.lines("config.reload_failed") == []
        serve.process.signal(signal.SIGHUP)
        (line,) = await reloaded(serve.process, "config.reload_failed")
        assert line["source"] == str(config)
        assert [mistake.partition(":")[0] for mistake in line["mistakes"]] == [
            "limits.headers = 0",
            "limits.heads",
        ]
        assert await serve.get("/nobody") == 404
        async with serve.session.get(f"{serve.admin_url}/metrics") as answer:
            assert "\npleo_proxy_config_last_reload_successful 0.0\n" in await answer.text()
        await serve.stop()


def break_it(config: Path, breakage: str) -> Callable[[], object]:
    """Have the configuration unreadable; returns what mends it."""
    whole = config.read_bytes()
    match breakage:
        case "removed":
            config.unlink()
        case "a directory":
            config.unlink()
            config.mkdir()
            return partial(put_back, config, whole)
        case "no text":
            config.write_bytes(b"\xff\xfe")
        case _:
            return partial(hide_secret(config).rename, config.parent / "secret")
    return lambda: config.write_bytes(whole)


def put_back(config: Path, whole: bytes) -> None:
    config.rmdir()
    config.write_bytes(whole)


def hide_secret(config: Path) -> Path:
    return (config.parent / "secret").rename(config.parent / "kept")


def write_secret(config: Path, secret: str) -> None:
    (config.parent / "secret").write_text(secret)


@pytest.mark.parametrize(
    ("breakage", "mistake"),
    [
        ("removed", "there is no such file; put it back, or correct the path"),
        ("a directory", "this is a directory; name the file in it"),
        ("no text", "the file is not text in UTF-8; save it as UTF-8"),
        ("secret removed", "pleo.client_secret = …: the file {folder}/secret does not exist"),
    ],
)
async def test_a_file_that_cannot_be_had_keeps_what_is_in_force(
    config: Path, breakage: str, mistake: str
) -> None:
    """It is missing, no file, no text, or a secret in it is away: told in the log, and mended by the next."""
    async with serving(config) as serve:
        mend = break_it(config, breakage)
        serve.process.signal(signal.SIGHUP)
        (line,) = await reloaded(serve.process, "config.reload_failed")
        assert line["mistakes"][0].startswith(mistake.format(folder=config.parent))
        mend()
        assert (await reload_command(serve)).code == 0
        await serve.stop()


async def test_what_only_the_proxy_can_see_is_reported_by_the_command(config: Path) -> None:
    """The file is in order, and a secret that it names is not there: exit code 2, with the mistakes."""
    async with serving(config) as serve:
        hide_secret(config)
        ran = await reload_command(serve)
        assert ran.code == 2
        assert f"{config}: 2 mistakes" in ran.err
        assert "pleo.client_secret = …: the file" in ran.err
        assert "nothing was taken up" in ran.err
        await serve.stop()


async def test_a_client_secret_is_changed_under_load(config: Path, pleo: Sandbox) -> None:
    """Pleo takes another secret, its file is replaced, a hangup: consents work, and no request failed."""
    async with serving(config) as serve:
        for tenant in ("acme", "globex"):
            await serve.command("tenants", "add", tenant)
        await serve.connect("acme")
        statuses, going = list[int](), True

        async def call() -> None:
            while going:
                statuses.append(await serve.get(f"{EMPLOYEES}?limit=1"))

        callers = [asyncio.create_task(call()) for _ in range(4)]
        pleo.rotate_client_secret("the-second-secret")
        write_secret(config, "the-second-secret")
        ran = await reload_command(serve)
        assert "In force now: pleo.client_secret." in ran.out
        await serve.connect("globex", "globex")
        going = False
        await asyncio.gather(*callers)
        assert set(statuses) == {200}
        assert "the-second-secret" not in serve.process.out + serve.process.err + ran.out
        await serve.stop()


async def test_hangups_at_once_and_while_draining_end_nothing(config: Path) -> None:
    """Twenty in a row make a few reloads; those in a drain, and one before all is built, do no harm."""
    async with started("serve", "--config", str(config), folder=config.parent / "early") as process:
        await until(lambda: (config.parent / "state" / "instance").exists() or process.has_ended)
        process.signal(signal.SIGHUP)
        await process.event("proxy.started")
        await reloaded(process)
        for _ in range(20):
            process.signal(signal.SIGHUP)
        await reloaded(process, count=2)
        process.signal(signal.SIGTERM)
        await process.event("proxy.draining")
        while not process.has_ended:  # also at the very end of the process
            process.signal(signal.SIGHUP)
            await asyncio.sleep(0.001)
        assert await process.ended() == 0
        assert process.err == ""


async def test_a_drain_is_as_long_as_the_configuration_in_force_says(config: Path, pleo: Sandbox) -> None:
    """What a reload changed counts at the stop: the request that Pleo never answers is cut after that."""
    async with serving(config) as serve:
        await serve.command("tenants", "add", "acme")
        await serve.connect("acme")
        change(config, "headers = 90", "drain_s = 0.3")
        await reload_command(serve)
        async with pleo.hold_api() as gate:
            waiting = asyncio.create_task(serve.session.get(serve.base_url + EMPLOYEES))
            await gate.arrived()
            serve.process.signal(signal.SIGHUP)
            async with asyncio.timeout(10):
                await serve.stop()
            (line,) = serve.process.lines("proxy.draining")
            assert line["drain_s"] == 0.3
            gate.release()
            await asyncio.gather(waiting, return_exceptions=True)


async def test_a_hangup_interrupts_no_refresh(config: Path, pleo: Sandbox) -> None:
    """One is at Pleo when the configuration is exchanged: its pair is saved, and its caller answered."""
    async with serving(config) as serve:
        await serve.command("tenants", "add", "acme")
        await serve.connect("acme")
        pleo.revoke_access("acme")
        async with pleo.hold_token_endpoint(committed=True) as gate:
            waiting = asyncio.create_task(serve.get(EMPLOYEES))
            await gate.arrived()
            change(config, "headers = 90", "headers = 91\n[refresh]\ntimeout_s = 20\nadvisory = 0.5")
            assert "refresh.timeout_s" in (await reload_command(serve)).out
            gate.release()
            assert await waiting == 200
        assert sum(pleo.counters.refreshes.values()) == 1
        assert (await serve.listed("grants", "list"))["acme"]["generation"] == 2
        await serve.stop()


# --- several workers


async def by_api(serve: Serving) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with serve.session.post(f"{serve.admin_url}/api/v1/reload", headers=headers) as answer:
        told: dict[str, Any] = await answer.json(content_type=None)
        return told


async def test_all_workers_take_up_the_same(prepared: Prepared) -> None:
    """By the command, and by the API of worker 0; a successor begins with what is in force."""
    config = prepared.config
    async with serving_with_workers(prepared) as serve:
        change(config, "drain_s = 5", "drain_s = 5\nheaders = 30")
        assert "In force now: limits.headers." in (await reload_command(serve)).out
        lines = await reloaded(serve.process, count=2)
        assert {line["worker"] for line in lines} == {0, 1}
        many = {f"X-{number}": "1" for number in range(40)}
        for _ in range(20):
            async with serve.session.get(serve.base_url + EMPLOYEES, headers=many) as answer:
                assert answer.status == 431
        change(config, "headers = 30", "headers = 31")
        told = await by_api(serve)
        assert told == {"source": str(config), "changed": ["limits.headers"], "needs_restart": []}
        assert serve.process.lines("config.reload_asked")[0]["user"] == "operator"
        assert len(await reloaded(serve.process, count=4)) == 4

        # A file that nobody has looked at yet is not what a successor begins with.
        change(config, "headers = 31", "headers = 0")
        victim = next(line for line in serve.process.lines("worker.started") if line["number"] == 1)
        os.kill(victim["pid"], signal.SIGKILL)
        await until(lambda: len(serve.process.lines("worker.started")) == 3)
        for _ in range(20):
            async with serve.session.get(serve.base_url + EMPLOYEES, headers=many) as answer:
                assert answer.status == 431
        serve.process.signal(signal.SIGHUP)
        failed = await reloaded(serve.process, "config.reload_failed", count=2)
        assert {line["worker"] for line in failed} == {0, 1}
        assert (await by_api(serve))["status"] == 409
        await serve.stop()
        assert serve.process.err == ""


async def test_a_hangup_of_all_processes_ends_none(prepared: Prepared) -> None:
    """As a terminal sends one that is closed: workers leave it to the supervisor."""
    async with serving_with_workers(prepared) as serve:
        for line in serve.process.lines("worker.started"):
            os.kill(line["pid"], signal.SIGHUP)
        serve.process.signal(signal.SIGHUP)
        await reloaded(serve.process, count=2)
        assert serve.process.lines("worker.died") == []
        await serve.stop()


def go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


async def test_a_worker_that_does_not_answer_is_named(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is stopped in its tracks: the other takes it up, and the command says which did not."""
    async with AsyncExitStack() as stack:
        serve = await stack.enter_async_context(serving_with_workers(prepared))
        (pid,) = (line["pid"] for line in serve.process.lines("worker.started") if line["number"] == 1)
        os.kill(pid, signal.SIGSTOP)
        stack.callback(go_on, pid)
        change(prepared.config, "drain_s = 5", "drain_s = 6")
        ran = await reload_command(serve)
        assert ran.code == 1
        assert "worker 1: no answer within 20 s; restart the proxy" in ran.err
        os.kill(pid, signal.SIGCONT)
        lines = await reloaded(serve.process, count=2)
        assert {line["worker"] for line in lines} == {0, 1}
        await serve.stop()


# --- how the command finds the proxy


def test_without_a_proxy_the_command_says_so(config: Path) -> None:
    """No signal is sent to whoever has the number of a process that has ended."""
    assert "no proxy serves with it; start one" in Cli(config)("reload").refusal(1)
    state = config.parent / "state"
    state.mkdir()
    Beacon.light(state).close()
    assert (state / beacon.PROCESS).read_text() == f"{os.getpid()}\n"
    assert "no proxy serves with it; start one" in Cli(config)("reload").refusal(1)


def test_a_wrong_configuration_is_reported_before_anything_is_asked(config: Path) -> None:
    """As by every command, with exit code 2."""
    change(config, "headers = 90", "headers = 0")
    ran = Cli(config)("reload")
    assert (ran.code, "limits.headers = 0: must be at least 1" in ran.err) == (2, True)
    assert run("reload", "--config", str(config.parent / "none.toml")).code == 2


def test_two_proxies_share_no_state_directory(tmp_path: Path) -> None:
    """The second would answer for the first."""
    named = f"process {os.getpid()} serves with it already: stop that one"
    with Beacon.light(tmp_path), pytest.raises(OperatorError, match=named):
        Beacon.light(tmp_path)
    Beacon.light(tmp_path).close()


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """As all others in the state directory, whatever the umask says."""
    before = os.umask(0)
    try:
        with Beacon.light(tmp_path) as lit:
            lit.tell(Report("config.toml", (), {}), began=1.0)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {beacon.PROCESS: 0o600, beacon.REPORT: 0o600}


async def test_an_older_report_is_nobodys_answer(tmp_path: Path) -> None:
    """What came of the reload before is not taken for this one's; a process that does not answer is named."""
    handled = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, handled.set)
    with Beacon.light(tmp_path) as lit:
        lit.tell(Report("config.toml", ("log.level",), {}), began=1.0)
        with pytest.raises(
            OperatorError, match=re.escape(f"process {os.getpid()} gave no report within 0.1 s")
        ):
            await beacon.ask(tmp_path, patience_s=0.1)
        assert handled.is_set()
    asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
