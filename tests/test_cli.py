"""The command line: every command of the contract, what it prints, what it refuses, what it leaves alone."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import click
import pytest

from proxy import __version__, config, groundwork, lifecycle
from proxy.cli import cli, grants
from proxy.cli.output import print_rows
from proxy.config import loading
from proxy.model import Sealed
from proxy.store import open_store
from tests.command import PROGRAM, ROOT, Cli, clean_environ, run, subcommands, write_config

ACME = "0a0ac3e0-5b1d-4c1e-9f53-6d1f6f3a7c01"
GLOBEX = "91b0be00-2f6a-4f0b-8c55-0d5a3c1f7e02"
CONTRACT = {
    "serve",
    "check",
    "reload",
    "demo",
    "sandbox",
    "migrate-store",
    "notify test",
    "connect",
    "settings",
    "explain",
    *(f"tenants {name}" for name in ("add", "set", "list", "show", "remove", "enable", "disable", "apply")),
    *(f"grants {name}" for name in ("list", "show", "refresh", "revoke")),
    *(f"policy {name}" for name in ("show", "set", "promote", "discard")),
    *(f"keys {name}" for name in ("generate", "list", "rewrap", "rotate")),
    "backup",
    "restore",
    "tail",
    "init",
    "completion",
    *(f"audit {name}" for name in ("verify", "list", "export", "prune")),
}
TENANT_FIELDS = ["name", "company", "enabled", "state", "routes", "preset"]
GRANT_FIELDS = [
    "tenant",
    "state",
    "generation",
    "company",
    "scopes",
    "access_expires_at",
    "refresh_expires_at",
    "last_refreshed_at",
    "last_outcome",
]


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups included."""
    for name, command in subcommands(group).items():
        yield (*words, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


@pytest.fixture
def ours(tmp_path: Path) -> Cli:
    """The command line with a configuration of its own and an empty store."""
    return Cli(write_config(tmp_path))


def plant_grant(ours: Cli, tenant: str, company: str) -> None:
    """Store a grant as a consent does."""
    pair = lifecycle.NewPair(
        Sealed("v1.k1.planted-access"),
        Sealed("v1.k1.planted-refresh"),
        issued_at=1_700_000_000.0,
        access_expires_at=1_700_000_900.0,
        refresh_expires_at=1_705_184_000.0,
    )
    grant = lifecycle.connected(
        pair, tenant=tenant, company=company, scopes=("companies:read", "users:read"), generation=7
    )

    async def store() -> None:
        opened = open_store(config.load(ours.config, {}).store.sqlite_path)
        await opened.edit_grant(tenant, lambda _: grant)
        await opened.close()

    asyncio.run(store())


def stored_bytes(ours: Cli) -> bytes:
    """Everything that the database's files hold."""
    folder = config.load(ours.config, {}).store.sqlite_path.parent
    return b"".join(file.read_bytes() for file in folder.iterdir())


# --- commands, help, usage


def test_every_command_of_the_contract_is_there() -> None:
    """The command line has the commands that are promised, and none that is not."""
    groups = {"tenants", "policy", "grants", "keys", "audit", "notify"}
    assert {" ".join(words) for words in commands(cli)} - groups == CONTRACT


@pytest.mark.parametrize("words", [(), *commands(cli)], ids=lambda words: " ".join(words) or "program")
def test_help_explains_each_command(words: tuple[str, ...]) -> None:
    """``--help`` and ``-h`` print usage and purpose to standard output, without a configuration."""
    long, short = run(*words, "--help"), run(*words, "-h")
    assert long == short
    assert (long.code, long.err) == (0, "")
    assert long.out.startswith(f"Usage: {' '.join(('pleo-proxy', *words))} [OPTIONS]")
    assert re.search(r"\n\n  [A-Z][^.]+\.", long.out), "says in a sentence what the command does"


def test_the_version_is_printed() -> None:
    """``--version`` names program and version."""
    assert run("--version").out == f"pleo-proxy, version {__version__}\n"


def test_without_a_command_the_help_is_shown() -> None:
    """The bare program and a bare group show on standard error what there is, as wrong usage."""
    for words in ((), ("tenants",)):
        ran = run(*words)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == run(*words, "--help").out


@pytest.mark.parametrize(
    ("arguments", "item", "remedy"),
    [
        pytest.param(("tenant",), "No such command 'tenant'", "pleo-proxy --help", id="command"),
        pytest.param(("tenants", "rm"), "No such command 'rm'", "pleo-proxy tenants --help", id="subcommand"),
        pytest.param(("tenants", "list", "-x"), "-x", "pleo-proxy tenants list --help", id="option"),
        pytest.param(("tenants", "add"), "'NAME'", "pleo-proxy tenants add --help", id="missing-argument"),
        pytest.param(("connect", "a", "b"), "(b)", "pleo-proxy connect --help", id="extra-argument"),
        pytest.param(("tenants", "list", "--config"), "'--config'", "--help", id="missing-value"),
        pytest.param(("connect", "a", "--hours", "0"), "'--hours'", "0.01<=x<=720", id="range"),
        pytest.param(
            ("tenants", "add", "a", "--preset", "all"),
            "'--preset': 'all'",
            "'read-only', 'exports', 'accounting', 'full'",
            id="choice",
        ),
        pytest.param(("tenants", "set", "a"), "nothing to change", "at least one option", id="no-change"),
        pytest.param(("tenants", "apply", "/no/such.toml"), "/no/such.toml", "--help", id="missing-file"),
        pytest.param(("demo", "--port", "70000"), "'--port'", "1<=x<=65535", id="port"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], item: str, remedy: str) -> None:
    """What was typed wrong is said in one line that names it and where to read on."""
    line = run(*arguments).refusal(2)
    assert item in line
    assert remedy in line


def test_the_module_is_the_program() -> None:
    """``python -m proxy`` does and says the same as ``pleo-proxy``."""
    arguments = ("tenants", "add", "--config", "x")
    ran = [
        subprocess.run(
            [*start, *arguments], capture_output=True, cwd=ROOT, env=clean_environ(), check=False, text=True
        )
        for start in ([PROGRAM], [sys.executable, "-m", "proxy"])
    ]
    assert [(each.returncode, each.stdout, each.stderr) for each in ran] == [
        (2, "", "pleo-proxy: Missing argument 'NAME'; see `pleo-proxy tenants add --help`\n")
    ] * 2


def test_a_defect_shows_no_traceback_and_no_text(ours: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error is one line with its type and place; its text may hold anything."""

    def fail(*_: object) -> None:
        raise ValueError("planted-secret")

    monkeypatch.setattr(grants, "with_store", fail)
    line = ours("grants", "list").refusal(1)
    assert re.fullmatch(r"internal error, ValueError at test_cli\.py:\d+; please report it", line)


# --- configuration


def test_the_configuration_is_found_in_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--config`` wins over ``$PLEO_PROXY_CONFIG``, which wins over ``./config.toml``."""
    monkeypatch.setattr(loading, "SYSTEM_FILE", tmp_path / "none")
    places = {}
    for name in ("option", "variable", "local"):
        (tmp_path / name).mkdir()
        places[name] = write_config(tmp_path / name)
        Cli(places[name]).done("tenants", "add", name)
    monkeypatch.chdir(tmp_path / "local")
    environ = {"PLEO_PROXY_CONFIG": str(places["variable"])}
    option = ("--config", str(places["option"]))
    ran = [
        run("tenants", "list", "--json", *option, environ=environ),
        run("tenants", "list", "--json", environ=environ),
        run("tenants", "list", "--json"),
    ]
    assert [each.json()[0]["name"] for each in ran] == ["option", "variable", "local"]


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration in any of the usual places."""
    monkeypatch.setattr(loading, "SYSTEM_FILE", tmp_path / "none")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "environ", "item"),
    [
        pytest.param(("--config", "/no/such.toml"), {}, "--config /no/such.toml", id="option"),
        pytest.param((), {"PLEO_PROXY_CONFIG": "/no/x"}, "$PLEO_PROXY_CONFIG /no/x", id="variable"),
        pytest.param((), {}, "no configuration found", id="nowhere"),
    ],
)
@pytest.mark.parametrize("command", [("serve",), ("check",), ("tenants", "list"), ("keys", "list")])
def test_a_missing_configuration_is_one_line(
    command: tuple[str, ...],
    arguments: tuple[str, ...],
    environ: dict[str, str],
    item: str,
    nowhere: None,
) -> None:
    """A command without a configuration says where it looked and what to copy there."""
    line = run(*command, *arguments, environ=environ).refusal(2)
    assert item in line
    assert "copy config/example.toml" in line


@pytest.mark.parametrize("command", [("serve",), ("check",), ("tenants", "list"), ("connect", "acme")])
def test_all_mistakes_of_a_configuration_are_told_together(command: tuple[str, ...], tmp_path: Path) -> None:
    """Three mistakes in a file and one in a variable are four lines below one that counts them."""
    path = tmp_path / "config.toml"
    path.write_text('[listen]\nproxy = "8080"\nadmn = "x"\n[pleo]\nclient_id = "ours"\n')
    ran = run(*command, "--config", str(path), environ={"PLEO_PROXY__LOG__LEVEL": "loud"})
    assert (ran.code, ran.out) == (2, "")
    head, *mistakes = ran.err.splitlines()
    assert head == f"pleo-proxy: {path}: 4 mistakes"
    items = ("listen.proxy", "listen.admn", "pleo.client_secret", "log.level (from PLEO_PROXY__LOG__LEVEL)")
    assert all(any(mistake.startswith(f"  - {item}") for mistake in mistakes) for item in items)
    assert len(mistakes) == 4


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_secret_that_cannot_be_had_is_named(command: str, tmp_path: Path) -> None:
    """``serve`` and ``check`` open every secret before anything else; other commands need none of them."""
    ours = Cli(
        write_config(
            tmp_path,
            pleo={"client_secret": {"env": "PLEO_CLIENT_SECRET"}},
            admin={"token": {"file": str(tmp_path / "token")}},
        )
    )
    ran = ours(command)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 3
    assert "pleo.client_secret = …: the variable PLEO_CLIENT_SECRET is not set" in ran.err
    assert f"admin.token = …: the file {tmp_path}/token does not exist" in ran.err
    ours.done("tenants", "list")


def test_check_prints_what_pleo_asks(ours: Cli) -> None:
    """A valid configuration gets the answers for Pleo's form, the redirect URI among them."""
    ran = ours.done("check")
    assert "The configuration is valid." in ran.out
    settings = config.load(ours.config, {})
    assert re.search(rf"^  Redirect URIs +{re.escape(settings.redirect_uri)}$", ran.out, re.MULTILINE)
    assert re.search(r"^  PKCE support +yes, S256$", ran.out, re.MULTILINE)
    assert ran.err == ""


def test_check_warns_of_what_is_valid_and_risky(tmp_path: Path) -> None:
    """Warnings go to standard error and do not fail the command."""
    ours = Cli(write_config(tmp_path, listen={"proxy": "0.0.0.0:8080"}))
    ran = ours.done("check")
    assert ran.err.startswith("Warning: listen.proxy = 0.0.0.0:8080: other machines can connect")
    assert "Warning" not in ran.out


# --- tenants


def test_a_tenant_is_added_and_listed(ours: Cli) -> None:
    """What is given to ``tenants add`` is what ``tenants list`` and ``show`` say, in canonical form."""
    options = ("--company", ACME.upper(), "--preset", "exports", "--legacy-key", "-")
    hosts = ("--host", "Acme.Internal", "--host", "a.internal")
    networks = ("--network", "10.1.0.0/16", "--network", "fd00:1::/64")
    ran = ours.done("tenants", "add", "acme", *options, *hosts, *networks, stdin="old-key\n")
    assert ran.out == "Added tenant acme. Next: pleo-proxy connect acme\n"
    assert ran.err == ""
    ours.done("tenants", "add", "globex")
    rows = ours.done("tenants", "list", "--json").json()
    key = rows[0]["routes"].pop()
    assert rows == [
        {
            "name": "acme",
            "company": ACME,
            "enabled": True,
            "state": "none",
            "routes": [
                "path: /acme",
                "header: X-Pleo-Tenant: acme",
                "host: acme.internal",
                "host: a.internal",
                "network: 10.1.0.0/16",
                "network: fd00:1::/64",
            ],
            "preset": "exports",
        },
        {
            "name": "globex",
            "company": None,
            "enabled": True,
            "state": "none",
            "routes": ["path: /globex", "header: X-Pleo-Tenant: globex"],
            "preset": "full",
        },
    ]
    assert re.fullmatch("legacy-key: sha256 [0-9a-f]{12}", key)
    assert list(rows[0]) == TENANT_FIELDS
    shown = ours.done("tenants", "show", "acme", "--json").json()
    assert shown == {**rows[0], "routes": [*rows[0]["routes"], key]}


def test_a_listing_for_people_is_a_table(ours: Cli) -> None:
    """Without ``--json`` there is a line for each thing, and what to do where there is nothing."""
    empty = ours.done("tenants", "list")
    assert (empty.out, empty.err) == ("", "No tenants yet. Add one: pleo-proxy tenants add NAME\n")
    assert ours.done("tenants", "list", "--json").json() == []
    assert ours.done("grants", "list", "--json").json() == []
    ours.done(
        "tenants",
        "add",
        "acme",
        "--company",
        ACME,
    )
    table = ours.done("tenants", "list").out
    assert table.splitlines()[0].split() == TENANT_FIELDS
    assert table.splitlines()[1].split()[:4] == ["acme", ACME, "yes", "none"]
    assert ours.done("grants", "list").out.splitlines()[1].split()[:3] == ["acme", "none", "0"]
    assert re.search(r"^company +" + ACME, ours.done("tenants", "show", "acme").out, re.MULTILINE)
    assert re.search(r"^state +none$", ours.done("grants", "show", "acme").out, re.MULTILINE)


class Terminal(io.StringIO):
    """Standard output as a person has it."""

    def isatty(self) -> bool:
        return True


def test_a_narrow_terminal_gets_a_block_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is printed where it fits; folded cells would be no use to anyone."""
    rows = [{"name": name, "company": ACME, "routes": ["path: /x", "host: x"]} for name in ("acme", "globex")]
    shown = {}
    for columns in (54, 53):
        monkeypatch.setenv("COLUMNS", str(columns))
        with redirect_stdout(Terminal()) as terminal:
            print_rows(rows, as_json=False, empty="")
        shown[columns] = [
            re.sub(r"\x1b\[\d+m", "", line).split() for line in terminal.getvalue().splitlines()
        ]
    block = [["company", ACME], ["routes", "path:", "/x"], ["host:", "x"]]
    assert shown[53] == [["name", "acme"], *block, [], ["name", "globex"], *block]
    second = ["host:", "x"]
    assert shown[54] == [
        ["name", "company", "routes"],
        ["acme", ACME, "path:", "/x"],
        second,
        ["globex", ACME, "path:", "/x"],
        second,
    ]


@pytest.mark.parametrize(
    ("arguments", "item", "remedy"),
    [
        pytest.param(("Acme",), "'Acme'", "use 1 to 63 of a-z", id="upper-case"),
        pytest.param(("-acme",), "-a", "--help", id="option-like"),
        pytest.param(("a/b",), "'a/b'", "use 1 to 63 of a-z", id="slash"),
        pytest.param(("a\nb",), r"'a\nb'", "use 1 to 63 of a-z", id="newline"),
        pytest.param(("a" * 64,), "aaa'", "use 1 to 63 of a-z", id="long"),
        pytest.param(("",), "''", "use 1 to 63 of a-z", id="empty"),
        pytest.param(("v1",), "'v1'", "choose another name", id="version"),
        pytest.param(("v1-beta",), "'v1-beta'", "choose another name", id="version-beta"),
        pytest.param(("a", "--company", "42"), "company '42'", "copy it from Pleo", id="company"),
        pytest.param(("a", "--network", "10.0.0.1/8"), "'10.0.0.1/8'", "'10.1.0.0/16'", id="host-bits"),
        pytest.param(("a", "--network", "intranet"), "'intranet'", "'10.1.0.0/16'", id="network"),
        pytest.param(("a", "--host", "a.b:80"), "'a.b:80'", "without port or scheme", id="host-port"),
        pytest.param(("a", "--host", "10.0.0.1"), "'10.0.0.1'", "give a name", id="host-address"),
        pytest.param(("a", "--legacy-key", ""), "--legacy-key is empty", "give the key", id="empty-key"),
    ],
)
def test_a_tenant_that_must_not_be_saved_is_refused(
    arguments: tuple[str, ...], item: str, remedy: str, ours: Cli
) -> None:
    """A bad name, company, network, host or key is named with what would be right, and nothing is saved."""
    line = ours("tenants", "add", *arguments).refusal(2)
    assert item in line
    assert remedy in line
    assert ours.listed("tenants", "list") == {}


def test_a_name_is_given_once(ours: Cli) -> None:
    """A second ``add`` of a name is refused and points to ``set``."""
    ours.done("tenants", "add", "acme", "--preset", "exports")
    assert "`pleo-proxy tenants set acme`" in ours("tenants", "add", "acme").refusal(2)
    assert ours.listed("tenants", "list")["acme"]["preset"] == "exports"


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        pytest.param(("--host", "x.internal"), ("--host", "X.internal"), ["host 'x.internal'"], id="host"),
        pytest.param(
            ("--network", "10.0.0.0/8"),
            ("--network", "10.9.0.0/16"),
            ["10.0.0.0/8", "10.9.0.0/16"],
            id="network",
        ),
        pytest.param(
            ("--legacy-key", "k1"), ("--legacy-key", "k1"), ["the same legacy key"], id="legacy-key"
        ),
    ],
)
@pytest.mark.parametrize("command", ["add", "set"])
def test_a_route_of_another_tenant_is_refused(
    command: str, first: tuple[str, ...], second: tuple[str, ...], shown: list[str], ours: Cli
) -> None:
    """A route that could claim a request for two tenants is refused with both of them."""
    ours.done("tenants", "add", "acme", *first)
    if command == "set":
        ours.done("tenants", "add", "globex")
    before = ours.listed("tenants", "list")
    line = ours("tenants", command, "globex", *second).refusal(2)
    assert all(part in line for part in ["'acme'", "'globex'", *shown])
    assert ours.listed("tenants", "list") == before


def test_a_legacy_key_is_read_from_standard_input_and_never_stored(ours: Cli) -> None:
    """``--legacy-key -`` reads a line; neither that key nor one from the command line is in the database."""
    keys = ("planted-legacy-key-0f3a9", "planted-legacy-key-77b1c")
    ours.done("tenants", "add", "acme", "--legacy-key", "-", stdin=f"{keys[0]}\nmore\n")
    told = ours.done("tenants", "add", "globex", "--legacy-key", keys[1]).err
    assert told.startswith("Warning: --legacy-key holds a secret, and the arguments of a command can be read")
    assert keys[1] not in told
    ours.done("tenants", "add", "third", "--legacy-key", "-", "--legacy-key", "-", stdin="one\ntwo\n")
    line = ours("tenants", "add", "fourth", "--legacy-key", keys[0]).refusal(2)
    assert "'acme'" in line
    assert len(ours.listed("tenants", "list")["third"]["routes"]) == 4
    assert "--legacy-key is empty" in ours("tenants", "add", "fifth", "--legacy-key", "-").refusal(2)
    shown = (ours.done("tenants", "list").out + ours.done("tenants", "list", "--json").out).encode()
    for key in keys:
        for form in (key.encode(), base64.b64encode(key.encode())):
            assert form not in stored_bytes(ours) + shown + line.encode()


def test_shared_keys_and_certificates(ours: Cli) -> None:
    """Both are options, replaced and cleared like others; a key is never stored, shown or too short."""
    keys = ("planted-shared-key-0f3a9", "planted-shared-key-77b1c")
    told = ours.done(
        *("tenants", "add", "acme", "--shared-key", "-", "--shared-key", keys[1]),
        *("--certificate", "san:dns:ERP.internal", "--certificate", "subject:CN=erp,O=Acme"),
        stdin=f"{keys[0]}\n",
    ).err
    assert told.startswith("Warning: --shared-key holds a secret")
    routes = ours.listed("tenants", "list")["acme"]["routes"]
    assert [route.partition(" ")[0] for route in routes[4:]] == ["shared-key:"] * 2
    assert routes[2:4] == ["certificate: san:dns:erp.internal", "certificate: subject:CN=erp,O=Acme"]
    for option, value, part in [
        ("--shared-key", keys[0], "the same shared key"),
        ("--certificate", "san:dns:erp.internal", "certificate 'san:dns:erp.internal'"),
    ]:
        line = ours("tenants", "add", "globex", option, value).refusal(2)
        assert part in line
        assert "'acme'" in line
    assert "at least 16 characters" in ours("tenants", "add", "b", "--shared-key", "short").refusal(2)
    assert "is no name of one; write" in ours("tenants", "add", "b", "--certificate", "CN=x").refusal(2)
    ours.done("tenants", "set", "acme", "--clear", "shared-keys", "--clear", "certificates")
    assert len(ours.listed("tenants", "list")["acme"]["routes"]) == 2
    for key in keys:
        assert key.encode() not in stored_bytes(ours) + told.encode()


def test_set_replaces_what_is_given_and_nothing_else(ours: Cli) -> None:
    """Each option of ``tenants set`` replaces its field; the others stay."""
    ours.done("tenants", "add", "acme", "--host", "a.internal", "--network", "10.0.0.0/8")
    ran = ours.done("tenants", "set", "acme", "--host", "b.internal", "--host", "c.internal")
    assert ran.out == "Changed tenant acme.\n"
    row = ours.listed("tenants", "list")["acme"]
    assert row["routes"][2:] == ["host: b.internal", "host: c.internal", "network: 10.0.0.0/8"]
    ours.done("tenants", "set", "acme", "--company", ACME, "--preset", "read-only", "--legacy-key", "k")
    row = ours.listed("tenants", "list")["acme"]
    assert (row["company"], row["preset"], len(row["routes"])) == (ACME, "read-only", 6)


@pytest.mark.parametrize("field", ["company", "hosts", "networks", "legacy-keys"])
def test_set_clears_a_field(field: str, ours: Cli) -> None:
    """``--clear`` empties one field and leaves the others."""
    everything = ("--company", ACME, "--host", "a.internal", "--network", "10.0.0.0/8", "--legacy-key", "k")
    ours.done("tenants", "add", "acme", *everything)
    before = ours.listed("tenants", "list")["acme"]
    ours.done("tenants", "set", "acme", "--clear", field)
    after = ours.listed("tenants", "list")["acme"]
    if field == "company":
        assert after == {**before, "company": None}
    else:
        kind = {"hosts": "host: ", "networks": "network: ", "legacy-keys": "legacy-key: "}[field]
        assert after == {**before, "routes": [r for r in before["routes"] if not r.startswith(kind)]}
        assert after != before


@pytest.mark.parametrize("command", [("tenants", "set"), ("tenants", "add")])
def test_a_connected_tenant_keeps_its_company(command: tuple[str, ...], ours: Cli) -> None:
    """A company other than the connected one is refused until the grant is revoked."""
    ours.done("tenants", "add", "acme", "--company", ACME)
    plant_grant(ours, "acme", ACME)
    if command[1] == "set":
        line = ours("tenants", "set", "acme", "--company", GLOBEX).refusal(2)
    else:
        file = ours.config.with_name("tenants.toml")
        file.write_text(f'[[tenant]]\nname = "acme"\ncompany = "{GLOBEX}"\n')
        line = ours("tenants", "apply", str(file)).refusal(2)
    assert ACME in line
    assert GLOBEX in line
    assert "`pleo-proxy grants revoke acme`" in line
    assert ours.listed("tenants", "list")["acme"]["company"] == ACME
    ours.done("grants", "revoke", "acme")
    ours.done("tenants", "set", "acme", "--company", GLOBEX)
    assert ours.listed("tenants", "list")["acme"]["company"] == GLOBEX


def test_disabling_keeps_and_removing_erases(ours: Cli) -> None:
    """``disable`` and ``enable`` leave the grant; ``remove`` takes tenant and grant, also from the files."""
    ours.done("tenants", "add", "acme")
    plant_grant(ours, "acme", ACME)
    assert ours.done("tenants", "disable", "acme").out == "Disabled tenant acme.\n"
    row = ours.listed("tenants", "list")["acme"]
    assert (row["enabled"], row["state"]) == (False, "connected")
    assert ours.done("tenants", "enable", "acme").out == "Enabled tenant acme.\n"
    assert ours.listed("tenants", "list")["acme"]["enabled"] is True
    assert b"planted-refresh" in stored_bytes(ours)
    assert ours.done("tenants", "remove", "acme").out == "Removed tenant acme and erased its grant.\n"
    assert b"planted-refresh" not in stored_bytes(ours)
    ours.done("tenants", "add", "acme")
    assert ours.listed("grants", "list")["acme"]["state"] == "none"


@pytest.mark.parametrize(
    "command",
    [
        ("tenants", "set", "--preset", "full"),
        ("tenants", "show"),
        ("tenants", "remove"),
        ("tenants", "enable"),
        ("tenants", "disable"),
        ("connect",),
        ("grants", "show"),
        ("grants", "revoke"),
    ],
    ids=" ".join,
)
def test_an_unknown_tenant_is_met_with_the_known_ones(command: tuple[str, ...], ours: Cli) -> None:
    """A mistyped name is answered with the names that there are."""
    assert "none yet" in ours(*command, "acne").refusal(2)
    ours.done("tenants", "add", "acme")
    ours.done("tenants", "add", "globex")
    line = ours(*command, "acne").refusal(2)
    assert "no tenant 'acne'" in line
    assert "acme, globex" in line


# --- tenants apply

TENANTS = f"""
[[tenant]]
name = "acme"
host = "acme.internal"
legacy_key = {{ env = "ACME_KEY" }}
shared_key = {{ env = "ACME_SHARED_KEY" }}
certificate = "san:dns:erp.internal"
preset = "read-only"

[[tenant]]
name = "globex"
company = "{GLOBEX}"
network = ["10.20.0.0/16"]
"""


def test_apply_makes_the_store_match_and_prints_the_difference(ours: Cli, tmp_path: Path) -> None:
    """``--dry-run`` prints the same lines and changes nothing; a second apply has nothing to do."""
    file = tmp_path / "tenants.toml"
    file.write_text(TENANTS)
    environ = {"ACME_KEY": "planted-acme-key", "ACME_SHARED_KEY": "planted-acme-shared-key"}
    ours.done("tenants", "add", "acme", "--host", "old.internal")
    ours.done("tenants", "add", "gone")
    before = ours.listed("tenants", "list")

    dry = ours.done("tenants", "apply", str(file), "--dry-run", environ=environ)
    difference = [
        "- gone",
        "~ acme: hosts old.internal -> acme.internal",
        "~ acme: certificates none -> san:dns:erp.internal",
        "~ acme: preset full -> read-only",
        "~ acme: legacy_keys 0 -> 1",
        "~ acme: shared_keys 0 -> 1",
        "+ globex: path: /globex, header: X-Pleo-Tenant: globex, network: 10.20.0.0/16; preset full",
    ]
    assert dry.out.splitlines() == [*difference, "Nothing was changed (--dry-run)."]
    assert ours.listed("tenants", "list") == before

    done = ours.done("tenants", "apply", str(file), environ=environ)
    assert done.out.splitlines() == difference
    after = ours.listed("tenants", "list")
    assert after.keys() == {"acme", "globex"}
    assert (after["globex"]["company"], after["acme"]["preset"]) == (GLOBEX, "read-only")
    assert b"planted-acme" not in stored_bytes(ours)

    for options in ((), ("--dry-run",)):
        again = ours.done("tenants", "apply", str(file), *options, environ=environ)
        assert again.out == "Nothing to change.\n"
    assert ours.listed("tenants", "list") == after


def test_apply_keeps_a_company_that_a_consent_settled(ours: Cli, tmp_path: Path) -> None:
    """A file that names no company leaves the settled one, and the grant, alone."""
    file = tmp_path / "tenants.toml"
    file.write_text('[[tenant]]\nname = "acme"\n')
    ours.done("tenants", "add", "acme", "--company", ACME)
    plant_grant(ours, "acme", ACME)
    assert ours.done("tenants", "apply", str(file)).out == "Nothing to change.\n"
    row = ours.listed("tenants", "list")["acme"]
    assert (row["company"], row["state"]) == (ACME, "connected")


@pytest.mark.parametrize(
    ("text", "items"),
    [
        pytest.param('[[tenant]]\nname = "v1"\n', ["'v1'"], id="name"),
        pytest.param("", ["no [[tenant]] table"], id="empty"),
        pytest.param("[[tenant]\n", ["not valid TOML"], id="syntax"),
        pytest.param(
            '[[tenant]]\nnam = "a"\n[[tenant]]\nname = "b"\npreset = "all"\nlegacy_key = { env = "NO" }\n',
            ["tenant[0].nam", "tenant[0].name", "tenant[1].preset (b)", "variable NO is not set"],
            id="several",
        ),
        pytest.param(
            '[[tenant]]\nname = "a"\nhost = "x"\n[[tenant]]\nname = "b"\nhost = "x"\n',
            ["host 'x'", "'a'", "'b'"],
            id="claimed-twice",
        ),
    ],
)
def test_apply_refuses_a_file_with_mistakes(text: str, items: list[str], ours: Cli, tmp_path: Path) -> None:
    """All mistakes of a file are told together, and the store stays as it was, with ``--dry-run`` too."""
    file = tmp_path / "tenants.toml"
    file.write_text(text)
    ours.done("tenants", "add", "kept")
    for options in ((), ("--dry-run",)):
        ran = ours("tenants", "apply", str(file), *options)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("pleo-proxy: ")
        assert all(item in ran.err for item in items), ran.err
    assert ours.listed("tenants", "list").keys() == {"kept"}


# --- connect and grants


def test_connect_prints_the_link_alone(ours: Cli) -> None:
    """Standard output is the link and nothing else; how to use it is on standard error."""
    ours.done("tenants", "add", "acme")
    ran = ours.done("connect", "acme")
    public_url = config.load(ours.config, {}).listen.public_url
    assert re.fullmatch(rf"{re.escape(public_url)}/connect/[\w-]{{43}}\n", ran.out)
    assert ran.err.startswith("Works once, until 20")
    assert ran.err.count("\n") == 1
    assert ran.out.strip().rpartition("/")[2].encode() not in stored_bytes(ours)


def test_connect_tells_programs_the_same(ours: Cli) -> None:
    """``--json`` gives tenant, link and its end, each link is another, and ``--hours`` sets the end."""
    ours.done("tenants", "add", "acme")
    short = ours.done("connect", "acme", "--json", "--hours", "1").json()
    long = ours.done("connect", "acme", "--json", "--hours", "100").json()
    assert list(short) == ["tenant", "url", "expires_at"]
    assert short["tenant"] == "acme"
    assert short["url"] != long["url"]
    assert short["expires_at"] < long["expires_at"]


def test_grants_are_listed_without_tokens(ours: Cli) -> None:
    """A grant has the contract's fields, and one that was never given has them too."""
    ours.done("tenants", "add", "acme")
    ours.done("tenants", "add", "globex", "--company", GLOBEX)
    plant_grant(ours, "acme", ACME)
    rows = ours.done("grants", "list", "--json").json()
    assert [list(row) for row in rows] == [GRANT_FIELDS] * 2
    assert rows == [
        {
            "tenant": "acme",
            "state": "connected",
            "generation": 7,
            "company": ACME,
            "scopes": ["companies:read", "users:read"],
            "access_expires_at": "2023-11-14T22:28:20+00:00",
            "refresh_expires_at": "2024-01-13T22:13:20+00:00",
            "last_refreshed_at": "2023-11-14T22:13:20+00:00",
            "last_outcome": "granted",
        },
        {
            "tenant": "globex",
            "state": "none",
            "generation": 0,
            "company": GLOBEX,
            "scopes": [],
            "access_expires_at": None,
            "refresh_expires_at": None,
            "last_refreshed_at": None,
            "last_outcome": None,
        },
    ]
    assert ours.done("grants", "show", "acme", "--json").json() == rows[0]
    people = ours.done("grants", "list").out + ours.done("grants", "show", "acme").out
    assert "planted" not in people


def test_revoking_erases_the_tokens(ours: Cli) -> None:
    """``grants revoke`` leaves a revoked grant without tokens, also in the files, and may be repeated."""
    ours.done("tenants", "add", "acme")
    assert "nothing to revoke" in ours("grants", "revoke", "acme").refusal(2)
    plant_grant(ours, "acme", ACME)
    assert b"planted" in stored_bytes(ours)
    for _ in range(2):
        ran = ours.done("grants", "revoke", "acme")
        assert ran.out.endswith("To connect it again: pleo-proxy connect acme\n")
        row = ours.listed("grants", "list")["acme"]
        assert (row["state"], row["access_expires_at"]) == ("revoked", None)
    assert b"planted" not in stored_bytes(ours)


# --- keys


def test_keys_are_generated_for_their_owner_only(ours: Cli, tmp_path: Path) -> None:
    """``keys generate`` writes where the configuration says, or to ``--file``, and shows no key."""
    configured, elsewhere = tmp_path / "state" / "keys", tmp_path / "new" / "keys"
    for path, options in ((configured, ()), (elsewhere, ("--file", str(elsewhere), "--id", "next-1"))):
        ran = ours.done("keys", "generate", *options)
        assert ran.out.startswith(f"Wrote {path}. Keep a copy apart from the database")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key_id, _, key = path.read_text().strip().partition(":")
        assert key_id == ("next-1" if options else "k1")
        assert len(base64.urlsafe_b64decode(key)) == 32
        assert key not in ran.out
    configured.write_text(configured.read_text() + elsewhere.read_text())
    ran = ours.done("keys", "list", "--json")
    assert ran.json() == [
        {"id": "k1", "seals": True, "in_ring": True, "wrapped_by": None, "values": 0},
        {"id": "next-1", "seals": False, "in_ring": True, "wrapped_by": None, "values": 0},
    ]
    lines = [line.split() for line in ours.done("keys", "list").out.splitlines()]
    assert lines == [
        ["id", "seals", "in", "ring", "wrapped", "by", "values"],
        ["k1", "yes", "yes", "-", "0"],
        ["next-1", "no", "yes", "-", "0"],
    ]


def test_generating_needs_no_configuration_with_a_file(tmp_path: Path) -> None:
    """``--file`` says all that is needed, so a key can be made before there is a configuration."""
    assert run("keys", "generate", "--file", str(tmp_path / "keys")).code == 0


def test_an_existing_key_file_is_never_touched(ours: Cli) -> None:
    """A second ``keys generate`` is refused, and the file is as it was."""
    ours.done("keys", "generate")
    path = config.load(ours.config, {}).store.state_dir / "keys"
    before = path.read_bytes()
    assert "exists already; nothing was changed" in ours("keys", "generate").refusal(2)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "item"),
    [
        pytest.param(("generate", "--id", "Bad_Id"), "key id 'Bad_Id'", id="id"),
        pytest.param(("generate", "--file", "/dev/null/keys"), "key file /dev/null/keys: ", id="directory"),
        pytest.param(("list",), "does not exist; restore it from a backup, or make one with", id="missing"),
    ],
)
def test_keys_that_cannot_be_are_refused(arguments: tuple[str, ...], item: str, ours: Cli) -> None:
    """A bad id, a place that cannot be written and a missing ring are each one line."""
    assert item in ours("keys", *arguments).refusal(2)


def test_keys_from_a_variable_are_no_file(tmp_path: Path) -> None:
    """A ring in a variable is listed from there, and not generated into it."""
    ours = Cli(write_config(tmp_path, vault={"keys": {"env": "RING"}}))
    assert "--file FILE" in ours("keys", "generate").refusal(2)
    run("keys", "generate", "--file", str(tmp_path / "keys"), "--id", "of-env")
    ring = {"RING": (tmp_path / "keys").read_text()}
    (row,) = ours.done("keys", "list", "--json", environ=ring).json()
    assert (row["id"], row["seals"]) == ("of-env", True)
    ran = ours("keys", "list")
    assert (ran.code, ran.out) == (2, "")
    assert "vault.keys: the variable RING is not set" in ran.err


# --- a store that cannot be opened


@pytest.mark.parametrize(
    "command",
    [("serve",), ("tenants", "list"), ("tenants", "add", "a"), ("connect", "a"), ("grants", "list")],
)
def test_a_store_that_cannot_be_is_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    """A store below a regular file, and a file that is no database, are named with the remedy."""
    file = tmp_path / "file"
    file.write_text("this is no database, and it is longer than a header of one would be" * 20)
    below = Cli(write_config(tmp_path, store={"url": f"sqlite://{file}/proxy.db"}))
    assert re.search(rf"{file}/proxy.db: .* correct store.url", below(*command).refusal(1))
    strange = Cli(write_config(tmp_path, store={"url": f"sqlite://{file}"}))
    assert re.search(rf"store {file}: it is not a database .* restore a backup", strange(*command).refusal(1))


@pytest.mark.parametrize("command", [("serve",), ("tenants", "list"), ("grants", "list")])
def test_a_store_of_a_newer_version_is_left_alone(command: tuple[str, ...], ours: Cli) -> None:
    """A database with a step that this version does not know is refused, and not written to."""
    ours.done("tenants", "add", "acme")
    path = config.load(ours.config, {}).store.sqlite_path
    with sqlite3.connect(path) as db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('pleo-proxy', 'm999_future', '2030-01-01')"
        )
    db.close()
    before = path.read_bytes()
    line = ours(*command).refusal(1)
    assert "from a newer version (m999_future): upgrade pleo-proxy" in line
    assert path.read_bytes() == before


