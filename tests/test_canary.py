"""The canary: a line with a piece of a live secret is withheld and counted; no other line is."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
import string
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import lifecycle, pairs
from proxy.audit import KEY_PLACE
from proxy.exchange import RUN
from proxy.facts import (
    Fact,
    GrantNeedsReauth,
    LineWithheld,
    ProxyStopped,
    RequestCrashed,
    RequestFinished,
    TaskCrashed,
)
from proxy.model import Secret
from proxy.oauth import TokenPair
from proxy.sandbox import DEFAULT_CLIENT, Sandbox
from proxy.telemetry.canary import PIECE, SHORTEST_HALVED, Canary, as_sent
from proxy.telemetry.logs import LogSink
from proxy.vault import Place, Vault, new_key_line
from tests.harness import ADMIN_TOKEN, Proxy, running_proxy

USUAL = [
    RequestFinished(
        f"{RUN}0000000001a2", "acme", "GET", "/acme/v1/vendors/4dd2b7c5-7c1e-4c39-9b1f-0d7a1c5f4a11", 200
    ),
    RequestFinished("req-1", None, "POST", "/v1/chart-of-accounts:search", 404, "tenant-unknown"),
    GrantNeedsReauth("acme", 3, "invalid_grant"),
]

printable = st.text(string.ascii_letters + string.digits + "-_.~:/!$*", min_size=SHORTEST_HALVED, max_size=80)
secret_texts = st.one_of(
    st.binary(min_size=18, max_size=100).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
    st.binary(min_size=12, max_size=40).map(bytes.hex),
    st.uuids().map(str),
    printable,
)


def knowing(*texts: str) -> Canary:
    """A canary that knows these secrets."""
    canary = Canary(RUN.encode())
    for text in texts:
        canary.watch(text, Secret(text))
    return canary


def line(text: str) -> bytes:
    """A log line that tells ``text``."""
    return b'{"timestamp":"2026-01-01T00:00:00.000001Z",' + orjson.dumps({"path": f"/x/{text}?"})[1:]


@given(secret_texts, st.data())
def test_any_half_of_a_secret_is_found(text: str, data: st.DataObject) -> None:
    """Whatever it is made of: the whole, the first half, the last half, wherever in a line."""
    middle = len(text) // 2
    leak = data.draw(st.sampled_from([text, text[:middle], text[middle:]]))
    if leak.startswith("eyJ"):
        return  # reads as the header of a JWT, which is passed over
    assert knowing(text).finds(line(leak))
    assert knowing("another-one-of-the-same", text).finds(line(f"before {leak} after"))


@given(secret_texts)
def test_a_secret_is_found_however_it_is_escaped(text: str) -> None:
    """For a URL, in JSON within JSON, and in the form of Basic authentication where that is watched for."""
    if text.startswith("eyJ"):
        return
    canary = Canary()
    canary.watch("client", Secret(text), as_sent("id", Secret(text)))
    assert canary.finds(line(orjson.dumps({"token": text}).decode()))
    assert canary.finds(line(base64.b64encode(f"id:{quote(text, safe='')}".encode()).decode()))
    if text.replace("-", "").replace("_", "").isalnum():
        assert canary.finds(line(quote(f"Bearer {text}", safe="")))


@given(st.text(string.ascii_letters + string.digits + "-_ ./", max_size=60))
def test_what_is_no_secret_passes(text: str) -> None:
    """Only what a secret holds is found."""
    canary = knowing(secrets.token_urlsafe(32), secrets.token_hex(32), f"words-{secrets.token_hex(8)}-words")
    assert not canary.finds(line(text))


@pytest.mark.parametrize(
    "half", ["abcdefghijkL", "abcdefgHijkl", "abcdefGhijkl", "Abcdefghijkl", "abcdefghi-kl"]
)
def test_a_half_is_found_wherever_its_capital_letter_is(half: str) -> None:
    """At its end too, where nothing follows by which it is usually found."""
    assert knowing(f"{half}mnopqrstuvwx").finds(line(half))


def test_a_jwt_is_known_by_what_is_its_own() -> None:
    """Its header, which all of an issuer share, is not; of the rest each half is."""
    parts = [base64.urlsafe_b64encode(secrets.token_bytes(size)).decode().strip("=") for size in (600, 256)]
    header = base64.urlsafe_b64encode(b'{"alg":"RS256","typ":"JWT"}').decode().strip("=")
    token = ".".join([header, *parts])
    canary = knowing(token)
    assert not canary.finds(line(header))
    assert canary.finds(line(token[: len(token) // 2]))
    assert canary.finds(line(token[len(token) // 2 :]))


def test_what_is_too_short_is_not_watched() -> None:
    """A piece of a word would be found in everything."""
    assert not knowing("a" * (PIECE - 1), "").finds(line("a" * 50))
    assert knowing("a" * PIECE).finds(line("a" * 50))


def test_a_replaced_secret_is_forgotten() -> None:
    """And others of the same owner's kind are not; the same secret again changes nothing."""
    canary = Canary()
    old, new, other = (secrets.token_urlsafe(32) for _ in range(3))
    canary.watch_place(Place("grants", "globex", "access", 1), Secret(other))
    for generation, text in enumerate((old, new, new)):
        canary.watch_place(Place("grants", "acme", "access", generation), Secret(text))
    found = [canary.finds(line(text)) for text in (old, new, other)]
    assert found == [False, True, True]


