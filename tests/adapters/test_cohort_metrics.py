"""Metrics that are counted by cohort, before anything is asked: their problems, their ranges and their spelling."""

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.cohort_metrics import counting_of
from session_rollout.adapters.prometheus import PrometheusSource
from session_rollout.adapters.prometheus_blocks import ends_of_blocks
from session_rollout.adapters.promql import Intervals, effective_range, queries_of, spelled
from session_rollout.adapters.promql_blocks import CohortQueries
from session_rollout.api.metrics import DEFAULT_CONTROL, Control, Metric
from session_rollout.ports import Queries
from session_rollout.settings import Dialect, Provider

START = datetime(2026, 1, 5, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
FAILURES = {"bad": 'sessions_total{result="failure"}', "total": "sessions_total"}
LOADS = {"histogram": "page_load_seconds", "over": "500ms"}
LATENCY = {"sum": "page_load_seconds_sum", "count": "page_load_seconds_count"}
EVERY_15S = Intervals(scrape=timedelta(seconds=15))


def counted(**cohorts: str) -> Metric:
    return Metric.model_validate({"name": "m", "cohorts": {"feature": "checkout", **cohorts}})


def queries(metric: Metric, control: Control = DEFAULT_CONTROL, provider: str = "default", **fields: str) -> Queries:
    """What a provider that scrapes every 15 seconds says."""
    known = Provider.model_validate({"url": "http://127.0.0.1:1", "scrape_interval": "15s", **fields})
    return asyncio.run(PrometheusSource({"default": known}, WallClock(), 1).read_queries(provider, (metric,), control))


@pytest.mark.parametrize("cohorts", [FAILURES, LOADS, LATENCY])
@pytest.mark.parametrize("fields", [{}, {"block": "75s"}, {"lag": "15s"}, {"block": "1h", "lag": "5m"}])
def test_metrics_without_a_problem(cohorts: dict[str, str], fields: dict[str, str]) -> None:
    assert queries(counted(**cohorts), Control.model_validate(fields)).problems == ()


@pytest.mark.usefixtures("prose")
@pytest.mark.parametrize(
    ("cohorts", "fields", "problem"),
    [
        (FAILURES, {"block": "74s"}, "`control.block` must be at least 1 min 15 s, which is 5 scrape intervals"),
        (LOADS, {"block": "90s500ms"}, "`control.block` must be a whole number of seconds"),
        (LOADS, {"lag": "14s"}, "`control.lag` must be at least 15 s, which is the scrape interval"),
        ({**FAILURES, "bad": "rate(a[5m])"}, {}, "`bad` must select a counter and do nothing else"),
        ({**FAILURES, "total": "a offset 5m"}, {}, "`total` must select a counter and do nothing else"),
        ({**FAILURES, "total": "+".join(["a"] * 1_000)}, {}, "`total` must select a counter and do nothing else"),
        ({**FAILURES, "bad": 'a{variant="on"}'}, {}, "`bad` must not select by the label `variant`: the operator groups by it"),
        ({**FAILURES, "total": 'a{cell=~".+"}'}, {}, "`total` must not select by the label `cell`: the operator groups by it"),
        ({**FAILURES, "bad": "a{"}, {}, "`bad` is invalid PromQL: unexpected end of input inside braces"),
        ({**FAILURES, "total": '{b=~".*"}'}, {}, "`total` is invalid PromQL: vector selector must contain"),
        ({**FAILURES, "bad": 'a{b="\\xff"}'}, {}, "`bad` must have a character in place of an escape such as `\\x41`"),
        ({**LATENCY, "sum": "rate(a[5m])"}, {}, "`sum` must select a counter and do nothing else"),
        ({**LATENCY, "count": 'a{cell="1"}'}, {}, "`count` must not select by the label `cell`: the operator groups by it"),
        ({**LOADS, "histogram": "rate("}, {}, "`histogram` is invalid PromQL: unclosed left parenthesis"),
        ({**LOADS, "histogram": '{job="shop"}'}, {}, "`histogram` must select a histogram by its name"),
    ],
)
def test_problems_of_counters(cohorts: dict[str, str], fields: dict[str, str], problem: str) -> None:
    """One sentence each, with the field; a metric of queries has none of them."""
    control, metric = Control.model_validate(fields), counted(**cohorts)
    [told] = queries(metric, control).problems
    assert told.startswith(f"`metrics` m: {problem}")
    assert "\n" not in told
    with pytest.raises(ValueError, match=re.escape(problem)):
        counting_of(metric, control, EVERY_15S)
    assert queries(Metric(name="m", query="up"), control).problems == ()


def test_problems_of_an_unknown_provider() -> None:
    assert len(queries(counted(**FAILURES), provider="other").problems) == 1


def test_a_long_text_is_not_parsed() -> None:
    """A parser that takes a quarter of a second would hold the event loop."""
    metric, begun = counted(bad="a", total="+".join(["a"] * 1_024)[:2_048]), time.process_time()
    for _ in range(20):
        with pytest.raises(ValueError, match="total"):
            counting_of(metric, Control(), EVERY_15S)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("scrape", "block"), [("5s", MINUTE), ("12s", MINUTE), ("15s", 75 * SECOND), ("13s300ms", 67 * SECOND), ("1m", 5 * MINUTE)]
)
def test_the_block_of_a_provider(scrape: str, block: timedelta) -> None:
    """A minute or five scrape intervals, in whole seconds."""
    intervals = Intervals.of(Provider(url="http://127.0.0.1:1", scrape_interval=scrape))
    wanted = CohortQueries.of_counters(FAILURES["bad"], FAILURES["total"], block, intervals.scrape)
    assert counting_of(counted(**FAILURES), Control(), intervals) == wanted


