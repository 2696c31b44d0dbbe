"""Every alert fires when it should and not otherwise, by promtool's own evaluation; and has a runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import sources
from lab.lab import ROOT
from session_rollout.adapters import telemetry
from tools.chart import build

RULES = ROOT / "charts" / "session-rollout" / "files" / "rules"
FILES = tuple(sorted(RULES.glob("*.yaml")))
RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation")
Object = dict[str, Any]


def alerts() -> list[Object]:
    return [rule for path in FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


OF_ROLLOUT = '{namespace="shop",name="checkout"%s}'
OTHER_ROLLOUT = '{namespace="shop",name="search"%s}'


def condition(kind: str, status: str, rollout: str = OF_ROLLOUT) -> dict[str, str]:
    """All three series of a condition, as they are exported: 1 for the status that it has."""
    return {
        "sessionrollout_condition" + rollout % f',type="{kind}",status="{other}"': f"{int(other == status)}x2000"
        for other in ("True", "False", "Unknown")
    }


def average(name: str, seconds: float) -> dict[str, str]:
    """A histogram's sum and count: ten operations a second of so many seconds each."""
    return {f"{name}_seconds_sum": f"0+{600 * seconds}x2000", f"{name}_seconds_count": "0+600x2000"}


def rates(good: int, bad: int) -> dict[str, str]:
    total = "sessionrollout_rest_client_requests_total"
    return {total + '{method="GET",code="200"}': f"0+{good}x2000", total + '{method="GET",code="503"}': f"0+{bad}x2000"}


LEADS = {"sessionrollout_leader": "1x2000"}
DISABLED = "sessionrollout_disabled_features" + OF_ROLLOUT % ""
SUSPENDED = "sessionrollout_suspended_features" + OF_ROLLOUT % ""
REFUSED = "sessionrollout_refused_requests" + OF_ROLLOUT
OVERRUN = "sessionrollout_interval_overrun_seconds" + OF_ROLLOUT % ""
RECONCILED = "sessionrollout_last_reconcile_timestamp_seconds" + OF_ROLLOUT % ""


