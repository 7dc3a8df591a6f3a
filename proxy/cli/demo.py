"""``demo``: the proxy before a simulated Pleo, two tenants connected through the real consent flow."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from enum import Enum
from pathlib import Path

import click
import uvloop

from proxy import app, config
from proxy.authorize import create_link
from proxy.cli.serve import stop_signal
from proxy.config import Settings
from proxy.errors import OperatorError, UsageError
from proxy.exchange import RUN
from proxy.facts import Fact, Level
from proxy.model import Tenant
from proxy.sandbox import DEFAULT_CLIENT, OAuthClient, Sandbox, approve
from proxy.telemetry import fan_out
from proxy.telemetry.canary import Canary
from proxy.telemetry.live import Live
from proxy.telemetry.logs import LogSink, fields_of
from proxy.telemetry.metrics import Metrics

_TENANTS = ("acme", "globex")
_ACCESS_LIFETIME_S = 60
"""Short, so that whoever watches sees refreshes."""
_PORT = click.IntRange(1, 65535)
_SCOPES = (
    "accounts:read",
    "companies:read",
    "export-items:read",
    "export-jobs:read",
    "users:read",
    "vendors:read",
)
_NOT_TOLD = {"request_id", "caller", "bytes_in", "bytes_out", "scopes", "upstream_ms", "upstream_status"}
"""Fields of facts that `serve` logs and that would only fill the lines here."""
_COLOURS: dict[Level, str] = {"info": "green", "warning": "yellow", "error": "red"}


@click.command()
@click.option("--port", type=_PORT, default=8080, show_default=True, help="Port for callers.")
@click.option("--admin-port", type=_PORT, default=8081, show_default=True, help="Port for operators.")
def demo(port: int, admin_port: int) -> None:
    """Run the proxy with a simulated Pleo and two connected tenants, and print what to try."""
    if port == admin_port:
        raise UsageError(f"--port and --admin-port are both {port}; choose two ports")
    for option, number in (("--port", port), ("--admin-port", admin_port)):
        _require_free(option, number)
    with tempfile.TemporaryDirectory(prefix="pleo-proxy-demo-") as folder:
        uvloop.run(_demo(Path(folder), port, admin_port))


async def _demo(folder: Path, port: int, admin_port: int) -> None:
    public_url = f"http://127.0.0.1:{admin_port}"
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        pleo = Sandbox(client=_registered(public_url), access_lifetime_s=_ACCESS_LIFETIME_S)
        stack.push_async_callback(pleo.stop)
        try:
            await pleo.start()
        except OSError as error:
            raise OperatorError(f"the simulated Pleo cannot listen on loopback: {error.strerror}") from None
        config_path = _write_config(folder, pleo, port, admin_port)
        settings = config.load(config_path, {}, check_references=True)

        metrics = Metrics()
        log = LogSink(None, log_format="json", level="info", canary=Canary(RUN.encode()))
        running = await app.start(
            config.configuration(settings, os.environ, str(config_path)),
            os.environ,
            emit=fan_out(_tell, log, metrics),
            metrics=metrics,
            stack=stack,
            canary=log.canary,
            live=Live(log),
        )
        await running.store.edit_tenants(lambda _: {name: Tenant(name) for name in _TENANTS})
        await running.watch.take_up()
        for name in _TENANTS:
            await _connect(running, settings, name)
        token = running.generated_admin_token
        guide = _guide(settings, config_path, pleo.control_url, token.reveal() if token is not None else "")
        click.echo(guide)
        await stop.wait()


def _require_free(option: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener itself does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise OperatorError(f"port {port}: {error.strerror}; choose another with {option}") from None


def _tell(fact: Fact) -> None:
    """A fact as a line that is short enough for whoever watches."""
    if fact.level == "debug":
        return
    told = [
        f"{name}={_short(value)}"
        for name, value in fields_of(fact).items()
        if name not in _NOT_TOLD and value not in (None, False, (), "")
    ]
    event = click.style(f"{fact.event:<21}", fg=_COLOURS[fact.level])
    with suppress(OSError):  # a reader that went away must not cost a request
        click.echo(f"{datetime.now().astimezone():%H:%M:%S}  {event}  {' '.join(told)}")


def _short(value: object) -> str:
    match value:
        case tuple():
            return ",".join(map(_short, value))
        case Enum():
            return str(value.value)
        case _:
            return str(value)


def _registered(public_url: str) -> OAuthClient:
    return OAuthClient(
        DEFAULT_CLIENT.client_id,
        DEFAULT_CLIENT.client_secret,
        (f"{public_url}/oauth/callback",),
        DEFAULT_CLIENT.scopes,
    )


def _write_config(folder: Path, pleo: Sandbox, port: int, admin_port: int) -> Path:
    """A real configuration file, so that every command works on the demo as on the real thing."""
    secret = folder / "client-secret"
    secret.write_text(DEFAULT_CLIENT.client_secret)
    secret.chmod(0o600)
    path = folder / "config.toml"
    path.write_text(
        f"""\
