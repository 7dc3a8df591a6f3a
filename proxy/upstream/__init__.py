"""The engine that speaks HTTP/1.1 to the API: pooled connections, bytes kept as they are.

========== ==========================================================================================
answer     what came back: head as received, body as it arrives
upload     a request body on its way up, held back where the upstream is asked first
connection one connection: parser, back-pressure, limits
dialing    new connections: names, addresses, an HTTP proxy on the way, TLS
breaker    when to leave alone an upstream that gives no answers
pool       :class:`Upstream`: opens and keeps connections, decides what is sent again
========== ==========================================================================================

Beside :mod:`proxy.provider` the only place that opens connections to the outside.
"""

from proxy.upstream.answer import Answer, BrokenOff, Headers
from proxy.upstream.pool import Upstream
from proxy.upstream.upload import Body

__all__ = ["Answer", "Body", "BrokenOff", "Headers", "Upstream"]
