"""PromQL that nobody would write: no exception but ValueError, in bounded time and memory (R5).

`make fuzz-promql SECONDS=600` runs it for that long, each time with other queries.
"""

import contextlib
import os
import resource
import time
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from session_rollout.adapters import promql
from session_rollout.adapters.promql import LONGEST_QUERY, LONGEST_RANGE, Intervals
from session_rollout.adapters.promql_ratios import is_zero_without_traffic, ratios
from session_rollout.adapters.promql_scan import nesting, scanned
from session_rollout.api.metrics import Metric
from session_rollout.settings import Dialect

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "0"))
SLOWEST: Final = 5.0  # seconds of processor time for everything about one query
MOST_MEMORY: Final = 512 * 1024  # KiB more than before
MOST_WAIT: Final = LONGEST_RANGE + Intervals().lookback + Intervals().scrape + Intervals().rule

NAMES = st.sampled_from(
    ["up", "http_requests_total", "job:errors:rate5m", "a", "offset", "by", "sum", "nan", "bool", "with", "é"]
)
LENGTHS = st.sampled_from(
    ["5m", "1h30m", "0s", "999999999y", "5", "1.5h", "5i", "-5m", "5m+1h", "step()", "1m:10s", "1h:", "", ":"]
)
VALUES = st.sampled_from(
    ["x", "5..", "(", "(a{1000}){1000}", ".*", "", "\\\\", '\\"', "\\xff", "\\u00e9", "[5m]", "{", "(?i)a|b"]
)
OPERATORS = st.sampled_from(
    [
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        "==",
        "!=",
        ">",
        "<",
        ">=",
        "<=",
        "and",
        "or",
        "unless",
        "atan2",
        "</",
        ">/",
        "default",
        "if",
        "ifnot",
        ",",
        "@",
    ]
)
FUNCTIONS = st.sampled_from(
    [
        "sum",
        "rate",
        "increase",
        "vector",
        "absent",
        "histogram_quantile",
        "count_values",
        "topk",
        "label_replace",
        "info",
        "rollup",
        "x",
    ]
)
SUFFIXES = ["offset {}", "@ {}", "[{}]", "[{}] anchored", "[{}] smoothed"]
NOISE = st.text(alphabet="(){}[]\"'`#,:@+-*/ =~!<>.5mhs\\\n\0é\U0001f642abyoffset", max_size=40)
MATCHER = st.builds('{}{}"{}"'.format, NAMES, st.sampled_from(["=", "!=", "=~", "!~", "==", ""]), VALUES)
SELECTOR = st.builds(
    "{}{}".format, NAMES | st.just(""), st.just("") | st.lists(MATCHER, max_size=4).map(lambda each: "{" + ",".join(each) + "}")
)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A larger expression from smaller ones."""
    return st.one_of(
        st.builds("{} {} {}".format, inner, OPERATORS, inner),
        st.builds("{} {} on(a) group_left(b) {}".format, inner, OPERATORS, inner),
        st.builds("{}({})".format, FUNCTIONS, inner),
        st.builds("{}({}, {})".format, FUNCTIONS, inner, inner),
        st.builds("{} by (a, b) ({})".format, FUNCTIONS, inner),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds(lambda body, suffix, length: f"{body} {suffix.format(length)}", inner, st.sampled_from(SUFFIXES), LENGTHS),
    )


GRAMMAR = st.recursive(SELECTOR | st.sampled_from(["1", "1e400", "NaN", "0x1F", '"text"', "17"]), grown, max_leaves=30)
REPEATED = st.builds(lambda part, times, end: (part * times)[:3000] + end, GRAMMAR | NOISE, st.integers(2, 3000), NOISE)


@st.composite
def broken(draw: st.DrawFn) -> str:
    """A query of the grammar with noise in its middle, cut off, or both."""
    query = draw(GRAMMAR)
    place = draw(st.integers(0, len(query)))
    return query[:place] + draw(NOISE) + (query[place:] if draw(st.booleans()) else "")


QUERIES = GRAMMAR | broken() | NOISE | st.text(max_size=300) | REPEATED


def check(query: str) -> None:
    """Everything that this project does with a query, short of asking a server."""
    begun = time.process_time()
    try:
        assert promql.largest_range(query) <= LONGEST_RANGE
    except ValueError as error:
        assert str(error)  # noqa: PT017 - both are right
    problems = [promql.problem_of(query, dialect) for dialect in Dialect]
    assert all(problem is None or (problem and "\n" not in problem and len(problem) <= LONGEST_QUERY) for problem in problems)
    metric = Metric.model_construct(name="m", query=query, cohorts=None, window="1m")
    assert promql.effective_range(metric) <= MOST_WAIT
    assert isinstance(promql.spelled(metric), str)
    assert all(ratio.numerator and ratio.denominator for ratio in ratios(query))
    assert is_zero_without_traffic(query) in {True, False}
    assert nesting(query) >= 0
    with contextlib.suppress(ValueError):  # a length that cannot be read
        assert len(scanned(query)) <= len(query)
    assert time.process_time() - begun < SLOWEST


def memory() -> int:
    """Largest memory of this process, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(QUERIES)
def test_query_raises_nothing_but_value_errors(query: str) -> None:
    """R5: a few hundred queries in each run of the tests."""
    check(query)


def test_queries_for_as_long_as_asked() -> None:
    """R5: as many queries as there is time for, each round with another seed; without `FUZZ_SECONDS`, one round."""
    before, ends, rounds = memory(), time.monotonic() + SECONDS, 0

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(QUERIES)
    def body(query: str) -> None:
        check(query)

    while rounds == 0 or time.monotonic() < ends:
        body()
        rounds += 1
    print(f"{rounds * 100:,} queries, {memory() - before:,} KiB more memory")
    assert memory() - before < MOST_MEMORY
