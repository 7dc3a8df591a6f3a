"""The canary: knows live secrets by keyed hashes of pieces of them, and finds a line that would carry one.

No line should ever hold a secret, and no code writes one; this is for the day on which some does. Of each
secret a few pieces of :data:`PIECE` characters are chosen, spread over both of its halves, and only hashes of
them are kept, with a key that this process made at its start. What is looked through is the line as it is
about to be written, so it does not matter which field a secret came in, nor whether it was escaped for JSON
or a URL: pieces hold nothing that is escaped.

Looking at a line must cost next to nothing, so most of it is one search by a compiled pattern that finds
nothing in a usual line. There are three kinds of piece, each searched for only while a secret has it. *Mixed*
ones have a capital letter near their begin, as tokens and generated secrets have everywhere and usual lines
nowhere; *plain* ones are of small letters and digits alone, as hexadecimal secrets are; *odd* ones are the
rest, such as words with hyphens, and cost most.

Limits, said plainly: what leaks is found if it holds one of the chosen pieces, as any half of a secret of
:data:`SHORTEST_HALVED` characters does. Not found are secrets of less than :data:`PIECE` characters, and ones
that were encoded in a way that was not watched for too, reversed, cut into crumbs, or not written by the log.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Kind:
    """Pieces of one kind, and how they are found."""

    fits: re.Pattern[bytes]
    """What a whole piece looks like."""
    trigger: re.Pattern[bytes]
    """Found in every text that holds a piece, and seldom in others."""
    run: re.Pattern[bytes]
    """A stretch of characters of which pieces are made."""
    hashes: set[int] = field(default_factory=set)

    def pieces(self, text: bytes, most: int) -> list[bytes]:
        """At the most so many pieces of a secret, evenly from its begin to its end."""
        end, found = max(0, len(text) - PIECE + 1), []
        step = max(1, -(-end // most))
        for begin in range(0, end, step):
            places = range(begin, min(begin + step, end))
            fitting = (at for at in places if self.fits.fullmatch(text, at, at + PIECE))
            if (at := next(fitting, None)) is not None:
                found.append(text[at : at + PIECE])
        return found


def _kinds() -> tuple[_Kind, _Kind, _Kind]:
    mixed = _Kind(
        re.compile(rb"(?=.{0,6}[A-Z])[A-Za-z0-9_-]{12}"),
        # The capital letter is the seventh at the latest, and five more follow it.
        re.compile(rb"[A-Z][A-Za-z0-9_-]{5}"),
        re.compile(rb"[A-Za-z0-9_-]{12,}"),
    )
    plain = re.compile(rb"[a-z0-9]{12}")
    odd = rb"[!#-\[\]-~]"  # printable, less the two that JSON escapes
    return (
        mixed,
        _Kind(plain, plain, re.compile(rb"[a-z0-9]{12,}")),
        _Kind(re.compile(odd + rb"{12}"), re.compile(odd + rb"{12}"), re.compile(odd + rb"{12,}")),
    )


class Canary:
    """Told of secrets as they become live; asked of text as it is about to be written.

    :param harmless: a text that stands in every usual line and is no part of a secret, such as what all ids
        of requests begin with; it is passed over.
    """

    def __init__(self, harmless: bytes = b"") -> None:
        self._salt = os.urandom(16)
        self._harmless = harmless
        self._kinds = _kinds()
        self._of: dict[Hashable, tuple[tuple[int, tuple[int, ...]], ...]] = {}
        """For each half of each secret of an owner the kind of its pieces, and their hashes."""

    def watch(self, owner: Hashable, *secrets: Secret) -> None:
        """From now on know ``secrets``, and forget those that ``owner`` had before."""
        before = self._of.get(owner, ())
        # "replace": what is no text is in no line either.
        texts = (secret.reveal().encode("utf-8", "replace") for secret in secrets)
        marks = tuple(mark for text in texts for mark in self._marks(text))
        for kind, hashes in before:
            self._kinds[kind].hashes.difference_update(hashes)
        for kind, hashes in marks:
            self._kinds[kind].hashes.update(hashes)
        self._of[owner] = marks

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
        mixed, plain, odd = self._kinds
        if mixed.hashes and mixed.trigger.search(data) is not None and self._is_in(mixed, data):
            return True
        if not plain.hashes and not odd.hashes:
            return False
        if self._harmless:
            data = data.replace(self._harmless, b" ")
        return any(kind.hashes and self._is_in(kind, data) for kind in (plain, odd))

    def _is_in(self, kind: _Kind, data: bytes) -> bool:
        salt, hashes = self._salt, kind.hashes
        for run in kind.run.findall(data):
            if not hashes.isdisjoint(
                [hash(salt + run[at : at + PIECE]) for at in range(len(run) - PIECE + 1)]
            ):
                return True
        return False

    def _marks(self, text: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
        header = _JWT_HEADER.match(text)
        halves = _halves(text[header.end() :] if header else text)
        for half in halves:
            for kind, each in enumerate(self._kinds):
                if pieces := each.pieces(half, PIECES // len(halves)):
                    yield kind, tuple({hash(self._salt + piece) for piece in pieces})
                    break


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