# --- a key ring that does not fit


@pytest.fixture
def sealed(ours: Cli) -> Cli:
    """The command line with a store that its key ring has sealed, as after a first start."""
    settings = config.load(ours.config, {})

    async def seal() -> None:
        store = open_store(settings.store.sqlite_path)
        await groundwork.open_vault(settings, {}, store)
        await store.close()

    asyncio.run(seal())
    return ours


@pytest.mark.parametrize(
    ("text", "mode", "item"),
    [
        pytest.param(None, 0o600, "is missing, and the store was sealed with it; restore it", id="missing"),
        pytest.param("k1:" + "A" * 43 + "=\n", 0o600, "does not fit this store", id="another-key"),
        pytest.param("k2:" + "A" * 43 + "=\n", 0o600, "'k1', which is not in the key ring", id="another-id"),
        pytest.param("", 0o644, "has mode 0644, so others can reach it; run `chmod 600", id="mode"),
        pytest.param("", 0o640, "has mode 0640, so others can reach it; run `chmod 600", id="group"),
        pytest.param("no key at all\n", 0o600, "line 1: not KEYID:BASE64", id="malformed"),
        pytest.param("k1:###\n", 0o600, "line 1: the key is not base64", id="not-base64"),
        pytest.param("k1:QUJD\n", 0o600, "line 1: the key has 3 bytes instead of 32", id="short"),
        pytest.param("# nothing\n\n", 0o600, "holds no key", id="no-key"),
        pytest.param(b"\xff\xfe\x00", 0o600, "is not text; put it back", id="binary"),
    ],
)
def test_serve_refuses_a_key_ring_that_does_not_fit(
    text: str | bytes | None, mode: int, item: str, sealed: Cli
) -> None:
    """A missing, changed, exposed or malformed key file stops the start in one line that shows no key."""
    path = config.load(sealed.config, {}).store.state_dir / "keys"
    ring = path.read_text()
    if text is None:
        path.unlink()
    elif text:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if text is not None:
        path.chmod(mode)
    line = sealed("serve").refusal(2)
    assert item in line
    assert ring.strip().partition(":")[2] not in line
    assert path.exists() is (text is not None), "nothing is generated beside a sealed store"


