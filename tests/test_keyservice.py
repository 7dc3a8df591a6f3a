"""Keys that a service wraps: AWS KMS against moto, the ring and its file, and a proxy that lives by it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy import envelope, keyring, keyservice
from proxy.config import FileRef
from proxy.errors import KeyRingError, KeyServiceError, OperatorError
from proxy.keyservice import Wrapped, aws_kms, context_of, open_service
from proxy.model import Secret
from proxy.sandbox import Sandbox
from proxy.vault import Vault, new_key_line
from tests.command import Cli, Serving, run, started, write_config
from tests.harness import ADMIN_TOKEN, free_port, until
from tests.kms import REGION, URL, Kms, running_kms

KEY = Secret("the-text-of-a-key")


@pytest.fixture(scope="module")
def shared_kms() -> Iterator[Kms]:
    """One KMS for all tests of this file."""
    with running_kms() as running:
        yield running


@pytest.fixture
def kms(shared_kms: Kms, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kms]:
    """It, as this process finds it, with nothing counted or broken."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in shared_kms.environ.items():
        monkeypatch.setenv(name, value)
    yield shared_kms
    shared_kms.relay.up, shared_kms.relay.answer = True, None
    shared_kms.relay.calls.clear()


# --- AWS KMS


def test_a_key_comes_back_for_its_context_only(kms: Kms) -> None:
    """What was wrapped shows nothing of the key, and unwraps as the key of its id and as no other."""
    service = open_service(URL)
    wrapped = service.wrap(KEY, context_of("k1"))
    assert KEY.reveal().encode() not in wrapped.data
    assert service.unwrap(wrapped.data, context_of("k1")) == KEY
    assert open_service(wrapped.service).unwrap(wrapped.data, context_of("k1")) == KEY
    for context in (context_of("k2"), {"product": "another", "key": "k1"}, {}):
        with pytest.raises(KeyServiceError, match="not what this service wrapped for this id"):
            service.unwrap(wrapped.data, context)
    with pytest.raises(KeyServiceError):
        service.unwrap(wrapped.data[:-1] + bytes([wrapped.data[-1] ^ 1]), context_of("k1"))


def test_an_alias_that_moves_takes_no_key_along(kms: Kms) -> None:
    """The wrapped key names the very key that wrapped it, so it unwraps whatever the alias names later."""
    before = open_service(URL).wrap(KEY, context_of("k1"))
    assert re.fullmatch(rf"aws-kms://{REGION}/arn:aws:kms:{REGION}:\d+:key/[\w-]+", before.service)
    kms.move_alias(kms.create_key())
    after = open_service(URL).wrap(KEY, context_of("k1"))
    assert after.service != before.service
    for each in (before, after):
        assert open_service(each.service).unwrap(each.data, context_of("k1")) == KEY
    with pytest.raises(KeyServiceError):
        open_service(after.service).unwrap(before.data, context_of("k1"))


@pytest.mark.parametrize("code", [*aws_kms._REMEDIES, "SomethingNewException"])
def test_a_refusal_is_told_by_its_code(kms: Kms, code: str) -> None:
    """The service, AWS's code and what to do are named; AWS's text, which may hold anything, is not."""
    kms.refuse(code, "planted text")
    with pytest.raises(KeyServiceError) as refused:
        open_service(URL).wrap(KEY, context_of("k1"))
    told = str(refused.value)
    assert told.startswith(f"key service {URL}: it refused ({code}): ")
    assert told.endswith(aws_kms._REMEDIES.get(code, "AWS documents this code"))
    assert "planted" not in told


def test_a_code_that_is_none_is_not_told(kms: Kms) -> None:
    """What an impostor answers is not shown."""
    kms.refuse("planted text, not a code")
    with pytest.raises(KeyServiceError, match="it refused \\(an unknown error\\)"):
        open_service(URL).wrap(KEY, context_of("k1"))


def test_an_unreachable_service_is_tried_three_times(kms: Kms) -> None:
    """It is told that it cannot be reached, after a bounded number of tries."""
    kms.relay.up = False
    with pytest.raises(KeyServiceError, match=r"it cannot be reached \(\w+\); check the network"):
        open_service(URL).unwrap(b"data", context_of("k1"))
    assert kms.relay.calls == ["Decrypt"] * 3


