"""``python -m supply``: parses, calls, prints."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from supply import audit, licences, sbom


@click.group()
def main() -> None:
    """What the program is made of beside its own code."""


@main.command("licences")
def write_licences() -> None:
    """Write docs/licences.md."""
    licences.PAGE.write_text(licences.page())
    click.echo(f"wrote {licences.PAGE}")


@main.command("sbom")
@click.option("--output", type=click.Path(path_type=Path), default=sbom.FILE, show_default=True)
def write_sbom(output: Path) -> None:
    """Write the CycloneDX bill of materials."""
    sbom.write(output)
    click.echo(f"wrote {output}")


@main.command("audit")
@click.option("--service", default=audit.SERVICE, show_default=True, help="Where to ask, as OSV answers.")
def ask(service: str) -> None:
    """Look for known vulnerabilities: exits 0 for none, 1 for some, 2 if not all could be checked."""
    verdict = audit.audit(service)
    for line in verdict.lines:
        click.echo(line, err=verdict.exit is not audit.Exit.NONE_KNOWN)
    sys.exit(verdict.exit)


if __name__ == "__main__":
    main()
