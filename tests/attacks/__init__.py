"""Attacks on the whole proxy over real sockets, each judged by what the simulated Pleo saw of it."""
