"""The benchmarks' own arithmetic, and that our proxy starts for them as it does for an operator."""

from __future__ import annotations

import os
import signal
import ssl
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import accounting, certificates, load, ours, plot, processes, report, targets
from benchmarks.__main__ import main
from benchmarks.footprint import Footprint
from benchmarks.load import Request
from benchmarks.machine import Machine
from benchmarks.peers import PEERS, Site
from benchmarks.processes import BenchmarkError
from benchmarks.ratios import TIMES, TO, Spread, differences, ratios, spread
from benchmarks.rounds import Measurement, Outcome, Subject, check_credential, order
from benchmarks.scenarios import DIRECT, NAMES, OURS, QUICK, SCENARIOS
from benchmarks.targets import Finding, Results, Target
from benchmarks.upstream import Endpoint
from benchmarks.workers import TwoWorkers

MACHINE = Machine(
    "A processor", 2, 8.0, "Linux 6", "3.11.7", "aiohttp 3", "2026-01-01", 0.1, {"nginx": "1.22"}
)


def measured(cpu_us: float, p50_ms: float = 1.0) -> Measurement:
    """A measurement of which only these figures matter."""
    return Measurement(cpu_us, 10_000, p50_ms, p50_ms * 2, 50)


# --- accounting


def test_cpu_time_is_the_first_figure() -> None:
    """Of ``schedstat`` only the time on a core counts, not the time of waiting for one."""
    assert accounting.nanoseconds("3042490 17 1\n") == 3042490


def test_a_command_with_parentheses_hides_no_parent() -> None:
    """The parent is found behind a command that holds spaces and parentheses."""
    assert accounting.parent_of("42 (a ) 7 (b) S 41 42 42 0 -1") == 41


def test_a_family_is_all_that_descends() -> None:
    """Grandchildren belong to it, siblings do not, in whatever order they are listed."""
    parents = {5: 4, 4: 3, 3: 1, 9: 1, 6: 3}
    assert accounting.family(3, parents) == {3, 4, 5, 6}


def test_spent_counts_new_threads_and_forgets_ended_ones() -> None:
    """A thread that began between two looks counts from zero; one that ended takes its time along."""
    before = {(1, 1): 100, (1, 2): 50}
    after = {(1, 1): 130, (1, 3): 7}
    assert accounting.spent(before, after) == 37


def test_memory_is_read_from_the_status() -> None:
    """Figures are in KiB; a process that has ended has none."""
    status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n"
    assert accounting.kilobytes(status, "VmRSS") == 1024
    assert accounting.kilobytes("Name:\tx\n", "VmRSS") == 0


def test_work_shows_in_the_cpu_time_of_this_process() -> None:
    """What this process did between two looks is seen, and its memory too."""
    before = accounting.cpu_times(os.getpid())
    sum(range(200_000))
    assert accounting.spent(before, accounting.cpu_times(os.getpid())) > 100_000
    assert accounting.memory_mb(os.getpid()) > 1


# --- load


def test_the_load_generators_figures_are_parsed() -> None:
    """Our line is found behind whatever wrk prints, in the units of the tables."""
    line = '{"requests":1000,"duration_us":2000000,"bad":0,"p50_us":1500,"p99_us":9000}'
    loaded = load.parse(f"Running 2s test\n  Latency  1ms\n{line}\n")
    assert (loaded.requests, loaded.per_second, loaded.p50_ms, loaded.p99_ms) == (1000, 500, 1.5, 9)


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("unable to connect", id="no-figures"),
        pytest.param('{"requests":9,"duration_us":1,"bad":1,"p50_us":1,"p99_us":1}', id="a-failed-request"),
        pytest.param('{"requests":0,"duration_us":1,"bad":0,"p50_us":1,"p99_us":1}', id="no-request"),
    ],
)
def test_a_run_that_does_not_count_is_an_error(output: str) -> None:
    """Refusals are cheaper than answers, so a run with a single one must not pass for a fast one."""
    with pytest.raises(BenchmarkError):
        load.parse(output)


def test_a_script_sends_a_body_of_the_size_asked_for() -> None:
    """Method, body and the walk over tenants reach the load generator."""
    script = Request("/t{}/v2/x", "POST", 1024, tenants=3).script()
    assert 'wrk.method = "POST"' in script
    assert 'string.rep("1", 1022)' in script
    assert '"/t" .. n .. "/v2/x"' in script


# --- statistics and verdicts


