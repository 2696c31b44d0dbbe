"""The chart's Grafana dashboards, built with Grafana's own library: the fleet, one rollout, session persistence.

Every query uses the dashboard's variables only; the demo runs each of them against a real Prometheus.
"""

from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.chart.panels import AWAITED, ONE, Board, Panel, built, condition
from tools.chart.session_dashboard import SESSION

FLEET: Final = Board(
    "sessionrollout-fleet",
    "SessionRollout: fleet",
    "Every rollout, and the operator itself.",
    {
        "Health": (
            Panel(
                "Leader",
                "Whether a replica holds the Lease.",
                "short",
                {"leads": "max(sessionrollout_leader)"},
                single=True,
                span=4,
                words={1: ("yes", "green"), 0: ("none", "red")},
            ),
            Panel(
                "Rollouts",
                "Rollouts that the operator reconciles.",
                "short",
                {"rollouts": "count(sessionrollout_info)"},
                single=True,
                span=4,
            ),
            Panel(
                "Overdue",
                "Rollouts that have not been reconciled for much longer than expected.",
                "short",
                {"overdue": "max(sessionrollout_overdue_rollouts)"},
                1,
                single=True,
                span=4,
            ),
            Panel(
                "Stalled",
                "Rollouts that require manual intervention.",
                "short",
                {"stalled": 'sum(sessionrollout_condition{type="Stalled",status="True"})'},
                1,
                single=True,
                span=4,
            ),
            Panel(
                "Without evidence",
                "Rollouts whose metrics have no usable value.",
                "short",
                {"missing": 'sum(sessionrollout_condition{type="EvidenceAvailable",status="False"})'},
                1,
                single=True,
                span=4,
            ),
            Panel(
                "Approvals awaited",
                "Rollouts that require manual approval.",
                "short",
                {"awaited": "sum(sessionrollout_approval_awaited)"},
                single=True,
                span=4,
            ),
        ),
        "Rollouts": (
            Panel(
                "Audience",
                "Share of users that the running step gives the features to.",
                "percentunit",
                {"{{namespace}}/{{name}}": "sessionrollout_audience_ratio"},
                span=12,
            ),
            Panel(
                "Running phase",
                "Number of the running phase, counted from 1.",
                "short",
                {"{{namespace}}/{{name}}": "sessionrollout_phase_index"},
                span=12,
            ),
            Panel(
                "Rollouts by status",
                "Progressing, Paused, Stalled, Promoted, RolledBack or Aborted.",
                "short",
                {"{{status}}": "count by (status) (sessionrollout_info)"},
                span=12,
            ),
            Panel(
                "Rollbacks by guard",
                "Rollbacks in the last day, by the guard that caused them.",
                "short",
                {"{{guard}}": "sum by (guard) (increase(sessionrollout_rollbacks_total[1d])) or vector(0)"},
                span=12,
            ),
            Panel(
                "Rows left to copy",
                "Rows that migrations still have to copy.",
                "short",
                {
                    "{{namespace}}/{{name}} {{migration}}": 'sum by (namespace, name, migration) (sessionrollout_migration_rows{kind="total"}) - sum by (namespace, name, migration) (sessionrollout_migration_rows{kind="done"})'
                },
                span=12,
            ),
            Panel(
                "Reconciliations",
                "Reconciliations per second: those that changed a status, and those that did not.",
                "ops",
                {"{{result}}": "sum by (result) (rate(sessionrollout_reconcile_total[5m]))"},
                span=12,
            ),
        ),
        "Operator": (
            Panel(
                "Reconcile duration",
                "Time from reading a rollout to the written status, 95th percentile.",
                "s",
                {"p95": "histogram_quantile(0.95, sum by (le) (rate(sessionrollout_reconcile_duration_seconds_bucket[5m])))"},
            ),
            Panel(
                "API requests",
                "Requests to the API server per second, by status code.",
                "reqps",
                {"{{code}}": "sum by (code) (rate(sessionrollout_rest_client_requests_total[5m]))"},
            ),
            Panel(
                "Query duration",
                "Time that metric providers take to respond, 95th percentile.",
                "s",
                {
                    "{{provider}}": "histogram_quantile(0.95, sum by (provider, le) (rate(sessionrollout_provider_request_duration_seconds_bucket[5m])))"
                },
            ),
            Panel(
                "Queries",
                "Queries to metric providers per second, by result.",
                "ops",
                {"{{provider}} {{result}}": "sum by (provider, result) (rate(sessionrollout_provider_requests_total[5m]))"},
            ),
            Panel(
                "Oldest reconciliation",
                "Time since the rollout that has waited longest was reconciled.",
                "s",
                {"seconds": "time() - min(sessionrollout_last_reconcile_timestamp_seconds)"},
                300,
            ),
            Panel(
                "Memory",
                "Resident memory of the operator.",
                "bytes",
                {"{{instance}}": "process_resident_memory_bytes and on (instance) sessionrollout_leader"},
            ),
        ),
    },
)

