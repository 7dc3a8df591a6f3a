"""Facts as log lines: JSON objects for machines, coloured columns for a person at a terminal."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

import orjson
import structlog

from proxy.model import Fact, Level

_LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_field_names: dict[type[Fact], tuple[str, ...]] = {}


class LogSink:
    """Writes each fact as one line, whole and at once: a lump of buffered lines would hold up callers."""

    def __init__(self, stream: BinaryIO, *, log_format: Literal["json", "console"], level: Level) -> None:
        self.lost = 0
        """Lines that could not be written (a full disk, a reader that went away)."""
        if log_format == "json":
            logger: Any = structlog.BytesLogger(stream)
            render: list[Any] = [_order, structlog.processors.JSONRenderer(serializer=_dump)]
        else:
            logger = structlog.BytesLogger(stream)
            render = [
                structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False, pad_event_to=22),
                _encode,
            ]
        self._log = structlog.wrap_logger(
            logger,
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
                *render,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            cache_logger_on_first_use=True,
        ).bind()
        self._write: dict[Level, Callable[..., Any]] = {
            "debug": self._log.debug,
            "info": self._log.info,
            "warning": self._log.warning,
            "error": self._log.error,
        }

    def __call__(self, fact: Fact) -> None:
        """Write one line; a line that cannot be written is counted and dropped."""
        try:
            self._write[fact.level](fact.event, **fields_of(fact))
        # ValueError: the stream was closed under us. TypeError: a text that is no Unicode.
        except (OSError, ValueError, TypeError):
            self.lost += 1


def fields_of(fact: Fact) -> dict[str, Any]:
    """The fact's fields in the order in which they are documented."""
    kind = type(fact)
    names = _field_names.get(kind)
    if names is None:
        names = _field_names[kind] = tuple(field.name for field in dataclasses.fields(fact))
    return {name: getattr(fact, name) for name in names}


def _order(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return {**first, **event}


def _dump(event: object, **_options: object) -> bytes:
    return orjson.dumps(event)


def _encode(_logger: object, _method: str, line: str) -> bytes:
    return line.encode()
