"""Any file is a configuration or a list of its mistakes, each one line, and no secret in it is ever shown.

Two texts stand for secrets: one for what may stand at keys of secrets, at unknown keys and in broken files,
and one for passwords within URLs, wherever they stand.
"""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy import config
from proxy.config import Settings, load_tenants_file
from proxy.config.mistakes import keys_of
from proxy.errors import OperatorError
from tests.test_house_rules import ROOT

PLANTED = "planted-secret-c6f1"
PASSWORD = "planted-password-77aa"
KEYS = sorted(keys_of(Settings))
SECTIONS = sorted({key.partition(".")[0] for key in KEYS})
MINIMUM = f'[pleo]\nclient_id = "x"\nclient_secret = "{PLANTED}"\n'

SEEDS = [
    MINIMUM.encode(),
    (ROOT / "config" / "example.toml").read_bytes(),
    (ROOT / "config" / "production.toml").read_bytes(),
    (ROOT / "config" / "tenants.example.toml").read_bytes(),
    f'{MINIMUM}api_url = "http://u:{PASSWORD}@h/"\n[store]\nurl = "postgresql://u:{PASSWORD}@h/d"\n'.encode(),
    f'{MINIMUM}[vault]\nkeys = "k1:{PLANTED}"\n[admin]\ntoken = ["{PLANTED}"]\n'.encode(),
    f'[[tenant]]\nname = "acme"\nlegacy_keys = ["{PLANTED}", {{ env = "X" }}]\n'.encode(),
    b"x = " + b"[" * 60 + b"]" * 60,
]

_folder = tempfile.TemporaryDirectory(prefix="pleo-proxy-fuzz-")
FILE = Path(_folder.name) / "config.toml"
"""Written anew for each input; the directory goes with the process."""


def judge(text: bytes) -> None:
    """Hold the oracle to one file, as configuration and as a file of tenants."""
    FILE.write_bytes(text)
    shown = []
    try:
        loaded = config.load(FILE, {})
    except OperatorError as error:
        shown += [str(error), *judged_mistakes(error)]
    else:
        assert isinstance(loaded, Settings)
        shown += [repr(loaded), str(loaded), str(loaded.store.url)]
    try:
        shown.append(repr(load_tenants_file(FILE, {})))
    except OperatorError as error:
        shown += [str(error), *judged_mistakes(error)]
    assert not [line for line in shown if PASSWORD in line], shown
    if not any(PLANTED in str(value) for value in values_to_show(text)):
        assert not [line for line in shown if PLANTED in line], shown


def values_to_show(text: bytes) -> Iterator[Any]:
    """Values of known keys that hold no secret: a mistake must show those."""
    try:
        tables = tomllib.loads(text.decode())
    except (ValueError, RecursionError):
        return
    for section, table in tables.items():
        if section == "tenant":
            for each in table if isinstance(table, list) else ():
                if isinstance(each, dict):
                    yield from (value for name, value in each.items() if name != "legacy_keys")
        elif isinstance(table, dict):
            yield from (value for name, value in table.items() if is_shown(f"{section}.{name}"))


def is_shown(key: str) -> bool:
    return key in KEYS and not re.search("(secret|secret_previous|token|keys|credentials)$", key)


def judged_mistakes(error: OperatorError) -> list[str]:
    lines = str(error).splitlines()
    assert lines
    assert all(line.strip() and line.isprintable() for line in lines), lines
    assert "Traceback" not in str(error)
    return lines


def check(data: bytes) -> None:
    """The input is the file."""
    judge(data)


def toml(value: Any) -> str:
    """A value as TOML writes it, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(name))} = {toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return re.sub("e(?!.*[.])", "e", repr(value)) if "inf" not in repr(value) else "inf"
    return json.dumps(value) if not isinstance(value, str) else json.dumps(value).replace("\x7f", "\\u007f")


WORDS = st.sampled_from([
    PLANTED, f"http://u:{PASSWORD}@h/", f"postgresql://u:{PASSWORD}@h/d", "127.0.0.1:0", "https://h",
    "custom", "64 MiB", "-1", "", "0.5", "a b", "\0", "é", "[::1]:8080", "sqlite:x.db", "env", "file", "../x",
])  # fmt: skip
NUMBERS = st.booleans() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False)
VALUES = st.recursive(
    NUMBERS | WORDS | st.text("a\u2028'\"\n", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["env", "file", "credential", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
NAMES = st.sampled_from([*(key.partition(".")[2] for key in KEYS), "x", "client-secret"])
SECTION = VALUES | st.dictionaries(NAMES, VALUES, max_size=6)
TABLES = st.dictionaries(st.sampled_from([*SECTIONS, "tenant", "x"]), SECTION, max_size=4)


def written(tables: dict[str, Any]) -> bytes:
    return "".join(f"{name} = {toml(value)}\n" for name, value in tables.items()).encode("utf-8", "replace")


@settings(max_examples=300)
@given(TABLES.map(written) | st.sampled_from(SEEDS) | st.binary(max_size=60))
@example(b"x = " + b"[" * 5000)
@example(b"x = " + b"9" * 5000)
@example(b"pleo = " + b"{a=" * 3000)
@example(b"pleo." + b"a." * 3000 + b"b = 1")
@example(b"x = 1979-05-27T07:32:00Z\ny = 0000-00-00\nz = 99:99:99")
def test_any_file_is_settings_or_a_list_of_mistakes(text: bytes) -> None:
    """No file gets a traceback, and no mistake shows what may be a secret."""
    judge(text)


HIDDEN = [key for key in KEYS if not is_shown(key)]


@settings(max_examples=200)
@given(
    st.sampled_from([*HIDDEN, "pleo.client_secrets", "pleo.secret", "planted.x", "tenant.x", "x"]),
    VALUES,
    st.sampled_from(["", "[", '"', "{", "=", "\\"]),
)
def test_a_secret_where_none_belongs_stays_hidden(key: str, value: Any, broken: str) -> None:
    """A secret at a misspelt key, in a list or table that its key does not take, or in a broken file."""
    section, _, name = key.rpartition(".")
    lines = [f"[{section}]"] if section else []
    lines += [f"{name} = {toml(PLANTED)}", f"{name}x = {toml([PLANTED, value])}"]
    lines += [f"{name}y = {toml({'env': PLANTED, 'x': value})}", broken]
    judge("\n".join(lines).encode())
