"""What happens to a tenant's token around a refresh: waiting, crashes, reconnecting, outside changes."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from time import monotonic

from proxy import lifecycle, pairs
from proxy.facts import RefreshFailed, RefreshStarted
from proxy.lifecycle import Lease, Takeover
from proxy.model import GrantState, Outcome, Secret
from proxy.oauth import TokenPair
from proxy.sandbox import COMPANIES, Sandbox, TokenFault
from proxy.store import open_store
from tests.harness import Proxy, running_proxy, until

ACME = COMPANIES["acme"]


PATIENT = Takeover(300.0, 0.0)


def lease(pleo: Sandbox) -> Lease:
    """Another process's, taken just now."""
    return Lease("another", pleo.now() + 40)


async def problem_name(proxy: Proxy, path: str = "/acme/v2/employees?limit=1") -> str:
    """Name of the problem that a call gets."""
    return str((await proxy.get(path)).json()["type"]).rpartition("/")[2]


async def test_callers_go_on_with_a_good_token_when_the_refresh_takes_long(
    pleo: Sandbox, tmp_path: Path
) -> None:
    """In the advisory window a caller waits refresh.wait_s at the most and then uses the old token."""
    async with running_proxy(pleo, tmp_path, refresh={"wait_s": 0.1}) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        pleo.advance(900 * 0.91)
        async with pleo.hold_token_endpoint() as gate:
            assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
            assert proxy.lines("request.finished")[-1]["generation"] == 1
            assert gate.arrivals == 1
        await until(lambda: proxy.lines("token.refreshed"))


async def test_callers_with_an_expired_token_wait_only_so_long(pleo: Sandbox, tmp_path: Path) -> None:
    """An expired token is not sent: after refresh.wait_s the caller is told to come back, and then served."""
    async with running_proxy(pleo, tmp_path, refresh={"wait_s": 0.1}) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        pleo.advance(901)
        async with pleo.hold_token_endpoint():
            assert await problem_name(proxy) == "provider-unavailable"
        await until(lambda: proxy.lines("token.refreshed"))
        assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
        assert pleo.counters.refreshes_of(ACME) == 1


async def test_one_tenants_refresh_holds_up_no_other(proxy: Proxy) -> None:
    """While acme waits for its token, globex is served."""
    proxy.pleo.revoke_access("acme")
    async with proxy.pleo.hold_token_endpoint() as gate:
        waiting = asyncio.create_task(proxy.get("/acme/v2/employees?limit=1"))
        await gate.arrived()
        assert (await proxy.get("/globex/v2/employees?limit=1")).status == 200
        assert not waiting.done()
    assert (await waiting).status == 200


async def test_failed_refreshes_are_spaced_out(proxy: Proxy) -> None:
    """After failures in a row the pause doubles, and no caller's request shortens it."""
    proxy.pleo.token_faults.append(TokenFault("status", status=503, times=None))
    proxy.pleo.advance(901)
    pauses = []
    for _ in range(4):
        assert await problem_name(proxy) == "provider-unavailable"
        requests = proxy.pleo.counters.token_requests
        assert await problem_name(proxy) == "provider-unavailable"
        assert proxy.pleo.counters.token_requests == requests
        pauses.append(proxy.lines("token.refresh_failed")[-1]["retry_in_s"])
        proxy.pleo.advance(pauses[-1] + 0.1)
    assert pauses == [1, 2, 4, 8]
    proxy.pleo.token_faults.clear()
    proxy.pleo.advance(20)
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200


async def test_retry_after_of_the_token_endpoint_is_obeyed(proxy: Proxy) -> None:
    """A 429 with Retry-After holds refreshes back for that long, and callers are told."""
    proxy.pleo.token_faults.append(TokenFault("status", status=429, retry_after="120"))
    proxy.pleo.advance(901)
    answer = await proxy.get("/acme/v2/employees?limit=1")
    assert (answer.status, answer.header("Retry-After")) == (503, "120")
    proxy.pleo.advance(121)
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200


