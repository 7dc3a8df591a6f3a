"""``explain``: what would become of a request, without sending it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from proxy import wiring
from proxy.cli.inputs import config_option, json_option, with_store
from proxy.cli.output import print_json, print_record, warn_of_arguments
from proxy.config import Settings
from proxy.explain import Question
from proxy.model import Grant
from proxy.store import Store
from proxy.tenants import Directory
from proxy.tokens import unusable

_SECRET_HEADERS = {"authorization", "cookie", "x-pleo-proxy-key"}


@click.command()
@click.argument("path")
@click.option("-X", "method", default="GET", show_default=True, metavar="METHOD", help="The method.")
@click.option(
    "-H",
    "headers",
    multiple=True,
    metavar="HEADER",
    help="A header as 'Name: value'; '-' reads such lines from standard input. Repeatable.",
)
@click.option("--host", metavar="HOST", help="What the Host header says.  [default: 127.0.0.1]")
@click.option(
    "--from", "caller", default="127.0.0.1", show_default=True, metavar="IP", help="Where the caller is."
)
@click.option(
    "--listener", metavar="HOST:PORT", help="The entry of listen.proxy that is called.  [default: the first]"
)
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    metavar="NAME",
    help="A name of the certificate that the caller shows. Repeatable.",
)
@json_option
@config_option
@click.pass_context
def explain(
    ctx: click.Context,
    /,
    headers: tuple[str, ...],
    config_path: Path | None,
    *,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 - the other options, by the names of a question's fields
) -> None:
    """Tell what a running proxy would do with a request for PATH, and why.

    Nobody is called and nothing is changed. Exit code 0: it would be forwarded; 1: it would be refused.
    """
    question = Question(headers=tuple(_lines(headers)), **asked)

    async def work(store: Store, settings: Settings) -> dict[str, Any]:
        grants = await store.grants()
        directory = Directory(await store.tenants(), settings.listen.default_tenant)
        explainer = wiring.explainer(settings, directory, grants, partial(_check_token, grants))
        return explainer.explain(question)

    told = with_store(config_path, work)
    if as_json:
        print_json(told)
    else:
        print_record(_for_people(told), as_json=False)
    if not told["forwarded"]:
        ctx.exit(1)


def _check_token(grants: Mapping[str, Grant], tenant: str) -> None:
    """Whether there are tokens in the store; whether they open is for who has the key ring."""
    grant = grants.get(tenant)
    if grant is None or grant.access is None or grant.refresh is None:
        raise unusable(tenant, grant)


def _lines(headers: tuple[str, ...]) -> Iterator[str]:
    for line in headers:
        if line == "-":
            yield from filter(None, sys.stdin.read().replace("\r\n", "\n").split("\n"))
            continue
        name = line.partition(":")[0].strip()
        if name.lower() in _SECRET_HEADERS:
            warn_of_arguments(f"-H {name}", "give such headers with `-H -` on standard input")
        yield line


def _for_people(told: dict[str, Any]) -> dict[str, Any]:
    """The same in a few lines of words."""
    refusal, sends, grant = told["refusal"], told["sends"], told["grant"]
    shown: dict[str, Any] = {
        "would be": "forwarded" if refusal is None else f"refused with {refusal['status']} {refusal['name']}",
        "request": f"{told['method']} {told['path']} from {told['caller']} to host {told['host'] or '-'}",
        "routes": [f"{each['route']}: {each['tenant']}" for each in told["routes"]],
        "tenant": told["tenant"],
        "policy": _words(told["policy"]),
        "on trial": _words(told["trial"]),
        "grant": None if grant is None else _grant(grant),
    }
    if refusal is not None:
        shown |= {"why": refusal["detail"], "what to do": refusal["action"], "explained at": refusal["type"]}
    if sends is not None:
        shown |= {
            "sends": f"{told['method']} {sends['path']} to {sends['to']}",
            "stripped": [f"path prefix {sends['removed_prefix']}"] * bool(sends["removed_prefix"])
            + sends["stripped"],
            "added": sends["added"],
            "passed on": sends["passed_on"],
            "not asked": told["not_asked"],
        }
    return shown


def _words(opinion: dict[str, Any] | None) -> str | None:
    if opinion is None:
        return None
    deciding = f" by {opinion['rule']}" if opinion["rule"] else ""
    return f"{opinion['verdict']}{deciding}"


def _grant(grant: dict[str, Any]) -> str:
    words = f"{grant['state']}, generation {grant['generation']}"
    ends = grant["access_expires_at"]
    if ends is None:
        return words
    if datetime.fromisoformat(ends) < datetime.now(UTC):
        return f"{words}, access token ended {ends}: refreshed first"
    return f"{words}, access token until {ends}"
