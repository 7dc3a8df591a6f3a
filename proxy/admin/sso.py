"""Single sign-on: the user that an authenticating proxy names in a header, and the role that follows. Pure.

The header is believed from the other end of a connection in the configured networks. From anybody else, or
where it is there twice, it means nothing, and is no mistake either: the login asks for a token then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from proxy.addresses import Network
from proxy.arrival import Networks, address_of
from proxy.model import Role

_LONGEST = 254
"""RFC 5321 section 4.5.3.1.3, less the angle brackets."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is, and what they may do."""

    user: str
    role: Role


class SingleSignOn:
    """Whom to believe, and who gets which role."""

    def __init__(
        self, header: str, proxies: Iterable[Network], operators: Collection[str], viewers: Collection[str]
    ) -> None:
        self.header = header
        self._proxies = Networks(proxies)
        self._roles = ((Role.OPERATOR, frozenset(operators)), (Role.VIEWER, frozenset(viewers)))

    def user(self, peer: str, values: Collection[str]) -> str | None:
        """The user that the header's ``values`` name, in lower case, if ``peer`` is to be believed."""
        if len(values) != 1 or not self._is_believed(peer):
            return None
        (value,) = values
        user = value.strip().casefold()
        # A comma: a proxy may have appended its user to one that somebody sent.
        is_one = 0 < len(user) <= _LONGEST and user.isprintable() and not set(user) & {",", " "}
        return user if is_one else None

    def identity(self, user: str) -> Identity | None:
        """The user with their role; ``None`` for those who have none."""
        domain = f"*@{user.rpartition('@')[2]}"
        for role, users in self._roles:
            if user in users or ("@" in user and domain in users):
                return Identity(user, role)
        return None

    def _is_believed(self, peer: str) -> bool:
        address = address_of(peer)
        return address is not None and address in self._proxies
