"""The listeners as the settings have them: who comes in where, TLS, Unix sockets, and why one cannot be had.

Opens what callers connect to; what is then said there is :mod:`proxy.listener`'s.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from proxy import unix_socket
from proxy.admin.ways import CallersDoor
from proxy.arrival import Networks
from proxy.caller_tls import CallerTls, TlsFiles
from proxy.config import Address, CallerListener, Settings, SocketPath
from proxy.door import Door, Lock, open_doors
from proxy.entrance import Entrance, Peers
from proxy.errors import OperatorError
from proxy.facts import Emit, HandshakeFailed
from proxy.listener import CallerServer


def entrance(settings: Settings, listener: CallerListener) -> Entrance:
    """What the connections of one of the callers' listeners have in common."""
    networks = settings.listen.trusted_proxies
    return Entrance(
        listener.tenant,
        Networks(networks) if networks else None,
        Peers(frozenset(listener.uids), frozenset(listener.gids)),
        tls=listener.certificate is not None,
    )


def caller_tls(listener: CallerListener, emit: Emit) -> CallerTls | None:
    """The TLS of one of the callers' listeners, if it has any.

    :raises OperatorError: its files do not make any.
    """
    if listener.certificate is None or listener.key is None:
        return None
    files = TlsFiles(
        listener.certificate,
        listener.key,
        listener.client_ca,
        optional=listener.client_certificates == "optional",
    )
    return CallerTls(str(listener), files, emit)


def lock(settings: Settings, listener: CallerListener, tls: CallerTls, emit: Emit) -> Lock:
    """TLS at the doors of a listener."""
    limits = settings.limits
    return Lock(
        lambda: tls.context,
        limits.head_s,
        limits.connections,
        lambda caller, reason: emit(HandshakeFailed(str(listener), caller, reason)),
    )


def unix_sockets(settings: Settings, stack: ExitStack) -> dict[Path, socket.socket]:
    """The Unix sockets of callers by their paths, listening until ``stack`` is closed.

    :raises OperatorError: one of them cannot be listened on.
    """
    sockets = {}
    for listener in settings.listen.proxy:
        if isinstance(listener.address, SocketPath):
            path = listener.address.path
            gid = None if listener.group is None else _gid(listener)
            try:
                sockets[path] = stack.enter_context(unix_socket.listening(path, mode=listener.mode, gid=gid))
            except OSError as error:
                raise cannot_listen("listen.proxy", listener.address, error) from None
    return sockets


def doors(
    listener: CallerListener,
    protocol: Callable[[], asyncio.Protocol],
    sockets: Mapping[Path, socket.socket],
    lock: Lock | None,
    *,
    reuse_port: bool,
) -> list[Door]:
    """Listen where a listener of callers says; its Unix socket is among ``sockets`` already.

    :raises OperatorError: it cannot be listened on.
    """
    address = listener.address
    if isinstance(address, SocketPath):
        return [Door(protocol, sockets[address.path])]
    try:
        return open_doors(protocol, address.host, address.port, reuse_port=reuse_port, lock=lock)
    except OSError as error:
        raise cannot_listen("listen.proxy", address, error) from None


class Doors:
    """All of the callers' listeners, none of them before :meth:`open`."""

    def __init__(self) -> None:
        self._doors: list[Door] = []
        self._listeners: list[tuple[CallerListener, CallerTls | None, list[Door]]] = []
        self.shown: list[CallersDoor] = []
        """As operators see them."""
        self.tls: list[CallerTls] = []
        """Of those that have any."""

    def open(
        self,
        settings: Settings,
        server: CallerServer,
        sockets: Mapping[Path, socket.socket],
        emit: Emit,
        *,
        shared: bool,
    ) -> None:
        """Let callers in.

        :param shared: other processes listen on the same ports.
        :raises OperatorError: one of the listeners cannot be had.
        """
        for listener in settings.listen.proxy:
            protocol = server.behind(entrance(settings, listener))
            tls = caller_tls(listener, emit)
            fitted = None if tls is None else lock(settings, listener, tls, emit)
            self.tls += [tls] if tls is not None else []
            opened = doors(listener, protocol, sockets, fitted, reuse_port=shared)
            self._listeners.append((listener, tls, opened))
            for door in opened:
                self._doors.append(door)
                self.shown.append(CallersDoor(shown(door.name), tls is not None, listener.tenant))

    def fit(self, settings: Settings, server: CallerServer, emit: Emit) -> None:
        """Let in as these settings say, which have the same listeners, whoever comes from now on."""
        for listener, tls, opened in self._listeners:
            fitted = None if tls is None else lock(settings, listener, tls, emit)
            for door in opened:
                door.fit(server.behind(entrance(settings, listener)), fitted)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where callers connect."""
        return tuple(door.address for door in self.shown)

    def close(self) -> None:
        """Let nobody in any more."""
        for door in self._doors:
            door.close()

    async def all_inside(self) -> None:
        """Wait until those who have come in by now are connections."""
        for door in self._doors:
            await door.all_inside()


def tenants_named(settings: Settings) -> list[tuple[str, str]]:
    """Settings that name a tenant, each with its name."""
    listen = settings.listen
    found = [("listen.proxy", each.tenant) for each in listen.proxy if each.tenant is not None]
    if listen.default_tenant is not None:
        found.append(("listen.default_tenant", listen.default_tenant))
    return found


def _gid(listener: CallerListener) -> int:
    group = listener.group or ""
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise OperatorError(
            f"listen.proxy {listener}: there is no group {group!r} here; create it, or correct the entry"
        ) from None


def cannot_listen(item: str, address: Address | SocketPath, error: OSError) -> OperatorError:
    """Why an address cannot be listened on, and what to do, in one line."""
    variable = f"PLEO_PROXY__{item.upper().replace('.', '__')}"
    is_file = isinstance(address, SocketPath)
    match error.errno:
        case errno.EADDRINUSE if is_file:
            why = "a program listens there; stop it"
        case errno.EADDRINUSE:
            why = "the port is in use; stop the program that uses it"
        case errno.EEXIST:
            why = "there is a file that is no socket; remove it"
        case errno.ENOENT if is_file:
            why = "its directory does not exist; create it"
        case errno.EACCES | errno.EPERM if is_file:
            why = "no permission to make it there, or to give it that group; let the proxy's user do so"
        case errno.EACCES:
            why = "no permission for this port; ports below 1024 need CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            why = "this machine has no such address; correct it"
        case _:
            why = "cannot be listened on; correct it"
    return OperatorError(f"{item} {address}: {why}, or choose another address with {item} or {variable}")


def shown(socket_name: tuple[object, ...] | str) -> str:
    """A socket's name as ``HOST:PORT``, or as ``unix:/PATH``."""
    if isinstance(socket_name, str):
        return f"unix:{socket_name}"
    host, port = str(socket_name[0]), socket_name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
