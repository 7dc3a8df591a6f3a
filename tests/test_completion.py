"""``completion``: the shells' scripts, and what is offered for what was typed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import pytest

from proxy.cli import completion
from tests.command import PROGRAM, Cli, clean_environ, run, write_config


@pytest.fixture
def ours(tmp_path: Path) -> Cli:
    """A store with three tenants."""
    ours = Cli(write_config(tmp_path))
    for name in ("globex", "acme", "acorn"):
        ours.done("tenants", "add", name)
    return ours


def offered(config: Path | str, *words: str) -> list[str]:
    """What bash is offered for the last of ``words``, as its script asks."""
    environ = {
        "_PLEO_PROXY_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["pleo-proxy", *words]),
        "COMP_CWORD": str(len(words)),
        "PLEO_PROXY_CONFIG": str(config),
    }
    ran = run(environ=environ)
    assert (ran.code, ran.err) == (0, ""), ran
    return [line.partition(",")[2] for line in ran.out.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    """The script is printed without starting a program, and asks this one by its variable."""
    with mock.patch("subprocess.Popen", side_effect=AssertionError("a program was started")):
        ran = run("completion", shell)
    assert (ran.code, ran.err) == (0, "")
    assert f"_PLEO_PROXY_COMPLETE={shell}_complete" in ran.out


def test_bash_takes_its_script_and_completes_with_it(ours: Cli) -> None:
    """A real bash that has read the script completes commands and tenants."""
    bash = shutil.which("bash")
    assert bash is not None
    script = """
        eval "$(pleo-proxy completion bash)"
        COMP_WORDS=(pleo-proxy grants show ac) COMP_CWORD=3
        _pleo_proxy_completion pleo-proxy ac show
        echo "${COMPREPLY[@]}"
    """
    environ = {
        **clean_environ(),
        "PLEO_PROXY_CONFIG": str(ours.config),
        "PATH": f"{PROGRAM.parent}:/usr/bin:/bin",
    }
    ran = subprocess.run(
        [bash, "--norc", "-c", script], capture_output=True, text=True, env=environ, check=True
    )
    assert (ran.stdout, ran.stderr) == ("acme acorn\n", "")


def test_another_shell_is_refused() -> None:
    """A shell that has no script is told with those that have one."""
    assert "'bash', 'zsh', 'fish'" in run("completion", "tcsh").refusal(2)


def test_commands_and_options_are_offered(ours: Cli) -> None:
    """Names of commands and of their options are completed."""
    assert offered(ours.config, "comp") == ["completion"]
    assert offered(ours.config, "tail", "--st") == ["--status"]


@pytest.mark.parametrize(
    "words",
    [
        *(("tenants", each) for each in ("set", "show", "remove", "enable", "disable")),
        *(("grants", each) for each in ("show", "refresh", "revoke")),
        *(("policy", each) for each in ("show", "set", "promote", "discard")),
        ("connect",),
        ("audit", "list", "--tenant"),
        ("tail", "--tenant"),
    ],
    ids=" ".join,
)
def test_tenants_are_offered(words: tuple[str, ...], ours: Cli) -> None:
    """Where a tenant is named, those that there are and that begin so are offered in order."""
    assert offered(ours.config, *words, "ac") == ["acme", "acorn"]


def test_the_tenants_are_those_of_the_named_configuration(ours: Cli, tmp_path: Path) -> None:
    """A ``--config`` on the line counts."""
    assert offered("/no/such", "grants", "show", "--config", str(ours.config), "g") == ["globex"]


def test_a_new_tenant_is_offered_nothing(ours: Cli) -> None:
    """The name of a tenant that is to be added cannot be known."""
    assert offered(ours.config, "tenants", "add", "ac") == []


def test_a_store_that_does_not_answer_is_not_waited_for(ours: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that do not come at once are not offered."""

    class Silent:
        async def tenants(self) -> None:
            await asyncio.Event().wait()

        async def close(self) -> None:
            pass

    monkeypatch.setattr(completion, "open_store", lambda _url, **_: Silent())
    monkeypatch.setattr(completion, "_PATIENCE_S", 0.0)
    assert offered(ours.config, "grants", "show", "") == []


def test_without_a_store_nothing_is_offered(tmp_path: Path) -> None:
    """A configuration or a store that is not there is no error in the middle of a line, and is not made."""
    assert offered("/no/such", "grants", "show", "") == []
    config = write_config(tmp_path)
    assert offered(config, "grants", "show", "") == []
    assert not (tmp_path / "state").exists()
