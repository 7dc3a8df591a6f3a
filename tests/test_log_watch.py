"""No log line of a test run is in no schema: what looks at them sees each way in which one could be wrong."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from proxy.facts import LineWithheld
from proxy.telemetry.logs import LogSink
from tests import log_watch
from tests.command import PROGRAM, ROOT, Process, clean_environ
from tests.harness import until
from tests.log_watch import Watch, is_serve
from tests.terminal import at_terminal

TIME = '"timestamp":"2026-01-02T03:04:05.678901Z"'
GOOD = f'{{{TIME},"level":"error","event":"log.line_withheld","withheld":"x"}}'
WRONG = {
    "no-such-event": f'{{{TIME},"level":"error","event":"log.nothing","withheld":"x"}}',
    "no-event": f'{{{TIME},"level":"error"}}',
    "a-field-more": GOOD.replace("}", ',"more":1}'),
    "a-field-less": f'{{{TIME},"level":"error","event":"log.line_withheld"}}',
    "another-type": GOOD.replace('"x"', "5"),
    "another-level": GOOD.replace('"error"', '"info"'),
    "no-time": GOOD.replace("T03", " 03"),
    "no-object": "[1]",
    "no-json": "Traceback (most recent call last):",
    "empty": "",
}


@pytest.fixture
def watch(log_watch: Watch) -> Iterator[Watch]:
    """One of this test's own; what it sees is no fault of the run."""
    own = Watch()
    with own.on():
        yield own
    own.close()
    log_watch.faults()


def saying(folder: Path, text: str, *more: str) -> Process:
    """A process that is taken for a ``serve`` and writes ``text``, and ``more`` when it is told to."""
    program = "import signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
    for number, part in enumerate([text, *more]):
        program += "signal.sigwait([signal.SIGUSR1])\n" if number else ""
        program += f"sys.stdout.write({part!r}); sys.stdout.flush()\n"
    return Process([sys.executable, "-c", program, "serve"], folder, {})


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_line_of_a_process_is_seen(watch: Watch, tmp_path: Path, name: str) -> None:
    """Whatever is wrong with it, among right ones; and it is shown."""
    process = saying(tmp_path, f"{GOOD}\n{WRONG[name]}\n{GOOD}\n")
    assert await process.ended() == 0, process.err
    (fault,) = watch.faults()
    assert fault.startswith(f"{WRONG[name]}: ")
    assert watch.faults() == []


async def test_a_line_that_was_cut_short_is_none(watch: Watch, tmp_path: Path) -> None:
    """A process may be killed in the middle of one."""
    process = saying(tmp_path, f"{GOOD}\n{GOOD[:30]}")
    assert await process.ended() == 0, process.err
    assert watch.faults() == []


async def test_lines_are_looked_at_as_they_come(watch: Watch, tmp_path: Path) -> None:
    """Of a process that outlives a test, later ones too, also what the first look saw the beginning of."""
    wrong = WRONG["no-such-event"]
    process = saying(tmp_path, f"{GOOD}\n{wrong[:30]}", f"{wrong[30:]}\n")
    await until(lambda: len(process.out) == len(GOOD) + 31)
    assert watch.faults() == []
    process.signal(signal.SIGUSR1)
    assert await process.ended() == 0, process.err
    assert len(watch.faults()) == 1


