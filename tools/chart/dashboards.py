"""The chart's Grafana dashboards, made with Grafana's own library: the fleet, one rollout, the session programme.

Every query uses the variables only; a test runs each against a Prometheus with data of a whole demo.
"""

from dataclasses import dataclass, field
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
    VariableSort,
)

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
ONE: Final = '{namespace="$namespace",name="$name"}'
WIDTH: Final = 24
Words = dict[int, tuple[str, str]]
AWAITED: Final[Words] = {1: ("yes", "orange"), 0: ("no", "green")}


@dataclass(frozen=True)
class Panel:
    """One panel: its queries by legend, Grafana's name of its unit, the value from which it is red.

    `words` says what a value is called, and its colour.
    """

    title: str
    says: str
    unit: str
    queries: dict[str, str]
    red: float | None = None
    single: bool = False
    span: int = 8
    words: Words = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels."""

    uid: str
    title: str
    says: str
    rows: dict[str, tuple[Panel, ...]]
    of_rollout: bool = False


def _share(metric: str, good: str) -> str:
    return f"sum(rate({metric}{{{good}}}[5m])) / sum(rate({metric}[5m]))"


def _condition(title: str, says: str, kind: str, words: Words) -> Panel:
    query = f'max(sessionrollout_condition{{namespace="$namespace",name="$name",type="{kind}"}})'
    return Panel(title, says, "short", {kind.lower(): query}, single=True, span=4, words=words)


def _average(metric: str) -> str:
    return f"sum(rate({metric}_seconds_sum[5m])) / sum(rate({metric}_seconds_count[5m]))"


FLEET: Final = Board(
    "sessionrollout-fleet",
    "SessionRollout: fleet",
    "Every rollout, and the operator itself.",
    {
        "Is it alive": (
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
                "Rollouts that are looked at.",
                "short",
                {"rollouts": "count(sessionrollout_percent_ratio)"},
                single=True,
                span=4,
            ),
            Panel(
                "Overdue loops",
                "Loops that missed their time.",
                "short",
                {"overdue": "max(sessionrollout_overdue_rollouts)"},
                1,
                single=True,
                span=4,
            ),
            Panel(
                "Need a person",
                "Rollouts with Stalled=True.",
                "short",
                {"stalled": 'sum(sessionrollout_condition{type="Stalled"} == bool 1)'},
                1,
                single=True,
                span=4,
            ),
            Panel(
                "Without evidence",
                "Rollouts whose metrics have no usable answer.",
                "short",
                {"blind": 'sum(sessionrollout_condition{type="EvidenceAvailable"} == bool 0)'},
                1,
                single=True,
                span=4,
            ),
            Panel(
                "Wait for approval",
                "Rollouts that wait for a person's yes.",
                "short",
                {"waiting": "sum(sessionrollout_approval_awaited)"},
                single=True,
                span=4,
            ),
        ),
        "What is it doing": (
            Panel(
                "Published share",
                "Share of users of the running step.",
                "percentunit",
                {"{{namespace}}/{{name}}": "sessionrollout_percent_ratio"},
                span=12,
            ),
            Panel(
                "Running phase", "Counted from 1.", "short", {"{{namespace}}/{{name}}": "sessionrollout_phase_index"}, span=12
            ),
            Panel(
                "Rows left to move",
                "Of migrations that move rows.",
                "short",
                {
                    "{{namespace}}/{{name}} {{migration}}": 'sum by (namespace, name, migration) (sessionrollout_migration_rows{kind="total"}) - sum by (namespace, name, migration) (sessionrollout_migration_rows{kind="done"})'
                },
                span=12,
            ),
            Panel(
                "Looks",
                "Looks at rollouts a second: those that changed a status, and those that did not.",
                "ops",
                {"{{result}}": "sum by (result) (rate(sessionrollout_reconcile_total[5m]))"},
                span=12,
            ),
        ),
        "What is wrong": (
            Panel(
                "Time of a look",
                "From reading a rollout to its written status, 95th percentile.",
                "s",
                {"p95": "histogram_quantile(0.95, sum by (le) (rate(sessionrollout_reconcile_time_seconds_bucket[5m])))"},
            ),
            Panel(
                "API requests",
                "Requests to the API server a second by answer.",
                "reqps",
                {"{{code}}": "sum by (code) (rate(sessionrollout_api_requests_total[5m]))"},
            ),
            Panel(
                "Time of a query",
                "Answers of metric providers, 95th percentile.",
                "s",
                {
                    "{{provider}}": "histogram_quantile(0.95, sum by (provider, le) (rate(sessionrollout_provider_request_duration_seconds_bucket[5m])))"
                },
            ),
            Panel(
                "Answers",
                "Answers of metric providers a second by result.",
                "ops",
                {"{{provider}} {{result}}": "sum by (provider, result) (rate(sessionrollout_provider_requests_total[5m]))"},
            ),
            Panel(
                "Not looked at for",
                "The longest that a rollout has not been looked at.",
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
    "Where one rollout is, what it is judged by, and what its migrations do.",
    {
        "Is it alive": (
            _condition(
                "Ready",
                "The condition Ready.",
                "Ready",
                {1: ("promoted", "green"), 0: ("stopped", "red"), -1: ("works", "blue")},
            ),
            _condition("Stalled", "Whether it needs a person.", "Stalled", {1: ("yes", "red"), 0: ("no", "green")}),
            _condition(
                "Evidence",
                "Whether every metric has a usable answer.",
                "EvidenceAvailable",
                {1: ("there", "green"), 0: ("missing", "red"), -1: ("not needed now", "blue")},
            ),
            _condition("Paused", "Whether a person, Git or a guard keeps it.", "Paused", AWAITED),
            Panel(
                "Approval",
                "Whether a person's yes is awaited.",
                "short",
                {"awaited": f"max(sessionrollout_approval_awaited{ONE})"},
                single=True,
                span=4,
                words=AWAITED,
            ),
            Panel(
                "Last look",
                "Time since it was last looked at.",
                "s",
                {"ago": f"time() - max(sessionrollout_last_reconcile_timestamp_seconds{ONE})"},
                300,
                single=True,
                span=4,
            ),
        ),
        "What is it doing": (
            Panel(
                "Published share",
                "Share of users of the running step.",
                "percentunit",
                {"share": f"max(sessionrollout_percent_ratio{ONE})"},
                span=12,
            ),
            Panel("Running phase", "Counted from 1.", "short", {"phase": f"max(sessionrollout_phase_index{ONE})"}, span=12),
            Panel(
                "Rows of migrations",
                "Total, done and quarantined.",
                "short",
                {"{{migration}} {{kind}}": f"sum by (migration, kind) (sessionrollout_migration_rows{ONE})"},
                span=12,
            ),
            Panel(
                "Failed migrations",
                "Those that wait for a person.",
                "short",
                {"failed": f"max(sessionrollout_migrations_failed{ONE})"},
                1,
                span=12,
            ),
        ),
        "What is it judged by": (
            Panel(
                "Values of metrics",
                "The latest answer of each metric, in base units.",
                "short",
                {"{{metric}}": f"max by (metric) (sessionrollout_check_value{ONE})"},
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
    "The key metrics of the session persistence programme, with its thresholds.",
    {
        "Errors": (
            Panel(
                "Session error rate",
                "Share of sessions that failed; above 1 % the programme rolls back.",
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
                "Share of lost connections that came back; below 95 % is a failure.",
                "percentunit",
                {"recovered": "min(connection_recovery_success_rate)"},
            ),
            Panel(
                "Errors by type",
                "Errors a minute; more than five of one type are critical.",
                "short",
                {"{{type}}": "sum by (type) (rate(session_errors_total[5m])) * 60"},
                5,
                span=12,
            ),
            Panel(
                "Users affected",
                "Share of users a critical bug affects.",
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
                "95th percentile.",
                "s",
                {"p95": "histogram_quantile(0.95, sum by (le) (rate(page_load_seconds_bucket[5m])))"},
                span=12,
            ),
        ),
        "Experience": (
            Panel(
                "Cache hits",
                "Share of look-ups; the target is above 80 %.",
                "percentunit",
                {"hits": _share("cache_requests_total", 'result="hit"')},
                span=6,
            ),
            Panel(
                "Forms restored",
                "Share of forms; the target is above 98 %.",
                "percentunit",
                {"restored": _share("form_recoveries_total", 'result="success"')},
                span=6,
            ),
            Panel(
                "Cross-tab syncs",
                "Share that succeeded; the target is above 95 %.",
                "percentunit",
                {"synced": _share("cross_tab_syncs_total", 'result="success"')},
                span=6,
            ),
            Panel(
                "Data loss",
                "Incidents in a day; the target is none.",
                "short",
                {"incidents": "sum(increase(data_loss_incidents_total[1d]))"},
                1,
                span=6,
            ),
            Panel("Satisfaction", "Survey score.", "short", {"score": "avg(user_satisfaction_score)"}, span=8),
            Panel("Support tickets", "Open tickets.", "short", {"tickets": "sum(support_tickets_open)"}, span=8),
            Panel(
                "Storage",
                "Session data kept, of what is allowed.",
                "percentunit",
                {"used": "sum(session_storage_bytes) / sum(session_storage_limit_bytes)"},
                0.9,
                span=8,
            ),
        ),
        "Features": (
            Panel(
                "Who has which feature",
                "Share of evaluations that answered on.",
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
    made = dashboard.Dashboard(board.title).uid(board.uid).description(board.says).tags(["sessionrollout"])
    made = made.readonly().refresh("30s").time("now-6h", "now").timezone("browser").tooltip(1)
    made = made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    if board.of_rollout:
        made = made.with_variable(_variable("namespace", "label_values(sessionrollout_percent_ratio, namespace)"))
        made = made.with_variable(_variable("name", 'label_values(sessionrollout_percent_ratio{namespace="$namespace"}, name)'))
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
    else:
        tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)
        made = timeseries.Panel().line_width(1).fill_opacity(8).tooltip(tooltip)
    made = made.id(number).title(panel.title).description(panel.says).unit(panel.unit).datasource(SOURCE)
    made = made.span(panel.span).height(4 if panel.single else 8)
    # Without steps of its own, Grafana draws what is 80 or more in red.
    steps = [Threshold(value=None, color="green")] + ([] if panel.red is None else [Threshold(value=panel.red, color="red")])
    made = made.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.words:
        words = {str(value): ValueMappingResult(text=text, color=color) for value, (text, color) in panel.words.items()}
        made = made.mappings([ValueMap(options=words)])
    for letter, (legend, query) in zip("ABCDEF", panel.queries.items(), strict=False):
        made = made.with_target(prometheus.Dataquery().expr(query).legend_format(legend).ref_id(letter))
    return made
