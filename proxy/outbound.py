"""Sockets for connections to the outside: none for an address that must not be connected to.

:mod:`proxy.upstream` and :mod:`proxy.provider` open such connections, and both get their sockets here when
the address is settled, after DNS and for one address at a time. What was judged is what is connected to, so
there is no second look-up that could give another answer. Resolves nothing, and connects nothing itself.
"""

from __future__ import annotations

import socket

from aiohappyeyeballs import AddrInfoType

from proxy.addresses import Destination
from proxy.facts import AddressRefused, Emit

_TOLD_MOST = 100
"""Addresses that are remembered as reported: whoever makes up ever new ones does not fill memory."""


class ForbiddenAddressError(OSError):
    """The host's name led to an address that must not be connected to; another one may be tried."""

    def __init__(self) -> None:
        # One text for all, so that a race between addresses that lost all of them ends with this type.
        super().__init__("the address is not allowed")


class Sockets:
    """Makes sockets for connections to one destination."""

    def __init__(self, destination: Destination, emit: Emit) -> None:
        self._destination = destination
        self._emit = emit
        self._told: set[str] = set()

    def __call__(self, found: AddrInfoType) -> socket.socket:
        """A socket for ``found``, which is an item of what ``getaddrinfo`` returns.

        :raises ForbiddenAddressError: the destination does not admit its address
        """
        family, kind, protocol, _, (address, *_) = found
        if not self._destination.admits(str(address)):
            self._tell(str(address))
            raise ForbiddenAddressError
        return socket.socket(family, kind, protocol)

    def _tell(self, address: str) -> None:
        """Report it once: a name that leads astray does so at every attempt."""
        if address in self._told:
            return
        if len(self._told) >= _TOLD_MOST:
            self._told.clear()
        self._told.add(address)
        self._emit(AddressRefused(self._destination.host, address))
