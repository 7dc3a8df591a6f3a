"""Sealing: AES-256-GCM over secrets, each bound to the one place where it may be opened.

A sealed value reads ``v1.KEYID.BASE64URL(nonce + ciphertext + tag)``. Its version, key id and
:class:`Place` (table, tenant, column, generation) are associated data, so a value that was copied to another
row, column or generation does not open. Opening raises; it never returns "nothing".

Sealing a value anew with another key keeps its nonce. So the nonce names a value whatever key seals it, and
:func:`is_same_value` tells one from another without a key.

No I/O: key texts are handed in. Never logs, never shows a key. Limits, said plainly: nonces are random
(96 bits), so one key should seal fewer than 2**32 values (NIST SP 800-38D section 8.3); whoever holds the key
ring and the database holds the tokens.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time, hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.errors import KeyRingError
from proxy.model import Sealed, Secret

_VERSION = "v1"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_NONCE_CHARACTERS = _NONCE_BYTES * 4 // 3
"""Of its base64: exactly as many as stand for the nonce and nothing else."""
_KEY_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_CHECK_TEXT = "pleo-proxy key check"


class SealedValueError(Exception):
    """A sealed value that does not open; ``problem`` says why without showing anything of it."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value lives, and the only place where it opens."""

    table: str
    tenant: str
    column: str
    generation: int


Tell = Callable[[Place, Secret], None]
"""Told of a secret and its place."""


def _tell_nobody(_place: Place, _secret: Secret) -> None:
    pass


CHECK_PLACE = Place("meta", "", "key_check", 0)


class Vault:
    """Seals with the first key of the ring and opens with any of them.

    :param keys: lines ``KEYID:BASE64`` of 32 bytes each, the sealing key first; blank lines and lines that
        begin with ``#`` are passed over.
    :raises KeyRingError: malformed line, key of another length, id used twice, or no key at all.
    """

    def __init__(self, keys: Secret) -> None:
        self.keys = keys
        self._ring = ring = _parse_ring(keys.reveal())
        self._ciphers = {key_id: AESGCM(key) for key_id, key in ring.items()}
        self._sealing_id = next(iter(ring))
        self._tell: Tell = _tell_nobody

    def tells(self, tell: Tell) -> None:
        """Have ``tell`` called with each secret that is sealed or opened, and its place."""
        self._tell = tell

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Ids of the ring's keys, the sealing key first."""
        return tuple(self._ciphers)

    def seal(self, secret: Secret, place: Place) -> Sealed:
        """``secret`` sealed for ``place`` with the first key and a random nonce."""
        self._tell(place, secret)
        return self._seal(secret, place, os.urandom(_NONCE_BYTES))

    def reseal(self, sealed: Sealed, place: Place) -> Sealed:
        """``sealed`` with the first key, in the same place and with its nonce; as it is if it has that key.

        The nonce came from no other value of the new key but by the chance that any random nonce has, and
        should a value come back to a key that it had before, it becomes what it was then, bit for bit.

        :raises SealedValueError: it does not open.
        """
        secret = self.open(sealed, place)
        if key_id_of(sealed) == self._sealing_id:
            return sealed
        return self._seal(secret, place, _decode(sealed.rpartition(".")[2])[:_NONCE_BYTES])

    def _seal(self, secret: Secret, place: Place, nonce: bytes) -> Sealed:
        cipher = self._ciphers[self._sealing_id]
        sealed = cipher.encrypt(nonce, secret.reveal().encode(), _associated(self._sealing_id, place))
        return Sealed(f"{_VERSION}.{self._sealing_id}.{_encode(nonce + sealed)}")

    def open(self, sealed: Sealed, place: Place) -> Secret:
        """The secret that was sealed for exactly this place.

        :raises SealedValueError: unknown version or key, damaged value, or a value of another place.
        """
        version, _, rest = sealed.partition(".")
        key_id, _, text = rest.partition(".")
        if version != _VERSION:
            raise SealedValueError("sealed in a format that this version does not know")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            shown = key_id if _KEY_ID.fullmatch(key_id) else "?"
            raise SealedValueError(f"sealed with key {shown!r}, which is not in the key ring")
        try:
            raw = _decode(text)
            opened = cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _associated(key_id, place))
        except (InvalidTag, ValueError, binascii.Error):
            raise SealedValueError(
                "damaged, moved from another place, or sealed with another key of the same id"
            ) from None
        secret = Secret(opened.decode())
        self._tell(place, secret)
        return secret

    def seal_check(self) -> Sealed:
        """A sealed constant by which :meth:`verify_check` tells at start whether this ring fits a store."""
        return self.seal(Secret(_CHECK_TEXT), CHECK_PLACE)

    def verify_check(self, sealed: Sealed) -> None:
        """:raises KeyRingError: the ring is not the one that sealed this store's values."""
        try:
            self.open(sealed, CHECK_PLACE)
        except SealedValueError as error:
            raise KeyRingError(
                f"vault.keys (ids: {', '.join(self.key_ids)}) does not fit this store: its check value was "
                f"{error.problem}; put back the key ring that was used with this database"
            ) from None

    def chain_id(self, secret: Secret) -> str:
        """A short keyed hash (48 bits) of a refresh token, to follow its rotations in a log."""
        return _keyed_hash(self._ring[self._sealing_id], b"chain\0" + secret.reveal().encode())[:6].hex()

    def authenticate(self, data: bytes) -> tuple[str, str]:
        """The first key's id, and a hash of ``data`` in hex that nobody can make without that key."""
        return self._sealing_id, self._authentic(self._sealing_id, data).hex()

    def verify(self, data: bytes, key_id: str, tag: str) -> None:
        """Whether ``data`` is what :meth:`authenticate` was given.

        :raises SealedValueError: it is not, or the key is not in the ring.
        """
        if key_id not in self._ring:
            shown = key_id if _KEY_ID.fullmatch(key_id) else "?"
            raise SealedValueError(f"authenticated with key {shown!r}, which is not in the key ring")
        if not constant_time.bytes_eq(self._authentic(key_id, data).hex().encode(), tag.encode()):
            raise SealedValueError("changed, or authenticated with another key of the same id")

    def _authentic(self, key_id: str, data: bytes) -> bytes:
        # A key of its own, so that what is hashed here can never be what is hashed for another purpose.
        return _keyed_hash(_keyed_hash(self._ring[key_id], b"authenticate\0"), data)


