"""``tail``: files, pipes and terminals, as they come and as they go."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, cast

import pytest

from proxy.cli import tail
from proxy.cli.following import Arrived
from proxy.loglines import Pick, parsed
from tests.command import PROGRAM, clean_environ, run
from tests.terminal import PATIENCE_S, at_terminal
from tests.test_loglines import HOSTILE


def log_line(second: int, event: str = "token.refreshed", **fields: object) -> str:
    """A line of the log, with its end."""
    line = {"timestamp": f"2026-01-31T14:00:{second:02}.000000Z", "level": "info", "event": event, **fields}
    return json.dumps(line, ensure_ascii=False) + "\n"


def request(second: int, status: int = 200, tenant: str = "acme", **fields: object) -> str:
    """A line about a request."""
    told = {
        "request_id": f"r{second}",
        "tenant": tenant,
        "method": "GET",
        "path": f"/{tenant}/v2/employees",
        "status": status,
        "outcome": "answered",
        "upstream_status": status,
        "duration_ms": 12,
        "upstream_ms": 10,
        "retried": False,
        "generation": 3,
        "bytes_in": 0,
        "bytes_out": 7,
        "caller": "127.0.0.1",
    }
    return log_line(second, "request.finished", **{**told, **fields})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with what an operator meets: requests, a failure, a crash."""
    path = tmp_path / "proxy.log"
    path.write_text(
        request(1)
        + request(2)
        + request(3, 401)
        + "Traceback\n\n"
        + log_line(4, "grant.needs_reauth", level="error", tenant="acme", reason="invalid grant", scopes=[])
        + request(5, tenant="globex")
    )
    return path


def shown(*arguments: object) -> list[str]:
    """What ``tail`` prints, line by line."""
    ran = run("tail", *map(str, arguments))
    assert (ran.code, ran.err) == (0, ""), ran
    return ran.out.splitlines()


# --- what is shown


def test_the_log_is_shown_in_columns(log: Path) -> None:
    """Without a terminal there are plain columns, repeats as a number, and foreign lines as they are."""

    def asked(second: int, tenant: str, status: int) -> str:
        return (
            f"2026-01-31T14:00:0{second}.000000Z info    request.finished       {tenant:<12} "
            f"GET /{tenant}/v2/employees {status} answered 12 ms "
            f"request_id=r{second} upstream_status={status} caller=127.0.0.1"
        )

    assert shown(log) == [
        asked(1, "acme", 200),
        "2026-01-31T14:00:02.000000Z … and 1 more like it",
        asked(3, "acme", 401),
        "Traceback",
        '2026-01-31T14:00:04.000000Z error   grant.needs_reauth     acme         reason="invalid grant"',
        asked(5, "globex", 200),
    ]


def test_nothing_is_folded_on_request(log: Path) -> None:
    """With ``--all`` each line is shown."""
    assert [line for line in shown(log, "--all") if "request_id=r2" in line]


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (("--tenant", "globex"), [5]),
        (("--event", "grant.*"), [4]),
        (("--event", "grant.*", "--event", "request.finished", "--tenant", "globex"), [5]),
        (("--status", "401"), [3]),
        (("--status", "2xx"), [1, 2, 5]),
        (("--level", "warning"), [4]),
        (("--request-id", "r3", "--request-id", "r5"), [3, 5]),
        (("--since", "2026-01-31T14:00:04"), [4, 5]),
        (("--since", "2026-01-31T15:00:04+01:00"), [4, 5]),
        (("--since", "2026-02-01"), []),
        (("--since", "20260131T140004Z"), [4, 5]),
        ((), [1, 2, 3, 4, 5]),
    ],
)
def test_matching_lines_are_passed_on(options: tuple[str, ...], seconds: list[int], log: Path) -> None:
    """Lines are picked by each option, and with ``--json`` go on as they came."""
    lines = [each for each in log.read_text().splitlines() if each.startswith("{")]
    wanted = [each for each in lines if int(json.loads(each)["timestamp"][17:19]) in seconds]
    assert shown(log, "--json", *options) == wanted