def test_a_silent_service_is_given_up(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes connections and says nothing costs the bounded time of three tries."""
    monkeypatch.setattr(aws_kms, "_READ_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(KeyServiceError, match=r"cannot be reached \(ReadTimeoutError\)"):
            open_service(URL).wrap(KEY, context_of("k1"))
    assert time.monotonic() - began < 10


def test_missing_credentials_are_told(kms: Kms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a role or variables the remedy is named, and no service is asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(KeyServiceError, match="there are no AWS credentials; give this process a role"):
        open_service(URL).wrap(KEY, context_of("k1"))
    assert kms.relay.calls == []


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without boto3 the command that installs it is told, by ``check`` already."""
    config = write_config(tmp_path, vault={"key_service": URL})
    assert run("check", "--config", str(config)).code == 0
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(KeyServiceError, match=r"pleo-proxy\[aws\]\); run `pip install --require-hashes"):
        open_service(URL)
    assert "boto3 is not installed" in run("check", "--config", str(config)).refusal(1)


GOOD_URLS = [
    URL,
    "aws-kms://us-gov-east-1/1234abcd-12ab-34cd-56ef-1234567890ab",
    "aws-kms://eu-west-1/arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "aws-kms://cn-north-1/arn:aws-cn:kms:cn-north-1:111122223333:alias/pleo-proxy",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_url_of_a_key_is_taken(url: str, tmp_path: Path) -> None:
    """A key may be named by alias, id or ARN, in any partition."""
    keyservice.check_url(url)
    assert run("check", "--config", str(write_config(tmp_path, vault={"key_service": url}))).code == 0


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "must begin with aws-kms://"),
        ("https://kms.eu-west-1.amazonaws.com", "must begin with aws-kms://"),
        ("aws-kms:eu-west-1/alias/x", "must begin with aws-kms://"),
        ("aws-kms://alias/pleo-proxy", "must be aws-kms://REGION/KEY"),
        ("aws-kms://eu-west-1/", "must be aws-kms://REGION/KEY"),
        ("aws-kms://eu-west-1", "must be aws-kms://REGION/KEY"),
        ("aws-kms://eu-west-1@evil.example/alias/x", "must be aws-kms://REGION/KEY"),
        ("aws-kms://eu-west-1/alias/x?y", "must be aws-kms://REGION/KEY"),
        ("aws-kms://eu-west-1/alias/x\n", "must be aws-kms://REGION/KEY"),
    ],
)
def test_a_url_of_no_key_is_refused(url: str, rule: str, tmp_path: Path) -> None:
    """The setting's mistake is told with its rule and an example; opening it is refused too."""
    ran = run("check", "--config", str(write_config(tmp_path, vault={"key_service": url})))
    assert ran.code == 2
    assert "vault.key_service = " in ran.err
    assert rule in ran.err
    with pytest.raises(KeyServiceError, match="key service"):
        open_service(url)


# --- the ring


class Reversing:
    """A key service without secrets, which counts how often it is opened."""

    opened: list[str]

    def __init__(self, url: str) -> None:
        self._url = url

    def wrap(self, key: Secret, context: Any) -> Wrapped:
        return Wrapped(f"{self._url}/exact", f"{context['key']}|{key.reveal()}"[::-1].encode())

    def unwrap(self, data: bytes, context: Any) -> Secret:
        key_id, _, key = data.decode()[::-1].partition("|")
        if key_id != context["key"]:
            raise KeyServiceError("of another id")
        return Secret(key)


def test_a_ring_is_wrapped_and_unwrapped_line_by_line() -> None:
    """Order, comments and blank lines stay; each line names its service; each service is opened once."""
    ring = Secret("# ours\nk2:AAAA\n\n  k1:BBBB\n")
    one = envelope.wrapped(ring, "one://x", opened=Reversing)
    assert envelope.services_of(ring) == {"k2": None, "k1": None}
    assert envelope.services_of(one) == {"k2": "one://x/exact", "k1": "one://x/exact"}
    assert "AAAA" not in one.reveal()
    opened: list[str] = []

    def open_one(url: str) -> Reversing:
        opened.append(url)
        return Reversing(url)

    assert envelope.unwrapped(one, opened=open_one) == Secret("# ours\nk2:AAAA\n\nk1:BBBB\n")
    assert opened == ["one://x/exact"]
    mixed = Secret(one.reveal() + "k0:CCCC\n")
    assert envelope.services_of(mixed)["k0"] is None
    assert envelope.unwrapped(mixed, opened=Reversing).reveal().endswith("k0:CCCC\n")
    with pytest.raises(
        KeyRingError, match=r"line 5: the key is not wrapped, although vault\.key_service is one://x"
    ):
        envelope.unwrapped(mixed, only="one://x", opened=Reversing)
    swapped = Secret(one.reveal().replace("k2:", "k9:"))
    with pytest.raises(KeyServiceError, match="of another id"):
        envelope.unwrapped(swapped, opened=Reversing)