[listen]
proxy = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin_port}"
public_url = "http://127.0.0.1:{admin_port}"

[pleo]
environment = "custom"
client_id = "{DEFAULT_CLIENT.client_id}"
client_secret = {{ file = "{secret}" }}
scopes = [{", ".join(f'"{scope}"' for scope in _SCOPES)}]
api_url = "{pleo.api_url}"
authorize_url = "{pleo.authorize_url}"
token_url = "{pleo.token_url}"

[consent]
organisation = "Demo Ltd"
contact = "it@demo.example"

[store]
url = "sqlite://{folder / "proxy.db"}"
state_dir = "{folder}"
"""
    )
    return path


async def _connect(running: app.App, settings: Settings, name: str) -> None:
    """Walk the consent flow as the authoriser's browser does: link, consent page, approve, back."""
    url, _ = await create_link(running.store, name, public_url=settings.listen.public_url, now=time.time())
    visit = await approve(url.reveal(), company=name)
    if visit.status != 200:
        raise OperatorError(f"the demo could not connect {name}: its result page has status {visit.status}")


def _guide(settings: Settings, config_path: Path, control_url: str, admin_token: str) -> str:
    base = f"http://{settings.listen.proxy[0]}"
    connect = f"{_this_command()} connect globex --config {config_path}"
    cookies = config_path.with_name("cookies")
    consent = (
        f"link=$({connect}); "
        f"onward=$(curl -sc {cookies} \"$link\" | grep -o '?continue=[0-9a-f]*'); "
        f"curl -sLb {cookies} -c {cookies} -o /dev/null -H 'X-Sandbox-Consent: approve' \"$link$onward\""
    )
    return f"""
pleo-proxy demo: a simulated Pleo, and the tenants acme and globex connected to it. In another terminal:

  # 1. Read. The curl has no credentials; the proxy adds acme's token.
  curl {base}/acme/v2/employees

  # 2. Search with POST.
  curl {base}/acme/v1/accounting-entries:search -H 'Content-Type: application/json' -d '{{}}'

  # 3. Pleo revokes acme's access token; the next call heals by itself (retried=True in the log).
  curl -X POST {control_url}/control/revoke-access/acme; curl -i {base}/acme/v2/employees

  # 4. Pleo ends globex's authorisation: its calls get 503 with a reconnect_url; acme notices nothing.
  curl -X POST {control_url}/control/revoke/globex; curl {base}/globex/v2/employees
  #    It comes back when someone consents. In a browser, open the link that this prints, read, and approve:
  {connect}
  #    Or let curl play the browser: read the page of the link, go on to Pleo and approve; then call again:
  {consent}; curl {base}/globex/v2/employees

Tokens live {_ACCESS_LIFETIME_S} s here, so that refreshes show in the log below. State goes with the demo.
Operator's page: {settings.listen.public_url}/   admin token: {admin_token}
More faults to try: curl {control_url}/
Stop with Ctrl-C.
"""


def _this_command() -> str:
    """How this program was called, to be called again from the same folder."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m proxy"
    return shlex.quote(str(program))
