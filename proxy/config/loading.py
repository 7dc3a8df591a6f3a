"""Finds and reads the configuration file, lays the environment over it, and reports all mistakes at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from proxy.config.environment import PREFIX, FromEnvironment, read_environment
from proxy.config.mistakes import lines
from proxy.config.settings import Settings
from proxy.errors import ConfigurationError, UsageError

SYSTEM_FILE = Path("/etc/pleo-proxy/config.toml")
LOCAL_FILE = Path("config.toml")
FILE_VARIABLE = "PLEO_PROXY_CONFIG"


def find(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The configuration file to use: ``--config``, ``$PLEO_PROXY_CONFIG``, the system's, the local one.

    ``None`` where there is no file but the environment holds settings, as in a container. Raises
    :class:`UsageError` where a named file does not exist, and where there is nothing at all.
    """
    if explicit is not None:
        return _named(explicit, "--config")
    if environ.get(FILE_VARIABLE):
        return _named(Path(environ[FILE_VARIABLE]), f"${FILE_VARIABLE}")
    for candidate in (SYSTEM_FILE, LOCAL_FILE):
        if _is_there(candidate):
            return candidate
    if any(name.startswith(PREFIX) for name in environ):
        return None
    raise UsageError(
        f"no configuration found: neither --config nor ${FILE_VARIABLE} is given, and there is neither "
        f"{SYSTEM_FILE} nor ./{LOCAL_FILE}; copy config/example.toml to one of them and edit it"
    )


def _named(path: Path, source: str) -> Path:
    if not _is_there(path):
        raise UsageError(
            f"{source} {path}: there is no such file; correct the path, or copy config/example.toml there"
        )
    return path


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # a file that must not be looked at is reported when it is read, not passed over
    return True


def load(path: Path | None, environ: Mapping[str, str], *, check_references: bool = False) -> Settings:
    """The settings of the file at ``path`` (``None``: no file) with those of ``environ`` laid over them.

    With ``check_references`` the secrets and files that the settings name must be readable too, save
    ``vault.keys``, which may be generated later. Raises :class:`ConfigurationError` with all mistakes.
    """
    data = read_toml(path) if path is not None else {}
    overrides = read_environment(Settings, environ)
    _lay_over(data, overrides)
    mistakes = overrides.mistakes
    try:
        settings = Settings.model_validate(data, context=environ if check_references else None)
    except ValidationError as error:
        notes = {key: f"from {name}" for key, name in overrides.origins.items()}
        mistakes = [*mistakes, *lines(error, Settings, notes)]
    if mistakes:
        raise ConfigurationError(str(path) if path is not None else "the environment", mistakes)
    return settings


def read_toml(path: Path) -> dict[str, object]:
    """The tables of a TOML file; raises :class:`ConfigurationError` with line and column if it is none."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        mistake = _syntax_mistake(str(error))
    except UnicodeDecodeError:
        mistake = "the file is not text in UTF-8; save it as UTF-8"
    except ValueError:
        mistake = "a whole number in the file has thousands of digits; shorten it"
    except RecursionError:
        mistake = "lists or tables in the file are nested hundreds deep; flatten them"
    except IsADirectoryError:
        mistake = "this is a directory; name the file in it"
    except FileNotFoundError:
        mistake = "there is no such file; put it back, or correct the path"
    except OSError:
        mistake = "the file cannot be read; let this user read it"
    raise ConfigurationError(str(path), [mistake])


def _syntax_mistake(message: str) -> str:
    """The place, and which kind of fault; the parser's own text is dropped, since it may quote the file."""
    place = re.search(r"at line (\d+), column (\d+)", message)
    where = f"line {place[1]}, column {place[2]}" if place else "the end of the file"
    if re.match("Cannot (declare|overwrite|mutate)|Duplicate", message):
        return f"{where}: a key or table is given twice; keep one of the two"
    return f"{where}: not valid TOML; check for text without quotes and brackets left open"


def _lay_over(data: dict[str, object], overrides: FromEnvironment) -> None:
    # A missing [pleo] counts as an empty one, so that the keys it lacks are named.
    data.setdefault("pleo", {})
    for key, value in overrides.values.items():
        section, _, name = key.partition(".")
        table = data.setdefault(section, {})
        if isinstance(table, dict):
            table[name] = value
