"""The search by coverage starts, ends by itself, and finds what there is to find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.coverage import MODULES, load
from tests.test_house_rules import ROOT

RUNS = 1000


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", MODULES)
def test_a_thousand_inputs_find_nothing(name: str, tmp_path: Path) -> None:
    """Atheris tries a thousand inputs from a fixed seed and the module's own, and the oracle holds."""
    ran = run("-m", "tests.fuzz.coverage", name, "--runs", str(RUNS), "--corpus", tmp_path / "corpus")
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert f"Done {RUNS} runs" in ran.stderr
    assert "INITED cov: 0" not in ran.stderr, "nothing was instrumented"
    assert not list(tmp_path.glob("finding-*"))


_BROKEN = """
import sys
from pathlib import Path
from proxy import policy
policy.Rules.verdict = lambda *_: policy.Verdict("")
from tests.fuzz import coverage
if sys.argv[1] == "search":
    coverage.search("target_and_policy", Path(sys.argv[2]), runs=5000, seconds=60, seed=1)
coverage.load("target_and_policy", instrumented=False).check(Path(sys.argv[2]).read_bytes())
"""


def test_a_planted_mistake_is_found_and_can_be_played_again(tmp_path: Path) -> None:
    """With a policy that allows everything the search ends in a file that shows the mistake, and only it."""
    (tmp_path / "corpus").mkdir()
    found = run("-c", _BROKEN, "search", tmp_path / "corpus")
    assert found.returncode != 0
    assert "is let through and" in found.stderr + found.stdout
    (finding,) = tmp_path.glob("finding-target_and_policy-*")
    assert str(finding) in found.stderr
    assert "is let through and" in run("-c", _BROKEN, "play", finding).stderr
    played = run("-m", "tests.fuzz.coverage", "target_and_policy", "--input", finding)
    assert (played.returncode, played.stderr) == (0, "")


@pytest.mark.parametrize("name", MODULES)
def test_seeds_are_good_inputs(name: str) -> None:
    """Each module has seeds, no two alike, for which its oracle holds."""
    module = load(name, instrumented=False)
    assert len(set(module.SEEDS)) == len(module.SEEDS) >= 5
    for seed in module.SEEDS:
        module.check(seed)


def test_a_search_without_end_is_refused() -> None:
    """It must be told when to stop and where to keep what it finds."""
    assert "so that it ends" in run("-m", "tests.fuzz.coverage", MODULES[0]).stderr
