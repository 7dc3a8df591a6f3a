"""The other proxies, set up for speed: one worker, connections kept, a fixed credential.

A peer is one module with a :class:`~benchmarks.peers.interface.Peer` named ``PEER``.
"""

from __future__ import annotations

from benchmarks.peers import caddy, envoy, go, haproxy, mitmproxy, naive, nginx, node
from benchmarks.peers.interface import CREDENTIAL, Peer, Site

PEERS: dict[str, Peer] = {
    module.PEER.name: module.PEER for module in (nginx, haproxy, envoy, go, caddy, node, naive, mitmproxy)
}

__all__ = ["CREDENTIAL", "PEERS", "Peer", "Site"]
