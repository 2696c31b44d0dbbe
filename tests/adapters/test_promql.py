"""PromQL without a server: errors, bounds, how far back a query looks, and what may be missing: D3, D4, D21, R5.

Not here: ratios (test_promql_ratios.py), and queries that nobody would write (test_promql_fuzz.py).
"""

import time
from dataclasses import dataclass
from datetime import timedelta

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_rollout.adapters import promql
from session_rollout.adapters.promql import (
    LONGEST_QUERY,
    Intervals,
    effective_range,
    largest_range,
    problem_of,
)
from session_rollout.adapters.promql_scan import scanned
from session_rollout.api.metrics import Metric
from session_rollout.settings import Dialect, Provider

PROMETHEUS, THANOS, METRICS_QL = Dialect.PROMETHEUS, Dialect.THANOS, Dialect.METRICS_QL
RANGES = [
    ("up", 0),
    ("rate(x[5m])", 300),
    ("rate(x[5m] offset 1h)", 3_900),
    ("x offset 2m", 120),
    ("x offset -2m", 0),
    ("max_over_time(rate(x[5m])[1h:1m])", 3_900),
    ("sum(rate(a[1m])) / sum(rate(b[10m]))", 600),
    ("-(rate(x[2m]))", 120),
    ("histogram_quantile(0.95, sum by (le) (rate(x_bucket[5m])))", 300),
    ('sum(rate({"http.requests", "http.status"="500"}[5m]))', 300),
    ("x / (x @ 1700000000)", 0),
    ("rate(x[5m] @ end())", 300),
    ("1 - 2", 0),
]


@pytest.mark.parametrize(("query", "seconds"), RANGES)
def test_largest_range(query: str, seconds: int) -> None:
    """How far back a query looks."""
    assert largest_range(query).total_seconds() == seconds


@pytest.mark.parametrize(("query", "seconds"), [row for row in RANGES if "offset -" not in row[0]])
def test_scan_is_never_shorter_than_the_parser(query: str, seconds: int) -> None:
    """D21: what is assumed of a query that cannot be parsed holds for those that can."""
    assert max((reach for reach, _ in scanned(query)), default=timedelta(0)).total_seconds() == seconds


LONG = " + 1" * 70
LENGTHS = st.sampled_from(["5m", "1h30m", "90s", "1500ms"])
OFFSETS = st.just("") | LENGTHS.map(" offset {}".format)
SELECTORS = st.sampled_from(["x", "offset", "limit", "anchored", "or", '{__name__="x", a="[9h] offset (9h)"}', "on:by"])
STEPS = st.just("") | LENGTHS


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A larger query."""
    return st.one_of(
        st.builds("max_over_time({}[{}:{}]{})".format, inner, LENGTHS, STEPS, OFFSETS),
        st.builds("max_over_time(({})[{}:{}]{})".format, inner, LENGTHS, STEPS, OFFSETS),
        st.builds("({} - on (offset, a) {})".format, inner, inner),
        st.builds("topk by (a) (scalar({}), -{})".format, inner, inner),
        st.builds('label_replace({}, "a", "[9h]", "b", "")'.format, inner),
    )


QUERIES = st.recursive(
    st.builds("{}{}".format, SELECTORS, OFFSETS) | st.builds("rate({}[{}]{})".format, SELECTORS, LENGTHS, OFFSETS),
    grown,
    max_leaves=8,
)


@given(QUERIES)
def test_scan_finds_what_the_parser_finds(query: str) -> None:
    """D21: with a range or without one, so that scrape and look-back count alike."""
    longest, unknown = _longest(query), _longest(query + LONG)
    assert longest is not None
    assert longest == unknown


def _longest(query: str) -> timedelta | None:
    return (
        None if problem_of(query) else effective_range(Metric.model_construct(name="m", query=query, cohorts=None, window=None))
    )


BOUNDS = {
    "nesting": "(" * 1000 + "up" + ")" * 1000,
    "a nesting that is not closed": "(" * 1000,
    "a range": "avg_over_time(up[999999w])",
    "an offset": "up offset 9999y",
    "an offset that no clock holds": "up offset 999999999y",
    "a range that no clock holds": "rate(up[99999999y])",
    "the sum of ranges": "max_over_time(rate(x[300d])[300d:1d])",
    "length": " + ".join(["up"] * 500),
    "a range in MetricsQL": "rollup_rate(up[999999w])",
    "a fixed time": "rate(x[5m] @ 1700000000)",
}


@pytest.mark.usefixtures("prose")
@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("name", BOUNDS)
def test_query_that_no_server_can_use_is_a_problem_of_the_spec(name: str, dialect: Dialect) -> None:
    """R5: one sentence, whatever the dialect, and nothing that stops the loop of a rollout."""
    problem = problem_of(BOUNDS[name], dialect)
    assert problem is not None
    assert problem.startswith("the query ")
    assert "\n" not in problem
    with pytest.raises(ValueError, match="the query"):
        largest_range(BOUNDS[name])


def test_long_chain_is_no_nesting() -> None:
    """R5: a thousand operators, as many as the length allows, are a query as any other."""
    query = "+".join(["a"] * (LONGEST_QUERY // 2))
    assert problem_of(query, PROMETHEUS) is None
    assert effective_range(Metric(name="m", query=query)) == timedelta(minutes=5)


def test_each_query_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: an invalid query, too, is not parsed again at each reconciliation."""
    parsed: list[str] = []
    parse = promql.parse

    def counted(query: str) -> object:
        parsed.append(query)
        return parse(query)

    monkeypatch.setattr(promql, "parse", counted)
    for query in ("rate(parsed_once)", "rate(parsed_once[5m])"):
        for _ in range(3):
            problem_of(query, PROMETHEUS)
            effective_range(Metric(name="m", query=query))
    assert parsed == ["rate(parsed_once)", "rate(parsed_once[5m])"]