ROLLOUT: Final = Board(
    "sessionrollout-rollout",
    "SessionRollout: one rollout",
    "Where one rollout is, the checks that decide about it, and its migrations.",
    {
        "Status": (
            Panel(
                "Status",
                "The status of the rollout, the running phase and the step.",
                "short",
                {"{{status}}: {{phase}} {{step}}": f"sessionrollout_info{ONE}"},
                single=True,
                named=True,
                span=8,
            ),
            Panel(
                "Last reconciliation",
                "Time since the rollout was last reconciled.",
                "s",
                {"ago": f"time() - max(sessionrollout_last_reconcile_timestamp_seconds{ONE})"},
                300,
                single=True,
            ),
            Panel(
                "Approval",
                "Whether the rollout requires manual approval.",
                "short",
                {"awaited": f"max(sessionrollout_approval_awaited{ONE})"},
                single=True,
                words=AWAITED,
            ),
            condition(
                "Ready",
                "The condition Ready.",
                "Ready",
                {1: ("promoted", "green"), 0: ("progressing", "blue"), -1: ("stopped", "red")},
            ),
            condition(
                "Stalled", "Whether it requires manual intervention.", "Stalled", {1: ("yes", "red"), 0: ("no", "green")}
            ),
            condition(
                "Evidence",
                "Whether every metric has a usable value.",
                "EvidenceAvailable",
                {1: ("available", "green"), 0: ("not needed now", "blue"), -1: ("missing", "red")},
            ),
            condition("Paused", "Whether a user, the spec or a guard paused it.", "Paused", AWAITED),
            Panel(
                "Audience of the last rollback",
                "Share of users who had the features when the last rollback began; none without a rollback.",
                "percentunit",
                {"share": f"max(sessionrollout_rollback_audience_ratio{ONE}) or vector(0)"},
                single=True,
                span=4,
                words={0: ("none", "green")},
            ),
            Panel(
                "Detection of the last rollback",
                "Time from publishing the last audience to the decision to roll it back; none without a rollback.",
                "s",
                {"time": f"max(sessionrollout_rollback_detection_seconds{ONE}) or vector(0)"},
                single=True,
                span=4,
                words={0: ("none", "green")},
            ),
        ),
        "Progress": (
            Panel(
                "Audience",
                "Share of users that the running step gives the features to.",
                "percentunit",
                {"share": f"max(sessionrollout_audience_ratio{ONE})"},
                span=12,
            ),
            Panel(
                "Running phase",
                "Number of the running phase, counted from 1.",
                "short",
                {"phase": f"max(sessionrollout_phase_index{ONE})"},
                span=12,
            ),
            Panel(
                "Rows of migrations",
                "Rows in total, done and quarantined.",
                "short",
                {"{{migration}} {{kind}}": f"sum by (migration, kind) (sessionrollout_migration_rows{ONE})"},
                span=12,
            ),
            Panel(
                "Failed migrations",
                "Migrations that require manual intervention.",
                "short",
                {"failed": f"max(sessionrollout_migrations_failed{ONE})"},
                1,
                span=12,
            ),
        ),
        "Checks": (
            Panel(
                "Values and bounds of checks",
                "The latest value and the bound of each criterion, guard and gate, in base units.",
                "short",
                {
                    "{{kind}} {{check}}": f"max by (kind, check) (sessionrollout_check_value{ONE})",
                    "{{kind}} {{check}}: bound": f"max by (kind, check) (sessionrollout_check_bound{ONE})",
                },
                span=24,
            ),
        ),
    },
    of_rollout=True,
)


BOARDS: Final = {"fleet": FLEET, "rollout": ROLLOUT, "session": SESSION}


def dashboards() -> dict[str, str]:
    """Name to JSON of each."""
    return {name: JSONEncoder(sort_keys=True, indent=2).encode(built(board).build()) + "\n" for name, board in BOARDS.items()}
