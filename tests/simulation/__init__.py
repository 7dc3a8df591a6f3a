"""Refreshing under a virtual clock: instances, store, journals and Pleo, with everything that can go wrong.

* :mod:`~tests.simulation.loop`: an event loop whose time only passes when nobody has anything to do
* :mod:`~tests.simulation.parts`: the store, the journals and Pleo, simulated, with their faults
* :mod:`~tests.simulation.instances`: instances of the real :mod:`proxy.tokens` and :mod:`proxy.refresher`
* :mod:`~tests.simulation.schedule`: one schedule made from a seed, and what must hold at each of its steps
"""