class Panic(BaseException):
    """What Rust raises."""


Panic.__name__ = "PanicException"


def test_panic_of_the_parser_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: it is no Exception of Python, and would end the process."""

    def panic(_: str) -> None:
        raise Panic

    monkeypatch.setattr(promql_parser, "parse", panic)
    with pytest.raises(ValueError, match="cannot be parsed"):
        promql.parse("up")


# --- D21: dialects

WRONG = ["rate(x)", "x[5m", "sum(x", "x{", "", "rate(x[5m])[1h]", 'x{a=~"("}', "x y"]
NEWER = [
    "rate(x[5m] anchored)",
    "increase(x[5m] smoothed)",
    "rate(x[1h - 5m])",
    "x offset (1m + 1m)",
    "x offset step()",
    "brand_new_function(x[5m])",
    "xrate(x[5m])",
    "x </ 5",
]
KNOWN = [
    '{"http.requests"}',
    'sum by ("a.b") ({"c.d"})',
    "limitk(2, x)",
    "double_exponential_smoothing(x[5m], 0.1, 0.1)",
    "info(x)",
]
METRICS_QL_ONLY = ["rate(x)", "x default 0", "with (f = rate(x[5m])) f", "rollup_rate(x[5i])", "keep_last_value(x)", "x[1.5h]"]


@pytest.mark.parametrize("query", WRONG)
def test_definite_errors_stall_the_rollout(query: str) -> None:
    """D21: no version of Prometheus accepts these; VictoriaMetrics is asked."""
    assert problem_of(query, PROMETHEUS) is not None
    assert problem_of(query, THANOS) is not None
    assert problem_of(query, METRICS_QL) is None


@pytest.mark.parametrize("query", NEWER + KNOWN)
def test_newer_syntax_is_left_to_the_server(query: str) -> None:
    """D21: what the parser does not know yet is no error of the spec."""
    assert problem_of(query, PROMETHEUS) is None


@pytest.mark.parametrize("query", METRICS_QL_ONLY)
def test_metrics_ql_is_not_judged(query: str) -> None:
    """D21: nor is it without a warm-up."""
    assert problem_of(query, METRICS_QL) is None
    intervals = Intervals.of(Provider(url="http://x", dialect=METRICS_QL))
    assert effective_range(Metric(name="m", query=query), intervals) >= timedelta(minutes=5, seconds=30)


SCANNED = [
    ("rate(x[5m] @ end() offset 1h) keep_metric_names", 3_900),
    ("(x[5i] @ start())[1h:]", 5_100),
    ("rollup_rate(x[1h30m])", 5_400),
    ('rollup_rate(x{a="[9h]"}[1.5h])', 5_400),
    ("rate(x[5m] smoothed) # [9h]", 300),
    ("rate(x[1h + 5m])", 3_900),
    ("rate(x[90])", 90),
    ("new(rate(x[5m])[1h:5m] offset 1d)", 90_300),
    ("new(x[5m], sum by (job) (y[10m]))", 600),
    ("(rate(a[5m]) + rate(b[1h]))[1h:] default 0", 7_200),
    ("rate(x[5m*12])", 3_600),
    ("rate(x[(1h + 30m) / 2])", 2_700),
    ("rate(x[1h - 5m])", 3_900),
    ("rate(x[2 ^ 10])", 1_024),
    ("rate(x[max(1m, 2h)])", 7_200),
    ("rate(x[-(-5m)])", 300),
    ("x offset -(5m * 2) default 0", 600),
    ("rate(x[step() * 2])", 600),
    ("new(x[5i])", 1_500),
    ("rate(m[60i])", 18_000),
    ("x offset (1h)", 3_600),
    ("x offset(1h)", 3_600),
    ("x OFFSET ((1h))", 3_600),
    ("x offset (1h + 30m)", 5_400),
    ("x offset (1h*2)", 7_200),
    ("x offset (3600)", 3_600),
    ("x offset -(1h)", 3_600),
    ("x offset +5m", 300),
    ("x offset min(1h, (2h))", 7_200),
    ("x offset -max(1h, 2h) + y offset 1m", 7_200),
    ("x offset (min(1h, (2h)) * (1 + 1))", 14_400),
    ("rate(x[1m] offset\n( 1h\n+ 1h )) or vector(0)", 7_260),
    ("x offset step()", 300),
    ("rate(x[2h] anchored offset 1h)", 10_800),
    ("rate(x[2h]) keep_metric_names offset 1h", 10_800),
    ("limit[5m] or offset[1h] or anchored + default[2h]", 7_200),
    ("sum(offset - 5) by (a) default if[2h]", 7_200),
    ("x == bool 1 + y atan2 nan offset", 0),
    ("sum(x offset (1h)) by (offset) + offset", 3_600),
    ("(x offset (1h))[1h:(5m)] offset (1h)", 10_800),
]
UNREADABLE = [
    "new(x[$__interval])",
    "WITH (w = 2h) rate(m[w])",
    "rate(x[5m / 0])",
    "rate(x[5m; 1])",
    "rate(x[9^9^9^9] smoothed)",
    "new(x offset $__interval)",
    "new(x offset (1h",
    "new(x offset (w))",
    "new(x offset f(1h))",
]


@pytest.mark.parametrize(("query", "seconds"), SCANNED)
def test_ranges_of_queries_that_cannot_be_parsed(query: str, seconds: int) -> None:
    """D21: `[5m]` is found, in strings and comments it is not, and a subquery adds to what it contains."""
    assert max(reach for reach, _ in scanned(query)).total_seconds() == seconds


ELSEWHEN = ["x @ (now() - 1h)", "rate(e[5m] @ (end() - 1h))", "x @ end", "with (t = 1700000000) x @ t", "x default 1 @ -(1h)"]


@pytest.mark.parametrize("query", ELSEWHEN)
def test_time_that_cannot_be_read_is_not_guessed(query: str) -> None:
    """D21: data of an hour ago would count as evidence after a warm-up of five minutes."""
    problem = problem_of(query, METRICS_QL)
    assert problem is not None
    assert "@" in problem


def test_metrics_ql_of_a_fixed_time_alone_is_no_query_about_users() -> None:
    """As in PromQL."""
    assert problem_of("rollup_rate(x[5i] @ 1700000000)", METRICS_QL) is not None
    assert problem_of("rollup_rate(x[5i]) / (x @ 1700000000)", METRICS_QL) is None


@pytest.mark.parametrize("query", UNREADABLE)
def test_range_that_cannot_be_read_is_not_guessed(query: str) -> None:
    """D21: a warm-up that is too short takes the time before for evidence; every dialect says what to write."""
    for dialect in (PROMETHEUS, METRICS_QL):
        assert problem_of(query, dialect) is not None


# --- D4: how long after a change a metric is about the time before it


@dataclass(frozen=True)
class Warmup:
    """A metric, and its range in minutes with Prometheus' own intervals."""

    query: str
    window: str | None
    minutes: float