@pytest.mark.parametrize(("age", "count"), [("90s", 1), ("2m", 2), ("2h", 3), ("2d", 4)])
def test_lines_since_an_age(age: str, count: int, tmp_path: Path) -> None:
    """An age goes back from now, in seconds, minutes, hours or days."""
    now = datetime.now(UTC)
    ages = [timedelta(days=3), timedelta(days=1), timedelta(hours=1), timedelta(seconds=100), timedelta()]
    times = [(now - each).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for each in ages]
    path = tmp_path / "proxy.log"
    path.write_text("".join(log_line(0, timestamp=each) for each in times))
    assert len(shown(path, "--json", "--since", age)) == count


def test_an_instant_is_meant_as_the_log_has_it(log: Path) -> None:
    """An instant without an offset is in UTC, wherever the operator is."""
    command = [str(PROGRAM), "tail", "--json", "--since", "2026-01-31T14:00:04", str(log)]
    environ = {**clean_environ(), "TZ": "AAA-9"}
    ran = subprocess.run(command, stdout=subprocess.PIPE, env=environ, check=True)
    assert len(ran.stdout.splitlines()) == 2


def test_what_came_before_the_first_instant_is_no_news(tmp_path: Path) -> None:
    """With ``--since`` a foreign line counts as written when the line before it was."""
    path = tmp_path / "proxy.log"
    path.write_text("old\n" + log_line(1) + "older\n" + log_line(9) + "newer\n")
    assert [line[:6] for line in shown(path, "--since", "2026-01-31T14:00:05")] == ["2026-0", "newer"]