@pytest.mark.parametrize(
    "line", ["k1:one://x", "k1:one://x:###", "one://x:QUJD", "k1:one://x y:QUJD", "k1:://:Q"]
)
def test_a_malformed_wrapped_line_is_refused(line: str) -> None:
    """The line's number is told, and nothing of it."""
    with pytest.raises(
        KeyRingError, match="line 2: neither KEYID:BASE64 nor KEYID:SERVICE-URL:BASE64"
    ) as told:
        envelope.unwrapped(Secret(f"# ring\n{line}\n"), opened=Reversing)
    assert line not in str(told.value)


# --- the file


def keys_in(path: Path) -> str:
    """The ring in a file, its keys unwrapped."""
    return envelope.unwrapped(keyring.read(path)).reveal()


def test_a_wrapped_file_moves_to_another_key_and_back(kms: Kms, tmp_path: Path) -> None:
    """Plain, wrapped, wrapped by another key, plain again: the same keys, in a file for its owner alone."""
    path = tmp_path / "keys"
    keyring.generate(path, "k1")
    path.write_text(f"{new_key_line('k2')}\n# the first\n{path.read_text()}")
    plain = path.read_text()
    assert keyring.rewrap(path, URL) == 2
    first = path.read_text()
    kms.move_alias(kms.create_key())
    assert keyring.rewrap(path, URL) == 2
    second = path.read_text()
    for text in (first, second):
        assert not {line.rpartition(":")[2] for line in plain.split() if ":" in line} & set(
            re.split("[:\n]", text)
        )
        assert "# the first" in text
    assert set(envelope.services_of(Secret(first)).values()).isdisjoint(
        envelope.services_of(Secret(second)).values()
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys_in(path) == plain
    assert keyring.rewrap(path, None) == 2
    assert path.read_text() == plain
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("fault", ["unreachable", "unwrap", "changed", "rename"])
def test_a_rewrap_that_fails_leaves_the_file(
    kms: Kms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Whatever fails, the old file is there as it was, or as another changed it, and nothing beside it."""
    path = tmp_path / "keys"
    keyring.generate(path, "k1")
    expected = path.read_text()
    real = envelope.wrapped

    def changed(ring: Secret, service: str) -> Secret:
        path.write_text(expected + new_key_line("k2") + "\n")
        return real(ring, service)

    def broken(ring: Secret, service: str) -> Secret:
        return real(Secret(f"{new_key_line('k1')}\n"), service)

    def refused(_self: Path, _to: Path) -> None:
        raise OSError(28, "No space left on device")

    match fault:
        case "unreachable":
            kms.relay.up = False
        case "unwrap":
            monkeypatch.setattr(envelope, "wrapped", broken)
        case "changed":
            monkeypatch.setattr(envelope, "wrapped", changed)
        case "rename":
            monkeypatch.setattr(Path, "rename", refused)
    says = {
        "unreachable": "cannot be reached",
        "unwrap": "its keys would not open; it stays as it was",
        "changed": "was changed meanwhile, and stays so; run this again",
        "rename": "No space left on device",
    }[fault]
    with pytest.raises(OperatorError, match=says):
        keyring.rewrap(path, URL)
    assert path.read_text().startswith(expected)
    assert ("k2" in path.read_text()) == (fault == "changed")
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


def test_a_rewrapped_link_stays_one(kms: Kms, tmp_path: Path) -> None:
    """The file that a link names is replaced, and not the link."""
    (tmp_path / "elsewhere").mkdir()
    keyring.generate(tmp_path / "elsewhere" / "keys", "k1")
    link = tmp_path / "keys"
    link.symlink_to(tmp_path / "elsewhere" / "keys")
    keyring.rewrap(link, URL)
    assert link.is_symlink()
    assert envelope.services_of(keyring.read(link))["k1"] is not None


def test_the_owner_of_a_rewrapped_file_stays(kms: Kms, tmp_path: Path) -> None:
    """Root may run the command: the file stays the proxy's user's."""
    path = tmp_path / "keys"
    keyring.generate(path, "k1")
    owner = (4711, 4712) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    keyring.rewrap(path, URL)
    assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_a_first_start_without_the_service_makes_no_key(kms: Kms, tmp_path: Path) -> None:
    """A key that could not be wrapped is not written."""
    kms.relay.up = False
    path = tmp_path / "state" / "keys"
    with pytest.raises(KeyServiceError):
        keyring.read_or_generate(FileRef(path), {}, store_is_sealed=False, service=URL)
    assert not path.exists()


# --- commands


def test_the_commands_make_list_and_move_wrapped_keys(kms: Kms, tmp_path: Path) -> None:
    """``generate`` wraps, ``list`` says by which key, ``rewrap`` moves; none of them shows a key."""
    ours = Cli(write_config(tmp_path, vault={"key_service": URL}))
    environ = dict(kms.environ)
    path = tmp_path / "state" / "keys"
    told = ours.done("keys", "generate", environ=environ).out
    assert told.startswith(f"Wrote {path}, the key wrapped by {URL}. Keep a copy")
    key = keys_in(path).strip().partition(":")[2]
    (row,) = ours.done("keys", "list", "--json", environ=environ).json()
    assert row["wrapped_by"] == envelope.services_of(keyring.read(path))["k1"] != None  # noqa: E711
    told += ours.done("keys", "generate", "--file", f"{path}2", "--id", "k2", environ=environ).out
    path.write_text(path.read_text() + Path(f"{path}2").read_text())
    moved = ours.done("keys", "rewrap", environ=environ).out
    assert moved == f"2 keys in {path} are wrapped by {URL} now.\n"
    plain = ours.done("keys", "rewrap", "--plain", environ=environ).out
    assert plain == f"2 keys in {path} are wrapped by no service now.\n"
    assert key in path.read_text()
    assert key not in told + moved + plain
    line = ours("keys", "list", environ=environ).refusal(2)
    assert "run `pleo-proxy keys rewrap`" in line
    ours.done("keys", "rewrap", "--file", str(path), environ=environ)
    rows = ours.done("keys", "list", "--json", environ=environ).json()
    assert [(row["id"], row["wrapped_by"].partition("/arn")[0]) for row in rows] == [
        ("k1", f"aws-kms://{REGION}"),
        ("k2", f"aws-kms://{REGION}"),
    ]


def test_rewrapping_needs_a_service_or_the_word_plain(tmp_path: Path) -> None:
    """Without the setting nothing is done that was not asked for."""
    ours = Cli(write_config(tmp_path))
    ours.done("keys", "generate")
    before = (tmp_path / "state" / "keys").read_bytes()
    assert "vault.key_service is not set; set it, or give --plain" in ours("keys", "rewrap").refusal(2)
    assert (tmp_path / "state" / "keys").read_bytes() == before


# --- a proxy that lives by it


@asynccontextmanager
async def served(config: Path, kms: Kms, name: str) -> AsyncIterator[Serving]:
    """``serve`` with the KMS in its environment."""
    async with (
        started(
            "serve", "--config", str(config), folder=config.parent / name, environ=kms.environ
        ) as process,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        ready = await process.event("proxy.started")
        at = f"http://{ready['proxy'][0]}"
        yield Serving(process, Cli(config), at, f"http://{ready['admin']}", session)


def rows(path: Path) -> list[str]:
    """All that a database holds, as text."""
    with sqlite3.connect(path) as connection:
        dump = list(connection.iterdump())
    connection.close()
    return dump


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_proxy_asks_the_service_at_its_start_only(
    kms: Kms, pleo: Sandbox, tmp_path: Path, workers: int
) -> None:
    """A first start wraps a key; a start without the service is refused and touches nothing; later it may go.

    A worker that takes the place of one that died does not ask it either.
    """
    port = free_port()
    config = write_config(
        tmp_path,
        pleo,
        vault={"key_service": URL},
        admin={"token": ADMIN_TOKEN},
        listen={"workers": workers, "proxy": f"127.0.0.1:{port}"},
    )
    state = tmp_path / "state"
    async with served(config, kms, "first") as serve:
        assert kms.relay.calls == ["Encrypt", "Decrypt"]
        await serve.command("tenants", "add", "acme")
        await serve.connect("acme")
        await until_answered(serve)
        await serve.stop()
    assert envelope.services_of(keyring.read(state / "keys"))["k1"] is not None

    kms.relay.up = False
    before = (rows(state / "proxy.db"), (state / "keys").read_bytes())
    async with started(
        "serve", "--config", str(config), folder=tmp_path / "x", environ=kms.environ
    ) as process:
        assert await process.ended(60) == 1
        assert re.fullmatch(
            r"pleo-proxy: key service aws-kms://\S+: it cannot be reached \(.*\n", process.err
        )
        assert process.out == ""
    assert (rows(state / "proxy.db"), (state / "keys").read_bytes()) == before

    kms.relay.up = True
    kms.relay.calls.clear()
    async with served(config, kms, "second") as serve:
        assert kms.relay.calls == ["Decrypt"]
        kms.relay.up = False
        await until_answered(serve)
        pleo.revoke_access("acme")
        await until_answered(serve)
        if workers > 1:
            pid = serve.process.lines("worker.started")[0]["pid"]
            os.kill(pid, signal.SIGKILL)
            await until(lambda: len(serve.process.lines("worker.started")) == workers + 1)
            await until_answered(serve)
        assert kms.relay.calls == ["Decrypt"]
        await serve.stop()


async def until_answered(serve: Serving) -> None:
    """Whichever worker is asked, it answers as Pleo does."""

    async def ask() -> bool:
        return await serve.get("/acme/v2/employees?limit=1") == 200

    ends = time.monotonic() + 20
    while not all([await ask() for _ in range(8)]):
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)


async def test_disk_and_database_are_worth_nothing_without_the_service(
    kms: Kms, pleo: Sandbox, tmp_path: Path
) -> None:
    """Whoever copied both opens no token: the ring in the file is no key, and no other service unwraps it."""
    config = write_config(tmp_path, pleo, vault={"key_service": URL}, admin={"token": ADMIN_TOKEN})
    async with served(config, kms, "first") as serve:
        await serve.command("tenants", "add", "acme")
        await serve.connect("acme")
        await serve.stop()
    stolen = keyring.read(tmp_path / "state" / "keys")
    with pytest.raises(KeyRingError, match="not base64"):
        Vault(stolen)
    kms.refuse("AccessDeniedException")
    with pytest.raises(KeyServiceError, match="let this process use kms:Decrypt"):
        envelope.unwrapped(stolen)


async def test_an_existing_proxy_moves_to_the_service_and_back(
    kms: Kms, pleo: Sandbox, tmp_path: Path
) -> None:
    """As the handbook says: set the service, rewrap beside the running proxy, restart; nobody reconnects."""
    plain = write_config(tmp_path, pleo, admin={"token": ADMIN_TOKEN})
    text = plain.read_text()
    async with served(plain, kms, "plain") as serve:
        await serve.command("tenants", "add", "acme")
        await serve.connect("acme")
        plain.write_text(f'{text}\n[vault]\nkey_service = "{URL}"\n')
        refused = await asyncio.to_thread(serve.cli, "keys", "list", environ=kms.environ)
        assert "although vault.key_service is aws-kms://" in refused.refusal(2)
        await asyncio.to_thread(serve.cli.done, "keys", "rewrap", environ=kms.environ)
        await until_answered(serve)
        await serve.stop()
    async with served(plain, kms, "wrapped") as serve:
        await until_answered(serve)
        plain.write_text(text)
        await asyncio.to_thread(serve.cli.done, "keys", "rewrap", "--plain", environ=kms.environ)
        await until_answered(serve)
        await serve.stop()
    kms.relay.up = False
    kms.relay.calls.clear()
    async with served(plain, kms, "plain-again") as serve:
        await until_answered(serve)
        assert not serve.process.lines("token.refresh_started")
        await serve.stop()
    assert kms.relay.calls == []
