"""pleo-proxy: plain HTTP in, authorised Pleo requests out.

Start at :mod:`proxy.exchange`, the main path. Imports point down this list only, and a test proves it:

0. words: ``errors``, ``model``
1. rules, without I/O or clock: ``target``, ``headers``, ``policy``, ``oauth``, ``lifecycle``, ``vault``,
   ``problems``
2. edges: ``config``, ``store``, ``provider``, ``upstream``, ``replay``
3. policy in motion: ``tenants``, ``tokens``, ``authorize``
4. ``exchange``
5. ``listener``, ``admin``, ``telemetry``
6. ``app``: builds everything in this order and owns its life
7. ``cli``

Apart stands ``sandbox``, a simulated Pleo: it imports nothing of the rest, and only the CLI and the tests
import it.
"""

__version__ = "0.1.0"