def test_logs_of_several_instances_are_one(tmp_path: Path) -> None:
    """Lines of several files come in the order of time, each with the name of its file."""
    first, second = tmp_path / "a.log", tmp_path / "second.log"
    first.write_text(log_line(1) + "Traceback\n" + log_line(4, tenant="acme"))
    second.write_text(log_line(2) + log_line(3) + log_line(5))
    lines = shown(first, second)
    assert [line[17:19] + line[27:39] for line in lines if line.startswith("2")] == [
        "01 a.log      ",
        "02 second.log ",
        "03            ",
        "04 a.log      ",
        "05 second.log ",
    ]
    assert lines[1] == "a.log      Traceback"


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Where the names of files are the same, their paths are shown."""
    paths = [tmp_path / name / "proxy.log" for name in ("one", "two")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        path.write_text(log_line(number))
    assert [str(path) in line for path, line in zip(paths, shown(*paths), strict=True)] == [True, True]


def test_fields_that_nobody_foresaw_do_no_harm(tmp_path: Path) -> None:
    """Lines of any form are shown, and no byte that a terminal might obey leaves."""
    path = tmp_path / "proxy.log"
    fields = {"timestamp": 7, "level": [], "event": {"a": HOSTILE}, "tenant": HOSTILE, HOSTILE: HOSTILE}
    path.write_bytes(
        json.dumps(fields, ensure_ascii=False).encode()
        + b"\n\xff\x1b[2J\x00\n[bold]not markup[/bold] :smile:\n{}\n"
        + json.dumps({"event": "request.finished", "status": HOSTILE}).encode()
    )
    ran = run("tail", str(path))
    assert ran.code == 0
    assert all(line.isprintable() for line in ran.out.split("\n"))
    assert "\\x1b]0;mine\\x07" in ran.out
    assert r"\xff\x1b[2J\x00" in ran.out
    assert "[bold]not markup[/bold] :smile:" in ran.out


def test_a_line_without_end_is_not_kept_whole(tmp_path: Path) -> None:
    """What has no end after a mebibyte is shown in pieces, so that no log fills the memory."""
    path = tmp_path / "proxy.log"
    path.write_text("x" * (5 << 18) + "\nend")
    lines = shown(path)
    assert len(lines) == 3
    assert "".join(lines) == "x" * (5 << 18) + "end"


@pytest.mark.parametrize(
    ("arguments", "item", "remedy"),
    [
        (("no.log",), "log no.log: No such file", "name a file that this user can read"),
        (("--status", "6xx"), "'6xx' is neither a status", "5xx"),
        (("--status", "5xxx"), "'5xxx'", "401"),
        (("--since", "yesterday"), "'yesterday' is neither an age", "90s, 15m, 2h, 3d"),
        (("--since", "999999d"), "'999999d'", "2026-01-31T14:00"),
        (("--level", "loud"), "'loud'", "'warning'"),
        (("--count", "status", "-f", "x"), "--count is of what there is", "leave out --follow"),
        (("--count", "status", "--all", "x"), "--count is of what there is", "leave out --all"),
        (("--config", "x"), "--config", "tail --help"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: tuple[str, ...], item: str, remedy: str) -> None:
    """A file that is not there and options that make no sense are told with what to do."""
    line = run("tail", *arguments).refusal(2)
    assert item in line
    assert remedy in line


def test_lines_are_counted(log: Path) -> None:
    """With ``--count`` there is a table of what the picked lines say, and no line."""
    assert [line.split() for line in shown(log, "--event", "request.finished", "--count", "tenant")] == [
        ["count", "tenant", "first", "at", "last", "at"],
        ["3", "acme", "2026-01-31T14:00:01.000000Z", "2026-01-31T14:00:03.000000Z"],
        ["1", "globex", "2026-01-31T14:00:05.000000Z", "2026-01-31T14:00:05.000000Z"],
    ]


def test_counts_are_json_too(log: Path) -> None:
    """With ``--json`` the counts are an array, of picked lines only."""
    rows = json.loads("\n".join(shown(log, "--status", "4xx", "--count", "status", "--json")))
    assert [(row["count"], row["status"]) for row in rows] == [(1, "401")]


def test_a_field_that_no_line_has_is_told(log: Path) -> None:
    """A misspelt field is no table without rows."""
    ran = run("tail", str(log), "--count", "caler", "--count", "statsu")
    assert (ran.code, ran.out, ran.err) == (0, "", "No such line has a field caler or statsu.\n")


# --- as it grows


class Tailing:
    """``tail`` as a process, whose lines are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.out: IO[str] = process.stdout
        assert process.stdin is not None
        self.input: IO[str] = process.stdin

    def next(self) -> str:
        """The next line, without its end."""
        return self.out.readline().rstrip("\n")

    def ended(self) -> tuple[int, str]:
        """The exit code, and what it said on standard error."""
        assert self.process.stderr is not None
        code = self.process.wait(PATIENCE_S)
        return code, self.process.stderr.read()


