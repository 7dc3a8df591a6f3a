"""How a process of this program ends: with an exit code and at most a few lines, whatever happened in it."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from proxy.errors import OperatorError, Refusal

NAME = "pleo-proxy"
_INTERRUPTED = 130
"""As shells report an end by Ctrl-C."""


def exit_code_of(work: Callable[[], object]) -> int:
    """Do ``work`` and tell what kept it from succeeding in one line on standard error."""
    # Libraries log requests and exceptions as they came, with whatever they hold; facts tell what happened.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        code = work()
    except SystemExit as ended:
        code = ended.code
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except BaseException as error:  # noqa: BLE001 - the text of an unforeseen error may hold anything
        line, code = _line_and_code(error)
        click.echo(f"{NAME}: {line}", err=True)
    return code if isinstance(code, int) else 0


def keep_texts_back() -> None:
    """Have what :func:`exit_code_of` cannot catch told by type and place: in threads, at objects' ends."""
    threading.excepthook = lambda crashed: (
        None if isinstance(crashed.exc_value, SystemExit) else _tell(crashed.exc_value)
    )
    sys.unraisablehook = lambda failed: _tell(failed.exc_value)


def _tell(error: BaseException | None) -> None:
    click.echo(f"{NAME}: {_internal(error)}", err=True)


def _line_and_code(error: BaseException) -> tuple[str, int]:
    match error:
        case click.ClickException():
            return _one_line(error), error.exit_code
        case OperatorError():
            return str(error), error.exit_code
        case Refusal():
            return f"{error.detail}: {error.action}", 1
        case OSError():
            return f"{error.strerror or type(error).__name__}; check the disk or the pipe", 1
        case _:
            return _internal(error), 1


def _internal(error: BaseException | None) -> str:
    """A defect by its type and place: its text may hold anything."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
    return f"internal error, {type(error).__name__} at {place}; please report it"


def _one_line(error: click.ClickException) -> str:
    """What is wrong with the command as it was typed, and where to read how it goes."""
    text = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{text}; see `{error.ctx.command_path} --help`"
    return f"{text}; see the command's --help"
