"""The command line: parses, calls, prints. Decides nothing that a module below could decide.

Errors are one line on standard error that says what to do; exit codes are 0 done, 1 failed, 2 wrong usage or
configuration.
"""

from __future__ import annotations

import sys

import click

from proxy import __version__
from proxy.cli import demo, grants, keys, sandbox, serve, tenants
from proxy.cli.ending import NAME, exit_code_of


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=NAME)
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
    """Run the command line."""
    sys.exit(exit_code_of(lambda: cli.main(prog_name=NAME, standalone_mode=False)))