@contextmanager
def tailing(*arguments: object) -> Iterator[Tailing]:
    """``tail`` with these arguments and pipes all around."""
    with subprocess.Popen(
        [PROGRAM, "tail", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=clean_environ(),
    ) as process:
        hangs = threading.Timer(PATIENCE_S, process.kill)
        hangs.start()
        try:
            yield Tailing(process)
        finally:
            hangs.cancel()
            process.kill()


def append(path: Path, text: str) -> None:
    """Write as a log is written."""
    with path.open("a") as file:
        file.write(text)


def test_a_file_is_followed_through_its_rotations(tmp_path: Path) -> None:
    """Following shows the last ten lines and what comes, also once the file was renamed or emptied."""
    path = tmp_path / "proxy.log"
    path.write_text("".join(log_line(second) for second in range(12)))
    with tailing("-f", "--json", path) as tail:
        assert [tail.next() + "\n" for _ in range(10)] == [log_line(second) for second in range(2, 12)]
        append(path, log_line(20)[:30])
        append(path, log_line(20)[30:])
        assert tail.next() + "\n" == log_line(20)
        path.rename(tmp_path / "proxy.log.1")
        append(tmp_path / "proxy.log.1", log_line(21) + "no end")
        assert tail.next() + "\n" == log_line(21)
        path.write_text(log_line(22))
        assert tail.next() + "\n" == log_line(22)
        os.truncate(path, 0)
        append(path, log_line(3, "a"))
        assert tail.next() + "\n" == log_line(3, "a")
        tail.process.send_signal(signal.SIGINT)
        assert tail.ended() == (0, "")


def test_following_since_then_begins_there(log: Path) -> None:
    """With ``--since`` a followed file is shown from that instant on, however long ago."""
    log.write_text("".join(log_line(second) for second in range(30)))
    with tailing("-f", "--json", "--since", "2026-01-31T14:00:02", log) as tail:
        assert tail.next() + "\n" == log_line(2)


def test_standard_input_is_read_as_it_comes(tmp_path: Path) -> None:
    """Lines are shown when they come and repeats when nothing else does, up to the end of the pipe."""
    with tailing() as tail:
        tail.input.write(request(1))
        assert " request_id=r1 " in tail.next()
        tail.input.write(request(2))
        assert tail.next() == "2026-01-31T14:00:02.000000Z … and 1 more like it"
        tail.input.write("no end")
        tail.input.close()
        assert tail.next() == "no end"
        assert tail.ended() == (0, "")


def test_a_silent_pipe_holds_up_no_other(tmp_path: Path) -> None:
    """Several pipes are read side by side, whichever has lines."""
    pipes = [tmp_path / "a", tmp_path / "b"]
    for pipe in pipes:
        os.mkfifo(pipe)
    ends = [os.open(pipe, os.O_RDWR) for pipe in pipes]
    with tailing("--json", *pipes) as tail:
        for second, end in ((1, ends[1]), (2, ends[0]), (3, ends[1])):
            os.write(end, log_line(second).encode())
            assert tail.next() + "\n" == log_line(second)
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_leaves_ends_it(options: tuple[str, ...], log: Path) -> None:
    """When nobody reads any more it ends well and silently, though the log is quiet."""
    with tailing("-f", *options, log) as tail:
        assert tail.next()
        tail.out.close()
        assert tail.ended() == (0, "")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_output_without_a_reader_is_no_failure(options: tuple[str, ...], log: Path) -> None:
    """What is still in a buffer when the reader has gone is not told at the end of the process either."""
    reader, writer = os.pipe()
    os.close(reader)
    environ = {**clean_environ(), "PYTHONUNBUFFERED": ""}  # so that there is a buffer
    command = [str(PROGRAM), "tail", *options, str(log)]
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environ, check=False)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_reader_that_takes_a_line_of_many_ends_it(log: Path) -> None:
    """A pipe that breaks in the middle of a long log is no failure either."""
    log.write_text("".join(request(second % 60) + log_line(second % 60) for second in range(5000)))
    with tailing(log) as tail:
        assert tail.next()
        tail.out.close()
        assert tail.ended() == (0, "")


class Batches:
    """A source of which something comes at each look, and then nothing more."""

    name, waits_on = "a", None

    def __init__(self, *batches: list[str]) -> None:
        self._batches = list(batches)

    @property
    def ended(self) -> bool:
        return not self._batches

    def arrived(self) -> Iterator[Arrived]:
        for text in self._batches.pop(0):
            yield Arrived("", "a", parsed(text.encode()))