# --- policies


def test_a_policy_is_tried_out_and_then_enforced(ours: Cli) -> None:
    """A trial begins as the policy in force, is changed alone, and takes its place when it is promoted."""
    ours.done("tenants", "add", "acme", "--preset", "exports")
    ours.done("policy", "set", "acme", "--deny", "GET /v1/companies", "--rate", "60")
    report = ours.done("policy", "set", "acme", "--report", "--preset", "read-only", "--body-size", "64 KiB")
    assert report.out == (
        "On trial: see policy.would_refuse in the log. Next: pleo-proxy policy promote acme\n"
    )
    shown = ours.done("policy", "show", "acme", "--json").json()
    in_force = {
        "preset": "exports",
        "allow": [],
        "deny": ["GET /v1/companies"],
        "unblock": [],
        "callers": [],
        "pin_company": True,
        "requests_per_minute": 60,
        "concurrency": None,
        "body_bytes": None,
    }
    trial = {**in_force, "preset": "read-only", "body_bytes": 65536}
    assert shown == {"tenant": "acme", **in_force, "trial": trial}
    assert "preset exports -> read-only, body_bytes none -> 65536" in " ".join(
        ours.done("policy", "show", "acme").out.split()
    )

    ours.done("policy", "promote", "acme")
    assert ours.done("policy", "show", "acme", "--json").json() == {"tenant": "acme", **trial, "trial": None}
    assert ours.listed("tenants", "list")["acme"]["preset"] == "read-only"


