"""The rules of the house that no linter knows: layers, secrets, names, sizes, complete documents.

Each rule is data at the top of its section. Where a rule is a function over source text, a test plants a
breach, so that a rule which no longer sees anything does not pass for a clean house.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import fields
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import click
import pytest

import proxy
from proxy.audit import EVENTS
from proxy.cli import cli
from proxy.config.mistakes import keys_of
from proxy.config.settings import Settings
from proxy.errors import REFUSALS
from proxy.facts import Fact, PolicyWouldRefuse, Refreshed, RefreshFailed, RequestFinished
from proxy.model import Outcome
from proxy.telemetry import families
from proxy.telemetry.audit import AUDITED, NOT_AUDITED
from proxy.telemetry.metrics import Metrics
from tests.command import subcommands

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "proxy"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LADDER: tuple[tuple[str, ...], ...] = (
    ("errors", "model", "facts", "places"),
    (
        "recurring",
        "target",
        "headers",
        "trace_context",
        "addresses",
        "arrival",
        "forwarded",
        "heads",
        "framing",
        "guard",
        "certificates",
        "credentials",
        "legacy",
        "policy",
        "pin",
        "oauth",
        "vault",
        "chain",
        "lifecycle",
        "problems",
        "loglines",
        "notices",
        "consents",
    ),
    (
        "hardening",
        "keyservice",
        "texts",
        "config",
        "beacon",
        "envelope",
        "keyring",
        "store",
        "outbound",
        "provider",
        "upstream",
        "replay",
        "intake",
        "response",
        "pairs",
        "rates",
    ),
    (
        "tenants",
        "admission",
        "listing",
        "audit",
        "recovery",
        "refresher",
        "held",
        "tokens",
        "authorize",
        "actions",
        "rotation",
        "backup",
        "explain",
    ),
    ("exchange",),
    (
        "caller_tls",
        "door",
        "unix_socket",
        "entrance",
        "listener",
        "telemetry",
        "tracing",
        "notifications",
        "admin",
    ),
    (
        "known_secrets",
        "listening",
        "wiring",
        "readings",
        "groundwork",
        "watch",
        "retune",
        "reload",
        "app",
        "workers",
    ),
    ("cli", "__main__"),
)
"""A module imports what stands before it, in lower layers or its own, and nothing else of the project."""
ORDER = [unit for layer in LADDER for unit in layer]
APART = "sandbox"
MAY_IMPORT_WHAT_IS_APART = {"cli"}
NO_MODULES = {"__version__"}
"""What the package itself defines: importing it is importing no layer."""


def name_of(path: Path) -> str:
    """The dotted name of a module of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(name: str) -> str:
    """The module or package under ``proxy`` to which a dotted name belongs; empty for the package itself."""
    return name.split(".")[1] if "." in name else ""


NAMES = {name_of(path): path for path in MODULES}


def imports(source: str, name: str, *, is_package: bool = False) -> Iterator[str]:
    """Dotted names that a module imports from the project, wherever in it the import stands."""
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "proxy")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            if base.split(".")[0] == "proxy":
                yield from (f"{base}.{alias.name}" for alias in node.names)


def breaches(source: str, name: str, *, is_package: bool = False) -> list[str]:
    """What a module imports and must not."""
    unit = unit_of(name)
    found = []
    for imported in imports(source, name, is_package=is_package):
        other = unit_of(imported)
        if other in NO_MODULES or other == unit:
            continue
        if unit == APART:
            found.append(f"{name} is apart and imports {imported}")
        elif other == APART:
            if unit not in MAY_IMPORT_WHAT_IS_APART:
                found.append(f"{name} imports {imported}, which is apart")
        elif unit not in ORDER or other not in ORDER:
            found.append(f"{name} or {imported} is in no layer")
        elif ORDER.index(other) >= ORDER.index(unit):
            found.append(f"{name} imports {imported}, which does not stand before it")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    """A module imports only what stands before it on the ladder, also inside functions and for types."""
    found = breaches(path.read_text(), name_of(path), is_package=path.name == "__init__.py")
    assert not found, "\n".join(found)