WARMUPS = {
    "an instant selector": Warmup("up", None, 5),
    "a range": Warmup("rate(x[10m])", None, 11),
    "both": Warmup("rate(x[10m]) / y", None, 11),
    "a short range and an instant selector": Warmup("rate(x[1m]) / y", None, 5),
    "a subquery": Warmup("max_over_time(x[1h:1m])", None, 65),
    "a subquery that is scanned": Warmup("max_over_time(x[1h:1m])" + LONG, None, 65),
    "a subquery of a newer server": Warmup("max_over_time(x[1h:(1m)])", None, 65),
    "a range with the sample before it": Warmup("rate(x[1h] anchored)", None, 65),
    "a range with the sample before its offset": Warmup("rate(x[1h] smoothed offset (1h))", None, 125),
    "a range that is scanned": Warmup("rate(x[1h])" + LONG, None, 61),
    "a parameter": Warmup("topk(scalar(rate(x[1h])), y)", None, 61),
    "an offset": Warmup("x offset 1h", None, 65),
    "an offset in parentheses": Warmup("x offset (1h)", None, 65),
    "a range with an offset in parentheses": Warmup("sum_over_time(x[1m] offset (1h))", None, 62),
    "a recording rule": Warmup("job:errors:ratio_rate5m", "5m", 7),
    "a recording rule over a day": Warmup("job:errors:ratio_rate1d", "1d", 1442),
    "a recording rule in a subquery": Warmup("max_over_time(job:errors:ratio_rate5m[1h:1m])", "5m", 67),
    "a window that is shorter than the range": Warmup("rate(x[10m])", "5m", 17),
    "a window that is longer than the range": Warmup("rate(x[10m])", "20m", 32),
    "no window": Warmup("up", "0s", 5),
    "no selector": Warmup("vector(1)", None, 0),
}


