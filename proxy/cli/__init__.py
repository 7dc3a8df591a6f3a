"""The command line: parses, calls, prints. Decides nothing that a module below could decide.

Errors are one line on standard error that says what to do; exit codes are 0 done, 1 failed, 2 wrong usage or
configuration.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path

import click

from proxy import __version__
from proxy.cli import demo, grants, keys, sandbox, serve, tenants
from proxy.errors import OperatorError, Refusal

_NAME = "pleo-proxy"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=_NAME)
def cli() -> None:
    """Lets tools that cannot do OAuth use the Pleo API.

    They send plain HTTP requests to the proxy's base URL; it attaches the token of the tenant they speak for.

    Start with `pleo-proxy demo`, or with `pleo-proxy check --config FILE`.
    """


for command in (
    serve.serve,
    serve.check,
    demo.demo,
    sandbox.sandbox,
    tenants.tenants,
    grants.connect,
    grants.grants,
    keys.keys,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; every way out is an exit code and at most a few lines."""
    # Libraries log requests and exceptions as they came, with whatever they hold; facts tell what happened.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        code = cli.main(prog_name=_NAME, standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"{_NAME}: {_one_line(error)}", err=True)
        sys.exit(error.exit_code)
    except OperatorError as error:
        click.echo(f"{_NAME}: {error}", err=True)
        sys.exit(error.exit_code)
    except Refusal as refusal:
        click.echo(f"{_NAME}: {refusal.detail}: {refusal.action}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"pleo-proxy: {error.strerror or type(error).__name__}; check the disk or the pipe", err=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the text of an unforeseen error may hold anything
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        click.echo(f"{_NAME}: internal error, {type(error).__name__} at {place}; please report it", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: click.ClickException) -> str:
    """What is wrong with the command as it was typed, and where to read how it goes."""
    text = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{text}; see `{error.ctx.command_path} --help`"
    return f"{text}; see the command's --help"