def test_ten_thousand_tokens_take_little_and_no_text_of_them() -> None:
    """Each is known by a few numbers, whatever its length."""
    canary = Canary()
    for number in range(2000):
        canary.watch_place(Place("grants", f"t{number}", "access", 1), Secret(secrets.token_urlsafe(1500)))
    kept = [piece for pieces in canary._of.values() for piece in pieces]
    assert len(kept) <= 2000 * 8
    assert all(isinstance(piece, int) for piece in kept)
    assert len(canary._mixed) <= 2000 * 8


def test_many_secrets_without_capital_letters_are_known_too() -> None:
    """Where there are too many to be looked for one by one, they are found all the same, and forgotten."""
    texts = [secrets.token_hex(24) for _ in range(100)]
    canary = knowing(*texts)
    assert all(canary.finds(line(text[:24])) and canary.finds(line(text[24:])) for text in texts)
    for usual in USUAL:
        assert not canary.finds(orjson.dumps(usual))
    for text in texts[1:]:
        canary.watch(text)
    assert [canary.finds(line(text)) for text in texts[:2]] == [True, False]


def test_hashes_are_of_this_process_alone() -> None:
    """Two that know the same secret have nothing in common to show."""
    one, other = knowing("the-same-secret-in-both"), knowing("the-same-secret-in-both")
    assert one._of != other._of


def test_a_vault_tells_of_all_that_it_seals_and_opens() -> None:
    """And of its keys."""
    ring = new_key_line("k1")
    vault, canary = Vault(Secret(ring)), Canary()
    place = Place("grants", "acme", "refresh", 1)
    sealed = vault.seal(Secret("Opened-later-than-sealed"), place)
    canary.watch_vault(vault)
    assert canary.finds(line(ring.partition(":")[2]))
    vault.seal(Secret("Sealed-while-it-was-watched"), Place("flows", "acme", "verifier", 0))
    assert canary.finds(line("Sealed-while-it-was-watched"))
    assert not canary.finds(line("Opened-later-than-sealed"))
    vault.open(sealed, place)
    assert canary.finds(line("Opened-later-than-sealed"))


# --- the log


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_only_the_line_with_the_secret_is_withheld(log_format: str) -> None:
    """The lines beside it are written, and it is reported by the name of its event."""
    text = secrets.token_urlsafe(32)
    stream = io.BytesIO()
    sink = LogSink(stream, log_format=log_format, level="info", canary=knowing(text))  # type: ignore[arg-type]
    reported: list[Fact] = []
    sink.report = reported.append
    for fact in (USUAL[2], TaskCrashed("watch", text, "x.py:1"), USUAL[2]):
        sink(fact)
    assert reported == [LineWithheld("task.crashed")]
    assert stream.getvalue().count(b"grant.needs_reauth") == 2
    assert text.encode() not in stream.getvalue()


async def test_of_a_batch_only_the_line_with_the_secret_is_withheld() -> None:
    """Lines of requests leave together, and each is looked at by itself."""
    text = secrets.token_urlsafe(32)
    stream = io.BytesIO()
    sink = LogSink(stream, log_format="json", level="info", canary=knowing(text))
    sink(USUAL[0])
    sink(RequestFinished(f"{RUN}2", "acme", "GET", f"/acme/{text[:22]}"))
    sink(USUAL[1])
    sink(ProxyStopped(0))
    lines = [json.loads(each) for each in stream.getvalue().splitlines()]
    assert [each["event"] for each in lines] == [
        "request.finished",
        "log.line_withheld",
        "request.finished",
        "proxy.stopped",
    ]
    assert lines[1]["withheld"] == "request.finished"
    assert text[:PIECE].encode() not in stream.getvalue()


def test_a_report_that_is_withheld_is_not_reported_again() -> None:
    """Were its own line taken for a secret, that would not go on for ever."""
    stream = io.BytesIO()
    canary = knowing("log.line_withheld")
    LogSink(stream, log_format="json", level="info", canary=canary)(LineWithheld("log.line_withheld"))
    assert stream.getvalue() == b""