@pytest.mark.parametrize("what", ["event", "value"])
def test_a_wrong_line_of_this_process_is_seen(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whatever stream it goes to; one for people is none."""
    fact: Any = LineWithheld("x")
    if what == "event":
        monkeypatch.setattr(LineWithheld, "event", "log.nothing")
    else:
        fact.withheld = 5
    LogSink(io.BytesIO(), log_format="console", level="info")(fact)
    assert watch.faults() == []
    LogSink(io.BytesIO(), log_format="json", level="info")(fact)
    (fault,) = watch.faults()
    assert '"event":"log.' in fault


def test_a_long_test_is_looked_at_on_the_way(watch: Watch) -> None:
    """What is wrong early in it is still told at its end, and lines do not pile up."""
    sink = log_watch.sink()
    fact: Any = LineWithheld("x")
    sink(LineWithheld(fact.withheld))
    fact.withheld = 5
    sink(fact)
    for _ in range(20_000):
        sink(LineWithheld("x"))
    assert len(watch._lines) < 10_000
    assert len(watch.faults()) == 1


# --- no way around it


def starts_without_lines(source: str) -> bool:
    """Whether a module starts a whole proxy in this process, and makes no lines of what it reports."""
    return "app.start(" in source and not re.search(r"\bLogSink\(|\blog_watch\.sink\(", source)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_every_proxy_in_this_process_makes_lines(path: Path) -> None:
    """Who starts one gives it a sink for them, so that they are held to the schema."""
    assert path == Path(__file__) or not starts_without_lines(path.read_text())


def test_a_proxy_that_makes_none_is_seen() -> None:
    """The rule above sees a start with nothing but a list of facts."""
    assert starts_without_lines("running = await app.start(settings, {}, emit=facts.append)")
    assert not starts_without_lines("emit = log_watch.sink()\nawait app.start(settings, {}, emit=emit)")


def test_a_serve_whose_lines_nobody_sees_is_a_fault(watch: Watch, tmp_path: Path) -> None:
    """Through a pipe, into nothing, or by way of a shell: it is said how to start it."""
    words = [str(PROGRAM), "serve", "--config", str(tmp_path / "none")]
    for command in (words, ["sh", "-c", " ".join(words)]):
        for out in (subprocess.PIPE, subprocess.DEVNULL):
            ran = subprocess.run(
                command, stdout=out, stderr=subprocess.DEVNULL, env=clean_environ(), check=False
            )
            assert ran.returncode == 2
    faults = watch.faults()
    assert len(faults) == 4
    assert all("have it write them to a file" in fault for fault in faults)


async def test_asyncio_is_no_way_around(watch: Watch, tmp_path: Path) -> None:
    """Nor is a process that it starts."""
    pipe = asyncio.subprocess.PIPE
    words = [str(PROGRAM), "serve", "--config", str(tmp_path / "none")]
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe, env=clean_environ())
    await process.communicate()
    assert len(watch.faults()) == 1


def test_lines_for_people_are_none(watch: Watch, tmp_path: Path) -> None:
    """At a terminal, and where the configuration says so."""
    with at_terminal("serve", "--config", str(tmp_path / "none")) as terminal:
        assert terminal.ended() == 2
    config = tmp_path / "config.toml"
    config.write_text('[log]\nformat = "console"\n')
    words = [
        sys.executable,
        "-c",
        "import sys; sys.stdout.write('ready\\n')",
        "serve",
        "--config",
        str(config),
    ]
    process = Process(words, tmp_path, {})
    process.kill()
    assert watch.faults() == []


@pytest.mark.parametrize(
    ("words", "is_one"),
    [
        ([PROGRAM, "serve"], True),
        ([sys.executable, "-m", "proxy", "serve", "--config", "x"], True),
        ([sys.executable, "-m", "tests.crashing", "published", "9", "serve"], True),
        (["taskset", "-c", "0", PROGRAM, "serve"], True),
        (["bash", "-c", "cd x && pleo-proxy serve --config x"], True),
        ("python -m proxy serve", True),
        ([PROGRAM, "tenants", "list"], False),
        ([PROGRAM, "demo"], False),
        ([sys.executable, "-c", "open('proxy.db.serve.lock')"], False),
        (["bash", "-c", "pleo-proxy tail serve.log"], False),
        (PROGRAM, False),
        (os.fsencode(PROGRAM), False),
    ],
)
def test_a_serve_is_known(words: Any, is_one: bool) -> None:
    """However it is started, and nothing else is taken for one."""
    assert is_serve(words) == is_one


PLANTED = """
    import io, sys
    from proxy.facts import LineWithheld
    from proxy.telemetry.logs import LogSink
    from tests.command import Process

    def test_a_sink_of_this_process():
        LogSink(io.BytesIO(), log_format="json", level="info")(LineWithheld(5))

    async def test_a_process(tmp_path):
        words = [sys.executable, "-c", "import sys; sys.stdout.write('out of place\\\\n')", "serve"]
        assert await Process(words, tmp_path, {}).ended() == 0

    def test_a_command_as_itself(tmp_path):
        words = [sys.executable, "-c", "import sys; sys.stdout.write('a table\\\\n')", "tenants", "list"]
        Process(words, tmp_path, {}).kill()
"""


def test_a_run_with_a_wrong_line_fails(tmp_path: Path) -> None:
    """It names the test and shows the line; what is no log may say what it likes."""
    planted = tmp_path / "test_planted.py"
    planted.write_text(dedent(PLANTED))
    options = ["-q", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider"]
    words = [sys.executable, "-m", "pytest", *options, str(planted)]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "3 passed, 2 errors" in ran.stdout
    assert "ERROR at teardown of test_a_sink_of_this_process" in ran.stdout
    assert "ERROR at teardown of test_a_process" in ran.stdout
    assert '"event":"log.line_withheld"' in ran.stdout
    assert "out of place: JSONDecodeError" in ran.stdout
