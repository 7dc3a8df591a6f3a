"""What a changed configuration comes to: the classes of its keys, and the rule what is taken up."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.handover import Handover
from proxy.config import Configuration, Settings, configuration, load, reloaded, report
from proxy.config.mistakes import keys_of
from proxy.config.reloading import AT_RUN_TIME, NEEDS_RESTART
from proxy.errors import ConfigurationError
from proxy.model import Secret

BASE = '[pleo]\nclient_id = "ours"\nclient_secret = { file = "secret" }\n'
CUSTOM = (
    BASE + 'environment = "custom"\napi_url = "https://api.test"\n'
    'authorize_url = "https://auth.test/authorize"\ntoken_url = "https://auth.test/token"\n'
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the client secret in a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("first-client-secret")
    return tmp_path


def read(text: str, environ: dict[str, str] | None = None) -> Configuration:
    Path("config.toml").write_text(text if "[pleo]" in text else BASE + text)
    return configuration(load(Path("config.toml"), environ or {}), environ or {}, "config.toml")


def outcome(before: str, after: str) -> tuple[set[str], set[str], tuple[str, ...]]:
    found = reloaded(read(before), read(after), at=1.0)
    return set(found.changed), set(found.needs_restart), found.mistakes


def test_every_key_is_in_one_class() -> None:
    """Whoever adds a setting decides whether a reload takes it up; there is no third class."""
    assert not AT_RUN_TIME & NEEDS_RESTART.keys()
    assert {*AT_RUN_TIME, *NEEDS_RESTART} == set(keys_of(Settings))


@pytest.mark.parametrize(
    ("before", "after", "changed", "waiting"),
    [
        pytest.param("", "", set(), set(), id="nothing"),
        pytest.param("", '[log]\nlevel = "debug"', {"log.level"}, set(), id="taken-up"),
        pytest.param("", '[log]\nlevel = "info"', set(), set(), id="the-default-written-out"),
        pytest.param("", "[listen]\nworkers = 2", set(), {"listen.workers"}, id="waits"),
        pytest.param(
            "",
            '[listen]\nworkers = 2\n[log]\nlevel = "debug"',
            {"log.level"},
            {"listen.workers"},
            id="tables-apart",
        ),
        pytest.param(
            "",
            '[listen]\nworkers = 2\nhosts = ["a.test"]',
            set(),
            {"listen.workers", "listen.hosts"},
            id="table-together",
        ),
        pytest.param(
            "",
            '[pleo]\nenvironment = "staging"\nclient_id = "other"\nclient_secret = "x"\n',
            set(),
            {"pleo.environment", "pleo.client_id", "pleo.client_secret"},
            id="no-secret-goes-to-another-environment",
        ),
        pytest.param(
            "", '[store]\nstate_dir = "/srv"', set(), {"store.state_dir", "vault.keys"}, id="keys-follow"
        ),
        pytest.param('[admin]\ntoken = "a"', "", set(), {"admin.token"}, id="a-token-taken-away"),
        pytest.param("", '[admin]\ntoken = "a"', {"admin.token"}, set(), id="a-token-given"),
        pytest.param(
            '[admin]\ntoken = "a"', '[admin]\ntoken = "b"', {"admin.token"}, set(), id="another-token"
        ),
    ],
)
def test_what_is_taken_up_and_what_waits(
    before: str, after: str, changed: set[str], waiting: set[str]
) -> None:
    """Keys with another value, and of these those whose table can be exchanged while the proxy runs."""
    assert outcome(before, after) == (changed, waiting, ())


def test_a_table_waits_as_a_whole() -> None:
    """What is in force after it is the former table whole beside the new ones whole, as people see it too."""
    old = read('[listen]\nhosts = ["old.test"]')
    new = read('[listen]\nhosts = ["new.test"]\nworkers = 2\n[limits]\nheaders = 7')
    found = reloaded(old, new, at=1.0)
    settings = found.configuration.settings
    assert (settings.listen, settings.limits) == (old.settings.listen, new.settings.limits)
    shown = {row.key: row.value for row in found.configuration.shown}
    assert (shown["listen.hosts"], shown["listen.workers"]) == ('["old.test"]', "1")
    assert (shown["limits.headers"], shown["pleo.client_secret"]) == ("7", '{ file = "secret" }')


def test_a_secret_that_changed_in_its_file_is_a_change(folder: Path) -> None:
    """The setting names the same file, and what is in it is another secret."""
    old = read("")
    (folder / "secret").write_text("second-client-secret")
    found = reloaded(old, read(""), at=1.0)
    assert found.changed == ("pleo.client_secret",)
    assert found.configuration.settings.pleo.client_secret == Secret("second-client-secret")
    assert reloaded(found.configuration, read(""), at=2.0).changed == ()


def test_a_secret_that_was_only_moved_is_no_change(folder: Path) -> None:
    """From a file to a variable: the same is in force, and the settings page shows the new place."""
    old = read("")
    new = read('[pleo]\nclient_id = "ours"\nclient_secret = { env = "S" }\n', {"S": "first-client-secret"})
    found = reloaded(old, new, at=1.0)
    assert (found.changed, found.needs_restart) == ((), ())
    shown = {row.key: row.value for row in found.configuration.shown}
    assert shown["pleo.client_secret"] == '{ env = "S" }'


def test_tables_that_do_not_hold_together_are_not_taken_up() -> None:
    """A rule between a table that waits and one that does not: nothing changes, and the mistake says why."""
    old = read("")
    new = read(CUSTOM + "[limits]\ntenant_requests_per_minute = 2000")
    found = reloaded(old, new, at=1.0)
    assert found.configuration is old
    (mistake,) = found.mistakes
    assert "tenant_requests_per_minute must not exceed the 600" in mistake
    assert "until a restart [pleo] stays as it is" in mistake


def test_the_report_says_why_something_waits() -> None:
    """For each key its own reason, or that of its table."""
    new = read('[listen]\nworkers = 2\nhosts = ["a.test"]\n')
    told = report(reloaded(read('[admin]\ntoken = "a"\n'), new, at=1.0))
    assert told.needs_restart == {
        "listen.hosts": "[listen] is taken up as a whole",
        "listen.workers": "processes are started at a start",
        "admin.token": "without it a token is generated, which a start shows",
    }


def test_no_report_holds_a_secret(folder: Path) -> None:
    """Neither what changed nor what is wrong is told with a secret, and nothing shows one by chance."""
    secrets = ["first-client-secret", "second-client-secret", "token-as-text", "other-token"]
    old = read('[admin]\ntoken = "token-as-text"')
    (folder / "secret").write_text("second-client-secret")
    found = reloaded(old, read('[admin]\ntoken = "other-token"'), at=1.0)
    assert set(found.changed) == {"pleo.client_secret", "admin.token"}
    told = f"{report(found)} {found!r} {found.configuration.settings!r}"
    with pytest.raises(ConfigurationError) as error:
        read('[admin]\ntoken = "other-token"\nviewer_token = ["other-token"]')
    assert [secret for secret in secrets if secret in told + str(error.value)] == []


def test_a_configuration_gets_to_a_worker_whole(folder: Path) -> None:
    """With its secrets, and by a handover only: by itself it refuses to be packed."""
    old = read('[store]\nurl = "postgresql://ann:a-password@db.test/x"')
    with pytest.raises(TypeError):
        pickle.dumps(old)
    got: Any = pickle.loads(pickle.dumps(Handover(old))).what
    assert got == old
    assert got.settings.pleo.client_secret == Secret("first-client-secret")
    assert got.settings.store.url.password == Secret("a-password")


def test_the_vaults_keys_are_left_to_the_vault(folder: Path) -> None:
    """They may yet be generated, and are read by nobody else."""
    loaded = read(f'[vault]\nkeys = {{ file = "{folder}/no-such-file" }}')
    assert str(loaded.settings.vault.keys) == f'{{ file = "{folder}/no-such-file" }}'
