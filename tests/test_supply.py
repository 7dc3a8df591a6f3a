"""What comes from elsewhere: pinned by hashes, under licences that were accepted, listed, and asked about."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from supply import licences, locks, sbom
from supply.audit import SERVICE, Exit, audit, judge
from supply.locks import DEVELOP, EXTRAS, ROOT, RUN, normal, pinned, read

LOCKS = (RUN, EXTRAS, DEVELOP)

# --- pinned


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_is_pinned_by_hashes_and_no_index_is_named(path: Path) -> None:
    """A lock file has packages with one version and hashes, and nothing else."""
    assert len(read(path)) > 30
    assert all(each.hashes for each in read(path).values())


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param("click==8.5.1", id="no-hash"),
        pytest.param("click==8.5.1 --hash=sha256:abc", id="short-hash"),
        pytest.param("click==8.5.1 --hash=md5:" + "a" * 64, id="weak-hash"),
        pytest.param("click>=8.5.1 --hash=sha256:" + "a" * 64, id="range"),
        pytest.param("click --hash=sha256:" + "a" * 64, id="no-version"),
        pytest.param("--index-url https://packages.example", id="index"),
        pytest.param("-r other.txt", id="other-file"),
        pytest.param("-e .", id="editable"),
        pytest.param("click @ https://packages.example/click.whl --hash=sha256:" + "a" * 64, id="url"),
        pytest.param("click==8 --hash=sha256:" + "a" * 64 + " --index-url https://x.example", id="option"),
    ],
)
def test_anything_else_in_a_lock_file_is_seen(entry: str) -> None:
    """The reader of lock files takes no entry that would let in what was not meant."""
    with pytest.raises(ValueError, match="one version and hashes"):
        pinned(entry)


def test_a_package_that_is_named_twice_is_seen(tmp_path: Path) -> None:
    """Two entries of one package, however spelt, are no lock."""
    path = tmp_path / "twice.lock"
    path.write_text("".join(f"{name}==1 \\\n    --hash=sha256:{'a' * 64}\n" for name in ("a-b", "A_b")))
    with pytest.raises(ValueError, match="named twice"):
        read(path)


def test_what_runs_is_what_was_tested() -> None:
    """Each package has the same version and the same hashes in all lock files that name it."""
    developed = read(DEVELOP)
    for path in (RUN, EXTRAS):
        assert {name: each for name, each in read(path).items() if developed.get(name) != each} == {}
    assert read(RUN).keys() < read(EXTRAS).keys()


def test_every_direct_dependency_is_locked() -> None:
    """What ``pyproject.toml`` asks for, the extras included, stands in the lock files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    for wanted, path in ((project["dependencies"], RUN), (extras, EXTRAS)):
        names = {normal(re.split(r"[\s<>=\[]", each)[0]) for each in wanted}
        assert names <= read(path).keys()


INSTALLS = re.compile(r"(?:\bpip|\$\(PIP\))\s+install\b([^\n`&]*)")
TAKES_NOTHING_FROM_AN_INDEX = "--no-deps --no-build-isolation "
RESOLVER = "uv"
"""Writes the lock files, so it cannot be in them; nothing of it is installed where the program runs."""


def installs(path: Path) -> list[str]:
    """The arguments of each call of pip in a file that takes something from an index."""
    text = path.read_text().replace("\\\n", " ")
    found = [arguments.strip() for arguments in INSTALLS.findall(text)]
    return [each for each in found if not each.startswith(TAKES_NOTHING_FROM_AN_INDEX) and each != RESOLVER]


def test_pip_takes_nothing_without_hashes() -> None:
    """Every call of pip that we make or advise names a lock file and asks for its hashes."""
    files = [ROOT / "Makefile", ROOT / "Dockerfile", ROOT / ".ci" / "run", *ROOT.glob("*.md")]
    files += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "proxy").rglob("*.py")]
    calls = {(path.name, call) for path in files for call in installs(path)}
    assert {name for name, _ in calls} >= {
        "Makefile",
        "Dockerfile",
        "install.md",
        "operating.md",
        "__init__.py",
    }
    wrong = [
        each for each in calls if not re.match(r"--require-hashes -r requirements(-\w+)?\.lock\b", each[1])
    ]
    assert wrong == []


