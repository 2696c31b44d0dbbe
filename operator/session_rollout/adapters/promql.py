"""Parses PromQL: errors, the largest range, and the queries of a metric. No server is involved."""

from datetime import timedelta
from typing import Any, Final

import promql_parser

from session_rollout.api.rollout import Metric

COHORTS: Final = ("on", "off")
LONGEST_RANGE: Final = timedelta(days=365)  # the longest hold, so that a longer range could never be filled


def parse(query: str) -> Any:
    """The syntax tree of a query. Raises ValueError with the parser's sentence."""
    return promql_parser.parse(query)


def largest_range(query: str) -> timedelta:
    """The oldest data that the query uses: the largest sum of range and offset on a path of its tree.

    A subquery adds its range to what it contains; `@` is not a range. Raises ValueError with a sentence.
    """
    try:
        reach = _reach(parse(query))
    except RecursionError:
        raise ValueError("the query is nested too deeply") from None
    if reach > LONGEST_RANGE:
        raise ValueError(f"the query uses data of {reach.days} days; the maximum is {LONGEST_RANGE.days} days")
    return reach


def _reach(node: Any) -> timedelta:
    nothing = timedelta(0)
    match node:
        case promql_parser.MatrixSelector():
            return (node.range or nothing) + (node.vector_selector.offset or nothing)
        case promql_parser.VectorSelector():
            return node.offset or nothing
        case promql_parser.SubqueryExpr():
            return (node.range or nothing) + (node.offset or nothing) + _reach(node.expr)
        case promql_parser.BinaryExpr():
            return max(_reach(node.lhs), _reach(node.rhs))
        case promql_parser.Call():
            return max((_reach(argument) for argument in node.args), default=nothing)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            return _reach(node.expr)
    return nothing


def queries_of(metric: Metric) -> tuple[str, ...]:
    """The PromQL of a metric: one query, or good and total for each cohort."""
    if metric.query is not None:
        return (metric.query,)
    assert metric.cohorts is not None
    return tuple(
        query.replace("$cohort", cohort) for cohort in COHORTS for query in (metric.cohorts.good, metric.cohorts.total)
    )
