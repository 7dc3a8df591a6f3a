"""The metrics of a running program against its log: each number that an operator watches is the log's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy import __version__
from proxy.sandbox import ApiFault, Sandbox, TokenFault
from tests.command import Cli, Serving, serving, write_config
from tests.harness import ADMIN_TOKEN, free_port, until
from tests.test_workers import connect_acme

Line = Mapping[str, Any]


async def scraped(serve: Serving) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of their labels in the order of the labels' names."""
    (admin,) = {line["admin"] for line in serve.process.lines("proxy.started")} - {""}
    async with serve.session.get(f"http://{admin}/metrics") as answer:
        text = await answer.text()
    return {
        (
            sample.name.removeprefix("pleo_proxy_"),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def of(samples: Mapping[tuple[str, ...], float], name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name that are not 0, by the values of their labels."""
    return {labels[1:]: value for labels, value in samples.items() if labels[0] == name and value}


def told_by(lines: Sequence[Line]) -> dict[str, Counter[tuple[str, ...]]]:
    """What the log says of requests and refreshes, as counters of the metrics' names."""
    finished = [line for line in lines if line["event"] == "request.finished"]
    by_pleo = [line for line in finished if line["upstream_status"] is not None]
    classes = [(f"{line['upstream_status'] // 100}xx",) for line in by_pleo]
    asked_for_less = [line["upstream_status"] for line in by_pleo if line["upstream_status"] in (429, 503)]
    ended = [line for line in lines if line["event"] in ("token.refreshed", "token.refresh_failed")]
    return {
        # Labels in the order of their names: outcome, status_class, tenant.
        "requests_total": Counter(
            (line["outcome"], f"{line['status'] // 100}xx", line["tenant"] or "") for line in finished
        ),
        "requests_retried_total": Counter(() for line in finished if line["retried"]),
        "request_duration_seconds_count": Counter((line["tenant"] or "",) for line in finished),
        "upstream_responses_total": Counter(classes),
        "upstream_throttled_total": Counter((str(status),) for status in asked_for_less),
        "upstream_duration_seconds_count": Counter(() for _ in by_pleo),
        "own_duration_seconds_count": Counter(() for line in by_pleo if not line["retried"]),
        "refreshes_total": Counter((line.get("outcome", "granted"), line["reason"]) for line in ended),
    }


async def calls(serve: Serving, path: str, count: int, method: str = "GET") -> list[int]:
    """Statuses of requests, each on a connection of its own, so that all workers get some."""

    async def call(session: aiohttp.ClientSession) -> int:
        async with session.request(method, serve.base_url + path) as answer:
            await answer.read()
            return answer.status

    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await asyncio.gather(*(call(session) for _ in range(count)))


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_metrics_are_what_the_log_says(pleo: Sandbox, tmp_path: Path, workers: int) -> None:
    """Requests by tenant, class and reason, times, refreshes, answers of Pleo, over all processes."""
    pleo.switches.rate_limit_per_minute = None
    port, admin_port = free_port(), free_port()
    config = write_config(
        tmp_path,
        pleo,
        listen={
            "workers": workers,
            "proxy": f"127.0.0.1:{port}",
            "admin": f"127.0.0.1:{admin_port}",
            "public_url": f"http://127.0.0.1:{admin_port}",
        },
        admin={"token": ADMIN_TOKEN},
        limits={"drain_s": 5, "replay_disk": "1 MiB", "replay_memory": "64 KiB"},
    )
    await connect_acme(tmp_path / "state", pleo)
    async with serving(config) as serve:
        await until(lambda: len(serve.process.lines("proxy.started")) == workers, 30)
        async with asyncio.timeout(30):
            while len({line.get("worker") for line in serve.process.lines("request.finished")}) != workers:
                assert set(await calls(serve, "/acme/v2/employees?limit=1", 20)) == {200}
        assert set(await calls(serve, "/acme/v2/employees?limit=1", 20)) == {200}
        assert set(await calls(serve, "/nobody/v2/employees", 5)) == {404}
        assert set(await calls(serve, "/acme/v1/installations/me", 3, "DELETE")) == {403}
        pleo.api_faults.append(ApiFault("status", "^/v2/tags", status=429, times=4))
        assert set(await calls(serve, "/acme/v2/tags", 4)) == {429}
        pleo.api_faults.append(ApiFault("drop", "^/v2/tags", times=None))
        assert 502 in set(await calls(serve, "/acme/v2/tags", 1, "POST"))
        pleo.api_faults.clear()
        pleo.token_faults.append(TokenFault("status", status=503))
        pleo.revoke_access("acme")
        await calls(serve, "/acme/v2/employees?limit=1", 3)
        async with asyncio.timeout(30):
            while set(await calls(serve, "/acme/v2/employees?limit=1", 3)) != {200}:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await calls(serve, "/acme/v2/employees?limit=1", 10)  # so that the new token has been used

        told = {name: dict(counter) for name, counter in told_by(serve.process.lines()).items()}
        samples = await scraped(serve)
        assert {name: of(samples, name) for name in told} == told
        durations = sum(line["duration_ms"] for line in serve.process.lines("request.finished")) / 1000
        assert sum(of(samples, "request_duration_seconds_sum").values()) == pytest.approx(durations)

        # What each process reads of itself is in the scrape with its next look at the store.
        async def settled() -> dict[tuple[str, ...], float]:
            async with asyncio.timeout(10):
                while True:
                    samples = await scraped(serve)
                    if samples["upstream_connections_opened_total",] and not of(samples, "under_way"):
                        return samples
                    await asyncio.sleep(0.1)

        samples = await settled()
        assert of(samples, "grants") == {("connected",): 1}
        assert of(samples, "grant_usable") == {("acme",): 1}
        assert 59 * 86400 < samples["refresh_token_left_seconds", "acme"] <= 60 * 86400
        assert 0 < samples["access_token_left_seconds",] <= 3600
        assert of(samples, "upstream_connections").keys() <= {("idle",)}
        assert of(samples, "replay_bytes") == {}
        assert samples["journal_records",] == 0
        assert samples["store_up",] == 1
        assert samples["event_loop_lag_seconds_count",] > 0
        assert samples["build_info", __version__] == 1
        assert {"lease_waits_total", "replay_given_up_total", "requests_not_repeated_total"} <= {
            name for name, *_ in samples
        }
        assert of(samples, "defects_total") == {}
        await serve.stop()


async def test_a_body_that_cannot_be_sent_again_is_counted(pleo: Sandbox, tmp_path: Path) -> None:
    """Bodies that were too large to be kept are counted, and so are the 401s that were passed on for it."""
    config = write_config(tmp_path, pleo, limits={"replay_disk": "64 KiB", "replay_memory": "16 KiB"})
    await connect_acme(tmp_path / "state", pleo)
    # Else its bodies are looked into before they are sent, and too large ones refused.
    await asyncio.to_thread(Cli(config).done, "policy", "set", "acme", "--no-pin-company")
    async with serving(config) as serve:
        pleo.revoke_access("acme")

        async def body() -> Any:
            for _ in range(20):
                yield b"x" * 8192
                await asyncio.sleep(0)

        async with serve.session.post(f"{serve.base_url}/acme/v1/employees", data=body()) as answer:
            assert answer.status == 401, await answer.text()
        async with asyncio.timeout(10):
            while not of(await scraped(serve), "replay_given_up_total"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        samples = await scraped(serve)
        assert samples["replay_given_up_total",] == 1
        assert samples["requests_not_repeated_total",] == 1
        assert of(samples, "replay_bytes") == {}
