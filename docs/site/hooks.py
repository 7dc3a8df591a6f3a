"""What makes a site of pages that are written to be read where the code is.

Links between pages, and to files of the project, are relative to where a page stands in the project. The site
holds what is in ``docs/`` at its top, and beside it the other pages and files that are linked.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from urllib.parse import urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parent.parent.parent
_TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
_CODE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside of ``docs/``, and the files that pages link to."""
    pages = [*((_ROOT / name) for name in _TOP), *(_ROOT / "docs").rglob("*.md")]
    linked = {name for page in pages for name in map(_outside, _targets(page)) if name and name not in _TOP}
    for name in [*_TOP, *sorted(linked)]:
        # What is linked, and is neither page nor picture, is shown as it is.
        is_shown = InclusionLevel.INCLUDED if name in _TOP else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, name, abs_src_path=str(_ROOT / name), inclusion=is_shown))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Have links lead to where files are on the site."""
    source = _ROOT / page.file.src_uri if page.file.src_uri in _TOP else _ROOT / "docs" / page.file.src_uri
    here = posixpath.dirname(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        parts = urlsplit(link[0])
        if parts.scheme or not parts.path:
            return link[0]
        target = _in_project(source, parts.path)
        on_site = target.removeprefix("docs/")
        return posixpath.relpath(on_site, here or ".") + (f"#{parts.fragment}" if parts.fragment else "")

    kept: list[str] = []
    end = 0
    for code in _CODE.finditer(markdown):
        kept += [_LINK.sub(moved, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*kept, _LINK.sub(moved, markdown[end:])])


def _targets(page: Path) -> list[str]:
    """The files that a page links to, by their paths in the project."""
    links = map(urlsplit, _LINK.findall(_CODE.sub("", page.read_text())))
    return [_in_project(page, link.path) for link in links if link.path and not link.scheme]


def _in_project(page: Path, link: str) -> str:
    return os.path.relpath(page.parent / link, _ROOT)


def _outside(target: str) -> str | None:
    """The target, if it is a file that is not in ``docs/``."""
    return None if target.startswith(("docs/", "..")) or not (_ROOT / target).is_file() else target