def test_usual_lines_pass_at_a_small_cost() -> None:
    """With ten thousand tokens known, looking at a line takes a fraction of making it."""
    canary = Canary(RUN.encode())
    for number in range(10_000):
        canary.watch(number, Secret(secrets.token_urlsafe(64)))
    for text in ("words-with-hyphens-in-them", secrets.token_hex(32)):
        canary.watch(text, Secret(text))
    data = orjson.dumps(USUAL[0])
    assert not canary.finds(data)

    def best_of(job: Callable[[], object]) -> float:
        times = []
        for _ in range(200):
            began = time.perf_counter()
            for _ in range(20):
                job()
            times.append(time.perf_counter() - began)
        return min(times) / 20

    # Against a task of known size on the same machine at the same time; some twice what it should be.
    assert best_of(lambda: canary.finds(data)) < 8 * best_of(lambda: orjson.loads(data))


def test_many_secrets_without_capital_letters_cost_no_more_than_a_few() -> None:
    """What a look costs does not grow with how many there are."""
    canary = knowing(*(secrets.token_hex(32) for _ in range(5000)))
    data = orjson.dumps(USUAL[0])
    began = time.perf_counter()
    for _ in range(20):
        orjson.loads(data)
    known = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(20):
        assert not canary.finds(data)
    assert time.perf_counter() - began < 200 * known


# --- a running proxy

LIVE: dict[str, Callable[[Proxy], str]] = {
    "access token": lambda proxy: proxy.app.tokens.held.live["acme"].access.value.reveal(),
    "refresh token": lambda proxy: proxy.app.tokens.held.live["acme"].refresh.reveal(),
    "client secret": lambda _: DEFAULT_CLIENT.client_secret,
    "client secret as sent": lambda _: base64.b64encode(
        f"{DEFAULT_CLIENT.client_id}:{DEFAULT_CLIENT.client_secret}".encode()
    ).decode(),
    "previous client secret": lambda _: "previous-secret-of-the-tests",
    "admin token": lambda _: ADMIN_TOKEN,
    "viewer token": lambda _: "viewer-token-of-the-tests",
    "proxy's credentials": lambda _: "user:password-of-the-proxy",
    "proxy's credentials as sent": lambda _: base64.b64encode(b"user:password-of-the-proxy").decode(),
    "key of the ring": lambda proxy: proxy.app.tokens.vault.keys.reveal().partition(":")[2].strip(),
}


@pytest.mark.parametrize("kind", LIVE)
async def test_a_planted_leak_is_withheld_and_counted(pleo: Sandbox, tmp_path: Path, kind: str) -> None:
    """Of each kind of secret, in a field and in a path, whole and by half; other lines are written."""
    async with running_proxy(
        pleo,
        tmp_path,
        pleo={
            "client_secret_previous": "previous-secret-of-the-tests",
            "http_proxy": "http://127.0.0.1:9",
            "http_proxy_credentials": "user:password-of-the-proxy",
        },
        admin={"viewer_token": "viewer-token-of-the-tests"},
    ) as proxy:
        await proxy.add_tenant("acme")
        await plant_grant(proxy)
        text = LIVE[kind](proxy)
        middle = len(text) // 2
        halves = [text[:middle], text[middle:]] if len(text) >= SHORTEST_HALVED else []
        emit = proxy.app._emit
        for leak in (text, *halves):
            proxy.withheld += [LineWithheld("request.crashed"), LineWithheld("request.finished")]
            emit(RequestCrashed("id", leak, "x.py:1"))
            emit(RequestFinished("id", "acme", "GET", f"/acme/{leak}", 403, "policy-refused", caller="::1"))
            proxy.app.exchange.emit(GrantNeedsReauth("acme", 1, "invalid_grant"))
        out = proxy.log.getvalue().decode()
        assert not [leak for leak in (text, *halves) if leak in out]
        assert len(proxy.lines("grant.needs_reauth")) == 1 + len(halves)
        expected = 2 * (1 + len(halves))
        assert len(proxy.lines("log.line_withheld")) == expected
        assert f"pleo_proxy_log_lines_withheld_total {expected}.0" in proxy.metrics.render().decode()


async def plant_grant(proxy: Proxy) -> None:
    """A grant as a consent leaves it, for a proxy that cannot reach its Pleo."""
    pair = proxy.pleo.grant("acme")
    sealed = pairs.seal_pair(
        proxy.app.tokens.vault,
        TokenPair(Secret(pair.access_token), Secret(pair.refresh_token), pair.expires_in),
        tenant="acme",
        generation=1,
        now=proxy.pleo.now(),
        lifetimes=pairs.Lifetimes(900, 5184000),
    )
    grant = lifecycle.connected(sealed, tenant="acme", company="c", scopes=(), generation=1)
    await proxy.app.store.edit_grant("acme", lambda _: grant)
    await proxy.app.watch.take_up()


