"""Listening sockets: a crowd comes in together, a shortage of descriptors passes, closed is closed."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from proxy import door
from proxy.door import Door, open_doors
from tests.harness import free_port, until


class Guest(asyncio.Protocol):
    """Counts who came in."""

    inside: list[asyncio.Transport]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.inside.append(transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@pytest.fixture
async def guest() -> AsyncIterator[type[Guest]]:
    """A protocol with a list of its own."""
    inside: list[asyncio.Transport] = []
    yield type("OneTestsGuest", (Guest,), {"inside": inside})
    for transport in inside:
        transport.abort()
    await asyncio.sleep(0)


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    """Sockets that are closed at the end."""
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


def connect(port: int) -> socket.socket:
    """A connection that the kernel has made, whether or not it was accepted yet."""
    return socket.create_connection(("127.0.0.1", port), timeout=5)


async def test_a_crowd_comes_in_together(guest: type[Guest], crowd: list[socket.socket]) -> None:
    """Three hundred who connect at once are inside after a few turns of the loop, not after three hundred."""
    (entrance,) = open_doors(guest, "127.0.0.1", 0, reuse_port=False)
    crowd += [connect(int(str(entrance.name[1]))) for _ in range(300)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(guest.inside) == 300
    entrance.close()


async def test_who_is_inside_is_served_after_the_door_is_closed(
    guest: type[Guest], crowd: list[socket.socket]
) -> None:
    """Closing ends listening, and connections that were accepted go on."""
    (entrance,) = open_doors(guest, "127.0.0.1", 0, reuse_port=False)
    port = int(str(entrance.name[1]))
    crowd.append(connect(port))
    await until(lambda: guest.inside)
    entrance.close()
    entrance.close()
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    crowd[0].sendall(b"hello")
    assert await asyncio.to_thread(crowd[0].recv, 5) == b"hello"


async def test_a_shortage_of_descriptors_passes(
    guest: type[Guest], crowd: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no descriptor is left, callers wait in the queue and are let in a moment later."""
    monkeypatch.setattr(door, "_OUT_OF_FILES_PAUSE_S", 0.05)
    shortages = 0

    class Poor(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            nonlocal shortages
            if shortages < 2:
                shortages += 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    listening = Poor()
    listening.setblocking(False)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    entrance = Door(guest, listening)
    crowd.append(connect(listening.getsockname()[1]))
    await until(lambda: guest.inside)
    assert shortages == 2
    entrance.close()


async def test_a_name_opens_all_its_addresses_or_none(guest: type[Guest]) -> None:
    """One address that is taken keeps the others from being listened on too."""
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            open_doors(guest, "localhost", port, reuse_port=False)
        if socket.has_ipv6:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", port))
