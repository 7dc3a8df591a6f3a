"""Where in the package an exception came from, for reports that must not show its text. Pure."""

from __future__ import annotations

import traceback
from pathlib import PurePath

_PACKAGE = str(PurePath(__file__).parent)


def innermost_place(error: BaseException) -> str:
    """``file:line`` in this package where an exception came from, for a log that must not show its text."""
    places = [
        (PurePath(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [f"{path.name}:{line}" for path, line in places if path.is_relative_to(_PACKAGE)]
    return own[-1] if own else "outside the package"