async def test_missing_fields_of_a_token_answer_are_made_good_and_reported(proxy: Proxy) -> None:
    """Without expires_in a default counts; without refresh_token the old one stays; both are in the log."""
    proxy.pleo.token_faults.append(TokenFault("no_refresh_token"))
    proxy.pleo.advance(901)
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
    assert proxy.lines("token.refreshed")[-1]["remarks"] == ["refresh_token missing"]
    proxy.pleo.token_faults.append(TokenFault("no_expires_in"))
    proxy.pleo.advance(901)
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
    line = proxy.lines("token.refreshed")[-1]
    assert (line["remarks"], line["expires_in_s"]) == (["expires_in missing"], 900)


async def test_the_chain_of_refresh_tokens_can_be_followed(proxy: Proxy) -> None:
    """Each refresh starts with the keyed hash of the token that the one before it brought."""
    for _ in range(3):
        proxy.pleo.advance(901)
        assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
    started = [line["chain"] for line in proxy.lines("token.refresh_started")]
    brought = [line["chain"] for line in proxy.lines("token.refreshed")]
    assert started[1:] == brought[:-1]
    assert len(set(brought)) == 3


async def test_a_consent_during_a_refresh_wins(proxy: Proxy) -> None:
    """A grant that someone connects while the old one is being refreshed is the one that counts."""
    proxy.pleo.switches.reconsent_kills_family = False
    proxy.pleo.advance(901)
    async with proxy.pleo.hold_token_endpoint(committed=True) as gate:
        waiting = asyncio.create_task(proxy.get("/acme/v2/employees?limit=1"))
        await gate.arrived()
        # The consent's own token request passes the gate when it opens, after the refresh's.
        connecting = asyncio.create_task(proxy.connect("acme"))
        await gate.arrived(2)
    assert (await connecting).status == 200
    assert (await waiting).status == 200
    stored = await proxy.app.store.grant("acme")
    assert stored is not None
    assert stored.generation >= 2
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200


async def test_a_change_by_another_process_is_seen_within_a_second(proxy: Proxy, tmp_path: Path) -> None:
    """A grant revoked through another connection to the store is out of use within a second."""
    other = open_store(tmp_path / "proxy.db")
    await other.edit_grant("acme", lifecycle.revoked)
    await other.close()
    await until(lambda: proxy.lines("grant.revoked"), timeout_s=1)
    assert await problem_name(proxy) == "needs-reauth"
    assert (await proxy.get("/globex/v2/employees?limit=1")).status == 200


async def test_a_crash_between_sending_and_saving_is_told_from_a_revocation(
    pleo: Sandbox, tmp_path: Path
) -> None:
    """A refresh that was under way when the process died is known from the store, and blamed on the loss."""
    async with running_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        await proxy.app.store.edit_grant(
            "acme",
            lambda grant: (
                grant
                and lifecycle.begin_refresh(
                    grant, before=grant, at=pleo.now(), lease=lease(pleo), takeover=PATIENT
                )
            ),
        )
        current = pleo.authority.current(ACME)
        assert current is not None
    pleo.revoke("acme")
    async with running_proxy(pleo, tmp_path) as proxy:
        assert await problem_name(proxy) == "needs-reauth"
        assert proxy.lines("grant.needs_reauth")[0]["reason"] == "lost_answer"


async def test_a_refresh_under_way_is_finished_and_saved_at_a_stop(pleo: Sandbox, tmp_path: Path) -> None:
    """Stopping waits for the answer to a refresh that was sent, and saves it."""
    gate = pleo.hold_token_endpoint(committed=True)
    async with running_proxy(pleo, tmp_path, limits={"drain_s": 0.2}) as proxy:
        await proxy.add_tenant("acme")
        gate.release()
        await proxy.connect("acme")
        pleo.advance(901)
        gate = pleo.hold_token_endpoint(committed=True)
        call = asyncio.create_task(proxy.get("/acme/v2/employees"))
        await gate.arrived()
        call.cancel()
        asyncio.get_running_loop().call_later(0.5, gate.release)
    stored = open_store(tmp_path / "proxy.db")
    grant = await stored.grant("acme")
    await stored.close()
    assert grant is not None
    assert (grant.state, grant.generation, grant.attempted_at) == (GrantState.CONNECTED, 2, None)


