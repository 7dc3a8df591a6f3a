"""What Prometheus' own tool says of the metrics, the alert rules and the dashboard's queries.

``make promtool`` installs it, Debian's. Without it these are skipped; that all queries ask for what there is,
``tests/test_monitoring.py`` shows in any case.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.facts import RequestFinished
from proxy.telemetry import families
from proxy.telemetry.metrics import Metrics
from tests.test_monitoring import ALERTS, RULES, panels

DAY_S = 86400


@pytest.fixture(scope="module")
def promtool() -> str:
    """The tool's path."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is missing; `make promtool` installs it, as root")
    return path


def said(*command: str | Path, text: str | None = None) -> str:
    """What a command says that ends well."""
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_names_of_metrics_are_as_prometheus_asks(promtool: str) -> None:
    """Units, suffixes, help and types of a whole scrape."""
    metrics = Metrics()
    metrics.watch(
        lambda: {(name, *("x" for _ in gauge.labels)): 1.0 for name, gauge in families.GAUGES.items()}
    )
    metrics(RequestFinished("1", "acme", "GET", "/", 200, "answered", 200, 1, 1, False, 1, 0, 0, "::1"))
    assert said(promtool, "check", "metrics", text=metrics.render().decode()) == ""


def test_every_query_is_one(promtool: str, tmp_path: Path) -> None:
    """Prometheus parses the alert rules, and all that the dashboard asks."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    recorded = [
        {"record": f"panel:{number}", "expr": expr.replace("$instance", ".*").replace("$tenant", ".*")}
        for number, expr in enumerate(shown)
    ]
    as_rules = tmp_path / "dashboard.yml"
    as_rules.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    told = said(promtool, "check", "rules", ALERTS, as_rules)
    assert f"{len(RULES)} rules found" in told
    assert f"{len(recorded)} rules found" in told


WELL = {
    'up{job="pleo-proxy",instance="a"}': "1x200",
    'pleo_proxy_store_up{instance="a"}': "1x200",
    'pleo_proxy_journal_records{instance="a"}': "0x200",
    'pleo_proxy_grant_usable{instance="a",tenant="acme"}': "1x200",
    'pleo_proxy_refresh_token_left_seconds{instance="a",tenant="acme"}': f"{40 * DAY_S}-60x200",
    'pleo_proxy_access_token_left_seconds{instance="a"}': "600x200",
    'pleo_proxy_refreshes_total{instance="a",outcome="granted",reason="expiring"}': "0+1x200",
    'pleo_proxy_refreshes_total{instance="a",outcome="client_rejected",reason="expiring"}': "0x200",
    'pleo_proxy_refreshes_total{instance="a",outcome="unavailable",reason="expiring"}': "0 0 1x198",
    'pleo_proxy_requests_total{instance="a",tenant="acme",outcome="answered"}': "0+600x200",
    'pleo_proxy_requests_total{instance="a",tenant="acme",outcome="upstream-timeout"}': "0+6x200",
    'pleo_proxy_upstream_responses_total{instance="a",status_class="2xx"}': "0+600x200",
    'pleo_proxy_upstream_responses_total{instance="a",status_class="5xx"}': "0+6x200",
    'pleo_proxy_upstream_throttled_total{instance="a",status="429"}': "0+1x200",
    'pleo_proxy_event_loop_lag_seconds_bucket{instance="a",le="0.25"}': "0+120x200",
    'pleo_proxy_event_loop_lag_seconds_bucket{instance="a",le="1.0"}': "0+120x200",
    'pleo_proxy_event_loop_lag_seconds_bucket{instance="a",le="+Inf"}': "0+120x200",
    'pleo_proxy_audit_records_dropped_total{instance="a"}': "0x200",
    'pleo_proxy_notifications_total{instance="a",channel="webhook",outcome="delivered"}': "0+1x200",
    'pleo_proxy_notifications_total{instance="a",channel="webhook",outcome="given_up"}': "0x200",
    'pleo_proxy_trace_spans_dropped_total{instance="a"}': "0x200",
    'pleo_proxy_config_last_reload_successful{instance="a"}': "1x200",
    'pleo_proxy_admin_logins_total{instance="a",outcome="locked_out"}': "0x200",
    'pleo_proxy_admin_logins_total{instance="a",outcome="refused"}': "0+1x200",
    'pleo_proxy_defects_total{instance="a",met_by="request"}': "0x200",
    'pleo_proxy_log_lines_withheld_total{instance="a"}': "0x200",
}
"""How metrics go while all is well but for the usual: one value a minute."""
_ONCE = "0x100 1x100"
AMISS: dict[str, tuple[str, str]] = {
    "PleoProxyDown": ('up{job="pleo-proxy",instance="a"}', "1x100 0x100"),
    "PleoStoreDown": ('pleo_proxy_store_up{instance="a"}', "1x100 0x100"),
    "PleoTokensOnlyInJournal": ('pleo_proxy_journal_records{instance="a"}', _ONCE),
    "PleoTenantNeedsReauth": ('pleo_proxy_grant_usable{instance="a",tenant="acme"}', "1x100 0x100"),
    "PleoReauthDueSoon": (
        'pleo_proxy_refresh_token_left_seconds{instance="a",tenant="acme"}',
        f"{13 * DAY_S}-60x200",
    ),
    "PleoAccessTokenExpired": ('pleo_proxy_access_token_left_seconds{instance="a"}', "600x100 -61x100"),
    "PleoRejectsOurRegistration": (
        'pleo_proxy_refreshes_total{instance="a",outcome="client_rejected",reason="expiring"}',
        "0x114 1x86",
    ),
    "PleoRefreshesFail": (
        'pleo_proxy_refreshes_total{instance="a",outcome="unavailable",reason="expiring"}',
        "0x100 1+1x100",
    ),
    "PleoProxyRefusesCallers": (
        'pleo_proxy_requests_total{instance="a",tenant="acme",outcome="upstream-timeout"}',
        "0+20x200",
    ),
    "PleoAnswersWithErrors": (
        'pleo_proxy_upstream_responses_total{instance="a",status_class="5xx"}',
        "0+40x200",
    ),
    "PleoThrottlesUs": ('pleo_proxy_upstream_throttled_total{instance="a",status="429"}', "0+5x200"),
    "PleoProxyIsSlow": ('pleo_proxy_event_loop_lag_seconds_bucket{instance="a",le="0.25"}', "0+100x200"),
    "PleoAuditRecordsLost": ('pleo_proxy_audit_records_dropped_total{instance="a"}', _ONCE),
    "PleoNotificationsLost": (
        'pleo_proxy_notifications_total{instance="a",channel="webhook",outcome="given_up"}',
        _ONCE,
    ),
    "PleoTracesLost": ('pleo_proxy_trace_spans_dropped_total{instance="a"}', _ONCE),
    "PleoConfigReloadFailed": ('pleo_proxy_config_last_reload_successful{instance="a"}', "1x100 0x100"),
    "PleoAdminGuessing": ('pleo_proxy_admin_logins_total{instance="a",outcome="locked_out"}', _ONCE),
    "PleoProxyDefect": ('pleo_proxy_defects_total{instance="a",met_by="request"}', _ONCE),
    "PleoProxyWithheldALine": ('pleo_proxy_log_lines_withheld_total{instance="a"}', _ONCE),
}
"""For each alert what is otherwise when it is to fire."""


def fires(series: dict[str, str], expected: list[str]) -> dict[str, Any]:
    """A test of promtool's: after two hours of ``series`` just these alerts fire."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "2h",
                "exp_samples": samples,
            }
        ],
    }


def test_each_alert_fires_when_it_should_and_alone(promtool: str, tmp_path: Path) -> None:
    """Two hours in which all is well fire none; what an alert is for fires it, and no other."""
    assert list(AMISS) == [rule["alert"] for rule in RULES]
    cases = [fires(WELL, [])]
    for name, (series, values) in AMISS.items():
        assert series in WELL, name
        cases.append(fires({**WELL, series: values}, [name]))
    path = tmp_path / "alerts.test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": cases}))
    said(promtool, "test", "rules", path)