def key_id_of(sealed: Sealed) -> str:
    """The id of the key that seals a value; empty where the text is no sealed value."""
    version, _, rest = sealed.partition(".")
    return rest.partition(".")[0] if version == _VERSION else ""


def is_same_value(one: Sealed | None, other: Sealed | None) -> bool:
    """Whether two texts seal one value, perhaps with different keys: their nonces agree."""
    if one is None or other is None:
        return one is other
    return _nonce_text(one) == _nonce_text(other)


def _nonce_text(sealed: Sealed) -> str:
    return sealed.rpartition(".")[2][:_NONCE_CHARACTERS]


def _keyed_hash(key: bytes, data: bytes) -> bytes:
    mac = hmac.HMAC(key, hashes.SHA256())
    mac.update(data)
    return mac.finalize()


def new_key_line(key_id: str) -> str:
    """A fresh line for a key ring: ``KEYID:BASE64`` of 32 random bytes.

    :raises KeyRingError: the id is not ``[a-z0-9][a-z0-9-]{0,31}``.
    """
    if not _KEY_ID.fullmatch(key_id):
        raise KeyRingError(f"key id {key_id!r} is not made of a-z, 0-9 and '-' (at most 32); choose another")
    return f"{key_id}:{_encode(os.urandom(_KEY_BYTES))}"


def _parse_ring(text: str) -> dict[str, bytes]:
    ring: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key_id, colon, encoded = line.strip().partition(":")
        if not colon or not _KEY_ID.fullmatch(key_id):
            raise KeyRingError(f"key ring, line {number}: not KEYID:BASE64; see `pleo-proxy keys generate`")
        if key_id in ring:
            raise KeyRingError(f"key ring, line {number}: id {key_id!r} is used twice; keep one of them")
        ring[key_id] = _decode_key(encoded, number)
    if not ring:
        raise KeyRingError("key ring: holds no key; make one with `pleo-proxy keys generate`")
    return ring


def _decode_key(encoded: str, number: int) -> bytes:
    try:
        key = base64.b64decode(encoded.encode(), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise KeyRingError(f"key ring, line {number}: the key is not base64; restore the file") from None
    if len(key) != _KEY_BYTES:
        raise KeyRingError(
            f"key ring, line {number}: the key has {len(key)} bytes instead of {_KEY_BYTES}; "
            "make one with `pleo-proxy keys generate`"
        )
    return key


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def _decode(text: str) -> bytes:
    raw = base64.urlsafe_b64decode(text.encode())
    # Lenient decoding passes over foreign characters and spare bits: one value would have many spellings.
    if _encode(raw) != text:
        raise binascii.Error("not in canonical form")
    return raw


def _associated(key_id: str, place: Place) -> bytes:
    # Each part is preceded by its length, so that no two places give the same bytes.
    parts = (_VERSION, key_id, place.table, place.tenant, place.column, str(place.generation))
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
