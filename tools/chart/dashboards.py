"""The chart's Grafana dashboards, built with Grafana's own library: the fleet, one rollout, session persistence.

Every query uses the dashboard's variables only; the demo runs each of them against a real Prometheus.
"""

from dataclasses import dataclass, field
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, BigValueTextMode, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
    VariableSort,
)

from tools.chart import GENERATED

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
ONE: Final = '{namespace="$namespace",name="$name"}'
WIDTH: Final = 24
Words = dict[int, tuple[str, str]]
AWAITED: Final[Words] = {1: ("yes", "orange"), 0: ("no", "green")}


@dataclass(frozen=True)
class Panel:
    """One panel: its queries by legend, Grafana's name of its unit, the value from which it is red.

    `words` maps a value to a text and a color. A panel that is `named` shows the legend instead of the value.
    """

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    red: float | None = None
    single: bool = False
    named: bool = False
    span: int = 8
    words: Words = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels."""

    uid: str
    title: str
    description: str
    rows: dict[str, tuple[Panel, ...]]
    of_rollout: bool = False


def _share(metric: str, good: str) -> str:
    return f"sum(rate({metric}{{{good}}}[5m])) / sum(rate({metric}[5m]))"


def _condition(title: str, description: str, kind: str, words: Words) -> Panel:
    """1 for True and 0 otherwise; where words distinguish False from Unknown, False is -1."""

    def series(status: str) -> str:
        return f'max(sessionrollout_condition{{namespace="$namespace",name="$name",type="{kind}",status="{status}"}})'

    query = f"{series('True')} - {series('False')}" if -1 in words else series("True")
    return Panel(title, description, "short", {kind.lower(): query}, single=True, span=4, words=words)


def _average(metric: str) -> str:
    return f"sum(rate({metric}_seconds_sum[5m])) / sum(rate({metric}_seconds_count[5m]))"


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
                "Rows left to move",
                "Rows that migrations still have to move.",
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
                "Time that metric providers take to answer, 95th percentile.",
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
            _condition(
                "Ready",
                "The condition Ready.",
                "Ready",
                {1: ("promoted", "green"), 0: ("progressing", "blue"), -1: ("stopped", "red")},
            ),
            _condition(
                "Stalled", "Whether it requires manual intervention.", "Stalled", {1: ("yes", "red"), 0: ("no", "green")}
            ),
            _condition(
                "Evidence",
                "Whether every metric has a usable value.",
                "EvidenceAvailable",
                {1: ("available", "green"), 0: ("not needed now", "blue"), -1: ("missing", "red")},
            ),
            _condition("Paused", "Whether a user, the spec or a guard paused it.", "Paused", AWAITED),
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

OPERATIONS: Final = {
    "Session initialization": ("session_initialization", 0.5),
    "Token refresh": ("token_refresh", 1.0),
    "Connection recovery": ("connection_recovery", 5.0),
    "State persistence": ("state_persistence", 0.2),
    "Cache operation": ("cache_operation", 0.05),
}

SESSION: Final = Board(
    "sessionrollout-session",
    "Session persistence",
    "The key metrics of session persistence, with the thresholds of its deployment guide.",
    {
        "Errors": (
            Panel(
                "Session error rate",
                "Share of sessions that failed; above 1 % the rollout is rolled back.",
                "percentunit",
                {"errors": "max(session_error_rate)"},
                0.01,
            ),
            Panel(
                "Token refresh failures",
                "Share of token refreshes that failed.",
                "percentunit",
                {"failures": "max(token_refresh_failure_rate)"},
                0.05,
            ),
            Panel(
                "Connection recovery",
                "Share of lost connections that were recovered; below 95 % is a failure.",
                "percentunit",
                {"recovered": "min(connection_recovery_success_rate)"},
            ),
            Panel(
                "Errors by type",
                "Errors per minute; more than five of one type are critical.",
                "short",
                {"{{type}}": "sum by (type) (rate(session_errors_total[5m])) * 60"},
                5,
                span=12,
            ),
            Panel(
                "Users affected",
                "Share of users affected by a critical bug.",
                "percentunit",
                {"affected": "max(critical_bug_affected_users_ratio)"},
                0.05,
                span=12,
            ),
        ),
        "Performance": (
            *(
                Panel(
                    title,
                    f"Average time; the threshold is {limit * 1000:g} ms.",
                    "s",
                    {"average": _average(metric)},
                    limit,
                    span=6,
                )
                for title, (metric, limit) in OPERATIONS.items()
            ),
            Panel(
                "Page load",
                "Time to load a page, 95th percentile.",
                "s",
                {"p95": "histogram_quantile(0.95, sum by (le) (rate(page_load_seconds_bucket[5m])))"},
                span=12,
            ),
        ),
        "Experience": (
            Panel(
                "Cache hits",
                "Share of lookups answered by the cache; the target is above 80 %.",
                "percentunit",
                {"hits": _share("cache_requests_total", 'result="hit"')},
                span=6,
            ),
            Panel(
                "Forms restored",
                "Share of forms that were restored; the target is above 98 %.",
                "percentunit",
                {"restored": _share("form_recoveries_total", 'result="success"')},
                span=6,
            ),
            Panel(
                "Cross-tab syncs",
                "Share of syncs that succeeded; the target is above 95 %.",
                "percentunit",
                {"synced": _share("cross_tab_syncs_total", 'result="success"')},
                span=6,
            ),
            Panel(
                "Data loss",
                "Incidents in the last day; the target is none.",
                "short",
                {"incidents": "sum(increase(data_loss_incidents_total[1d]))"},
                1,
                span=6,
            ),
            Panel(
                "Satisfaction", "Average score of the user survey.", "short", {"score": "avg(user_satisfaction_score)"}, span=8
            ),
            Panel(
                "Support tickets", "Number of open support tickets.", "short", {"tickets": "sum(support_tickets_open)"}, span=8
            ),
            Panel(
                "Storage",
                "Share of the allowed session storage that is used.",
                "percentunit",
                {"used": "sum(session_storage_bytes) / sum(session_storage_limit_bytes)"},
                0.9,
                span=8,
            ),
        ),
        "Features": (
            Panel(
                "Features by user",
                "Share of flag evaluations that returned `on`.",
                "percentunit",
                {
                    "{{flag}}": 'sum by (flag) (rate(feature_exposures_total{variant="on"}[5m])) / sum by (flag) (rate(feature_exposures_total[5m]))'
                },
                span=24,
            ),
        ),
    },
)

BOARDS: Final = {"fleet": FLEET, "rollout": ROLLOUT, "session": SESSION}


def dashboards() -> dict[str, str]:
    """Name to JSON of each."""
    return {name: JSONEncoder(sort_keys=True, indent=2).encode(_built(board).build()) + "\n" for name, board in BOARDS.items()}


def _built(board: Board) -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard(board.title).uid(board.uid).description(f"{board.description} {GENERATED}").tags(["sessionrollout"])
    )
    made = made.readonly().refresh("30s").time("now-6h", "now").timezone("browser").tooltip(1)
    made = made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    if board.of_rollout:
        made = made.with_variable(_variable("namespace", "label_values(sessionrollout_info, namespace)"))
        made = made.with_variable(_variable("name", 'label_values(sessionrollout_info{namespace="$namespace"}, name)'))
    number = 1
    for title, panels in board.rows.items():
        made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(_panel(panel, number))
            number += 1
    return made


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    made = dashboard.QueryVariable(name).query(query).datasource(SOURCE)
    return made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)


def _panel(panel: Panel, number: int) -> stat.Panel | timeseries.Panel:
    made: stat.Panel | timeseries.Panel
    if panel.single:
        made = stat.Panel().graph_mode(BigValueGraphMode.NONE)
        made = made.text_mode(BigValueTextMode.NAME if panel.named else BigValueTextMode.AUTO)
    else:
        tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)
        made = timeseries.Panel().line_width(1).fill_opacity(8).tooltip(tooltip)
    made = made.id(number).title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    made = made.span(panel.span).height(4 if panel.single else 8)
    # Without steps of its own, Grafana draws what is 80 or more in red.
    steps = [Threshold(value=None, color="green")] + ([] if panel.red is None else [Threshold(value=panel.red, color="red")])
    made = made.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.words:
        words = {str(value): ValueMappingResult(text=text, color=color) for value, (text, color) in panel.words.items()}
        made = made.mappings([ValueMap(options=words)])
    for letter, (legend, query) in zip("ABCDEF", panel.queries.items(), strict=False):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(letter)
        made = made.with_target(target.instant() if panel.named else target)  # or earlier steps would be shown, too
    return made
