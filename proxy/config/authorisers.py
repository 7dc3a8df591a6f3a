"""The table of what authorisers are told on the pages of a connect link. No I/O."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from proxy import texts
from proxy.config.sections import Section
from proxy.config.values import Kind, Rule, Text

_LONGEST = 120


def _parse_short(value: str) -> str:
    if len(value) > _LONGEST:
        raise Rule(f"must have at most {_LONGEST} characters, since it stands in sentences; shorten it")
    return value


def _parse_language(value: str) -> str:
    if value not in texts.LANGUAGES:
        raise Rule(f"must be one of {', '.join(texts.LANGUAGES)}; choose one of them, or add its catalogue")
    return value


ShortText = Annotated[Text, AfterValidator(_parse_short)]
Language = Annotated[str, AfterValidator(_parse_language), Kind("language tag")]


class Consent(Section):
    """What people at a company are told before and after they consent."""

    organisation: ShortText | None = Field(
        default=None,
        description="Who asks for access, as the page behind a connect link tells authorisers: your "
        "company's name. Absent, it names the host of `listen.public_url` instead.",
    )
    contact: ShortText | None = Field(
        default=None,
        description="Whom authorisers tell when something is wrong: a name, an e-mail address or a telephone "
        "number. Absent, the pages say: the person who sent the link.",
    )
    language: Language = Field(
        default=texts.DEFAULT,
        description="Language of these pages. One for all: those who send links know whom they write to, and "
        "can read what is read to them on the telephone.",
    )