def test_every_module_is_on_the_ladder() -> None:
    """No module stands beside the ladder, and no name on it is without a module."""
    units = {unit_of(name) for name in NAMES} - {"", APART}
    assert units == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        pytest.param("proxy.headers", "from proxy import tokens", id="upwards"),
        pytest.param("proxy.headers", "import proxy.tokens", id="upwards-plain"),
        pytest.param("proxy.store.rows", "from ..tokens import Tokens", id="upwards-relative"),
        pytest.param("proxy.headers", "def f():\n    from proxy.app import App", id="in-a-function"),
        pytest.param("proxy.tokens", "if TYPE_CHECKING:\n    from proxy.exchange import E", id="for-types"),
        pytest.param("proxy.replay", "from proxy.pairs import place", id="later-in-its-layer"),
        pytest.param("proxy.errors", "from proxy import *", id="star"),
        pytest.param("proxy.app", "from proxy.sandbox import Sandbox", id="what-is-apart"),
        pytest.param("proxy.sandbox.state", "from proxy.model import Secret", id="from-what-is-apart"),
        pytest.param("proxy.sandbox.state", "from .. import model", id="from-what-is-apart-relative"),
        pytest.param("proxy.newcomer", "from proxy import model", id="from-no-layer"),
        pytest.param("proxy.app", "from proxy.newcomer import x", id="of-no-layer"),
    ],
)
def test_a_planted_import_is_seen(name: str, source: str) -> None:
    """The rule of the layers sees each way to break it."""
    assert breaches(source, name)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        pytest.param("proxy.tokens", "from proxy import lifecycle", id="downwards"),
        pytest.param(
            "proxy.store.sqlite", "from .rows import Row\nfrom proxy.store import rows", id="inside"
        ),
        pytest.param("proxy.telemetry.metrics", "from proxy import __version__", id="the-version"),
        pytest.param("proxy.cli.demo", "from proxy.sandbox import Sandbox", id="what-is-apart-by-the-cli"),
        pytest.param("proxy.errors", "import asyncio\nfrom collections.abc import Mapping", id="foreign"),
    ],
)
def test_a_proper_import_passes(name: str, source: str) -> None:
    """The rule of the layers lets pass what it should."""
    assert not breaches(source, name)


def test_no_package_has_a_circle_of_imports() -> None:
    """Inside a package, too, modules can be put in an order in which each imports only earlier ones."""
    graph: dict[str, set[str]] = {}
    for name, path in NAMES.items():
        is_package = path.name == "__init__.py"
        named = imports(path.read_text(), name, is_package=is_package)
        # "from proxy.store import rows" names a module, "from proxy.store import Store" the package.
        graph[name] = {each if each in NAMES else each.rpartition(".")[0] for each in named} - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other in a circle: {error.args[1]}")


def test_the_map_is_true() -> None:
    """The package's docstring, which is the map, names every module, in the order of the ladder."""
    named = re.findall(r"^\s*(?:\*|\d\.) ``(\w+)``", proxy.__doc__ or "", re.MULTILINE)
    assert [*named, "__main__"] == ORDER
    assert "``__main__``" in (proxy.__doc__ or "")
    assert f"``{APART}``" in (proxy.__doc__ or "")


def test_the_architecture_page_names_every_module() -> None:
    """``docs/architecture.md`` leaves no module out."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert [unit for unit in [*ORDER, APART] if f"`{unit}`" not in page] == []


IMPURE = {
    "aiohttp", "asyncio", "datetime", "http", "io", "logging", "random", "select", "socket",
    "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip


def foreign_imports(source: str) -> set[str]:
    """Modules of others that a module imports, with and without their last part."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found | {name.split(".")[0] for name in found}


