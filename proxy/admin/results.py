"""What the result page shows, on its way through the authoriser's browser as a cookie.

The callback leads on to another address, perhaps of another instance, so that no code stays in the address
bar. What it found goes along in the browser: nothing secret, and authenticated with the key ring, so that a
page says only what a proxy with these keys has found.
"""

from __future__ import annotations

import base64
import binascii

from proxy.consents import Ending, ending_of
from proxy.vault import SealedValueError, Vault

_PURPOSE = b"result of a consent\0"
"""So that nothing else that was authenticated passes for a result, nor a result for anything else."""


def as_cookie(ending: Ending, vault: Vault) -> str:
    """The cookie's value."""
    data = ending.as_bytes()
    key_id, tag = vault.authenticate(_PURPOSE + data)
    # Without padding, for which a cookie would have to be in quotes.
    return f"{base64.urlsafe_b64encode(data).decode().rstrip('=')}.{key_id}.{tag}"


def of_cookie(value: str, vault: Vault) -> Ending | None:
    """The ending in a cookie, or ``None`` if we have not made it."""
    text, _, rest = value.partition(".")
    key_id, _, tag = rest.partition(".")
    try:
        data = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        vault.verify(_PURPOSE + data, key_id, tag)
        return ending_of(data)
    except (SealedValueError, binascii.Error, ValueError):
        return None
