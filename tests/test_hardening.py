"""What others on the machine get to see of the proxy: its files, its processes, what a crash leaves."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from proxy import hardening, keyring
from proxy.cli.ending import exit_code_of
from proxy.errors import StoreError
from proxy.sandbox import DEFAULT_CLIENT, Sandbox, approve
from tests.command import PROGRAM, ROOT, Cli, Process, Serving, run, write_config
from tests.harness import ADMIN_TOKEN, free_port, running_proxy, until
from tests.neighbour import NOBODY, POWERLESS, outcomes
from tests.planting import PLANTED, WAYS

SECRETS = {"PLEO_CLIENT_SECRET": DEFAULT_CLIENT.client_secret, "PLANTED_ADMIN_TOKEN": ADMIN_TOKEN}
FROM_THE_ENVIRONMENT = {
    "pleo": {"client_secret": {"env": "PLEO_CLIENT_SECRET"}},
    "admin": {"token": {"env": "PLANTED_ADMIN_TOKEN"}},
}
REFUSED = {"EACCES", "EPERM"}
IS_ROOT = os.geteuid() == 0
"""Only root can become another user. Else files are judged by their modes, as the system does."""


@pytest.fixture
def street() -> Iterator[Path]:
    """A folder that every user of the machine may enter and list."""
    with tempfile.TemporaryDirectory(prefix="pleo-proxy-street-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@asynccontextmanager
async def served(config: Path, *before: str, temporary: Path | None = None) -> AsyncIterator[Serving]:
    """``serve`` behind the command ``before``, with its secrets in its environment."""
    environ = {**SECRETS, **({"TMPDIR": str(temporary)} if temporary else {})}
    words = [*before, str(PROGRAM), "serve", "--config", str(config)]
    process = Process(words, config.parent / "serve", environ)
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            ready = await process.event("proxy.started")
            yield Serving(
                process, Cli(config), f"http://{ready['proxy'][0]}", f"http://{ready['admin']}", session
            )
    finally:
        process.kill()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def views(pid: int) -> list[Path]:
    """Through which files of the system one process could look into another."""
    names = ("environ", "mem", "maps", "auxv", "fd/0", "fd/1", "fd/2", "map_files")
    return [Path(f"/proc/{pid}/{name}") for name in names]


def open_files(pid: int) -> dict[Path, str]:
    """What root sees of the files that a process has open."""
    folder = Path(f"/proc/{pid}/fd")
    return {path: str(path.readlink()) for path in folder.iterdir() if path.is_symlink()} if IS_ROOT else {}


def contents(pid: int, name: str) -> bytes:
    """What root, or the user of an open process, reads there."""
    return Path(f"/proc/{pid}/{name}").read_bytes()


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, and folders right in it."""
    return [path for path in folder.rglob("*") if path.is_file() or path.parent == folder]


# --- another user


@pytest.mark.parametrize("made_by", ["serve", "operator"])
async def test_another_user_reads_nothing(pleo: Sandbox, street: Path, made_by: str) -> None:
    """Keys, store, journal, lock, token hash, backup, bodies, and all that the system shows of the process.

    Where the operator has left the folder open for listing, the files stand for themselves.
    """
    state, temporary = street / "state", street / "temporary"
    temporary.mkdir()
    (street / "control").write_text("open")
    for path in (temporary, street / "control"):
        path.chmod(0o755)
    if made_by == "operator":
        state.mkdir()
        state.chmod(0o755)
    pleo_keys = {"client_secret": {"env": "PLEO_CLIENT_SECRET"}}
    config = write_config(street, pleo, pleo=pleo_keys, limits={"replay_memory": 1024})
    async with served(config, temporary=temporary) as serve, pleo.hold_api("/v2/vendors") as gate:
        await asyncio.to_thread(run, "tenants", "add", "acme", "--config", str(config))
        await serve.connect("acme")
        await asyncio.to_thread(serve.cli.done, "backup", str(state / "backup"))
        await asyncio.to_thread(serve.cli.done, "audit", "export", str(state / "export"))
        upload = asyncio.create_task(
            serve.session.post(f"{serve.base_url}/acme/v2/vendors", data=b"x" * 300_000)
        )
        await gate.arrived()
        pid = serve.process.pid
        opened = open_files(pid)
        files = files_in(state)
        names = {path.name for path in files}
        assert names >= {
            *("proxy.db", "proxy.db-wal", "proxy.db-shm", "proxy.db.serve.lock", "keys", "backup", "export"),
            *("journal-0.log", "admin-token.sha256"),
        }
        bodies = [path for path, name in opened.items() if name.startswith(str(temporary))]
        assert bodies or not IS_ROOT, "the held body is in no temporary file"
        modes = {str(path): oct(path.stat().st_mode & 0o077) for path in [*files, *bodies]}
        assert set(modes.values()) == {"0o0"}, modes
        assert stat.S_IMODE(state.stat().st_mode) == (0o700 if made_by == "serve" else 0o755)
        if IS_ROOT:
            paths = [*files, *opened, Path(f"/proc/{pid}/fd"), *views(pid), street / "control"]
            tried = await asyncio.to_thread(outcomes, NOBODY, *paths)
            assert tried.pop(str(street / "control")) == "4 bytes"
            assert set(tried.values()) <= REFUSED, tried
        gate.release()
        async with await upload as answer:
            assert answer.status < 500
        await serve.stop()


