"""``init``: the few questions of a first set-up, and a configuration with the answers."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import ValidationError

from proxy.config import Settings
from proxy.config.loading import LOCAL_FILE
from proxy.config.mistakes import lines
from proxy.errors import OperatorError, UsageError

Data = dict[str, dict[str, object]]
"""The tables of the configuration."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked, and what the answer is in the configuration."""

    key: str
    text: str
    default: str
    value: Callable[[str], object] = str
    choices: tuple[str, ...] = ()


def _questions() -> list[_Question]:
    state = str(Path.cwd() / "pleo-proxy-state")
    return [
        _Question("pleo.environment", "Pleo's environment", "staging", choices=("staging", "production")),
        _Question("pleo.client_id", "Client id from Pleo (it can be filled in later)", "your-client-id"),
        _Question(
            "pleo.client_secret",
            "Where the client secret is: env NAME (a variable) or file PATH",
            "env PLEO_CLIENT_SECRET",
            _reference,
        ),
        _Question("pleo.scopes", "Scopes to ask for", "companies:read users:read", _words),
        _Question(
            "listen.public_url",
            "How a browser reaches the operator's listener (https unless it is on this machine)",
            "http://localhost:8081",
        ),
        _Question(
            "store.state_dir", "Directory for what must survive: database, journal, keys", state, _path
        ),
    ]


def _words(text: str) -> list[str]:
    return re.split(r"[\s,]+", text.strip())


def _path(text: str) -> str:
    # Absolute, so that commands find it from wherever they are run.
    return str(Path(text).expanduser().absolute())


def _reference(text: str) -> dict[str, str]:
    kind, _, name = text.strip().partition(" ")
    if kind not in ("env", "file") or not name.strip():
        raise click.BadParameter("write env and the variable's name, or file and the path; not the secret")
    return {kind: _path(name.strip()) if kind == "file" else name.strip()}


@click.command()
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=LOCAL_FILE,
    show_default=True,
    metavar="FILE",
    help="Where to write it.",
)
@click.option("--defaults", is_flag=True, help="Ask nothing: take the answer that each question proposes.")
def init(path: Path, *, defaults: bool) -> None:
    """Ask what a first set-up needs, and write a configuration with comments.

    It is readable by its owner only, and an existing file is never touched. The client secret is not asked
    for, only where it will be.
    """
    _refuse_existing(path)
    answers = _answers(ask=not defaults)
    _write(path, _rendered(answers))
    click.echo(f"Wrote {path}. Next:\n")
    for number, step in enumerate(_steps(answers, path), 1):
        click.echo(f"  {number}. {step}")


def _answers(*, ask: bool) -> Data:
    questions = _questions()
    answers: Data = {}
    for question in questions:
        _put(answers, question.key, question.value(question.default))
    _put(answers, "store.url", _store_url(answers))
    if ask:
        for question in questions:
            _put(answers, question.key, _asked(question, answers))
        _put(answers, "store.url", _store_url(answers))
    return answers


def _put(data: Data, key: str, value: object) -> None:
    section, _, name = key.partition(".")
    data.setdefault(section, {})[name] = value


def _store_url(answers: Data) -> str:
    return f"sqlite://{answers['store']['state_dir']}/proxy.db"


def _asked(question: _Question, answers: Data) -> object:
    """The answer, asked for until it may stand in a configuration."""

    def checked(text: str) -> object:
        if question.choices and text not in question.choices:
            raise click.BadParameter(f"one of {', '.join(question.choices)}")
        tried = {section: dict(keys) for section, keys in answers.items()}
        _put(tried, question.key, question.value(text))
        _put(tried, "store.url", _store_url(tried))
        try:
            Settings.model_validate(tried)
        except ValidationError as error:
            raise click.BadParameter("; ".join(lines(error, Settings, {}))) from None
        return tried[question.key.partition(".")[0]][question.key.partition(".")[2]]

    text = question.text + (f" ({', '.join(question.choices)})" if question.choices else "")
    try:
        return click.prompt(text, default=question.default, value_proc=checked, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError(
            "the answers ended before the questions did, and nothing was written; answer all of them, or "
            "give --defaults"
        ) from None


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already and was left as it is; name another with --file FILE")


def _write(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        _refuse_existing(path)
        raise
    except OSError as error:
        raise OperatorError(
            f"{path}: it cannot be written ({os.strerror(error.errno or 0)}); choose another place with "
            "--file FILE"
        ) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


_TEMPLATE = """\
# pleo-proxy, as `pleo-proxy init` wrote it. docs/configuration.md explains every setting, config/example.toml
# has them all to copy, and `pleo-proxy check --config FILE` reports all mistakes at once.

[listen]

# How the browser of the person who consents reaches the operator's listener; https unless on this machine.
# Pleo must have this address with /oauth/callback as a redirect URI, letter by letter.
public_url = {public_url}

# Where callers connect. They have no passwords: before opening this to a network, let a firewall admit only
# the machines that may call.
#proxy = "127.0.0.1:8080"

# The operator's listener. It speaks plain HTTP; put TLS in front before opening it.
#admin = "127.0.0.1:8081"


[pleo]

# production or staging. Pleo issues credentials for each.
environment = {environment}

# From Pleo, when it has registered the integration.
client_id = {client_id}

# Where the secret is, which need not stand here: {{ env = "NAME" }}, {{ file = "PATH" }} or
# {{ credential = "NAME" }} for a credential of systemd, Docker or Podman.
client_secret = {client_secret}

# What authorisers are asked for, within what Pleo granted to the integration.
scopes = {scopes}


[store]

# Tenants and sealed tokens. On a local disk, or "postgresql://USER@HOST/DATABASE" for several machines.
url = {url}

# The refresh journal and generated keys. Must survive restarts; keep copies of the keys apart from the
# database.
state_dir = {state_dir}
"""


def _rendered(answers: Data) -> str:
    values = {name: _toml(value) for keys in answers.values() for name, value in keys.items()}
    return _TEMPLATE.format(**values)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    # What JSON has for texts and lists of them is TOML too.
    return json.dumps(value, ensure_ascii=False)


def _steps(answers: Data, path: Path) -> list[str]:
    given = answers["pleo"]["client_secret"]
    assert isinstance(given, dict), "a reference"
    if name := given.get("env"):
        secret = f"Have the client secret in {name}: read -rs {name} && export {name}"
    else:
        secret = f"Put the client secret into {given['file']}, readable by its owner only (chmod 600)"
    config = f"--config {shlex.quote(str(path))}"
    return [
        f"{secret}. Until Pleo gives you one, anything will do.",
        f"Register at Pleo with what this prints: pleo-proxy check {config}",
        f"Enter the client id from Pleo into {path}, if it is not there yet.",
        f"Add a tenant, any name: pleo-proxy tenants add acme {config}",
        f"Serve: pleo-proxy serve {config}",
        f"Connect it, in another terminal: pleo-proxy connect acme {config}",
    ]