async def test_nothing_of_an_ordinary_run_is_withheld(proxy: Proxy, pleo: Sandbox) -> None:
    """Every fact of calls, refusals, refreshes and consents has its line."""
    for path in (
        "/acme/v2/employees",
        "/globex/v2/employees?limit=2",
        "/nobody/v1/x",
        "/acme/v1/vendors/" + "a" * 64,
    ):
        await proxy.get(path)
    pleo.revoke_access("acme")
    await proxy.get("/acme/v2/employees")
    await proxy.connect("globex")
    assert len(proxy.lines()) == len(proxy.facts)
    assert not proxy.lines("log.line_withheld")


async def test_the_trails_key_and_new_pairs_are_known(proxy: Proxy, pleo: Sandbox) -> None:
    """What the vault seals or opens while the proxy runs is known at once, and replaced tokens no longer."""
    vault = proxy.app.tokens.vault
    canary = proxy.app._canary
    async with asyncio.timeout(10):
        while (key := (await proxy.app.store.trail.marks()).key) is None:  # noqa: ASYNC110 - of the database
            await asyncio.sleep(0.05)
    assert canary.finds(line(Vault(vault.keys).open(key, KEY_PLACE).reveal()))
    old = LIVE["access token"](proxy)
    pleo.revoke_access("acme")
    await proxy.get("/acme/v2/employees")
    assert canary.finds(line(LIVE["access token"](proxy)))
    assert canary.finds(line(LIVE["refresh token"](proxy)))
    assert not canary.finds(line(old))


async def test_no_secret_gets_into_the_audit_trail(proxy: Proxy) -> None:
    """A record that would hold one tells that instead."""
    proxy.withheld = [LineWithheld("grant.needs_reauth")]
    proxy.app._emit(GrantNeedsReauth("acme", 1, LIVE["access token"](proxy)))
    await proxy.app._audit.close()
    (record,) = await proxy.app.store.trail.newest(1, None, "grant.needs_reauth")
    assert record.entry.details == '{"withheld":true}'


def test_a_request_that_is_like_a_clean_one_is_not_looked_at_again() -> None:
    """The texts of a line are looked at once; other texts are, and all of them once a secret is new."""
    stream, canary = io.BytesIO(), Looking(b"f" * 20)
    sink = LogSink(stream, log_format="json", level="info", canary=canary)

    def written(request_id: str, path: str = "/v2/employees") -> bool:
        before = stream.getvalue().count(b'"request.finished","request_id"')
        sink(RequestFinished(request_id, "acme", "GET", path))
        sink.flush()
        return stream.getvalue().count(b'"request.finished","request_id"') > before

    secret = Secret("Zq7-" + "Kd0aP" * 8)
    ours = [f"{'f' * 20}{number:012x}" for number in range(9)]
    assert written(ours[0])
    assert written(ours[1])
    assert canary.looks == 1
    assert written(ours[2], path=f"/{secret.reveal()}")
    assert canary.looks == 2
    canary.watch("token", secret)
    assert not written(ours[3], path=f"/{secret.reveal()}")
    assert not written(secret.reveal())
    assert not written("f" * 20 + secret.reveal())
    assert written("an-id-of-the-callers")
    looks = canary.looks
    assert written("an-id-of-the-callers")
    assert canary.looks == looks + 1
    assert written(ours[4])
    assert written(ours[5])
    assert canary.looks == looks + 2


class Looking(Canary):
    """Counts how often it is asked."""

    looks = 0

    def finds(self, data: bytes) -> bool:
        self.looks += 1
        return super().finds(data)


def test_a_trace_id_is_looked_at_and_makes_no_line_a_new_one() -> None:
    """It is other text each time, so it is looked at by itself, and the rest of the line as ever."""
    stream, canary = io.BytesIO(), Looking(b"f" * 20)
    sink = LogSink(stream, log_format="json", level="info", canary=canary)
    secret = Secret("4bf92f3577b34da6a3ce929d0e0e4736")

    def written(trace_id: str | None) -> bool:
        before = stream.getvalue().count(b'"trace_id"')
        sink(RequestFinished("f" * 32, "acme", "GET", "/v2/employees", trace_id=trace_id))
        sink.flush()
        return stream.getvalue().count(b'"trace_id"') > before

    canary.watch("token", secret)
    assert written(None)
    assert canary.looks == 1
    assert written("0" * 32)
    assert canary.looks == 2
    assert not written(secret.reveal())
