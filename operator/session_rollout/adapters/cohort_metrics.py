"""Metrics that are counted in blocks: their PromQL, and why some of them can never be counted."""

from datetime import timedelta
from functools import lru_cache
from typing import Final

from session_rollout.adapters.promql import (
    REMEMBERED,
    SCRAPES_OF_BLOCK,
    SECOND,
    Intervals,
    block_of,
    is_long,
    parse,
)
from session_rollout.adapters.promql_blocks import BY_COHORT, OF_ALL, PLAIN, CohortQueries, buckets, counter_of
from session_rollout.adapters.promql_spelling import MISREAD, length_text
from session_rollout.api.metrics import Cohorts, Control, EventCounts, Metric
from session_rollout.api.quantities import duration, format_duration

BYTES: Final = "must have a character in place of an escape such as `\\x41`"


def counting_of(metric: Metric, control: Control, intervals: Intervals) -> CohortQueries:
    """The PromQL of a metric that is counted in blocks. Raises ValueError with a sentence, also for lengths that cannot work."""
    cohorts, block = metric.counted, block_of(control, intervals)
    assert cohorts is not None
    if problem := _problem_of_lengths(control, intervals):
        raise ValueError(problem)
    return _queries(cohorts, block, intervals.scrape)


def totals_of(metric: Metric, length: timedelta) -> tuple[str, str]:
    """PromQL for all bad events and all events of the last time of this length, whoever had the feature. Raises ValueError."""
    cohorts, span = metric.counted, length_text(length)
    assert cohorts is not None
    if cohorts.histogram is not None:
        observed, within = (
            f"sum(increase({each}[{span}]))"
            for each in buckets(cohorts.histogram, duration(cohorts.over or ""), _labels(cohorts))
        )
        return f"{observed} - {within}", observed
    counters = (counter_of(text or "", _labels(cohorts)) for text in (cohorts.bad, cohorts.total))
    bad, total = (f"sum(increase({counter}[{span}]))" for counter in counters)
    return bad, total


def uncounted(metric: Metric, control: Control, intervals: Intervals) -> str | None:
    """Why a metric of counters can never be counted, as a sentence; None if it can, and for every other metric."""
    try:
        if metric.counted is not None:
            counting_of(metric, control, intervals)
    except ValueError as error:
        return str(error)
    return None


def _problem_of_lengths(control: Control, intervals: Intervals) -> str | None:
    block, least = block_of(control, intervals), SCRAPES_OF_BLOCK * intervals.scrape
    if block % SECOND:
        return "`control.block` must be a whole number of seconds"
    if block < least:
        return f"`control.block` must be at least {format_duration(least)}, which is {SCRAPES_OF_BLOCK} scrape intervals"
    if duration(control.lag) < intervals.scrape:
        return f"`control.lag` must be at least {format_duration(intervals.scrape)}, which is the scrape interval"
    return None


def _labels(counters: Cohorts | EventCounts) -> tuple[str, ...]:
    """The labels by which its events are grouped."""
    return BY_COHORT if isinstance(counters, Cohorts) else OF_ALL


@lru_cache(REMEMBERED)
def _queries(counters: Cohorts | EventCounts, block: timedelta, scrape: timedelta) -> CohortQueries:
    """Parsed once: a rollout needs it at each reconciliation."""
    labels = _labels(counters)
    if counters.histogram is not None:
        over = duration(counters.over or "")
        _judge("histogram", counters.histogram, labels, over)
        return CohortQueries.of_histogram(counters.histogram, over, block, scrape, labels)
    if isinstance(counters, Cohorts) and counters.sum is not None:
        values, count = counters.sum, counters.count or ""
        _judge("sum", values, labels)
        _judge("count", count, labels)
        return CohortQueries.of_sums(values, count, block, scrape)
    bad, total = counters.bad or "", counters.total or ""
    _judge("bad", bad, labels)
    _judge("total", total, labels)
    return CohortQueries.of_counters(bad, total, block, scrape, labels)


def _judge(field: str, selector: str, labels: tuple[str, ...], over: timedelta | None = None) -> None:
    """Raises ValueError, with the field in its sentence, for what selects no counter or histogram."""
    if MISREAD.search(selector):  # the parser reads bytes as characters
        raise ValueError(f"`{field}` {BYTES}")
    if is_long(selector):
        raise ValueError(f"`{field}` {PLAIN}")
    try:
        parse(selector)
    except ValueError as error:
        raise ValueError(f"`{field}` is invalid PromQL: {str(error).splitlines()[0]}") from error
    try:
        counter_of(selector, labels) if over is None else buckets(selector, over, labels)
    except ValueError as error:
        raise ValueError(f"`{field}` {error}") from error
