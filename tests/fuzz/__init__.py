"""Fuzzing of what decides about bytes of strangers. Each module's docstring is its oracle, in one sentence.

``check(data)`` of a module judges one input and raises AssertionError if the oracle does not hold. Its tests
give it structured inputs of hypothesis; ``python -m tests.fuzz.coverage MODULE`` lets atheris search for
inputs by what code they reach, beginning with the module's ``SEEDS``.
"""