async def test_another_user_reads_nothing_of_the_demo(street: Path) -> None:
    """The demo's configuration, store and keys are in a folder of its own, closed to others."""
    ports = ("--port", str(free_port()), "--admin-port", str(free_port()))
    process = Process([str(PROGRAM), "demo", *ports], street / "run", {"TMPDIR": str(street)})
    try:
        await until(lambda: "Stop with Ctrl-C." in process.out, 30)
        (folder,) = (path for path in files_in(street) if path.name.startswith("pleo-proxy-demo-"))
        files = files_in(folder)
        assert {"config.toml", "keys", "proxy.db"} <= {path.name for path in files}
        assert {path.stat().st_mode & 0o077 for path in [folder, *files]} == {0}
        if IS_ROOT:
            tried = await asyncio.to_thread(outcomes, NOBODY, folder, *files, *views(process.pid))
            assert set(tried.values()) <= REFUSED, tried
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    finally:
        process.kill()


# --- another process of the same user


@pytest.mark.parametrize("workers", [1, 2])
async def test_other_processes_of_the_same_user_see_nothing(
    pleo: Sandbox, tmp_path: Path, workers: int
) -> None:
    """Not the environment, memory or files of the proxy or a worker; a program like others shows them."""
    listen = {"workers": workers, "proxy": f"127.0.0.1:{free_port()}"}
    config = write_config(tmp_path, pleo, listen=listen, **FROM_THE_ENVIRONMENT)
    bare = Process([*POWERLESS, "/bin/sleep", "60"], tmp_path / "bare", SECRETS)
    try:
        async with served(config, *POWERLESS) as serve:
            if workers > 1:
                await until(lambda: len(serve.process.lines("worker.started")) == workers)
            served_by = [line["pid"] for line in serve.process.lines("worker.started")]
            closed = [path for pid in (serve.process.pid, *served_by) for path in views(pid)]
            open_ones = [path for path in views(bare.pid) if path.name in {"environ", "2", "auxv"}]
            tried = await asyncio.to_thread(outcomes, 0, *closed, *open_ones)
            assert [path for path in open_ones if tried.pop(str(path)) in REFUSED] == []
            assert set(tried.values()) <= REFUSED, tried
            for pid in {serve.process.pid, *served_by, *children(serve.process.pid)}:
                arguments = contents(pid, "cmdline")
                assert arguments
                assert [name for name, value in SECRETS.items() if value.encode() in arguments] == []
            helpers = set(children(serve.process.pid)) - set(served_by)
            assert len(helpers) == (1 if workers > 1 else 0)
            for pid in helpers:
                environment = contents(pid, "environ")
                assert b"PATH=" in environment
                assert [name for name in SECRETS if name.encode() in environment] == []
            await serve.stop()
    finally:
        bare.kill()


_SHOWN = """
import ctypes, json, os, resource, sys
from pathlib import Path
from proxy import hardening
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
os.umask(0o022)
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
hardening.close_to_others()
Path(sys.argv[1]).touch()
after = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
sys.stdout.write(json.dumps([before, after, resource.getrlimit(resource.RLIMIT_CORE)]))
"""