async def test_the_attempt_is_in_the_store_before_the_request_is_sent(proxy: Proxy) -> None:
    """While a refresh is at Pleo, another process reads from the store that one is under way."""
    proxy.pleo.revoke_access("acme")
    async with proxy.pleo.hold_token_endpoint() as gate:
        call = asyncio.create_task(proxy.get("/acme/v2/employees?limit=1"))
        await gate.arrived()
        grant = await proxy.app.store.grant("acme")
        assert grant is not None
        assert grant.state is GrantState.REFRESHING
        assert grant.attempted_at is not None
        assert proxy.app.tokens.states()["refreshing"] == 1
    assert (await call).status == 200


async def test_a_defect_in_a_refresh_is_logged_and_retried(proxy: Proxy) -> None:
    """An unforeseen error costs one attempt and leaves nobody waiting for good."""
    provider = proxy.app.tokens.refresher.provider
    real = provider.refresh

    async def broken(_refresh: object) -> object:
        raise RuntimeError("a text that may hold anything")

    provider.refresh = broken  # type: ignore[method-assign,assignment]
    proxy.pleo.revoke_access("acme")
    assert await problem_name(proxy) == "provider-unavailable"
    (line,) = proxy.lines("task.crashed")
    assert (line["task"], line["error"]) == ("refresh", "RuntimeError")
    assert b"may hold anything" not in proxy.log.getvalue()
    provider.refresh = real  # type: ignore[method-assign]
    proxy.pleo.advance(2)
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200


async def test_a_removed_tenant_is_gone_with_its_token(proxy: Proxy) -> None:
    """Removing a tenant erases its grant, and calls for it find no tenant."""
    await proxy.app.store.edit_tenants(lambda stored: {"globex": stored["globex"]})
    await proxy.app.watch.take_up()
    assert await problem_name(proxy) == "tenant-unknown"
    assert list(await proxy.app.store.grants()) == ["globex"]
    # Added again under the same name it is a new tenant without a grant.
    await proxy.add_tenant("acme")
    assert await problem_name(proxy) == "needs-reauth"
    assert not [fact for fact in proxy.facts if isinstance(fact, RefreshStarted | RefreshFailed)]


async def test_another_processs_refresh_is_waited_for(proxy: Proxy) -> None:
    """While another process refreshes a grant, nobody else does, and its new pair serves here too."""
    store, vault = proxy.app.store, proxy.app.tokens.vault
    before = await store.grant("acme")
    assert before is not None
    await store.edit_grant(
        "acme",
        lambda grant: lifecycle.begin_refresh(
            grant, before=before, at=proxy.pleo.now(), lease=lease(proxy.pleo), takeover=PATIENT
        ),
    )
    proxy.pleo.revoke_access("acme")
    waiting = asyncio.create_task(proxy.get("/acme/v2/employees?limit=1"))
    await until(lambda: proxy.app.tokens.refreshes_under_way)
    pair = proxy.pleo.grant("acme")
    sealed = pairs.seal_pair(
        vault,
        TokenPair(Secret(pair.access_token), Secret(pair.refresh_token), 900),
        tenant="acme",
        generation=2,
        now=proxy.pleo.now(),
        lifetimes=proxy.app.tokens.refresher.lifetimes,
    )
    await store.edit_grant("acme", lambda grant: lifecycle.granted(grant, sealed, before=before))
    assert (await waiting).status == 200
    assert proxy.pleo.counters.refreshes_of(ACME) == 0
    assert not proxy.lines("token.refresh_started")


async def test_another_processs_failure_is_shared(proxy: Proxy) -> None:
    """If the other process's refresh fails, waiters here hear so at once and do not try it themselves."""
    store = proxy.app.store
    before = await store.grant("acme")
    assert before is not None
    await store.edit_grant(
        "acme",
        lambda grant: lifecycle.begin_refresh(
            grant, before=before, at=proxy.pleo.now(), lease=lease(proxy.pleo), takeover=PATIENT
        ),
    )
    proxy.pleo.revoke_access("acme")
    waiting = asyncio.create_task(problem_name(proxy))
    await until(lambda: proxy.app.tokens.refreshes_under_way)
    await store.edit_grant(
        "acme",
        lambda grant: lifecycle.not_granted(
            grant, before=before, outcome=Outcome.UNAVAILABLE, owner="another"
        ),
    )
    assert await waiting == "provider-unavailable"
    assert proxy.pleo.counters.token_requests == 2, "the two consents, and no refresh"


