"""What all facts have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

Level = Literal["debug", "info", "warning", "error"]


@dataclass(slots=True)
class Fact:
    """Something that happened, past tense. Layers emit facts; :mod:`proxy.telemetry` shows them.

    Nobody changes a fact; it is not frozen, because making a frozen one costs each request microseconds.
    """

    event: ClassVar[str]
    level: ClassVar[Level] = "info"


Emit = Callable[[Fact], None]
