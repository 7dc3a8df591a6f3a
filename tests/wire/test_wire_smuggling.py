"""Malformed and smuggling requests, judged by what arrives upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.wire.attacks import ATTACKS, UP, Attack, Outcome
from tests.wire.theatre import Heard, Theatre, answers, converse, on_uvloop, theatre

SPLITS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda data: [data],
    "line-by-line": lambda data: data.splitlines(keepends=True),
    "byte-by-byte": lambda data: [
        *(data[at : at + 1] for at in range(min(len(data), 1500))),
        *([data[1500:]] if len(data) > 1500 else []),
    ],
}
SETTLED_S = 0.01
"""For how long nothing more may come of a connection that stays open: it is a negative, and must end."""


async def attack(
    scene: Theatre, pieces: list[bytes], attack_: Attack
) -> tuple[Heard, list[tuple[bytes, bytes]]]:
    """What came of an attack: for the caller, and upstream."""
    scene.recorder.clear()
    stays = [list(outcome.statuses) for outcome in attack_.outcomes if not outcome.closes]
    is_head = attack_.data.startswith(b"HEAD ")
    heard = await converse(scene.address, pieces, lambda statuses: statuses in stays, heads=[is_head])
    await asyncio.sleep(0 if heard.ended else SETTLED_S)
    arrived = [(request.head, request.body) for request in scene.recorder.requests]
    return heard, arrived


def fits(outcome: Outcome, heard: Heard, arrived: list[tuple[bytes, bytes]], up: bytes) -> bool:
    """Whether this is what happened."""
    expected = [(head.replace(UP, up), body) for head, body in outcome.arrives]
    return (
        heard.statuses == list(outcome.statuses)
        and arrived == expected
        and (heard.ended or not outcome.closes)
        and not heard.malformed
    )


async def served_as_ever(scene: Theatre) -> None:
    """Another caller's request gets its own answer afterwards, over whatever connection is in the pool."""
    scene.recorder.requests.clear()
    heard = await converse(
        scene.address, [b"GET /acme/v1/innocent HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"], answers(1)
    )
    assert [answer.body for answer in heard.answers] == [b"/v1/innocent"], heard
    assert [request.first[1] for request in scene.recorder.requests] == [b"/v1/innocent"]


async def play(folder: Path, split: Callable[[bytes], list[bytes]]) -> dict[str, str]:
    """What went wrong with each attack, its bytes sent in one of the ways; empty where nothing did."""
    wrong: dict[str, str] = {}
    async with theatre(folder) as scene:
        for name, each in ATTACKS.items():
            heard, arrived = await attack(scene, split(each.data), each)
            wrong[name] = ""
            try:
                scene.check()
                assert any(fits(one, heard, arrived, scene.recorder.authority) for one in each.outcomes)
                for answer in heard.answers:
                    if answer.status >= 400:
                        assert answer.values(b"content-type") == [b"application/problem+json"]
                        assert answer.values(b"proxy-status")
                await served_as_ever(scene)
            except AssertionError as error:
                wrong[name] = f"{error}\nheard: {heard}\narrived: {arrived}"
                scene.crashes.clear()
    return wrong


@pytest.fixture(scope="module")
def wrongs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """Plays the catalogue once for each way of sending, in whatever order the tests run."""

    @cache
    def played(way: str) -> dict[str, str]:
        return on_uvloop(lambda: play(tmp_path_factory.mktemp("wire"), SPLITS[way]))

    return played


@pytest.mark.parametrize("way", SPLITS)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_or_harmless(
    wrongs: Callable[[str], dict[str, str]], name: str, way: str
) -> None:
    """Nothing hidden arrives as a request of its own, nor a second credential; the next caller is safe."""
    wrong = wrongs(way)[name]
    assert not wrong, wrong


def test_the_catalogue_is_large() -> None:
    """At least eighty ways, so that a slip of the editor does not empty the catalogue."""
    assert len(ATTACKS) >= 80