async def test_a_process_that_died_in_a_refresh_is_not_waited_for_for_good(proxy: Proxy) -> None:
    """When an attempt is older than any refresh may take, another process takes over."""
    store = proxy.app.store
    before = await store.grant("acme")
    assert before is not None
    long_ago = proxy.pleo.now() - 341
    await store.edit_grant(
        "acme",
        lambda grant: lifecycle.begin_refresh(
            grant, before=before, at=long_ago, lease=Lease("another", long_ago + 40), takeover=PATIENT
        ),
    )
    proxy.pleo.revoke_access("acme")
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
    assert proxy.pleo.counters.refreshes_of(ACME) == 1


async def test_a_failure_told_by_another_process_is_counted_there_only(proxy: Proxy) -> None:
    """Who only waited for another process's refresh reports no refresh of its own."""
    store = proxy.app.store
    before = await store.grant("acme")
    assert before is not None
    await store.edit_grant(
        "acme",
        lambda grant: lifecycle.begin_refresh(
            grant, before=before, at=proxy.pleo.now(), lease=lease(proxy.pleo), takeover=PATIENT
        ),
    )
    proxy.pleo.revoke_access("acme")
    waiting = asyncio.create_task(problem_name(proxy))
    await until(lambda: proxy.app.tokens.refreshes_under_way)
    await store.edit_grant(
        "acme",
        lambda grant: lifecycle.not_granted(
            grant, before=before, outcome=Outcome.UNAVAILABLE, owner="another"
        ),
    )
    assert await waiting == "provider-unavailable"
    assert not proxy.lines("token.refresh_failed")


async def test_news_about_the_same_tokens_forget_nothing(proxy: Proxy, tmp_path: Path) -> None:
    """A note that another process makes in the grant does not make a refused token good again."""
    proxy.pleo.revoke_access("acme")
    proxy.pleo.token_faults.append(TokenFault("status", status=503, times=None))
    assert await problem_name(proxy) == "provider-unavailable"
    other = open_store(tmp_path / "proxy.db")
    await other.edit_grant("acme", lambda grant: grant and replace(grant, last_outcome=Outcome.NOT_SENT))
    await other.close()
    await proxy.app.watch.take_up()
    requests = len(proxy.pleo.api_requests), proxy.pleo.counters.token_requests
    assert await problem_name(proxy) == "provider-unavailable"
    assert (len(proxy.pleo.api_requests), proxy.pleo.counters.token_requests) == requests


async def test_no_refresh_begins_while_the_proxy_stops(pleo: Sandbox, tmp_path: Path) -> None:
    """A token that falls due during the drain is left alone: nobody would wait for its refresh."""
    async with running_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        # On a connection of its own, which the harness does not close before the drain.
        reader, writer = await asyncio.open_connection(*proxy.address)
        gate = pleo.hold_api("/v2/employees")
        writer.write(b"GET /acme/v2/employees HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await gate.arrived()
        # The token falls due in the drain, which lasts longer than the watch pauses between two looks.
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, pleo.advance, 900 * 0.91)
        loop.call_later(1.4, gate.release)
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    assert proxy.lines("proxy.draining")
    assert not proxy.lines("token.refresh_started")


async def test_an_operators_word_is_not_put_off(proxy: Proxy, tmp_path: Path) -> None:
    """A refresh that is asked for starts at once, in the pause after a failure too, and only once."""
    proxy.pleo.token_faults.append(TokenFault("status", status=429, retry_after="3000"))
    proxy.pleo.advance(901)
    assert await problem_name(proxy) == "provider-unavailable"
    other = open_store(tmp_path / "proxy.db")
    for _ in range(2):
        await other.edit_grant("acme", lambda grant: lifecycle.ask_for_refresh(grant, proxy.pleo.now()))
    await other.close()
    await until(lambda: proxy.lines("token.refreshed"))
    assert [line["reason"] for line in proxy.lines("token.refresh_started")] == ["expired", "asked"]
    await asyncio.sleep(1.2)  # two more looks at the store
    assert proxy.pleo.counters.refreshes_of(ACME) == 1


