"""The documentation as a site: it builds, it holds every page, and it loads nothing from elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tests.test_house_rules import ROOT

SITE = ROOT / "docs" / "site"
FETCHED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "use": ("href", "xlink:href"),
    "form": ("action",),
}
"""What makes a browser fetch something when it shows a page, beside the links of a head."""


def build(root: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of the project at ``root`` as ``make docs`` does."""
    config = str(root / "docs" / "site" / "mkdocs.yml")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(target), "--config-file", config],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT, target)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert re.findall(r"^(?!INFO).+$", done.stderr, re.MULTILINE) == []
    return target


class Page(HTMLParser):
    """What a page loads and where it leads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.classes: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag fetches."""
        found = {name: value or "" for name, value in attrs}
        self.classes |= set(found.get("class", "").split())
        # An icon of a page is fetched; another page that a head names is not.
        wanted = FETCHED.get(tag, ()) if tag != "link" else ("href",)
        self.loads += [found[name] for name in wanted if name in found]
        if "style" in found:
            self.loads += re.findall(r"url\((.*?)\)", found["style"])
        if tag == "a":
            self.links.append(found.get("href", ""))


def is_elsewhere(url: str) -> bool:
    """Whether a URL leads to another host."""
    return bool(re.match(r"\s*['\"]?(?:[a-z]+:)?//", url, re.IGNORECASE))


def test_the_site_builds_and_has_every_page(site: Path) -> None:
    """Each document is a page of the site, in the navigation, and the README is where it begins."""
    documents = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    pages = {site / path.with_suffix(".html") for path in documents}
    pages |= {site / "index.html", site / "CHANGELOG.html", site / "CONTRIBUTING.html"}
    assert [page for page in pages if not page.is_file()] == []
    linked = {(site / link.partition("#")[0]).resolve() for link in Page(site / "index.html").links}
    assert pages - linked == set()


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    """No page and no stylesheet makes a browser ask another host, and none has what a script would fetch."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert [(path.name, url) for path, page in pages.items() for url in page.loads if is_elsewhere(url)] == []
    # Diagrams in this language would be drawn by a script that the theme fetches from a network.
    assert [path.name for path, page in pages.items() if "mermaid" in page.classes] == []
    styles = [path.read_text() for path in site.rglob("*.css")]
    assert styles
    assert [url for text in styles for url in re.findall(r"url\((.*?)\)", text) if is_elsewhere(url)] == []
    assert [text for text in styles if re.search(r"@import", text)] == []
    # What a page loads is there.
    missing = [
        (path.name, url)
        for path, page in pages.items()
        for url in page.loads
        if url and path.name != "404.html" and not (path.parent / url.partition("?")[0]).exists()
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("tag", "is_seen"),
    [
        pytest.param('<script src="https://cdn.example/x.js">', True, id="script"),
        pytest.param('<link rel="stylesheet" href="//fonts.example/x.css">', True, id="stylesheet"),
        pytest.param('<div style="background: url(https://img.example/x.png)">', True, id="style"),
        pytest.param('<img src="performance.svg">', False, id="own"),
        pytest.param('<a href="https://developers.pleo.io">', False, id="link"),
    ],
)
def test_what_is_loaded_from_elsewhere_is_seen(tag: str, is_seen: bool, tmp_path: Path) -> None:
    """The check finds scripts, styles and pictures of other hosts, and lets links be."""
    (tmp_path / "x.html").write_text(tag)
    assert any(map(is_elsewhere, Page(tmp_path / "x.html").loads)) is is_seen


@pytest.mark.parametrize(
    ("added", "says"),
    [
        pytest.param("[x](operating.md#nowhere)", "#nowhere", id="anchor"),
        pytest.param("[x](nowhere.md)", "nowhere.md", id="page"),
        pytest.param("[x](../config/nowhere.toml)", "nowhere.toml", id="file"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(added: str, says: str, tmp_path: Path) -> None:
    """A link to a page, an anchor or a file that is not there is an error."""
    for path in ROOT.iterdir():
        if path.name in {"docs", "README.md"}:
            continue
        (tmp_path / path.name).symlink_to(path)
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "limits.md").open("a") as page:
        page.write(f"\n{added}\n")
    done = build(tmp_path, tmp_path / "built")
    assert done.returncode == 1
    assert says in done.stdout + done.stderr


def test_a_page_outside_of_the_navigation_fails_the_build(tmp_path: Path) -> None:
    """A new page has to be put where readers find it."""
    for path in ROOT.iterdir():
        if path.name != "docs":
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "docs" / "forgotten.md").write_text("# Forgotten\n")
    done = build(tmp_path, tmp_path / "built")
    assert (done.returncode, "forgotten.md" in done.stdout + done.stderr) == (1, True)


def test_the_navigation_has_the_four_kinds_of_pages() -> None:
    """Tutorial, how-to guides, reference and explanation are told apart."""
    text = (SITE / "mkdocs.yml").read_text()
    entries = [name for entry in yaml.safe_load(re.sub(r"!!python\S+", "", text))["nav"] for name in entry]
    assert entries == ["Overview", "Tutorial", "How-to guides", "Handbook", "Reference", "Explanation"]


def test_the_site_is_searched_and_comes_in_light_and_dark(site: Path) -> None:
    """There is an index to search, and a palette for each of a reader's two wishes."""
    index = (site / "search" / "search_index.json").read_text()
    assert "refresh.takeover_s" in index
    separator = json.loads(index)["config"]["separator"]
    assert re.split(separator, "refresh.takeover_s") == ["refresh", "takeover", "s"], (
        "parts of names are found"
    )
    page = (site / "index.html").read_text()
    assert "(prefers-color-scheme: light)" in page
    assert "(prefers-color-scheme: dark)" in page