def test_rounds_alternate() -> None:
    """Each round runs in the opposite order of the one before."""
    assert [order("abc", number) for number in range(3)] == [list("abc"), list("cba"), list("abc")]


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that is twice as slow in one round changes no ratio."""
    mine, theirs = [measured(50), measured(100)], [measured(100), measured(200)]
    assert ratios(mine, theirs, lambda m: m.cpu_us) == [0.5, 0.5]
    assert differences(mine, theirs, lambda m: m.cpu_us) == [-50, -100]
    with pytest.raises(ValueError, match="argument"):
        ratios(mine, theirs[:1], lambda m: m.cpu_us)


def test_a_spread_is_median_and_range() -> None:
    """One wild round moves the range and not the median."""
    assert spread([3, 1, 50]) == Spread(3, 1, 50)


@pytest.mark.parametrize(
    ("target", "values", "verdict"),
    [
        pytest.param(Target("w", "f", 0.5), [0.4, 0.5, 0.9], "ok", id="at-the-bound"),
        pytest.param(Target("w", "f", 0.5), [0.4, 0.51, 0.52], "short", id="just-above"),
        pytest.param(Target("w", "f", 1.8, at_least=True), [1.9], "ok", id="at-least"),
        pytest.param(Target("w", "f", 1.8, at_least=True), [1.7], "short", id="less-than-at-least"),
        pytest.param(Target("w", "f", 1), [], targets.NOT_MEASURED, id="nothing-measured"),
    ],
)
def test_a_verdict_follows_the_median(target: Target, values: list[float], verdict: str) -> None:
    """What misses its target is called short, by however little; what was not measured is called that."""
    assert Finding(target, values).verdict == verdict


def outcomes() -> Results:
    """A run of two scenarios in which Envoy is missing and Go failed."""
    series = {OURS: [measured(60), measured(66)], "nginx": [measured(20), measured(22)]}
    latency = {OURS: [measured(60, 0.3)], DIRECT: [measured(0, 0.1)]}
    return Results(
        outcomes={
            "get": Outcome(series, {"go": "failed: it did not start"}),
            "latency": Outcome(latency, {}),
        },
        footprint=Footprint(55, 70, 250),
        workers=TwoWorkers(costs=[1.0, 1.1], gains=(), obstacle="not measured: two cores"),
        missing={"envoy": "missing: install it"},
        broken={"tls": "failed: no certificate"},
    )


def test_findings_name_what_is_missing() -> None:
    """Each target has a figure or says why it has none."""
    found = {(each.target.work, each.target.figure): each for each in targets.findings(outcomes())}
    get = "GET 1 KB, 64 connections"
    nginx = found[get, "CPU ÷ nginx with a JSON log"]
    assert (nginx.values, nginx.verdict) == ([3.0, 3.0], "short")
    assert "install it" in found[get, "CPU ÷ Envoy with credential_injector, RBAC, JSON log"].verdict
    assert "did not start" in found[get, "CPU ÷ Go ReverseProxy, bare"].verdict
    assert found["the same over TLS to the upstream", "CPU ÷ Go"].verdict == "failed: no certificate"
    added = found["GET 1 KB, 1 connection", "p50 added to the upstream's"]
    assert added.values == pytest.approx([0.2])
    assert [found["memory", f].verdict for f in ("idle", "512 connections")] == ["ok", "ok"]
    assert found["two workers", "requests/s ÷ one worker"].verdict == "not measured: two cores"
    assert found["two workers", "CPU of a request ÷ with one"].verdict == "ok"
    assert found["10,000 tenants", "start-up"].verdict == targets.NOT_MEASURED


# --- what comes out


def test_the_report_has_every_figure_and_every_gap() -> None:
    """The tables are whole Markdown and name the proxies without figures."""
    text = report.render(outcomes(), MACHINE, rounds=2, seconds=1, whole=True)
    assert "A processor, 2 cores, 8 GB, Linux 6, Python 3.11.7" in text
    cells = f"21 (20{TO}22) | 3.00 {TIMES}"
    assert f"| nginx 1.22: fixed header, JSON access log | {cells} |" in text
    assert "| Envoy | missing: install it |" in text
    assert "| Go ReverseProxy | failed: it did not start |" in text
    assert "ours adds 0.20, 0.40 ms" in text
    assert "**short**" in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_only_what_was_measured_is_printed() -> None:
    """A run of some scenarios does not print the targets of the others."""
    text = report.render(outcomes(), MACHINE, rounds=2, seconds=1, whole=False)
    assert targets.NOT_MEASURED not in text
    assert "failed: no certificate" in text


def test_prose_outside_the_markers_stays(tmp_path: Path) -> None:
    """Writing twice leaves one result and every other word of the page."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for text in ("first", "second"):
        report.write(page, text)
    assert page.read_text() == f"before\n{report.BEGIN}\n\nsecond\n\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="lacks"):
        report.replace_between("a page without markers", "text")


