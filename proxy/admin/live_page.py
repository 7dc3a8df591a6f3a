"""``/live``: the newest lines of the log, and with a script of ours those that come."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final
from urllib.parse import urlencode

from aiohttp import web
from pydantic import ValidationError

from proxy.admin.access import actor_of, require
from proxy.admin.answers import page
from proxy.admin.live_stream import PATH, pick_of
from proxy.admin.services import SERVICES
from proxy.admin.shapes import LiveQuery
from proxy.admin.words import Tone
from proxy.loglines import LEVELS, Line, printable
from proxy.model import Role

ROWS = 100
"""On the page at one time; the script keeps to it, too."""
_SCRIPT = files("proxy.admin").joinpath("templates", "live.js").read_text("utf-8")
_TOLD: Final = {"timestamp", "level", "event", "tenant", "caller", "request_id", "worker"}
"""Fields that have a place of their own, or none."""
_FIELDS: Final = {
    "tenant": "The tenant is too long.",
    "status": "A status is 401 or the like, or a class of them, as 5xx.",
    "event": "The event is too long.",
    "level": f"A level is one of {', '.join(LEVELS)}.",
}
"""Of the form, and what is wrong with one that cannot be."""
_NOTHING: Final[tuple[object, ...]] = (None, False, "", [])


def routes() -> list[web.RouteDef]:
    """Routes of this module."""
    return [web.get("/live", require(Role.VIEWER)(_page)), web.get("/live.js", _script)]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the log on the page; ``live.js`` makes the same of what comes."""

    time: str
    tone: str
    tenant: str
    what: str
    result: str
    took: str
    caller: str
    request_id: str


def row_of(line: Line) -> Row:
    """What the page shows of a line."""
    is_request = line.text("event") == "request.finished"
    return Row(
        time=(line.timestamp or "")[11:19],
        tone=_tone(line),
        tenant=line.text("tenant") or "—",
        what=f"{line.text('method')} {line.text('path')}" if is_request else line.text("event"),
        result=_answer(line) if is_request else _details(line),
        took=_took(line) if is_request else "",
        caller=line.text("caller"),
        request_id=line.text("request_id"),
    )


def _answer(line: Line) -> str:
    retried = ", sent twice" if (line.fields or {}).get("retried") is True else ""
    return f"{line.text('status')} {line.text('outcome')}{retried}"


def _took(line: Line) -> str:
    took_ms = (line.fields or {}).get("duration_ms")
    if not isinstance(took_ms, int | float):
        return ""
    # Halves up, as the script rounds; below ten the tenths tell the proxy's own time.
    return f"{int(took_ms + 0.5)} ms" if took_ms >= 10 else f"{int(took_ms * 10 + 0.5) / 10:.1f} ms"


def _tone(line: Line) -> str:
    """The colour of the result: by the status of a request, else by the level."""
    status, level = line.text("status"), line.text("level")
    if status.startswith("5") or level == "error":
        return Tone.BAD
    if status.startswith("4") or level == "warning":
        return Tone.WARN
    return ""


def _details(line: Line) -> str:
    named = (
        (name, _told(line, name))
        for name, value in (line.fields or {}).items()
        if name not in _TOLD and value not in _NOTHING
    )
    return ", ".join(f"{printable(name)} {text}" for name, text in named)


def _told(line: Line, name: str) -> str:
    value = (line.fields or {})[name]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return printable(" ".join(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return line.text(name)


async def _script(_request: web.Request) -> web.Response:
    return web.Response(text=_SCRIPT, content_type="text/javascript")


async def _page(request: web.Request) -> web.Response:
    live = request.app[SERVICES].live
    asked, fault = _asked(request)
    pick = pick_of(asked)
    await live.look_everywhere()
    glimpse = live.recent()
    wanted = [each.line for each in glimpse.lines if pick.takes(each.line)]
    given = {name: value or "" for name, value in asked.model_dump(exclude={"after"}).items()}
    filters = {name: value for name, value in given.items() if value}
    return page(
        "live.html",
        status=400 if fault else 200,
        has_script=True,
        actor=actor_of(request),
        fault=fault,
        rows=[row_of(line) for line in reversed(wanted[-ROWS:])],
        blank=Row("", "", "", "", "", "", "", ""),
        most=ROWS,
        filters=given,
        levels=LEVELS,
        is_filtered=bool(filters),
        stream=f"{PATH}?{urlencode({**filters, 'after': live.mark(glimpse.upto)})}",
    )


def _asked(request: web.Request) -> tuple[LiveQuery, str | None]:
    """What the form asks for, or everything and what is wrong with it."""
    try:
        fields = {name: " ".join(request.query.getall(name, ())) for name in _FIELDS}
        return LiveQuery.model_validate(fields), None
    except ValidationError as error:
        [*names] = {str(each["loc"][0]) for each in error.errors(include_input=False, include_url=False)}
        return LiveQuery(), " ".join(_FIELDS[name] for name in sorted(names))
