"""What the documents say is so: examples run, links lead somewhere, and what is generated is up to date.

Run as a program, ``.venv/bin/python -m tests.test_documents`` makes the generated parts anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast
from unittest import mock
from urllib.parse import unquote, urlsplit

import click
import pytest

from proxy import audit, config, problems
from proxy.cli import cli
from proxy.cli.demo import _guide
from proxy.config import Settings, load_tenants_file, reference, settings_table
from proxy.config.environment import read_environment
from proxy.config.mistakes import keys_of
from proxy.errors import NeedsReauth
from proxy.model import Secret
from proxy.sandbox import COMPANIES, Sandbox
from proxy.tenants import hash_legacy_key
from proxy.tokens import RefreshRules, Tokens
from tests import api_page, lifecycle_diagram, lifecycle_page, log_schema
from tests.command import subcommands
from tests.harness import Proxy, running_proxy
from tests.test_house_rules import FACTS, NAMES, ROOT, all_commands, checks_in

README = ROOT / "README.md"
LIFECYCLE = ROOT / "docs" / "lifecycle.md"
DIAGRAM = ROOT / "docs" / "lifecycle.svg"
COMMANDS = ROOT / "docs" / "commands.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ANEW = "make it anew with `.venv/bin/python -m tests.test_documents`"


def page_id(path: Path) -> str:
    """The name under which a page's test is listed."""
    return str(path.relative_to(ROOT))


# --- what is generated

_COMMANDS_HEAD = """\
# Commands

<!-- Made from the commands themselves; to make it anew: .venv/bin/python -m tests.test_documents -->

`pleo-proxy` and `python -m proxy` are the same. Options come after the command. Every command that needs the
configuration takes `--config`; every listing takes `--json`.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. Errors are one line on standard error, with what
to do; a configuration's mistakes are listed all at once.

Commands work beside a running `serve`, which sees changes within a second. They need to read and write the
store, so run them as the proxy's user.
"""


HELP_NAMES = cli.context_settings["help_option_names"]
"""A command remembers these from its first context, so every context in these tests has the program's."""


