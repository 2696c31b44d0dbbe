"""Reads PromQL without a server: its errors, how far back it looks, and the queries of a metric. Ratios are in `promql_ratios`.

Three rules. Bounds come first, so that no query costs more than a moment. A query that the parser refuses is refused only where
no server could accept it, see `problem_of`. What cannot be parsed, or not in a moment, is scanned for ranges, see `scanned`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

import promql_parser

from session_rollout.adapters.promql_scan import FIXED, in_one_line, nesting, scanned, without_text
from session_rollout.adapters.promql_spelling import MISREAD, length_text, spelling
from session_rollout.api.metrics import DEFAULT_CONTROL, Cohorts, Control, Metric
from session_rollout.api.quantities import duration
from session_rollout.settings import Dialect, Provider

COHORTS: Final = ("on", "off")
SHORTEST_BLOCK: Final = timedelta(minutes=1)  # unless `control.block` is shorter
SCRAPES_OF_BLOCK: Final = 5
SECOND: Final = timedelta(seconds=1)
LONGEST_RANGE: Final = timedelta(days=365)  # the longest hold, so that a longer range could never be filled
LONGEST_QUERY: Final = 2048  # as the API has it
DEEPEST: Final = 100
MOST_OPERATORS: Final = 64  # the time of the parser grows with the square of their number, and it holds the event loop
REMEMBERED: Final = 4096
NOTHING: Final = timedelta(0)
METRICSQL_LATENCY: Final = timedelta(seconds=30)  # VictoriaMetrics' `-search.latencyOffset`
# What newer versions of Prometheus accept and the parser does not: modifiers of ranges, arithmetic in durations, trim operators.
NEWER_SYNTAX: Final = re.compile(r"\b(?:anchored|smoothed)\b|\boffset\s*(?:[-+]\s*)?(?:\(|[a-z_]+\s*\()|</|>/")
OPERATOR: Final = re.compile(r"[-+*/%^<>=!]|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)
MATCHERS: Final = re.compile(r"\{[^{}]*\}")
IN_BRACKETS: Final = re.compile(r"\[([^\[\]]*)\]")
ARITHMETIC: Final = re.compile(r"[-+*/%^(]")
UNKNOWN_FUNCTION: Final = "unknown function"  # the parser gives its errors as text alone


@dataclass(frozen=True)
class Intervals:
    """What a server adds to the ranges in a query; by default, Prometheus' own defaults."""

    lookback: timedelta = timedelta(minutes=5)
    scrape: timedelta = timedelta(minutes=1)
    rule: timedelta = timedelta(minutes=1)
    latency: timedelta = NOTHING

    @classmethod
    def of(cls, provider: Provider) -> "Intervals":
        """Those of a provider."""
        latency = METRICSQL_LATENCY if provider.dialect is Dialect.METRICS_QL else NOTHING
        return cls(
            duration(provider.lookback_delta), duration(provider.scrape_interval), duration(provider.rule_interval), latency
        )


@dataclass(frozen=True)
class Reach:
    """How far back a query looks: the largest sum of ranges and offsets on a path to a selector of each kind; None without one."""

    ranged: timedelta | None = None  # to a selector with a range, that range included
    instant: timedelta | None = None  # to a selector without one

    @property
    def largest(self) -> timedelta:
        """What the query itself says."""
        return max(self.ranged or NOTHING, self.instant or NOTHING)


@dataclass(frozen=True)
class Reading:
    """What is known about a query."""

    reach: Reach = Reach()
    fault: str | None = None  # why no server can use the query
    refused: str | None = None  # why the parser refuses it
    newer: bool = False  # whether a newer server may accept what the parser refuses


def parse(query: str) -> Any:
    """The syntax tree of a query. Raises ValueError with a sentence."""
    if len(query) > LONGEST_QUERY:
        raise ValueError(f"the query has {len(query)} characters; the maximum is {LONGEST_QUERY}")
    if (depth := nesting(query)) > DEEPEST:
        raise ValueError(f"the query is nested too deeply: {depth} levels; the maximum is {DEEPEST}")
    try:
        return promql_parser.parse(query)
    except BaseException as error:
        if (
            isinstance(error, ValueError) or type(error).__name__ != "PanicException"
        ):  # of Rust: no Exception, and not importable
            raise
        raise ValueError("the query cannot be parsed") from None