@pytest.mark.parametrize("unit", [unit for layer in LADDER[:2] for unit in layer])
def test_words_and_rules_do_no_io(unit: str) -> None:
    """The two lowest layers import nothing that opens, waits or tells the time."""
    sources = [path.read_text() for name, path in NAMES.items() if unit_of(name) == unit]
    assert sources
    assert not set().union(*map(foreign_imports, sources)) & IMPURE


# --- what reaches outside, and what opens secrets

OPENS_CONNECTIONS = {"upstream", "provider", "notifications", "tracing"}
WHERE_THE_OPERATOR_SAYS = {"notifications.webhook", "notifications.mail", "tracing.collector"}
"""These connect to the operator's own receivers, which may be private, and hold no token: no address of
theirs is judged."""
CONNECTING_NAMES = {
    "ClientSession", "HTTPConnection", "HTTPSConnection", "TCPConnector", "create_connection",
    "create_datagram_endpoint", "create_unix_connection", "open_connection", "open_unix_connection",
    "sock_connect", "start_connection", "urlopen",
}  # fmt: skip
NEEDED = {
    "TCPConnector": "socket_factory", "start_connection": "socket_factory",
    "create_connection": "sock", "ClientSession": "connector",
}  # fmt: skip
"""What a call that opens connections must be given: the sockets of ``outbound``, or one made with them."""
OPENS_BY_ITSELF = {
    "ftplib", "http.client", "httpx", "requests", "smtplib", "socketserver", "telnetlib", "urllib.request",
    "urllib3", "websockets", "xmlrpc",
}  # fmt: skip
"""Libraries that connect to wherever a name leads and follow where they are sent."""
ANOTHER_SERVICE = {
    "boto3": "keyservice.aws_kms",
    "botocore": "keyservice.aws_kms",
    "opentelemetry": "tracing.spans",
}
"""Libraries for a service which is not Pleo and gets no token; each is an extra, loaded when it is used."""
LOADING_NAMES = {"__import__", "import_module", "eval", "exec"}
"""Ways around the rules of this file."""

MAY_REVEAL = {
    "headers": "the injector",
    "oauth": "composes what goes to the provider",
    "provider": "sends it",
    "store.postgres_connection": "hands the database's password to its driver",
    "vault": "seals, and reads the key ring",
    "audit": "makes the chain of its key",
    "notifications.webhook": "signs a notification",
    "notifications.mail": "logs in to the mail server",
    "tracing.collector": "sends what the collector wants in header fields",
    "telemetry.canary": "hashes pieces of what no line may hold",
    "keyservice.aws_kms": "has a key wrapped",
    "envelope": "has the keys of the ring wrapped and unwrapped",
    "keyring": "writes the key file",
    "authorize": "hashes one-time values, and makes the link",
    "tenants": "hashes a legacy key",
    "credentials": "hashes a shared key",
    "admin.token": "hashes the admin token",
    "admin.sessions": "hashes the id of a session",
    "admin.login": "sets the session's cookie",
    "admin.consent": "sets the browser's cookie",
    "admin.pages": "shows a new link to who has the admin token",
    "admin.api": "answers with a new link to who has the admin token",
    "cli.grants": "prints a new link",
    "cli.serve": "prints a new admin token, once",
    "cli.handover": "hands the configuration and the key ring to workers",
    "cli.demo": "prints the demo's admin token, and opens its links",
}
"""Modules that may call ``Secret.reveal()``, and what for. A new line here is a line to review."""


