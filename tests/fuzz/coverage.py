"""Lets atheris search for an input for which a module's oracle does not hold, led by the code it reaches.

``python -m tests.fuzz.coverage MODULE --corpus FOLDER`` with ``--seconds``, ``--runs`` or both; it stops by
itself. Each run begins with the module's seeds and with what earlier runs left in the corpus. A finding is
written beside the corpus, to a file whose name is printed, and ``--input FILE`` plays it again.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol, cast

MODULES = ("target_and_policy", "token_answer", "configuration", "sealed_values")


class Module(Protocol):
    """What a module of this package has for it."""

    SEEDS: Sequence[bytes]
    check: Callable[[bytes], None]


def load(name: str, *, instrumented: bool) -> Module:
    """A module by its short name, and with it the code that it judges, instrumented or as it is."""
    path = f"tests.fuzz.test_{name}"
    if not instrumented:
        return cast("Module", importlib.import_module(path))
    import atheris  # noqa: PLC0415 - where it is not installed, findings can still be played

    with atheris.instrument_imports(include=["proxy"]):
        return cast("Module", importlib.import_module(path))


def sow(corpus: Path, seeds: Sequence[bytes]) -> None:
    """Put the seeds into a corpus, under the names that libFuzzer would give them."""
    for seed in seeds:
        (corpus / sha256(seed).hexdigest()).write_bytes(seed)


def search(name: str, corpus: Path, *, runs: int, seconds: int, seed: int) -> None:
    """Search until a bound is reached or something is found; ends the process either way."""
    import atheris  # noqa: PLC0415

    module = load(name, instrumented=True)
    sow(corpus, module.SEEDS)
    options = {
        "runs": runs, "max_total_time": seconds, "seed": seed, "max_len": 4096, "rss_limit_mb": 1024,
        "timeout": 20, "artifact_prefix": f"{corpus.parent}/finding-{name}-", "print_final_stats": 1,
    }  # fmt: skip
    flags = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], module.check)
    atheris.Fuzz()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("module", choices=MODULES)
    parser.add_argument("--runs", type=int, default=-1, help="inputs to try; -1 for no bound")
    parser.add_argument("--seconds", type=int, default=0, help="how long to try; 0 for no bound")
    parser.add_argument("--seed", type=int, default=1, help="for the same search again")
    parser.add_argument("--corpus", type=Path, help="a directory that keeps what was interesting")
    parser.add_argument("--input", type=Path, help="play this file and nothing else")
    given = parser.parse_args()
    if given.input is not None:
        load(given.module, instrumented=False).check(given.input.read_bytes())
        return
    if given.corpus is None or (given.runs < 0 and not given.seconds):
        parser.error("give --corpus, and --runs or --seconds or both, so that it ends")
    given.corpus.mkdir(parents=True, exist_ok=True)
    search(given.module, given.corpus, runs=given.runs, seconds=given.seconds, seed=given.seed)


if __name__ == "__main__":
    main()