def test_a_histogram_is_counted() -> None:
    wanted = CohortQueries.of_histogram("page_load_seconds", timedelta(seconds=0.5), 2 * MINUTE, EVERY_15S.scrape)
    assert counting_of(counted(**LOADS), Control(block="2m"), EVERY_15S) == wanted


def test_a_mean_is_counted() -> None:
    wanted = CohortQueries.of_sums(LATENCY["sum"], LATENCY["count"], 2 * MINUTE, EVERY_15S.scrape)
    assert counting_of(counted(**LATENCY), Control(block="2m"), EVERY_15S) == wanted


def test_ranges() -> None:
    """Two blocks, the lag and a scrape; VictoriaMetrics shows new data later."""
    metric, control = counted(**FAILURES), Control(block="2m", lag="30s")
    assert queries(metric, control).ranges == {"m": timedelta(minutes=4, seconds=45)}
    assert queries(metric).ranges == {"m": 2 * 75 * SECOND + MINUTE + 15 * SECOND}
    assert queries(metric, control, dialect=Dialect.METRICS_QL).ranges == {"m": timedelta(minutes=5, seconds=15)}
    assert effective_range(metric) == 2 * 5 * MINUTE + MINUTE + MINUTE, "by the defaults of Prometheus"


@given(st.integers(0, 10**7), st.integers(75, 600), st.integers(15, 120))
def test_a_range_is_long_enough(milliseconds: int, seconds: int, lag: int) -> None:
    """Whenever a change is: after its range, the first block that no sample of the time before has is complete."""
    change, block = START + timedelta(milliseconds=milliseconds), seconds * SECOND
    first = ends_of_blocks(change + EVERY_15S.scrape, change + timedelta(days=1), block)[0]
    length = effective_range(counted(**FAILURES), EVERY_15S, Control(block=f"{seconds}s", lag=f"{lag}s"))
    assert first + lag * SECOND <= change + length < first + lag * SECOND + block + SECOND


def test_counters_are_no_queries() -> None:
    assert queries_of(counted(**FAILURES)) == queries_of(counted(**LOADS)) == ()


def test_equal_counters_are_spelled_equally() -> None:
    written = counted(bad='{result="failure", __name__="sessions_total"}', total="sessions_total{}  # all")
    assert spelled(written) == spelled(counted(**FAILURES)) == queries(written).spelled["m"]
    assert spelled(counted(histogram="page_load_seconds{}", over="0s500ms")) == spelled(counted(**LOADS))


def test_other_counters_are_spelled_otherwise() -> None:
    """Also a text that is no PromQL, such as one of VictoriaMetrics."""
    metrics = [
        counted(**FAILURES),
        counted(**LOADS),
        counted(**{**FAILURES, "feature": "search"}),
        counted(**{**FAILURES, "bad": "errors_total"}),
        counted(**{**FAILURES, "total": "requests_total"}),
        counted(bad=FAILURES["total"], total=FAILURES["bad"]),
        counted(sum=FAILURES["bad"], count=FAILURES["total"]),
        counted(**LATENCY),
        counted(**{**LOADS, "over": "1s"}),
        counted(**{**LOADS, "histogram": "load_seconds"}),
        counted(**{**FAILURES, "bad": "a{"}),
        Metric(name="m", query="sessions_total"),
    ]
    assert len({spelled(metric) for metric in metrics}) == len(metrics)