# Alert: series with which it fires, series with which it must not, and after how long, in minutes. A series has a value a minute.
CASES: dict[str, tuple[dict[str, str], dict[str, str], int]] = {
    "SessionRolloutStalled": (condition("Stalled", "True"), condition("Stalled", "False"), 11),
    "SessionRolloutRolledBack": (condition("RolledBack", "True"), condition("RolledBack", "False"), 1),
    "SessionRolloutNoEvidence": (condition("EvidenceAvailable", "False"), condition("EvidenceAvailable", "Unknown"), 16),
    "SessionRolloutMigrationFailed": (
        {"sessionrollout_migrations_failed" + OF_ROLLOUT % "": "1x2000"},
        {"sessionrollout_migrations_failed" + OF_ROLLOUT % "": "0x2000"},
        1,
    ),
    "SessionRolloutApprovalWaiting": (
        {"sessionrollout_approval_awaited" + OF_ROLLOUT % "": "1x2000"},
        {"sessionrollout_approval_awaited" + OF_ROLLOUT % "": "1x1400 0x600"},
        1441,
    ),
    "SessionRolloutFeatureDisabled": (
        {DISABLED: "1x2000", **condition("Ready", "Unknown")},
        {DISABLED: "1x2000", **condition("Ready", "True")},
        241,
    ),
    "SessionRolloutRequestRefused": (
        {REFUSED % ',effect="ListActions"': "1x2000"},
        {REFUSED % ',effect="StartJob"': "1x2000"},
        3,
    ),
    "SessionRolloutSuspended": ({SUSPENDED: "2x2000"}, {SUSPENDED: "2x30 0x2000"}, 61),
    "SessionRolloutOperatorDown": ({"sessionrollout_leader": "0x2000"}, LEADS, 6),
    "SessionRolloutReconcileStuck": (
        {"sessionrollout_overdue_rollouts": "2x2000"},
        {"sessionrollout_overdue_rollouts": "0x2000"},
        2,
    ),
    "SessionRolloutReconcileOverdue": ({RECONCILED: "0x2000", **LEADS}, {RECONCILED: "0+60x2000", **LEADS}, 8),
    "SessionRolloutApiErrors": (rates(60, 30), rates(60, 3), 25),
    "SessionRolloutIntervalNotKept": ({OVERRUN: "1x2000"}, {OVERRUN: "0x2000"}, 11),
    "SessionRolloutClockSkew": (
        {"sessionrollout_clock_skew_seconds": "-6x2000"},
        {"sessionrollout_clock_skew_seconds": "4x2000"},
        6,
    ),
    "HighSessionErrorRate": ({"session_error_rate": "0.011x2000"}, {"session_error_rate": "0.01x2000"}, 6),
    "TokenRefreshFailures": ({"token_refresh_failure_rate": "0.051x2000"}, {"token_refresh_failure_rate": "0.05x2000"}, 3),
    "ConnectionRecoveryIssues": (
        {"connection_recovery_success_rate": "0.949x2000"},
        {"connection_recovery_success_rate": "0.95x2000"},
        11,
    ),
    "CriticalSessionErrors": (
        {'session_errors_total{type="TokenRefreshError"}': "0+6x2000"},
        {'session_errors_total{type="TokenRefreshError"}': "0+4x2000"},
        10,
    ),
    "SessionUserImpact": (
        {"critical_bug_affected_users_ratio": "0.051x2000"},
        {"critical_bug_affected_users_ratio": "0.05x2000"},
        2,
    ),
    "SlowSessionInitialization": (average("session_initialization", 0.51), average("session_initialization", 0.5), 12),
    "SlowTokenRefresh": (average("token_refresh", 1.1), average("token_refresh", 1), 12),
    "SlowConnectionRecovery": (average("connection_recovery", 5.1), average("connection_recovery", 5), 12),
    "SlowStatePersistence": (average("state_persistence", 0.21), average("state_persistence", 0.2), 12),
    "SlowCacheOperation": (average("cache_operation", 0.06), average("cache_operation", 0.05), 12),
}


def test_every_alert_has_a_case() -> None:
    assert [rule["alert"] for rule in alerts()] == list(CASES)


def check_alert(
    name: str, checks: list[tuple[dict[str, str], str, bool]], directory: Path, files: tuple[Path, ...] = FILES
) -> None:
    """`promtool test rules`: for each check the series, the time of the evaluation, and whether the alert fires then."""
    rule = next(rule for rule in alerts() if rule["alert"] == name)
    firing = {"labels": "{" + f'severity="{rule["labels"]["severity"]}"' + "}", "value": 1}
    document = {
        "rule_files": [str(path) for path in files],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in input_series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count by (severity) (ALERTS{{alertname="{name}",alertstate="firing"}}) > 0',
                        "eval_time": at,
                        "exp_samples": [firing] if fires else [],
                    }
                ],
            }
            for input_series, at, fires in checks
        ],
    }
    path = directory / "test.yaml"
    path.write_text(yaml.safe_dump(document))
    promtool = sources.prometheus().parent / "promtool"
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", CASES)
def test_fires_and_does_not_fire(name: str, tmp_path: Path) -> None:
    """Firing after its time, pending just before where it has one, silent on the other series."""
    fires, silent, minutes = CASES[name]
    rule = next(rule for rule in alerts() if rule["alert"] == name)
    checks = [(fires, f"{minutes}m", True), (silent, f"{minutes}m", False)]
    if rule.get("for") is not None:
        checks.append((fires, "1s", False))
    check_alert(name, checks, tmp_path)


def test_a_rollout_that_was_rolled_back_is_not_reported_as_stalled(tmp_path: Path) -> None:
    """`SessionRolloutRolledBack` reports it. A stalled rollback, or another stalled rollout in the namespace, is reported."""
    stalled, ended = condition("Stalled", "True"), condition("RolledBack", "True")
    checks = [
        ({**stalled, **ended}, "11m", False),
        ({**stalled, **condition("RolledBack", "Unknown")}, "11m", True),
        ({**stalled, **condition("RolledBack", "True", OTHER_ROLLOUT)}, "11m", True),
    ]
    check_alert("SessionRolloutStalled", checks, tmp_path)
    check_alert("SessionRolloutRolledBack", [({**stalled, **ended}, "1m", True)], tmp_path)


