"""What an operator does about each kind of refusal; what its caller does, the refusal says itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FOR_OPERATORS: Final[Mapping[str, str]] = {
    "tenant-unknown": (
        "`pleo-proxy explain PATH` says which routes were tried. Give the tenant the route that the tool "
        "uses (`pleo-proxy tenants set NAME …`), or tell its people the base URL that stands on the "
        "tenant's page."
    ),
    "tenant-ambiguous": (
        "The detail names both routes, and `pleo-proxy explain PATH` shows them. Take one of them away with "
        "`pleo-proxy tenants set`."
    ),
    "tenant-disabled": (
        "`pleo-proxy tenants enable NAME`, or Enable on the tenant's page. `pleo-proxy audit list --tenant "
        "NAME` says who switched it off."
    ),
    "needs-reauth": (
        "Make a connect link on the tenant's page or with `pleo-proxy connect NAME`, and send it to a "
        "person at the company. The page's history says what ended the authorisation."
    ),
    "policy-refused": (
        "The detail names the rule. `pleo-proxy explain -X METHOD PATH` shows what decides; change it with "
        "`pleo-proxy policy set NAME …`, or try the change first with `--report`."
    ),
    "browser-refused": (
        "If it was a program after all, have it send `X-Pleo-Tenant` and neither `Origin` nor `Referer`. If "
        "it was a page, somebody in the callers' network has one open that calls the proxy."
    ),
    "host-refused": (
        "Add the name to `listen.hosts`, or to the tenant with `--host`, if it is one of yours. A name that "
        "is not is one that somebody has made to point here."
    ),
    "provider-unavailable": (
        "The tenant's page says what came of the last refreshes. If Pleo does not accept the registration, "
        "correct `pleo.client_id` or its secret; else look at the network, and at Pleo's status."
    ),
    "store-unavailable": (
        "The event `store.failed` in the log says what failed. Look at the disk, or at the database. "
        "Tenants whose tokens are fresh are served meanwhile."
    ),
    "sealed-value-refused": (
        "Put the key ring back that sealed the values (`vault.keys`); `pleo-proxy keys list` shows which "
        "keys are missing. Do not reconnect tenants before: nothing is lost yet."
    ),
    "target-refused": (
        "Nothing, unless many come: then somebody tries the proxy, and the audit trail has where from."
    ),
    "target-too-long": "Raise `limits.target_bytes` if the tool is right to ask for so much at once.",
    "head-too-large": (
        "Raise `limits.head_bytes` or `limits.headers` if the tool needs it; mostly it is cookies."
    ),
    "body-too-large": "Raise `limits.body_bytes`, or the tenant's own with `pleo-proxy policy set NAME`.",
    "rate-limited": (
        "See who asks so often on the live page. Raise the tenant's rate with `pleo-proxy policy set NAME "
        "--rate`; Pleo's own limit is 600 a minute."
    ),
    "overloaded": (
        "Raise `limits.connections`, or find who keeps so many open. At a stop or restart it is over in a "
        "moment."
    ),
    "upstream-unreachable": (
        "The detail says how far it came: name, connection or TLS. Look at the network from this machine to "
        "Pleo, at `pleo.http_proxy`, and at Pleo's status."
    ),
    "upstream-timeout": (
        "If it is one endpoint, Pleo is slow there; if it is all, look at the network. "
        "`limits.upstream_total_s` says how long the proxy waits."
    ),
    "loop-detected": (
        "`pleo.api_url` leads back to the proxy, or a proxy in between does. Point it at Pleo."
    ),
    "internal-error": (
        "Find the line `request.crashed` with this request's id in the log, and report it: it names the "
        "place in the code, and no data."
    ),
}
"""By the refusal's name: where to look, and what to change."""
