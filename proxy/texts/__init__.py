"""What authorisers read: a catalogue for each language, as TOML beside this file.

No other module has a text of theirs. A text is asked for by its key and comes as markup, with what is put
into it escaped. Must never hold what only operators read, nor decide which text fits: ``admin`` does.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape

DEFAULT = "en"
_FILES = files("proxy.texts")
LANGUAGES: tuple[str, ...] = tuple(
    sorted(file.name.removesuffix(".toml") for file in _FILES.iterdir() if file.name.endswith(".toml"))
)
"""For which there is a catalogue, by their tags (RFC 5646)."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All texts in one language, by keys such as ``connect.title``; plain text with ``{placeholders}``."""

    language: str
    texts: dict[str, str]

    def say(self, key: str, /, **values: object) -> Markup:
        """A text as markup; values that are no markup themselves are escaped.

        :raises KeyError: there is no such text, or it wants a value that was not given.
        """
        return escape(self.texts[key]).format(**values)

    def scope(self, name: str) -> Markup:
        """What a scope lets its holder do; of one that is not known, the name."""
        text = self.texts.get(f"scopes.{name}")
        return Markup("<code>{}</code>").format(name) if text is None else escape(text)

    def instant(self, at: float) -> Markup:
        """An instant, in UTC: nobody says where the reader is.

        :param at: in seconds since the epoch.
        """
        moment = datetime.fromtimestamp(at, UTC)
        text = self.say(
            "dates.instant",
            day=moment.day,
            month=self.texts[f"months.{moment.month}"],
            year=moment.year,
            time=f"{moment:%H:%M}",
        )
        return Markup('<time datetime="{}">{}</time>').format(f"{moment:%Y-%m-%dT%H:%M:%SZ}", text)


@cache
def catalogue(language: str) -> Catalogue:
    """The catalogue of one of :data:`LANGUAGES`."""
    tables = tomllib.loads(_FILES.joinpath(f"{language}.toml").read_text("utf-8"))
    return Catalogue(language, dict(_flat(tables)))


def _flat(tables: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in tables.items():
        name = f"{above}{key}"
        found += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, str(value))]
    return found
