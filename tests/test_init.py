"""``init``: what it asks, what it writes, and what it never touches."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from proxy import config
from proxy.config import EnvRef, FileRef
from tests.command import run
from tests.terminal import at_terminal

SECRET = {"PLEO_CLIENT_SECRET": "planted-secret"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_need_no_answer(here: Path) -> None:
    """``--defaults`` asks nothing and writes a file of its owner's with comments, which ``check`` passes."""
    ran = run("init", "--defaults")
    assert (ran.code, ran.err) == (0, "")
    path = here / "config.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().count("\n# ") > 5
    checked = run("check", "--config", "config.toml", environ=SECRET)
    assert (checked.code, "Registration at Pleo (staging)" in checked.out) == (0, True), checked
    settings = config.load(path, SECRET)
    assert settings.pleo.client_secret == EnvRef("PLEO_CLIENT_SECRET")
    assert settings.store.url.path == here / "pleo-proxy-state" / "proxy.db"


def test_answers_are_what_is_written(here: Path) -> None:
    """Each answer stands in the file, odd characters too, and ``check`` passes it."""
    secret = here / 'a "secret"'
    secret.write_text("planted-secret")
    secret.chmod(0o600)
    answers = [
        "production",
        'id "ä\\',
        f"file {secret}",
        "companies:read, users:read export-jobs:read",
        "https://pleo.example.com",
        "state dir",
    ]
    ran = run("init", "--file", "other.toml", stdin="\n".join(answers) + "\n")
    assert ran.code == 0, ran
    settings = config.load(here / "other.toml", {}, check_references=True)
    assert settings.pleo.environment == "production"
    assert settings.pleo.client_id == 'id "ä\\'
    assert settings.pleo.client_secret == FileRef(secret)
    assert list(settings.pleo.scopes) == ["companies:read", "users:read", "export-jobs:read"]
    assert settings.redirect_uri == "https://pleo.example.com/oauth/callback"
    assert settings.store.url.path == here / "state dir" / "proxy.db"
    assert settings.store.state_dir == here / "state dir"
    assert run("check", "--config", "other.toml").code == 0


def test_a_home_directory_is_meant(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may begin with ``~``, as at a shell."""
    monkeypatch.setenv("HOME", str(here / "home"))
    assert run("init", stdin="\n\nfile ~/secret\n\n\n~/state\n").code == 0
    settings = config.load(here / "config.toml", {})
    assert settings.pleo.client_secret == FileRef(here / "home" / "secret")
    assert settings.store.state_dir == here / "home" / "state"


def test_it_says_what_comes_next(here: Path) -> None:
    """The steps to the first call are printed, with the file's name where the shell would break it."""
    out = run("init", "--defaults", "--file", "my config.toml").out
    assert out.startswith("Wrote my config.toml. Next:\n")
    steps = (
        "read -rs PLEO_CLIENT_SECRET",
        *(f"pleo-proxy {word} " for word in ("check", "serve", "connect")),
    )
    assert [step for step in steps if step not in out] == []
    assert out.count("--config 'my config.toml'") == 4


def test_an_answer_that_cannot_be_is_asked_for_again(here: Path) -> None:
    """What the configuration would refuse is said at once, with the rule, and asked for again."""
    answers = [
        "custom",
        "staging",
        "id",
        "my-secret",
        "env",
        "env not-a-name",
        "env MY_SECRET",
        "no scope",
        "users:read",
        "http://pleo.example.com",
        "http://localhost:8081",
        "/a?b",
        "",
    ]
    ran = run("init", stdin="\n".join(answers) + "\n")
    assert ran.code == 0, ran
    errors = [line for line in ran.err.splitlines() if "Error: " in line]
    words = (
        "one of staging, production",
        "not the secret",
        "not the secret",
        "client_secret",
        "scopes",
        "https",
        "url",
    )
    assert [word in error for word, error in zip(words, errors, strict=True)] == [True] * 7, errors
    assert config.load(here / "config.toml", {}).pleo.client_secret == EnvRef("MY_SECRET")


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_exists_is_never_touched(kind: str, here: Path) -> None:
    """A file, even a link that leads nowhere, ends it before the first question."""
    path = here / "config.toml"
    match kind:
        case "file":
            path.write_text("mine")
        case "link":
            path.symlink_to(here / "elsewhere")
        case _:
            path.mkdir()
    line = run("init", "--defaults").refusal(2)
    assert "config.toml" in line
    assert "--file" in line
    assert sorted(here.iterdir()) == [path]


def test_a_file_that_came_meanwhile_is_not_touched(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another program wrote while questions were asked stays as it is."""
    path = here / "config.toml"
    path.write_text("mine")
    seen = iter([False])
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda each, **_: next(seen, None) is not False and exists(each))
    assert "exists already" in run("init", "--defaults").refusal(2)
    assert path.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(here: Path) -> None:
    """A directory that is not there is told with what to do."""
    line = run("init", "--defaults", "--file", "no/config.toml").refusal(1)
    assert "no/config.toml: it cannot be written (No such file or directory)" in line


def test_answers_that_end_early_write_nothing(here: Path) -> None:
    """Without an answer to each question there is no file."""
    ran = run("init", stdin="staging\n")
    assert ran.code == 2
    assert "give --defaults" in ran.err
    assert list(here.iterdir()) == []


def test_a_person_is_asked_at_a_terminal(tmp_path: Path) -> None:
    """At a terminal each question waits with what Enter stands for; who leaves writes nothing."""
    with at_terminal("init", cwd=tmp_path) as terminal:
        for question in ("[staging]: ", "[your-client-id]: ", "[env PLEO_CLIENT_SECRET]: "):
            terminal.until(question)
            terminal.type("\n")
        terminal.until("[companies:read users:read]: ")
        terminal.type("\n")
        terminal.until("[http://localhost:8081]: ")
        terminal.type("\n")
        terminal.until("pleo-proxy-state]: ")
        terminal.type("\n")
        assert terminal.ended() == 0
    written = tomllib.loads((tmp_path / "config.toml").read_text())
    assert written["pleo"]["environment"] == "staging"
    with at_terminal("init", "--file", "other.toml", cwd=tmp_path) as terminal:
        terminal.until("[staging]: ")
        terminal.type("\x04")
        assert terminal.ended() == 130
    assert not (tmp_path / "other.toml").exists()