def test_an_emergency_that_has_ended_is_not_reported(tmp_path: Path) -> None:
    """And not a short one. Of a rollout that waits in its hold, whatever its evidence is."""
    running = {**condition("Ready", "Unknown"), **condition("EvidenceAvailable", "True")}
    checks = [
        ({DISABLED: "0x10 1x200 0x1000", **running}, "241m", False),
        ({DISABLED: "0x10 2x1000", **running}, "241m", False),
        ({DISABLED: "0x10 2x1000", **running}, "255m", True),
    ]
    check_alert("SessionRolloutFeatureDisabled", checks, tmp_path)


def test_an_operator_that_is_stopped_is_reported(tmp_path: Path) -> None:
    """D24: its series end, or were never there; a new leader within five minutes is none."""
    checks = [
        ({"sessionrollout_leader": "1x30 _x100"}, "45m", True),
        ({"other": "1x100"}, "10m", True),
        ({"sessionrollout_leader": "1x30 _x3 1x100"}, "45m", False),
        ({'sessionrollout_leader{pod="a"}': "1x30 _x100", 'sessionrollout_leader{pod="b"}': "0x30 1x100"}, "45m", False),
    ]
    check_alert("SessionRolloutOperatorDown", checks, tmp_path)


@pytest.mark.lab
@pytest.mark.parametrize("name", ["SessionRolloutOperatorDown", "SessionRolloutReconcileOverdue"])
def test_the_leader_of_another_operator_does_not_count(name: str, tmp_path: Path) -> None:
    """The chart's rules, where two operators with their own `namespaces` are scraped by one Prometheus."""
    values = {"prometheusRule": {"enabled": True}, "namespaces": ["shop"]}
    [rules] = [document["spec"] for document in build.render(values) if document["kind"] == "PrometheusRule"]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules))
    ours, other = (f'sessionrollout_leader{{namespace="{namespace}"}}' for namespace in ("session-rollout", "desk"))
    down, up = {ours: "0x2000", other: "1x2000"}, {ours: "1x2000", other: "0x2000"}
    expected = [(down, True), (up, False)] if name == "SessionRolloutOperatorDown" else [(down, False), (up, True)]
    checks = [({RECONCILED: "0x2000", **leaders}, "10m", fires) for leaders, fires in expected]
    check_alert(name, checks, tmp_path, (path,))


def test_rules_lint() -> None:
    promtool = sources.prometheus().parent / "promtool"
    subprocess.run([promtool, "check", "rules", "--lint-fatal", *FILES], check=True, capture_output=True)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"index"} == set(CASES)
    for path in RUNBOOKS.glob("*.md"):
        if path.stem != "index":
            text = path.read_text()
            assert text.startswith(f"# {path.stem}\n")
            assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == SECTIONS, path.name


def test_the_example_has_the_rules_of_its_guide() -> None:
    """For who has no PrometheusRule: the same three, in a ConfigMap."""
    example = yaml.safe_load((ROOT / "examples" / "session-persistence-alerts.yaml").read_text())
    shipped = yaml.safe_load((RULES / "session.yaml").read_text())
    assert yaml.safe_load(example["data"]["rules.yaml"])["groups"] == shipped["groups"][:1]


def test_annotations_are_sentences() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]


def test_operator_alerts_name_only_metrics_that_are_exported() -> None:
    exported = {name for name in dir(telemetry) if name.isupper()}
    known = {family._name for name in exported if hasattr(family := getattr(telemetry, name), "_name")}
    for rule in alerts():
        for metric in re.findall(r"sessionrollout_\w+", rule["expr"]):
            assert metric.removesuffix("_total") in known, rule["alert"]