def used_names(source: str) -> set[str]:
    """Names and attributes that occur in code, not in strings."""
    nodes = list(ast.walk(ast.parse(source)))
    return (
        {node.id for node in nodes if isinstance(node, ast.Name)}
        | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        | {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    )


def users_of(names: set[str]) -> set[str]:
    """Modules outside the sandbox, without ``proxy.``, in whose code one of ``names`` occurs."""
    return {
        name.removeprefix("proxy.")
        for name, path in NAMES.items()
        if unit_of(name) != APART and used_names(path.read_text()) & names
    }


def test_only_these_modules_connect_to_the_outside() -> None:
    """Nothing but ``upstream``, ``provider``, ``notifications`` and ``tracing`` opens a connection."""
    assert {unit.split(".")[0] for unit in users_of(CONNECTING_NAMES)} == OPENS_CONNECTIONS


def test_notifications_and_traces_have_no_tokens_to_send() -> None:
    """What connects to the operator's own receivers imports nothing that has tokens of a tenant."""
    holders = {"vault", "store", "pairs", "held", "tokens", "refresher", "provider", "upstream", "headers"}
    for name, path in NAMES.items():
        if unit_of(name) in ("notifications", "tracing"):
            assert {unit_of(each) for each in imports(path.read_text(), name)} & holders == set(), name


@pytest.mark.parametrize("library", ANOTHER_SERVICE)
def test_other_services_are_spoken_to_in_one_place(library: str) -> None:
    """The library of a service that is not Pleo is imported by the module for it, and by no other."""
    users = {name for name, path in NAMES.items() if library in foreign_imports(path.read_text())}
    assert users == {f"proxy.{ANOTHER_SERVICE[library]}"}


def unguarded(source: str) -> list[str]:
    """Calls that open connections without being given what judges addresses, and libraries that would."""
    found = sorted(foreign_imports(source) & OPENS_BY_ITSELF)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in NEEDED and NEEDED[name] not in {keyword.arg for keyword in node.keywords}:
                found.append(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_addresses_are_judged_wherever_connections_are_opened(path: Path) -> None:
    """No connection is opened but with a socket of ``outbound``, and no library opens one by itself."""
    name = name_of(path)
    allowed = name.removeprefix("proxy.") in WHERE_THE_OPERATOR_SAYS
    assert unit_of(name) == APART or allowed or unguarded(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "aiohttp.TCPConnector(force_close=True)",
        "TCPConnector(ssl=context)",
        "await start_connection(addresses, loop=loop)",
        "await loop.create_connection(Protocol, host, port)",
        "aiohttp.ClientSession()",
        "import urllib.request",
        "from http.client import HTTPSConnection",
        "def f():\n    import requests",
    ],
)
def test_an_unguarded_connection_is_seen(source: str) -> None:
    """The rule sees each way around the judged sockets."""
    assert unguarded(source)


def test_nothing_is_imported_or_run_by_its_name() -> None:
    """No import, and no code, comes about in a way that these tests do not see."""
    assert users_of(LOADING_NAMES) == set()


def test_secrets_are_opened_only_where_it_is_agreed() -> None:
    """``Secret.reveal()`` is called in the listed modules and no others, and each of them needs it."""
    assert users_of({"reveal"}) == set(MAY_REVEAL)


STARTS_PROCESSES = {
    "Popen", "create_subprocess_exec", "create_subprocess_shell", "execv", "execve", "fork", "forkpty",
    "get_context", "popen", "posix_spawn", "posix_spawnp", "spawnv", "subprocess", "system",
}  # fmt: skip


MAY_START = {
    "workers": "starts ourselves",
    "notifications.command": "starts the operator's program for notifications, with no environment of ours",
}
"""Modules that start processes, and which. A new line here is a line to review."""


def test_only_workers_are_started() -> None:
    """No program is started that would get our environment, and the secrets in it, but our own workers."""
    assert users_of(STARTS_PROCESSES) == set(MAY_START)


SECRET_NAMES = re.compile(r"secret|token|password|credential|(?<!key_)key(?!_id)")
ARGUMENTS_WITH_SECRETS = {"legacy_keys", "shared_keys"}
"""Parameters of commands whose value is a secret: each also takes ``-``, for standard input."""


def test_no_argument_is_a_secret() -> None:
    """No command takes a secret as an argument, where every user sees it, but has a way around that."""
    for words, command in all_commands(cli):
        for param in command.params:
            if SECRET_NAMES.search(param.name or ""):
                assert param.name in ARGUMENTS_WITH_SECRETS, words
                assert "'-' reads it from standard input" in getattr(param, "help", "")


# --- tasks, prints, marks


def discarded_tasks(source: str) -> list[int]:
    """Lines on which a task is created and not kept."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute | ast.Name)
        and (node.value.func.attr if isinstance(node.value.func, ast.Attribute) else node.value.func.id)
        in {"create_task", "ensure_future", "run_coroutine_threadsafe"}
    ]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_task_has_an_owner(path: Path) -> None:
    """The result of creating a task is kept by someone who awaits or cancels it."""
    assert discarded_tasks(path.read_text()) == []


def test_a_discarded_task_is_seen() -> None:
    """The rule of the tasks sees a bare call, and no kept one."""
    assert discarded_tasks("asyncio.create_task(f())") == [1]
    assert discarded_tasks("task = asyncio.create_task(f())\nself.tasks.add(loop.create_task(g()))") == []


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_prints(path: Path) -> None:
    """Commands print through click, everything else reports facts."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    assert not [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"]


