"""``sandbox``: the simulated Pleo on its own, for trying the proxy or another tool out."""

from __future__ import annotations

import asyncio

import click

from proxy.cli.serve import stop_signal
from proxy.errors import OperatorError
from proxy.sandbox import DEFAULT_CLIENT, OAuthClient, Sandbox

_PORT = click.IntRange(0, 65535)


@click.command()
@click.option("--auth-port", type=_PORT, default=9100, show_default=True, help="Authorisation server.")
@click.option("--api-port", type=_PORT, default=9101, show_default=True, help="API.")
@click.option("--control-port", type=_PORT, default=9102, show_default=True, help="Controls for tests.")
@click.option(
    "--access-lifetime",
    type=click.FloatRange(min=1),
    default=900,
    show_default=True,
    help="Seconds that an access token lives.",
)
@click.option(
    "--redirect-uri",
    "redirect_uris",
    multiple=True,
    help="Registered redirect URI. Repeatable.  [default: those of a proxy with default ports]",
)
def sandbox(
    auth_port: int,
    api_port: int,
    control_port: int,
    access_lifetime: float,
    redirect_uris: tuple[str, ...],
) -> None:
    """Run a simulated Pleo on loopback until SIGTERM or SIGINT. Its data are invented."""
    registered = OAuthClient(
        DEFAULT_CLIENT.client_id,
        DEFAULT_CLIENT.client_secret,
        redirect_uris or DEFAULT_CLIENT.redirect_uris,
        DEFAULT_CLIENT.scopes,
    )
    simulated = Sandbox(
        client=registered,
        access_lifetime_s=access_lifetime,
        auth_port=auth_port,
        api_port=api_port,
        control_port=control_port,
    )
    asyncio.run(_run(simulated))


async def _run(simulated: Sandbox) -> None:
    stop = stop_signal()
    try:
        await simulated.start()
    except OSError as error:
        raise OperatorError(
            f"sandbox: a port cannot be used ({error.strerror}); choose others with --auth-port, --api-port "
            "and --control-port"
        ) from None
    try:
        click.echo(_settings(simulated))
        await stop.wait()
    finally:
        await simulated.stop()


def _settings(simulated: Sandbox) -> str:
    return f"""\
# Simulated Pleo. To use it, put this into the proxy's configuration:
[pleo]
environment = "custom"
client_id = "{DEFAULT_CLIENT.client_id}"
client_secret = "{DEFAULT_CLIENT.client_secret}"
api_url = "{simulated.api_url}"
authorize_url = "{simulated.authorize_url}"
token_url = "{simulated.token_url}"
# Controls, with ready lines to copy: curl {simulated.control_url}/"""