def test_a_trial_can_be_discarded(ours: Cli) -> None:
    """The policy in force stays as it was, and there is nothing more to promote or discard."""
    ours.done("tenants", "add", "acme")
    ours.done("policy", "set", "acme", "--report", "--no-pin-company", "--callers", "10.0.0.0/8")
    ours.done("policy", "discard", "acme")
    assert ours.done("policy", "show", "acme", "--json").json()["trial"] is None
    for command in ("promote", "discard"):
        line = ours("policy", command, "acme").refusal()
        assert "no policy on trial; begin with `pleo-proxy policy set acme --report" in line


def test_fields_of_a_policy_are_replaced_and_cleared(ours: Cli) -> None:
    """What is given replaces what was there, all else stays, and --clear empties."""
    ours.done("tenants", "add", "acme")
    ours.done(
        *("policy", "set", "acme", "--allow", "GET /v1/a", "--allow", "GET /v1/b", "--concurrency", "3"),
        *("--unblock", "installation", "--callers", "10.0.0.0/8"),
    )
    ours.done("policy", "set", "acme", "--allow", "GET /v1/c", "--clear", "concurrency", "--clear", "callers")
    shown = ours.done("policy", "show", "acme", "--json").json()
    assert (shown["allow"], shown["unblock"]) == (["GET /v1/c"], ["installation"])
    assert (shown["concurrency"], shown["callers"]) == (None, [])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("set", "acme"), "nothing to change; give at least one option"),
        (("set", "acme", "--deny", "GET"), "rule 'GET' is not METHODS PATH"),
        (("set", "acme", "--rate", "0"), "requests_per_minute 0 must be at least 1"),
        (("set", "acme", "--body-size", "much"), "'much': must be bytes, or a whole number of KiB"),
        (("set", "acme", "--callers", "10.0.0.1/8"), "'10.0.0.1/8' is not in CIDR notation"),
        (("set", "acme", "--unblock", "everything"), "'everything' is not one of"),
        (("set", "globex", "--rate", "5"), "globex"),
        (("show", "globex"), "globex"),
    ],
)
def test_a_policy_that_cannot_be_had_changes_nothing(
    ours: Cli, arguments: tuple[str, ...], told: str
) -> None:
    """The refusal names what is wrong, and the policy stays."""
    ours.done("tenants", "add", "acme")
    before = ours.done("policy", "show", "acme", "--json").json()
    assert told in ours("policy", *arguments).refusal()
    assert ours.done("policy", "show", "acme", "--json").json() == before


