"""The pages with the settings in force and with the audit trail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.admin import trail_page
from proxy.audit import Ledger
from proxy.chain import Entry
from proxy.config import Settings, in_force, load
from proxy.config.mistakes import keys_of
from proxy.sandbox import DEFAULT_CLIENT
from tests.harness import ADMIN_TOKEN, Proxy
from tests.operator_browser import Markup, logged_in, shown_text

FILE = """
[listen]
hosts = ["proxy.internal"]
[pleo]
client_id = "the-id"
client_secret = { env = "SOME_VARIABLE" }
[limits]
head_bytes = "32 KiB"
"""


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Settings, dict[str, str]]:
    """Settings of a file and an environment."""
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    environ = {
        "PLEO_PROXY__LOG__LEVEL": "debug",
        "PLEO_PROXY__ADMIN__TOKEN": "a-token-as-text",
        "PLEO_PROXY__ADMIN__VIEWER_TOKEN__FILE": "/run/viewer",
        "PLEO_PROXY__NOTIFY__WEBHOOK_URL": "https://chat.example/a-secret-path",
        "PLEO_PROXY__NOTIFY__WEBHOOK_SECRET__ENV": "ANOTHER_VARIABLE",
        "PLEO_PROXY__NOTIFY__COMMAND": '["/usr/bin/notify", "--key=a-key"]',
        "SOME_VARIABLE": "the-secret-itself",
    }
    return load(path, environ), environ


@pytest.mark.parametrize(
    ("key", "value", "source"),
    [
        ("listen.hosts", '["proxy.internal"]', "file"),
        ("listen.workers", "1", "default"),
        ("pleo.client_id", '"the-id"', "file"),
        ("pleo.client_secret", '{ env = "SOME_VARIABLE" }', "file"),
        ("pleo.http_proxy", "", "default"),
        ("limits.head_bytes", '"32 KiB"', "file"),
        ("log.level", '"debug"', "PLEO_PROXY__LOG__LEVEL"),
        ("admin.token", "given as text, which is not shown", "PLEO_PROXY__ADMIN__TOKEN"),
        ("admin.viewer_token", '{ file = "/run/viewer" }', "PLEO_PROXY__ADMIN__VIEWER_TOKEN__FILE"),
        ("notify.webhook_url", "given as text, which is not shown", "PLEO_PROXY__NOTIFY__WEBHOOK_URL"),
        ("notify.command", "given as text, which is not shown", "PLEO_PROXY__NOTIFY__COMMAND"),
        ("notify.smtp_url", "", "default"),
        ("vault.keys", '{ file = "/var/lib/pleo-proxy/keys" }', "default"),
    ],
)
def test_a_setting_is_told_with_its_source(
    loaded: tuple[Settings, dict[str, str]], key: str, value: str, source: str
) -> None:
    """The file, a variable by its name, or the default; of a secret only the place."""
    [found] = [each for each in in_force(*loaded) if each.key == key]
    assert (found.value, found.source) == (value, source)
    assert found.is_default == (source == "default")


def test_every_setting_is_told_and_no_secret(loaded: tuple[Settings, dict[str, str]]) -> None:
    """In the order of the file, each with what it means."""
    found = in_force(*loaded)
    assert [each.key for each in found] == list(keys_of(Settings))
    assert all(each.meaning for each in found)
    for secret in ("the-secret-itself", "a-token-as-text", "a-secret-path", "a-key"):
        assert secret not in repr(found)


async def test_the_page_shows_the_settings_in_force(proxy: Proxy) -> None:
    """Each key with value and source, for whoever is logged in; secrets are not among them."""
    answer = await (await logged_in(proxy)).get("/settings")
    text = shown_text(answer)
    assert f"pleo.client_id {chr(34)}{DEFAULT_CLIENT.client_id}{chr(34)} file" in text
    assert "limits.connections" in text
    for key in keys_of(Settings):
        assert key in text
    for secret in (ADMIN_TOKEN, DEFAULT_CLIENT.client_secret):
        assert secret not in answer.body.decode()


async def with_records(proxy: Proxy, count: int) -> None:
    """Nothing but ``count`` records of our making, beside those of the start."""
    await proxy.app._audit.close()
    ledger = proxy.app._audit._ledger
    assert isinstance(ledger, Ledger)
    await ledger.append(
        [
            Entry(1e9 + number, "grant.revoked", "acme", "os:ann", f'{{"turn":{number},"text":"<b>x</b>"}}')
            for number in range(count)
        ]
    )


async def test_the_trail_is_shown_newest_first_and_every_record_once(proxy: Proxy) -> None:
    """Page by page back to the first record; what a record holds is only text."""
    await with_records(proxy, 230)
    operator = await logged_in(proxy)
    path: str | None = "/audit"
    seen: list[str] = []
    while path is not None:
        answer = await operator.get(path)
        assert answer.status == 200
        body = answer.body.decode()
        assert "<b>x" not in body
        markup = Markup(body)
        times = [each["datetime"] or "" for each in markup.all("time")]
        seen += times
        path = next((link["href"] for link in markup.all("a") if link.get("rel") == "next"), None)
        assert path is None or len(times) == trail_page.PAGE_RECORDS
    total = len(await proxy.app.store.trail.newest(10_000, None, None))
    assert len(seen) == total > 230
    assert "os:ann" in shown_text(await operator.get("/audit"))
    assert trail_page.PAGE_RECORDS == 100


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?tenant=acme&event=grant.revoked", True),
        ("?event=grant.revoked", True),
        ("?event=grant.revoked+grant.scopes_missing&tenant=acme", True),
        ("?tenant=globex&event=grant.revoked", False),
        ("?event=nothing.like-it", False),
    ],
)
async def test_the_trail_is_filtered(proxy: Proxy, query: str, found: bool) -> None:
    """By tenant and event."""
    await with_records(proxy, 3)
    text = shown_text(await (await logged_in(proxy)).get(f"/audit{query}"))
    assert ("3 of them, numbers " in text) == found
    assert ("There is no such record" in text) != found


@pytest.mark.parametrize(
    "query", ["?tenant=acme", "?event=grant.revoked", "?tenant=acme&event=grant.revoked"]
)
async def test_the_trail_is_paged_when_filtered(proxy: Proxy, query: str) -> None:
    """Back to the first of them, each once, and the filter stays."""
    await with_records(proxy, 230)
    operator = await logged_in(proxy)
    path: str | None = f"/audit{query}"
    seen: list[str] = []
    while path is not None:
        assert query.removeprefix("?") in path
        answer = await operator.get(path)
        seen += re.findall(r"turn <code>(\d+)</code>", answer.body.decode())
        links = Markup(answer.body.decode()).all("a")
        path = next((link["href"] for link in links if link.get("rel") == "next"), None)
    assert seen == [str(number) for number in reversed(range(230))]


async def test_instants_in_a_record_are_told_as_such(proxy: Proxy) -> None:
    """Nobody reads seconds since the epoch; a number that is no instant stays one."""
    await with_records(proxy, 1)
    ledger = proxy.app._audit._ledger
    assert isinstance(ledger, Ledger)
    details = '{"expires_at":1773388320.0,"retry_in_s":60.5}'
    await ledger.append([Entry(1e9, "connect.link_created", "acme", "os:ann", details)])
    text = shown_text(await (await logged_in(proxy)).get("/audit?event=connect.link_created"))
    assert "expires at 2026-03-13T07:52:00+00:00; retry in s 60.5" in text


@pytest.mark.parametrize("before", ["0", "1", "-1", "x", "%C2%B2", "9" * 15, "9" * 40, "%3Cscript%3E"])
async def test_no_number_breaks_the_page(proxy: Proxy, before: str) -> None:
    """What is no number means the newest; what is beyond the end shows nothing, or the end."""
    answer = await (await logged_in(proxy)).get(f"/audit?before={before}")
    assert answer.status == 200
    assert b"<script" not in answer.body
