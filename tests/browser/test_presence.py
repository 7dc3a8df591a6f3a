"""What becomes of these tests without a browser: skipped by hand, and failed in the pipeline."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.browsers import REQUIRED, installed

ROOT = Path(__file__).parent.parent.parent


def test_without_a_browser_a_test_is_skipped_and_says_what_installs_it(tmp_path: Path) -> None:
    """Whoever reads the summary knows what was not tried, and how to try it."""
    with pytest.raises(pytest.skip.Exception, match="chromium is missing; `make browser`"):
        installed(tmp_path / "chromium", {})


def test_where_the_browser_is_required_its_absence_is_a_failure(tmp_path: Path) -> None:
    """The pipeline never passes by leaving these tests out."""
    either = pytest.fail.Exception, pytest.skip.Exception  # a skip would otherwise leave this test out, too
    with pytest.raises(either, match=f"`make browser`.*{REQUIRED}") as raised:
        installed(tmp_path / "chromium", {REQUIRED: "1"})
    assert raised.type is pytest.fail.Exception


def test_a_browser_that_is_there_is_taken(tmp_path: Path) -> None:
    """Whether it is required or not."""
    for environ in ({}, {REQUIRED: "1"}):
        assert installed(tmp_path, environ) == tmp_path


def test_the_pipeline_installs_the_browser_and_requires_it() -> None:
    """``make browser`` installs what these tests need; the pipeline calls it first, and insists on it."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^browser:", makefile, re.MULTILINE)
    pipeline = (ROOT / ".ci" / "run").read_text()
    assert (
        0
        < pipeline.index("\nmake browser")
        < pipeline.index(f"\nexport {REQUIRED}=1")
        < pipeline.index("make test\n")
    )