def test_pleos_ceiling_holds_for_policies_and_files(tmp_path: Path) -> None:
    """In production no tenant gets more than 600 requests a minute, by command or by file."""
    config = write_config(tmp_path)
    text = re.sub(r"(?m)^(api|authorize|token)_url.*\n", "", config.read_text())
    config.write_text(text.replace('environment = "custom"', 'environment = "production"'))
    ours = Cli(config)
    ours.done("tenants", "add", "acme")
    assert "601 is more than the 600" in ours("policy", "set", "acme", "--rate", "601").refusal()
    file = tmp_path / "tenants.toml"
    file.write_text('[[tenant]]\nname = "acme"\npolicy = { requests_per_minute = 601 }\n')
    assert "601 is more than the 600" in ours("tenants", "apply", str(file)).refusal()


def test_apply_takes_policies(ours: Cli, tmp_path: Path) -> None:
    """A file gives policy and trial, prints what changes, and a second apply has nothing to do."""
    file = tmp_path / "tenants.toml"
    file.write_text("""
[[tenant]]
name = "acme"
preset = "exports"
policy = { deny = "GET /v1/companies", unblock = "subscription-secret", body_bytes = "1 MiB" }
trial = { preset = "read-only", pin_company = false }
""")
    ours.done("tenants", "add", "acme")
    trial = [
        "preset exports -> read-only",
        "deny GET /v1/companies -> none",
        "unblock subscription-secret -> none",
        "pin_company True -> False",
        "body_bytes 1048576 -> none",
    ]
    assert ours.done("tenants", "apply", str(file)).out.splitlines() == [
        "~ acme: preset full -> exports",
        "~ acme: deny none -> GET /v1/companies",
        "~ acme: unblock none -> subscription-secret",
        "~ acme: body_bytes none -> 1048576",
        f"~ acme: trial: {', '.join(trial)}",
    ]
    assert ours.done("tenants", "apply", str(file)).out == "Nothing to change.\n"