# --- licences


def test_the_list_of_licences_is_that_of_the_lock() -> None:
    """``docs/licences.md`` is what ``make licences`` writes: the packages of the locks, as installed."""
    assert licences.PAGE.read_text() == licences.page(), "make it anew with `make licences`"
    rows = re.findall(r"^\| ([\w-]+) \| (\S+) \| .+ \| (.+) \|$", licences.PAGE.read_text(), re.MULTILINE)
    assert {name for name, _, comes in rows if comes == "the proxy"} == read(RUN).keys()
    assert {name: version for name, version, _ in rows if name != "package"} == {
        name: each.version for name, each in read(EXTRAS).items()
    }


def test_every_licence_was_accepted() -> None:
    """No package comes under a licence that nobody has looked at."""
    refused = {
        each.name: unaccepted
        for each in licences.declared(read(EXTRAS))
        if (unaccepted := licences.unaccepted(each.licence))
    }
    assert refused == {}


@pytest.mark.parametrize(
    ("licence", "unaccepted"),
    [
        ("MIT", []),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", []),
        ("Apache Software License; BSD License", []),
        ("MIT OR GPL-3.0-only", ["GPL-3.0-only"]),
        ("(AGPL-3.0-only) AND MIT", ["AGPL-3.0-only"]),
        ("UNKNOWN", ["UNKNOWN"]),
        ("MIT-ish", ["MIT-ish"]),
    ],
)
def test_each_part_of_a_licence_counts(licence: str, unaccepted: list[str]) -> None:
    """One part that was not accepted is enough, whatever stands beside it."""
    assert licences.unaccepted(licence) == unaccepted