def render_commands() -> str:
    """The whole of ``docs/commands.md``: the help of every command, as wide as a page."""
    parts = [_COMMANDS_HEAD]
    for words, command in all_commands(cli):
        context = click.Context(
            command,
            info_name=words,
            terminal_width=100,
            max_content_width=100,
            help_option_names=HELP_NAMES,
        )
        parts.append(f"## `{words}`\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def render_problem() -> str:
    """The README's example: what the proxy answers for a tenant that was never connected."""
    nothing = cast("Any", None)
    rules = RefreshRules(nothing, 1.0, 1.0, 1.0, 1.0, 1.0)
    tokens = Tokens(nothing, nothing, nothing, rules, nothing, nothing)
    with pytest.raises(NeedsReauth) as refused:
        tokens._usable("acme")
    body = problems.document(
        refused.value, public_url="http://localhost:8081", request_id="c65805841e5b6f69ecf0c72d51d7fe22"
    )
    return f"```json\n{json.dumps(json.loads(body), indent=2, ensure_ascii=False)}\n```\n"


def render_settings() -> str:
    """The README's table of all settings."""
    return settings_table(Settings)


GENERATED = {"problem": render_problem, "settings": render_settings}
"""Parts of the README between markers, and what stands there."""


def with_generated(text: str) -> str:
    """The README with its generated parts as they are now."""
    for name, render in GENERATED.items():
        begin, end = (f"<!-- made from the code: {name} {edge} -->\n" for edge in ("begin", "end"))
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"the README lacks its markers for {name!r}"
        text = f"{before}{begin}\n{render()}\n{end}{after}"
    return text


def test_the_readmes_generated_parts_are_up_to_date() -> None:
    """The settings table and the example of a refusal are what the code says."""
    assert README.read_text() == with_generated(README.read_text()), ANEW


def test_the_commands_page_is_up_to_date() -> None:
    """``docs/commands.md`` is the help of the commands."""
    assert COMMANDS.read_text() == render_commands(), ANEW


async def test_a_tenant_that_was_never_connected_gets_the_readmes_example(
    pleo: Sandbox, tmp_path: Path
) -> None:
    """What the README shows of a refusal is what a caller gets, up to the addresses and the id."""
    shown = json.loads(next(block.text for block in blocks(README) if block.language == "json"))
    async with running_proxy(pleo, tmp_path) as running:
        await running.add_tenant("acme")
        answer = await running.get("/acme/v2/employees")
        assert answer.status == shown["status"]
        got = answer.body.decode().replace(running.admin_url, "http://localhost:8081")
    assert {**json.loads(got), "request_id": shown["request_id"]} == shown


# --- links and names


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return plain.strip().replace(" ", "-")


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_lead_somewhere(path: Path) -> None:
    """Each link between documents names a file that is there, and a heading in it."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.exists():
            broken.append(link)
        elif parts.fragment:
            headings = re.findall(r"^#+ (.+)$", prose(target), re.MULTILINE)
            if parts.fragment not in map(slug, headings):
                broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_named_tests_exist(path: Path) -> None:
    """A test that a document points to as proof is there."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", path.read_text())
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).exists() or name not in {check.name for check in checks_in(ROOT / file)}
    ]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_named_files_exist(path: Path) -> None:
    """A file of the project that a document names is there."""
    named = re.findall(r"`((?:proxy|tests|docs|config)/[\w/.-]*\w/?)`", prose(path))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_named_settings_exist(path: Path) -> None:
    """A setting that a document names, as a key or as a variable, is one."""
    text = path.read_text()
    known = set(keys_of(Settings))
    sections = {key.partition(".")[0] for key in known}
    dotted = {
        name for name in re.findall(r"`([a-z]+\.[a-z_]+)`", prose(path)) if name.split(".")[0] in sections
    }
    # Events and modules have such names too.
    others = {*FACTS, *audit.EVENTS, *(name.removeprefix("proxy.") for name in NAMES)}
    assert dotted - known - others == set()
    variables = dict.fromkeys(re.findall(r"PLEO_PROXY__[A-Z_]*[A-Z]", text), "x")
    mistakes = read_environment(Settings, variables).mistakes
    assert [mistake for mistake in mistakes if "unknown variable" in mistake] == []


# --- examples

_FENCED = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the heading that it stands under."""

    language: str
    text: str
    heading: str


def blocks(path: Path) -> Iterator[Block]:
    """All fenced blocks of a page, without their indentation."""
    text = path.read_text()
    for match in _FENCED.finditer(text):
        # A comment in an earlier block looks like a heading, and is none.
        above = _FENCED.sub("", text[: match.start()])
        headings = re.findall(r"^#+ (.+)$", above, re.MULTILINE)
        yield Block(match[2], textwrap.dedent(match[3]), headings[-1] if headings else "")


def commands(block: Block) -> Iterator[str]:
    """The commands of a shell block, each on one line, comments left out."""
    joined = block.text.replace("\\\n", " ")
    yield from (line for line in joined.splitlines() if line.strip() and not line.startswith("#"))


def test_blocks_are_found() -> None:
    """The reader of blocks finds those of the README, so that the tests below look at something."""
    languages = [block.language for block in blocks(README)]
    assert languages.count("sh") > 10
    assert {"json", "text"} <= set(languages)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_examples_are_well_formed(path: Path) -> None:
    """Blocks of JSON and TOML parse; a configuration loads, a tenants' file does too."""
    for block in blocks(path):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tables = tomllib.loads(block.text)
            if "tenant" not in tables:
                tables.setdefault("pleo", {"client_id": "x", "client_secret": "x"})
                Settings.model_validate(tables)


_BEFORE_A_COMMAND = re.compile(r"(?:sudo -u \S+ |docker exec \S+ |[A-Z_]+=\S+ )*")


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of ``pleo-proxy`` in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for is_operator, words in groupby(lexer, key=lambda word: set(word) <= set(";&|()<>")):
        command = _BEFORE_A_COMMAND.sub("", " ".join(map(shlex.quote, words)), count=1)
        program, *arguments = shlex.split(command)
        if not is_operator and Path(program).name == "pleo-proxy":
            yield arguments


