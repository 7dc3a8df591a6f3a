"""Sinks for facts: log lines and metrics. Facts come in through one ``emit``; nothing goes back.

A sink never raises into the layer that reports: a full disk behind the log must not cost a request.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.facts import Emit, Fact


def fan_out(*sinks: Callable[[Fact], None]) -> Emit:
    """One ``emit`` for several sinks."""

    def emit(fact: Fact) -> None:
        for sink in sinks:
            sink(fact)

    return emit