# --- files

UNFIT_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "base", "core"}
MOST_LINES = 400
"""Of one module, blank lines aside: what a reader can hold. Most have far fewer."""

# In two parts each, so that this file does not break its own rules.
UNWANTED = {
    "a folder outside the project": r"(?<![\w-])shared" + "/",
    "a path of somebody's machine": r"(?<![\w.-])/(?:home|Users|root|work|workspace)" + r"/\w",
    "a package registry's host": r"\b(?:pypi|pythonhosted|npmjs|docker|ghcr|quay)" r"\.(?:org|com|io)\b",
    "an open end": r"\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b",
}


def project_files() -> Iterator[Path]:
    """The files of the project: text, neither generated by tools nor of this machine. Pictures hold no text:
    ``tests/browser/screenshots.py`` writes pixels only."""
    for path in sorted(ROOT.iterdir()):
        # In a worktree of Git's, .git is a file with a path of this machine.
        if path.is_file() and path.suffix not in {".db", ".pyc"} and path.name != ".git":
            yield path
    for folder in (".ci", "config", "docs", "proxy", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".png":
                yield path


@pytest.mark.parametrize("kind", UNWANTED)
def test_no_file_mentions(kind: str) -> None:
    """No file names what is only true on one machine, nor where packages come from, nor unfinished work."""
    pattern = re.compile(UNWANTED[kind])
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in project_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("a folder outside the project", "see ../shared" + "/x.md"),
        ("a path of somebody's machine", "cd /home" + "/ann/pleo"),
        ("a package registry's host", "https://pypi" + ".org/simple"),
        ("an open end", "# TO" + "DO: later"),
    ],
)
def test_a_planted_mention_is_seen(kind: str, text: str) -> None:
    """Each pattern finds what it is for."""
    assert re.search(UNWANTED[kind], text)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_named_after_a_thing_and_can_be_read(path: Path) -> None:
    """No drawer for odds and ends, and no file that nobody reads to its end."""
    assert path.stem not in UNFIT_NAMES
    assert sum(1 for line in path.read_text().splitlines() if line.strip()) <= MOST_LINES


INTERFACES_OF_OTHERS = re.compile(
    r"on_[a-z_]+"  # httptools' callbacks
    r"|connection_made|connection_lost|data_received|eof_received|pause_writing|resume_writing"  # asyncio's
)


@cache
def interface_methods() -> frozenset[str]:
    """Methods that a documented ``Protocol`` of the project describes, once for all that carry it out."""
    return frozenset(
        method.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and "Protocol" in {ast.unparse(base) for base in node.bases}
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(method)
    )


