"""The query for a metric now and in earlier seasons: means over a window, with the number of the season in the label `season`.

The query of the metric is not changed: an `offset` of a subquery moves all that is in it. Series are averaged, because the labels of a
metric may be others than those of three weeks ago. NaN, such as 0/0 without traffic, is no part of a mean.
"""

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Final

from session_rollout.adapters.promql import REMEMBERED, is_long, parse
from session_rollout.adapters.promql_scan import in_one_line, without_text
from session_rollout.adapters.promql_values import is_there_without_series, series_of
from session_rollout.api.metrics import Metric, SeasonalBaseline
from session_rollout.api.quantities import duration

LABEL: Final = "season"
NOW: Final = "0"
SECOND: Final = timedelta(seconds=1)
SHORTEST_STEP: Final = timedelta(minutes=1)
POINTS: Final = 30


def query_of_seasons(metric: Metric, ago: Sequence[timedelta]) -> str | None:
    """The query; None where earlier seasons cannot be read, see `_has_past`."""
    settings = metric.seasonal
    if settings is None or metric.query is None or not _has_past(metric.query):
        return None
    window, step = duration(settings.window), step_of(settings)
    text = in_one_line(metric.query)
    values = f"({'vector' if _is_scalar(text) else ''}({text}) > -Inf < Inf)"
    means = (
        f"avg(avg_over_time({values}[{_length(window)}:{_length(step)}]{_offset(length)}))" for length in (timedelta(0), *ago)
    )
    return " or ".join(f'label_replace({mean}, "{LABEL}", "{number}", "", "")' for number, mean in enumerate(means))


def step_of(settings: SeasonalBaseline) -> timedelta:
    """The time between two values of a mean. They are at whole multiples of it, so that a mean changes no more often."""
    return max(SHORTEST_STEP, duration(settings.window) // POINTS)


@lru_cache(REMEMBERED)
def _has_past(query: str) -> bool:
    """Whether a value in the past says that the metric was measured then.

    Not if a part is about a fixed time, and not if there is a value where no series is, as with `or vector(0)`: each week without
    history would be one of zeros. What the parser does not know may be such a query, as with `default` of MetricsQL.
    """
    if is_long(query) or "@" in without_text(query):
        return False
    try:
        return bool(series_of(query)) and not is_there_without_series(query)
    except ValueError:
        return False


@lru_cache(REMEMBERED)
def _is_scalar(query: str) -> bool:
    """Whether the result is a scalar, of which there is no subquery."""
    try:
        parse(f"({query})[1m:1m]")
    except ValueError:
        return True
    return False


def _offset(length: timedelta) -> str:
    return f" offset {_length(length)}" if length else ""


def _length(length: timedelta) -> str:
    return f"{length // SECOND}s"
