"""Key services: what holds a key outside of this machine, with which the keys of the ring are wrapped.

A service is named by a URL, whose scheme says which kind it is. :func:`open_service` gives one with the two
methods of :class:`KeyService`; whoever adds a kind adds a module here and a line to ``_KINDS``. Knows nothing
of rings and files, and logs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.errors import KeyServiceError
from proxy.keyservice import aws_kms
from proxy.keyservice.interface import KeyService, Wrapped

__all__ = ["KeyService", "Wrapped", "check_url", "context_of", "open_service"]

_KINDS: dict[str, tuple[Callable[[str], None], Callable[[str], KeyService]]] = {
    aws_kms.SCHEME: (aws_kms.check, aws_kms.AwsKms),
}
"""By the scheme: what checks a URL, and what opens the service."""


def check_url(url: str) -> None:
    """Whether ``url`` names a key service that is known; asks nobody.

    :raises ValueError: it does not; the text is "rule; remedy".
    """
    scheme = url.partition("://")[0]
    if scheme not in _KINDS:
        raise ValueError(
            f"must begin with {' or '.join(f'{known}://' for known in _KINDS)}; name a service that is known"
        )
    _KINDS[scheme][0](url)


def open_service(url: str) -> KeyService:
    """The key service at ``url``.

    :raises KeyServiceError: it is of no kind that is known, or what it needs is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme not in _KINDS:
        raise KeyServiceError(
            f"key service {url}: its kind is not known; known are {', '.join(_KINDS)}; restore the key ring"
        )
    return _KINDS[scheme][1](url)


def context_of(key_id: str) -> dict[str, str]:
    """What a wrapped key is bound to: it unwraps as the key of this id, of this program, and as no other."""
    return {"product": "pleo-proxy", "key": key_id}