def undocumented(tree: ast.Module, described: Collection[str]) -> Iterator[str]:
    """Public names of a module, its own included, that say nothing of themselves."""
    if not ast.get_docstring(tree):
        yield "the module"
    stack: list[tuple[str, ast.Module | ast.ClassDef]] = [("", tree)]
    while stack:
        prefix, parent = stack.pop()
        for node in parent.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            # What is overloaded says it once, where it is carried out.
            if node.name.startswith("_") or "overload" in map(ast.unparse, node.decorator_list):
                continue
            is_described = bool(prefix) and (
                node.name in described or bool(INTERFACES_OF_OTHERS.fullmatch(node.name))
            )
            if not ast.get_docstring(node) and not is_described:
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                stack.append((f"{prefix}{node.name}.", node))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_everything_public_says_what_it_is(path: Path) -> None:
    """Public modules, classes and functions have docstrings; methods of a described interface need none."""
    assert list(undocumented(ast.parse(path.read_text()), interface_methods())) == []


def test_a_missing_docstring_is_seen() -> None:
    """The rule of the docstrings looks at modules, functions, classes and their methods."""
    source = "def f(): ...\nclass C:\n    def m(self): ...\n    def _p(self): ...\n    def on_x(self): ..."
    assert set(undocumented(ast.parse(source), set())) == {"the module", "f", "C", "C.m"}


# --- tests

EXCUSES = {"skip", "skipif", "skipTest", "xfail", "importorskip"}
MACHINES_DIFFER = {
    "tests/test_upstream.py": {"skip"},
    "tests/test_promtool.py": {"skip"},
    "tests/browser/browsers.py": {"skip"},
    "tests/browser/test_presence.py": {"skip"},
}
"""What a test cannot do on every machine: there is no IPv6 in many containers, and no browser or promtool on
many machines. In the pipeline a browser is required."""


