"""Panels and boards as plain values, and how Grafana's SDK builds them."""

from dataclasses import dataclass, field
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
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


def share(metric: str, good: str) -> str:
    """PromQL: the share of events of a counter that match a label selector."""
    return f"sum(rate({metric}{{{good}}}[5m])) / sum(rate({metric}[5m]))"


def condition(title: str, description: str, kind: str, words: Words) -> Panel:
    """1 for True and 0 otherwise; where words distinguish False from Unknown, False is -1."""

    def series(status: str) -> str:
        return f'max(sessionrollout_condition{{namespace="$namespace",name="$name",type="{kind}",status="{status}"}})'

    query = f"{series('True')} - {series('False')}" if -1 in words else series("True")
    return Panel(title, description, "short", {kind.lower(): query}, single=True, span=4, words=words)


def average(metric: str) -> str:
    """PromQL: the mean duration of a histogram in seconds."""
    return f"sum(rate({metric}_seconds_sum[5m])) / sum(rate({metric}_seconds_count[5m]))"


def built(board: Board) -> dashboard.Dashboard:
    """A board as a dashboard of Grafana."""
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
