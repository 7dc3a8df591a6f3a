"""A simulated Pleo: authorisation server, API and controls, each on a listener of its own.

For tests, for `pleo-proxy demo` and for trying things out; it imports nothing of the rest of the project and
must never serve anyone's real data. The map:

- ``server``: :class:`Sandbox`, start here
- ``faults``: :class:`Switches` for what Pleo does not document, and faults on demand
- ``oauth_rules``, ``authority``: OAuth as values and rules, without sockets
- ``seeds``, ``world``: companies and their data
- ``calls``, ``gatekeeper``, ``api_routes``, ``resources``, ``ledgers``, ``exports``: the API as functions
- ``state``, ``counters``, ``connection``: what the listeners share
- ``auth_app``, ``token_endpoint``, ``consent_page``, ``api_app``, ``probes``, ``control_app``: the listeners
- ``browser``: the authoriser's browser, for tests
"""

from .authority import Authority, Family, TokenPair, TokenState
from .browser import Visit, approve
from .counters import Counters
from .faults import ApiFault, Switches, TokenFault
from .oauth_rules import OAuthClient
from .probes import deterministic_bytes
from .server import DEFAULT_CLIENT, Sandbox
from .state import ApiRequest, Gate, fingerprint
from .world import API_KEYS, COMPANIES, World

__all__ = [
    "API_KEYS",
    "COMPANIES",
    "DEFAULT_CLIENT",
    "ApiFault",
    "ApiRequest",
    "Authority",
    "Counters",
    "Family",
    "Gate",
    "OAuthClient",
    "Sandbox",
    "Switches",
    "TokenFault",
    "TokenPair",
    "TokenState",
    "Visit",
    "World",
    "approve",
    "deterministic_bytes",
    "fingerprint",
]
