"""The canary: knows live secrets by keyed hashes of pieces of them, and finds a line that would carry one.

No line should ever hold a secret, and no code writes one; this is for the day on which some does. Of each
secret a few pieces of :data:`PIECE` characters are chosen, spread over both of its halves, and only hashes of
them are kept, with a key that this process made at its start. What is looked through is the line as it is
about to be written, so it does not matter which field a secret came in, nor whether it was escaped for JSON
or a URL: pieces hold nothing that is escaped.

Looking at a line must cost next to nothing, so most of it is done by a few searches that find nothing in a
usual line. Pieces are of two kinds. *Mixed* ones have a capital letter near their begin, as tokens and
generated secrets have everywhere and usual lines nowhere. *Odd* ones are the rest, such as hexadecimal text
and words. Where there are few of those, each is looked for by three of its characters, which are kept; where
there are many, every stretch of text is hashed, which takes a third of what a request costs.

Limits, said plainly: what leaks is found if it holds one of the chosen pieces, as any half of a secret of
:data:`SHORTEST_HALVED` characters does. Not found are secrets of less than :data:`PIECE` characters, and ones
that were encoded in a way that was not watched for too, reversed, cut into crumbs, or not written by the log.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from urllib.parse import quote_plus

from proxy.model import Secret
from proxy.vault import Place, Vault

PIECE = 12
"""Characters of a piece: 48 bits of a hexadecimal secret, so that nothing else is like it by chance."""
SHORTEST_HALVED = 2 * PIECE
PIECES = 8
"""Of one secret: with them and all that is around them it takes less than 1 KB."""

_JWT_HEADER = re.compile(rb"eyJ[A-Za-z0-9_-]+\.")
"""The same in all tokens of an issuer (RFC 7519 section 3.1), and no secret."""


_MIXED = re.compile(rb"(?=.{0,6}[A-Z])[A-Za-z0-9_-]{12}")
_MIXED_TRIGGER = re.compile(rb"[A-Z][A-Za-z0-9_-]{5}")
"""In every mixed piece: the capital letter is the seventh at the latest, and five more follow it."""
_MIXED_RUN = re.compile(rb"[A-Za-z0-9_-]{12,}")
_ODD = re.compile(rb"[!#-\[\]-~]{12}")
"""Printable, less the two characters that JSON escapes."""
_ODD_RUN = re.compile(rb"[!#-\[\]-~]{12,}")
_METHODS = (b'"GET"', b'"POST"')
"""All that is in capital letters in nearly all lines of requests."""
_MOST_SOUGHT = 32
_SOUGHT = 3
_USUAL = (
    b'"request_id":"tenant":"method":"path":"status":"outcome":"answered":"upstream_status":"duration_ms":'
    b'"upstream_ms":"retried":false"generation":"bytes_in":"bytes_out":"caller":"127.0.0.1"null,000/v1/v2/v3/'
    b"employees/companies/vendors/export-jobs/items/accounting-entries:search"
)
"""What stands in lines of requests: three characters of it would be found in each of them."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of a secret, as it is kept."""

    hashed: int
    sought: bytes = b""
    """Of an odd piece three characters, and where in it they are."""
    at: int = 0


