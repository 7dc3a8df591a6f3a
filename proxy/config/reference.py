"""The configuration's page of documentation, made from the model so that it cannot fall behind. Pure."""

from __future__ import annotations

from pydantic import BaseModel

from proxy.config.environment import variable
from proxy.config.mistakes import default_of, field_at, keys_of, kind_of
from proxy.config.reloading import NEEDS_RESTART
from proxy.config.settings import Settings

_INTRODUCTION = """\
# Configuration

pleo-proxy reads one TOML file: the one that `--config` names, else `$PLEO_PROXY_CONFIG`, else
`/etc/pleo-proxy/config.toml`, else `./config.toml`. Start from
[`config/staging.toml`](../config/staging.toml) or [`config/production.toml`](../config/production.toml);
[`config/example.toml`](../config/example.toml) has every key with its default. Only `pleo.client_id` and
`pleo.client_secret` are required.

`pleo-proxy check` reports every mistake at once, each with the key, its value, the rule and a remedy. Unknown
keys, and settings without effect, are mistakes too.

## Environment variables

Every key can be given as a variable as well, which wins over the file; without any file, variables alone
suffice. Names are in capitals:

```sh
PLEO_PROXY__LISTEN__PROXY=0.0.0.0:8080
PLEO_PROXY__PLEO__SCOPES=companies:read,users:read            # a list: commas, or JSON
PLEO_PROXY__PLEO__CLIENT_SECRET__FILE=/run/keys/pleo          # a secret: __ENV, __FILE or __CREDENTIAL
PLEO_PROXY__VAULT__KEYS='{"credential": "pleo-proxy-keys"}'   # the same as JSON or TOML
```

## Secrets

The file never has to hold a secret. It names the place instead:

| reference | the secret is |
|---|---|
| `{ env = "NAME" }` | the value of the environment variable NAME |
| `{ file = "PATH" }` | the content of the file, without the newline at its end |
| `{ credential = "NAME" }` | the credential NAME of systemd (`LoadCredential=`), or of Docker and Podman |

Credentials are files in `$CREDENTIALS_DIRECTORY`, which systemd sets, or else in `/run/secrets`.

A string is taken as the secret itself. Secrets are read when they are needed: `pleo-proxy tenants list` works
in a shell that has none. Messages show a secret's place, never the secret.

## Values

Spans of time are seconds. Sizes are bytes, or text such as `"64 MiB"` with `KiB`, `MiB` or `GiB`. Fractions
lie between 0 and 1. Relative paths start at the working directory, and `~` is not expanded. An address is
`"HOST:PORT"`, with IPv6 in brackets: `"[::1]:8080"`.

## Settings

"—" means that there is no default: the meaning says what holds without the key. "Change" says what puts
another value in force: `reload` is [`pleo-proxy reload`](operating.md#changing-the-configuration), SIGHUP or
the button on the settings page; `restart` is a restart of the proxy.

<!-- made from the settings model: begin -->
"""

_END = "<!-- made from the settings model: end -->\n"


def reference() -> str:
    """The whole of ``docs/configuration.md``."""
    return f"{_INTRODUCTION}\n{settings_table(Settings)}\n{_END}"


def settings_table(settings_model: type[BaseModel]) -> str:
    """All settings of a model as one Markdown table, in the order of the file."""
    rows = ["| key | environment variable | type | default | change | meaning |", "|---|---|---|---|---|---|"]
    rows += [_row(settings_model, key) for key in keys_of(settings_model)]
    return "\n".join(rows) + "\n"


def _row(model: type[BaseModel], key: str) -> str:
    field = field_at(model, tuple(key.split(".")))
    if field is None:
        raise LookupError(key)
    default = "required" if field.is_required() else f"`{default_of(field)}`" if default_of(field) else "—"
    change = "restart" if key in NEEDS_RESTART else "reload"
    cells = (f"`{key}`", f"`{variable(key)}`", kind_of(field).text, default, change, field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
