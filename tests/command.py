"""The command line for tests: called in this process, or as the real process that an operator starts."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp
import click
import pytest

from proxy.cli import main
from proxy.sandbox import DEFAULT_CLIENT, Sandbox, approve
from tests.harness import free_port, until

ROOT = Path(__file__).parent.parent
PROGRAM = Path(sys.executable).with_name("pleo-proxy")


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def refusal(self, code: int = 2) -> str:
        """The one line of a command that was refused, less the program's name."""
        assert (self.code, self.out) == (code, ""), self
        assert self.err.startswith("pleo-proxy: "), self
        assert self.err.endswith("\n"), self
        line = self.err.removeprefix("pleo-proxy: ").removesuffix("\n")
        assert line.isprintable(), self
        return line


def run(*arguments: str, stdin: str = "", environ: Mapping[str, str] | None = None) -> Ran:
    """Call the command line in this process, with all that the console script does."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    root = logging.getLogger()
    handlers = root.handlers[:]
    with (
        mock.patch.object(sys, "argv", ["pleo-proxy", *arguments]),
        # What closes the process of a command for good would close that of the tests.
        mock.patch("proxy.hardening.close_to_others"),
        mock.patch("proxy.cli.keep_texts_back"),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        mock.patch.dict(os.environ, {**clean_environ(), **(environ or {})}, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        # A server that should have refused to start is told to end, so that its test fails.
        hangs = threading.Timer(30, os.kill, (os.getpid(), signal.SIGINT))
        hangs.start()
        try:
            with pytest.raises(SystemExit) as end:
                main()
        finally:
            hangs.cancel()
            root.handlers[:] = handlers
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    assert isinstance(end.value.code, int)
    return Ran(end.value.code, out.buffer.getvalue().decode(), err.getvalue())


def clean_environ() -> dict[str, str]:
    """The environment without settings of ours, and without proxies between curl and loopback."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PLEO_", "CREDENTIALS_DIRECTORY")) and not name.lower().endswith("_proxy")
    }


@dataclass(frozen=True)
class Cli:
    """The command line with the configuration at ``config``."""

    config: Path

    def __call__(self, *arguments: str, **options: Any) -> Ran:
        return run(*arguments, "--config", str(self.config), **options)

    def done(self, *arguments: str, **options: Any) -> Ran:
        """A command that must succeed."""
        ran = self(*arguments, **options)
        assert ran.code == 0, ran
        return ran

    def listed(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """A listing as JSON, by the name of the tenant."""
        rows = self.done(*arguments, "--json").json()
        return {row.get("name") or row["tenant"]: row for row in rows}


def write_config(folder: Path, sandbox: Sandbox | None = None, **sections: Mapping[str, Any]) -> Path:
    """A configuration file in ``folder``, with all state below it; keywords are laid over the defaults here.

    Without ``sandbox`` the three addresses of Pleo are such that nothing answers there.
    """
    admin_port = free_port()
    data: dict[str, dict[str, Any]] = {
        "listen": {
            "proxy": "127.0.0.1:0",
            "admin": f"127.0.0.1:{admin_port}",
            "public_url": f"http://127.0.0.1:{admin_port}",
        },
        "pleo": {
            "environment": "custom",
            "client_id": DEFAULT_CLIENT.client_id,
            "client_secret": DEFAULT_CLIENT.client_secret,
            "api_url": "http://127.0.0.1:9" if sandbox is None else sandbox.api_url,
            "authorize_url": "http://127.0.0.1:9/authorize" if sandbox is None else sandbox.authorize_url,
            "token_url": "http://127.0.0.1:9/token" if sandbox is None else sandbox.token_url,
        },
        "store": {"url": f"sqlite://{folder}/state/proxy.db", "state_dir": f"{folder}/state"},
    }
    for name, keys in sections.items():
        data[name] = {**data.get(name, {}), **keys}
    if sandbox is not None:
        sandbox.add_redirect_uri(f"{data['listen']['public_url']}/oauth/callback")
    path = folder / "config.toml"
    path.write_text(
        "\n".join(
            f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())
            for name, keys in data.items()
        )
    )
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


class Process:
    """A real process of the program, whose output goes to files that can be read at any time."""

    def __init__(self, arguments: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = (folder / "stdout", folder / "stderr")
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            # Warnings are shown, so that a process which leaves something open says so.
            self._popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env={**clean_environ(), "PYTHONWARNINGS": "default", **environ},
            )

    @property
    def out(self) -> str:
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        return self._files[1].read_text()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Whole log lines as objects, of one event or all; a line that is not JSON fails."""
        whole = self.out.rpartition("\n")[0]
        parsed = [json.loads(line) for line in whole.split("\n") if line]
        return [line for line in parsed if event is None or line["event"] == event]

    async def event(self, name: str, timeout_s: float = 20) -> dict[str, Any]:
        """The first log line of an event, as soon as it is there."""
        await until(lambda: self.lines(name) or self.has_ended, timeout_s)
        assert self.lines(name), f"no {name}; stdout: {self.out!r}; stderr: {self.err!r}"
        return self.lines(name)[0]

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    async def ended(self, timeout_s: float = 20) -> int:
        """The exit code, once the process has ended."""
        await until(lambda: self.has_ended, timeout_s)
        return int(self._popen.returncode)

    def kill(self) -> None:
        """End it at once, however it is; an end of its own is left as it was."""
        if not self.has_ended:
            self._popen.kill()
        self._popen.wait()


@asynccontextmanager
async def started(
    *arguments: str, folder: Path, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """The program as a process; it does not outlive the block."""
    process = Process([str(PROGRAM), *arguments], folder, environ or {})
    try:
        yield process
    finally:
        process.kill()


@dataclass
class Serving:
    """A real ``serve``, and what is done to it from outside."""

    process: Process
    cli: Cli
    base_url: str
    admin_url: str
    session: aiohttp.ClientSession

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.base_url.removeprefix("http://").partition(":")
        return host, int(port)

    async def command(self, *arguments: str) -> Ran:
        """A command beside the running process, which must succeed."""
        return await asyncio.to_thread(self.cli.done, *arguments)

    async def listed(self, *arguments: str) -> dict[str, dict[str, Any]]:
        return await asyncio.to_thread(self.cli.listed, *arguments)

    async def connect(self, tenant: str, company: str = "acme") -> None:
        """Consent for ``tenant`` through the link that ``connect`` prints."""
        link = (await self.command("connect", tenant)).out.strip()
        visit = await approve(link, company=company)
        assert visit.status == 200, visit.text

    async def get(self, path: str) -> int:
        """The status of a caller's request, of which the whole body was read."""
        async with self.session.get(self.base_url + path) as answer:
            await answer.read()
            return answer.status

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask the process to end, and see that it ends as it should."""
        self.process.signal(number)
        assert await self.process.ended() == 0, self.process.err


@asynccontextmanager
async def serving(config: Path, run_name: str = "serve") -> AsyncIterator[Serving]:
    """``serve`` with the configuration at ``config``, ready for callers; its output goes to ``run_name``."""
    async with (
        started("serve", "--config", str(config), folder=config.parent / run_name) as process,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        ready = await process.event("proxy.started")
        yield Serving(
            process, Cli(config), f"http://{ready['proxy'][0]}", f"http://{ready['admin']}", session
        )


def subcommands(group: click.Group) -> dict[str, click.Command]:
    """The commands of a group by name, loaded."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}