def test_a_plot_is_well_formed_and_in_proportion() -> None:
    """Equal factors are equal lengths, labels are escaped, and each row has its dot."""
    rows = [plot.Row(f"<{ratio}>", Spread(ratio, ratio, ratio)) for ratio in (1, 2, 4)]
    root = ET.fromstring(plot.render("a & b", "axis", rows))
    dots = [float(dot.attrib["cx"]) for dot in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert dots[1] - dots[0] == pytest.approx(dots[2] - dots[1])
    assert "<4>" in {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    with pytest.raises(ValueError, match="above zero"):
        plot.render("t", "a", [])


# --- scenarios and the command


def test_scenarios_are_named_once_and_the_quick_ones_exist() -> None:
    """A name on the command line means one thing."""
    assert len(set(NAMES)) == len(NAMES)
    scenarios, peers = QUICK
    wanted = next(each for each in SCENARIOS if (each.name,) == scenarios)
    assert set(peers) <= set(wanted.peers)


def test_an_unknown_name_is_refused() -> None:
    """A misspelt peer is no peer that is silently left out."""
    ran = CliRunner().invoke(main, ["--peers", "ngnix"])
    assert ran.exit_code == 2
    assert "ngnix: not among nginx" in ran.output


def test_help_names_every_option() -> None:
    """``--help`` documents the options."""
    text = CliRunner().invoke(main, ["--help"]).output
    assert all(f"--{name}" in text for name in ("quick", "peers", "scenarios", "rounds", "seconds", "write"))


# --- processes


def test_a_process_and_its_children_end_with_the_block(tmp_path: Path) -> None:
    """Even one that ignores the request to end, and its child."""
    script = "trap '' TERM; sleep 600 & echo $!; wait; wait"
    command = ["/bin/sh", "-c", script]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "END_S", 0.2)
        with processes.running(command, cores=usable_cores(), folder=tmp_path) as process:
            while not (tmp_path / "stdout").read_text().strip():
                assert process.poll() is None
    assert process.returncode == -signal.SIGKILL
    child = int((tmp_path / "stdout").read_text())
    assert not is_running(child)


def is_running(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def usable_cores() -> list[int]:
    """The cores of this process."""
    return sorted(os.sched_getaffinity(0))


def test_a_process_that_ends_at_once_says_why(tmp_path: Path) -> None:
    """The error carries the last of what it said."""
    command = ["/bin/sh", "-c", "echo no such luck >&2; exit 1"]
    with (
        processes.running(command, cores=usable_cores(), folder=tmp_path) as process,
        pytest.raises(BenchmarkError, match="no such luck"),
    ):
        processes.wait_until_listening(processes.free_port(), process, tmp_path)


def test_a_failing_command_says_why() -> None:
    """So does the error of a command that was to succeed."""
    with pytest.raises(BenchmarkError, match="no such luck"):
        processes.output_of([sys.executable, "-c", "import sys; sys.exit('no such luck')"])


def test_logs_are_emptied_under_who_writes_them(tmp_path: Path) -> None:
    """Logs go, configuration stays, and what is written next stands at the beginning."""
    (tmp_path / "config").write_text("kept")
    with (tmp_path / "stdout").open("ab", buffering=0) as log:
        log.write(b"old line\n")
        processes.drop_logs(tmp_path)
        log.write(b"new line\n")
    assert (tmp_path / "stdout").read_text() == "new line\n"
    assert (tmp_path / "config").read_text() == "kept"


def test_the_authoritys_certificates_are_accepted(tmp_path: Path) -> None:
    """The upstream's certificate and key fit, and the authority can be trusted."""
    made = certificates.make(tmp_path)
    ssl.create_default_context(cafile=str(made.authority))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.certificate, made.key)


ECHO = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Echo(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.headers["Authorization"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Endpoint]:
    """A server that answers with the credential it got."""
    port, folder = processes.free_port(), tmp_path / "upstream"
    folder.mkdir()
    command = [sys.executable, "-c", ECHO, str(port)]
    with processes.running(command, cores=usable_cores(), folder=folder) as process:
        processes.wait_until_listening(port, process, folder)
        yield Endpoint(port)


def test_our_proxy_serves_with_stored_grants(upstream: Endpoint, tmp_path: Path) -> None:
    """The real program starts with two tenants connected, adds the credential, and ends with the block."""
    with ours.serving(tmp_path, upstream, usable_cores(), names=["a", "b"]) as serving:
        for name in ("a", "b"):
            check_credential(Subject(name, f"{serving.url}/{name}", serving.pid, tmp_path))
        assert serving.started_s > 0
    assert not is_running(serving.pid)


def test_a_peer_is_started_and_checked(upstream: Endpoint, tmp_path: Path) -> None:
    """The peer that is always there adds the credential; one that is gone is found out."""
    peer = PEERS["naive"]
    program = peer.find()
    assert program is not None
    site = Site(program, tmp_path, processes.free_port(), upstream)
    with processes.running(peer.command(site), cores=usable_cores(), folder=tmp_path) as process:
        processes.wait_until_listening(site.port, process, tmp_path)
        check_credential(Subject("naive", f"http://127.0.0.1:{site.port}", process.pid, tmp_path))
    with pytest.raises(BenchmarkError, match="does not answer"):
        check_credential(Subject("naive", f"http://127.0.0.1:{site.port}", process.pid, tmp_path))