def checks_in(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Test functions of a file, in classes too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_says_what_it_shows(path: Path) -> None:
    """Each test states the behaviour in a sentence."""
    assert [check.name for check in checks_in(path) if not ast.get_docstring(check)] == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_is_excused(path: Path) -> None:
    """All tests run everywhere and are expected to pass."""
    allowed = MACHINES_DIFFER.get(str(path.relative_to(ROOT)), set())
    assert used_names(path.read_text()) & EXCUSES <= allowed


# --- documents


def section_titles(page: str, pattern: str) -> list[tuple[str, ...]]:
    """What ``pattern`` captures in each heading of a page that it matches in full."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return [match.groups() for heading in headings if (match := re.fullmatch(pattern, heading))]


def sections(page: str) -> dict[str, str]:
    """The text under each heading, up to the next one of any level."""
    parts = re.split(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_cells(text: str) -> list[str]:
    """What stands in backticks in the first column of a table."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


FACTS = {fact.event: fact for fact in Fact.__subclasses__()}


def test_every_event_is_documented() -> None:
    """``docs/logs.md`` has every event with its level, and no other."""
    page = (ROOT / "docs" / "logs.md").read_text()
    titles = section_titles(page, r"`([a-z_.]+)` \((\w+)\)")
    assert sorted(titles) == sorted((event, fact.level) for event, fact in FACTS.items())


@pytest.mark.parametrize("event", FACTS)
def test_an_events_fields_are_documented(event: str) -> None:
    """The fields of an event stand in ``docs/logs.md``, each once, in the order of the log line."""
    fact = FACTS[event]
    text = sections((ROOT / "docs" / "logs.md").read_text())[f"`{event}` ({fact.level})"]
    assert first_cells(text) == [field.name for field in fields(fact)]


def exposed_metrics() -> dict[str, tuple[str, set[str]]]:
    """Every metric as a scrape shows it: name, type, labels."""
    metrics = Metrics()
    metrics.watch(
        lambda: {(name, *("x" for _ in gauge.labels)): 1.0 for name, gauge in families.GAUGES.items()}
    )
    request = RequestFinished("1", "acme", "GET", "/", 200, "answered", 200, 1, 1, False, 1, 0, 0, "::1")
    for fact in (
        request,
        Refreshed("acme", 2, "expiring", 900, 1, 0, "00"),
        RefreshFailed("acme", 2, "expiring", Outcome.UNKNOWN, "timeout", 1, None),
        PolicyWouldRefuse("1", "acme", "GET", "/", "::1", "rate", "too many"),
    ):
        metrics(fact)
    text = metrics.render().decode()
    found: dict[str, tuple[str, set[str]]] = {}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        samples = re.findall(rf"^{name}(?:_bucket|_count|_sum)?(?:\{{(.*)\}})? ", text, re.MULTILINE)
        labels = {label for sample in samples for label in re.findall(r"(\w+)=", sample)}
        found[name] = (kind, labels - {"le"})
    # When each series began, which prometheus_client adds by itself.
    return {name: value for name, value in found.items() if not name.endswith("_created")}


def test_every_metric_is_documented() -> None:
    """``docs/metrics.md`` has every metric with its type and labels, and no other."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(pleo_proxy_\w+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == exposed_metrics()
    assert len(rows) == len(documented)


def test_every_problem_type_is_documented() -> None:
    """``docs/problems.md`` has every problem type with its status and title, and no other."""
    page = (ROOT / "docs" / "problems.md").read_text()
    titles = section_titles(page, r"`([a-z-]+)` \((\d+)\)")
    assert sorted(titles) == sorted((refusal.name, str(refusal.status)) for refusal in REFUSALS)
    text = sections(page)
    untold = [each.name for each in REFUSALS if each.title not in text[f"`{each.name}` ({each.status})"]]
    assert untold == []


def test_every_recorded_event_of_the_audit_trail_is_documented() -> None:
    """``docs/operating.md`` names the events of what commands do and of what is done to the trail."""
    text = sections((ROOT / "docs" / "operating.md").read_text())["The audit trail"]
    assert [event for event in sorted(EVENTS) if f"`{event}`" not in text] == []


def test_every_fact_is_audited_or_said_not_to_be() -> None:
    """A new fact is decided on: it becomes a record of the audit trail, or the table says why not."""
    assert AUDITED.keys() | NOT_AUDITED.keys() == set(FACTS.values())
    assert AUDITED.keys() & NOT_AUDITED.keys() == set()


@pytest.mark.parametrize("fact", AUDITED)
def test_rules_of_the_audit_trail_name_fields(fact: type[Fact]) -> None:
    """What a rule omits or folds by are fields of its fact."""
    rule = AUDITED[fact]
    assert {*rule.omits, *rule.folds} <= {field.name for field in fields(fact)}
    assert rule.keeps in (None, *rule.folds)


def all_commands(group: click.Group, above: str = "pleo-proxy") -> Iterator[tuple[str, click.Command]]:
    """Every command with the words by which it is called, groups before what they hold."""
    yield above, group
    for name, command in sorted(subcommands(group).items()):
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{above} {name}")
        else:
            yield f"{above} {name}", command


def options_of(command: click.Command) -> Iterable[str]:
    """All spellings of all options of a command."""
    return (
        spelling
        for param in command.params
        if isinstance(param, click.Option)
        for spelling in [*param.opts, *param.secondary_opts]
    )


def test_every_command_and_option_is_documented() -> None:
    """``docs/commands.md`` has a heading for each command, and under it every option."""
    text = sections((ROOT / "docs" / "commands.md").read_text())
    for words, command in all_commands(cli):
        assert f"`{words}`" in text
        assert [each for each in options_of(command) if each not in text[f"`{words}`"]] == []


def test_every_setting_is_documented_in_the_readme() -> None:
    """The README's table has every configuration key once, in the order of the file."""
    text = sections((ROOT / "README.md").read_text())["Settings"]
    assert first_cells(text) == list(keys_of(Settings))
