"""What a request costs here, and what it costs in other proxies that add a credential.

``python -m benchmarks`` starts an upstream and a load generator on one core and one proxy after the other on
another, in rounds, and compares within a round. ``docs/performance.md`` says how to read the result. Nothing
here is part of the program; of :mod:`proxy` it uses what is needed to write a configuration and a grant.

From the bottom up, each importing only what stands before:

* ``accounting``: CPU time and memory of a process tree, read from ``/proc``
* ``processes``: starting, pinning and surely ending processes
* ``load``: one run of wrk
* ``certificates``: an authority for a run, for TLS to the upstream
* ``upstream``: the server that all proxies stand before
* ``peers``: the other proxies, one module each; ``installing`` gets them
* ``ours``: this proxy, as an operator runs it
* ``scenarios``: what is measured, as data
* ``rounds``: the measuring
* ``footprint``, ``tenants``, ``workers``: what is not a matter of rounds
* ``ratios``: the statistics, ``targets``: what is to be reached
* ``machine``, ``report``, ``plot``: what comes out
"""