class Canary:
    """Told of secrets as they become live; asked of text as it is about to be written.

    :param harmless: a text that stands in every usual line and is no part of a secret, such as what all ids
        of requests begin with; it is passed over.
    """

    def __init__(self, harmless: bytes = b"") -> None:
        self.changes = 0
        """How often what is known has changed: what was clean before may not be any more."""
        self.harmless = harmless
        self._salt = os.urandom(16)
        self._mixed: set[int] = set()
        self._odd: Counter[_Piece] = Counter()
        self._odd_hashes: set[int] = set()
        self._of: dict[Hashable, tuple[int | _Piece, ...]] = {}
        """Mixed pieces by their hashes, and odd ones, of each owner's secrets."""

    def watch(self, owner: Hashable, *secrets: Secret) -> None:
        """From now on know ``secrets``, and forget those that ``owner`` had before."""
        self.changes += 1
        # "replace": what is no text is in no line either.
        texts = (secret.reveal().encode("utf-8", "replace") for secret in secrets)
        pieces = tuple(piece for text in texts for piece in self._pieces(text))
        before = self._of.get(owner, ())
        self._of[owner] = pieces
        self._mixed.difference_update(piece for piece in before if isinstance(piece, int))
        self._mixed.update(piece for piece in pieces if isinstance(piece, int))
        for piece in pieces:
            if isinstance(piece, _Piece):
                self._odd[piece] += 1
                self._odd_hashes.add(piece.hashed)
        for piece in before:
            if isinstance(piece, _Piece):
                self._odd[piece] -= 1
                if not self._odd[piece]:
                    del self._odd[piece]
                    self._odd_hashes.discard(piece.hashed)

    def watch_place(self, place: Place, secret: Secret) -> None:
        """Know what was sealed or opened for ``place``; of a token the newest generation counts."""
        self.watch((place.table, place.tenant, place.column), secret)

    def watch_vault(self, vault: Vault) -> None:
        """Know the keys of ``vault``, and all that it seals or opens."""
        lines = vault.keys.reveal().splitlines()
        self.watch("vault.keys", *(Secret(line.partition(":")[2]) for line in lines))
        vault.tells(self.watch_place)

    def finds(self, data: bytes) -> bool:
        """Whether ``data`` holds a piece of a secret that is known."""
        return (bool(self._mixed) and self._has_mixed(data)) or (bool(self._odd) and self._has_odd(data))

    def _has_mixed(self, data: bytes) -> bool:
        small = data
        for method in _METHODS:
            small = small.replace(method, b"")
        if small.islower() or _MIXED_TRIGGER.search(data) is None:
            return False
        return any(self._is_in(self._mixed, run) for run in _MIXED_RUN.findall(data))

    def _has_odd(self, data: bytes) -> bool:
        if len(self._odd) <= _MOST_SOUGHT:
            return any(piece.sought in data and self._is_at(piece, data) for piece in self._odd)
        if self.harmless:
            data = data.replace(self.harmless, b" ")
        return any(self._is_in(self._odd_hashes, run) for run in _ODD_RUN.findall(data))

    def _is_at(self, piece: _Piece, data: bytes) -> bool:
        found = data.find(piece.sought)
        while found >= 0:
            begin = found - piece.at
            if begin >= 0 and hash(self._salt + data[begin : begin + PIECE]) == piece.hashed:
                return True
            found = data.find(piece.sought, found + 1)
        return False

    def _is_in(self, hashes: set[int], run: bytes) -> bool:
        salt = self._salt
        places = range(len(run) - PIECE + 1)
        return not hashes.isdisjoint([hash(salt + run[at : at + PIECE]) for at in places])

    def _pieces(self, text: bytes) -> Iterator[int | _Piece]:
        header = _JWT_HEADER.match(text)
        halves = _halves(text[header.end() :] if header else text)
        for half in halves:
            mixed = _some_of(_MIXED, half, PIECES // len(halves))
            if mixed:
                yield from {hash(self._salt + piece) for piece in mixed}
            else:
                yield from (self._odd_piece(piece) for piece in _some_of(_ODD, half, 1))

    def _odd_piece(self, piece: bytes) -> _Piece:
        parts = [(piece[at : at + _SOUGHT], at) for at in range(PIECE - _SOUGHT + 1)]
        sought, at = next((part for part in parts if part[0] not in _USUAL), parts[0])
        return _Piece(hash(self._salt + piece), sought, at)


def _some_of(fits: re.Pattern[bytes], text: bytes, most: int) -> list[bytes]:
    """At the most so many pieces of ``text`` that fit, evenly from its begin to its end."""
    end, found = max(0, len(text) - PIECE + 1), []
    step = max(1, -(-end // most))
    for begin in range(0, end, step):
        places = range(begin, min(begin + step, end))
        fitting = (at for at in places if fits.fullmatch(text, at, at + PIECE))
        if (at := next(fitting, None)) is not None:
            found.append(text[at : at + PIECE])
    return found


def _halves(text: bytes) -> list[bytes]:
    if len(text) < SHORTEST_HALVED:
        return [text]
    middle = len(text) // 2
    return [text[:middle], text[middle:]]


def as_sent(user: str | None, secret: Secret) -> Secret:
    """A secret as HTTP Basic authentication has it (RFC 7617).

    :param user: whose it is, both form-encoded before (RFC 6749 section 2.3.1); ``None`` if the secret has
        the user's name in itself.
    """
    text = secret.reveal()
    pair = text if user is None else f"{quote_plus(user)}:{quote_plus(text)}"
    return Secret(b64encode(pair.encode("utf-8", "replace")).decode())