def test_a_list_of_what_is_not_installed_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is locked and not installed is no package without a licence."""
    monkeypatch.setattr(licences, "declared", lambda _: [licences.Licensed("click", "0", "MIT")])
    with pytest.raises(ValueError, match=r"requirements-extras\.lock"):
        licences.page()


# --- the bill of materials


def test_the_bill_of_materials_has_every_locked_package(tmp_path: Path) -> None:
    """Each package stands in it with version, purl and hashes; the same lock file gives the same bytes."""
    first, again = tmp_path / "build" / "first.json", tmp_path / "again.json"
    sbom.write(first)
    sbom.write(again)
    assert first.read_bytes() == again.read_bytes()
    bill = json.loads(first.read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "pleo-proxy")
    listed = {each["name"]: (each["version"], each["purl"], hashes_of(each)) for each in bill["components"]}
    assert listed == {
        name: (each.version, f"pkg:pypi/{name}@{each.version}", each.hashes)
        for name, each in read(RUN).items()
    }
    assert len(bill["components"]) == len(listed)


def hashes_of(component: dict[str, Any]) -> frozenset[str]:
    """SHA-256 of the files of a component."""
    found = [each for reference in component["externalReferences"] for each in reference["hashes"]]
    assert {each["alg"] for each in found} == {"SHA-256"}
    return frozenset(each["content"] for each in found)


# --- known vulnerabilities

HOLE = {
    "id": "PYSEC-2099-1",
    "summary": "A hole.",
    "modified": "2099-01-01T00:00:00Z",
    "published": "2099-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "click"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}


@asynccontextmanager
async def service(answer: Callable[[str], web.Response]) -> AsyncIterator[tuple[str, set[str]]]:
    """An advisory service on loopback; gives its URL, and the packages that it was asked about."""
    asked: set[str] = set()

    async def handle(request: web.Request) -> web.Response:
        package = (await request.json())["package"]["name"]
        asked.add(package)
        return answer(package)

    server = web.Application()
    server.router.add_post("/v1/query", handle)
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/query", asked
    finally:
        await runner.cleanup()


async def test_an_audit_asks_about_every_package_that_runs() -> None:
    """Where the service knows of nothing, that is said, and of how many packages."""
    async with service(lambda _: web.json_response({})) as (url, asked):
        verdict = await asyncio.to_thread(audit, url)
    assert verdict == (Exit.NONE_KNOWN, [f"{len(read(EXTRAS))} packages checked, no known vulnerability"])
    assert asked == read(EXTRAS).keys()


async def test_a_known_vulnerability_is_named() -> None:
    """What is known of a package is said with its version and the one that mends it."""

    def answer(package: str) -> web.Response:
        return web.json_response({"vulns": [HOLE]} if package == "click" else {})

    async with service(answer) as (url, _):
        verdict = await asyncio.to_thread(audit, url)
    version = read(EXTRAS)["click"].version
    assert verdict == (Exit.VULNERABLE, [f"click {version}: PYSEC-2099-1 (mended in 99.0)"])


async def test_a_service_that_fails_has_checked_nothing() -> None:
    """An answer that is no answer is not taken for a good one."""
    async with service(lambda _: web.Response(status=503)) as (url, _):
        verdict = await asyncio.to_thread(audit, url)
    assert verdict == (
        Exit.NOT_CHECKED,
        [f"{url} could not be reached or gave no answer: nothing was checked"],
    )


def test_without_network_an_audit_says_so_and_exits_2(unused_tcp_port: int) -> None:
    """One line says that nothing was checked; the exit code is neither that of success nor of a finding."""
    url = f"http://127.0.0.1:{unused_tcp_port}/v1/query"
    command = [sys.executable, "-m", "supply", "audit", "--service", url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{url} could not be reached or gave no answer: nothing was checked\n"


def test_an_audit_ends() -> None:
    """A service that keeps one waiting is given up, and has checked nothing."""
    assert audit("http://127.0.0.1:9/v1/query", within_s=0.001).exit is Exit.NOT_CHECKED


def report(**changes: Any) -> str:
    """What pip-audit says when nothing is known, with changes by package."""
    known = {
        name: {"name": name, "version": each.version, "vulns": []} for name, each in read(EXTRAS).items()
    }
    return json.dumps({"dependencies": list((known | changes).values())})


@pytest.mark.parametrize(
    ("said", "unchecked"),
    [
        pytest.param(report(click={"name": "click", "skip_reason": "not found"}), ["click"], id="skipped"),
        pytest.param(report(click={"name": "other", "version": "1", "vulns": []}), ["click"], id="left-out"),
        pytest.param('{"dependencies": []}', sorted(read(EXTRAS)), id="empty"),
    ],
)
def test_a_package_that_was_not_checked_is_no_safe_one(said: str, unchecked: list[str]) -> None:
    """Unless every locked package was checked, the audit has not succeeded, and names those that were not."""
    assert judge(said, SERVICE) == (Exit.NOT_CHECKED, [f"not checked: {', '.join(unchecked)}"])


@pytest.mark.parametrize("said", ["", "Traceback", "[]", "{}", "null", '{"dependencies": '])
def test_what_is_no_report_has_checked_nothing(said: str) -> None:
    """A tool that broke down has found neither holes nor none."""
    assert judge(said, SERVICE).exit is Exit.NOT_CHECKED


def test_the_makefile_calls_them() -> None:
    """The three targets are there, and what the lock target writes is what is read here."""
    makefile = (ROOT / "Makefile").read_text()
    for target in ("licences", "sbom", "audit"):
        assert re.search(rf"^{target}: .*\n\t@\$\(BIN\)/python -m supply {target}$", makefile, re.MULTILINE)
    assert {path.name for path in LOCKS} <= set(re.findall(r"requirements\S*\.lock", makefile))
    assert locks.ROOT == ROOT