def test_calls_are_found() -> None:
    """The reader of shell finds the calls behind what may stand before them, and no others."""
    line = "A=b sudo -u x /opt/bin/pleo-proxy tenants list | jq '.[] | .x' && docker exec p pleo-proxy check"
    assert list(calls(line)) == [["tenants", "list"], ["check"]]
    assert list(calls("journalctl -u pleo-proxy -o cat; docker logs pleo-proxy")) == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_shown_commands_exist(path: Path) -> None:
    """Every call of ``pleo-proxy`` in an example is understood, with its options and arguments."""
    for block in blocks(path):
        for line in commands(block) if block.language == "sh" else ():
            for arguments in calls(line):
                parse(arguments)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_mentioned_commands_exist(path: Path) -> None:
    """Every command that a sentence mentions is one."""
    for mention in re.findall(r"`pleo-proxy ([^`]*)`", prose(path)):
        command: click.Command = cli
        for word in mention.split():
            if isinstance(command, click.Group):
                assert word in subcommands(command), mention
                command = subcommands(command)[word]


def parse(arguments: list[str]) -> None:
    """Parse a call as the command line would, without doing anything.

    :raises click.UsageError: there is no such command, option or argument.
    """
    command: click.Command = cli
    if arguments == ["--version"]:
        return
    while isinstance(command, click.Group):
        assert arguments, "a group without a command"
        word, *arguments = arguments
        assert word in subcommands(command), word
        command = subcommands(command)[word]
    with ExitStack() as stack:
        for param in command.params:
            if isinstance(param.type, click.Path):  # files need not be there
                stack.enter_context(mock.patch.object(param.type, "exists", new=False))
        command.make_context(command.name, arguments, help_option_names=HELP_NAMES)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["nonsense"], id="command"),
        pytest.param(["tenants", "nonsense"], id="subcommand"),
        pytest.param(["tenants", "add", "acme", "--nonsense"], id="option"),
        pytest.param(["connect"], id="argument"),
        pytest.param(["tenants", "add", "acme", "--preset", "nonsense"], id="value"),
    ],
)
def test_a_command_that_does_not_exist_is_seen(arguments: list[str]) -> None:
    """The check of examples fails for what is no command, option, argument or value."""
    with pytest.raises((AssertionError, click.UsageError)):
        parse(arguments)


