"""The engine that speaks HTTP/1.1 to the API: pooled connections, bytes kept as they are.

========== ==========================================================================================
answer     what came back: head as received, body as it arrives
connection one connection: parser, upload, back-pressure, limits
pool       :class:`Upstream`: opens and keeps connections, decides what is sent again
========== ==========================================================================================

Beside :mod:`proxy.provider` the only place that opens connections to the outside.
"""

from proxy.upstream.answer import Answer, BrokenOff, Headers
from proxy.upstream.connection import Body
from proxy.upstream.pool import Upstream

__all__ = ["Answer", "Body", "BrokenOff", "Headers", "Upstream"]