@pytest.mark.parametrize("name", WARMUPS)
def test_effective_range(name: str) -> None:
    """D4: scrape, rule and look-back count, and so does the window that a metric declares; it comes on top of a range."""
    row = WARMUPS[name]
    metric = Metric.model_construct(name="m", query=row.query, cohorts=None, window=row.window)
    assert effective_range(metric) == timedelta(minutes=row.minutes)


def test_effective_range_of_cohorts_is_the_longest() -> None:
    """D4: four queries, one range."""
    cohorts = {"good": 'increase(g{v="$cohort"}[5m])', "total": 'increase(t{v="$cohort"}[1h])'}
    assert effective_range(Metric.model_validate({"name": "m", "cohorts": cohorts})) == timedelta(minutes=61)


def test_intervals_are_those_of_the_provider() -> None:
    """D4: as the lab has them."""
    provider = Provider(url="http://x", lookback_delta="5s", scrape_interval="1s", rule_interval="2s")
    intervals = Intervals.of(provider)
    assert effective_range(Metric(name="m", query="up"), intervals) == timedelta(seconds=5)
    assert effective_range(Metric(name="m", query="rate(x[10s])"), intervals) == timedelta(seconds=11)
    assert effective_range(Metric(name="m", query="up", window="10s"), intervals) == timedelta(seconds=13)


@pytest.mark.parametrize("operator", ["+", " or ", "-", "^", " == bool ", " and on(a) "])
def test_long_query_is_scanned_and_judged_by_the_server(operator: str) -> None:
    """The time of the parser grows with the square of the operators; the ranges are known all the same."""
    query = operator.join(["rate(a[7m])", *["a"] * 150, "rate(a[10m] offset 5m)"])
    begun = time.process_time()
    assert problem_of(query) is None
    assert effective_range(Metric(name="m", query=query), Intervals()) == timedelta(minutes=16)
    assert time.process_time() - begun < 0.1
    assert problem_of(query + "[400d]") is not None
