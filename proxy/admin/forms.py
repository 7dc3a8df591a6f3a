"""What a form of our pages sends: a few short texts, read within a few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

_FORM_S = 10.0
"""A form is one packet; who sends it for longer holds a connection."""


async def form_of(request: web.Request) -> Mapping[str, str]:
    """The fields of the form, of each the first; empty where the body is no form.

    :raises HTTPRequestTimeout: it did not come in time.
    :raises HTTPRequestEntityTooLarge: it is larger than any form of ours.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    try:
        async with asyncio.timeout(_FORM_S):
            fields = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (ValueError, LookupError, web.RequestPayloadError):  # bytes or a charset that make no text
        return {}
    return {name: value for name in fields if isinstance(value := fields[name], str)}