def largest_range(query: str) -> timedelta:
    """The oldest data that the query uses: the largest sum of range and offset on a path of its tree.

    A subquery adds its range to what it contains; `@` is not a range. Raises ValueError with a sentence.
    """
    reading = _read(query)
    if problem := reading.fault or reading.refused:
        raise ValueError(problem)
    return reading.reach.largest


def problem_of(query: str, dialect: Dialect = Dialect.PROMETHEUS, *, patiently: bool = False) -> str | None:
    """Why a server with this dialect can never evaluate the query; None when it can, or when only the server knows.

    MetricsQL is not judged. Of Prometheus and Thanos, a newer version may know a function or syntax that the parser does not
    know: there, too, the server decides, and rejects what it does not know with the verdict ProviderError. A query that takes the
    parser long is judged only `patiently`, where nothing else waits.
    """
    reading = _read(query, patiently=True) if patiently else _read(query)
    if reading.fault is not None or dialect is Dialect.METRICS_QL or reading.newer:
        return reading.fault
    return reading.refused


def block_of(control: Control, intervals: Intervals) -> timedelta:
    """The length of the blocks in which events are counted by cohort."""
    if control.block is not None:
        return duration(control.block)
    return max(SHORTEST_BLOCK, -(-SCRAPES_OF_BLOCK * intervals.scrape // SECOND) * SECOND)


def lag_of(control: Control, intervals: Intervals) -> timedelta:
    """How long after the end of a block the server has all of its events, and shows them."""
    return duration(control.lag) + intervals.latency


def _counted_range(control: Control, intervals: Intervals) -> timedelta:
    """How long after a change the first block that is only about the time after it can be read, at most.

    Its query reads samples from one scrape interval before it begins, so that the block must begin one scrape interval after
    the change. Blocks begin at multiples of their length: the next one begins almost one block later if that time has just
    missed a multiple. Then come the block itself and the lag.
    """
    return intervals.scrape + 2 * block_of(control, intervals) + lag_of(control, intervals)


def effective_range(metric: Metric, intervals: Intervals = Intervals(), control: Control = DEFAULT_CONTROL) -> timedelta:
    """How long after a change the metric is still about the time before it.

    A metric that is counted in blocks is, until the first block about the time after it can be read. Of queries, a selector
    with a range needs one scrape more. A selector without a range gives samples as old as the look-back. If the metric declares
    the `window` that one sample of its series covers, that and one evaluation of the rule come in addition to a range, and
    instead of the look-back.
    """
    if metric.counted is not None:
        return _counted_range(control, intervals)
    declared = duration(metric.window or "0s")
    window = declared + intervals.scrape + intervals.rule if declared else None
    instant = intervals.lookback if window is None else window
    lengths = [NOTHING if window is None else window]
    for query in queries_of(metric):
        reach = _read(query).reach
        lengths += [] if reach.ranged is None else [reach.ranged + (window or intervals.scrape)]
        lengths += [] if reach.instant is None else [reach.instant + instant]
    longest = max(lengths)
    return longest + intervals.latency if longest else longest


def queries_of(metric: Metric) -> tuple[str, ...]:
    """The PromQL of a metric as it is sent: one query, or good and total for each cohort; none if it is counted in blocks."""
    if metric.query is not None:
        return (metric.query,)
    good, total = (metric.cohorts.good, metric.cohorts.total) if metric.cohorts is not None else (None, None)
    if good is None or total is None:
        return ()
    return tuple(query.replace("$cohort", cohort) for cohort in COHORTS for query in (good, total))


def has_fixed_time(query: str) -> bool:
    """Whether a part of the query is about a fixed time (`@`). Raises ValueError."""
    return any(fixed for *_, fixed in _selectors(parse(query)))


def spelled(metric: Metric) -> str:
    """The queries of a metric in one spelling, by which it is known: who writes them otherwise makes no other metric.

    Of a query that is not parsed, another spelling has other spaces or comments. Counters come with their feature, if they have
    one, and a histogram with its bound.
    """
    cohorts = metric.counted
    if cohorts is None:
        return "\n".join(_spelled(query) for query in queries_of(metric))
    bound = () if cohorts.over is None else (f"over {length_text(duration(cohorts.over))}",)
    counters = [_spelled(text) for text in (cohorts.bad, cohorts.total, cohorts.histogram) if text is not None]
    if not isinstance(cohorts, Cohorts):
        return "\n".join(("all users", *counters, *bound))
    values = [f"values {_spelled(text)}" for text in (cohorts.sum, cohorts.count) if text is not None]
    return "\n".join((f"feature {cohorts.feature}", *counters, *values, *bound))


@lru_cache(REMEMBERED)
def _spelled(query: str) -> str:
    text = in_one_line(query)
    if is_long(query) or MISREAD.search(text):
        return text
    try:
        return spelling(parse(query))
    except (ValueError, OverflowError, RecursionError):  # MetricsQL, a newer syntax, or a time that no clock has
        return text


@lru_cache(REMEMBERED)
def _read(query: str, *, patiently: bool = False) -> Reading:
    """Each query is read once, also one that is wrong: a rollout would parse it at each reconciliation."""
    if not patiently and len(query) <= LONGEST_QUERY and nesting(query) <= DEEPEST and is_long(query):
        return _scanned(query, Reading())
    try:
        tree = parse(query)
    except ValueError as error:
        text = str(error).splitlines()[0][:LONGEST_QUERY]
        if len(query) > LONGEST_QUERY or nesting(query) > DEEPEST:
            return Reading(fault=text)
        return _scanned(query, Reading(refused=text, newer=_may_be_newer(query, text)))
    try:
        selectors = tuple(_selectors(tree))
    except (OverflowError, ValueError):  # a length that is no timedelta
        return Reading(fault=f"the query uses data that is too old; the maximum is {LONGEST_RANGE.days} days")
    if selectors and all(fixed for *_, fixed in selectors):
        return Reading(fault=FIXED)
    return _bounded(Reading(_reach((reach, ranged) for reach, ranged, fixed in selectors if not fixed)))


def is_long(query: str) -> bool:
    """Whether the parser would take long. The server judges such a query."""
    return sum(1 for _ in OPERATOR.finditer(MATCHERS.sub("", without_text(query)))) > MOST_OPERATORS


def _scanned(query: str, reading: Reading) -> Reading:
    """The reading of a query that is not parsed."""
    try:
        return _bounded(replace(reading, reach=_reach(scanned(query))))
    except ValueError as unread:
        return Reading(fault=str(unread))


def _may_be_newer(query: str, error: str) -> bool:
    """Whether the parser may have refused a query because it does not know all that servers know."""
    bare = without_text(query)
    arithmetic = any(ARITHMETIC.search(inside) for inside in IN_BRACKETS.findall(bare))
    return error.startswith(UNKNOWN_FUNCTION) or arithmetic or NEWER_SYNTAX.search(bare) is not None


def _bounded(reading: Reading) -> Reading:
    if reading.reach.largest <= LONGEST_RANGE:
        return reading
    days = reading.reach.largest.days
    return Reading(fault=f"the query uses data of {days} days; the maximum is {LONGEST_RANGE.days} days")


def _reach(selectors: Iterable[tuple[timedelta, bool]]) -> Reach:
    ranged: list[timedelta] = []
    instant: list[timedelta] = []
    for reach, has_range in selectors:
        (ranged if has_range else instant).append(max(reach, NOTHING))
    return Reach(max(ranged, default=None), max(instant, default=None))


def _selectors(tree: Any) -> Iterator[tuple[timedelta, bool, bool]]:
    """Each selector: how far back it looks, whether it has a range, and whether `@` fixes its time. No recursion: trees are deep."""
    pending = [(tree, NOTHING, False)]
    while pending:
        node, before, fixed = pending.pop()
        match node:
            case promql_parser.MatrixSelector(vector_selector=selector):
                yield before + node.range + (selector.offset or NOTHING), True, fixed or _is_fixed(selector)
            case promql_parser.VectorSelector():
                yield before + (node.offset or NOTHING), False, fixed or _is_fixed(node)
            case promql_parser.SubqueryExpr():
                pending.append(
                    (node.expr, before + (node.range or NOTHING) + (node.offset or NOTHING), fixed or _is_fixed(node))
                )
            case _:
                pending += [(child, before, fixed) for child in children(node)]


def _is_fixed(node: Any) -> bool:
    return node.at is not None and node.at.type == promql_parser.AtModifierType.At


def children(node: Any) -> tuple[Any, ...]:
    """The expressions directly below one."""
    match node:
        case promql_parser.BinaryExpr():
            return (node.lhs, node.rhs)
        case promql_parser.Call():
            return tuple(node.args)
        case promql_parser.AggregateExpr() if node.param is not None:
            return (node.param, node.expr)
        case (
            promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr()
        ):
            return (node.expr,)
        case promql_parser.MatrixSelector():
            return (node.vector_selector,)
    return ()


def nodes(tree: Any) -> Iterator[Any]:
    """A node and everything below it."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        pending += reversed(children(node))
