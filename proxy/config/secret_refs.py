"""Where secrets come from: a variable, a file, a systemd or Docker credential, or the text itself.

Settings hold references; :func:`resolve` opens one when it is needed, so that commands which need no secret
work in a shell that has none. No error and no ``repr`` holds a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, assert_never

from pydantic import PlainValidator, ValidationInfo

from proxy.config.values import Kind, Rule
from proxy.errors import ConfigurationError
from proxy.model import Secret

DOCKER_SECRETS = Path("/run/secrets")
"""Where Docker and Podman mount secrets; systemd says its place in ``$CREDENTIALS_DIRECTORY``."""


@dataclass(frozen=True, slots=True)
class EnvRef:
    """``{ env = "NAME" }``: the environment variable NAME."""

    name: str

    def __str__(self) -> str:
        return f'{{ env = "{self.name}" }}'


@dataclass(frozen=True, slots=True)
class FileRef:
    """``{ file = "PATH" }``: the contents of a file, without the newline at its end."""

    path: Path

    def __str__(self) -> str:
        return f'{{ file = "{self.path}" }}'


@dataclass(frozen=True, slots=True)
class CredentialRef:
    """``{ credential = "NAME" }``: ``$CREDENTIALS_DIRECTORY/NAME``, or ``/run/secrets/NAME`` without it."""

    name: str

    def __str__(self) -> str:
        return f'{{ credential = "{self.name}" }}'

    def path(self, environ: Mapping[str, str]) -> Path:
        """The file that holds the credential."""
        return Path(environ.get("CREDENTIALS_DIRECTORY") or DOCKER_SECRETS) / self.name


SecretRef = EnvRef | FileRef | CredentialRef | Secret
"""How a setting names a secret; a :class:`Secret` is one that was given inline."""


def _shape() -> Rule:
    places = '{ env = "NAME" }, { file = "PATH" } and { credential = "NAME" }'
    return Rule(f"must be one of {places}; name the place that holds the secret")


def parse_ref(value: object) -> SecretRef:
    """A reference from what TOML or JSON gives; anything else raises :class:`Rule`."""
    if isinstance(value, EnvRef | FileRef | CredentialRef | Secret):
        return value
    if isinstance(value, str) and value.strip():
        return Secret(value)
    if not isinstance(value, dict) or len(value) != 1:
        raise _shape()
    ((kind, name),) = value.items()
    if not isinstance(name, str):
        raise _shape()
    match kind:
        case "env":
            _require(
                r"[A-Za-z_][A-Za-z0-9_]*", name, "env takes a variable's name, not its value; correct it"
            )
            return EnvRef(name)
        case "file":
            _require(r"[^~\0][^\0]*", name, "file takes a path, in which ~ is not expanded; write it in full")
            return FileRef(Path(name))
        case "credential":
            _require(r"\w[\w.-]*", name, "credential takes a plain name, not a path; correct it")
            return CredentialRef(name)
        case _:
            raise _shape()


def _require(pattern: str, name: str, rule: str) -> None:
    if re.fullmatch(pattern, name) is None:
        raise Rule(rule)


def read_secret(ref: SecretRef, environ: Mapping[str, str]) -> Secret:
    """The secret that ``ref`` names; raises :class:`Rule` where it is missing, unreadable or empty."""
    match ref:
        case Secret():
            return ref
        case EnvRef(name):
            if not environ.get(name):
                state = "empty" if name in environ else "not set"
                raise Rule(f"the variable {name} is {state}; set it for this process, or name another place")
            return Secret(environ[name])
        case FileRef(path):
            return _read(path)
        case CredentialRef():
            return _read(ref.path(environ))
        case _:
            assert_never(ref)


def _read(path: Path) -> Secret:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Rule(f"the file {path} does not exist; create it, or name another place") from None
    except UnicodeDecodeError:
        raise Rule(f"the file {path} is not text in UTF-8; save it as plain text") from None
    except OSError:
        raise Rule(f"the file {path} cannot be read; let the proxy's user read it") from None
    text = text.rstrip("\r\n")
    if not text.strip():
        raise Rule(f"the file {path} is empty; write the secret into it")
    return Secret(text)


def resolve(ref: SecretRef, environ: Mapping[str, str], *, item: str = "the secret") -> Secret:
    """The secret that ``ref`` names.

    ``item`` is the setting's dotted key, for the message of the :class:`ConfigurationError` that is raised
    where the variable is not set, or the file is missing, unreadable or empty.
    """
    try:
        return read_secret(ref, environ)
    except Rule as rule:
        raise ConfigurationError("secrets", [f"{item}: {rule}"]) from None


def _parse_and_try(value: object, info: ValidationInfo) -> SecretRef:
    ref = parse_ref(value)
    if info.context is not None:
        read_secret(ref, info.context)
    return ref


def _parse_and_open(value: object, info: ValidationInfo) -> Secret:
    return read_secret(parse_ref(value), info.context or {})


SecretSetting = Annotated[SecretRef, PlainValidator(_parse_and_try), Kind("secret", secret=True)]
"""A reference. If the environment is given as validation context, it must be possible to open it."""

GeneratedSecret = Annotated[SecretRef, PlainValidator(parse_ref), Kind("secret", secret=True)]
"""A reference to what may yet be generated, and is never opened at validation."""

OpenedSecret = Annotated[Secret, PlainValidator(_parse_and_open), Kind("secret", secret=True)]
"""The secret itself, opened at validation with the environment that is given as context."""