def test_a_process_closes_itself(tmp_path: Path) -> None:
    """It is not dumpable afterwards, may write no core, and what it makes is for its owner."""
    command = [sys.executable, "-c", _SHOWN, str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == [1, 0, [0, 0]]
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600


# --- crashes

EXPECTED = {
    "start": "internal error, RuntimeError at planting.py",
    "start-base": "internal error, _Base at planting.py",
    "request": "request.crashed",
    "request-abort": "Fatal Python error: Aborted",
    "refresh": "task.crashed",
    "watch": "task.crashed",
    "apart": "internal error, RuntimeError at planting.py",
}
"""What is seen of each way to break, so that it is known to have happened."""


@pytest.mark.parametrize("way", WAYS)
async def test_a_crash_shows_no_secret(pleo: Sandbox, tmp_path: Path, way: str) -> None:
    """Whatever breaks, with Python's and asyncio's debugging on: neither output nor a core tells a secret."""
    config = write_config(tmp_path, pleo, **FROM_THE_ENVIRONMENT)
    planted = "planted-0f3a97c1"
    debugging = ("-X", "dev", "-X", "faulthandler", "-m", "tests.planting", way)
    words = ["bash", "-c", 'ulimit -S -c "$(ulimit -H -c)"; exec "$0" "$@"', sys.executable, *debugging]
    environ = {**SECRETS, PLANTED: planted, "PYTHONASYNCIODEBUG": "1"}
    process = Process([*words, "serve", "--config", str(config)], tmp_path / "crash", environ)
    try:
        if way not in {"start", "start-base"}:
            ready = await process.event("proxy.started")
            await provoke(pleo, f"http://{ready['proxy'][0]}", Cli(config))
            await until(lambda: EXPECTED[way] in process.out + process.err)
            process.signal(signal.SIGTERM)
        assert (await process.ended() == 0) == (way in {"request", "refresh", "watch", "apart"})
    finally:
        process.kill()
    said = process.out + process.err
    assert EXPECTED[way] in said
    assert "Traceback" not in said
    issued = pleo.authority.secrets_issued()
    assert [secret for secret in {planted, *SECRETS.values(), *issued} if secret in said] == []
    assert list(ROOT.glob("core*")) == []


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt("planted"), 130, ""),
        (asyncio.CancelledError("planted"), 1, "internal error, CancelledError at test_hardening.py:"),
        (RuntimeError("planted"), 1, "internal error, RuntimeError at test_hardening.py:"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_end_of_any_kind_is_told_without_its_text(
    raised: BaseException,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also what is no ``Exception``: a worker's would else be printed whole by multiprocessing."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def end() -> None:
        raise raised

    assert exit_code_of(end) == code
    told = capsys.readouterr()
    assert said in told.err
    assert "planted" not in told.err + told.out


async def provoke(pleo: Sandbox, base_url: str, cli: Cli) -> None:
    """A tenant connects, calls, loses its token and calls again."""
    await asyncio.to_thread(cli.done, "tenants", "add", "acme")
    link = (await asyncio.to_thread(cli.done, "connect", "acme", environ=SECRETS)).out.strip()
    assert (await approve(link, company="acme")).status == 200
    pleo.revoke_access("acme")
    async with aiohttp.ClientSession() as session:
        with suppress(aiohttp.ClientError):
            async with session.get(f"{base_url}/acme/v2/employees") as answer:
                await answer.read()


# --- what shows itself


async def test_nothing_that_holds_a_secret_shows_it(pleo: Sandbox, tmp_path: Path) -> None:
    """No object of the program, nor a task, call or future that it left, has a secret in its ``repr``."""
    gc.collect()
    others = gc.get_objects()  # kept, so that no new object gets the address of one of them
    known = {id(thing) for thing in others}
    async with running_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme")
        assert (await proxy.connect("acme")).status == 200
        pleo.revoke_access("acme")
        assert (await proxy.get("/acme/v2/employees")).status == 200
        keys = keyring.read(tmp_path / "keys").reveal().partition(":")[2].strip()
        raw = repr(base64.urlsafe_b64decode(keys))[2:-1]
        held = {*pleo.authority.secrets_issued(), ADMIN_TOKEN, keys, raw}
        shown = [
            (type(thing), repr(thing))
            for thing in gc.get_objects()
            if id(thing) not in known
            and re.match(r"proxy\.(?!sandbox)|asyncio|uvloop|functools|ssl", str(type(thing).__module__))
        ]
        assert len(shown) > 100
        assert [kind for kind, text in shown if any(secret in text for secret in held)] == []
        assert repr(proxy.settings).count("Secret(***)") >= 2


# --- folders


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o720, 0o777], ids=oct)
def test_a_folder_in_which_others_may_write_is_refused(pleo_free_config: Path, mode: int) -> None:
    """Others could exchange the files in it; the refusal says what to do, and nothing is made there."""
    state = pleo_free_config.parent / "state"
    state.mkdir()
    state.chmod(mode)
    for command in ("serve", "check"):
        line = run(command, "--config", str(pleo_free_config)).refusal(1)
        assert f"directory {state} has mode {mode:04o}" in line
        assert f"chmod 700 {state}" in line
    assert list(state.iterdir()) == []


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o701, 0o710], ids=oct)
def test_a_folder_that_others_may_list_is_warned_of(pleo_free_config: Path, mode: int) -> None:
    """Files in it are for their owner alone, so it is served, and ``check`` says what to do."""
    state = pleo_free_config.parent / "state"
    state.mkdir()
    state.chmod(mode)
    told = run("check", "--config", str(pleo_free_config))
    assert (told.code, told.err) == (
        0,
        f"Warning: directory {state}: other users can list it; run `chmod 700 {state}`\n",
    )
    state.chmod(0o700)
    assert run("check", "--config", str(pleo_free_config)).err == ""


def test_a_folder_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    """A path that the system refuses to look up is one line with the system's word for why."""
    with pytest.raises(StoreError, match="File name too long; let the proxy's user reach it"):
        hardening.check_folder(tmp_path / ("x" * 300))


@pytest.fixture
def pleo_free_config(tmp_path: Path) -> Path:
    """A configuration that is valid, of a proxy that never gets so far as to ask Pleo."""
    return write_config(tmp_path)
