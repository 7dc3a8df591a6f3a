"""A page that a person works through, run as it stands: servers in terminals of their own, outputs compared.

``python -m tests.walkthrough`` runs the tutorial and puts into it what its commands print.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from proxy.sandbox import approve
from tests.command import PROGRAM, ROOT, clean_environ
from tests.handbook import timeless
from tests.harness import free_port

PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>(?s:.*?))^```$", re.MULTILINE)
_SET_UP = "make .venv/run"
"""What has been done already where this runs."""
_LEFT_OUT = ('export PATH="$PWD/.venv/bin:$PATH"', "mkdir -p ~/pleo-proxy-trial && cd ~/pleo-proxy-trial")
"""Where the test is anyway: the program on its path, in a folder of its own."""
_SERVERS = {"pleo-proxy sandbox": "Controls", "pleo-proxy serve": "proxy.started"}
"""What runs until it is stopped, and what it says when it is ready."""
_PORTS = ("8080", "8081", "9100", "9101", "9102")
_LINK = re.compile(r"http://localhost:\d+/connect/[\w-]{43}")


@dataclass
class Walk:
    """The commands of a page, run one after the other."""

    folder: Path
    ports: Mapping[str, str] = field(default_factory=lambda: {port: str(free_port()) for port in _PORTS})
    printed: str = ""
    """By the last block of commands, with the ports of the page."""
    ran: list[str] = field(default_factory=list)
    _servers: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def block(self, language: str, text: str) -> str:
        """Do what a block asks for; the text that should stand there."""
        if language == "sh":
            self.printed = "".join([await self._line(line) for line in text.splitlines() if line != _SET_UP])
            return text
        if language == "toml":
            config = self.folder / "config.toml"
            before, _, rest = config.read_text().partition("[pleo]\n")
            config.write_text(f"{before}{self._here(text)}\n[store]\n{rest.partition('[store]')[2]}")
            return text
        assert language in {"text", "json"}, language
        return self.printed

    async def _line(self, line: str) -> str:
        self.ran.append(line)
        if line in _LEFT_OUT:
            return ""
        if line in _SERVERS:
            return await self._serve(line)
        process = await self._start(line, asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert process.returncode == 0, (line, out)
        printed = out.decode()
        if link := _LINK.search(printed):
            # What the person does next.
            visit = await approve(link[0], company="acme")
            assert visit.status == 200, visit.text
        printed = "".join(f"{each.rstrip()}\n" for each in self._as_on_page(printed).splitlines())
        return _LINK.sub("http://localhost:8081/connect/…", printed)

    async def _serve(self, line: str) -> str:
        path = self.folder / f"{line.rpartition(' ')[2]}.out"
        if line.endswith("sandbox"):
            names = {"--auth-port": "9100", "--api-port": "9101", "--control-port": "9102"}
            options = [f"{name} {self.ports[port]}" for name, port in names.items()]
            line += (
                f" {' '.join(options)} --redirect-uri http://localhost:{self.ports['8081']}/oauth/callback"
            )
        with path.open("wb") as out:
            self._servers.append(await self._start(f"exec {line}", out))
        ready = _SERVERS[" ".join(line.split()[:2])]
        async with asyncio.timeout(30):
            while ready not in path.read_text():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        return self._as_on_page(path.read_text())

    async def _start(self, line: str, out: int | BinaryIO) -> asyncio.subprocess.Process:
        listen = {
            "PROXY": f"127.0.0.1:{self.ports['8080']}",
            "ADMIN": f"127.0.0.1:{self.ports['8081']}",
            "PUBLIC_URL": f"http://localhost:{self.ports['8081']}",
        }
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", self._here(line)),
            cwd=self.folder,
            env={
                **clean_environ(),
                "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
                **{f"PLEO_PROXY__LISTEN__{name}": value for name, value in listen.items()},
            },
            stdout=out,
            # A log is held to its schema line by line.
            stderr=asyncio.subprocess.STDOUT if isinstance(out, int) else asyncio.subprocess.DEVNULL,
        )

    def _here(self, text: str) -> str:
        """With the ports that are free here."""
        return re.sub(r"(?<=:)\d{4}\b", lambda port: self.ports.get(port[0], port[0]), text)

    def _as_on_page(self, text: str) -> str:
        back = {here: port for port, here in self.ports.items()}
        return re.sub(r"(?<=:)\d{4,5}\b", lambda port: back.get(port[0], port[0]), text)

    async def end(self) -> None:
        """Press Ctrl-C in the other terminals."""
        for server in self._servers[::-1]:
            server.send_signal(signal.SIGINT)
            assert await server.wait() == 0


@asynccontextmanager
async def walk() -> AsyncIterator[Walk]:
    """A walk in a folder of its own, whose servers end with it."""
    with tempfile.TemporaryDirectory(prefix="pleo-proxy-tutorial-") as name:
        walking = Walk(Path(name))
        try:
            yield walking
        finally:
            await walking.end()


async def walked(page: str) -> tuple[str, list[str]]:
    """The page with what its commands print now, and the commands."""
    parts, end = [], 0
    async with walk() as walking:
        for found in blocks(page):
            parts += [page[end : found.start("text")], await walking.block(found["language"], found["text"])]
            end = found.end("text")
    return "".join([*parts, page[end:]]), walking.ran


def blocks(page: str) -> Iterator[re.Match[str]]:
    """All fenced blocks, also those that name no language."""
    return BLOCK.finditer(page)


def same(text: str) -> str:
    """What has to be the same at each run."""
    return re.sub(r'"request_id":"[^"]*"', '"request_id":"ID"', timeless(text))


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(walked(PAGE.read_text()))[0])