def test_the_first_real_tenant(tmp_path: Path) -> None:
    """The README's steps on staging work as printed, those aside that need Pleo or a second terminal."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLEO")}
    printed = {}
    steps = [b for b in blocks(README) if b.heading == "Connect the first real tenant, on staging"]
    for line in (line for block in steps for line in commands(block)):
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            environ[name] = value
        elif words[0] == ".venv/bin/pleo-proxy" and words[1] != "serve":
            done = subprocess.run(
                [sys.executable, "-m", "proxy", *words[1:]],
                cwd=tmp_path,
                env=environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            printed[words[1]] = done.stdout
        else:
            assert words[0] == "curl" or words[1] == "serve", line
    assert list(printed) == ["check", "tenants", "connect", "grants"]
    assert "http://localhost:8081/oauth/callback" in printed["check"]
    assert re.fullmatch(r"http://localhost:8081/connect/[\w-]{43}\n", printed["connect"])
    assert "acme" in printed["grants"]


async def test_the_five_ways_to_name_a_tenant(proxy: Proxy) -> None:
    """Each of the README's five ways leads to acme, and each by what it shows and nothing else."""
    section = "How callers say which tenant they are"
    ways = [block for block in blocks(README) if block.heading == section]
    assert len(ways) == 5
    for block in ways:
        fields: dict[str, tuple[str, ...]] = {}
        for line in commands(block):
            words = shlex.split(line)
            if words[0] == "pleo-proxy":
                # 127.0.0.1 is where this caller comes from.
                fields = route_of(["127.0.0.0/8" if "/" in word else word for word in words[3:]])
        await proxy.add_tenant("acme", **fields)
        (call,) = (shlex.split(line) for line in commands(block) if line.startswith("curl"))
        url = urlsplit(call[-1])
        headers = {"Host": url.netloc}
        if "-H" in call:
            name, _, value = call[call.index("-H") + 1].partition(": ")
            headers[name] = value
        if "-u" in call:
            credentials = b64encode(call[call.index("-u") + 1].encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        answer = await proxy.get(url.path, headers=headers)
        assert answer.status == 200, (call, answer.body)
        assert {row["companyId"] for row in answer.json()["data"]} == {COMPANIES["acme"]}


def route_of(options: list[str]) -> dict[str, tuple[str, ...]]:
    """A tenant's fields from an option of ``tenants set`` and its value."""
    match options:
        case ["acme", "--host", host]:
            return {"hosts": (host,)}
        case ["acme", "--network", network]:
            return {"networks": (network,)}
        case ["acme", "--legacy-key", key]:
            return {"legacy_keys": (hash_legacy_key(Secret(key)),)}
        case _:
            raise AssertionError(options)


def test_the_demos_lines_are_quoted(tmp_path: Path) -> None:
    """What the README quotes of the demo's guide is what the demo prints."""
    settings = config.load(ROOT / "config" / "staging.toml", {"PLEO_CLIENT_SECRET": "x"})
    guide = _guide(settings, tmp_path / "config.toml", "http://127.0.0.1:9", "").strip("\n")
    quoted = next(block.text for block in blocks(README) if block.language == "text")
    assert guide.startswith(quoted.rstrip("\n"))


def test_make_has_the_targets_that_are_shown() -> None:
    """``make`` targets in the documents are targets of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(path.read_text() for path in PAGES)
    shown = set(re.findall(r"(?:^|`)make ([a-z-]+)\b", text, re.MULTILINE))
    assert {"run", "test", "lock"} <= shown <= targets


def test_the_image_is_built_from_what_there_is() -> None:
    """The Dockerfile copies files that exist and are not kept out, and sets variables that are settings."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copies = re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE)
    copied = {word for line in copies for word in line.split()}
    assert copied == set(let_in)
    assert all((ROOT / name).exists() for name in copied)
    variables = dict(re.findall(r"(PLEO_PROXY__\w+)=(\S+)", dockerfile))
    assert variables
    assert read_environment(Settings, variables).mistakes == []
    # In exec form, so that signals reach the process.
    assert re.search(r'^ENTRYPOINT \["pleo-proxy"\]$', dockerfile, re.MULTILINE)


def test_the_lifecycle_page_is_up_to_date() -> None:
    """``docs/lifecycle.md`` shows what the rules make of every state."""
    assert LIFECYCLE.read_text() == lifecycle_page.render(), ANEW
    assert DIAGRAM.read_text() == lifecycle_diagram.render(lifecycle_page.arrows()), ANEW


def test_the_diagram_has_every_state_and_arrow() -> None:
    """The picture has a box for each state, and each event between each two states as a label or a look."""
    arrows = lifecycle_page.arrows()
    drawn = DIAGRAM.read_text()
    names = re.findall(r'class="name".*?>(\w+)<', drawn)
    assert sorted(names) == sorted({state for pair in arrows for state in pair})
    by_look = {"a person consents": "c", "an operator revokes": "r"}
    for event in {event for events in arrows.values() for event in events}:
        times = sum(event in events for events in arrows.values())
        look = by_look.get(event)
        found = drawn.count(f">{event}<") if look is None else drawn.count(f'class="h{look}"')
        assert found == times, event


def test_the_tenants_example_is_what_the_handbook_points_to() -> None:
    """The example of ``tenants apply`` loads."""
    example = ROOT / "config" / "tenants.example.toml"
    assert load_tenants_file(example, {"GLOBEX_LEGACY_KEY": "x"})


def main() -> None:
    """Make all generated parts anew."""
    README.write_text(with_generated(README.read_text()))
    COMMANDS.write_text(render_commands())
    LIFECYCLE.write_text(lifecycle_page.render())
    DIAGRAM.write_text(lifecycle_diagram.render(lifecycle_page.arrows()))
    log_schema.SCHEMA.write_text(log_schema.render())
    api_page.DESCRIPTION.write_text(api_page.render_description())
    api_page.PAGE.write_text(api_page.render_page())
    (ROOT / "docs" / "configuration.md").write_text(reference())


if __name__ == "__main__":
    main()
