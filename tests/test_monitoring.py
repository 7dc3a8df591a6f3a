"""The dashboard and the alert rules in ``config/monitoring`` ask for what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_documents import slug
from tests.test_house_rules import exposed_metrics

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "config" / "monitoring"
ALERTS = FOLDER / "alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
TARGETS = {"instance", "job"}
"""Labels that Prometheus adds to whatever it scrapes."""
FUNCTIONS = {
    *("sum", "min", "max", "count", "rate", "increase"),
    *("histogram_quantile", "vector", "label_values"),
}
"""Those that the queries use."""


def with_suffixes() -> dict[str, set[str]]:
    """The labels of each series that a query may name."""
    series: dict[str, set[str]] = {"up": set(TARGETS)}
    for name, (kind, labels) in exposed_metrics().items():
        if kind == "histogram":
            series |= {
                f"{name}_bucket": labels | {"le"} | TARGETS,
                f"{name}_count": labels | TARGETS,
                f"{name}_sum": labels | TARGETS,
            }
        else:
            series[name] = labels | TARGETS
    return series


SERIES = with_suffixes()


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Any]:
    """Every query of the alerts and of the dashboard, and what the dashboard offers for choice."""
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in panels():
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield pytest.param(variable["definition"], id=variable["name"])


def mistakes(query: str) -> list[str]:
    """What is wrong with a query: names that do not exist, and brackets that do not match."""
    found = []
    bare = re.sub(r'"[^"]*"', '""', query)
    for name, selector in re.findall(r"\b(pleo_proxy_\w+|up)\b(\{[^}]*\})?", bare):
        if name not in SERIES:
            found.append(f"no metric {name}")
            continue
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        found += [f"{name} has no label {label}" for label in sorted(labels - SERIES[name])]
    named = [SERIES[name] for name in re.findall(r"\b(?:pleo_proxy_\w+|up)\b", bare) if name in SERIES]
    for grouping in re.findall(r"\bby \(([^)]*)\)", bare):
        wanted = {label.strip() for label in grouping.split(",")}
        if not any(wanted <= labels for labels in named):
            found.append(f"nothing here has the labels {grouping}")
    rest = re.sub(r"\{[^}]*\}|\[\w+\]|\bby \([^)]*\)|\bpleo_proxy_\w+", "", bare)
    words = set(re.findall(r"[A-Za-z_]\w*", rest)) - SERIES.keys() - FUNCTIONS
    found += [f"unknown word {word}" for word in sorted(words) if word not in ("or", "instance", "tenant")]
    found += ["brackets do not match"] if not balanced(bare) else []
    return found


def balanced(text: str) -> bool:
    pairs = {")": "(", "]": "[", "}": "{"}
    opened: list[str] = []
    for char in text:
        if char in pairs.values():
            opened.append(char)
        elif char in pairs and (not opened or opened.pop() != pairs[char]):
            return False
    return not opened


@pytest.mark.parametrize("query", list(queries()))
def test_every_query_asks_for_what_there_is(query: str) -> None:
    """Each metric, label and function in it exists."""
    assert mistakes(query) == []


@pytest.mark.parametrize(
    ("query", "mistake"),
    [
        ("pleo_proxy_nonsense > 0", "no metric pleo_proxy_nonsense"),
        ("pleo_proxy_request_duration_seconds > 0", "no metric pleo_proxy_request_duration_seconds"),
        ('pleo_proxy_requests_total{state="x"}', "pleo_proxy_requests_total has no label state"),
        ("sum by (rule) (pleo_proxy_store_up)", "nothing here has the labels rule"),
        ("rates(pleo_proxy_requests_total[5m])", "unknown word rates"),
        ("sum(pleo_proxy_store_up", "brackets do not match"),
    ],
)
def test_a_query_for_what_there_is_not_is_seen(query: str, mistake: str) -> None:
    """The check above finds each kind of mistake."""
    assert mistakes(query) == [mistake]


def test_every_metric_is_on_the_dashboard() -> None:
    """A metric that nobody would see is not worth its counting."""
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    assert [name for name in exposed_metrics() if not re.search(rf"\b{name}(_bucket)?\b", shown)] == []


def test_the_dashboard_is_sound() -> None:
    """Ids are unique, panels do not overlap, everything asks the data source that was chosen."""
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    sources = re.findall(r'"uid": "([^"]*)"', (FOLDER / "dashboard.json").read_text())
    assert set(sources) == {"${datasource}", "pleo-proxy"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    """It has a severity and sentences, and its link leads to a part of the handbook with its name."""
    assert rule["labels"]["severity"] in {"page", "ticket", "info"}
    assert len(rule["annotations"]["summary"]) > 20
    assert len(rule["annotations"]["description"]) > 20
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == "docs/operating.md"
    handbook = (ROOT / page).read_text()
    assert anchor == slug(rule["alert"])
    assert f"\n#### {rule['alert']}\n" in handbook


def test_the_handbook_knows_no_alert_that_is_gone() -> None:
    """Its parts are the rules, each once and in their order."""
    handbook = (ROOT / "docs" / "operating.md").read_text()
    assert re.findall(r"^#### (Pleo\w+)$", handbook, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_the_rules_have_the_shape_that_prometheus_asks_for() -> None:
    """Whether or not there is a promtool to ask."""
    for rule in RULES:
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "1m"))