def test_a_repetition_that_goes_on_is_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Repeats are told while they go on after a time, and else only when a look brings nothing."""
    batches = [[request(1)], [request(2)], [request(3)], [], [request(4)], []]
    told = {}
    for after_s in (60.0, -1.0):
        monkeypatch.setattr(tail, "_TELL_S", after_s)
        screen = tail._Columns(is_folding=True, source_width=0)
        tail._show(cast("Any", [Batches(*batches)]), Pick(), "", screen)
        told[after_s] = re.findall(r"and (\d) more", capsys.readouterr().out)
    assert told == {60.0: ["2", "1"], -1.0: ["1", "1", "1"]}


def test_a_closed_input_is_no_log() -> None:
    """A process without standard input says that there is nothing to read."""
    command = ["sh", "-c", '"$0" tail <&-', str(PROGRAM)]
    ran = subprocess.run(command, capture_output=True, text=True, env=clean_environ(), check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "there is no log to read" in ran.stderr


def test_an_output_of_another_encoding_gets_escapes(tmp_path: Path) -> None:
    """Letters that the output cannot show are escapes, and no reason to end."""
    path = tmp_path / "proxy.log"
    path.write_text(log_line(1, x="ä"), "utf-8")
    environ = {**clean_environ(), "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([PROGRAM, "tail", path], capture_output=True, text=True, env=environ, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.endswith(" x=\\xe4\n")


def test_the_name_of_a_file_does_no_harm(tmp_path: Path) -> None:
    """The name of a file is shown with escapes."""
    paths = [tmp_path / name for name in ("a\x1b[2J", "b")]
    for path in paths:
        path.write_text(log_line(1))
    assert [line.isprintable() and r"a\x1b[2J" in line for line in shown(*paths)] == [True, False]


# --- at a terminal


def test_a_terminal_gets_colours_and_no_harm(tmp_path: Path) -> None:
    """On a terminal words are coloured, foreign lines dimmed, and nothing of the log is obeyed."""
    path = tmp_path / "proxy.log"
    path.write_text(request(1, 503) + f"{HOSTILE}\n" + log_line(2, level="error", tenant="acme", x=HOSTILE))
    with at_terminal("tail", str(path)) as terminal:
        assert terminal.ended() == 0
    assert "\x1b[1;31m503 answered" in terminal.written
    assert "\x1b[1;31merror" in terminal.written
    assert "\x1b[2m\\x1b]0;mine" in terminal.written
    assert all(line.isprintable() for line in terminal.plain.split("\n"))
    assert terminal.plain.startswith("14:00:01.000 info    request.finished       acme ")


def test_json_elsewhere_is_passed_on_byte_for_byte(tmp_path: Path) -> None:
    """Without a terminal a line is passed on as it is, odd characters and blanks too."""
    path = tmp_path / "proxy.log"
    path.write_text('{"a":\t"\x9b31m\u202eä"}\n', "utf-8")
    ran = subprocess.run(
        [PROGRAM, "tail", "--json", path], stdout=subprocess.PIPE, env=clean_environ(), check=True
    )
    assert ran.stdout == path.read_bytes()


def test_a_terminal_gets_json_with_escapes(tmp_path: Path) -> None:
    """With ``--json`` a terminal gets the same objects, with escapes for what it might obey."""
    path = tmp_path / "proxy.log"
    path.write_text(log_line(2, x="\x9b31m\u202e"), "utf-8")
    with at_terminal("tail", "--json", str(path), columns=500) as terminal:
        assert terminal.ended() == 0
    assert all(line.isprintable() for line in terminal.written.split("\r\n"))
    assert json.loads(terminal.written) == json.loads(path.read_text("utf-8"))


def test_ctrl_c_ends_it_well(log: Path) -> None:
    """Ctrl-C is how one stops following, so it is no failure, and leaves no trace."""
    with at_terminal("tail", "-f", str(log)) as terminal:
        terminal.until("request_id=r5")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ended() == 0
    assert "Traceback\n14:00" in terminal.plain
    assert terminal.plain.endswith("caller=127.0.0.1\n")


def test_a_person_is_asked_for_a_log() -> None:
    """Without a file at a terminal there is nothing to read, and it says so."""
    with at_terminal("tail") as terminal:
        assert terminal.ended() == 2
    assert "there is no log to read; name a FILE, or pipe the log in" in terminal.plain