async def test_a_failed_question_leaves_a_fresh_token_as_good_as_it_was(proxy: Proxy, tmp_path: Path) -> None:
    """Where Pleo was not available nothing is held against the token, and nobody asks again for it."""
    proxy.pleo.token_faults.append(TokenFault("status", status=503))
    other = open_store(tmp_path / "proxy.db")
    await other.edit_grant("acme", lambda grant: lifecycle.ask_for_refresh(grant, proxy.pleo.now()))
    await other.close()
    await until(lambda: proxy.lines("token.refresh_failed"))
    proxy.pleo.advance(10)
    assert (await proxy.get("/acme/v2/employees?limit=1")).status == 200
    assert len(proxy.lines("token.refresh_started")) == 1


async def test_a_question_from_before_the_start_is_taken_up(pleo: Sandbox, tmp_path: Path) -> None:
    """Somebody asked while the proxy was starting: the watch sees it without another change of the store."""
    async with running_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        await proxy.app.store.edit_grant("acme", lambda grant: lifecycle.ask_for_refresh(grant, pleo.now()))
    async with running_proxy(pleo, tmp_path) as proxy:
        await until(lambda: proxy.lines("token.refreshed"))
        assert proxy.lines("token.refresh_started")[0]["reason"] == "asked"


async def test_restored_grants_do_not_all_come_at_once(pleo: Sandbox, tmp_path: Path) -> None:
    """An unverified grant that nobody uses is refreshed within a minute of the start, at a drawn moment."""
    async with running_proxy(pleo, tmp_path) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        await proxy.app.store.edit_grant(
            "acme", lambda grant: grant and replace(grant, state=GrantState.UNVERIFIED)
        )
    async with running_proxy(pleo, tmp_path) as proxy:
        proxy.app.tokens.held.draw = lambda: 0.5
        grant = await proxy.app.store.grant("acme")
        assert grant is not None
        proxy.app.tokens.take(grant)
        await proxy.app.tokens.refresh_due()
        assert proxy.app.tokens.states()["unverified"] == 1
        pleo.advance(31)
        await until(lambda: proxy.lines("token.refreshed"))
        assert proxy.lines("token.refresh_started")[0]["reason"] == "restored"
        assert proxy.app.tokens.states()["connected"] == 1


async def test_an_operator_is_warned_before_a_grant_ends(proxy: Proxy) -> None:
    """Days before a refresh token's end the log says so, once a day, and the metric counts down."""
    proxy.pleo.token_faults.append(TokenFault("status", status=503, times=None))
    tokens = proxy.app.tokens
    tokens.warn_of_ends()
    assert not proxy.lines("grant.ends_soon")
    proxy.pleo.advance(46.5 * 86400)
    for _ in range(3):
        tokens.warn_of_ends()
    proxy.pleo.advance(86400)
    tokens.warn_of_ends()
    told = [line["days_left"] for line in proxy.lines("grant.ends_soon") if line["tenant"] == "acme"]
    assert told == [13, 12]
    rendered = proxy.metrics.render().decode()
    (left,) = re.findall(
        r'^pleo_proxy_refresh_token_left_seconds\{tenant="acme"\} (\S+)$', rendered, re.MULTILINE
    )
    assert 12 * 86400 < float(left) < 13 * 86400


async def test_a_stop_does_not_wait_for_another_process(pleo: Sandbox, tmp_path: Path) -> None:
    """What was sent from here is waited for; what another is at, which may be dead, is not."""
    async with running_proxy(pleo, tmp_path, refresh={"wait_s": 0.1}, limits={"drain_s": 0.1}) as proxy:
        await proxy.add_tenant("acme")
        await proxy.connect("acme")
        await proxy.app.store.edit_grant(
            "acme",
            lambda grant: (
                grant
                and lifecycle.begin_refresh(
                    grant, before=grant, at=pleo.now(), lease=lease(pleo), takeover=PATIENT
                )
            ),
        )
        pleo.revoke_access("acme")
        assert await problem_name(proxy) == "provider-unavailable"
        assert proxy.app.tokens.refreshes_under_way == 1
        began = monotonic()
    assert monotonic() - began < 5
    assert pleo.counters.token_requests == 1, "the consent, and no refresh"
