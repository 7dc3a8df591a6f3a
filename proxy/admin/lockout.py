"""How many wrong tokens are looked at: ten a minute from one address, a hundred from all together. Pure.

Nobody is locked out by others: an address from which a right token came lately is not held to the number of
all. What is remembered is bounded, whoever sends.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from ipaddress import IPv6Address, IPv6Network

from proxy.arrival import address_of

WINDOW_S = 60.0
MOST_OF_ONE = 10
MOST_OF_ALL = 100
"""At which rate, tokens of 40 random bits would stand for centuries; ours have 256."""
_REMEMBERED = 1024
"""Addresses. Where more fail within a minute, the number of all has long been reached."""
_KNOWN_S = 24 * 3600.0
"""For how long an address from which a right token came is told from a stranger's."""


class Lockout:
    """Counts failures; says who has to wait. Asked before a token is looked at, told what came of it."""

    def __init__(self) -> None:
        self._of_one: OrderedDict[str, deque[float]] = OrderedDict()
        self._of_all: deque[float] = deque(maxlen=MOST_OF_ALL)
        self._known: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, peer: str, now: float) -> float | None:
        """How long no token from ``peer`` is looked at; ``None`` if the next one is."""
        key = _network_of(peer)
        own = _left(self._of_one.get(key), MOST_OF_ONE, now)
        if own is not None or self._known.get(key, now - _KNOWN_S) > now - _KNOWN_S:
            return own
        return _left(self._of_all, MOST_OF_ALL, now)

    def is_everywhere(self, now: float) -> bool:
        """Whether strangers have to wait wherever they are."""
        return _left(self._of_all, MOST_OF_ALL, now) is not None

    def failed(self, peer: str, now: float) -> None:
        """A wrong token came."""
        key = _network_of(peer)
        self._of_one.setdefault(key, deque(maxlen=MOST_OF_ONE)).append(now)
        self._of_one.move_to_end(key)
        self._of_all.append(now)
        if len(self._of_one) > _REMEMBERED:
            self._of_one.popitem(last=False)

    def succeeded(self, peer: str, now: float) -> None:
        """A right token came. Failures before it stay counted: others may share the address."""
        key = _network_of(peer)
        self._known[key] = now
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _left(failures: deque[float] | None, most: int, now: float) -> float | None:
    """Until the oldest of ``most`` failures is a window old; ``None`` where fewer are in the window."""
    if failures is None or len(failures) < most:
        return None
    left = failures[0] + WINDOW_S - now
    return left if left > 0 else None


def _network_of(peer: str) -> str:
    """An IPv6 network of 64 bits counts as one address, since its holder has all of them."""
    address = address_of(peer)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return str(address or peer)
